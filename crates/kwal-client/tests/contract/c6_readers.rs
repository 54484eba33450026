//! C6, seen by readers: barriers end a recovery, and batches show whose they are.

use std::time::Duration;

use kwal_client::{
    Fetched, OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
    record::{Barrier, Record},
};
use kwal_protocol::{
    api::ApiKey,
    record::{BatchBuilder, Compression, Headers},
};
use kwal_testkit::{EmbeddedCluster, Fault, wire::Decision};

use crate::support::{Wire, broker, hold, log, open, record, settle};

const ID: &str = "writer/wal/0";

async fn append(partition: &PartitionClient, value: &str) -> i64 {
    partition.produce(record(value)).await.unwrap().base_offset.unwrap()
}

/// Appends a batch under any producer id and epoch, past what brokers check.
fn append_under(broker: &EmbeddedCluster, producer_id: i64, epoch: i16, value: &str) {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, None, Some(value.as_bytes()), &Headers::new());
    let batch = builder.finish().unwrap().stamp(producer_id, epoch, 0);
    broker.append_raw("wal", 0, batch.to_bytes()).unwrap();
}

/// Reads all batches of a log, a few bytes at once.
async fn read(partition: &PartitionClient) -> Vec<Fetched> {
    let end = partition.get_offset(OffsetAt::Latest).await.unwrap();
    let (mut next, mut all) = (0, Vec::new());
    while next < end {
        let fetched = partition.fetch(next).max_bytes(1).await.unwrap();
        next = fetched.next_offset;
        all.push(fetched);
    }
    all
}

/// What a log tells its readers.
#[derive(Debug, Default, Eq, PartialEq)]
struct Log {
    values: Vec<String>,
    /// The offsets of the barriers, and the epochs at which they begin.
    barriers: Vec<(i64, i16)>,
    /// The offsets of records that resemble barriers, in batches that are none.
    fences: Vec<i64>,
    /// The offsets of batches that are not of the holder of the log.
    foreign: Vec<i64>,
}

/// Reads a log as the docs of `Fetched::batches` and of `Barrier` show it.
async fn read_as_shown(partition: &PartitionClient) -> Log {
    let (mut log, mut last) = (Log::default(), None);
    for fetched in read(partition).await {
        for batch in fetched.batches() {
            let producer = batch.producer_id().zip(batch.producer_epoch());
            let barrier = Barrier::in_batch(batch);
            if let (Some((id, epoch)), None) = (last, &barrier)
                && !producer.is_some_and(|producer| producer.0 == id && producer.1 >= epoch)
            {
                log.foreign.push(batch.base_offset());
            } else if last.is_some() || barrier.is_some() {
                last = producer;
            }
            log.barriers.extend(barrier.map(|barrier| (batch.base_offset(), barrier.epoch)));
        }
        let is_known = |log: &Log, offset| log.barriers.iter().any(|(barrier, _)| *barrier == offset);
        fetched
            .try_for_each::<Error>(|record| {
                match Barrier::parse(&record) {
                    Some(_) if is_known(&log, record.offset) => {}
                    Some(_) => log.fences.push(record.offset),
                    None => log.values.push(String::from_utf8_lossy(record.value.unwrap()).into_owned()),
                }
                Ok(())
            })
            .unwrap();
    }
    log
}

#[tokio::test(start_paused = true)]
async fn a_replay_to_the_barrier_has_all_of_the_earlier_holders() {
    let broker = broker();
    let mut expected = Vec::new();
    let mut earlier = None;
    for n in 0..5 {
        let holder = hold(&broker).await;
        let barrier = holder.holder().unwrap().barrier;
        if let Some(earlier) = earlier.replace(holder.clone()) {
            let error = earlier.produce(record("too late")).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
        }
        // Whatever the log has now, it had before the barrier.
        let (mut next, mut replayed) = (0, Vec::new());
        while next < barrier {
            let fetched = holder.fetch(next).max_bytes(1).await.unwrap();
            let records = fetched.records().map(Result::unwrap).filter(|record| record.offset < barrier);
            let data = records.filter(|record| Barrier::parse(record).is_none());
            replayed.extend(data.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            next = fetched.next_offset;
        }
        assert_eq!((next, &replayed), (barrier, &expected));
        let at_barrier = holder.fetch(barrier).await.unwrap().records().next().unwrap().unwrap();
        let found = Barrier::parse(&at_barrier).unwrap();
        let held = holder.holder().unwrap();
        assert_eq!((found.name, found.producer_id, found.epoch), (held.name, held.producer_id, n));
        for n in 0..n {
            append(&holder, &format!("{barrier}-{n}")).await;
            expected.push(format!("{barrier}-{n}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batches_show_that_a_log_has_one_writer_at_a_time() {
    let broker = broker();
    append(&open(&broker).await, "before").await;
    let first = hold(&broker).await;
    append(&first, "first").await;
    // An epoch that the holder raises, and one that it raises for a doubt.
    broker.on_all(ApiKey::PRODUCE, Fault::Drop);
    first.produce(record("in doubt")).deadline(Duration::from_secs(3)).await.unwrap_err();
    broker.clear_faults();
    append(&first, "first again").await;
    assert_eq!(first.holder().unwrap().epoch, 1);
    // Another epoch of the id, then another id.
    append(&hold(&broker).await, "second").await;
    assert!(broker.forget_transactional_id(ID));
    let third = hold(&broker).await;
    append(&third, "third").await;
    let expected = Log {
        values: ["before", "first", "first again", "second", "third"].map(str::to_owned).into(),
        barriers: vec![(1, 0), (4, 2), (7, 1)],
        fences: vec![6],
        foreign: vec![],
    };
    assert_eq!(read_as_shown(&third).await, expected);
}

#[tokio::test(start_paused = true)]
async fn batches_show_that_a_log_has_another_writer() {
    let broker = broker();
    let first = hold(&broker).await;
    let second = hold(&broker).await;
    append(&second, "second").await;
    let id = second.holder().unwrap().producer_id;
    for (producer_id, epoch, is_foreign) in
        [(id, 1, false), (id, 0, true), (id + 1, 7, true), (-1, -1, true), (id, 2, false), (id, 1, true)]
    {
        let before = read_as_shown(&first).await.foreign.len();
        append_under(&broker, producer_id, epoch, "other");
        let after = read_as_shown(&first).await.foreign;
        assert_eq!(after.len() - before, usize::from(is_foreign), "{producer_id} {epoch}: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_the_caller_is_not_a_barrier() {
    let broker = broker();
    let holder = hold(&broker).await;
    let barrier = holder.fetch(0).await.unwrap().records().next().unwrap().unwrap();
    // The key, the value or the headers, but not all of them.
    let headers = barrier.headers.clone();
    for record in [
        Record { headers: headers.clone(), ..Record::new("writer/wal/0", "x") },
        Record { headers: headers.clone(), ..Record::new("writer", "") },
        Record { headers: headers.into_iter().take(3).collect(), ..Record::new(ID, "") },
        Record::new(ID, ""),
    ] {
        holder.produce(vec![record]).await.unwrap();
    }
    // A copy of the whole record is one, but not in a batch with another record.
    let copy = || Record { headers: barrier.headers.clone(), ..Record::new(ID, "") };
    holder.produce(vec![copy(), copy()]).await.unwrap();
    let read = read_as_shown(&holder).await;
    assert_eq!((read.barriers, read.fences, read.values.len()), (vec![(0, 0)], vec![5, 6], 4));
}

/// A takeover ends without the log, because another one came before it. Its barrier lies on the log.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_came_too_late_does_not_hide_the_holder() {
    let broker = broker();
    append(&hold(&broker).await, "first").await;
    // Two takeovers, each under another id, stop after they have looked for the last barrier.
    let stopped = [(); 2].map(|()| {
        let wire = Wire::to(&broker);
        let mut is_held = false;
        wire.on_request(move |frame| match frame.api == ApiKey::PRODUCE && !is_held {
            true => {
                is_held = true;
                Decision::Hold
            }
            false => Decision::Pass,
        });
        wire
    });
    let mut takeovers = Vec::new();
    for wire in &stopped {
        assert!(broker.forget_transactional_id(ID));
        let client = wire.client().await;
        let open = client.partition_client("wal", 0).exclusive("writer");
        takeovers.push(tokio::spawn(open.into_future()));
        settle().await;
        assert_eq!(wire.count(ApiKey::PRODUCE), 1, "it has looked");
    }
    let mut results = Vec::new();
    for (wire, takeover) in stopped.iter().zip(takeovers) {
        wire.release();
        results.push(takeover.await.unwrap());
    }
    let [Ok(second), Err(error)] = &results[..] else { panic!("{results:?}") };
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    append(second, "second").await;
    // The coordinator gave the name to the one that came too late.
    let third = hold(&broker).await;
    let barrier = third.holder().unwrap().barrier;
    let error = second.produce(record("too late")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced), "{error}");
    append(&third, "third").await;
    let values = log(&broker);
    let after: Vec<_> = values.iter().skip(usize::try_from(barrier).unwrap()).collect();
    assert_eq!(after, ["", "third"], "{values:?}");
}
