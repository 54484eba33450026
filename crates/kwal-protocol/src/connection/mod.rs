//! One connection to a broker, without the socket: framing, correlation, the handshake, deadlines.
//!
//! ```text
//!               send                                        poll_event
//!   requests ────────►┌──────────┐ poll_transmit             ▲ Ready, Response, Closed
//!                     │ outgoing ├──────────────► bytes      │
//!                     └──────────┘ in state Ready,    ┌──────┴────┐ handle_input
//!                                  not throttled      │ in flight │◄───────────── bytes
//!                                                     └───────────┘
//! ```
//! Brokers answer the requests of one connection in order, so the requests in flight form a queue. A response
//! whose correlation id is not that of the oldest request closes the connection. Only the handshake is
//! encoded and decoded here: the caller encodes with [`NegotiatedVersions::encode`] and decodes with
//! [`RawResponse::decode`].
//!
//! # The handshake
//! A connection starts in the state *versions*: it sends ApiVersions in the newest version known here. A
//! broker that does not support that version answers in version 0 (KIP-511); the request is repeated in the
//! version that the broker names, or else in version 0. Then the connection is *ready*.
//!
//! Between these two states a connection *authenticates* if it was given a
//! [`Mechanism`](crate::sasl::Mechanism). It returns to that state from *ready* to reauthenticate on the same
//! connection ([`Connection::reauthenticate`], KIP-368). While it authenticates, requests stay in `outgoing`,
//! as they do while throttled. Requests in flight are answered first; then the exchange uses the same slot as
//! ApiVersions, ahead of all requests. Computations that take a mechanism long are emitted as an event.

mod authentication;
mod config;
mod error;
mod event;
mod handshake;
mod inbox;
mod limits;
mod pending;
mod produce;
mod request;
mod response;
mod state_machine;
mod versions;

pub use authentication::{Computation, Computed};
pub use config::ConnectionConfig;
pub use error::{ConnectionError, Misbehaviour, OtherProtocol, ResponseProgress, SendError, Stage};
pub use event::Event;
pub use pending::PendingRequest;
pub use produce::ProduceTemplate;
pub use request::{CallError, CorrelationId, EncodedRequest};
pub use response::RawResponse;
pub use state_machine::Connection;
pub use versions::NegotiatedVersions;
