//! The contract of the client, line by line, against the embedded cluster: in memory, and mostly under a
//! paused clock.
//!
//! The name of a module begins with the lines that its tests keep, so that a failure names the promise:
//!
//! | line | promise |
//! | --- | --- |
//! | c1 | durable: an append is `Ok` only when every in-sync replica has it |
//! | c2 | exactly once: whatever is retried, a batch is on the log at most once |
//! | c3 | order without a hole: batches lie on the log in submission order |
//! | c4 | deadlines and clear outcomes: every call ends in time, with an error that says what happened |
//! | c5 | cancellation: every future can be dropped at any await |
//! | c6 | exclusive writer: after a barrier, no append of an earlier holder |
//! | c7 | reading: records come in offset order, once each |
//! | c8 | truncation: a recreated topic is an error and never another log |
//! | c9 | bounded memory: lengths are checked first, and appends and reads share one budget |
//! | c10 | throttling: a throttle time delays the next request of its connection and nothing else |
//! | c11 | nothing hidden: no buffer in the background, and nothing that the caller did not request |
//!
//! `cargo test --test contract c4` runs the tests of one line.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod audit;
mod c10_throttling;
mod c1_c2_appends;
mod c1_c2_c3_elections;
mod c1_c2_odd_answers;
mod c1_c3_in_flight;
mod c1_c7_versions;
mod c2_c4_close;
mod c2_c4_resolve;
mod c2_producer_ids;
mod c3_c8_recreation;
mod c3_c9_permits;
mod c3_order;
mod c4_access_rights;
mod c4_administration;
mod c4_authentication;
mod c4_brokers;
mod c4_c11_lookup;
mod c4_c5_c10_admin_calls;
mod c4_c7_answers;
mod c4_close;
mod c4_connecting;
mod c4_connections;
mod c4_deadlines;
mod c4_leader_epochs;
mod c4_leader_updates;
mod c4_long_responses;
mod c4_metadata;
mod c4_progress;
mod c4_reauthentication;
mod c4_rebootstrap;
#[cfg(feature = "transport-tls")]
mod c4_tls_and_proxies;
mod c5_appends;
mod c5_cancellation;
mod c6_breaking;
mod c6_exclusive;
mod c6_readers;
mod c6_stress;
mod c6_takeover;
mod c7_c9_breaking;
mod c7_order;
mod c7_reading;
mod c7_shared;
mod c8_positions;
mod c8_truncation;
mod c9_c11_limits;
mod c9_memory;
mod logs;
mod peers_strings;
mod recording;
mod regressions;
mod states;
mod support;
mod usage;
