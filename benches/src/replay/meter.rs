//! What reading costs.

use std::{error::Error, fmt, str::FromStr};

use tokio::time::Instant;

use crate::process::{page_faults, processor_time};

/// What a reader has read, and what it cost since the end of the warm-up.
#[derive(Debug)]
pub struct Reading {
    warm_up: u64,
    records: u64,
    sum: u64,
    bytes: u64,
    begin: Option<Begin>,
}

#[derive(Debug)]
struct Begin {
    at: Instant,
    cpu: u64,
    faults: u64,
    bytes: u64,
}

impl Reading {
    /// So many records are the warm-up.
    pub const fn new(warm_up: u64) -> Self {
        Self { warm_up, records: 0, sum: 0, bytes: 0, begin: None }
    }

    /// Uses every byte of the value of a record.
    #[inline]
    pub fn value(&mut self, value: &[u8]) {
        self.records += 1;
        self.bytes += value.len() as u64;
        self.sum = self.sum.wrapping_add(sum(value));
    }

    /// Counts values that have been summed before.
    pub(super) const fn batch(&mut self, records: u64, bytes: u64, sum: u64) {
        self.records += records;
        self.bytes += bytes;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Returns the number of records so far.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Begins to measure once the warm-up is over. To be called now and then.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    #[inline]
    pub fn step(&mut self) -> Result<(), Box<dyn Error>> {
        if self.begin.is_none() && self.records >= self.warm_up {
            let (cpu, faults) = (processor_time(), page_faults()?);
            self.begin = Some(Begin { at: Instant::now(), cpu, faults, bytes: self.bytes });
        }
        Ok(())
    }

    /// Returns what has been measured.
    ///
    /// # Errors
    /// Those of reading `/proc`; nothing has been measured.
    pub fn finish(self) -> Result<Measured, Box<dyn Error>> {
        let Begin { at, cpu, faults, bytes } = self.begin.ok_or("nothing was read after the warm-up")?;
        Ok(Measured {
            wall: u64::try_from(at.elapsed().as_nanos())?,
            cpu: processor_time() - cpu,
            faults: page_faults()? - faults,
            bytes: self.bytes - bytes,
            records: self.records,
            sum: self.sum,
        })
    }
}

/// Sums the words of a value: cheap, and it uses every byte.
#[inline]
pub fn sum(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add);
    rest.iter().map(|byte| u64::from(*byte)).fold(words, u64::wrapping_add)
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
    /// The bytes of the values that were measured.
    pub bytes: u64,
    /// All records, those of the warm-up included.
    pub records: u64,
    /// The sum of all values.
    pub sum: u64,
}

impl Measured {
    /// Processor time, in seconds per GB of values.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu as f64 / self.bytes as f64
    }

    /// GB of values per second.
    pub fn throughput(&self) -> f64 {
        self.bytes as f64 / self.wall as f64
    }

    /// Page faults per MB of values.
    pub fn faults_per_mb(&self) -> f64 {
        self.faults as f64 / self.bytes as f64 * 1e6
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall, cpu, faults, bytes, records, sum } = self;
        write!(f, "{wall} {cpu} {faults} {bytes} {records} {sum}")
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
            bytes: next()?,
            records: next()?,
            sum: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_measures_after_its_warm_up() {
        let mut reading = Reading::new(2);
        for (value, is_begun) in [(&b"one"[..], false), (b"three", true), (b"seven", true)] {
            reading.value(value);
            reading.step().unwrap();
            assert_eq!(reading.begin.is_some(), is_begun);
        }
        let measured = reading.finish().unwrap();
        let expected = [&b"one"[..], b"three", b"seven"].map(sum).iter().sum();
        assert_eq!((measured.records, measured.bytes, measured.sum), (3, 5, expected));
        assert_eq!(measured.to_string().parse::<Measured>().unwrap(), measured);
        assert!(Reading::new(1).finish().is_err());
    }
}
