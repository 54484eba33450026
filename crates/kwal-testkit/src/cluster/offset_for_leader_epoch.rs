use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
        OffsetForLeaderTopicResult,
    },
};

use super::{
    handler::{Serve, Served},
    lookup::TopicKey,
    request::RequestContext,
    state::Cluster,
};

impl Serve for OffsetForLeaderEpochRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> OffsetForLeaderEpochResponse {
        answer_each(self, |_, _| Err(code))
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<OffsetForLeaderEpochResponse> {
        let node = context.from.node;
        Served::Reply(answer_each(&self, |topic, requested| {
            let key = TopicKey::Name(topic);
            let led = cluster.led(node, key, requested.partition, requested.current_leader_epoch)?;
            Ok(led
                .replica
                .log
                .end_of_epoch(requested.leader_epoch)
                .filter(|_| requested.leader_epoch != NO_EPOCH))
        }))
    }
}

/// Stands for no epoch.
const NO_EPOCH: i32 = -1;

fn answer_each(
    request: &OffsetForLeaderEpochRequest,
    mut each: impl FnMut(&str, &OffsetForLeaderPartition) -> Result<Option<(i32, i64)>, ErrorCode>,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|requested| {
            let result = each(&topic.topic, requested);
            let (leader_epoch, end_offset) = result.ok().flatten().unwrap_or((-1, -1));
            EpochEndOffset {
                error_code: result.err().unwrap_or(ErrorCode::NONE),
                partition: requested.partition,
                leader_epoch,
                end_offset,
            }
        });
        OffsetForLeaderTopicResult { topic: topic.topic.clone(), partitions: partitions.collect() }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..OffsetForLeaderEpochResponse::default() }
}
