//! What has to hold.

use super::*;

impl World {
    pub(super) fn check_transmit(&self, number: usize, stamp: Option<Stamp>, attempt: u32, in_doubt: bool) {
        let batch = &self.batches[number];
        assert!(batch.result.is_none() && !batch.in_flight, "batch {number} is sent twice");
        assert_eq!((attempt, in_doubt), (batch.attempts + 1, batch.in_doubt), "what is known of {number}");
        assert!(self.now >= self.paused_until, "sent within a pause");
        assert!(!self.ended, "sent after the end");
        for (other, earlier) in self.batches[..number].iter().enumerate() {
            assert!(earlier.result.is_some() || earlier.in_flight, "{number} is sent before {other}");
        }
        let mut in_flight = self.requests.iter().chain(self.responses.iter().map(|(request, _)| request));
        assert!(in_flight.all(|request| request.batch < number), "{number} is sent after a later one");
        let in_flight = self.requests.len() + self.responses.len();
        if let Some(stamp) = stamp {
            self.check_held(number, stamp.identity, in_doubt);
        }
        let Some(stamp) = stamp else {
            assert!(!self.conditions.idempotent && in_flight == 0, "without sequence numbers one at a time");
            return;
        };
        assert!(self.conditions.idempotent && in_flight < WINDOW, "more in flight than allowed");
        let is_proven =
            |(identity, at): &(Identity, Instant)| *identity == stamp.identity && self.now < *at + EXPIRATION;
        assert!(in_flight == 0 || self.proven.iter().any(is_proven), "window of an id that may be unknown");
        assert!(!self.needs_look_up || !self.conditions.disasters, "not looked up");
        assert!(stamp.identity.epoch < i16::MAX, "the epoch of foreign fences");
        assert!(!self.was_rejected, "not looked up after a rejection");
        assert!(!self.was_denied, "not looked up after the broker has denied that it leads the partition");
        match in_doubt {
            true => assert_eq!(Some(stamp), batch.stamp, "batch {number} in doubt gets another stamp"),
            false => assert_eq!(stamp.sequence, self.next_sequence(number, stamp.identity), "batch {number}"),
        }
        for (other, known) in self.batches.iter().enumerate().filter(|(other, _)| *other != number) {
            assert!(!known.holds_stamp() || known.stamp != Some(stamp), "{number} gets the stamp of {other}");
        }
    }

    /// Returns the sequence number that follows what was sent before a batch and may be on the log.
    pub(super) fn next_sequence(&self, number: usize, identity: Identity) -> i32 {
        let end = |batch: &Batch| Some(batch.stamp?.end(batch.records));
        let is_of_identity = |batch: &&Batch| batch.stamp.is_some_and(|stamp| stamp.identity == identity);
        let mut before = self.batches[..number].iter().rev().filter(|batch| batch.holds_stamp());
        let start = self.starts.iter().find(|(started, _)| *started == identity);
        let last = before.find(is_of_identity).and_then(end);
        last.or_else(|| start.map(|(_, sequence)| *sequence)).unwrap_or(0)
    }

    pub(super) fn check_completed(&self, number: usize, completed: &Completed<&'static str>) {
        let batch = &self.batches[number];
        let (in_doubt, failed_by) = match completed {
            Completed::Appended { attempts, .. } => {
                assert_eq!(*attempts, batch.attempts);
                let is_doomed = self.conditions.stop_on_failure && self.is_preceded_by_failure(number);
                assert!(!is_doomed, "batch {number} succeeds after one that failed");
                return assert!(!batch.after_loss, "batch {number} hides a loss");
            }
            Completed::Failed { error, in_doubt, attempts } => {
                assert_eq!(*attempts, batch.attempts);
                (in_doubt, Some(error))
            }
            Completed::Preceding { in_doubt, .. } => (in_doubt, None),
        };
        let may_be_applied = batch.in_flight || batch.in_doubt || batch.acknowledged;
        let doubt = may_be_applied.then_some((batch.stamp, batch.records, batch.after));
        let reported = in_doubt.map(|Doubt { stamp, records, after }| (stamp, records, after));
        assert!(
            reported == doubt || self.loss_shown && reported.is_some() == doubt.is_some(),
            "the doubt about {number}: {reported:?}, not {doubt:?}"
        );
        match failed_by {
            Some(Failure::Deadline { .. }) => {
                let until = if batch.in_flight { self.now } else { self.now.max(self.paused_until) };
                assert!(batch.deadline <= until, "batch {number} failed before its deadline");
            }
            Some(Failure::Error("fenced")) => assert!(self.fenced, "fenced by nobody"),
            Some(Failure::DataLoss { .. }) => assert!(self.has_lost, "a loss where nothing was lost"),
            Some(Failure::Error(error)) => assert_eq!(*error == "closed", self.aborted),
            None => {
                assert!(self.is_preceded_by_failure(number), "nothing before {number} has failed");
                assert!(self.conditions.stop_on_failure || in_doubt.is_some(), "{number} could have gone on");
            }
        }
    }

    /// Whether a batch failed that was submitted earlier, and not before this one was submitted.
    pub(super) fn is_preceded_by_failure(&self, number: usize) -> bool {
        let failed = |earlier: &Batch| match earlier.result {
            Some((at, Completed::Failed { .. } | Completed::Preceding { .. })) => {
                at >= self.batches[number].submitted_at
            }
            _ => false,
        };
        self.batches[..number].iter().any(failed)
    }

    /// Returns the log that the producer was opened for.
    fn own_log(&self) -> &Log {
        self.former.as_ref().unwrap_or(&self.log)
    }

    pub(super) fn offset_on_log(&self, batch: usize) -> Option<i64> {
        Some(self.own_log().entries.iter().find(|entry| entry.batch == batch)?.base_offset)
    }

    /// Returns the stamps that are in doubt, with their batches and what the producer says about them.
    pub(super) fn doubts(&self) -> Vec<(usize, Stamp, Standing)> {
        let in_doubt = |(number, batch): (usize, &Batch)| match batch.result.as_ref()?.1 {
            Completed::Failed { in_doubt, .. } | Completed::Preceding { in_doubt, .. } => {
                let stamp = in_doubt?.stamp?;
                Some((number, stamp, self.producer.standing(stamp)))
            }
            Completed::Appended { .. } => None,
        };
        self.batches.iter().enumerate().filter_map(in_doubt).collect()
    }

    pub(super) fn check(&self) {
        let Conditions { stop_on_failure, idempotent, .. } = self.conditions;
        let batches = self.own_log().entries.iter().map(|entry| entry.batch);
        let own = batches.filter(|batch| *batch < self.batches.len());
        // Without sequence numbers, nothing keeps a batch in doubt from arriving late.
        let on_log: Vec<_> = own.collect();
        let is_ordered = |pair: &[usize]| if idempotent { pair[0] < pair[1] } else { pair[0] != pair[1] };
        assert!(on_log.windows(2).all(is_ordered), "twice or out of order: {on_log:?}");
        self.check_barrier();
        for (number, batch) in self.batches.iter().enumerate() {
            let offset = self.offset_on_log(number);
            let is_elsewhere =
                self.former.is_some() && self.log.entries.iter().any(|entry| entry.batch == number);
            let (ended_at, result) = batch.result.as_ref().expect("every batch ends");
            match (result, offset, batch.lost_at) {
                (Completed::Appended { base_offset, .. }, Some(offset), _) => {
                    assert!(base_offset.is_none_or(|found| found == offset), "batch {number} is elsewhere");
                }
                (Completed::Appended { .. }, None, Some(lost_at)) if idempotent => {
                    self.check_loss(number, lost_at)
                }
                (Completed::Appended { .. }, None, None) => panic!("batch {number} is not on the log"),
                (
                    Completed::Failed { in_doubt: None, .. } | Completed::Preceding { in_doubt: None, .. },
                    offset,
                    _,
                ) => {
                    assert!(offset.is_none() && !is_elsewhere, "batch {number} is on a log after all");
                }
                _ => {}
            }
            if idempotent && offset.is_none() && stop_on_failure && !self.has_lost {
                for &later in on_log.iter().filter(|later| **later > number) {
                    let hole = self.batches[later].submitted_at <= *ended_at;
                    assert!(!hole, "a hole: {number} before {later}");
                }
            }
        }
    }

    /// After the loss of an acknowledged batch nothing is acknowledged.
    pub(super) fn check_loss(&self, lost: usize, lost_at: usize) {
        for (number, batch) in self.batches.iter().enumerate().skip(lost + 1) {
            let is_appended = matches!(batch.result, Some((_, Completed::Appended { .. })));
            let is_later = batch.committed_at.is_some_and(|at| at > lost_at);
            assert!(!is_appended || !is_later, "{number} was acknowledged after the loss of {lost}");
        }
    }
}
