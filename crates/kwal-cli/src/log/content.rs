//! What is in a batch.

use kwal::{
    entry::{EntryId, Fragment},
    record::{Barrier, Batch},
};
use kwal_protocol::record::{BatchHeader, ControlRecord, RecordView};

/// What the records of a batch are, and whether they are as they should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// How many records it has.
    pub(crate) records: u64,
    /// How many of its offsets have none, since compaction removed them.
    pub(crate) holes: u64,
    /// What it is, if it is not just records.
    pub(crate) kind: Kind,
    /// Why it cannot be read to its end.
    pub(crate) problem: Option<String>,
}

/// What a batch is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Kind {
    /// Records of an application.
    #[default]
    Records,
    /// The end of a transaction.
    Marker { committed: bool },
    /// Another control batch, by its type.
    Control(String),
    /// An exclusive writer took over.
    Barrier(Barrier),
    /// The record of a barrier under another producer id, which shuts that out.
    Fence(Barrier),
    /// One record at the last epoch of a producer id, which shuts that out: by `resolve`.
    ResolveFence,
    /// Fragments of entries that are larger than a batch: how many, and of which entry the first one is.
    Fragments { count: u64, first: EntryId },
}

/// The largest batch after decompression.
const MAX_DECOMPRESSED: usize = 256 << 20;

/// Whether a batch is a fence: of `resolve`, or of an exclusive writer that took over. Clients leave the last
/// epoch of a producer id to fences.
pub(crate) fn is_fence(batch: &Batch) -> bool {
    let header = batch.header();
    header.producer_id >= 0
        && header.producer_epoch == i16::MAX
        && header.last_offset_delta == 0
        && !header.is_control()
}

impl Content {
    pub(crate) fn of(batch: &Batch) -> Self {
        let mut content = Self::default();
        match batch.records(MAX_DECOMPRESSED) {
            Err(error) => content.problem = Some(crate::exit::chain(&error.kind)),
            Ok(records) => {
                let mut last = None;
                for record in &records {
                    match record {
                        Ok(record) => content.add(batch, &record, &mut last),
                        Err(error) => content.problem = Some(crate::exit::chain(&error.kind)),
                    }
                    if content.problem.is_some() {
                        break;
                    }
                }
            }
        }
        let header = batch.header();
        if header.magic == BatchHeader::MAGIC && content.problem.is_none() {
            let offsets = i64::from(header.last_offset_delta) + 1;
            content.holes = u64::try_from(offsets).unwrap_or_default().saturating_sub(content.records);
        }
        if content.kind == Kind::Records && is_fence(batch) {
            content.kind = Kind::ResolveFence;
        }
        content
    }

    fn add(&mut self, batch: &Batch, record: &RecordView<'_>, last: &mut Option<i64>) {
        let offset = record.offset;
        if last.is_some_and(|last| offset <= last) || offset > batch.last_offset() {
            self.problem = Some(format!("the offset {offset} of a record is not in order"));
            return;
        }
        *last = Some(offset);
        self.records += 1;
        if batch.is_control() {
            self.control(record);
        } else if let Some(Ok(fragment)) = Fragment::parse(record) {
            match &mut self.kind {
                Kind::Fragments { count, .. } => *count += 1,
                kind => *kind = Kind::Fragments { count: 1, first: fragment.entry },
            }
        } else if batch.header().count == 1
            && let Some(barrier) = Barrier::parse(record)
        {
            self.kind = match Barrier::in_batch(batch) {
                Some(barrier) => Kind::Barrier(barrier),
                None => Kind::Fence(barrier),
            };
        }
    }

    fn control(&mut self, record: &RecordView<'_>) {
        match ControlRecord::decode(record) {
            Ok(ControlRecord::EndTransaction(end)) => self.kind = Kind::Marker { committed: end.committed },
            Ok(other) => {
                let control = other.control_type();
                let name = control.name().map_or_else(|| format!("type {}", control.0), str::to_owned);
                self.kind = Kind::Control(name);
            }
            Err(error) => self.problem = Some(crate::exit::chain(&error)),
        }
    }
}
