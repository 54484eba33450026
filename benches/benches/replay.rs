//! Measures what it costs to read a log from its start to its end: processor time and throughput of kwal, the
//! floor and other clients.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench replay                                       # kwal and the floor
//! PEERS=1 cargo bench -p kwal-benches --features compression-zstd --bench replay   # all clients, zstd too
//! KWAL_LONG=1 PEERS=1 cargo bench -p kwal-benches --features compression-zstd --bench replay
//! BEFORE=…/replay-log cargo bench -p kwal-benches --bench replay
//! ```
//!
//! The log is in a sink, a process that answers from memory, and with
//! `KAFKA_CONNECT=host:port[,host:port…]` also in a topic of those brokers. Each run is a process of its own
//! with one thread, unless the client starts more, whose processor time (user and system, all threads) is
//! measured after an eighth of the log. The readers take turns; the ratios are of runs in the same turn. All
//! verify checksums and use every byte of every value, and have to read the same.
//!
//! kwal reads in three ways: a replay by borrowed records, by owned ones, and one fetch after the other by
//! borrowed ones. The floor is no client: it sends the next request before it looks at a response, reuses its
//! buffers, computes checksums and walks the records. For a codec, it decompresses as well; `codec` is the
//! decompressor alone. Both are what kwal uses.
//!
//! `PEERS=1` builds the other clients from `benches/peers`, which takes some minutes and a C compiler.
//! `PEERS` can also name the program that was built before. `BEFORE` names the program `replay-log` of
//! another state of the source. `WORKLOADS=1KiB,lz4` selects those whose name contains one of the words,
//! `STEP` is the maximum size of a fetch in bytes (default 1 MiB). `KWAL_LONG=1` reads four times as much,
//! three times as often. Linux only.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kwal_benches::{
    Table, median,
    programs::{self, Sink, run_program},
    replay::{Content, Measured, TOPIC, Task},
};
use kwal_protocol::compression::Compression;
use time::OffsetDateTime;

/// Name, records per batch, bytes per record.
const SHAPES: [(&str, usize, usize); 3] =
    [("1KiB", 1_000, 1_024), ("100B", 10_000, 100), ("100KB", 10, 100_000)];
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];
/// Bytes of the values of a log, and turns.
const SHORT: (usize, usize) = (128 << 20, 5);
const LONG: (usize, usize) = (512 << 20, 15);
const STEP: i32 = 1 << 20;

fn main() -> ExitCode {
    kwal_benches::exit_code("replay", run().map(|()| true))
}

fn run() -> Result<(), Box<dyn Error>> {
    let (bytes, turns) = if env::var_os("KWAL_LONG").is_some() { LONG } else { SHORT };
    let step = env::var("STEP").map_or(Ok(STEP), |step| step.parse())?;
    let only = env::var("WORKLOADS").unwrap_or_default();
    let readers = readers()?;
    let mut targets = vec![None];
    targets.extend(env::var("KAFKA_CONNECT").ok().filter(|brokers| !brokers.is_empty()).map(Some));
    for brokers in &targets {
        let brokers = brokers.as_deref();
        println!("{}: medians of {turns} turns, fetches of {step} bytes", brokers.unwrap_or("sink"));
        let mut table = Table::new(["", "", "s/GB", "× floor", "+ codec s/GB", "GB/s", "page faults per MB"]);
        for codec in CODECS.into_iter().filter(|codec| codec.is_built_in()) {
            for (shape, records, size) in SHAPES {
                let name = format!("{shape} {codec}");
                if !only.is_empty() && !only.split(',').any(|word| name.contains(word)) {
                    continue;
                }
                let content = Content { records, size, codec, batches: bytes.div_ceil(records * size) };
                let measured = measure(&readers, content, step, brokers, turns)?;
                rows(&mut table, &name, &readers, &measured);
            }
        }
        println!("{table}");
    }
    Ok(())
}

/// A way to read.
struct Reader {
    name: String,
    program: PathBuf,
    subject: &'static str,
}

fn readers() -> Result<Vec<Reader>, Box<dyn Error>> {
    let reader = |subject: &'static str, program: &Path| Reader {
        name: subject.to_owned(),
        program: program.to_owned(),
        subject,
    };
    let ours = Path::new(OURS);
    let mut readers: Vec<_> = [FLOOR, CODEC, "kwal-borrowed", "kwal-owned", "kwal-fetches"]
        .map(|subject| reader(subject, ours))
        .into();
    if let Ok(before) = env::var("BEFORE") {
        for subject in ["kwal-borrowed", "kwal-owned", "kwal-fetches"] {
            let name = format!("{subject} before");
            readers.push(Reader { name, ..reader(subject, Path::new(&before)) });
        }
    }
    if let Some(peers) = programs::peers(Path::new(env!("CARGO_TARGET_TMPDIR")))? {
        readers.extend(["rskafka", "rdkafka", "krafka"].map(|subject| reader(subject, &peers)));
    }
    Ok(readers)
}

const OURS: &str = env!("CARGO_BIN_EXE_replay-log");
const FLOOR: &str = "floor";
const CODEC: &str = "codec";

/// What each reader took in a turn, by name.
struct Turn(BTreeMap<String, Measured>);

fn measure(
    readers: &[Reader],
    content: Content,
    step: i32,
    brokers: Option<&str>,
    turns: usize,
) -> Result<Vec<Turn>, Box<dyn Error>> {
    let log = Log::new(content, brokers)?;
    let expected = (content.len(), content.sum());
    let mut measured = Vec::new();
    for turn in 0..turns {
        let mut times = BTreeMap::new();
        for at in 0..readers.len() {
            let reader = &readers[(at + turn) % readers.len()];
            if reader.subject == CODEC && content.codec == Compression::None {
                continue;
            }
            let task = Task { subject: reader.subject.to_owned(), step, ..log.task.clone() };
            let more = (reader.subject == CODEC).then_some(content);
            let took: Measured = run_program(&reader.program, arguments(&task, more))?.parse()?;
            if (took.records, took.sum) != expected {
                let (records, sum) = expected;
                return Err(format!(
                    "{} read {} records with the sum {}, not {records} with {sum}",
                    reader.name, took.records, took.sum
                )
                .into());
            }
            times.insert(reader.name.clone(), took);
        }
        measured.push(Turn(times));
    }
    log.delete()?;
    Ok(measured)
}

fn arguments(task: &Task, content: Option<Content>) -> impl Iterator<Item = String> {
    task.arguments().into_iter().chain(content.into_iter().flat_map(|content| content.arguments()))
}

/// A log that can be read.
struct Log {
    task: Task,
    sink: Option<Sink>,
}

impl Log {
    fn new(content: Content, brokers: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let mut task = Task {
            subject: "fill".to_owned(),
            topic: TOPIC.to_owned(),
            records: content.len(),
            step: STEP,
            bootstrap: Vec::new(),
        };
        let Some(brokers) = brokers else {
            let sink = Sink::start(env!("CARGO_BIN_EXE_replay-sink"), content)?;
            task.bootstrap = vec![sink.address.clone()];
            return Ok(Self { task, sink: Some(sink) });
        };
        task.bootstrap = brokers.split(',').map(str::to_owned).collect();
        task.topic = format!("replay-{}", OffsetDateTime::now_utc().unix_timestamp_nanos());
        run_program(Path::new(OURS), arguments(&task, Some(content)))?;
        Ok(Self { task, sink: None })
    }

    fn delete(self) -> Result<(), Box<dyn Error>> {
        if self.sink.is_none() {
            let task = Task { subject: "delete".to_owned(), ..self.task };
            run_program(Path::new(OURS), arguments(&task, None))?;
        }
        Ok(())
    }
}

/// Returns the median of a figure of a reader; `None` if it has none.
fn figure(turns: &[Turn], reader: &str, of: impl Fn(&Measured, &Turn) -> Option<f64>) -> Option<f64> {
    let figures: Vec<_> =
        turns.iter().filter_map(|turn| turn.0.get(reader).and_then(|took| of(took, turn))).collect();
    (!figures.is_empty()).then(|| median(figures))
}

fn rows(table: &mut Table, name: &str, readers: &[Reader], turns: &[Turn]) {
    let shown =
        |figure: Option<f64>, digits| figure.map(|figure| format!("{figure:.digits$}")).unwrap_or_default();
    for (at, reader) in readers.iter().enumerate() {
        let reader = &*reader.name;
        let Some(cpu) = figure(turns, reader, |took, _| Some(took.cpu_per_gb())) else { continue };
        let to_floor =
            figure(turns, reader, |took, turn| Some(took.cpu_per_gb() / turn.0.get(FLOOR)?.cpu_per_gb()));
        let on_codec =
            figure(turns, reader, |took, turn| Some(took.cpu_per_gb() - turn.0.get(CODEC)?.cpu_per_gb()));
        table.row([
            if at == 0 { name.to_owned() } else { String::new() },
            reader.to_owned(),
            format!("{cpu:.3}"),
            shown(to_floor, 2),
            shown(on_codec.filter(|_| reader != CODEC), 2),
            shown(figure(turns, reader, |took, _| Some(took.throughput())), 2),
            shown(figure(turns, reader, |took, _| Some(took.faults_per_mb())), 1),
        ]);
    }
}
