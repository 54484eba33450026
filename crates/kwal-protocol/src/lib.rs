//! Kafka's wire protocol without IO.

pub mod api;
pub mod compression;
pub mod connection;
pub mod error;
pub mod error_code;
pub mod header;
#[cfg(feature = "serde")]
pub mod json;
mod macros;
pub mod messages;
pub mod reader;
pub mod record;
pub mod varint;
pub mod wire;
pub mod writer;
