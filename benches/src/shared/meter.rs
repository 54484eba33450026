//! A clock for what is measured, which stands still meanwhile for what is not.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{
    Failure, Measured,
    histogram::Histogram,
    process::{allocations, descriptors, page_faults, peak_memory, processor_time},
    sum,
};

/// What a run has done and what it cost.
#[derive(Debug)]
pub struct Meter {
    /// Since when it is measuring.
    running: Option<Taken>,
    /// What it has measured.
    wall: u64,
    cpu: u64,
    faults: u64,
    allocations: u64,
    bytes: u64,
    records: u64,
    /// What was measured or not.
    all_bytes: u64,
    all: u64,
    sum: u64,
    /// [`step`](Self::step) begins to measure after so many records.
    warm_up: u64,
    latencies: Histogram,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    at: Instant,
    cpu: u64,
    faults: u64,
    allocations: u64,
    bytes: u64,
    records: u64,
}

impl Meter {
    /// Measures nothing yet.
    pub fn new() -> Self {
        Self::after(u64::MAX)
    }

    /// So many records are the warm-up.
    pub fn after(warm_up: u64) -> Self {
        Self {
            running: None,
            wall: 0,
            cpu: 0,
            faults: 0,
            allocations: 0,
            bytes: 0,
            records: 0,
            all_bytes: 0,
            all: 0,
            sum: 0,
            warm_up,
            latencies: Histogram::new(),
        }
    }

    /// Uses every byte of the value of a record that was read.
    #[inline]
    pub fn value(&mut self, value: &[u8]) {
        self.batch(1, value.len() as u64, sum(value));
    }

    /// Counts values that were summed before, or are summed by somebody else.
    #[inline]
    pub const fn batch(&mut self, records: u64, bytes: u64, sum: u64) {
        self.all += records;
        self.all_bytes += bytes;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Counts what another meter has counted.
    pub const fn merge(&mut self, other: &Self) {
        self.batch(other.all, other.all_bytes, other.sum);
    }

    /// Counts how long an append took, if that is measured.
    pub fn append(&mut self, took: Duration) {
        if self.running.is_some() {
            self.latencies.add(took);
        }
    }

    /// Returns the number of records so far, measured or not.
    pub const fn so_far(&self) -> u64 {
        self.all
    }

    /// Begins to measure once the warm-up is over. To be called now and then.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    #[inline]
    pub fn step(&mut self) -> Result<(), Failure> {
        if self.running.is_none() && self.all >= self.warm_up {
            self.resume()?;
        }
        Ok(())
    }

    /// Begins to measure, or goes on.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    pub fn resume(&mut self) -> Result<(), Failure> {
        self.running = Some(self.taken()?);
        Ok(())
    }

    /// Ceases to measure.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    pub fn pause(&mut self) -> Result<(), Failure> {
        let Some(begun) = self.running.take() else { return Ok(()) };
        // The clocks before `/proc`.
        let wall = begun.at.elapsed();
        let now = self.taken()?;
        self.wall += u64::try_from(wall.as_nanos())?;
        self.cpu += now.cpu - begun.cpu;
        self.faults += now.faults - begun.faults;
        self.allocations += now.allocations - begun.allocations;
        self.bytes += now.bytes - begun.bytes;
        self.records += now.records - begun.records;
        Ok(())
    }

    fn taken(&self) -> io::Result<Taken> {
        let (cpu, allocations) = (processor_time(), allocations());
        let faults = page_faults()?;
        let (bytes, records) = (self.all_bytes, self.all);
        Ok(Taken { at: Instant::now(), cpu, faults, allocations, bytes, records })
    }

    /// Returns what has been measured, with these latencies if they are not its own.
    ///
    /// # Errors
    /// Those of reading `/proc`; nothing has been measured.
    pub(super) fn finish_with(mut self, latencies: &Histogram) -> Result<Measured, Failure> {
        self.pause()?;
        if self.wall == 0 {
            return Err("nothing was measured".into());
        }
        let Self { wall, cpu, faults, allocations, bytes, records, all, sum, .. } = self;
        Ok(Measured {
            wall,
            cpu,
            faults,
            memory: peak_memory()?,
            allocations,
            bytes,
            records,
            all,
            sum,
            median: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            mean: latencies.mean(),
            descriptors: descriptors()?,
        })
    }

    /// Returns what has been measured.
    ///
    /// # Errors
    /// Those of reading `/proc`; nothing has been measured.
    pub fn finish(mut self) -> Result<Measured, Failure> {
        let latencies = std::mem::replace(&mut self.latencies, Histogram::new());
        self.finish_with(&latencies)
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_measures_after_its_warm_up() {
        let mut meter = Meter::after(2);
        for (value, is_begun) in [(&b"one"[..], false), (b"three", true), (b"seven", true)] {
            meter.value(value);
            meter.step().unwrap();
            assert_eq!(meter.running.is_some(), is_begun);
        }
        let measured = meter.finish().unwrap();
        let expected: u64 = [&b"one"[..], b"three", b"seven"].map(sum).iter().sum();
        assert_eq!((measured.records, measured.all, measured.bytes), (1, 3, 5));
        assert_eq!(measured.sum, expected);
    }

    #[test]
    fn a_pause_is_not_measured() {
        let mut meter = Meter::new();
        meter.batch(1, 10, 1);
        assert!(Meter::new().finish().is_err());
        meter.resume().unwrap();
        meter.batch(2, 20, 2);
        meter.pause().unwrap();
        meter.batch(4, 40, 4);
        meter.resume().unwrap();
        meter.batch(8, 80, 8);
        let measured = meter.finish().unwrap();
        assert_eq!((measured.records, measured.bytes, measured.all, measured.sum), (10, 100, 15, 15));
    }
}
