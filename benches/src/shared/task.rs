//! What a run does, as the arguments of a program.

use std::{fmt, str::FromStr, time::Duration};

use super::{DIFFERENT, Failure, Meter, sum, values};

macro_rules! tasks {
    ($($(#[$attribute:meta])* $name:ident: $kind:ty = $default:expr,)*) => {
        /// What a run does.
        #[derive(Clone, Debug)]
        pub struct Task {
            $($(#[$attribute])* pub $name: $kind,)*
        }

        impl Default for Task {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Task {
            /// Returns the arguments of a program that carries it out: `name=value`.
            pub fn arguments(&self) -> Vec<String> {
                vec![$(format!("{}={}", stringify!($name), self.$name)),*]
            }

            /// Reads it from the arguments of a program. What is not named has its default.
            ///
            /// # Errors
            /// A name is unknown, or a value is malformed.
            pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
                let mut task = Self::default();
                for argument in arguments {
                    match argument.split_once('=') {
                        $(Some((stringify!($name), value)) => task.$name = value.parse()?,)*
                        _ => return Err(format!("{argument} is no name=value of a task").into()),
                    }
                }
                Ok(task)
            }
        }
    };
}

tasks! {
    /// What is done.
    work: Work = Work::Append,
    /// Which client does it.
    subject: String = String::new(),
    /// `host:port` of each broker, separated by commas.
    bootstrap: String = String::new(),
    /// The topic.
    topic: String = "sink".to_owned(),
    /// Its partitions, all of which are used.
    partitions: usize = 1,
    /// Records per batch.
    records: usize = 1,
    /// Bytes of a value.
    size: usize = 1_024,
    /// The name of the codec.
    codec: String = "none".to_owned(),
    /// The number of batches: of appends in all partitions together, of reads in each.
    batches: usize = 1,
    /// How many batches may be in flight in each partition; of a batch producer, before records gather, where
    /// 0 is the client's own default.
    window: usize = 1,
    /// The maximum size of one fetch in bytes; 0 is the client's own default.
    step: i32 = 0,
    /// Workers of the runtime; 0 is one that runs on the main thread.
    threads: usize = 0,
    /// How many callers append at the same time, one record each.
    callers: u64 = 1,
    /// How long a record of one of the callers may wait for others, in milliseconds.
    linger_ms: u64 = 0,
    /// What the client adds to the round trip, in microseconds.
    delay_us: u64 = 0,
}

/// What a run does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// Appends whole batches.
    Append,
    /// Reads every partition from its start to its end.
    Read,
    /// Appends by many callers, one record at a time each.
    Callers,
    /// Opens every partition, appends a record to each, and waits.
    Idle,
    /// Creates the topic and appends what [`Read`](Self::Read) reads.
    Fill,
    /// Counts the records of all partitions.
    Count,
    /// Deletes the topic.
    Delete,
}

impl Work {
    const NAMES: [(Self, &str); 7] = [
        (Self::Append, "append"),
        (Self::Read, "read"),
        (Self::Callers, "callers"),
        (Self::Idle, "idle"),
        (Self::Fill, "fill"),
        (Self::Count, "count"),
        (Self::Delete, "delete"),
    ];
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(work, _)| work == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Work {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(work, _)| *work).ok_or_else(|| format!("{text} is no work").into())
    }
}

impl Task {
    /// Returns `host:port` of each broker.
    pub fn brokers(&self) -> Vec<String> {
        self.bootstrap.split(',').map(str::to_owned).collect()
    }

    /// Returns the bytes of the values of a batch.
    pub const fn batch_bytes(&self) -> usize {
        self.records * self.size
    }

    /// Returns the values of a batch.
    pub fn values(&self, batch: usize) -> Vec<Vec<u8>> {
        values(self.records, self.size, batch)
    }

    /// Returns the sums of the values of the batches that differ.
    pub fn batch_sums(&self) -> Vec<u64> {
        let sum_of = |batch| self.values(batch).iter().map(|value| sum(value)).fold(0, u64::wrapping_add);
        (0..self.batches.min(DIFFERENT)).map(sum_of).collect()
    }

    /// Returns how long a record of one of the callers may wait for others.
    pub const fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    /// Returns the number of all records that are appended or read, and the sum of their values.
    pub fn expected(&self) -> (u64, u64) {
        let mut count = (0, 0_u64);
        let mut each = |records: u64, sum: u64| count = (count.0 + records, count.1.wrapping_add(sum));
        match self.work {
            Work::Callers => super::callers::for_each_value(self, |value| each(1, sum(value))),
            Work::Append | Work::Read | Work::Fill => {
                let sums = self.batch_sums();
                let logs = if self.work == Work::Read { self.partitions } else { 1 };
                for batch in (0..logs).flat_map(|_| 0..self.batches) {
                    each(self.records as u64, sums[batch % DIFFERENT]);
                }
            }
            Work::Idle | Work::Count | Work::Delete => {}
        }
        count
    }

    /// Returns the meter of a run that reads one partition. The first eighth is not measured.
    pub fn reading(&self) -> Meter {
        Meter::after((self.records * self.batches / 8) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_from_its_arguments() {
        let task = Task { work: Work::Read, subject: "kwal".to_owned(), step: 7, ..Task::default() };
        let read = Task::from_arguments(task.arguments()).unwrap();
        assert_eq!(read.arguments(), task.arguments());
        assert_eq!((read.work, read.step), (Work::Read, 7));
        for wrong in ["step", "step=x", "steps=1", "work=sleep"] {
            assert!(Task::from_arguments([wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_expected_covers_every_batch() {
        let task = Task { records: 3, size: 20, batches: DIFFERENT + 1, ..Task::default() };
        let (records, sum) = task.expected();
        assert_eq!(records, 3 * (DIFFERENT as u64 + 1));
        let (_, less) = Task { batches: DIFFERENT, ..task.clone() }.expected();
        let (_, one) = Task { batches: 1, ..task.clone() }.expected();
        assert_eq!(sum, less.wrapping_add(one));
        let two = Task { work: Work::Read, partitions: 2, ..task }.expected();
        assert_eq!(two, (2 * records, sum.wrapping_mul(2)));
    }
}
