use fastrand::Rng;

use super::*;

const ALL: &str = "\
0 writer w7 wal-0 deadline=60 exclusive=me continue
0 writer w8 a-b%25c-12
0 writer w9 wal-0 without-ids leader-acks
0 writer w10 wal-0 transactional
0 writer w11 wal-0 batched
0.5 submit a3 w7 x y
0.5 queue a4 w7 z
0.500000001 start a5 w8 \"\" %20
1 acked a3 5
1 acked a8 somewhere
1 not-appended a4
1 unknown a5
1.25 dropped a6
1.25 withdrawn a7
1.5 resolve a5
1.5 resolved a5 7
1.5 resolved a6 absent
1.5 close w9
1.5 closed w9 2
1.5 flush c8 w11
1.5 flush c8 w11 after=a3
1.5 flushed c8
1.5 flush-failed c8
1.5 drain c9 w11
1.5 drain c9 w11 after=a3
1.5 drained c9
1.5 drained c9 absent=x absent=x=y unknown=z
2 fenced w7
2 lost w7
2 barrier w7 9
2 barrier w7 10 as=1000/3
2 reader r0 wal-0 0
2 reader r1 wal-0 4 bare
2 reader r2 wal-0 4 committed
2 reader r3 wal-0 4 bare committed from=r1
2 committed w10
2 aborted w10
2 replay r0 9
2 replay r1 9 given
3 read r0 9 @5 x y @8 z
3 read r0 9
3 fetched r0
3 read-failed r0 out-of-range
3 read-failed r0 truncated -1
3 read-failed r0 trimmed 5
3 read-failed r0 beyond-end 5
3 read-failed r0 recreated
3 read-failed r0 epoch-unknown
3 read-failed r0 other
3 seek r0 9
3 replayed r0 0..9 3
3 replayed r0 -1..9 3 gap=3..4 gap=7..8
4 call c0 10 fetch
4 returned c0
5 truncated wal-0 3
5 unreplicated wal-0 4
5 deleted wal-0 3
5 recreated wal-0
5 rewound wal-0
5 stale-end wal-0 3
18446744073709551615 log wal-0 3 12 empty=3..5 empty=7..8 by=5..7:1000/3 by=8..9:7/-1 aborted=5..6 aborted=8..9 stable=10 @5 x y @8 z
";

#[test]
fn every_event_survives_as_text() {
    let history: History = ALL.parse().unwrap();
    assert_eq!(history.to_string(), ALL);
    assert_eq!(history.events().len(), ALL.lines().count());
    let mut longer = history.clone();
    assert_eq!(longer.writer(("wal", 0)), WriterId(12), "ids continue after those that were read");
}

#[test]
fn errors_name_the_line() {
    for (line, problem) in [
        ("x submit a0 w0", "\"x\" is not a time in seconds"),
        ("1.0000000001 fenced w0", "\"1.0000000001\" is not a time in seconds"),
        ("1", "what happened is missing"),
        ("1 went", "\"went\" is not an event"),
        ("1 acked a0", "an offset is missing"),
        ("1 acked 0 5", "\"0\" should be 'a' and a number"),
        ("1 acked a0 5 6", "\"6\" is one word too many"),
        ("1 writer w0 wal", "\"wal\" is not a topic and partition"),
        ("1 writer w0 wal-0 soon", "\"soon\" is not a property of a writer"),
        ("1 resolved a0 there", "\"there\" is not an offset"),
        ("1 closed w0 -1", "\"-1\" is not a number"),
        ("1 flush c0 w0 a3", "\"a3\" is not an append"),
        ("1 drained c0 lost=x", "\"lost=x\" is not a record that was not delivered"),
        ("1 read r0 5 x", "the offset of \"x\" is missing"),
        ("1 read r0 5 @5 %", "\"%\" is not a value"),
        ("1 barrier w0 5 1000", "\"1000\" is not a producer id and epoch"),
        ("1 log wal-0 0 1 by=0..1", "\"0..1\" has no producer"),
        ("1 log wal-0 0 1 by=0..1:7/x", "\"7/x\" is not a producer id and epoch"),
        ("1 reader r0 wal-0 5 often", "\"often\" is not a property of a reader"),
        ("1 reader r0 wal-0 5 from=w1", "\"w1\" should be 'r' and a number"),
        ("1 replay r0 5 taken", "\"taken\" is one word too many"),
        ("1 replayed r0 5", "\"5\" is not a range of offsets"),
        ("1 replayed r0 5..6", "a number of records is missing"),
        ("1 replayed r0 5..6 1 empty=5..6", "\"empty=5..6\" is not a gap"),
        ("1 log wal-0 0 1 empty=3", "\"3\" is not a range of offsets"),
    ] {
        let error = format!("\n# fine\n{line}\n").parse::<History>().unwrap_err();
        assert_eq!(error.to_string(), format!("line 3 of the history: {problem}"));
    }
}

#[test]
fn no_parsable_history_panics() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..1_000 {
        let mut text = ALL.as_bytes().to_vec();
        for _ in 0..rng.usize(1..20) {
            let at = rng.usize(..text.len());
            match rng.u8(..3) {
                0 => text[at] = rng.u8(..128),
                1 => drop(text.remove(at)),
                _ => text.insert(at, b" @%=-.9\n"[rng.usize(..8)]),
            }
        }
        let text = String::from_utf8(text).unwrap();
        for line in text.lines() {
            if let Ok(history) = line.parse::<History>() {
                assert_eq!(history.to_string().parse::<History>().as_ref(), Ok(&history), "{line}");
                let _ = history.check(&Default::default()).to_string();
            }
        }
        if let Ok(history) = text.parse::<History>() {
            let _ = history.check(&Default::default()).to_string();
        }
    }
}

#[test]
fn abbreviated_events_show_the_neighbours_of_an_offset() {
    let log = Log::new(("wal", 0), 0..100, (0..100).map(|offset| (offset, offset)));
    let log = Event::Log(log.empty(3..4).empty(52..53));
    let text = Around(&log, Some(50)).to_string();
    assert_eq!(text, "log wal-0 0 100 empty=52..53 … @47 47 48 49 50 51 52 53 …");
    let append = Event::Submit {
        append: AppendId(0),
        writer: WriterId(0),
        order: SubmitOrder::Fixed,
        records: (0..100).map(Value::from).collect(),
    };
    assert_eq!(Around(&append, None).to_string(), "submit a0 w0 0 1 2 3 4 5 6 …");
}
