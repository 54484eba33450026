//! Looks regularly whether another holder has taken over (DescribeProducers, KIP-664).

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use kwal_protocol::{
    api::ApiKey,
    messages::{DescribeProducersRequest, DescribeProducersResponse, DescribeProducersTopic},
};
use tokio::time::sleep;
use tracing::debug;

use super::super::appends::Appends;
use crate::{
    error::ErrorKind,
    log,
    producer_id::Identity,
    routing::{Deadline, Operation, Rejection, Route, only_partition},
};

/// Probes the partition at an interval, until the producer ends or is gone.
pub(crate) async fn watch(appends: Weak<Appends>, interval: Duration) {
    loop {
        sleep(interval).await;
        let Some(appends) = appends.upgrade() else { return };
        if appends.end_error().is_some() {
            return;
        }
        probe(&appends).await;
    }
}

async fn probe(appends: &Arc<Appends>) {
    let Some(Identity { id, .. }) = appends.identity() else { return };
    let partition = &appends.partition;
    let deadline = Deadline::after(partition.cluster.config.deadlines.request);
    match log::call(partition, &EpochOf { id }, deadline).await {
        // The own epoch may have been raised meanwhile, and is always raised here first.
        Ok(Some(known)) if appends.identity().is_some_and(|own| own.id == id && known > own.epoch.into()) => {
            let error = appends.call().with_api(ApiKey::DESCRIBE_PRODUCERS).error(ErrorKind::Fenced);
            appends.fenced(error);
        }
        Ok(_) => {}
        // The next one may succeed, and an append notices it anyway.
        Err(error) => debug!(%error, "a probe failed"),
    }
}

/// Requests the epoch of a producer id that the leader of a partition knows; `None` if it knows none.
#[derive(Debug)]
struct EpochOf {
    id: i64,
}

impl Operation for EpochOf {
    type Request = DescribeProducersRequest;
    type Output = Option<i32>;

    fn request(&self, route: &Route<'_>) -> DescribeProducersRequest {
        let topic =
            DescribeProducersTopic { name: route.topic.to_owned(), partition_indexes: vec![route.partition] };
        DescribeProducersRequest { topics: vec![topic] }
    }

    fn response(
        &self,
        route: &Route<'_>,
        response: DescribeProducersResponse,
    ) -> Result<Option<i32>, Rejection> {
        let found = only_partition(
            response.topics,
            |topic| topic.name == route.topic,
            |topic| topic.partitions,
            |found| found.partition_index == route.partition,
        )?;
        Rejection::check_with(found.error_code, found.error_message)?;
        let known = found.active_producers.iter().filter(|producer| producer.producer_id == self.id);
        Ok(known.map(|producer| producer.producer_epoch).max())
    }
}
