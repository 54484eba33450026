//! Answers readers of a log from memory, and writers, and prints its port once it does.
//!
//! The benchmarks `replay` and `writers` run it: `replay-sink RECORDS SIZE CODEC BATCHES`. For each line of
//! its standard input, it prints how many records have been appended since the last one, and the sum of their
//! values. It ends with its standard input.

use std::{env, error::Error, io, process, process::ExitCode, thread};

use kwal_benches::replay::{Appended, Content, serve};

fn main() -> ExitCode {
    kwal_benches::exit_code("replay-sink", run())
}

fn run() -> Result<bool, Box<dyn Error>> {
    let content = Content::from_arguments(&mut env::args().skip(1))?;
    serve(content, |port, appended| {
        println!("{port}");
        thread::spawn(move || report(&appended));
    })?;
    Ok(true)
}

fn report(appended: &Appended) {
    for _ in io::stdin().lines().map_while(Result::ok) {
        let (records, sum) = appended.take();
        println!("{records} {sum}");
    }
    process::exit(0);
}
