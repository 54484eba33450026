//! The program `kwal`, as it is called, against an embedded cluster.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod access;
mod append;
mod inspect;
mod read;
mod support;
mod terminal;
mod topics;
mod usage;
