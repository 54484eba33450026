//! The modules of this crate are layers: each uses only modules below it. The crate documentation shows them.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{fs, path::Path};

/// From the top to the bottom. Modules on one line do not use each other.
const LAYERS: &[&[&str]] = &[
    &["builder"],
    &["client"],
    &["partition", "controller"],
    &["producer"],
    &["log"],
    &["request", "routing", "record"],
    &["cluster"],
    &["producer_id", "metadata", "decompressors"],
    &["pool"],
    &["connection"],
    &["backoff"],
    &["config", "random", "versions", "validate"],
    &["sasl", "memory", "trouble"],
    &["metrics"],
    &["state"],
    &["error", "duration", "buffers", "locked"],
    &["position"],
];

#[test]
fn no_module_uses_one_above_it() {
    let layer = |module: &str| {
        let found = LAYERS.iter().position(|modules| modules.contains(&module));
        found.unwrap_or_else(|| panic!("module {module} is in no layer"))
    };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, module) in sources() {
        let source = fs::read_to_string(&path).unwrap();
        let code = source.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let lines: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in used(&lines.join("\n")).into_iter().filter(|used| *used != module) {
            seen += 1;
            if layer(used) <= layer(&module) {
                wrong.push(format!("{}: {module} uses {used}", path.display()));
            }
        }
    }
    assert!(seen > 80, "{seen} uses were found, so this test does not see them");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The source files with the module of the crate root that each belongs to.
fn sources() -> Vec<(std::path::PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None => directories.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                Some(_) => {}
            }
        }
    }
    let module = |path: &Path| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    let modules = files.into_iter().map(|path| (path.clone(), module(&path)));
    modules.filter(|(_, module)| module != "lib").collect()
}

/// The modules of the crate that some code names after `crate::`, alone or in braces.
fn used(code: &str) -> Vec<&str> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // Not `kwal_crate::` or `$crate::`.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || "_$".contains(before)) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(outermost(list)),
            None => used.extend(name(rest)),
        }
    }
    used.retain(|name| LAYERS.iter().any(|modules| modules.contains(name)));
    used
}

/// The first name of each path in a list, which ends with its brace.
fn outermost(list: &str) -> Vec<&str> {
    let (mut depth, mut begins, mut names) = (0, true, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && !c.is_whitespace() => {
                names.extend(name(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn name(path: &str) -> Option<&str> {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}
