//! Takeovers: clients hold one log exclusively, one after the other.

use std::sync::{Arc, atomic::Ordering};

use kwal_client::{
    Client, Holder, PartitionClient,
    error::{Error, ErrorKind},
};
use tokio::time::{Duration, Instant, sleep};

use super::{LONG, Shared, TOPIC, kind::Kind, ledger::Ledger, root};
use crate::support::chain;

impl Shared {
    /// Opens a partition for a writer, and retries until it succeeds.
    pub(super) async fn open_writer(
        self: &Arc<Self>,
        client: &Client,
        number: u64,
        partition: i32,
        kind: Kind,
    ) -> Option<(PartitionClient, Ledger)> {
        if kind.exclusive.is_some() {
            return self.take_over(client, number, partition, kind).await;
        }
        let opened = self.open_with(client, partition, |open| kind.configure(open)).await?;
        Some((opened, Ledger::open(self, number, partition, kind)))
    }

    async fn take_over(
        self: &Arc<Self>,
        client: &Client,
        number: u64,
        partition: i32,
        kind: Kind,
    ) -> Option<(PartitionClient, Ledger)> {
        let begun = Instant::now();
        // Whether the client has learnt that the topic was created again.
        let mut knows = !self.is_over();
        loop {
            // Its barrier may be on the log from now on, whatever comes of it.
            let mut ledger = Ledger::open(self, number, partition, kind);
            let opening = client.partition_client(TOPIC, partition).compression(self.plan.compression);
            self.taking_over.fetch_add(1, Ordering::Relaxed);
            let result = self.timed("take-over", kind.configure(opening)).await;
            let others = self.taking_over.fetch_sub(1, Ordering::Relaxed) - 1;
            match result {
                Ok(opened) => {
                    if others > 0 {
                        ledger.may_be_overtaken();
                    }
                    self.taken_over(&opened, &ledger);
                    return Some((opened, ledger));
                }
                // The client's metadata was of the deleted topic.
                Err(error) if matches!(error.kind(), ErrorKind::TopicRecreated { .. }) && !knows => {
                    knows = true;
                    self.takeover_failed(&error);
                }
                Err(error) if self.is_over() || begun.elapsed() > LONG => {
                    self.problem(format!("partition {partition} cannot be taken over: {}", chain(&error)));
                    return None;
                }
                Err(error) => self.takeover_failed(&error),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn taken_over(self: &Arc<Self>, opened: &PartitionClient, ledger: &Ledger) {
        self.count_event("takeovers");
        let Some(Holder { producer_id, epoch, barrier, .. }) = opened.holder() else {
            return self.problem("a writer has taken over, and does not hold the log".to_owned());
        };
        self.recorder.now().barrier_as(ledger.writer, barrier, (producer_id, epoch));
        let before = self.held_by.swap(producer_id, Ordering::Relaxed);
        if before != -1 && before != producer_id {
            self.count_event("takeovers under another producer id");
        }
        // Also keeps a holder that nobody uses any more.
        let (shared, opened) = (Arc::clone(self), opened.clone());
        tokio::spawn(async move {
            let error = opened.fenced().await;
            if opened.holder().is_some_and(|holder| holder.epoch > epoch) {
                shared.count_event("holders renewed");
            }
            if let ErrorKind::Fenced = error.kind() {
                shared.count_event("holders that learned of it by waiting");
            }
        });
    }

    fn takeover_failed(&self, error: &Error) {
        self.count_event("takeovers failed");
        let plan = &self.plan;
        match root(error) {
            ErrorKind::Fenced => self.count_event("takeovers that were overtaken"),
            // A loss may put the record of another one in the place of the barrier.
            ErrorKind::EpochTaken { .. } if plan.is_lossy() => {}
            ErrorKind::EpochTaken { .. }
            | ErrorKind::NoTransactionLog { .. }
            | ErrorKind::Closed
            | ErrorKind::InvalidInput { .. }
            | ErrorKind::Corrupt { .. }
            | ErrorKind::Encode => self.problem(format!("a takeover failed: {}", chain(error))),
            _ => {}
        }
    }

    /// Notes that a takeover begins. Returns how many have begun.
    pub(super) fn begin_takeover(&self) -> u64 {
        self.takeovers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns how many takeovers have begun.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Relaxed)
    }
}
