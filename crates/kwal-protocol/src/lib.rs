//! Kafka's wire protocol without IO: messages, record batches, and the state machine of a connection.
//!
//! There is no socket in here, no runtime, no clock and no randomness: bytes come in and go out, and time is an argument. So
//! a client, a broker in memory, a tool that looks at captured traffic and a fuzzer all run the same code.
//!
//! ```text
//!  your request ── Session::encode ──► Call ──► ┌────────────┐ poll_transmit ──► Frame ──► bytes out
//!                                               │ Connection │
//!  response ◄─ Reply::decode ── Reply ◄──────── └────────────┘ handle_input ◄── bytes in
//!     │
//!     └ records: Bytes ──► record::Batches ──► Batch ──► Records ──► RecordView, OwnedRecord
//!
//!  your records ──► record::BatchBuilder ──► EncodedBatch ──► into a Produce request
//! ```
//!
//! * [`messages`] holds requests and responses at every version, a line a field in the notation of Kafka's schemas; [`api`]
//!   says what an API is, and puts a header and a length around a body.
//! * [`record`] reads and builds what is in a `records` field.
//! * [`connection`] is one connection: the handshake that agrees on versions, correlation, deadlines, pauses.
//! * [`error_code`] knows what each of the broker's error codes asks of a client.
//! * [`wire`], [`reader`], [`writer`] and [`varint`] are what the messages are made of.
//!
//! Both directions are always there: what a client writes can be read, and what a broker writes can be written.
//!
//! # What may be relied upon
//! No input is a panic, and a length is compared with the bytes that are there before memory is reserved for it. What is
//! bytes in a message (records above all) is a slice of the frame that it came in; nothing is copied, and the slice keeps the
//! frame in memory. An [error](error::DecodeError) names the byte and the field. Bytes left over are an error, and so is a field that a
//! version cannot carry.
//!
//! # A captured frame
//! A frame is its length and that many bytes. A request says itself what it is:
//!
//! ```
//! use bytes::Bytes;
//! use kwal_protocol::{api::decode_request_header, messages::AnyRequest};
//!
//! let captured = Bytes::from_static(b"\0\0\0\x16\0\x03\0\x04\0\0\0\x07\0\x02me\0\0\0\x01\0\x03wal\0");
//! let frame = captured.slice(4..);
//! let (header, body) = decode_request_header(&frame)?;
//! let (key, version) = (header.request_api_key, header.request_api_version);
//! assert_eq!((key.to_string().as_str(), version, header.correlation_id), ("Metadata", 4, 7));
//!
//! let body = frame.slice(body.position()..);
//! let request = AnyRequest::decode(key, version, &body).expect("an API that has messages here")?;
//! let AnyRequest::Metadata(request) = request else { panic!("it is {key}") };
//! assert_eq!(request.topics.unwrap()[0].name.as_deref(), Some("wal"));
//! # Ok::<(), kwal_protocol::error::DecodeError>(())
//! ```
//! A response names neither its API nor its version: both are those of the request with its correlation id. With them it is
//! read the same way, by [`api::decode_response_header`] and [`messages::AnyResponse`].
//!
//! The example `transcode` does this for lines of hex, with JSON on the other side; it needs the feature `serde`.
//!
//! # Features
//! * `compression-gzip`, `compression-lz4`, `compression-snappy` (default): these codecs in record batches, in pure Rust.
//! * `compression-zstd`: zstd in record batches, by its C library.
//! * `decompression-zstd` (default): zstd in record batches, reading only, in pure Rust where the C library is not built.
//! * `serde`: messages and batches as JSON, named as in Kafka's schemas.
//! * `time`: timestamps of records as `time::OffsetDateTime`.

pub mod api;
#[cfg(feature = "arbitrary")]
pub mod arbitrary;
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
pub mod sasl;
pub mod varint;
pub mod wire;
pub mod writer;
