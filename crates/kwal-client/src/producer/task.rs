//! The task that appends: one batch at a time, each as often as necessary.

use std::sync::Arc;

use kwal_protocol::{
    api::ApiKey,
    error_code::{Effect, ErrorCode},
    messages::InitProducerIdRequest,
    record::EncodedBatch,
};
use tracing::debug;

use super::{
    Produced,
    append::Append,
    queue::{PendingBatch, Queue, TaskGuard},
};
use crate::{
    error::{CallContext, Error, ErrorKind, Outcome},
    pool::Purpose,
    producer_id::ProducerState,
    routing::{self, Deadline, Leader, Partition, Retry, Target, Trace},
};

/// Why this producer cannot append any more.
#[derive(Clone, Copy, Debug)]
enum Fatal {
    Fenced,
    DataLoss(ProducerState),
}

impl Fatal {
    fn kind(self) -> ErrorKind {
        match self {
            Self::Fenced => ErrorKind::Fenced,
            Self::DataLoss(ProducerState { id, epoch, sequence }) => {
                ErrorKind::DataLoss { producer_id: id, epoch, sequence }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct ProducerTask {
    partition: Arc<Partition>,
    queue: Arc<Queue>,
    idempotent: bool,
    producer: Option<ProducerState>,
    fatal: Option<Fatal>,
}

/// What is known of the append in flight.
#[derive(Debug, Default)]
struct InFlight {
    /// The last attempt.
    trace: Trace,
    /// The leader that rejected the last attempt because the batch before it is missing.
    rejected_by: Option<Leader>,
    /// An earlier attempt may have been appended.
    in_doubt: bool,
}

impl InFlight {
    /// Whether the batch before this one is certainly missing at the leader, which has rejected this one
    /// again.
    fn is_loss_certain(&self) -> bool {
        match (self.rejected_by, self.trace.leader) {
            (Some(before), Some(now)) => now.confirmed && before.is(now),
            _ => false,
        }
    }
}

impl ProducerTask {
    pub(super) fn new(partition: Arc<Partition>, queue: Arc<Queue>, idempotent: bool) -> Self {
        Self { partition, queue, idempotent, producer: None, fatal: None }
    }

    /// Connects to the leader and gets a producer id.
    pub(super) async fn prepare(&mut self, leader: Leader) -> Result<(), Error> {
        let call = self.call();
        if let Some(lease) = self.partition.lease(Purpose::Produce) {
            self.partition.cluster.pool.leased(lease, leader.id, call).await?;
        }
        if self.idempotent {
            self.producer_id().await?;
        }
        Ok(())
    }

    /// Offers the producer id to other clients of the partition for as long as there is nothing to append.
    pub(super) fn offer_producer_id(&self) {
        self.queue.offer(self.idle_producer());
    }

    fn idle_producer(&self) -> Option<ProducerState> {
        self.producer.filter(|_| self.fatal.is_none())
    }

    fn call(&self) -> CallContext<'_> {
        self.partition.call(ApiKey::PRODUCE)
    }

    /// Appends until no handle is left.
    pub(super) async fn run(mut self) {
        let (partition, queue) = (Arc::clone(&self.partition), Arc::clone(&self.queue));
        let _guard = TaskGuard { partition, queue };
        while let Some(pending) = self.queue.next().await {
            let result = self.append(&pending.batch, pending.deadline).await;
            self.complete(pending, result);
        }
        self.queue.release_producer_id(&self.partition);
    }

    /// Reports the result of an append to its caller.
    fn complete(&self, pending: PendingBatch, result: Result<Produced, Error>) {
        let PendingBatch { response, _memory, _place, .. } = pending;
        match result {
            Ok(produced) => self.queue.succeed(response, produced, self.idle_producer()),
            Err(error) => self.queue.fail(response, error, self.idle_producer(), &self.partition),
        }
    }

    /// Appends a batch. Meanwhile, appends that wait for it may expire.
    async fn append(&mut self, batch: &EncodedBatch, deadline: Deadline) -> Result<Produced, Error> {
        let (queue, partition) = (Arc::clone(&self.queue), Arc::clone(&self.partition));
        tokio::select! {
            biased;
            result = self.run_attempts(batch, deadline) => result,
            never = queue.expire(&partition) => match never {},
        }
    }

    async fn run_attempts(&mut self, batch: &EncodedBatch, deadline: Deadline) -> Result<Produced, Error> {
        if let Some(fatal) = self.fatal {
            return Err(self.call().error(fatal.kind()));
        }
        let partition = Arc::clone(&self.partition);
        let call = partition.call(ApiKey::PRODUCE);
        let mut retry = Retry::new(&partition.cluster, call, deadline);
        let mut in_flight = InFlight::default();
        loop {
            in_flight.trace = Trace::until(deadline);
            let (number, min_generation) = (retry.attempt(), retry.min_generation());
            let attempt = self.attempt(batch, number, min_generation, &mut in_flight.trace);
            let error = match retry.run(attempt).await {
                Ok(produced) => {
                    self.producer = self.producer.map(|producer| producer.advance(batch.record_count()));
                    return Ok(produced);
                }
                Err(error) => error,
            };
            // Another leader has to reject it twice itself.
            if let Some(leader) = in_flight.trace.leader {
                in_flight.rejected_by = in_flight.rejected_by.filter(|before| before.is(leader));
            }
            in_flight.in_doubt |= match error.kind() {
                ErrorKind::DeadlineExceeded { .. } => in_flight.trace.sent,
                _ => error.effect() == Effect::Unknown,
            };
            // Without a sequence number the broker could not tell a retry from a new batch.
            let next = match self.idempotent || !in_flight.in_doubt {
                true => self.pause(&mut retry, error, &mut in_flight).await,
                false => Err(error),
            };
            if let Err(error) = next {
                return Err(self.give_up(error, &in_flight));
            }
        }
    }

    /// Pauses before the next attempt, or returns why there is none.
    async fn pause(
        &mut self,
        retry: &mut Retry<'_>,
        error: Error,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        if let (ErrorKind::Broker { code, .. }, Some(producer)) = (error.kind(), self.producer) {
            match *code {
                ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => {
                    return Err(self.end(Fatal::Fenced, error));
                }
                // Only this batch is in flight and all earlier ones were acknowledged, so a gap means that
                // the leader lost the last one. A deposed leader that has not noticed yet answers the same,
                // so require a second rejection at the same epoch, with another broker naming that leader in
                // between.
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if !in_flight.is_loss_certain() => {
                    in_flight.rejected_by = in_flight.trace.leader;
                    if let Some(leader) = in_flight.trace.leader {
                        self.partition.cluster.pool.mark_unhealthy(leader.id);
                    }
                    return retry.pause_in_doubt(error, in_flight.trace.generation).await;
                }
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => {
                    return Err(self.end(Fatal::DataLoss(producer), error));
                }
                _ => {}
            }
        }
        self.partition.pause(retry, error, in_flight.trace.generation).await
    }

    /// Ends this producer. The error keeps the context of the response that caused it.
    fn end(&mut self, fatal: Fatal, error: Error) -> Error {
        self.fatal = Some(fatal);
        Error::new(fatal.kind()).with_context(error.context().clone())
    }

    /// Decides the outcome of an append that is given up.
    fn give_up(&mut self, error: Error, in_flight: &InFlight) -> Error {
        if !in_flight.in_doubt {
            return error.with_outcome(Outcome::NotApplied);
        }
        if let (None, Some(_), Some(producer)) = (self.fatal, in_flight.rejected_by, self.producer) {
            // The rejection may have come from a deposed leader. But in the next epoch a loss would go
            // unnoticed.
            let fatal = Fatal::DataLoss(producer);
            self.fatal = Some(fatal);
            return self.call().error(fatal.kind()).with_outcome(Outcome::Unknown);
        }
        // The next append uses the next epoch, so that this one can never be appended after it; without a
        // next epoch, it uses a new id.
        self.producer = self.producer.and_then(ProducerState::next_epoch);
        debug!(producer = ?self.producer, "the outcome of an append is unknown, the epoch is raised");
        error.with_outcome(Outcome::Unknown)
    }

    async fn attempt(
        &mut self,
        batch: &EncodedBatch,
        number: u32,
        min_generation: u64,
        trace: &mut Trace,
    ) -> Result<Produced, Error> {
        let batch = match self.idempotent {
            true => {
                let ProducerState { id, epoch, sequence } = self.producer_id().await?;
                batch.stamp(id, epoch, sequence)
            }
            false => batch.clone(),
        };
        let append = Append { batch, attempt: number };
        let target = Target::Leader(&self.partition, Purpose::Produce);
        let cluster = &self.partition.cluster;
        routing::attempt(cluster, target, self.call(), &append, min_generation, trace).await
    }

    /// Returns the producer id: its own, otherwise an idle one of the partition, otherwise a new one.
    async fn producer_id(&mut self) -> Result<ProducerState, Error> {
        let Partition { cluster, topic, index, .. } = &*self.partition;
        if self.producer.is_none() {
            self.producer = cluster.producer_ids.acquire(topic, *index);
        }
        if let Some(producer) = self.producer {
            return Ok(producer);
        }
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..InitProducerIdRequest::default()
        };
        let (_, response) = cluster.pool.any_broker(&request, |_, _| Ok(())).await?;
        if response.error_code.is_error() {
            let kind = ErrorKind::Broker { code: response.error_code, message: None };
            return Err(self.call().with_api(ApiKey::INIT_PRODUCER_ID).error(kind));
        }
        let producer =
            ProducerState { id: response.producer_id, epoch: response.producer_epoch, sequence: 0 };
        debug!(?producer, topic = &**topic, partition = index, "got a producer id");
        self.producer = Some(producer);
        Ok(producer)
    }
}
