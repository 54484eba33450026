//! The rules, the expectations and the verdict.

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
        /// A rule that a client can break, each a part of kwal's contract.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Rule { $($(#[doc = $doc])* $rule,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// Returns a description in a few words.
            pub fn description(self) -> &'static str {
                match self { $(Self::$rule => $description,)* }
            }

            /// Returns the line of the contract that it is part of: C1 to C8, or C11.
            ///
            /// Empty for [`Rule::History`].
            pub fn promise(self) -> &'static str {
                match self { $(Self::$rule => $promise,)* }
            }
        }
    };
}

rules! {
    /// Every acknowledged record is on the log.
    Durable "C1" "acknowledged is durable";
    /// Every acknowledged record is on the log at its acknowledged offset.
    Offset "C1" "at the acknowledged offset";
    /// No record is on the log twice.
    Once "C2" "at most once";
    /// The records of one append are on the log at consecutive offsets, all or none.
    Whole "C2" "all or nothing";
    /// The appends of one writer are on the log in the order of their submission.
    Order "C3" "in order of submission";
    /// An append submitted after one that fails, before its error was returned, fails too.
    ///
    /// It is on the log only if the one that failed is.
    NoHole "C3" "no hole";
    /// An append that ended as not appended is not on the log.
    NotAppended "C4" "not appended is not on the log";
    /// An append of unknown outcome that was resolved is, or is not, on the log as the answer says.
    Resolved "C4" "on the log as it was resolved";
    /// When a writer is closed, every append that was submitted earlier has ended, and failures are reported.
    Closed "C4" "a close leaves nothing open";
    /// When a flush returns, everything that was accepted earlier has ended, and its result is theirs.
    Flushed "C4" "a flush is a barrier";
    /// A batched writer that is closed returns exactly the records that it has not delivered.
    Undelivered "C4" "a close returns what was not delivered";
    /// Appends and calls end within their deadline.
    Deadline "C4" "within the deadline";
    /// An append that was dropped before its place was fixed is not on the log.
    Withdrawn "C5" "withdrawn is not on the log";
    /// After the barrier of an exclusive writer there is no record of an earlier writer of the same name.
    OneWriter "C6" "one writer";
    /// A writer that learned of another writer, or of a loss, appends nothing more.
    Ended "C6" "an ended writer appends no more";
    /// A reader skips no record.
    ReadEvery "C7" "every record is read";
    /// A reader gets no record twice and does not go back.
    ReadOnce "C7" "read once, in order";
    /// A reader gets what is on the log.
    ReadTrue "C7" "read as it is";
    /// A reader with READ_COMMITTED gets only committed records and stays below the last stable offset.
    Committed "C7" "only what is committed";
    /// A replay ends where it promised or later, and says truly what it covered.
    Replay "C7" "a replay covers what it promised";
    /// A reader that has seen lost records gets an error with their first offset before it continues.
    Truncation "C8" "a loss is reported";
    /// After a lost acknowledged append there is no append of its writer, which gets an error instead.
    LossEnds "C8" "a loss is fatal to a writer";
    /// Nobody gets an error about a loss, or an offset out of range, without a reason.
    FalseAlarm "C8" "no false alarm";
    /// Only submitted records are on the log.
    Asked "C11" "only what was submitted";
    /// The history is consistent and has the log of each of its partitions. Cannot be waived.
    History "" "a history that can be judged";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = self.promise();
        let space = if promise.is_empty() { "" } else { " " };
        write!(f, "{promise}{space}{}", self.description())
    }
}

/// The rules that apply to a history. By default all of them, without grace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expect {
    waived: BTreeSet<Rule>,
    pub(super) grace: Duration,
}

impl Expect {
    /// Waives the rules that a retrying client without a producer id breaks.
    ///
    /// These are [`Rule::Once`], [`Rule::Order`] and [`Rule::NoHole`].
    pub fn at_least_once() -> Self {
        Self::default().waive(Rule::Once).waive(Rule::Order).waive(Rule::NoHole)
    }

    /// Waives a rule.
    pub fn waive(mut self, rule: Rule) -> Self {
        if rule != Rule::History {
            self.waived.insert(rule);
        }
        self
    }

    /// Sets by how much later than it happened an event may have been recorded. Default: 0.
    ///
    /// With a clock that is not paused, threads take their time. Deadlines may be exceeded by this much, and
    /// an append submitted within this time before a failure was recorded may have been submitted after it.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// The result of a check.
///
/// [`Display`](fmt::Display) explains each violation with the events that it is based on.
#[derive(Clone, Debug)]
#[must_use = "a verdict has to be checked"]
pub struct Verdict {
    violations: Vec<Violation>,
    counts: BTreeMap<Rule, usize>,
    tally: Tally,
}

impl Verdict {
    /// Returns whether no rule was broken.
    pub fn holds(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the rules that were broken.
    pub fn broken(&self) -> impl Iterator<Item = Rule> + '_ {
        self.counts.keys().copied()
    }

    /// Returns how often a rule was broken.
    pub fn count(&self, rule: Rule) -> usize {
        self.counts.get(&rule).copied().unwrap_or(0)
    }

    /// Returns the violations by rule, at most ten per rule.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Returns how much was checked.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Panics with the whole verdict if a rule was broken.
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

/// How much was checked: an empty history holds, too.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Tally {
    /// Recorded appends.
    pub appends: usize,
    /// Acknowledged appends.
    pub acked: usize,
    /// Appends that failed and are not on the log.
    pub not_appended: usize,
    /// Appends that failed with an unknown outcome.
    pub unknown: usize,
    /// Appends that were dropped, before or after their place was fixed.
    pub dropped: usize,
    /// Appends whose end is not recorded.
    pub open: usize,
    /// Records on the logs.
    pub on_log: usize,
    /// Records that readers got.
    pub read: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { appends, acked, not_appended, unknown, dropped, open, on_log, read } = self;
        write!(
            f,
            "{appends} appends ({acked} acknowledged, {not_appended} not appended, {unknown} unknown, {dropped} dropped, \
             {open} open), {on_log} records on the log, {read} read"
        )
    }
}

/// A broken rule, and where.
#[derive(Clone, Debug)]
pub struct Violation {
    rule: Rule,
    message: String,
    events: Vec<usize>,
    /// The events as text.
    excerpt: Vec<String>,
}

impl Violation {
    /// Returns the rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Returns what happened, in a sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the events that it is based on, as indices into [`History::events`].
    pub fn events(&self) -> &[usize] {
        &self.events
    }
}

/// The message, then the relevant lines of the history with their numbers, from 1.
///
/// Of many records, only those around the offset in question are shown.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "- {}", self.message)?;
        self.excerpt.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Collects violations into a verdict.
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

    /// Adds a violation with its events, and the offset to show of each that has many records.
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

/// How many violations of one rule are shown.
const SHOWN: usize = 10;
