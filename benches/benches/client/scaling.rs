//! How costs grow: with the number of partition clients, of batches in flight, and with the size of a record.

use std::{path::Path, time::Duration};

use kwal_benches::{
    Table,
    shared::{Failure, Measured, Task, Work},
};

use super::{
    plot::Lines,
    results::Results,
    rows::{FLOOR, Row, row},
};

/// The word that selects these rows.
pub(crate) const WORD: &str = "scaling";
/// Bytes of the values of a run, and the most records of a batch.
const BYTES: usize = 96 << 20;
const RECORDS: usize = 10_000;
const CLIENTS: [usize; 4] = [1, 10, 100, 1_000];
const WINDOWS: [usize; 5] = [1, 2, 3, 4, 5];
const SIZES: [usize; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// A figure over what grows.
struct Scale {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    is_logarithmic: bool,
    rows: Vec<(f64, String)>,
    figure: fn(&Measured) -> f64,
}

fn clients(count: usize) -> String {
    format!("{WORD}: {count} partition clients")
}

fn window(window: usize) -> String {
    format!("{WORD}: {window} in flight, 1 ms")
}

fn size(what: &str, size: usize) -> String {
    format!("{WORD}: {what} records of {size} B")
}

/// Returns all rows.
pub(crate) fn all() -> Vec<Row> {
    let idle = |partitions| {
        let task = Task { work: Work::Idle, partitions, size: 100, ..Task::default() };
        row(clients(partitions), task, "kwal", &["kwal"])
    };
    let in_flight = |flying| {
        let task = Task { records: 1_000, window: flying, batches: 96, ..Task::default() };
        let row = row(window(flying), task, FLOOR, &[FLOOR, "kwal"]);
        Row { delay: Duration::from_millis(1), ..row }
    };
    let shape = |size: usize| {
        let records = (1_000_000 / size).clamp(1, RECORDS);
        let batches = BYTES.min(4_000_000 * size).div_ceil(records * size);
        Task { records, size, batches, ..Task::default() }
    };
    let append = |bytes| row(size("append", bytes), shape(bytes), FLOOR, &[FLOOR, "floor-slices", "kwal"]);
    let read = |bytes| {
        let task = Task { work: Work::Read, step: 1 << 20, ..shape(bytes) };
        row(size("read", bytes), task, FLOOR, &[FLOOR, "kwal-borrowed", "kwal-owned"])
    };
    let rows = CLIENTS.into_iter().map(idle).chain(WINDOWS.map(in_flight));
    rows.chain(SIZES.map(append)).chain(SIZES.map(read)).collect()
}

fn scales() -> Vec<Scale> {
    let windows = || WINDOWS.map(|flying| (flying as f64, window(flying))).to_vec();
    let sizes = |what| SIZES.map(|bytes| (bytes as f64, size(what, bytes))).to_vec();
    let of_size = |file, title, what, y, figure| {
        let x = "bytes of a record";
        Scale { file, title, x, y, is_logarithmic: true, rows: sizes(what), figure }
    };
    let (cost, rate) = ("seconds of processor time per GB", "GB/s");
    vec![
        Scale {
            file: "window",
            title: "Batches of 1 MB in flight, 1 ms away",
            x: "batches in flight",
            y: rate,
            is_logarithmic: false,
            rows: windows(),
            figure: Measured::throughput,
        },
        of_size("append-cpu", "Append", "append", cost, Measured::cpu_per_gb),
        of_size("append-rate", "Append", "append", rate, Measured::throughput),
        of_size("read-cpu", "Read", "read", cost, Measured::cpu_per_gb),
        of_size("read-rate", "Read", "read", rate, Measured::throughput),
    ]
}

/// Prints what partition clients that wait take.
pub(crate) fn print(results: &Results) {
    let mut table = Table::new(["partition clients", "descriptors", "kB each", "ms of CPU in 5 s"]);
    for count in CLIENTS {
        let of = |figure: fn(&Measured) -> f64| results.median(&clients(count), "kwal", figure);
        let figures = (
            of(|measured| measured.descriptors as f64),
            of(|measured| measured.bytes as f64 / measured.records as f64 / 1e3),
            of(|measured| measured.cpu as f64 / 1e6),
        );
        if let (Some(descriptors), Some(memory), Some(cpu)) = figures {
            table.row([
                count.to_string(),
                format!("{descriptors:.0}"),
                format!("{memory:.1}"),
                format!("{cpu:.2}"),
            ]);
        }
    }
    if table.has_rows() {
        println!("{table}");
    }
}

/// Draws what was measured.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn draw(results: &Results, out: &Path) -> Result<(), Failure> {
    for Scale { file, title, x, y, is_logarithmic, rows, figure } in scales() {
        let mut subjects = Vec::new();
        for subject in rows.iter().flat_map(|(_, row)| results.subjects(row)) {
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        let points = |subject: &str| {
            let point = |(x, row): &(f64, String)| Some((*x, results.median(row, subject, figure)?));
            rows.iter().filter_map(point).collect()
        };
        let lines = subjects.into_iter().map(|subject| (subject.clone(), points(&subject))).collect();
        let lines = Lines { title, x, y, is_logarithmic, lines };
        lines.draw(&out.join(format!("scaling-{file}.svg")))?;
    }
    Ok(())
}
