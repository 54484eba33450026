//! The recordings of real brokers: `tests/fidelity/VERSION.txt`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use kwal_tests::kafka::Version;

/// The lines of each scenario, in the order of the file.
pub(crate) struct Recording {
    scenarios: Vec<(String, Vec<String>)>,
}

impl Recording {
    pub(crate) fn new(scenarios: Vec<(String, Vec<String>)>) -> Self {
        Self { scenarios }
    }

    pub(crate) fn read(version: Version) -> Self {
        let path = path(version);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut scenarios: Vec<(String, Vec<String>)> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match (line.strip_prefix(INDENT), scenarios.last_mut()) {
                (Some(seen), Some((_, lines))) => lines.push(seen.to_owned()),
                (Some(_), None) => panic!("{}: a line without scenario: {line}", path.display()),
                (None, _) => scenarios.push((line.to_owned(), Vec::new())),
            }
        }
        Self { scenarios }
    }

    pub(crate) fn write(&self, version: Version) {
        let mut text = format!(
            "# What Apache Kafka {version} did in each scenario, as a run has seen it. Nobody edits this; to record it again:\n\
             #\n\
             #     {RECORD}=1 TEST_INTEGRATION=1 cargo test -p kwal-tests --test kafka fidelity\n\
             #\n\
             # The embedded cluster is held against it by every `cargo test`.\n"
        );
        for (name, lines) in &self.scenarios {
            let _ = writeln!(text, "\n{name}");
            for line in lines {
                let _ = writeln!(text, "{INDENT}{line}");
            }
        }
        let path = path(version);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Returns the lines of a scenario; `None` if it is not in the file.
    pub(crate) fn of(&self, name: &str) -> Option<&[String]> {
        self.scenarios.iter().find(|(known, _)| known == name).map(|(_, lines)| &lines[..])
    }

    /// Describes every difference from a new recording; empty if there is none.
    pub(crate) fn compare(&self, seen: &Self) -> String {
        let mut text = String::new();
        let now: BTreeMap<_, _> = seen.scenarios.iter().map(|(name, lines)| (name, lines)).collect();
        for (name, lines) in &self.scenarios {
            match now.get(name) {
                None => {
                    let _ = writeln!(text, "{name}: in the file, but not a scenario any more");
                }
                Some(now) => text.push_str(&difference(name, lines, now, str::eq)),
            }
        }
        for (name, _) in seen.scenarios.iter().filter(|(name, _)| self.of(name).is_none()) {
            let _ = writeln!(text, "{name}: not in the file");
        }
        text
    }
}

/// The environment variable that makes a run with real brokers write the files instead of comparing with
/// them.
pub(crate) const RECORD: &str = "KWAL_RECORD";

const INDENT: &str = "    ";

fn path(version: Version) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fidelity").join(format!("{version}.txt"))
}

/// Describes the difference of two lists of lines, `-` for recorded and `+` for new ones; empty if they are
/// equal.
pub(crate) fn difference(
    name: &str,
    recorded: &[String],
    seen: &[String],
    same: fn(&str, &str) -> bool,
) -> String {
    let (rows, columns) = (recorded.len(), seen.len());
    if rows == columns && recorded.iter().zip(seen).all(|(one, other)| same(one, other)) {
        return String::new();
    }
    // The longest common subsequence, from the end.
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = match same(&recorded[row], &seen[column]) {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let mut text = format!("{name}:\n");
    let (mut row, mut column) = (0, 0);
    while row < rows || column < columns {
        let (sign, line) = if row < rows && column < columns && same(&recorded[row], &seen[column]) {
            (row, column) = (row + 1, column + 1);
            (' ', &seen[column - 1])
        } else if row < rows && (column == columns || common[row + 1][column] >= common[row][column + 1]) {
            row += 1;
            ('-', &recorded[row - 1])
        } else {
            column += 1;
            ('+', &seen[column - 1])
        };
        let _ = writeln!(text, "  {sign} {line}");
    }
    text
}
