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

use super::install::{self, Installation};
use super::listeners::Listener;
use super::{Version, ready};
use crate::process::Guarded;

/// What a [`Cluster`] is made of.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// How many nodes; each is broker and controller. 1.
    pub nodes: u16,
    /// How many of them, from the first on, are controllers; the others are brokers alone, so that ending them changes nothing
    /// of the controllers. All.
    pub controllers: u16,
    /// Where clients come in; brokers talk over the first. One of PLAINTEXT.
    pub listeners: Vec<Listener>,
    /// More lines of `server.properties`, for every node.
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
    /// Nodes with every way in: [`Listener::every_way_in`].
    ///
    /// # Panics
    ///
    /// If no certificates can be made.
    pub fn secured(nodes: u16) -> Self {
        Self { nodes, listeners: Listener::every_way_in(), ..Self::default() }
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
        Self::start_with(version, version.installation()?, config, &[])
    }

    /// The same with more options for Java.
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

    /// Where its logs lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `host:port` of the first listener of every node.
    pub fn bootstrap(&self) -> Vec<String> {
        self.addresses(&self.listeners[0].name)
    }

    /// `host:port` of every node's own port, not a proxy's, of the listener of that name.
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

    /// The names of its listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|listener| &*listener.name)
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
    fn take(listeners: usize) -> Self {
        Self {
            controller: free_port(),
            listeners: std::iter::repeat_with(free_port).take(listeners).collect(),
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on, and that nobody else here gets. It lies below those the system gives to
/// outgoing connections, so that nobody gets it while its broker is down, not even a client that looks for the broker.
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
