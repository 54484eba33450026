//! What holders did, and what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use kwal_client::{
    Client, PartitionClient, Resolution,
    error::{ErrorKind, InDoubt, Outcome},
    record::Record,
};
use tokio::time::Instant;

use crate::support::{chain, polled, timed};

/// How late a call may end.
const GRACE: Duration = Duration::from_millis(2);

/// A takeover to be made.
pub(super) struct Takeover {
    pub(super) number: usize,
    pub(super) renewal: Option<Duration>,
    pub(super) probe: Option<Duration>,
    pub(super) deadline: Duration,
    /// How often it is polled before it is dropped.
    pub(super) polls: Option<usize>,
}

/// A partition client that took the log over.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) number: usize,
    partition: PartitionClient,
    /// The disturbances so far when it began; `None` if there was one while it took over.
    disturbances: Option<u64>,
}

/// What is known of the appends, shared by the tasks that make them.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    begun: Instant,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) holders: Vec<Holder>,
    /// The number of each holder by its producer id and epoch, and the offset of its barrier, dropped ones
    /// included.
    pub(super) barriers: BTreeMap<(i64, i16), (usize, i64)>,
    pub(super) acknowledged: BTreeMap<String, Option<i64>>,
    pub(super) not_applied: BTreeSet<String>,
    pub(super) resolved: BTreeMap<String, Resolution>,
    pub(super) faults: Vec<String>,
    pub(super) history: Vec<String>,
    doubts: Vec<(String, InDoubt)>,
    /// Takeovers, and all else for which a holder may be fenced.
    disturbances: u64,
    excuses_fences: bool,
    takeovers: usize,
    values: usize,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), entries: Arc::default() }
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap()
    }

    pub(super) fn note(&self, text: String) {
        let line = format!("{:?} {text}", self.begun.elapsed());
        self.entries().history.push(line);
    }

    pub(super) fn fault(&self, text: String) {
        self.entries().faults.push(text);
    }

    /// Notes what a holder may be fenced by.
    pub(super) fn disturb(&self, text: String) {
        self.note(text);
        self.entries().disturbances += 1;
    }

    /// From now on, a holder may be fenced at any time.
    pub(super) fn excuse_fences(&self) {
        self.entries().excuses_fences = true;
    }

    pub(super) fn holders(&self) -> Vec<Holder> {
        self.entries().holders.clone()
    }

    /// Returns a holder, often the last one.
    pub(super) fn holder(&self, rng: &mut Rng) -> Option<Holder> {
        let entries = self.entries();
        let holder = if rng.bool() { rng.choice(&entries.holders) } else { entries.holders.last() };
        holder.cloned()
    }

    pub(super) fn doubt(&self, rng: &mut Rng) -> Option<(String, InDoubt)> {
        rng.choice(&self.entries().doubts).cloned()
    }

    /// Drops a holder. Returns a future that closes it first.
    pub(super) fn end_holder(&self, rng: &mut Rng) -> Option<impl Future<Output = ()> + use<>> {
        let mut entries = self.entries();
        let at = rng.choice(0..entries.holders.len())?;
        let holder = entries.holders.remove(at);
        let closes = rng.bool();
        drop(entries);
        self.note(format!("drop {}, closed: {closes}", holder.number));
        Some(async move {
            if closes {
                holder.partition.close().await;
            }
        })
    }

    pub(super) fn drop_holders(&self) {
        self.entries().holders.clear();
    }

    /// Returns the history and the faults.
    pub(super) fn finish(self) -> (Vec<String>, Vec<String>) {
        let Entries { history, faults, .. } = std::mem::take(&mut *self.entries());
        (history, faults)
    }

    /// Returns whether the log was taken over.
    pub(super) async fn take_over(&self, client: &Client, takeover: Takeover) -> bool {
        let Takeover { number, renewal, probe, deadline, polls } = takeover;
        let before = self.begin_takeover();
        let mut open = client.partition_client("wal", 0).exclusive("writer").deadline(deadline);
        if let Some(renewal) = renewal {
            open = open.renewal(renewal);
        }
        if let Some(probe) = probe {
            open = open.probe(probe);
        }
        let (result, took) = match polls {
            Some(polls) => timed(polled(open, polls)).await,
            None => timed(async { Some(open.await) }).await,
        };
        let disturbances = self.end_takeover(before);
        if took > deadline + GRACE {
            self.fault(format!("takeover {number} took {took:?} of {deadline:?}"));
        }
        match result {
            Some(Ok(partition)) => {
                let held = partition.holder().unwrap();
                self.note(format!("{number} is {held:?}"));
                let mut entries = self.entries();
                entries.barriers.insert((held.producer_id, held.epoch), (number, held.barrier));
                entries.holders.push(Holder { number, partition, disturbances });
                true
            }
            Some(Err(error)) => {
                self.note(format!("{number}: {}", chain(&error)));
                match error.kind() {
                    ErrorKind::Fenced
                    | ErrorKind::DeadlineExceeded { .. }
                    | ErrorKind::NoTransactionLog { .. } => {}
                    _ => self.fault(format!("takeover {number}: {}", chain(&error))),
                }
                false
            }
            None => false,
        }
    }

    /// Returns the disturbances so far, this one included; `None` if another takeover runs.
    fn begin_takeover(&self) -> Option<u64> {
        let mut entries = self.entries();
        entries.disturbances += 1;
        entries.takeovers += 1;
        (entries.takeovers == 1).then_some(entries.disturbances)
    }

    fn end_takeover(&self, before: Option<u64>) -> Option<u64> {
        let mut entries = self.entries();
        entries.takeovers -= 1;
        before.filter(|before| *before == entries.disturbances)
    }

    /// Returns a value that no other append of a holder has.
    fn value(&self, holder: &Holder, suffix: &str) -> String {
        let mut entries = self.entries();
        entries.values += 1;
        format!("{}-{}{suffix}", holder.number, entries.values)
    }

    pub(super) fn append(&self, holder: Holder, deadline: Duration) -> impl Future<Output = ()> + use<> {
        let ledger = self.clone();
        async move {
            let value = ledger.value(&holder, "");
            let record = Record::new(None::<&str>, value.clone());
            let (result, took) = timed(holder.partition.produce(vec![record]).deadline(deadline)).await;
            if took > deadline + GRACE {
                ledger.fault(format!("append {value} took {took:?} of {deadline:?}"));
            }
            let error = match result {
                Ok(produced) => {
                    ledger.entries().acknowledged.insert(value, produced.base_offset);
                    return;
                }
                Err(error) => error,
            };
            ledger.note(format!("append {value}: {}", chain(&error)));
            let mut entries = ledger.entries();
            let is_disturbed = entries.excuses_fences || Some(entries.disturbances) != holder.disturbances;
            if matches!(error.kind(), ErrorKind::Fenced) && !is_disturbed {
                entries.faults.push(format!("{value} is fenced by nobody: {}", chain(&error)));
            }
            match (error.outcome(), error.in_doubt()) {
                (Outcome::Unknown, Some(in_doubt)) => entries.doubts.push((value, in_doubt.clone())),
                (Outcome::Unknown, None) => entries.faults.push(format!("{value}: {}", chain(&error))),
                _ => _ = entries.not_applied.insert(value),
            }
        }
    }

    pub(super) fn resolve(
        &self,
        holder: Holder,
        value: String,
        in_doubt: InDoubt,
        deadline: Duration,
    ) -> impl Future<Output = ()> + use<> {
        let ledger = self.clone();
        async move {
            let fence = Record::new(None::<&str>, ledger.value(&holder, "f"));
            let (result, took) = timed(holder.partition.resolve(&in_doubt, fence).deadline(deadline)).await;
            if took > deadline + GRACE {
                ledger.fault(format!("resolve {value} took {took:?} of {deadline:?}"));
            }
            match result {
                Ok(resolution) => {
                    let before = ledger.entries().resolved.insert(value.clone(), resolution.clone());
                    if let Some(before) = before.filter(|before| *before != resolution) {
                        ledger.fault(format!("{value} is {before:?}, then {resolution:?}"));
                    }
                }
                Err(error) => {
                    let text = format!("resolve {value}: {}", chain(&error));
                    if let ErrorKind::InvalidInput { .. } = error.kind() {
                        ledger.fault(text.clone());
                    }
                    ledger.note(text);
                }
            }
        }
    }

    /// Resolves every doubt by the last holder.
    pub(super) async fn resolve_all(&self, deadline: Duration) {
        let Some(last) = self.holders().pop() else { return };
        let doubts = self.entries().doubts.clone();
        for (value, in_doubt) in doubts {
            self.resolve(last.clone(), value, in_doubt, deadline).await;
        }
    }
}
