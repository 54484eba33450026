//! `resolve`: appends in doubt.

use kwal::{Client, Record, client::error::InDoubt};
use kwal_testkit::Fault;
use serde_json::{Value, json};

use crate::support::World;

/// A handle of what the log does not have, or has.
fn handle(producer_id: i64, sequence: i32, transactional_id: Option<&str>) -> String {
    let handle = InDoubt {
        topic: "wal".to_owned(),
        topic_id: None,
        partition: 0,
        producer_id,
        epoch: 0,
        sequence,
        record_count: 2,
        after: None,
        transactional_id: transactional_id.map(str::to_owned),
        part: None,
    };
    serde_json::to_string(&handle).unwrap()
}

/// Appends a batch of two records. Returns the producer id.
fn append(world: &World) -> i64 {
    world.ok_with("append wal", b"one\ntwo\n");
    world.cluster.log("wal", 0).unwrap()[0].header().producer_id
}

#[test]
fn what_append_leaves_in_doubt_is_settled() {
    let world = World::wal();
    world.ok_with("append wal", b"zero\n");
    let produce = kwal::protocol::ApiKey::PRODUCE;
    world.cluster.on_all(produce, Fault::LoseReply);
    world.cluster.on_all(kwal::protocol::ApiKey::FETCH, Fault::Drop);
    let ended = world.run_with("append wal --timeout 1 --json", b"one\ntwo\n");
    assert_eq!(ended.code, 4, "{ended:?}");
    let doubt = ended.objects().remove(0)["inputs"]["in_doubt"][0].to_string();
    // Nothing is found out while the log cannot be read.
    let nothing = world.run_with("resolve - --yes --timeout 1", doubt.as_bytes());
    assert_eq!((nothing.code, nothing.text().as_str()), (3, ""), "{nothing:?}");

    world.cluster.clear_faults();
    let settled = world.run_with("resolve - --yes", doubt.as_bytes());
    assert_eq!(settled.code, 0, "{settled:?}");
    assert!(settled.text().ends_with("sequence 0, 2 records: on the log, at offsets 1 to 2\n"));
    let records = world.cluster.records("wal", 0).unwrap();
    let fence = records.last().unwrap();
    assert_eq!((fence.key.as_deref(), fence.value.as_deref()), (None, None));
    assert!(fence.headers.iter().any(|header| header.key() == "fence"));
}

#[test]
fn several_are_resolved_in_their_order() {
    let world = World::wal();
    let id = append(&world);
    let handles = format!("{}\n{}\n", handle(id, 0, None), handle(id, 2, None));
    let ended =
        world.run_with("resolve - --yes --json --fence-header mark --fence-key k", handles.as_bytes());
    assert_eq!(ended.code, 1, "one of them is not on the log: {ended:?}");
    let offsets: Vec<Value> = ended.objects().iter().map(|object| object["offsets"].clone()).collect();
    assert_eq!(offsets, [json!([0, 1]), json!(null)]);
    let records = world.cluster.records("wal", 0).unwrap();
    let is_fence =
        |record: &&kwal::record::OwnedRecord| record.headers.iter().any(|header| header.key() == "mark");
    assert_eq!(
        records.iter().filter(is_fence).map(|record| record.key.as_deref()).next(),
        Some(Some(&b"k"[..]))
    );
    let again = world.run_with("resolve - --yes", handle(id, 2, None).as_bytes());
    assert!(again.text().ends_with("2 records: not on the log, and never will be\n"), "{again:?}");
}

#[test]
fn a_batch_of_a_holder_takes_a_takeover() {
    let world = World::wal();
    let epoch = world.runtime.block_on(async {
        let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
        let wal = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
        wal.produce(vec![Record::new("k", "1"), Record::new("k", "2")]).await.unwrap();
        wal.holder().unwrap().epoch
    });
    let log = world.cluster.log("wal", 0).unwrap();
    let batch = log[1].header();
    let of_holder = InDoubt {
        epoch,
        sequence: batch.base_sequence,
        ..serde_json::from_str(&handle(batch.producer_id, 0, Some("writer/wal/0"))).unwrap()
    };
    let of_holder = serde_json::to_string(&of_holder).unwrap();
    let refused = world.run_with("resolve - --yes", of_holder.as_bytes());
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains(" is of the holder writer: --take-over "), "{}", refused.stderr);
    let settled = world.run_with("resolve - --yes --take-over", of_holder.as_bytes());
    assert_eq!(settled.code, 0, "{settled:?}");
    assert!(settled.text().ends_with(": on the log, at offsets 1 to 2\n"), "{settled:?}");
}

#[test]
fn what_is_no_handle_is_refused_before_anything_is_sent() {
    let world = World::wal();
    let valid = handle(17, 0, None);
    for (input, part) in [
        ("", "standard input has no handle"),
        ("{}", "standard input: no handle: missing field `topic`"),
        ("[]", "standard input: no handle: invalid length 0"),
        (&valid.replace("17", "\"17\"") as &str, "standard input: no handle: invalid type"),
        (&valid[..valid.len() - 1], "standard input: no handle: EOF while parsing"),
        (&" ".repeat((1 << 20) + 1), "standard input has more than 1048576 bytes"),
    ] {
        let ended = world.run_with("resolve - --yes", input.as_bytes());
        assert_eq!((ended.code, ended.stderr.lines().count()), (5, 1), "{ended:?}");
        assert!(ended.stderr.starts_with(&format!("kwal: {part}")), "{}", ended.stderr);
    }
    let asked = world.run_with("resolve -", valid.as_bytes());
    let line = "kwal: append a fence to resolve 1 batch takes --yes where nobody can be asked\n";
    assert_eq!((asked.code, asked.stderr.as_str()), (2, line));
    let missing = world.run("resolve /nowhere/doubt.json --yes");
    assert!(missing.stderr.starts_with("kwal: /nowhere/doubt.json: No such file"), "{}", missing.stderr);
    assert_eq!(missing.code, 5);
    assert_eq!(world.cluster.end_offset("wal", 0).unwrap(), 0);
    // Numbers that no batch has, and another topic than the one that is there.
    let negative = world.run_with("resolve - --yes", valid.replace("17", "-17").as_bytes());
    assert!(negative.stderr.contains("there is no such batch"), "{}", negative.stderr);
    assert_eq!((negative.code, world.cluster.end_offset("wal", 0).unwrap()), (4, 0));
}

/// It would be said of it that the batch is not on the log.
#[test]
fn a_mistyped_handle_is_refused_before_anything_is_sent() {
    let world = World::wal();
    let id = append(&world);
    for (typed, meant) in [("\"record_count\":3", "\"record_count\":2"), ("\"sequence\":1", "\"sequence\":0")]
    {
        let handle = handle(id, 0, None).replace(meant, typed);
        let ended = world.run_with("resolve - --yes", handle.as_bytes());
        assert_eq!(ended.code, 5, "{ended:?}");
        assert!(
            ended.stderr.contains(" with the sequence numbers 0 to 1 at offset 0; check the handle"),
            "{ended:?}"
        );
    }
    assert_eq!(world.cluster.end_offset("wal", 0).unwrap(), 2);
}
