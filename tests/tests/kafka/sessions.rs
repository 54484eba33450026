//! Reauthentication of sessions that the brokers limit to five seconds; `KWAL_LONG=1` runs it for a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kwal_client::record::Record;
use kwal_client::sasl::{Sasl, Token};
use kwal_client::{ClientBuilder, PartitionClient};
use kwal_testkit::wire::Wire;
use kwal_tests::kafka::{Certificates, Kafka, MECHANISMS, PASSWORD, SHORT_SESSION_MS, USER, unsecured_token};
use kwal_transport::{Tcp, tls};
use tokio::time::{Instant, sleep};

kwal_tests::suite! {
    secured: [sessions_are_renewed_under_load],
}

/// For each mechanism, a client appends continuously, reads what it appended, and polls an empty partition.
async fn sessions_are_renewed_under_load(kafka: &'static Kafka) {
    // At least three reauthentications.
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
    let wire = Wire::new(Tcp::default());
    let client = ClientBuilder::new(kafka.cluster().unwrap().addresses("SHORT"))
        .connector(wire.clone())
        .tls(tls::ring().roots_pem_file(Certificates::shared().authority()))
        .sasl(sasl(mechanism))
        .build()
        .await
        .unwrap();
    let busy = client.partition_client(&topic, 0).await.unwrap();
    let quiet = client.partition_client(&topic, 1).await.unwrap();
    // Now every partition has its connections for appends and fetches. No other may be opened.
    busy.produce(vec![Record::new(None::<&str>, "0")]).await.unwrap();
    busy.fetch(0).await.unwrap();
    quiet.fetch(0).max_wait(Duration::from_millis(100)).await.unwrap();
    let connections = wire.connections().accepted;

    let done = Arc::new(AtomicBool::new(false));
    let appends = tokio::spawn(append(busy.clone(), Arc::clone(&done)));
    let reads = tokio::spawn(read(busy, Arc::clone(&done)));
    let polls = tokio::spawn(poll(quiet, Arc::clone(&done)));
    sleep(time).await;
    done.store(true, Ordering::Relaxed);
    let (appended, slowest_append) = appends.await.unwrap();
    let read = reads.await.unwrap();
    let polls = polls.await.unwrap();

    // Brokers close connections whose session has expired, so those still open have been reauthenticated.
    assert_eq!(wire.connections().accepted, connections, "{mechanism}: connections were opened again");
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

/// Appends 1, 2, 3, … until `done`. Returns the number of records on the log and the slowest latency.
async fn append(partition: PartitionClient, done: Arc<AtomicBool>) -> (u64, Duration) {
    let mut next = 1;
    let mut slowest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let produced = partition.produce(vec![Record::new(None::<&str>, next.to_string())]).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        assert_eq!((produced.base_offset, produced.attempts), (Some(next as i64), 1));
        next += 1;
        // Thousands of records are enough: Java prints all of them as JSON.
        sleep(Duration::from_millis(5)).await;
    }
    (next, slowest)
}

/// Reads 0, 1, 2, … until `done`. Returns how many were read.
async fn read(partition: PartitionClient, done: Arc<AtomicBool>) -> u64 {
    let mut next = 0;
    while !done.load(Ordering::Relaxed) {
        let fetched =
            partition.fetch(i64::try_from(next).unwrap()).max_wait(Duration::from_secs(1)).await.unwrap();
        for record in fetched.records() {
            let record = record.unwrap();
            assert_eq!(u64::try_from(record.offset).unwrap(), next);
            assert_eq!(record.value.unwrap(), next.to_string().as_bytes());
            next += 1;
        }
        assert_eq!(u64::try_from(fetched.next_offset).unwrap(), next);
    }
    next
}

/// Polls an empty partition, each time for the length of a session, until `done`. Returns the number of
/// polls.
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
