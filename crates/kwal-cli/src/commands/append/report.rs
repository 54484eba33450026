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
    /// Where the log ended before the first append.
    end_before: i64,
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
    /// Why nothing is printed any more. That is no reason to append less.
    unprinted: Option<Failure>,
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
    #[serde(flatten)]
    batch: Option<InDoubt>,
}

impl Report {
    pub(super) fn new(partition: &PartitionClient, end_before: i64, with_offsets: bool) -> Self {
        Self {
            topic: partition.topic().to_owned(),
            partition: partition.partition(),
            end_before,
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
            unprinted: None,
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
    pub(super) fn note(&mut self, session: &mut Session, done: Done) {
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
                return;
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
        if self.with_offsets && self.unprinted.is_none() {
            self.unprinted = print_batch(session, ends(&inputs), offsets).err();
        }
        add(&mut self.appended, inputs);
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
        self.not_appended.sort_unstable_by_key(|inputs| *inputs.start());
        let printed = match self.unprinted.take() {
            Some(failure) => Err(failure),
            None => self.print_summary(session, ended.as_ref().err()),
        };
        let ended = ended.and(printed);
        let has_failed = ended.as_ref().is_err_and(|failure| failure.exit() != Exit::Success);
        if has_failed || !self.in_doubt.is_empty() {
            self.explain();
        }
        match ended {
            ended if self.in_doubt.is_empty() => ended.map(|()| Exit::Success),
            Ok(()) => Ok(Exit::Unknown),
            Err(failure) => Err(Failure::InDoubt(Box::new(failure))),
        }
    }

    fn print_summary(&self, session: &mut Session, failure: Option<&Failure>) -> Result<(), Failure> {
        match session.out.is_json() {
            true => session.out.json(&self.json(failure))?,
            false => session.out.line(self.summary())?,
        }
        session.out.flush()
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
            if let Some(InDoubt { producer_id, epoch, sequence, .. }) = in_doubt {
                text += &format!(": producer id {producer_id}, epoch {epoch}, sequence {sequence}");
            }
            warn(&text);
        }
        if let Some(from) = self.in_doubt.iter().map(|(_, in_doubt)| self.earliest(in_doubt.as_ref())).min() {
            let Self { topic, partition, .. } = self;
            warn(&format!(
                "what is in doubt is on the log if `kwal inspect {topic} -p {partition} --from {from}` shows it; its \
                 absence proves nothing while its request may still arrive, see `kwal append --help`"
            ));
        }
        if !self.not_appended.is_empty() {
            warn(&format!("not on the log: inputs {}", all(&self.not_appended)));
        }
        warn(&format!(
            "{} read",
            if self.read == 1 { "1 input was".to_owned() } else { format!("{} inputs were", self.read) }
        ));
    }

    /// The first offset that a batch in doubt can have.
    fn earliest(&self, in_doubt: Option<&InDoubt>) -> i64 {
        in_doubt.and_then(|in_doubt| in_doubt.after).map_or(self.end_before, |after| after + 1)
    }

    fn json(&self, failure: Option<&Failure>) -> Json<'_> {
        let all = |inputs: &[Inputs]| inputs.iter().map(ends).collect();
        let in_doubt = self.in_doubt.iter();
        let in_doubt =
            in_doubt.map(|(inputs, batch)| JsonInDoubt { inputs: ends(inputs), batch: batch.clone() });
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

fn print_batch(session: &mut Session, inputs: [u64; 2], offsets: Option<[i64; 2]>) -> Result<(), Failure> {
    match session.out.is_json() {
        true => session.out.json(&Json::Batch { inputs, offsets })?,
        false => {
            let offsets = offsets.map_or_else(|| "unknown".to_owned(), between);
            session.out.line(format_args!("inputs {}: offsets {offsets}", between(inputs)))?;
        }
    }
    session.out.flush()
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
