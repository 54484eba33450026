//! The task that appends: one batch at a time, each as often as necessary.

use std::sync::Arc;

use kwal_protocol::{
    api::ApiKey,
    error_code::{Effect, ErrorCode},
    record::EncodedBatch,
};
use tracing::debug;

use super::{
    Produced,
    append::Append,
    init::init_producer_id,
    queue::{PendingBatch, Queue},
};
use crate::{
    error::{CallContext, Error, ErrorKind, Outcome, Progress},
    pool::Purpose,
    producer_id::ProducerState,
    routing::{self, Deadline, Leader, Partition, Retry, Target, Trace, Tracker},
};

#[derive(Debug)]
pub(super) struct ProducerTask {
    partition: Arc<Partition>,
    queue: Arc<Queue>,
    idempotent: bool,
    producer: Option<ProducerState>,
    /// The last offset that was acknowledged, whatever the producer id was.
    acknowledged: Option<i64>,
    /// Why this producer cannot append any more.
    fatal: Option<ErrorKind>,
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
        Self { partition, queue, idempotent, producer: None, acknowledged: None, fatal: None }
    }

    /// Returns the producer id for other clients of the partition, for as long as there is nothing to append.
    fn idle_producer(&self) -> Option<ProducerState> {
        let producer = self.producer.filter(|_| self.fatal.is_none())?;
        Some(ProducerState { acknowledged: self.acknowledged, ..producer })
    }

    fn call(&self) -> CallContext<'_> {
        self.partition.call(ApiKey::PRODUCE)
    }

    /// Appends until no handle is left.
    pub(super) async fn run(mut self) {
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
        if let Some(fatal) = &self.fatal {
            return Err(self.call().error(fatal.clone()));
        }
        let partition = Arc::clone(&self.partition);
        let call = partition.call(ApiKey::PRODUCE);
        let mut retry = Retry::new(&partition.cluster, call, deadline);
        let mut in_flight = InFlight::default();
        loop {
            in_flight.trace = Trace::until(deadline);
            let (number, min_generation) = (retry.attempt(), retry.min_generation());
            let attempt = self.attempt(batch, number, min_generation, &mut in_flight, retry.tracker());
            let error = match retry.run(attempt).await {
                Ok(produced) => {
                    self.producer = self.producer.map(|producer| producer.advance(batch.record_count()));
                    let last = produced.offsets().map(|offsets| offsets.end - 1);
                    self.acknowledged = last.or(self.acknowledged);
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
                false => Err(retry.end(error)),
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
                    return Err(instead_of(error, ErrorKind::Fenced));
                }
                // The broker appended nothing under this id and never will, so another one is needed.
                code if is_id_refused(code, producer) => {
                    self.producer = None;
                    // That was about the sequence of this id.
                    in_flight.rejected_by = None;
                    // Not for a batch that an earlier attempt may have appended: the broker may have
                    // forgotten the id since then, and would not recognise the batch under another one.
                    if in_flight.in_doubt {
                        return Err(error);
                    }
                    return retry.pause_in_doubt(error, in_flight.trace.generation).await;
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
                    return Err(instead_of(error, loss_before(producer)));
                }
                _ => {}
            }
        }
        self.partition.pause(retry, error, &in_flight.trace).await
    }

    /// Decides the outcome of an append that is given up, and whether its error ends this producer.
    fn give_up(&mut self, error: Error, in_flight: &InFlight) -> Error {
        let error = match (error.kind(), in_flight.rejected_by, self.producer) {
            (ErrorKind::Fenced | ErrorKind::DataLoss { .. }, ..) => error,
            // The rejection may have come from a deposed leader. But in the next epoch a loss would go
            // unnoticed.
            (_, Some(_), Some(producer)) if in_flight.in_doubt => self.call().error(loss_before(producer)),
            _ => error,
        };
        if let ErrorKind::Fenced | ErrorKind::DataLoss { .. } = error.kind() {
            self.fatal = Some(error.kind().clone());
        }
        if let ErrorKind::DataLoss { .. } = error.kind() {
            // Those who used them before learn of the loss here, and not once more from each of them.
            self.partition.cluster.producer_ids.clear(&self.partition.key());
        }
        if !in_flight.in_doubt {
            return error.with_outcome(Outcome::NotApplied);
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
        in_flight: &mut InFlight,
        tracker: &Tracker,
    ) -> Result<Produced, Error> {
        tracker.set(Progress::ProducerId, None);
        let batch = match self.idempotent {
            true => {
                let ProducerState { id, epoch, sequence, .. } = self.producer_id().await?;
                batch.stamp(id, epoch, sequence)
            }
            false => batch.clone(),
        };
        let (in_doubt, acknowledged) = (in_flight.in_doubt, self.acknowledged);
        let append = Append { batch, attempt: number, in_doubt, acknowledged };
        let target = Target::Leader(&self.partition, Purpose::Produce);
        let cluster = &self.partition.cluster;
        let trace = &mut in_flight.trace;
        routing::attempt(cluster, target, self.call(), &append, min_generation, trace, tracker).await
    }

    /// Returns the producer id: its own, otherwise an idle one of the partition, otherwise a new one.
    async fn producer_id(&mut self) -> Result<ProducerState, Error> {
        let Partition { cluster, topic, index, .. } = &*self.partition;
        if self.producer.is_none() {
            self.producer = cluster.producer_ids.acquire(&self.partition.key());
        }
        if let Some(producer) = self.producer {
            self.acknowledged = self.acknowledged.max(producer.acknowledged);
            return Ok(producer);
        }
        let producer = init_producer_id(&self.partition).await?;
        debug!(?producer, topic = &**topic, partition = index, "got a producer id");
        self.producer = Some(producer);
        Ok(producer)
    }
}

/// Whether a rejection is about the producer id. A batch that begins an epoch has no batch before it that
/// could be missing: if it is out of order, somebody else has the same id.
fn is_id_refused(code: ErrorCode, producer: ProducerState) -> bool {
    match code {
        ErrorCode::UNKNOWN_PRODUCER_ID | ErrorCode::INVALID_PRODUCER_ID_MAPPING => true,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => producer.sequence == 0,
        _ => false,
    }
}

/// An error with the context of the response that caused it.
fn instead_of(error: Error, kind: ErrorKind) -> Error {
    Error::new(kind).with_context(error.context().clone())
}

/// The leader lacks the batch before the next one of this producer.
fn loss_before(ProducerState { id, epoch, sequence, .. }: ProducerState) -> ErrorKind {
    ErrorKind::DataLoss { producer_id: id, epoch, sequence, offsets: None }
}
