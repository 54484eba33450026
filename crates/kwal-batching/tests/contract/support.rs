//! A broker in memory, logs with everything that may be on one, and readers that are polled a few times.

use std::{
    ops::Range,
    pin::pin,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kwal_batching::{
    producer::{Ack, BatchProducer},
    reader::{Replay, Summary},
};
use kwal_client::{
    Client, ClientBuilder, GapReason, PartitionClient,
    error::{Error, ErrorKind},
    record::Record,
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::FetchRequest,
    record::{BatchBuilder, BatchHeader, Compression, Headers},
};
use kwal_testkit::{
    EmbeddedCluster, Fault,
    wire::{Decision, Frame, Wire},
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

/// Starts a broker with the topic `wal` of two partitions.
pub(crate) fn broker() -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).start_in_memory().unwrap()
}

pub(crate) fn builder(broker: &EmbeddedCluster) -> ClientBuilder {
    ClientBuilder::new(broker.bootstrap()).connector(broker.connector()).seed(7)
}

/// Opens partition 0 of `wal`.
pub(crate) async fn open(broker: &EmbeddedCluster) -> PartitionClient {
    builder(broker).build().await.unwrap().partition_client("wal", 0).await.unwrap()
}

/// Opens partition 0 of `wal` over a wire. The client is returned too, which owns the connections.
pub(crate) async fn open_over(broker: &EmbeddedCluster, wire: &Wire) -> (Client, PartitionClient) {
    let client =
        ClientBuilder::new(broker.bootstrap()).connector(wire.clone()).seed(7).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    (client, partition)
}

/// Appends one batch with a record for each offset of a range, whose value is its offset.
pub(crate) async fn append(partition: &PartitionClient, offsets: Range<i64>) {
    let records: Vec<_> =
        offsets.clone().map(|offset| Record::new(None::<&str>, offset.to_string())).collect();
    let produced = partition.produce(records).await.unwrap();
    assert_eq!(produced.offsets(), Some(offsets));
}

/// Encodes a batch of values.
pub(crate) fn batch(values: &[&str], compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new(compression);
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &Headers::new());
    }
    BytesMut::from(&builder.finish().unwrap().to_bytes()[..])
}

/// Changes the header of a batch and updates its checksum.
pub(crate) fn with_header(mut batch: BytesMut, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(&batch).unwrap();
    change(&mut header);
    batch[..BatchHeader::LEN].copy_from_slice(&header.to_bytes());
    seal(&mut batch);
    batch.freeze()
}

/// The position after the checksum, from which it is computed.
const CRC_START: usize = 21;

pub(crate) fn seal(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// What compaction leaves of a batch of which it removes all records.
pub(crate) fn emptied(count: i32) -> Bytes {
    let mut empty = batch(&["gone"], Compression::None);
    empty.truncate(BatchHeader::LEN);
    with_header(empty, |header| {
        header.batch_length = (BatchHeader::LEN - BatchHeader::LOG_OVERHEAD) as i32;
        header.count = 0;
        header.last_offset_delta = count - 1;
    })
}

/// Appends a batch of a transaction, with a record for each offset of a range.
pub(crate) fn transactional(broker: &EmbeddedCluster, producer_id: i64, sequence: i32, offsets: Range<i64>) {
    let values: Vec<_> = offsets.clone().map(|offset| offset.to_string()).collect();
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    let batch = with_header(batch(&values, Compression::None), |header| {
        header.attributes |= 1 << 4;
        (header.producer_id, header.producer_epoch, header.base_sequence) = (producer_id, 0, sequence);
    });
    assert_eq!(broker.append_raw("wal", 0, batch).unwrap(), offsets.end);
}

/// Ends the transaction of a producer: one more offset.
pub(crate) fn marker(broker: &EmbeddedCluster, producer_id: i64, committed: bool) -> i64 {
    broker.end_transaction("wal", 0, (producer_id, 0), committed).unwrap()
}

/// Reads a replay batch by batch. Returns the offsets of its records, whose values are these offsets.
pub(crate) async fn drain(replay: &mut Replay) -> Vec<i64> {
    let mut offsets = Vec::new();
    while let Some(batch) = replay.next_batch().await.unwrap() {
        offsets.extend(records_of(&batch));
    }
    offsets
}

/// Returns the offsets of a batch's records, whose values are these offsets.
pub(crate) fn records_of(batch: &kwal_client::FetchedBatch) -> Vec<i64> {
    let mut offsets = Vec::new();
    batch
        .for_each(|record| {
            assert_eq!(record.value.unwrap(), record.offset.to_string().as_bytes());
            offsets.push(record.offset);
        })
        .unwrap();
    offsets
}

/// Returns the ranges without records, and asserts that all offsets are accounted for.
#[track_caller]
pub(crate) fn gaps(summary: &Summary) -> Vec<(Range<i64>, GapReason)> {
    let Range { start, end } = summary.offsets;
    assert_eq!(summary.records + summary.without_records.total(), (end - start) as u64, "{summary:?}");
    summary.gaps.iter().map(|gap| (gap.offsets.clone(), gap.reason)).collect()
}

#[track_caller]
pub(crate) fn corrupt(error: &Error) -> Option<Range<i64>> {
    let ErrorKind::Corrupt { offsets, .. } = error.kind() else { panic!("{error:?}") };
    offsets.clone()
}

/// Lets all tasks run until each of them waits. Under the paused clock, a millisecond passes.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// Awaits a future. Returns its output and how long it took, by tokio's clock.
pub(crate) async fn timed<T>(future: impl IntoFuture<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let result = future.await;
    (result, begun.elapsed())
}

/// Polls a future at most `times` times, then drops it. `None` if it was not completed by then.
pub(crate) async fn polled<T>(future: impl IntoFuture<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future.into_future());
    let mut left = times;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The offsets and epochs that fetches over a wire asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetches(Arc<Mutex<Vec<(i64, i32)>>>);

impl Fetches {
    pub(crate) fn record(wire: &Wire) -> Self {
        let fetches = Self::default();
        let seen = Arc::clone(&fetches.0);
        wire.on_request(move |frame: &Frame| {
            if frame.api == ApiKey::FETCH {
                let request = frame.request::<FetchRequest>().unwrap();
                let partition = &request.topics[0].partitions[0];
                seen.lock().unwrap().push((partition.fetch_offset, partition.last_fetched_epoch));
            }
            Decision::Pass
        });
        fetches
    }

    pub(crate) fn offsets(&self) -> Vec<i64> {
        self.0.lock().unwrap().iter().map(|fetch| fetch.0).collect()
    }

    pub(crate) fn all(&self) -> Vec<(i64, i32)> {
        self.0.lock().unwrap().clone()
    }
}

/// A source of numbers.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }
}

/// Returns a record with a value. All have the same time, so that their sizes are the same in each run; not
/// one of long ago, since brokers forget producers by it.
pub(crate) fn record(value: impl Into<Vec<u8>>) -> Record {
    static NOW: LazyLock<OffsetDateTime> = LazyLock::new(OffsetDateTime::now_utc);
    let mut record = Record::new(None::<&str>, value.into());
    record.timestamp = *NOW;
    record
}

/// Returns a record with a value of `bytes` bytes.
pub(crate) fn large(bytes: usize) -> Record {
    record(vec![b'x'; bytes])
}

/// Opens partition 0 over a wire, with a batch acknowledged already: from here on appends take one request.
pub(crate) async fn open_warm(broker: &EmbeddedCluster) -> (Wire, Client, PartitionClient) {
    let wire = Wire::new(broker.connector());
    let (client, partition) = open_over(broker, &wire).await;
    partition.produce(vec![record("warm")]).await.unwrap();
    (wire, client, partition)
}

/// Returns the values in the log of partition 0 of `wal`, in order.
pub(crate) fn values(broker: &EmbeddedCluster) -> Vec<String> {
    let records = broker.records("wal", 0).unwrap();
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

/// Returns the number of records of each batch in the log of partition 0 of `wal`.
pub(crate) fn sizes(broker: &EmbeddedCluster) -> Vec<i32> {
    broker.log("wal", 0).unwrap().iter().map(|batch| batch.header().count).collect()
}

/// Returns how many requests to append a wire has carried.
pub(crate) fn appends(wire: &Wire) -> u64 {
    wire.requests(ApiKey::PRODUCE)
}

/// Polls a future once.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

/// Hands records over, and returns their results.
pub(crate) async fn send(producer: &BatchProducer, values: impl IntoIterator<Item = usize>) -> Vec<Ack> {
    let mut acks = Vec::new();
    for value in values {
        acks.push(producer.reserve().await.unwrap().send(record(value.to_string())));
    }
    acks
}

/// Keeps the responses to appends from arriving until it is released.
pub(crate) struct Held {
    wire: Wire,
    is_held: Arc<AtomicBool>,
}

impl Held {
    pub(crate) fn new(wire: &Wire) -> Self {
        let is_held = Arc::new(AtomicBool::new(true));
        let holds = Arc::clone(&is_held);
        wire.on_response(move |frame| match frame.api == ApiKey::PRODUCE && holds.load(Ordering::Relaxed) {
            true => Decision::Hold,
            false => Decision::Pass,
        });
        Self { wire: wire.clone(), is_held }
    }

    pub(crate) fn release(&self) {
        self.is_held.store(false, Ordering::Relaxed);
        self.wire.release();
    }
}

/// Faults that a call outlasts, and none.
pub(crate) const FAULTS: [Option<Fault>; 6] = [
    None,
    Some(Fault::Drop),
    Some(Fault::LoseReply),
    Some(Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
    Some(Fault::DelayReply(Duration::from_millis(300))),
    Some(Fault::Throttle(Duration::from_millis(300))),
];
