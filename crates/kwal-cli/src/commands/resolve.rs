//! `kwal resolve`: what became of appends in doubt.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use kwal::{
    Client, PartitionClient, Record,
    client::{Resolution, error::InDoubt},
};
use serde::Serialize;

use super::Session;
use crate::{
    exit::{Exit, Failure},
    interrupt::Interrupt,
    log::{Item, PartitionLog},
    output::{escaped, plural, range},
};

/// Finds out for good whether appends in doubt are on the log
///
/// Appends a fence, after which brokers reject the batch in doubt, and looks for the batch.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Args {
    /// A file with the handles, as JSON; - for standard input
    #[arg(value_name = "FILE")]
    handles: PathBuf,
    /// The name of the fence's header, by which readers of the log skip it
    #[arg(long, value_name = "NAME", default_value = "fence")]
    fence_header: String,
    /// The key of the fence, for a compacted topic
    #[arg(long, value_name = "TEXT")]
    fence_key: Option<String>,
    /// Becomes the holder of the log if the batch is of one: the present holder is fenced
    #[arg(long)]
    take_over: bool,
    /// Does not ask
    #[arg(short, long)]
    yes: bool,
}

const HELP: &str = "\
A handle is what the error of an append has, `Error::in_doubt()` of the library kwal, as JSON: an
element of in_doubt of `kwal append --json`, or written by hand from a line of a log:
  {\"topic\": \"wal\", \"partition\": 0, \"producer_id\": 17, \"epoch\": 0, \"sequence\": 40,
  \"record_count\": 2, \"after\": 99}
`after` is the last offset that was acknowledged before: without it, the whole log is read, which
may take a longer --timeout. A handle that contradicts the log, as by another record_count, is
refused. `topic_id` and `transactional_id` should be there if the error has them. Several handles
are resolved in their order: give the oldest first.

The fence is a record without a value, and with a header that your readers know. It goes out under
the producer id of the batch, so the process that appended the batch can append nothing more by that
id: it should have ended, or resolve the batch itself. On a terminal it asks; elsewhere it takes
--yes.

A batch of an exclusive writer needs no fence if another holder has taken over since: what lies
before that barrier, which `kwal holder` shows, is on the log, and anything else never will be.
Otherwise --take-over makes this program the holder, and the next one takes over from it.

Exits with 1 if one of them is not on the log, which is then final, and with 3 or 4 if nothing was
found out: then it can be run again. Several fences do no harm.

JSON: one object for each, {\"topic\", \"partition\", \"producer_id\", \"epoch\", \"sequence\",
\"record_count\", \"offsets\": [first, last] or null if it is not on the log}.

Examples:
  kwal resolve doubt.json
  kwal append wal --json < lines | jq '.inputs.in_doubt[]' > doubts.json
  kwal resolve doubts.json";

/// What a file of handles may have: thousands of them.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Serialize)]
struct Resolved<'a> {
    topic: &'a str,
    partition: i32,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
    record_count: usize,
    offsets: Option<[i64; 2]>,
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let handles = handles(&args.handles, &session.interrupt).await?;
    let mut question = format!("append a fence to resolve {}", plural(handles.len() as u64, "batch"));
    if let Some(of_holder) = handles.iter().find(|handle| handle.transactional_id.is_some()) {
        let name = escaped(name(of_holder).as_bytes());
        if !args.take_over {
            return Err(Failure::usage(format!(
                "{of_holder} is of the holder {name}: --take-over fences the present holder; see --help for what a \
                 later barrier tells without it"
            )));
        }
        question += &format!(" and take the log from the holder {name}");
    }
    if !session.confirm(&question, args.yes).await? {
        return Ok(Exit::Negative);
    }
    let client = session.client().await?;
    let mut exit = Exit::Success;
    for handle in &handles {
        let partition =
            session.interrupt.or(client.partition_client(&handle.topic, handle.partition)).await?;
        check(session, &partition, handle).await?;
        let resolution = session.interrupt.or_say(FENCED, resolve(&client, partition, handle, &args)).await?;
        if resolution == Resolution::NotApplied {
            exit = Exit::Negative;
        }
        print(session, handle, &resolution)?;
    }
    Ok(exit)
}

/// What is said if Ctrl-C comes meanwhile.
const FENCED: &str = "the batch is as much in doubt as before, and a fence may be on the log";

/// Refuses a handle that contradicts the log, before anything is changed: of a mistyped one, it would be said
/// that the batch is not there.
async fn check(session: &Session, partition: &PartitionClient, handle: &InDoubt) -> Result<(), Failure> {
    let mut offsets = PartitionLog::bounds(partition, &session.interrupt).await?;
    if let Some(after) = handle.after {
        offsets.start = offsets.start.max(after.saturating_add(1));
    }
    let name = format!("{}/{}", handle.topic, handle.partition);
    let bar = session.out.progress(&name, (offsets.end - offsets.start).max(0).unsigned_abs(), "offsets");
    let mut log = PartitionLog::new(partition, &session.interrupt, offsets.clone());
    while let Some(item) = log.next().await? {
        let Item::Batch { batch, .. } = item else { continue };
        bar.set((batch.next_offset() - offsets.start).max(0).unsigned_abs());
        let header = batch.header();
        let (first, last) = (header.base_sequence, header.last_sequence());
        let end =
            handle.sequence.saturating_add_unsigned(u32::try_from(handle.record_count).unwrap_or(u32::MAX));
        let is_same = (first, last) == (handle.sequence, end.saturating_sub(1));
        let overlaps = first < end && last >= handle.sequence;
        if (header.producer_id, header.producer_epoch) == (handle.producer_id, handle.epoch)
            && overlaps
            && !is_same
        {
            return Err(Failure::Local(format!(
                "{handle}: no such batch was appended, since the log has one of the same producer and epoch with the \
                 sequence numbers {first} to {last} at offset {}; check the handle",
                batch.base_offset()
            )));
        }
    }
    Ok(())
}

async fn resolve(
    client: &Client,
    mut partition: PartitionClient,
    handle: &InDoubt,
    args: &Args,
) -> Result<Resolution, kwal::Error> {
    if handle.transactional_id.is_some() {
        partition = client.partition_client(&handle.topic, handle.partition).exclusive(name(handle)).await?;
    }
    let fence = Record::new(args.fence_key.clone(), None::<&str>).header(args.fence_header.clone(), "");
    partition.resolve(handle, fence).await
}

/// The name of the exclusive writer whose batch it is.
fn name(handle: &InDoubt) -> &str {
    let id = handle.transactional_id.as_deref().unwrap_or_default();
    id.strip_suffix(&format!("/{}/{}", handle.topic, handle.partition)).unwrap_or(id)
}

fn print(session: &mut Session, handle: &InDoubt, resolution: &Resolution) -> Result<(), Failure> {
    let InDoubt { topic, partition, producer_id, epoch, sequence, record_count, .. } = handle;
    let offsets = match resolution {
        Resolution::Appended(offsets) => Some(offsets),
        Resolution::NotApplied => None,
    };
    if session.out.is_json() {
        session.out.json(&Resolved {
            topic,
            partition: *partition,
            producer_id: *producer_id,
            epoch: *epoch,
            sequence: *sequence,
            record_count: *record_count,
            offsets: offsets.map(|offsets| [offsets.start, offsets.end - 1]),
        })?;
    } else {
        match offsets {
            Some(offsets) => {
                session.out.line(format_args!("{handle}: on the log, at offsets {}", range(offsets)))?
            }
            None => session.out.line(format_args!("{handle}: not on the log, and never will be"))?,
        }
    }
    session.out.flush()
}

/// Reads the handles.
async fn handles(path: &Path, interrupt: &Interrupt) -> Result<Vec<InDoubt>, Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let from = path.to_owned();
    let read = interrupt.or_blocking(move || {
        let mut bytes = Vec::new();
        let read = match from == Path::new("-") {
            true => io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes),
            false => File::open(from).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)),
        };
        read.map(|_| bytes)
    });
    let bytes = read.await?.map_err(|error| Failure::local(&name, &error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Failure::Local(format!("{name} has more than {MOST_BYTES} bytes: these are no handles")));
    }
    let handles: Result<Vec<InDoubt>, _> = serde_json::Deserializer::from_slice(&bytes).into_iter().collect();
    let handles = handles.map_err(|error| Failure::Local(format!("{name}: no handle: {error}")))?;
    if handles.is_empty() {
        return Err(Failure::Local(format!("{name} has no handle")));
    }
    Ok(handles)
}
