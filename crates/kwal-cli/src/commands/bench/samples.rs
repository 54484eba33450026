//! What is measured, over time.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use crate::output::per_second;

/// Takes measurements while they are made.
#[derive(Debug)]
pub(crate) struct Samples {
    begun: Instant,
    /// How long a sample lasts.
    interval: Duration,
    current: Current,
    all: Current,
    samples: Vec<Sample>,
}

/// The measurements of some time.
#[derive(Debug)]
struct Current {
    records: u64,
    bytes: u64,
    errors: u64,
    /// In microseconds.
    latencies: Histogram<u64>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    pub(crate) seconds: f64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) records_per_second: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) errors: u64,
    pub(crate) latency_ms: Option<Latency>,
    pub(crate) samples: Vec<Sample>,
}

/// Quantiles of latencies, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// What was measured from one moment to another.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    /// When it ends, since the begin.
    pub(crate) second: f64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// As many samples as a plot has room for.
const SAMPLES: u32 = 120;
/// As long as a few appends take.
const SHORTEST: Duration = Duration::from_millis(100);

impl Samples {
    /// Begins now, for about so long.
    pub(crate) fn begin(time: Duration) -> Self {
        let interval = (time / SAMPLES).max(SHORTEST);
        Self {
            begun: Instant::now(),
            interval,
            current: Current::new(),
            all: Current::new(),
            samples: Vec::new(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Bytes per second since the begin.
    pub(crate) fn rate(&self) -> u64 {
        per_second(self.all.bytes, self.elapsed().as_secs_f64()) as u64
    }

    pub(crate) fn add(&mut self, records: u64, bytes: u64, latency: Option<Duration>) {
        self.turn(self.elapsed());
        for current in [&mut self.current, &mut self.all] {
            current.records += records;
            current.bytes += bytes;
            if let Some(latency) = latency {
                current.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            }
        }
    }

    pub(crate) fn fail(&mut self) {
        self.turn(self.elapsed());
        self.current.errors += 1;
        self.all.errors += 1;
    }

    pub(crate) fn end(mut self) -> Phase {
        let elapsed = self.elapsed();
        self.turn(elapsed);
        let seconds = elapsed.as_secs_f64();
        if self.current.records + self.current.errors > 0 {
            self.samples.push(self.current.sample(seconds));
        }
        let Current { records, bytes, errors, .. } = self.all;
        Phase {
            seconds,
            records,
            bytes,
            records_per_second: per_second(records, seconds),
            bytes_per_second: per_second(bytes, seconds),
            errors,
            latency_ms: self.all.latency(),
            samples: self.samples,
        }
    }

    /// Ends the samples that lie before a moment; those without an append are empty.
    fn turn(&mut self, now: Duration) {
        loop {
            let end = self.interval * (self.samples.len() as u32 + 1);
            if now < end {
                return;
            }
            let done = std::mem::replace(&mut self.current, Current::new());
            self.samples.push(done.sample(end.as_secs_f64()));
        }
    }
}

impl Current {
    fn new() -> Self {
        // Up to an hour, with two digits.
        let latencies = Histogram::new_with_max(3_600_000_000, 2).expect("these are allowed");
        Self { records: 0, bytes: 0, errors: 0, latencies }
    }

    fn quantile(&self, quantile: f64) -> Option<f64> {
        (!self.latencies.is_empty()).then(|| self.latencies.value_at_quantile(quantile) as f64 / 1e3)
    }

    fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.quantile(quantile);
        Some(Latency { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, p999: at(0.999)?, max: at(1.0)? })
    }

    fn sample(&self, second: f64) -> Sample {
        let Self { records, bytes, errors, .. } = *self;
        Sample { second, records, bytes, errors, p50_ms: self.quantile(0.5), p99_ms: self.quantile(0.99) }
    }
}
