//! `kwal audit`: what endangers a log.

use kwal::client::{Finding, Severity};
use serde::Serialize;

use super::Session;
use crate::{
    exit::{Exit, Failure},
    output::Table,
};

/// Lists what endangers the records or the appends of a topic
///
/// It compares the configs of the topic and its brokers, and its replicas, with what a write-ahead log needs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exits with 1 if there are findings of at least the severity of --fail-on.

JSON: one object, {\"topic\", \"findings\": [{\"severity\", \"setting\", \"brokers\", \"found\", \"source\",
\"wanted\", \"why\"}]}, the gravest first.

Examples:
  kwal audit wal
  kwal audit wal --fail-on error && deploy
  kwal audit wal --json | jq -r '.findings[] | select(.severity == \"error\") | .why'")]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// The least severity that is a failure: unknown (what could not be checked), info, warning, error
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    fail_on: Level,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Level {
    Unknown,
    Info,
    Warning,
    Error,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Unknown => Self::Unknown,
            Level::Info => Self::Info,
            Level::Warning => Self::Warning,
            Level::Error => Self::Error,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    topic: &'a str,
    findings: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Found<'a> {
    severity: String,
    setting: &'a str,
    brokers: &'a [i32],
    found: Option<&'a str>,
    source: Option<String>,
    wanted: &'a str,
    why: &'a str,
}

impl<'a> Found<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            severity: finding.severity.to_string(),
            setting: finding.setting,
            brokers: &finding.brokers,
            found: finding.found.as_deref(),
            source: finding.source.map(|source| source.to_string()),
            wanted: &finding.wanted,
            why: &finding.why,
        }
    }
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let controller = session.controller().await?;
    let findings = session.interrupt.or(controller.audit(&args.topic)).await?;
    if session.out.is_json() {
        session
            .out
            .json(&Report { topic: &args.topic, findings: findings.iter().map(Found::of).collect() })?;
    } else if findings.is_empty() {
        session.out.tell(format_args!("nothing endangers {}", args.topic));
    } else {
        let mut table = Table::new(&["SEVERITY", "FINDING"]);
        for finding in &findings {
            let severity = finding.severity.to_string();
            let text = finding.to_string();
            let text = text.strip_prefix(&format!("{severity}: ")).unwrap_or(&text).to_owned();
            table.row([severity, text]);
        }
        session.out.table(table)?;
    }
    let least = Severity::from(args.fail_on);
    Ok(if findings.iter().any(|finding| finding.severity >= least) { Exit::Negative } else { Exit::Success })
}
