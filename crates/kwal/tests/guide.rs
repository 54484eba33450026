//! The guide is checked: what it names exists, in this workspace. Its examples are doc tests, and rustdoc
//! checks its links to items.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const INDEX: &str = include_str!("../src/guide/mod.rs");
const TROUBLESHOOTING: &str = include_str!("../src/guide/troubleshooting.md");
const LOGGING: &str = include_str!("../src/guide/logging.md");
const CONTRACT: &str = include_str!("../src/guide/contract.md");
const KINDS: &str = include_str!("../../kwal-client/src/error/kind.rs");
const TEXTS: &str = include_str!("../../kwal-client/src/error/texts.txt");

/// In the documentation of the kind as well: a link to its section.
#[test]
fn every_kind_of_error_has_a_section_and_a_link_to_it() {
    let sections: Vec<_> = TROUBLESHOOTING.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let kinds = kinds();
    let named: Vec<_> = kinds.keys().map(|kind| format!("`{kind}`")).collect();
    for name in &named {
        let found = sections.iter().filter(|section| *section == name).count();
        assert_eq!(found, 1, "troubleshooting.md has the section {name}");
    }
    for section in sections {
        assert!(named.iter().any(|name| name == section), "{section} is no kind of error");
    }
    for (kind, documentation) in kinds {
        let link = format!("kwal/guide/troubleshooting/#{}", kind.to_lowercase());
        assert!(documentation.contains(&format!("{link})")), "the documentation of {kind} links to {link}");
    }
}

/// What a section shows is what is printed.
#[test]
fn every_section_of_a_kind_quotes_the_snapshot_of_texts() {
    let texts: BTreeSet<_> = TEXTS.lines().map(str::trim).collect();
    for section in TROUBLESHOOTING.split("\n## ").skip(1) {
        let (_, example) = section.split_once("```text\n").expect("each section has an example text");
        let (example, _) = example.split_once("\n```").unwrap();
        let example = example.replace('\n', " ");
        assert!(texts.contains(example.as_str()), "texts.txt does not have the text:\n{example}");
    }
}

/// A test that is renamed takes its name in the contract with it.
#[test]
fn every_promise_names_tests_that_exist() {
    let promises: Vec<_> = CONTRACT.split("\n# C").skip(1).collect();
    assert_eq!(promises.len(), 11);
    for promise in promises {
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let quoted = promise.split('`').filter(|quoted| quoted.chars().all(is_name));
        let names: Vec<_> = quoted.filter(|quoted| quoted.matches("::").count() == 2).collect();
        assert!(!names.is_empty(), "a promise without a test: C{promise}");
        for name in names {
            let [crate_name, module, test] = name.split("::").collect::<Vec<_>>().try_into().unwrap();
            let file = workspace().join(format!("crates/kwal-{crate_name}/tests/contract/{module}.rs"));
            let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(source.contains(&format!("fn {test}(")), "there is no test {name}");
        }
    }
}

/// A line that an operator may see has a row that explains it, with its level.
#[test]
fn every_line_of_the_logs_is_explained() {
    let (_, table) = LOGGING.split_once("| level | message |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let explained: BTreeSet<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.split(" | ").collect();
            (cells[0].trim_matches(['|', ' ', '`']).to_lowercase(), cells[1].to_owned())
        })
        .collect();
    let emitted: BTreeSet<_> =
        ["kwal-client", "kwal-batching", "kwal-transport"].into_iter().flat_map(emitted).collect();
    assert!(emitted.len() > 15, "{emitted:#?}");
    assert_eq!(explained, emitted);
}

/// The levels and messages of what a crate logs at `WARN` and `INFO`.
fn emitted(name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for source in sources(&workspace().join("crates").join(name).join("src")) {
        let code = source.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        for (at, called) in code.match_indices("!(") {
            let before = &code[..at];
            let start =
                before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |found| found + 1);
            let name = &before[start..];
            if !["report", "warn", "info"].contains(&name) {
                continue;
            }
            let (arguments, message) = arguments(&code[at + called.len()..]);
            // The level is the first word of a report.
            let level = if name == "report" { arguments.split_whitespace().next().unwrap() } else { name };
            found.push((level.to_owned(), message));
        }
    }
    found
}

/// Returns the arguments of a macro up to its closing parenthesis, and the last of its string literals.
fn arguments(code: &str) -> (&str, String) {
    let (mut depth, mut literal, mut in_literal, mut is_escaped) = (1, String::new(), false, false);
    for (at, c) in code.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_literal => is_escaped = true,
            '"' => {
                in_literal = !in_literal;
                if in_literal {
                    literal.clear();
                }
            }
            _ if in_literal => literal.push(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            // A line that goes on in the next one.
            return (&code[..at], literal.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    panic!("a macro without an end: {code}")
}

/// The texts of all Rust files below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(fs::read_to_string(path).unwrap());
            }
            false => {}
        }
    }
    found
}

/// Each file is a page, and each page has a row in the first table.
#[test]
fn every_page_is_in_the_index() {
    for page in pages().keys() {
        assert!(INDEX.contains(&format!("include_str!(\"{page}\")")), "guide/mod.rs does not include {page}");
        if let Some(name) = page.strip_suffix(".md").filter(|name| !name.contains('/')) {
            let links = [format!("]({name}) |"), format!("[{name}] |")];
            let has_row = links.iter().any(|link| INDEX.contains(link));
            assert!(has_row, "the table of the guide has no row for {name}");
        }
    }
}

/// Links to sections, which rustdoc does not check: `#section` and `crate::guide::page#section`.
#[test]
fn links_to_sections_resolve() {
    let pages = pages();
    let mut checked = 0;
    for (page, text) in &pages {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let Some((path, section)) = link.split_once('#') else { continue };
            let target = match path.strip_prefix("crate::guide::") {
                Some(path) => format!("{}.md", path.replace("::", "/")),
                None if path.is_empty() => page.clone(),
                None => continue,
            };
            let target = pages.get(&target).unwrap_or_else(|| panic!("{page}: there is no page for {link}"));
            assert!(headings(target).contains(section), "{page}: there is no section for {link}");
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

/// README is read where relative links do not work, so it has the addresses of pages.
#[test]
fn the_pages_that_readme_links_to_exist() {
    let pages = pages();
    let readme = include_str!("../README.md");
    let links: Vec<_> = readme.split("https://docs.rs/kwal/latest/kwal/guide/").skip(1).collect();
    assert!(links.len() > 5);
    for link in links {
        let page = link.split(['\n', '#']).next().unwrap().trim_end_matches('/');
        let file = match page {
            "" | "index.html" => continue,
            "recipes" => "recipes/index.md".to_owned(),
            page => format!("{page}.md"),
        };
        assert!(pages.contains_key(&file), "README links to {page}");
    }
}

/// Kinds of errors by name, each with its documentation.
fn kinds() -> BTreeMap<&'static str, String> {
    let (_, body) = KINDS.split_once("pub enum ErrorKind {\n").unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    let mut kinds = BTreeMap::new();
    let mut documentation = String::new();
    for line in body.lines().filter_map(|line| line.strip_prefix("    ")) {
        let name = line.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        if line.starts_with("///") {
            documentation.push_str(line);
        } else if name.starts_with(char::is_uppercase) {
            kinds.insert(name, std::mem::take(&mut documentation));
        }
    }
    assert!(kinds.len() > 30);
    kinds
}

/// The Markdown files of the guide, by their path in it.
fn pages() -> BTreeMap<String, String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let mut pages = BTreeMap::new();
    for folder in ["", "recipes/"] {
        for entry in fs::read_dir(guide.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}{}", entry.file_name().into_string().unwrap());
            if name.ends_with(".md") {
                pages.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    pages
}

/// The anchors that rustdoc makes of headings.
fn headings(page: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut headings = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if let Some(title) = line.strip_prefix('#').filter(|_| !in_code) {
            let title = title.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            headings.insert(title.replace(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'), ""));
        }
    }
    headings
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
