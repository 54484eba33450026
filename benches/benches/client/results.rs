//! What was measured.

use std::{fmt::Write as _, fs, path::Path};

use kwal_benches::{
    median,
    shared::{Failure, Measured},
};

use super::rows::{CODEC, Figure};

/// What one subject took in one turn of a row.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The name of the row.
    pub(crate) row: String,
    pub(crate) subject: String,
    pub(crate) turn: usize,
    pub(crate) measured: Measured,
}

/// All runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results(Vec<Run>);

impl Results {
    pub(crate) fn push(&mut self, run: Run) {
        self.0.push(run);
    }

    /// Returns the number of turns.
    pub(crate) fn turns(&self) -> usize {
        self.0.iter().map(|run| run.turn + 1).max().unwrap_or_default()
    }

    /// Returns the subjects of a row in the order in which they ran first.
    pub(crate) fn subjects(&self, row: &str) -> Vec<String> {
        let mut subjects = Vec::new();
        for run in self.0.iter().filter(|run| run.row == row && run.turn == 0) {
            subjects.push(run.subject.clone());
        }
        subjects
    }

    fn of<'a>(&'a self, row: &'a str, subject: &'a str) -> impl Iterator<Item = &'a Run> {
        self.0.iter().filter(move |run| run.row == row && run.subject == subject)
    }

    /// Returns the median of a figure; `None` if there is none.
    pub(crate) fn median(&self, row: &str, subject: &str, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        let figures: Vec<_> = self.of(row, subject).map(|run| of(&run.measured)).collect();
        (!figures.is_empty()).then(|| median(figures))
    }

    /// Returns the median of a figure of two subjects, whose runs are of the same turn.
    pub(crate) fn paired(
        &self,
        row: &str,
        subject: &str,
        to: &str,
        of: impl Fn(&Measured, &Measured) -> f64,
    ) -> Option<f64> {
        let pair = |run: &Run| {
            let other = self.of(row, to).find(|other| other.turn == run.turn)?;
            Some(of(&run.measured, &other.measured))
        };
        let figures: Vec<_> = self.of(row, subject).filter_map(pair).collect();
        (!figures.is_empty()).then(|| median(figures))
    }

    /// Returns a figure that has a budget.
    pub(crate) fn figure(&self, row: &str, subject: &str, base: &str, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Cpu => self.paired(row, subject, base, |a, b| a.cpu_per_record() / b.cpu_per_record()),
            Figure::OnCodec => self.paired(row, subject, CODEC, |a, b| a.cpu_per_gb() - b.cpu_per_gb()),
            Figure::CpuOfRskafka => self.figure(row, subject, "rskafka", Figure::Cpu),
            Figure::TimeOfRskafka => self.paired(row, subject, "rskafka, 5 ms", |a, b| b.rate() / a.rate()),
            Figure::Latency => self.paired(row, subject, base, |a, b| a.median as f64 / b.median as f64),
            Figure::Memory => self.median(row, subject, |measured| measured.memory as f64 / 1e6),
        }
    }

    /// Writes all runs, one a line: row, subject, turn and the figures, separated by tabs.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut text = format!("row\tsubject\tturn\t{}\n", Measured::NAMES.join("\t"));
        for Run { row, subject, turn, measured } in &self.0 {
            let _ = write!(text, "{row}\t{subject}\t{turn}");
            for figure in measured.figures() {
                let _ = write!(text, "\t{figure}");
            }
            text.push('\n');
        }
        Ok(fs::write(path, text)?)
    }

    /// Reads what was written.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut results = Self::default();
        for line in text.lines().skip(1) {
            let mut cells = line.splitn(4, '\t');
            let mut cell = || cells.next().ok_or("a line is too short");
            let (row, subject, turn) = (cell()?.to_owned(), cell()?.to_owned(), cell()?.parse()?);
            results.push(Run { row, subject, turn, measured: cell()?.parse()? });
        }
        Ok(results)
    }
}
