//! Application of the list to the client's source.

use std::collections::BTreeMap;

use super::{Hunk, Line, Mutation};

/// Applies all mutations to the sources, which have their paths below the client's `src` as keys.
///
/// The anchor of each hunk is looked up in the source as it is, so hunks do not depend on one another.
///
/// # Errors
/// Returns all problems, each of which begins with a line number of the list. The sources are unchanged then.
pub(crate) fn apply(
    mutations: &[Mutation],
    sources: &mut BTreeMap<String, String>,
) -> Result<(), Vec<String>> {
    let mut edits: BTreeMap<&str, Edits<'_>> = BTreeMap::new();
    let mut problems = Vec::new();
    for mutation in mutations {
        for hunk in &mutation.hunks {
            let added = find(hunk, sources).and_then(|place| {
                let lines: Vec<_> = sources[&hunk.file].lines().collect();
                edits.entry(&hunk.file).or_default().add(mutation, hunk, place, &lines)
            });
            if let Err(what) = added {
                problems.push(mutation.problem(hunk.line, &what));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for (file, edits) in edits {
        if let Some(text) = sources.get_mut(file) {
            *text = edits.edit(text);
        }
    }
    Ok(())
}

/// Removes the client's unit tests, which belong to `kwal-client` and may read files next to their own.
///
/// Line numbers stay the same.
pub(crate) fn without_tests(source: &str) -> String {
    source.replace("#[cfg(test)]", "#[cfg(false)]").replace("#[cfg(all(test,", "#[cfg(all(false,")
}

/// Makes a file of another crate one of a module: paths from its crate root begin at the module.
///
/// Line numbers stay the same.
pub(crate) fn moved(source: &str, module: &str) -> String {
    let mut text = String::with_capacity(source.len());
    for part in source.split_inclusive("crate::") {
        text.push_str(part);
        let before = part.strip_suffix("crate::");
        let is_word = |before: &str| before.ends_with(|last: char| last == '_' || last.is_alphanumeric());
        if before.is_some_and(|before| !is_word(before)) {
            text.push_str(module);
            text.push_str("::");
        }
    }
    text
}

/// Comments the inner docs and attributes of a crate root out, which `include!` does not accept.
///
/// Line numbers stay the same.
pub(crate) fn included(root: &str) -> String {
    let mut depth = 0_isize;
    let mut text = String::with_capacity(root.len());
    for line in root.lines() {
        if depth > 0 || line.starts_with("#![") {
            depth += line.matches('[').count() as isize - line.matches(']').count() as isize;
            text.push_str("// ");
        } else if line.starts_with("//!") {
            text.push_str("// ");
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The edits of one file. Line numbers begin with 0 here.
#[derive(Default)]
struct Edits<'a> {
    /// The lines to remove, each with the name of the mutation that removes it.
    old: BTreeMap<usize, &'a str>,
    /// The lines to insert before a line.
    new: BTreeMap<usize, Vec<String>>,
}

impl<'a> Edits<'a> {
    fn add(
        &mut self,
        mutation: &'a Mutation,
        hunk: &'a Hunk,
        place: usize,
        lines: &[&str],
    ) -> Result<(), String> {
        let indent = &lines[place][..lines[place].len() - lines[place].trim_start().len()];
        let mut at = place;
        for line in &hunk.lines {
            match line {
                Line::Context(_) => at += 1,
                Line::Old(_) => {
                    if let Some(other) = self.old.insert(at, &mutation.name) {
                        return Err(format!("{other} removes {}:{} too", hunk.file, at + 1));
                    }
                    at += 1;
                }
                Line::New(text) => self.new.entry(at).or_default().push(format!("{indent}{text}")),
            }
        }
        Ok(())
    }

    fn edit(&self, text: &str) -> String {
        let mut edited = Vec::new();
        for (number, line) in text.lines().enumerate() {
            edited.extend(self.new.get(&number).into_iter().flatten().map(String::as_str));
            if !self.old.contains_key(&number) {
                edited.push(line);
            }
        }
        let end = text.lines().count();
        edited.extend(self.new.get(&end).into_iter().flatten().map(String::as_str));
        edited.join("\n") + "\n"
    }
}

/// Returns the number of the line at which the anchor of a hunk begins.
///
/// # Errors
/// Returns what is wrong if the anchor does not occur, or not only once.
fn find(hunk: &Hunk, sources: &BTreeMap<String, String>) -> Result<usize, String> {
    let anchor: Vec<_> = hunk.anchor().collect();
    let lines: Vec<_> =
        sources.get(&hunk.file).map(|text| text.lines().map(str::trim).collect()).unwrap_or_default();
    let places: Vec<_> = (0..lines.len()).filter(|place| lines[*place..].starts_with(&anchor)).collect();
    let file = &hunk.file;
    match places[..] {
        [place] => Ok(place),
        [] => {
            let missing = anchor.iter().find(|line| !lines.contains(line));
            let what = match missing {
                None => format!("these lines are not consecutive in {file}"),
                Some(_) if lines.is_empty() => format!("there is no file {file}, so this is missing"),
                Some(_) => format!("this is missing in {file}"),
            };
            let shown = missing.map_or_else(|| anchor.join("\n    "), ToString::to_string);
            let nearest = nearest(missing.unwrap_or(&anchor[0]), file, sources);
            Err(format!("{what}:\n    {shown}\n{nearest}"))
        }
        _ => {
            let places: Vec<_> = places.iter().map(|place| format!("{file}:{}", place + 1)).collect();
            Err(format!(
                "this occurs {} times, {}:\n    {}",
                places.len(),
                places.join(", "),
                anchor.join("\n    ")
            ))
        }
    }
}

/// Describes the line that is most similar to a missing one.
///
/// All files are searched, because the line may have moved. `file` is preferred among equals.
fn nearest(missing: &str, file: &str, sources: &BTreeMap<String, String>) -> String {
    let mut best = (0.0, false);
    let mut description = "no line is similar".to_owned();
    for (name, text) in sources {
        for (number, line) in (1..).zip(text.lines()) {
            let rank = (similarity(missing, line.trim()), name == file);
            if rank.0 > 0.0 && rank > best {
                best = rank;
                description = format!("the nearest line is {name}:{number}:\n    {}", line.trim());
            }
        }
    }
    description
}

/// Similarity of two lines, from 0 to 1: the Dice coefficient of their pairs of adjacent characters.
fn similarity(one: &str, other: &str) -> f64 {
    let pairs = |line: &str| {
        let mut pairs: Vec<_> = line.chars().zip(line.chars().skip(1)).collect();
        pairs.sort_unstable();
        pairs
    };
    let (one, other) = (pairs(one), pairs(other));
    let (mut i, mut j, mut both) = (0, 0, 0);
    while let (Some(left), Some(right)) = (one.get(i), other.get(j)) {
        both += usize::from(left == right);
        i += usize::from(left <= right);
        j += usize::from(left >= right);
    }
    2.0 * both as f64 / (one.len() + other.len()).max(1) as f64
}
