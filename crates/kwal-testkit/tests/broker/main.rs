//! The embedded broker, tested with frames that are encoded by kwal-protocol alone.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod administration;
mod apis;
mod authentication;
mod brokers;
mod client;
mod coordination;
mod faults;
mod fetch;
mod garbage;
mod logs;
mod produce;
mod program;
mod rare;
mod replication;
mod storms;
mod tiny_client;
mod wire;
