//! Tests against real Apache Kafka, and of other clients against the embedded cluster: one binary, so that they share brokers.

#![allow(clippy::unwrap_used)] // Clippy takes only functions marked as tests for tests.

mod administration;
mod append;
mod batches;
mod brokers;
mod embedded;
mod faulty_network;
mod fidelity;
mod interop;
mod peers;
mod program;
mod quota;
mod raw;
mod read;
mod restart;
mod segments;
mod sessions;
mod support;
mod ways;
mod wire;
