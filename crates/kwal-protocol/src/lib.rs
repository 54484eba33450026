//! Kafka's wire protocol without IO.

pub mod error;
pub mod varint;
