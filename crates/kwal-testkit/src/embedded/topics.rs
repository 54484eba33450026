//! Topics and logs, as a test reads and changes them.

use std::collections::BTreeSet;

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{CreatableAssignment, CreatableConfig, CreatableTopic},
    record::{Batch, BatchHeader, Batches, EncodedBatch, EndTransaction, OwnedRecord, RawBatch, RawRecord},
    wire::Uuid,
};

use super::cluster::EmbeddedCluster;
use crate::{
    check,
    cluster::{Cluster, Partition, Replica},
    error::Error,
    log::MAX_UNCOMPRESSED,
};

/// Topics and logs.
impl EmbeddedCluster {
    /// Creates a topic with default settings; returns its id.
    ///
    /// # Errors
    /// [`Error::CreateTopic`], for the reasons of a CreateTopics request.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<Uuid, Error> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates a topic with settings, by their Kafka names; returns its id.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic).
    pub fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<Uuid, Error> {
        self.shared.with(|cluster| create(cluster, &creatable(name, partitions, settings)))
    }

    /// Creates a topic with these replicas of each partition, the preferred leader first; returns its id.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic).
    pub fn create_topic_assigned(&self, name: &str, replicas: &[&[i32]]) -> Result<Uuid, Error> {
        self.shared.with(|cluster| create(cluster, &assigned(name, replicas)))
    }

    /// Deletes a topic; returns the id that it had, `None` if it does not exist.
    pub fn delete_topic(&self, name: &str) -> Option<Uuid> {
        self.shared.with(|cluster| cluster.delete_topic(name))
    }

    /// Returns the names of all topics, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.shared.with(|cluster| cluster.topic_names().map(str::to_owned).collect())
    }

    /// Returns the id of a topic.
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.shared.with(|cluster| cluster.topic(name).map(|topic| topic.id))
    }

    /// Deletes a topic and creates it again, empty, with the same settings; returns its new id.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn recreate_topic(&self, name: &str) -> Result<Uuid, Error> {
        self.shared.with(|cluster| cluster.recreate_topic(name)).ok_or_else(|| unknown(name, 0))
    }

    /// Returns all batches in the log of a partition's leader.
    ///
    /// Control batches and batches above the high watermark are included. Without a leader, it is the log of
    /// the replica that would lead.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn log(&self, topic: &str, partition: i32) -> Result<Vec<Batch>, Error> {
        batches(self.read_log(topic, partition, |replica| replica.log.batches().collect())?)
    }

    /// Returns all records in the log of a partition's leader, without those of control batches.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::Batch`] if the codec of a batch is not built in, or a batch was
    /// [appended raw](Self::append_raw) and is malformed.
    pub fn records(&self, topic: &str, partition: i32) -> Result<Vec<OwnedRecord>, Error> {
        let start = self.start_offset(topic, partition)?;
        records(&self.log(topic, partition)?, start)
    }

    /// Returns all records in the log of one replica, whether its broker is up or not.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], also if the broker has no replica; [`Error::Batch`].
    pub fn replica_records(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
    ) -> Result<Vec<OwnedRecord>, Error> {
        let (start, log) = self.read_replica(broker, topic, partition, |replica| {
            (replica.log.start(), replica.log.batches().collect())
        })?;
        records(&batches(log)?, start)
    }

    /// Returns the log start offset of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn start_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.read_log(topic, partition, |replica| replica.log.start())
    }

    /// Returns the log end offset of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn end_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.read_log(topic, partition, |replica| replica.log.end())
    }

    /// Returns the log end offset of one replica.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], also if the broker has no replica.
    pub fn replica_end_offset(&self, broker: i32, topic: &str, partition: i32) -> Result<i64, Error> {
        self.read_replica(broker, topic, partition, |replica| replica.log.end())
    }

    /// Returns the high watermark of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.read_log(topic, partition, |replica| replica.high_watermark)
    }

    /// Appends batches as they are; returns the new log end offset.
    ///
    /// Use it for batches that a broker does not accept from clients: control batches, empty ones, those with
    /// holes, those of transactions.
    ///
    /// The base offset of each batch is relative to the log end offset: 0 follows it, more leaves a hole.
    /// Producer state, transactions and followers are updated as for any append.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], [`Error::Batch`], [`Error::InvalidOffsets`]; batches before the one that
    /// failed stay appended.
    pub fn append_raw(&self, topic: &str, partition: i32, batches: Bytes) -> Result<i64, Error> {
        let now = self.shared.now().unix_ms;
        let placed = self.change(topic, partition, |found| {
            for batch in Batches::new(batches) {
                let batch = batch?;
                let header = *batch.header();
                let (first, last) = (header.base_offset, header.last_offset());
                let end = found.effective().map_or(0, |replica| replica.log.end());
                if !(0..=last).contains(&first) || end.checked_add(last).is_none_or(|end| end == i64::MAX) {
                    return Err(Error::InvalidOffsets { first, last });
                }
                found.append_raw(batch.bytes().clone(), &header, first, now);
            }
            Ok(())
        })?;
        placed?;
        self.end_offset(topic, partition)
    }

    /// Appends the marker that ends a producer's transaction, as the coordinator does; returns its offset.
    ///
    /// Batches of transactions are [appended raw](Self::append_raw).
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn end_transaction(
        &self,
        topic: &str,
        partition: i32,
        producer: (i64, i16),
        committed: bool,
    ) -> Result<i64, Error> {
        let now = self.shared.now().unix_ms;
        let marker = marker(producer, committed, now)?;
        Ok(self.append_raw(topic, partition, marker)? - 1)
    }

    /// Deletes the records before an offset, as DeleteRecords or retention do. Does nothing outside the log.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<(), Error> {
        let deleted = self.shared.with(|cluster| cluster.delete_at_leader(topic, partition, before));
        deleted.ok_or_else(|| unknown(topic, partition))
    }

    /// Removes records from all replicas of a partition, as compaction does.
    ///
    /// Removed records leave holes. Changed batches are not compressed any more; of an emptied batch the
    /// header stays. Control batches stay.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::Batch`] if a batch cannot be decoded, and then nothing is
    /// changed.
    pub fn compact(
        &self,
        topic: &str,
        partition: i32,
        keep: impl FnMut(&OwnedRecord) -> bool,
    ) -> Result<(), Error> {
        self.compact_batches(topic, partition, keep, |_| false)
    }

    /// Removes records from all replicas of a partition, as [`compact`](Self::compact), and whole batches.
    ///
    /// `remove` decides by the header which batches without a record, and which control batches, are removed
    /// completely. The last batch of a producer that the partition knows stays, as in Kafka, until the
    /// producer is [forgotten](Self::forget_producer). The log end offset stays too, even if no batch is left
    /// before it: in Kafka, that is a replica that was truncated where its last segment began.
    ///
    /// # Errors
    /// As [`compact`](Self::compact).
    pub fn compact_batches(
        &self,
        topic: &str,
        partition: i32,
        mut keep: impl FnMut(&OwnedRecord) -> bool,
        mut remove: impl FnMut(&BatchHeader) -> bool,
    ) -> Result<(), Error> {
        self.change(topic, partition, |found| {
            let mut compacted = Vec::new();
            for replica in found.replicas_mut() {
                let known = &replica.known.producers;
                let mut removed = BTreeSet::new();
                let (mut kept, mut markers) = (Vec::new(), Vec::new());
                for batch in batches(replica.log.batches().collect())? {
                    let bytes = without(&batch, &mut keep, &mut removed)?;
                    let header = BatchHeader::parse(&bytes).unwrap_or_else(|_| *batch.header());
                    let is_last = known.last_offset(header.producer_id) == Some(header.last_offset());
                    if !is_last && (header.is_control() || header.count == 0) && remove(&header) {
                        removed.extend(header.base_offset..header.next_offset());
                        markers.extend(header.is_control().then_some(header.base_offset));
                    } else {
                        kept.push(bytes);
                    }
                }
                compacted.push((replica, kept, removed, markers));
            }
            let all: BTreeSet<i64> =
                compacted.iter().flat_map(|(_, _, removed, _)| removed).copied().collect();
            for (replica, kept, mut removed, markers) in compacted {
                // Readers of a replica whose log starts earlier pass them.
                removed.extend(all.range(..replica.log.start()));
                replica.log.replace(kept, removed);
                markers.into_iter().for_each(|at| replica.known.transactions.forget_marker(at));
            }
            Ok(())
        })?
    }

    /// Appends records in a transaction of another producer, which begins if it is not open; returns the
    /// offset of the first.
    ///
    /// [`end_transaction`](Self::end_transaction) ends it. Until then it hangs, and readers with
    /// READ_COMMITTED do not get beyond its beginning. `sequence` is that of the first record; nothing checks
    /// it.
    ///
    /// # Errors
    /// As [`append_raw`](Self::append_raw).
    pub fn append_in_transaction(
        &self,
        topic: &str,
        partition: i32,
        (producer_id, epoch): (i64, i16),
        sequence: i32,
        batch: &EncodedBatch,
    ) -> Result<i64, Error> {
        let batch = batch.stamp(producer_id, epoch, sequence).with_transactional(true);
        let end = self.append_raw(topic, partition, batch.to_bytes())?;
        Ok(end - batch.record_count() as i64)
    }

    /// Returns the open transactions of a partition: their producer ids, ascending, and where each begins.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn open_transactions(&self, topic: &str, partition: i32) -> Result<Vec<(i64, i64)>, Error> {
        self.read_log(topic, partition, |replica| replica.known.transactions.open().collect())
    }

    /// Returns the last stable offset of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.read_log(topic, partition, Replica::last_stable)
    }

    /// Returns a producer id that no other producer has or will have.
    pub fn new_producer_id(&self) -> i64 {
        self.shared.with(|cluster| cluster.new_producer_id())
    }

    /// Returns the log of a partition's leader for the [checker](crate::check), where `value` is the identity
    /// of a record.
    ///
    /// It contains the offsets that hold no record for a reason, those of aborted transactions, and the last
    /// stable offset. The producers of batches are [added](check::Log::producer) by the caller, if needed.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub fn checked_log(
        &self,
        topic: &str,
        partition: i32,
        value: impl FnMut(&OwnedRecord) -> check::Value,
    ) -> Result<check::Log, Error> {
        let (log, emptied, aborted, offsets, stable) = self.read_log(topic, partition, |replica| {
            let log: Vec<_> = replica.log.batches().collect();
            let headers = log.iter().filter_map(|batch| BatchHeader::parse(batch).ok());
            let transactions = &replica.known.transactions;
            let aborted = headers.filter(|header| {
                !header.is_control()
                    && header.is_transactional()
                    && transactions.is_aborted(header.producer_id, header.base_offset)
            });
            let aborted: Vec<_> = aborted.map(|header| header.base_offset..header.next_offset()).collect();
            let offsets = replica.log.start()..replica.log.end();
            (log, replica.log.emptied().to_vec(), aborted, offsets, replica.last_stable())
        })?;
        let log = batches(log)?;
        let records = records(&log, offsets.start)?;
        let control = log.iter().filter(|batch| batch.is_control());
        let control = control.map(|batch| batch.base_offset()..batch.next_offset());
        let mut empty: Vec<_> = control.chain(emptied).collect();
        empty.sort_unstable_by_key(|empty| empty.start);
        let values: Vec<_> =
            records.iter().map(|record| record.offset).zip(records.iter().map(value)).collect();
        let log = check::Log::new((topic, partition), offsets.clone(), values).last_stable(stable);
        // Also before the log start: readers may have passed it earlier.
        let log = empty.into_iter().fold(log, check::Log::empty);
        let aborted = aborted.into_iter().map(|aborted| aborted.start.max(offsets.start)..aborted.end);
        Ok(aborted.filter(|aborted| !aborted.is_empty()).fold(log, check::Log::aborted))
    }

    /// Forgets a producer id, as a partition does after `producer.id.expiration.ms`.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn forget_producer(&self, topic: &str, partition: i32, producer_id: i64) -> Result<(), Error> {
        self.change(topic, partition, |found| {
            found.replicas_mut().for_each(|replica| replica.known.producers.forget(producer_id));
        })
    }

    /// Forgets all producer ids of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn forget_producers(&self, topic: &str, partition: i32) -> Result<(), Error> {
        self.change(topic, partition, |found| {
            found.replicas_mut().for_each(|replica| replica.known.producers.forget_all());
        })
    }

    /// Refuses appends of all producer ids that were handed out so far; ids handed out later are accepted.
    ///
    /// A broker does so that has lost track of them, with UNKNOWN_PRODUCER_ID or INVALID_PRODUCER_ID_MAPPING
    /// as the code. Nothing is appended, and the partition keeps no state of these producers, so batches
    /// that are on its log already are no duplicates any more.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn refuse_producers(&self, topic: &str, partition: i32, code: ErrorCode) -> Result<(), Error> {
        let refused = self.shared.with(|cluster| cluster.refuse_producers(topic, partition, code));
        refused.ok_or_else(|| unknown(topic, partition))
    }

    pub(super) fn read_partition<T>(
        &self,
        topic: &str,
        partition: i32,
        read: impl FnOnce(&Partition) -> T,
    ) -> Result<T, Error> {
        let found = self.shared.with(|cluster| cluster.partition(topic, partition).map(read));
        found.ok_or_else(|| unknown(topic, partition))
    }

    fn read_log<T>(&self, topic: &str, partition: i32, read: impl FnOnce(&Replica) -> T) -> Result<T, Error> {
        let found = self.read_partition(topic, partition, |found| found.effective().map(read))?;
        found.ok_or_else(|| unknown(topic, partition))
    }

    pub(super) fn read_replica<T>(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
        read: impl FnOnce(&Replica) -> T,
    ) -> Result<T, Error> {
        let found = self.read_partition(topic, partition, |found| found.replica(broker).map(read))?;
        found.ok_or_else(|| unknown(topic, partition))
    }

    fn change<T>(
        &self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, Error> {
        let changed = self.shared.with(|cluster| cluster.change(topic, partition, change));
        changed.ok_or_else(|| unknown(topic, partition))
    }
}

fn batches(log: Vec<Bytes>) -> Result<Vec<Batch>, Error> {
    log.into_iter().flat_map(Batches::new).map(|batch| Ok(batch?)).collect()
}

fn records(log: &[Batch], start: i64) -> Result<Vec<OwnedRecord>, Error> {
    let mut records = Vec::new();
    for batch in log.iter().filter(|batch| !batch.is_control()) {
        for record in batch.records(MAX_UNCOMPRESSED)? {
            records.push(record?);
        }
    }
    records.retain(|record| record.offset >= start);
    Ok(records)
}

/// Returns a batch without the records that are not kept; adds their offsets to `removed`.
fn without(
    batch: &Batch,
    keep: &mut impl FnMut(&OwnedRecord) -> bool,
    removed: &mut BTreeSet<i64>,
) -> Result<Bytes, Error> {
    if batch.is_control() {
        return Ok(batch.bytes().clone());
    }
    let mut kept = BTreeSet::new();
    for record in batch.records(MAX_UNCOMPRESSED)? {
        let record = record?;
        match keep(&record) {
            true => kept.insert(record.offset),
            false => removed.insert(record.offset),
        };
    }
    let mut raw = RawBatch::from_batch(batch, MAX_UNCOMPRESSED)?;
    let base = raw.header.base_offset;
    raw.records.retain(|record| kept.contains(&(base + i64::from(record.offset_delta))));
    // Compression::None is 0.
    raw.header.attributes &= !BatchHeader::COMPRESSION_MASK;
    Ok(raw.encode()?)
}

/// Encodes an end-of-transaction marker, as a coordinator writes it.
fn marker((producer_id, producer_epoch): (i64, i16), committed: bool, now: i64) -> Result<Bytes, Error> {
    let end = EndTransaction { key_version: 0, committed, coordinator_epoch: 0 };
    let (key, value) = end.to_key_and_value();
    let record = RawRecord {
        key: Some(Bytes::copy_from_slice(&key)),
        value: Some(Bytes::copy_from_slice(&value)),
        ..RawRecord::default()
    };
    let header = BatchHeader {
        attributes: BatchHeader::TRANSACTIONAL | BatchHeader::CONTROL,
        base_timestamp: now,
        max_timestamp: now,
        producer_id,
        producer_epoch,
        base_sequence: -1,
        ..BatchHeader::default()
    };
    Ok(RawBatch { position: 0, header, records: vec![record] }.encode()?)
}

pub(super) fn creatable(name: &str, partitions: i32, settings: &[(&str, &str)]) -> CreatableTopic {
    let setting = |(name, value): &(&str, &str)| CreatableConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    };
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: settings.iter().map(setting).collect(),
        ..CreatableTopic::default()
    }
}

pub(super) fn assigned(name: &str, replicas: &[&[i32]]) -> CreatableTopic {
    let assignment = |(index, brokers): (usize, &&[i32])| CreatableAssignment {
        partition_index: index as i32,
        broker_ids: brokers.to_vec(),
    };
    CreatableTopic {
        assignments: replicas.iter().enumerate().map(assignment).collect(),
        ..creatable(name, -1, &[])
    }
}

pub(super) fn create(cluster: &mut Cluster, topic: &CreatableTopic) -> Result<Uuid, Error> {
    cluster.create_simply(topic).map_err(|(code, message)| Error::CreateTopic {
        topic: topic.name.clone(),
        code,
        message,
    })
}

fn unknown(topic: &str, partition: i32) -> Error {
    Error::UnknownPartition { topic: topic.to_owned(), partition }
}
