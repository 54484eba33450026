//! Histories as text, one event per line.

use std::{fmt, ops::Range, str::FromStr, time::Duration};

use super::{
    history::{Event, History},
    types::{
        AppendId, AppendOutcome, CallId, Log, Producer, ReadFailure, Reader, ReaderId, SubmitOrder,
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
            f.write_str(if leader_acks { " leader-acks" } else { "" })
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
        Event::Fenced { writer } => write!(f, "fenced {writer}"),
        Event::Lost { writer } => write!(f, "lost {writer}"),
        Event::Barrier { writer, offset, producer } => {
            write!(f, "barrier {writer} {offset}")?;
            producer.map_or(Ok(()), |producer| write!(f, " as={producer}"))
        }
        Event::Reader { id, reader } => {
            write!(f, "reader {id} {} {}", reader.partition, reader.offset)?;
            f.write_str(if reader.without_epoch { " bare" } else { "" })
        }
        Event::Read { reader, records, next_offset } => {
            write!(f, "read {reader} {next_offset}")?;
            write_records(f, records, shown)
        }
        Event::ReadFailed { reader, failure } => match failure {
            ReadFailure::OutOfRange => write!(f, "read-failed {reader} out-of-range"),
            ReadFailure::Truncated { diverged_at } => {
                write!(f, "read-failed {reader} truncated {diverged_at}")
            }
            ReadFailure::Recreated => write!(f, "read-failed {reader} recreated"),
            ReadFailure::Other => write!(f, "read-failed {reader} other"),
        },
        Event::Seek { reader, offset } => write!(f, "seek {reader} {offset}"),
        Event::Call { id, what, deadline } => write!(f, "call {id} {} {what}", Seconds(*deadline)),
        Event::Returned { call } => write!(f, "returned {call}"),
        Event::Truncated { partition, offset } => write!(f, "truncated {partition} {offset}"),
        Event::Unreplicated { partition, offset } => write!(f, "unreplicated {partition} {offset}"),
        Event::Deleted { partition, before } => write!(f, "deleted {partition} {before}"),
        Event::Recreated { partition } => write!(f, "recreated {partition}"),
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
            "read-failed" => Event::ReadFailed { reader: ReaderId(self.id('r')?), failure: self.failure()? },
            "seek" => Event::Seek { reader: ReaderId(self.id('r')?), offset: self.offset()? },
            "call" => {
                let (id, deadline) = (CallId(self.id('c')?), self.seconds("the deadline in seconds")?);
                Event::Call { id, deadline, what: value(self.next("what is called")?)? }
            }
            "returned" => Event::Returned { call: CallId(self.id('c')?) },
            "truncated" => Event::Truncated { partition: self.partition()?, offset: self.offset()? },
            "unreplicated" => Event::Unreplicated { partition: self.partition()?, offset: self.offset()? },
            "deleted" => Event::Deleted { partition: self.partition()?, before: self.offset()? },
            "recreated" => Event::Recreated { partition: self.partition()? },
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
        let word = self.next("a number")?;
        let id = word.strip_prefix(letter).and_then(|number| number.parse().ok());
        id.ok_or_else(|| format!("{word:?} should be {letter:?} and a number"))
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
        let reader = Reader::new(self.partition()?, self.offset()?);
        match self.0.next() {
            None => Ok(reader),
            Some("bare") => Ok(reader.without_epoch()),
            Some(word) => Err(format!("{word:?} is not a property of a reader")),
        }
    }

    fn failure(&mut self) -> Result<ReadFailure, String> {
        match self.next("how it failed")? {
            "out-of-range" => Ok(ReadFailure::OutOfRange),
            "truncated" => Ok(ReadFailure::Truncated { diverged_at: self.offset()? }),
            "recreated" => Ok(ReadFailure::Recreated),
            "other" => Ok(ReadFailure::Other),
            word => Err(format!("{word:?} is not a read failure")),
        }
    }

    fn log(&mut self) -> Result<Log, String> {
        let (partition, start, end) = (self.partition()?, self.offset()?, self.offset()?);
        let (mut empty, mut producers) = (Vec::new(), Vec::new());
        let mut rest = self.0.clone();
        while let Some((kind, word)) = rest.next().and_then(|word| word.split_once('=')) {
            match kind {
                "empty" => empty.push(offsets(word)?),
                "by" => {
                    let (at, by) = word.split_once(':').ok_or_else(|| format!("{word:?} has no producer"))?;
                    producers.push((offsets(at)?, producer(by)?));
                }
                _ => break,
            }
            self.0 = rest.clone();
        }
        Ok(Log { partition, offsets: start..end, empty, producers, records: self.records()? })
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
mod tests {
    use fastrand::Rng;

    use super::*;

    const ALL: &str = "\
0 writer w7 wal-0 deadline=60 exclusive=me continue
0 writer w8 a-b%25c-12
0 writer w9 wal-0 without-ids leader-acks
0.5 submit a3 w7 x y
0.5 queue a4 w7 z
0.500000001 start a5 w8 \"\" %20
1 acked a3 5
1 acked a8 somewhere
1 not-appended a4
1 unknown a5
1.25 dropped a6
1.25 withdrawn a7
1.5 resolve a5
1.5 resolved a5 7
1.5 resolved a6 absent
1.5 close w9
1.5 closed w9 2
2 fenced w7
2 lost w7
2 barrier w7 9
2 barrier w7 10 as=1000/3
2 reader r0 wal-0 0
2 reader r1 wal-0 4 bare
3 read r0 9 @5 x y @8 z
3 read r0 9
3 read-failed r0 out-of-range
3 read-failed r0 truncated -1
3 read-failed r0 recreated
3 read-failed r0 other
3 seek r0 9
4 call c0 10 fetch
4 returned c0
5 truncated wal-0 3
5 unreplicated wal-0 4
5 deleted wal-0 3
5 recreated wal-0
18446744073709551615 log wal-0 3 12 empty=3..5 empty=7..8 by=5..7:1000/3 by=8..9:7/-1 @5 x y @8 z
";

    #[test]
    fn every_event_survives_as_text() {
        let history: History = ALL.parse().unwrap();
        assert_eq!(history.to_string(), ALL);
        assert_eq!(history.events().len(), ALL.lines().count());
        let mut longer = history.clone();
        assert_eq!(longer.writer(("wal", 0)), WriterId(10), "ids continue after those that were read");
    }

    #[test]
    fn errors_name_the_line() {
        for (line, problem) in [
            ("x submit a0 w0", "\"x\" is not a time in seconds"),
            ("1.0000000001 fenced w0", "\"1.0000000001\" is not a time in seconds"),
            ("1", "what happened is missing"),
            ("1 went", "\"went\" is not an event"),
            ("1 acked a0", "an offset is missing"),
            ("1 acked 0 5", "\"0\" should be 'a' and a number"),
            ("1 acked a0 5 6", "\"6\" is one word too many"),
            ("1 writer w0 wal", "\"wal\" is not a topic and partition"),
            ("1 writer w0 wal-0 soon", "\"soon\" is not a property of a writer"),
            ("1 resolved a0 there", "\"there\" is not an offset"),
            ("1 closed w0 -1", "\"-1\" is not a number"),
            ("1 read r0 5 x", "the offset of \"x\" is missing"),
            ("1 read r0 5 @5 %", "\"%\" is not a value"),
            ("1 barrier w0 5 1000", "\"1000\" is not a producer id and epoch"),
            ("1 log wal-0 0 1 by=0..1", "\"0..1\" has no producer"),
            ("1 log wal-0 0 1 by=0..1:7/x", "\"7/x\" is not a producer id and epoch"),
            ("1 log wal-0 0 1 empty=3", "\"3\" is not a range of offsets"),
        ] {
            let error = format!("\n# fine\n{line}\n").parse::<History>().unwrap_err();
            assert_eq!(error.to_string(), format!("line 3 of the history: {problem}"));
        }
    }

    #[test]
    fn no_parsable_history_panics() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..1_000 {
            let mut text = ALL.as_bytes().to_vec();
            for _ in 0..rng.usize(1..20) {
                let at = rng.usize(..text.len());
                match rng.u8(..3) {
                    0 => text[at] = rng.u8(..128),
                    1 => drop(text.remove(at)),
                    _ => text.insert(at, b" @%=-.9\n"[rng.usize(..8)]),
                }
            }
            let text = String::from_utf8(text).unwrap();
            for line in text.lines() {
                if let Ok(history) = line.parse::<History>() {
                    assert_eq!(history.to_string().parse::<History>().as_ref(), Ok(&history), "{line}");
                    let _ = history.check(&Default::default()).to_string();
                }
            }
            if let Ok(history) = text.parse::<History>() {
                let _ = history.check(&Default::default()).to_string();
            }
        }
    }

    #[test]
    fn abbreviated_events_show_the_neighbours_of_an_offset() {
        let log = Log::new(("wal", 0), 0..100, (0..100).map(|offset| (offset, offset)));
        let log = Event::Log(log.empty(3..4).empty(52..53));
        let text = Around(&log, Some(50)).to_string();
        assert_eq!(text, "log wal-0 0 100 empty=52..53 … @47 47 48 49 50 51 52 53 …");
        let append = Event::Submit {
            append: AppendId(0),
            writer: WriterId(0),
            order: SubmitOrder::Fixed,
            records: (0..100).map(Value::from).collect(),
        };
        assert_eq!(Around(&append, None).to_string(), "submit a0 w0 0 1 2 3 4 5 6 …");
    }
}
