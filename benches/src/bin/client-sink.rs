//! Answers readers of a log from memory, and writers, and prints its port once it does.
//!
//! The benchmark `client` runs it, with the arguments of a `Task`. For each line of its standard input, it
//! prints how many records have been appended since the last one, and the sum of their values. It ends with
//! its standard input.

use std::{env, io, process, process::ExitCode, thread};

use kwal_benches::{
    shared::{Failure, Task},
    sink::{Appended, serve},
};

fn main() -> ExitCode {
    kwal_benches::exit_code("client-sink", run())
}

fn run() -> Result<bool, Failure> {
    serve(&Task::from_arguments(env::args().skip(1))?, |port, appended| {
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
