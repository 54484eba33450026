//! Which brokers are alive and which replicas lead: what the controller does.

use std::time::{Duration, Instant};

use super::{
    event::Event,
    node::Condition,
    partition::{Partition, PartitionId},
    state::{Cluster, later},
};

/// The epoch of a leader that did not lead yet.
const NO_EPOCH: i32 = -1;

/// A replica cannot become the leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CannotLead;

impl Cluster {
    /// Kills a broker: the controller learns of it when the session has timed out.
    pub(crate) fn kill(&mut self, node: i32) {
        self.note(|| format!("broker {node} is killed"));
        self.disconnect(node);
        self.start_session_timeout(node, Condition::Down);
    }

    /// Shuts a broker down cleanly: its partitions get other leaders first.
    pub(crate) fn stop(&mut self, node: i32) {
        self.note(|| format!("broker {node} stops"));
        self.declare_dead(node);
        // Like Kafka, which keeps snapshots of the producers only after the log start offset. A killed broker
        // has no snapshot, and reads the segments.
        self.each_partition(|partition, _, _| {
            if let Some(replica) = partition.replicas.get_mut(&node).filter(|replica| replica.is_empty()) {
                replica.forget_producers();
            }
        });
        self.disconnect(node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.condition = Condition::Down;
        }
    }

    /// Suspends a broker.
    pub(crate) fn pause(&mut self, node: i32) {
        if self.nodes.get(&node).is_some_and(|node| node.condition == Condition::Running) {
            self.note(|| format!("broker {node} is paused"));
            self.mark_faulty(node);
            self.start_session_timeout(node, Condition::Paused);
        }
    }

    /// Makes a broker run, whether it was down, paused or running.
    pub(crate) fn revive(&mut self, id: i32) {
        self.note(|| format!("broker {id} runs again"));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let was_down = node.condition == Condition::Down;
        (node.condition, node.session_ends_at) = (Condition::Running, None);
        let is_back = !std::mem::replace(&mut node.alive, true);
        if was_down {
            self.reload_coordinator(id);
        }
        if is_back {
            self.choose_controller();
            self.each_partition(|partition, unclean, _| partition.returned(id, unclean));
        }
        self.replicate_all();
        self.changed = true;
    }

    /// Removes a broker and its replicas.
    pub(crate) fn remove(&mut self, id: i32) {
        self.stop(id);
        self.nodes.remove(&id);
        self.each_partition(|partition, _, _| drop(partition.replicas.remove(&id)));
    }

    /// Makes a replica in sync the leader.
    pub(crate) fn move_leader(&mut self, topic: &str, index: i32, to: i32) -> Result<(), CannotLead> {
        let in_sync = self.partition(topic, index).is_some_and(|partition| partition.state.isr.contains(&to));
        match in_sync {
            true => self.elect(topic, index, to, false),
            false => Err(CannotLead),
        }
    }

    /// Makes any live replica the leader, and the only one in sync.
    pub(crate) fn elect_unclean(&mut self, topic: &str, index: i32, to: i32) -> Result<(), CannotLead> {
        self.elect(topic, index, to, true)
    }

    fn elect(&mut self, topic: &str, index: i32, to: i32, unclean: bool) -> Result<(), CannotLead> {
        let alive = self.is_alive(to);
        let id = self.partition_id(topic, index).filter(|_| alive).ok_or(CannotLead)?;
        let partition = self.partition_by_id(id).filter(|partition| partition.replicas.contains_key(&to));
        let partition = partition.ok_or(CannotLead)?;
        if partition.state.leader != Some(to) {
            partition.lead(Some(to), unclean);
            self.replicate(id);
            self.changed = true;
        }
        Ok(())
    }

    /// Makes a replica in sync the leader in an earlier epoch, of which all brokers learn at once.
    ///
    /// Returns `false` if the epoch is not an earlier one.
    pub(crate) fn rewind_epoch(
        &mut self,
        topic: &str,
        index: i32,
        to: i32,
        epoch: i32,
    ) -> Result<bool, CannotLead> {
        let alive = self.is_alive(to);
        let now = self.now.unix_ms;
        let id = self.partition_id(topic, index).filter(|_| alive).ok_or(CannotLead)?;
        let partition = self.partition_by_id(id).filter(|partition| partition.state.isr.contains(&to));
        let partition = partition.ok_or(CannotLead)?;
        if !(0..partition.state.leader_epoch).contains(&epoch) {
            return Ok(false);
        }
        partition.rewind(to, epoch, now);
        if let Some(recorder) = &self.recorder {
            recorder.now().epoch_rewound(self.partition_name(id));
        }
        self.note(|| format!("the metadata of {topic}-{index} is restored from a backup"));
        // The brokers were restarted for it, so none of them has outdated metadata or old connections.
        for node in self.nodes.values_mut() {
            node.outdated = None;
        }
        let nodes: Vec<_> = self.node_ids().collect();
        nodes.into_iter().for_each(|node| self.disconnect(node));
        self.replicate_all();
        self.changed = true;
        Ok(true)
    }

    /// Sets the replication lag of a follower; [`Duration::MAX`] stops it.
    pub(crate) fn set_lag(&mut self, id: PartitionId, broker: i32, lag: Duration) {
        let name = self.partition_name(id);
        self.note(|| match lag {
            Duration::MAX => format!("{name} at {broker} stops fetching"),
            lag => format!("{name} at {broker} lags by {lag:?}"),
        });
        let Some(partition) = self.partition_by_id(id) else { return };
        if let Some(replica) = partition.replicas.get_mut(&broker) {
            (replica.lag, replica.due) = (lag, None);
        }
        self.replicate(id);
    }

    /// Takes a follower out of sync until its lag is set again.
    pub(crate) fn shrink_isr(&mut self, id: PartitionId, broker: i32) {
        let name = self.partition_name(id);
        self.note(|| format!("{name} at {broker} falls out of sync"));
        let Some(partition) = self.partition_by_id(id) else { return };
        if let Some(replica) = partition.replicas.get_mut(&broker) {
            (replica.lag, replica.due) = (Duration::MAX, None);
        }
        partition.state.isr.retain(|replica| *replica != broker);
        self.replicate(id);
    }

    fn start_session_timeout(&mut self, id: i32, condition: Condition) {
        let at = later(self.now, self.settings.broker.millis("broker.session.timeout.ms"));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.condition = condition;
        if node.alive && node.session_ends_at.is_none() {
            node.session_ends_at = Some(at);
            self.plan(at, Event::SessionOver { node: id });
        }
        self.changed = true;
    }

    pub(super) fn session_over(&mut self, id: i32, at: Instant) {
        if self.nodes.get(&id).is_some_and(|node| node.session_ends_at == Some(at)) {
            self.note(|| format!("the session of broker {id} has timed out"));
            self.declare_dead(id);
        }
    }

    /// Declares a broker dead: its partitions get other leaders.
    fn declare_dead(&mut self, id: i32) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.alive, node.session_ends_at) = (false, None);
        self.choose_controller();
        self.each_partition(|partition, unclean, alive| partition.lost(id, unclean, alive));
        self.replicate_all();
        self.changed = true;
    }

    /// Calls `change` with each partition, whether unclean elections are allowed, and the live brokers.
    fn each_partition(&mut self, mut change: impl FnMut(&mut Partition, bool, &[i32])) {
        let alive: Vec<_> = self.alive().collect();
        for topic in self.topics.values_mut() {
            for partition in &mut topic.partitions {
                change(partition, topic.config.unclean_elections, &alive);
            }
        }
    }
}

impl Partition {
    /// Removes a dead broker from the ISR. The last replica in sync stays, since it alone has everything.
    fn lost(&mut self, node: i32, unclean: bool, alive: &[i32]) {
        let state = &mut self.state;
        if state.isr.len() > 1 {
            state.isr.retain(|replica| *replica != node);
        }
        if state.leader != Some(node) {
            return;
        }
        let lives = |replica: &i32| alive.contains(replica);
        let clean = state.isr.iter().copied().find(lives);
        let any = || state.replicas.iter().copied().find(lives).filter(|_| unclean);
        let next = clean.or_else(any);
        self.lead(next, clean.is_none() && next.is_some());
    }

    /// Elects a broker that is back, if there is no leader.
    fn returned(&mut self, node: i32, unclean: bool) {
        let state = &mut self.state;
        if state.leader.is_some() {
            return;
        }
        let in_sync = state.isr.contains(&node);
        if in_sync || unclean && state.replicas.contains(&node) {
            self.lead(Some(node), !in_sync);
        }
    }

    /// Elects a leader in an earlier epoch.
    ///
    /// Epochs cannot show any more where logs diverge, so they are made to agree first.
    fn rewind(&mut self, leader: i32, epoch: i32, now: i64) {
        self.lead(Some(leader), false);
        self.state.leader_epoch = epoch;
        let Some(led) = self.replicas.remove(&leader) else { return };
        let mut cuts = Vec::new();
        for (broker, replica) in &mut self.replicas {
            let committed = replica.high_watermark;
            cuts.push((*broker, replica.truncate_to(&led, now), committed));
        }
        cuts.into_iter().for_each(|(broker, cut, committed)| self.note_cut(broker, cut, committed));
        self.replicas.insert(leader, led);
        for replica in self.replicas.values_mut() {
            replica.log.rewind_epochs(epoch);
            replica.led_epoch = NO_EPOCH;
        }
    }

    /// Elects a leader; after an `unclean` election, it alone is in sync.
    fn lead(&mut self, leader: Option<i32>, unclean: bool) {
        if let Some(old) = self.effective()
            && let Some(new) = leader.and_then(|leader| self.replicas.get(&leader))
        {
            let agreed = new.log.agreement(&old.log);
            let committed = self.committed.max(old.high_watermark);
            self.lost = (agreed < committed).then_some(agreed);
            self.committed = committed.min(agreed);
        }
        if unclean {
            self.state.isr = leader.into_iter().collect();
        }
        self.state.leader = leader;
        self.state.leader_epoch += 1;
        for replica in self.replicas.values_mut() {
            (replica.fetched, replica.due, replica.lagging_since) = (None, None, None);
        }
    }
}
