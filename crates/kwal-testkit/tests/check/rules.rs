//! For every rule, histories that break it and no other, next to correct ones.

use std::{collections::BTreeSet, time::Duration};

use kwal_testkit::check::{Expect, History, Rule};

use crate::{callers::CALLERS, holders::HOLDERS, readers::READERS};

/// What each history breaks: one rule, or `None`. All have a writer `w0` and a reader `r0` of `wal-0`.
const HISTORIES: &[(&str, Option<Rule>, &str)] = &[
    ("nothing happened", None, "1 log wal-0 0 0"),
    ("acked and not there", Some(Rule::Durable), "1 submit a0 w0 x\n1 acked a0 0\n2 log wal-0 0 0"),
    (
        "half of it is not there",
        Some(Rule::Durable),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 log wal-0 0 1 @0 x",
    ),
    ("deleted", None, "1 submit a0 w0 x\n1 acked a0 0\n1 deleted wal-0 1\n2 log wal-0 1 1"),
    (
        "deleted, according to the log alone",
        Some(Rule::Durable),
        "1 submit a0 w0 x\n1 acked a0 0\n2 log wal-0 1 1",
    ),
    ("compacted", None, "1 submit a0 w0 x\n1 acked a0 0\n2 log wal-0 0 1 empty=0..1"),
    ("lost", None, "1 submit a0 w0 x\n1 acked a0 0\n1 truncated wal-0 0\n2 log wal-0 0 0"),
    (
        "acknowledged after the loss",
        None,
        "1 submit a0 w0 x\n1 truncated wal-0 0\n1 acked a0 0\n2 log wal-0 0 0",
    ),
    (
        "the loss begins after it",
        Some(Rule::Durable),
        "1 submit a0 w0 x\n1 acked a0 0\n1 truncated wal-0 1\n2 log wal-0 0 0",
    ),
    (
        "submitted after the loss",
        Some(Rule::Durable),
        "1 truncated wal-0 0\n1 submit a0 w0 x\n1 acked a0 0\n2 log wal-0 0 0",
    ),
    (
        "lost, and there by an attempt before",
        None,
        "1 submit a0 w0 x y\n1 acked a0 2\n1 truncated wal-0 1\n2 log wal-0 0 3 empty=0..1 @1 x y",
    ),
    (
        "there before what was lost",
        Some(Rule::Offset),
        "1 submit a0 w0 x y\n1 acked a0 2\n1 truncated wal-0 1\n2 log wal-0 0 2 @0 x y",
    ),
    ("acked after the log was looked at", None, "1 submit a0 w0 x\n2 log wal-0 0 0\n3 acked a0 0"),
    (
        "the last look at the log counts",
        Some(Rule::Durable),
        "1 submit a0 w0 x\n2 log wal-0 0 0\n3 acked a0 0\n4 log wal-0 0 0",
    ),
    ("the barrier is not there", Some(Rule::Durable), "1 barrier w0 0\n2 log wal-0 0 0"),
    ("elsewhere", Some(Rule::Offset), "1 submit a0 w0 x\n1 acked a0 1\n2 log wal-0 0 1 @0 x"),
    ("without an offset", Some(Rule::Offset), "1 submit a0 w0 x\n1 acked a0 -1\n2 log wal-0 0 1 @0 x"),
    (
        "two at one offset",
        Some(Rule::Offset),
        "1 submit a0 w0 x\n1 acked a0 0\n1 submit a1 w0 y\n1 acked a1 0\n1 deleted wal-0 1\n2 log wal-0 1 1",
    ),
    ("twice", Some(Rule::Once), "1 submit a0 w0 x\n1 acked a0 0\n2 log wal-0 0 2 @0 x x"),
    (
        "twice, the second is acknowledged",
        Some(Rule::Once),
        "1 submit a0 w0 x\n1 acked a0 1\n2 log wal-0 0 2 @0 x x",
    ),
    (
        "twice, the outcome is unknown",
        Some(Rule::Once),
        "1 submit a0 w0 x y\n1 unknown a0\n2 log wal-0 0 4 @0 x y x y",
    ),
    ("half", Some(Rule::Whole), "1 submit a0 w0 x y\n1 unknown a0\n2 log wal-0 0 1 @0 x"),
    ("half, dropped", Some(Rule::Whole), "1 submit a0 w0 x y\n1 dropped a0\n2 log wal-0 0 1 @0 y"),
    (
        "torn",
        Some(Rule::Whole),
        "1 submit a0 w0 x y\n1 acked a0 0\n1 submit a1 w0 z\n1 unknown a1\n2 log wal-0 0 3 @0 x z y",
    ),
    ("turned round", Some(Rule::Whole), "1 submit a0 w0 x y\n1 acked a0 0\n2 log wal-0 0 2 @0 y x"),
    ("half deleted", None, "1 submit a0 w0 x y\n1 dropped a0\n1 deleted wal-0 1\n2 log wal-0 1 2 @1 y"),
    ("half compacted", None, "1 submit a0 w0 x y z\n1 unknown a0\n2 log wal-0 0 3 empty=1..2 @0 x @2 z"),
    (
        "out of order",
        Some(Rule::Order),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 acked a0 1\n2 acked a1 0\n3 log wal-0 0 2 @0 y x",
    ),
    (
        "landed late",
        Some(Rule::Order),
        "1 submit a0 w0 x\n2 unknown a0\n2 submit a1 w0 y\n3 acked a1 0\n3 log wal-0 0 2 @0 y x",
    ),
    (
        "out of turn",
        Some(Rule::Order),
        "1 queue a0 w0 x\n1 queue a1 w0 y\n2 acked a0 1\n2 acked a1 0\n3 log wal-0 0 2 @0 y x",
    ),
    (
        "at the same time",
        None,
        "1 start a0 w0 x\n1 start a1 w0 y\n2 acked a0 1\n2 acked a1 0\n3 log wal-0 0 2 @0 y x",
    ),
    (
        "one after the other",
        Some(Rule::Order),
        "1 start a0 w0 x\n1 acked a0 1\n1 start a1 w0 y\n2 acked a1 0\n3 log wal-0 0 2 @0 y x",
    ),
    (
        "of two writers",
        None,
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 1\n1 submit a1 w1 y\n2 acked a1 0\n3 log wal-0 0 2 @0 y x",
    ),
    (
        "out of order, and deleted since",
        Some(Rule::Order),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 acked a0 1\n2 acked a1 0\n2 deleted wal-0 2\n3 log wal-0 2 2",
    ),
    (
        "after one that was not appended",
        Some(Rule::NoHole),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 not-appended a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "after an unknown one that is missing",
        Some(Rule::NoHole),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 unknown a0\n2 unknown a1\n3 log wal-0 0 1 @0 y",
    ),
    (
        "acked after an unknown one",
        Some(Rule::NoHole),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 unknown a0\n2 acked a1 1\n3 log wal-0 0 2 @0 x y",
    ),
    (
        "acked after an unknown one, and lost with it",
        None,
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 acked a2 2\n3 truncated wal-0 1\n\
         4 unknown a1\n4 lost w0\n5 log wal-0 0 1 @0 w",
    ),
    (
        "acked where the unknown one should have been, and lost",
        Some(Rule::NoHole),
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 acked a2 1\n3 truncated wal-0 1\n\
         4 unknown a1\n4 lost w0\n5 log wal-0 0 1 @0 w",
    ),
    (
        "acked after an unknown one that the loss would have left",
        Some(Rule::NoHole),
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 acked a2 2\n3 truncated wal-0 2\n\
         4 unknown a1\n4 lost w0\n5 log wal-0 0 2 empty=1..2 @0 w",
    ),
    (
        "acked where another writer leaves no room for the unknown one, and lost",
        Some(Rule::NoHole),
        "0 writer w1 wal-0\n0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a3 w1 z\n1 submit a2 w0 y\n\
         2 acked a3 1\n2 acked a2 2\n3 truncated wal-0 1\n4 unknown a1\n4 lost w0\n4 lost w1\n5 log wal-0 0 1 @0 w",
    ),
    (
        "acked after an unknown one that an earlier loss may have removed, and lost later",
        Some(Rule::NoHole),
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 truncated wal-0 1\n3 acked a2 2\n\
         4 truncated wal-0 2\n5 unknown a1\n5 lost w0\n6 log wal-0 0 2 empty=1..2 @0 w",
    ),
    (
        "acked after one that had failed before the loss",
        Some(Rule::NoHole),
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 acked a2 2\n2 unknown a1\n\
         3 truncated wal-0 1\n4 lost w0\n5 log wal-0 0 1 @0 w",
    ),
    (
        "acked after one that was not appended, and lost",
        Some(Rule::NoHole),
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 acked a2 2\n3 truncated wal-0 1\n\
         4 not-appended a1\n4 lost w0\n5 log wal-0 0 1 @0 w",
    ),
    (
        "acked after an unknown one that alone is lost",
        Some(Rule::NoHole),
        "0 submit a0 w0 w\n0 acked a0 0\n1 submit a1 w0 x\n1 submit a2 w0 y\n2 acked a2 2\n3 truncated wal-0 1\n\
         4 unknown a1\n5 log wal-0 0 3 empty=1..2 @0 w @2 y",
    ),
    (
        "both in flight, both unknown, both there",
        None,
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 unknown a0\n2 unknown a1\n3 log wal-0 0 2 @0 x y",
    ),
    (
        "after a dropped one that is missing",
        Some(Rule::NoHole),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 dropped a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "after a withdrawn one",
        None,
        "1 queue a0 w0 x\n1 submit a1 w0 y\n2 withdrawn a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "continues on failure",
        None,
        "0 writer w1 wal-0 continue\n1 submit a0 w1 x\n1 submit a1 w1 y\n2 not-appended a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "submitted after the error",
        None,
        "1 submit a0 w0 x\n2 not-appended a0\n2 submit a1 w0 y\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "submitted when the error came out",
        None,
        "1 submit a0 w0 x\n2 submit a1 w0 y\n2 not-appended a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "still waiting for room",
        None,
        "1 submit a0 w0 x\n1 queue a1 w0 y\n2 not-appended a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    ),
    (
        "not appended and there",
        Some(Rule::NotAppended),
        "1 submit a0 w0 x\n1 not-appended a0\n2 log wal-0 0 1 @0 x",
    ),
    ("too late", Some(Rule::Deadline), "1 submit a0 w0 x\n11.001 not-appended a0\n12 log wal-0 0 0"),
    ("just in time", None, "1 submit a0 w0 x\n11 not-appended a0\n12 log wal-0 0 0"),
    ("never", Some(Rule::Deadline), "1 submit a0 w0 x\n12 log wal-0 0 0"),
    ("not yet", None, "1 submit a0 w0 x\n2 log wal-0 0 0"),
    ("a call too late", Some(Rule::Deadline), "1 call c0 5 fetch\n7 returned c0\n8 log wal-0 0 0"),
    ("a call for ever", Some(Rule::Deadline), "1 call c0 5 fetch\n8 log wal-0 0 0"),
    ("a call in time", None, "1 call c0 5 fetch\n6 returned c0\n8 log wal-0 0 0"),
    (
        "given up in time and there",
        Some(Rule::Withdrawn),
        "1 queue a0 w0 x\n1 withdrawn a0\n2 log wal-0 0 1 @0 x",
    ),
    (
        "continues after it was fenced",
        Some(Rule::Ended),
        "1 fenced w0\n1 submit a0 w0 x\n2 acked a0 0\n3 log wal-0 0 1 @0 x",
    ),
    (
        "continues after a loss without an error",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 acked a1 0\n4 log wal-0 0 1 @0 y",
    ),
    (
        "learns of a loss by the offset of its next append",
        None,
        "1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 unknown a1\n3 lost w0\n\
         4 log wal-0 0 1 @0 y",
    ),
    (
        "learns of a loss by the offset of the first of those in flight",
        None,
        "1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 submit a2 w0 z\n3 unknown a1\n3 lost w0\n\
         3 unknown a2\n4 log wal-0 0 2 @0 y z",
    ),
    (
        "learns of a loss only by the second append after it",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 unknown a1\n\
         3 submit a2 w0 z\n3 unknown a2\n3 lost w0\n4 log wal-0 0 2 @0 y z",
    ),
    (
        "an append after a loss is acknowledged, and then it is reported",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 acked a1 0\n3 lost w0\n\
         4 log wal-0 0 1 @0 y",
    ),
    (
        "in flight when the loss happened, and there all the same",
        None,
        "1 submit a0 w0 x\n1 submit a1 w0 y\n1 acked a0 0\n2 truncated wal-0 0\n3 unknown a1\n4 log wal-0 0 1 @0 y",
    ),
    (
        "in flight when the loss happened, and acknowledged all the same",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n1 acked a0 0\n2 truncated wal-0 0\n3 acked a1 0\n4 log wal-0 0 1 @0 y",
    ),
    (
        "continues in the recreated topic",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 recreated wal-0\n3 submit a1 w0 y\n3 unknown a1\n4 log wal-0 0 1 @0 y",
    ),
    (
        "is fenced, and those in flight after that are on the recreated topic",
        None,
        "1 submit a0 w0 x\n1 acked a0 0\n2 submit a1 w0 y\n2 recreated wal-0\n2 submit a2 w0 z\n2 dropped a2\n\
         2 submit a3 w0 v\n3 not-appended a1\n3 fenced w0\n3 unknown a3\n4 log wal-0 0 2 @0 z v",
    ),
    (
        "continues in the recreated topic, and is fenced later",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 recreated wal-0\n3 submit a1 w0 y\n3 unknown a1\n3 submit a2 w0 z\n\
         3 not-appended a2\n3 submit a3 w0 v\n3 unknown a3\n4 fenced w0\n4 log wal-0 0 2 @0 y v",
    ),
    (
        "is fenced, and its append to the recreated topic is acknowledged",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 recreated wal-0\n2 submit a1 w0 y\n3 acked a1 0\n3 fenced w0\n\
         4 log wal-0 0 1 @0 y",
    ),
    (
        "is acknowledged at an offset that was acknowledged before, and both are lost",
        Some(Rule::LossEnds),
        "1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 acked a1 0\n3 truncated wal-0 0\n\
         4 log wal-0 0 0",
    ),
    (
        "continues after a loss without a producer id",
        None,
        "0 writer w1 wal-0 without-ids\n1 submit a0 w1 x\n1 acked a0 0\n2 truncated wal-0 0\n2 submit a1 w0 y\n2 acked a1 0\n\
         3 submit a2 w1 z\n3 acked a2 1\n4 log wal-0 0 2 @0 y z",
    ),
    (
        "notices a loss without a producer id by the offset, and continues",
        Some(Rule::LossEnds),
        "0 writer w1 wal-0 without-ids\n1 submit a0 w1 x\n1 acked a0 0\n2 truncated wal-0 0\n3 submit a1 w1 y\n\
         3 acked a1 0\n4 log wal-0 0 1 @0 y",
    ),
    (
        "lands late without a producer id",
        None,
        "0 writer w1 wal-0 without-ids\n1 submit a0 w1 x\n2 unknown a0\n2 submit a1 w1 y\n3 acked a1 0\n\
         3 log wal-0 0 2 @0 y x",
    ),
    (
        "twice without a producer id",
        Some(Rule::Once),
        "0 writer w1 wal-0 without-ids\n1 submit a0 w1 x\n1 unknown a0\n2 log wal-0 0 2 @0 x x",
    ),
    (
        "acknowledged by the leader alone, and lost by an election",
        None,
        "0 writer w1 wal-0 without-ids leader-acks\n1 submit a0 w1 x\n1 acked a0 0\n2 unreplicated wal-0 0\n\
         2 lost w1\n3 log wal-0 0 0",
    ),
    (
        "after a dropped one that an election may have lost",
        None,
        "0 writer w1 wal-0 without-ids leader-acks\n1 submit a0 w1 x\n1 submit a1 w1 y\n2 dropped a0\n2 acked a1 1\n\
         2 unreplicated wal-0 0\n3 log wal-0 0 0",
    ),
    (
        "acknowledged by the leader alone, and lost without an election",
        Some(Rule::Durable),
        "0 writer w1 wal-0 without-ids leader-acks\n1 unreplicated wal-0 0\n1 submit a0 w1 x\n1 acked a0 0\n\
         3 log wal-0 0 0",
    ),
    (
        "acknowledged by all, and lost by an election",
        Some(Rule::Durable),
        "1 submit a0 w0 x\n1 acked a0 0\n2 unreplicated wal-0 0\n3 log wal-0 0 0",
    ),
    (
        "a writer with acknowledgements by all is not to hear of what an election lost",
        Some(Rule::FalseAlarm),
        "2 unreplicated wal-0 0\n2 lost w0\n3 log wal-0 0 0",
    ),
    (
        "acknowledged without an offset",
        None,
        "1 submit a0 w0 x\n1 acked a0 somewhere\n1 submit a1 w0 y\n1 acked a1 1\n2 log wal-0 0 2 @0 x y",
    ),
    (
        "acknowledged without an offset and not there",
        Some(Rule::Durable),
        "1 submit a0 w0 x\n1 acked a0 somewhere\n2 log wal-0 0 0",
    ),
    (
        "acknowledged without an offset and lost",
        None,
        "1 submit a0 w0 x\n1 acked a0 somewhere\n2 truncated wal-0 0\n2 log wal-0 0 0",
    ),
    (
        "acknowledged without an offset and twice",
        Some(Rule::Once),
        "1 submit a0 w0 x\n1 acked a0 somewhere\n2 log wal-0 0 2 @0 x x",
    ),
    (
        "resolved as it is",
        None,
        "1 submit a0 w0 x y\n1 submit a1 w0 z\n2 unknown a0\n2 unknown a1\n3 resolve a0\n3 resolve a1\n3 resolved a0 0\n\
         3 resolved a1 absent\n4 log wal-0 0 2 @0 x y",
    ),
    (
        "resolved as appended and missing",
        Some(Rule::Resolved),
        "1 submit a0 w0 x\n2 unknown a0\n3 resolve a0\n3 resolved a0 0\n4 log wal-0 0 0",
    ),
    (
        "resolved elsewhere",
        Some(Rule::Resolved),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n2 unknown a0\n2 unknown a1\n3 resolve a1\n3 resolved a1 0\n\
         4 log wal-0 0 2 @0 x y",
    ),
    (
        "resolved as absent and there",
        Some(Rule::Resolved),
        "1 submit a0 w0 x\n2 unknown a0\n3 resolve a0\n3 resolved a0 absent\n4 log wal-0 0 1 @0 x",
    ),
    (
        "dropped, resolved as absent, and there",
        Some(Rule::Resolved),
        "1 submit a0 w0 x\n2 dropped a0\n3 resolve a0\n3 resolve a0\n3 resolved a0 absent\n4 log wal-0 0 1 @0 x",
    ),
    (
        "lost while it was resolved",
        None,
        "1 submit a0 w0 x\n2 unknown a0\n3 resolve a0\n3 truncated wal-0 0\n3 resolved a0 0\n4 log wal-0 0 0",
    ),
    (
        "lost before it was resolved as appended",
        Some(Rule::Resolved),
        "1 submit a0 w0 x\n2 unknown a0\n2 truncated wal-0 0\n3 resolve a0\n3 resolved a0 0\n4 log wal-0 0 0",
    ),
    (
        "deleted after it was resolved",
        None,
        "1 submit a0 w0 x\n2 unknown a0\n3 resolve a0\n3 resolved a0 0\n4 deleted wal-0 1\n4 log wal-0 1 1",
    ),
    (
        "closed with everything at its end",
        None,
        "1 submit a0 w0 x\n1 submit a1 w0 y\n1 close w0\n2 acked a0 0\n3 unknown a1\n3 closed w0 1\n4 log wal-0 0 1 @0 x",
    ),
    (
        "closed, and an append has no end",
        Some(Rule::Closed),
        "1 submit a0 w0 x\n2 close w0\n3 closed w0 0\n4 not-appended a0\n5 log wal-0 0 0",
    ),
    (
        "a failure is not reported",
        Some(Rule::Closed),
        "1 submit a0 w0 x\n1 submit a1 w0 y\n1 close w0\n3 unknown a0\n3 not-appended a1\n3 closed w0 1\n4 log wal-0 0 0",
    ),
    (
        "a failure is reported twice",
        Some(Rule::Closed),
        "1 submit a0 w0 x\n1 close w0\n3 unknown a0\n3 closed w0 2\n4 log wal-0 0 0",
    ),
    (
        "the failure of a dropped append is reported",
        None,
        "1 submit a0 w0 x\n1 dropped a0\n1 queue a1 w0 y\n1 close w0\n3 closed w0 1\n4 not-appended a1\n4 log wal-0 0 0",
    ),
    (
        "failed when it was closed",
        None,
        "1 submit a0 w0 x\n2 close w0\n2 unknown a0\n2 closed w0 0\n4 log wal-0 0 0",
    ),
    (
        "continues after it was closed",
        Some(Rule::Ended),
        "1 close w0\n1 submit a0 w0 x\n2 acked a0 0\n2 closed w0 0\n3 log wal-0 0 1 @0 x",
    ),
    (
        "another one continues after a loss",
        None,
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n2 truncated wal-0 0\n3 lost w0\n3 submit a1 w1 y\n3 acked a1 0\n\
         4 log wal-0 0 1 @0 y",
    ),
    (
        "what is lost was never acknowledged",
        None,
        "1 submit a0 w0 x\n1 unknown a0\n2 truncated wal-0 0\n3 submit a1 w0 y\n3 acked a1 0\n4 log wal-0 0 1 @0 y",
    ),
    (
        "was before what is lost, at the same time",
        None,
        "1 start a0 w0 x\n1 start a1 w0 y\n1 acked a1 0\n1 acked a0 1\n2 truncated wal-0 1\n3 lost w0\n4 log wal-0 0 1 @0 y",
    ),
    (
        "continues after a loss",
        Some(Rule::Ended),
        "1 truncated wal-0 0\n1 lost w0\n1 submit a0 w0 x\n2 unknown a0\n3 log wal-0 0 1 @0 x",
    ),
    ("an ack that arrives late", None, "1 submit a0 w0 x\n1 fenced w0\n2 acked a0 0\n3 log wal-0 0 1 @0 x"),
    (
        "reads",
        None,
        "1 submit a0 w0 x y z\n1 acked a0 0\n2 read r0 1 @0 x\n2 read r0 1\n2 read r0 3 @1 y z\n3 log wal-0 0 3 @0 x y z",
    ),
    (
        "passes over one",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y z\n1 acked a0 0\n2 read r0 3 @0 x @2 z\n3 log wal-0 0 3 @0 x y z",
    ),
    (
        "the next offset passes over one",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x\n3 log wal-0 0 2 @0 x y",
    ),
    (
        "passes over control records and compacted ones",
        None,
        "1 submit a0 w0 x y\n1 acked a0 1\n2 read r0 3 @2 y\n3 log wal-0 0 3 empty=0..2 @2 y",
    ),
    ("after the end", Some(Rule::ReadEvery), "2 read r0 1\n3 log wal-0 0 0"),
    (
        "skips deleted records without an error",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y\n1 acked a0 0\n1 deleted wal-0 1\n2 read r0 2 @1 y\n3 log wal-0 1 2 @1 y",
    ),
    (
        "gets an error about deleted records",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n1 deleted wal-0 1\n2 read-failed r0 out-of-range\n2 seek r0 1\n2 read r0 2 @1 y\n\
         3 log wal-0 1 2 @1 y",
    ),
    (
        "has read what is deleted",
        None,
        "1 submit a0 w0 x y\n1 unknown a0\n2 read r0 2 @0 x y\n3 deleted wal-0 2\n3 log wal-0 2 2",
    ),
    (
        "goes back by itself",
        Some(Rule::ReadOnce),
        "1 submit a0 w0 x\n1 acked a0 0\n2 read r0 1 @0 x\n2 read r0 1 @0 x\n3 log wal-0 0 1 @0 x",
    ),
    (
        "is sent back",
        None,
        "1 submit a0 w0 x\n1 acked a0 0\n2 read r0 1 @0 x\n2 seek r0 0\n2 read r0 1 @0 x\n3 log wal-0 0 1 @0 x",
    ),
    (
        "the next offset goes back",
        Some(Rule::ReadOnce),
        "1 submit a0 w0 x\n1 acked a0 0\n2 read r0 0 @0 x\n3 log wal-0 0 1 @0 x",
    ),
    (
        "out of order when read",
        Some(Rule::ReadOnce),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 seek r0 1\n2 read r0 2 @1 y @0 x\n3 log wal-0 0 2 @0 x y",
    ),
    (
        "reads another one",
        Some(Rule::ReadTrue),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x x\n3 log wal-0 0 2 @0 x y",
    ),
    (
        "reads what has never been there",
        Some(Rule::ReadTrue),
        "1 submit a0 w0 x\n1 not-appended a0\n1 deleted wal-0 1\n2 read r0 1 @0 x\n3 log wal-0 1 1",
    ),
    (
        "reads what is lost, and then appended again elsewhere",
        None,
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n1 submit a1 w1 z\n1 submit a2 w0 y\n2 read r0 3 @0 x z y\n3 truncated wal-0 1\n\
         3 unknown a1\n3 acked a2 1\n4 log wal-0 0 2 @0 x y",
    ),
    (
        "reads what was acknowledged elsewhere before it was lost",
        Some(Rule::ReadTrue),
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n1 submit a1 w1 z\n1 submit a2 w0 y\n1 acked a2 1\n2 read r0 3 @0 x z y\n\
         3 truncated wal-0 1\n3 unknown a1\n4 log wal-0 0 1 @0 x",
    ),
    ("reads where nothing is", Some(Rule::ReadTrue), "2 read r0 1 @0 marker\n3 log wal-0 0 1 empty=0..1"),
    (
        "continues after a loss without an error",
        Some(Rule::Truncation),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x y\n3 truncated wal-0 1\n3 submit a1 w0 v w\n3 acked a1 1\n\
         4 read r0 2\n5 read r0 3 @2 w\n6 log wal-0 0 3 @0 x v w",
    ),
    (
        "gets too high an offset",
        Some(Rule::Truncation),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x y\n3 truncated wal-0 1\n4 read-failed r0 truncated 2\n5 log wal-0 0 1 @0 x",
    ),
    (
        "gets an error",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x y\n3 truncated wal-0 1\n3 submit a1 w0 v w\n3 acked a1 1\n\
         4 read-failed r0 truncated 1\n5 read r0 3 @1 v w\n6 log wal-0 0 3 @0 x v w",
    ),
    (
        "fetches by offset alone",
        None,
        "0 reader r1 wal-0 0 bare\n1 submit a0 w0 x y\n1 acked a0 0\n2 read r1 2 @0 x y\n3 truncated wal-0 1\n\
         3 submit a1 w0 v w\n3 acked a1 1\n4 read r1 2\n5 read r1 3 @2 w\n6 log wal-0 0 3 @0 x v w",
    ),
    (
        "fetches from a recreated topic by offset alone",
        Some(Rule::Truncation),
        "0 writer w1 wal-0\n0 reader r1 wal-0 0 bare\n1 submit a0 w0 x\n1 acked a0 0\n2 read r1 1 @0 x\n3 recreated wal-0\n\
         3 submit a1 w1 v w\n3 acked a1 0\n4 read r1 1\n5 read r1 2 @1 w\n6 log wal-0 0 2 @0 v w",
    ),
    (
        "gets an error about a recreated topic",
        None,
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n2 read r0 1 @0 x\n3 recreated wal-0\n3 read-failed r0 recreated\n3 seek r0 0\n\
         3 submit a1 w1 v w\n3 acked a1 0\n5 read r0 2 @0 v w\n6 log wal-0 0 2 @0 v w",
    ),
    ("no loss", Some(Rule::FalseAlarm), "2 read-failed r0 truncated 0\n3 log wal-0 0 0"),
    ("no other topic", Some(Rule::FalseAlarm), "2 read-failed r0 recreated\n3 log wal-0 0 0"),
    ("no loss for a writer", Some(Rule::FalseAlarm), "2 lost w0\n3 log wal-0 0 0"),
    ("in range", Some(Rule::FalseAlarm), "2 read-failed r0 out-of-range\n3 log wal-0 0 0"),
    (
        "out of range of a leader before, where records were deleted",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n1 deleted wal-0 1\n2 read-failed r0 out-of-range\n3 log wal-0 0 2 @0 x y",
    ),
    (
        "in range, and records are deleted later",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read-failed r0 out-of-range\n2 deleted wal-0 1\n3 log wal-0 0 2 @0 x y",
    ),
    ("out of range", None, "2 seek r0 1\n2 read-failed r0 out-of-range\n3 log wal-0 0 0"),
    ("an error", None, "2 read-failed r0 other\n2 read r0 0\n3 log wal-0 0 0"),
    ("a stranger", Some(Rule::Asked), "3 log wal-0 0 1 @0 x"),
    ("an offset without a record", Some(Rule::Asked), "3 log wal-0 0 1"),
    (
        "on the wrong partition",
        Some(Rule::Asked),
        "0 writer w1 wal-1\n1 submit a0 w1 x\n1 unknown a0\n3 log wal-0 0 1 @0 x\n3 log wal-1 0 0",
    ),
    ("no log", Some(Rule::History), "1 submit a0 w0 x\n1 acked a0 0"),
    ("an unknown writer", Some(Rule::History), "1 submit a0 w9 x\n3 log wal-0 0 0"),
    ("an unknown append", Some(Rule::History), "1 acked a9 0\n3 log wal-0 0 0"),
    (
        "ended twice",
        Some(Rule::History),
        "1 submit a0 w0 x\n1 acked a0 0\n1 unknown a0\n3 log wal-0 0 1 @0 x",
    ),
    (
        "two of the same value",
        Some(Rule::History),
        "1 submit a0 w0 x\n1 unknown a0\n1 submit a1 w0 x\n1 unknown a1\n3 log wal-0 0 0",
    ),
    ("two of the same number", Some(Rule::History), "1 writer w0 wal-0\n3 log wal-0 0 0"),
    ("a log that does not rise", Some(Rule::History), "3 log wal-0 0 2 @1 x @0 y"),
    ("a record outside of the log", Some(Rule::History), "3 log wal-0 0 1 @1 x"),
    ("a record where none is", Some(Rule::History), "3 log wal-0 0 1 empty=0..1 @0 x"),
];

fn history(text: &str) -> History {
    let all = format!("0 writer w0 wal-0 deadline=10\n0 reader r0 wal-0 0\n{text}");
    all.parse().expect("one of the lines is no event")
}

#[test]
fn each_history_breaks_its_rule_and_no_other() {
    for (name, broken, text) in HISTORIES.iter().chain(HOLDERS).chain(READERS).chain(CALLERS) {
        let history = history(text);
        let verdict = history.check(&Expect::default());
        assert!(verdict.broken().eq(*broken), "{name}: {verdict}");
        if let Some(rule) = broken {
            assert_eq!(verdict.count(*rule), 1, "{name}: {verdict}");
            let violation = &verdict.violations()[0];
            assert_eq!(violation.rule(), *rule);
            assert!(!violation.events().is_empty(), "{name}: {verdict}");
            assert!(violation.events().iter().all(|event| *event < history.events().len()), "{name}");
            let waived = history.check(&Expect::default().waive(*rule));
            assert_eq!(waived.holds(), *rule != Rule::History, "{name}, waived: {waived}");
        }
    }
}

#[test]
fn every_rule_is_broken_by_a_history() {
    let broken: BTreeSet<_> = HISTORIES
        .iter()
        .chain(HOLDERS)
        .chain(READERS)
        .chain(CALLERS)
        .filter_map(|(_, broken, _)| *broken)
        .collect();
    assert!(broken.iter().eq(Rule::ALL), "{broken:?}");
}

#[test]
fn running_clocks_get_grace() {
    let late = history("1 submit a0 w0 x\n11.5 not-appended a0\n12 log wal-0 0 0");
    let hole = history(
        "1 submit a0 w0 x\n1.7 submit a1 w0 y\n2 not-appended a0\n2 acked a1 0\n3 log wal-0 0 1 @0 y",
    );
    for (history, rule) in [(late, Rule::Deadline), (hole, Rule::NoHole)] {
        for (grace, holds) in [(0, false), (250, false), (500, true)] {
            let verdict = history.check(&Expect::default().grace(Duration::from_millis(grace)));
            assert_eq!(verdict.count(rule), usize::from(!holds), "{verdict}");
        }
    }
}

#[test]
fn without_producer_ids_losses_are_still_violations() {
    let twice =
        history("1 submit a0 w0 x\n1 submit a1 w0 y\n2 acked a1 1\n2 acked a0 2\n3 log wal-0 0 3 @0 x y x");
    assert!(!twice.check(&Expect::default()).holds());
    twice.check(&Expect::at_least_once()).assert();
    let lost = history("1 submit a0 w0 x\n2 acked a0 0\n3 log wal-0 0 0");
    assert!(lost.check(&Expect::at_least_once()).broken().eq([Rule::Durable]));
}

#[test]
fn a_verdict_is_readable() {
    let mut text = String::from("1 submit a0 w0 x y\n1 acked a0 0\n2 log wal-0 0 1000 @0");
    for offset in 0..1000 {
        text.push_str(&format!(" v{offset}"));
    }
    let verdict = history(&text).check(&Expect::default());
    let text = verdict.to_string();
    assert!(text.len() < 4000, "{text}");
    let begin = "\
the contract is broken: 1 appends (1 acknowledged, 0 not appended, 0 unknown, 0 dropped, 0 open), 1000 records on the log, 0 read

C1 acknowledged is durable: broken 1 times
- a0 was acknowledged, and its record x is missing at 0
       3         1 submit a0 w0 x y
       4         1 acked a0 0
       5         2 log wal-0 0 1000 @0 v0 v1 v2 v3 …

C11 only what was submitted: broken 1000 times
- v0 is at 0 and was never submitted
       5         2 log wal-0 0 1000 @0 v0 v1 v2 v3 …
";
    assert!(text.starts_with(begin), "{text}");
}

#[test]
#[should_panic(expected = "x of a0 is on the log again, at 1")]
fn a_test_fails_with_the_whole_verdict() {
    history("1 submit a0 w0 x\n1 acked a0 0\n2 log wal-0 0 2 @0 x x").check(&Expect::default()).assert();
}
