#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! A producer:
//!
//! ```text
//!  produce, slot           what the caller awaits: handed over by a plain call, into the open batch, under one lock
//!        │
//!      gather ───► aggregator, accumulator   records of inputs; which batch, and when: no IO, no clock, no lock
//!        │
//!       send ────► split   encoded and submitted with no lock held, by a caller or by the driver
//!        │
//!    completion ─► ack     one a batch, for all that wait for it
//! ```
//!
//! A caller sends the batch itself where nothing has to be waited for. The driver is the task that sends what
//! has gathered: when an acknowledgement makes room, or when a linger ends. It has no state of its own, and
//! records do not pass through it.
//!
//! A reader:
//!
//! ```text
//!  replay, stream          what the caller awaits: by batch, by record, borrowed
//!        │
//!      driver ───► round   one fetch ahead; a round trip, with the lookups that its result needs
//!        │
//!      cursor ───► epochs, summary     position, end and what was covered: no IO, no clock
//! ```
//!
//! `entry` is built on both: its writer appends by a partition client, and its reader passes the records of a
//! replay or a stream to an assembler, which has no IO and no clock either.
//!
//! All state of a reader is in the driver, its pending round trip included. So a future that is dropped loses
//! nothing: the next one polls the same round trip. The cursor decides everything that depends on offsets; it
//! is tested against a model of a log.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod entry;
pub mod producer;
pub mod reader;
mod request;
mod size;
mod time;
