//! `kwal trim`: cutting off the beginning of a log.

use std::ops::Range;

use kwal::{PartitionClient, client::DeleteBefore, record::Barrier};
use serde::Serialize;

use super::{MAY_HAVE_CHANGED, Session};
use crate::{
    connect::PartitionArgs,
    exit::{Exit, Failure},
    log::{Item, PartitionLog},
    output::{plural, range, warn},
};

/// Deletes the records before an offset
///
/// They are gone for every reader at once. On a log with an exclusive writer, keep the last barrier or
/// a later record of the holder.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
It asks on a terminal; elsewhere it takes --yes.

On a log with an exclusive writer, keep the last barrier, which `kwal holder` shows, or at least a
later record of the holder: without either, an earlier holder may be able to append again.
`--before high-watermark` keeps neither, nor does the end of the log as an offset: then there is a warning if
its last 1,000 offsets have a barrier.

JSON: one object, {\"topic\", \"partition\", \"log_start\", \"deleted\"}: the first offset that is left, and how
many offsets were removed.

Examples:
  kwal trim wal -p 0 --before 120000
  kwal trim wal-test -p 0 --before high-watermark --yes")]
pub(crate) struct Args {
    #[command(flatten)]
    partition: PartitionArgs,
    /// The first offset to keep, or high-watermark to delete all that is there now
    #[arg(long, value_name = "OFFSET", value_parser = before)]
    before: DeleteBefore,
    /// Does not ask
    #[arg(short, long)]
    yes: bool,
}

fn before(text: &str) -> Result<DeleteBefore, String> {
    match text.parse() {
        Ok(offset @ 0..) => Ok(DeleteBefore::Offset(offset)),
        _ if text == "high-watermark" => Ok(DeleteBefore::HighWatermark),
        _ => Err("neither an offset nor high-watermark".to_owned()),
    }
}

#[derive(Serialize)]
struct Trimmed<'a> {
    topic: &'a str,
    partition: i32,
    log_start: i64,
    deleted: i64,
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let partition = args.partition.open(&client, &session.interrupt).await?;
    let log = PartitionLog::bounds(&partition, &session.interrupt).await?;
    let start = log.start;
    let end = match args.before {
        DeleteBefore::Offset(offset) => offset,
        _ => log.end,
    };
    let name = format!("{}/{}", partition.topic(), partition.partition());
    let question = format!("delete offsets {} of {name}", range(&(start..end)));
    let trimmed = |log_start: i64| {
        let (topic, partition) = (partition.topic(), partition.partition());
        Trimmed { topic, partition, log_start, deleted: log_start - start }
    };
    // Brokers reject what is beyond the end.
    if end > start && end == log.end {
        warn_of_holder(session, &partition, log).await?;
    }
    if end > start && !session.confirm(&question, args.yes).await? {
        if session.out.is_json() {
            session.out.json(&trimmed(start))?;
        }
        return Ok(Exit::Negative);
    }
    let log_start = session.interrupt.or_say(MAY_HAVE_CHANGED, partition.delete_records(args.before)).await?;
    let deleted = log_start - start;
    if session.out.is_json() {
        session.out.json(&trimmed(log_start))?;
    } else {
        let count = plural(deleted.max(0).unsigned_abs(), "offset");
        session.out.line(format_args!("{name} begins at {log_start}: {count} removed"))?;
    }
    Ok(Exit::Success)
}

/// How many of the last offsets are searched for a barrier.
const SEARCHED: i64 = 1_000;

/// Warns if a log that will be empty has a holder.
async fn warn_of_holder(
    session: &Session,
    partition: &PartitionClient,
    mut offsets: Range<i64>,
) -> Result<(), Failure> {
    offsets.start = offsets.start.max(offsets.end - SEARCHED);
    let mut log = PartitionLog::new(partition, &session.interrupt, offsets);
    // The last barrier, and the last offset of its holder.
    let mut held: Option<(Barrier, i64)> = None;
    loop {
        let batch = match log.next().await {
            Ok(Some(Item::Batch { batch, .. })) => batch,
            Ok(Some(_)) => continue,
            Err(failure @ Failure::Interrupted(_)) => return Err(failure),
            // Deleting does not take the right to read.
            Ok(None) | Err(_) => break,
        };
        if let Some(barrier) = Barrier::in_batch(&batch) {
            held = Some((barrier, batch.last_offset()));
        } else if let Some((barrier, last)) = &mut held
            && batch.producer_id() == Some(barrier.producer_id)
        {
            *last = batch.last_offset();
        }
    }
    if let Some((barrier, last)) = held {
        let name = barrier.name;
        warn(&format!(
            "nothing of the holder {name} will be left, so an earlier holder may be able to append again; \
             --before {last} keeps its last record"
        ));
    }
    Ok(())
}
