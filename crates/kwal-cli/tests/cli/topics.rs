//! `topics`, `offsets`, `audit` and `trim`.

use kwal::{
    Client, Record,
    record::{BatchBuilder, Compression, HeaderView},
};
use kwal_testkit::EmbeddedCluster;
use serde_json::json;

use crate::support::{World, fields, objects};

#[test]
fn a_topic_is_created_compared_described_and_deleted() {
    let world = World::start(EmbeddedCluster::builder().brokers(3));
    assert_eq!(world.ok("topics list"), "");

    let created = world.ok("topics create wal -p 2 -r 3 --set min.insync.replicas=2 --set retention.ms=-1");
    assert_eq!(created, "topic wal was created: partitions 2, replication factor 3\n");
    let again = world.run("topics create wal");
    assert_eq!((again.code, again.text().as_str()), (3, ""));
    assert!(again.stderr.contains("TOPIC_ALREADY_EXISTS"), "{}", again.stderr);

    let same = world.ok("topics ensure wal -p 2 -r 3 --set retention.ms=-1 --json");
    let id = world.cluster.topic_id("wal").unwrap().to_string();
    let expected = json!({
        "name": "wal", "id": id, "created": false, "partitions": 2, "replication_factor": 3, "differences": [],
    });
    assert_eq!(objects(&same), [expected]);
    let different = world.run("topics ensure wal -p 4 --set retention.ms=1");
    assert_eq!(different.code, 1);
    assert_eq!(
        different.text(),
        "topic wal exists: partitions 2, replication factor 3\n\
         differs: 2 partitions instead of 4\n\
         differs: retention.ms is -1 (set for the topic) instead of 1\n"
    );

    assert_eq!(world.ok("topics list"), format!("TOPIC  PARTITIONS  ID\nwal             2  {id}\n"));
    let listed = json!({"name": "wal", "id": id, "partitions": 2, "internal": false});
    assert_eq!(objects(&world.ok("topics list --json")), [listed]);

    let refused = world.run("topics delete wal");
    assert_eq!(refused.code, 2);
    assert_eq!(
        refused.stderr,
        "kwal: delete topic wal with 2 partitions and all records takes --yes where nobody can be asked\n"
    );
    assert_eq!(world.cluster.topics(), ["wal"]);
    assert_eq!(world.ok("topics delete wal --yes"), "topic wal was deleted\n");
    assert!(world.cluster.topics().is_empty());
    assert_eq!(world.run("topics delete wal --yes --timeout 1").code, 3);
}

#[test]
fn a_description_shows_who_leads_and_who_lags() {
    let world = World::start(EmbeddedCluster::builder().brokers(3).topic("wal", 2));
    let whole = world.run("topics describe wal --json");
    assert_eq!(whole.code, 0, "{whole:?}");
    let object = whole.objects().remove(0);
    assert_eq!(fields(&object), ["configs", "id", "name", "partitions"]);
    let partition = |index: i32,
                     leader: i32,
                     epoch: i32,
                     replicas: [i32; 3],
                     in_sync: &[i32],
                     offline: &[i32]| {
        json!({
            "index": index, "leader": leader, "leader_epoch": epoch, "replicas": replicas, "in_sync": in_sync,
            "offline": offline,
        })
    };
    let expected = json!([
        partition(0, 1, 0, [1, 2, 3], &[1, 2, 3], &[]),
        partition(1, 2, 0, [2, 3, 1], &[2, 3, 1], &[])
    ]);
    assert_eq!(object["partitions"], expected);
    assert_eq!(object["configs"]["retention.ms"], json!({"value": "604800000", "source": "the default"}));
    assert!(object["configs"].get("flush.ms").is_none());
    assert!(world.ok("topics describe wal --all").contains("\nflush.ms "));

    world.cluster.move_leader("wal", 0, 3).unwrap();
    world.cluster.stop(1).unwrap();
    let lagging = world.run("topics describe wal --json");
    assert_eq!(lagging.code, 1, "replicas are out of sync");
    let partitions = &lagging.objects()[0]["partitions"];
    assert_eq!(partitions[0], partition(0, 3, 1, [1, 2, 3], &[2, 3], &[1]));
    let text = world.run("topics describe wal").text();
    assert!(text.contains("        0       3      1  1,2,3     2,3      1\n"), "{text}");
}

#[test]
fn offsets_of_all_partitions() {
    let world = World::start(EmbeddedCluster::builder().topic("wal", 2));
    world.ok_with("append wal -p 0", b"a\nb\nc\n");
    world.cluster.delete_records("wal", 0, 1).unwrap();
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(5_000, None, Some(b"x"), std::iter::empty::<HeaderView<'_>>());
    let producer = (world.cluster.new_producer_id(), 0);
    world.cluster.append_in_transaction("wal", 1, producer, 0, &builder.finish().unwrap()).unwrap();
    assert_eq!(
        world.ok("offsets wal"),
        "PARTITION  LOG START  LAST STABLE  HIGH WATERMARK  LEADER  EPOCH\n\
         \x20       0          1            3               3       1      0\n\
         \x20       1          0            0               1       1      0\n"
    );
    let partition = |index: i32, start: i64, stable: i64, end: i64, at: Option<i64>| {
        json!({
            "partition": index, "log_start": start, "last_stable": stable, "high_watermark": end, "at": at,
            "leader": 1, "leader_epoch": 0, "error": null,
        })
    };
    let at = world.ok("offsets wal --json --at 1970-01-01T00:00:05.001Z");
    assert_eq!(objects(&at), [partition(0, 1, 3, 3, Some(1)), partition(1, 0, 0, 1, None)]);
}

#[test]
fn a_partition_that_does_not_answer_is_named() {
    let world = World::start(EmbeddedCluster::builder().brokers(2).topic_assigned("wal", &[&[1], &[2]]));
    world.cluster.stop(2).unwrap();
    let ended = world.run("offsets wal --json --timeout 1");
    assert_eq!(ended.code, 3);
    let objects = ended.objects();
    assert_eq!((&objects[0]["high_watermark"], &objects[1]["high_watermark"]), (&json!(0), &json!(null)));
    assert!(objects[1]["error"].is_string() && objects[1]["leader"].is_null(), "{}", objects[1]);
    assert!(ended.stderr.starts_with("kwal: warning: partition 1: "), "{}", ended.stderr);
}

#[test]
fn an_audit_fails_by_severity() {
    let world = World::start(
        EmbeddedCluster::builder()
            .brokers(3)
            .topic_with("safe", 1, &[("min.insync.replicas", "2"), ("retention.ms", "-1")])
            .topic("wal", 1),
    );
    let ended = world.run("audit wal");
    assert_eq!(ended.code, 1);
    assert!(
        ended.text().contains("error     min.insync.replicas: 1, the default; should be 2 of 3 replicas.")
    );
    let object = world.run("audit wal --json").objects().remove(0);
    let finding = &object["findings"][0];
    assert_eq!(fields(finding), ["brokers", "found", "setting", "severity", "source", "wanted", "why"]);
    assert_eq!((&object["topic"], &finding["severity"]), (&json!("wal"), &json!("error")));
    let safe = world.run("audit safe --fail-on error");
    assert_eq!(safe.code, 0, "{safe:?}");
}

#[test]
fn a_log_is_trimmed() {
    let world = World::wal();
    world.ok_with("append wal", b"a\nb\nc\n");
    let refused = world.run("trim wal --before 2");
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (2, "kwal: delete offsets 0 to 1 of wal/0 takes --yes where nobody can be asked\n")
    );
    assert_eq!(world.ok("trim wal --before 2 --yes"), "wal/0 begins at 2: 2 offsets removed\n");
    let all = world.ok("trim wal --before high-watermark --yes --json");
    assert_eq!(objects(&all), [json!({"topic": "wal", "partition": 0, "log_start": 3, "deleted": 1})]);
    // Nothing is left to ask about.
    assert_eq!(world.ok("trim wal --before 1"), "wal/0 begins at 3: 0 offsets removed\n");
    let beyond = world.run("trim wal --before 9 --yes");
    assert_eq!(beyond.code, 3, "{beyond:?}");
}

#[test]
fn a_trim_that_takes_all_of_a_holder_warns() {
    let world = World::wal();
    world.runtime.block_on(async {
        let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
        let holder = client.partition_client("wal", 0).exclusive("writer-1").await.unwrap();
        holder.produce(vec![Record::new("key", "value"); 3]).await.unwrap();
    });
    world.ok_with("append wal", b"of another\n");
    let warning = "kwal: warning: nothing of the holder writer-1 will be left, so an earlier holder may be able to append \
                   again; --before 3 keeps its last record\n";
    for before in ["high-watermark", "5"] {
        let refused = world.run(&format!("trim wal --before {before}"));
        let line = "kwal: delete offsets 0 to 4 of wal/0 takes --yes where nobody can be asked\n";
        assert_eq!((refused.code, refused.stderr), (2, format!("{warning}{line}")));
    }
    // What the warning names keeps it, and needs no warning.
    let kept = world.run("trim wal --before 3 --yes");
    assert_eq!((kept.code, kept.stderr.as_str()), (0, ""));
    // The barrier is gone, and what is left does not show that its producer is a holder.
    let all = world.run("trim wal --before 5 --yes");
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
}
