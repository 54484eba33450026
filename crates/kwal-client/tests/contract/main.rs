//! What the client promises, line by line, against the embedded broker: in memory, and mostly in a time that stands still
//! unless everybody waits for it.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod administration;
mod appends;
mod authentication;
mod brokers;
mod cancellation;
mod connections;
mod deadlines;
mod elections;
mod limits;
mod lookup;
mod order;
mod producers;
mod reading;
mod regressions;
mod support;
mod throttling;
mod truncation;
mod usage;
mod versions;
#[cfg(feature = "transport-tls")]
mod ways;
