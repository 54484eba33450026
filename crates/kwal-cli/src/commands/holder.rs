//! `kwal holder`: who writes a log exclusively.

use std::ops::Range;

use kwal::{PartitionClient, record::Barrier};
use serde::Serialize;

use super::Session;
use crate::{
    connect::PartitionArgs,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    log::{Item, PartitionLog, is_fence, is_of_other},
    output::{Progress, Table, escaped, plural, time_text, warn},
};

/// Prints who writes a partition exclusively: the last barrier on its log
///
/// An exclusive writer of kwal appends a barrier before anything else. The log is searched for it from its
/// end.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exits with 1 if others have appended after the last barrier, and if the log has none, or no longer has it, as
after a trim. Without a barrier, it prints whose the last batch with a producer id is.

JSON: one object, {\"topic\", \"partition\", \"name\", \"producer_id\", \"epoch\", \"offset\", \"timestamp\",
\"last_epoch\", \"batches_after\", \"others_after\"}, or with --all one a line. `last_epoch` is the epoch of the
holder's last batch, which it raises now and then; `others_after` counts batches of others after the
barrier, which are of writers without the name: of another producer id or an earlier epoch. Fences and
control batches are not counted. If the log has no barrier, also with --all: {\"topic\", \"partition\",
\"name\": null, \"log_start\", \"last_batch\": {\"producer_id\", \"epoch\", \"offset\"} or null}, where `offset`
is that of its last record.

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

/// The last batch with a producer id, and its last offset.
#[derive(Clone, Copy, Debug, Serialize)]
struct LastBatch {
    producer_id: i64,
    epoch: i16,
    offset: i64,
}

/// What was found in a range of offsets.
#[derive(Debug, Default)]
struct Found {
    held: Vec<Held>,
    last_batch: Option<LastBatch>,
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

#[derive(Serialize)]
struct NoHolder<'a> {
    topic: &'a str,
    partition: i32,
    name: Option<&'a str>,
    log_start: i64,
    last_batch: Option<LastBatch>,
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let partition = args.partition.open(&client, &session.interrupt).await?;
    let log = PartitionLog::bounds(&partition, &session.interrupt).await?;
    let search = Search::new(session, &partition, &log);
    let Found { held, last_batch } = match args.all {
        true => search.scan(log.clone()).await?,
        false => search.last().await?,
    };
    drop(search);
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
    let Some(last) = held.last() else {
        return no_holder(session, &partition, log.start, last_batch);
    };
    session.out.flush()?;
    if last.others_after > 0 {
        let count = plural(last.others_after, "batch");
        let are = if last.others_after == 1 { "is" } else { "are" };
        warn(&format!("{count} after the barrier {are} not of {}", last.barrier.name));
        return Ok(Exit::Negative);
    }
    Ok(Exit::Success)
}

fn no_holder(
    session: &mut Session,
    partition: &PartitionClient,
    log_start: i64,
    last_batch: Option<LastBatch>,
) -> Result<Exit, Failure> {
    let (topic, partition) = (partition.topic(), partition.partition());
    if session.out.is_json() {
        session.out.json(&NoHolder { topic, partition, name: None, log_start, last_batch })?;
    }
    session.out.flush()?;
    let mut text = format!("no exclusive writer has taken over {topic}/{partition}");
    if log_start > 0 {
        text = format!(
            "no barrier is left on {topic}/{partition}: its log begins at {log_start}, after the last barrier if \
             there was one"
        );
    }
    if let Some(LastBatch { producer_id, epoch, offset }) = last_batch {
        text += &format!(
            "; the last batch with a producer id, at {offset}, is of producer {producer_id} at epoch {epoch}"
        );
    }
    session.out.tell(text);
    Ok(Exit::Negative)
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
    async fn last(&self) -> Result<Found, Failure> {
        let (mut until, mut len) = (self.log.end, 1_000_i64);
        let mut last_batch = None;
        while until > self.log.start {
            let from = until.saturating_sub(len).max(self.log.start);
            let found = self.scan(from..until).await.map_err(|failure| match failure {
                Failure::Interrupted(_) if until < self.log.end => {
                    Failure::Interrupted(format!("there is no barrier from offset {until} on"))
                }
                failure => failure,
            })?;
            last_batch = last_batch.or(found.last_batch);
            if let Some(last) = found.held.into_iter().next_back() {
                // What came after it may reach beyond this range.
                let again = self.scan(last.offset..self.log.end).await?;
                let held = again.held.into_iter().next_back().unwrap_or(last);
                return Ok(Found { held: vec![held], last_batch });
            }
            (until, len) = (from, len.saturating_mul(4));
        }
        Ok(Found { held: Vec::new(), last_batch })
    }

    /// Returns the barriers of a range, and its last batch.
    async fn scan(&self, offsets: Range<i64>) -> Result<Found, Failure> {
        let searched = self.log.end - offsets.end;
        let mut log = PartitionLog::new(self.partition, self.interrupt, offsets.clone());
        let Found { mut held, mut last_batch } = Found::default();
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
            let producer = batch.producer_id().zip(batch.producer_epoch());
            if let Some((producer_id, epoch)) = producer.filter(|_| !batch.is_control() && !is_fence(&batch))
            {
                last_batch = Some(LastBatch { producer_id, epoch, offset: batch.last_offset() });
            }
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
                match producer {
                    _ if is_of_other(&batch, &last.barrier) => last.others_after += 1,
                    Some((id, epoch)) if id == last.barrier.producer_id => {
                        last.last_epoch = last.last_epoch.max(epoch);
                        last.batches_after += 1;
                    }
                    // A control batch or a fence.
                    _ => {}
                }
            }
        }
        Ok(Found { held, last_batch })
    }
}
