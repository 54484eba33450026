//! Parser of the list.

use std::collections::BTreeMap;

use super::{Hunk, Line, Mutation};

const CONTRACT: [&str; 11] = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"];

/// Parses the list.
///
/// # Errors
/// Returns all problems, each of which begins with its line number.
pub(crate) fn parse(list: &str) -> Result<Vec<Mutation>, Vec<String>> {
    let mut mutations: Vec<Mutation> = Vec::new();
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(list.lines()) {
        if let Err(what) = parse_line(number, line, &mut mutations) {
            problems.push(match mutations.last() {
                Some(mutation) => mutation.problem(number, &what),
                None => format!("{number}: {what}"),
            });
        }
    }
    let mut names = BTreeMap::new();
    for mutation in &mutations {
        if let Some(first) = names.insert(&mutation.name, mutation.line) {
            problems.push(mutation.problem(mutation.line, &format!("line {first} has the same name")));
        }
        check(mutation, &mut problems);
    }
    if problems.is_empty() { Ok(mutations) } else { Err(problems) }
}

fn parse_line(number: usize, line: &str, mutations: &mut Vec<Mutation>) -> Result<(), String> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(());
    }
    if let Some(title) = line.strip_prefix("==") {
        let mut words = title.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let mutation = Mutation { line: number, contract: word(), name: word(), ..Mutation::default() };
        mutations.push(mutation);
        return match words.next() {
            Some(word) => Err(format!("unexpected `{word}` after the name")),
            None => Ok(()),
        };
    }
    let Some(mutation) = mutations.last_mut() else {
        return Err(format!("unexpected `{line}` before the first entry"));
    };
    if let Some(file) = line.strip_prefix("-- ") {
        mutation.hunks.push(Hunk { line: number, file: file.trim().to_owned(), lines: Vec::new() });
        return Ok(());
    }
    let Some(hunk) = mutation.hunks.last_mut() else {
        if !mutation.sentence.is_empty() {
            mutation.sentence.push(' ');
        }
        mutation.sentence.push_str(line.trim());
        return Ok(());
    };
    hunk.lines.push(match (line.get(..1), line.get(1..)) {
        (Some(" "), Some(text)) => Line::Context(text.trim().to_owned()),
        (Some("-"), Some(text)) => Line::Old(text.trim().to_owned()),
        (Some("+"), Some(text)) => Line::New(text.strip_prefix(' ').unwrap_or(text).trim_end().to_owned()),
        _ => return Err(format!("a line of a hunk has to begin with a space, `-` or `+`: `{line}`")),
    });
    Ok(())
}

/// Checks that an entry is complete.
fn check(mutation: &Mutation, problems: &mut Vec<String>) {
    let Mutation { line, contract, name, sentence, hunks } = mutation;
    let mut problem = |line: usize, what: &str| problems.push(mutation.problem(line, what));
    if !CONTRACT.contains(&contract.as_str()) {
        problem(*line, "the contract has no such line");
    }
    if !name.starts_with(|first: char| first.is_ascii_uppercase())
        || !name.chars().all(|c| c.is_ascii_alphanumeric())
    {
        problem(*line, "the name has to be in upper camel case");
    }
    if sentence.is_empty() {
        problem(*line, "it has no sentence");
    }
    if hunks.is_empty() {
        problem(*line, "it has no hunk");
    }
    let switch = format!("mutant!({name})");
    for hunk in hunks {
        let new = hunk.lines.iter().filter_map(|line| match line {
            Line::New(text) => Some(text.as_str()),
            Line::Context(_) | Line::Old(_) => None,
        });
        let new = new.collect::<Vec<_>>().join("\n");
        if hunk.anchor().all(str::is_empty) {
            problem(hunk.line, "the hunk has neither context nor old lines");
        }
        if !new.contains(&switch) || new.matches("mutant!").count() != new.matches(&switch).count() {
            problem(hunk.line, &format!("the new lines have to query `{switch}` and no other mutation"));
        }
    }
}
