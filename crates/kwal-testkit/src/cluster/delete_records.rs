use std::time::{Duration, Instant};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
        DeleteRecordsTopicResult,
    },
};

use super::{
    action::Continuation,
    coordinator::is_internal,
    handler::{Serve, Served},
    lookup::TopicKey,
    node::Connected,
    request::RequestContext,
    state::{Cluster, later},
};

impl Serve for DeleteRecordsRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> DeleteRecordsResponse {
        answer_each(self, |_, _| Err(code))
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<DeleteRecordsResponse> {
        let timeout = Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or_default());
        let until = later(cluster.now, timeout);
        let Connected { node, .. } = context.from;
        let mut waits = Vec::new();
        let response = answer_each(&self, |topic, requested| {
            let before = cluster.delete_before(topic, requested, context)?;
            waits.push((topic.to_owned(), requested.partition_index, before));
            Ok(before)
        });
        cluster.deleted_everywhere(Deleting { node, waits, response }, until)
    }
}

/// Records that were deleted at the leader, and are to be deleted at all live replicas.
#[derive(Debug)]
pub(super) struct Deleting {
    node: i32,
    /// Topic, partition, and the log start offset to reach.
    waits: Vec<(String, i32, i64)>,
    response: DeleteRecordsResponse,
}

impl Cluster {
    /// Responds with the low watermarks.
    ///
    /// It waits until all live replicas have deleted the records, or the timeout is over.
    pub(super) fn deleted_everywhere(
        &self,
        mut deleting: Deleting,
        until: Instant,
    ) -> Served<DeleteRecordsResponse> {
        let over = self.now.monotonic >= until;
        let (node, response) = (deleting.node, &mut deleting.response);
        deleting.waits.retain(|(topic, index, before)| {
            let (error_code, low_watermark) = match self.low_watermark(node, topic, *index) {
                None => (ErrorCode::NOT_LEADER_OR_FOLLOWER, -1),
                Some(low) if low >= *before => (ErrorCode::NONE, low),
                Some(low) if over => (ErrorCode::REQUEST_TIMED_OUT, low),
                Some(_) => return true,
            };
            let partitions = response.topics.iter_mut().filter(|found| found.name == *topic);
            for found in partitions.flat_map(|found| &mut found.partitions) {
                if found.partition_index == *index {
                    (found.error_code, found.low_watermark) = (error_code, low_watermark);
                }
            }
            false
        });
        match deleting.waits.is_empty() {
            true => Served::Reply(deleting.response),
            false => Served::Wait {
                until,
                resume: Continuation::new(move |cluster| cluster.deleted_everywhere(deleting, until)),
            },
        }
    }

    /// Returns the lowest log start offset of the live replicas, if `node` is the leader.
    fn low_watermark(&self, node: i32, topic: &str, index: i32) -> Option<i64> {
        let partition = self.partition(topic, index).filter(|found| found.state.leader == Some(node))?;
        let living = partition.state.replicas.iter().filter(|replica| self.is_alive(**replica));
        living.filter_map(|replica| Some(partition.replica(*replica)?.log.start())).min()
    }

    /// Deletes records before an offset; `None` if the partition does not exist.
    pub(crate) fn delete_at_leader(&mut self, topic: &str, index: i32, before: i64) -> Option<()> {
        let (id, now) = (self.partition_id(topic, index)?, self.now.unix_ms);
        if let Some(replica) = self.partition_by_id(id)?.effective_mut() {
            replica.delete_before(before, now);
            let start = replica.log.start();
            self.record_deletion(id, start);
        }
        self.replicate(id);
        self.changed = true;
        Some(())
    }

    /// Deletes records at the leader; returns the log start offset to reach.
    fn delete_before(
        &mut self,
        topic: &str,
        requested: &DeleteRecordsPartition,
        context: &RequestContext,
    ) -> Result<i64, ErrorCode> {
        let unix_ms = self.now.unix_ms;
        if is_internal(topic) {
            return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        let led = self.led(context.from.node, TopicKey::Name(topic), requested.partition_index, -1)?;
        if !led.config.deletes {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        let end = led.replica.high_watermark;
        let before = match requested.offset {
            UP_TO_HIGH_WATERMARK => end,
            offset => offset,
        };
        if !(0..=end).contains(&before) {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        led.replica.delete_before(before, unix_ms);
        // Of this broker, which may have been deposed: its readers meet no other.
        let (id, start) = (led.id, led.replica.log.start());
        self.record_deletion(id, start);
        self.replicate(id);
        self.changed = true;
        Ok(before)
    }
}

/// The offset that stands for the high watermark.
const UP_TO_HIGH_WATERMARK: i64 = -1;

fn answer_each(
    request: &DeleteRecordsRequest,
    mut each: impl FnMut(&str, &DeleteRecordsPartition) -> Result<i64, ErrorCode>,
) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|requested| {
            let result = each(&topic.name, requested);
            DeleteRecordsPartitionResult {
                partition_index: requested.partition_index,
                low_watermark: result.unwrap_or(-1),
                error_code: result.err().unwrap_or(ErrorCode::NONE),
            }
        });
        DeleteRecordsTopicResult { name: topic.name.clone(), partitions: partitions.collect() }
    });
    DeleteRecordsResponse { topics: topics.collect(), ..DeleteRecordsResponse::default() }
}
