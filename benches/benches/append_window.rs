//! Measures what several appends in flight are worth when the broker is far away: five must be at least four
//! times as many per second as one.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench append_window
//! ```
//!
//! A connector adds 10 ms to the round trip. One caller submits batches to one partition, one after the other
//! and without waiting for the results.
//!
//! It runs in virtual time, where nothing but the round trips takes time, so that the ratio is the same in
//! every run; then in real time over TCP, on the embedded broker and, with
//! `KAFKA_CONNECT=host:port[,host:port…]`, also on those brokers.

use std::{collections::VecDeque, error::Error, process::ExitCode, sync::Arc, time::Duration};

use kwal::{
    Client, ClientBuilder,
    transport::{Connect, Tcp},
};
use kwal_benches::{Delayed, Table, Target, kwal_records, values};
use kwal_testkit::EmbeddedCluster;
use time::OffsetDateTime;
use tokio::{runtime, time::Instant};

const ROUND_TRIP: Duration = Duration::from_millis(10);
const WINDOWS: [usize; 2] = [1, 5];
/// How many times as many appends per second the larger window must make.
const LEAST: f64 = 4.0;
/// Appends with each window. In real time, they take two seconds and half a second.
const APPENDS: usize = 200;
/// Bytes of a record; each append has one.
const SIZE: usize = 1_024;

fn main() -> ExitCode {
    kwal_benches::exit_code("append_window", run())
}

/// Returns false if a ratio is too small.
fn run() -> Result<bool, Box<dyn Error>> {
    let [one, five] = WINDOWS;
    println!("appends per second, {ROUND_TRIP:?} of added round trip");
    let mut table = Table::new(["", &format!("{one} in flight"), &format!("{five} in flight"), "ratio"]);
    let mut is_enough = true;
    let mut row = |name: &str, [slow, fast]: [f64; 2]| {
        is_enough &= fast / slow >= LEAST;
        table.row([
            name.to_owned(),
            format!("{slow:.1}"),
            format!("{fast:.1}"),
            format!("{:.2}", fast / slow),
        ]);
    };

    let virtual_time = runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let rates = virtual_time.block_on(async {
        let cluster = EmbeddedCluster::builder().start_in_memory()?;
        measure(&cluster.bootstrap(), cluster.connector()).await
    })?;
    row("embedded broker, virtual time", rates);

    let real_time = runtime::Builder::new_multi_thread().enable_all().build()?;
    real_time.block_on(async {
        for target in Target::all().await? {
            row(&target.name, measure(&target.bootstrap, Arc::new(Tcp::default())).await?);
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!("{table}");
    if !is_enough {
        eprintln!("append_window: the ratio must be at least {LEAST}");
    }
    Ok(is_enough)
}

/// Appends per second with each window, on a topic of its own.
async fn measure(bootstrap: &[String], connector: Arc<dyn Connect>) -> Result<[f64; 2], Box<dyn Error>> {
    let connector = Delayed::new(connector, ROUND_TRIP);
    let client = ClientBuilder::new(bootstrap.to_vec()).connector(connector).seed(1).build().await?;
    let controller = client.controller_client().await?;
    let topic = format!("append-window-{}", OffsetDateTime::now_utc().unix_timestamp_nanos());
    controller.create_topic(&topic, 1, 1).await?;
    let mut rates = [0.0; 2];
    for (rate, window) in rates.iter_mut().zip(WINDOWS) {
        *rate = appends_per_second(&client, &topic, window).await?;
    }
    controller.delete_topic(&topic).await?;
    Ok(rates)
}

async fn appends_per_second(client: &Client, topic: &str, window: usize) -> Result<f64, Box<dyn Error>> {
    let partition = client.partition_client(topic, 0).max_in_flight(window).await?;
    let mut records =
        values(APPENDS + 1, SIZE, window as u64).into_iter().map(|value| kwal_records(vec![value]));
    // Only one is in flight until the producer id has its first acknowledgement.
    partition.produce(records.next().unwrap_or_default()).await?;
    let begin = Instant::now();
    let mut submitted = VecDeque::new();
    for records in records {
        let batch = partition.encode(records)?;
        submitted.push_back(partition.reserve(batch.size_in_bytes()).await?.submit(batch));
    }
    for append in submitted {
        append.await?;
    }
    Ok(APPENDS as f64 / begin.elapsed().as_secs_f64())
}
