//! Tables of text.

use kwal_benches::{Table, shared::Measured};

use super::{
    results::Results,
    rows::{CODEC, Figure, Row},
};

const PEERS: [&str; 3] = ["rskafka", "rdkafka", "krafka"];

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map(|figure| format!("{figure:.digits$}")).unwrap_or_default()
}

/// Returns everything that was measured of a row.
pub(crate) fn details(row: &Row, name: &str, results: &Results) -> Table {
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

/// The rows with a budget: kwal, the best peer, rskafka, the budget, and whether it is met.
#[derive(Debug)]
pub(crate) struct Standing {
    table: Table,
    /// The rows that miss theirs.
    pub(crate) misses: Vec<String>,
}

impl Standing {
    pub(crate) fn new() -> Self {
        let table = Table::new(["", "", "kwal", "best peer", "rskafka", "budget", ""]);
        Self { table, misses: Vec::new() }
    }

    /// Adds the budgets of a row.
    pub(crate) fn add(&mut self, row: &Row, name: &str, results: &Results) {
        for budget in &row.budgets {
            let of = |subject: &str| results.figure(name, subject, row.base, budget.figure);
            let Some(ours) = of(budget.subject) else { continue };
            let digits = if budget.figure == Figure::Memory { 0 } else { 2 };
            let best = PEERS
                .iter()
                .filter_map(|peer| Some((of(peer)?, *peer)))
                .min_by(|(a, _), (b, _)| a.total_cmp(b))
                .map(|(figure, peer)| format!("{figure:.digits$} ({peer})"));
            let is_met = ours <= budget.most;
            let owner = budget.subject.strip_prefix("kwal-").map(|how| format!(" {how}")).unwrap_or_default();
            let label = format!("{name}{owner}");
            if !is_met {
                let most = budget.most;
                self.misses.push(format!("{label}: {ours:.2}, not {most} {}", budget.figure.unit()));
            }
            self.table.row([
                label,
                budget.figure.unit().to_owned(),
                shown(Some(ours), digits),
                best.unwrap_or_default(),
                shown(of("rskafka"), digits),
                shown(Some(budget.most), digits),
                if is_met { "" } else { "misses" }.to_owned(),
            ]);
        }
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!("{}", self.table);
    }
}
