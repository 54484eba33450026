//! Apache Kafka's jars, our Java program and a formatted storage directory, made once below the target directory.

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

/// What is installed of one version.
#[derive(Debug)]
pub(crate) struct Installation {
    dir: PathBuf,
}

impl Installation {
    /// Installs what is not there yet; processes that come at the same time wait for the first.
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

    /// A `java` command line up to and without the main class.
    pub(super) fn java(&self) -> Vec<OsString> {
        let mut class_path = self.dir.join("libs/*").into_os_string();
        class_path.push(":");
        class_path.push(self.dir.join("classes"));
        // Short start, small heap: what is run here is run for seconds.
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

    /// Makes `data` a storage directory of node `node_id`.
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
            run(&mut maven, "Maven, which fetches Apache Kafka")
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
            // A cluster that nobody has logged in to yet has nobody who could add its first user.
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let user = format!("{mechanism}=[name={USER},password={PASSWORD}]");
                format.args(["--add-scram", &user]);
            }
            run(&mut format, "Kafka's StorageTool")
        })
    }

    /// Keeps the classes that a broker loads in the form in which Java works with them (JEP 350): the next one starts in
    /// less than half the time.
    fn archive(&self, version: Version) -> Result<(), String> {
        once(&self.dir.join("archive.made"), version.as_str(), |_| {
            let mut option = OsString::from("-XX:ArchiveClassesAtExit=");
            option.push(self.dir.join(ARCHIVE));
            let cluster = Cluster::start_with(version, self, &ClusterConfig::secured(1), &[option])?;
            // Whoever comes in first makes it load the most.
            cluster.nodes().iter().try_for_each(|node| node.stop())
        })
    }
}

/// The archive of classes.
const ARCHIVE: &str = "classes.jsa";

/// The directory below the target directory where everything of real brokers lies.
pub(crate) fn root() -> PathBuf {
    let out = Path::new(env!("OUT_DIR"));
    let target = out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.unwrap_or(out).join("kafka")
}

/// The directory of this process's runs: logs and, while it runs, data. Those of ended processes go, but for the last.
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

/// Removes the directories of ended processes, but for the newest few. Another process may be at it as well, so that
/// what is not there any more is no error.
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

/// 128 random bits as Kafka writes them.
pub(crate) fn uuid() -> String {
    // 21 digits of six bits, and one whose last four bits are zero.
    std::iter::repeat_with(fastrand::alphanumeric).take(21).chain(['A']).collect()
}

/// Runs `make` unless `file` already holds `text`, which says that it was run for it.
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
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{what} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said)))
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
