//! `append`: what becomes of each input.

use kwal::{
    Client, Record,
    client::{Resolution, error::InDoubt},
    protocol::{ApiKey, ErrorCode},
};
use kwal_testkit::{Fault, FaultTarget};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{World, objects};

/// The text without the sizes of batches, which depend on the time that their records have.
fn without_size(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let parts: Vec<_> = line.split(", ").filter(|part| !part.ends_with('B')).collect();
        parts.join(", ") + "\n"
    });
    lines.collect()
}

#[test]
fn a_summary_and_the_offsets_of_batches() {
    let world = World::wal();
    let lines: String = (0..100).map(|i| format!("line {i}\n")).collect();
    let summary = world.ok_with("append wal", lines.as_bytes());
    assert_eq!(without_size(&summary), "appended 100 records in 1 batch, at offsets 0 to 99\n");
    let batches = world.ok_with("append wal --offsets --batch-bytes 1200", lines.as_bytes());
    assert_eq!(
        without_size(&batches),
        "inputs 1 to 52: offsets 100 to 151\ninputs 53 to 100: offsets 152 to 199\n\
         appended 100 records in 2 batches, at offsets 100 to 199\n"
    );
    let objects = objects(&world.ok_with("append wal --offsets --json", b"x"));
    let summary = json!({
        "type": "summary", "topic": "wal", "partition": 0, "read": 1, "appended": 1, "batches": 1, "bytes": 69,
        "first_offset": 200, "last_offset": 200,
        "inputs": {"appended": [[1, 1]], "not_appended": [], "in_doubt": []}, "error": null,
    });
    assert_eq!(objects, [json!({"type": "batch", "inputs": [1, 1], "offsets": [200, 200]}), summary]);
    assert_eq!(world.ok_with("append wal", b""), "appended 0 records in 0 batches, 0 B\n");
    assert_eq!(world.cluster.records("wal", 0).unwrap().len(), 201);
}

#[test]
fn a_rejected_append_ends_it_and_says_what_is_on_the_log() {
    let world = World::wal();
    let denied = Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    world.cluster.on_all(FaultTarget::api(ApiKey::PRODUCE).after(1), denied);
    let ended = world.run_with("append wal --batch-bytes 42", b"one\ntwo\nthree\nfour\n");
    assert_eq!(ended.code, 3);
    assert_eq!(without_size(&ended.text()), "appended 2 records in 1 batch, at offsets 0 to 1\n");
    let mut lines = ended.stderr.lines();
    assert_eq!(lines.next(), Some("kwal: warning: on the log: inputs 1 to 2"));
    assert_eq!(lines.next(), Some("kwal: warning: not on the log: inputs 3 to 4"));
    assert_eq!(lines.next(), Some("kwal: warning: 4 inputs were read"));
    let last = lines.next().unwrap();
    assert!(last.contains("TOPIC_AUTHORIZATION_FAILED"), "{last}");
    assert_eq!(lines.next(), None);
}

#[test]
fn an_append_without_an_answer_is_in_doubt() {
    let world = World::wal();
    world.ok_with("append wal", b"zero\n");
    world.cluster.on_all(ApiKey::PRODUCE, Fault::LoseReply);
    // The log refuses to be asked as well, or the client would find the batch.
    world.cluster.on_all(ApiKey::FETCH, Fault::Drop);
    let ended = world.run_with("append wal --timeout 1 --json", b"one\ntwo\n");
    assert_eq!(ended.code, 4, "{ended:?}");
    let summary = ended.objects().remove(0);
    let in_doubt = &summary["inputs"]["in_doubt"][0];
    assert_eq!((&summary["appended"], &in_doubt["inputs"]), (&json!(0), &json!([1, 2])));
    let batch = &world.cluster.log("wal", 0).unwrap()[1];
    let header = batch.header();
    assert_eq!(in_doubt["producer_id"], json!(header.producer_id), "it can be found on the log");
    assert_eq!((&in_doubt["sequence"], &in_doubt["record_count"]), (&json!(header.base_sequence), &json!(2)));
    assert!(summary["error"].is_string());
    assert!(
        ended.stderr.contains("kwal: warning: in doubt: inputs 1 to 2: producer id "),
        "{}",
        ended.stderr
    );
    let settle = "kwal: warning: what is in doubt is on the log if `kwal inspect wal -p 0 --from 1` shows it; its absence \
                  proves nothing while its request may still arrive, see `kwal append --help`\n";
    assert!(ended.stderr.contains(settle), "{}", ended.stderr);
    // A program can take it as it is.
    let handle: InDoubt = serde_json::from_value(in_doubt.clone()).unwrap();
    assert_eq!((handle.topic.as_str(), handle.record_count), ("wal", 2));
    world.cluster.clear_faults();
    world.runtime.block_on(async {
        let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        let resolution = partition.resolve(&handle, Record::new("fence", "")).await.unwrap();
        assert_eq!(resolution, Resolution::Appended(1..3));
    });
}

#[test]
fn a_pipe_that_is_closed_does_not_end_it() {
    let world = World::wal();
    let mut appending = world.spawn("append wal --offsets");
    appending.write(b"a\n");
    assert_eq!(appending.line(), "inputs 1: offsets 0");
    appending.close_stdout();
    appending.write(b"b\n");
    world.wait_for(|cluster| cluster.end_offset("wal", 0).unwrap() == 2);
    appending.write(b"c\n");
    let ended = appending.end_of_input();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(world.cluster.records("wal", 0).unwrap().len(), 3);
}

#[test]
fn a_bad_input_ends_it_after_those_before_it() {
    let world = World::wal();
    let ended = world.run_with("append wal --input json", b"{\"value\":\"a\"}\n{\"valu\":1}\n{}\n");
    assert_eq!(ended.code, 5);
    assert!(ended.text().starts_with("appended 1 record in 1 batch"), "{ended:?}");
    assert!(ended.stderr.starts_with("kwal: warning: on the log: inputs 1\n"), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("kwal: input 2: unknown field `valu`"), "{last}");
    let cut = world.run_with("append wal --input prefixed", b"\0\0\0\x09abc");
    assert_eq!(cut.code, 5);
    assert!(
        cut.stderr.ends_with("kwal: input 1 is cut off: standard input ends within it\n"),
        "{}",
        cut.stderr
    );
    assert_eq!(world.cluster.records("wal", 0).unwrap().len(), 1);
}

#[test]
fn a_record_that_is_too_large_is_named() {
    let world = World::wal();
    let mut input = b"small\n".to_vec();
    input.extend(vec![b'x'; 2 << 20]);
    let ended = world.run_with("append wal", &input);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("not on the log: inputs 2\n"), "{}", ended.stderr);
    assert_eq!(world.cluster.records("wal", 0).unwrap().len(), 1);
}

#[test]
fn ctrl_c_stops_reading_and_waits_for_what_is_in_flight() {
    let world = World::wal();
    let mut appending = world.spawn("append wal --offsets");
    appending.write(b"a\nb\n");
    assert_eq!(appending.line(), "inputs 1 to 2: offsets 0 to 1");
    appending.signal(Signal::INT);
    let ended = appending.end();
    assert_eq!(ended.code, 130);
    assert_eq!(without_size(&ended.text()), "appended 2 records in 1 batch, at offsets 0 to 1\n");
    assert_eq!(
        ended.stderr,
        "kwal: warning: on the log: inputs 1 to 2\nkwal: warning: 2 inputs were read\nkwal: interrupted\n"
    );
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let world = World::wal();
    world.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let mut appending = world.spawn("append wal");
    appending.write(b"a\n");
    world.wait_for(|cluster| cluster.requests(ApiKey::PRODUCE) > 0);
    appending.signal(Signal::INT);
    let waiting = "kwal: waiting for 1 batch in flight; Ctrl-C again leaves that in doubt";
    assert_eq!(appending.error_line(), waiting);
    appending.signal(Signal::INT);
    let ended = appending.end();
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.stderr.contains("kwal: warning: in doubt: inputs 1\n"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("kwal: interrupted\n"), "{}", ended.stderr);
}
