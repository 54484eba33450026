//! Callers that append one record at a time each, and wait until it is acknowledged.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{Failure, Measured, Meter, Task, histogram::Histogram, values::incompressible};

/// One of the callers.
pub trait Caller: Send + 'static {
    /// Appends a record, and returns when it is acknowledged.
    fn append(&mut self, value: &[u8]) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The key of a caller's records.
pub type Key = [u8; 8];

/// The bytes of the number of a record, which are the first of its value.
const NUMBER: usize = size_of::<u64>();
/// With fewer callers than this, the latency of every append is measured, and otherwise of one in so many.
const SAMPLED: u64 = 16;

/// Lets callers append as a task says, who are tasks of the runtime.
///
/// The first eighth of the records is not measured.
///
/// # Errors
/// The client's own.
pub async fn run<C: Caller>(task: &Task, caller: impl Fn(Key) -> C) -> Result<Measured, Failure> {
    let shared = Arc::new(Shared::new(task));
    let callers: Vec<_> = (0..task.callers)
        .map(|number| tokio::spawn(Arc::clone(&shared).append(caller(number.to_be_bytes()))))
        .collect();
    for caller in callers {
        caller.await??;
    }
    let mut meter = std::mem::take(&mut *shared.meter());
    let records = shared.records - shared.begin;
    meter.batch(records, records * task.size as u64, 0);
    meter.finish_with(&shared.latencies)
}

/// What the callers of a run share.
#[derive(Debug)]
struct Shared {
    /// The number of the next record.
    next: AtomicU64,
    /// The number of the first record that is measured, and how many there are.
    begin: u64,
    records: u64,
    /// The latency of one record in so many is measured.
    sampled: u64,
    /// The value of all records; its first bytes are replaced by the record's number.
    value: Vec<u8>,
    meter: Mutex<Meter>,
    latencies: Histogram,
}

impl Shared {
    fn new(task: &Task) -> Self {
        let records = task.records as u64 * task.batches as u64;
        Self {
            next: AtomicU64::new(0),
            begin: records / 8,
            records,
            sampled: if task.callers < SAMPLED { 1 } else { SAMPLED },
            value: incompressible(task.size.max(NUMBER)),
            meter: Mutex::default(),
            latencies: Histogram::new(),
        }
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(self: Arc<Self>, mut caller: impl Caller) -> Result<(), Failure> {
        let mut value = self.value.clone();
        loop {
            let number = self.next.fetch_add(1, Relaxed);
            if number >= self.records {
                return Ok(());
            }
            if number == self.begin {
                self.meter().resume()?;
            }
            value[..NUMBER].copy_from_slice(&number.to_le_bytes());
            let begin = number.is_multiple_of(self.sampled).then(Instant::now);
            caller.append(&value).await?;
            if let Some(begin) = begin.filter(|_| number >= self.begin) {
                self.latencies.add(begin.elapsed());
            }
        }
    }
}

/// Returns the values of all records of a run, for the sum of what must have arrived.
pub fn for_each_value(task: &Task, mut each: impl FnMut(&[u8])) {
    let mut value = incompressible(task.size.max(NUMBER));
    for number in 0..task.records as u64 * task.batches as u64 {
        value[..NUMBER].copy_from_slice(&number.to_le_bytes());
        each(&value);
    }
}
