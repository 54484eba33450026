//! Checks of what callers pass, before anything is sent.

use std::collections::BTreeSet;

use crate::error::Error;

/// Rejects what no broker accepts as a topic name.
pub(crate) fn topic_name(topic: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let problem = match topic {
        "" => return Err(Error::invalid_input("the topic name is empty")),
        "." | ".." => "is not a name",
        _ if topic.len() > 249 => "is longer than 249 characters",
        _ if !topic.bytes().all(legal) => "has characters other than ASCII letters, digits, '.', '_' and '-'",
        _ => return Ok(()),
    };
    Err(Error::invalid_input(format!("topic {topic:?} {problem}")))
}

/// Rejects what cannot be the name of an exclusive writer.
pub(crate) fn exclusive_name(name: &str) -> Result<(), Error> {
    let problem = match name {
        "" => return Err(Error::invalid_input("the name of the exclusive writer is empty")),
        _ if name.len() > 255 => "is longer than 255 bytes",
        _ if name.contains(char::is_control) => "has control characters",
        _ => return Ok(()),
    };
    Err(Error::invalid_input(format!("the name {name:?} of the exclusive writer {problem}")))
}

/// Rejects counts that no topic can have; −1 leaves either to the broker.
pub(crate) fn topic_size(partitions: i32, replication_factor: i16) -> Result<(), Error> {
    let count = match (partitions, replication_factor) {
        (..=-2 | 0, _) => format!("{partitions} partitions"),
        (_, ..=-2 | 0) => format!("{replication_factor} replicas"),
        _ => return Ok(()),
    };
    Err(Error::invalid_input(format!("a topic cannot have {count}; -1 leaves it to the broker")))
}

/// Rejects a replica assignment that no controller accepts. Returns how many replicas each partition has.
pub(crate) fn assignment(brokers_by_partition: &[Vec<i32>]) -> Result<usize, Error> {
    let invalid = |problem: String| Err(Error::invalid_input(format!("the assignment {problem}")));
    let Some(first) = brokers_by_partition.first() else {
        return invalid("has no partition".to_owned());
    };
    for (partition, brokers) in brokers_by_partition.iter().enumerate() {
        let mut seen = BTreeSet::new();
        if brokers.is_empty() {
            return invalid(format!("gives partition {partition} no broker"));
        }
        if let Some(broker) = brokers.iter().find(|broker| **broker < 0) {
            return invalid(format!("names broker {broker}, which is negative"));
        }
        if let Some(broker) = brokers.iter().find(|broker| !seen.insert(**broker)) {
            return invalid(format!("names broker {broker} twice for partition {partition}"));
        }
        if brokers.len() != first.len() {
            let (one, other) = (first.len(), brokers.len());
            return invalid(format!("gives partition 0 {one} replicas and partition {partition} {other}"));
        }
    }
    Ok(first.len())
}

/// Rejects configs without a name and duplicates.
pub(crate) fn config_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(Error::invalid_input("a config has no name"));
        }
        if !seen.insert(name) {
            return Err(Error::invalid_input(format!("config {name} is given twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for name in ["a", "wal-1_x.y", &"x".repeat(249)] {
            topic_name(name).unwrap();
        }
        for name in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            topic_name(name).unwrap_err();
        }
    }

    #[test]
    fn exclusive_names() {
        for name in ["a", " ", "a/b", "Schreiber-ä", "\u{202e}", &"x".repeat(255)] {
            exclusive_name(name).unwrap();
        }
        for (name, problem) in [
            ("", "is empty"),
            ("a\nb", r#""a\nb" of the exclusive writer has control characters"#),
            ("\0", "has control characters"),
            ("\u{85}", "has control characters"),
            (&"x".repeat(256), "is longer than 255 bytes"),
            (&"ä".repeat(128), "is longer than 255 bytes"),
        ] {
            let error = exclusive_name(name).unwrap_err().to_string();
            assert!(error.ends_with(problem), "{error}");
        }
    }
}
