//! What became of the inputs.

use std::collections::VecDeque;

use kwal::{Outcome, PartitionClient, client::error::InDoubt};
use serde::Serialize;

use super::{Done, Inputs};
use crate::{
    commands::Session,
    exit::{Exit, Failure},
    output::{human_bytes, plural, warn},
};

/// Which inputs are on the log, which are not, and which are in doubt.
pub(crate) struct Report {
    topic: String,
    partition: i32,
    /// Whether offsets are printed.
    with_offsets: bool,
    read: u64,
    records: u64,
    batches: u64,
    bytes: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
    appended: Vec<Inputs>,
    not_appended: Vec<Inputs>,
    in_doubt: Vec<(Inputs, Option<InDoubt>)>,
    /// Batches without a result, in the order of submission.
    submitted: VecDeque<Inputs>,
    error: Option<kwal::Error>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Json<'a> {
    Batch {
        inputs: [u64; 2],
        offsets: Option<[i64; 2]>,
    },
    Summary {
        topic: &'a str,
        partition: i32,
        read: u64,
        appended: u64,
        batches: u64,
        bytes: u64,
        first_offset: Option<i64>,
        last_offset: Option<i64>,
        inputs: JsonInputs,
        error: Option<String>,
    },
}

#[derive(Serialize)]
struct JsonInputs {
    appended: Vec<[u64; 2]>,
    not_appended: Vec<[u64; 2]>,
    in_doubt: Vec<JsonInDoubt>,
}

#[derive(Serialize)]
struct JsonInDoubt {
    inputs: [u64; 2],
    producer_id: Option<i64>,
    epoch: Option<i16>,
    sequence: Option<i32>,
    record_count: u64,
    after: Option<i64>,
}

impl Report {
    pub(super) fn new(partition: &PartitionClient, with_offsets: bool) -> Self {
        Self {
            topic: partition.topic().to_owned(),
            partition: partition.partition(),
            with_offsets,
            read: 0,
            records: 0,
            batches: 0,
            bytes: 0,
            first_offset: None,
            last_offset: None,
            appended: Vec::new(),
            not_appended: Vec::new(),
            in_doubt: Vec::new(),
            submitted: VecDeque::new(),
            error: None,
        }
    }

    /// The first error, after which nothing is appended any more.
    pub(super) fn error(&self) -> Option<&kwal::Error> {
        self.error.as_ref()
    }

    pub(super) fn read(&mut self, inputs: &Inputs) {
        self.read = *inputs.end();
    }

    pub(super) fn submitted(&mut self, inputs: Inputs) {
        self.submitted.push_back(inputs);
    }

    /// Takes the result of the batch that was submitted first.
    pub(super) fn note(&mut self, session: &mut Session, done: Done) -> Result<(), Failure> {
        let Done { inputs, result } = done;
        self.submitted.pop_front();
        let produced = match result {
            Ok(produced) => produced,
            Err(error) => {
                match error.outcome() {
                    Outcome::Unknown => self.in_doubt.push((inputs, error.in_doubt().cloned())),
                    Outcome::NotApplied => add(&mut self.not_appended, inputs),
                }
                self.error.get_or_insert(error);
                return Ok(());
            }
        };
        self.batches += 1;
        self.records += produced.record_count as u64;
        self.bytes += produced.wire_bytes as u64;
        let offsets = produced.offsets().map(|offsets| [offsets.start, offsets.end - 1]);
        if let Some([first, last]) = offsets {
            self.first_offset.get_or_insert(first);
            self.last_offset = Some(last);
        }
        if self.with_offsets {
            let inputs = ends(&inputs);
            match session.out.is_json() {
                true => session.out.json(&Json::Batch { inputs, offsets })?,
                false => {
                    let offsets = offsets.map_or_else(|| "unknown".to_owned(), between);
                    session.out.line(format_args!("inputs {}: offsets {offsets}", between(inputs)))?;
                }
            }
            session.out.flush()?;
        }
        add(&mut self.appended, inputs);
        Ok(())
    }

    /// Takes inputs that were not submitted, because of an error.
    pub(super) fn reject(&mut self, inputs: Inputs, error: kwal::Error) {
        self.drop(inputs);
        self.error.get_or_insert(error);
    }

    /// Takes inputs that were not submitted.
    pub(super) fn drop(&mut self, inputs: Inputs) {
        add(&mut self.not_appended, inputs);
    }

    /// Takes what is under way as in doubt, since nobody waits for it.
    pub(super) fn abandon(&mut self) {
        self.in_doubt.extend(self.submitted.drain(..).map(|inputs| (inputs, None)));
    }

    /// Prints it. `ended` is why the command ends.
    pub(super) fn print(
        mut self,
        session: &mut Session,
        ended: Result<(), Failure>,
    ) -> Result<Exit, Failure> {
        // An append may have failed only while the others were waited for.
        let ended = match (ended, self.error.take()) {
            (Ok(()), Some(error)) => Err(error.into()),
            (ended, _) => ended,
        };
        if let Err(Failure::Output(error)) = ended {
            return Err(Failure::Output(error));
        }
        self.not_appended.sort_unstable_by_key(|inputs| *inputs.start());
        match session.out.is_json() {
            true => session.out.json(&self.json(ended.as_ref().err()))?,
            false => session.out.line(self.summary())?,
        }
        session.out.flush()?;
        if ended.is_err() || !self.in_doubt.is_empty() {
            self.explain();
        }
        match ended {
            ended if self.in_doubt.is_empty() => ended.map(|()| Exit::Success),
            Ok(()) => Ok(Exit::Unknown),
            Err(failure) => Err(Failure::InDoubt(Box::new(failure))),
        }
    }

    fn summary(&self) -> String {
        let (records, batches) = (plural(self.records, "record"), plural(self.batches, "batch"));
        let mut text = format!("appended {records} in {batches}, {}", human_bytes(self.bytes));
        if let Some((first, last)) = self.first_offset.zip(self.last_offset) {
            text += &format!(", at offsets {}", between([first, last]));
        }
        text
    }

    /// Says what became of the inputs, after a failure.
    fn explain(&self) {
        let all = |inputs: &[Inputs]| {
            inputs.iter().map(|inputs| between(ends(inputs))).collect::<Vec<_>>().join(", ")
        };
        if !self.appended.is_empty() {
            warn(&format!("on the log: inputs {}", all(&self.appended)));
        }
        for (inputs, in_doubt) in &self.in_doubt {
            let mut text = format!("in doubt: inputs {}", between(ends(inputs)));
            if let Some(in_doubt) = in_doubt {
                text += &format!(
                    ": producer id {}, epoch {}, sequence {}; if it is on the log, `kwal inspect {} -p {} --from {}` \
                     shows it; its absence proves nothing while its request may still arrive",
                    in_doubt.producer_id,
                    in_doubt.epoch,
                    in_doubt.sequence,
                    self.topic,
                    self.partition,
                    in_doubt.after.map_or_else(|| "earliest".to_owned(), |after| (after + 1).to_string())
                );
            }
            warn(&text);
        }
        if !self.not_appended.is_empty() {
            warn(&format!("not on the log: inputs {}", all(&self.not_appended)));
        }
        warn(&format!(
            "{} read",
            if self.read == 1 { "1 input was".to_owned() } else { format!("{} inputs were", self.read) }
        ));
    }

    fn json(&self, failure: Option<&Failure>) -> Json<'_> {
        let all = |inputs: &[Inputs]| inputs.iter().map(ends).collect();
        let in_doubt = self.in_doubt.iter().map(|(inputs, in_doubt)| JsonInDoubt {
            inputs: ends(inputs),
            producer_id: in_doubt.as_ref().map(|in_doubt| in_doubt.producer_id),
            epoch: in_doubt.as_ref().map(|in_doubt| in_doubt.epoch),
            sequence: in_doubt.as_ref().map(|in_doubt| in_doubt.sequence),
            record_count: inputs.end() - inputs.start() + 1,
            after: in_doubt.as_ref().and_then(|in_doubt| in_doubt.after),
        });
        Json::Summary {
            topic: &self.topic,
            partition: self.partition,
            read: self.read,
            appended: self.records,
            batches: self.batches,
            bytes: self.bytes,
            first_offset: self.first_offset,
            last_offset: self.last_offset,
            inputs: JsonInputs {
                appended: all(&self.appended),
                not_appended: all(&self.not_appended),
                in_doubt: in_doubt.collect(),
            },
            error: failure.and_then(Failure::line),
        }
    }
}

/// Adds inputs to a list of ranges; those that follow the last one become a part of it.
fn add(list: &mut Vec<Inputs>, inputs: Inputs) {
    match list.last_mut() {
        Some(last) if last.end() + 1 == *inputs.start() => *last = *last.start()..=*inputs.end(),
        _ => list.push(inputs),
    }
}

fn ends(inputs: &Inputs) -> [u64; 2] {
    [*inputs.start(), *inputs.end()]
}

fn between<T: PartialEq + ToString>([first, last]: [T; 2]) -> String {
    if first == last { first.to_string() } else { format!("{} to {}", first.to_string(), last.to_string()) }
}
