//! `kwal holder`: who writes a log exclusively.

use kwal::{PartitionClient, record::Barrier};
use serde::Serialize;

use super::Session;
use crate::{
    connect::PartitionArgs,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    log::{Item, PartitionLog},
    output::{Table, plural, time_text, warn},
};

/// Prints who writes a partition exclusively: the last barrier on its log
///
/// An exclusive writer of kwal appends a barrier before anything else. The log is searched for it from its
/// end.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exits with 1 if the log has no barrier.

JSON: one object, {\"topic\", \"partition\", \"name\", \"producer_id\", \"epoch\", \"offset\", \"timestamp\",
\"last_epoch\", \"batches_after\", \"others_after\"}, or with --all one a line. `last_epoch` is the epoch of the
holder's last batch, which it raises now and then; `others_after` counts batches of other producers after the
barrier, which are of writers without the name.

Examples:
  kwal holder wal -p 0
  kwal holder wal -p 0 --all")]
pub(crate) struct Args {
    #[command(flatten)]
    partition: PartitionArgs,
    /// All barriers of the log, the first one first
    #[arg(long)]
    all: bool,
}

/// A barrier, and what came after it.
#[derive(Debug)]
struct Held {
    barrier: Barrier,
    offset: i64,
    timestamp: i64,
    last_epoch: i16,
    batches_after: u64,
    others_after: u64,
}

#[derive(Serialize)]
struct Json<'a> {
    topic: &'a str,
    partition: i32,
    name: &'a str,
    producer_id: i64,
    epoch: i16,
    offset: i64,
    timestamp: i64,
    last_epoch: i16,
    batches_after: u64,
    others_after: u64,
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let partition = args.partition.open(&client, &session.interrupt).await?;
    let log = PartitionLog::bounds(&partition, &session.interrupt).await?;
    let held = match args.all {
        true => scan(&partition, &session.interrupt, log.start, log.end).await?,
        false => Vec::from_iter(search(&partition, &session.interrupt, log.start, log.end).await?),
    };
    let mut table =
        Table::new(&["NAME", ">PRODUCER", ">EPOCH", ">OFFSET", "TIME", ">LAST EPOCH", ">BATCHES", ">OTHERS"]);
    for one in &held {
        let Held { barrier, offset, timestamp, last_epoch, batches_after, others_after } = one;
        if session.out.is_json() {
            session.out.json(&Json {
                topic: partition.topic(),
                partition: partition.partition(),
                name: &barrier.name,
                producer_id: barrier.producer_id,
                epoch: barrier.epoch,
                offset: *offset,
                timestamp: *timestamp,
                last_epoch: *last_epoch,
                batches_after: *batches_after,
                others_after: *others_after,
            })?;
        } else {
            table.row([
                barrier.name.clone(),
                barrier.producer_id.to_string(),
                barrier.epoch.to_string(),
                offset.to_string(),
                time_text(*timestamp),
                last_epoch.to_string(),
                batches_after.to_string(),
                others_after.to_string(),
            ]);
        }
    }
    session.out.table(table)?;
    session.out.flush()?;
    let Some(last) = held.last() else {
        let (topic, partition) = (partition.topic(), partition.partition());
        session.out.tell(format_args!(
            "no exclusive writer has taken over {topic}/{partition}, as far as its log goes back"
        ));
        return Ok(Exit::Negative);
    };
    if last.others_after > 0 {
        let count = plural(last.others_after, "batch");
        warn(&format!("{count} after the barrier are not of {}", last.barrier.name));
    }
    Ok(Exit::Success)
}

/// Searches for the last barrier, in ranges that grow, from the end.
async fn search(
    partition: &PartitionClient,
    interrupt: &Interrupt,
    start: i64,
    end: i64,
) -> Result<Option<Held>, Failure> {
    let (mut until, mut len) = (end, 1_000_i64);
    while until > start {
        let from = until.saturating_sub(len).max(start);
        if let Some(found) = scan(partition, interrupt, from, until).await?.pop() {
            // What came after it may reach beyond this range.
            let again = scan(partition, interrupt, found.offset, end).await?;
            return Ok(again.into_iter().next_back().or(Some(found)));
        }
        (until, len) = (from, len.saturating_mul(4));
    }
    Ok(None)
}

/// Returns the barriers of a range.
async fn scan(
    partition: &PartitionClient,
    interrupt: &Interrupt,
    from: i64,
    until: i64,
) -> Result<Vec<Held>, Failure> {
    let mut log = PartitionLog::new(partition, interrupt, from..until);
    let mut held: Vec<Held> = Vec::new();
    while let Some(item) = log.next().await? {
        let batch = match item {
            Item::Batch { batch, .. } => batch,
            Item::Unreadable(unreadable) => {
                warn(&format!("a batch cannot be read: {}", unreadable.problem));
                continue;
            }
            Item::Torn { .. } => continue,
        };
        if let Some(barrier) = Barrier::in_batch(&batch) {
            held.push(Held {
                last_epoch: barrier.epoch,
                barrier,
                offset: batch.base_offset(),
                timestamp: batch.header().max_timestamp,
                batches_after: 0,
                others_after: 0,
            });
        } else if let Some(last) = held.last_mut() {
            let producer = batch.producer_id().zip(batch.producer_epoch());
            match producer {
                Some((id, epoch)) if id == last.barrier.producer_id => {
                    last.last_epoch = last.last_epoch.max(epoch);
                    last.batches_after += 1;
                }
                _ => last.others_after += 1,
            }
        }
    }
    Ok(held)
}
