//! Apache Kafka's jars, the Java program of the tests and a formatted storage directory, below the target
//! directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, io};

use rustix::fs::{FlockOperation, flock};

use super::Version;
use super::cluster::{Cluster, ClusterConfig};
use super::listeners::{PASSWORD, USER};

const INTEROP: &str = include_str!("../../java/Interop.java");

/// The installation of one version.
#[derive(Debug)]
pub(crate) struct Installation {
    dir: PathBuf,
}

impl Installation {
    /// Installs what is missing. Concurrent processes wait for the first one.
    pub(super) fn of(version: Version) -> Result<Self, String> {
        let dir = root().join(version.as_str());
        fs::create_dir_all(&dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
        let installation = Self { dir };
        let _lock = lock(&installation.dir.join("lock"))?;
        installation.jars(version)?;
        installation.program()?;
        installation.format()?;
        installation.archive(version)?;
        Ok(installation)
    }

    /// Returns a `java` command line without the main class.
    pub(super) fn java(&self) -> Vec<OsString> {
        let mut class_path = self.dir.join("libs/*").into_os_string();
        class_path.push(":");
        class_path.push(self.dir.join("classes"));
        // Optimised for a fast start and a small heap: processes run for seconds.
        let options = ["-Xmx400m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"];
        let mut command = vec![java_tool("java")];
        command.extend(options.map(OsString::from));
        let archive = self.dir.join(ARCHIVE);
        if archive.exists() {
            let mut option = OsString::from("-XX:SharedArchiveFile=");
            option.push(archive);
            command.insert(1, option);
        }
        command.push(class_path);
        command
    }

    /// Copies the formatted storage directory to `data` for node `node_id`.
    pub(super) fn copy_storage(&self, data: &Path, node_id: u16, cluster_id: &str) -> io::Result<()> {
        fs::create_dir_all(data)?;
        for entry in fs::read_dir(self.dir.join("storage"))? {
            let entry = entry?;
            if entry.file_name() != "meta.properties" {
                fs::copy(entry.path(), data.join(entry.file_name()))?;
            }
        }
        let directory_id = uuid();
        let meta =
            format!("version=1\nnode.id={node_id}\ncluster.id={cluster_id}\ndirectory.id={directory_id}\n");
        fs::write(data.join("meta.properties"), meta)
    }

    fn jars(&self, version: Version) -> Result<(), String> {
        once(&self.dir.join("pom.xml"), version.pom(), |pom| {
            let libs = self.dir.join("libs");
            remove(&libs)?;
            let mut output = OsString::from("-DoutputDirectory=");
            output.push(&libs);
            let mut maven = Command::new("mvn");
            maven.args(["-q", "-B", "dependency:copy-dependencies", "-f"]).arg(pom).arg(output);
            run(&mut maven, "Maven, which downloads Apache Kafka")
        })
    }

    fn program(&self) -> Result<(), String> {
        once(&self.dir.join("Interop.java"), INTEROP, |source| {
            let mut javac = Command::new(java_tool("javac"));
            javac.arg("-cp").arg(self.dir.join("libs/*")).arg("-d").arg(self.dir.join("classes")).arg(source);
            run(&mut javac, "javac of a Java 17 JDK")
        })
    }

    fn format(&self) -> Result<(), String> {
        let storage = self.dir.join("storage");
        let properties = format!(
            "# {USER}\nprocess.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n\
             listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}\n",
            storage.display()
        );
        once(&self.dir.join("format.properties"), &properties, |config| {
            remove(&storage)?;
            let java = self.java();
            let mut format = Command::new(&java[0]);
            format
                .args(&java[1..])
                .args(["kafka.tools.StorageTool", "format", "-t", &uuid(), "-c"])
                .arg(config);
            // The first user of a cluster must be added before it starts.
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let user = format!("{mechanism}=[name={USER},password={PASSWORD}]");
                format.args(["--add-scram", &user]);
            }
            run(&mut format, "Kafka's StorageTool")
        })
    }

    /// Archives the classes that a broker loads (JEP 350), which more than halves the time of later starts.
    fn archive(&self, version: Version) -> Result<(), String> {
        once(&self.dir.join("archive.made"), version.as_str(), |_| {
            let mut option = OsString::from("-XX:ArchiveClassesAtExit=");
            option.push(self.dir.join(ARCHIVE));
            let cluster = Cluster::start_with(version, self, &ClusterConfig::secured(1), &[option])?;
            // The readiness check was a client and made the broker load most of its network code.
            cluster.nodes().iter().try_for_each(|node| node.stop())
        })
    }
}

/// The class archive.
const ARCHIVE: &str = "classes.jsa";

/// Returns the directory of installations and runs, below the target directory.
pub(crate) fn root() -> PathBuf {
    let out = Path::new(env!("OUT_DIR"));
    let target = out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.unwrap_or(out).join("kafka")
}

/// The directory of this process, with logs and, while brokers run, data. Those of the last ended processes
/// are kept.
pub(crate) static RUN: LazyLock<Result<Run, String>> =
    LazyLock::new(|| Run::new().map_err(|e| format!("a run directory: {e}")));

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) dir: PathBuf,
    _alive: File,
}

impl Run {
    fn new() -> io::Result<Self> {
        let runs = root().join("runs");
        let dir = runs.join(std::process::id().to_string());
        fs::create_dir_all(&runs)?;
        let _ = fs::remove_dir_all(&dir);
        prune(&runs);
        fs::create_dir(&dir)?;
        let alive = File::create(dir.join("alive"))?;
        flock(&alive, FlockOperation::LockExclusive)?;
        Ok(Self { dir, _alive: alive })
    }
}

/// Removes the directories of ended processes except the newest. Errors are ignored, since another process
/// may do the same concurrently.
fn prune(runs: &Path) {
    let age = |dir: &PathBuf| fs::metadata(dir).and_then(|meta| meta.modified()).ok();
    let Ok(entries) = fs::read_dir(runs) else { return };
    let mut ended: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    ended.retain(|dir| {
        File::open(dir.join("alive"))
            .is_ok_and(|alive| flock(&alive, FlockOperation::NonBlockingLockExclusive).is_ok())
    });
    ended.sort_by_key(age);
    for dir in ended.iter().rev().skip(4) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// Returns 128 random bits in Kafka's notation.
pub(crate) fn uuid() -> String {
    // 21 digits of six bits, and one whose last four bits are zero.
    std::iter::repeat_with(fastrand::alphanumeric).take(21).chain(['A']).collect()
}

/// Runs `make` unless `file` already contains `text`, which is written after a successful run.
fn once(file: &Path, text: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    if fs::read_to_string(file).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let source_dir = file.with_file_name("source");
    let source = source_dir.join(file.file_name().unwrap_or_default());
    fs::create_dir_all(&source_dir)
        .and_then(|()| fs::write(&source, text))
        .map_err(|e| format!("cannot write {}: {e}", source.display()))?;
    make(&source)?;
    fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

fn remove(dir: &Path) -> Result<(), String> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("cannot remove {}: {e}", dir.display())),
        _ => Ok(()),
    }
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|e| {
        format!(
            "cannot run {what}: {e}. Tests against real brokers need Java 17 and Maven, or KAFKA_CONNECT=host:port"
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    Err(format!("{what} failed ({}):\n{}", output.status, String::from_utf8_lossy(&printed)))
}

fn java_tool(name: &str) -> OsString {
    env::var_os("JAVA_HOME")
        .map_or_else(|| name.into(), |home| Path::new(&home).join("bin").join(name).into())
}

fn lock(path: &Path) -> Result<File, String> {
    let file = File::create(path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| format!("cannot lock {}: {e}", path.display()))?;
    Ok(file)
}
