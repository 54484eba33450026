//! The embedded broker, asked by frames that are made with kwal-protocol alone.

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
mod produce;
mod program;
mod replication;
mod storms;
mod wire;
