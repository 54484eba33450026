//! The list of mutations: parser and application.
//!
//! A module of the build script, and the root of a test target for its tests.

mod apply;
mod parse;

#[cfg(test)]
mod tests;

pub(crate) use apply::{apply, included, moved, without_tests};
pub(crate) use parse::parse;

/// An entry of the list.
#[derive(Debug, Default)]
pub(crate) struct Mutation {
    /// Line number of its title.
    line: usize,
    contract: String,
    name: String,
    sentence: String,
    hunks: Vec<Hunk>,
}

/// An edit at one place of a file.
#[derive(Debug)]
struct Hunk {
    line: usize,
    file: String,
    lines: Vec<Line>,
}

/// A line of a hunk.
#[derive(Debug)]
enum Line {
    Context(String),
    Old(String),
    New(String),
}

impl Mutation {
    /// Returns its arguments of the macro that declares all mutations.
    pub(crate) fn entry(&self) -> String {
        let Self { contract, name, sentence, .. } = self;
        format!("    {contract:?} {name} {sentence:?}\n")
    }

    /// Formats a problem with it, at a line of the list.
    fn problem(&self, line: usize, what: &str) -> String {
        format!("{line}: {} {}: {what}", self.contract, self.name)
    }
}

impl Hunk {
    /// Returns the lines that have to be in the file.
    fn anchor(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::Context(text) | Line::Old(text) => Some(text.as_str()),
            Line::New(_) => None,
        })
    }
}
