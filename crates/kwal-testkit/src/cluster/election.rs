//! Who lives and who leads: what the controller does.

use std::time::Instant;

use super::{Cluster, Now, node::Condition, partition::State};

/// What time brings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The controller has not heard of a broker for too long.
    SessionOver { node: i32 },
}

impl Cluster {
    /// When time changes something next.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Lets everything happen that time has brought by now.
    pub(crate) fn advance(&mut self, now: Now) {
        while let Some(event) = self.events.first_entry().filter(|event| event.key().0 <= now.monotonic) {
            let ((at, _), event) = event.remove_entry();
            match event {
                Event::SessionOver { node } => self.session_over(node, at),
            }
        }
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    /// The end of a broker's process without a word: the others find out when its session is over.
    pub(crate) fn kill(&mut self, node: i32, now: Now) {
        self.disconnect(node);
        self.falls_silent(node, Condition::Down, now);
    }

    /// The end of a broker's process in good order: it gives its partitions away first.
    pub(crate) fn stop(&mut self, node: i32) {
        self.give_up(node);
        self.disconnect(node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.condition = Condition::Down;
        }
    }

    /// A broker stops in the middle of whatever it does.
    pub(crate) fn pause(&mut self, node: i32, now: Now) {
        if self.nodes.get(&node).is_some_and(|node| node.condition == Condition::Running) {
            self.falls_silent(node, Condition::Paused, now);
        }
    }

    /// A broker is there, whether it was down, paused or neither.
    pub(crate) fn revive(&mut self, id: i32) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.condition, node.given_up_at) = (Condition::Running, None);
        if !node.alive {
            node.alive = true;
            self.choose_controller();
            self.each_state(|state, cluster| state.returned(id, cluster));
        }
        self.changed = true;
    }

    /// Forgets a broker; replicas that it had are nowhere.
    pub(crate) fn remove(&mut self, node: i32) {
        self.stop(node);
        self.nodes.remove(&node);
    }

    /// Makes a replica in sync the leader; `false` if it is not alive and in sync.
    pub(crate) fn move_leader(&mut self, topic: &str, index: i32, to: i32) -> bool {
        let alive = self.is_alive(to);
        let Some(partition) = self.partition_mut(topic, index) else { return false };
        let may_lead = alive && partition.state.isr.contains(&to);
        if may_lead && partition.state.leader != Some(to) {
            partition.state.lead(Some(to));
        }
        may_lead
    }

    fn falls_silent(&mut self, id: i32, condition: Condition, now: Now) {
        let timeout = self.settings.broker.millis("broker.session.timeout.ms");
        let at = super::later(now, timeout);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.condition = condition;
        if node.alive && node.given_up_at.is_none() {
            node.given_up_at = Some(at);
            self.plan(at, Event::SessionOver { node: id });
        }
        self.changed = true;
    }

    fn session_over(&mut self, id: i32, at: Instant) {
        if self.nodes.get(&id).is_some_and(|node| node.given_up_at == Some(at)) {
            self.give_up(id);
        }
    }

    /// The controller counts a broker among the dead: others lead what it led.
    fn give_up(&mut self, id: i32) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.alive, node.given_up_at) = (false, None);
        self.choose_controller();
        self.each_state(|state, cluster| state.lost(id, cluster));
        self.changed = true;
    }

    fn each_state(&mut self, mut change: impl FnMut(&mut State, &Situation)) {
        let situation = Situation { alive: self.alive().collect() };
        for topic in self.topics.values_mut() {
            for partition in &mut topic.partitions {
                change(&mut partition.state, &situation);
            }
        }
    }
}

/// What elections go by.
struct Situation {
    alive: Vec<i32>,
}

impl State {
    /// A broker is dead. The last replica in sync stays so: it alone has everything.
    fn lost(&mut self, node: i32, now: &Situation) {
        if self.isr.len() > 1 {
            self.isr.retain(|replica| *replica != node);
        }
        if self.leader == Some(node) {
            let next = self.isr.iter().copied().find(|replica| now.alive.contains(replica));
            self.lead(next);
        }
    }

    /// A broker is back.
    fn returned(&mut self, node: i32, now: &Situation) {
        if self.leader.is_none() && self.isr.contains(&node) {
            self.lead(Some(node));
        }
        if self.leader.is_some() && self.replicas.contains(&node) {
            let in_sync = |replica: &&i32| {
                self.isr.contains(replica) || **replica == node && now.alive.contains(replica)
            };
            self.isr = self.replicas.iter().filter(in_sync).copied().collect();
        }
    }

    fn lead(&mut self, leader: Option<i32>) {
        self.leader = leader;
        self.leader_epoch += 1;
    }
}
