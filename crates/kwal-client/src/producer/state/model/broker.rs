//! Broker, log and network.

use super::*;

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) token: Token,
    pub(super) batch: usize,
    pub(super) stamp: Option<Stamp>,
    pub(super) records: usize,
    pub(super) leader: u32,
    pub(super) sent_at: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) batch: usize,
    pub(super) stamp: Option<Stamp>,
    pub(super) records: usize,
    pub(super) base_offset: i64,
    pub(super) appended_at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) committed: usize,
    /// Identities that the broker refuses from now on: all epochs, unless a coordinator raises them.
    pub(super) refused: Vec<Identity>,
}

impl Log {
    pub(super) fn end(&self) -> i64 {
        self.entries.last().map_or(0, |last| last.base_offset + last.records as i64)
    }

    /// Appends as brokers do: sequence numbers have to follow, and the last five batches are recognised.
    pub(super) fn append(&mut self, request: &Request, now: Instant) -> Result<i64, RefusalKind> {
        if let Some(stamp) = request.stamp {
            let is_of_id = |entry: &&Entry| entry.stamp.is_some_and(|of| of.identity.id == stamp.identity.id);
            let mut of_id = self.entries.iter().rev().filter(is_of_id).take(5).peekable();
            if let Some(Entry { stamp: Some(known), records, appended_at, .. }) = of_id.peek().copied()
                && now < *appended_at + MEMORY
            {
                if stamp.identity.epoch < known.identity.epoch {
                    return Err(RefusalKind::Fenced);
                }
                let expected = match stamp.identity.epoch == known.identity.epoch {
                    true => known.end(*records),
                    false => 0,
                };
                if let Some(same) = of_id.find(|entry| entry.stamp == Some(stamp)) {
                    return Ok(same.base_offset);
                }
                if stamp.sequence != expected {
                    return Err(RefusalKind::OutOfOrder);
                }
            }
        }
        let Request { batch, stamp, records, .. } = *request;
        let base_offset = self.end();
        self.entries.push(Entry { batch, stamp, records, base_offset, appended_at: now });
        Ok(base_offset)
    }
}

impl World {
    pub(super) fn process(&mut self, request: &Request, mode: Mode) -> Result<Option<i64>, RefusalKind> {
        if request.leader != self.leader {
            return Err(RefusalKind::Retry { may_have_applied: false, reconnect: true });
        }
        let identity = request.stamp.map(|stamp| stamp.identity);
        let is_same = |of: Identity, other: Identity| {
            of.id == other.id && (of.epoch == other.epoch || !self.conditions.exclusive)
        };
        let mut refused = self.log.refused.iter();
        if request.stamp.is_some_and(|stamp| refused.any(|other| is_same(stamp.identity, *other))) {
            return Err(RefusalKind::UnknownProducer);
        }
        match (mode, identity) {
            (Mode::Append | Mode::AppendSilently, _) => {
                let offset = self.log.append(request, self.now)?;
                self.log.committed = self.log.entries.len();
                // The check of losses needs the offsets.
                Ok(Some(offset).filter(|_| mode == Mode::Append || self.conditions.disasters))
            }
            (Mode::TimeOut, _) => {
                self.log.append(request, self.now)?;
                Err(RefusalKind::Retry { may_have_applied: true, reconnect: false })
            }
            (Mode::Deny { appended }, _) => {
                if appended {
                    self.log.append(request, self.now)?;
                    self.log.committed = self.log.entries.len();
                }
                Err(RefusalKind::Denied { may_have_applied: true })
            }
            (Mode::RefuseForGood, _) => Err(RefusalKind::Final { may_have_applied: false }),
            (Mode::FailUnclear { appended }, _) => {
                if appended {
                    self.log.append(request, self.now)?;
                }
                Err(RefusalKind::Final { may_have_applied: true })
            }
            (Mode::ForgetProducer, Some(identity)) => {
                self.log.refused.push(identity);
                Err(RefusalKind::UnknownProducer)
            }
            (Mode::Reject, Some(_)) => Err(RefusalKind::OutOfOrder),
            _ => Err(RefusalKind::Retry { may_have_applied: false, reconnect: false }),
        }
    }

    pub(super) fn deliver(&mut self, request: &Request, answer: Result<Option<i64>, RefusalKind>) {
        let Request { token, batch: number, stamp, .. } = *request;
        let is_late = self.batches[number + 1..].iter().any(|later| later.acknowledged);
        let batch = &mut self.batches[number];
        batch.in_flight = false;
        if self.requests.is_empty() && self.responses.is_empty() {
            self.is_doubting &= answer.is_ok();
        }
        let kind = match answer {
            Ok(offset) if self.is_doubting => {
                batch.in_doubt = true;
                self.is_doubting = !(self.requests.is_empty() && self.responses.is_empty());
                return self.producer.handle_acknowledged(self.now, token, offset);
            }
            Ok(offset) => {
                batch.acknowledged = true;
                if !is_late {
                    self.loss_shown |= offset.is_some() && offset <= self.last_offset;
                    // An acknowledgement that shows a loss leaves the batch in doubt.
                    batch.after_loss = self.loss_shown;
                    batch.in_doubt |= self.loss_shown;
                    self.last_offset =
                        offset.map(|base| base + batch.records as i64 - 1).or(self.last_offset);
                    if let Some(stamp) = stamp {
                        self.proven.retain(|(identity, _)| *identity != stamp.identity);
                        self.proven.push((stamp.identity, self.now));
                        if !self.loss_shown && self.name.granted == Some(stamp.identity) {
                            self.name.confirmed_at = self.name.confirmed_at.max(request.sent_at);
                        }
                    }
                }
                return self.producer.handle_acknowledged(self.now, token, offset);
            }
            Err(kind) => kind,
        };
        if let RefusalKind::Retry { may_have_applied: true, .. }
        | RefusalKind::Denied { may_have_applied: true }
        | RefusalKind::Final { may_have_applied: true } = kind
        {
            batch.in_doubt = true;
        }
        if let RefusalKind::Denied { .. } = kind {
            let is_known = self.producer.acknowledged.is_some_and(|last| last.base_offset.is_some());
            self.was_denied = is_known && self.conditions.idempotent;
            self.is_doubting = !(self.requests.is_empty() && self.responses.is_empty());
        }
        let is_recovering = self.producer.is_recovering();
        let resume_at = if is_recovering { self.now } else { self.now + PAUSE };
        let pauses = match kind {
            RefusalKind::Retry { .. } | RefusalKind::Denied { .. } => true,
            RefusalKind::UnknownProducer => !is_late,
            RefusalKind::OutOfOrder => !is_late && !is_recovering,
            RefusalKind::Final { .. } | RefusalKind::Fenced => false,
        };
        if kind == RefusalKind::OutOfOrder && pauses {
            self.was_rejected = self.producer.acknowledged.is_some();
        }
        if pauses {
            self.paused_until = self.paused_until.max(resume_at);
        }
        let error = if kind == RefusalKind::Fenced { "fenced" } else { "refused" };
        self.producer.handle_refused(token, Refusal { error, kind }, resume_at);
    }

    pub(super) fn disconnect(&mut self, written: usize) {
        if self.connected_to.take().is_none() {
            return;
        }
        let answered = self.responses.len();
        let lost = self.responses.drain(..).map(|(request, _)| request);
        let lost: Vec<_> = lost.chain(self.requests.drain(..)).collect();
        self.ended_idle = lost.is_empty();
        for (at, request) in lost.into_iter().enumerate() {
            let may_have_applied = at < answered + written;
            if at >= answered && may_have_applied {
                self.late.push_back(request);
            }
            self.deliver(&request, Err(RefusalKind::Retry { may_have_applied, reconnect: true }));
            self.poll();
        }
    }

    /// Creates the topic again, where another producer has appended more than there was.
    ///
    /// The broker denies the request that it works on, and appends those after it to the new topic. Without a
    /// request the connection ends, or else nobody could notice it.
    pub(super) fn recreate(&mut self, appended: bool) {
        if self.former.is_some() {
            return;
        }
        let mut is_denied = false;
        while !is_denied && let Some(request) = self.requests.pop_front() {
            let answer = self.process(&request, Mode::Deny { appended });
            is_denied = matches!(answer, Err(RefusalKind::Denied { .. }));
            self.responses.push_back((request, answer));
        }
        if !is_denied {
            self.disconnect(0);
        }
        let (records, appended_at) = (self.log.end() as usize + 5, self.now);
        self.former = Some(std::mem::take(&mut self.log));
        self.log.entries.push(Entry { batch: OTHER, stamp: None, records, base_offset: 0, appended_at });
        self.log.committed = 1;
    }

    /// Appends on the last epoch of the producer id, as a process does that resolves a batch in doubt.
    pub(super) fn fence(&mut self) {
        let identity = Identity { id: self.last_id, epoch: i16::MAX };
        let stamp = Some(Stamp { identity, sequence: 0 });
        if self.last_id != 0 && self.log.entries.iter().all(|entry| entry.stamp != stamp) {
            let (base_offset, appended_at) = (self.log.end(), self.now);
            self.log.entries.push(Entry { batch: OTHER, stamp, records: 1, base_offset, appended_at });
            self.log.committed = self.log.entries.len();
            self.fenced = true;
        }
    }
}
