//! A partition and the requests to it.

use bytes::Bytes;
use kwal_protocol::error_code::ErrorCode;
use kwal_protocol::messages::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, DescribeProducersPartitionResult,
    DescribeProducersRequest, DescribeProducersTopic, FetchPartition, FetchPartitionResponse, FetchRequest,
    FetchTopic, InitProducerIdRequest, IsolationLevel, ListOffsetsPartition, ListOffsetsPartitionResponse,
    ListOffsetsRequest, ListOffsetsTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
    OffsetForLeaderTopic, ProducePartition, ProduceRequest, ProduceTopic,
};
use kwal_protocol::record::{BatchBuilder, Batches, Compression, EncodedBatch, RecordView};
use kwal_protocol::wire::{Spliced, Uuid};

use super::describe;
use super::world::until;
use crate::raw::Broker;

/// A partition and a connection to its leader. Requests have the newest version with topic names that both
/// versions of Kafka support.
pub(crate) struct Log {
    pub(crate) connection: Broker,
    pub(crate) topic: String,
    pub(crate) id: Uuid,
    pub(crate) partition: i32,
}

/// The last version with topic names that both versions of Kafka support.
pub(crate) const PRODUCE: i16 = 11;
/// The last version with topic names.
pub(crate) const FETCH: i16 = 12;
pub(crate) const LIST_OFFSETS: i16 = 7;

impl Log {
    /// Appends a batch with acks = all.
    pub(crate) async fn append(&mut self, batch: EncodedBatch) -> String {
        self.append_bytes(batch.to_bytes(), -1).await
    }

    pub(crate) async fn append_bytes(&mut self, records: Bytes, acks: i16) -> String {
        let request = self.produce(records, acks);
        self.produce_by(&request, PRODUCE).await
    }

    pub(crate) async fn produce_by(&mut self, request: &ProduceRequest, version: i16) -> String {
        match self.connection.try_call(request, version).await {
            Some(response) => describe::produced(&response.responses[0].partition_responses[0]),
            None => "hangs up".to_owned(),
        }
    }

    pub(crate) fn produce(&self, records: Bytes, acks: i16) -> ProduceRequest {
        let partition = ProducePartition { index: self.partition, records: Some(Spliced::from(records)) };
        let topic =
            ProduceTopic { name: self.topic.clone(), topic_id: self.id, partition_data: vec![partition] };
        ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
    }

    pub(crate) async fn fetch(&mut self, offset: i64) -> String {
        self.fetch_up_to(offset, 1 << 20).await
    }

    pub(crate) async fn fetch_up_to(&mut self, offset: i64, max_bytes: i32) -> String {
        describe::fetched(&self.fetch_response(offset, max_bytes).await)
    }

    pub(crate) async fn fetch_response(&mut self, offset: i64, max_bytes: i32) -> FetchPartitionResponse {
        let request = self.fetch_request(offset, max_bytes);
        self.connection.call(&request, FETCH).await.responses.remove(0).partitions.remove(0)
    }

    /// Returns whether the broker knows that it leads. Followers also serve fetches of later versions.
    pub(crate) async fn is_led_by_broker(&mut self) -> bool {
        let request = self.fetch_request(0, 1);
        let code = self.connection.call(&request, 10).await.responses[0].partitions[0].error_code;
        matches!(code, ErrorCode::NONE | ErrorCode::OFFSET_OUT_OF_RANGE)
    }

    /// Fetches from a position: current leader epoch, epoch of the last record, offset.
    pub(crate) async fn fetch_from(&mut self, (current, last, offset): (i32, i32, i64)) -> String {
        let mut request = self.fetch_request(offset, 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last;
        describe::fetched(&self.connection.call(&request, FETCH).await.responses[0].partitions[0])
    }

    /// Returns the batches from an offset on that were not removed: the base offset, the keys with their
    /// offsets, and a description.
    pub(crate) async fn kept(&mut self, offset: i64) -> Vec<(i64, Vec<String>, String)> {
        let response = self.fetch_response(offset, 1 << 20).await;
        assert_eq!(response.error_code, ErrorCode::NONE);
        let batches = Batches::new(response.records.unwrap());
        let kept = batches.map(|batch| {
            let batch = batch.unwrap();
            let keys = match batch.is_control() {
                true => Vec::new(),
                false => {
                    let records = batch.records(1 << 20).unwrap();
                    let key = |record: RecordView<'_>| {
                        let key = str::from_utf8(record.key.unwrap()).unwrap();
                        let kind = if record.value.is_some() { "" } else { "-" };
                        format!("{} {kind}{key}", record.offset)
                    };
                    records.iter().map(|record| key(record.unwrap())).collect()
                }
            };
            let text = format!("{} [{}]", describe::batch(&batch), keys.join(", "));
            (batch.base_offset(), keys, text)
        });
        kept.collect()
    }

    /// Fetches with READ_COMMITTED.
    pub(crate) async fn fetch_committed(&mut self, offset: i64) -> String {
        self.fetch_committed_up_to(offset, 1 << 20).await
    }

    pub(crate) async fn fetch_committed_up_to(&mut self, offset: i64, max_bytes: i32) -> String {
        let request = FetchRequest {
            isolation_level: IsolationLevel::READ_COMMITTED,
            ..self.fetch_request(offset, max_bytes)
        };
        describe::fetched(&self.connection.call(&request, FETCH).await.responses[0].partitions[0])
    }

    pub(crate) fn fetch_request(&self, offset: i64, max_bytes: i32) -> FetchRequest {
        let partition = FetchPartition {
            partition: self.partition,
            fetch_offset: offset,
            partition_max_bytes: max_bytes,
            ..FetchPartition::default()
        };
        let topic = FetchTopic { topic: self.topic.clone(), topic_id: self.id, partitions: vec![partition] };
        FetchRequest { topics: vec![topic], ..FetchRequest::default() }
    }

    /// Sends ListOffsets. Timestamps are described relative to `since`.
    pub(crate) async fn offset(&mut self, timestamp: i64, since: i64) -> String {
        describe::offset(&self.offset_response(timestamp, LIST_OFFSETS).await, since)
    }

    pub(crate) async fn end(&mut self) -> i64 {
        self.offset_response(LATEST, LIST_OFFSETS).await.offset
    }

    pub(crate) async fn offset_response(
        &mut self,
        timestamp: i64,
        version: i16,
    ) -> ListOffsetsPartitionResponse {
        let request = self.list_offsets(timestamp);
        self.connection.call(&request, version).await.topics.remove(0).partitions.remove(0)
    }

    pub(crate) fn list_offsets(&self, timestamp: i64) -> ListOffsetsRequest {
        let partition = ListOffsetsPartition {
            partition_index: self.partition,
            timestamp,
            ..ListOffsetsPartition::default()
        };
        let topic = ListOffsetsTopic { name: self.topic.clone(), partitions: vec![partition] };
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() }
    }

    /// Sends OffsetForLeaderEpoch.
    pub(crate) async fn epoch_end(&mut self, leader_epoch: i32, current: i32) -> String {
        let partition = OffsetForLeaderPartition {
            partition: self.partition,
            current_leader_epoch: current,
            leader_epoch,
        };
        let topic = OffsetForLeaderTopic { topic: self.topic.clone(), partitions: vec![partition] };
        let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
        describe::epoch_end(&self.connection.call(&request, 4).await.topics[0].partitions[0])
    }

    pub(crate) async fn delete_records(&mut self, before: i64) -> String {
        let request = self.delete_records_request(before);
        let response = self.connection.call(&request, 2).await;
        let partition = &response.topics[0].partitions[0];
        format!("{}, low watermark {}", describe::code(partition.error_code), partition.low_watermark)
    }

    pub(crate) fn delete_records_request(&self, before: i64) -> DeleteRecordsRequest {
        let partition = DeleteRecordsPartition { partition_index: self.partition, offset: before };
        let topic = DeleteRecordsTopic { name: self.topic.clone(), partitions: vec![partition] };
        DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 }
    }

    pub(crate) async fn producers(&mut self) -> String {
        describe::active_producers(&self.active_producers().await)
    }

    pub(crate) async fn active_producers(&mut self) -> DescribeProducersPartitionResult {
        let topic =
            DescribeProducersTopic { name: self.topic.clone(), partition_indexes: vec![self.partition] };
        let request = DescribeProducersRequest { topics: vec![topic] };
        self.connection.call(&request, 0).await.topics.remove(0).partitions.remove(0)
    }

    /// Returns a new producer id.
    pub(crate) async fn producer_id(&mut self) -> i64 {
        producer_id(&mut self.connection).await
    }
}

pub(crate) const EARLIEST: i64 = -2;
pub(crate) const LATEST: i64 = -1;
pub(crate) const MAX_TIMESTAMP: i64 = -3;

/// Returns a new producer id without transactional id.
pub(crate) async fn producer_id(connection: &mut Broker) -> i64 {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    // A broker that has just started has no block of ids yet.
    until("the broker has ids", async || {
        let response = connection.call(&request, 4).await;
        match response.error_code {
            ErrorCode::NONE => Some(response.producer_id),
            code => {
                assert_eq!(code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
                None
            }
        }
    })
    .await
}

/// The timestamp of the records of [`batch`].
pub(crate) const TIME: i64 = 1_750_000_000_000;
pub(crate) const NO_HEADERS: [(&str, &str); 0] = [];

/// Returns a batch of `count` records with timestamp [`TIME`].
pub(crate) fn batch(count: u8) -> EncodedBatch {
    batch_of(count, TIME)
}

/// Returns a batch of `count` records with one timestamp.
pub(crate) fn batch_of(count: u8, time: i64) -> EncodedBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for index in 0..count {
        batch.push(time, Some(&[index]), Some(b"value"), NO_HEADERS);
    }
    batch.finish().unwrap()
}

/// Returns a batch of one record for each timestamp.
pub(crate) fn batch_at(times: &[i64]) -> EncodedBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for time in times {
        batch.push(*time, None, Some(b"value"), NO_HEADERS);
    }
    batch.finish().unwrap()
}
