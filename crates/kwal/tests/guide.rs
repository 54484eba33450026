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
