//! The log of one partition: whole batches in memory, found by offset.

use std::{collections::VecDeque, ops::Range};

use bytes::{Bytes, BytesMut};
use kwal_protocol::record::{BatchError, BatchErrorKind, BatchHeader, Batches, crc};

/// Batches by ascending offset.
#[derive(Debug, Default)]
pub(crate) struct Log {
    batches: VecDeque<Stored>,
    start: i64,
    end: i64,
    /// Each leader epoch with records, and its first offset; both ascend.
    epochs: Vec<(i32, i64)>,
    /// Offsets below the end that no batch or no record has, because of compaction or of a raw append. They
    /// ascend and do not touch each other.
    emptied: Vec<Range<i64>>,
    /// The first batch with the newest timestamp. Kafka reports it even after its records were deleted.
    newest: Option<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    next_offset: i64,
    max_timestamp: i64,
    bytes: Bytes,
}

/// The limits of a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimit {
    /// Batches from this offset on are not read.
    pub(crate) below: i64,
    /// In bytes; the last batch is truncated there, as in Kafka.
    pub(crate) bytes: usize,
    /// Whether the first batch is returned completely even if it is larger (KIP-74).
    pub(crate) first_anyway: bool,
}

impl Log {
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Creates a log whose first leader has this epoch.
    pub(crate) fn new(leader_epoch: i32) -> Self {
        Self { epochs: vec![(leader_epoch, 0)], ..Self::default() }
    }

    /// Creates an empty log that starts at an offset.
    pub(crate) fn starting_at(offset: i64) -> Self {
        Self { start: offset, end: offset, ..Self::default() }
    }

    /// Appends a batch whose header becomes `header`.
    ///
    /// The base offset is at least the log end offset; more leaves a hole.
    ///
    /// The bytes are changed in place if the log is their only owner, and copied otherwise. The checksum is
    /// computed again only if necessary.
    pub(crate) fn append(&mut self, bytes: Bytes, header: &BatchHeader) {
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let Some((place, _)) = bytes.split_first_chunk_mut::<{ BatchHeader::LEN }>() else { return };
        let (old, new) = (*place, header.to_bytes());
        *place = new;
        if old[CHECKSUM_FROM..] != new[CHECKSUM_FROM..] {
            let crc = crc::checksum(&bytes[CHECKSUM_FROM..]);
            bytes[CHECKSUM_FROM - 4..CHECKSUM_FROM].copy_from_slice(&crc.to_be_bytes());
        }
        self.begin_epoch(header.partition_leader_epoch, header.base_offset);
        self.empty(self.end..header.base_offset);
        self.end = header.next_offset();
        self.push(Stored {
            next_offset: self.end,
            max_timestamp: header.max_timestamp,
            bytes: bytes.freeze(),
        });
    }

    fn push(&mut self, batch: Stored) {
        if self.newest.as_ref().is_none_or(|newest| newest.max_timestamp < batch.max_timestamp) {
            self.newest = Some(batch.clone());
        }
        self.batches.push_back(batch);
    }

    /// Begins a leader epoch at an offset. Epochs without records are removed.
    pub(crate) fn begin_epoch(&mut self, epoch: i32, start: i64) {
        if self.epochs.last().is_some_and(|(known, _)| *known >= epoch) {
            return;
        }
        while self.epochs.last().is_some_and(|(_, known)| *known >= start) {
            self.epochs.pop();
        }
        self.epochs.push((epoch, start));
    }

    /// Forgets the leader epochs from this one on.
    ///
    /// Their records count as records of the last epoch before, or else of this one.
    pub(crate) fn rewind_epochs(&mut self, epoch: i32) {
        self.epochs.retain(|(known, _)| *known < epoch);
        if self.epochs.is_empty() {
            self.epochs.push((epoch, self.start));
        }
    }

    /// Appends what another log has after the end of this one; returns the batches.
    pub(crate) fn copy(&mut self, from: &Self) -> Vec<(BatchHeader, Bytes)> {
        let mut copied_from = self.end;
        if self.end < from.start {
            *self = Self::starting_at(from.start);
            copied_from = 0;
        }
        let end_before = self.end;
        let mut copied = Vec::new();
        for batch in from.batches.range(from.index(self.end)..) {
            let Ok(header) = BatchHeader::parse(&batch.bytes) else { continue };
            self.end = batch.next_offset;
            self.push(batch.clone());
            copied.push((header, batch.bytes.clone()));
        }
        self.end = from.end.max(self.end);
        for emptied in from.emptied.iter().filter(|emptied| emptied.end > copied_from) {
            self.empty(emptied.start.max(copied_from)..emptied.end);
        }
        // Also if there are only offsets without a batch.
        if self.end > end_before {
            // Not from the batches, whose epochs can be later ones after a [rewind](Self::rewind_epochs).
            let with_records = from.epochs.iter().filter(|(_, start)| *start < self.end);
            self.epochs = with_records.copied().collect();
        }
        copied
    }

    /// Removes the records from `offset` on, in whole batches.
    pub(crate) fn truncate(&mut self, offset: i64) {
        let kept = self.batches.partition_point(|batch| batch.next_offset <= offset);
        self.batches.truncate(kept);
        self.newest = None;
        for batch in std::mem::take(&mut self.batches) {
            self.push(batch);
        }
        self.end = offset.clamp(self.start, self.end);
        self.emptied.retain_mut(|emptied| {
            emptied.end = emptied.end.min(offset);
            !emptied.is_empty()
        });
        let epochs = self.epochs.partition_point(|(_, start)| *start < offset);
        self.epochs.truncate(epochs);
    }

    /// Returns up to where two logs agree: the end of the last leader epoch that both have (KIP-101).
    pub(crate) fn agreement(&self, other: &Self) -> i64 {
        let mut end = self.end;
        for (epoch, start) in self.epochs.iter().rev() {
            if let Ok(known) = other.epochs.binary_search_by_key(epoch, |(epoch, _)| *epoch) {
                let other_end = other.epochs.get(known + 1).map_or(other.end, |(_, next)| *next);
                return end.min(other_end);
            }
            // The other one has deleted it.
            if other.epochs.first().is_some_and(|(first, start)| epoch < first && *start == other.start) {
                return end.min(other.start.max(self.start));
            }
            end = *start;
        }
        end.min(self.start)
    }

    /// Returns the batches from the one with `offset` on.
    pub(crate) fn read(&self, offset: i64, limit: ReadLimit) -> Bytes {
        let first = self.index(offset);
        let last = self.index(limit.below);
        let Some(batch) = self.batches.get(first).filter(|_| first < last) else { return Bytes::new() };
        let mut room = limit.bytes;
        if limit.first_anyway {
            room = room.max(batch.bytes.len());
        } else if batch.bytes.len() > room {
            return Bytes::new();
        }
        if batch.bytes.len() >= room {
            return batch.bytes.slice(..room);
        }
        let rest = self.batches.range(first + 1..last);
        let size = rest.clone().try_fold(batch.bytes.len(), |size, batch| {
            let size = size + batch.bytes.len();
            if size < room { Ok(size) } else { Err(room) }
        });
        let size = size.unwrap_or_else(|full| full);
        if size == batch.bytes.len() {
            return batch.bytes.clone();
        }
        let mut joined = BytesMut::with_capacity(size);
        for batch in self.batches.range(first..last) {
            let take = batch.bytes.len().min(size - joined.len());
            joined.extend_from_slice(&batch.bytes[..take]);
            if joined.len() == size {
                break;
            }
        }
        joined.freeze()
    }

    /// Returns the size of the batches from the one with `offset` up to another offset, at most `enough`.
    pub(crate) fn bytes_between(&self, offset: i64, below: i64, enough: usize) -> usize {
        let mut sum = 0;
        let first = self.index(offset);
        for batch in self.batches.range(first..self.index(below).max(first)) {
            sum += batch.bytes.len();
            if sum >= enough {
                return enough;
            }
        }
        sum
    }

    /// Returns all batches.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.batches.iter().map(|batch| batch.bytes.clone())
    }

    /// Deletes the records before `offset`, in whole batches; returns the headers of deleted batches.
    ///
    /// Does nothing outside the log.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Vec<BatchHeader> {
        self.start = offset.clamp(self.start, self.end);
        // The epoch of the log start offset begins there now (KIP-101).
        let deleted = self.epochs.partition_point(|(_, start)| *start <= self.start).saturating_sub(1);
        self.epochs.drain(..deleted);
        if let Some((_, start)) = self.epochs.first_mut() {
            *start = (*start).max(self.start);
        }
        let gone = self.batches.partition_point(|batch| batch.next_offset <= self.start);
        let gone = self.batches.drain(..gone);
        gone.filter_map(|batch| BatchHeader::parse(&batch.bytes).ok()).collect()
    }

    /// Replaces all batches, as compaction does, which removed the records at some offsets. All offsets
    /// ascend.
    pub(crate) fn replace(&mut self, batches: Vec<Bytes>, removed: impl IntoIterator<Item = i64>) {
        removed.into_iter().for_each(|offset| self.empty(offset..offset.saturating_add(1)));
        self.batches.clear();
        self.newest = None;
        for bytes in batches {
            let Ok(header) = BatchHeader::parse(&bytes) else { continue };
            let (next_offset, max_timestamp) = (header.next_offset(), header.max_timestamp);
            self.push(Stored { next_offset, max_timestamp, bytes });
        }
    }

    /// Returns the offsets without a record: those that were [removed](Self::replace), and gaps between
    /// batches, also before the log start. They ascend.
    pub(crate) fn emptied(&self) -> &[Range<i64>] {
        &self.emptied
    }

    /// Returns the base offset of the first batch, which may be before the log start offset.
    pub(crate) fn first_base(&self) -> Option<i64> {
        Some(BatchHeader::parse(&self.batches.front()?.bytes).ok()?.base_offset)
    }

    /// Returns the leader epoch of the batch with the newest timestamp, even if it was deleted.
    pub(crate) fn epoch_of_newest(&self) -> Option<i32> {
        Some(BatchHeader::parse(&self.newest.as_ref()?.bytes).ok()?.partition_leader_epoch)
    }

    /// Returns whether no batch has this offset or a later one.
    pub(crate) fn ends_with_hole(&self, offset: i64) -> bool {
        offset < self.end && self.batches.back().is_none_or(|last| last.next_offset <= offset)
    }

    /// Adds offsets without a record.
    fn empty(&mut self, offsets: Range<i64>) {
        if offsets.is_empty() {
            return;
        }
        let from = self.emptied.partition_point(|known| known.end < offsets.start);
        let to = self.emptied.partition_point(|known| known.start <= offsets.end);
        let touched = &self.emptied[from..to.max(from)];
        let start = touched.first().map_or(offsets.start, |known| known.start.min(offsets.start));
        let end = touched.last().map_or(offsets.end, |known| known.end.max(offsets.end));
        self.emptied.splice(from..to.max(from), std::iter::once(start..end));
    }

    /// Returns the leader epoch of an offset, also of the next one to be written; `None` before the log.
    pub(crate) fn epoch_at(&self, offset: i64) -> Option<i32> {
        let known = self.epochs.partition_point(|(_, start)| *start <= offset);
        self.epochs.get(known.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// Returns the largest leader epoch up to `epoch`, and its end offset (KIP-101); `None` if it is unknown.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let (latest, _) = *self.epochs.last()?;
        if epoch == latest {
            return Some((latest, self.end));
        }
        let higher = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let (_, end) = *self.epochs.get(higher)?;
        let floor = higher.checked_sub(1).and_then(|floor| self.epochs.get(floor));
        Some((floor.map_or(epoch, |(known, _)| *known), end))
    }

    /// Returns timestamp and offset of the first record, by offset, with this timestamp or a later one.
    pub(crate) fn at_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, BatchError> {
        for batch in self.batches.iter().filter(|batch| batch.max_timestamp >= timestamp) {
            let found = first_record(&batch.bytes, |offset, time| offset >= self.start && time >= timestamp)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns timestamp and offset of the first record with the largest timestamp, even if it was deleted.
    pub(crate) fn at_max_timestamp(&self) -> Result<Option<(i64, i64)>, BatchError> {
        match &self.newest {
            Some(newest) => first_record(&newest.bytes, |_, time| time >= newest.max_timestamp),
            None => Ok(None),
        }
    }

    /// Returns the index of the batch with `offset`, or else of the first one after it.
    fn index(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.next_offset <= offset)
    }

    /// Returns the last leader epoch with records, −1 if there is none.
    #[cfg(test)]
    fn last_epoch(&self) -> i32 {
        self.epochs.last().map_or(-1, |(epoch, _)| *epoch)
    }

    /// Returns the base offset of every batch.
    #[cfg(test)]
    fn base_offsets(&self) -> Vec<i64> {
        self.batches().map(|bytes| BatchHeader::parse(&bytes).unwrap().base_offset).collect()
    }
}

/// The first byte that the checksum of a batch covers.
const CHECKSUM_FROM: usize = 21;

/// The size limit of a decompressed batch, in bytes.
pub(crate) const MAX_UNCOMPRESSED: usize = 1 << 28;

/// Returns timestamp and offset of the first record in a batch that `wanted` accepts by offset and timestamp.
fn first_record(bytes: &Bytes, wanted: impl Fn(i64, i64) -> bool) -> Result<Option<(i64, i64)>, BatchError> {
    for batch in Batches::new(bytes.clone()) {
        let batch = batch?;
        let records = match batch.records(MAX_UNCOMPRESSED) {
            // Without its codec, the batch is the best answer.
            Err(error) if matches!(error.kind, BatchErrorKind::Compression(_)) => {
                return Ok(Some((batch.header().max_timestamp, batch.base_offset())));
            }
            records => records?,
        };
        for record in &records {
            let record = record?;
            if wanted(record.offset, record.timestamp_ms) {
                return Ok(Some((record.timestamp_ms, record.offset)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use kwal_protocol::record::{BatchBuilder, Compression, Headers, TimestampType};

    use super::*;

    #[test]
    fn offsets_and_epochs_are_assigned_outside_of_the_checksum() {
        let log = log(&[2, 3, 1]);
        assert_eq!((log.start(), log.end(), log.base_offsets()), (0, 6, vec![0, 2, 5]));
        let all = log.read(0, whole(1 << 20));
        let batches: Vec<_> = Batches::new(all).map(|batch| *batch.unwrap().header()).collect();
        let places: Vec<_> = batches.iter().map(|h| (h.base_offset, h.partition_leader_epoch)).collect();
        assert_eq!(places, [(0, 7), (2, 7), (5, 7)]);
    }

    #[test]
    fn a_sole_owner_is_not_copied() {
        let (bytes, header) = batch(&[1; 1]);
        let place = bytes.as_ptr();
        let mut log = Log::new(0);
        log.append(bytes, &header);
        assert_eq!(log.read(0, whole(1 << 20)).as_ptr(), place);

        let (bytes, header) = batch(&[1; 1]);
        let kept = bytes.clone();
        log.append(bytes, &BatchHeader { base_offset: 1, ..header });
        assert_eq!(
            BatchHeader::parse(&kept).unwrap().base_offset,
            0,
            "the other owner's bytes are left alone"
        );
    }

    #[test]
    fn another_timestamp_changes_the_checksum() {
        let (bytes, header) = batch(&[5, 9]);
        let mut log = Log::new(0);
        let attributes = header.attributes | BatchHeader::LOG_APPEND_TIME;
        log.append(bytes, &BatchHeader { attributes, max_timestamp: 1234, ..header });
        let batch = Batches::new(log.read(0, whole(1 << 20))).next().unwrap().unwrap();
        assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
        let times: Vec<_> = batch.records(1 << 20).unwrap().iter().map(|r| r.unwrap().timestamp_ms).collect();
        assert_eq!(times, [1234, 1234]);
        assert_eq!(log.at_timestamp(1234).unwrap(), Some((1234, 0)));
    }

    #[test]
    fn reads_begin_with_the_batch_that_holds_the_offset_and_end_at_the_limit() {
        let log = log(&[2, 3, 1]);
        let sizes: Vec<_> = log.batches().map(|bytes| bytes.len()).collect();
        let all: usize = sizes.iter().sum();
        for (offset, skipped) in [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2)] {
            let rest: usize = sizes[skipped..].iter().sum();
            assert_eq!(log.read(offset, whole(all)).len(), rest, "from {offset}");
            assert_eq!(log.bytes_between(offset, 6, usize::MAX), rest);
            assert_eq!(log.bytes_between(offset, 6, 10), 10);
        }
        assert_eq!(log.read(6, whole(all)).len(), 0);
        for room in 0..=all + 1 {
            let read = log.read(0, whole(room));
            assert_eq!(read.len(), room.clamp(sizes[0], all), "{room} bytes of room");
            let strict = ReadLimit { first_anyway: false, ..whole(room) };
            let expected = if room < sizes[0] { 0 } else { room.min(all) };
            assert_eq!(log.read(0, strict).len(), expected, "{room} bytes, the first not anyway");
        }
    }

    #[test]
    fn records_are_deleted_batch_by_batch() {
        let mut log = log(&[2, 3, 1]);
        log.delete_before(3);
        assert_eq!((log.start(), log.end(), log.base_offsets()), (3, 6, vec![2, 5]));
        assert_eq!(log.at_timestamp(0).unwrap(), Some((101, 3)), "not the record before the start");
        log.delete_before(100);
        assert_eq!((log.start(), log.end(), log.base_offsets()), (6, 6, vec![]));
        assert_eq!(log.at_max_timestamp().unwrap(), Some((102, 4)), "as Kafka says");
    }

    #[test]
    fn timestamps_are_looked_up_by_offset_order() {
        let mut log = Log::new(0);
        for times in [&[10, 30, 20][..], &[5, 30], &[40, 7]] {
            append(&mut log, 0, times);
        }
        for (requested, found) in [(0, (10, 0)), (11, (30, 1)), (30, (30, 1)), (31, (40, 5))] {
            assert_eq!(log.at_timestamp(requested).unwrap(), Some(found), "{requested}");
        }
        assert_eq!(log.at_timestamp(41).unwrap(), None);
        assert_eq!(log.at_max_timestamp().unwrap(), Some((40, 5)));
    }

    #[test]
    fn epochs_end_where_the_next_begins() {
        let mut log = Log::new(2);
        assert_eq!((log.epoch_at(0), log.epoch_at(-1)), (Some(2), None));
        assert_eq!((log.end_of_epoch(2), log.end_of_epoch(3)), (Some((2, 0)), None));
        for epoch in [2, 2, 5] {
            append(&mut log, epoch, &[0; 2]);
        }
        assert_eq!(log.end_of_epoch(1), Some((1, 0)));
        assert_eq!(log.end_of_epoch(2), Some((2, 4)));
        assert_eq!(log.end_of_epoch(4), Some((2, 4)));
        assert_eq!(log.end_of_epoch(5), Some((5, 6)));
        assert_eq!(log.end_of_epoch(6), None);
        assert_eq!([0, 3, 4, 5].map(|offset| log.epoch_at(offset)), [Some(2), Some(2), Some(5), Some(5)]);
    }

    #[test]
    fn reads_can_end_below_an_offset() {
        let log = log(&[2, 3, 1]);
        for (below, end) in [(0, 0), (1, 0), (2, 2), (4, 2), (5, 5), (6, 6), (9, 6)] {
            let read = log.read(0, ReadLimit { below, ..whole(1 << 20) });
            let last = Batches::new(read.clone()).last().map_or(0, |batch| batch.unwrap().next_offset());
            assert_eq!((last, log.bytes_between(0, below, usize::MAX)), (end, read.len()), "below {below}");
        }
        assert_eq!(log.bytes_between(5, 2, usize::MAX), 0);
    }

    #[test]
    fn diverged_logs_agree_up_to_the_last_common_epoch() {
        let of = |epochs: &[(i32, usize)]| {
            let mut log = Log::default();
            for (epoch, count) in epochs {
                for _ in 0..*count {
                    append(&mut log, *epoch, &[0]);
                }
            }
            log
        };
        for (own, other, expected) in [
            (&[][..], &[][..], 0),
            (&[], &[(0, 3)], 0),
            (&[(0, 3)], &[], 0),
            (&[(0, 2)], &[(0, 3)], 2),
            (&[(0, 3)], &[(0, 2), (1, 5)], 2),
            (&[(0, 2), (1, 3)], &[(0, 2), (2, 1)], 2),
            (&[(0, 4), (1, 3)], &[(0, 2), (2, 9)], 2),
            (&[(0, 2), (2, 3)], &[(0, 2), (1, 1), (3, 1)], 2),
            (&[(0, 1), (1, 2), (4, 3)], &[(0, 1), (1, 3), (3, 1), (5, 1)], 3),
            (&[(1, 2)], &[(0, 5)], 0),
            (&[(2, 2)], &[(1, 1), (3, 5)], 0),
        ] {
            assert_eq!(of(own).agreement(&of(other)), expected, "{own:?} with {other:?}");
        }
    }

    #[test]
    fn copies_and_truncations_keep_epochs() {
        let mut from = Log::new(0);
        for epoch in [0, 0, 2, 3] {
            append(&mut from, epoch, &[0; 2]);
        }
        let mut to = Log::default();
        assert_eq!(to.copy(&from).len(), 4);
        assert_eq!((to.end(), to.base_offsets(), &to.epochs), (8, from.base_offsets(), &from.epochs));
        assert!(to.copy(&from).is_empty());
        to.truncate(5);
        assert_eq!((to.end(), to.base_offsets(), to.last_epoch()), (5, vec![0, 2], 2));
        to.truncate(4);
        assert_eq!((to.end(), to.last_epoch()), (4, 0));
        assert_eq!(to.copy(&from).len(), 2);
        assert_eq!(to.base_offsets(), from.base_offsets());
        from.delete_before(6);
        let mut late = Log::default();
        late.copy(&from);
        assert_eq!((late.start(), late.end(), late.base_offsets()), (6, 8, vec![6]));
    }

    #[test]
    fn epochs_go_back_and_copies_follow() {
        let mut from = Log::new(0);
        for epoch in [0, 2, 3] {
            append(&mut from, epoch, &[0; 2]);
        }
        from.rewind_epochs(1);
        from.begin_epoch(1, from.end());
        append(&mut from, 1, &[0; 2]);
        assert_eq!(from.epochs, [(0, 0), (1, 6)]);
        let mut to = Log::default();
        assert_eq!((to.copy(&from).len(), &to.epochs), (4, &from.epochs));
        assert_eq!((to.agreement(&from), from.agreement(&to)), (8, 8));
        from.rewind_epochs(0);
        assert_eq!(from.epochs, [(0, 0)], "records without an earlier epoch");
    }

    /// Creates a log of batches with so many records each, and timestamps from 100.
    fn log(counts: &[usize]) -> Log {
        let mut log = Log::new(7);
        for count in counts {
            append(&mut log, 7, &(100..100 + *count as i64).collect::<Vec<_>>());
        }
        log
    }

    fn append(log: &mut Log, epoch: i32, timestamps: &[i64]) {
        let (bytes, header) = batch(timestamps);
        let base_offset = log.end();
        log.append(bytes, &BatchHeader { base_offset, partition_leader_epoch: epoch, ..header });
    }

    fn batch(timestamps: &[i64]) -> (Bytes, BatchHeader) {
        let mut builder = BatchBuilder::new(Compression::None);
        for timestamp in timestamps {
            builder.push(*timestamp, None, Some(b"value"), &Headers::new());
        }
        let batch = builder.finish().unwrap();
        (batch.to_bytes(), batch.header())
    }

    fn whole(bytes: usize) -> ReadLimit {
        ReadLimit { below: i64::MAX, bytes, first_anyway: true }
    }
}
