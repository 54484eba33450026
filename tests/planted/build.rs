//! Copies the source of the client and its readers without their unit tests to `OUT_DIR`, and applies
//! `mutations.txt` to the copy.

mod mutations;

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use mutations::{Mutation, apply, included, moved, parse, without_tests};

const LIST: &str = "mutations.txt";
const CLIENT: &str = "../../crates/kwal-client/src";
/// Becomes the module [`MODULE`] of the client.
const BATCHING: &str = "../../crates/kwal-batching/src";
const MODULE: &str = "batching";

fn main() -> ExitCode {
    for input in ["build.rs", "mutations", LIST, CLIENT, BATCHING] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut sources = BTreeMap::new();
    read(Path::new(CLIENT), "", &mut sources);
    let prefix = format!("{MODULE}/");
    assert!(!sources.keys().any(|name| name.starts_with(&prefix)), "the client has a module {MODULE} itself");
    read(Path::new(BATCHING), &prefix, &mut sources);
    let list = expect(LIST, fs::read_to_string(LIST));
    let applied = parse(&list).and_then(|mutations| {
        apply(&mutations, &mut sources)?;
        Ok(mutations)
    });
    let mutations = match applied {
        Ok(mutations) => mutations,
        Err(problems) => {
            for problem in problems {
                eprintln!("tests/planted/{LIST}:{problem}\n");
            }
            return ExitCode::FAILURE;
        }
    };
    for (name, source) in &mut sources {
        *source = without_tests(source);
        if name.starts_with(&prefix) {
            *source = moved(source, MODULE);
        }
    }
    let root = sources.get_mut("lib.rs").expect("the client has a lib.rs");
    *root = included(root) + &format!("/// The readers.\npub mod {MODULE};\n");
    let root = sources.remove(&format!("{prefix}lib.rs")).expect("kwal-batching has a lib.rs");
    sources.insert(format!("{prefix}mod.rs"), included(&root));
    write(&out.join("src"), &sources);
    let entries: String = mutations.iter().map(Mutation::entry).collect();
    let path = out.join("mutations.rs");
    expect(&path, fs::write(&path, format!("mutations! {{\n{entries}}}\n")));
    ExitCode::SUCCESS
}

/// Reads all files below a directory. Their keys are `prefix` and the path below the directory.
fn read(directory: &Path, prefix: &str, sources: &mut BTreeMap<String, String>) {
    for entry in expect(directory, fs::read_dir(directory)) {
        let path = expect(directory, entry).path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("source files have UTF-8 names");
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            read(&path, &format!("{name}/"), sources);
        } else {
            sources.insert(name, expect(&path, fs::read_to_string(&path)));
        }
    }
}

/// Writes the files to a directory, and removes all others in it.
fn write(directory: &Path, sources: &BTreeMap<String, String>) {
    if directory.exists() {
        expect(directory, fs::remove_dir_all(directory));
    }
    for (name, text) in sources {
        let path = directory.join(name);
        let parent = path.parent().expect("the file is in a directory");
        expect(parent, fs::create_dir_all(parent));
        expect(&path, fs::write(&path, text));
    }
}

fn expect<T>(path: impl AsRef<Path>, result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}
