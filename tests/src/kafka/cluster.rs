//! Brokers of Apache Kafka as child processes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use super::install;
use super::process::Guarded;
use super::{Version, ready};

/// What a [`Cluster`] is made of.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// How many nodes; each is broker and controller. 1.
    pub nodes: u16,
    /// Where clients come in; brokers talk over the first. One of PLAINTEXT.
    pub listeners: Vec<Listener>,
    /// More lines of `server.properties`, for every node.
    pub properties: Vec<(String, String)>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self { nodes: 1, listeners: vec![Listener::new("PLAINTEXT", "PLAINTEXT")], properties: Vec::new() }
    }
}

/// A listener of every node of a cluster.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: String,
    /// The host that clients are sent to. `127.0.0.1`.
    pub advertised_host: String,
    /// The port that clients are sent to, node by node: a proxy's. Without it, the listener's own.
    pub advertised_ports: Vec<u16>,
}

impl Listener {
    /// A listener on a free port of 127.0.0.1.
    pub fn new(name: &str, security_protocol: &str) -> Self {
        Self {
            name: name.to_owned(),
            security_protocol: security_protocol.to_owned(),
            advertised_host: "127.0.0.1".to_owned(),
            advertised_ports: Vec::new(),
        }
    }
}

/// Running brokers, ended with this value or with this process, however that ends; their logs stay.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    nodes: Vec<Arc<Node>>,
    listeners: Vec<Listener>,
}

impl Cluster {
    /// Starts the nodes and waits until each knows all.
    ///
    /// # Errors
    ///
    /// What went wrong, as text: no Java, no Maven, a broker that does not start, with the end of its log.
    pub fn start(version: Version, config: &ClusterConfig) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let installation = version.installation()?;
        let run = install::RUN.as_ref().map_err(Clone::clone)?;
        let name = format!("{version}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = run.dir.join(name);

        let ports: Vec<Ports> = (0..config.nodes).map(|_| Ports::take(config.listeners.len())).collect();
        let cluster_id = install::uuid();
        let mut nodes = Vec::new();
        for (id, own) in (1..).zip(&ports) {
            let dir = dir.join(format!("node-{id}"));
            let properties = server_properties(config, id, &ports, &dir);
            let prepared = installation
                .copy_storage(&dir.join("data"), id, &cluster_id)
                .and_then(|()| fs::write(dir.join("server.properties"), properties));
            prepared.map_err(|e| format!("cannot prepare {}: {e}", dir.display()))?;
            let mut command = installation.java();
            command.extend(LOGGING.map(OsString::from));
            command.push("kafka.Kafka".into());
            command.push(dir.join("server.properties").into_os_string());
            let running = Mutex::new(None);
            nodes.push(Arc::new(Node { id, dir, ports: own.listeners.clone(), command, running }));
        }
        let cluster = Self { dir, nodes, listeners: config.listeners.clone() };
        for node in &cluster.nodes {
            node.launch()?;
        }
        for node in &cluster.nodes {
            node.wait_until_ready(config.nodes.into())?;
        }
        Ok(cluster)
    }

    /// Where its logs lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `host:port` of the first listener of every node.
    pub fn bootstrap(&self) -> Vec<String> {
        self.addresses(&self.listeners[0].name)
    }

    /// `host:port` of every node's own port, not a proxy's, of the listener of that name; none if there is no such.
    pub fn addresses(&self, listener: &str) -> Vec<String> {
        let Some(index) = self.listeners.iter().position(|each| each.name == listener) else {
            return Vec::new();
        };
        let host = &self.listeners[index].advertised_host;
        self.nodes.iter().map(|node| format!("{host}:{}", node.ports[index])).collect()
    }

    /// The nodes; ids count from 1.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The node with this id.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn node(&self, id: u16) -> &Arc<Node> {
        self.nodes.iter().find(|node| node.id == id).expect("a node with this id")
    }
}

/// One broker of a [`Cluster`].
///
/// Its methods wait, a start for a second or more: inside a runtime, call them by `spawn_blocking`.
#[derive(Debug)]
pub struct Node {
    id: u16,
    dir: PathBuf,
    ports: Vec<u16>,
    command: Vec<OsString>,
    running: Mutex<Option<Guarded>>,
}

impl Node {
    /// Its `node.id`.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// What it printed, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.dir.join("kafka.log")
    }

    /// Its `log.dirs`: a directory for each partition, with its segments.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends it by SIGKILL and waits until it is gone. Nothing to do if it does not run.
    ///
    /// # Errors
    ///
    /// What went wrong, as text; so for all below.
    pub fn kill(&self) -> Result<(), String> {
        self.end(Signal::KILL)
    }

    /// Shuts it down by SIGTERM and waits until it is gone: its leaders move first.
    pub fn stop(&self) -> Result<(), String> {
        self.end(Signal::TERM)
    }

    /// Stops it in its tracks: connections stay open, and nobody answers.
    pub fn pause(&self) -> Result<(), String> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    /// Starts it again, after [`Self::kill`] or [`Self::stop`], on the same ports and data, and waits until it answers.
    pub fn start(&self) -> Result<(), String> {
        self.launch()?;
        self.wait_until_ready(1)
    }

    /// [`Self::kill`] and [`Self::start`].
    pub fn restart(&self) -> Result<(), String> {
        self.kill()?;
        self.start()
    }

    fn launch(&self) -> Result<(), String> {
        let mut running = self.running();
        if running.is_some() {
            return Err(format!("node {} runs already", self.id));
        }
        let started = Guarded::start(&self.command, &self.log(), &self.data());
        *running = Some(started.map_err(|e| format!("cannot start node {}: {e}", self.id))?);
        Ok(())
    }

    /// Asks until it answers and knows of `brokers`, for a minute.
    fn wait_until_ready(&self, brokers: usize) -> Result<(), String> {
        ready::wait(self.ports[0], brokers, || self.running().as_ref().is_some_and(Guarded::is_running))
            .map_err(|e| {
                format!("node {} {e}; the end of {}:\n{}", self.id, self.log().display(), self.log_end())
            })
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn end(&self, signal: Signal) -> Result<(), String> {
        let Some(process) = self.running().take() else { return Ok(()) };
        process
            .signal(signal)
            .and_then(|()| process.wait())
            .map(drop)
            .map_err(|e| format!("cannot end node {}: {e}", self.id))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let running = self.running();
        let process = running.as_ref().ok_or_else(|| format!("node {} does not run", self.id))?;
        process.signal(signal).map_err(|e| format!("cannot signal node {}: {e}", self.id))
    }

    fn running(&self) -> MutexGuard<'_, Option<Guarded>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports of one node.
struct Ports {
    controller: u16,
    listeners: Vec<u16>,
}

impl Ports {
    /// Ports that nobody listens on. They lie below those the system gives to outgoing connections, so that nobody
    /// gets one while its broker is down, not even a client that looks for the broker.
    fn take(listeners: usize) -> Self {
        static TAKEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = || {
            loop {
                let port = fastrand::u16(10_000..32_000);
                if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                    taken.insert(port);
                    return port;
                }
            }
        };
        Self { controller: next(), listeners: std::iter::repeat_with(next).take(listeners).collect() }
    }
}

fn server_properties(config: &ClusterConfig, id: u16, ports: &[Ports], dir: &Path) -> String {
    let index = usize::from(id) - 1;
    let own = &ports[index];
    let mut listeners = Vec::new();
    let mut advertised = Vec::new();
    let mut protocols = vec!["CONTROLLER:PLAINTEXT".to_owned()];
    for (listener, port) in config.listeners.iter().zip(&own.listeners) {
        let Listener { name, security_protocol, advertised_host, advertised_ports } = listener;
        listeners.push(format!("{name}://127.0.0.1:{port}"));
        advertised
            .push(format!("{name}://{advertised_host}:{}", advertised_ports.get(index).unwrap_or(port)));
        protocols.push(format!("{name}:{security_protocol}"));
    }
    listeners.push(format!("CONTROLLER://127.0.0.1:{}", own.controller));
    let voters: Vec<String> = (1..)
        .zip(ports)
        .map(|(id, ports): (u16, _)| format!("{id}@127.0.0.1:{}", ports.controller))
        .collect();
    let replicas = config.nodes.min(3).to_string();
    let in_sync = if config.nodes < 3 { "1" } else { "2" };

    let mut properties: Vec<(&str, String)> = vec![
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", id.to_string()),
        ("controller.quorum.voters", voters.join(",")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listeners", listeners.join(",")),
        ("advertised.listeners", advertised.join(",")),
        ("listener.security.protocol.map", protocols.join(",")),
        ("inter.broker.listener.name", config.listeners[0].name.clone()),
        ("log.dirs", dir.join("data").display().to_string()),
        ("default.replication.factor", replicas.clone()),
        ("min.insync.replicas", in_sync.to_owned()),
        ("offsets.topic.replication.factor", replicas.clone()),
        ("transaction.state.log.replication.factor", replicas),
        ("transaction.state.log.min.isr", in_sync.to_owned()),
    ];
    properties.extend(SMALL_AND_QUICK.iter().map(|(key, value)| (*key, (*value).to_owned())));
    properties.extend(config.properties.iter().map(|(key, value)| (key.as_str(), value.clone())));
    properties.into_iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key}={value}");
        text
    })
}

/// The time in each line, and not all the settings again and again.
const LOGGING: [&str; 3] = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
];

/// What makes a broker for tests lighter, and its elections shorter.
const SMALL_AND_QUICK: &[(&str, &str)] = &[
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("num.network.threads", "2"),
    ("num.io.threads", "3"),
    ("background.threads", "2"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("controller.quorum.election.timeout.ms", "500"),
    ("controller.quorum.fetch.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "500"),
    // A killed broker is let in again when its session is over, 9 s by default.
    ("broker.session.timeout.ms", "3000"),
];
