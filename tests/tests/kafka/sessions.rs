//! Sessions that brokers end after five seconds are renewed, unnoticed by the calls of the client. `KWAL_LONG=1` watches
//! them for a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_client::record::Record;
use kwal_client::sasl::{Sasl, Token};
use kwal_client::{ClientBuilder, PartitionClient};
use kwal_tests::kafka::{Certificates, Kafka, MECHANISMS, PASSWORD, SHORT_SESSION_MS, USER, unsecured_token};
use kwal_transport::tls;
use tokio::time::{Instant, sleep};

use crate::sniffer::Sniffer;

kwal_tests::suite! {
    secured: [sessions_are_renewed_under_load],
}

/// Each mechanism in a client of its own, all at the same time: one that appends without a pause, one that reads what was
/// appended, and one that waits at the end of a partition where nothing comes.
async fn sessions_are_renewed_under_load(kafka: &'static Kafka) {
    // Three renewals at least.
    let time = Duration::from_secs(if kwal_tests::long() { 60 } else { 16 });
    let version = kafka.version().unwrap();
    let clients: Vec<_> =
        MECHANISMS.map(|mechanism| tokio::spawn(one_client(kafka, mechanism, time))).into_iter().collect();
    for (mechanism, client) in MECHANISMS.into_iter().zip(clients) {
        let Seen { appended, slowest_append, polls } = client.await.unwrap();
        kwal_tests::report(format_args!(
            "{version}: {mechanism} renewed every {} s or sooner: {appended} appends in {} s, the slowest {slowest_append:.1?}; \
             {polls} long polls",
            SHORT_SESSION_MS / 1_000,
            time.as_secs()
        ));
    }
}

struct Seen {
    appended: u64,
    slowest_append: Duration,
    polls: u32,
}

async fn one_client(kafka: &'static Kafka, mechanism: &'static str, time: Duration) -> Seen {
    let topic = kafka.topic("sessions", 2, &[]).await;
    let sniffer = Sniffer::default();
    let client = ClientBuilder::new(kafka.cluster().unwrap().addresses("SHORT"))
        .connector(sniffer.clone())
        .tls(tls::ring().roots_pem_file(Certificates::shared().authority()))
        .sasl(sasl(mechanism))
        .build()
        .await
        .unwrap();
    let busy = client.partition_client(&topic, 0).await.unwrap();
    let quiet = client.partition_client(&topic, 1).await.unwrap();
    // Both ways of both partitions have their connections after this; from now on there should be no other.
    busy.produce(vec![Record::new(None::<&str>, "0")]).await.unwrap();
    busy.fetch(0).await.unwrap();
    quiet.fetch(0).max_wait(Duration::from_millis(100)).await.unwrap();
    let connections = sniffer.connections();

    let done = Arc::new(AtomicBool::new(false));
    let appends = tokio::spawn(append(busy.clone(), Arc::clone(&done)));
    let reads = tokio::spawn(read(busy, Arc::clone(&done)));
    let polls = tokio::spawn(poll(quiet, Arc::clone(&done)));
    sleep(time).await;
    done.store(true, Ordering::Relaxed);
    let (appended, slowest_append) = appends.await.unwrap();
    let read = reads.await.unwrap();
    let polls = polls.await.unwrap();

    // The brokers close a connection whose session has ended, so that those still open have been renewed.
    assert_eq!(sniffer.connections(), connections, "{mechanism}: connections were made again");
    let by_java: Vec<u64> = kafka
        .java()
        .consume(&topic, 0, 0, None)
        .await
        .iter()
        .map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap().parse().unwrap())
        .collect();
    assert!(by_java.iter().copied().eq(0..appended), "{mechanism}: the log is not what was appended");
    assert!(read <= appended && read > appended / 2, "{mechanism}: {read} of {appended} were read");
    Seen { appended, slowest_append, polls }
}

/// Appends 1, 2, 3, … until it is `done`: how many there are on the log, and how long the slowest took.
async fn append(partition: PartitionClient, done: Arc<AtomicBool>) -> (u64, Duration) {
    let mut next = 1;
    let mut slowest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let produced = partition.produce(vec![Record::new(None::<&str>, next.to_string())]).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        assert_eq!((u64::try_from(produced.base_offset).unwrap(), produced.attempts), (next, 1));
        next += 1;
        // So that there are some thousands of records, not a hundred thousand for Java to tell in JSON.
        sleep(Duration::from_millis(5)).await;
    }
    (next, slowest)
}

/// Reads 0, 1, 2, … until it is `done`: how many have come.
async fn read(partition: PartitionClient, done: Arc<AtomicBool>) -> u64 {
    let mut next = 0;
    while !done.load(Ordering::Relaxed) {
        let fetched =
            partition.fetch(i64::try_from(next).unwrap()).max_wait(Duration::from_secs(1)).await.unwrap();
        for records in fetched.records() {
            for record in &records.unwrap() {
                let record = fetched.check(record).unwrap();
                if u64::try_from(record.offset).unwrap() == next {
                    assert_eq!(record.value.unwrap(), next.to_string().as_bytes());
                    next += 1;
                }
            }
        }
        assert_eq!(u64::try_from(fetched.next_offset).unwrap(), next);
    }
    next
}

/// Waits for what does not come, with polls of a session's length, until it is `done`: how many polls there were.
async fn poll(partition: PartitionClient, done: Arc<AtomicBool>) -> u32 {
    let mut polls = 0;
    while !done.load(Ordering::Relaxed) {
        let wait = Duration::from_millis(SHORT_SESSION_MS.into());
        let fetched = partition.fetch(0).max_wait(wait).await.unwrap();
        assert_eq!(fetched.next_offset, 0);
        polls += 1;
    }
    polls
}

fn sasl(mechanism: &str) -> Sasl {
    match mechanism {
        "PLAIN" => Sasl::plain(USER, PASSWORD),
        "SCRAM-SHA-256" => Sasl::scram_sha_256(USER, PASSWORD),
        "SCRAM-SHA-512" => Sasl::scram_sha_512(USER, PASSWORD),
        "OAUTHBEARER" => {
            Sasl::oauth_bearer(async || Ok::<_, String>(Token::new(unsecured_token(USER, 3_600))))
        }
        other => unreachable!("{other} is not one of them"),
    }
}
