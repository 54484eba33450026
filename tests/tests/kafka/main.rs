//! Tests against real Apache Kafka, and of other clients against the embedded cluster. One binary, so that
//! they share brokers.

// Clippy regards only functions with `#[test]` as tests.
#![allow(clippy::unwrap_used)]

mod access;
mod administration;
mod append;
mod audit;
mod batches;
mod brokers;
mod cli;
mod embedded;
mod entries;
mod examples;
mod exclusive;
mod faults;
mod faulty_network;
mod fidelity;
mod interop;
mod limits;
mod listeners;
mod peers;
mod program;
mod quota;
mod raw;
mod read;
mod reading;
mod restart;
mod segments;
mod sessions;
mod support;
mod wire;
mod writers;
