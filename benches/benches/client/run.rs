//! Runs subjects in turns.

use std::path::{Path, PathBuf};

use kwal_benches::{
    programs::{self, Sink},
    shared::{Failure, Measured, Task, Work},
};
use time::OffsetDateTime;

use super::{
    results::{Results, Run},
    rows::Row,
};

const OURS: &str = env!("CARGO_BIN_EXE_client-run");
const SINK: &str = env!("CARGO_BIN_EXE_client-sink");

/// Who runs.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    program: PathBuf,
    /// What the task says.
    subject: String,
    linger_ms: u64,
}

impl Subject {
    /// Returns the same by the program that counts allocations, if there is one.
    fn counted(&self) -> Self {
        let mut name = self.program.file_name().unwrap_or_default().to_owned();
        name.push("-counted");
        let program = Some(self.program.with_file_name(name)).filter(|program| program.is_file());
        Self { program: program.unwrap_or_else(|| self.program.clone()), ..self.clone() }
    }
}

/// The programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) peers: Option<PathBuf>,
    /// That of another state of the source.
    pub(crate) before: Option<PathBuf>,
}

impl Programs {
    /// Returns who runs a row.
    pub(crate) fn subjects(&self, row: &Row) -> Vec<Subject> {
        let subject = |name: String, program: &Path, subject: &str| {
            let (program, subject) = (program.to_owned(), subject.to_owned());
            Subject { name, program, subject, linger_ms: 0 }
        };
        let mut subjects: Vec<_> =
            row.subjects.iter().map(|name| subject((*name).to_owned(), Path::new(OURS), name)).collect();
        if let Some(before) = &self.before {
            let ours = row.subjects.iter().filter(|name| name.starts_with("kwal"));
            subjects.extend(ours.map(|name| subject(format!("{name} before"), before, name)));
        }
        if let Some(peers) = &self.peers {
            let peer = |name: &str, linger_ms| match linger_ms {
                0 => subject(name.to_owned(), peers, name),
                _ => Subject { linger_ms, ..subject(format!("{name}, {linger_ms} ms"), peers, name) },
            };
            let all: &[_] = match (row.task.work, row.task.callers) {
                (Work::Idle, _) => &[],
                (Work::Callers, 1) => &[("rskafka", 0), ("rdkafka", 0)],
                (Work::Callers, _) => &[("rskafka", 0), ("rskafka", 5), ("rdkafka", 0), ("rdkafka", 5)],
                _ => &[("rskafka", 0), ("rdkafka", 0), ("krafka", 0)],
            };
            subjects.extend(all.iter().map(|(name, linger_ms)| peer(name, *linger_ms)));
        }
        subjects
    }
}

/// Measures a row, and adds each run to the results.
///
/// The first run of each subject counts allocations and is not measured.
pub(crate) fn measure(
    row: &Row,
    subjects: &[Subject],
    brokers: Option<&str>,
    turns: usize,
    results: &mut Results,
) -> Result<(), Failure> {
    let mut place = Place::new(row, brokers)?;
    let mut allocations = Vec::new();
    for subject in subjects {
        allocations.push(place.run(&subject.counted())?.allocations);
    }
    for turn in 0..turns {
        for at in 0..subjects.len() {
            // The first turn is in order, so that the results are.
            let at = (at + turn) % subjects.len();
            let subject = &subjects[at];
            let measured = Measured { allocations: allocations[at], ..place.run(subject)? };
            results.push(Run { row: row.name.clone(), subject: subject.name.clone(), turn, measured });
        }
    }
    place.end()
}

/// Where a row runs.
struct Place {
    task: Task,
    sink: Option<Sink>,
    /// The records that are on the log of brokers.
    appended: u64,
}

impl Place {
    fn new(row: &Row, brokers: Option<&str>) -> Result<Self, Failure> {
        let mut task = row.task.clone();
        let Some(brokers) = brokers else {
            let sink = Sink::start(SINK, &task, row.delay)?;
            task.bootstrap = sink.address.clone();
            return Ok(Self { task, sink: Some(sink), appended: 0 });
        };
        task.bootstrap = brokers.to_owned();
        task.topic = format!("client-{}", OffsetDateTime::now_utc().unix_timestamp_nanos());
        let batches = if task.work == Work::Read { task.batches } else { 0 };
        programs::run(Path::new(OURS), &Task { work: Work::Fill, batches, ..task.clone() })?;
        Ok(Self { task, sink: None, appended: 0 })
    }

    /// Runs a subject, and verifies what it has read or appended.
    fn run(&mut self, subject: &Subject) -> Result<Measured, Failure> {
        let task =
            Task { subject: subject.subject.clone(), linger_ms: subject.linger_ms, ..self.task.clone() };
        let measured = programs::run(&subject.program, &task)?;
        let expected = task.expected();
        let mut found = (measured.all, measured.sum);
        if matches!(task.work, Work::Append | Work::Callers) && subject.subject != super::rows::CODEC {
            found = match &mut self.sink {
                Some(sink) => sink.appended()?,
                None => {
                    let task = Task { work: Work::Count, ..task.clone() };
                    let all = programs::run(Path::new(OURS), &task)?.all;
                    let before = std::mem::replace(&mut self.appended, all);
                    (all - before, expected.1)
                }
            };
        }
        if task.work == Work::Idle {
            if let Some(sink) = &mut self.sink {
                sink.appended()?;
            }
            return Ok(measured);
        }
        if found == expected {
            return Ok(measured);
        }
        let (name, (records, sum), (wanted, right)) = (&subject.name, found, expected);
        Err(format!("{name}: {records} records with the sum {sum}, not {wanted} with {right}").into())
    }

    fn end(self) -> Result<(), Failure> {
        if self.sink.is_none() {
            programs::run(Path::new(OURS), &Task { work: Work::Delete, ..self.task })?;
        }
        Ok(())
    }
}
