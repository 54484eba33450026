//! What a test sees of topics and logs, and does to them.

use bytes::Bytes;
use kwal_protocol::{
    messages::{CreatableAssignment, CreatableConfig, CreatableTopic},
    record::{Batch, Batches, OwnedRecord},
    wire::Uuid,
};

use super::EmbeddedCluster;
use crate::{
    Error,
    cluster::{Cluster, Partition},
    log::MAX_UNCOMPRESSED,
};

/// Topics and logs.
impl EmbeddedCluster {
    /// Makes a topic with default settings; answers its id.
    ///
    /// # Errors
    /// [`Error::Create`], for the reasons a CreateTopics request would be refused.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<Uuid, Error> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Makes a topic with settings, by their names in Kafka; answers its id.
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

    /// Makes a topic whose partitions have these replicas, the preferred leader of each first; answers its id.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic).
    pub fn create_topic_assigned(&self, name: &str, replicas: &[&[i32]]) -> Result<Uuid, Error> {
        self.shared.with(|cluster| create(cluster, &assigned(name, replicas)))
    }

    /// Deletes a topic; answers the id that it had, `None` if there is no such topic.
    pub fn delete_topic(&self, name: &str) -> Option<Uuid> {
        self.shared.with(|cluster| cluster.delete_topic(name))
    }

    /// The names of all topics, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.shared.with(|cluster| cluster.topic_names().map(str::to_owned).collect())
    }

    /// The id of a topic.
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.shared.with(|cluster| cluster.topic(name).map(|topic| topic.id))
    }

    /// All batches of a partition as they lie in its log, control batches included.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn log(&self, topic: &str, partition: i32) -> Result<Vec<Batch>, Error> {
        let batches: Vec<_> = self.look(topic, partition, |found| found.log.batches().collect())?;
        batches.into_iter().flat_map(Batches::new).map(|batch| Ok(batch?)).collect()
    }

    /// All records of a partition, without those of control batches.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`]; [`Error::Batch`] if the codec of a batch is not built in, or it was
    /// [placed](Self::place) and is malformed.
    pub fn records(&self, topic: &str, partition: i32) -> Result<Vec<OwnedRecord>, Error> {
        let start = self.start_offset(topic, partition)?;
        let mut records = Vec::new();
        for batch in self.log(topic, partition)?.iter().filter(|batch| !batch.is_control()) {
            for record in batch.records(MAX_UNCOMPRESSED)? {
                records.push(record?);
            }
        }
        records.retain(|record| record.offset >= start);
        Ok(records)
    }

    /// The first offset of a partition.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn start_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.look(topic, partition, |found| found.log.start())
    }

    /// The offset that the next record of a partition gets.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn end_offset(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        self.look(topic, partition, |found| found.log.end())
    }

    /// Puts batches behind the end of a log as they are: control batches, emptied ones, such with holes, which a broker does
    /// not take from clients. Answers the new end of the log.
    ///
    /// The base offset of each counts from the end of the log: 0 follows it, more leaves a hole. What is known of producers
    /// does not change.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`], [`Error::Batch`], [`Error::Misplaced`]; batches before the one that failed are placed.
    pub fn place(&self, topic: &str, partition: i32, batches: Bytes) -> Result<i64, Error> {
        self.change(topic, partition, |found| {
            for batch in Batches::new(batches) {
                let batch = batch?;
                let header = *batch.header();
                let (first, last) = (header.base_offset, header.last_offset());
                if !(0..=last).contains(&first)
                    || found.log.end().checked_add(last).is_none_or(|end| end == i64::MAX)
                {
                    return Err(Error::Misplaced { first, last });
                }
                found.place(batch.bytes().clone(), &header, first);
            }
            Ok(found.log.end())
        })?
    }

    /// Deletes the records before an offset, as DeleteRecords or retention do; nothing outside of the log changes.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<(), Error> {
        self.change(topic, partition, |found| found.log.delete_before(before))
    }

    /// Forgets a producer id, as a partition does when the producer was silent for `producer.id.expiration.ms`.
    ///
    /// # Errors
    /// [`Error::UnknownPartition`].
    pub fn forget_producer(&self, topic: &str, partition: i32, producer_id: i64) -> Result<(), Error> {
        self.change(topic, partition, |found| found.producers.forget(producer_id))
    }

    pub(super) fn look<T>(
        &self,
        topic: &str,
        partition: i32,
        look: impl FnOnce(&Partition) -> T,
    ) -> Result<T, Error> {
        self.shared.with(|cluster| match cluster.partition(topic, partition) {
            Some(found) => Ok(look(found)),
            None => Err(unknown(topic, partition)),
        })
    }

    fn change<T>(
        &self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, Error> {
        self.shared.with(|cluster| match cluster.partition_mut(topic, partition) {
            Some(found) => Ok(change(found)),
            None => Err(unknown(topic, partition)),
        })
    }
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
    cluster.create_simply(topic).map_err(|(code, message)| Error::Create {
        topic: topic.name.clone(),
        code,
        message,
    })
}

fn unknown(topic: &str, partition: i32) -> Error {
    Error::UnknownPartition { topic: topic.to_owned(), partition }
}
