//! Producer and consumer helpers above `kwal-client`.
//!
//! The crate is empty so far, and its name is kept for two things that need nothing but the public API of a partition
//! client:
//!
//! * a batch producer, which puts the records of many tasks into one append (group commit) and hands each of them its
//!   offset;
//! * a stream of a partition's records from an offset on, and a replay, which is one that ends where the log ended when it
//!   began.
//!
//! Until then: an append is a batch, whatever its number of records, and gives the offsets of all of them; and a loop
//! around `fetch` that goes on at `next_offset` reads a partition whole.
