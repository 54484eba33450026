//! Creates the seed corpus, most of it from the golden vectors: `cargo run --example seed`, in this folder.
//!
//! It has a few short inputs for each API, version and kind, and one batch of each family and codec, which a
//! fuzzer would take long to find. It is small enough for the repository.

use std::{collections::HashMap, fs, io::Read as _, path::Path};

use flate2::read::GzDecoder;
use kwal_protocol::api::ApiKey;
use serde_json::Value;

/// The maximum length of a seed in bytes.
const LONGEST: usize = 600;

fn main() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/kwal-protocol/tests/vectors");
    for (index, key) in ApiKey::ALL.iter().enumerate() {
        let mut taken = HashMap::new();
        for vector in lines(&vectors.join(format!("messages/{key}.jsonl.gz"))) {
            let direction = u8::from(vector["kind"] == "response");
            let version = vector["version"].as_u64().expect("a version") as u8;
            let body = unhex(&vector["hex"]);
            // One with content for each version.
            if !(8..=LONGEST).contains(&body.len()) || taken.insert((direction, version), ()).is_some() {
                continue;
            }
            let seed = [&[direction, index as u8, version], &body[..]].concat();
            write("protocol_reader", &format!("{key}-{direction}-{version}"), &seed);
        }
    }
    exchanges();
    let mut taken = HashMap::new();
    for vector in lines(&vectors.join("records.jsonl.gz")) {
        let bytes = unhex(&vector["hex"]);
        // The name without its number is the family and the codec.
        let name = vector["name"].as_str().expect("a name");
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        if bytes.len() > LONGEST || taken.insert(kind.clone(), ()).is_some() {
            continue;
        }
        write("record_batch_reader", &kind, &[&[1], &bytes[..]].concat());
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            // The compressed data follows the header of a batch of magic 2.
            if kind.contains(codec) && bytes.get(16) == Some(&2) && bytes.len() > 61 {
                write(&format!("decompress_{codec}"), &kind, &bytes[61..]);
            }
        }
    }
}

/// The messages of a broker, for each mechanism by its number; see `sasl_exchange`.
fn exchanges() {
    let salted = "r=N0f9z,s=c2FsdC0wLW9mLWthZmth,i=4096\0v=A0TUAC/e3MehotGlQ9OhfdkidfzCQIsW/oLQig3gvG8=";
    for (name, number, challenges) in [
        ("plain", 0, ""),
        ("oauthbearer", 1, ""),
        ("oauthbearer-refused", 1, "{\"status\":\"invalid_token\"}\0"),
        ("scram-sha-256", 2, salted),
        ("scram-sha-256-refused", 2, "r=N0f9z,s=c2FsdC0wLW9mLWthZmth,i=4096\0e=invalid-proof"),
        ("scram-sha-512", 3, salted),
        ("scram-sha-512-extended", 3, "m=x,r=N0f9z,s=QQ==,i=1000001,x=y"),
    ] {
        write("sasl_exchange", name, &[&[number], challenges.as_bytes()].concat());
    }
}

fn write(target: &str, name: &str, seed: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), seed).expect("a file");
}

fn lines(file: &Path) -> Vec<Value> {
    let mut text = String::new();
    let packed = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    GzDecoder::new(&packed[..]).read_to_string(&mut text).expect("a gzipped text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits: Vec<_> =
        value.as_str().expect("a text").chars().map(|c| c.to_digit(16).expect("hex") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
