//! Faults of a partition's leader and of the connections to it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};
use tokio::time::sleep;

use super::load::Scenario;
use super::network::{Break, Route};

kwal_tests::suite! {
    newer: [appends_survive],
}

/// What fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// The connections to the leader are closed, also in the middle of responses.
    Cut,
    /// The connections to the leader are reset.
    Reset,
    /// Nothing comes back from the leader any more, for a while.
    BlackHole,
    /// The leader does not accept connections, for a while.
    Refused,
    /// The leader is killed. Another partition has not enough replicas then.
    Kill,
    /// The leader is suspended, for a while.
    Pause,
    /// Each broker is shut down and started again.
    RollingRestart,
}

/// Each fault runs on one version; with `KWAL_LONG=1`, on both.
async fn appends_survive(version: Version) {
    let connections = &[Fault::Cut, Fault::Reset, Fault::BlackHole, Fault::Refused][..];
    let groups: &[&[Fault]] = match version {
        _ if kwal_tests::long() => &[connections, &[Fault::Kill], &[Fault::Pause], &[Fault::RollingRestart]],
        Version::V3_9_2 => &[connections, &[Fault::Kill]],
        Version::V4_3_1 => &[&[Fault::Pause], &[Fault::RollingRestart]],
    };
    let properties = vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())];
    let config = ClusterConfig { nodes: 3, properties, ..ClusterConfig::default() };
    let kafka = Kafka::start(version, &config);
    // Starts Java outside of the measured time.
    kafka.java();
    for group in groups {
        join_all(group.iter().map(|fault| fault.run(&kafka))).await;
    }
}

impl Fault {
    async fn run(self, kafka: &Kafka) {
        let long = kwal_tests::long();
        let outage = Duration::from_secs(if long { 15 } else { 5 });
        let (replicas, name) = match self {
            Self::Cut => ([1, 2, 3], "cut"),
            Self::Reset => ([2, 3, 1], "reset"),
            Self::BlackHole => ([3, 1, 2], "black-hole"),
            Self::Refused => ([1, 2, 3], "refused"),
            Self::Kill => ([1, 2, 3], "killed"),
            Self::Pause => ([2, 3, 1], "paused"),
            Self::RollingRestart => ([3, 1, 2], "rolling-restart"),
        };
        let request = Duration::from_secs(if long { 10 } else { 2 });
        let leader = u16::try_from(replicas[0]).unwrap();
        let address = &kafka.cluster().unwrap().bootstrap()[usize::from(leader) - 1];
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        let mut scenario = Scenario::start(kafka, name, &replicas, &[], request).await;
        scenario.progress(ENOUGH).await;
        let network = scenario.network.clone();
        match self {
            Self::Cut | Self::Reset => {
                let how = if self == Self::Cut { Break::Cut } else { Break::Reset };
                if self == Self::Cut {
                    network.cut_responses(10);
                }
                for _ in 0..10 {
                    network.break_all(port, how);
                    scenario.progress(1).await;
                }
            }
            Self::BlackHole | Self::Refused => {
                let route = if self == Self::Refused { Route::Refused } else { Route::BlackHole };
                network.route(port, Some(route));
                if self == Self::Refused {
                    network.break_all(port, Break::Cut);
                }
                sleep(outage).await;
                network.route(port, None);
            }
            Self::Kill => {
                // Its leader is another one.
                let all = [("min.insync.replicas", "3")];
                let mut other = Scenario::start(kafka, "too-few-replicas", &[2, 3, 1], &all, request).await;
                other.progress(ENOUGH).await;
                on_node(kafka, leader, Node::kill).await;
                scenario.progress(ENOUGH).await;
                on_node(kafka, leader, Node::start).await;
                other.progress(ENOUGH).await;
                other.finish(kafka).await;
            }
            Self::Pause => {
                on_node(kafka, leader, Node::pause).await;
                sleep(Duration::from_secs(if long { 20 } else { 6 })).await;
                on_node(kafka, leader, Node::resume).await;
            }
            Self::RollingRestart => {
                for node in 1..=3 {
                    on_node(kafka, node, |node| {
                        node.stop()?;
                        node.start()
                    })
                    .await;
                    scenario.progress(ENOUGH).await;
                }
            }
        }
        scenario.progress(ENOUGH).await;
        scenario.finish(kafka).await;
    }
}

/// How many appends of each partition are acknowledged before a fault and after it.
const ENOUGH: u64 = 40;

/// Calls a blocking method of a node.
pub(crate) async fn on_node(kafka: &Kafka, id: u16, action: fn(&Node) -> Result<(), String>) {
    let node = Arc::clone(kafka.cluster().unwrap().node(id));
    tokio::task::spawn_blocking(move || action(&node)).await.unwrap().unwrap();
}
