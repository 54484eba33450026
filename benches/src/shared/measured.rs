//! What one run cost.

use std::{fmt, str::FromStr};

use super::Failure;

macro_rules! figures {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// What one run cost.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct Measured {
            $($(#[$attribute])* pub $name: u64,)*
        }

        impl Measured {
            /// The names of the figures.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// Returns the figures in the order of their names.
            pub fn figures(&self) -> Vec<u64> {
                vec![$(self.$name),*]
            }
        }

        impl FromStr for Measured {
            type Err = Failure;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut numbers = text.split_whitespace().map(str::parse);
                let mut next = || Ok::<u64, Failure>(numbers.next().ok_or("a figure is missing")??);
                Ok(Self { $($name: next()?,)* })
            }
        }
    };
}

figures! {
    /// Nanoseconds.
    wall,
    /// Nanoseconds of all threads, user and system.
    cpu,
    /// How often memory was touched that the process did not have yet.
    faults,
    /// The most memory that the process has had, in bytes.
    memory,
    /// How often memory was allocated; 0 unless the program counts it.
    allocations,
    /// The bytes of the values that were measured.
    bytes,
    /// The records that were measured.
    records,
    /// All records, those of the warm-up included.
    all,
    /// The sum of all values that were read.
    sum,
    /// Half of the appends took so many nanoseconds at most.
    median,
    /// 99 % of the appends took so many nanoseconds at most.
    p99,
    /// The mean of the appends in nanoseconds.
    mean,
    /// The file descriptors of the process at the end.
    descriptors,
}

impl Measured {
    /// Processor time, in seconds per GB of values.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu as f64 / self.bytes as f64
    }

    /// Processor time, in nanoseconds per record.
    pub fn cpu_per_record(&self) -> f64 {
        self.cpu as f64 / self.records as f64
    }

    /// GB of values per second.
    pub fn throughput(&self) -> f64 {
        self.bytes as f64 / self.wall as f64
    }

    /// Records per second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.wall as f64 * 1e9
    }

    /// Page faults per MB of values.
    pub fn faults_per_mb(&self) -> f64 {
        self.faults as f64 / self.bytes as f64 * 1e6
    }

    /// Allocations per record.
    pub fn allocations_per_record(&self) -> f64 {
        self.allocations as f64 / self.records as f64
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, figure) in self.figures().iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{figure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_can_be_read_again() {
        let measured =
            Measured { wall: 2_000, cpu: 1_000, bytes: 500, records: 10, faults: 3, ..Measured::default() };
        assert_eq!(measured.to_string().parse::<Measured>().unwrap(), measured);
        assert_eq!(Measured::NAMES.len(), measured.figures().len());
        let is = |figure: f64, expected: f64| assert!((figure - expected).abs() < 1e-9 * expected);
        is(measured.cpu_per_gb(), 2.0);
        is(measured.cpu_per_record(), 100.0);
        is(measured.throughput(), 0.25);
        is(measured.rate(), 5e6);
        is(measured.faults_per_mb(), 6_000.0);
        assert!("1 2 3".parse::<Measured>().is_err());
    }
}
