use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
        DeleteRecordsTopicResult,
    },
};

use super::{Arrival, Cluster, Serve, Served, TopicKey};

impl Serve for DeleteRecordsRequest {
    fn refuse(&self, _: &Cluster, code: ErrorCode) -> DeleteRecordsResponse {
        answer_each(self, |_, _| Err(code))
    }

    fn serve(self, cluster: &mut Cluster, arrival: &Arrival) -> Served<DeleteRecordsResponse> {
        Served::Reply(answer_each(&self, |topic, asked| cluster.delete_before(topic, asked, arrival)))
    }
}

impl Cluster {
    /// Cuts the beginning off a log; answers where it starts then.
    fn delete_before(
        &mut self,
        topic: &str,
        asked: &DeleteRecordsPartition,
        arrival: &Arrival,
    ) -> Result<i64, ErrorCode> {
        let led = self.led(arrival.exchange.from.node, TopicKey::Name(topic), asked.partition_index, -1);
        let (config, partition) = led?;
        if !config.deletes {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        let end = partition.log.end();
        let before = match asked.offset {
            UP_TO_HIGH_WATERMARK => end,
            offset => offset,
        };
        if !(0..=end).contains(&before) {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        partition.log.delete_before(before);
        let start = partition.log.start();
        self.changed = true;
        Ok(start)
    }
}

/// The offset that stands for the high watermark.
const UP_TO_HIGH_WATERMARK: i64 = -1;

fn answer_each(
    request: &DeleteRecordsRequest,
    mut each: impl FnMut(&str, &DeleteRecordsPartition) -> Result<i64, ErrorCode>,
) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let result = each(&topic.name, asked);
            DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: result.unwrap_or(-1),
                error_code: result.err().unwrap_or(ErrorCode::NONE),
            }
        });
        DeleteRecordsTopicResult { name: topic.name.clone(), partitions: partitions.collect() }
    });
    DeleteRecordsResponse { topics: topics.collect(), ..DeleteRecordsResponse::default() }
}
