//! The source of kwal-client and kwal-batching with mutations in it, each of which can be activated.
//!
//! `build.rs` makes it: a copy of `crates/kwal-client/src`, with that of `crates/kwal-batching/src` as its
//! module `batching`, and with `mutations.txt` applied.

// For the readers.
extern crate self as kwal_client;

#[macro_use]
mod mutation;

pub use mutation::{Mutation, activate};

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));
