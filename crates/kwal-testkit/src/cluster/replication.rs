//! Replication: followers fetch, and the high watermark and the ISR follow.

use std::{
    mem::take,
    time::{Duration, Instant},
};

use super::{
    event::Event,
    node::Condition,
    partition::{Partition, PartitionId},
    state::{Cluster, Now, later},
};

impl Cluster {
    /// Lets followers fetch as far as they may now, and plans their later fetches.
    pub(super) fn replicate(&mut self, id: PartitionId) {
        self.record_partition(id);
        let (now, circumstances) = (self.now, self.circumstances(id));
        let (Some(circumstances), Some(partition)) = (circumstances, self.partition_by_id(id)) else {
            return;
        };
        let Some(leader) = partition.state.leader.filter(|leader| circumstances.works(*leader)) else {
            return;
        };
        partition.begin_to_lead(leader, now);
        while partition.fetch_all(leader, &circumstances, now) {}
        for (at, event) in partition.plan(id, leader, &circumstances, now) {
            self.plan(at, event);
        }
        self.inform_leader(id, leader);
        self.record_partition(id);
        self.changed = true;
    }

    /// Informs an outdated leader of its ISR, which it decides itself.
    fn inform_leader(&mut self, id: PartitionId, leader: i32) {
        let Some(name) = self.names.get(&id.topic) else { return };
        let Some(view) = self.nodes.get_mut(&leader).and_then(|node| node.outdated.as_mut()) else { return };
        if let (Some(topic), Ok(index)) = (self.topics.get(name), usize::try_from(id.index))
            && let Some(partition) = topic.partitions.get(index)
        {
            view.decide(name, id.topic, index, &partition.state);
        }
    }

    /// Replicates all partitions.
    pub(super) fn replicate_all(&mut self) {
        let ids: Vec<_> = self.topics.values().flat_map(|topic| topic.partition_ids()).collect();
        ids.into_iter().for_each(|id| self.replicate(id));
    }

    /// Handles a follower's fetch that has reached the leader.
    pub(super) fn fetch_due(&mut self, id: PartitionId, broker: i32, at: Instant) {
        let (now, circumstances) = (self.now, self.circumstances(id));
        let (Some(circumstances), Some(partition)) = (circumstances, self.partition_by_id(id)) else {
            return;
        };
        let Some(replica) = partition.replicas.get_mut(&broker) else { return };
        if replica.due != Some(at) {
            return;
        }
        replica.due = None;
        if let Some(leader) = partition.state.leader.filter(|leader| circumstances.works(*leader))
            && circumstances.works(broker)
        {
            partition.fetch(leader, broker, now);
        }
        self.replicate(id);
    }

    /// Removes a follower from the ISR that has lagged for `replica.lag.time.max.ms`.
    pub(super) fn follower_lagged(&mut self, id: PartitionId, broker: i32, since: Instant) {
        let circumstances = self.circumstances(id);
        let (Some(circumstances), Some(partition)) = (circumstances, self.partition_by_id(id)) else {
            return;
        };
        let late =
            partition.replicas.get(&broker).is_some_and(|replica| replica.lagging_since == Some(since));
        if late
            && partition.state.leader.is_some_and(|leader| leader != broker && circumstances.works(leader))
        {
            partition.state.isr.retain(|replica| *replica != broker);
            self.replicate(id);
        }
    }

    fn circumstances(&self, id: PartitionId) -> Option<Circumstances> {
        let name = self.names.get(&id.topic)?;
        let topic = self.topics.get(name)?;
        let index = usize::try_from(id.index).ok()?;
        let state = &topic.partitions.get(index)?.state;
        let informed = |outdated: &Option<super::node::View>| match outdated {
            Some(view) => {
                view.state(name, id.topic, index).is_some_and(|s| s.leader_epoch == state.leader_epoch)
            }
            None => true,
        };
        let working = self
            .nodes
            .iter()
            .filter(|(_, node)| node.condition == Condition::Running && informed(&node.outdated));
        Some(Circumstances {
            working: working.map(|(id, _)| *id).collect(),
            alive: self.alive().collect(),
            needed: match self.settings.dialect.waits_for_min_isr() {
                true => topic.config.min_isr.min(state.replicas.len()),
                false => 1,
            },
            max_lag: self.settings.broker.millis("replica.lag.time.max.ms"),
        })
    }
}

/// The circumstances of a partition.
struct Circumstances {
    /// The brokers that run and know the current leader.
    working: Vec<i32>,
    /// The brokers that the controller considers alive.
    alive: Vec<i32>,
    /// With fewer replicas in sync, the high watermark does not advance.
    needed: usize,
    max_lag: Duration,
}

impl Circumstances {
    fn works(&self, broker: i32) -> bool {
        self.working.contains(&broker)
    }
}

impl Partition {
    /// Begins the epoch of a new leader at its log end offset.
    fn begin_to_lead(&mut self, leader: i32, now: Now) {
        let epoch = self.state.leader_epoch;
        if let Some(replica) = self.replicas.get_mut(&leader).filter(|replica| replica.led_epoch != epoch) {
            (replica.led_epoch, replica.led_from) = (epoch, replica.log.end());
            replica.led_since = Some(now.monotonic);
            replica.log.begin_epoch(epoch, replica.led_from);
            replica.diverged = None;
            let led_from = replica.led_from;
            for (_, other) in self.replicas.iter_mut().filter(|(broker, _)| **broker != leader) {
                other.diverged = Some(other.diverged.map_or(led_from, |from| from.min(led_from)));
            }
        }
    }

    /// Runs one round; returns whether another may change more.
    fn fetch_all(&mut self, leader: i32, circumstances: &Circumstances, now: Now) -> bool {
        let mut progress = false;
        for at in 0..self.state.replicas.len() {
            let broker = self.state.replicas[at];
            let prompt = self.replicas.get(&broker).is_some_and(|replica| replica.lag.is_zero());
            if prompt && broker != leader && circumstances.works(broker) {
                progress |= self.fetch(leader, broker, now);
            }
        }
        progress | self.advance(leader, circumstances)
    }

    /// Lets a follower fetch everything; returns whether that changed anything.
    fn fetch(&mut self, leader: i32, broker: i32, now: Now) -> bool {
        let Some(mut follower) = self.replicas.get_mut(&broker).map(take) else { return false };
        let mut fetched = false;
        if let Some(leader) = self.replicas.get(&leader) {
            fetched = follower.fetched != Some(leader.log.end()) || follower.lacks(leader);
            if fetched {
                let committed = follower.high_watermark;
                let cut = follower.follow(leader, now.unix_ms);
                self.note_cut(broker, cut, committed);
                follower.fetched = Some(follower.log.end());
            }
            follower.lagging_since = None;
        }
        self.replicas.insert(broker, follower);
        fetched
    }

    /// Notes from where on a replica was truncated that had `committed` as its high watermark.
    pub(super) fn note_cut(&mut self, broker: i32, cut: Option<i64>, committed: i64) {
        self.cuts.extend(cut.map(|from| (broker, from)));
        // A deposed leader may have shown it to readers until now.
        self.lost = self.lost.or_else(|| cut.filter(|from| *from < committed));
    }

    /// Updates the ISR and the high watermark; returns whether that changed anything.
    fn advance(&mut self, leader: i32, circumstances: &Circumstances) -> bool {
        let Some(led) = self.replicas.get(&leader) else { return false };
        let (end, high_watermark) = (led.log.end(), led.high_watermark);
        let joins_at = high_watermark.max(led.led_from);
        let fetched = |broker: &i32| match *broker == leader {
            true => Some(end),
            false => self.replicas.get(broker)?.fetched,
        };
        let in_sync = |broker: &&i32| {
            let joins = circumstances.alive.contains(*broker)
                && circumstances.works(**broker)
                && self.replicas.get(*broker).is_some_and(|replica| replica.lag < Duration::MAX)
                && fetched(broker).is_some_and(|fetched| fetched >= joins_at);
            self.state.isr.contains(*broker) || joins
        };
        let isr: Vec<_> = self.state.replicas.iter().filter(in_sync).copied().collect();
        let all_have = isr.iter().map(fetched).min().flatten().unwrap_or(high_watermark);
        let advanced = isr.len() >= circumstances.needed && all_have > high_watermark;
        let changed = isr != self.state.isr || advanced;
        self.state.isr = isr;
        if advanced && let Some(led) = self.replicas.get_mut(&leader) {
            led.high_watermark = all_have;
        }
        self.committed = self.committed.max(if advanced { all_have } else { high_watermark });
        changed
    }

    /// Plans the fetches of lagging followers, and when they fall out of sync.
    fn plan(
        &mut self,
        id: PartitionId,
        leader: i32,
        circumstances: &Circumstances,
        now: Now,
    ) -> Vec<(Instant, Event)> {
        let mut plans = Vec::new();
        for at in 0..self.state.replicas.len() {
            let broker = self.state.replicas[at];
            let (Some(led), Some(follower)) = (self.replicas.get(&leader), self.replicas.get(&broker)) else {
                continue;
            };
            if broker == leader {
                continue;
            }
            let lags = follower.fetched != Some(led.log.end());
            let wanting = lags || follower.lacks(led);
            let slow = !follower.lag.is_zero() && follower.lag < Duration::MAX;
            let fetches = wanting && slow && follower.due.is_none() && circumstances.works(broker);
            let newly_lagging = lags && follower.lagging_since.is_none();
            let Some(follower) = self.replicas.get_mut(&broker) else { continue };
            if fetches {
                let at = later(now, follower.lag);
                follower.due = Some(at);
                plans.push((at, Event::Fetch { id, broker }));
            }
            if newly_lagging {
                let since = now.monotonic;
                follower.lagging_since = Some(since);
                plans.push((later(now, circumstances.max_lag), Event::Late { id, broker, since }));
            }
        }
        plans
    }
}
