//! Histories of readers with READ_COMMITTED, of readers that resume others, and of replays, see `rules.rs`.

use kwal_testkit::check::Rule;

/// What each history breaks: one rule, or `None`.
///
/// If there is a transactional writer, it is `w1`, and the reader with READ_COMMITTED is `r1`.
pub(crate) const READERS: &[(&str, Option<Rule>, &str)] = &[
    (
        "committed, and read by both",
        None,
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x y\n1 unknown a0\n2 committed w1\n3 read r0 3 @0 x y\n3 read r1 3 @0 x y\n\
         4 log wal-0 0 3 empty=2..3 stable=3 @0 x y",
    ),
    (
        "aborted, and read by the uncommitted one alone",
        None,
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x y\n1 unknown a0\n2 aborted w1\n3 read r0 3 @0 x y\n3 read r1 3\n\
         4 log wal-0 0 3 empty=2..3 aborted=0..2 stable=3 @0 x y",
    ),
    (
        "aborted records left out by the uncommitted reader",
        Some(Rule::ReadEvery),
        "0 writer w1 wal-0 transactional continue without-ids\n1 submit a0 w1 x y\n1 unknown a0\n2 aborted w1\n\
         3 read r0 3\n4 log wal-0 0 3 empty=2..3 aborted=0..2 stable=3 @0 x y",
    ),
    (
        "an aborted record returned",
        Some(Rule::Committed),
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x y\n1 unknown a0\n2 aborted w1\n3 read r1 1 @0 x\n3 read r1 3\n\
         4 log wal-0 0 3 empty=2..3 aborted=0..2 stable=3 @0 x y",
    ),
    (
        "an aborted record returned, of which only the log knows",
        Some(Rule::Committed),
        "0 reader r1 wal-0 0 committed\n1 submit a0 w0 x y\n1 unknown a0\n3 read r1 1 @0 x\n3 read r1 3\n\
         4 log wal-0 0 3 empty=2..3 aborted=0..2 stable=3 @0 x y",
    ),
    (
        "a record of an open transaction returned",
        Some(Rule::Committed),
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x\n1 unknown a0\n2 read r1 1 @0 x\n3 committed w1\n4 log wal-0 0 2 empty=1..2 stable=2 @0 x",
    ),
    (
        "a committed record left out",
        Some(Rule::ReadEvery),
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x y\n1 unknown a0\n2 committed w1\n3 read r1 3 @0 x\n\
         4 log wal-0 0 3 empty=2..3 stable=3 @0 x y",
    ),
    (
        "beyond the last stable offset",
        Some(Rule::Committed),
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x\n1 unknown a0\n1 submit a1 w0 y\n1 acked a1 1\n2 read r1 2 @1 y\n\
         4 log wal-0 0 2 stable=0 @0 x y",
    ),
    (
        "up to the last stable offset",
        None,
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a1 w0 y\n1 acked a1 0\n1 submit a0 w1 x\n1 unknown a0\n2 read r1 1 @0 y\n\
         4 log wal-0 0 2 stable=1 @0 y x",
    ),
    (
        "committed and read, and then the marker is lost",
        None,
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x\n1 unknown a0\n2 committed w1\n2 read r1 2 @0 x\n3 truncated wal-0 1\n4 aborted w1\n\
         5 log wal-0 0 2 empty=1..2 aborted=0..1 stable=2 @0 x",
    ),
    (
        "two transactions of one producer",
        Some(Rule::Committed),
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x\n1 unknown a0\n2 committed w1\n2 submit a1 w1 y\n2 unknown a1\n3 aborted w1\n\
         4 read r1 2 @0 x\n4 read r1 4 @2 y\n5 log wal-0 0 4 empty=1..2 empty=3..4 aborted=2..3 stable=4 @0 x @2 y",
    ),
    (
        "aborted batches out of order",
        Some(Rule::History),
        "4 log wal-0 0 2 empty=0..2 aborted=1..2 aborted=0..1",
    ),
    (
        "another process goes on",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 1 @0 x\n3 reader r1 wal-0 1 from=r0\n4 read r1 2 @1 y\n\
         5 log wal-0 0 2 @0 x y",
    ),
    (
        "another process goes on elsewhere",
        Some(Rule::History),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 1 @0 x\n3 reader r1 wal-0 2 from=r0\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "another process goes on where none was",
        Some(Rule::History),
        "3 reader r1 wal-0 0 from=r7\n5 log wal-0 0 0",
    ),
    (
        "another process learns of a loss of what was read before",
        None,
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n2 read r0 1 @0 x\n3 truncated wal-0 0\n3 submit a1 w1 y\n3 unknown a1\n\
         4 reader r1 wal-0 1 from=r0\n5 read-failed r1 truncated 0\n6 read r1 1 @0 y\n7 log wal-0 0 1 @0 y",
    ),
    (
        "another process goes on after a loss of what was read before",
        Some(Rule::Truncation),
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n2 read r0 1 @0 x\n3 truncated wal-0 0\n3 submit a1 w1 y z\n3 unknown a1\n\
         4 reader r1 wal-0 1 from=r0\n6 read r1 2 @1 z\n7 log wal-0 0 2 @0 y z",
    ),
    (
        "another process goes on in the topic that was created again",
        Some(Rule::Truncation),
        "0 writer w1 wal-0\n1 submit a0 w0 x\n1 acked a0 0\n2 read r0 1 @0 x\n3 recreated wal-0\n3 submit a1 w1 y z\n3 unknown a1\n\
         4 reader r1 wal-0 1 bare from=r0\n6 read r1 2 @1 z\n7 log wal-0 0 2 @0 y z",
    ),
    (
        "trimmed",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n2 deleted wal-0 1\n3 read-failed r0 trimmed 1\n4 read r0 2 @1 y\n\
         5 log wal-0 1 2 @1 y",
    ),
    (
        "trimmed, and nothing was deleted",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x y\n1 acked a0 0\n3 read-failed r0 trimmed 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "trimmed, and the position was not",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 1 @0 x\n2 deleted wal-0 1\n3 read-failed r0 trimmed 1\n\
         5 log wal-0 1 2 @1 y",
    ),
    (
        "records left out after the log start",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y z\n1 acked a0 0\n2 deleted wal-0 1\n3 read-failed r0 trimmed 1\n4 read r0 3 @2 z\n\
         5 log wal-0 1 3 @1 y z",
    ),
    (
        "passed over by a deletion without an error",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 deleted wal-0 1\n4 read r0 2 @1 y\n5 log wal-0 1 2 @1 y",
    ),
    ("beyond the end", None, "1 seek r0 5\n3 read-failed r0 beyond-end 0\n5 log wal-0 0 0"),
    (
        "beyond the end, and it was not",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 1 @0 x\n3 read-failed r0 beyond-end 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "beyond an end of a leader that was deposed",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x y\n2 stale-end wal-0 1\n3 read-failed r0 beyond-end 1\n\
         5 log wal-0 0 2 @0 x y",
    ),
    (
        "beyond an end that is too low",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 2 @0 x y\n3 read-failed r0 beyond-end 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "beyond the end after a loss",
        None,
        "0 reader r1 wal-0 0 bare\n1 submit a0 w0 x y\n1 acked a0 0\n2 read r1 2 @0 x y\n2 truncated wal-0 1\n\
         3 read-failed r1 beyond-end 1\n5 log wal-0 0 1 @0 x",
    ),
    ("an unknown epoch", Some(Rule::FalseAlarm), "3 read-failed r0 epoch-unknown\n5 log wal-0 0 0"),
    (
        "an unknown epoch before it went back",
        Some(Rule::FalseAlarm),
        "3 read-failed r0 epoch-unknown\n4 rewound wal-0\n5 log wal-0 0 0",
    ),
    ("an epoch that went back", None, "2 rewound wal-0\n3 read-failed r0 epoch-unknown\n5 log wal-0 0 0"),
    (
        "an epoch that went back, taken for a loss",
        None,
        "2 rewound wal-0\n3 read-failed r0 truncated 0\n5 log wal-0 0 0",
    ),
    (
        "a loss after its position",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 read r0 1 @0 x\n2 truncated wal-0 1\n3 read-failed r0 truncated 0\n\
         5 log wal-0 0 1 @0 x",
    ),
    (
        "replayed",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 read r0 2 @0 x y\n3 replayed r0 0..2 2\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "replayed, with gaps",
        None,
        "1 submit a0 w0 x\n1 acked a0 1\n2 replay r0 3\n3 read r0 3 @1 x\n3 replayed r0 0..3 1 gap=0..1 gap=2..3\n\
         5 log wal-0 0 3 empty=0..1 empty=2..3 @1 x",
    ),
    (
        "the end of a replay is too low",
        Some(Rule::Replay),
        "0.5 read r0 0\n1 submit a0 w0 x y\n1 acked a0 0\n1.5 read r0 0\n2 replay r0 1\n3 read r0 1 @0 x\n\
         3 replayed r0 0..1 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "the end of a replay is that of a leader that was deposed",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n1.5 read r0 0\n2 stale-end wal-0 1\n2 replay r0 1\n3 read r0 1 @0 x\n\
         3 replayed r0 0..1 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "the end of a replay is not that of a leader that was deposed",
        Some(Rule::Replay),
        "1 submit a0 w0 x y\n1 acked a0 0\n1.5 read r0 0\n2 stale-end wal-0 0\n2 replay r0 1\n3 read r0 1 @0 x\n\
         3 replayed r0 0..1 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "the end of a replay is that of a time before",
        None,
        "0.5 read r0 0\n1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 0\n3 replayed r0 0..0 0\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "the end of a replay is given",
        None,
        "1 submit a0 w0 x y\n1 acked a0 0\n1.5 read r0 0\n2 replay r0 1 given\n3 read r0 1 @0 x\n\
         3 replayed r0 0..1 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "the end of a committed replay is before an open transaction",
        None,
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x\n1 unknown a0\n1 submit a1 w0 y\n1 acked a1 1\n1.5 read r1 0\n2 replay r1 0\n\
         3 replayed r1 0..0 0\n5 log wal-0 0 2 stable=0 @0 x y",
    ),
    (
        "a replay ends early",
        Some(Rule::Replay),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 read r0 1 @0 x\n3 replayed r0 0..1 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "a replay ends elsewhere than its reader",
        Some(Rule::Replay),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 1\n3 read r0 1 @0 x\n3 replayed r0 0..2 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "a replay counts one too many",
        Some(Rule::Replay),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 read r0 2 @0 x y\n3 replayed r0 0..2 3\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "a replay leaves a record out",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 read r0 2 @1 y\n3 replayed r0 0..2 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "a replay of which only the summary is known",
        Some(Rule::Replay),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 replayed r0 0..2 1\n5 log wal-0 0 2 @0 x y",
    ),
    (
        "a gap that has a record",
        Some(Rule::Replay),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 read r0 2 @0 x y\n3 replayed r0 0..2 2 gap=1..2\n\
         5 log wal-0 0 2 @0 x y",
    ),
    (
        "a gap of aborted records",
        None,
        "0 writer w1 wal-0 transactional continue without-ids\n0 reader r1 wal-0 0 committed\n\
         1 submit a0 w1 x y\n1 unknown a0\n2 aborted w1\n2 replay r1 3\n3 read r1 3\n3 replayed r1 0..3 0 gap=0..3\n\
         4 log wal-0 0 3 empty=2..3 aborted=0..2 stable=3 @0 x y",
    ),
    (
        "gaps out of order",
        Some(Rule::Replay),
        "2 replay r0 2\n3 read r0 2\n3 replayed r0 0..2 0 gap=1..2 gap=0..1\n5 log wal-0 0 2 empty=0..2",
    ),
    (
        "a replay that starts late",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y\n1 acked a0 0\n2 replay r0 2\n3 replayed r0 1..2 1\n5 log wal-0 0 2 @0 x y",
    ),
    ("a replay that nobody opened", Some(Rule::History), "3 replayed r0 0..0 0\n5 log wal-0 0 0"),
    (
        "follow after a replay, with a gap",
        Some(Rule::ReadEvery),
        "1 submit a0 w0 x y z\n1 acked a0 0\n2 replay r0 1 given\n3 read r0 1 @0 x\n3 replayed r0 0..1 1\n\
         4 read r0 3 @2 z\n5 log wal-0 0 3 @0 x y z",
    ),
    (
        "the end of a replay is lost",
        None,
        "1 submit a0 w0 x\n1 acked a0 0\n1 submit a1 w0 y\n1 acked a1 1\n1 replay r0 2\n2 truncated wal-0 1\n\
         2 read r0 1 @0 x\n3 read-failed r0 truncated 1\n4 log wal-0 0 1 @0 x",
    ),
    (
        "nothing is lost of what a reader knows",
        Some(Rule::FalseAlarm),
        "1 submit a0 w0 x\n1 acked a0 0\n1 submit a1 w0 y\n1 acked a1 1\n2 truncated wal-0 1\n\
         2 read r0 1 @0 x\n3 read-failed r0 truncated 1\n4 log wal-0 0 1 @0 x",
    ),
    (
        "the rest of a response that was fetched before the topic was created again",
        None,
        "1 submit a0 w0 x y z\n1 acked a0 0\n3 recreated wal-0\n4 fetched r0\n4 read r0 1 @0 x\n4 read r0 2 @1 y\n\
         4 read r0 3 @2 z\n5 read-failed r0 recreated\n6 log wal-0 0 0",
    ),
    (
        "the rest of a response that was fetched before a loss",
        None,
        "1 submit a0 w0 x y z\n1 acked a0 0\n3 truncated wal-0 1\n4 fetched r0\n4 read r0 2 @0 x y\n4 read r0 3 @2 z\n\
         5 read-failed r0 truncated 1\n6 log wal-0 0 1 @0 x",
    ),
    (
        "fetched ahead before the topic was created again",
        None,
        "1 submit a0 w0 x y z\n1 acked a0 0\n2 fetched r0\n2 read r0 1 @0 x\n3 recreated wal-0\n4 fetched r0\n\
         4 read r0 2 @1 y\n4 read r0 3 @2 z\n5 read-failed r0 recreated\n6 log wal-0 0 0",
    ),
    (
        "fetched after a loss",
        Some(Rule::ReadTrue),
        "0 writer w1 wal-0\n0 reader r1 wal-0 0 bare\n1 submit a0 w0 x y z\n1 acked a0 0\n2 fetched r1\n2 read r1 1 @0 x\n\
         3 truncated wal-0 0\n3 submit a1 w1 u v w\n3 acked a1 0\n4 fetched r1\n4 read r1 2 @1 y\n5 fetched r1\n\
         5 read r1 3 @2 z\n6 log wal-0 0 3 @0 u v w",
    ),
    (
        "reads on from the topic that was created again, after a response of the former one",
        Some(Rule::Truncation),
        "0 writer w1 wal-0\n1 submit a0 w0 x y\n1 acked a0 0\n2 submit a1 w1 v w\n3 recreated wal-0\n3 unknown a1\n\
         4 fetched r0\n4 read r0 1 @0 x\n4 fetched r0\n4 read r0 1\n5 fetched r0\n5 read r0 2 @1 w\n6 log wal-0 0 2 @0 v w",
    ),
    (
        "reads on from the topic that was created again, with what was appended to it since",
        Some(Rule::Truncation),
        "0 writer w1 wal-0\n1 submit a0 w0 x y\n1 acked a0 0\n3 recreated wal-0\n3 submit a1 w1 v w\n3 unknown a1\n\
         4 fetched r0\n4 read r0 1 @0 x\n5 read r0 2 @1 w\n6 log wal-0 0 2 @0 v w",
    ),
];
