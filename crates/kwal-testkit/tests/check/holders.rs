//! Histories of exclusive writers, see `rules.rs`.

use kwal_testkit::check::Rule;

/// What each history breaks: one rule, or `None`.
pub(crate) const HOLDERS: &[(&str, Option<Rule>, &str)] = &[
    (
        "after the barrier of another",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0\n1 submit a0 w1 x\n\
         2 barrier w2 1\n3 unknown a0\n3 log wal-0 0 3 @0 b1 b2 x",
    ),
    (
        "before the barrier of another",
        None,
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0\n1 submit a0 w1 x\n\
         2 barrier w2 2\n3 unknown a0\n3 submit a1 w2 y\n4 acked a1 3\n4 log wal-0 0 4 @0 b1 x b2 y",
    ),
    (
        "before its own barrier",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 1\n1 submit a0 w1 x\n3 acked a0 0\n3 log wal-0 0 2 @0 x b1",
    ),
    (
        "another name, another writer",
        None,
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=you\n1 barrier w1 0\n2 barrier w2 1\n\
         3 submit a0 w1 x\n3 acked a0 2\n3 log wal-0 0 3 @0 b1 b2 x",
    ),
    (
        "the barrier was lost, and is no more",
        None,
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0\n2 barrier w2 1\n\
         3 truncated wal-0 1\n3 submit a0 w1 x\n3 acked a0 1\n4 log wal-0 0 2 @0 b1 x",
    ),
    (
        "its acknowledged record is after the barrier of another",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0\n2 barrier w2 1\n\
         3 submit a0 w1 x\n4 acked a0 2\n5 log wal-0 0 3 @0 b1 b2 x",
    ),
    (
        "its acknowledged record is missing",
        Some(Rule::Durable),
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0\n1 submit a0 w1 x\n\
         2 acked a0 1\n3 barrier w2 2\n5 log wal-0 0 3 @0 b1 @2 b2",
    ),
    (
        "fenced and not appended, and on the log",
        Some(Rule::NotAppended),
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0\n1 submit a0 w1 x\n\
         2 barrier w2 2\n3 not-appended a0\n3 fenced w1\n5 log wal-0 0 3 @0 b1 x b2",
    ),
    (
        "barriers that nobody has confirmed",
        None,
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 1\n1 submit a0 w1 x\n2 acked a0 2\n\
         5 log wal-0 0 4 @0 ~barrier~1 ~barrier~2 x ~barrier~3",
    ),
    (
        "a barrier, and nobody wanted one",
        Some(Rule::Asked),
        "1 submit a0 w0 x\n2 acked a0 1\n5 log wal-0 0 2 @0 ~barrier~1 x",
    ),
    (
        "a barrier of another partition",
        Some(Rule::Asked),
        "0 writer w1 wal-1 exclusive=me\n5 log wal-0 0 1 @0 ~barrier~1\n5 log wal-1 0 0",
    ),
    (
        "a barrier twice",
        Some(Rule::Once),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 0\n\
         5 log wal-0 0 2 by=0..1:7/0 by=1..2:7/0 @0 ~barrier~1 ~barrier~1",
    ),
    (
        "a barrier and the fence with its mark",
        None,
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 1 as=8/0\n\
         5 log wal-0 0 2 by=0..1:7/32767 by=1..2:8/0 @0 ~barrier~1 ~barrier~1",
    ),
    (
        "a barrier is read, and deleted",
        None,
        "0 writer w1 wal-0 exclusive=me\n1 read r0 1 @0 ~barrier~1\n2 deleted wal-0 1\n5 log wal-0 1 1",
    ),
    (
        "a barrier is read, and nobody wanted one",
        Some(Rule::ReadTrue),
        "1 read r0 1 @0 ~barrier~1\n2 deleted wal-0 1\n5 log wal-0 1 1",
    ),
    (
        "another barrier is read than is there",
        Some(Rule::ReadTrue),
        "0 writer w1 wal-0 exclusive=me\n1 read r0 1 @0 ~barrier~1\n5 log wal-0 0 1 @0 ~barrier~2",
    ),
    (
        "an earlier epoch after a barrier",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 1 as=7/1\n1 submit a0 w0 x\n2 submit a1 w0 y\n\
         5 log wal-0 0 3 by=0..1:7/0 by=1..2:7/1 by=2..3:7/0 @0 x ~barrier~1 y",
    ),
    (
        "an earlier epoch after a barrier that nobody has confirmed",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0 as=7/0\n\
         1 submit a0 w1 x\n5 log wal-0 0 3 by=0..1:7/0 by=1..2:7/1 by=2..3:7/0 @0 ~barrier~1 ~barrier~2 x",
    ),
    (
        "an earlier epoch after the fence of its id",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0 as=7/0\n\
         1 submit a0 w1 x\n\
         5 log wal-0 0 3 by=0..1:7/0 by=1..2:7/32767 by=2..3:7/0 @0 ~barrier~1 ~barrier~2 x",
    ),
    (
        "later epochs and other ids after a barrier",
        None,
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 0 as=7/3\n1 submit a0 w1 x\n1 submit a1 w1 y\n\
         2 acked a0 1\n2 acked a1 2\n3 submit a2 w0 z\n\
         5 log wal-0 0 4 by=0..1:7/3 by=1..2:7/3 by=2..3:7/5 by=3..4:8/0 @0 ~barrier~1 x y z",
    ),
    (
        "the barrier is of another epoch",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 0 as=7/3\n5 log wal-0 0 1 by=0..1:7/2 @0 ~barrier~1",
    ),
    (
        "the barrier is of nobody",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 0 as=7/3\n1 submit a0 w0 x\n\
         5 log wal-0 0 2 by=1..2:8/0 @0 ~barrier~1 x",
    ),
    (
        "a barrier took the place of one that was lost",
        None,
        "0 writer w1 wal-0 exclusive=me\n0 writer w2 wal-0 exclusive=me\n1 barrier w1 0 as=7/0\n\
         2 truncated wal-0 0\n3 barrier w2 0 as=7/1\n5 log wal-0 0 1 by=0..1:7/1 @0 ~barrier~2",
    ),
    (
        "the barrier was lost before its writer learned of it",
        None,
        "0 writer w1 wal-0 exclusive=me\n1 truncated wal-0 0\n2 barrier w1 0 as=7/0\n5 log wal-0 0 0",
    ),
    (
        "a holder appends by another id",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 0 as=7/3\n1 submit a0 w1 x y\n2 acked a0 1\n\
         5 log wal-0 0 3 by=0..1:7/3 by=1..3:8/0 @0 ~barrier~1 x y",
    ),
    (
        "a holder appends without an id",
        Some(Rule::OneWriter),
        "0 writer w1 wal-0 exclusive=me\n1 barrier w1 0 as=7/3\n1 submit a0 w1 x\n2 acked a0 1\n\
         5 log wal-0 0 2 by=0..1:7/3 @0 ~barrier~1 x",
    ),
    (
        "the producers of batches overlap",
        Some(Rule::History),
        "1 submit a0 w0 x y\n5 log wal-0 0 2 by=0..2:7/3 by=1..2:7/3 @0 x y",
    ),
];
