//! `kwal read` and `kwal follow`: the records of a partition.

mod format;
mod place;

use clap::ValueEnum;
use kwal::{
    client::{FetchedBatch, GapReason, Isolation, PartitionClient, Position},
    consumer::{self, RecordStream, Replay, Start, Summary, Unreadable},
};

use self::format::{Column, Format, Printer};
pub(crate) use self::place::{Place, Time, Until};
use super::Session;
use crate::{
    connect::PartitionArgs,
    exit::{Exit, Failure},
    log::PartitionLog,
    output::{Progress, plural, range, warn},
};

/// Prints the records of a partition, up to its end
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    partition: PartitionArgs,
    /// Where to begin: earliest, earliest+N, latest, latest-N (N offsets before the end), an offset, a
    /// position as 3WTQz4hjQ2mlVEDAmlYv2w:7:1200, a time in RFC 3339, or @ and milliseconds since the epoch
    #[arg(long, value_name = "PLACE", default_value = "earliest", allow_hyphen_values = true)]
    from: Place,
    /// Where to end: latest, or the first offset that is not read
    #[arg(long, value_name = "PLACE", default_value = "latest")]
    until: Until,
    #[command(flatten)]
    what: What,
}

/// Prints the records of a partition, and new ones as they come
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    partition: PartitionArgs,
    /// Where to begin: earliest, earliest+N, latest, latest-N (N offsets before the end), an offset, a
    /// position as 3WTQz4hjQ2mlVEDAmlYv2w:7:1200, a time in RFC 3339, or @ and milliseconds since the epoch
    #[arg(long, value_name = "PLACE", default_value = "latest", allow_hyphen_values = true)]
    from: Place,
    /// The first offset that is not read; without it, only --count or Ctrl-C ends it
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    until: Option<i64>,
    #[command(flatten)]
    what: What,
}

/// What is read, and how it is printed.
#[derive(Clone, Debug, clap::Args)]
struct What {
    /// At most so many records
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// How records are printed
    #[arg(short, long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// Columns in front of each value, for lines
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    with: Vec<Column>,
    /// Which records of transactions are read
    #[arg(long, value_enum, default_value_t = IsolationArg::ReadUncommitted)]
    isolation: IsolationArg,
    /// Goes on after a batch that cannot be read; the exit code is 1 then
    #[arg(long)]
    skip_unreadable: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsolationArg {
    ReadUncommitted,
    ReadCommitted,
}

const HELP: &str = "\
Formats:
  lines     the value of each record on a line; control characters and what has no width of its own are
            escaped as in \\n and \\u{200b}, and bytes that are not UTF-8 as in \\xff; columns by --with are
            separated by tabs; a null value is empty
  raw       the values as they are, with nothing between them
  prefixed  each value as it is after its length, 4 bytes, big-endian (`kwal append --input prefixed` reads it)
  hex       a dump of each value under a line with offset, time and key
  json      an object a line (`kwal append --input json` reads it), also by --json:
            {\"offset\", \"timestamp\" (ms), \"leader_epoch\", \"key\", \"value\", \"headers\": [{\"key\", \"value\"}]}
            Bytes are strings if they are UTF-8, otherwise {\"base64\": \"…\"}; null is null.

At the end, standard error prints the position where to go on. --from verifies it: it is an error if the
log has lost what was read, or if the topic was created again.

Examples:
  kwal read wal -p 0 --from 1200 --count 10 --with offset,key
  kwal read wal -p 0 --from 2026-03-01T00:00:00Z --json | jq .value
  kwal read wal -p 0 --json | kwal append copy -p 0 --input json
  kwal follow wal -p 0 --from latest-10 --with timestamp,key";

impl What {
    fn isolation(&self) -> Isolation {
        match self.isolation {
            IsolationArg::ReadUncommitted => Isolation::ReadUncommitted,
            IsolationArg::ReadCommitted => Isolation::ReadCommitted,
        }
    }

    fn unreadable(&self) -> Unreadable {
        if self.skip_unreadable { Unreadable::Skip } else { Unreadable::Fail }
    }

    fn printer(&self, session: &Session) -> Result<Printer, Failure> {
        let format = if session.out.is_json() { Format::Json } else { self.format };
        if !self.with.is_empty() && format != Format::Lines {
            return Err(Failure::usage("--with is for --format lines, the others have their own"));
        }
        Ok(Printer::new(format, self.with.clone()))
    }
}

pub(crate) async fn read(session: &mut Session, args: ReadArgs) -> Result<Exit, Failure> {
    let printer = args.what.printer(session)?;
    let partition = open(session, &args.partition).await?;
    let start = start(session, &partition, args.from).await?;
    let mut open = consumer::replay(&partition, start)
        .isolation(args.what.isolation())
        .unreadable(args.what.unreadable());
    if let Until::Offset(end) = args.until {
        open = open.end(end);
    }
    let replay = session.interrupt.or(open).await?;
    let progress = replay.progress();
    let (first, len) = (progress.position, progress.end.saturating_sub(progress.position));
    let bar = session.out.progress_beside(&name(&partition), len.max(0).unsigned_abs(), "offsets");
    Reading { printer, left: args.what.count, until: None, bar: Some((bar, first)) }
        .run(session, Source::Replay(replay))
        .await
}

pub(crate) async fn follow(session: &mut Session, args: FollowArgs) -> Result<Exit, Failure> {
    let printer = args.what.printer(session)?;
    let partition = open(session, &args.partition).await?;
    let start = start(session, &partition, args.from).await?;
    let open = consumer::follow(&partition, start)
        .isolation(args.what.isolation())
        .unreadable(args.what.unreadable());
    let stream = session.interrupt.or(open).await?;
    Reading { printer, left: args.what.count, until: args.until, bar: None }
        .run(session, Source::Stream(stream))
        .await
}

async fn open(session: &Session, args: &PartitionArgs) -> Result<PartitionClient, Failure> {
    let client = session.client().await?;
    args.open(&client, &session.interrupt).await
}

async fn start(session: &Session, partition: &PartitionClient, place: Place) -> Result<Start, Failure> {
    Ok(match place {
        Place::At(at) => at.into(),
        Place::Position(position) => position.into(),
        Place::Relative(relative) => {
            relative.on(&PartitionLog::bounds(partition, &session.interrupt).await?).into()
        }
    })
}

fn name(partition: &PartitionClient) -> String {
    format!("{}/{}", partition.topic(), partition.partition())
}

/// A replay or a stream.
enum Source {
    Replay(Replay),
    Stream(RecordStream),
}

impl Source {
    async fn next(&mut self) -> Result<Option<FetchedBatch>, kwal::Error> {
        match self {
            Self::Replay(replay) => replay.next_batch().await,
            // What is retriable loses nothing; the log may be back in a moment.
            Self::Stream(stream) => loop {
                match stream.next_batch().await {
                    Err(error) if error.is_retriable() => warn(&format!("{error}; trying again")),
                    batch => return batch.map(Some),
                }
            },
        }
    }

    fn position(&self) -> Position {
        match self {
            Self::Replay(replay) => replay.position(),
            Self::Stream(stream) => stream.position(),
        }
    }

    fn summary(&self) -> &Summary {
        match self {
            Self::Replay(replay) => replay.summary(),
            Self::Stream(stream) => stream.summary(),
        }
    }
}

/// Printing what is read.
struct Reading {
    printer: Printer,
    /// How many records are still to be printed.
    left: Option<u64>,
    until: Option<i64>,
    /// And the offset where it began.
    bar: Option<(Progress, i64)>,
}

impl Reading {
    async fn run(mut self, session: &mut Session, mut source: Source) -> Result<Exit, Failure> {
        let mut position = source.position();
        let (mut printed, mut ended) = (0, Ok(()));
        while self.left != Some(0) && self.until.is_none_or(|until| position.offset < until) {
            let next = session.interrupt.or(source.next()).await;
            let batch = match next {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    position = source.position();
                    break;
                }
                Err(failure) => {
                    ended = Err(failure);
                    break;
                }
            };
            match self.print(session, batch, &mut printed) {
                Ok(after) => position = after,
                Err(failure) => {
                    ended = Err(failure);
                    break;
                }
            }
            if let Some((bar, first)) = &self.bar {
                let done = position.offset.saturating_sub(*first).max(0).unsigned_abs();
                bar.set(done);
            }
        }
        self.bar = None;
        if let Err(Failure::Output(error)) = ended {
            return Err(Failure::Output(error));
        }
        session.out.flush()?;
        session.out.tell(format_args!("{}; go on with --from {position}", plural(printed, "record")));
        let mut exit = Exit::Success;
        for gap in source.summary().gaps.iter().filter(|gap| !gap.reason.is_expected()) {
            let why = match gap.reason {
                GapReason::Trimmed => "were removed before they were read",
                GapReason::Unreadable => "cannot be read",
                _ => "have no records",
            };
            warn(&format!("offsets {} {why}", range(&gap.offsets)));
            exit = Exit::Negative;
        }
        ended.map(|()| exit)
    }

    /// Prints the records of a batch that are wanted; returns where to go on.
    fn print(
        &mut self,
        session: &mut Session,
        batch: FetchedBatch,
        printed: &mut u64,
    ) -> Result<Position, Failure> {
        let batch = match self.until {
            Some(until) => batch.ending_at(until),
            None => batch,
        };
        let (printer, left) = (&self.printer, &mut self.left);
        let mut last = None;
        let done = batch.try_for_each(|record| {
            if *left == Some(0) {
                return Err(Stop::Enough);
            }
            printer.print(&mut session.out, &record).map_err(Stop::Failure)?;
            *left = left.map(|left| left - 1);
            *printed += 1;
            last = Some(record.offset);
            Ok(())
        });
        match done {
            Ok(()) => {
                session.out.flush()?;
                Ok(batch.position())
            }
            Err(Stop::Enough) => Ok(last.map_or_else(|| batch.position(), |last| batch.position_after(last))),
            Err(Stop::Failure(failure)) => Err(failure),
        }
    }
}

/// Why the rest of a batch is not printed.
enum Stop {
    Enough,
    Failure(Failure),
}

impl From<kwal::Error> for Stop {
    fn from(error: kwal::Error) -> Self {
        Self::Failure(error.into())
    }
}
