//! Kafka's wire protocol without IO: messages, record batches, and the state machine of a connection.
//!
//! This crate has no socket, no runtime, no clock and no source of randomness: bytes go in and out, and the
//! time is an argument. So a client, an in-memory broker, a tool for captured traffic and a fuzzer all run
//! the same code.
//!
//! ```text
//!  request ─ NegotiatedVersions::encode ─► EncodedRequest ─► ┌────────────┐ poll_transmit ─► Frame ─► bytes out
//!                                                            │ Connection │
//!  response ◄─ RawResponse::decode ─ RawResponse ◄────────── └────────────┘ handle_input ◄─ bytes in
//!     │
//!     └ records: Bytes ──► record::Batches ──► Batch ──► Records ──► RecordView, OwnedRecord
//!
//!  your records ──► record::BatchBuilder ──► EncodedBatch ──► into a Produce request
//! ```
//!
//! * [`messages`] contains requests and responses in every version, one line per field in the notation of
//!   Kafka's schemas. [`api`] defines what an API is, and frames a body with header and length.
//! * [`record`] reads and builds the content of a `records` field.
//! * [`connection`] is one connection: version negotiation, authentication, correlation, deadlines,
//!   throttling.
//! * [`error_code`] defines how a client reacts to each of the broker's error codes.
//! * [`wire`], [`reader`], [`writer`] and [`varint`] are the parts that messages are made of.
//! * [`buffers`] keeps large buffers, to use their memory again.
//!
//! Both directions are always implemented: requests can be read, and responses can be written.
//!
//! # Guarantees
//! No input causes a panic, and memory is reserved only after a length has been compared with the bytes that
//! are present. Byte fields of a message (records above all) are slices of the frame: nothing is copied, and
//! the slice keeps the frame in memory. An [error](error::DecodeError) names the byte and the field. Leftover
//! bytes are an error, and so is a field that a version cannot carry.
//!
//! Messages have public fields and a `Default`: build them with `..Default::default()`, because a later
//! version may add fields.
//!
//! # A captured frame
//! A frame is a length and that many bytes. A request identifies itself:
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
//! A response names neither its API nor its version: both are those of the request with the same correlation
//! id. With them it is decoded the same way, by [`api::decode_response_header`] and
//! [`messages::AnyResponse`].
//!
//! The example `captured_frame` decodes a request to append down to its records, and the response to it.
//! `transcode` does this for lines of hex and JSON; it requires the feature `serde`.
//!
//! # A tiny client
//! A [`Connection`](connection::Connection) needs a stream, the time, and code that moves bytes between the
//! two. Without a runtime that is a loop of a few lines:
//!
//! ```
//! use std::{io::{Read, Write}, net::TcpStream, time::Instant};
//!
//! use bytes::{Buf, BytesMut};
//! use kwal_protocol::{
//!     api::Body,
//!     connection::{Connection, ConnectionConfig, Event},
//!     messages::{MetadataRequest, MetadataResponse},
//! };
//!
//! /// Moves bytes until there is an event.
//! fn next(
//!     connection: &mut Connection,
//!     stream: &mut TcpStream,
//!     inbox: &mut BytesMut,
//! ) -> Result<Event, Box<dyn std::error::Error>> {
//!     loop {
//!         while let Some((id, mut frame)) = connection.poll_transmit() {
//!             stream.write_all(&frame.copy_to_bytes(frame.remaining()))?;
//!             connection.handle_transmitted(Instant::now(), id);
//!         }
//!         if let Some(event) = connection.poll_event() {
//!             return Ok(event);
//!         }
//!         let mut piece = [0; 4096];
//!         match stream.read(&mut piece)? {
//!             0 => connection.handle_eof(),
//!             len => {
//!                 inbox.extend_from_slice(&piece[..len]);
//!                 // An error is also an event.
//!                 let _ = connection.handle_input(Instant::now(), inbox);
//!             }
//!         }
//!     }
//! }
//!
//! /// Requests the metadata of all topics from a broker.
//! fn topics(address: std::net::SocketAddr) -> Result<MetadataResponse, Box<dyn std::error::Error>> {
//!     let mut stream = TcpStream::connect(address)?;
//!     let (mut inbox, now) = (BytesMut::new(), Instant::now());
//!     let mut connection = Connection::new(ConnectionConfig::default(), now);
//!     let versions = match next(&mut connection, &mut stream, &mut inbox)? {
//!         Event::Ready(versions) => versions,
//!         other => return Err(format!("{other:?}").into()),
//!     };
//!     let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
//!     connection.send(now, versions.encode(&request, MetadataRequest::VERSIONS)?, ())?;
//!     match next(&mut connection, &mut stream, &mut inbox)? {
//!         Event::Response((), response) => Ok(response.decode::<MetadataRequest>()?),
//!         other => Err(format!("{other:?}").into()),
//!     }
//! }
//! # // A broker with two responses, for the client above.
//! # use kwal_protocol::{api::{decode_request_header, encode_response, ApiKey}, messages::*};
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?;
//! # let broker = std::thread::spawn(move || {
//! #     let (mut stream, _) = listener.accept().unwrap();
//! #     for _ in 0..2 {
//! #         let mut len = [0; 4];
//! #         stream.read_exact(&mut len).unwrap();
//! #         let mut frame = vec![0; u32::from_be_bytes(len) as usize];
//! #         stream.read_exact(&mut frame).unwrap();
//! #         let frame = bytes::Bytes::from(frame);
//! #         let (header, _) = decode_request_header(&frame).unwrap();
//! #         let (version, id) = (header.request_api_version, header.correlation_id);
//! #         let mut response = match header.request_api_key {
//! #             ApiKey::API_VERSIONS => {
//! #                 let (api_key, min_version, max_version) = (ApiKey::METADATA, 0, 12);
//! #                 let metadata = ApiVersion { api_key, min_version, max_version };
//! #                 let body = ApiVersionsResponse { api_keys: vec![metadata], ..Default::default() };
//! #                 encode_response(&body, version, id).unwrap()
//! #             }
//! #             _ => {
//! #                 let wal = MetadataTopicResponse { name: Some("wal".to_owned()), ..Default::default() };
//! #                 let body = MetadataResponse { topics: vec![wal], ..Default::default() };
//! #                 encode_response(&body, version, id).unwrap()
//! #             }
//! #         };
//! #         stream.write_all(&response.copy_to_bytes(response.remaining())).unwrap();
//! #     }
//! # });
//!
//! let metadata = topics(address)?;
//! assert_eq!(metadata.topics[0].name.as_deref(), Some("wal"));
//! # broker.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! A complete client also sets the stream's timeouts by
//! [`poll_timeout`](connection::Connection::poll_timeout) and calls
//! [`handle_timeout`](connection::Connection::handle_timeout), as the example `tiny_client` does, which also
//! reads records from the leader of a partition. A listener that requires SASL takes
//! [`Connection::with_sasl`](connection::Connection::with_sasl) and a [`sasl::Mechanism`].
//!
//! # A segment file
//! A `.log` file of a broker is a sequence of batches, like a `records` field:
//!
//! ```
//! use bytes::Bytes;
//! use kwal_protocol::{compression::Compression, record::{BatchBuilder, Batches, Headers}};
//!
//! let mut batch = BatchBuilder::new(Compression::None);
//! batch.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &Headers::new());
//! let file: Bytes = batch.finish()?.at(41, 0).to_bytes();
//!
//! for batch in Batches::new(file) {
//!     let batch = batch?;
//!     for record in batch.records(1 << 20 /* limit in bytes */)?.iter() {
//!         let record = record?;
//!         assert_eq!((record.offset, record.key), (41, Some(&b"key"[..])));
//!         assert_eq!(record.value, Some(&b"value"[..]));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! The example `segment` prints such files as Kafka's `DumpLogSegments` does.
//!
//! # Layers
//! A module imports only from the layers below it. Within a folder the files follow the same rule, and
//! `mod.rs` re-exports.
//!
//! ```text
//!  connection      record           one connection · batches and their records
//!      │  └──────┐   │  └────────┐
//!      │       messages          │  one file per API; AnyRequest, AnyResponse
//!      │         │  └──────┐     │
//!      │         │   error_code  │  what an error code asks of a client
//!      │         │    │          │
//!      │        api::frame       │  length, header, body
//!      │        api::header      │
//!      │        api::{key, body} │  the table of keys and versions · Body, Request
//!      │         │               │
//!      │       macros            │  message!, open_enum!
//!      │       json, arbitrary   │
//!      │       wire              │  the types of Kafka's schemas
//!      │       reader, writer    │
//!      │       varint            │
//!    sasl      error        compression
//!      └─────── text ──────────┤     strings of a peer
//!                           buffers  memory that is used again
//! ```
//!
//! # Extending it
//! | to add | edit |
//! | --- | --- |
//! | an API | its line in `api/key.rs`, a file in `messages/` with two definitions, its line in `messages/mod.rs`, its vectors |
//! | a version | the range in `api/key.rs`, the new lines of the definition, its vectors |
//! | a codec | a file in `compression/`, its arms in `compression/context.rs`, a feature |
//! | a SASL mechanism | a file in `sasl/`, or an `impl` of [`sasl::Mechanism`] in any crate |
//! | an error code | its line in `error_code.rs` |
//!
//! # Features
//! * `compression-gzip`, `compression-lz4`, `compression-snappy` (default): these codecs in record batches,
//!   in pure Rust.
//! * `compression-zstd`: zstd in record batches, by its C library.
//! * `decompression-zstd` (default): decompression of zstd in pure Rust, for builds without the C library.
//! * `serde`: messages and batches as JSON, named as in Kafka's schemas.
//! * `time`: timestamps of records as `time::OffsetDateTime`.
//! * `arbitrary`: messages from arbitrary bytes, for fuzzers.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod api;
#[cfg(feature = "arbitrary")]
pub mod arbitrary;
pub mod buffers;
pub mod compression;
pub mod connection;
pub mod error;
pub mod error_code;
#[cfg(feature = "serde")]
pub mod json;
mod macros;
pub mod messages;
pub mod reader;
pub mod record;
pub mod sasl;
pub mod text;
pub mod varint;
pub mod wire;
pub mod writer;

pub use api::header;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
