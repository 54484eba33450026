#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! ```text
//!  replay, stream          what the caller awaits: by batch, by record, borrowed
//!        │
//!      driver ───► round   one fetch ahead; a round trip, with the lookups that its result needs
//!        │
//!      cursor ───► epochs, summary     position, end and what was covered: no IO, no clock
//! ```
//!
//! All state of a reader is in the driver, its pending round trip included. So a future that is dropped loses
//! nothing: the next one polls the same round trip. The cursor decides everything that depends on offsets; it
//! is tested against a model of a log.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod reader;
