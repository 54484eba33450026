//! Counts of instructions, and the baselines that they are compared with.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The tolerance over the baseline: of instructions and of the bytes of all allocations, and of the ratio to
/// the floor with other tools.
const TOLERANCE: f64 = 1.03;
const RATIO_TOLERANCE: f64 = 1.10;

/// The counts of one case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counts {
    /// What is measured; spaces are allowed.
    pub case: String,
    /// All together, not per record.
    pub instructions: u64,
    /// Those of the floor.
    pub floor: u64,
    /// How often memory was allocated.
    pub allocations: u64,
    /// The bytes of all allocations.
    pub bytes: u64,
}

/// Runs a program under callgrind, and counts the instructions inside of its calls of `measured`.
///
/// After each call, the program prints the name of the case in a line. What the functions in `excluded` do is
/// not counted.
///
/// # Errors
/// Valgrind is missing, or the program fails, or it prints a case that was not measured.
pub fn instructions(
    program: &str,
    measured: &str,
    excluded: &[&str],
    scratch: &Path,
) -> Result<BTreeMap<String, u64>, Box<dyn Error + Send + Sync>> {
    let out = Scratch::new(scratch)?;
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind");
    // Each of them turns counting on or off when it begins and when it ends.
    for function in [measured].iter().chain(excluded) {
        command.arg(format!("--toggle-collect={function}"));
    }
    if !excluded.is_empty() {
        // Outside of `measured`, they have turned it on.
        command.arg(format!("--zero-before={measured}"));
    }
    command
        .arg(format!("--dump-after={measured}"))
        .arg(format!("--callgrind-out-file={}", out.0.join("out").display()))
        .arg(program)
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("valgrind cannot be run ({error}); Debian's package of that name has it"))?;
    if !output.status.success() {
        return Err(
            format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    let printed = String::from_utf8(output.stdout)?;
    let mut counted = BTreeMap::new();
    for (index, case) in printed.lines().enumerate() {
        let path = out.0.join(format!("out.{}", index + 1));
        let file = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let total = file.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap_or_default();
        let total: u64 = total.parse().map_err(|_| format!("{}: no total", path.display()))?;
        counted.insert(case.to_owned(), total);
    }
    Ok(counted)
}

/// A directory that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let path = parent.join(format!("counts-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the versions that the number of instructions depends on.
///
/// # Errors
/// One of the tools is missing.
pub fn tools() -> Result<String, Box<dyn Error + Send + Sync>> {
    let first_line = |program: &str, argument: &str| -> Result<String, Box<dyn Error + Send + Sync>> {
        let output = Command::new(program).arg(argument).output().map_err(|e| format!("{program}: {e}"))?;
        Ok(String::from_utf8(output.stdout)?.lines().next().unwrap_or_default().to_owned())
    };
    let rustc = first_line("rustc", "--version")?;
    let libc = first_line("getconf", "GNU_LIBC_VERSION")?;
    let valgrind = first_line("valgrind", "--version")?;
    Ok(format!("{rustc}, {libc}, {valgrind}, {}", env::consts::ARCH))
}

const TOOLS: &str = "# with ";

/// Counts that were written before.
#[derive(Debug)]
pub struct Baseline {
    tools: String,
    counts: BTreeMap<String, Counts>,
}

impl Baseline {
    /// Returns the text of a baseline. `about` are lines that say what the numbers are.
    pub fn text(about: &str, tools: &str, counts: &[Counts]) -> String {
        let mut text = String::new();
        for line in about.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "{TOOLS}{tools}");
        for Counts { case, instructions, floor, allocations, bytes } in counts {
            let _ = writeln!(text, "{case} {instructions} {floor} {allocations} {bytes}");
        }
        text
    }

    /// Reads the text of a baseline.
    ///
    /// # Errors
    /// A line is not one of a baseline.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tools = text.lines().find_map(|line| line.strip_prefix(TOOLS));
        let row = |line: &str| {
            let mut cells = line.rsplitn(5, ' ');
            let mut number = || cells.next().and_then(|cell| cell.parse().ok());
            let (bytes, allocations) = (number()?, number()?);
            let (floor, instructions) = (number()?, number()?);
            let case = cells.next()?.to_owned();
            Some((case.clone(), Counts { case, instructions, floor, allocations, bytes }))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let rows = lines.map(|line| row(line).ok_or_else(|| format!("no row of a baseline: {line}")));
        Ok(Self {
            tools: tools.ok_or("the baseline does not name the tools it was made with")?.to_owned(),
            counts: rows.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the regressions.
    pub fn compare(&self, tools: &str, counts: &[Counts]) -> Vec<String> {
        let same_tools = self.tools == tools;
        if !same_tools {
            println!("The baseline is of {}: only ratios and allocations compare with it", self.tools);
        }
        let mut faults = Vec::new();
        for Counts { case, instructions, floor, allocations, bytes } in counts {
            let Some(before) = self.counts.get(case) else {
                faults.push(format!("{case}: not in the baseline; write it again with `--write`"));
                continue;
            };
            let ratio = |instructions: u64, floor: u64| instructions as f64 / floor as f64;
            let (change, tolerance) = match same_tools {
                true => (ratio(*instructions, before.instructions), TOLERANCE),
                false => {
                    let before = ratio(before.instructions, before.floor);
                    (ratio(*instructions, *floor) / before, RATIO_TOLERANCE)
                }
            };
            if change > tolerance {
                let what = if same_tools { "instructions" } else { "instructions by those of the floor" };
                faults.push(format!("{case}: {:+.1} % {what} since the baseline", (change - 1.0) * 100.0));
            } else if same_tools && change < 1.0 / tolerance {
                println!("{case}: {:+.1} % instructions; `--write` keeps it", (change - 1.0) * 100.0);
            }
            if *allocations != before.allocations {
                faults.push(format!(
                    "{case}: {allocations} allocations, {} in the baseline; if that is meant, `--write`",
                    before.allocations
                ));
            }
            if *bytes as f64 > before.bytes as f64 * TOLERANCE {
                let kept = before.bytes;
                faults.push(format!("{case}: {bytes} bytes allocated, {kept} in the baseline"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: u64, floor: u64, allocations: u64) -> [Counts; 1] {
        let case = "encode 1KiB kwal".to_owned();
        [Counts { case, instructions, floor, allocations, bytes: 100 }]
    }

    #[test]
    fn a_baseline_detects_regressions() {
        let text = Baseline::text("Two\nlines.", "rustc 1", &counts(1_000, 500, 2));
        assert_eq!(text, "# Two\n# lines.\n# with rustc 1\nencode 1KiB kwal 1000 500 2 100\n");
        let baseline = Baseline::parse(&text).unwrap();
        let faults = |tools, instructions, floor, allocations| {
            baseline.compare(tools, &counts(instructions, floor, allocations)).len()
        };
        assert_eq!(faults("rustc 1", 1_029, 500, 2), 0);
        assert_eq!(faults("rustc 1", 900, 500, 2), 0);
        assert_eq!(faults("rustc 1", 1_031, 500, 2), 1);
        assert_eq!(faults("rustc 1", 1_031, 500, 3), 2);
        // With other tools, the floor moves, too.
        assert_eq!(faults("rustc 2", 2_190, 1_000, 2), 0);
        assert_eq!(faults("rustc 2", 2_210, 1_000, 2), 1);
        assert_eq!(faults("rustc 2", 1_000, 500, 1), 1);
        let [large] = counts(1_000, 500, 2);
        assert_eq!(baseline.compare("rustc 1", &[Counts { bytes: 103, ..large.clone() }]).len(), 0);
        assert_eq!(baseline.compare("rustc 1", &[Counts { bytes: 104, ..large }]).len(), 1);
        let other = [Counts { case: "decode".to_owned(), ..counts(1, 1, 1)[0].clone() }];
        assert_eq!(baseline.compare("rustc 1", &other).len(), 1);
        assert!(Baseline::parse("encode 1000 500 2\n").is_err());
        assert!(Baseline::parse(&format!("{text}encode\n")).is_err());
    }
}
