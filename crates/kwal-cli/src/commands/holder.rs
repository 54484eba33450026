//! `kwal holder`: who writes a log exclusively.

use std::ops::Range;

use kwal::{PartitionClient, record::Barrier};
use serde::Serialize;

use super::Session;
use crate::{
    connect::PartitionArgs,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    log::{Item, PartitionLog},
    output::{Progress, Table, escaped, plural, time_text, warn},
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
        true => Search::new(session, &partition, &log).scan(log.clone()).await?,
        false => Vec::from_iter(Search::new(session, &partition, &log).last().await?),
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
                escaped(barrier.name.as_bytes()),
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
        let are = if last.others_after == 1 { "is" } else { "are" };
        warn(&format!("{count} after the barrier {are} not of {}", escaped(last.barrier.name.as_bytes())));
    }
    Ok(Exit::Success)
}

/// A search for barriers.
struct Search<'a> {
    partition: &'a PartitionClient,
    interrupt: &'a Interrupt,
    /// The offsets of the log.
    log: &'a Range<i64>,
    bar: Progress,
}

impl<'a> Search<'a> {
    fn new(session: &'a Session, partition: &'a PartitionClient, log: &'a Range<i64>) -> Self {
        let name = format!("{}/{}", partition.topic(), partition.partition());
        let bar = session.out.progress(&name, (log.end - log.start).max(0).unsigned_abs(), "offsets");
        Self { partition, interrupt: &session.interrupt, log, bar }
    }

    /// Searches for the last barrier, in ranges that grow, from the end.
    async fn last(self) -> Result<Option<Held>, Failure> {
        let (mut until, mut len) = (self.log.end, 1_000_i64);
        while until > self.log.start {
            let from = until.saturating_sub(len).max(self.log.start);
            let found = self.scan(from..until).await.map_err(|failure| match failure {
                Failure::Interrupted(_) if until < self.log.end => {
                    Failure::Interrupted(format!("there is no barrier from offset {until} on"))
                }
                failure => failure,
            })?;
            if let Some(found) = found.into_iter().next_back() {
                // What came after it may reach beyond this range.
                let again = self.scan(found.offset..self.log.end).await?;
                return Ok(again.into_iter().next_back().or(Some(found)));
            }
            (until, len) = (from, len.saturating_mul(4));
        }
        Ok(None)
    }

    /// Returns the barriers of a range.
    async fn scan(&self, offsets: Range<i64>) -> Result<Vec<Held>, Failure> {
        let searched = self.log.end - offsets.end;
        let mut log = PartitionLog::new(self.partition, self.interrupt, offsets.clone());
        let mut held: Vec<Held> = Vec::new();
        while let Some(item) = log.next().await? {
            let batch = match item {
                Item::Batch { batch, .. } => batch,
                Item::Unreadable(unreadable) => {
                    self.bar.hide_for(|| warn(&format!("a batch cannot be read: {}", unreadable.problem)));
                    continue;
                }
                Item::Torn { .. } => continue,
            };
            self.bar.set((searched + batch.next_offset() - offsets.start).max(0).unsigned_abs());
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
}
