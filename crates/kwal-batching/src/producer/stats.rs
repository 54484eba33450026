//! What a producer counts.

use std::time::Duration;

/// What a producer has done since it was created, and what it is doing.
///
/// [`since`](Self::since) gives rates and means of the time between two of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Inputs that are on the log.
    pub appended: u64,
    /// Inputs that were accepted and failed. All of a batch that was split count as failed if a part fails.
    pub failed: u64,
    /// Inputs that had to wait for memory or for a place.
    pub waited: u64,
    /// Batches that were submitted.
    pub batches: u64,
    /// The records in them.
    pub records: u64,
    /// The most records in one of them.
    pub most_records: u64,
    /// Their bytes before compression.
    pub uncompressed_bytes: u64,
    /// Their bytes on the wire.
    pub wire_bytes: u64,
    /// How long batches were gathered, from their first record until they were submitted.
    pub queued: Timing,
    /// How long appends took from then on.
    pub wire: Timing,
    /// Batches in flight now.
    pub in_flight: u64,
    /// The most batches that were in flight at a time.
    pub most_in_flight: u64,
    /// Inputs that are being gathered now.
    pub gathering: u64,
    /// Callers that wait for memory or for a place now.
    pub waiting: u64,
}

impl Stats {
    /// Returns what was done since earlier stats of the same producer. What is the most or the longest, or of
    /// this moment, is as it is here.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            appended: less(self.appended, earlier.appended),
            failed: less(self.failed, earlier.failed),
            waited: less(self.waited, earlier.waited),
            batches: less(self.batches, earlier.batches),
            records: less(self.records, earlier.records),
            uncompressed_bytes: less(self.uncompressed_bytes, earlier.uncompressed_bytes),
            wire_bytes: less(self.wire_bytes, earlier.wire_bytes),
            queued: self.queued.since(earlier.queued),
            wire: self.wire.since(earlier.wire),
            ..*self
        }
    }

    /// Returns how many records a batch has on average; 0 without batches.
    pub fn mean_records(&self) -> f64 {
        if self.batches == 0 { 0.0 } else { self.records as f64 / self.batches as f64 }
    }

    /// Returns the sums of two producers, and the larger of their maxima.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            appended: self.appended + other.appended,
            failed: self.failed + other.failed,
            waited: self.waited + other.waited,
            batches: self.batches + other.batches,
            records: self.records + other.records,
            most_records: self.most_records.max(other.most_records),
            uncompressed_bytes: self.uncompressed_bytes + other.uncompressed_bytes,
            wire_bytes: self.wire_bytes + other.wire_bytes,
            queued: self.queued.with(other.queued),
            wire: self.wire.with(other.wire),
            in_flight: self.in_flight + other.in_flight,
            most_in_flight: self.most_in_flight.max(other.most_in_flight),
            gathering: self.gathering + other.gathering,
            waiting: self.waiting + other.waiting,
        }
    }
}

/// How long something took, over all times that it was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// How many times.
    pub count: u64,
    /// All together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Timing {
    /// Returns the mean; zero if there was none.
    pub fn mean(&self) -> Duration {
        let nanos = self.total.as_nanos().checked_div(self.count.into()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn with(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            total: self.total.saturating_add(other.total),
            longest: self.longest.max(other.longest),
        }
    }

    /// Returns what was added since an earlier time. The longest is that of all times.
    fn since(self, earlier: Self) -> Self {
        let Self { count, total, longest } = self;
        Self {
            count: count.saturating_sub(earlier.count),
            total: total.saturating_sub(earlier.total),
            longest,
        }
    }

    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.total = self.total.saturating_add(duration);
        self.longest = self.longest.max(duration);
    }
}

/// Counts what happens.
#[derive(Debug, Default)]
pub(super) struct Counters {
    stats: Stats,
}

impl Counters {
    pub(super) fn waited(&mut self) {
        self.stats.waited += 1;
    }

    /// A batch was taken.
    pub(super) fn taken(&mut self, uncompressed: usize, queued: Duration) {
        self.stats.uncompressed_bytes += uncompressed as u64;
        self.stats.queued.add(queued);
    }

    /// A batch, or a part of one, is submitted.
    pub(super) fn submitted(&mut self, records: u32, wire: usize, in_flight: usize) {
        let Stats { batches, records: all, most_records, wire_bytes, most_in_flight, .. } = &mut self.stats;
        *batches += 1;
        *all += u64::from(records);
        *most_records = (*most_records).max(records.into());
        *wire_bytes += wire as u64;
        *most_in_flight = (*most_in_flight).max(in_flight as u64);
    }

    /// A batch, or a part of one, has ended.
    pub(super) fn ended(&mut self, wire: Duration) {
        self.stats.wire.add(wire);
    }

    /// Inputs have ended.
    pub(super) fn inputs(&mut self, inputs: u64, is_appended: bool) {
        let Stats { appended, failed, .. } = &mut self.stats;
        *(if is_appended { appended } else { failed }) += inputs;
    }

    pub(super) fn stats(&self, in_flight: usize, gathering: u64, waiting: u64) -> Stats {
        Stats { in_flight: in_flight as u64, gathering, waiting, ..self.stats }
    }
}
