//! How records are printed.

use std::fmt::Write as _;

use clap::ValueEnum;
use kwal::record::RecordView;
use serde::Serialize;

use crate::{
    exit::Failure,
    output::{JsonBytes, Output, escaped, time_text},
};

/// A form of records. `kwal read --help` describes them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    Lines,
    Raw,
    Prefixed,
    Hex,
    Json,
}

/// What is printed in front of a value, for lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Column {
    Offset,
    Timestamp,
    Key,
    Headers,
}

/// Prints records in one form.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    columns: Vec<Column>,
}

#[derive(Serialize)]
struct JsonRecord {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
    key: Option<JsonBytes>,
    value: Option<JsonBytes>,
    headers: Vec<JsonHeader>,
}

#[derive(Serialize)]
struct JsonHeader {
    key: JsonBytes,
    value: Option<JsonBytes>,
}

impl Printer {
    pub(crate) fn new(format: Format, columns: Vec<Column>) -> Self {
        Self { format, columns }
    }

    pub(crate) fn print(&self, out: &mut Output, record: &RecordView<'_>) -> Result<(), Failure> {
        let value = record.value.unwrap_or_default();
        match self.format {
            Format::Lines => {
                let mut line = String::new();
                for column in &self.columns {
                    column.write(&mut line, record);
                    line.push('\t');
                }
                line += &escaped(value);
                out.line(line)
            }
            Format::Raw => out.bytes(value),
            Format::Prefixed => {
                let Ok(len) = u32::try_from(value.len()) else {
                    return Err(Failure::Local(format!(
                        "the value at offset {} is too large",
                        record.offset
                    )));
                };
                out.bytes(&len.to_be_bytes())?;
                out.bytes(value)
            }
            Format::Hex => {
                out.line(title(record))?;
                dump(out, value)
            }
            Format::Json => out.json(&json(record)),
        }
    }
}

impl Column {
    fn write(self, line: &mut String, record: &RecordView<'_>) {
        match self {
            Self::Offset => {
                let _ = write!(line, "{}", record.offset);
            }
            Self::Timestamp => *line += &time_text(record.timestamp_ms),
            Self::Key => *line += &escaped(record.key.unwrap_or_default()),
            Self::Headers => {
                let headers = record.headers().map(|header| {
                    format!("{}={}", escaped(header.key), escaped(header.value.unwrap_or_default()))
                });
                *line += &headers.collect::<Vec<_>>().join(",");
            }
        }
    }
}

fn json(record: &RecordView<'_>) -> JsonRecord {
    let headers = record
        .headers()
        .map(|header| JsonHeader { key: JsonBytes(header.key.to_vec()), value: JsonBytes::of(header.value) });
    JsonRecord {
        offset: record.offset,
        timestamp: record.timestamp_ms,
        leader_epoch: record.leader_epoch,
        key: JsonBytes::of(record.key),
        value: JsonBytes::of(record.value),
        headers: headers.collect(),
    }
}

fn title(record: &RecordView<'_>) -> String {
    let key = record.key.map_or_else(|| "null".to_owned(), escaped);
    let size = record.value.map_or_else(|| "null".to_owned(), |value| format!("{} bytes", value.len()));
    format!("offset {}, {}, key {key}, value {size}", record.offset, time_text(record.timestamp_ms))
}

/// Sixteen bytes a line: the offset within the value, the bytes, and those that are printable ASCII.
fn dump(out: &mut Output, bytes: &[u8]) -> Result<(), Failure> {
    for (index, chunk) in bytes.chunks(16).enumerate() {
        let mut line = format!("{:08x} ", index * 16);
        for place in 0..16 {
            let gap = if place == 8 { "  " } else { " " };
            let _ = match chunk.get(place) {
                Some(byte) => write!(line, "{gap}{byte:02x}"),
                None => write!(line, "{gap}  "),
            };
        }
        line += "  |";
        line.extend(chunk.iter().map(|byte| {
            let is_printable = byte.is_ascii_graphic() || *byte == b' ';
            if is_printable { char::from(*byte) } else { '.' }
        }));
        line.push('|');
        out.line(line)?;
    }
    Ok(())
}
