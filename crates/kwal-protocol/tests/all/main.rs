//! The tests of this crate, in one binary; only those of `allocations` need one of their own.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod authentication;
mod connection;
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
