//! Histories as text, one event per line.

use std::{fmt, ops::Range, str::FromStr, time::Duration};

use super::{
    history::{Event, History},
    types::{
        AppendId, AppendOutcome, CallId, Covered, Log, Producer, ReadFailure, Reader, ReaderId, SubmitOrder,
        TopicPartition, Writer, WriterId,
    },
    value::{Value, unescape},
};

/// A line that is not an event of a [`History`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} of the history: {problem}")]
pub struct ParseError {
    /// The number of the line, from 1.
    pub line: usize,
    problem: String,
}

impl FromStr for History {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut history = Self::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (at, event) =
                Words::new(line).event().map_err(|problem| ParseError { line: number + 1, problem })?;
            history.at(at).push(event);
        }
        Ok(history)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events().iter().try_for_each(|(at, event)| writeln!(f, "{} {event}", Seconds(*at)))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_event(f, self, |_, _| true)
    }
}

/// An abbreviated event: of many records, those around an offset, or else the first ones.
pub(super) struct Around<'a>(pub(super) &'a Event, pub(super) Option<i64>);

impl fmt::Display for Around<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_event(f, self.0, |index, offset| match (self.1, offset) {
            (Some(around), Some(offset)) => around.abs_diff(offset) <= NEIGHBOURS,
            _ => index <= 2 * NEIGHBOURS as usize,
        })
    }
}

/// How many records are shown on each side of an offset.
const NEIGHBOURS: u64 = 3;

/// A time in seconds, without trailing zeros.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0.as_secs(), self.0.subsec_nanos());
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Seconds {
    fn parse(text: &str) -> Option<Duration> {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
            return None;
        }
        Some(Duration::new(seconds.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
    }
}

/// Writes an event with the records that `shown` selects by index and offset.
fn write_event(
    f: &mut fmt::Formatter<'_>,
    event: &Event,
    shown: impl Fn(usize, Option<i64>) -> bool,
) -> fmt::Result {
    match event {
        Event::Writer { id, writer } => {
            write!(f, "writer {id} {}", writer.partition)?;
            if let Some(deadline) = writer.deadline {
                write!(f, " deadline={}", Seconds(deadline))?;
            }
            if let Some(name) = &writer.exclusive {
                write!(f, " exclusive={name}")?;
            }
            let Writer { on_failure_continue, without_ids, leader_acks, .. } = *writer;
            f.write_str(if on_failure_continue { " continue" } else { "" })?;
            f.write_str(if without_ids { " without-ids" } else { "" })?;
            f.write_str(if leader_acks { " leader-acks" } else { "" })?;
            f.write_str(if writer.transactional { " transactional" } else { "" })?;
            f.write_str(if writer.batched { " batched" } else { "" })
        }
        Event::Submit { append, writer, order, records } => {
            let verb = match order {
                SubmitOrder::Fixed => "submit",
                SubmitOrder::Queued => "queue",
                SubmitOrder::Unordered => "start",
            };
            write!(f, "{verb} {append} {writer}")?;
            let mut left_out = false;
            for (index, value) in records.iter().enumerate() {
                match shown(index, None) {
                    true => write!(f, " {value}")?,
                    false => left_out = true,
                }
            }
            f.write_str(if left_out { " …" } else { "" })
        }
        Event::Completed { append, outcome } => match outcome {
            AppendOutcome::Acked { base_offset } => write!(f, "acked {append} {base_offset}"),
            AppendOutcome::AckedAtUnknownOffset => write!(f, "acked {append} somewhere"),
            AppendOutcome::NotAppended => write!(f, "not-appended {append}"),
            AppendOutcome::Unknown => write!(f, "unknown {append}"),
            AppendOutcome::Dropped => write!(f, "dropped {append}"),
            AppendOutcome::Withdrawn => write!(f, "withdrawn {append}"),
        },
        Event::Resolve { append } => write!(f, "resolve {append}"),
        Event::Resolved { append, base_offset } => match base_offset {
            Some(base_offset) => write!(f, "resolved {append} {base_offset}"),
            None => write!(f, "resolved {append} absent"),
        },
        Event::Close { writer } => write!(f, "close {writer}"),
        Event::Closed { writer, failed } => write!(f, "closed {writer} {failed}"),
        Event::Flush { call, writer, after } => {
            write!(f, "flush {call} {writer}")?;
            after.map_or(Ok(()), |after| write!(f, " after={after}"))
        }
        Event::Flushed { call, failed: false } => write!(f, "flushed {call}"),
        Event::Flushed { call, failed: true } => write!(f, "flush-failed {call}"),
        Event::Drain { call, writer, after } => {
            write!(f, "drain {call} {writer}")?;
            after.map_or(Ok(()), |after| write!(f, " after={after}"))
        }
        Event::Drained { call, absent, unknown } => {
            write!(f, "drained {call}")?;
            absent.iter().try_for_each(|value| write!(f, " absent={value}"))?;
            unknown.iter().try_for_each(|value| write!(f, " unknown={value}"))
        }
        Event::Fenced { writer } => write!(f, "fenced {writer}"),
        Event::Lost { writer } => write!(f, "lost {writer}"),
        Event::Barrier { writer, offset, producer } => {
            write!(f, "barrier {writer} {offset}")?;
            producer.map_or(Ok(()), |producer| write!(f, " as={producer}"))
        }
        Event::Reader { id, reader } => {
            write!(f, "reader {id} {} {}", reader.partition, reader.offset)?;
            f.write_str(if reader.without_epoch { " bare" } else { "" })?;
            f.write_str(if reader.committed { " committed" } else { "" })?;
            reader.resumes.map_or(Ok(()), |other| write!(f, " from={other}"))
        }
        Event::Read { reader, records, next_offset } => {
            write!(f, "read {reader} {next_offset}")?;
            write_records(f, records, shown)
        }
        Event::Fetched { reader } => write!(f, "fetched {reader}"),
        Event::ReadFailed { reader, failure } => {
            write!(f, "read-failed {reader} ")?;
            match failure {
                ReadFailure::OutOfRange => f.write_str("out-of-range"),
                ReadFailure::Truncated { diverged_at } => write!(f, "truncated {diverged_at}"),
                ReadFailure::Trimmed { log_start } => write!(f, "trimmed {log_start}"),
                ReadFailure::BeyondEnd { end } => write!(f, "beyond-end {end}"),
                ReadFailure::Recreated => f.write_str("recreated"),
                ReadFailure::EpochUnknown => f.write_str("epoch-unknown"),
                ReadFailure::Other => f.write_str("other"),
            }
        }
        Event::Seek { reader, offset } => write!(f, "seek {reader} {offset}"),
        Event::TransactionEnded { writer, committed } => {
            write!(f, "{} {writer}", if *committed { "committed" } else { "aborted" })
        }
        Event::ReplayOpened { reader, end, given } => {
            write!(f, "replay {reader} {end}{}", if *given { " given" } else { "" })
        }
        Event::ReplayEnded { reader, covered: Covered { offsets, records, gaps } } => {
            write!(f, "replayed {reader} {}..{} {records}", offsets.start, offsets.end)?;
            gaps.iter().try_for_each(|Range { start, end }| write!(f, " gap={start}..{end}"))
        }
        Event::Call { id, what, deadline } => write!(f, "call {id} {} {what}", Seconds(*deadline)),
        Event::Returned { call } => write!(f, "returned {call}"),
        Event::Truncated { partition, offset } => write!(f, "truncated {partition} {offset}"),
        Event::Unreplicated { partition, offset } => write!(f, "unreplicated {partition} {offset}"),
        Event::Deleted { partition, before } => write!(f, "deleted {partition} {before}"),
        Event::Recreated { partition } => write!(f, "recreated {partition}"),
        Event::EpochRewound { partition } => write!(f, "rewound {partition}"),
        Event::StaleEnd { partition, end } => write!(f, "stale-end {partition} {end}"),
        Event::Log(log) => {
            write!(f, "log {} {} {}", log.partition, log.offsets.start, log.offsets.end)?;
            for (index, Range { start, end }) in log.empty.iter().enumerate() {
                if shown(index, Some(*start)) {
                    write!(f, " empty={start}..{end}")?;
                }
            }
            for (index, (Range { start, end }, producer)) in log.producers.iter().enumerate() {
                if shown(index, Some(*start)) {
                    write!(f, " by={start}..{end}:{producer}")?;
                }
            }
            for (index, Range { start, end }) in log.aborted.iter().enumerate() {
                if shown(index, Some(*start)) {
                    write!(f, " aborted={start}..{end}")?;
                }
            }
            log.last_stable.map_or(Ok(()), |offset| write!(f, " stable={offset}"))?;
            write_records(f, &log.records, shown)
        }
    }
}

fn write_records(
    f: &mut fmt::Formatter<'_>,
    records: &[(i64, Value)],
    shown: impl Fn(usize, Option<i64>) -> bool,
) -> fmt::Result {
    let (mut next, mut left_out) = (None, false);
    for (index, (offset, value)) in records.iter().enumerate() {
        if !shown(index, Some(*offset)) {
            left_out = true;
            continue;
        }
        if left_out {
            f.write_str(" …")?;
            left_out = false;
            next = None;
        }
        if next != Some(*offset) {
            write!(f, " @{offset}")?;
        }
        write!(f, " {value}")?;
        next = offset.checked_add(1);
    }
    f.write_str(if left_out { " …" } else { "" })
}

/// The remaining words of a line.
struct Words<'a>(std::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        Self(line.split_ascii_whitespace())
    }

    fn event(mut self) -> Result<(Duration, Event), String> {
        let at = self.seconds("the time in seconds")?;
        let verb = self.next("what happened")?;
        let event = match verb {
            "writer" => Event::Writer { id: WriterId(self.id('w')?), writer: self.writer()? },
            "submit" => self.submit(SubmitOrder::Fixed)?,
            "queue" => self.submit(SubmitOrder::Queued)?,
            "start" => self.submit(SubmitOrder::Unordered)?,
            "acked" => {
                let append = AppendId(self.id('a')?);
                let outcome = match self.next("an offset")? {
                    "somewhere" => AppendOutcome::AckedAtUnknownOffset,
                    word => AppendOutcome::Acked { base_offset: offset(word)? },
                };
                Event::Completed { append, outcome }
            }
            "not-appended" => {
                Event::Completed { append: AppendId(self.id('a')?), outcome: AppendOutcome::NotAppended }
            }
            "unknown" => {
                Event::Completed { append: AppendId(self.id('a')?), outcome: AppendOutcome::Unknown }
            }
            "dropped" => {
                Event::Completed { append: AppendId(self.id('a')?), outcome: AppendOutcome::Dropped }
            }
            "withdrawn" => {
                Event::Completed { append: AppendId(self.id('a')?), outcome: AppendOutcome::Withdrawn }
            }
            "resolve" => Event::Resolve { append: AppendId(self.id('a')?) },
            "resolved" => {
                let append = AppendId(self.id('a')?);
                let base_offset = match self.next("an offset or \"absent\"")? {
                    "absent" => None,
                    word => Some(offset(word)?),
                };
                Event::Resolved { append, base_offset }
            }
            "close" => Event::Close { writer: WriterId(self.id('w')?) },
            "closed" => {
                let (writer, failed) = (WriterId(self.id('w')?), self.next("how many failed")?);
                let failed = failed.parse().map_err(|_| format!("{failed:?} is not a number"))?;
                Event::Closed { writer, failed }
            }
            "flush" | "drain" => self.wait(verb)?,
            "flushed" => Event::Flushed { call: CallId(self.id('c')?), failed: false },
            "flush-failed" => Event::Flushed { call: CallId(self.id('c')?), failed: true },
            "drained" => self.drained()?,
            "fenced" => Event::Fenced { writer: WriterId(self.id('w')?) },
            "lost" => Event::Lost { writer: WriterId(self.id('w')?) },
            "barrier" => {
                let (writer, offset) = (WriterId(self.id('w')?), self.offset()?);
                let word = self.0.next().map(|word| word.strip_prefix("as=").unwrap_or(word));
                Event::Barrier { writer, offset, producer: word.map(producer).transpose()? }
            }
            "reader" => Event::Reader { id: ReaderId(self.id('r')?), reader: self.reader()? },
            "read" => {
                let (reader, next_offset) = (ReaderId(self.id('r')?), self.offset()?);
                Event::Read { reader, next_offset, records: self.records()? }
            }
            "fetched" => Event::Fetched { reader: ReaderId(self.id('r')?) },
            "read-failed" => Event::ReadFailed { reader: ReaderId(self.id('r')?), failure: self.failure()? },
            "seek" => Event::Seek { reader: ReaderId(self.id('r')?), offset: self.offset()? },
            "committed" => Event::TransactionEnded { writer: WriterId(self.id('w')?), committed: true },
            "aborted" => Event::TransactionEnded { writer: WriterId(self.id('w')?), committed: false },
            "replay" => {
                let (reader, end) = (ReaderId(self.id('r')?), self.offset()?);
                let given = self.0.clone().next() == Some("given") && self.0.next().is_some();
                Event::ReplayOpened { reader, end, given }
            }
            "replayed" => Event::ReplayEnded { reader: ReaderId(self.id('r')?), covered: self.covered()? },
            "call" => {
                let (id, deadline) = (CallId(self.id('c')?), self.seconds("the deadline in seconds")?);
                Event::Call { id, deadline, what: value(self.next("what is called")?)? }
            }
            "returned" => Event::Returned { call: CallId(self.id('c')?) },
            "truncated" => Event::Truncated { partition: self.partition()?, offset: self.offset()? },
            "unreplicated" => Event::Unreplicated { partition: self.partition()?, offset: self.offset()? },
            "deleted" => Event::Deleted { partition: self.partition()?, before: self.offset()? },
            "recreated" => Event::Recreated { partition: self.partition()? },
            "stale-end" => Event::StaleEnd { partition: self.partition()?, end: self.offset()? },
            "rewound" => Event::EpochRewound { partition: self.partition()? },
            "log" => Event::Log(self.log()?),
            _ => return Err(format!("{verb:?} is not an event")),
        };
        match self.0.next() {
            Some(word) => Err(format!("{word:?} is one word too many")),
            None => Ok((at, event)),
        }
    }

    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn id(&mut self, letter: char) -> Result<u64, String> {
        id(self.next("a number")?, letter)
    }

    fn offset(&mut self) -> Result<i64, String> {
        let word = self.next("an offset")?;
        offset(word)
    }

    fn seconds(&mut self, what: &str) -> Result<Duration, String> {
        seconds(self.next(what)?)
    }

    fn partition(&mut self) -> Result<TopicPartition, String> {
        let word = self.next("a topic and partition")?;
        let parsed = word.rsplit_once('-').and_then(|(topic, partition)| {
            let topic = String::from_utf8(unescape(topic)?).ok()?;
            Some(TopicPartition { topic, partition: partition.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{word:?} is not a topic and partition"))
    }

    fn writer(&mut self) -> Result<Writer, String> {
        let mut writer = Writer::new(self.partition()?);
        for word in self.0.by_ref() {
            writer = match word.split_once('=') {
                Some(("deadline", time)) => writer.deadline(seconds(time)?),
                Some(("exclusive", name)) => writer.exclusive(value(name)?),
                None if word == "continue" => writer.on_failure_continue(),
                None if word == "without-ids" => writer.without_ids(),
                None if word == "leader-acks" => writer.leader_acks(),
                None if word == "transactional" => writer.transactional(),
                None if word == "batched" => writer.batched(),
                _ => return Err(format!("{word:?} is not a property of a writer")),
            };
        }
        Ok(writer)
    }

    fn submit(&mut self, order: SubmitOrder) -> Result<Event, String> {
        let (append, writer) = (AppendId(self.id('a')?), WriterId(self.id('w')?));
        let records = self.0.by_ref().map(value).collect::<Result<_, _>>()?;
        Ok(Event::Submit { append, writer, order, records })
    }

    fn reader(&mut self) -> Result<Reader, String> {
        let mut reader = Reader::new(self.partition()?, self.offset()?);
        for word in self.0.by_ref() {
            reader = match word {
                "bare" => reader.without_epoch(),
                "committed" => reader.committed(),
                _ => match word.strip_prefix("from=") {
                    Some(other) => reader.resumes(ReaderId(id(other, 'r')?)),
                    None => return Err(format!("{word:?} is not a property of a reader")),
                },
            };
        }
        Ok(reader)
    }

    fn wait(&mut self, verb: &str) -> Result<Event, String> {
        let (call, writer) = (CallId(self.id('c')?), WriterId(self.id('w')?));
        let after = self.0.next().map(|word| {
            let append = word.strip_prefix("after=").ok_or_else(|| format!("{word:?} is not an append"))?;
            id(append, 'a').map(AppendId)
        });
        let after = after.transpose()?;
        Ok(match verb {
            "flush" => Event::Flush { call, writer, after },
            _ => Event::Drain { call, writer, after },
        })
    }

    fn drained(&mut self) -> Result<Event, String> {
        let call = CallId(self.id('c')?);
        let (mut absent, mut unknown) = (Vec::new(), Vec::new());
        for word in self.0.by_ref() {
            match word.split_once('=') {
                Some(("absent", word)) => absent.push(value(word)?),
                Some(("unknown", word)) => unknown.push(value(word)?),
                _ => return Err(format!("{word:?} is not a record that was not delivered")),
            }
        }
        Ok(Event::Drained { call, absent, unknown })
    }

    fn covered(&mut self) -> Result<Covered, String> {
        let (at, count) = (offsets(self.next("a range of offsets")?)?, self.next("a number of records")?);
        let records = count.parse().map_err(|_| format!("{count:?} is not a number"))?;
        let mut covered = Covered::new(at, records);
        for word in self.0.by_ref() {
            let gap = word.strip_prefix("gap=").ok_or_else(|| format!("{word:?} is not a gap"))?;
            covered = covered.gap(offsets(gap)?);
        }
        Ok(covered)
    }

    fn failure(&mut self) -> Result<ReadFailure, String> {
        match self.next("how it failed")? {
            "out-of-range" => Ok(ReadFailure::OutOfRange),
            "truncated" => Ok(ReadFailure::Truncated { diverged_at: self.offset()? }),
            "trimmed" => Ok(ReadFailure::Trimmed { log_start: self.offset()? }),
            "beyond-end" => Ok(ReadFailure::BeyondEnd { end: self.offset()? }),
            "recreated" => Ok(ReadFailure::Recreated),
            "epoch-unknown" => Ok(ReadFailure::EpochUnknown),
            "other" => Ok(ReadFailure::Other),
            word => Err(format!("{word:?} is not a read failure")),
        }
    }

    fn log(&mut self) -> Result<Log, String> {
        let (partition, start, end) = (self.partition()?, self.offset()?, self.offset()?);
        let (mut empty, mut producers, mut aborted) = (Vec::new(), Vec::new(), Vec::new());
        let mut last_stable = None;
        let mut rest = self.0.clone();
        while let Some((kind, word)) = rest.next().and_then(|word| word.split_once('=')) {
            match kind {
                "empty" => empty.push(offsets(word)?),
                "by" => {
                    let (at, by) = word.split_once(':').ok_or_else(|| format!("{word:?} has no producer"))?;
                    producers.push((offsets(at)?, producer(by)?));
                }
                "aborted" => aborted.push(offsets(word)?),
                "stable" => last_stable = Some(offset(word)?),
                _ => break,
            }
            self.0 = rest.clone();
        }
        let (offsets, records) = (start..end, self.records()?);
        Ok(Log { partition, offsets, empty, producers, aborted, last_stable, records })
    }

    fn records(&mut self) -> Result<Vec<(i64, Value)>, String> {
        let mut next = None;
        let mut records = Vec::new();
        for word in self.0.by_ref() {
            if let Some(at) = word.strip_prefix('@') {
                next = Some(offset(at)?);
            } else {
                let at = next.ok_or_else(|| format!("the offset of {word:?} is missing"))?;
                records.push((at, value(word)?));
                next = i64::checked_add(at, 1);
            }
        }
        Ok(records)
    }
}

fn id(word: &str, letter: char) -> Result<u64, String> {
    let id = word.strip_prefix(letter).and_then(|number| number.parse().ok());
    id.ok_or_else(|| format!("{word:?} should be {letter:?} and a number"))
}

fn value(word: &str) -> Result<Value, String> {
    Value::parse(word).ok_or_else(|| format!("{word:?} is not a value"))
}

fn offset(word: &str) -> Result<i64, String> {
    word.parse().map_err(|_| format!("{word:?} is not an offset"))
}

fn offsets(word: &str) -> Result<Range<i64>, String> {
    let (start, end) = word.split_once("..").ok_or_else(|| format!("{word:?} is not a range of offsets"))?;
    Ok(offset(start)?..offset(end)?)
}

fn producer(word: &str) -> Result<Producer, String> {
    let parsed = word.split_once('/').and_then(|(id, epoch)| {
        let (id, epoch) = (id.parse().ok()?, epoch.parse().ok()?);
        Some(Producer { id, epoch })
    });
    parsed.ok_or_else(|| format!("{word:?} is not a producer id and epoch"))
}

fn seconds(word: &str) -> Result<Duration, String> {
    Seconds::parse(word).ok_or_else(|| format!("{word:?} is not a time in seconds"))
}

#[cfg(test)]
mod tests;
