//! Reads the golden vectors; see `tests/vectors/README.md`.

use std::{io::Read as _, path::Path};

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;

/// Returns the lines of one file of vectors; `file` is its name without `.jsonl.gz`.
pub(crate) fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{file}.jsonl.gz"));
    let packed = std::fs::read(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).expect("a gzipped text");
    let lines: Vec<_> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert!(!lines.is_empty(), "{file} is empty");
    lines
}

/// Decodes a field in hex.
pub(crate) fn unhex(value: &Value) -> Bytes {
    let text = value.as_str().expect("a text").as_bytes();
    assert_eq!(text.len() % 2, 0);
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hex digit") as u8;
    text.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
