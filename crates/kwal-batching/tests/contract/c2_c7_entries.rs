//! C2, C5, C7, C9: reading entries. Each is returned once, whole, or reported once, also by readers that are
//! dropped, that resume, and that go on after a replay.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use kwal_batching::{
    entry::{Checkpoint, Corruption, EntryId, Fragment, Item, Reader, Reason, Source, Writer},
    reader::{OutOfRange, RecordStream, Replay, replay},
};
use kwal_client::{
    OffsetAt, PartitionClient,
    error::{Error, ErrorKind},
    record::{Barrier, Record},
};
use kwal_protocol::{
    api::ApiKey,
    messages::FetchRequest,
    record::{BatchHeader, Batches, Headers},
};
use kwal_testkit::{Fault, FaultTarget, wire::Wire};

use crate::{
    c2_c5_entries::{read, value, writer},
    support::{broker, builder, open, open_over, polled, settle},
};

/// What a reader returned: the value of an entry, or why it is incomplete; and its offsets.
type Got = (Result<Bytes, Reason>, i64, i64);

fn got(item: Item) -> Got {
    match item {
        Item::Entry(entry) => (Ok(entry.value.unwrap()), entry.first, entry.last),
        Item::Incomplete(incomplete) => (Err(incomplete.reason), incomplete.first, incomplete.last),
        item => panic!("{item:?}"),
    }
}

async fn all<S: Source>(reader: &mut Reader<S>) -> Vec<Got> {
    let mut all = Vec::new();
    while let Some(item) = reader.next().await.unwrap() {
        all.push(got(item));
    }
    all
}

async fn replaying(partition: &PartitionClient) -> Reader<Replay> {
    Reader::new(replay(partition, OffsetAt::Earliest).await.unwrap())
}

/// Appends an entry of so many fragments.
async fn entry(writer: &Writer, seed: u64, fragments: u32) -> Bytes {
    let value = value(seed, 720 * fragments as usize);
    let appended = writer.append(Record::new("k", value.clone())).await.unwrap();
    assert_eq!(appended.fragments, fragments);
    value
}

/// Appends some fragments of an entry of 9, and never the rest.
async fn unfinished(broker: &kwal_testkit::EmbeddedCluster, writer: &Writer, seed: u64, fragments: usize) {
    let target = FaultTarget::api(ApiKey::PRODUCE).after(fragments);
    broker.on(target, Fault::Error(kwal_protocol::error_code::ErrorCode::INVALID_TIMESTAMP));
    writer.append(Record::new("k", value(seed, 720 * 9))).await.unwrap_err();
    broker.clear_faults();
}

/// A log with everything that entries can be. Returns what readers get, and what stays unfinished.
async fn log(broker: &kwal_testkit::EmbeddedCluster) -> (PartitionClient, Vec<Got>, Vec<Got>) {
    let partition = open(broker).await;
    let [one, two, three] = [(); 3].map(|()| writer(&partition));
    let a = entry(&one, 1, 3).await; // 0 to 2
    unfinished(broker, &one, 2, 2).await; // 3, 4
    unfinished(broker, &two, 3, 1).await; // 5
    let b = entry(&three, 4, 5).await; // 6 to 10
    partition.produce([Record::new("k", "plain"), Record::new("k", "other")]).await.unwrap(); // 11, 12
    let forged = Record::new("k", "v").header(Fragment::ENTRY, "x");
    partition.produce([forged]).await.unwrap(); // 13
    let c = entry(&one, 5, 2).await; // 14, 15
    partition.produce([Record::new("k", "last")]).await.unwrap(); // 16
    let malformed = Fragment::parse(&broker.records("wal", 0).unwrap()[13]).unwrap().unwrap_err();
    let got = vec![
        (Ok(a), 0, 2),
        (Ok(b), 6, 10),
        (Ok("plain".into()), 11, 11),
        (Ok("other".into()), 12, 12),
        (Err(Reason::Malformed(malformed)), 13, 13),
        (Err(Reason::Abandoned), 3, 4),
        (Ok(c), 14, 15),
        (Ok("last".into()), 16, 16),
    ];
    (partition, got, vec![(Err(Reason::Unfinished), 5, 5)])
}

fn left<S: Source>(reader: &Reader<S>) -> Vec<Got> {
    reader.unfinished().map(|one| (Err(one.reason), one.first, one.last)).collect()
}

#[tokio::test(start_paused = true)]
async fn entries_come_in_the_order_of_their_last_records() {
    let broker = broker();
    let (partition, expected, unfinished) = log(&broker).await;
    for max_bytes in [1, 1 << 20] {
        let source = replay(&partition, 0).max_bytes(max_bytes).await.unwrap();
        let mut reader = Reader::new(source);
        assert_eq!((all(&mut reader).await, left(&reader)), (expected.clone(), unfinished.clone()));
        assert_eq!(reader.source().summary().records, 17);
        // As a stream, which ends as well.
        let source = replay(&partition, 0).max_bytes(max_bytes).await.unwrap();
        let items: Vec<_> = Reader::new(source).map(|item| got(item.unwrap())).collect().await;
        assert_eq!(items, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_futures_are_dropped_returns_the_same() {
    for polls in 1..5 {
        let broker = broker();
        let (partition, expected, unfinished) = log(&broker).await;
        broker
            .on_all(FaultTarget::api(ApiKey::FETCH).chance(0.4), Fault::DelayReply(Duration::from_millis(5)));
        let mut reader = Reader::new(replay(&partition, 0).max_bytes(1).await.unwrap());
        let mut all = Vec::new();
        for round in 0.. {
            assert!(round < 10_000, "it does not get on");
            match polled(reader.next(), polls).await {
                Some(item) => match item.unwrap() {
                    Some(item) => all.push(got(item)),
                    None => break,
                },
                None => settle().await,
            }
        }
        assert_eq!((all, left(&reader)), (expected, unfinished));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_resumes_after_each_item() {
    let broker = broker();
    let (partition, expected, unfinished) = log(&broker).await;
    let mut reader = replaying(&partition).await;
    for returned in 0.. {
        let checkpoint: Checkpoint = reader.checkpoint().to_string().parse().unwrap();
        assert_eq!((&checkpoint, checkpoint.from), (&reader.checkpoint(), reader.position()));
        let source = replay(&partition, checkpoint.from).await.unwrap();
        let mut resumed = Reader::new(source).resume(&checkpoint);
        assert_eq!(all(&mut resumed).await, expected[returned..], "{checkpoint}");
        assert_eq!(left(&resumed), unfinished);
        if reader.next().await.unwrap().is_none() {
            assert_eq!((returned, checkpoint.from.offset, checkpoint.until), (8, 5, 17));
            break;
        }
    }
    // An entry that was unfinished is reported if its beginning is removed before its reader resumes.
    let two = writer(&partition);
    let append = two.append(Record::new("k", value(6, 720 * 40)));
    broker.on_all(FaultTarget::api(ApiKey::PRODUCE), Fault::DelayReply(Duration::from_millis(10)));
    let (appended, ()) = tokio::join!(append, async {
        settle().await;
        let mut reader = replaying(&partition).await;
        all(&mut reader).await;
        let checkpoint = reader.checkpoint();
        let oldest = reader.unfinished().next().unwrap().entry.unwrap();
        assert_eq!(reader.give_up(oldest).unwrap().first, 5);
        let later = reader.checkpoint();
        assert_eq!((later.from.offset, later.given_up.len()), (17, 1));
        broker.delete_records("wal", 0, 18).unwrap();
        for checkpoint in [checkpoint, later] {
            let source =
                replay(&partition, checkpoint.from).out_of_range(OutOfRange::FromStart).await.unwrap();
            let mut resumed = Reader::new(source).resume(&checkpoint).follow();
            let (reason, first, last) = got(resumed.next().await.unwrap().unwrap());
            assert_eq!((reason, first), (Err(Reason::CutOff), 18));
            assert!(last >= checkpoint.until && last < 57, "{last} {checkpoint}");
        }
    });
    assert_eq!(appended.unwrap().first, Some(17));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_ends_within_an_entry_goes_on_with_it() {
    let broker = broker();
    let (partition, expected, unfinished) = log(&broker).await;
    for end in 0..=17 {
        let mut reader = Reader::new(replay(&partition, 0).end(end).await.unwrap());
        let mut found = all(&mut reader).await;
        assert!(reader.next().await.unwrap().is_none());
        let mut stream: Reader<RecordStream> = reader.follow();
        while found.len() < expected.len() {
            found.push(got(stream.next().await.unwrap().unwrap()));
        }
        assert_eq!((found, left(&stream)), (expected.clone(), unfinished.clone()), "{end}");
        assert!(stream.source().caught_up());
    }
    // It waits for the end of what is being appended, and for nothing else.
    let mut stream = replaying(&partition).await.follow();
    for _ in &expected {
        stream.next().await.unwrap();
    }
    let writer = writer(&partition);
    let (value, next) = tokio::join!(entry(&writer, 9, 7), stream.next());
    assert_eq!(got(next.unwrap().unwrap()), (Ok(value), 17, 23));
}

#[tokio::test(start_paused = true)]
async fn what_retention_cuts_off_is_reported_once() {
    let broker = broker();
    let partition = open(&broker).await;
    let (one, two) = (writer(&partition), writer(&partition));
    let first = entry(&one, 1, 9).await;
    let last = entry(&two, 2, 9).await;
    for start in 0..=9 {
        broker.delete_records("wal", 0, start).unwrap();
        let expected = match start {
            0 => vec![(Ok(first.clone()), 0, 8), (Ok(last.clone()), 9, 17)],
            9 => vec![(Ok(last.clone()), 9, 17)],
            _ => vec![(Err(Reason::CutOff), start, start), (Ok(last.clone()), 9, 17)],
        };
        assert_eq!(all(&mut replaying(&partition).await).await, expected, "{start}");
    }
    // Under a reader that has begun it.
    let source = replay(&partition, OffsetAt::Earliest).max_bytes(1).out_of_range(OutOfRange::FromStart);
    let mut reader = Reader::new(source.await.unwrap());
    while left(&reader).is_empty() {
        assert!(polled(reader.next(), 1).await.is_none());
        settle().await;
    }
    broker.delete_records("wal", 0, 16).unwrap();
    let found = all(&mut reader).await;
    assert!(matches!(found[..], [(Err(Reason::Corrupt(Corruption::Missing)), 9, 16)]), "{found:?}");
}

/// No append of an earlier holder can follow a barrier, so no entry of theirs is finished after it.
#[tokio::test(start_paused = true)]
async fn a_barrier_ends_the_entries_of_earlier_holders() {
    let broker = broker();
    let hold = async |seed| {
        let client = builder(&broker).seed(seed).build().await.unwrap();
        client.partition_client("wal", 0).exclusive("writer").await.unwrap()
    };
    let holder = hold(1).await;
    unfinished(&broker, &writer(&holder), 1, 3).await; // 1 to 3
    let other = open(&broker).await;
    let bystander = writer(&other);
    unfinished(&broker, &bystander, 2, 2).await; // 4, 5
    let next = hold(2).await;
    assert_eq!(next.holder().unwrap().barrier, 6);
    let mut reader = replaying(&next).await;
    let Some(Item::Entry(first)) = reader.next().await.unwrap() else { panic!() };
    assert!(Barrier::parse(&first).is_some());
    assert_eq!(got(reader.next().await.unwrap().unwrap()), (Err(Reason::Abandoned), 1, 3));
    let Some(Item::Entry(second)) = reader.next().await.unwrap() else { panic!() };
    assert_eq!((Barrier::parse(&second).unwrap().name.as_str(), second.first), ("writer", 6));
    assert!(reader.next().await.unwrap().is_none());
    // The other writer has no name, and may go on.
    assert_eq!(left(&reader), [(Err(Reason::Unfinished), 4, 5)]);
}

#[tokio::test(start_paused = true)]
async fn limits_are_those_of_the_reader() {
    let broker = broker();
    let partition = open(&broker).await;
    let writers: Vec<_> = (0..4).map(|_| writer(&partition)).collect();
    for (index, writer) in writers.iter().enumerate() {
        unfinished(&broker, writer, index as u64, 4).await; // 0 to 15
    }
    entry(&writer(&partition), 7, 9).await; // 16 to 24
    let reasons = async |mut reader: Reader<Replay>| {
        let found = all(&mut reader).await;
        (
            found.into_iter().map(|(value, first, last)| (value.err(), first, last)).collect::<Vec<_>>(),
            left(&reader).len(),
        )
    };
    let evicted = |first, last| (Some(Reason::Evicted), first, last);
    let (found, open) = reasons(replaying(&partition).await).await;
    assert_eq!((found, open), (vec![(None, 16, 24)], 4));
    let (found, open) = reasons(replaying(&partition).await.max_unfinished(3)).await;
    assert_eq!((found, open), (vec![evicted(0, 3), evicted(4, 7), (None, 16, 24)], 2));
    let (found, open) = reasons(replaying(&partition).await.max_span(14)).await;
    assert_eq!(
        (found, open),
        (vec![evicted(0, 3), evicted(4, 7), evicted(8, 11), (None, 16, 24)][..].to_vec(), 1)
    );
    let (found, open) = reasons(replaying(&partition).await.memory(14_000)).await;
    assert_eq!((found, open), (vec![evicted(0, 3), evicted(4, 7), evicted(8, 11), (None, 16, 24)], 1));
    let (found, open) = reasons(replaying(&partition).await.max_entry_bytes(6_000)).await;
    let too_large = |at| (Some(Reason::TooLarge), at, at);
    assert_eq!((found, open), ([0, 4, 8, 12, 16].map(too_large).to_vec(), 0));
}

/// An entry with a fragment in a batch that cannot be read is reported when reading goes on after it.
#[tokio::test(start_paused = true)]
async fn an_error_is_kept_until_the_batch_is_skipped() {
    let broker = broker();
    let wire = Wire::new(broker.connector());
    let (_client, partition) = open_over(&broker, &wire).await;
    let one = writer(&partition);
    entry(&one, 1, 4).await;
    let next = entry(&one, 2, 2).await;
    wire.rewrite::<FetchRequest>(|response| {
        let records = &mut response.responses[0].partitions[0].records;
        *records = records.take().map(|records| damaged(records, 1));
    });
    let mut reader = replaying(&partition).await;
    for _ in 0..3 {
        let error = reader.next().await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt { offsets: Some(offsets), .. } if *offsets == (1..2))
        );
    }
    let ended: Vec<Result<Item, Error>> = (&mut reader).collect().await;
    assert!(matches!(ended[..], [Err(_)]), "{ended:?}");
    assert_eq!(reader.skip_unreadable(), Some(1..2));
    let expected = [(Err(Reason::Corrupt(Corruption::Missing)), 0, 2), (Ok(next), 4, 5)];
    assert_eq!(all(&mut reader).await, expected);
}

/// Damages the batch at an offset.
fn damaged(bytes: Bytes, offset: i64) -> Bytes {
    let mut changed = bytes.to_vec();
    for batch in Batches::new(bytes).map_while(Result::ok).filter(|batch| batch.base_offset() == offset) {
        changed[batch.position() + BatchHeader::LEN + 3] ^= 0xff;
    }
    changed.into()
}

/// What is on the log by another hand than a writer's.
#[tokio::test(start_paused = true)]
async fn fragments_that_do_not_belong_together_are_reported() {
    let broker = broker();
    let partition = open(&broker).await;
    let id = EntryId { writer: [7; 16], number: 1 };
    let fragment = |index: u32, length: usize, part: &[u8]| {
        let mut headers = Headers::from([
            (Fragment::ENTRY, Some(id.to_string())),
            (Fragment::FRAGMENT, Some(format!("{index}/2"))),
            (Fragment::LENGTH, Some(length.to_string())),
            (Fragment::CRC32C, Some(format!("{:08x}", crc32c::crc32c(b"abcd")))),
        ]);
        if index == 0 {
            headers.push(Fragment::KEY, None::<&str>);
        }
        Record { headers, ..Record::new(None::<&str>, part) }
    };
    let corrupt = |corruption| Some(Reason::Corrupt(corruption));
    for (second, expected) in [
        (fragment(1, 4, b"cd"), None),
        (fragment(1, 4, b"ce"), corrupt(Corruption::Checksum)),
        (fragment(1, 4, b"c"), corrupt(Corruption::Length)),
        (fragment(1, 4, b"cde"), corrupt(Corruption::Length)),
        (fragment(1, 5, b"cde"), corrupt(Corruption::Headers)),
        (fragment(0, 4, b"ab"), corrupt(Corruption::Duplicate)),
    ] {
        let at = partition.get_offset(OffsetAt::Latest).await.unwrap();
        // In one batch, which writers do not do, and which is the same.
        partition.produce([fragment(0, 4, b"ab"), second]).await.unwrap();
        let mut reader = Reader::new(replay(&partition, at).await.unwrap());
        let found = all(&mut reader).await;
        let expected = expected.map_or_else(|| Ok(Bytes::from("abcd")), Err);
        assert_eq!(found, [(expected, at, at + 1)]);
        // It never is a part of the next one.
        partition.produce([fragment(1, 4, b"cd")]).await.unwrap();
    }
    assert_eq!(read(&partition).await.0.len(), 1);
}
