//! The main job of a write-ahead log, from one end to the other: append, replay, verify, measure.
//!
//! ```sh
//! cargo run --release -p kwal --example wal -- --help
//! ```

use std::{
    env,
    error::Error,
    fmt::{self, Write as _},
    io::{self, Write as _},
    ops::Range,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use kwal::{
    client::{Client, ClientBuilder, OffsetAt, PartitionClient},
    consumer,
    record::{Compression, Headers, Record},
};
use kwal_testkit::EmbeddedCluster;
use lexopt::{Arg, ValueExt};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::Instant};

use self::access::Access;

#[path = "wal/access.rs"]
mod access;

const HELP: &str = "\
Creates a topic, appends records to it, reads every partition back from its start,
compares what came with what was appended, and says how fast it all went.

Usage: wal [options]

  --records N       how many records to append, over all partitions (1000000)
  --size BYTES      the size of each record's value, 12 or more (100)
  --partitions N    how many partitions; a task appends to each and reads it (4)
  --compression C   none, gzip, lz4, snappy, or zstd if it is built in (none)
  --batch BYTES     values of about so many bytes go into one append (262144)
  --topic NAME      the topic to create; it must not exist (wal- and a unique end)
  --replicas N      how many brokers hold each partition (3, or all if they are fewer)
  --keep            do not delete the topic at the end; after Ctrl-C it stays anyway
  -h, --help        this text

The brokers are those of KAFKA_CONNECT=host:port[,host:port...]; without it there
is an embedded one, in memory. How to come in to them:

  --tls-ca ROOTS    by TLS. Trusted are the authorities of a PEM file of this name,
                    or webpki (those that Mozilla trusts), or platform (this machine)
  --tls-cert FILE   show this certificate, in PEM, to brokers that want one
  --tls-key FILE    its private key, if it is not in the same file
  --sasl MECHANISM  PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 with KAFKA_USER and
                    KAFKA_PASSWORD, or OAUTHBEARER with KAFKA_TOKEN
  --sasl-in-clear   send PLAIN's password or the token without TLS too, where
                    everybody on the way can read them
  --socks5 ADDRESS  through the SOCKS5 proxy at host:port, with SOCKS5_USER and
                    SOCKS5_PASSWORD if it wants them

The end offsets that were acknowledged come last, a line for each partition:
topic:partition:offset.
";

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(options).await,
        Ok(None) => print(HELP),
        Err(usage) => Err(usage),
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    // The one place that a failure goes to; if nobody listens, the exit code still tells.
    let _ = writeln!(io::stderr(), "wal: {failure}");
    ExitCode::from(match failure {
        Failure::Usage(_) => 2,
        Failure::Run(_) => 1,
    })
}

async fn run(options: Options) -> Result<(), Failure> {
    let (client, embedded) = connect(&options.access).await?;
    let controller = client.controller_client().await?;
    let replicas = options.replicas.unwrap_or_else(|| client.brokers().len().clamp(1, 3) as i16);
    let mut create = controller.create_topic(&options.topic, options.partitions, replicas);
    if replicas > 2 {
        // What is acknowledged is on two of them at least.
        create = create.config("min.insync.replicas", "2");
    }
    // Brokers take batches of up to 1 MiB unless the topic says otherwise; headers and lengths come on top of
    // the values.
    let largest = options.per_batch() * (options.size + 64) + 1024;
    if largest > 1 << 20 {
        create = create.config("max.message.bytes", largest.to_string());
    }
    create.await?;
    if embedded.is_none() && !options.keep {
        let topic = &options.topic;
        let _ = writeln!(io::stderr(), "wal: topic {topic} is deleted at the end; after Ctrl-C it stays");
    }
    match job(&client, &options).await {
        Ok(report) => {
            if !options.keep {
                controller.delete_topic(&options.topic).await?;
            }
            print(&report)
        }
        Err(failure) => Err(format!("{failure} (topic {} stays as it is)", options.topic).into()),
    }
}

/// A client of the brokers that the environment names, or of one inside this process, which lives as long as
/// the handle.
async fn connect(access: &Access) -> Result<(Client, Option<EmbeddedCluster>), Failure> {
    let named = env::var("KAFKA_CONNECT").unwrap_or_default();
    if named.is_empty() {
        if !access.is_plain() {
            let usage =
                "--tls-…, --sasl… and --socks5 are for the brokers of KAFKA_CONNECT, which is not set";
            return Err(Failure::Usage(usage.to_owned()));
        }
        let broker = EmbeddedCluster::builder().start().await?;
        let client = ClientBuilder::new(broker.bootstrap()).build().await?;
        return Ok((client, Some(broker)));
    }
    let addresses = named.split(',').map(str::trim);
    let client = access.apply(ClientBuilder::new(addresses))?.build().await;
    let client = client.map_err(|error| format!("cannot use the brokers of KAFKA_CONNECT: {error}"))?;
    Ok((client, None))
}

/// Append, replay and verify; the report.
async fn job(client: &Client, options: &Options) -> Result<String, Failure> {
    let content = Content { seed: unique(), size: options.size };
    let mut partitions = Vec::new();
    for index in 0..options.partitions {
        let client = client.partition_client(&options.topic, index).compression(options.compression).await?;
        partitions.push(Partition { index, client, count: options.share(index), content });
    }

    let bar = progress("append", options.records);
    let start = Instant::now();
    let appended = all(&partitions, {
        let (bar, per_batch) = (bar.clone(), options.per_batch() as u64);
        move |partition| append(partition, per_batch, bar.clone())
    })
    .await?;
    let append_time = start.elapsed();
    bar.finish_and_clear();

    let bar = progress("replay", options.records);
    let start = Instant::now();
    let replayed = all(&partitions, {
        let bar = bar.clone();
        move |partition| replay(partition, bar.clone())
    })
    .await?;
    let replay_time = start.elapsed();
    bar.finish_and_clear();

    for (partition, (appended, replayed)) in partitions.iter().zip(appended.iter().zip(&replayed)) {
        verify(partition, appended, replayed)?;
    }
    Ok(report(options, (append_time, &appended), (replay_time, &replayed)))
}

/// Runs `work` for all partitions at once, in a task each. The results are in the partitions' order.
async fn all<T, W>(partitions: &[Partition], work: impl Fn(Partition) -> W) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    W: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (at, partition) in partitions.iter().enumerate() {
        let work = work(partition.clone());
        tasks.spawn(async move { (at, work.await) });
    }
    let mut results: Vec<_> = partitions.iter().map(|_| None).collect();
    while let Some(done) = tasks.join_next().await {
        let (at, result) = done?;
        results[at] = Some(result?);
    }
    Ok(results.into_iter().flatten().collect())
}

/// One partition and what belongs on it.
#[derive(Clone)]
struct Partition {
    index: i32,
    client: PartitionClient,
    /// How many records.
    count: u64,
    content: Content,
}

/// What was acknowledged.
struct Appended {
    /// From the first record's offset to behind the last one's.
    offsets: Range<i64>,
    checksum: u32,
    wire_bytes: u64,
    /// Of each append, in nanoseconds.
    latencies: Histogram<u64>,
}

async fn append(partition: Partition, per_batch: u64, bar: ProgressBar) -> Result<Appended, Failure> {
    let mut done = Appended {
        offsets: 0..0,
        checksum: 0,
        wire_bytes: 0,
        latencies: Histogram::new(3).expect("three digits are allowed"),
    };
    let mut next = 0;
    while next < partition.count {
        let batch = next..partition.count.min(next + per_batch);
        let (records, checksum) = partition.records(batch.clone(), done.checksum);
        let start = Instant::now();
        let produced = partition.client.produce(records).await?;
        done.latencies.record(start.elapsed().as_nanos().try_into().unwrap_or(u64::MAX))?;
        let offsets = produced.offsets().ok_or_else(|| "the broker does not report offsets".to_owned())?;
        if offsets.start != done.offsets.end || offsets.clone().count() as u64 != batch.end - batch.start {
            return Err(format!(
                "partition {}: records {} to {} were acknowledged as offsets {} to {}, after those before them as {:?}; \
                 does somebody else append to this topic?",
                partition.index,
                batch.start,
                batch.end - 1,
                offsets.start,
                offsets.end - 1,
                done.offsets
            )
            .into());
        }
        done.offsets.end = offsets.end;
        done.checksum = checksum;
        done.wire_bytes += produced.wire_bytes as u64;
        bar.inc(batch.end - batch.start);
        next = batch.end;
    }
    Ok(done)
}

/// What came back.
struct Replayed {
    end: i64,
    count: u64,
    checksum: u32,
    wire_bytes: u64,
}

/// Reads the partition from its first record to its end, and compares each record with what should be there.
async fn replay(partition: Partition, bar: ProgressBar) -> Result<Replayed, Failure> {
    let Partition { client, index, .. } = &partition;
    let mut replay = consumer::replay(client, OffsetAt::Earliest).await?;
    let mut done = Replayed { end: replay.progress().end, count: 0, checksum: 0, wire_bytes: 0 };
    let mut expected = vec![0; partition.content.size];
    let read = replay.for_each_batch(|batch| {
        let before = done.count;
        batch.try_for_each(|record| {
            let value = record.value.unwrap_or_default();
            partition.content.fill(*index, done.count, &mut expected);
            if value != expected {
                return Err(Failure::from(mismatch(*index, record.offset, done.count, value, &expected)));
            }
            done.checksum = crc32c::crc32c_append(done.checksum, value);
            done.count += 1;
            Ok(())
        })?;
        bar.inc(done.count - before);
        Ok::<_, Failure>(())
    });
    read.await?;
    done.wire_bytes = replay.summary().bytes;
    Ok(done)
}

fn mismatch(partition: i32, offset: i64, number: u64, value: &[u8], expected: &[u8]) -> String {
    let mut text = format!("partition {partition}, offset {offset}: ");
    let _ = match Content::identity(value) {
        _ if value.len() != expected.len() => {
            write!(text, "a value of {} bytes instead of {}", value.len(), expected.len())
        }
        Some((of, found)) if (of, found) != (partition, number) => {
            write!(text, "record {found} of partition {of} instead of record {number}")
        }
        _ => {
            let at = value.iter().zip(expected).take_while(|(a, b)| a == b).count();
            write!(text, "record {number} is not what was appended, from byte {at} on")
        }
    };
    text
}

fn verify(partition: &Partition, appended: &Appended, replayed: &Replayed) -> Result<(), Failure> {
    let index = partition.index;
    let problem = if replayed.end != appended.offsets.end {
        format!("ends at {}, and appends were acknowledged up to {}", replayed.end, appended.offsets.end)
    } else if replayed.count != partition.count {
        format!("{} records were appended and {} came back", partition.count, replayed.count)
    } else if replayed.checksum != appended.checksum {
        format!("the checksum is {:#010x} instead of {:#010x}", replayed.checksum, appended.checksum)
    } else {
        return Ok(());
    };
    Err(format!("partition {index}: {problem}").into())
}

fn report(
    options: &Options,
    (append_time, appended): (Duration, &[Appended]),
    (replay_time, replayed): (Duration, &[Replayed]),
) -> String {
    let bytes = options.records as f64 * options.size as f64;
    let phase = |name, time: Duration, wire: u64| {
        let seconds = time.as_secs_f64().max(1e-9);
        format!(
            "{name}   {} records/s, {:.1} MB/s ({:.3} s; {:.1} MB of values, {:.1} MB on the wire)\n",
            HumanCount((options.records as f64 / seconds) as u64),
            bytes / 1e6 / seconds,
            seconds,
            bytes / 1e6,
            wire as f64 / 1e6,
        )
    };
    let mut text = format!(
        "{} records of {} bytes over {} partitions of {}, compression {}\n",
        HumanCount(options.records),
        options.size,
        options.partitions,
        options.topic,
        options.compression,
    );
    text += &phase("append", append_time, appended.iter().map(|partition| partition.wire_bytes).sum());
    text += &phase("replay", replay_time, replayed.iter().map(|partition| partition.wire_bytes).sum());

    let mut latencies = Histogram::<u64>::new(3).expect("three digits are allowed");
    for partition in appended {
        latencies.add(&partition.latencies).expect("histograms that grow have room for all values");
    }
    let quantile = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
    let _ = writeln!(
        text,
        "latency  p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3} ms ({} appends of up to {} records)",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0),
        HumanCount(latencies.len()),
        HumanCount(options.per_batch() as u64),
    );
    let checksum = replayed.iter().fold(0, |sum, partition| sum ^ partition.checksum);
    let _ = writeln!(text, "verified count, order and every byte; checksum {checksum:08x}");
    for (index, partition) in appended.iter().enumerate() {
        let _ = writeln!(text, "{}:{index}:{}", options.topic, partition.offsets.end);
    }
    text
}

/// What is in the values: partition and number of the record, then bytes that depend on these and on the run.
#[derive(Clone, Copy)]
struct Content {
    seed: u64,
    size: usize,
}

impl Content {
    /// The bytes of partition and number.
    const IDENTITY: usize = 12;

    /// Writes the value of record `number` of `partition`.
    fn fill(&self, partition: i32, number: u64, value: &mut [u8]) {
        let (identity, rest) = value.split_at_mut(Self::IDENTITY);
        identity[..4].copy_from_slice(&partition.to_be_bytes());
        identity[4..].copy_from_slice(&number.to_be_bytes());
        let mut state = mix(self.seed ^ mix(number ^ mix(partition as u64)));
        // 32 bytes of noise, and the same again: half of it is there for a codec to find.
        for block in rest.chunks_mut(64) {
            let (noise, again) = block.split_at_mut(block.len().min(32));
            for word in noise.chunks_mut(8) {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                word.copy_from_slice(&mix(state).to_le_bytes()[..word.len()]);
            }
            again.copy_from_slice(&noise[..again.len()]);
        }
    }

    /// The partition and number that a value begins with.
    fn identity(value: &[u8]) -> Option<(i32, u64)> {
        let (partition, rest) = value.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some((i32::from_be_bytes(*partition), u64::from_be_bytes(*number)))
    }
}

impl Partition {
    /// The records with these numbers, with values in one buffer, and the checksum up to the last of them.
    fn records(&self, numbers: Range<u64>, mut checksum: u32) -> (Vec<Record>, u32) {
        let size = self.content.size;
        let mut values = vec![0; (numbers.end - numbers.start) as usize * size];
        for (value, number) in values.chunks_exact_mut(size).zip(numbers.clone()) {
            self.content.fill(self.index, number, value);
        }
        checksum = crc32c::crc32c_append(checksum, &values);
        let values = Bytes::from(values);
        let timestamp = OffsetDateTime::now_utc();
        let records = (0..values.len()).step_by(size).map(|at| Record {
            key: None,
            value: Some(values.slice(at..at + size)),
            headers: Headers::new(),
            timestamp,
        });
        (records.collect(), checksum)
    }
}

/// Spreads the bits of a number over all of the result, as the last step of SplitMix64 does.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number that no other run has.
fn unique() -> u64 {
    mix(OffsetDateTime::now_utc().unix_timestamp_nanos() as u64 ^ u64::from(std::process::id()) << 48)
}

/// On a terminal a bar, elsewhere nothing.
fn progress(name: &'static str, records: u64) -> ProgressBar {
    let template = "{prefix} {wide_bar} {human_pos:>9} of {human_len} records, {eta:>3} left";
    let style = ProgressStyle::with_template(template).expect("the template is one");
    ProgressBar::new(records).with_style(style).with_prefix(name)
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `wal | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// The command line.
struct Options {
    records: u64,
    size: usize,
    partitions: i32,
    compression: Compression,
    batch: usize,
    topic: String,
    replicas: Option<i16>,
    keep: bool,
    access: Access,
}

impl Options {
    /// `None` if it is help that is asked for.
    fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            records: 1_000_000,
            size: 100,
            partitions: 4,
            compression: Compression::None,
            batch: 256 << 10,
            topic: format!("wal-{:016x}", unique()),
            replicas: None,
            keep: false,
            access: Access::default(),
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("records") => options.records = number(&mut parser, "--records", 1..=1 << 40)?,
                Arg::Long("size") => {
                    options.size =
                        number(&mut parser, "--size", Content::IDENTITY as u64..=LARGEST)? as usize;
                }
                Arg::Long("partitions") => {
                    options.partitions = number(&mut parser, "--partitions", 1..=10_000)? as i32;
                }
                Arg::Long("compression") => options.compression = codec(&text(&mut parser)?)?,
                Arg::Long("batch") => options.batch = number(&mut parser, "--batch", 1..=LARGEST)? as usize,
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
        Ok(Some(options))
    }

    /// How many records go into one append.
    fn per_batch(&self) -> usize {
        (self.batch / self.size).max(1)
    }

    /// How many records go to this partition.
    fn share(&self, partition: i32) -> u64 {
        let (partition, partitions) = (partition as u64, self.partitions as u64);
        self.records / partitions + u64::from(partition < self.records % partitions)
    }
}

/// The most that a value, or the values of one append, may have: half of what the client allows a batch by
/// default.
const LARGEST: u64 = 8 << 20;

fn text(parser: &mut lexopt::Parser) -> Result<String, Failure> {
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

/// What ends the program early, in one line.
#[derive(Clone, Debug)]
enum Failure {
    /// The command line.
    Usage(String),
    /// Anything after it.
    Run(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Run(text)) = self;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Usage(_) => write!(f, "{line}; --help lists the options"),
            Self::Run(_) => f.write_str(&line),
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Run(text)
    }
}

macro_rules! failures {
    ($($error:ty),*) => { $(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Run(Chain(&error).to_string())
            }
        }
    )* };
}
failures!(
    kwal::client::error::Error,
    kwal_testkit::Error,
    tokio::task::JoinError,
    hdrhistogram::RecordError,
    io::Error
);

/// An error and all that it comes from.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
