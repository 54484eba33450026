//! Apache Kafka, started by the tests or given by `KAFKA_CONNECT`.

mod certificates;
mod cluster;
pub(crate) mod install;
mod java;
mod listeners;
mod ready;
mod token;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::{fmt, fs};

pub use self::certificates::Certificates;
pub use self::cluster::{Cluster, ClusterConfig, Node, free_port};
use self::install::Installation;
pub use self::java::Java;
pub use self::listeners::{Listener, MECHANISMS, PASSWORD, SHORT_SESSION_MS, USER};
pub use self::token::unsecured_token;

/// A version of Apache Kafka that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.9.2, of the last release line with the protocol versions that KIP-896 removed.
    V3_9_2,
    /// 4.3.1, the newest.
    V4_3_1,
}

impl Version {
    /// Returns the version as Maven writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3_9_2 => "3.9.2",
            Self::V4_3_1 => "4.3.1",
        }
    }

    fn pom(self) -> &'static str {
        match self {
            Self::V3_9_2 => include_str!("../../kafka/3.9.2/pom.xml"),
            Self::V4_3_1 => include_str!("../../kafka/4.3.1/pom.xml"),
        }
    }

    fn installation(self) -> Result<&'static Installation, String> {
        static INSTALLATIONS: [OnceLock<Result<Installation, String>>; 2] = [const { OnceLock::new() }; 2];
        let installation = INSTALLATIONS[self as usize].get_or_init(|| Installation::of(self));
        installation.as_ref().map_err(Clone::clone)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A cluster to test against, and Kafka's own tools for it.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: Vec<String>,
    version: Option<Version>,
    tools: Version,
    cluster: Option<Cluster>,
    java: OnceLock<Java>,
}

impl Kafka {
    /// Returns the broker of this version that the tests of this process share. No test may stop it. It
    /// creates topics automatically, which is Kafka's default.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn shared(version: Version) -> &'static Self {
        static SHARED: [OnceLock<Result<Kafka, String>>; 2] = [const { OnceLock::new() }; 2];
        let started =
            SHARED[version as usize].get_or_init(|| Self::try_start(version, &ClusterConfig::default()));
        started.as_ref().unwrap_or_else(|e| panic!("no Kafka {version}: {e}"))
    }

    /// Returns the three shared brokers of this version with all kinds of listeners
    /// ([`ClusterConfig::secured`]).
    ///
    /// # Panics
    ///
    /// If they cannot be started.
    pub fn secured(version: Version) -> &'static Self {
        static SECURED: [OnceLock<Result<Kafka, String>>; 2] = [const { OnceLock::new() }; 2];
        let started =
            SECURED[version as usize].get_or_init(|| Self::try_start(version, &ClusterConfig::secured(3)));
        started.as_ref().unwrap_or_else(|e| panic!("no Kafka {version}: {e}"))
    }

    /// Starts a cluster. It ends when the value is dropped.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(version: Version, config: &ClusterConfig) -> Self {
        Self::try_start(version, config).unwrap_or_else(|e| panic!("no Kafka {version}: {e}"))
    }

    /// Returns the cluster of `KAFKA_CONNECT`.
    ///
    /// # Panics
    ///
    /// If the variable is not set.
    pub fn external() -> &'static Self {
        static EXTERNAL: OnceLock<Kafka> = OnceLock::new();
        EXTERNAL.get_or_init(|| {
            let brokers = std::env::var("KAFKA_CONNECT").expect("KAFKA_CONNECT=host:port[,…] is set");
            let bootstrap = brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
            Self::at(bootstrap, Version::V4_3_1)
        })
    }

    /// Creates a handle to a running cluster, with Kafka's Java client and tools of version `tools`.
    pub fn at(bootstrap: Vec<String>, tools: Version) -> Self {
        Self { bootstrap, version: None, tools, cluster: None, java: OnceLock::new() }
    }

    /// Returns `host:port` of the brokers' listeners without encryption and authentication.
    pub fn bootstrap(&self) -> Vec<String> {
        self.bootstrap.clone()
    }

    /// Returns the version; `None` for a cluster that was not started here.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Returns the broker processes; `None` for a cluster that was not started here.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Returns Kafka's Java client of the same version (4.3.1 for `KAFKA_CONNECT`).
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn java(&self) -> &Java {
        self.java.get_or_init(|| {
            let start = || {
                let log = match &self.cluster {
                    Some(cluster) => cluster.dir().join("java.log"),
                    None => {
                        let run = install::RUN.as_ref().map_err(Clone::clone)?;
                        run.dir.join(format!("java-{}.log", install::uuid()))
                    }
                };
                Java::start(self.tools.installation()?, &self.bootstrap.join(","), &log)
            };
            start().unwrap_or_else(|e| panic!("no Java client: {e}"))
        })
    }

    /// Returns a unique topic name.
    pub fn topic_name(&self, what: &str) -> String {
        format!("{what}-{}", install::uuid())
    }

    /// Creates a topic and returns its unique name. Retention is unlimited, since the samples have old
    /// timestamps.
    pub async fn topic(&self, what: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = self.topic_name(what);
        let configs = [configs, &[("retention.ms", "-1")]].concat();
        self.java().create_topic(&name, partitions, &configs).await;
        name
    }

    /// Returns the end offset of each partition as Kafka's `GetOffsetShell` prints it.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn end_offsets(&self, topic: &str) -> Vec<i64> {
        let bootstrap = self.bootstrap.join(",");
        let topic_pattern = topic.replace('.', "\\.");
        let arguments = [
            "org.apache.kafka.tools.GetOffsetShell",
            "--bootstrap-server",
            &bootstrap,
            "--topic",
            &topic_pattern,
        ];
        let printed = self.tool(&arguments).await;
        let parse = |line: &str| {
            let (rest, offset) = line.rsplit_once(':')?;
            let (name, partition) = rest.rsplit_once(':')?;
            (name == topic).then_some(())?;
            Some((partition.parse::<u32>().ok()?, offset.parse::<i64>().ok()?))
        };
        let mut offsets: Vec<_> = printed.lines().filter_map(parse).collect();
        offsets.sort_unstable();
        assert!(!offsets.is_empty(), "GetOffsetShell printed: {printed}");
        offsets.into_iter().map(|(_, offset)| offset).collect()
    }

    /// Runs Kafka's `DumpLogSegments` on a partition's segments on a node. It prints a line for each batch.
    ///
    /// # Panics
    ///
    /// If it fails, or the cluster was not started here.
    pub async fn dump_log(&self, node: u16, topic: &str, partition: i32) -> String {
        self.dump_batches(&self.segments(node, topic, partition)).await
    }

    /// Runs `DumpLogSegments` on segment files. It prints a line for each batch.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn dump_batches(&self, segments: &[PathBuf]) -> String {
        self.dump(segments, &[]).await
    }

    /// Runs `DumpLogSegments` on segment files. It prints a line for each batch and each record.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn dump_records(&self, segments: &[PathBuf]) -> String {
        self.dump(segments, &["--print-data-log"]).await
    }

    /// Returns the segment files of a partition on a node, in offset order.
    ///
    /// # Panics
    ///
    /// If there are none, or the cluster was not started here.
    pub fn segments(&self, node: u16, topic: &str, partition: i32) -> Vec<PathBuf> {
        let cluster = self.cluster().expect("the cluster was started here");
        let dir = cluster.node(node).data().join(format!("{topic}-{partition}"));
        let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let mut segments: Vec<_> = files
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        segments.sort_unstable();
        assert!(!segments.is_empty(), "{} has no segments", dir.display());
        segments
    }

    async fn dump(&self, segments: &[PathBuf], options: &[&str]) -> String {
        let class = match self.tools {
            Version::V3_9_2 => "kafka.tools.DumpLogSegments",
            Version::V4_3_1 => "org.apache.kafka.tools.DumpLogSegments",
        };
        let files: Vec<_> = segments.iter().map(|path| path.display().to_string()).collect();
        self.tool(&[&[class, "--files", &files.join(",")], options].concat()).await
    }

    /// Runs the main class of one of Kafka's tools and returns its output.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn tool(&self, command: &[&str]) -> String {
        let installation = self.tools.installation().unwrap_or_else(|e| panic!("no tools of Kafka: {e}"));
        let java = installation.java();
        let mut tool = Command::new(&java[0]);
        tool.args(&java[1..]).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").args(command);
        let output = tokio::task::spawn_blocking(move || tool.output())
            .await
            .expect("running a command does not panic");
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", command[0]));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}: {}: {printed}\n{}",
            command[0],
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        printed
    }

    fn try_start(version: Version, config: &ClusterConfig) -> Result<Self, String> {
        let cluster = Cluster::start(version, config)?;
        Ok(Self {
            bootstrap: cluster.bootstrap(),
            version: Some(version),
            tools: version,
            cluster: Some(cluster),
            java: OnceLock::new(),
        })
    }
}
