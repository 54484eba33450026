//! What is expected of a history, and what has come of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::{
    history::History,
    text::{Around, Seconds},
};

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $rule:ident $promise:literal $description:literal;)*) => {
        /// A line that a client can cross, each part of one of kwal's promises.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Rule { $($(#[doc = $doc])* $rule,)* }

        impl Rule {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// What it says, in a few words.
            pub fn description(self) -> &'static str {
                match self { $(Self::$rule => $description,)* }
            }

            /// The promise that it is part of: C1 to C8, or C11; empty for [`Rule::History`].
            pub fn promise(self) -> &'static str {
                match self { $(Self::$rule => $promise,)* }
            }
        }
    };
}

rules! {
    /// Every acknowledged record is on the log.
    Durable "C1" "acknowledged is durable";
    /// Every acknowledged record is on the log at the offset that was told.
    Offset "C1" "at the acknowledged offset";
    /// No record is on the log twice.
    Once "C2" "once at the most";
    /// The records of one append are on the log one behind the other, all or none.
    Whole "C2" "all or nothing";
    /// The appends of one writer are on the log in the order in which they were submitted.
    Order "C3" "in the order submitted";
    /// What was submitted behind an append that failed, before its error was handed out, fails too, and is not on the log
    /// without it.
    NoHole "C3" "no hole";
    /// What was not appended is not on the log.
    NotAppended "C4" "not appended is not there";
    /// Appends and calls end within their deadline.
    Deadline "C4" "within the deadline";
    /// What was given up before its place was fixed is not on the log.
    Withdrawn "C5" "given up in time is not there";
    /// Behind the barrier of a writer there is nothing of those of the same name before it.
    OneWriter "C6" "one writer";
    /// A writer that was told of another one, or of a loss, appends no more.
    Ended "C6" "an ended writer appends no more";
    /// A reader passes over no record.
    ReadEvery "C7" "every record is read";
    /// A reader gets no record twice, and does not go back.
    ReadOnce "C7" "read once, in order";
    /// A reader gets what is on the log.
    ReadTrue "C7" "read as it is";
    /// A reader that has seen what is lost is told so, and from where on, before it goes on.
    Truncation "C8" "a loss is told";
    /// Behind an acknowledged append that is lost there is nothing of its writer, which is told so instead.
    LossEnds "C8" "a loss ends a writer";
    /// Nobody is told of a loss, or of an offset out of range, where there is none.
    FalseAlarm "C8" "no false alarm";
    /// Nothing is on the log that was not asked for.
    Asked "C11" "nothing that was not asked for";
    /// The history does not contradict itself, and has the log of each partition that it speaks of. Cannot be waived.
    History "" "a history that can be judged";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = self.promise();
        let space = if promise.is_empty() { "" } else { " " };
        write!(f, "{promise}{space}{}", self.description())
    }
}

/// Which rules a history is held against. By default all of them, to the letter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expect {
    waived: BTreeSet<Rule>,
    pub(super) grace: Duration,
}

impl Expect {
    /// All but those that a client breaks that sends again without a producer id: [`Rule::Once`], [`Rule::Order`] and
    /// [`Rule::NoHole`].
    pub fn at_least_once() -> Self {
        Self::default().waive(Rule::Once).waive(Rule::Order).waive(Rule::NoHole)
    }

    /// Lets a rule be broken.
    pub fn waive(mut self, rule: Rule) -> Self {
        if rule != Rule::History {
            self.waived.insert(rule);
        }
        self
    }

    /// How long after something happened the history may have it, 0 by default: with a clock that is not paused, threads take
    /// their time. Deadlines may be missed by so much, and what was submitted within this time before a failure was recorded
    /// may have been behind it.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// What has come of a history. [`Display`](fmt::Display) tells it to a person: each violation with the events it rests on.
#[derive(Clone, Debug)]
#[must_use = "a verdict is to be looked at"]
pub struct Verdict {
    violations: Vec<Violation>,
    counts: BTreeMap<Rule, usize>,
    tally: Tally,
}

impl Verdict {
    /// Whether no rule was broken.
    pub fn holds(&self) -> bool {
        self.counts.is_empty()
    }

    /// The rules that were broken.
    pub fn broken(&self) -> impl Iterator<Item = Rule> + '_ {
        self.counts.keys().copied()
    }

    /// How often a rule was broken.
    pub fn count(&self, rule: Rule) -> usize {
        self.counts.get(&rule).copied().unwrap_or(0)
    }

    /// Each violation, by rule; the first ten of each.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What there was to judge.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Fails a test, with all that there is to say, if a rule was broken.
    ///
    /// # Panics
    /// If a rule was broken.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.holds(), "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds() {
            return write!(f, "the contract holds: {}", self.tally);
        }
        write!(f, "the contract is broken: {}", self.tally)?;
        for (rule, count) in &self.counts {
            write!(f, "\n\n{rule}: broken {count} times")?;
            for violation in self.violations.iter().filter(|violation| violation.rule == *rule) {
                write!(f, "\n{violation}")?;
            }
        }
        Ok(())
    }
}

/// How much there was to judge: a history of nothing holds, too.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Tally {
    /// Appends that were recorded.
    pub appends: usize,
    /// Appends that were acknowledged.
    pub acked: usize,
    /// Appends that failed and are not on the log.
    pub not_appended: usize,
    /// Appends that failed with an unknown outcome.
    pub unknown: usize,
    /// Appends that were given up, in time or not.
    pub dropped: usize,
    /// Appends of whose end the history says nothing.
    pub open: usize,
    /// Records on the logs.
    pub on_log: usize,
    /// Records that were read.
    pub read: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { appends, acked, not_appended, unknown, dropped, open, on_log, read } = self;
        write!(
            f,
            "{appends} appends ({acked} acknowledged, {not_appended} not appended, {unknown} unknown, {dropped} given up, \
             {open} open), {on_log} records on the log, {read} read"
        )
    }
}

/// A rule that was broken, and where.
#[derive(Clone, Debug)]
pub struct Violation {
    rule: Rule,
    message: String,
    events: Vec<usize>,
    /// The events as text.
    excerpt: Vec<String>,
}

impl Violation {
    /// Which rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// What happened, in a sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The events that it rests on, as indices of [`History::events`].
    pub fn events(&self) -> &[usize] {
        &self.events
    }
}

/// What happened, and the lines of the history that it rests on, with their numbers from 1 on; of many records, those next to
/// the one in question.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "- {}", self.message)?;
        self.excerpt.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Writes a verdict.
pub(super) struct VerdictBuilder<'a> {
    history: &'a History,
    pub(super) expect: &'a Expect,
    pub(super) tally: Tally,
    found: BTreeMap<Rule, (usize, Vec<Violation>)>,
}

impl<'a> VerdictBuilder<'a> {
    pub(super) fn new(history: &'a History, expect: &'a Expect) -> Self {
        Self { history, expect, tally: Tally::default(), found: BTreeMap::new() }
    }

    /// Notes a violation with the events it rests on, and the offset to show of each if it has many.
    pub(super) fn violated(
        &mut self,
        rule: Rule,
        events: impl IntoIterator<Item = (usize, Option<i64>)>,
        message: impl FnOnce() -> String,
    ) {
        if self.expect.waived.contains(&rule) {
            return;
        }
        let (count, violations) = self.found.entry(rule).or_default();
        *count += 1;
        if *count > SHOWN {
            return;
        }
        let mut places: Vec<_> = events.into_iter().collect();
        places.sort_unstable();
        places.dedup_by_key(|(event, _)| *event);
        let all = self.history.events();
        let excerpt = places.iter().filter_map(|(event, around)| {
            let (at, what) = all.get(*event)?;
            Some(format!("{:>6} {:>9} {}", event + 1, Seconds(*at), Around(what, *around)))
        });
        let excerpt = excerpt.collect();
        let events = places.iter().map(|(event, _)| *event).collect();
        violations.push(Violation { rule, message: message(), events, excerpt });
    }

    pub(super) fn build(self) -> Verdict {
        let counts = self.found.iter().map(|(rule, (count, _))| (*rule, *count)).collect();
        let violations = self.found.into_values().flat_map(|(_, violations)| violations).collect();
        Verdict { violations, counts, tally: self.tally }
    }
}

/// How many violations of one rule are told in full.
const SHOWN: usize = 10;
