//! Checks the results that clients got against the final logs: a [`History`] of calls and outcomes in, a
//! [`Verdict`] out.
//!
//! The checker knows no client and no broker. A history may come from the embedded cluster or real brokers,
//! and from any client: kwal's contract can be applied to other clients as well.
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
//! - c of a1 is on the log again, at 3
//!        3         2 submit a1 w0 c
//!        5         9 unknown a1
//!        8         9 log wal-0 0 4 @0 a b c c");
//! ```
//!
//! # What is checked
//! The [`Rule`]s, each a part of the contract. Rules that do not apply are [waived](Expect::waive); for a
//! client without a producer id there is [`Expect::at_least_once`]. A history without the [`Log`] of one of
//! its partitions proves nothing and does not hold.
//!
//! The outcome of an append determines what may be on the log:
//!
//! | outcome | on the log | appends submitted after it and before its end |
//! | --- | --- | --- |
//! | [acknowledged](AppendOutcome::Acked) | once, complete, at its offset | independent |
//! | [acknowledged without an offset](AppendOutcome::AckedAtUnknownOffset) | once, complete | independent |
//! | [not appended](AppendOutcome::NotAppended) | no | not on the log |
//! | [unknown](AppendOutcome::Unknown) | once, complete and in order, or not | not acknowledged, and on the log only if it is |
//! | [dropped](AppendOutcome::Dropped), or without an end | once, complete and in order, or not | if it was dropped: on the log only if it is |
//! | [withdrawn](AppendOutcome::Withdrawn) | no | independent |
//!
//! An append of unknown outcome can be [resolved](Event::Resolved): then it is on the log as the answer says,
//! once and for all. When a writer is [closed](Event::Closed), everything submitted before has ended.
//!
//! The appends of a [batched](Writer::batched) writer are the inputs of its callers. After one that fails, or
//! is missing, none is on the log that was accepted before its caller got the error, by the order of events.
//! When a [flush](Event::Flushed) returns, everything that was accepted before has ended, and without an
//! error nothing of it is missing that had not failed before. A [close](Event::Drained) returns exactly the
//! records that were not delivered.
//!
//! Without producer ids ([`Writer::without_ids`]), an append of unknown outcome may be on the log in any
//! order, and a loss of acknowledged records ends the writer only if the next one gets a lower offset. With
//! [`Writer::leader_acks`], [`Event::Unreplicated`] excuses that an acknowledged record is missing.
//!
//! After the [barrier](Event::Barrier) of an exclusive writer there is no record of an earlier writer of its
//! name, and no batch on an earlier epoch of the barrier's producer id, as far as the [`Log`] has the
//! producers of its batches. A writer that fails to take over may leave a barrier too, which fences all the
//! same: record it as [`Value::barrier`].
//!
//! A reader [with READ_COMMITTED](Reader::committed) gets no record of an aborted transaction and stays below
//! the last stable offset, as far as the [`Log`] has them. Transactions of the history are appends of a
//! [transactional](Writer::transactional) writer and their [end](Event::TransactionEnded). A replay ends at
//! or after the end that it [promised](Event::ReplayOpened), and what it says it [covered](Covered) is what
//! it gave, without a record in a gap.
//!
//! Losses are excused by events: [`Event::Truncated`], [`Event::Deleted`] and [`Event::Recreated`] excuse
//! that a record is missing, or differs from what a reader saw. They never excuse a duplicate, or that a
//! writer continues after a loss. An append of unknown outcome, lost together with one behind it that was
//! acknowledged before, is no hole if there was room for it on the log. A lost record may reappear at another
//! offset: a failed attempt may have survived on the replica that leads now.
//!
//! A reader that has seen lost records has to get an error in place of anything that it fetches after the
//! loss. What it fetched before, it may still hand over: that ends with its next read, or, if it
//! [fetches ahead](Event::Fetched), with its next response but one.
//!
//! Time and memory grow with the history: a million records take a second or two in a release build.
//!
//! ```text
//! judge ─┬─► reads, replays ──► logs ──► facts ──► verdict ──► text ──► history ──► types ──► value
//!        └─► endings, waits ──────┘                                         │
//! recorder ─────────────────────────────────────────────────────────────────┘
//! ```

mod endings;
mod facts;
mod history;
mod judge;
mod logs;
mod reads;
mod recorder;
mod replays;
mod text;
mod types;
mod value;
mod verdict;
mod waits;

pub use history::{Event, History};
pub use recorder::{Recorder, Ticket};
pub use text::ParseError;
pub use types::{
    AppendId, AppendOutcome, CallId, Covered, Log, Producer, ReadFailure, Reader, ReaderId, SubmitOrder,
    TopicPartition, Writer, WriterId,
};
pub use value::Value;
pub use verdict::{Expect, Rule, Tally, Verdict, Violation};
