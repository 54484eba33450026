use std::collections::BTreeMap;

use super::*;

/// Stands in for the client's source.
const SOURCE: [(&str, &str); 2] = [
    (
        "lib.rs",
        "\
//! Docs.
#![cfg_attr(
    docsrs,
    feature(doc_cfg)
)]
mod task;
",
    ),
    (
        "task.rs",
        "\
fn run() {
    if is_done {
        return;
    }
    if acks < 1 {
        return;
    }
    send(
        acks,
    );
}
",
    ),
];

fn source() -> BTreeMap<String, String> {
    BTreeMap::from(SOURCE.map(|(file, text)| (file.to_owned(), text.to_owned())))
}

/// Applies a list, and returns `task.rs`.
fn applied(list: &str) -> Result<String, Vec<String>> {
    let mut source = source();
    apply(&parse(list)?, &mut source)?;
    Ok(source["task.rs"].clone())
}

/// Returns the problems of a list.
fn problems(list: &str) -> String {
    let problems = applied(list).unwrap_err().join("\n");
    assert!(!problems.is_empty());
    problems
}

/// Returns the problems of an entry with these hunks.
fn problems_of(hunks: &str) -> String {
    problems(&format!("== C1 A\nIt goes wrong.\n{hunks}"))
}

#[test]
fn entries_are_parsed() {
    let list = "\
# A comment.

== C11 SendsTwice
It sends
twice.
-- task.rs
  acks,

# Another.
-   );
+ ); if mutant!(SendsTwice) {
+     send();

+ }
-- lib.rs
  mod task;
+ mutant!(SendsTwice);
";
    let [mutation] = &parse(list).unwrap()[..] else { panic!("one entry") };
    assert_eq!(mutation.entry(), "    \"C11\" SendsTwice \"It sends twice.\"\n");
    let [first, second] = &mutation.hunks[..] else { panic!("two hunks") };
    assert_eq!((first.file.as_str(), second.file.as_str()), ("task.rs", "lib.rs"));
    assert_eq!(first.anchor().collect::<Vec<_>>(), ["acks,", ");"]);
    let new = first.lines.iter().filter_map(|line| match line {
        Line::New(text) => Some(text.as_str()),
        Line::Context(_) | Line::Old(_) => None,
    });
    assert_eq!(new.collect::<Vec<_>>(), ["); if mutant!(SendsTwice) {", "    send();", "}"]);
}

#[test]
fn new_lines_are_inserted_and_indented() {
    let list = "\
== C1 A
It goes wrong.
-- task.rs
  send(
- acks,
+ if mutant!(A) {
+     0
+ } else { acks },
";
    let text = applied(list).unwrap();
    assert!(
        text.contains("    send(\n    if mutant!(A) {\n        0\n    } else { acks },\n    );\n"),
        "{text}"
    );
}

#[test]
fn white_space_at_both_ends_of_a_line_does_not_matter() {
    let hunk = "-- task.rs\n-   acks,  \n+ mutant!(A),\n";
    assert!(applied(&format!("== C1 A\nWrong.\n{hunk}")).unwrap().contains("\n        mutant!(A),\n"));
}

#[test]
fn lines_can_be_inserted_at_both_ends_of_a_file() {
    let list = "\
== C1 A
It goes wrong.
-- task.rs
+ // mutant!(A)
  fn run() {
-- task.rs
  );
  }
+ // mutant!(A)
";
    let text = applied(list).unwrap();
    let body = SOURCE[1].1;
    assert_eq!(text, format!("// mutant!(A)\n{body}    // mutant!(A)\n"));
}

#[test]
fn hunks_of_several_mutations_share_context() {
    let list = "\
== C1 A
It goes wrong.
-- task.rs
+ mutant!(A);
  if acks < 1 {
== C1 B
It goes wrong.
-- task.rs
- if acks < 1 {
+ if acks < 1 || mutant!(B) {
== C1 C
It goes wrong.
-- task.rs
+ mutant!(C);
  if acks < 1 {
+     mutant!(C);
";
    let text = applied(list).unwrap();
    let expected = "
    mutant!(A);
    mutant!(C);
    if acks < 1 || mutant!(B) {
        mutant!(C);
        return;
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_line_is_removed_once() {
    let hunk = "-- task.rs\n- acks,\n+ mutant!(A),\n";
    assert_eq!(problems_of(&format!("{hunk}{hunk}")), "6: C1 A: A removes task.rs:9 too");
}

#[test]
fn an_anchor_that_is_missing_shows_the_nearest_line() {
    let expected = "\
3: C1 A: this is missing in task.rs:
    if acks <= 1 {
the nearest line is task.rs:5:
    if acks < 1 {";
    assert_eq!(problems_of("-- task.rs\n- if acks <= 1 {\n+ if mutant!(A) {\n"), expected);
}

#[test]
fn an_anchor_that_has_moved_is_shown_where_it_is() {
    let expected = "\
3: C1 A: this is missing in lib.rs:
    acks,
the nearest line is task.rs:9:
    acks,";
    assert_eq!(problems_of("-- lib.rs\n- acks,\n+ mutant!(A),\n"), expected);
    let expected =
        expected.replace("this is missing in lib.rs", "there is no file sender.rs, so this is missing");
    assert_eq!(problems_of("-- sender.rs\n- acks,\n+ mutant!(A),\n"), expected);
}

#[test]
fn an_anchor_of_several_lines_shows_the_one_that_is_missing() {
    let problems = problems_of("-- task.rs\n  send(\n- ack,\n+ mutant!(A),\n");
    assert!(
        problems.contains("this is missing in task.rs:\n    ack,\nthe nearest line is task.rs:9:"),
        "{problems}"
    );
    let problems = problems_of("-- task.rs\n  send(\n  );\n+ mutant!(A);\n");
    let expected =
        "these lines are not consecutive in task.rs:\n    send(\n    );\nthe nearest line is task.rs:8:";
    assert!(problems.contains(expected), "{problems}");
}

#[test]
fn an_anchor_that_occurs_twice_shows_both() {
    let expected = "3: C1 A: this occurs 2 times, task.rs:3, task.rs:6:\n    return;";
    assert_eq!(problems_of("-- task.rs\n+ mutant!(A);\n  return;\n"), expected);
}

#[test]
fn all_anchors_that_fail_are_shown() {
    let list = "\
== C1 A
It goes wrong.
-- task.rs
+ mutant!(A);
  return
== C2 B
It goes wrong.
-- task.rs
- ack,
+ mutant!(B),
";
    let mut source = source();
    let problems = apply(&parse(list).unwrap(), &mut source).unwrap_err();
    let [first, second] = &problems[..] else { panic!("{problems:?}") };
    assert!(first.starts_with("3: C1 A: ") && second.starts_with("8: C2 B: "), "{problems:?}");
    assert_eq!(source, self::source(), "nothing is applied");
}

#[test]
fn malformed_entries_are_rejected() {
    let hunk = "-- task.rs\n- acks,\n+ mutant!(A),\n";
    let problem = |list: &str, expected: &str| assert_eq!(problems(list), expected, "{list}");
    problem("A sentence.\n", "1: unexpected `A sentence.` before the first entry");
    problem(&format!("== C12 A\nWrong.\n{hunk}"), "1: C12 A: the contract has no such line");
    problem(&format!("== C1 A B\nWrong.\n{hunk}"), "1: C1 A: unexpected `B` after the name");
    problem(
        "== C1 A-B\nWrong.\n-- task.rs\n- acks,\n+ mutant!(A-B),\n",
        "1: C1 A-B: the name has to be in upper camel case",
    );
    problem(&format!("== C1 A\n{hunk}"), "1: C1 A: it has no sentence");
    problem("== C1 A\nWrong.\n", "1: C1 A: it has no hunk");
    let twice = format!("== C1 A\nWrong.\n{hunk}\n== C2 A\nWrong.\n-- task.rs\n  send(\n+ mutant!(A)\n");
    problem(&twice, "7: C2 A: line 1 has the same name");
}

#[test]
fn malformed_hunks_are_rejected() {
    let problem = |hunk: &str, expected: &str| assert_eq!(problems_of(hunk), expected, "{hunk}");
    problem(
        "-- task.rs\n- acks,\n+ mutant!(A),\nsend(\n",
        "6: C1 A: a line of a hunk has to begin with a space, `-` or `+`: `send(`",
    );
    problem("-- task.rs\n+ mutant!(A)\n", "3: C1 A: the hunk has neither context nor old lines");
    let switch = "3: C1 A: the new lines have to query `mutant!(A)` and no other mutation";
    problem("-- task.rs\n- acks,\n", switch);
    problem("-- task.rs\n- acks,\n+ 0,\n", switch);
    problem("-- task.rs\n- acks,\n+ mutant!(A) || mutant!(B),\n", switch);
}

#[test]
fn the_root_can_be_included() {
    let expected = "\
// //! Docs.
// #![cfg_attr(
//     docsrs,
//     feature(doc_cfg)
// )]
mod task;
";
    assert_eq!(included(SOURCE[0].1), expected);
    assert_eq!(
        included("//! Docs.\n#![allow(a[0])]\npub mod a;\n"),
        "// //! Docs.\n// #![allow(a[0])]\npub mod a;\n"
    );
}

#[test]
fn paths_of_another_crate_begin_at_its_module() {
    let source = "use crate::{a, b};\nuse crate::reader::c;\nmy_crate::d(); pub(crate) fn e() {}\n";
    let expected = "use crate::batching::{a, b};\nuse crate::batching::reader::c;\nmy_crate::d(); pub(crate) fn e() {}\n";
    assert_eq!(moved(source, "batching"), expected);
}

#[test]
fn unit_tests_are_removed() {
    let source = "fn run() {}\n\n#[cfg(test)]\nmod tests;\n#[cfg(all(test, unix))]\nmod texts;\n";
    let expected = "fn run() {}\n\n#[cfg(false)]\nmod tests;\n#[cfg(all(false, unix))]\nmod texts;\n";
    assert_eq!(without_tests(source), expected);
}
