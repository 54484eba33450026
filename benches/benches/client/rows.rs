//! The rows of the table: workloads, and their budgets.
//!
//! To add a workload, add a row here. To add a client, see `subjects`.

use std::time::Duration;

use kwal_benches::shared::{Task, Work};

/// A workload.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its words select it.
    pub(crate) name: String,
    pub(crate) task: Task,
    /// The subject that ratios are to.
    pub(crate) base: &'static str,
    /// Subjects that are not a peer.
    pub(crate) subjects: Vec<&'static str>,
    pub(crate) budgets: Vec<Budget>,
    /// How much later the sink answers.
    pub(crate) delay: Duration,
    /// The budgets on brokers, if it is measured there, too.
    pub(crate) end_to_end: Option<Vec<Budget>>,
}

/// The most that a figure of a subject may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) subject: &'static str,
    pub(crate) figure: Figure,
    pub(crate) most: f64,
}

/// A figure that has a budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Figure {
    /// Processor time in relation to the floor.
    Cpu,
    /// Processor time on top of the codec alone, in seconds per GB.
    OnCodec,
    /// Processor time in relation to rskafka.
    CpuOfRskafka,
    /// Time per record of all callers in relation to rskafka with 5 ms of linger.
    TimeOfRskafka,
    /// The median latency in relation to the base of the row.
    Latency,
    /// The most memory, in MB.
    Memory,
}

impl Figure {
    /// Returns its unit, as a heading.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Cpu => "× floor",
            Self::OnCodec => "s/GB on codec",
            Self::CpuOfRskafka => "× rskafka",
            Self::TimeOfRskafka => "× time of rskafka",
            Self::Latency => "× p50 of base",
            Self::Memory => "MB",
        }
    }
}

pub(crate) const FLOOR: &str = "floor";
pub(crate) const CODEC: &str = "codec";

/// Name, records per batch, bytes per value.
const SHAPES: [(&str, usize, usize); 3] =
    [("1000×1KiB", 1_000, 1_024), ("10000×100B", 10_000, 100), ("100×100KB", 100, 100_000)];
const CODECS: [&str; 4] = ["lz4", "zstd", "snappy", "gzip"];
/// Bytes of the values of a run.
const BYTES: usize = 256 << 20;
const CODEC_BYTES: usize = 32 << 20;
const MIB: i32 = 1 << 20;

/// Returns all rows; those that only the long version has if `is_long`.
pub(crate) fn all(is_long: bool) -> Vec<Row> {
    let scale = if is_long { 3 } else { 1 };
    let mut rows = Vec::new();
    rows.extend(appends(scale, is_long));
    rows.extend(reads(scale, is_long));
    rows.extend(single(scale));
    rows.extend(callers(scale));
    rows.extend(memory());
    rows.extend(delayed());
    rows
}

pub(crate) fn row(name: String, task: Task, base: &'static str, subjects: &[&'static str]) -> Row {
    let subjects = subjects.to_vec();
    Row { name, task, base, subjects, budgets: Vec::new(), delay: Duration::ZERO, end_to_end: None }
}

impl Row {
    fn budget(mut self, subject: &'static str, figure: Figure, most: f64) -> Self {
        self.budgets.push(Budget { subject, figure, most });
        self
    }

    fn end_to_end(self, subject: &'static str, figure: Figure, most: f64) -> Self {
        Self { end_to_end: Some(vec![Budget { subject, figure, most }]), ..self }
    }

    /// Returns the row on brokers.
    pub(crate) fn on_kafka(&self) -> Option<Self> {
        let budgets = self.end_to_end.clone()?;
        Some(Self { name: format!("{}, Kafka", self.name), budgets, ..self.clone() })
    }

    fn two_workers(self) -> Self {
        let task = Task { threads: 2, ..self.task };
        Self {
            name: format!("{}, two workers", self.name),
            task,
            budgets: Vec::new(),
            end_to_end: None,
            ..self
        }
    }
}

fn appends(scale: usize, is_long: bool) -> Vec<Row> {
    let append = |shape: (&str, usize, usize), codec: &str, window, partitions| {
        let (shape, records, size) = shape;
        let bytes = scale * if codec == "none" { BYTES } else { CODEC_BYTES };
        let batches = bytes.div_ceil(records * size).next_multiple_of(partitions);
        let codec = codec.to_owned();
        let task = Task { records, size, batches, codec, window, partitions, ..Task::default() };
        let mut name = format!("append {shape}");
        if task.codec != "none" {
            name += &format!(" {}", task.codec);
        }
        if window > 1 {
            name += &format!(", {window} in flight");
        }
        if partitions > 1 {
            name += &format!(", {partitions} partitions");
        }
        match (&*task.codec, size) {
            ("none", 100_000) => row(name, task, "floor-slices", &["floor", "floor-slices", "kwal"]),
            ("none", _) => row(name, task, FLOOR, &[FLOOR, "kwal"]),
            _ => row(name, task, CODEC, &[CODEC, "kwal"]),
        }
    };
    let [kib, small, large] = SHAPES;
    let mut rows = vec![
        append(kib, "none", 1, 1).budget("kwal", Figure::Cpu, 1.15).end_to_end("kwal", Figure::Cpu, 1.1),
        append(kib, "none", 5, 1).budget("kwal", Figure::Cpu, 1.2).end_to_end("kwal", Figure::Cpu, 1.1),
        append(small, "none", 1, 1).budget("kwal", Figure::Cpu, 1.25),
        append(large, "none", 1, 1).budget("kwal", Figure::Cpu, 1.15),
    ];
    rows.extend(CODECS.map(|codec| append(kib, codec, 1, 1).budget("kwal", Figure::OnCodec, 0.3)));
    rows.push(append(("100×1KiB", 100, 1_024), "none", 1, 8));
    rows.push(append(("100×1KiB", 100, 1_024), "none", 1, 64).budget("kwal", Figure::Cpu, 1.3));
    rows.push(append(kib, "none", 1, 1).two_workers());
    if is_long {
        rows.extend([small, large].map(|shape| append(shape, "none", 5, 1)));
        for shape in [small, large] {
            rows.extend(CODECS.map(|codec| append(shape, codec, 1, 1)));
        }
        rows.push(append(kib, "none", 5, 1).two_workers());
    }
    rows
}

fn reads(scale: usize, is_long: bool) -> Vec<Row> {
    let read = |shape: (&str, usize, usize), codec: &str, step: i32| {
        let (shape, records, size) = shape;
        // A large value is a batch of ten, so that a step has one at least.
        let records = if size == 100_000 { 10 } else { records };
        let shape = shape.split_once('×').map_or(shape, |(_, size)| size);
        let bytes = scale * if codec == "none" { BYTES } else { CODEC_BYTES };
        let batches = bytes.div_ceil(records * size);
        let codec = codec.to_owned();
        let task = Task { work: Work::Read, records, size, batches, codec, step, ..Task::default() };
        let mut name = format!("read {shape}");
        if task.codec != "none" {
            name += &format!(" {}", task.codec);
        }
        if step != MIB {
            name += &format!(", {} MiB steps", step / MIB);
        }
        let is_plain = task.codec == "none";
        let base = if is_plain { FLOOR } else { CODEC };
        let ours = ["kwal-borrowed", "kwal-owned"];
        row(name, task, base, &if is_plain { vec![FLOOR] } else { vec![FLOOR, CODEC] }).with(ours)
    };
    let cpu = |row: Row, borrowed, owned| {
        row.budget("kwal-borrowed", Figure::Cpu, borrowed).budget("kwal-owned", Figure::Cpu, owned)
    };
    let [kib, small, large] = SHAPES;
    let mut rows = vec![
        cpu(read(kib, "none", MIB), 1.15, 1.3).end_to_end("kwal-borrowed", Figure::Cpu, 1.1),
        cpu(read(kib, "none", 8 * MIB), 1.2, 1.3),
        cpu(read(small, "none", MIB), 1.2, 1.8),
        cpu(read(large, "none", MIB), 1.1, 1.1),
    ];
    rows.extend(CODECS.map(|codec| {
        read(kib, codec, MIB).budget("kwal-borrowed", Figure::OnCodec, 0.3).budget(
            "kwal-owned",
            Figure::OnCodec,
            0.5,
        )
    }));
    if is_long {
        rows.extend([small, large].map(|shape| read(shape, "none", 8 * MIB)));
        for shape in [small, large] {
            rows.extend(CODECS.map(|codec| read(shape, codec, MIB)));
        }
        rows.extend(CODECS.map(|codec| read(kib, codec, 8 * MIB)));
        rows.push(read(kib, "none", MIB).two_workers());
    }
    rows
}

impl Row {
    fn with(mut self, subjects: impl IntoIterator<Item = &'static str>) -> Self {
        self.subjects.extend(subjects);
        self
    }
}

fn single(scale: usize) -> Vec<Row> {
    let single = |shape: &str, size| {
        let task = Task { size, batches: scale * 20_000, ..Task::default() };
        row(format!("single append {shape}"), task, FLOOR, &[FLOOR, "kwal"])
    };
    let kib = single("1KiB", 1_024).budget("kwal", Figure::Cpu, 1.05).budget("kwal", Figure::Latency, 1.0);
    vec![kib.clone().end_to_end("kwal", Figure::Cpu, 1.1), single("100B", 100), kib.two_workers()]
}

fn callers(scale: usize) -> Vec<Row> {
    let callers = |callers, shape: &str, size, records: usize| {
        let name = match callers {
            1 => format!("one caller {shape}"),
            _ => format!("{callers} callers {shape}"),
        };
        let (batches, window) = (scale * records, 0);
        let task = Task { work: Work::Callers, callers, size, batches, window, ..Task::default() };
        row(name, task, FLOOR, &[FLOOR, "kwal"])
    };
    let many = |shape, size, records| {
        callers(1_000, shape, size, records)
            .budget("kwal", Figure::Cpu, 1.5)
            .budget("kwal", Figure::CpuOfRskafka, 0.4)
            .budget("kwal", Figure::Memory, 64.0)
    };
    // One and a half times as many records per second.
    let on_brokers =
        |count| callers(count, "1KiB", 1_024, 20_000).end_to_end("kwal", Figure::TimeOfRskafka, 1.0 / 1.5);
    let mut one = callers(1, "1KiB", 1_024, 4_000).with(["kwal-direct"]);
    one.base = "kwal-direct";
    vec![
        one.budget("kwal", Figure::Latency, 1.05),
        on_brokers(64),
        on_brokers(512),
        many("100B", 100, 400_000),
        many("1KiB", 1_024, 200_000),
        many("100B", 100, 400_000).two_workers(),
        many("1KiB", 1_024, 200_000).two_workers(),
    ]
}

/// Reads of many partitions at the same time, with the client's own limits.
fn memory() -> Vec<Row> {
    let (work, records, size) = (Work::Read, 1_000, 1_024);
    let task = Task { work, records, size, batches: 4, partitions: 64, ..Task::default() };
    let row = row("memory: read 64 partitions".to_owned(), task, "kwal-borrowed", &["kwal-borrowed"]);
    vec![row.budget("kwal-borrowed", Figure::Memory, 80.0)]
}

/// The sink answers later.
fn delayed() -> Vec<Row> {
    let rows = |millis: u64| {
        let append = |name: &str, window, batches| {
            let task = Task { records: 1_000, window, batches, ..Task::default() };
            row(format!("append 1000×1KiB, {name}, {millis} ms"), task, FLOOR, &[FLOOR, "kwal"])
        };
        let (work, records, batches) = (Work::Read, 1_000, 48);
        let task = Task { work, records, batches, step: MIB, ..Task::default() };
        let read = row(format!("read 1KiB, {millis} ms"), task, FLOOR, &[FLOOR, "kwal-borrowed"]);
        let task = Task { batches: 100, ..Task::default() };
        let single = row(format!("single append 1KiB, {millis} ms"), task, FLOOR, &[FLOOR, "kwal"]);
        let rows = [append("1 in flight", 1, 40), append("5 in flight", 5, 96), read, single];
        rows.map(|row| Row { delay: Duration::from_millis(millis), ..row })
    };
    [1, 10].into_iter().flat_map(rows).collect()
}
