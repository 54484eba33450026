//! Each command once, and what it prints.

use kwal_client::ClientBuilder;
use kwal_client::record::Record;
use kwal_protocol::record::Compression;
use kwal_tests::kafka::Kafka;
use serde_json::json;

use super::{Kwal, objects};
use crate::raw::{Ability, lacks};

kwal_tests::suite! {
    shared: [topics, records, the_log],
}

async fn topics(kafka: &'static Kafka) {
    let kwal = Kwal::on(kafka);
    let topic = kafka.topic_name("cli");
    let configs = "--set retention.ms=-1 --set max.message.bytes=2000000";
    let created = kwal.ok(&format!("topics create {topic} -p 2 {configs}")).await;
    assert!(created.starts_with(&format!("topic {topic} was created: partitions 2, ")), "{created}");
    kwal.ends(3, &format!("topics create {topic}"), b"").await;
    let same = kwal.objects(0, &format!("topics ensure {topic} -p 2 {configs}")).await.remove(0);
    assert_eq!((&same["created"], &same["differences"]), (&json!(false), &json!([])));
    let other = kwal.ends(1, &format!("topics ensure {topic} -p 3 --set retention.ms=1"), b"").await;
    let differences: Vec<_> = other.lines().filter(|line| line.starts_with("differs: ")).collect();
    assert_eq!(
        differences,
        [
            "differs: 2 partitions instead of 3",
            "differs: retention.ms is -1 (set for the topic) instead of 1"
        ]
    );

    let listed = kwal.objects(0, "topics list").await;
    let listed = listed.iter().find(|each| each["name"] == *topic).expect("it is listed");
    assert_eq!((&listed["partitions"], &listed["id"]), (&json!(2), &same["id"]));
    let described = kwal.objects(0, &format!("topics describe {topic}")).await.remove(0);
    let configs = &described["configs"];
    assert_eq!(configs["retention.ms"], json!({"value": "-1", "source": "set for the topic"}));
    for (index, partition) in described["partitions"].as_array().unwrap().iter().enumerate() {
        assert_eq!(partition["index"], index);
        assert_eq!(partition["in_sync"], partition["replicas"]);
        assert!(partition["leader"].is_i64() && partition["leader_epoch"].is_i64(), "{partition}");
    }
    let table = kwal.ok(&format!("topics describe {topic}")).await;
    assert!(table.contains("\nretention.ms "), "{table}");
    let audit = kwal.run(&format!("audit {topic} --json"), b"").await;
    let findings = objects(&String::from_utf8(audit.stdout).unwrap()).remove(0)["findings"].clone();
    // A cluster of one broker endangers every log; that of KAFKA_CONNECT may not.
    let has_findings = findings.as_array().is_some_and(|findings| !findings.is_empty());
    assert!(has_findings || kafka.cluster().is_none(), "{findings}");

    let offsets = kwal.objects(0, &format!("offsets {topic}")).await;
    let ends = offsets.iter().map(|each| (each["log_start"].clone(), each["high_watermark"].clone()));
    assert_eq!(ends.collect::<Vec<_>>(), vec![(json!(0), json!(0)); 2]);
    let asked = kwal.run(&format!("topics delete {topic}"), b"").await;
    assert_eq!(asked.code, 2, "{asked:?}");
    let deleted = kwal.ok(&format!("topics delete {topic} --yes")).await;
    assert_eq!(deleted, format!("topic {topic} was deleted\n"));
    assert!(!kafka.java().topics().await.contains(&topic));
}

async fn records(kafka: &'static Kafka) {
    let kwal = Kwal::on(kafka);
    let topic = kafka.topic("cli-records", 1, &[]).await;
    let appended = kwal.ends(0, &format!("append {topic} --key k --header a=1"), b"one\ntwo\n").await;
    assert!(appended.starts_with("appended 2 records in 1 batch, "), "{appended}");
    assert!(appended.ends_with(", at offsets 0 to 1\n"), "{appended}");
    kwal.ends(0, &format!("append {topic} --input prefixed"), b"\0\0\0\x03\xffa\n").await;
    let line = br#"{"key":{"base64":"/w=="},"value":"four","headers":[{"key":"h","value":null}],"timestamp":1700000000000}"#;
    kwal.ends(0, &format!("append {topic} --input json"), line).await;
    let codecs = Compression::ALL.into_iter().filter(|codec| *codec != Compression::None);
    let codecs: Vec<_> = codecs.map(Compression::name).collect();
    for (index, codec) in codecs.iter().enumerate() {
        let value = format!("{codec}\n");
        let append = format!("append {topic} --compression {codec} --offsets");
        let ended = kwal.run(&append, value.as_bytes()).await;
        let printed = String::from_utf8(ended.stdout).unwrap();
        let offset = index + 4;
        assert!(printed.starts_with(&format!("inputs 1: offsets {offset}\n")), "{printed}{}", ended.stderr);
    }

    let all = format!("one\ntwo\n\\xffa\\n\nfour\n{}\n", codecs.join("\n"));
    assert_eq!(kwal.ok(&format!("read {topic}")).await, all);
    let end = codecs.len() + 4;
    assert_eq!(kwal.ok(&format!("follow {topic} --from earliest --count {end}")).await, all);
    for command in [&format!("read {topic} -n 4"), &format!("follow {topic} --from earliest -n 4")] {
        let raw = kwal.run(&format!("{command} --format raw"), b"").await;
        assert_eq!((raw.code, raw.stdout.as_slice()), (0, &b"onetwo\xffa\nfour"[..]));
        let prefixed = kwal.run(&format!("{command} --format prefixed"), b"").await;
        assert_eq!(prefixed.stdout, b"\0\0\0\x03one\0\0\0\x03two\0\0\0\x03\xffa\n\0\0\0\x04four");
        let hex = kwal.ok(&format!("{command} --format hex")).await;
        assert!(
            hex.ends_with("00000000  66 6f 75 72                                       |four|\n"),
            "{hex}"
        );
        let with = kwal.ok(&format!("{command} --with offset,key,headers")).await;
        assert!(with.starts_with("0\tk\ta=1\tone\n1\tk\ta=1\ttwo\n2\t\t\t\\xffa\\n\n"), "{with}");
        let json = kwal.objects(0, command).await;
        assert_eq!((&json[0]["key"], &json[2]["value"]), (&json!("k"), &json!({"base64": "/2EK"})));
        let timestamp = &json[3]["timestamp"];
        assert_eq!((timestamp, &json[3]["key"]), (&json!(1_700_000_000_000_i64), &json!({"base64": "/w=="})));
    }
    // By the position that it prints, and by time.
    let first = kwal.run(&format!("read {topic} -n 2"), b"").await;
    let position = first.stderr.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(kwal.ok(&format!("read {topic} --from {position} -n 1")).await, "\\xffa\\n\n");
    let late = format!("read {topic} --from 2020-01-01T00:00:00Z -n 1 --isolation read-committed");
    assert_eq!(kwal.ok(&late).await, "one\n");
    resolve(&kwal, &topic).await;
}

/// The first batch, which is on the log, and the one that its producer did not append.
async fn resolve(kwal: &Kwal, topic: &str) {
    let batch = kwal.objects(0, &format!("inspect {topic} --until 1")).await.remove(0);
    let handle = |sequence| {
        let id = &batch["producer_id"];
        let handle = json!({
            "topic": topic, "partition": 0, "producer_id": id, "epoch": 0, "sequence": sequence, "record_count": 2,
        });
        handle.to_string()
    };
    let appended = kwal.ends(0, "resolve - --yes", handle(0).as_bytes()).await;
    assert!(appended.ends_with("sequence 0, 2 records: on the log, at offsets 0 to 1\n"), "{appended}");
    let missing = kwal.ends(1, "resolve - --yes", handle(2).as_bytes()).await;
    assert!(missing.ends_with("2 records: not on the log, and never will be\n"), "{missing}");
}

/// What is on the log, who holds it, and how fast it is.
async fn the_log(kafka: &'static Kafka) {
    let kwal = Kwal::on(kafka);
    let topic = kafka.topic("cli-log", 1, &[]).await;
    let lines: String = (0..1_000).map(|i| format!("line {i}\n")).collect();
    kwal.ends(0, &format!("append {topic} --batch-bytes 5000"), lines.as_bytes()).await;
    let none = kwal.run(&format!("holder {topic}"), b"").await;
    assert_eq!((none.code, none.stdout.as_slice()), (1, &b""[..]), "{none:?}");
    let client = ClientBuilder::new(kafka.bootstrap()).build().await.unwrap();
    let holder = client.partition_client(&topic, 0).exclusive("the cli").await.unwrap();
    holder.produce([Record::new("key", "value")]).await.unwrap();
    let held = kwal.objects(0, &format!("holder {topic}")).await.remove(0);
    assert_eq!((&held["name"], &held["offset"]), (&json!("the cli"), &json!(1_000)));
    assert_eq!((&held["batches_after"], &held["others_after"]), (&json!(1), &json!(0)));

    let mut inspected = kwal.objects(0, &format!("inspect {topic}")).await;
    let summary = inspected.pop().unwrap();
    assert_eq!((&summary["records"], &summary["doubtful"]), (&json!(1_002), &json!(0)));
    assert_eq!(inspected[inspected.len() - 2]["barrier"]["name"], "the cli");
    let table = kwal.ok(&format!("inspect {topic} --from 1000")).await;
    assert!(table.lines().nth(1).unwrap().ends_with("barrier of the cli"), "{table}");
    let verified = kwal.objects(0, &format!("verify {topic}")).await.remove(0);
    assert_eq!((&verified["records"], &verified["findings"]), (&json!(1_002), &json!(0)));

    if !lacks(kafka, Ability::DeleteRecords).await {
        let trimmed = kwal.ok(&format!("trim {topic} --before 500 --yes")).await;
        assert_eq!(trimmed, format!("{topic}/0 begins at 500: 500 offsets removed\n"));
        let offsets = kwal.objects(0, &format!("offsets {topic} --at @0")).await.remove(0);
        let expected = [json!(500), json!(1_002), json!(500)];
        assert_eq!(["log_start", "high_watermark", "at"].map(|name| offsets[name].clone()), expected);
        kwal.ends(3, &format!("read {topic} --from 1"), b"").await;
    }

    let measured = kafka.topic_name("cli-bench");
    let bench = kwal.objects(0, &format!("bench --seconds 1 --topic {measured}")).await.remove(0);
    let appended = bench["append"]["records"].as_u64().unwrap();
    assert!(appended > 0 && bench["read"]["records"] == appended, "{bench}");
    assert!(!kafka.java().topics().await.contains(&measured));
}
