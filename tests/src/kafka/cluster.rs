//! Brokers of Apache Kafka as child processes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use super::install::{self, Installation};
use super::listeners::Listener;
use super::{Version, ready};
use crate::process::Guarded;

/// The configuration of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// How many nodes, each broker and controller. Default 1.
    pub nodes: u16,
    /// How many of the first nodes are controllers. The others are brokers only and can be stopped without
    /// changing the quorum. Default: all.
    pub controllers: u16,
    /// The listeners. Brokers use the first among themselves. Default: one of PLAINTEXT.
    pub listeners: Vec<Listener>,
    /// Additional lines of `server.properties` for every node.
    pub properties: Vec<(String, String)>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            nodes: 1,
            controllers: u16::MAX,
            listeners: vec![Listener::new("PLAINTEXT", "PLAINTEXT")],
            properties: Vec::new(),
        }
    }
}

impl ClusterConfig {
    /// Returns a configuration with all kinds of listeners: [`Listener::of_every_kind`].
    ///
    /// # Panics
    ///
    /// If the certificates cannot be generated.
    pub fn secured(nodes: u16) -> Self {
        Self { nodes, listeners: Listener::of_every_kind(), ..Self::default() }
    }
}

/// Running brokers. They end when this value is dropped or this process ends in any way. Their logs are kept.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    nodes: Vec<Arc<Node>>,
    listeners: Vec<Listener>,
}

impl Cluster {
    /// Starts the nodes and waits until each lists all of them.
    ///
    /// # Errors
    ///
    /// A description: Java or Maven is missing, or a broker does not start, with the end of its log.
    pub fn start(version: Version, config: &ClusterConfig) -> Result<Self, String> {
        Self::start_with(version, version.installation()?, config, &[])
    }

    /// Starts a cluster with additional options for Java.
    pub(super) fn start_with(
        version: Version,
        installation: &Installation,
        config: &ClusterConfig,
        options: &[OsString],
    ) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
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
            command.extend_from_slice(options);
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

    /// Returns the directory of its logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns `host:port` of the first listener of every node.
    pub fn bootstrap(&self) -> Vec<String> {
        self.addresses(&self.listeners[0].name)
    }

    /// Returns `host:port` of a listener of every node, with the node's own port and not a proxy's.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn addresses(&self, listener: &str) -> Vec<String> {
        let index = self.listeners.iter().position(|each| each.name == listener);
        let index = index.unwrap_or_else(|| panic!("no listener {listener}"));
        let host = &self.listeners[index].advertised_host;
        self.nodes.iter().map(|node| format!("{host}:{}", node.ports[index])).collect()
    }

    /// Returns the names of its listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|listener| &*listener.name)
    }

    /// Returns the nodes. Their ids begin at 1.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Returns the node with this id.
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
/// Its methods block, [`start`](Self::start) for a second or more: call them through `spawn_blocking` in a
/// runtime.
#[derive(Debug)]
pub struct Node {
    id: u16,
    dir: PathBuf,
    ports: Vec<u16>,
    command: Vec<OsString>,
    running: Mutex<Option<Guarded>>,
}

impl Node {
    /// Returns its `node.id`.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Returns the file with its output since it was first started.
    pub fn log(&self) -> PathBuf {
        self.dir.join("kafka.log")
    }

    /// Returns its `log.dirs`, with a directory of segments for each partition.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Kills it with SIGKILL and waits until it has ended. Does nothing if it is not running.
    ///
    /// # Errors
    ///
    /// A description, as for all methods below.
    pub fn kill(&self) -> Result<(), String> {
        self.end(Signal::KILL)
    }

    /// Shuts it down with SIGTERM and waits until it has ended. Its leaderships move before.
    pub fn stop(&self) -> Result<(), String> {
        self.end(Signal::TERM)
    }

    /// Suspends it: connections stay open, and requests are not answered from when this returns.
    pub fn pause(&self) -> Result<(), String> {
        self.with_process("suspend", Guarded::suspend)
    }

    /// Resumes it.
    pub fn resume(&self) -> Result<(), String> {
        self.with_process("resume", |process| process.signal(Signal::CONT))
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`], with the same ports and data, and waits until
    /// it responds.
    pub fn start(&self) -> Result<(), String> {
        self.launch()?;
        self.wait_until_ready(1)
    }

    /// Calls [`Self::kill`] and [`Self::start`].
    pub fn restart(&self) -> Result<(), String> {
        self.kill()?;
        self.start()
    }

    fn launch(&self) -> Result<(), String> {
        let mut running = self.running();
        if running.is_some() {
            return Err(format!("node {} is already running", self.id));
        }
        let started = Guarded::start(&self.command, &self.log(), &self.data());
        *running = Some(started.map_err(|e| format!("cannot start node {}: {e}", self.id))?);
        Ok(())
    }

    /// Waits until it responds and lists `brokers`, for a minute.
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
            .map_err(|e| format!("cannot stop node {}: {e}", self.id))
    }

    fn with_process(&self, what: &str, act: impl FnOnce(&Guarded) -> io::Result<()>) -> Result<(), String> {
        let running = self.running();
        let process = running.as_ref().ok_or_else(|| format!("node {} is not running", self.id))?;
        act(process).map_err(|e| format!("cannot {what} node {}: {e}", self.id))
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
    fn take(listeners: usize) -> Self {
        Self {
            controller: free_port(),
            listeners: std::iter::repeat_with(free_port).take(listeners).collect(),
        }
    }
}

/// Returns a free port of 127.0.0.1 that this process has not returned before. It is below the ports of
/// outgoing connections, so that it stays free while its broker is down.
pub fn free_port() -> u16 {
    static TAKEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = fastrand::u16(10_000..32_000);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
}

fn server_properties(config: &ClusterConfig, id: u16, ports: &[Ports], dir: &Path) -> String {
    let index = usize::from(id) - 1;
    let own = &ports[index];
    let mut listeners = Vec::new();
    let mut advertised = Vec::new();
    let mut protocols = vec!["CONTROLLER:PLAINTEXT".to_owned()];
    for (listener, port) in config.listeners.iter().zip(&own.listeners) {
        let Listener { name, security_protocol, advertised_host, advertised_ports, .. } = listener;
        listeners.push(format!("{name}://127.0.0.1:{port}"));
        advertised
            .push(format!("{name}://{advertised_host}:{}", advertised_ports.get(index).unwrap_or(port)));
        protocols.push(format!("{name}:{security_protocol}"));
    }
    let mut roles = "broker";
    if id <= config.controllers {
        roles = "broker,controller";
        listeners.push(format!("CONTROLLER://127.0.0.1:{}", own.controller));
    }
    let voters: Vec<String> = (1..=config.controllers)
        .zip(ports)
        .map(|(id, ports): (u16, _)| format!("{id}@127.0.0.1:{}", ports.controller))
        .collect();
    let replicas = config.nodes.min(3).to_string();
    let in_sync = if config.nodes < 3 { "1" } else { "2" };

    let mut properties = vec![
        ("process.roles", roles.to_owned()),
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
    let of_listeners = config.listeners.iter().flat_map(Listener::properties);
    let mut text = String::new();
    for (key, value) in properties {
        let _ = writeln!(text, "{key}={value}");
    }
    for (key, value) in of_listeners.chain(config.properties.iter().cloned()) {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// Prints the time in each line, and not all settings at each start.
const LOGGING: [&str; 3] = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
];

/// Settings that make brokers lighter and their elections shorter.
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
    // A killed broker can register again when its session has expired, after 9 s by default.
    ("broker.session.timeout.ms", "3000"),
];
