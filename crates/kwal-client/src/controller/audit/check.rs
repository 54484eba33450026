//! Checks a topic and its brokers against the rules.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use super::{
    finding::{Finding, Partitions, Severity},
    rules::{
        BROKER_RULES, Broker, Condition, ConfigRule, OLDER_NAMES, PARTITION_RULES, PartitionRule, Phrase,
        TOPIC_RULES, Topic, UNITS,
    },
};
use crate::controller::ConfigValue;

/// Returns the findings, those of the greatest severity first.
pub(super) fn check(topic: &Topic, brokers: &[Broker]) -> Vec<Finding> {
    let mut findings: Vec<_> = PARTITION_RULES.iter().flat_map(|rule| rule.check(topic)).collect();
    check_topic(topic, &mut findings);
    check_brokers(brokers, &mut findings);
    // A stable sort: the order of the rules stays within a severity.
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

/// Returns the names of the broker configs that the rules read.
pub(super) fn broker_configs() -> Vec<String> {
    let mut names: Vec<_> = BROKER_RULES.iter().map(|rule| rule.setting.to_owned()).collect();
    names.dedup();
    names
}

fn check_topic(topic: &Topic, findings: &mut Vec<Finding>) {
    let configs = match &topic.configs {
        Ok(configs) => configs,
        // Once, not for each rule.
        Err(reason) => {
            findings.push(unknown("topic configs", "readable".to_owned(), reason));
            return;
        }
    };
    for finding in TOPIC_RULES.iter().filter_map(|rule| rule.check(topic, configs)) {
        add(findings, finding);
    }
}

/// Brokers with equal findings share one.
fn check_brokers(brokers: &[Broker], findings: &mut Vec<Finding>) {
    for rule in BROKER_RULES {
        let mut groups: Vec<(Finding, Vec<i32>)> = Vec::new();
        for broker in brokers {
            let finding = match &broker.configs {
                Ok(configs) => rule.check(broker, configs),
                Err(reason) => Some(unknown(rule.setting, rule.wanted.text(broker), reason)),
            };
            let Some(finding) = finding else { continue };
            match groups.iter_mut().find(|(known, _)| *known == finding) {
                Some((_, ids)) => ids.push(broker.id),
                None => groups.push((finding, vec![broker.id])),
            }
        }
        for (finding, brokers) in groups {
            add(findings, Finding { brokers, ..finding });
        }
    }
}

/// Adds a finding. If several rules read a config that is unknown, only the first of them says so.
fn add(findings: &mut Vec<Finding>, finding: Finding) {
    let same = |known: &Finding| {
        (known.severity, known.setting, &known.brokers)
            == (Severity::Unknown, finding.setting, &finding.brokers)
    };
    if finding.severity != Severity::Unknown || !findings.iter().any(same) {
        findings.push(finding);
    }
}

fn unknown(setting: &'static str, wanted: String, reason: &str) -> Finding {
    Finding {
        severity: Severity::Unknown,
        setting,
        brokers: Vec::new(),
        found: None,
        source: None,
        wanted,
        why: reason.to_owned(),
    }
}

impl PartitionRule {
    /// Returns a finding for all partitions that violate the rule, or one for all brokers that violate it in
    /// the same partitions.
    fn check(&self, topic: &Topic) -> Vec<Finding> {
        let violating = topic.partitions.iter().filter(|partition| (self.condition)(topic, partition));
        let mut of_brokers: BTreeMap<Option<i32>, Vec<i32>> = BTreeMap::new();
        for partition in violating {
            let brokers: Vec<_> = match &(self.brokers)(partition)[..] {
                [] => vec![None],
                brokers => brokers.iter().copied().map(Some).collect(),
            };
            for broker in brokers {
                of_brokers.entry(broker).or_default().push(partition.partition_index);
            }
        }
        let mut groups: BTreeMap<Vec<i32>, Vec<i32>> = BTreeMap::new();
        for (broker, partitions) in of_brokers {
            groups.entry(partitions).or_default().extend(broker);
        }
        groups.into_iter().map(|(partitions, brokers)| self.finding(topic, &partitions, brokers)).collect()
    }

    fn finding(&self, topic: &Topic, violating: &[i32], brokers: Vec<i32>) -> Finding {
        let found = self.found.text(topic);
        Finding {
            severity: self.severity,
            setting: self.setting,
            brokers,
            found: Some(if violating.len() == topic.partitions.len() {
                format!("{found} in all partitions")
            } else {
                format!("{found} in {}", Partitions(violating))
            }),
            source: None,
            wanted: self.wanted.text(topic),
            why: self.why.to_owned(),
        }
    }
}

impl<S> ConfigRule<S> {
    /// Returns a finding if the config of `subject` violates the rule or is unknown.
    fn check(&self, subject: &S, configs: &BTreeMap<String, ConfigValue>) -> Option<Finding> {
        if !(self.applies)(subject) {
            return None;
        }
        let older = OLDER_NAMES.into_iter().filter(|(name, _)| *name == self.setting).map(|(_, older)| older);
        let value = [self.setting].into_iter().chain(older).find_map(|name| {
            let config = configs.get(name)?;
            Some((name, config.source, self.condition.check(subject, config)?))
        });
        let wanted = || self.wanted.text(subject);
        match value {
            None => {
                let why = if configs.contains_key(self.setting) { NO_VALUE } else { NOT_RETURNED };
                Some(unknown(self.setting, wanted(), why))
            }
            Some((_, _, Checked { violated: false, .. })) => None,
            Some((setting, source, Checked { found, .. })) => Some(Finding {
                severity: self.severity,
                setting,
                brokers: Vec::new(),
                found: Some(found),
                source: Some(source),
                wanted: wanted(),
                why: self.why.to_owned(),
            }),
        }
    }
}

const NOT_RETURNED: &str = "The broker did not return this config; it may be too old to have it.";
const NO_VALUE: &str = "The broker returned no value that can be parsed.";

struct Checked {
    violated: bool,
    /// The value, as the finding shows it.
    found: String,
}

impl<S> Condition<S> {
    /// Checks the value of a config; `None` if it has none that can be parsed.
    fn check(&self, subject: &S, config: &ConfigValue) -> Option<Checked> {
        Some(match self {
            Self::Text(violates) => {
                let value = config.text()?;
                Checked { violated: violates(subject, value), found: value.to_owned() }
            }
            Self::Number(violates) => {
                let value = config.number()?;
                Checked { violated: violates(subject, value), found: value.to_string() }
            }
            Self::Millis(violates) => {
                let value = config.number()?;
                Checked { violated: violates(subject, value), found: Millis(value).to_string() }
            }
        })
    }
}

impl<S> Phrase<S> {
    fn text(&self, subject: &S) -> String {
        match self {
            Self::Fixed(text) => (*text).to_owned(),
            Self::Computed(text) => text(subject),
        }
    }
}

/// Displays milliseconds, followed by a larger unit if that is a whole number: `86400000 (1 day)`.
struct Millis(i64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        write!(f, "{ms}")?;
        let whole = UNITS.into_iter().find(|(unit, _)| ms >= *unit && ms % unit == 0);
        match whole {
            // Longer ones mean "no limit", which days would hide.
            Some((unit, name)) if ms < i64::from(i32::MAX) * 100 => {
                let count = ms / unit;
                write!(f, " ({count} {name}{})", if count == 1 { "" } else { "s" })
            }
            _ => Ok(()),
        }
    }
}
