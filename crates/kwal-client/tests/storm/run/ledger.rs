//! Records the results of one partition client.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kwal_client::{
    Acks, OnFailure, Produced,
    error::{Error, ErrorKind, Outcome},
};
use kwal_testkit::check::{Ticket, Writer, WriterId};

use super::{Shared, TOPIC, doubts::Doubt, kind::Kind, root};
use crate::support::chain;

/// How an append ended, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Ended {
    /// It is on the log, or was dropped.
    Normally,
    Failed,
    /// The partition client cannot append any more.
    Fatal,
}

/// Records the results that one partition client gets.
#[derive(Clone)]
pub(super) struct Ledger {
    pub(super) shared: Arc<Shared>,
    pub(super) client: u64,
    pub(super) partition: i32,
    pub(super) writer: WriterId,
    kind: Kind,
    /// How many takeovers had begun when it was opened, including its own; 0 if another one was under way.
    takeovers: u64,
    /// Another holder has taken over.
    is_fenced: Arc<AtomicBool>,
    /// The partition client is closed from now on.
    is_closing: Arc<AtomicBool>,
}

impl Ledger {
    pub(super) fn open(shared: &Arc<Shared>, client: u64, partition: i32, kind: Kind) -> Self {
        let writer = Writer::new((TOPIC, partition));
        // The calls of many callers have deadlines of their own.
        let writer = if kind.batched { writer } else { writer.deadline(shared.plan.deadlines.operation) };
        let writer = shared.recorder.now().writer(kind.describe(writer));
        let takeovers = match kind.exclusive {
            Some(_) => shared.begin_takeover(),
            None => 0,
        };
        let shared = Arc::clone(shared);
        Self {
            shared,
            client,
            partition,
            writer,
            kind,
            takeovers,
            is_fenced: Arc::default(),
            is_closing: Arc::default(),
        }
    }

    /// Another writer over the same partition client. The barrier stays that of the first one.
    pub(super) fn another(&self) -> Self {
        let kind = self.kind.without_barrier();
        let writer = self.shared.recorder.now().writer(kind.describe(Writer::new((TOPIC, self.partition))));
        Self { writer, is_fenced: Arc::default(), is_closing: Arc::default(), ..self.clone() }
    }

    /// Notes that a takeover that began earlier may end later.
    pub(super) fn may_be_overtaken(&mut self) {
        self.takeovers = 0;
    }

    /// Whether another holder has taken over.
    pub(super) fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::Relaxed)
    }

    pub(super) fn closing(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    pub(super) fn stops_on_failure(&self) -> bool {
        self.kind.on_failure == OnFailure::Stop
    }

    pub(super) fn ticket(&self, values: Vec<String>) -> Ticket {
        match self.shared.plan.is_scarce() {
            true => self.shared.recorder.queue(self.writer, values),
            false => self.shared.recorder.submit(self.writer, values),
        }
    }

    pub(super) fn ended(&self, ticket: Ticket, values: Vec<String>, done: Result<Produced, Error>) -> Ended {
        match done {
            Ok(produced) => {
                self.acked(ticket, &produced);
                Ended::Normally
            }
            Err(error) => self.failed(ticket, values, &error),
        }
    }

    fn acked(&self, ticket: Ticket, produced: &Produced) {
        self.shared.count_event(match produced.attempts {
            1 => "appends ok at the first attempt",
            _ => "appends ok after retries",
        });
        let Some(offsets) = produced.offsets() else { return ticket.acked_at_unknown_offset() };
        // What the leader alone has may be after the high watermark.
        if self.kind.acks == Acks::All {
            self.shared.is_acked(self.client, self.partition, offsets.end);
        }
        ticket.acked(offsets.start);
    }

    /// Records that one record is on the log.
    pub(super) fn is_acked(&self, ticket: Ticket, offset: i64) {
        if self.kind.acks == Acks::All {
            self.shared.is_acked(self.client, self.partition, offset + 1);
        }
        ticket.acked(offset);
    }

    fn failed(&self, ticket: Ticket, values: Vec<String>, error: &Error) -> Ended {
        self.check(error);
        if let Some(in_doubt) = error.in_doubt() {
            self.shared.add_doubt(Doubt {
                append: ticket.append(),
                writer: self.writer,
                client: self.client,
                partition: self.partition,
                values,
                in_doubt: in_doubt.clone(),
            });
        }
        match (error.outcome(), error.kind()) {
            (Outcome::Unknown, _) => {
                self.shared.count_event("appends with unknown outcome");
                ticket.unknown();
            }
            (Outcome::NotApplied, ErrorKind::PrecedingAppendFailed) => {
                self.shared.count_event("appends failed after an earlier one");
                ticket.not_appended();
            }
            (Outcome::NotApplied, _) => {
                self.shared.count_event("appends not applied");
                ticket.not_appended();
            }
        }
        self.consequence(error)
    }

    /// Records what the error of an append means for those after it.
    pub(super) fn consequence(&self, error: &Error) -> Ended {
        match root(error) {
            ErrorKind::DataLoss { .. } => {
                self.shared.count_event("losses reported to writers");
                self.shared.recorder.now().lost(self.writer);
                Ended::Fatal
            }
            ErrorKind::Fenced if self.kind.exclusive.is_some() => {
                self.is_fenced.store(true, Ordering::Relaxed);
                self.shared.count_event("holders fenced");
                self.shared.recorder.now().fenced(self.writer);
                self.check_fenced(error);
                Ended::Fatal
            }
            ErrorKind::Fenced if self.shared.is_fenced(self.partition) => {
                self.shared.count_event("writers fenced");
                self.shared.recorder.now().fenced(self.writer);
                Ended::Fatal
            }
            ErrorKind::TopicRecreated { .. } => {
                self.shared.recorder.now().lost(self.writer);
                Ended::Fatal
            }
            ErrorKind::Closed if self.is_closing.load(Ordering::Relaxed) => {
                self.shared.count_event("appends ended by a close");
                Ended::Fatal
            }
            ErrorKind::Fenced | ErrorKind::Closed | ErrorKind::InvalidInput { .. } | ErrorKind::Encode => {
                self.shared.problem(format!("an append failed: {}", chain(error)));
                Ended::Fatal
            }
            _ => Ended::Failed,
        }
    }

    /// Checks that a holder was fenced for a reason: somebody took over, or its coordinator lost track of it.
    fn check_fenced(&self, error: &Error) {
        let Self { shared, takeovers, .. } = self;
        if shared.takeovers() == *takeovers && !shared.plan.may_lose_names() {
            shared.problem(format!("a holder is fenced, and nobody has taken over: {}", chain(error)));
        }
    }

    /// Checks that an error agrees with itself.
    pub(super) fn check(&self, error: &Error) {
        let problem = match (error.outcome(), error.in_doubt()) {
            (Outcome::Unknown, None) if self.kind.idempotent => "cannot be resolved",
            (Outcome::NotApplied, Some(_)) => "is not on the log and may be resolved",
            (Outcome::Unknown, Some(_)) if !self.kind.idempotent => "has no producer id and may be resolved",
            (Outcome::NotApplied, None)
                if self.kind.on_failure == OnFailure::Continue
                    && matches!(error.kind(), ErrorKind::PrecedingAppendFailed) =>
            {
                "failed because of an earlier one"
            }
            _ => return,
        };
        self.shared.problem(format!("an append {problem}: {}", chain(error)));
    }
}
