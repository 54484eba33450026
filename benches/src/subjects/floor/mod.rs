//! Floors: the least that has to be done. They are no clients: a task on one connection, without retries,
//! deadlines, buffers for others or any other partition's leader.
//!
//! * [`append()`]: each value is copied once, into a request buffer that is used again, with the checksum
//!   over it and one write per batch. With slices, values are not copied: the request is written in pieces.
//! * [`read()`]: the next request is sent before the response is looked at, whose buffer and that of
//!   decompression are used again; the checksum is computed and records are walked.
//! * [`Group`]: callers encode into one open batch under one lock, and wait on a completion that all records
//!   of the batch share.

mod append;
mod callers;
mod read;
mod wire;

pub(super) use self::{append::append, callers::Group, read::read};
