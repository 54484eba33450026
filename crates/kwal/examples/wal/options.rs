//! The command line.

use kwal::record::Compression;
use lexopt::{Arg, ValueExt};

use crate::{
    Failure,
    access::Access,
    content::{Content, unique},
};

/// The command line.
pub(crate) struct Options {
    pub(crate) records: u64,
    pub(crate) size: usize,
    pub(crate) partitions: i32,
    pub(crate) compression: Compression,
    batch: usize,
    /// How many tasks append one record at a time; `None` for batches.
    pub(crate) writers: Option<i32>,
    pub(crate) topic: String,
    pub(crate) replicas: Option<i16>,
    pub(crate) keep: bool,
    pub(crate) access: Access,
}

impl Options {
    /// `None` if it is help that is asked for.
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            records: 1_000_000,
            size: 100,
            partitions: 4,
            compression: Compression::None,
            batch: 256 << 10,
            writers: None,
            topic: format!("wal-{:016x}", unique()),
            replicas: None,
            keep: false,
            access: Access::default(),
        };
        let (mut partitions, mut batch) = (None, None);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("records") => options.records = number(&mut parser, "--records", 1..=1 << 40)?,
                Arg::Long("size") => {
                    options.size =
                        number(&mut parser, "--size", Content::IDENTITY as u64..=LARGEST)? as usize;
                }
                Arg::Long("partitions") => {
                    partitions = Some(number(&mut parser, "--partitions", 1..=10_000)? as i32);
                }
                Arg::Long("compression") => options.compression = codec(&text(&mut parser)?)?,
                Arg::Long("batch") => batch = Some(number(&mut parser, "--batch", 1..=LARGEST)? as usize),
                Arg::Long("writers") => {
                    options.writers = Some(number(&mut parser, "--writers", 1..=100_000)? as i32);
                }
                Arg::Long("topic") => options.topic = text(&mut parser)?,
                Arg::Long("replicas") => {
                    options.replicas = Some(number(&mut parser, "--replicas", 1..=i16::MAX as u64)? as i16);
                }
                Arg::Long("keep") => options.keep = true,
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long(option) => {
                    let option = option.to_owned();
                    if !options.access.take(&option, &mut parser)? {
                        return Err(Arg::Long(&option).unexpected().into());
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if let Some(writers) = options.writers {
            if batch.is_some() {
                return Err(Failure::Usage(
                    "--batch is not for --writers, whose records are gathered".into(),
                ));
            }
            if let Some(partitions) = partitions.filter(|partitions| *partitions > writers) {
                return Err(Failure::Usage(format!(
                    "--writers {writers} are too few for --partitions {partitions}: each appends to one"
                )));
            }
            options.partitions = options.partitions.min(writers);
        }
        options.partitions = partitions.unwrap_or(options.partitions);
        options.batch = batch.unwrap_or(options.batch);
        Ok(Some(options))
    }

    /// How many records go into one append.
    pub(crate) fn per_batch(&self) -> usize {
        (self.batch / self.size).max(1)
    }

    /// How many records go to this partition.
    pub(crate) fn share(&self, partition: i32) -> u64 {
        share(self.records, self.partitions as u64, partition as u64)
    }
}

/// How much of something one of several has: as much as the others, or one more.
pub(crate) fn share(all: u64, of: u64, index: u64) -> u64 {
    all / of + u64::from(index < all % of)
}

/// The most that a value, or the values of one append, may have: half of what the client allows a batch by
/// default.
const LARGEST: u64 = 8 << 20;

pub(crate) fn text(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    Ok(parser.value()?.string()?)
}

fn number(
    parser: &mut lexopt::Parser,
    option: &str,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<u64, Failure> {
    let given = text(parser)?;
    match given.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(Failure::Usage(format!(
            "{option} {given:?} is not a whole number from {} to {}",
            allowed.start(),
            allowed.end()
        ))),
    }
}

fn codec(name: &str) -> Result<Compression, Failure> {
    match name.parse::<Compression>() {
        Ok(codec) if codec.is_built_in() => Ok(codec),
        _ => {
            let has: Vec<_> =
                Compression::ALL.into_iter().filter(|c| c.is_built_in()).map(Compression::name).collect();
            Err(Failure::Usage(format!(
                "--compression {name:?} is not in this build, which has {}",
                has.join(", ")
            )))
        }
    }
}
