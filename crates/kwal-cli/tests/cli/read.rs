//! `read` and `follow`.

use kwal::{protocol::ApiKey, record::Compression};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{World, objects};

#[test]
fn every_form_of_records() {
    let world = World::wal();
    world.ok_with("append wal --key k --header a=1 --header b=", b"one\ntw\to\n");
    world.ok_with("append wal --input prefixed", b"\0\0\0\x03\xffa\n\0\0\0\0");
    let time = world.cluster.records("wal", 0).unwrap()[0].timestamp_ms;

    assert_eq!(world.ok("read wal"), "one\ntw\\to\n\\xffa\\n\n\n");
    assert_eq!(world.ok("read wal --with offset,key,headers -n 1"), "0\tk\ta=1,b=\tone\n");
    let ended = world.run("read wal --format raw");
    assert_eq!(ended.stdout, b"onetw\to\xffa\n");
    let ended = world.run("read wal --format prefixed --from 1");
    assert_eq!(ended.stdout, b"\0\0\0\x04tw\to\0\0\0\x03\xffa\n\0\0\0\0");
    let dump = world.ok("read wal --format hex --from 2 -n 1");
    let (title, bytes) = dump.split_once('\n').unwrap();
    assert!(title.starts_with("offset 2, 20") && title.ends_with("Z, key null, value 3 bytes"), "{title}");
    assert_eq!(bytes, "00000000  ff 61 0a                                          |.a.|\n");

    let printed = objects(&world.ok("read wal --json"));
    let expected = json!({
        "offset": 0, "timestamp": time, "leader_epoch": 0, "key": "k", "value": "one",
        "headers": [{"key": "a", "value": "1"}, {"key": "b", "value": ""}],
    });
    assert_eq!(printed[0], expected);
    assert_eq!((&printed[2]["value"], &printed[2]["key"]), (&json!({"base64": "/2EK"}), &json!(null)));
    assert_eq!(world.ok("read wal --format json"), world.ok("read wal --json"));
}

#[test]
fn what_is_read_in_json_is_appended_as_it_was() {
    let world = World::wal();
    world.cluster.create_topic("copy", 1).unwrap();
    let records = concat!(
        r#"{"key":{"base64":"/w=="},"value":null,"headers":[{"key":"h","value":null}],"timestamp":1700000000000}"#,
        "\n",
        r#"{"value":"x","timestamp":1700000000001}"#,
        "\n"
    );
    world.ok_with("append wal --input json", records.as_bytes());
    let original = world.ok("read wal --json");
    let codec = Compression::ALL.into_iter().rfind(|codec| codec.is_built_in()).unwrap();
    world.ok_with(&format!("append copy --input json --compression {codec}"), original.as_bytes());
    assert_eq!(world.ok("read copy --json"), original);
    let records = world.cluster.records("copy", 0).unwrap();
    assert_eq!((records[0].value.as_deref(), records[0].timestamp_ms), (None, 1_700_000_000_000));
    assert_eq!((records[0].key.as_deref(), records[0].headers.len()), (Some(&b"\xff"[..]), 1));
}

#[test]
fn from_and_until() {
    let world = World::wal();
    let records = (0..6).map(|i| format!("{{\"value\":\"{i}\",\"timestamp\":{}}}\n", 1_000_000 + i * 1000));
    world.ok_with("append wal --input json", records.collect::<String>().as_bytes());
    world.cluster.delete_records("wal", 0, 1).unwrap();
    let id = world.cluster.topic_id("wal").unwrap();
    for (arguments, expected) in [
        ("", "12345"),
        ("--from 3", "345"),
        ("--from latest", ""),
        ("--from latest-2", "45"),
        ("--from latest-99 -n 1", "1"),
        ("--from earliest+2", "345"),
        ("--from earliest+99", ""),
        ("--from earliest --until 3", "12"),
        ("--from 2 -n 2", "23"),
        ("-n 0", ""),
        ("--from 1970-01-01T00:16:42.5Z", "345"),
        ("--from @1004000", "45"),
        ("--from -:-:4", "4 5"),
        (&format!("--from {id}:0:5"), "5"),
    ] {
        let expected: String = expected.chars().filter(|c| *c != ' ').map(|c| format!("{c}\n")).collect();
        assert_eq!(world.ok(&format!("read wal {arguments}")), expected, "{arguments}");
    }
    let ended = world.run("read wal -n 2");
    assert_eq!(ended.stderr, format!("kwal: 2 records; go on with --from {id}:0:3\n"));
    assert_eq!(world.run("read wal --quiet").stderr, "");
    assert_eq!(world.ok("follow wal --from latest-1 -n 1"), "5\n");
    let first = objects(&world.ok("inspect wal --from latest-0 --json")).remove(0);
    assert_eq!(first["type"], "summary");

    let trimmed = world.run("read wal --from 0");
    assert_eq!((trimmed.code, trimmed.text().as_str()), (3, ""), "{trimmed:?}");
    world.cluster.recreate_topic("wal").unwrap();
    let other = world.run(&format!("read wal --from {id}:0:3"));
    assert_eq!(other.code, 3, "{other:?}");
    assert!(other.stderr.contains("created again"), "{}", other.stderr);
}

#[test]
fn following_goes_on_until_it_is_told_to_stop() {
    let world = World::wal();
    world.ok_with("append wal", b"a\nb\n");
    let mut following = world.spawn("follow wal --from 1");
    assert_eq!(following.line(), "b");
    world.ok_with("append wal", b"c\n");
    assert_eq!(following.line(), "c");
    following.signal(Signal::INT);
    let ended = following.end();
    let id = world.cluster.topic_id("wal").unwrap();
    assert_eq!((ended.code, ended.text().as_str()), (130, ""));
    assert_eq!(ended.stderr, format!("kwal: 2 records; go on with --from {id}:0:3\nkwal: interrupted\n"));

    assert_eq!(world.ok("follow wal --from earliest --count 2"), "a\nb\n");
    assert_eq!(world.ok("follow wal --from 1 --until 3 --with offset"), "1\tb\n2\tc\n");
    let before = world.cluster.requests(ApiKey::FETCH);
    let waiting = world.spawn("follow wal --json");
    world.wait_for(|cluster| cluster.requests(ApiKey::FETCH) > before);
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.end().code, 130);
}
