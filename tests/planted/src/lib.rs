//! The source of kwal-client with mutations in it, each of which can be activated.
//!
//! `build.rs` makes it: a copy of `crates/kwal-client/src`, with `mutations.txt` applied.

#[macro_use]
mod mutation;

pub use mutation::{Mutation, activate};

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));
