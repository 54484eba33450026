//! Cluster metadata: an immutable snapshot, replaced as a whole. Pure: no clock, no IO.

use std::{collections::BTreeMap, sync::Arc};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{MetadataPartition, MetadataResponse, MetadataTopicResponse},
    wire::Uuid,
};
use kwal_transport::HostPort;

/// The cluster as brokers last described it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// How often it was updated.
    generation: u64,
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: BTreeMap<i32, HostPort>,
    pub(crate) controller: Option<i32>,
    pub(crate) topics: BTreeMap<String, Arc<TopicMetadata>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TopicMetadata {
    /// The update that it comes from; 0 if a broker contradicted it since.
    generation: u64,
    /// Zero where the broker is too old for topic ids.
    pub(crate) id: Uuid,
    /// The id of the topic of this name before; zero if none is known.
    former: Uuid,
    pub(crate) partitions: BTreeMap<i32, PartitionMetadata>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionMetadata {
    /// The update that it comes from.
    generation: u64,
    pub(crate) leader: Option<i32>,
    /// −1 where the broker is too old for leader epochs.
    pub(crate) leader_epoch: i32,
    pub(crate) error: ErrorCode,
    /// Whether a broker other than the leader named it, unless there is no other.
    pub(crate) confirmed: bool,
    /// Whether this leader denies that it leads: an older epoch may be the right one.
    denied: bool,
}

/// What a response contradicts in a snapshot. It takes two brokers to change that.
#[derive(Debug, Default)]
pub(crate) struct Contradictions {
    /// Brokers that it does not list, or lists at the given address.
    pub(crate) brokers: BTreeMap<i32, Option<HostPort>>,
    /// Topics that it describes under another id.
    topics: BTreeMap<String, TopicMetadata>,
    /// Partitions that it does not list, or describes with an older epoch while nobody leads the known one.
    partitions: BTreeMap<(String, i32), Option<PartitionMetadata>>,
    /// Whether it names a leader that is no known broker, and so contradicts itself.
    has_unknown_leader: bool,
}

/// What a broker that does not lead a partition reports of the one that does (KIP-951).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LeaderUpdate {
    /// The topic id; zero if the request named the topic.
    pub(crate) topic_id: Uuid,
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    /// The address of the leader; `None` if the broker did not report it.
    pub(crate) address: Option<HostPort>,
}

impl Metadata {
    /// Applies what a response adds, and returns what it contradicts. `by` is the broker that sent it, if its
    /// id is known.
    ///
    /// One broker alone takes nothing away, since it may lag or be cut off from the cluster: brokers and
    /// partitions that it does not list stay, brokers stay at their addresses, topics keep their ids, and
    /// leader epochs do not go back (KIP-320). For the same reason a topic that it does not know stays, but
    /// is marked as outdated. What two brokers agree on is for [`accept`](Self::accept).
    pub(crate) fn update(&mut self, response: &MetadataResponse, by: Option<i32>) -> Contradictions {
        self.generation += 1;
        let mut contradictions = Contradictions::default();
        let listed = response.brokers.iter();
        let listed = listed.filter_map(|broker| Some((broker.node_id, address(&broker.host, broker.port)?)));
        let mut listed: BTreeMap<_, _> = listed.collect();
        for (id, address) in &self.brokers {
            match listed.remove(id) {
                Some(same) if same == *address => {}
                other => drop(contradictions.brokers.insert(*id, other)),
            }
        }
        self.brokers.append(&mut listed);
        let alone = self.brokers.len() <= 1;
        self.cluster_id = response.cluster_id.clone().or_else(|| self.cluster_id.take());
        self.controller = (response.controller_id >= 0).then_some(response.controller_id);
        let confirms = |leader: i32| alone || by.is_some_and(|by| by != leader);
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            let next = match self.topics.get(name) {
                _ if !topic.error_code.is_error() => {
                    let described = TopicMetadata::new(topic, self.generation, confirms);
                    let mut leaders = described.partitions.values().filter_map(|partition| partition.leader);
                    contradictions.has_unknown_leader |=
                        leaders.any(|leader| !self.brokers.contains_key(&leader));
                    self.joined(name, described, &mut contradictions)
                }
                Some(known) => known.of(0),
                None => continue,
            };
            self.topics.insert(name.clone(), Arc::new(next));
        }
        contradictions
    }

    /// Joins the description of a topic with what is known of it.
    fn joined(
        &self,
        name: &str,
        mut topic: TopicMetadata,
        contradictions: &mut Contradictions,
    ) -> TopicMetadata {
        let Some(known) = self.topics.get(name) else { return topic };
        topic.former = known.former;
        // Brokers that are too old for topic ids do not report one.
        if known.id != topic.id && !known.id.is_zero() && !topic.id.is_zero() {
            contradictions.topics.insert(name.to_owned(), topic);
            return known.of(self.generation);
        }
        for (index, known) in &known.partitions {
            let instead = match topic.partitions.get(index) {
                Some(described) if described.is_behind(known) => {
                    // Without a leader, nobody denies that it leads.
                    let leads = known.leader.is_some_and(|leader| self.brokers.contains_key(&leader));
                    (known.denied || !leads).then_some(Some(*described))
                }
                Some(_) => continue,
                None => Some(None),
            };
            if let Some(instead) = instead {
                contradictions.partitions.insert((name.to_owned(), *index), instead);
            }
            let generation = self.generation;
            topic.partitions.insert(*index, PartitionMetadata { generation, ..*known });
        }
        topic
    }

    /// Applies contradictions that two brokers share, or of which there is no second opinion.
    pub(crate) fn accept(&mut self, contradictions: Contradictions) {
        let Contradictions { brokers, topics, partitions, has_unknown_leader: _ } = contradictions;
        for (id, address) in brokers {
            match (address, self.brokers.get_mut(&id)) {
                (Some(address), Some(known)) => *known = address,
                (None, Some(_)) => drop(self.brokers.remove(&id)),
                (_, None) => {}
            }
        }
        for (name, topic) in topics {
            if let Some(known) = self.topics.get_mut(&name) {
                *known = Arc::new(TopicMetadata { former: known.id, ..topic });
            }
        }
        for ((topic, index), instead) in partitions {
            let Some(topic) = self.topics.get_mut(&topic) else { continue };
            let partitions = &mut Arc::make_mut(topic).partitions;
            match instead {
                Some(instead) => drop(partitions.insert(index, instead)),
                None => drop(partitions.remove(&index)),
            }
        }
    }

    /// Whether a broker is taken for the leader of a partition in an epoch, and has not denied it.
    pub(crate) fn is_believed(&self, topic: &str, partition: i32, leader: i32, leader_epoch: i32) -> bool {
        let known = self.topics.get(topic).and_then(|topic| topic.partitions.get(&partition));
        known.is_some_and(|known| {
            (known.leader, known.leader_epoch, known.denied) == (Some(leader), leader_epoch, false)
        })
    }

    /// Notes that a broker denies that it leads a partition in an epoch.
    pub(crate) fn deny(&mut self, topic: &str, partition: i32, leader: i32, leader_epoch: i32) {
        if self.is_believed(topic, partition, leader, leader_epoch)
            && let Some(topic) = self.topics.get_mut(topic)
            && let Some(known) = Arc::make_mut(topic).partitions.get_mut(&partition)
        {
            known.denied = true;
        }
    }

    /// Forgets brokers, controller and topics. The cluster stays the same one, and so do generations.
    pub(crate) fn forget_all(&mut self) {
        let Self { brokers, controller, topics, .. } = self;
        brokers.clear();
        topics.clear();
        *controller = None;
    }

    /// Applies a leader update if its epoch is newer than the known one and the leader's address is known.
    pub(crate) fn apply_leader_update(&mut self, topic: &str, partition: i32, update: LeaderUpdate) {
        let LeaderUpdate { topic_id, leader, leader_epoch, address } = update;
        let Some(known) = self.topics.get(topic).filter(|known| known.id == topic_id || topic_id.is_zero())
        else {
            return;
        };
        let is_newer =
            known.partitions.get(&partition).is_some_and(|known| leader_epoch > known.leader_epoch);
        if leader < 0 || !is_newer || address.is_none() && !self.brokers.contains_key(&leader) {
            return;
        }
        self.generation += 1;
        self.brokers.extend(address.map(|address| (leader, address)));
        if let Some(known) = self.topics.get_mut(topic) {
            let updated = PartitionMetadata {
                generation: self.generation,
                leader: Some(leader),
                leader_epoch,
                error: ErrorCode::NONE,
                confirmed: true,
                denied: false,
            };
            Arc::make_mut(known).partitions.insert(partition, updated);
        }
    }
}

impl Contradictions {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { brokers, topics, partitions, has_unknown_leader } = self;
        brokers.is_empty() && topics.is_empty() && partitions.is_empty() && !has_unknown_leader
    }

    /// Returns what is believed although no other broker was there to be asked: not that a topic is the one
    /// that it was before. Ids do not come back, so that broker lags, unless it is the only one.
    pub(crate) fn without_second_opinion(mut self, known: &Metadata) -> Self {
        let is_former =
            |name: &String, id: Uuid| known.topics.get(name).is_some_and(|known| known.former == id);
        if known.brokers.len() > 1 {
            self.topics.retain(|name, topic| !is_former(name, topic.id));
        }
        self
    }

    /// Returns what both contradict, and what the other one says instead; of a partition, what is newer.
    pub(crate) fn shared_with(&self, mut other: Self) -> Self {
        other.brokers.retain(|id, _| self.brokers.contains_key(id));
        other.topics.retain(|name, theirs| self.topics.get(name).is_some_and(|ours| ours.id == theirs.id));
        other.partitions.retain(|key, _| self.partitions.contains_key(key));
        for (key, theirs) in &mut other.partitions {
            let Some(Some(ours)) = self.partitions.get(key) else { continue };
            match theirs {
                // Two brokers name it, so at least one of them is not the leader.
                Some(theirs) if theirs.is_led_as(ours) => theirs.confirmed |= ours.confirmed,
                Some(theirs) if !theirs.is_behind(ours) => {}
                _ => *theirs = Some(*ours),
            }
        }
        other
    }
}

impl PartitionMetadata {
    fn is_led_as(&self, other: &Self) -> bool {
        (self.leader, self.leader_epoch) == (other.leader, other.leader_epoch)
    }

    /// Whether it is older than the other one, or lacks the leader that the other one has.
    fn is_behind(&self, other: &Self) -> bool {
        match self.leader_epoch {
            // A broker without leader epochs is believed.
            ..0 => false,
            epoch if epoch == other.leader_epoch => self.leader.is_none() && other.leader.is_some(),
            epoch => epoch < other.leader_epoch,
        }
    }
}

/// Returns a broker's address; `None` if the port is not valid.
pub(crate) fn address(host: &str, port: i32) -> Option<HostPort> {
    Some(HostPort::new(host, u16::try_from(port).ok()?))
}

impl TopicMetadata {
    /// Returns the update that a partition comes from; that of the topic if it has no such partition.
    pub(crate) fn generation(&self, partition: Option<i32>) -> u64 {
        let known = partition.and_then(|partition| self.partitions.get(&partition));
        known.map_or(self.generation, |known| known.generation)
    }

    /// Returns the same as of another update; 0 for none.
    fn of(&self, generation: u64) -> Self {
        let mut topic = Self { generation, ..self.clone() };
        for partition in topic.partitions.values_mut() {
            partition.generation = generation;
        }
        topic
    }

    fn new(topic: &MetadataTopicResponse, generation: u64, confirms: impl Fn(i32) -> bool) -> Self {
        let partition = |partition: &MetadataPartition| {
            let described = PartitionMetadata {
                generation,
                leader: (partition.leader_id >= 0).then_some(partition.leader_id),
                leader_epoch: partition.leader_epoch,
                error: partition.error_code,
                confirmed: confirms(partition.leader_id),
                denied: false,
            };
            (partition.partition_index, described)
        };
        let partitions = topic.partitions.iter().map(partition).collect();
        Self { generation, id: topic.topic_id, former: Uuid::ZERO, partitions }
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::MetadataBroker;

    use super::*;

    fn response(id: u8, leader: i32, epoch: i32) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataBroker { node_id: 1, host: "a".to_owned(), port: 9092, rack: None }],
            topics: vec![MetadataTopicResponse {
                name: Some("wal".to_owned()),
                topic_id: Uuid([id; 16]),
                partitions: vec![MetadataPartition {
                    leader_id: leader,
                    leader_epoch: epoch,
                    ..MetadataPartition::default()
                }],
                ..MetadataTopicResponse::default()
            }],
            ..MetadataResponse::default()
        }
    }

    fn leader(metadata: &Metadata) -> Option<i32> {
        metadata.topics["wal"].partitions[&0].leader
    }

    fn after(responses: &[MetadataResponse]) -> Metadata {
        let mut metadata = Metadata::default();
        for response in responses {
            metadata.update(response, None);
        }
        metadata
    }

    #[test]
    fn leader_epochs_do_not_go_backwards() {
        assert_eq!(leader(&after(&[response(1, 5, 7), response(1, 4, 6)])), Some(5));
        assert_eq!(leader(&after(&[response(1, 5, 7), response(1, 4, 8)])), Some(4));
        // Nor after a broker that does not know the topic at all, which still marks it as outdated.
        let mut unknown = response(0, 0, 0);
        unknown.topics[0].error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        unknown.topics[0].partitions.clear();
        let mut metadata = after(&[response(1, 5, 7), unknown]);
        assert_eq!(metadata.topics["wal"].generation(Some(0)), 0);
        metadata.update(&response(1, 4, 6), None);
        assert_eq!((leader(&metadata), metadata.topics["wal"].generation(Some(0))), (Some(5), 3));
        // A broker without leader epochs is believed.
        assert_eq!(leader(&after(&[response(1, 5, 7), response(1, 4, -1)])), Some(4));
        // Nor after one that is too old for topic ids.
        assert_eq!(leader(&after(&[response(1, 5, 7), response(0, 4, 6), response(1, 4, 6)])), Some(5));
    }

    #[test]
    fn a_leader_is_confirmed_by_another_broker_unless_there_is_none() {
        let broker = |node_id| MetadataBroker { node_id, host: "a".to_owned(), port: 9092, rack: None };
        for (brokers, by, is_confirmed) in [
            (vec![1, 5], Some(1), true),
            (vec![1, 5], Some(5), false),
            // A bootstrap address may be the leader.
            (vec![1, 5], None, false),
            (vec![5], Some(5), true),
            (vec![5], None, true),
        ] {
            let mut response = response(1, 5, 7);
            response.brokers = brokers.iter().copied().map(broker).collect();
            let mut metadata = Metadata::default();
            metadata.update(&response, by);
            let partition = metadata.topics["wal"].partitions[&0];
            assert_eq!(partition.confirmed, is_confirmed, "{brokers:?} by {by:?}");
        }
        // A leader that is cut off lists itself alone.
        let mut metadata = Metadata::default();
        for brokers in [vec![1, 5], vec![5]] {
            let mut response = response(1, 5, 7);
            response.brokers = brokers.into_iter().map(broker).collect();
            metadata.update(&response, Some(5));
            assert!(!metadata.topics["wal"].partitions[&0].confirmed);
        }
    }

    #[test]
    fn what_a_broker_does_not_report_is_not_known() {
        let mut unknown = response(1, -1, -1);
        unknown.brokers[0].port = 70_000;
        unknown.topics.push(MetadataTopicResponse { name: None, ..Default::default() });
        let mut metadata = after(&[unknown]);
        assert_eq!((leader(&metadata), metadata.controller), (None, None));
        assert!(metadata.brokers.is_empty() && metadata.topics.len() == 1);
        // The cluster id stays, the controller may be gone.
        let named = MetadataResponse {
            cluster_id: Some("cluster".to_owned()),
            controller_id: 0,
            ..Default::default()
        };
        metadata.update(&named, None);
        assert_eq!((metadata.cluster_id.as_deref(), metadata.controller), (Some("cluster"), Some(0)));
        metadata.update(&MetadataResponse::default(), None);
        assert_eq!((metadata.cluster_id.as_deref(), metadata.controller), (Some("cluster"), None));
    }

    #[test]
    fn a_recreated_topic_starts_from_scratch_if_two_say_so() {
        let known = response(1, 5, 7);
        for (first, second, expected) in [
            (response(2, 4, 0), response(2, 3, 1), 3),
            (response(2, 4, 0), known.clone(), 5),
            (known.clone(), response(2, 4, 0), 5),
            (response(2, 4, 0), response(3, 4, 0), 5),
            // Without topic ids, it says nothing of it.
            (response(2, 4, 0), response(0, 5, 7), 5),
        ] {
            assert_eq!(after_two(false, &first, &second), Some(expected), "{first:?} {second:?}");
        }
        let mut metadata = after(&[known]);
        let contradictions = metadata.update(&response(2, 4, 0), Some(1));
        assert_eq!(metadata.topics["wal"].generation(Some(0)), 2, "it is as new as it can be");
        metadata.accept(contradictions);
        assert_eq!((leader(&metadata), metadata.topics["wal"].generation(Some(0))), (Some(4), 2));
    }

    #[test]
    fn topics_not_mentioned_stay_and_brokers_do_not() {
        let mut next = after(&[response(1, 5, 7)]);
        let contradictions = next.update(&MetadataResponse::default(), None);
        assert!(leader(&next).is_some());
        assert_eq!(next.brokers.len(), 1, "it takes two brokers");
        next.accept(contradictions);
        assert!(leader(&next).is_some());
        assert!(next.brokers.is_empty());
    }

    /// What becomes of a leader in epoch 7 after the responses of two brokers.
    fn after_two(is_denied: bool, first: &MetadataResponse, second: &MetadataResponse) -> Option<i32> {
        let mut metadata = after(&[response(1, 5, 7)]);
        metadata.brokers.insert(5, HostPort::new("e", 9092));
        if is_denied {
            metadata.deny("wal", 0, 5, 7);
        }
        let contradictions = metadata.update(first, Some(1));
        let others = metadata.update(second, Some(2));
        metadata.accept(contradictions.shared_with(others));
        leader(&metadata)
    }

    #[test]
    fn an_older_epoch_is_right_if_the_leader_denies_and_two_brokers_name_one() {
        let equal = response(1, 5, 7);
        for (is_denied, first, second, expected) in [
            (true, response(1, 4, 2), response(1, 4, 2), 4),
            // The newer one of two.
            (true, response(1, 4, 2), response(1, 3, 3), 3),
            (true, response(1, 3, 3), response(1, 4, 2), 3),
            // A broker still names the leader, or a newer one.
            (true, response(1, 4, 2), equal.clone(), 5),
            (true, equal.clone(), response(1, 4, 2), 5),
            (true, response(1, 4, 2), response(1, 3, 8), 3),
            (false, response(1, 4, 2), response(1, 4, 2), 5),
        ] {
            let text = format!("{first:?} {second:?}");
            assert_eq!(after_two(is_denied, &first, &second), Some(expected), "{text}");
        }
        // A leader that is no broker of the cluster, or none, denies nothing.
        for leader in [77, -1] {
            let mut metadata = after(&[response(1, leader, 7)]);
            let [first, others] = [1, 2].map(|by| metadata.update(&response(1, 4, 2), Some(by)));
            metadata.accept(first.shared_with(others));
            assert_eq!(metadata.topics["wal"].partitions[&0].leader, Some(4));
        }
        // Without its leader, a partition is as good as one of an older epoch.
        let leaderless = response(1, -1, 7);
        assert_eq!(after_two(false, &leaderless, &leaderless), Some(5));
        assert_eq!(after_two(true, &leaderless, &equal), Some(5));
        assert_eq!(after_two(true, &leaderless, &leaderless), None);
        // Another leader in the same epoch is news, whoever names it.
        assert_eq!(after_two(false, &response(1, 4, 7), &equal), Some(5));
        assert_eq!(after_two(false, &equal, &response(1, 4, 7)), Some(4));
    }

    #[test]
    fn a_denial_is_about_one_leader_in_one_epoch() {
        let mut metadata = after(&[response(1, 5, 7)]);
        let denied = |metadata: &Metadata| !metadata.is_believed("wal", 0, 5, 7);
        for (topic, partition, leader, epoch) in
            [("other", 0, 5, 7), ("wal", 1, 5, 7), ("wal", 0, 4, 7), ("wal", 0, 5, 6)]
        {
            metadata.deny(topic, partition, leader, epoch);
            assert!(!denied(&metadata));
        }
        metadata.deny("wal", 0, 5, 7);
        assert!(denied(&metadata));
        // Another broker still names it.
        metadata.update(&response(1, 5, 7), None);
        assert!(!denied(&metadata));
    }

    #[test]
    fn brokers_go_and_move_if_two_say_so() {
        let listing = |brokers: &[(i32, &str)]| MetadataResponse {
            brokers: brokers
                .iter()
                .map(|(node_id, host)| MetadataBroker {
                    node_id: *node_id,
                    host: (*host).to_owned(),
                    port: 9092,
                    rack: None,
                })
                .collect(),
            ..MetadataResponse::default()
        };
        let all = [(1, "a"), (2, "b")];
        for (first, second, expected) in [
            (&[(1, "a")][..], &[(1, "a")][..], &[(1, "a")][..]),
            (&[(1, "a")], &all, &all),
            (&all, &[(1, "a")], &all),
            (&[(1, "a")], &[(2, "b")], &all),
            (&[(1, "a"), (2, "c")], &[(1, "a"), (2, "c")], &[(1, "a"), (2, "c")]),
            (&[(1, "a"), (2, "c")], &[(1, "a"), (2, "d")], &[(1, "a"), (2, "d")]),
            (&[(1, "a"), (2, "c")], &[(1, "a")], &[(1, "a")]),
            (&[(1, "a"), (2, "c")], &all, &all),
            // New ones are believed at once.
            (&[(1, "a"), (2, "b"), (3, "c")], &all, &[(1, "a"), (2, "b"), (3, "c")]),
        ] {
            let mut metadata = after(&[listing(&all)]);
            let contradictions = metadata.update(&listing(first), Some(1));
            let others = metadata.update(&listing(second), Some(2));
            metadata.accept(contradictions.shared_with(others));
            let found: Vec<_> =
                metadata.brokers.iter().map(|(id, address)| (*id, address.host.as_str())).collect();
            assert_eq!(found, expected, "{first:?} {second:?}");
        }
    }

    #[test]
    fn partitions_go_if_two_say_so() {
        let without = MetadataResponse {
            topics: vec![MetadataTopicResponse {
                partitions: Vec::new(),
                ..response(1, 5, 7).topics.remove(0)
            }],
            ..response(1, 5, 7)
        };
        assert_eq!(after_two(false, &without, &response(1, 5, 7)), Some(5));
        let mut metadata = after(&[response(1, 5, 7)]);
        let contradictions = metadata.update(&without, None);
        assert_eq!(metadata.topics["wal"].generation(Some(0)), 2, "it is as new as it can be");
        let others = metadata.update(&without, None);
        metadata.accept(contradictions.shared_with(others));
        assert!(metadata.topics["wal"].partitions.is_empty());
    }

    #[test]
    fn a_single_broker_does_not_bring_a_former_topic_back() {
        for (brokers, id, expected) in [(2, 1, 2), (1, 1, 1), (2, 3, 3)] {
            let mut metadata = Metadata::default();
            for response in [response(1, 5, 7), response(2, 5, 0), response(2, 5, 1)] {
                let contradictions = metadata.update(&response, None);
                metadata.accept(contradictions);
            }
            if brokers == 2 {
                metadata.brokers.insert(5, HostPort::new("e", 9092));
            }
            let contradictions = metadata.update(&response(id, 5, 9), Some(1));
            metadata.accept(contradictions.without_second_opinion(&metadata));
            assert_eq!(metadata.topics["wal"].id, Uuid([expected; 16]), "{brokers} brokers, topic {id}");
        }
    }

    #[test]
    fn nothing_but_the_cluster_survives_a_new_start() {
        let cluster_id = Some("cluster".to_owned());
        let response = MetadataResponse { cluster_id, controller_id: 1, ..response(1, 5, 7) };
        let mut metadata = after(&[response.clone(), response]);
        metadata.forget_all();
        assert!(metadata.brokers.is_empty() && metadata.topics.is_empty() && metadata.controller.is_none());
        assert_eq!((metadata.generation, metadata.cluster_id.as_deref()), (2, Some("cluster")));
        // What a response of the time before contradicted does not come back.
        let mut contradictions = Contradictions::default();
        contradictions.brokers.insert(1, Some(HostPort::new("b", 9092)));
        contradictions.partitions.insert(("wal".to_owned(), 0), None);
        metadata.accept(contradictions);
        assert!(metadata.brokers.is_empty() && metadata.topics.is_empty());
    }

    #[test]
    fn leader_updates_apply_if_newer_for_the_same_topic_and_the_address_is_known() {
        let there = Some(HostPort::new("b", 9092));
        let update = |id: u8, leader, epoch, address: &Option<HostPort>| LeaderUpdate {
            topic_id: Uuid([id; 16]),
            leader,
            leader_epoch: epoch,
            address: address.clone(),
        };
        for (update, leads, generation) in [
            (update(1, 4, 8, &there), 4, 2),
            // The request named the topic.
            (update(0, 4, 8, &there), 4, 2),
            // Its address is known already.
            (update(1, 1, 8, &None), 1, 2),
            (update(1, 4, 7, &there), 5, 1),
            (update(1, 4, 6, &there), 5, 1),
            (update(1, -1, 8, &there), 5, 1),
            (update(2, 4, 8, &there), 5, 1),
            (update(1, 4, 8, &None), 5, 1),
        ] {
            let mut metadata = after(&[response(1, 5, 7)]);
            let text = format!("{update:?}");
            metadata.apply_leader_update("wal", 0, update);
            let topic = &metadata.topics["wal"];
            assert_eq!((leader(&metadata), topic.generation(Some(0))), (Some(leads), generation), "{text}");
            assert_eq!(topic.generation(None), 1, "only this partition is updated: {text}");
            assert_eq!(metadata.brokers.contains_key(&4), leads == 4, "{text}");
        }
    }
}
