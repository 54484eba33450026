//! Real Apache Kafka, started here or named by `KAFKA_CONNECT`.

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
    /// 3.9.2, the last one that speaks the protocol versions of ZooKeeper's days.
    V3_9_2,
    /// 4.3.1, the newest.
    V4_3_1,
}

impl Version {
    /// As Maven writes it.
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
    /// The broker of this version that the tests of this process share: nobody ends it. Topics come into being when
    /// somebody asks for them, as is Kafka's default.
    ///
    /// # Panics
    ///
    /// If it cannot be had.
    pub fn shared(version: Version) -> &'static Self {
        static SHARED: [OnceLock<Result<Kafka, String>>; 2] = [const { OnceLock::new() }; 2];
        let started =
            SHARED[version as usize].get_or_init(|| Self::try_start(version, &ClusterConfig::default()));
        started.as_ref().unwrap_or_else(|e| panic!("no Kafka {version}: {e}"))
    }

    /// The three brokers of this version with every way in ([`ClusterConfig::secured`]), shared as [`Self::shared`] is.
    ///
    /// # Panics
    ///
    /// If they cannot be had.
    pub fn secured(version: Version) -> &'static Self {
        static SECURED: [OnceLock<Result<Kafka, String>>; 2] = [const { OnceLock::new() }; 2];
        let started =
            SECURED[version as usize].get_or_init(|| Self::try_start(version, &ClusterConfig::secured(3)));
        started.as_ref().unwrap_or_else(|e| panic!("no Kafka {version}: {e}"))
    }

    /// A cluster of one's own, ended with the value.
    ///
    /// # Panics
    ///
    /// If it cannot be had.
    pub fn start(version: Version, config: &ClusterConfig) -> Self {
        Self::try_start(version, config).unwrap_or_else(|e| panic!("no Kafka {version}: {e}"))
    }

    /// The cluster of `KAFKA_CONNECT`.
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

    /// A cluster of somebody else's at these addresses, with Kafka's Java client and tools of this version for it.
    pub fn at(bootstrap: Vec<String>, tools: Version) -> Self {
        Self { bootstrap, version: None, tools, cluster: None, java: OnceLock::new() }
    }

    /// `host:port` of brokers, without encryption or authentication.
    pub fn bootstrap(&self) -> Vec<String> {
        self.bootstrap.clone()
    }

    /// Its version; not known of one of somebody else's.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The processes, unless it is somebody else's.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Kafka's Java client of this version (4.3.1 for that of `KAFKA_CONNECT`).
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

    /// A name for a topic that nobody else has.
    pub fn topic_name(&self, what: &str) -> String {
        format!("{what}-{}", install::uuid())
    }

    /// A new topic with these settings; its name. Nothing in it grows too old: the samples have timestamps of the past.
    pub async fn topic(&self, what: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = self.topic_name(what);
        let configs = [configs, &[("retention.ms", "-1")]].concat();
        self.java().create_topic(&name, partitions, &configs).await;
        name
    }

    /// The end offset of each partition, asked of Kafka's `GetOffsetShell`.
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
        assert!(!offsets.is_empty(), "GetOffsetShell said: {printed}");
        offsets.into_iter().map(|(_, offset)| offset).collect()
    }

    /// What Kafka's `DumpLogSegments` prints of the segments of a partition on a node: a line for each batch.
    ///
    /// # Panics
    ///
    /// If it fails, or the cluster is an external one.
    pub async fn dump_log(&self, node: u16, topic: &str, partition: i32) -> String {
        self.dump(&self.segments(node, topic, partition), &[]).await
    }

    /// The same of some segment files, with a line for each record as well.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn dump_records(&self, segments: &[PathBuf]) -> String {
        self.dump(segments, &["--print-data-log"]).await
    }

    /// The segment files of a partition on a node, in the order of their offsets.
    ///
    /// # Panics
    ///
    /// If there are none, or the cluster is an external one.
    pub fn segments(&self, node: u16, topic: &str, partition: i32) -> Vec<PathBuf> {
        let cluster = self.cluster().expect("a cluster of ours");
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

    /// Runs the main class of one of Kafka's tools; what it prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn tool(&self, command: &[&str]) -> String {
        let installation = self.tools.installation().unwrap_or_else(|e| panic!("no tools of Kafka: {e}"));
        let java = installation.java();
        let mut tool = Command::new(&java[0]);
        tool.args(&java[1..]).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").args(command);
        let output = tokio::task::spawn_blocking(move || tool.output()).await.expect("no panic there");
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", command[0]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}: {}: {said}\n{}",
            command[0],
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        said
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
