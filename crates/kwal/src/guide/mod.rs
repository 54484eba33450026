//! The guide: how to use kwal, what it promises, and what to do when something fails.
//!
//! | page | for |
//! | --- | --- |
//! | [quick start](quick_start) | the first hour: append, replay, follow, test |
//! | [the contract](contract) | each promise, its limits, and the tests that keep it |
//! | [what happens when](failures) | a leader dies, a response is lost, a topic is deleted, a disk is full, … |
//! | [recipes] | a database's log, failover, appends in doubt, many writers, mirrors, shutdown |
//! | [a topic for a log](topic_settings) | the settings of a topic and its brokers, and how to check them |
//! | [TLS and SASL](security) | encryption and authentication, also with services in the cloud |
//! | [tuning] | latency, throughput, memory: every setting with its default |
//! | [metrics and states](metrics) | metrics with their labels and alerts, states that print, where to look first |
//! | [troubleshooting] | every kind of error: what it means, why, what to do |
//! | [logs and traces](logging) | each line at `WARN` and `INFO`: what it means, what to do; spans and fields |
//! | [services] | Redpanda and services that speak the protocol: what differs, and what is not tested |
//! | [migration] | from rskafka line by line, from rdkafka and krafka, and a comparison |
//!
//! Signatures, defaults and errors of each call are in its own documentation: begin at
//! [`Client`](crate::Client). The examples of this guide run, and check what they show. Lines of theirs that
//! start a broker are hidden.

// To add a page: a Markdown file beside this one, a module for it here, and its row in the table above. Links
// to items of the crate begin with `crate::`. Examples start an `EmbeddedCluster`, with paused time, and
// assert. `tests/guide.rs` checks what pages name: tests, kinds of errors, their texts, sections.

#[doc = include_str!("quick_start.md")]
pub mod quick_start {}

#[doc = include_str!("contract.md")]
pub mod contract {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[doc = include_str!("recipes/index.md")]
pub mod recipes {
    #[doc = include_str!("recipes/database.md")]
    pub mod database {}

    #[doc = include_str!("recipes/failover.md")]
    pub mod failover {}

    #[doc = include_str!("recipes/replicated_store.md")]
    pub mod replicated_store {}

    #[doc = include_str!("recipes/in_doubt.md")]
    pub mod in_doubt {}

    #[doc = include_str!("recipes/many_writers.md")]
    pub mod many_writers {}

    #[doc = include_str!("recipes/large_entries.md")]
    pub mod large_entries {}

    #[doc = include_str!("recipes/mirror.md")]
    pub mod mirror {}

    #[doc = include_str!("recipes/runtimes.md")]
    pub mod runtimes {}

    #[doc = include_str!("recipes/shutdown.md")]
    pub mod shutdown {}
}

#[doc = include_str!("topic_settings.md")]
pub mod topic_settings {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}

#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("migration.md")]
pub mod migration {}
