//! The names of all metrics.

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Unit, with_recorder};

/// A metric: everything about it but its values.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it measures.
    pub meaning: &'static str,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value of this moment.
    Gauge,
    /// A distribution of values.
    Histogram,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal $unit:ident [$($label:literal),*] $meaning:literal;)*) => {
        $(
            pub(super) const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                meaning: $meaning,
            };
        )*

        /// All metrics.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    REQUESTS = Counter "kwal_requests_total" Count ["api", "broker"]
        "requests that were written";
    REQUEST_BYTES = Counter "kwal_request_bytes_total" Bytes ["api", "broker"]
        "their size on the wire, before TLS";
    RESPONSE_BYTES = Counter "kwal_response_bytes_total" Bytes ["api", "broker"]
        "the size of the responses";
    REQUEST_DURATION = Histogram "kwal_request_duration_seconds" Seconds ["api", "broker"]
        "from when a request was written until its response has arrived";
    REQUEST_QUEUE = Histogram "kwal_request_queue_seconds" Seconds ["api", "broker"]
        "from when a connection was given a request until it was written";
    REQUESTS_IN_FLIGHT = Gauge "kwal_requests_in_flight" Count ["broker", "purpose"]
        "requests that connections have, and no response yet";
    RETRIES = Counter "kwal_retries_total" Count ["api", "error"]
        "attempts that failed, and were followed by another one";
    CALL_FAILURES = Counter "kwal_call_failures_total" Count ["api", "error"]
        "requests that ended with an error, after all retries; appends are counted on their own";
    THROTTLE = Histogram "kwal_throttle_seconds" Seconds ["broker"]
        "pauses that the broker demanded (quotas)";
    CONNECTIONS_OPENED = Counter "kwal_connections_opened_total" Count ["broker", "purpose"]
        "connections that were opened, with TLS and SASL";
    CONNECTIONS_CLOSED = Counter "kwal_connections_closed_total" Count ["broker", "purpose"]
        "those of them that were closed, by whichever side";
    CONNECTIONS_OPEN = Gauge "kwal_connections_open" Count ["broker", "purpose"]
        "connections that are open";
    CONNECT_FAILURES = Counter "kwal_connect_failures_total" Count ["broker", "error"]
        "attempts to connect that failed";
    MEMORY_USED = Gauge "kwal_memory_used_bytes" Bytes ["side"]
        "what appends and reads hold of the memory budget";
    MEMORY_LIMIT = Gauge "kwal_memory_limit_bytes" Bytes []
        "the memory budget";
    MEMORY_WAITS = Counter "kwal_memory_waits_total" Count ["side"]
        "appends and reads that had to wait for memory";
    APPENDED_RECORDS = Counter "kwal_appended_records_total" Count ["topic", "partition"]
        "records that were acknowledged";
    APPENDED_BYTES = Counter "kwal_appended_bytes_total" Bytes ["topic", "partition"]
        "the size of their batches, as they are on the log";
    APPEND_DURATION = Histogram "kwal_append_duration_seconds" Seconds ["topic", "partition"]
        "how long an acknowledged batch took, from its call, with all waits and retries";
    APPEND_FAILURES = Counter "kwal_append_failures_total" Count ["topic", "partition", "error"]
        "batches that ended with an error";
    APPENDS_IN_DOUBT = Counter "kwal_appends_in_doubt_total" Count ["topic", "partition"]
        "those of them that may be on the log";
    FENCED = Counter "kwal_fenced_total" Count ["topic", "partition"]
        "partition clients that ended because another one has taken over the log or the producer id";
    FETCHED_RECORDS = Counter "kwal_fetched_records_total" Count ["topic", "partition"]
        "records that were fetched";
    FETCHED_BYTES = Counter "kwal_fetched_bytes_total" Bytes ["topic", "partition"]
        "the size of their batches, as they are on the log";
    BATCH_RECORDS = Histogram "kwal_batch_records" Count ["topic", "partition"]
        "records in a batch of a batch producer";
    BATCH_BYTES = Histogram "kwal_batch_bytes" Bytes ["topic", "partition"]
        "its size, as it is on the log";
    BATCH_COMPRESSION = Histogram "kwal_batch_compression_ratio" Count ["topic", "partition"]
        "its size before compression by that after it";
    BATCH_GATHER = Histogram "kwal_batch_gather_seconds" Seconds ["topic", "partition"]
        "from its first record until it was submitted";
    READER_LAG = Gauge "kwal_reader_lag_records" Count ["topic", "partition"]
        "offsets from the position of readers to the end of the log";
}

impl Metric {
    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| Label::new(*label, (*value).to_owned()));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }

    /// Registers the counter of these values of its labels.
    pub(super) fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.kind, Kind::Counter, "{}", self.name);
        with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    /// Registers the gauge of these values of its labels.
    pub(super) fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge, "{}", self.name);
        with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    /// Registers the histogram of these values of its labels.
    pub(super) fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert_eq!(self.kind, Kind::Histogram, "{}", self.name);
        with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }

    /// Describes the metric to the recorder.
    pub(super) fn describe(&self) {
        let (unit, meaning) = (Some(self.unit), self.meaning.into());
        with_recorder(|recorder| match self.kind {
            Kind::Counter => recorder.describe_counter(self.name.into(), unit, meaning),
            Kind::Gauge => recorder.describe_gauge(self.name.into(), unit, meaning),
            Kind::Histogram => recorder.describe_histogram(self.name.into(), unit, meaning),
        });
    }
}

const METADATA: Metadata<'static> = Metadata::new("kwal_client", Level::INFO, Some(module_path!()));
