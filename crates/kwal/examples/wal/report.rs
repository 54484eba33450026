//! What the program shows: a bar while it works, and the report.

use std::{fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use kwal::producer::Stats;

use crate::options::Options;

/// On a terminal a bar, elsewhere nothing.
pub(crate) fn progress(name: &'static str, records: u64) -> ProgressBar {
    let template = "{prefix} {wide_bar} {human_pos:>9} of {human_len} records, {eta:>3} left";
    let style = ProgressStyle::with_template(template).expect("the template is one");
    ProgressBar::new(records).with_style(style).with_prefix(name)
}

/// For the nanoseconds of each append.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// How long all appends took, or all reads.
pub(crate) struct Phase {
    pub(crate) time: Duration,
    pub(crate) wire_bytes: u64,
}

/// What was measured, and verified.
pub(crate) struct Report {
    pub(crate) append: Phase,
    pub(crate) replay: Phase,
    pub(crate) latencies: Histogram<u64>,
    /// What each latency is of.
    pub(crate) each: String,
    /// Of all partitions, if their records were gathered.
    pub(crate) producers: Option<Stats>,
    pub(crate) verified: &'static str,
    pub(crate) checksum: u32,
    /// The end offset of each partition.
    pub(crate) ends: Vec<i64>,
}

impl Report {
    pub(crate) fn text(&self, options: &Options) -> String {
        let mut text = format!(
            "{} records of {} bytes over {} partitions of {}, compression {}\n",
            HumanCount(options.records),
            options.size,
            options.partitions,
            options.topic,
            options.compression,
        );
        text += &self.append.line("append", options);
        text += &self.replay.line("replay", options);
        let quantile = |quantile| ms(self.latencies.value_at_quantile(quantile));
        let _ = writeln!(
            text,
            "latency  p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3} ms ({} {})",
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0),
            HumanCount(self.latencies.len()),
            self.each,
        );
        if let Some(stats) = &self.producers {
            text += &producers(stats);
        }
        let _ = writeln!(text, "verified {}; checksum {:08x}", self.verified, self.checksum);
        for (index, end) in self.ends.iter().enumerate() {
            let _ = writeln!(text, "{}:{index}:{end}", options.topic);
        }
        text
    }
}

impl Phase {
    fn line(&self, name: &str, options: &Options) -> String {
        let seconds = self.time.as_secs_f64().max(1e-9);
        let bytes = options.records as f64 * options.size as f64;
        format!(
            "{name}   {} records/s, {:.1} MB/s ({:.3} s; {:.1} MB of values, {:.1} MB on the wire)\n",
            HumanCount((options.records as f64 / seconds) as u64),
            bytes / 1e6 / seconds,
            seconds,
            bytes / 1e6,
            self.wire_bytes as f64 / 1e6,
        )
    }
}

/// What became of the records on their way, on two lines.
fn producers(stats: &Stats) -> String {
    format!(
        "batches  {} of {:.1} records on average, at most {}; at most {} of a partition in flight\n\
         waiting  gathered for {:.3} ms on average, at most {:.3}; on the wire for {:.3}, at most {:.3}\n",
        HumanCount(stats.batches),
        stats.mean_records(),
        HumanCount(stats.most_records),
        stats.most_in_flight,
        ms(nanos(stats.queued.mean())),
        ms(nanos(stats.queued.longest)),
        ms(nanos(stats.wire.mean())),
        ms(nanos(stats.wire.longest)),
    )
}

fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
