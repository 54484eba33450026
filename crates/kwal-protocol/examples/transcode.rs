//! Converts Kafka's messages and record batches from hex to JSON and back, one JSON line each.
//!
//! ```text
//! $ cargo run -p kwal-protocol --features serde --example transcode
//! {"api":"Metadata","kind":"request","version":4,"hex":"00000001000377616c00"}
//! {"ok":true,"hex":"00000001000377616c00","json":{"topics":[{"name":"wal"}],"allowAutoTopicCreation":false}}
//! ```
//!
//! | in | out |
//! |---|---|
//! | `api`, `kind`, `version`, `hex` | `hex`: encoded again from the fields; `json`: the fields |
//! | `api`, `kind`, `version`, `json` | `hex`: encoded from the fields |
//! | `hex` alone: the content of a `records` field | `batches`; `consumedBytes`: the end of the last complete one; `hex`: those that are not compressed, encoded again from their records, messages of magic 0 and 1 too |
//!
//! `kind` is `request`, `response` or `header`; the APIs of headers are `RequestHeader` and `ResponseHeader`.
//! Bodies have no header, and nothing has its length in front. Other keys are ignored. On an error `ok` is
//! false and `error` describes it; batches in front of an invalid one are printed all the same.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, BufRead, Write},
    process::ExitCode,
};

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Versions},
    compression::Compression,
    header::{RequestHeader, ResponseHeader},
    json::{AtVersion, Json},
    messages::{AnyRequest, AnyResponse},
    reader::Reader,
    record::{Batches, RawBatch},
    wire::{Version, Wire},
    writer::Writer,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

fn main() -> ExitCode {
    match run(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("transcode: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the result of every line at once.
pub(crate) fn run(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let mut answer = serde_json::to_vec(&answer(&line))?;
        answer.push(b'\n');
        output.write_all(&answer)?;
        output.flush()?;
        line.clear();
    }
    Ok(())
}

/// Returns the result of one line.
fn answer(line: &[u8]) -> Answer {
    match question(line) {
        Ok(Question::Records(bytes)) => Answer::Records(records(bytes)),
        Ok(Question::Message(codec, content)) => match transcode(codec, content) {
            Ok((hex, json)) => Answer::Message { ok: true, hex: hex_of(&hex), json },
            Err(error) => Answer::refusal(&*error),
        },
        Err(error) => Answer::refusal(&*error),
    }
}

/// The keys of a line.
#[derive(Deserialize)]
struct Line {
    api: Option<String>,
    kind: Option<String>,
    version: Option<i16>,
    hex: Option<String>,
    json: Option<Value>,
}

/// The request of a line.
enum Question {
    Message(Codec, Content),
    Records(Bytes),
}

/// The content to convert.
enum Content {
    Hex(Bytes),
    Json(Value),
}

/// The version and kind.
struct Codec {
    message: Message,
    version: i16,
}

enum Message {
    Request(ApiKey),
    Response(ApiKey),
    RequestHeader,
    ResponseHeader,
}

/// A line of output.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Refusal {
        ok: bool,
        error: String,
    },
    Message {
        ok: bool,
        hex: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        json: Option<Value>,
    },
    Records(Records),
}

impl Answer {
    fn refusal(error: &dyn Error) -> Self {
        Self::Refusal { ok: false, error: chain(error) }
    }
}

/// The batches of a `records` field.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Records {
    ok: bool,
    error: Option<String>,
    consumed_bytes: usize,
    batches: Vec<RawBatch>,
    hex: String,
}

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn question(line: &[u8]) -> Result<Question> {
    let line: Line = serde_json::from_slice(line)?;
    let hex = line.hex.as_deref().map(unhex).transpose()?;
    let Some(api) = line.api else {
        return Ok(Question::Records(hex.ok_or("there is neither an api nor hex")?));
    };
    let content = match (hex, line.json) {
        (Some(hex), _) => Content::Hex(hex),
        (None, Some(json)) => Content::Json(json),
        (None, None) => return Err("there is neither hex nor json".into()),
    };
    let kind = line.kind.ok_or("there is no kind: request, response or header")?;
    let version = line.version.ok_or("there is no version")?;
    Ok(Question::Message(Codec { message: Message::find(&api, &kind)?, version }, content))
}

impl Message {
    fn find(api: &str, kind: &str) -> Result<Self> {
        let key = || ApiKey::from_name(api).ok_or_else(|| format!("there are no messages of an API {api}"));
        match (kind, api) {
            ("request", _) => Ok(Self::Request(key()?)),
            ("response", _) => Ok(Self::Response(key()?)),
            ("header", "RequestHeader") => Ok(Self::RequestHeader),
            ("header", "ResponseHeader") => Ok(Self::ResponseHeader),
            ("header", _) => Err(format!("{api} is not a header: RequestHeader or ResponseHeader").into()),
            _ => Err(format!("{kind} is not a kind: request, response or header").into()),
        }
    }

    fn versions(&self) -> Option<Versions> {
        match self {
            Self::Request(key) | Self::Response(key) => key.versions(),
            Self::RequestHeader => Some(RequestHeader::VERSIONS),
            Self::ResponseHeader => Some(ResponseHeader::VERSIONS),
        }
    }
}

/// The bytes, encoded from the fields, and the fields unless they were given.
fn transcode(Codec { message, version }: Codec, content: Content) -> Result<(Bytes, Option<Value>)> {
    if let Some(versions) = message.versions()
        && !versions.contains(version)
    {
        return Err(format!("version {version} is not one of {versions}").into());
    }
    let missing = "there are no messages of this API";
    match (message, content) {
        (Message::Request(key), Content::Hex(hex)) => {
            let request = AnyRequest::decode(key, version, &hex).ok_or(missing)??;
            Ok((request.encode(version)?, Some(request.to_json(version)?)))
        }
        (Message::Request(key), Content::Json(json)) => {
            let request = AnyRequest::from_json(key, json).ok_or(missing)??;
            Ok((request.encode(version)?, None))
        }
        (Message::Response(key), Content::Hex(hex)) => {
            let response = AnyResponse::decode(key, version, &hex).ok_or(missing)??;
            Ok((response.encode(version)?, Some(response.to_json(version)?)))
        }
        (Message::Response(key), Content::Json(json)) => {
            let response = AnyResponse::from_json(key, json).ok_or(missing)??;
            Ok((response.encode(version)?, None))
        }
        (Message::RequestHeader, content) => {
            header::<RequestHeader>(RequestHeader::version(version), content)
        }
        (Message::ResponseHeader, content) => {
            header::<ResponseHeader>(ResponseHeader::version(version), content)
        }
    }
}

fn header<H>(version: Version, content: Content) -> Result<(Bytes, Option<Value>)>
where
    H: Wire + Json + DeserializeOwned,
{
    let (header, json) = match content {
        Content::Json(json) => (serde_json::from_value::<H>(json)?, None),
        Content::Hex(hex) => {
            let mut reader = Reader::new(&hex);
            let header = H::read(&mut reader, version)?;
            reader.finish()?;
            let json = serde_json::to_value(AtVersion { value: &header, version })?;
            (header, Some(json))
        }
    };
    let mut writer = Writer::new();
    header.write(&mut writer, version);
    Ok((writer.into_bytes()?, json))
}

/// The maximum size of a decompressed batch.
const DECOMPRESSED: usize = 64 << 20;

fn records(bytes: Bytes) -> Records {
    let mut records =
        Records { ok: true, error: None, consumed_bytes: 0, batches: Vec::new(), hex: String::new() };
    let mut batches = Batches::new(bytes);
    while let Some(batch) = batches.next() {
        match batch.and_then(|batch| RawBatch::from_batch(&batch, DECOMPRESSED)) {
            Ok(batch) => records.add(batch, batches.consumed()),
            Err(error) => records.refuse(&error),
        }
        if !records.ok {
            break;
        }
    }
    records
}

impl Records {
    fn add(&mut self, batch: RawBatch, consumed: usize) {
        if matches!(batch.header.compression(), Ok(Compression::None)) {
            match batch.encode() {
                Ok(bytes) => self.hex.push_str(&hex_of(&bytes)),
                Err(error) => return self.refuse(&error),
            }
        }
        self.consumed_bytes = consumed;
        self.batches.push(batch);
    }

    fn refuse(&mut self, error: &dyn Error) {
        self.ok = false;
        self.error = Some(chain(error));
    }
}

/// Joins an error and its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn hex_of(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Result<Bytes> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let bytes = text.as_bytes().chunks(2).map(byte).collect::<Option<_>>();
    bytes.ok_or_else(|| "the hex is not two digits a byte".into())
}
