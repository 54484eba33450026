//! The main job of a write-ahead log, from one end to the other: append, replay, verify, measure.
//!
//! ```sh
//! cargo run --release -p kwal --example wal -- --help
//! ```

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use kwal::client::{Client, ClientBuilder};
use kwal_testkit::EmbeddedCluster;
use tokio::task::JoinSet;

use self::{access::Access, failure::Failure, options::Options};

#[path = "wal/access.rs"]
mod access;
#[path = "wal/batches.rs"]
mod batches;
#[path = "wal/content.rs"]
mod content;
#[path = "wal/failure.rs"]
mod failure;
#[path = "wal/options.rs"]
mod options;
#[path = "wal/report.rs"]
mod report;
#[path = "wal/writers.rs"]
mod writers;

const HELP: &str = "\
Creates a topic, appends records to it, reads every partition back from its start,
compares what came with what was appended, and says how fast it all went.

Usage: wal [options]

  --records N       how many records to append, over all partitions (1000000)
  --size BYTES      the size of each record's value, 12 or more (100)
  --partitions N    how many partitions; a task appends to each and reads it (4)
  --compression C   none, gzip, lz4, snappy, or zstd if it is built in (none)
  --batch BYTES     values of about so many bytes go into one append (262144)
  --writers N       so many tasks append instead, each one record at a time: what is
                    under way at the same time is gathered into batches. Each writes
                    to one partition (of 4, or as many as there are writers)
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
    let largest = match options.writers {
        Some(_) => options.size.max(1_000_000) + 1024,
        None => options.per_batch() * (options.size + 64) + 1024,
    };
    if largest > 1 << 20 {
        create = create.config("max.message.bytes", largest.to_string());
    }
    create.await?;
    if embedded.is_none() && !options.keep {
        let topic = &options.topic;
        let _ = writeln!(io::stderr(), "wal: topic {topic} is deleted at the end; after Ctrl-C it stays");
    }
    let result = match options.writers {
        Some(writers) => writers::job(&client, &options, writers).await,
        None => batches::job(&client, &options).await,
    };
    match result {
        Ok(report) => {
            if !options.keep {
                controller.delete_topic(&options.topic).await?;
            }
            print(&report.text(&options))
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

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `wal | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Runs each in a task of its own, all at once. The results are in their order.
async fn all<T, W>(work: impl Iterator<Item = W>) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    W: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (at, work) in work.enumerate() {
        tasks.spawn(async move { (at, work.await) });
    }
    let mut results: Vec<_> = (0..tasks.len()).map(|_| None).collect();
    while let Some(done) = tasks.join_next().await {
        let (at, result) = done?;
        results[at] = Some(result?);
    }
    Ok(results.into_iter().flatten().collect())
}
