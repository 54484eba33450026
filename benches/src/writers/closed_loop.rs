//! Callers that append one record at a time each, and what that costs.
//!
//! The other clients are built with this file, `task.rs` and `process.rs`, and without anything else of kwal.

use std::{
    error::Error,
    fmt, io,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{runtime, time::Instant};

use super::task::Task;
use crate::process::{page_faults, peak_memory, processor_time};

/// Why an append failed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// One of the callers.
pub trait Caller: Send + 'static {
    /// Appends a record, and returns when it is acknowledged.
    fn append(&mut self, value: &[u8]) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The key of a caller's records.
pub type Key = [u8; 8];

/// With fewer callers than this, the latency of every append is measured, and otherwise of one in so many.
const SAMPLED: u64 = 16;

/// Opens a client and lets callers append as a task says, on a runtime of its own.
///
/// The first eighth of the records is not measured.
///
/// # Errors
/// The client's own.
pub fn run<T, C: Caller>(
    task: &Task,
    open: impl AsyncFnOnce(&Task) -> Result<T, Failure>,
    caller: impl Fn(&T, Key) -> C,
) -> Result<Measured, Failure> {
    let mut builder = match task.threads {
        0 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(task.threads.max(1)).enable_all().build()?;
    runtime.block_on(async {
        let client = open(task).await?;
        let meter = Arc::new(Meter::new(task));
        let callers: Vec<_> = (0..task.callers)
            .map(|number| tokio::spawn(Arc::clone(&meter).append(caller(&client, number.to_be_bytes()))))
            .collect();
        for caller in callers {
            caller.await??;
        }
        meter.finish()
    })
}

/// What the callers of a run share.
#[derive(Debug)]
struct Meter {
    /// The number of the next record.
    next: AtomicU64,
    /// The number of the first record that is measured, and how many there are.
    begin: u64,
    records: u64,
    /// The latency of one record in so many is measured.
    sampled: u64,
    /// The value of all records; its first bytes are replaced by the record's number.
    value: Vec<u8>,
    begun: Mutex<Option<Begun>>,
    latencies: Histogram,
}

#[derive(Debug)]
struct Begun {
    at: Instant,
    cpu: u64,
    faults: u64,
}

impl Meter {
    fn new(task: &Task) -> Self {
        Self {
            next: AtomicU64::new(0),
            begin: task.records / 8,
            records: task.records,
            sampled: if task.callers < SAMPLED { 1 } else { SAMPLED },
            value: value(task.size),
            begun: Mutex::new(None),
            latencies: Histogram::new(),
        }
    }

    async fn append(self: Arc<Self>, mut caller: impl Caller) -> Result<(), Failure> {
        let mut value = self.value.clone();
        loop {
            let number = self.next.fetch_add(1, Relaxed);
            if number >= self.records {
                return Ok(());
            }
            if number == self.begin {
                self.begin()?;
            }
            value[..8].copy_from_slice(&number.to_le_bytes());
            let begin = number.is_multiple_of(self.sampled).then(Instant::now);
            caller.append(&value).await?;
            if let Some(begin) = begin.filter(|_| number >= self.begin) {
                self.latencies.add(begin.elapsed());
            }
        }
    }

    fn begin(&self) -> Result<(), Failure> {
        let (cpu, faults) = taken()?;
        let begun = Begun { at: Instant::now(), cpu, faults };
        *self.begun.lock().map_err(|_| "a caller panicked")? = Some(begun);
        Ok(())
    }

    fn finish(&self) -> Result<Measured, Failure> {
        let begun = self.begun.lock().map_err(|_| "a caller panicked")?.take();
        let Begun { at, cpu, faults } = begun.ok_or("nothing was measured")?;
        let wall = u64::try_from(at.elapsed().as_nanos())?;
        let (cpu_now, faults_now) = taken()?;
        Ok(Measured {
            wall,
            cpu: cpu_now - cpu,
            faults: faults_now - faults,
            memory: peak_memory()?,
            records: self.records - self.begin,
            median: self.latencies.quantile(0.5),
            p99: self.latencies.quantile(0.99),
            mean: self.latencies.mean(),
        })
    }
}

fn taken() -> io::Result<(u64, u64)> {
    Ok((processor_time(), page_faults()?))
}

/// Returns a value that does not repeat itself.
fn value(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(byte).take(size.max(8)).collect()
}

/// Returns the values of all records of a run, for the sum of what must have arrived.
pub fn for_each_value(task: &Task, mut each: impl FnMut(&[u8])) {
    let mut value = value(task.size);
    for number in 0..task.records {
        value[..8].copy_from_slice(&number.to_le_bytes());
        each(&value);
    }
}

/// Counts of durations; each is kept to less than 1 %.
#[derive(Debug)]
struct Histogram {
    counts: Vec<AtomicU64>,
    count: AtomicU64,
    nanos: AtomicU64,
}

/// A power of two has so many counts.
const STEPS: u32 = 128;

impl Histogram {
    fn new() -> Self {
        let counts = (0..STEPS * (u64::BITS - STEPS.ilog2() + 1)).map(|_| AtomicU64::new(0)).collect();
        Self { counts, count: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    fn add(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[Self::index(nanos)].fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// The first steps are of one nanosecond each, those of the next power of two too, and then of two, four,
    /// …
    fn index(nanos: u64) -> usize {
        let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEPS.ilog2() + 1);
        (shift * STEPS) as usize + (nanos >> shift) as usize
    }

    /// The least duration of an index.
    fn nanos(index: usize) -> u64 {
        let shift = (index as u64 / u64::from(STEPS)).saturating_sub(1);
        (index as u64 - shift * u64::from(STEPS)) << shift
    }

    fn quantile(&self, quantile: f64) -> u64 {
        let wanted = (self.count.load(Relaxed) as f64 * quantile) as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count.load(Relaxed);
            below > wanted
        });
        found.map_or(0, Self::nanos)
    }

    fn mean(&self) -> u64 {
        self.nanos.load(Relaxed) / self.count.load(Relaxed).max(1)
    }
}

/// What one run cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Measured {
    /// Nanoseconds.
    pub wall: u64,
    /// Nanoseconds of all threads, user and system.
    pub cpu: u64,
    /// How often memory was touched that the process did not have yet.
    pub faults: u64,
    /// The most memory that the process has had, in bytes.
    pub memory: u64,
    /// The records that were measured.
    pub records: u64,
    /// Half of the appends took so many nanoseconds at most.
    pub median: u64,
    /// 99 % of the appends took so many nanoseconds at most.
    pub p99: u64,
    /// The mean of the appends in nanoseconds.
    pub mean: u64,
}

impl Measured {
    /// Processor time, in nanoseconds per record.
    pub fn cpu_per_record(&self) -> f64 {
        self.cpu as f64 / self.records as f64
    }

    /// Records per second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.wall as f64 * 1e9
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall, cpu, faults, memory, records, median, p99, mean } = self;
        write!(f, "{wall} {cpu} {faults} {memory} {records} {median} {p99} {mean}")
    }
}

impl FromStr for Measured {
    type Err = Box<dyn Error>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || Ok::<u64, Self::Err>(numbers.next().ok_or("a figure is missing")??);
        Ok(Self {
            wall: next()?,
            cpu: next()?,
            faults: next()?,
            memory: next()?,
            records: next()?,
            median: next()?,
            p99: next()?,
            mean: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_keeps_durations_to_one_percent() {
        let mut indices = Vec::new();
        for nanos in [0, 1, 127, 128, 255, 256, 1_000, 123_456, 9_999_999, u64::from(u32::MAX), u64::MAX] {
            let index = Histogram::index(nanos);
            indices.push(index);
            let kept = Histogram::nanos(index);
            assert!(kept <= nanos && nanos - kept <= nanos / 100, "{nanos} {kept}");
        }
        assert!(indices.is_sorted());
        let histogram = Histogram::new();
        for micros in 1..=1_000 {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.mean(), 500_500);
        let close = |nanos: u64, to: u64| nanos.abs_diff(to) <= to / 100;
        assert!(close(histogram.quantile(0.5), 501_000) && close(histogram.quantile(0.99), 991_000));
    }

    #[test]
    fn figures_can_be_read_again() {
        let measured = Measured {
            wall: 2_000,
            cpu: 1_000,
            faults: 3,
            memory: 4,
            records: 10,
            median: 5,
            p99: 6,
            mean: 7,
        };
        assert_eq!(measured.to_string().parse::<Measured>().unwrap(), measured);
        assert!((measured.cpu_per_record() - 100.0).abs() < 1e-9);
        assert!((measured.rate() - 5e6).abs() < 1e-3);
        assert!("1 2 3".parse::<Measured>().is_err());
    }
}
