//! Tables of text.

use std::path::Path;

use kwal_benches::{
    Table,
    shared::{Failure, Measured},
};

use super::{
    plot::Bars,
    results::Results,
    rows::{Budget, CODEC, Figure, Row},
    scaling,
};

const PEERS: [&str; 3] = ["rskafka", "rdkafka", "krafka"];

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map(|figure| format!("{figure:.digits$}")).unwrap_or_default()
}

/// Returns everything that was measured of a row.
pub(crate) fn details(row: &Row, results: &Results) -> Table {
    let name = &*row.name;
    let mut table = Table::new([
        name,
        "s/GB",
        "µs/record",
        "× floor",
        "on codec",
        "GB/s",
        "records/s",
        "p50 µs",
        "p99 µs",
        "faults/MB",
        "MB",
        "allocs/rec",
    ]);
    for subject in results.subjects(name) {
        let subject = &*subject;
        let of = |figure: fn(&Measured) -> f64, digits| shown(results.median(name, subject, figure), digits);
        let to = |figure| results.figure(name, subject, row.base, figure);
        table.row([
            format!("  {subject}"),
            of(Measured::cpu_per_gb, 3),
            of(|measured| measured.cpu_per_record() / 1e3, 3),
            shown(to(Figure::Cpu).filter(|_| row.base != CODEC), 2),
            shown(to(Figure::OnCodec).filter(|_| subject != CODEC), 2),
            of(Measured::throughput, 2),
            of(Measured::rate, 0),
            of(|measured| measured.median as f64 / 1e3, 0),
            of(|measured| measured.p99 as f64 / 1e3, 0),
            of(Measured::faults_per_mb, 1),
            of(|measured| measured.memory as f64 / 1e6, 0),
            of(Measured::allocations_per_record, 2),
        ]);
    }
    table
}

/// What was measured of all rows.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) results: Results,
}

impl Report {
    /// Of results from before, prints everything again.
    pub(crate) fn of(rows: Vec<Row>, results: Results) -> Self {
        let rows = rows.into_iter().flat_map(|row| [row.on_kafka(), Some(row)].into_iter().rev().flatten());
        let rows: Vec<_> = rows.filter(|row| !results.subjects(&row.name).is_empty()).collect();
        rows.iter().for_each(|row| println!("{}", details(row, &results)));
        Self { rows, results }
    }

    fn budgets(&self) -> impl Iterator<Item = (&Row, &Budget, f64)> {
        let figure = |row: &Row, budget: &Budget| {
            self.results.figure(&row.name, budget.subject, row.base, budget.figure)
        };
        let rows = self.rows.iter().flat_map(|row| row.budgets.iter().map(move |budget| (row, budget)));
        rows.filter_map(move |(row, budget)| Some((row, budget, figure(row, budget)?)))
    }

    /// Whether all budgets are met.
    pub(crate) fn is_met(&self) -> bool {
        self.budgets().all(|(_, budget, figure)| figure <= budget.most)
    }

    /// Prints the rows with a budget: kwal, the best peer, rskafka, the budget, and whether it is met.
    pub(crate) fn print(&self) {
        let mut table = Table::new(["", "", "kwal", "best peer", "rskafka", "budget", ""]);
        for (row, budget, ours) in self.budgets() {
            let of = |subject: &str| self.results.figure(&row.name, subject, row.base, budget.figure);
            let digits = if budget.figure == Figure::Memory { 0 } else { 2 };
            let best = PEERS
                .iter()
                .filter_map(|peer| Some((of(peer)?, *peer)))
                .min_by(|(a, _), (b, _)| a.total_cmp(b))
                .map(|(figure, peer)| format!("{figure:.digits$} ({peer})"));
            let how = budget.subject.strip_prefix("kwal-").map(|how| format!(", {how}")).unwrap_or_default();
            table.row([
                format!("{}{how}", row.name),
                budget.figure.unit().to_owned(),
                shown(Some(ours), digits),
                best.unwrap_or_default(),
                shown(of("rskafka"), digits),
                shown(Some(budget.most), digits),
                if ours <= budget.most { "" } else { "misses" }.to_owned(),
            ]);
        }
        if table.has_rows() {
            println!("{table}");
        }
        scaling::print(&self.results);
    }

    /// Draws the rows with a budget, and those of scaling.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn draw(&self, out: &Path) -> Result<(), Failure> {
        let bars = |title, figure, most| {
            let has = |row: &&Row| row.budgets.iter().any(|budget| budget.figure == figure);
            let rows = self.rows.iter().filter(has).map(|row| (row.name.clone(), row.base)).collect();
            Bars { title, figure, most, rows }
        };
        bars("Cost of a client", Figure::Cpu, 8.0).draw(&self.results, &out.join("client-cpu.svg"))?;
        bars("Cost of a client around its codec", Figure::OnCodec, 4.0)
            .draw(&self.results, &out.join("client-codecs.svg"))?;
        scaling::draw(&self.results, out)
    }
}
