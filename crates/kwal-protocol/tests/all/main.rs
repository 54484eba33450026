//! The integration tests of this crate; only those of `allocations` need a separate binary.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod authentication;
mod connection;
mod examples;
mod legacy;
#[cfg(feature = "serde")]
mod messages;
mod record_properties;
#[cfg(feature = "serde")]
mod records;
mod sasl;
mod segment;
mod support;
#[cfg(feature = "serde")]
mod transcode;
