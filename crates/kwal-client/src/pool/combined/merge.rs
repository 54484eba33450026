//! How fetches of partitions become one request, and its response becomes one for each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kwal_protocol::{
    api::Versions,
    error_code::ErrorCode,
    messages::{
        DivergingEpoch, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic, FetchTopicResponse,
    },
    wire::Uuid,
};
use tokio::time::Instant;

use super::member::Member;
use crate::duration::whole_millis;

/// The most partitions of one request.
const MOST: usize = 1_000;
/// More than a partition has in a response beside its records and the name of its topic, in bytes.
const OVERHEAD: usize = 256;

/// A request for several partitions.
#[derive(Debug)]
pub(super) struct Combined {
    /// In the order in which the broker reads them, and fills the response.
    pub(super) members: Vec<Arc<Member>>,
    pub(super) request: FetchRequest,
    pub(super) versions: Versions,
}

/// What a response has for a member.
#[derive(Debug)]
pub(super) enum Part {
    /// Records, an error, or something that cannot be a response.
    Answer(FetchResponse),
    /// There is nothing to read.
    Empty(FetchResponse),
    /// There was no room for it after the records of others.
    Skipped,
}

/// Combines those that wait, from the first one on, and returns the others, which have to wait for another
/// request: those that need another version or isolation level, and those that read the same partition.
///
/// `version` returns the version that a connection has for them. Responses have at most `frame` bytes.
pub(super) fn combine(
    waiting: impl IntoIterator<Item = Arc<Member>>,
    version: impl Fn(Versions) -> Option<i16>,
    frame: usize,
) -> (Option<Combined>, Vec<Arc<Member>>) {
    let (mut included, mut left) = (Vec::<Arc<Member>>::new(), Vec::new());
    let mut partitions = BTreeSet::new();
    let (mut overhead, mut kind) = (0, None);
    for member in waiting {
        let request = &member.fetch.request;
        let this = (version(member.fetch.versions), request.isolation_level);
        let kind = *kind.get_or_insert(this);
        let names = request.topics.first().and_then(|topic| Some((topic, topic.partitions.first()?)));
        let Some((topic, partition)) = names else { continue };
        let index = partition.partition;
        let by_name = (topic.topic.clone(), Uuid::ZERO, index);
        let by_id = (String::new(), topic.topic_id, index);
        let is_read =
            partitions.contains(&by_name) || !topic.topic_id.is_zero() && partitions.contains(&by_id);
        let more = OVERHEAD + topic.topic.len();
        let is_full = included.len() == MOST || !included.is_empty() && overhead + more > frame / 2;
        if this != kind || is_read || is_full {
            left.push(member);
            continue;
        }
        overhead += more;
        partitions.extend([by_name, by_id]);
        included.push(member);
    }
    let versions = included.first().map(|first| first.fetch.versions);
    let combined = versions.map(|versions| {
        let room = i32::try_from(frame.saturating_sub(overhead)).unwrap_or(i32::MAX);
        merge(included, versions, room.max(1))
    });
    (combined, left)
}

fn merge(included: Vec<Arc<Member>>, versions: Versions, room: i32) -> Combined {
    let mut topics = Vec::<(FetchTopic, Vec<Arc<Member>>)>::new();
    let mut indices = BTreeMap::new();
    let (mut max_bytes, mut isolation_level) = (1, None);
    for member in included {
        let FetchRequest { topics: requested, max_bytes: bytes, isolation_level: level, .. } =
            &member.fetch.request;
        max_bytes = max_bytes.max(*bytes);
        isolation_level.get_or_insert(*level);
        for topic in requested {
            let index = *indices.entry((topic.topic.clone(), topic.topic_id)).or_insert_with(|| {
                topics.push((FetchTopic { partitions: Vec::new(), ..topic.clone() }, Vec::new()));
                topics.len() - 1
            });
            topics[index].0.partitions.extend(topic.partitions.iter().cloned());
            topics[index].1.push(Arc::clone(&member));
        }
    }
    let (topics, members): (Vec<_>, Vec<_>) = topics.into_iter().unzip();
    let request = FetchRequest {
        min_bytes: 1,
        max_bytes: max_bytes.min(room),
        isolation_level: isolation_level.unwrap_or_default(),
        topics,
        ..FetchRequest::default()
    };
    Combined { members: members.into_iter().flatten().collect(), request, versions }
}

impl Combined {
    /// Returns how long the broker may wait: until the wait of the first one is over, in whole milliseconds.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let waiting = self.members.iter().filter(|member| !member.is_done());
        let first = waiting.map(|member| member.ends_at).min();
        let left = first.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let whole = whole_millis(left);
        // Not a little less, or it would be asked again for that.
        if whole < left { whole + Duration::from_millis(1) } else { whole }
    }

    /// When the last one of them ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let mut last = None;
        for member in &self.members {
            last = last.max(Some(member.fetch.deadline?));
        }
        last
    }

    /// Returns the most that the response is requested to have, in bytes.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.request.max_bytes).unwrap_or_default()
    }

    /// Removes those that end before then, and returns them.
    pub(super) fn split_off_ended(&mut self, until: Instant) -> Vec<Arc<Member>> {
        let ends = |member: &Arc<Member>| member.fetch.deadline.is_some_and(|deadline| deadline <= until);
        if !self.members.iter().any(ends) {
            return Vec::new();
        }
        let (ended, members) = std::mem::take(&mut self.members).into_iter().partition(ends);
        *self = merge(members, self.versions, self.request.max_bytes);
        ended
    }

    pub(super) fn set_asked(&self, is_asked: bool) {
        for member in &self.members {
            member.recipient().is_asked.store(is_asked, Ordering::Relaxed);
        }
    }

    /// Splits a response, in the order of the members. `None` if it has nothing for any of them but a
    /// throttle time (KIP-219).
    pub(super) fn split(&self, response: FetchResponse) -> Option<Vec<Part>> {
        let FetchResponse { throttle_time_ms, error_code, responses, node_endpoints, .. } = response;
        if error_code == ErrorCode::NONE && throttle_time_ms > 0 && responses.is_empty() {
            return None;
        }
        let mut found: Vec<Vec<FetchTopicResponse>> = self.members.iter().map(|_| Vec::new()).collect();
        let by_key = self.by_key();
        for FetchTopicResponse { topic, topic_id, partitions } in responses {
            for partition in partitions {
                let index = partition.partition_index;
                let by_id = || by_key.get(&("", topic_id, index)).filter(|_| !topic_id.is_zero());
                let by_name = || by_key.get(&(&*topic, Uuid::ZERO, index)).filter(|_| !topic.is_empty());
                // What nobody asked for is of no use to anybody.
                let Some(member) = by_id().or_else(by_name) else { continue };
                let topic = topic.clone();
                found[*member].push(FetchTopicResponse { topic, topic_id, partitions: vec![partition] });
            }
        }
        let mut is_filled = false;
        let part = |responses: Vec<FetchTopicResponse>| {
            let state = state(&responses);
            let was_filled = is_filled;
            is_filled |= state == State::Records;
            let answer = |node_endpoints| FetchResponse {
                error_code,
                responses,
                node_endpoints,
                ..FetchResponse::default()
            };
            match state {
                State::Nothing if was_filled => Part::Skipped,
                State::Nothing => Part::Empty(answer(Vec::new())),
                State::Records => Part::Answer(answer(Vec::new())),
                State::Other => Part::Answer(answer(node_endpoints.clone())),
            }
        };
        Some(found.into_iter().map(part).collect())
    }

    /// The places of the members by the names of their topics, and by the ids.
    fn by_key(&self) -> BTreeMap<(&str, Uuid, i32), usize> {
        let mut by_key = BTreeMap::new();
        for (place, member) in self.members.iter().enumerate() {
            for topic in &member.fetch.request.topics {
                for partition in &topic.partitions {
                    by_key.insert((&*topic.topic, Uuid::ZERO, partition.partition), place);
                    by_key.insert(("", topic.topic_id, partition.partition), place);
                }
            }
        }
        by_key
    }
}

/// What was found for a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Nothing,
    Records,
    /// An error, a divergence, or not exactly one partition.
    Other,
}

fn state(responses: &[FetchTopicResponse]) -> State {
    let [FetchTopicResponse { partitions, .. }] = responses else { return State::Other };
    let [FetchPartitionResponse { error_code, diverging_epoch, records, .. }] = &**partitions else {
        return State::Other;
    };
    match (*error_code, records.as_ref().is_some_and(|records| !records.is_empty())) {
        (ErrorCode::NONE, true) => State::Records,
        (ErrorCode::NONE, false) if *diverging_epoch == DivergingEpoch::default() => State::Nothing,
        _ => State::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kwal_protocol::messages::{FetchPartition, IsolationLevel};

    use super::{super::member::PartitionFetch, *};

    const ID: Uuid = Uuid([5; 16]);
    const ANY: Versions = Versions::new(4, 17);

    fn member(topic: &str, topic_id: Uuid, partition: i32) -> Arc<Member> {
        with(topic, topic_id, partition, ANY, |_| {})
    }

    fn with(
        topic: &str,
        topic_id: Uuid,
        partition: i32,
        versions: Versions,
        change: impl FnOnce(&mut FetchRequest),
    ) -> Arc<Member> {
        let partitions = vec![FetchPartition { partition, fetch_offset: 7, ..Default::default() }];
        let topics = vec![FetchTopic { topic: topic.to_owned(), topic_id, partitions }];
        let mut request = FetchRequest { max_bytes: 1000, topics, ..Default::default() };
        change(&mut request);
        let wait = Duration::from_secs(1);
        // The receiver is gone, which does not matter here.
        Member::new(PartitionFetch { request, versions, wait, deadline: None, memory: None }).0
    }

    fn newest(versions: Versions) -> Option<i16> {
        Some(versions.newest)
    }

    /// Topics and partitions of a request, in its order.
    fn asked(combined: &Combined) -> Vec<(&str, i32)> {
        let topics = combined.request.topics.iter();
        topics
            .flat_map(|topic| topic.partitions.iter().map(|partition| (&*topic.topic, partition.partition)))
            .collect()
    }

    #[tokio::test]
    async fn topics_are_grouped_and_members_are_in_the_order_of_the_request() {
        let members = [("b", 1), ("a", 4), ("b", 0)].map(|(topic, index)| member(topic, Uuid::ZERO, index));
        let (combined, left) = combine(members.clone(), newest, 1 << 20);
        let combined = combined.unwrap();
        assert_eq!((asked(&combined), left.len()), (vec![("b", 1), ("b", 0), ("a", 4)], 0));
        let order = [0, 2, 1].map(|index| &members[index]);
        assert!(combined.members.iter().zip(order).all(|(one, other)| Arc::ptr_eq(one, other)));
        assert_eq!((combined.request.min_bytes, combined.bytes()), (1, 1000));
    }

    #[tokio::test]
    async fn what_does_not_fit_into_a_request_is_left() {
        let committed = |request: &mut FetchRequest| request.isolation_level = IsolationLevel::READ_COMMITTED;
        let members = [
            member("a", ID, 0),
            // The same by name, and by id.
            member("a", Uuid([6; 16]), 0),
            member("renamed", ID, 0),
            with("a", ID, 1, Versions::new(4, 12), |_| {}),
            with("a", ID, 2, ANY, committed),
            with("a", ID, 3, ANY, |request| request.max_bytes = 5000),
        ];
        let (combined, left) = combine(members.clone(), newest, 1 << 20);
        let combined = combined.unwrap();
        assert_eq!(asked(&combined), [("a", 0), ("a", 3)]);
        assert_eq!(combined.bytes(), 5000, "the most that one of them asks for");
        assert!(left.iter().zip(&members[1..5]).all(|(one, other)| Arc::ptr_eq(one, other)));
        // They come first in the next one.
        assert_eq!(asked(&combine(left, newest, 1 << 20).0.unwrap()), [("a", 0), ("renamed", 0)]);
        // Neither more partitions than a response has room for, nor more bytes.
        let many = (0..2000).map(|index| member("a", ID, index));
        assert_eq!(combine(many.clone(), newest, 1 << 20).0.unwrap().members.len(), MOST);
        let (combined, left) = combine(many, newest, 2000);
        let combined = combined.unwrap();
        assert_eq!((combined.members.len(), left.len()), (3, 1997));
        assert!(combined.bytes() <= 2000 - 3 * OVERHEAD, "{}", combined.bytes());
        assert!(combine([], newest, 1000).0.is_none());
    }

    fn found(partition_index: i32, error_code: ErrorCode, bytes: usize) -> FetchPartitionResponse {
        let records = Some(Bytes::from(vec![0; bytes]));
        FetchPartitionResponse { partition_index, error_code, records, ..Default::default() }
    }

    /// Splits a response for partitions 0 to 4 by topic id. A letter for each: what it gets.
    fn parts(partitions: Vec<FetchPartitionResponse>) -> String {
        let members = (0..5).map(|index| member("a", ID, index));
        let combined = combine(members, newest, 1 << 20).0.unwrap();
        let topic = FetchTopicResponse { topic_id: ID, partitions, ..Default::default() };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        let letter = |part| match part {
            Part::Answer(FetchResponse { responses, .. }) => match responses.len() {
                0 => '-',
                1 => 'a',
                _ => '2',
            },
            Part::Empty(_) => 'e',
            Part::Skipped => 's',
        };
        combined.split(response).unwrap().into_iter().map(letter).collect()
    }

    #[tokio::test]
    async fn each_gets_its_part_of_a_response() {
        let none = ErrorCode::NONE;
        let all = |bytes: [usize; 5]| (0..5).map(|index| found(index, none, bytes[index as usize])).collect();
        assert_eq!(parts(all([0; 5])), "eeeee");
        assert_eq!(parts(all([0, 9, 0, 9, 0])), "easas", "after records, there may have been no room");
        let mut some = vec![found(4, none, 0), found(0, ErrorCode::NOT_LEADER_OR_FOLLOWER, 0)];
        some.extend([found(2, none, 0), found(2, none, 0), found(77, none, 9)]);
        assert_eq!(parts(some), "a-2-e");
        let diverging_epoch = DivergingEpoch { epoch: 3, end_offset: 5 };
        assert_eq!(parts(vec![FetchPartitionResponse { diverging_epoch, ..found(0, none, 0) }]), "a----");
    }

    #[tokio::test]
    async fn a_response_that_is_about_nothing_is_that_of_all_or_of_nobody() {
        let members = (0..2).map(|index| member("a", Uuid::ZERO, index));
        let combined = combine(members, newest, 1 << 20).0.unwrap();
        let throttled = FetchResponse { throttle_time_ms: 5, ..Default::default() };
        assert!(combined.split(throttled.clone()).is_none());
        let error_code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND;
        for part in combined.split(FetchResponse { error_code, ..throttled }).unwrap() {
            assert!(matches!(part, Part::Answer(response) if response.error_code == error_code));
        }
        // By name, which older brokers use.
        let topic = FetchTopicResponse {
            topic: "a".to_owned(),
            partitions: vec![found(1, ErrorCode::NONE, 3)],
            ..Default::default()
        };
        let response = FetchResponse { responses: vec![topic], throttle_time_ms: 5, ..Default::default() };
        let parts = combined.split(response).unwrap();
        assert!(matches!(&parts[0], Part::Answer(response) if response.responses.is_empty()));
        // A throttle time is obeyed by the connection. One without a partition would ask to be repeated.
        assert!(matches!(&parts[1], Part::Answer(response) if response.throttle_time_ms == 0));
    }
}
