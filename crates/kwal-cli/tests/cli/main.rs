//! The program `kwal`, as it is called, against an embedded cluster.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod access;
mod append;
mod inspect;
// Others than Linux have no `setsid`.
#[cfg(target_os = "linux")]
mod interactive;
mod read;
mod resolve;
#[cfg(target_os = "linux")]
mod screen;
mod support;
mod terminal;
mod topics;
mod usage;
