//! C2, C3, C5: appends of entries. An entry is on the log whole or never returned, whatever fails and
//! whenever its future is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use kwal_batching::entry::{Entry, Fragment, Item, Reader, Reason, Writer};
use kwal_batching::reader::replay;
use kwal_client::{
    OffsetAt, OnFailure, PartitionClient, Resolution,
    error::{Error, ErrorKind, Outcome},
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, record::OwnedRecord};
use kwal_testkit::{
    EmbeddedCluster, Fault, FaultTarget,
    wire::{Decision, Wire},
};
use tokio::task::yield_now;

use crate::support::{Rng, broker, builder, open, open_over, polled, settle};

/// The size of a fragment here.
const FRAGMENT: usize = Writer::MIN_FRAGMENT_BYTES;

pub(crate) fn writer(partition: &PartitionClient) -> Writer {
    Writer::new(partition.clone()).fragment_bytes(FRAGMENT)
}

/// Returns bytes that are like no others.
pub(crate) fn value(seed: u64, len: usize) -> Bytes {
    let mut rng = Rng(seed);
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        value.extend_from_slice(&rng.below(u64::MAX).to_le_bytes());
    }
    value.truncate(len);
    value.into()
}

/// Reads all entries of a log, and what is incomplete: its reason and its offsets.
pub(crate) async fn read(partition: &PartitionClient) -> (Vec<Entry>, Vec<(Reason, i64, i64)>) {
    let mut reader = Reader::new(replay(partition, OffsetAt::Earliest).await.unwrap());
    let (mut entries, mut incomplete) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next().await.unwrap() {
        match item {
            Item::Entry(entry) => entries.push(entry),
            Item::Incomplete(one) => incomplete.push((one.reason, one.first, one.last)),
            item => panic!("{item:?}"),
        }
    }
    incomplete.extend(reader.unfinished().map(|one| (one.reason, one.first, one.last)));
    (entries, incomplete)
}

fn values(entries: &[Entry]) -> Vec<Bytes> {
    entries.iter().map(|entry| entry.value.clone().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn forty_mebibytes_are_one_entry() {
    let broker = broker();
    let partition = open(&broker).await;
    let writer = Writer::new(partition.clone());
    let large = Record::new("key", value(1, 40 << 20)).header("a", "b").header("a", None::<&str>);
    let small = Record::new("key", "small");
    let first = writer.append(small.clone()).await.unwrap();
    assert_eq!((first.first, first.last, first.fragments), (Some(0), Some(0), 1));
    let appended = writer.append(large.clone()).await.unwrap();
    assert_eq!((appended.first, appended.last, appended.fragments), (Some(1), Some(42), 42));
    assert_eq!(appended.position.unwrap().offset, 43);
    assert!(appended.wire_bytes > 40 << 20);
    writer.append(small.clone()).await.unwrap();
    // With the default settings of a reader, a client and a topic.
    assert!(broker.log("wal", 0).unwrap().iter().all(|batch| batch.size_in_bytes() <= 1_000_000));
    let (entries, incomplete) = read(&partition).await;
    assert_eq!(incomplete, []);
    assert_eq!(entries.len(), 3);
    let Entry { key, value, headers, timestamp_ms, first, last, fragments, position, .. } =
        entries[1].clone();
    assert!(value == large.value);
    assert_eq!(
        (key, headers, timestamp_ms),
        (large.key.clone(), large.headers.clone(), large.timestamp_ms())
    );
    assert_eq!((first, last, fragments, position.offset), (1, 42, 42, 43));
    assert_eq!((entries[0].first, entries[2].first, entries[2].fragments), (0, 43, 1));
}

#[tokio::test(start_paused = true)]
async fn what_fits_is_a_plain_record_byte_for_byte() {
    let broker = broker();
    let partition = open(&broker).await;
    let writer = writer(&partition);
    // The largest that fits, with a key and a header, and one byte more.
    let room = FRAGMENT - 61 - 36 - 3 - 12;
    let record = |len| Record::new("key", value(3, len)).header("h", "v");
    for record in [record(10), record(room), Record::new(None::<&str>, None::<&str>)] {
        writer.append(record.clone()).await.unwrap();
        partition.produce([record]).await.unwrap();
    }
    let records = broker.records("wal", 0).unwrap();
    for pair in records.chunks(2) {
        let [one, other] = pair else { panic!("{pair:?}") };
        assert_eq!((&one.key, &one.value, &one.headers), (&other.key, &other.value, &other.headers));
        assert_eq!(one.timestamp_ms, other.timestamp_ms);
    }
    let sizes: Vec<_> = broker.log("wal", 0).unwrap().iter().map(|batch| batch.size_in_bytes()).collect();
    assert!(sizes[0] == sizes[1] && sizes[2] == sizes[3] && sizes[2] <= FRAGMENT, "{sizes:?}");
    assert_eq!(writer.append(record(room + 1)).await.unwrap().fragments, 2);
}

/// An entry of which the log has all fragments, none, or some that readers report.
#[tokio::test(start_paused = true)]
async fn an_append_that_is_dropped_leaves_a_whole_entry_or_a_report() {
    let (mut whole, mut cuts) = (0, BTreeSet::new());
    for turns in 0..3 {
        for polls in 1.. {
            let broker = broker();
            if turns > 0 {
                broker.on_all(FaultTarget::api(ApiKey::PRODUCE), Fault::DelayReply(Duration::from_millis(3)));
            }
            let partition = open(&broker).await;
            let writer = writer(&partition);
            let [dropped, next] = [1, 2].map(|seed| value(seed, 15_000));
            let append = writer.append(Record::new("k", dropped.clone()));
            let done = polled(append, polls).await;
            for _ in 0..turns {
                yield_now().await;
            }
            let appended = writer.append(Record::new("k", next.clone())).await.unwrap();
            let (entries, incomplete) = read(&partition).await;
            let on_log = appended.first.unwrap();
            match (values(&entries), &incomplete[..]) {
                (values, []) if values == [dropped.clone(), next.clone()] => whole += 1,
                (values, [(Reason::Abandoned, 0, last)]) if values == [next.clone()] => {
                    assert_eq!(on_log, last + 1);
                    cuts.insert(on_log);
                }
                (values, incomplete) => panic!("{polls} polls: {} entries, {incomplete:?}", values.len()),
            }
            if let Some(done) = done {
                assert_eq!((done.unwrap().fragments, incomplete.len()), (21, 0));
                break;
            }
        }
    }
    assert!(whole > 3 && cuts.len() > 6, "{whole} {cuts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_dropped_before_its_turn_is_not_on_the_log() {
    let broker = broker();
    let partition = open(&broker).await;
    let writer = writer(&partition);
    broker.on_all(FaultTarget::api(ApiKey::PRODUCE), Fault::DelayReply(Duration::from_millis(3)));
    let mut appends: Vec<_> =
        (0..5).map(|seed| writer.append(Record::new("k", value(seed, 15_000))).into_future()).collect();
    for append in &mut appends {
        assert!(polled(append, 1).await.is_none());
    }
    drop(appends.remove(3));
    drop(appends.remove(1));
    assert!(join_all(appends).await.iter().all(Result::is_ok));
    let (entries, incomplete) = read(&partition).await;
    assert_eq!((values(&entries), incomplete), ([0, 2, 4].map(|seed| value(seed, 15_000)).to_vec(), vec![]));
}

/// A fragment is rejected: none after it is on the log, and readers report the rest.
#[tokio::test(start_paused = true)]
async fn no_fragment_follows_a_rejected_one() {
    for continues in [false, true] {
        for at in 0..21 {
            let broker = broker();
            let client = builder(&broker).build().await.unwrap();
            let on_failure = if continues { OnFailure::Continue } else { OnFailure::Stop };
            let partition = client.partition_client("wal", 0).on_failure(on_failure).await.unwrap();
            let writer = writer(&partition);
            writer.append(Record::new("k", "first")).await.unwrap();
            let rejected = FaultTarget::api(ApiKey::PRODUCE).after(at);
            broker.on(rejected, Fault::Error(ErrorCode::INVALID_TIMESTAMP));
            let error = writer.append(Record::new("k", value(1, 15_000))).await.unwrap_err();
            assert_eq!(
                (error.outcome(), error.code()),
                (Outcome::NotApplied, Some(ErrorCode::INVALID_TIMESTAMP))
            );
            assert!(error.in_doubt().is_none());
            let (entries, incomplete) = read(&partition).await;
            let expected = if at == 0 { vec![] } else { vec![(Reason::Unfinished, 1, at as i64)] };
            assert_eq!((entries.len(), &incomplete), (1, &expected), "{at}");
            let appended = writer.append(Record::new("k", value(2, 15_000))).await.unwrap();
            let (entries, incomplete) = read(&partition).await;
            assert_eq!((entries.len(), entries[1].first), (2, appended.first.unwrap()));
            let expected = expected.iter().map(|(_, first, last)| (Reason::Abandoned, *first, *last));
            assert_eq!(incomplete, expected.collect::<Vec<_>>());
        }
    }
}

/// The responses from some fragment on are lost, and the deadline ends.
#[tokio::test(start_paused = true)]
async fn the_outcome_of_an_entry_is_that_of_all_its_fragments() {
    let (mut unknown, mut not_applied) = (0, 0);
    for len in [3_000, 15_000] {
        for at in 0..5 {
            for applied in [false, true] {
                let broker = broker();
                let partition = open(&broker).await;
                let writer = writer(&partition);
                writer.append(Record::new("k", "first")).await.unwrap();
                let target = || FaultTarget::api(ApiKey::PRODUCE);
                let fault = match applied {
                    true => Fault::DelayReply(Duration::from_secs(3_600)),
                    false => Fault::BlackHole,
                };
                broker.on(target().after(at), fault);
                broker.on_all(target().after(at), Fault::BlackHole);
                let append = writer.append(Record::new("k", value(1, len)));
                let error = match append.deadline(Duration::from_secs(5)).await {
                    Ok(appended) => {
                        assert!(appended.fragments <= at as u32, "{len} {at}");
                        continue;
                    }
                    Err(error) => error,
                };
                assert!(
                    matches!(error.kind(), ErrorKind::DeadlineExceeded { after, .. } if after.as_secs() == 5),
                    "{error}"
                );
                broker.clear_faults();
                broker.disconnect_all();
                let settled = match error.outcome() {
                    Outcome::NotApplied => {
                        assert!(error.in_doubt().is_none());
                        not_applied += 1;
                        Resolution::NotApplied
                    }
                    Outcome::Unknown => {
                        unknown += 1;
                        let fence = Record::new("fence", None::<&str>);
                        partition.resolve(error.in_doubt().unwrap(), fence).await.unwrap()
                    }
                };
                let (entries, _) = read(&partition).await;
                let is_there = entries.iter().any(|entry| entry.value == Some(value(1, len)));
                assert_eq!(
                    is_there,
                    matches!(settled, Resolution::Appended(_)),
                    "{len} {at} {applied}: {error}"
                );
                writer.append(Record::new("k", value(2, 15_000))).await.unwrap();
                let (later, incomplete) = read(&partition).await;
                assert_eq!(later.len(), entries.len() + 1);
                assert!(incomplete.iter().all(|(reason, ..)| *reason == Reason::Abandoned), "{incomplete:?}");
            }
        }
    }
    assert!(unknown > 3 && not_applied > 3, "{unknown} {not_applied}");
}

/// As many fragments are in flight as the partition client allows, and few more are encoded.
#[tokio::test(start_paused = true)]
async fn several_fragments_are_in_flight() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    let writer = writer(&partition);
    // The first append of a producer is in flight alone.
    writer.append(Record::new("k", "first")).await.unwrap();
    wire.on_response(|frame| match frame.api {
        ApiKey::PRODUCE => Decision::Hold,
        _ => Decision::Pass,
    });
    let mut append = writer.append(Record::new("k", value(1, 15_000))).into_future();
    assert!(polled(&mut append, 1).await.is_none());
    settle().await;
    assert_eq!(wire.requests(ApiKey::PRODUCE), 1 + 5);
    // Dropped, it is sent as far as it was submitted.
    drop(append);
    wire.clear_hooks();
    wire.release();
    settle().await;
    assert_eq!(wire.requests(ApiKey::PRODUCE), 1 + 8);
    assert_eq!(read(&partition).await.1, [(Reason::Unfinished, 1, 8)]);
}

#[tokio::test(start_paused = true)]
async fn entries_of_several_writers_interleave() {
    let broker = broker();
    let other = builder(&broker).seed(8).build().await.unwrap();
    let partitions = [open(&broker).await, other.partition_client("wal", 0).await.unwrap()];
    // Four writers, each used by three tasks, on two partition clients.
    let writers: Vec<_> = (0..4).map(|index| writer(&partitions[index % 2])).collect();
    let mut appends = Vec::new();
    for index in 0..12 {
        let writer = writers[index % 4].clone();
        appends.push(async move {
            for round in 0..4 {
                let seed = (100 * index + round) as u64;
                writer.append(Record::new("k", value(seed, 700 * (1 + seed as usize % 9)))).await.unwrap();
            }
        });
    }
    join_all(appends).await;
    let (entries, incomplete) = read(&partitions[0]).await;
    assert_eq!((entries.len(), incomplete), (48, vec![]));
    assert!(entries.is_sorted_by_key(|entry| entry.last));
    assert!(entries.iter().any(|entry| entry.last - entry.first >= i64::from(entry.fragments)));
    let mut found = values(&entries);
    let seeds = (0..12).flat_map(|index| (0..4).map(move |round| 100 * index + round));
    let mut expected: Vec<_> = seeds.map(|seed| value(seed, 700 * (1 + seed as usize % 9))).collect();
    found.sort();
    expected.sort();
    assert!(found == expected);
    // Those of one writer do not interleave with each other.
    let fragments = broker.records("wal", 0).unwrap();
    let fragments = fragments.iter().filter_map(|record| Some(Fragment::parse(record)?.unwrap()));
    let mut open = BTreeMap::new();
    for fragment in fragments {
        let expected = open.entry(fragment.entry.writer).or_insert((fragment.entry.number, 0));
        assert_eq!(*expected, (fragment.entry.number, fragment.index));
        *expected = match fragment.index + 1 == fragment.count {
            true => (fragment.entry.number + 1, 0),
            false => (fragment.entry.number, fragment.index + 1),
        };
    }
}

/// Compaction keeps the last record of a key, and would take entries apart.
#[tokio::test(start_paused = true)]
async fn a_compacted_topic_takes_no_fragments() {
    let settings = [("cleanup.policy", "compact")];
    let broker = EmbeddedCluster::builder().topic_with("wal", 1, &settings).start_in_memory().unwrap();
    let partition = open(&broker).await;
    let writer = writer(&partition);
    writer.append(Record::new("k", "small")).await.unwrap();
    let error = writer.append(Record::new("k", value(1, 15_000))).await.unwrap_err();
    assert_eq!((error.outcome(), error.code()), (Outcome::NotApplied, Some(ErrorCode::INVALID_RECORD)));
    assert_eq!(broker.records("wal", 0).unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_appended_is_an_error_before_anything_is_sent() {
    let broker = broker();
    let partition = open(&broker).await;
    let writer = writer(&partition).max_entry_bytes(20_000);
    let text = |error: Error| match error.kind() {
        ErrorKind::InvalidInput { reason, .. } => reason.clone(),
        _ => panic!("{error}"),
    };
    let forged = Record::new("k", "v").header("a", "b").header(Fragment::ENTRY, "x");
    for (record, reason) in [
        (Record::new("k", value(1, 20_001)), "an entry of 20001 bytes exceeds the limit of 20000"),
        (forged, "a record cannot have the header kwal.entry"),
        (
            Record::new(vec![0; 1_000], value(1, 2_000)),
            "key and headers take 1302 bytes, and have to fit into a fragment of 1024",
        ),
        (Record::new("k", None::<&str>).header("h", vec![0; 2_000]), "key and headers take"),
    ] {
        let reason_given = text(writer.append(record).await.unwrap_err());
        assert!(reason_given.starts_with(reason), "{reason_given}");
    }
    assert_eq!(broker.requests(ApiKey::PRODUCE), 0);
    // The rest of the first fragment may be nothing.
    let (mut records, mut refused) = (Vec::new(), 0);
    for len in 660..780 {
        let record = Record::new(vec![1; len], value(2, 1_000)).header("h", "v");
        match writer.append(record.clone()).await {
            Ok(_) => records.push(record),
            Err(_) => refused += 1,
        }
    }
    let (entries, _) = read(&partition).await;
    assert!(entries.len() == records.len() && records.len() > 50 && refused > 50, "{refused}");
    for (entry, record) in entries.iter().zip(&records) {
        assert_eq!((&entry.key, &entry.value, &entry.headers), (&record.key, &record.value, &record.headers));
    }
    let empty = |record: &OwnedRecord| record.value.as_ref().is_some_and(Bytes::is_empty);
    assert_eq!(broker.records("wal", 0).unwrap().iter().filter(|record| empty(record)).count(), 1);
    assert!(broker.log("wal", 0).unwrap().iter().all(|batch| batch.size_in_bytes() <= FRAGMENT));
}

/// The memory of the client bounds what is encoded at a time, and an entry larger than it is appended.
#[tokio::test(start_paused = true)]
async fn an_entry_larger_than_the_budget_is_appended() {
    let broker = broker();
    let limits = kwal_client::Limits::default().memory(8_000);
    let client = builder(&broker).limits(limits).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let writer = writer(&partition);
    let (one, other) =
        (writer.append(Record::new("k", value(1, 100_000))), writer.append(Record::new("k", "v")));
    let (one, other) = tokio::join!(one, other);
    assert_eq!((one.unwrap().fragments, other.unwrap().fragments), (136, 1));
    assert_eq!(read(&partition).await.0.len(), 2);
    // An entry that waits for its turn ends with its deadline, and is not on the log.
    broker.on_all(FaultTarget::api(ApiKey::PRODUCE), Fault::BlackHole);
    let slow = tokio::spawn({
        let writer = writer.clone();
        async move { writer.append(Record::new("k", value(1, 100_000))).await }
    });
    settle().await;
    let error = writer.append(Record::new("k", "v")).deadline(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(error.to_string().contains("1s"), "{error}");
    slow.abort();
}
