use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        DescribeProducersPartitionResult, DescribeProducersRequest, DescribeProducersResponse,
        DescribeProducersTopicResult, ProducerDescription,
    },
};

use super::{
    handler::{Serve, Served},
    lookup::TopicKey,
    request::RequestContext,
    state::Cluster,
    topics::is_valid_name,
};

impl Serve for DescribeProducersRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> DescribeProducersResponse {
        answer_each(self, |_, _| Err(code))
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<DescribeProducersResponse> {
        let (node, expiry) = (context.from.node, cluster.producer_expiry());
        Served::Reply(answer_each(&self, |topic, index| {
            if !is_valid_name(topic) {
                return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
            }
            let known = &mut cluster.found(node, TopicKey::Name(topic), index, -1)?.replica.known;
            known.producers.expire(expiry, |id| known.transactions.begun_at(id).is_some());
            let described = known.producers.iter().map(|(producer_id, producer)| ProducerDescription {
                producer_id,
                producer_epoch: producer.epoch.into(),
                last_sequence: producer.last_sequence(),
                last_timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                current_txn_start_offset: known.transactions.begun_at(producer_id).unwrap_or(-1),
            });
            Ok(described.collect())
        }))
    }
}

fn answer_each(
    request: &DescribeProducersRequest,
    mut each: impl FnMut(&str, i32) -> Result<Vec<ProducerDescription>, ErrorCode>,
) -> DescribeProducersResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let (error_code, active_producers) = match each(&topic.name, *index) {
                Ok(producers) => (ErrorCode::NONE, producers),
                Err(code) => (code, Vec::new()),
            };
            DescribeProducersPartitionResult {
                partition_index: *index,
                error_code,
                error_message: error_code.text().filter(|_| error_code.is_error()).map(str::to_owned),
                active_producers,
            }
        });
        DescribeProducersTopicResult { name: topic.name.clone(), partitions: partitions.collect() }
    });
    DescribeProducersResponse { topics: topics.collect(), ..DescribeProducersResponse::default() }
}
