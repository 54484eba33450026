//! `kwal verify`: reads whole partitions and checks them.

use std::ops::Range;

use kwal::{Client, PartitionClient};
use serde::Serialize;
use tokio::time::Instant;

use super::Session;
use crate::{
    exit::{Exit, Failure},
    log::{Checker, Content, Doubt, Item, PartitionLog},
    output::{Table, human_bytes, per_second, plural, range},
};

/// Reads whole partitions and verifies them
///
/// It checks the checksum and the records of every batch, that offsets rise, that leader epochs do not fall,
/// that the sequence numbers of every producer have neither gaps nor duplicates, and that after a barrier
/// only its holder appends. `kwal inspect --help` lists all that is doubtful; of that, time-back is no
/// finding.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exits with 1 if there are findings.

JSON: an object a line, {\"type\": \"finding\", \"partition\", \"offset\", \"kind\", \"text\"} for each finding and
{\"type\": \"partition\", \"partition\", \"log_start\", \"end\", \"batches\", \"records\", \"bytes\", \"holes\",
\"open_transactions\", \"findings\", \"seconds\"} for each partition.

Examples:
  kwal verify wal
  kwal verify wal -p 0 -p 3 && echo whole")]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// A partition; may be repeated [default: all]
    #[arg(short, long = "partition", value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Json<'a> {
    Finding { partition: i32, offset: i64, kind: &'a str, text: String },
    Partition(&'a Verified),
}

/// What was read of a partition.
#[derive(Serialize)]
struct Verified {
    partition: i32,
    log_start: i64,
    end: i64,
    batches: u64,
    records: u64,
    bytes: u64,
    /// Offsets that have no record.
    holes: u64,
    open_transactions: u64,
    findings: u64,
    seconds: f64,
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let partitions = match args.partitions.is_empty() {
        true => all(session, &client, &args.topic).await?,
        false => args.partitions,
    };
    let mut table = Table::new(&[
        ">PARTITION",
        ">FROM",
        ">END",
        ">BATCHES",
        ">RECORDS",
        ">SIZE",
        ">HOLES",
        ">OPEN",
        ">FINDINGS",
        ">PER SECOND",
    ]);
    let mut findings = 0;
    let mut ended = Ok(());
    for index in partitions {
        let partition = session.interrupt.or(client.partition_client(&args.topic, index)).await?;
        let bounds = PartitionLog::bounds(&partition, &session.interrupt).await?;
        let mut verified = Verified::new(index, &bounds);
        ended = verify(session, &partition, bounds, &mut verified).await;
        findings += verified.findings;
        if session.out.is_json() {
            session.out.json(&Json::Partition(&verified))?;
        } else {
            table.row(verified.row());
        }
        if ended.is_err() {
            break;
        }
    }
    session.out.table(table)?;
    session.out.flush()?;
    ended?;
    if findings > 0 {
        session.out.tell(plural(findings, "finding"));
        return Ok(Exit::Negative);
    }
    Ok(Exit::Success)
}

async fn all(session: &Session, client: &Client, topic: &str) -> Result<Vec<i32>, Failure> {
    let controller = session.interrupt.or(client.controller_client()).await?;
    let topic = session.interrupt.or(controller.describe_topic(topic)).await?;
    Ok(topic.partitions.iter().map(|partition| partition.index).collect())
}

async fn verify(
    session: &mut Session,
    partition: &PartitionClient,
    offsets: Range<i64>,
    verified: &mut Verified,
) -> Result<(), Failure> {
    let name = format!("{}/{}", partition.topic(), partition.partition());
    let bar = session.out.progress(&name, (offsets.end - offsets.start).max(0).unsigned_abs(), "offsets");
    let interrupt = session.interrupt.clone();
    let begun = Instant::now();
    let mut checker = Checker::default();
    let mut log = PartitionLog::new(partition, &interrupt, offsets.clone());
    // How far it got is told however it ends.
    verified.end = offsets.start;
    let ended = loop {
        let item = match log.next().await {
            Ok(Some(item)) => item,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        };
        let (at, doubts) = match item {
            Item::Batch { batch, .. } => {
                let content = Content::of(&batch);
                let noted = checker.note(&batch);
                verified.count(&content, batch.size_in_bytes(), noted.hole.as_ref());
                verified.end = batch.next_offset();
                let unreadable = content.problem.map(Doubt::Unreadable);
                (batch.base_offset(), unreadable.into_iter().chain(noted.doubts).collect::<Vec<_>>())
            }
            Item::Unreadable(unreadable) => {
                let noted =
                    unreadable.offsets.as_ref().map(|offsets| checker.pass(offsets)).unwrap_or_default();
                let doubts = std::iter::once(Doubt::Unreadable(unreadable.problem)).chain(noted.doubts);
                let offsets = unreadable.offsets.unwrap_or(verified.end..verified.end);
                verified.end = offsets.end;
                (offsets.start, doubts.collect())
            }
            Item::Torn { .. } => continue,
        };
        for doubt in doubts.iter().filter(|doubt| doubt.is_finding()) {
            verified.findings += 1;
            bar.hide_for(|| report(session, partition.partition(), at, doubt))?;
        }
        let done = (verified.end - offsets.start).max(0).unsigned_abs();
        let rate = per_second(verified.bytes, begun.elapsed().as_secs_f64());
        bar.set_with_rate(done, human_bytes(rate as u64));
        if interrupt.is_set() {
            break Err(Failure::Interrupted(String::new()));
        }
    };
    bar.clear();
    if ended.is_ok() {
        // The last offsets may have no batch any more.
        verified.holes += (offsets.end - verified.end).max(0).unsigned_abs();
        verified.end = verified.end.max(offsets.end);
    }
    verified.open_transactions = checker.open_transactions().len() as u64;
    verified.seconds = begun.elapsed().as_secs_f64();
    ended.map_err(|failure| match failure {
        Failure::Interrupted(_) => {
            let done = range(&(verified.log_start..verified.end));
            Failure::Interrupted(format!("of partition {}, offsets {done} were verified", verified.partition))
        }
        failure => failure,
    })
}

fn report(session: &mut Session, partition: i32, offset: i64, doubt: &Doubt) -> Result<(), Failure> {
    if session.out.is_json() {
        let (kind, text) = (doubt.name(), doubt.to_string());
        return session.out.json(&Json::Finding { partition, offset, kind, text });
    }
    session.out.line(format_args!("partition {partition}, offset {offset}: {doubt}"))?;
    session.out.flush()
}

impl Verified {
    fn new(partition: i32, offsets: &Range<i64>) -> Self {
        Self {
            partition,
            log_start: offsets.start,
            end: offsets.end,
            batches: 0,
            records: 0,
            bytes: 0,
            holes: 0,
            open_transactions: 0,
            findings: 0,
            seconds: 0.0,
        }
    }

    fn count(&mut self, content: &Content, bytes: usize, hole: Option<&Range<i64>>) {
        self.batches += 1;
        self.records += content.records;
        self.bytes += bytes as u64;
        self.holes += content.holes + hole.map_or(0, |hole| (hole.end - hole.start).unsigned_abs());
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.partition.to_string(),
            self.log_start.to_string(),
            self.end.to_string(),
            self.batches.to_string(),
            self.records.to_string(),
            human_bytes(self.bytes),
            self.holes.to_string(),
            self.open_transactions.to_string(),
            self.findings.to_string(),
            human_bytes(per_second(self.bytes, self.seconds) as u64),
        ]
    }
}
