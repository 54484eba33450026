//! Writing: one record as it is, a larger one in fragments.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use kwal_client::{
    OnFailure, PartitionClient, Permit, Position, Produced,
    error::{Error, InDoubt, Outcome, Progress},
    record::Record,
};
use tokio::{
    sync::Mutex,
    task::{unconstrained, yield_now},
    time::{Instant, timeout_at},
};

use super::{
    DEFAULT_MAX_ENTRY_BYTES,
    header::{EntryId, Fragment, HeaderWriter},
};
use crate::{
    request::request,
    size::{BATCH, HEADER, RECORD, at_most},
    time::from_now,
};

/// Appends entries of any size to one partition: see the [module](super).
///
/// Cloning is cheap; clones are one writer, with one [id](EntryId) and one order. Settings are those of the
/// clone.
#[derive(Clone, Debug)]
pub struct Writer {
    partition: PartitionClient,
    fragment_bytes: usize,
    max_entry_bytes: usize,
    id: [u8; 16],
    /// The number of the next entry. Held while an entry is submitted.
    turn: Arc<Mutex<u64>>,
}

impl Writer {
    /// The least that [`fragment_bytes`](Self::fragment_bytes) can be.
    pub const MIN_FRAGMENT_BYTES: usize = 1_024;

    /// Creates a writer with an id of its own.
    pub fn new(partition: PartitionClient) -> Self {
        Self {
            id: partition.random_id(),
            partition,
            fragment_bytes: 1_000_000,
            max_entry_bytes: DEFAULT_MAX_ENTRY_BYTES,
            turn: Arc::default(),
        }
    }

    /// Sets how large the batch of a fragment may be, in bytes, before compression. A record that is not
    /// larger is appended as it is.
    ///
    /// Default 1,000,000, which is below the default of `max.message.bytes`, 1,048,588: the rest is for what
    /// cannot be compressed and grows. At least [`MIN_FRAGMENT_BYTES`](Self::MIN_FRAGMENT_BYTES), also if
    /// less is given.
    #[must_use]
    pub fn fragment_bytes(mut self, bytes: usize) -> Self {
        self.fragment_bytes = bytes.max(Self::MIN_FRAGMENT_BYTES);
        self
    }

    /// Sets how large the value of an entry may be, in bytes: what readers take, by their
    /// [own setting](super::Reader::max_entry_bytes). Default 128 MiB, as theirs.
    #[must_use]
    pub fn max_entry_bytes(mut self, bytes: usize) -> Self {
        self.max_entry_bytes = bytes;
        self
    }

    /// Returns the partition client.
    pub fn partition(&self) -> &PartitionClient {
        &self.partition
    }

    /// Appends a record of any size.
    ///
    /// Appends of one writer lie on the log in the order of their first polls. The next one begins when all
    /// of this one has been submitted, and does not wait for its acknowledgement.
    ///
    /// ```
    /// # kwal_testkit::doctest(9119, async {
    /// # use kwal_client::{Client, record::Record};
    /// # let client = Client::connect(["localhost:9119"]).await?;
    /// # client.controller_client().await?.create_topic("wal", 1, 1).await?;
    /// # let partition = client.partition_client("wal", 0).await?;
    /// use kwal_batching::entry::Writer;
    ///
    /// let writer = Writer::new(partition);
    /// let small = writer.append(Record::new("key", "value")).await?;
    /// assert_eq!((small.first, small.last, small.fragments), (Some(0), Some(0), 1));
    /// let large = writer.append(Record::new("key", vec![7; 2_500_000])).await?;
    /// assert_eq!((large.first, large.last, large.fragments), (Some(1), Some(3), 3));
    /// # Ok(()) });
    /// ```
    pub fn append(&self, record: Record) -> Append<'_> {
        Append { writer: self, record, deadline: None }
    }
}

/// An append of an entry. Nothing happens until it is awaited.
///
/// # Errors
/// That of the first batch that failed, with the [outcome](Error::outcome) of the whole entry:
///
/// * [`NotApplied`](Outcome::NotApplied): at least one fragment is not on the log and never will be, so no
///   reader returns the entry, now or later. Those that are on the log are reported as
///   [incomplete](super::Incomplete).
/// * [`Unknown`](Outcome::Unknown): each fragment is on the log or may be there. [`Error::in_doubt`] is the
///   handle of the last one that is in doubt: the log has no hole, so if that one is there, all are, unless
///   the log [lost](kwal_client::error::ErrorKind::DataLoss) what was acknowledged.
///   [`PartitionClient::resolve`] finds out, and with it whether the log has the entry.
///
/// [`InvalidInput`](kwal_client::error::ErrorKind::InvalidInput) for a value above
/// [`max_entry_bytes`](Writer::max_entry_bytes), for key and headers that do not fit into the first fragment,
/// and for a header named [`kwal.entry`](Fragment::ENTRY); otherwise as
/// [`PartitionClient::produce`]. On a compacted topic, what does not fit into one batch is
/// [rejected](super#compacted-topics).
///
/// # Cancellation safety
/// What was submitted when it is dropped is finished, as with [`Permit::submit`]; the rest is not sent. If
/// that is only a part of the entry, the log has fragments of it that readers report as
/// [incomplete](super::Incomplete) and never return. The next append of this writer goes on after them.
///
/// Appends of a writer take turns. A future that is polled once and then neither polled nor dropped keeps its
/// turn, and the others wait.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Append<'a> {
    writer: &'a Writer,
    record: Record,
    deadline: Option<Duration>,
}

impl Append<'_> {
    async fn run(self) -> Result<Appended, Error> {
        let Self { writer, record, deadline } = self;
        let Writer { partition, .. } = writer;
        let limit = deadline.unwrap_or_else(|| partition.operation_deadline());
        let at = from_now(limit);
        let split = Split::of(writer, &record)?;
        // Must not yield to tokio's cooperative budget: a later call could overtake this one.
        let turn = timeout_at(at, unconstrained(writer.turn.lock())).await;
        let mut turn =
            turn.map_err(|_| partition.append_late(limit, Progress::Queue, Outcome::NotApplied))?;
        let mut flight = Flight::new(partition, at);
        let fragments = match split {
            None => {
                flight.submit(record).await;
                1
            }
            Some(split) => {
                let entry = EntryId { writer: writer.id, number: *turn };
                *turn = turn.wrapping_add(1);
                let crc32c = checksum(&split.value).await;
                let count = split.count;
                let mut fragments = split.fragments(entry, crc32c, record);
                while flight.goes_on()
                    && let Some(fragment) = fragments.next()
                {
                    flight.submit(fragment).await;
                }
                flight.is_cut |= fragments.next().is_some();
                count
            }
        };
        drop(turn);
        flight.end(fragments, limit).await
    }
}

request!(Append<'a> -> Result<Appended, Error>);

/// Where an entry is on the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Appended {
    /// The offset of its first record; `None` if the broker did not report it.
    pub first: Option<i64>,
    /// The offset of its last record; `None` if the broker did not report it. Those of other writers may lie
    /// between them.
    pub last: Option<i64>,
    /// How many records it is: 1 unless it was split.
    pub fragments: u32,
    /// The size of its batches on the wire and in the log, in bytes.
    pub wire_bytes: usize,
    /// Where reading goes on after it, if its offset is known: see [`Produced::position`].
    pub position: Option<Position>,
}

/// How many batches are submitted at a time: more than are in flight, so that one is ready when there is
/// room, and few beside the memory budget.
const SUBMITTED: usize = 8;
/// How much of a value is summed up before others get a turn.
const SUMMED: usize = 4 << 20;

/// How a record is split.
#[derive(Debug)]
struct Split {
    value: Bytes,
    /// The bytes of the value in the first fragment.
    first: usize,
    /// Those in each further one but the last.
    further: usize,
    count: u32,
}

impl Split {
    /// Decides how a record is split; `None` if it is not.
    fn of(writer: &Writer, record: &Record) -> Result<Option<Self>, Error> {
        let Writer { partition, fragment_bytes, max_entry_bytes, .. } = writer;
        if record.headers.get(Fragment::ENTRY).is_some() {
            let reason = format!("a record cannot have the header {}, which fragments have", Fragment::ENTRY);
            return Err(partition.invalid_append(reason));
        }
        let length = record.value.as_ref().map_or(0, Bytes::len);
        let beside_value = BATCH + at_most(record) - length;
        if beside_value.saturating_add(length) <= *fragment_bytes {
            return Ok(None);
        }
        if length > *max_entry_bytes {
            let reason = format!(
                "an entry of {length} bytes exceeds the limit of {max_entry_bytes}: raise `max_entry_bytes` here and where it is read"
            );
            return Err(partition.invalid_append(reason));
        }
        let further = fragment_bytes - BATCH - RECORD - Fragment::MAX_LEN;
        let beside_value = beside_value + Fragment::MAX_LEN + Fragment::KEY.len() + HEADER;
        let split = fragment_bytes.checked_sub(beside_value).and_then(|first| {
            let value = record.value.clone()?;
            let count = u32::try_from(1 + length.saturating_sub(first).div_ceil(further)).ok()?;
            (count > 1).then_some(Self { value, first, further, count })
        });
        match split {
            Some(split) => Ok(Some(split)),
            None => {
                let reason = format!(
                    "key and headers take {beside_value} bytes, and have to fit into a fragment of {fragment_bytes}: raise `fragment_bytes`, if the topic's `max.message.bytes` allows it"
                );
                Err(partition.invalid_append(reason))
            }
        }
    }

    /// Returns the records of the fragments.
    fn fragments(self, entry: EntryId, crc32c: u32, record: Record) -> impl Iterator<Item = Record> {
        let Self { mut value, first, further, count } = self;
        let Record { key, headers, timestamp, .. } = record;
        let writer = HeaderWriter::new(entry, count, value.len(), crc32c);
        let mut own = Some((key, headers));
        (0..count).map(move |index| {
            let len = if index == 0 { first } else { further };
            let part = value.split_to(len.min(value.len()));
            let headers = match own.take() {
                Some((key, headers)) => writer.first(key, headers),
                None => writer.further(index),
            };
            Record { key: None, value: Some(part), headers, timestamp }
        })
    }
}

/// Returns the CRC-32C of a value.
async fn checksum(value: &[u8]) -> u32 {
    let mut crc32c = 0;
    for (index, part) in value.chunks(SUMMED).enumerate() {
        if index > 0 {
            yield_now().await;
        }
        crc32c = crc32c::crc32c_append(crc32c, part);
    }
    crc32c
}

/// The batches of one entry that were submitted, and what became of them.
struct Flight<'a> {
    partition: &'a PartitionClient,
    /// When all of it ends.
    at: Instant,
    /// In the order of the log.
    appends: VecDeque<kwal_client::Append>,
    first: Option<Produced>,
    last: Option<Produced>,
    wire_bytes: usize,
    /// The first error.
    failed: Option<Error>,
    /// Of the last batch that may be on the log.
    in_doubt: Option<InDoubt>,
    /// Whether some batch is certainly not on the log.
    is_cut: bool,
}

impl<'a> Flight<'a> {
    fn new(partition: &'a PartitionClient, at: Instant) -> Self {
        Self {
            partition,
            at,
            appends: VecDeque::new(),
            first: None,
            last: None,
            wire_bytes: 0,
            failed: None,
            in_doubt: None,
            is_cut: false,
        }
    }

    fn goes_on(&self) -> bool {
        self.failed.is_none()
    }

    /// Submits a batch of one record, unless an earlier one has failed by then.
    async fn submit(&mut self, record: Record) {
        // Where batches do not fail together, one that follows a failed one would be appended.
        let most = if self.partition.on_failure() == OnFailure::Stop { SUBMITTED } else { 1 };
        while self.appends.len() >= most && self.goes_on() {
            poll_fn(|cx| self.poll_one(cx)).await;
        }
        if self.goes_on()
            && let Err(error) = self.try_submit(record).await
        {
            self.failed.get_or_insert(error);
        }
        self.is_cut |= !self.goes_on();
    }

    async fn try_submit(&mut self, record: Record) -> Result<(), Error> {
        // Before it is encoded: what waits here holds only the caller's record.
        let permit = self.reserve(BATCH + at_most(&record)).await?;
        if !self.goes_on() {
            return Ok(());
        }
        let batch = self.partition.encode([record])?;
        let permit = match batch.size_in_bytes() {
            // What cannot be compressed may become larger.
            size if size > permit.size() => {
                drop(permit);
                self.reserve(size).await?
            }
            _ => permit,
        };
        if self.goes_on() {
            let left = self.at.saturating_duration_since(Instant::now());
            self.appends.push_back(permit.deadline(left).submit(batch));
        }
        Ok(())
    }

    /// Waits for a permit, and takes the results that come meanwhile.
    async fn reserve(&mut self, bytes: usize) -> Result<Permit, Error> {
        let left = self.at.saturating_duration_since(Instant::now());
        let partition = self.partition;
        let mut reserve = pin!(partition.reserve(bytes).deadline(left).into_future());
        poll_fn(|cx| {
            while !self.appends.is_empty() && self.poll_one(cx).is_ready() {}
            reserve.as_mut().poll(cx)
        })
        .await
    }

    /// Takes the result of the first batch that has none.
    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(append) = self.appends.front_mut() else { return Poll::Ready(()) };
        let Poll::Ready(result) = Pin::new(append).poll(cx) else { return Poll::Pending };
        self.appends.pop_front();
        match result {
            Ok(produced) => {
                self.first.get_or_insert(produced);
                self.last = Some(produced);
                self.wire_bytes += produced.wire_bytes;
            }
            Err(error) => {
                match error.outcome() {
                    Outcome::NotApplied => self.is_cut = true,
                    Outcome::Unknown => self.in_doubt = error.in_doubt().cloned(),
                }
                self.failed.get_or_insert(error);
            }
        }
        Poll::Ready(())
    }

    /// Waits for all results.
    async fn end(mut self, fragments: u32, limit: Duration) -> Result<Appended, Error> {
        while !self.appends.is_empty() {
            poll_fn(|cx| self.poll_one(cx)).await;
        }
        let Self { first, last, wire_bytes, failed, in_doubt, is_cut, .. } = self;
        match failed {
            None => Ok(Appended {
                first: first.and_then(|first| first.base_offset),
                last: last.and_then(|last| last.base_offset),
                fragments,
                wire_bytes,
                position: last.and_then(|last| last.position()),
            }),
            Some(error) => Err(match is_cut {
                true => error.of_several(limit, Outcome::NotApplied, None),
                false => error.of_several(limit, Outcome::Unknown, in_doubt),
            }),
        }
    }
}
