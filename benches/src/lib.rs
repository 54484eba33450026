//! Shared parts of the benchmarks: brokers, kwal and rskafka side by side, and tables.
//!
//! Results of different runs are not comparable, because machines fluctuate. The ratios within one run are,
//! in which the clients take turns.

#[cfg(feature = "clients")]
pub mod calls;
#[cfg(feature = "clients")]
mod clients;
pub mod codec;
#[cfg(feature = "clients")]
mod content;
pub mod counts;
#[cfg(feature = "clients")]
mod delayed;
#[cfg(feature = "clients")]
pub mod programs;
#[allow(clippy::duplicate_mod, reason = "benchmarks of the codec are built without the shared part")]
mod random;
#[cfg(feature = "clients")]
pub mod shared;
#[cfg(feature = "clients")]
pub mod sink;
#[cfg(feature = "clients")]
pub mod subjects;
#[cfg(feature = "clients")]
mod walk;

use std::{fmt, process::ExitCode};

#[cfg(feature = "clients")]
pub use self::{
    clients::{Pair, Target, kwal_records, rskafka_records},
    delayed::Delayed,
};

/// Returns how a benchmark ends that has met its expectations, or not, or has failed, which is printed.
pub fn exit_code(name: &str, met: Result<bool, impl fmt::Display>) -> ExitCode {
    match met {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `count` incompressible values of `size` bytes.
pub fn values(count: usize, size: usize, seed: u64) -> Vec<Vec<u8>> {
    random::values(count, size, seed)
}

/// Returns the median; of an even number of values the lower one.
///
/// # Panics
/// If there are no values.
pub fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures compare"));
    values[(values.len() - 1) / 2]
}

/// A table of text: the first column is left-aligned, all others are right-aligned.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Creates a table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self(vec![headings.map(str::to_owned).to_vec()])
    }

    /// Whether there is more than headings.
    pub const fn has_rows(&self) -> bool {
        self.0.len() > 1
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |at| self.0.iter().filter_map(|row| row.get(at)).map(|c: &String| c.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        for row in &self.0 {
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match at {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3, 1, 2]), 2);
        assert_eq!(median(vec![4, 1, 3, 2]), 2);
        assert!((median(vec![0.5]) - 0.5_f64).abs() < f64::EPSILON);
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(["size", "ms"]);
        table.row(["1 KiB".to_owned(), "0.1".to_owned()]);
        table.row(["100".to_owned(), "12.25".to_owned()]);
        assert_eq!(table.to_string(), "size      ms\n1 KiB    0.1\n100    12.25\n");
    }
}
