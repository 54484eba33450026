//! What a run reads, as the arguments of a program.
//!
//! The other clients are built with this file and `meter.rs`, and without anything else of kwal.

use std::{error::Error, str::FromStr};

use super::meter::Reading;

/// What a run reads.
#[derive(Clone, Debug)]
pub struct Task {
    /// Who reads.
    pub subject: String,
    /// The topic, whose partition 0 is read.
    pub topic: String,
    /// The number of records in it.
    pub records: u64,
    /// The maximum size of one fetch in bytes.
    pub step: i32,
    /// `host:port` of each broker.
    pub bootstrap: Vec<String>,
}

impl Task {
    /// Returns the arguments of a program that carries it out.
    pub fn arguments(&self) -> [String; 5] {
        let Self { subject, topic, records, step, bootstrap } = self;
        [subject.clone(), topic.clone(), records.to_string(), step.to_string(), bootstrap.join(",")]
    }

    /// Reads it from the arguments of a program.
    ///
    /// # Errors
    /// One is missing or malformed.
    pub fn from_arguments(arguments: &mut impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            subject: next(arguments)?,
            topic: next(arguments)?,
            records: next(arguments)?,
            step: next(arguments)?,
            bootstrap: next::<String>(arguments)?.split(',').map(str::to_owned).collect(),
        })
    }

    /// Returns the reading of a run that begins. Its first eighth is not measured.
    pub fn reading(&self) -> Reading {
        Reading::new(self.records / 8)
    }
}

/// Returns the next argument.
///
/// # Errors
/// It is missing or malformed.
pub(super) fn next<T: FromStr<Err: Error + 'static>>(
    arguments: &mut impl Iterator<Item = String>,
) -> Result<T, Box<dyn Error>> {
    Ok(arguments.next().ok_or("an argument is missing")?.parse()?)
}
