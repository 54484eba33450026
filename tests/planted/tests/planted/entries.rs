//! Entries of several fragments: on a topic of their own, since what is on it is not what was appended.

use kwal_client::{
    PartitionClient,
    batching::entry::{Corruption, Entry, Fragment, Item, Reader, Reason, Source, Writer},
    error::Outcome,
    record::Record,
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Fault, FaultTarget};
use tokio::time::timeout;

use crate::{
    consumer::{Replay, replay},
    fixture::{Fixture, MINUTE},
};

/// How many fragments the entries here have.
const FRAGMENTS: usize = 6;

/// What a reader returned, in order: the first byte of a whole entry and its offset, or why it is not whole.
type Got = Vec<Result<(u8, i64), Reason>>;

async fn open(fixture: &Fixture) -> PartitionClient {
    fixture.cluster.create_topic("entries", 1).unwrap();
    fixture.client().await.partition_client("entries", 0).await.unwrap()
}

fn writer(partition: &PartitionClient) -> Writer {
    Writer::new(partition.clone()).fragment_bytes(Writer::MIN_FRAGMENT_BYTES)
}

fn value(seed: u8) -> Vec<u8> {
    (0..720 * FRAGMENTS).map(|at| if at == 0 { seed } else { (at * 7 + usize::from(seed)) as u8 }).collect()
}

async fn append(writer: &Writer, seed: u8) {
    writer.append(Record::new("key", value(seed))).await.unwrap();
}

/// Appends so many fragments of an entry, of which the next one is rejected. Returns the outcome.
async fn reject(fixture: &Fixture, writer: &Writer, seed: u8, after: usize) -> Outcome {
    fixture
        .cluster
        .on(FaultTarget::api(ApiKey::PRODUCE).after(after), Fault::Error(ErrorCode::INVALID_TIMESTAMP));
    let error = writer.append(Record::new("key", value(seed))).await.unwrap_err();
    fixture.cluster.clear_faults();
    error.outcome()
}

fn got(item: Item) -> Result<(u8, i64), Reason> {
    match item {
        Item::Entry(Entry { value: Some(found), last, .. }) => {
            let seed = found.first().copied().unwrap_or_default();
            // Whatever else it is, is none of those that were appended.
            Ok((if found == value(seed) { seed } else { 0 }, last))
        }
        Item::Incomplete(incomplete) => Err(incomplete.reason),
        item => panic!("{item:?}"),
    }
}

async fn next<S: Source>(reader: &mut Reader<S>) -> Option<Result<(u8, i64), Reason>> {
    timeout(MINUTE, reader.next()).await.ok()?.unwrap().map(got)
}

async fn all<S: Source>(reader: &mut Reader<S>) -> Got {
    let mut all = Vec::new();
    while let Some(one) = next(reader).await {
        all.push(one);
    }
    all
}

async fn read(partition: &PartitionClient) -> Reader<Replay> {
    Reader::new(replay(partition, 0).await.unwrap())
}

/// Copies the fragments of one writer and of another one to the log, in turn.
async fn interleave(fixture: &Fixture, partition: &PartitionClient) -> i64 {
    for seed in [1, 2] {
        append(&writer(partition), seed).await;
    }
    let fragments = fixture.cluster.records("entries", 0).unwrap();
    let (one, other) = fragments.split_at(FRAGMENTS);
    for (one, other) in one.iter().zip(other) {
        for fragment in [one, other] {
            copy(partition, fragment, |_| ()).await;
        }
    }
    2 * FRAGMENTS as i64
}

/// Appends a copy of a fragment.
async fn copy(
    partition: &PartitionClient,
    fragment: &kwal_protocol::record::OwnedRecord,
    change: impl FnOnce(&mut Vec<u8>),
) {
    let mut value = fragment.value.as_deref().unwrap().to_vec();
    change(&mut value);
    let record = Record { headers: fragment.headers.clone(), ..Record::new(None::<&str>, value) };
    partition.produce([record]).await.unwrap();
}

pub(crate) async fn interleaved() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    let from = interleave(&fixture, &partition).await;
    let mut reader = Reader::new(replay(&partition, from).await.unwrap());
    let last = from + 2 * FRAGMENTS as i64 - 1;
    fixture.expect(
        all(&mut reader).await == [Ok((1, last - 1)), Ok((2, last))],
        "interleaved entries are not returned whole",
    );
    fixture
}

pub(crate) async fn abandoned() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    let writer = writer(&partition);
    reject(&fixture, &writer, 1, 3).await;
    append(&writer, 2).await;
    let found = all(&mut read(&partition).await).await;
    fixture.expect(
        found == [Err(Reason::Abandoned), Ok((2, 8))],
        "an unfinished entry is not reported, or is returned",
    );
    fixture
}

pub(crate) async fn damaged() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    append(&writer(&partition), 1).await;
    for fragment in fixture.cluster.records("entries", 0).unwrap() {
        let index = Fragment::parse(&fragment).unwrap().unwrap().index;
        copy(&partition, &fragment, |value| value[1] ^= u8::from(index == 3)).await;
    }
    let found = all(&mut read(&partition).await).await;
    let expected = [Ok((1, 5)), Err(Reason::Corrupt(Corruption::Checksum))];
    fixture.expect(found == expected, "a damaged entry is returned");
    fixture
}

pub(crate) async fn resumed() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    let from = interleave(&fixture, &partition).await;
    let mut reader = Reader::new(replay(&partition, from).await.unwrap());
    // The other entry is unfinished by then.
    let first = next(&mut reader).await;
    let checkpoint = reader.checkpoint();
    let mut resumed = Reader::new(replay(&partition, checkpoint.from).await.unwrap()).resume(&checkpoint);
    let last = from + 2 * FRAGMENTS as i64 - 1;
    fixture.expect(first == Some(Ok((1, last - 1))), "an entry is not returned");
    fixture
        .expect(all(&mut resumed).await == [Ok((2, last))], "a reader that resumes returns something else");
    fixture
}

pub(crate) async fn cut_off() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    append(&writer(&partition), 1).await;
    let mut reader = Reader::new(replay(&partition, 2).await.unwrap());
    fixture.expect(all(&mut reader).await == [Err(Reason::CutOff)], "an entry is not reported once");
    fixture
}

pub(crate) async fn rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    let writer = writer(&partition).fragment_bytes(0);
    // Far more fragments than are in flight.
    let large = Record::new("key", vec![1; 50 * Writer::MIN_FRAGMENT_BYTES]);
    fixture
        .cluster
        .on(FaultTarget::api(ApiKey::PRODUCE).after(3), Fault::Error(ErrorCode::INVALID_TIMESTAMP));
    let error = writer.append(large).await.unwrap_err();
    fixture.expect(error.outcome() == Outcome::NotApplied, "an entry without a fragment is in doubt");
    let there = fixture.cluster.records("entries", 0).unwrap().len();
    fixture.expect(there == 3, "fragments follow one that was rejected");
    fixture
}

pub(crate) async fn shut_out() -> Fixture {
    let fixture = Fixture::one_broker();
    drop(open(&fixture).await);
    let hold = async || {
        let client = fixture.client().await;
        client.partition_client("entries", 0).exclusive("writer").await.unwrap()
    };
    let holder = hold().await;
    reject(&fixture, &writer(&holder), 1, 3).await;
    let next_holder = hold().await;
    let mut reader = read(&next_holder).await;
    let reported = all(&mut reader).await.contains(&Err(Reason::Abandoned));
    fixture.expect(reported && reader.unfinished().next().is_none(), "what nobody can finish is unfinished");
    fixture
}

pub(crate) async fn followed() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    append(&writer(&partition), 1).await;
    let mut reader = Reader::new(replay(&partition, 0).end(3).await.unwrap());
    let before = all(&mut reader).await;
    let mut stream = reader.follow();
    let found = next(&mut stream).await;
    fixture.expect(before.is_empty() && found == Some(Ok((1, 5))), "a stream does not go on with an entry");
    fixture
}

pub(crate) async fn unfinished() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = open(&fixture).await;
    for seed in 0..8 {
        reject(&fixture, &writer(&partition), seed, 4).await;
    }
    let mut reader = read(&partition).await.memory(16 << 10);
    let found = all(&mut reader).await;
    let unfinished = reader.unfinished().count();
    let is_bounded = unfinished < 6 && found.len() + unfinished == 8;
    fixture.expect(
        is_bounded && found.iter().all(|one| *one == Err(Reason::Evicted)),
        "unfinished entries take any memory",
    );
    fixture
}
