//! The task that appends: one batch at a time, each as often as it takes.

use std::sync::Arc;

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error_code::{Effect, ErrorCode},
    messages::{InitProducerIdRequest, ProduceLeader, ProducePartition, ProduceRequest, ProduceTopic},
    record::EncodedBatch,
    wire::Spliced,
};
use tracing::{debug, warn};

use super::{
    Core, Leader, Produced, leader_has_moved,
    queue::{Job, Queue, Served},
};
use crate::{
    attempts::Attempts,
    error::{At, Error, Outcome},
    metadata::address,
    speak::versions,
};

/// A producer id and where it stands. It belongs to one partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProducerState {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// The sequence number of the next batch's first record.
    pub(crate) sequence: i32,
}

impl ProducerState {
    /// After an append whose outcome is open: once a batch of the next epoch is on the log, the open one can no longer
    /// come. `None` if there is no next epoch.
    fn next_epoch(self) -> Option<Self> {
        let epoch = self.epoch.checked_add(1)?;
        Some(Self { epoch, sequence: 0, ..self })
    }

    /// Behind a batch of so many records. After 2147483647 comes 0.
    fn behind(self, records: usize) -> Self {
        let sequence = (i64::from(self.sequence) + records as i64) & i64::from(i32::MAX);
        Self { sequence: sequence as i32, ..self }
    }
}

/// Why no more can be appended.
#[derive(Clone, Copy, Debug)]
enum End {
    Fenced,
    Lost(ProducerState),
}

#[derive(Debug)]
pub(super) struct Writer {
    core: Arc<Core>,
    queue: Arc<Queue>,
    idempotent: bool,
    producer: Option<ProducerState>,
    end: Option<End>,
}

/// What is known of the append at hand.
#[derive(Debug, Default)]
struct Progress {
    /// The news of metadata that the attempt relies on.
    used: u64,
    /// Whom it goes to.
    leader: Option<Leader>,
    /// Who has refused an attempt because the batch before it is missing.
    missed_by: Option<Leader>,
    /// The attempt may have reached a broker, and there is no answer yet.
    in_flight: bool,
    /// An earlier attempt may have been appended.
    open: bool,
}

impl Progress {
    /// Whether the batch before is missing at the leader for sure, now that it was refused.
    fn is_missed_for_sure(&self) -> bool {
        let (Some(before), Some(now)) = (self.missed_by, self.leader) else {
            return false;
        };
        now.confirmed && before.is(now)
    }
}

impl Writer {
    pub(super) fn new(core: Arc<Core>, queue: Arc<Queue>, idempotent: bool) -> Self {
        Self { core, queue, idempotent, producer: None, end: None }
    }

    /// Brings connection and producer id along.
    pub(super) async fn prepare(&mut self, leader: Leader) -> Result<(), Error> {
        let Core { cluster, .. } = &*self.core;
        cluster.lane_of(&self.core.appends, leader.id, ApiKey::PRODUCE, self.core.place()).await?;
        if self.idempotent {
            self.producer().await?;
        }
        Ok(())
    }

    /// Leaves the producer id to others for as long as nothing is to be appended.
    pub(super) fn rest(&self) {
        self.queue.rest(self.resting());
    }

    fn resting(&self) -> Option<ProducerState> {
        self.producer.filter(|_| self.end.is_none())
    }

    /// Appends until nobody is left to ask for it.
    pub(super) async fn run(mut self) {
        let _served = Served { core: Arc::clone(&self.core), queue: Arc::clone(&self.queue) };
        while let Some(job) = self.queue.next().await {
            let result = self.append(&job).await;
            self.hand_out(job, result);
        }
        self.queue.give_producer(&self.core);
    }

    /// Tells whoever waits for an append what has become of it.
    fn hand_out(&self, job: Job, result: Result<Produced, Error>) {
        let Job { reply, _room, .. } = job;
        match result {
            Ok(produced) => self.queue.succeed(reply, produced, self.resting()),
            Err(error) => {
                if reply.is_closed() {
                    let Core { topic, partition, .. } = &*self.core;
                    warn!(topic, partition, %error, "an append failed that nobody waits for any more");
                }
                let at = || self.core.place().at(ApiKey::PRODUCE, None);
                self.queue.fail(reply, error, self.resting(), at);
            }
        }
    }

    async fn append(&mut self, job: &Job) -> Result<Produced, Error> {
        let core = Arc::clone(&self.core);
        let at = || core.place().at(ApiKey::PRODUCE, None);
        match self.end {
            Some(End::Fenced) => return Err(Error::Fenced { at: at() }),
            Some(End::Lost(producer)) => return Err(lost(producer, at())),
            None => {}
        }
        let mut attempts = core.cluster.attempts_until(job.deadline, ApiKey::PRODUCE, core.place());
        let mut progress = Progress::default();
        loop {
            progress.in_flight = false;
            let stale = attempts.stale();
            let count = attempts.count();
            let error = match attempts.within(self.attempt(&job.batch, stale, count, &mut progress)).await {
                Ok(produced) => {
                    self.producer = self.producer.map(|producer| producer.behind(job.batch.record_count()));
                    return Ok(produced);
                }
                Err(error) => error,
            };
            progress.open |= match error {
                Error::DeadlineExceeded { .. } => progress.in_flight,
                ref error => error.effect() == Effect::Unknown,
            };
            // Without a sequence number the broker could not tell a retry from a new batch.
            let next = match self.idempotent || !progress.open {
                true => self.again(&mut attempts, error, &mut progress).await,
                false => Err(error),
            };
            if let Err(error) = next {
                return Err(self.settle(error, &progress, at));
            }
        }
    }

    /// Pauses before the next attempt, or says why there is none.
    async fn again(
        &mut self,
        attempts: &mut Attempts<'_>,
        error: Error,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        if let (Error::Broker { code, at, .. }, Some(producer)) = (&error, self.producer) {
            match *code {
                ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => {
                    self.end = Some(End::Fenced);
                    return Err(Error::Fenced { at: at.clone() });
                }
                // One batch is in flight and all before it are acknowledged: a leader that says so has lost the last one. A
                // broker that has not heard yet that it leads no more says the same, so it takes a second refusal, and the
                // word of another one on who leads in between.
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if !progress.is_missed_for_sure() => {
                    progress.missed_by = progress.leader;
                    if let Some(leader) = progress.leader {
                        self.core.cluster.doubt(leader.id);
                    }
                    return attempts.again_in_doubt(error, progress.used).await;
                }
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => {
                    self.end = Some(End::Lost(producer));
                    return Err(lost(producer, at.clone()));
                }
                _ => {}
            }
        }
        self.core.again(attempts, error, progress.used).await
    }

    /// Says what became of an append that is given up.
    fn settle(&mut self, error: Error, progress: &Progress, at: impl FnOnce() -> Box<At>) -> Error {
        if !progress.open {
            return match error {
                // One attempt that did not get through does not say that for an append.
                Error::DeadlineExceeded { after, mut at, last } => {
                    at.outcome = Outcome::NotAppended;
                    Error::DeadlineExceeded { after, at, last }
                }
                error => error,
            };
        }
        if let (None, Some(_), Some(producer)) = (self.end, progress.missed_by, self.producer) {
            // Perhaps it was no leader that said so. But on the next epoch nobody would notice a loss any more.
            self.end = Some(End::Lost(producer));
            let mut at = at();
            at.outcome = Outcome::Unknown;
            return lost(producer, at);
        }
        // The next append goes out on the next epoch, so that this one can never come after it; with no next epoch, under
        // a new id.
        self.producer = self.producer.and_then(ProducerState::next_epoch);
        debug!(producer = ?self.producer, "the outcome of an append is open, the epoch is raised");
        error.unsettled(at)
    }

    async fn attempt(
        &mut self,
        batch: &EncodedBatch,
        stale: u64,
        count: u32,
        progress: &mut Progress,
    ) -> Result<Produced, Error> {
        let core = Arc::clone(&self.core);
        let leader = core.leader(stale, &mut progress.used).await?;
        // Another one has to say so itself.
        progress.missed_by = progress.missed_by.filter(|missed| missed.is(leader));
        progress.leader = Some(leader);
        let batch = match self.idempotent {
            true => {
                let ProducerState { id, epoch, sequence } = self.producer().await?;
                batch.stamp(id, epoch, sequence)
            }
            false => batch.clone(),
        };
        let lane = core.cluster.lane_of(&core.appends, leader.id, ApiKey::PRODUCE, core.place()).await?;
        let records = Spliced::new(Bytes::copy_from_slice(&batch.header_bytes()), batch.body().clone());
        // The broker waits a little shorter for the replicas than we wait for the broker.
        let limit = core.cluster.config.deadlines.request;
        let timeout_ms = i32::try_from((limit * 9 / 10).as_millis()).unwrap_or(i32::MAX);
        let request = ProduceRequest {
            acks: -1,
            timeout_ms,
            topic_data: vec![ProduceTopic {
                name: core.topic.clone(),
                topic_id: core.topic_id,
                partition_data: vec![ProducePartition { index: core.partition, records: Some(records) }],
            }],
            ..ProduceRequest::default()
        };
        progress.in_flight = true;
        let mut response =
            lane.call(&request, core.place(), versions::<ProduceRequest>(core.has_topic_id()), None).await?;
        let at = || core.place().at(ApiKey::PRODUCE, Some(lane.broker()));
        let answer = response.responses.pop().and_then(|mut topic| topic.partition_responses.pop());
        let Some(answer) = answer.filter(|answer| answer.index == core.partition) else {
            return Err(Error::NoAnswer { at: at() }.unsettled(at));
        };
        if leader_has_moved(answer.error_code) {
            let ProduceLeader { leader_id, leader_epoch } = answer.current_leader;
            let endpoint = response.node_endpoints.iter().find(|told| told.node_id == leader_id);
            let address = endpoint.and_then(|told| address(&told.host, told.port));
            core.take_hint(leader_id, leader_epoch, address);
        }
        match answer.error_code {
            ErrorCode::NONE => Ok(Produced {
                base_offset: answer.base_offset,
                record_count: batch.record_count(),
                log_append_time_ms: (answer.log_append_time_ms >= 0).then_some(answer.log_append_time_ms),
                log_start_offset: (answer.log_start_offset >= 0).then_some(answer.log_start_offset),
                wire_bytes: batch.size_in_bytes(),
                attempts: count,
            }),
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Err(Error::BatchTooLarge {
                size: batch.size_in_bytes(),
                records: batch.record_count(),
                limit: None,
                at: at(),
            }),
            code => Err(Error::Broker { code, message: answer.error_message, at: at() }),
        }
    }

    /// The producer id: its own, else one that others have left, else a new one.
    async fn producer(&mut self) -> Result<ProducerState, Error> {
        let Core { cluster, topic, partition, .. } = &*self.core;
        if self.producer.is_none() {
            self.producer = cluster.take_producer(topic, *partition);
        }
        if let Some(producer) = self.producer {
            return Ok(producer);
        }
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..InitProducerIdRequest::default()
        };
        let response = self.core.cluster.call_any(&request).await?;
        if response.error_code.is_error() {
            let at = self.core.place().at(ApiKey::INIT_PRODUCER_ID, None);
            return Err(Error::Broker { code: response.error_code, message: None, at });
        }
        let producer =
            ProducerState { id: response.producer_id, epoch: response.producer_epoch, sequence: 0 };
        debug!(?producer, topic = self.core.topic, partition = self.core.partition, "got a producer id");
        self.producer = Some(producer);
        Ok(producer)
    }
}

fn lost(producer: ProducerState, at: Box<At>) -> Error {
    let ProducerState { id: producer_id, epoch, sequence } = producer;
    Error::Lost { producer_id, epoch, sequence, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        let at = |sequence| ProducerState { id: 1, epoch: 0, sequence };
        assert_eq!(at(5).behind(3), at(8));
        assert_eq!(at(i32::MAX).behind(1), at(0));
        assert_eq!(at(i32::MAX - 1).behind(3), at(1));
    }

    #[test]
    fn epochs_end() {
        let producer = ProducerState { id: 1, epoch: i16::MAX - 1, sequence: 9 };
        let next = producer.next_epoch().unwrap();
        assert_eq!(next, ProducerState { id: 1, epoch: i16::MAX, sequence: 0 });
        assert_eq!(next.next_epoch(), None);
    }
}
