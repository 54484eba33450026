//! The contract of readers, line by line, against the embedded cluster: in memory, under a paused clock.
//!
//! The name of a module begins with the lines that its tests keep, so that a failure names the promise:
//!
//! | line | promise |
//! | --- | --- |
//! | c5 | cancellation: every future can be dropped at any await, and nothing is lost or repeated |
//! | c7 | reading: records come in offset order, once each; a replay ends; a stream never stalls |
//! | c8 | truncation: what was read and is lost is an error, with the first offset that differs |
//! | c9 | one fetch ahead, and nothing allocated per record |

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod c5_cancellation;
mod c7_c9_ahead;
mod c7_c9_breaking;
mod c7_errors;
mod c7_follow;
mod c7_out_of_range;
mod c7_replay;
mod c7_unreadable;
mod c8_breaking;
mod c8_truncation;
mod support;
