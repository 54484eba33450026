//! Takeovers on one broker that goes on: from a process that is stopped in the middle of appends, from one
//! whose log was deleted, and how holders learn of it.

use std::time::Duration;

use futures::future::join_all;
use kwal_client::error::{Error, ErrorKind, Outcome};
use kwal_client::record::Record;
use kwal_client::{Client, DeleteBefore, PartitionClient};
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::InitProducerIdRequest;
use kwal_tests::holder::{Command, Event, Job};
use kwal_tests::kafka::Kafka;
use tokio::time::Instant;

use super::judge::{data, judge, no_transaction_is_open, open, read};
use super::processes::{acked, held, holds, is_fenced, job, rest, start, start_with, stop_amid_appends};
use super::{NAME, connect, transactional_id, version};
use crate::fidelity::coordinators::init;
use crate::fidelity::log::batch_of;
use crate::fidelity::world::until;
use crate::raw::Broker;

kwal_tests::suite! {
    shared: [
        a_holder_stopped_amid_appends,
        takeovers_at_once,
        records_deleted,
        fenced_is_an_event,
        an_epoch_of_two,
        epochs_used_up,
    ],
    own: [],
}

async fn a_holder_stopped_amid_appends(kafka: &'static Kafka) {
    for callers in [1, 4] {
        let topic = kafka.topic("stopped", 1, &[]).await;
        let of = |label| Job { callers, ..job(kafka, &topic, label) };
        let mut a = start_with(of("a")).await;
        let first = (holds(&mut a).await.after, acked(&mut a, 1).await);
        stop_amid_appends(&mut a).await;
        let mut b = start_with(of("b")).await;
        let second = (holds(&mut b).await.after, acked(&mut b, 1).await);
        // A process is stopped whose append is open, and no transaction is.
        no_transaction_is_open(&mut open(kafka, &topic).await, 0).await;
        acked(&mut b, 20).await;
        a.resume();
        is_fenced(&mut a).await;
        acked(&mut b, 20).await;
        rest(&mut b).await;
        judge(kafka, 1, &topic, &[&a, &b]).await;
        for (what, (opened, acked)) in [("a new name", first), ("from a stopped process", second)] {
            kwal_tests::report(format_args!(
                "{}: takeover, {what}: {opened:.1?}; first append acknowledged after {acked:.1?}",
                version(kafka),
            ));
        }
    }
}

/// Several processes take over at the same time: one of them has the log in the end.
async fn takeovers_at_once(kafka: &'static Kafka) {
    for round in 0..3 {
        let topic = kafka.topic("at-once", 1, &[]).await;
        let labels = ["a", "b", "c", "d"];
        let started = join_all(labels.map(|label| start(kafka, &topic, label))).await;
        let (mut holders, mut overtaken) = (Vec::new(), 0);
        for mut holder in started {
            let refused = |event: &Event| match event {
                Event::Refused(failure) => Some(Some(failure.clone())),
                Event::Holds { .. } => Some(None),
                _ => None,
            };
            match holder.until(refused).await {
                None => holders.push(holder),
                Some(failure) => {
                    assert!(failure.is_fenced, "{failure:?}");
                    overtaken += 1;
                }
            }
        }
        kwal_tests::report(format_args!("{}: at once, round {round}: {overtaken} overtaken", version(kafka)));
        holders.sort_by_key(|holder| held(holder).barrier);
        let mut last = holders.pop().unwrap();
        for holder in &mut holders {
            is_fenced(holder).await;
        }
        acked(&mut last, 20).await;
        rest(&mut last).await;
        let holders: Vec<_> = holders.iter().chain([&last]).collect();
        judge(kafka, 1, &topic, &holders).await;
    }
}

/// The fence survives the deletion of the barrier, and the name that of all records.
async fn records_deleted(kafka: &'static Kafka) {
    let topic = kafka.topic("deleted", 1, &[]).await;
    let partition = connect(kafka).await.partition_client(&topic, 0).await.unwrap();
    let delete = async || partition.delete_records(DeleteBefore::HighWatermark).await.unwrap();
    let mut a = start(kafka, &topic, "a").await;
    stop_amid_appends(&mut a).await;
    delete().await;
    let mut b = start(kafka, &topic, "b").await;
    acked(&mut b, 20).await;
    rest(&mut b).await;
    // Now the log is empty, without a barrier.
    let end = delete().await;
    assert_eq!(read(&connect(kafka).await, &topic).await.1.len(), 0);
    a.resume();
    is_fenced(&mut a).await;
    // Nor does the next one find a barrier.
    let mut c = start(kafka, &topic, "c").await;
    assert_eq!(holds(&mut c).await.barrier, end);
    b.tell(Command::Append).await;
    is_fenced(&mut b).await;
    acked(&mut c, 20).await;
    rest(&mut c).await;
    judge(kafka, 1, &topic, &[&a, &b, &c]).await;
}

/// `fenced()` of a holder that appends nothing returns after a renewal or a probe.
async fn fenced_is_an_event(kafka: &'static Kafka) {
    let topic = kafka.topic("event", 1, &[]).await;
    let client = connect(kafka).await;
    let open = || client.partition_client(&topic, 0).exclusive(NAME);
    let appends = open().await.unwrap();
    append(&appends, "appends").await.unwrap();
    let renews = open().renewal(Duration::from_secs(1)).await.unwrap();
    let error = append(&appends, "too late").await.unwrap_err();
    assert!(is_by_fence(&error) && error.outcome() == Outcome::NotApplied, "{error:?}");
    assert!(is_by_fence(&appends.fenced().await));

    // A renewal raises the epoch, and writes nothing.
    let held = renews.holder().unwrap();
    assert_eq!((held.name.as_str(), held.producer_id), (NAME, appends.holder().unwrap().producer_id));
    until("it has renewed", async || (renews.holder().unwrap().epoch > held.epoch + 1).then_some(())).await;
    append(&renews, "renewed").await.unwrap();
    let before = renews.holder().unwrap().epoch;
    let probes = open().probe(Duration::from_millis(100)).await.unwrap();
    assert!(probes.holder().unwrap().epoch > before);
    let took = Instant::now();
    assert!(is_by_fence(&renews.fenced().await));
    kwal_tests::report(format_args!(
        "{}: fenced() by a renewal each second: {:.1?}",
        version(kafka),
        took.elapsed()
    ));
    let error = append(&renews, "too late").await.unwrap_err();
    assert!(is_by_fence(&error) && error.outcome() == Outcome::NotApplied, "{error:?}");

    append(&probes, "probes").await.unwrap();
    let last = open().await.unwrap();
    let took = Instant::now();
    assert!(is_by_fence(&probes.fenced().await));
    kwal_tests::report(format_args!(
        "{}: fenced() by a probe each 0.1 s: {:.1?}",
        version(kafka),
        took.elapsed()
    ));
    append(&last, "last").await.unwrap();
    assert!(last.close().await.is_empty());
    let error = last.fenced().await;
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");

    let (_, entries) = read(&client, &topic).await;
    let values: Vec<_> = entries.values().map(|entry| &*entry.value).collect();
    assert_eq!(values, ["", "appends", "", "renewed", "", "probes", "", "last"]);
}

/// After the last epoch, the coordinator gives out another producer id. With `KWAL_LONG=1`, since it takes
/// 32,766 requests.
async fn epochs_used_up(kafka: &'static Kafka) {
    const AT_ONCE: i16 = 100;
    for _ in 0..u8::from(kwal_tests::long()) {
        let topic = kafka.topic("epochs", 1, &[]).await;
        let mut a = start(kafka, &topic, "a").await;
        let id = holds(&mut a).await.producer_id;
        stop_amid_appends(&mut a).await;
        let mut connection = Broker::connect(&kafka.bootstrap()[0]).await;
        let request = InitProducerIdRequest {
            transactional_id: Some(transactional_id(&topic)),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let mut epoch = 0;
        while epoch < i16::MAX - 1 {
            let count = AT_ONCE.min(i16::MAX - 1 - epoch);
            for _ in 0..count {
                connection.send(&request, 4).await;
            }
            for _ in 0..count {
                let response = connection.read_response::<InitProducerIdRequest>(4).await.unwrap();
                assert_eq!(
                    (response.error_code, response.producer_id),
                    (ErrorCode::NONE, id),
                    "{response:?}"
                );
                epoch = response.producer_epoch;
            }
        }
        let mut b = start(kafka, &topic, "b").await;
        let held = holds(&mut b).await;
        // It renews the new id before it fences the one before.
        assert!(held.producer_id != id && held.epoch == 1, "{held:?}");
        a.resume();
        is_fenced(&mut a).await;
        acked(&mut b, 20).await;
        rest(&mut b).await;
        judge(kafka, 1, &topic, &[&a, &b]).await;
    }
}

/// Somebody raises an epoch past the coordinator and appends. The coordinator then gives the same epoch to
/// the next holder, whose barrier the broker takes for a duplicate.
async fn an_epoch_of_two(kafka: &'static Kafka) {
    // Brokers remember the last five batches of a producer: after more, they take the barrier for a gap.
    for count in [1, 2, 8] {
        let topic = kafka.topic("taken", 1, &[]).await;
        let client = connect(kafka).await;
        let name = transactional_id(&topic);
        let mut log = open(kafka, &topic).await;
        let first = init(&mut log.connection, &name, -1, -1, 4).await;
        let (id, epoch) = (first.producer_id, first.producer_epoch);
        let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
        let batch = |epoch, sequence| batch_of(1, now).stamp(id, epoch, sequence);
        assert!(log.append(batch(epoch, 0)).await.starts_with("OK"));
        for sequence in 0..count {
            assert!(log.append(batch(epoch + 1, sequence)).await.starts_with("OK"));
        }
        let (_, before) = read(&client, &topic).await;
        assert_eq!(before.len(), usize::try_from(count).unwrap() + 1);

        let error = hold(&client, &topic).await.unwrap_err();
        kwal_tests::report(format_args!("{}: an epoch of two, batches: {count}: {error}", version(kafka)));
        let ErrorKind::EpochTaken { producer_id, epoch: taken, offset, .. } = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!((*producer_id, *taken), (id, epoch + 1), "{error:?}");
        assert!(offset.is_none_or(|offset| offset == 1), "{error:?}");
        assert_eq!(read(&client, &topic).await.1, before);

        let next = hold(&client, &topic).await.unwrap();
        let holder = next.holder().unwrap();
        assert_eq!((holder.producer_id, holder.epoch), (id, epoch + 2));
        assert_eq!(holder.barrier, before.len() as i64);
        append(&next, "next").await.unwrap();
        let late = log.append(batch(epoch + 1, count)).await;
        assert!(late.starts_with("INVALID_PRODUCER_EPOCH"), "{late}");
        let (_, after) = read(&client, &topic).await;
        assert!(before.iter().all(|(offset, entry)| after.get(offset) == Some(entry)), "{after:?}");
        assert_eq!(data(&after).count(), before.len() + 1);
        assert_eq!(after.len(), before.len() + 2);
    }
}

async fn hold(client: &Client, topic: &str) -> Result<PartitionClient, Error> {
    client.partition_client(topic, 0).exclusive(NAME).await
}

async fn append(partition: &PartitionClient, value: &str) -> Result<(), Error> {
    partition.produce([Record::new(None::<&str>, value)]).await.map(drop)
}

fn is_by_fence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Fenced)
}
