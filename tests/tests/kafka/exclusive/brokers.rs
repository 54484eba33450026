//! Takeovers while brokers are stopped, killed and restarted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kwal_client::{Client, OffsetAt};
use kwal_protocol::error_code::ErrorCode;
use kwal_tests::holder::{Command, Event, Holder, Job};
use kwal_tests::kafka::{ClusterConfig, Kafka, Node, Version};

use super::in_doubt::Doubtful;
use super::judge::{Entry, data, judge, no_transaction_is_open, open, stored};
use super::processes::{
    CALLERS, acked, held, holds, is_fenced, job, open as open_appends, rest, rest_of_reports, start,
    start_with, stop_amid_appends,
};
use super::{connect, transactional_id};
use crate::fidelity::coordinators::coordinator;
use crate::fidelity::world::{topic_metadata, until};
use crate::raw::Broker;
use crate::segments::dumped;

kwal_tests::suite! {
    older: [relay],
    newer: [brokers_fail],
}

/// The only controller, which fails only together with all others.
const CONTROLLER: u16 = 1;
/// The coordinator of all names.
const COORDINATOR: u16 = 2;
/// The leader of all partitions.
const LEADER: u16 = 3;

async fn brokers_fail(version: Version) {
    let cluster = Brokers::start(version);
    for _ in 0..if kwal_tests::long() { 5 } else { 1 } {
        cluster.place_coordinator().await;
        cluster.a_coordinator_killed().await;
        cluster.place_coordinator().await;
        cluster.a_leader_stopped().await;
        cluster.all_restarted().await;
    }
}

/// How many processes take over from each other in [`relay`].
fn rounds() -> usize {
    if kwal_tests::long() { 30 } else { 3 }
}

/// Processes take over from each other. Each of them is stopped, killed or goes on, while a broker is
/// stopped, killed or goes on.
async fn relay(version: Version) {
    let cluster = Brokers::start(version);
    cluster.place_coordinator().await;
    let topic = cluster.topic("relay", &[LEADER, CONTROLLER, COORDINATOR]).await;
    let seed = fastrand::u64(..);
    kwal_tests::report(format_args!("{version}: relay, seed {seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let patience = Some(Duration::from_secs(2));
    let of = |label: &str| Job { callers: CALLERS, patience, ..job(&cluster.kafka, &topic, label) };
    let mut holders = vec![start_with(of("0")).await];
    let mut killed = Vec::new();
    for round in 1..=rounds() {
        let holder = holders.last_mut().unwrap();
        acked(holder, 20).await;
        match random.u8(..3) {
            0 => holder.pause(),
            1 => {
                holder.kill();
                killed.push(round - 1);
            }
            _ => {}
        }
        let node = [COORDINATOR, LEADER][random.usize(..2)];
        let is_killed = random.bool();
        let down = (random.u8(..3) > 0).then_some(node);
        if let Some(node) = down {
            cluster.on(node, if is_killed { Node::kill } else { Node::pause }).await;
        }
        let mut next = start_with(of(&round.to_string())).await;
        cluster.took_over(&format!("round {round}"), &mut next, down).await;
        if let Some(node) = down {
            cluster.on(node, if is_killed { Node::start } else { Node::resume }).await;
        }
        cluster.wait_until_in_sync(&topic, 3).await;
        holders.push(next);
    }
    let last = holders.len() - 1;
    for (index, holder) in holders.iter_mut().enumerate() {
        match index == last {
            true => rest(holder).await,
            false if killed.contains(&index) => holder.last_reports().await,
            false => {
                holder.resume();
                is_fenced(holder).await;
            }
        }
    }
    let holders: Vec<_> = holders.iter().collect();
    judge(&cluster.kafka, cluster.leader(&topic).await, &topic, &holders).await;
}

struct Brokers {
    kafka: Kafka,
}

impl Brokers {
    fn start(version: Version) -> Self {
        let properties = vec![("auto.leader.rebalance.enable".to_owned(), "false".to_owned())];
        let config = ClusterConfig { nodes: 3, controllers: 1, properties, ..ClusterConfig::default() };
        Self { kafka: Kafka::start(version, &config) }
    }

    /// The coordinator is killed before the takeover, which has to wait for another one.
    async fn a_coordinator_killed(&self) {
        let kafka = &self.kafka;
        let topic = self.topic("coordinator-killed", &[LEADER, CONTROLLER, COORDINATOR]).await;
        let mut a = start(kafka, &topic, "a").await;
        stop_amid_appends(&mut a).await;
        self.on(COORDINATOR, Node::kill).await;
        let mut b = start(kafka, &topic, "b").await;
        self.took_over("from a stopped process, the coordinator was killed", &mut b, Some(COORDINATOR)).await;
        a.resume();
        is_fenced(&mut a).await;
        self.on(COORDINATOR, Node::start).await;
        acked(&mut b, 20).await;
        rest(&mut b).await;
        judge(kafka, LEADER, &topic, &[&a, &b]).await;
    }

    /// The leader is stopped while appends of the holders are on the way. They arrive when it goes on: before
    /// the barrier, where nobody else can lead, and behind it, where another broker has been elected.
    async fn a_leader_stopped(&self) {
        let kafka = &self.kafka;
        let replicas = [LEADER, CONTROLLER, COORDINATOR];
        let topics = [("alone", &replicas[..1]), ("moves", &replicas), ("holder-stopped", &replicas)];
        let topics = join_all(topics.map(|(what, replicas)| self.topic(what, replicas))).await;
        let in_doubt = [("in-doubt-alone", &replicas[..1]), ("in-doubt", &replicas)];
        let in_doubt =
            in_doubt.map(async |(what, on)| Doubtful::hold(kafka, &self.topic(what, on).await).await);
        let mut in_doubt = join_all(in_doubt).await;
        // They notice soon that the leader is stopped.
        let patience = Some(Duration::from_secs(2));
        let of = |topic, label| Job { callers: CALLERS, patience, ..job(kafka, topic, label) };
        let mut alone = start(kafka, &topics[0], "a").await;
        let mut moves = start_with(of(&topics[1], "a")).await;
        let mut stopped = start_with(of(&topics[2], "a")).await;
        for holder in [&mut alone, &mut moves, &mut stopped] {
            acked(holder, 20).await;
        }
        let name = transactional_id(&topics[0]);
        let client = connect(kafka).await;
        let before = initialized(&client, &name).await;

        self.on(LEADER, Node::pause).await;
        for holder in [&mut alone, &mut stopped] {
            rest_of_reports(holder).await;
            assert_eq!(open_appends(holder), CALLERS as usize);
        }
        stopped.pause();
        let open_then = open_values(&alone);
        let mut next_alone = start(kafka, &topics[0], "b").await;
        let mut next_moves = start_with(of(&topics[1], "b")).await;
        let mut next_stopped = start_with(of(&topics[2], "b")).await;
        join_all(in_doubt.iter_mut().map(Doubtful::append)).await;
        // Now it only waits for the leader.
        until("it has its epoch", async || (initialized(&client, &name).await > before).then_some(())).await;
        self.took_over("the leader was stopped", &mut next_moves, Some(LEADER)).await;
        self.took_over("the leader was stopped, and the holder", &mut next_stopped, Some(LEADER)).await;
        is_fenced(&mut moves).await;
        let mut appended = vec![in_doubt[1].resolve_by_next(kafka).await];
        assert!(!next_alone.events().iter().any(|event| matches!(event, Event::Holds { .. })));

        self.on(LEADER, Node::resume).await;
        self.took_over("the leader was stopped, and nobody else can lead", &mut next_alone, None).await;
        is_fenced(&mut alone).await;
        acked(&mut next_stopped, 20).await;
        stopped.resume();
        is_fenced(&mut stopped).await;
        appended.push(in_doubt[0].resolve_by_next(kafka).await);
        let entries = self.rest_and_judge(&alone, &mut next_alone).await;
        appended.push(data(&entries).filter(|(_, entry)| open_then.contains(&entry.value)).count());
        kwal_tests::report(format_args!(
            "{}: of {CALLERS} appends in flight to a leader that was stopped, {appended:?} were appended, in doubt \
             under another leader, in doubt under the same, and by a holder that went on",
            self.version(),
        ));
        for (holder, next) in [(&moves, &mut next_moves), (&stopped, &mut next_stopped)] {
            let topic = &holder.job().topic;
            self.wait_until_in_sync(topic, replicas.len()).await;
            let entries = self.rest_and_judge(holder, next).await;
            // The broker that was stopped has given up what it appended meanwhile, if anything.
            until("the replicas are equal", async || {
                (stored(&dumped(&kafka.segments(LEADER, topic, 0))) == entries).then_some(())
            })
            .await;
        }
    }

    /// Judges the log of two holders, of which the second one appends.
    async fn rest_and_judge(&self, holder: &Holder, next: &mut Holder) -> BTreeMap<i64, Entry> {
        acked(next, 20).await;
        rest(next).await;
        let topic = &holder.job().topic;
        judge(&self.kafka, self.leader(topic).await, topic, &[holder, next]).await
    }

    /// Every broker is killed and started: before a takeover, after one, and while a holder appends.
    async fn all_restarted(&self) {
        let kafka = &self.kafka;
        let replicas = [LEADER, CONTROLLER, COORDINATOR];
        let before = self.topic("restarted-before", &replicas).await;
        let after = self.topic("restarted-after", &replicas).await;
        let through = self.topic("restarted-through", &replicas).await;
        let mut a_before = start(kafka, &before, "a").await;
        stop_amid_appends(&mut a_before).await;
        let mut a_after = start(kafka, &after, "a").await;
        stop_amid_appends(&mut a_after).await;
        let mut b_after = start(kafka, &after, "b").await;
        acked(&mut b_after, 20).await;
        let mut a_through = start(kafka, &through, "a").await;
        acked(&mut a_through, 20).await;

        let all = [CONTROLLER, COORDINATOR, LEADER];
        join_all(all.map(|node| self.on(node, Node::kill))).await;
        join_all(all.map(|node| self.on(node, Node::start))).await;

        let mut b_before = start(kafka, &before, "b").await;
        self.took_over("every broker was restarted", &mut b_before, None).await;
        for a in [&mut a_before, &mut a_after] {
            a.resume();
        }
        for holder in [&mut b_after, &mut a_through] {
            rest(holder).await;
            holder.tell(Command::Append).await;
            acked(holder, 20).await;
        }
        for a in [&mut a_before, &mut a_after] {
            is_fenced(a).await;
        }
        let mut b_through = start(kafka, &through, "b").await;
        is_fenced(&mut a_through).await;
        for (topic, a, b) in [
            (&before, &a_before, &mut b_before),
            (&after, &a_after, &mut b_after),
            (&through, &a_through, &mut b_through),
        ] {
            holds_by_now(b).await;
            self.wait_until_in_sync(topic, replicas.len()).await;
            self.rest_and_judge(a, b).await;
        }
    }

    /// Waits for a takeover while a broker is down, and reports how long it took.
    async fn took_over(&self, what: &str, b: &mut Holder, down: Option<u16>) {
        holds_by_now(b).await;
        let opened = held(b).after;
        let acked = acked(b, 1).await;
        let topic = &b.job().topic;
        until("the leader is listed", async || (Some(self.leader(topic).await) != down).then_some(())).await;
        no_transaction_is_open(&mut open(&self.kafka, topic).await, 0).await;
        kwal_tests::report(format_args!(
            "{}: takeover, {what}: {opened:.1?}; first append acknowledged after {acked:.1?}",
            self.version()
        ));
    }

    /// Makes a broker the coordinator of all names.
    async fn place_coordinator(&self) {
        let mut connection = self.connection().await;
        coordinator(&mut connection, "any").await;
        let replicas = [COORDINATOR, CONTROLLER, LEADER];
        self.kafka.java().move_leader("__transaction_state", 0, &replicas).await;
        until("it is the coordinator", async || {
            (coordinator(&mut connection, "any").await == i32::from(COORDINATOR)).then_some(())
        })
        .await;
    }

    /// Creates a topic with one partition. The first replica leads it.
    async fn topic(&self, what: &str, replicas: &[u16]) -> String {
        let topic = self.kafka.topic_name(what);
        let client = connect(&self.kafka).await;
        let controller = client.controller_client().await.unwrap();
        let replicas = replicas.iter().copied().map(i32::from).collect();
        controller.create_topic(&topic, -1, -1).assignment(vec![replicas]).await.unwrap();
        topic
    }

    async fn leader(&self, topic: &str) -> u16 {
        let mut connection = self.connection().await;
        let leader = until("there is a leader", async || {
            let leader = topic_metadata(&mut connection, topic).await.partitions[0].leader_id;
            (leader > 0).then_some(leader)
        });
        u16::try_from(leader.await).unwrap()
    }

    async fn wait_until_in_sync(&self, topic: &str, replicas: usize) {
        let mut connection = self.connection().await;
        until("the replicas are in sync", async || {
            let found = topic_metadata(&mut connection, topic).await;
            let is_known = found.error_code == ErrorCode::NONE;
            (is_known && found.partitions[0].isr_nodes.len() == replicas).then_some(())
        })
        .await;
    }

    /// Connects to the controller.
    async fn connection(&self) -> Broker {
        Broker::connect(&self.kafka.bootstrap()[usize::from(CONTROLLER) - 1]).await
    }

    async fn on(&self, node: u16, action: fn(&Node) -> Result<(), String>) {
        let node = Arc::clone(self.kafka.cluster().unwrap().node(node));
        tokio::task::spawn_blocking(move || action(&node)).await.unwrap().unwrap();
    }

    fn version(&self) -> Version {
        self.kafka.version().unwrap()
    }
}

/// Waits until a process holds the log, unless it has reported that already.
async fn holds_by_now(holder: &mut Holder) {
    if !holder.events().iter().any(|event| matches!(event, Event::Holds { .. })) {
        holds(holder).await;
    }
}

/// Returns the records that a process is appending.
fn open_values(holder: &Holder) -> Vec<String> {
    let mut open = Vec::new();
    for event in holder.events() {
        match event {
            Event::Begins { value } => open.push(value.clone()),
            Event::Acked { value, .. } | Event::Failed { value, .. } => open.retain(|open| open != value),
            _ => {}
        }
    }
    open
}

/// Returns how often the coordinator has given out an epoch of a name.
async fn initialized(client: &Client, transactional_id: &str) -> usize {
    let log = client.partition_client("__transaction_state", 0).await.unwrap();
    let end = log.get_offset(OffsetAt::Latest).await.unwrap();
    let mut next = log.get_offset(OffsetAt::Earliest).await.unwrap();
    let mut count = 0;
    while next < end {
        let fetched = log.fetch(next).await.unwrap();
        for record in fetched.records() {
            // The version and the length come before it.
            let key = record.unwrap().key;
            count += usize::from(key.is_some_and(|key| key.ends_with(transactional_id.as_bytes())));
        }
        next = fetched.next_offset;
    }
    count
}
