//! What a replay and a stream have in common: the cursor, the batches in hand, and one fetch ahead.

use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    task::{Context, Poll, ready},
};

use kwal_client::{
    BatchRecords, FetchedBatch, PartitionClient, Position,
    error::{Error, ErrorKind},
    metrics::ReaderMetrics,
};
use kwal_protocol::{
    record::{BatchHeader, OwnedRecord},
    wire::Uuid,
};

use super::{
    cursor::{At, Cursor, Due},
    round::{Ahead, Ask, PendingRound, Round},
    settings::{Settings, Unreadable},
    summary::len,
};

/// A reader. All its state is here: whatever future of it is dropped, nothing is lost.
pub(crate) struct Reader {
    partition: PartitionClient,
    settings: Settings,
    pub(crate) cursor: Cursor,
    topic_id: Option<Uuid>,
    /// Whether it was opened to begin at the start of the log, and has read nothing.
    is_earliest: bool,
    /// What was fetched and not handed over, in order.
    batches: VecDeque<InHand>,
    /// The batch that is being read record by record.
    records: Option<Records>,
    /// The producer id and the epoch of that batch, or of the last one that was read so.
    producer: Option<(i64, i16)>,
    round: Option<PendingRound>,
    ahead: Option<Ahead>,
    /// The error that ended it.
    failed: Option<Error>,
    /// Whether a stream of records has returned that error.
    is_reported: bool,
    metrics: ReaderMetrics,
}

/// A batch, or the rest of one.
#[derive(Clone)]
struct InHand {
    batch: FetchedBatch,
    is_rest: bool,
}

/// A batch that is due. It is given back, or [handed over](Reader::hand_over).
pub(crate) struct Begun {
    /// Without the records that are not due.
    pub(crate) batch: FetchedBatch,
    due: Range<i64>,
    whole: InHand,
}

struct Records {
    begun: Begun,
    records: BatchRecords,
}

impl Reader {
    pub(crate) fn new(
        partition: PartitionClient,
        settings: Settings,
        cursor: Cursor,
        topic_id: Option<Uuid>,
        is_earliest: bool,
    ) -> Self {
        Self {
            topic_id: topic_id.or_else(|| partition.topic_id()),
            metrics: ReaderMetrics::new(partition.topic(), partition.partition()),
            partition,
            settings,
            cursor,
            is_earliest,
            batches: VecDeque::new(),
            records: None,
            producer: None,
            round: None,
            ahead: None,
            failed: None,
            is_reported: false,
        }
    }

    pub(crate) fn position(&self) -> Position {
        self.position_of(self.cursor.at())
    }

    fn position_of(&self, at: At) -> Position {
        Position { topic_id: self.topic_id, leader_epoch: at.epoch, offset: at.offset }
    }

    /// Returns the producer id and the epoch of the batch of the last record.
    pub(crate) fn producer(&self) -> Option<(i64, i16)> {
        self.producer
    }

    /// Returns the error that ended it.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Returns the next batch that is due; `None` at the end of a replay.
    pub(crate) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Begun>, Error>> {
        self.suspend();
        loop {
            if let Some(error) = &self.failed {
                return Poll::Ready(Err(error.clone()));
            }
            if let Some(begun) = self.take_batch()? {
                return Poll::Ready(Ok(Some(begun)));
            }
            if self.cursor.is_done() {
                return Poll::Ready(Ok(None));
            }
            let round = match &mut self.round {
                Some(round) => round,
                None => {
                    let round = self.ask();
                    self.round.insert(round)
                }
            };
            let result = ready!(round.poll(cx));
            self.round = None;
            match result {
                Ok(round) => self.take_round(round, cx)?,
                Err(error) => self.fail(error)?,
            }
            self.metrics.lag(self.cursor.lag());
            // There is more: it is on its way before anything of this one is decoded. The task of the
            // connection may have to wait for this one to let it run. A reader that ends at the end of the
            // log leaves no request there that waits for records.
            if self.ahead.as_ref().is_some_and(|ahead| ahead.offset() < self.cursor.log_end()) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Returns the next record; `None` at the end of a replay, and after an error that ended it.
    pub(crate) fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OwnedRecord, Error>>> {
        loop {
            // In place: moving the batch for each record would cost as much as decoding it.
            if let Some(Records { records, .. }) = &mut self.records {
                match records.next() {
                    Some(Ok(record)) => {
                        self.cursor.record(record.offset);
                        // Markers after the last record are passed at once: a stream has caught up then.
                        if records.is_at_end() {
                            self.end_records();
                        }
                        return Poll::Ready(Some(Ok(record)));
                    }
                    Some(Err(error)) => {
                        self.suspend();
                        self.ahead = None;
                        self.stop(error);
                    }
                    None => self.end_records(),
                }
            }
            if self.failed.is_some() && self.is_reported {
                return Poll::Ready(None);
            }
            match ready!(self.poll_batch(cx)) {
                Ok(None) => return Poll::Ready(None),
                Ok(Some(begun)) => {
                    let batch = begun.batch.batch();
                    self.producer = batch.producer_id().zip(batch.producer_epoch());
                    let records = begun.batch.records();
                    self.records = Some(Records { begun, records });
                }
                Err(error) => {
                    self.is_reported = self.failed.is_some();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// Moves the position after a batch that was handed over.
    pub(crate) fn hand_over(&mut self, begun: Begun) -> FetchedBatch {
        let Begun { batch, due, whole } = begun;
        self.end_batch(&due, whole, count(&batch, &due));
        batch
    }

    /// Takes back a batch that the caller could not take. If that is because it cannot be read, the reader
    /// has failed.
    pub(crate) fn take_back(&mut self, begun: Begun) {
        let error = begun.batch.for_each(|_| ()).err();
        self.give_back(begun);
        if let Some(error) = error {
            self.ahead = None;
            self.stop(error);
        }
    }

    /// Leaves out what the reader has failed at. Returns its offsets.
    pub(crate) fn skip_unreadable(&mut self) -> Option<Range<i64>> {
        let error = self.failed.as_ref()?;
        let ErrorKind::Corrupt { offsets: Some(offsets), .. } = error.kind() else { return None };
        if offsets.end <= self.cursor.at().offset {
            return None;
        }
        self.partition.reader_skips(error);
        let offsets = offsets.clone();
        (self.failed, self.is_reported) = (None, false);
        let skipped = self.cursor.skip_unreadable(&offsets);
        self.metrics.lag(self.cursor.lag());
        Some(skipped)
    }

    /// Stops reading record by record: the rest of the batch is in hand again.
    fn suspend(&mut self) {
        if let Some(Records { begun, .. }) = self.records.take() {
            self.give_back(begun);
        }
    }

    /// Ends the batch whose records have all been returned.
    fn end_records(&mut self) {
        if let Some(Records { begun, .. }) = self.records.take() {
            self.end_batch(&begun.due, begun.whole, 0);
        }
    }

    fn give_back(&mut self, begun: Begun) {
        let Begun { mut whole, .. } = begun;
        whole.is_rest |= self.cursor.suspend_batch();
        self.batches.push_front(whole);
    }

    fn end_batch(&mut self, due: &Range<i64>, InHand { batch, .. }: InHand, records: u64) {
        self.cursor.end_batch(records);
        if due.end < batch.offsets().end {
            self.batches.push_front(InHand { batch: batch.starting_at(due.end), is_rest: true });
        }
        if self.batches.is_empty() {
            self.cursor.exhausted();
        }
        self.metrics.lag(self.cursor.lag());
    }

    /// Begins the first batch in hand that is due.
    fn take_batch(&mut self) -> Result<Option<Begun>, Error> {
        while let Some(whole) = self.batches.pop_front() {
            let InHand { batch, is_rest } = &whole;
            let bytes = if *is_rest { 0 } else { batch.batch().size_in_bytes() as u64 };
            let due = match self.cursor.begin(&batch.offsets(), batch.leader_epoch(), bytes) {
                Due::Nothing => continue,
                Due::AfterEnd => {
                    self.batches.push_front(whole);
                    return Ok(None);
                }
                Due::Offsets(due) => due,
            };
            let batch = batch.clone().starting_at(due.start).ending_at(due.end);
            // Whole, so that it does not depend on the end of a replay whether it can be read.
            let result = self.check(&whole.batch);
            let begun = Begun { batch, due, whole };
            match result {
                Ok(()) => return Ok(Some(begun)),
                Err(error) => {
                    self.give_back(begun);
                    self.fail(error)?;
                }
            }
        }
        self.cursor.exhausted();
        self.metrics.lag(self.cursor.lag());
        Ok(None)
    }

    /// Checks what has to be known of a batch before it is handed over.
    fn check(&self, batch: &FetchedBatch) -> Result<(), Error> {
        let is_readable = || batch.batch().header().compression().is_ok_and(|codec| codec.can_decompress());
        match self.settings.unreadable {
            Unreadable::Skip => batch.for_each(|_| ()),
            Unreadable::Fail if is_readable() => Ok(()),
            Unreadable::Fail => batch.records().find_map(Result::err).map_or(Ok(()), Err),
        }
    }

    /// Asks for what comes next.
    fn ask(&mut self) -> PendingRound {
        let at = self.cursor.at();
        let mut settings = self.settings;
        if !self.cursor.is_before_end(at.offset) {
            // Only the position is in question.
            settings.max_wait = std::time::Duration::ZERO;
        }
        let ahead = self.ahead.take().filter(|ahead| ahead.offset() == at.offset);
        self.asking(settings).begin(ahead)
    }

    fn asking(&self, settings: Settings) -> Ask {
        Ask {
            partition: self.partition.clone(),
            settings,
            from: self.position(),
            log_end: self.cursor.log_end(),
            is_earliest: self.is_earliest,
        }
    }

    fn take_round(&mut self, round: Round, cx: &mut Context<'_>) -> Result<(), Error> {
        match round {
            Round::Fetched { fetched, log_end: confirmed } => {
                self.is_earliest = false;
                let next = fetched.position();
                let has_moved = next.offset > self.cursor.at().offset;
                if has_moved && self.cursor.is_before_end(next.offset) {
                    self.ahead = Ahead::send(&self.partition, self.settings, next, cx);
                }
                let to = At { offset: next.offset, epoch: next.leader_epoch };
                let log_end = fetched.readable_end(self.settings.isolation);
                self.cursor.fetched(to, fetched.gaps().iter().cloned(), log_end);
                self.batches = fetched.into_batches().map(|batch| InHand { batch, is_rest: false }).collect();
                match confirmed {
                    Some(log_end) if self.cursor.confirm_log_end(log_end) => {
                        self.fail(self.partition.log_truncated(self.position(), log_end))
                    }
                    _ => Ok(()),
                }
            }
            Round::Reset { target, log_start } => {
                self.discard();
                self.cursor.reset(target, log_start);
                Ok(())
            }
            Round::Restart { log_start } => {
                self.cursor.restart(log_start);
                Ok(())
            }
            Round::Truncated { error, leader } => {
                // The leader has an epoch that was not read: what is before it may differ as well.
                if let Some(epoch) = leader.and_then(|(epoch, _)| self.cursor.epoch_below(epoch)) {
                    self.round = Some(self.asking(self.settings).look_up(error, epoch));
                    return Ok(());
                }
                let diverged_at = leader.and_then(|leader| self.cursor.diverged_at(Some(leader)));
                self.fail(match (diverged_at, error.kind()) {
                    (Some(diverged_at), ErrorKind::LogTruncated { position, .. }) => {
                        self.partition.log_truncated(*position, diverged_at)
                    }
                    _ => error,
                })
            }
        }
    }

    /// Goes on after an error if the policy says so, and keeps it if the same would come again.
    fn fail(&mut self, error: Error) -> Result<(), Error> {
        self.ahead = None;
        if let ErrorKind::Corrupt { offsets: Some(offsets), .. } = error.kind()
            && self.settings.unreadable == Unreadable::Skip
            && offsets.end > self.cursor.at().offset
        {
            self.partition.reader_skips(&error);
            self.cursor.skip_unreadable(offsets);
            return Ok(());
        }
        if is_final(&error) {
            self.stop(error.clone());
        }
        Err(error)
    }

    /// Keeps the error that ends it.
    fn stop(&mut self, error: Error) {
        if matches!(error.kind(), ErrorKind::Corrupt { .. }) {
            self.partition.reader_stops(&error);
        }
        self.failed = Some(error);
    }

    fn discard(&mut self) {
        self.batches.clear();
        (self.records, self.ahead) = (None, None);
    }
}

/// Whether an error would come again.
fn is_final(error: &Error) -> bool {
    // On which side of the log the position is was not found out.
    !error.is_retriable() && !matches!(error.kind(), ErrorKind::OffsetOutOfRange { .. })
}

/// Returns how many records a batch has that are due: as its header says, if all of it is due.
fn count(batch: &FetchedBatch, due: &Range<i64>) -> u64 {
    let header = batch.batch().header();
    let all = header.base_offset..header.next_offset();
    let counted = u64::try_from(header.count).unwrap_or_default();
    match header.magic == BatchHeader::MAGIC {
        true if *due == all => counted,
        // Without holes, each offset has a record.
        true if counted == len(&all) => len(due),
        _ => {
            let mut found = 0;
            // What cannot be read does not count. Its reader gets the error.
            let _ = batch.for_each(|_| found += 1);
            found
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("partition", &self.partition)
            .field("position", &self.position())
            .field("end", &self.cursor.end())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
