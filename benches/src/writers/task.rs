//! What a run appends, as the arguments of a program.
//!
//! The other clients are built with this file.

use std::{error::Error, str::FromStr, time::Duration};

/// What a run appends.
#[derive(Clone, Debug)]
pub struct Task {
    /// Who appends.
    pub subject: String,
    /// The topic, to whose partition 0 records are appended.
    pub topic: String,
    /// `host:port` of each broker.
    pub bootstrap: Vec<String>,
    /// How many callers append at the same time, one record each.
    pub callers: u64,
    /// The number of records of all callers.
    pub records: u64,
    /// Bytes of a value.
    pub size: usize,
    /// Threads of the runtime; 0 is one that runs on the main thread.
    pub threads: usize,
    /// How long a record may wait for others, in milliseconds.
    pub linger_ms: u64,
    /// How many batches may be in flight before records gather.
    pub window: usize,
    /// What is added to the round trip, in microseconds.
    pub delay_us: u64,
}

impl Task {
    /// Returns the arguments of a program that carries it out.
    pub fn arguments(&self) -> [String; 10] {
        let Self { subject, topic, bootstrap, callers, records, size, threads, linger_ms, window, delay_us } =
            self;
        [
            subject.clone(),
            topic.clone(),
            bootstrap.join(","),
            callers.to_string(),
            records.to_string(),
            size.to_string(),
            threads.to_string(),
            linger_ms.to_string(),
            window.to_string(),
            delay_us.to_string(),
        ]
    }

    /// Reads it from the arguments of a program.
    ///
    /// # Errors
    /// One is missing or malformed.
    pub fn from_arguments(arguments: &mut impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            subject: next(arguments)?,
            topic: next(arguments)?,
            bootstrap: next::<String>(arguments)?.split(',').map(str::to_owned).collect(),
            callers: next(arguments)?,
            records: next(arguments)?,
            size: next(arguments)?,
            threads: next(arguments)?,
            linger_ms: next(arguments)?,
            window: next(arguments)?,
            delay_us: next(arguments)?,
        })
    }

    /// Returns how long a record may wait for others.
    pub const fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

fn next<T: FromStr<Err: Error + 'static>>(
    arguments: &mut impl Iterator<Item = String>,
) -> Result<T, Box<dyn Error>> {
    Ok(arguments.next().ok_or("an argument is missing")?.parse()?)
}
