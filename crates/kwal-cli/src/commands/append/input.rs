//! What comes in: records, and where each of them begins and ends.

use std::{
    io::{self, BufRead, BufReader, Read},
    ops::RangeInclusive,
    thread,
};

use bytes::Bytes;
use clap::ValueEnum;
use kwal::record::{Headers, Record};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::{exit::Failure, output::JsonBytes};

/// The numbers of inputs, from 1.
pub(crate) type Inputs = RangeInclusive<u64>;

/// What the inputs are, and what is added to them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InputArgs {
    /// What an input is
    #[arg(short, long, value_enum, default_value_t = Form::Lines)]
    input: Form,
    /// The key of every record that has none
    #[arg(short, long, value_name = "TEXT")]
    key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The most bytes of keys, values and headers in a batch of several records
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10,
          value_parser = clap::value_parser!(u32).range(1..=MAX_INPUT as i64))]
    batch_bytes: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Form {
    Lines,
    Prefixed,
    Json,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The largest input, in bytes: a client appends no larger batch.
const MAX_INPUT: usize = 16 << 20;

/// Records that arrived together.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) inputs: Inputs,
    pub(crate) records: Vec<Record>,
}

/// The standard input, which a thread reads.
#[derive(Debug)]
pub(crate) struct Input {
    gathered: mpsc::Receiver<Result<Gathered, String>>,
    problem: Option<String>,
}

impl Input {
    /// Reads from now on. The thread is not waited for: it may be blocked for ever.
    pub(crate) fn read(args: InputArgs) -> Self {
        // One batch is read while another one waits for room.
        let (sender, gathered) = mpsc::channel(1);
        thread::spawn(move || {
            let reader = Reader::new(io::stdin().lock(), args);
            for gathered in reader {
                if sender.blocking_send(gathered).is_err() {
                    break;
                }
            }
        });
        Self { gathered, problem: None }
    }

    /// Returns what comes next; `None` at the end.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Gathered> {
        match self.gathered.recv().await? {
            Ok(gathered) => Some(gathered),
            Err(problem) => {
                self.problem = Some(problem);
                None
            }
        }
    }

    /// Whether the input ended as it should.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.problem.take().map_or(Ok(()), |problem| Err(Failure::Local(problem)))
    }
}

/// Takes inputs apart. After a problem it ends.
struct Reader<R> {
    input: BufReader<R>,
    args: InputArgs,
    /// The number of the next input.
    next: u64,
    /// The last record that was read, if it had no room in its batch.
    held: Option<Record>,
    problem: Option<String>,
    has_ended: bool,
}

impl<R: Read> Reader<R> {
    fn new(input: R, args: InputArgs) -> Self {
        let input = BufReader::with_capacity(args.batch_bytes.max(1 << 16) as usize, input);
        Self { input, args, next: 1, held: None, problem: None, has_ended: false }
    }

    fn read(&mut self) -> Result<Option<Record>, String> {
        let number = self.next;
        let value = match self.args.input {
            Form::Lines => self.line(number)?.map(|line| Content { value: Some(line), ..Default::default() }),
            Form::Prefixed => {
                self.prefixed(number)?.map(|value| Content { value: Some(value), ..Default::default() })
            }
            Form::Json => match self.line(number)? {
                Some(line) => {
                    Some(Content::from_json(&line).map_err(|problem| format!("input {number}: {problem}"))?)
                }
                None => None,
            },
        };
        let Some(Content { key, value, mut headers, timestamp }) = value else { return Ok(None) };
        for (key, value) in &self.args.headers {
            headers.push(key.as_str(), value.as_str());
        }
        self.next += 1;
        let key = key.or_else(|| self.args.key.clone().map(String::into_bytes)).map(Bytes::from);
        let timestamp = timestamp.unwrap_or_else(OffsetDateTime::now_utc);
        Ok(Some(Record { key, value: value.map(Bytes::from), headers, timestamp }))
    }

    /// A line without its end.
    fn line(&mut self, number: u64) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let mut limited = self.input.by_ref().take(MAX_INPUT as u64 + 1);
        let read = limited.read_until(b'\n', &mut line).map_err(|error| unreadable(&error))?;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        match read {
            0 => Ok(None),
            _ if line.len() > MAX_INPUT => Err(too_large(number)),
            _ => Ok(Some(line)),
        }
    }

    fn prefixed(&mut self, number: u64) -> Result<Option<Vec<u8>>, String> {
        let cut = || format!("input {number} is cut off: standard input ends within it");
        let mut prefix = Vec::new();
        let read =
            self.input.by_ref().take(4).read_to_end(&mut prefix).map_err(|error| unreadable(&error))?;
        let Some(len) = prefix.first_chunk() else {
            return if read == 0 { Ok(None) } else { Err(cut()) };
        };
        let len = u32::from_be_bytes(*len) as usize;
        if len > MAX_INPUT {
            return Err(too_large(number));
        }
        let mut value = Vec::new();
        let read = self
            .input
            .by_ref()
            .take(len as u64)
            .read_to_end(&mut value)
            .map_err(|error| unreadable(&error))?;
        if read < len { Err(cut()) } else { Ok(Some(value)) }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Gathered, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut records = Vec::from_iter(self.held.take());
        let first = self.next - records.len() as u64;
        let mut bytes: usize = records.iter().map(size).sum();
        while !self.has_ended {
            // Whoever has to wait for more lets go what there is.
            if !records.is_empty() && self.input.buffer().is_empty() {
                break;
            }
            match self.read() {
                Ok(Some(record)) => {
                    bytes += size(&record);
                    if bytes > self.args.batch_bytes as usize && !records.is_empty() {
                        self.held = Some(record);
                        break;
                    }
                    records.push(record);
                }
                Ok(None) => self.has_ended = true,
                Err(problem) => (self.problem, self.has_ended) = (Some(problem), true),
            }
        }
        match records.len() as u64 {
            0 => self.problem.take().map(Err),
            count => Some(Ok(Gathered { inputs: first..=first + count - 1, records })),
        }
    }
}

/// About what a record takes on the log.
fn size(record: &Record) -> usize {
    let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| header.key_bytes().len() + bytes(&header.value) + 4);
    bytes(&record.key) + bytes(&record.value) + headers.sum::<usize>() + 16
}

fn unreadable(error: &io::Error) -> String {
    format!("standard input cannot be read: {error}")
}

fn too_large(number: u64) -> String {
    format!("input {number} has more than {MAX_INPUT} bytes")
}

/// What an input says.
#[derive(Debug, Default)]
struct Content {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
    timestamp: Option<OffsetDateTime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    key: Option<JsonBytes>,
    value: Option<JsonBytes>,
    #[serde(default)]
    headers: Vec<JsonHeader>,
    timestamp: Option<i64>,
    /// `kwal read` prints them.
    #[serde(rename = "offset")]
    _offset: Option<i64>,
    #[serde(rename = "leader_epoch")]
    _leader_epoch: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader {
    key: JsonBytes,
    value: Option<JsonBytes>,
}

impl Content {
    fn from_json(line: &[u8]) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let timestamp = match json.timestamp {
            // A record without a time.
            None | Some(-1) => None,
            Some(ms) => {
                let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
                Some(at.map_err(|_| format!("the timestamp {ms} is no time in milliseconds"))?)
            }
        };
        let mut headers = Headers::with_capacity(json.headers.len());
        for JsonHeader { key, value } in json.headers {
            headers.push(Bytes::from(key.0), value.map(|value| Bytes::from(value.0)));
        }
        let bytes = |bytes: Option<JsonBytes>| bytes.map(|bytes| bytes.0);
        Ok(Self { key: bytes(json.key), value: bytes(json.value), headers, timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(input: Form) -> InputArgs {
        InputArgs { input, key: None, headers: Vec::new(), batch_bytes: 60 }
    }

    /// The values of each batch, or the problem.
    fn read(input: Form, bytes: &[u8]) -> Vec<Result<Vec<Vec<u8>>, String>> {
        let values = |gathered: Gathered| {
            assert_eq!(gathered.inputs.clone().count(), gathered.records.len());
            gathered.records.into_iter().map(|record| record.value.unwrap_or_default().to_vec()).collect()
        };
        Reader::new(bytes, args(input)).map(|gathered| gathered.map(values)).collect()
    }

    fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn lines_are_gathered_up_to_a_size() {
        assert_eq!(read(Form::Lines, b""), []);
        assert_eq!(read(Form::Lines, b"a\n\nlast"), [Ok(texts(&["a", "", "last"]))]);
        let lines = b"0123456789\n0123456789\nb\n";
        assert_eq!(read(Form::Lines, lines), [Ok(texts(&["0123456789", "0123456789"])), Ok(texts(&["b"]))]);
    }

    #[test]
    fn prefixed_values_may_have_any_bytes() {
        let two = b"\0\0\0\x02\n\0\0\0\0\0";
        assert_eq!(read(Form::Prefixed, two), [Ok(vec![b"\n\0".to_vec(), Vec::new()])]);
        for (cut, is_first) in [(&two[..2], true), (&two[..5], true), (&two[..9], false)] {
            let mut all = read(Form::Prefixed, cut);
            assert!(all.pop().unwrap().unwrap_err().ends_with("is cut off: standard input ends within it"));
            assert_eq!(all.is_empty(), is_first, "what comes before is kept");
        }
        let huge = read(Form::Prefixed, b"\xff\xff\xff\xffx");
        assert_eq!(huge, [Err("input 1 has more than 16777216 bytes".to_owned())]);
    }

    #[test]
    fn json_has_all_of_a_record() {
        let line = br#"{"offset":3,"leader_epoch":0,"key":{"base64":"/w=="},"value":"v","headers":[{"key":"h","value":null}],"timestamp":1700000000000}"#;
        let mut reader = Reader::new(
            &line[..],
            InputArgs {
                headers: vec![("a".to_owned(), "b".to_owned())],
                key: Some("unused".to_owned()),
                ..args(Form::Json)
            },
        );
        let Gathered { inputs, records } = reader.next().unwrap().unwrap();
        assert_eq!(inputs, 1..=1);
        let record = &records[0];
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"\xff"[..]), Some(&b"v"[..])));
        assert_eq!(record.timestamp.unix_timestamp(), 1_700_000_000);
        let headers: Vec<_> =
            record.headers.iter().map(|header| (header.key(), header.value.clone())).collect();
        assert_eq!(headers, [("h".into(), None), ("a".into(), Some(Bytes::from("b")))]);
    }

    #[test]
    fn a_bad_input_is_named_after_those_before_it() {
        for bad in
            ["", "{", "[1]", r#"{"valu":"x"}"#, r#"{"value":1}"#, r#"{"timestamp":9223372036854775807}"#]
        {
            let all = read(Form::Json, format!("{{\"value\":\"a\"}}\n{bad}\n{{}}").as_bytes());
            let [Ok(first), Err(problem)] = &all[..] else { panic!("{bad}: {all:?}") };
            assert_eq!(*first, texts(&["a"]));
            assert!(problem.starts_with("input 2: "), "{problem}");
        }
    }
}
