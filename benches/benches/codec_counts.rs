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

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use kwal_benches::{
    Table,
    codec::{Case, Glance, Input, Operation, RECORDS, Shape, Subject},
};

/// The tolerance over the baseline: of instructions, and of the ratio to the floor with other tools.
const TOLERANCE: f64 = 1.03;
const RATIO_TOLERANCE: f64 = 1.10;
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
fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let counts = Counts { instructions: instructions()?, allocations: allocations()?, tools: tools()? };
    for operation in Operation::ALL {
        println!("{}", counts.table(operation));
    }
    println!("Instructions per record, allocations per batch of {RECORDS}; {}", counts.tools);
    let mut faults = counts.missed_budgets();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("codec-baseline.txt");
    if env::args().any(|argument| argument == "--write") {
        fs::write(path, counts.baseline())?;
    } else {
        let baseline = fs::read_to_string(path)?;
        faults.extend(counts.compare(&Baseline::parse(&baseline)?));
    }
    Ok(faults)
}

struct Counts {
    /// Per batch.
    instructions: BTreeMap<String, u64>,
    /// Per batch.
    allocations: BTreeMap<String, u64>,
    tools: String,
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

    /// The regressions.
    fn compare(&self, baseline: &Baseline<'_>) -> Vec<String> {
        let same_tools = baseline.tools == self.tools;
        if !same_tools {
            println!("The baseline is of {}: only ratios and allocations compare with it", baseline.tools);
        }
        let mut faults = Vec::new();
        for case in kwals() {
            let Some(&(instructions, floor, allocations)) = baseline.rows.get(case.to_string().as_str())
            else {
                faults.push(format!("{case}: not in the baseline; write it again with `--write`"));
                continue;
            };
            let (now, before, tolerance) = match same_tools {
                true => (self.instructions(case), instructions as f64, TOLERANCE),
                false => (self.ratio(case), instructions as f64 / floor as f64, RATIO_TOLERANCE),
            };
            let change = now / before;
            if change > tolerance {
                let what = if same_tools { "instructions" } else { "instructions by those of the floor" };
                faults.push(format!("{case}: {:+.1} % {what} since the baseline", (change - 1.0) * 100.0));
            } else if same_tools && change < 1.0 / tolerance {
                println!("{case}: {:+.1} % instructions; `--write` keeps it", (change - 1.0) * 100.0);
            }
            if self.allocations(case) != allocations {
                let now = self.allocations(case);
                faults.push(format!(
                    "{case}: {now} allocations a batch, {allocations} in the baseline; if that is meant, `--write`"
                ));
            }
        }
        faults
    }

    fn baseline(&self) -> String {
        let mut text = format!(
            "# By `cargo bench -p kwal-benches --bench codec_counts -- --write`: operation, shape, subject, and of\n\
             # a batch of {RECORDS} records the instructions, those of the floor, and the allocations.\n{TOOLS}{}\n",
            self.tools
        );
        for case in kwals() {
            let [instructions, floor] = [case, case.floor()].map(|case| self.instructions(case));
            let _ = writeln!(text, "{case} {instructions} {floor} {}", self.allocations(case));
        }
        text
    }

    fn ratio(&self, case: Case) -> f64 {
        self.instructions(case) / self.instructions(case.floor())
    }

    fn instructions(&self, case: Case) -> f64 {
        self.instructions[&case.to_string()] as f64
    }

    fn allocations(&self, case: Case) -> u64 {
        self.allocations[&case.to_string()]
    }
}

/// The subjects compared with budgets and baseline.
fn kwals() -> impl Iterator<Item = Case> {
    Case::all().filter(|case| case.subject == Subject::Kwal)
}

const TOOLS: &str = "# with ";

struct Baseline<'a> {
    tools: &'a str,
    /// Instructions, those of the floor, allocations.
    rows: BTreeMap<&'a str, (u64, u64, u64)>,
}

impl<'a> Baseline<'a> {
    fn parse(text: &'a str) -> Result<Self, Box<dyn Error>> {
        let tools = text.lines().find_map(|line| line.strip_prefix(TOOLS));
        let row = |line: &'a str| {
            let mut cells = line.rsplitn(4, ' ');
            let mut number = || cells.next().and_then(|cell| cell.parse().ok());
            let (allocations, floor, instructions) = (number()?, number()?, number()?);
            Some((cells.next()?, (instructions, floor, allocations)))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let rows = lines.map(|line| row(line).ok_or_else(|| format!("no row of a baseline: {line}")));
        Ok(Self {
            tools: tools.ok_or("the baseline does not name the tools it was made with")?,
            rows: rows.collect::<Result<_, _>>()?,
        })
    }
}

fn allocations() -> Result<BTreeMap<String, u64>, String> {
    let inputs = Shape::ALL.map(|shape| (shape, Input::new(shape)));
    let mut counted = BTreeMap::new();
    for case in Case::all() {
        for (_, input) in inputs.iter().filter(|(shape, _)| *shape == case.shape) {
            let run = || {
                std::hint::black_box(input.run::<Glance>(case.operation, case.subject));
            };
            run();
            counted.insert(case.to_string(), allocation_counter::measure(run).count_total);
        }
    }
    inputs.iter().try_for_each(|(_, input)| input.check()).map(|()| counted)
}

/// Runs callgrind, which writes a file whenever `measured` has returned.
fn instructions() -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    let out = Scratch::new()?;
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg("--toggle-collect=codec_rounds::measured")
        .arg("--dump-after=codec_rounds::measured")
        .arg(format!("--callgrind-out-file={}", out.0.join("out").display()))
        .arg(env!("CARGO_BIN_EXE_codec-rounds"))
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}); Debian's package of that name has it"))?;
    if !output.status.success() {
        return Err(
            format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    let measured = String::from_utf8(output.stdout)?;
    let mut counted = BTreeMap::new();
    for (index, case) in measured.lines().enumerate() {
        let path = out.0.join(format!("out.{}", index + 1));
        let file = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let total = file.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap_or_default();
        let total: u64 = total.parse().map_err(|_| format!("{}: no total", path.display()))?;
        counted.insert(case.to_owned(), total);
    }
    for case in Case::all() {
        if counted.get(&case.to_string()).is_none_or(|&instructions| instructions < RECORDS as u64) {
            return Err(format!("callgrind did not count {case}").into());
        }
    }
    Ok(counted)
}

/// A directory that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Box<dyn Error>> {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("codec-counts-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The versions that the number of instructions depends on.
fn tools() -> Result<String, Box<dyn Error>> {
    let first_line = |program: &str, argument: &str| -> Result<String, Box<dyn Error>> {
        let output = Command::new(program).arg(argument).output().map_err(|e| format!("{program}: {e}"))?;
        Ok(String::from_utf8(output.stdout)?.lines().next().unwrap_or_default().to_owned())
    };
    let rustc = first_line("rustc", "--version")?;
    let libc = first_line("getconf", "GNU_LIBC_VERSION")?;
    let valgrind = first_line("valgrind", "--version")?;
    Ok(format!("{rustc}, {libc}, {valgrind}, {}", env::consts::ARCH))
}
