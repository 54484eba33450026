//! Counts instructions and allocations of encoding and decoding a record: reproducible at every run.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench codec_counts                 # fails over a budget or the baseline
//! cargo bench -p kwal-benches --bench codec_counts -- --write      # the same, and makes it the baseline
//! ```
//!
//! It requires valgrind. Instructions are counted by callgrind for one batch of 1000 records, after a
//! warm-up, and given per record. Allocations are given per batch, so that those that are not per record are
//! visible too.
//!
//! The budgets are ratios to the floor of the same run. The baseline, `codec-baseline.txt`, contains the
//! counts of kwal when it was written: allocations must be equal, and instructions at most 3 % above. The
//! counts depend on the compiler and the C library. With other versions than those in the baseline, the ratio
//! to the floor must be at most 10 % above.

use std::{collections::BTreeMap, env, error::Error, fs, path::Path, process::ExitCode};

use allocation_counter::AllocationInfo;
use kwal_benches::{
    Table,
    codec::{Case, Glance, Input, Operation, RECORDS, Shape, Subject},
    counts::{self, Baseline},
};

/// The buffers of a batch and their reference counts; the same for a batch of any size.
const ALLOCATIONS_PER_BATCH: u64 = 4;

/// The budget of instructions, as a multiple of the floor.
const fn budget(operation: Operation) -> f64 {
    match operation {
        Operation::Encode | Operation::Lazy => 1.3,
        Operation::Owned => 1.5,
    }
}

/// The budget of allocations per record: the list of its headers.
fn allocation_budget(case: Case) -> u64 {
    u64::from(case.operation == Operation::Owned && case.shape == Shape::Headers)
}

fn main() -> ExitCode {
    match run() {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("codec_counts: {fault}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("codec_counts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The violations.
fn run() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let tools = counts::tools()?;
    let counts = Counts { instructions: instructions()?, allocations: allocations()? };
    for operation in Operation::ALL {
        println!("{}", counts.table(operation));
    }
    println!("Instructions per record, allocations per batch of {RECORDS}; {tools}");
    let mut faults = counts.missed_budgets();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("codec-baseline.txt");
    if env::args().any(|argument| argument == "--write") {
        let about = format!(
            "By `cargo bench -p kwal-benches --bench codec_counts -- --write`: operation, shape, subject, and of\n\
             a batch of {RECORDS} records the instructions, those of the floor, the allocations\n\
             and their bytes."
        );
        fs::write(path, Baseline::text(&about, &tools, &counts.of_kwal()))?;
    } else {
        let baseline = fs::read_to_string(path)?;
        faults.extend(Baseline::parse(&baseline)?.compare(&tools, &counts.of_kwal()));
    }
    Ok(faults)
}

struct Counts {
    /// Per batch.
    instructions: BTreeMap<String, u64>,
    /// Per batch.
    allocations: BTreeMap<String, AllocationInfo>,
}

impl Counts {
    fn table(&self, operation: Operation) -> String {
        let mut table =
            Table::new([operation.name(), "shape", "instructions", "× floor", "budget", "allocations"]);
        for case in Case::all().filter(|case| case.operation == operation) {
            let is_kwal = case.subject == Subject::Kwal;
            let budget = if is_kwal { format!("{:.1}", budget(operation)) } else { String::new() };
            table.row([
                case.subject.name().to_owned(),
                case.shape.name().to_owned(),
                format!("{:.0}", self.instructions(case) / RECORDS as f64),
                format!("{:.2}", self.ratio(case)),
                budget,
                self.allocations(case).to_string(),
            ]);
        }
        table.to_string()
    }

    fn missed_budgets(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for case in kwals() {
            let (ratio, most) = (self.ratio(case), budget(case.operation));
            if ratio > most {
                faults.push(format!("{case}: {ratio:.2} × floor, the budget is {most}"));
            }
            let (allocations, most) = (self.allocations(case), allocation_budget(case));
            if allocations > most * RECORDS as u64 + ALLOCATIONS_PER_BATCH {
                faults.push(format!(
                    "{case}: {allocations} allocations for {RECORDS} records, the budget is {most} each and \
                     {ALLOCATIONS_PER_BATCH} for the batch"
                ));
            }
        }
        faults
    }

    /// The counts that are compared with the baseline.
    fn of_kwal(&self) -> Vec<counts::Counts> {
        let counts = |case: Case| counts::Counts {
            case: case.to_string(),
            instructions: self.instructions[&case.to_string()],
            floor: self.instructions[&case.floor().to_string()],
            allocations: self.allocations(case),
            bytes: self.allocations[&case.to_string()].bytes_total,
        };
        kwals().map(counts).collect()
    }

    fn ratio(&self, case: Case) -> f64 {
        self.instructions(case) / self.instructions(case.floor())
    }

    fn instructions(&self, case: Case) -> f64 {
        self.instructions[&case.to_string()] as f64
    }

    fn allocations(&self, case: Case) -> u64 {
        self.allocations[&case.to_string()].count_total
    }
}

/// The subjects compared with budgets and baseline.
fn kwals() -> impl Iterator<Item = Case> {
    Case::all().filter(|case| case.subject == Subject::Kwal)
}

fn allocations() -> Result<BTreeMap<String, AllocationInfo>, String> {
    let inputs = Shape::ALL.map(|shape| (shape, Input::new(shape)));
    let mut counted = BTreeMap::new();
    for case in Case::all() {
        for (_, input) in inputs.iter().filter(|(shape, _)| *shape == case.shape) {
            let run = || {
                std::hint::black_box(input.run::<Glance>(case.operation, case.subject));
            };
            run();
            counted.insert(case.to_string(), allocation_counter::measure(run));
        }
    }
    inputs.iter().try_for_each(|(_, input)| input.check()).map(|()| counted)
}

fn instructions() -> Result<BTreeMap<String, u64>, Box<dyn Error + Send + Sync>> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = env!("CARGO_BIN_EXE_codec-rounds");
    let counted = counts::instructions(program, "codec_rounds::measured", &[], scratch)?;
    for case in Case::all() {
        if counted.get(&case.to_string()).is_none_or(|&instructions| instructions < RECORDS as u64) {
            return Err(format!("callgrind did not count {case}").into());
        }
    }
    Ok(counted)
}
