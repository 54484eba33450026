//! `examples/transcode.rs` over all golden vectors.

#[path = "../../examples/transcode.rs"]
#[allow(dead_code, reason = "the example has a main")]
mod example;

use std::io::{self, Write};

use crate::support::vectors;
use kwal_protocol::{api::ApiKey, compression::Compression};
use serde_json::{Value, json};

/// Counts flushes.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    flushes: usize,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        Ok(())
    }
}

/// The results of lines, one each.
fn run(input: &[u8]) -> Vec<Value> {
    let mut output = Output::default();
    example::run(input, &mut output).unwrap();
    let lines = output.bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
    let answers: Vec<_> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(output.flushes, answers.len());
    answers
}

fn answers(lines: &[Value]) -> Vec<Value> {
    let input: Vec<_> = lines.iter().map(Value::to_string).collect();
    let answers = run(input.join("\n").as_bytes());
    assert_eq!(answers.len(), lines.len());
    answers
}

/// Without the hex, so that the fields are used.
fn without_hex(vector: &Value) -> Value {
    let mut vector = vector.clone();
    vector.as_object_mut().unwrap().remove("hex");
    vector
}

#[test]
fn messages_and_headers() {
    let files = ApiKey::ALL.iter().map(|key| format!("messages/{key}")).chain(["headers".to_owned()]);
    let mut count = 0;
    for file in files {
        let vectors = vectors(&file);
        let json_only: Vec<_> = vectors.iter().map(without_hex).collect();
        let (from_hex, from_json) = (answers(&vectors), answers(&json_only));
        for ((vector, from_hex), from_json) in vectors.iter().zip(from_hex).zip(from_json) {
            let hex = vector.get("hexNoUnknown").unwrap_or_else(|| &vector["hex"]);
            assert_eq!(from_json, json!({"ok": true, "hex": hex}), "{vector}");
            assert_eq!((&from_hex["ok"], &from_hex["hex"]), (&json!(true), hex), "{vector}");
            if vector.get("unknownTags").is_none() {
                assert_eq!(from_hex["json"], vector["json"], "{vector}");
            }
            count += 1;
        }
    }
    assert!(count > 3000, "{count}");
}

#[test]
fn malformed_input_is_rejected() {
    let vectors = vectors("malformed");
    for (vector, answer) in vectors.iter().zip(answers(&vectors)) {
        assert_eq!(answer["ok"], false, "{vector}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
}

#[test]
fn odd_encodings() {
    let vectors = vectors("special");
    for (vector, answer) in vectors.iter().zip(answers(&vectors)) {
        let known = ApiKey::from_name(vector["api"].as_str().unwrap()).is_some();
        match vector["expect"].as_str().unwrap() {
            _ if !known => assert_eq!(answer["ok"], false),
            "ok" if answer["ok"] == true => assert_eq!(answer["json"], vector["json"], "{vector}"),
            "ok" | "kafka-leaves-bytes" => {
                assert_eq!((&answer["ok"], &vector["mayReject"]), (&json!(false), &json!(true)), "{vector}");
            }
            _ => assert_eq!(answer["ok"], vector["case"] == "tag-of-later-version", "{vector}"),
        }
    }
}

#[test]
fn records() {
    let vectors = vectors("records");
    let mut compared = 0;
    for (vector, answer) in vectors.iter().zip(answers(&vectors)) {
        let name = &vector["name"];
        let mut batches = vector["batches"].clone();
        let not_read_yet = |batch: &Value| {
            let codec: Compression = batch["compression"].as_str().unwrap().parse().unwrap();
            !codec.can_decompress()
        };
        if batches.as_array().unwrap().iter().any(not_read_yet) {
            continue;
        }
        for batch in batches.as_array_mut().unwrap() {
            batch.as_object_mut().unwrap().remove("uncompressedRecords");
        }
        assert_eq!(answer["ok"], vector["expect"] == "ok", "{name}: {}", answer["error"]);
        assert_eq!(answer["error"].is_null(), vector["expect"] == "ok", "{name}");
        assert_eq!(answer["batches"], batches, "{name}");
        let consumed = if vector["expect"] == "ok" { &vector["consumedBytes"] } else { &vector["failedAt"] };
        assert_eq!(&answer["consumedBytes"], consumed, "{name}");
        if vector["reencode"] == true {
            assert_eq!(answer["hex"], vector["hex"], "{name}");
        }
        compared += 1;
    }
    assert!(compared > 280, "{compared}");
}

#[test]
fn every_line_is_answered() {
    let lines = [
        &b""[..],
        b"   ",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b"{}",
        br#"{"api":"Fetch"}"#,
        br#"{"hex":"0"}"#,
        br#"{"hex":"zz"}"#,
        "{\"hex\":\"\u{e9}\u{e9}\"}".as_bytes(),
        br#"{"hex":7}"#,
        br#"{"hex":null}"#,
        br#"{"api":"Fetch","kind":"request","version":4}"#,
        br#"{"api":"Fetch","kind":"request","hex":""}"#,
        br#"{"api":"Fetch","kind":"request","version":40000,"hex":""}"#,
        br#"{"api":"Fetch","kind":"request","version":99,"hex":""}"#,
        br#"{"api":"Fetch","kind":"request","version":-1,"json":{}}"#,
        br#"{"api":"Fetch","kind":"header","version":0,"hex":""}"#,
        br#"{"api":"RequestHeader","kind":"header","version":3,"hex":""}"#,
        br#"{"api":"RequestHeader","kind":"request","version":1,"hex":""}"#,
        br#"{"api":"Fetch","kind":"question","version":4,"hex":""}"#,
        br#"{"api":"Nothing","kind":"request","version":4,"hex":""}"#,
        br#"{"api":"Fetch","kind":"request","version":4,"json":{"noField":1}}"#,
        br#"{"api":"Fetch","kind":"request","version":4,"json":{"maxWaitMs":null}}"#,
        br#"{"api":"Fetch","kind":"request","version":4,"json":7}"#,
    ];
    for answer in run(&lines.join(&b'\n')) {
        assert_eq!(answer["ok"], false, "{answer}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
    // The last line needs no line end, and an empty last line is ignored.
    assert_eq!(run(b"{\"hex\":\"\"}\n{\"hex\":\"\"}").len(), 2);
    assert_eq!(
        run(b"{\"hex\":\"\"}\n"),
        [json!({"ok": true, "error": null, "consumedBytes": 0, "batches": [], "hex": ""})]
    );
    let deep = [&b"{\"json\":"[..], &b"[".repeat(100_000)].concat();
    assert_eq!(run(&deep)[0]["ok"], false);
}

#[test]
fn errors_name_the_position() {
    let error = |line: Value| answers(&[line])[0]["error"].as_str().unwrap().to_owned();
    let request = |hex: &str| error(json!({"api": "Metadata", "kind": "request", "version": 4, "hex": hex}));
    assert_eq!(request("0000000100"), "the input ends too early at byte 4 in name");
    assert_eq!(request("00000001000577616c"), "the input ends too early at byte 6 in name");
    assert_eq!(
        error(json!({"api": "Metadata", "kind": "request", "version": 77, "hex": ""})),
        "version 77 is not one of 0 to 13"
    );
    assert_eq!(
        error(json!({"api": "Vote", "kind": "request", "version": 0, "hex": ""})),
        "there are no messages of an API Vote"
    );
    assert_eq!(
        error(json!({"hex": "00".repeat(17)})),
        "the batch at byte 0 with the base offset 0 cannot be read: its length field is 0, below the minimum"
    );
}
