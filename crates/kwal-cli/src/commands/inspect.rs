//! `kwal inspect`: a log batch by batch, and what is doubtful about it.

use std::{ops::Range, path::PathBuf};

use kwal::{
    client::{OffsetAt, Position},
    record::{Batch, BatchHeader, TimestampType},
};
use serde::Serialize;

use super::Session;
use crate::{
    commands::read::{Place, Until},
    connect::PartitionArgs,
    exit::{Exit, Failure},
    log::{Checker, Content, Doubt, Item, Kind, Noted, PartitionLog, SegmentFile, Unreadable},
    output::{Table, escaped, human_bytes, optional, plural, range, time_text},
};

/// Prints a log batch by batch, and marks doubtful places
///
/// It reads what is on the log: control batches, batches of aborted transactions and those that compaction
/// emptied as well. With --file, it reads a segment file of a broker without a cluster, also one whose end is
/// torn off.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Args {
    /// The topic
    #[arg(required_unless_present = "file")]
    topic: Option<String>,
    /// The partition; a topic of one partition needs none
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Where to begin, as for `kwal read`; of a position, the offset alone
    #[arg(long, value_name = "PLACE", default_value = "earliest", allow_hyphen_values = true)]
    from: Place,
    /// Where to end: latest, or the first offset that is not read
    #[arg(long, value_name = "PLACE", default_value = "latest")]
    until: Until,
    /// A segment file of a broker, such as wal-0/00000000000000000000.log
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topic", "partition", "from", "until"])]
    file: Option<PathBuf>,
}

const HELP: &str = "\
Columns: BASE and LAST are the offsets of a batch, PRODUCER is producer id/epoch/first and last sequence
number, LEADER the leader epoch, MAX TIME the largest timestamp. NOTES say what a batch is, and after ! what
is doubtful:

  unreadable           the checksum is wrong, or the batch or its records are malformed
  offset-back          it begins before the end of the batch before it
  leader-epoch-back    its leader epoch is lower than before
  producer-epoch-back  the epoch of its producer is lower than before
  sequence-gap         sequence numbers of its producer are missing, and no hole explains it
  duplicate-sequence   its producer has appended this sequence number before
  not-of-holder        a barrier lies before it, and it is not of the producer that took over by that
  time-back            its time is before that of the batch before it: several writers, or clocks set back

A hole is a range of offsets without a batch; compaction leaves holes, and retention does not. A barrier is
the record by which an exclusive writer of kwal took over. A \"fence for\" a writer is the same record under
the producer id of an earlier one. A \"fence\" is a single record at the last epoch of a producer id, by
which `kwal resolve`, or PartitionClient::resolve of another process, shut that out. After a barrier, all
batches should be of its producer id, from its epoch on, up to the next barrier; only fences and control
batches may come between. On a rare log, all that follows is not-of-holder: two processes took over by the
same name at once, after the cluster had forgotten it, and the later barrier is of the one that failed. A
fragment is a part of an entry that is larger than a batch.

Exits with 1 if there is a doubtful place other than time-back.

JSON: an object a line. {\"type\": \"batch\", \"base_offset\", \"last_offset\", \"count\", \"bytes\", \"magic\",
\"crc\", \"codec\", \"producer_id\", \"producer_epoch\", \"base_sequence\", \"last_sequence\", \"leader_epoch\",
\"max_timestamp\", \"timestamp_type\", \"transactional\", \"control\", \"delete_horizon\" (ms, by compaction),
\"position\" (in a file), \"marker\" (commit or abort), \"barrier\", \"fence\" (for a writer): {\"name\",
\"producer_id\", \"epoch\"}, \"resolve_fence\": true,
\"fragments\": {\"count\", \"entry\"}, \"hole_before\": [first, end], \"holes_within\", \"doubts\": [{\"kind\",
\"text\"}]}, where fields of what a batch is not are left out; {\"type\": \"unreadable\", \"base_offset\",
\"end_offset\", \"position\", \"doubts\"}; {\"type\": \"torn\", \"position\", \"bytes\"}; at the end
{\"type\": \"summary\", \"batches\", \"records\", \"bytes\", \"doubtful\", \"torn_bytes\",
\"open_transactions\": [{\"producer_id\", \"first_offset\"}]}.

Examples:
  kwal inspect wal -p 0 --from 1200 --until 1300
  kwal inspect --file /var/lib/kafka/wal-0/00000000000000000000.log
  kwal inspect wal -p 0 --json | jq 'select(.doubts != null and .doubts != [])'";

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let mut inspection = Inspection::new(args.file.is_some());
    if let Some(file) = &args.file {
        let mut segment = SegmentFile::open(file)?;
        while let Some(item) = segment.next()? {
            // A file has no await at which Ctrl-C could come in.
            if session.interrupt.is_set() {
                inspection.end(session)?;
                return Err(Failure::Interrupted(String::new()));
            }
            inspection.add(session, item)?;
        }
        return inspection.end(session);
    }
    let named = PartitionArgs { topic: args.topic.unwrap_or_default(), partition: args.partition };
    let client = session.client().await?;
    let partition = named.open(&client, &session.interrupt).await?;
    let bounds = PartitionLog::bounds(&partition, &session.interrupt).await?;
    let from = match args.from {
        Place::At(OffsetAt::Earliest) => bounds.start,
        Place::At(OffsetAt::Latest) => bounds.end,
        Place::At(at) => session.interrupt.or(partition.get_offset(at)).await?,
        Place::Position(Position { offset, .. }) => offset,
        Place::Relative(relative) => relative.on(&bounds),
    };
    let until = match args.until {
        Until::Latest => bounds.end,
        Until::Offset(offset) => offset.min(bounds.end),
    };
    let interrupt = session.interrupt.clone();
    let mut log = PartitionLog::new(&partition, &interrupt, from..until);
    let ended = loop {
        match log.next().await {
            Ok(Some(item)) => inspection.add(session, item)?,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    let exit = inspection.end(session)?;
    ended.map(|()| exit)
}

/// What has been seen, and the rows that are not printed yet.
struct Inspection {
    checker: Checker,
    table: Table,
    of_file: bool,
    batches: u64,
    records: u64,
    bytes: u64,
    torn_bytes: u64,
    /// How many doubtful places there are.
    doubtful: u64,
    findings: u64,
}

/// How many rows share a table, and its widths.
const TABLE_ROWS: usize = 500;

impl Inspection {
    fn new(of_file: bool) -> Self {
        Self {
            checker: Checker::default(),
            table: table(of_file),
            of_file,
            batches: 0,
            records: 0,
            bytes: 0,
            torn_bytes: 0,
            doubtful: 0,
            findings: 0,
        }
    }

    fn add(&mut self, session: &mut Session, item: Item) -> Result<(), Failure> {
        match item {
            Item::Batch { batch, position } => {
                let content = Content::of(&batch);
                let mut noted = self.checker.note(&batch);
                noted.doubts.extend(content.problem.clone().map(Doubt::Unreadable));
                self.batches += 1;
                self.records += content.records;
                self.bytes += batch.size_in_bytes() as u64;
                self.count(&noted.doubts);
                match session.out.is_json() {
                    true => session.out.json(&json(&batch, position, &content, &noted))?,
                    false => {
                        self.hole(noted.hole.as_ref());
                        self.row(row(&batch, position, &content, &noted.doubts));
                    }
                }
            }
            Item::Unreadable(unreadable) => {
                let noted = unreadable.offsets.as_ref().map(|offsets| self.checker.pass(offsets));
                let mut noted = noted.unwrap_or_default();
                noted.doubts.insert(0, Doubt::Unreadable(unreadable.problem.clone()));
                self.count(&noted.doubts);
                match session.out.is_json() {
                    true => session.out.json(&unreadable_json(&unreadable, &noted))?,
                    false => {
                        self.hole(noted.hole.as_ref());
                        self.row(unreadable_row(&unreadable, &noted.doubts));
                    }
                }
            }
            Item::Torn { position, bytes } => {
                self.torn_bytes = bytes;
                match session.out.is_json() {
                    true => session.out.json(&Json::Torn { position, bytes })?,
                    false => {
                        let note = format!("torn: {} are no whole batch", plural(bytes, "byte"));
                        self.row(note_row(Some(position), note));
                    }
                }
            }
        }
        if self.table.len() >= TABLE_ROWS {
            session.out.table(std::mem::replace(&mut self.table, table(self.of_file)))?;
        }
        Ok(())
    }

    /// Only a file has positions, which come first.
    fn row(&mut self, row: Vec<String>) {
        self.table.row(row.into_iter().skip(usize::from(!self.of_file)));
    }

    fn count(&mut self, doubts: &[Doubt]) {
        self.doubtful += u64::from(!doubts.is_empty());
        self.findings += u64::from(doubts.iter().any(Doubt::is_finding));
    }

    fn hole(&mut self, hole: Option<&Range<i64>>) {
        if let Some(hole) = hole {
            self.row(note_row(None, format!("hole: offsets {}", range(hole))));
        }
    }

    fn end(self, session: &mut Session) -> Result<Exit, Failure> {
        let Self { checker, table, batches, records, bytes, torn_bytes, doubtful, findings, .. } = self;
        session.out.table(table)?;
        let open = checker.open_transactions();
        if session.out.is_json() {
            let open = open.into_iter();
            session.out.json(&Json::Summary {
                batches,
                records,
                bytes,
                doubtful,
                torn_bytes,
                open_transactions: open
                    .map(|(producer_id, first_offset)| OpenTransaction { producer_id, first_offset })
                    .collect(),
            })?;
        } else {
            session.out.flush()?;
            for (producer, from) in open {
                session.out.tell(format_args!("a transaction of producer {producer} is open from {from} on"));
            }
            session.out.tell(format_args!(
                "{}, {}, {}; {}",
                plural(batches, "batch"),
                plural(records, "record"),
                human_bytes(bytes),
                plural(doubtful, "doubtful place")
            ));
        }
        Ok(if findings == 0 { Exit::Success } else { Exit::Negative })
    }
}

fn table(of_file: bool) -> Table {
    let columns = [
        ">POSITION",
        ">BASE",
        ">LAST",
        ">COUNT",
        ">BYTES",
        "CODEC",
        "PRODUCER",
        ">LEADER",
        "MAX TIME",
        "NOTES",
    ];
    Table::new(if of_file { &columns } else { &columns[1..] })
}

fn row(batch: &Batch, position: Option<u64>, content: &Content, doubts: &[Doubt]) -> Vec<String> {
    let header = batch.header();
    vec![
        position.map(|position| position.to_string()).unwrap_or_default(),
        batch.base_offset().to_string(),
        batch.last_offset().to_string(),
        content.records.to_string(),
        batch.size_in_bytes().to_string(),
        codec(header).to_owned(),
        producer(header),
        optional((header.partition_leader_epoch >= 0).then_some(header.partition_leader_epoch)),
        time_text(header.max_timestamp),
        notes(header, content, doubts),
    ]
}

fn unreadable_row(unreadable: &Unreadable, doubts: &[Doubt]) -> Vec<String> {
    let mut row = note_row(unreadable.position, marked(doubts).join(", "));
    if let Some(offsets) = &unreadable.offsets {
        row[1] = offsets.start.to_string();
        row[2] = offsets.end.saturating_sub(1).to_string();
    }
    if let Some(header) = &unreadable.header {
        row[3] = header.count.to_string();
        row[4] = header.size_in_bytes().to_string();
        row[5] = codec(header).to_owned();
        row[6] = producer(header);
        row[7] = header.partition_leader_epoch.to_string();
        row[8] = time_text(header.max_timestamp);
    }
    row
}

/// A row of nothing but a note.
fn note_row(position: Option<u64>, note: String) -> Vec<String> {
    let mut row = vec![String::new(); 9];
    row[0] = position.map(|position| position.to_string()).unwrap_or_default();
    row.push(note);
    row
}

fn codec(header: &BatchHeader) -> &'static str {
    header.compression().map_or("?", |codec| codec.name())
}

fn producer(header: &BatchHeader) -> String {
    let (id, epoch, first) = (header.producer_id, header.producer_epoch, header.base_sequence);
    match header.last_sequence() {
        _ if id < 0 => "-".to_owned(),
        _ if first < 0 => format!("{id}/{epoch}"),
        last if first == last => format!("{id}/{epoch}/{first}"),
        last => format!("{id}/{epoch}/{first}-{last}"),
    }
}

fn notes(header: &BatchHeader, content: &Content, doubts: &[Doubt]) -> String {
    let mut notes = Vec::new();
    if header.magic < BatchHeader::MAGIC {
        notes.push(format!("magic {}", header.magic));
    }
    match &content.kind {
        Kind::Records => {}
        Kind::Marker { committed: true } => notes.push("COMMIT".to_owned()),
        Kind::Marker { committed: false } => notes.push("ABORT".to_owned()),
        Kind::Control(name) => notes.push(format!("control: {name}")),
        Kind::Barrier(barrier) => notes.push(format!("barrier of {}", escaped(barrier.name.as_bytes()))),
        Kind::Fence(barrier) => notes.push(format!("fence for {}", escaped(barrier.name.as_bytes()))),
        Kind::ResolveFence => notes.push("fence".to_owned()),
        Kind::Fragments { count, first } => {
            notes.push(format!("{} of entry {first}", plural(*count, "fragment")));
        }
    }
    if header.is_transactional() && !header.is_control() {
        notes.push("transactional".to_owned());
    }
    if content.holes > 0 {
        notes.push(format!("{} without a record", plural(content.holes, "offset")));
    }
    notes.extend(marked(doubts));
    notes.join(", ")
}

fn marked(doubts: &[Doubt]) -> Vec<String> {
    doubts.iter().map(|doubt| format!("! {doubt}")).collect()
}

/// A line of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Json<'a> {
    Batch(Box<JsonBatch<'a>>),
    Unreadable {
        base_offset: Option<i64>,
        end_offset: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hole_before: Option<[i64; 2]>,
        doubts: Vec<JsonDoubt>,
    },
    Torn {
        position: u64,
        bytes: u64,
    },
    Summary {
        batches: u64,
        records: u64,
        bytes: u64,
        doubtful: u64,
        torn_bytes: u64,
        open_transactions: Vec<OpenTransaction>,
    },
}

#[derive(Serialize)]
struct JsonBatch<'a> {
    base_offset: i64,
    last_offset: i64,
    count: u64,
    bytes: usize,
    magic: i8,
    crc: u32,
    codec: &'static str,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    last_sequence: i32,
    leader_epoch: i32,
    max_timestamp: i64,
    timestamp_type: &'static str,
    transactional: bool,
    control: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_horizon: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marker: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    barrier: Option<JsonBarrier<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<JsonBarrier<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resolve_fence: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragments: Option<JsonFragments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hole_before: Option<[i64; 2]>,
    holes_within: u64,
    doubts: Vec<JsonDoubt>,
}

#[derive(Serialize)]
struct JsonBarrier<'a> {
    name: &'a str,
    producer_id: i64,
    epoch: i16,
}

#[derive(Serialize)]
struct JsonFragments {
    count: u64,
    entry: String,
}

#[derive(Serialize)]
struct JsonDoubt {
    kind: &'static str,
    text: String,
}

#[derive(Serialize)]
struct OpenTransaction {
    producer_id: i64,
    first_offset: i64,
}

fn json<'a>(batch: &Batch, position: Option<u64>, content: &'a Content, noted: &Noted) -> Json<'a> {
    let header = batch.header();
    let has_sequence = header.producer_id >= 0 && header.base_sequence >= 0;
    let barrier = |barrier: &'a kwal::record::Barrier| JsonBarrier {
        name: &barrier.name,
        producer_id: barrier.producer_id,
        epoch: barrier.epoch,
    };
    let mut line = JsonBatch {
        base_offset: batch.base_offset(),
        last_offset: batch.last_offset(),
        count: content.records,
        bytes: batch.size_in_bytes(),
        magic: batch.magic(),
        crc: header.crc,
        codec: codec(header),
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: if has_sequence { header.last_sequence() } else { -1 },
        leader_epoch: header.partition_leader_epoch,
        max_timestamp: header.max_timestamp,
        timestamp_type: match header.timestamp_type() {
            TimestampType::LogAppendTime => "log-append",
            TimestampType::NoTimestamp => "none",
            _ => "create",
        },
        transactional: header.is_transactional(),
        control: header.is_control(),
        delete_horizon: header.delete_horizon_ms(),
        position,
        marker: None,
        barrier: None,
        fence: None,
        resolve_fence: false,
        fragments: None,
        hole_before: hole(noted),
        holes_within: content.holes,
        doubts: json_doubts(&noted.doubts),
    };
    match &content.kind {
        Kind::Records | Kind::Control(_) => {}
        Kind::Marker { committed } => line.marker = Some(if *committed { "commit" } else { "abort" }),
        Kind::Barrier(found) => line.barrier = Some(barrier(found)),
        Kind::Fence(found) => line.fence = Some(barrier(found)),
        Kind::ResolveFence => line.resolve_fence = true,
        Kind::Fragments { count, first } => {
            line.fragments = Some(JsonFragments { count: *count, entry: first.to_string() });
        }
    }
    Json::Batch(Box::new(line))
}

fn unreadable_json(unreadable: &Unreadable, noted: &Noted) -> Json<'static> {
    Json::Unreadable {
        base_offset: unreadable.offsets.as_ref().map(|offsets| offsets.start),
        end_offset: unreadable.offsets.as_ref().map(|offsets| offsets.end),
        position: unreadable.position,
        hole_before: hole(noted),
        doubts: json_doubts(&noted.doubts),
    }
}

fn hole(noted: &Noted) -> Option<[i64; 2]> {
    noted.hole.as_ref().map(|hole| [hole.start, hole.end])
}

fn json_doubts(doubts: &[Doubt]) -> Vec<JsonDoubt> {
    doubts.iter().map(|doubt| JsonDoubt { kind: doubt.name(), text: doubt.to_string() }).collect()
}
