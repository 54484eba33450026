//! Judges what clients did to a log by what they were told: a [`History`] of calls and outcomes in, a [`Verdict`] out.
//!
//! It knows no client and no broker. What a test records may come from the embedded broker or a real one, and from any client:
//! what kwal promises, others can be held against as well.
//!
//! ```
//! use std::time::Duration;
//!
//! use kwal_testkit::check::{Expect, History, Log, Rule, Writer};
//!
//! let seconds = Duration::from_secs;
//! let mut history = History::new();
//! let writer = history.writer(Writer::new(("wal", 0)).deadline(seconds(60)));
//! let first = history.at(seconds(1)).submit(writer, ["a", "b"]);
//! let second = history.at(seconds(2)).submit(writer, ["c"]);
//! history.at(seconds(3)).acked(first, 0);
//! history.at(seconds(9)).unknown(second);
//!
//! // A reader begins at 0, gets two records, and will go on at 2.
//! let reader = history.reader(("wal", 0, 0));
//! history.read(reader, [(0, "a"), (1, "b")], 2);
//!
//! let mut twice = history.clone();
//! history.log(Log::new(("wal", 0), 0..3, [(0, "a"), (1, "b"), (2, "c")]));
//! history.check(&Expect::default()).assert();
//!
//! twice.log(Log::new(("wal", 0), 0..4, [(0, "a"), (1, "b"), (2, "c"), (3, "c")]));
//! let verdict = twice.check(&Expect::default());
//! assert!(verdict.broken().eq([Rule::Once]));
//! assert_eq!(verdict.violations()[0].to_string(), "\
//! - c of a1 lies on the log once more, at 3
//!        3         2 submit a1 w0 c
//!        5         9 unknown a1
//!        8         9 log wal-0 0 4 @0 a b c c");
//! ```
//!
//! # What is judged
//! The [`Rule`]s, each part of a promise. Those that are not expected are [waived](Expect::waive); of a client without a
//! producer id, [`Expect::at_least_once`] may be. A history without the [`Log`] of a partition that it speaks of is no proof of
//! anything, and does not hold.
//!
//! How an append ends says what may be on the log:
//!
//! | | on the log | those submitted behind it, before it ended |
//! | --- | --- | --- |
//! | [acknowledged](AppendOutcome::Acked) | once, whole, at its offset | as they end |
//! | [not appended](AppendOutcome::NotAppended) | no | not |
//! | [unknown](AppendOutcome::Unknown) | once, whole, in its place, or not | not acknowledged, and not there without it |
//! | [dropped](AppendOutcome::Dropped), or without an end | once, whole, in its place, or not | not there without it, if it was dropped |
//! | [withdrawn](AppendOutcome::Withdrawn) | no | as they end |
//!
//! A loss is excused by what happened: [`Event::Truncated`], [`Event::Deleted`] and [`Event::Recreated`] excuse that
//! something is not there, or no longer what a reader saw; never that it is there twice, or that its writer goes on behind it.
//! It may be there elsewhere, if its place was lost: an attempt that failed may have been left on the replica that leads now.
//!
//! The time and memory it takes grow with the history: a million records take a second or two in a release build.

mod facts;
mod history;
mod judge;
mod logs;
mod reads;
mod recorder;
mod text;
mod value;
mod verdict;

pub use history::{
    AppendId, AppendOutcome, CallId, Event, History, Log, ReadFailure, Reader, ReaderId, SubmitOrder,
    TopicPartition, Writer, WriterId,
};
pub use recorder::{Recorder, Ticket};
pub use text::ParseError;
pub use value::Value;
pub use verdict::{Expect, Rule, Tally, Verdict, Violation};
