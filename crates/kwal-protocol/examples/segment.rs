//! Prints the content of segment files of a Kafka log, similar to Kafka's `DumpLogSegments`.
//!
//! ```text
//! $ cargo run -p kwal-protocol --example segment -- --records wal-0/00000000000000000000.log
//! wal-0/00000000000000000000.log
//! baseOffset: 0 lastOffset: 0 count: 1 baseSequence: 0 lastSequence: 0 producerId: 4 producerEpoch: 0 …
//! | offset: 0 CreateTime: 1750000000000 keySize: 3 valueSize: 5 sequence: 0 headerKeys: [] key: key payload: value
//! ```
//!
//! It prints one line per batch and, with `--records`, one line per record. Batches without a producer have
//! −1 there, as in Kafka's tool; messages of magic 0 and 1 (see [`Batch::magic`]) have no such fields and no
//! sequence number. Keys, values and headers are printed as text, with control characters escaped and U+FFFD
//! for invalid UTF-8.
//!
//! Checksums are verified. A batch that cannot be read ends a file with an error that names the byte; a
//! truncated last batch, as after a crash, is not an error. One batch at a time is in memory.

use std::{
    borrow::Cow,
    env,
    error::Error,
    fmt::{self, Write as _},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    process::ExitCode,
};

use kwal_protocol::record::{
    Batch, BatchError, BatchErrorKind, BatchHeader, Batches, ControlRecord, RecordView, Records,
    TimestampType,
};

fn main() -> ExitCode {
    let (mut files, mut with_records) = (Vec::new(), false);
    for argument in env::args_os().skip(1) {
        match argument.to_str() {
            Some("--records") => with_records = true,
            Some(option) if option.starts_with('-') => return usage(&format!("there is no option {option}")),
            _ => files.push(argument),
        }
    }
    if files.is_empty() {
        return usage("name at least one file");
    }
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let mut output = BufWriter::new(io::stdout().lock());
        let result = writeln!(output, "{}", file.display()).map_err(SegmentError::Write).and_then(|()| {
            let segment = File::open(&file).map_err(SegmentError::Read)?;
            dump(BufReader::new(segment), &mut output, with_records)
        });
        match result.and_then(|()| output.flush().map_err(SegmentError::Write)) {
            Ok(()) => {}
            // The reader has closed the pipe.
            Err(SegmentError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return code,
            Err(error) => {
                let _ = output.flush();
                eprintln!("segment: {}: {}", file.display(), chain(&error));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn usage(fault: &str) -> ExitCode {
    eprintln!("segment: {fault}\nusage: segment [--records] FILE.log…");
    ExitCode::from(2)
}

/// Prints the batches of a segment file, in the order of the file.
pub(crate) fn dump(
    segment: impl Read,
    mut output: impl Write,
    with_records: bool,
) -> Result<(), SegmentError> {
    let mut segment = Segment { input: segment, position: 0 };
    while let Some(next) = segment.next()? {
        match next {
            Next::Batch(batch) => {
                let at = |error| SegmentError::Batch(segment.locate(error, &batch));
                let line = BatchLine::new(&batch, segment.position - batch.size_in_bytes()).map_err(at)?;
                writeln!(output, "{line}").map_err(SegmentError::Write)?;
                if with_records {
                    for record in &line.records {
                        let record = RecordLine::new(&batch, record.map_err(at)?).map_err(at)?;
                        writeln!(output, "{record}").map_err(SegmentError::Write)?;
                    }
                }
            }
            Next::Torn(bytes) => {
                let position = segment.position;
                writeln!(output, "torn: {bytes} bytes at position {position} are not a whole batch")
                    .map_err(SegmentError::Write)?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The reason why a segment is not printed to its end.
#[derive(Debug)]
pub(crate) enum SegmentError {
    Read(io::Error),
    Write(io::Error),
    Batch(BatchError),
    /// An implausible length field, which would have to be read into memory.
    TooLarge {
        position: usize,
        size: usize,
    },
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(_) => f.write_str("it cannot be read"),
            Self::Write(_) => f.write_str("nothing can be printed"),
            Self::Batch(error) => error.fmt(f),
            Self::TooLarge { position, size } => {
                write!(f, "the batch at byte {position} says it has {size} bytes, more than {MAX_BATCH}")
            }
        }
    }
}

impl Error for SegmentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(error) | Self::Write(error) => Some(error),
            Self::Batch(error) => error.source(),
            Self::TooLarge { .. } => None,
        }
    }
}

/// The maximum size of a batch: above `max.message.bytes` of brokers, far below the memory limit.
const MAX_BATCH: usize = 256 << 20;
/// The maximum size of a decompressed batch.
const MAX_DECOMPRESSED: usize = 1 << 30;

/// A file that is read batch by batch.
struct Segment<R> {
    input: R,
    /// The end of the last complete batch, in bytes.
    position: usize,
}

enum Next {
    Batch(Batch),
    /// The number of bytes left that are not a complete batch.
    Torn(usize),
}

impl<R: Read> Segment<R> {
    /// The size of offset and length, which the length does not count.
    const OVERHEAD: usize = BatchHeader::LOG_OVERHEAD;

    fn next(&mut self) -> Result<Option<Next>, SegmentError> {
        let mut bytes = Vec::new();
        self.read(Self::OVERHEAD, &mut bytes)?;
        let Some(length) = bytes.get(8..).and_then(|rest| rest.first_chunk()) else {
            return Ok(if bytes.is_empty() { None } else { Some(Next::Torn(bytes.len())) });
        };
        // `Batches` reports negative lengths.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        if length > MAX_BATCH {
            return Err(SegmentError::TooLarge { position: self.position, size: length });
        }
        self.read(length, &mut bytes)?;
        let size = bytes.len();
        match Batches::new(bytes.into()).next() {
            Some(Ok(batch)) => {
                self.position += size;
                Ok(Some(Next::Batch(batch)))
            }
            Some(Err(error)) => Err(SegmentError::Batch(BatchError { position: self.position, ..error })),
            None => Ok(Some(Next::Torn(size))),
        }
    }

    /// Appends up to `length` bytes; memory grows with the bytes read.
    fn read(&mut self, length: usize, bytes: &mut Vec<u8>) -> Result<(), SegmentError> {
        let mut input = self.input.by_ref().take(length as u64);
        input.read_to_end(bytes).map(|_| ()).map_err(SegmentError::Read)
    }

    /// Makes the position of an error relative to the start of the file.
    fn locate(&self, error: BatchError, batch: &Batch) -> BatchError {
        BatchError { position: self.position - batch.size_in_bytes(), ..error }
    }
}

/// Prints a batch like `DumpLogSegments`.
struct BatchLine<'a> {
    batch: &'a Batch,
    position: usize,
    records: Records,
}

impl<'a> BatchLine<'a> {
    fn new(batch: &'a Batch, position: usize) -> Result<Self, BatchError> {
        Ok(Self { batch, position, records: batch.records(MAX_DECOMPRESSED)? })
    }

    /// The number in a wrapper of magic 0 or 1 is only known from its records.
    fn base_offset(&self) -> i64 {
        match self.records.iter().next() {
            Some(Ok(record)) if self.batch.magic() < BatchHeader::MAGIC => record.offset,
            _ => self.batch.base_offset(),
        }
    }
}

impl fmt::Display for BatchLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.batch.header();
        let (base, last) = (self.base_offset(), header.last_offset());
        write!(f, "baseOffset: {base} lastOffset: {last} count: {}", self.records.count())?;
        if header.magic >= BatchHeader::MAGIC {
            write!(f, " baseSequence: {} lastSequence: {}", header.base_sequence, header.last_sequence())?;
            write!(f, " producerId: {} producerEpoch: {}", header.producer_id, header.producer_epoch)?;
            write!(f, " partitionLeaderEpoch: {}", header.partition_leader_epoch)?;
            write!(f, " isTransactional: {}", header.is_transactional())?;
            write!(f, " isControl: {}", header.is_control())?;
            match header.delete_horizon_ms() {
                Some(horizon) => write!(f, " deleteHorizonMs: {horizon}")?,
                None => f.write_str(" deleteHorizonMs: none")?,
            }
        }
        write!(f, " position: {} {}: {}", self.position, time_name(header), header.max_timestamp)?;
        write!(f, " size: {} magic: {}", header.size_in_bytes(), header.magic)?;
        let codec = header.compression().map_or("unknown", |codec| codec.name());
        write!(f, " compresscodec: {codec} crc: {} isvalid: true", header.crc)
    }
}

fn time_name(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::LogAppendTime => "LogAppendTime",
        TimestampType::NoTimestamp => "NoTimestamp",
        _ => "CreateTime",
    }
}

/// Prints a record like `DumpLogSegments --print-data-log`.
struct RecordLine<'a> {
    batch: &'a Batch,
    record: RecordView<'a>,
    control: Option<ControlRecord>,
}

impl<'a> RecordLine<'a> {
    fn new(batch: &'a Batch, record: RecordView<'a>) -> Result<Self, BatchError> {
        let malformed = |error| BatchError {
            kind: BatchErrorKind::Control(error),
            position: 0,
            base_offset: Some(batch.base_offset()),
        };
        let is_control = batch.is_control();
        let control = is_control.then(|| ControlRecord::decode(&record)).transpose().map_err(malformed)?;
        Ok(Self { batch, record, control })
    }
}

impl fmt::Display for RecordLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, record, control } = self;
        let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        write!(f, "| offset: {} {}: {}", record.offset, time_name(batch.header()), record.timestamp_ms)?;
        write!(f, " keySize: {} valueSize: {}", size(record.key), size(record.value))?;
        if batch.magic() >= BatchHeader::MAGIC {
            let keys: Vec<_> = record.headers().map(|header| text(header.key)).collect();
            write!(f, " sequence: {} headerKeys: [{}]", record.sequence, keys.join(","))?;
        }
        match control {
            Some(ControlRecord::EndTransaction(end)) => {
                let name = end.control_type().name().unwrap_or_default();
                return write!(f, " endTxnMarker: {name} coordinatorEpoch: {}", end.coordinator_epoch);
            }
            Some(other) => return write!(f, " controlType: {:?}", other.control_type()),
            None => {}
        }
        for (name, bytes) in [("key", record.key), ("payload", record.value)] {
            if let Some(bytes) = bytes {
                write!(f, " {name}: {}", text(bytes))?;
            }
        }
        Ok(())
    }
}

/// Escapes control characters, so that the text stays on one line.
fn text(bytes: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
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
