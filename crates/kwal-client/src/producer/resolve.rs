//! Finds out whether a batch in doubt is on the log, for good.

use std::{future::IntoFuture, ops::Range};

use tracing::Span;

use super::{Produced, Producer, appends::Appends, fence, lookup::find, state::Standing};
use crate::{
    error::{Error, ErrorKind, InDoubt, Outcome},
    log::{self, ListOffset, OffsetAt},
    producer_id::{Identity, Stamp},
    record::Record,
    request::{call_span, request},
    routing::{Deadline, Partition},
};
use kwal_protocol::{api::ApiKey, text::Printable};

/// What became of a batch in doubt. It does not change any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resolution {
    /// The batch is on the log: the offsets of its records, in order.
    Appended(Range<i64>),
    /// The batch is not on the log and never will be. Its records may be appended again.
    NotApplied,
}

request! {
    /// A resolution of a batch in doubt. Nothing happens until it is awaited.
    ///
    /// # Errors
    /// Nothing is decided then, and the batch can be resolved again: the outcome is
    /// [`Outcome::Unknown`], as that of the append, and
    /// [`Error::in_doubt`] is the same handle. The fence may be on the log.
    ///
    /// [`ErrorKind::InvalidInput`], before anything is sent, for a
    /// batch of another topic or partition, for numbers that no batch has, and for a fence that cannot be
    /// appended; [`ErrorKind::Trimmed`] and
    /// [`ErrorKind::BeyondEnd`] if the log no longer has all that followed [`InDoubt::after`]: it was
    /// deleted, or lost in an unclean election, and the batch may have been there;
    /// [`ErrorKind::DeadlineExceeded`]; those of an append, for the fence; those of every read.
    ///
    /// # Cancellation safety
    /// If it is dropped, the fence may be on the log or may still reach it. Resolving the batch again is
    /// harmless and has the same result, so readers may meet several fences.
    pub struct Resolve<'a> -> Result<Resolution, Error> {
        producer: &'a Producer,
        in_doubt: InDoubt,
        fence: Record,
    }
}

impl Producer {
    /// See [`PartitionClient::resolve`](crate::PartitionClient::resolve).
    pub(crate) fn resolve(&self, in_doubt: &InDoubt, fence: Record) -> Resolve<'_> {
        Resolve { producer: self, in_doubt: in_doubt.clone(), fence, deadline: None }
    }
}

impl Resolve<'_> {
    fn span(&self) -> Span {
        let partition = &self.producer.appends.partition;
        call_span!("resolve", &*partition.topic, partition.index)
    }

    async fn run(self) -> Result<Resolution, Error> {
        let partition = &*self.producer.appends.partition;
        // Whatever is wrong with the call, the batch is as much in doubt as before.
        let in_doubt = |error: Error| error.with_in_doubt(self.in_doubt.clone());
        if let Some(reason) = invalid(&self.producer.appends, &self.in_doubt) {
            return Err(in_doubt(partition.call(ApiKey::PRODUCE).invalid_input(reason)));
        }
        self.producer.check(std::slice::from_ref(&self.fence)).map_err(in_doubt)?;
        let deadline = self.deadline.unwrap_or(partition.cluster.config.deadlines.operation);
        let search = Search {
            producer: self.producer,
            partition,
            in_doubt: &self.in_doubt,
            deadline: Deadline::after(deadline),
        };
        let resolution = search.run(&self.fence).await.map_err(in_doubt)?;
        let offset = match &resolution {
            Resolution::Appended(offsets) => Some(offsets.start),
            Resolution::NotApplied => None,
        };
        partition.cluster.troubles.resolved(partition.call(ApiKey::PRODUCE), offset);
        Ok(resolution)
    }
}

/// Returns why this is no batch in doubt of the partition.
fn invalid(appends: &Appends, in_doubt: &InDoubt) -> Option<String> {
    let InDoubt { topic, topic_id, partition: index, record_count, after, transactional_id, part, .. } =
        in_doubt;
    let Appends { partition, hold, .. } = appends;
    let is_here = match topic_id.filter(|_| !partition.topic_id.is_zero()) {
        Some(id) => id == partition.topic_id,
        None => **topic == *partition.topic,
    };
    if !is_here || *index != partition.index {
        let id = topic_id.map_or_else(String::new, |id| format!(" (topic id {id})"));
        return Some(format!("the batch in doubt is of {topic}/{index}{id}"));
    }
    let is_batch = in_doubt.producer_id >= 0
        && in_doubt.epoch >= 0
        && in_doubt.sequence >= 0
        && (1..=i32::MAX as usize).contains(record_count)
        && after.is_none_or(|after| (0..i64::MAX).contains(&after))
        && part.as_ref().is_none_or(|part| part.start <= part.end && part.end <= *record_count);
    if !is_batch {
        return Some(format!("there is no such batch: {}", in_doubt.batch()));
    }
    // Its id goes on with the next holder of the name, whom a fence would keep away.
    let own = hold.as_ref().map(|hold| &*hold.transactional_id);
    let named = transactional_id.as_deref().filter(|named| Some(*named) != own)?;
    let name = named.strip_suffix(&format!("/{topic}/{index}")).unwrap_or(named);
    let name = Printable(name);
    Some(format!(
        "the batch in doubt is of an exclusive writer: resolve it by a partition client with exclusive(\"{name}\")"
    ))
}

/// A search for a batch in doubt.
struct Search<'a> {
    producer: &'a Producer,
    partition: &'a Partition,
    in_doubt: &'a InDoubt,
    deadline: Deadline,
}

impl Search<'_> {
    async fn run(&self, fence: &Record) -> Result<Resolution, Error> {
        // Before the fence: what is deleted from now on is noticed.
        let start = match self.in_doubt.after {
            Some(after) => after + 1,
            None => log::call(self.partition, &ListOffset::of(OffsetAt::Earliest), self.deadline).await?,
        };
        let end = match self.settle(fence).await? {
            Some(end) => end,
            None => {
                self.prove_hold(fence).await?;
                self.fence(fence, start).await?
            }
        };
        let Self { partition, deadline, in_doubt, .. } = *self;
        let records = in_doubt.record_count;
        Ok(match find(partition, stamp(in_doubt), records, start..end, deadline).await? {
            Some(offset) => {
                let Range { start, end } = in_doubt.part.clone().unwrap_or(0..records);
                let at = |index: usize| offset.saturating_add_unsigned(index as u64);
                Resolution::Appended(at(start)..at(end))
            }
            None => Resolution::NotApplied,
        })
    }

    /// Makes sure by this producer that the batch can no longer be appended: a later one of its id was
    /// acknowledged, or the fence is. Returns the offset before which the batch is; `None` if another
    /// producer has the id.
    async fn settle(&self, fence: &Record) -> Result<Option<i64>, Error> {
        let Self { producer, partition, deadline, in_doubt, .. } = *self;
        let mut fenced_at = None;
        if producer.standing(in_doubt) == Standing::Owned {
            let produced = self.append_fence(fence).await;
            // If it is not the owner's id any more, the fence went out under another one, or not at all.
            match (produced, producer.standing(in_doubt)) {
                (Ok(produced), Standing::Settled) => fenced_at = produced.base_offset,
                (Err(error), Standing::Owned) => return Err(error),
                _ => {}
            }
        }
        match (producer.standing(in_doubt), fenced_at) {
            (Standing::Settled, Some(offset)) => Ok(Some(offset)),
            // All in-sync replicas have what was acknowledged.
            (Standing::Settled, None) => Ok(Some(log::end_offset(partition, deadline).await?)),
            _ => Ok(None),
        }
    }

    /// Makes sure that a batch of an exclusive writer is of an earlier producer id of the name, which nobody
    /// goes on with. A holder that was fenced does not know which ids came after its own.
    async fn prove_hold(&self, fence: &Record) -> Result<(), Error> {
        let Self { producer, in_doubt, .. } = *self;
        if in_doubt.transactional_id.is_none() {
            return Ok(());
        }
        self.append_fence(fence).await?;
        match producer.appends.identity() {
            Some(own) if own.id != in_doubt.producer_id => Ok(()),
            // A later epoch of the own id: another holder has taken over, and nothing was appended since.
            _ => Err(producer.appends.call().error(ErrorKind::Fenced)),
        }
    }

    /// Appends a fence like any record. An append before it may have a shorter deadline, and the fence fails
    /// with that one while it has time left itself.
    async fn append_fence(&self, fence: &Record) -> Result<Produced, Error> {
        loop {
            let produced = self.producer.append_fence(fence.clone(), self.deadline).await;
            let is_fault_of_another = produced.as_ref().is_err_and(|error| {
                matches!(error.kind(), ErrorKind::PrecedingAppendFailed)
                    && error.outcome() == Outcome::NotApplied
            });
            if !is_fault_of_another || self.producer.standing(self.in_doubt) != Standing::Owned {
                return produced;
            }
        }
    }

    /// Appends a fence under the id of the batch, on its last epoch. Returns the offset of the first such
    /// fence: all in-sync replicas have it, and no batch of an earlier epoch can follow it (KIP-98).
    ///
    /// The last epoch is left to fences. An owner of an id without a transactional id raises the epoch itself
    /// (only with one is that the coordinator's task, KIP-360), so a fence on the next epoch and a batch of
    /// the owner could have the same stamp. Brokers compare nothing else, so the owner would take the offset
    /// of the fence for that of its batch.
    async fn fence(&self, fence: &Record, start: i64) -> Result<i64, Error> {
        let Self { producer, partition, deadline, in_doubt, .. } = *self;
        if in_doubt.epoch == Identity::FENCE_EPOCH {
            let reason = format!("nothing can follow the last epoch of a producer id: {}", in_doubt.batch());
            return Err(partition.call(ApiKey::PRODUCE).invalid_input(reason));
        }
        let (batch, _memory) = producer.encode_fence(fence, deadline).await?;
        fence::append(partition, in_doubt.producer_id, &batch, start, deadline).await
    }
}

pub(super) fn stamp(in_doubt: &InDoubt) -> Stamp {
    let InDoubt { producer_id, epoch, sequence, .. } = *in_doubt;
    Stamp { identity: Identity { id: producer_id, epoch }, sequence }
}
