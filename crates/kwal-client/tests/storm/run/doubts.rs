//! What became of appends of unknown outcome.

use fastrand::Rng;
use kwal_client::{
    PartitionClient, Resolution,
    error::{Error, ErrorKind, InDoubt},
};
use kwal_protocol::error_code::ErrorCode;
use kwal_testkit::{
    Hazard,
    check::{AppendId, WriterId},
};

use super::{Shared, TOPIC, root, writer::Appender};
use crate::support::chain;

/// An append of unknown outcome.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) append: AppendId,
    pub(super) writer: WriterId,
    /// The number of its client.
    pub(super) client: u64,
    pub(super) partition: i32,
    pub(super) values: Vec<String>,
    pub(super) in_doubt: InDoubt,
}

/// Resolves every append of unknown outcome, when the storm is over.
pub(super) async fn resolve_all(shared: &Shared, appenders: &[Appender], rng: &mut Rng) {
    for doubt in shared.doubts() {
        let Some(own) = appenders.iter().find(|appender| appender.is_of(&doubt)) else { continue };
        for _ in 0..if rng.u8(..3) == 0 { 2 } else { 1 } {
            let (by, writer) = match rng.u8(..3) {
                0 if own.is_holder() && rng.bool() => {
                    wrong_name(shared, own, &doubt).await;
                    continue;
                }
                1.. if own.is_holder() => own.open_again().await.unzip(),
                0 => (Some(own.partition().clone()), Some(own.writer())),
                1 => (shared.open(own.client(), doubt.partition).await, None),
                _ => {
                    let client = shared.client(100 + rng.u64(..100)).await;
                    (shared.open(&client, doubt.partition).await, None)
                }
            };
            if let Some(by) = by {
                resolve(shared, &by, writer, &doubt).await;
            }
        }
    }
}

/// Resolves an append by a partition client without the name, which has to be rejected.
async fn wrong_name(shared: &Shared, own: &Appender, doubt: &Doubt) {
    let Some(by) = shared.open(own.client(), doubt.partition).await else { return };
    let (fence, value) = shared.fence(doubt.partition);
    let result = shared.timed("resolve", by.resolve(&doubt.in_doubt, shared.stamped(value))).await;
    fence.not_appended();
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput { .. }) => {
            shared.count_event("resolved by the wrong name");
        }
        other => shared.problem(format!("{} was resolved by the wrong name: {other:?}", doubt.append)),
    }
}

/// Resolves an append by a partition client, that of `writer` if it has one.
pub(super) async fn resolve(shared: &Shared, by: &PartitionClient, writer: Option<WriterId>, doubt: &Doubt) {
    if writer != Some(doubt.writer) {
        shared.may_be_fenced(doubt.partition);
    }
    let (fence, value) = shared.fence(doubt.partition);
    shared.recorder.now().resolve(doubt.append);
    let resolution = by.resolve(&doubt.in_doubt, shared.stamped(value));
    let result = shared.timed("resolve", resolution).await;
    // Whether the fence is on the log does not matter.
    drop(fence);
    match result {
        Ok(Resolution::Appended(offsets)) => {
            shared.count_event("resolved as appended");
            shared.recorder.now().resolved(doubt.append, Some(offsets.start));
            if offsets.end - offsets.start != doubt.values.len() as i64 {
                shared.problem(format!("{} was resolved to the offsets {offsets:?}", doubt.append));
            }
        }
        Ok(Resolution::NotApplied) => {
            shared.count_event("resolved as not applied");
            shared.recorder.now().resolved(doubt.append, None);
            let is_certain = shared.is_over() || !shared.plan.is_lossy();
            if is_certain && shared.is_on_log(doubt) {
                shared.problem(format!("{} was resolved as not applied, and is on the log", doubt.append));
            }
        }
        Err(error) => failed(shared, doubt, &error),
    }
}

fn failed(shared: &Shared, doubt: &Doubt, error: &Error) {
    shared.count_event("resolutions failed");
    let plan = &shared.plan;
    let expected = match root(error) {
        ErrorKind::InvalidInput { .. } | ErrorKind::TopicRecreated { .. } => plan.has(Hazard::Recreation),
        ErrorKind::Trimmed { .. } | ErrorKind::BeyondEnd { .. } | ErrorKind::OffsetOutOfRange { .. } => {
            plan.is_lossy() || plan.is_trimmed()
        }
        ErrorKind::DataLoss { .. } => plan.is_lossy(),
        // Another holder has the log by now.
        ErrorKind::Fenced if doubt.in_doubt.transactional_id.is_some() => true,
        ErrorKind::Fenced => shared.is_fenced(doubt.partition),
        // A fence of an id that is refused is never on the log.
        ErrorKind::DeadlineExceeded { .. } | ErrorKind::Broker { .. } if is_refused(error) => {
            plan.has(Hazard::RefusedProducerIds)
        }
        ErrorKind::Closed | ErrorKind::Corrupt { .. } | ErrorKind::Encode => false,
        _ => !shared.is_over(),
    };
    if !expected {
        shared.problem(format!("{} cannot be resolved: {}", doubt.append, chain(error)));
    }
}

/// Whether the broker does not accept the producer id.
fn is_refused(error: &Error) -> bool {
    let refused = [ErrorCode::UNKNOWN_PRODUCER_ID, ErrorCode::INVALID_PRODUCER_ID_MAPPING];
    let is_code = matches!(error.kind(), ErrorKind::Broker { code, .. } if refused.contains(code));
    is_code || error.cause().and_then(|cause| cause.downcast_ref()).is_some_and(is_refused)
}

impl Shared {
    /// Whether a record of the append is on the log of the leader.
    fn is_on_log(&self, doubt: &Doubt) -> bool {
        let records = self.cluster.records(TOPIC, doubt.partition).unwrap();
        let mut values = records.iter().filter_map(|record| record.value.as_deref());
        values.any(|on_log| doubt.values.iter().any(|value| value.as_bytes() == on_log))
    }
}
