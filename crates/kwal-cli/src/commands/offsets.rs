//! `kwal offsets`: where the partitions of a topic begin and end.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kwal::{
    Client, Error, ErrorKind,
    client::{Isolation, OffsetAt, PartitionDescription},
};
use serde::Serialize;

use super::Session;
use crate::{
    commands::read::Time,
    exit::{Exit, Failure},
    output::{Table, optional, warn},
};

/// Prints where the partitions of a topic begin and end, and who leads them
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
JSON: an object a line, {\"partition\", \"log_start\", \"last_stable\", \"high_watermark\", \"at\", \"leader\",
\"leader_epoch\", \"error\"}. `at` is the first offset of --at, or null if there is none. A partition that
does not answer has an error, and the offsets are null; the exit code is 3 then.

Examples:
  kwal offsets wal
  kwal offsets wal --at 2026-03-01T00:00:00Z
  kwal offsets wal --json | jq -s 'map(.high_watermark - .log_start) | add'")]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// Also the first offset with this time or a later one: RFC 3339, or @ and milliseconds since the epoch
    #[arg(long, value_name = "TIME")]
    at: Option<Time>,
}

#[derive(Serialize)]
struct Offsets {
    partition: i32,
    log_start: Option<i64>,
    last_stable: Option<i64>,
    high_watermark: Option<i64>,
    at: Option<i64>,
    leader: Option<i32>,
    leader_epoch: Option<i32>,
    error: Option<String>,
}

/// How many partitions are asked at a time.
const AT_ONCE: usize = 16;

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let controller = session.interrupt.or(client.controller_client()).await?;
    let topic = session.interrupt.or(controller.describe_topic(&args.topic)).await?;
    let lookups = topic.partitions.iter().map(|partition| offsets(&client, &args, partition));
    let all: Vec<Offsets> = session
        .interrupt
        .or(stream::iter(lookups).buffered(AT_ONCE).map(Ok::<_, Failure>).try_collect::<Vec<_>>())
        .await?;
    let mut columns = vec![">PARTITION", ">LOG START", ">LAST STABLE", ">HIGH WATERMARK"];
    columns.extend(args.at.is_some().then_some(">AT"));
    columns.extend([">LEADER", ">EPOCH"]);
    let mut table = Table::new(&columns);
    for offsets in &all {
        if session.out.is_json() {
            session.out.json(offsets)?;
            continue;
        }
        let mut row = vec![
            offsets.partition.to_string(),
            optional(offsets.log_start),
            optional(offsets.last_stable),
            optional(offsets.high_watermark),
        ];
        row.extend(args.at.is_some().then(|| optional(offsets.at)));
        row.extend([optional(offsets.leader), optional(offsets.leader_epoch)]);
        table.row(row);
    }
    session.out.table(table)?;
    session.out.flush()?;
    let failed =
        all.iter().filter_map(|offsets| offsets.error.as_ref().map(|error| (offsets.partition, error)));
    let mut exit = Exit::Success;
    for (partition, error) in failed {
        warn(&format!("partition {partition}: {error}"));
        exit = Exit::Cluster;
    }
    Ok(exit)
}

async fn offsets(client: &Client, args: &Args, partition: &PartitionDescription) -> Offsets {
    let mut offsets = Offsets {
        partition: partition.index,
        log_start: None,
        last_stable: None,
        high_watermark: None,
        at: None,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        error: None,
    };
    if let Err(error) = look_up(client, args, &mut offsets).await {
        offsets.error = Some(error.to_string());
    }
    offsets
}

async fn look_up(client: &Client, args: &Args, offsets: &mut Offsets) -> Result<(), Error> {
    let partition = client.partition_client(&args.topic, offsets.partition).await?;
    offsets.log_start = Some(partition.get_offset(OffsetAt::Earliest).await?);
    // In this order, none of them is beyond the next one.
    let last_stable = partition.get_offset(OffsetAt::Latest).isolation(Isolation::ReadCommitted).await?;
    offsets.last_stable = Some(last_stable);
    offsets.high_watermark = Some(partition.get_offset(OffsetAt::Latest).await?);
    if let Some(Time(at)) = args.at {
        offsets.at = match partition.get_offset(OffsetAt::Timestamp(at)).await {
            Ok(offset) => Some(offset),
            Err(error) if matches!(error.kind(), ErrorKind::OffsetNotFound { .. }) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}
