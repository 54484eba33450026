//! Answers readers of a log from memory, and prints its port once it does.
//!
//! The benchmark `replay` runs it: `replay-sink RECORDS SIZE CODEC BATCHES`. It ends with its standard input.

use std::{
    env,
    error::Error,
    io::{self, Read as _},
    process::{self, ExitCode},
    thread,
};

use kwal_benches::replay::{Content, serve};

fn main() -> ExitCode {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    kwal_benches::exit_code("replay-sink", run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let content = Content::from_arguments(&mut env::args().skip(1))?;
    serve(content, |port| println!("{port}"))?;
    Ok(true)
}
