//! The contract of readers, producers and entries, line by line, on the embedded cluster: in memory, paused.
//!
//! The name of a module begins with the lines that its tests keep, so that a failure names the promise:
//!
//! | line | promise |
//! | --- | --- |
//! | c1 | durable: an acknowledged input is on the log, at the offset that its caller got |
//! | c2 | exactly once: an entry of any size is returned whole, once, or reported as incomplete, once |
//! | c3 | order: inputs lie on the log in the order in which they were accepted |
//! | c4 | deadlines: every call ends within its own, also one that is for all partitions |
//! | c5 | cancellation: every future can be dropped at any await, and nothing is lost or repeated |
//! | c7 | reading: records come in offset order, once each; a replay ends; a stream never stalls |
//! | c8 | truncation: what was read and is lost is an error, with the first offset that differs |
//! | c9 | one fetch ahead; what producers gather is within the memory budget, and is given back |
//! | c11 | nothing hidden: an idle log gets a record at once, a busy one gathers as long as it has to |

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod c11_batches;
mod c1_c2_batches;
mod c2_aggregators;
mod c2_c4_batches;
mod c2_c5_entries;
mod c2_c7_entries;
mod c3_batches;
mod c3_c4_router;
mod c3_c5_breaking;
mod c3_c9_breaking;
#[cfg(feature = "compression-lz4")]
mod c3_compressed;
mod c3_from_storms;
mod c4_batches;
mod c5_batches;
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
mod c9_batches;
mod support;
