//! Whether a Metadata response can be true. Pure: no clock, no IO.

use std::collections::BTreeSet;

use kwal_protocol::messages::{MetadataRequest, MetadataResponse, MetadataTopicResponse};

use super::address;
use crate::error::ErrorKind;

/// Checks that a response is consistent, answers what was requested and lists a broker.
pub(crate) fn check(request: &MetadataRequest, response: &MetadataResponse) -> Result<(), ErrorKind> {
    if !is_consistent(response) || !answers(request, response) {
        return Err(ErrorKind::MalformedResponse);
    }
    match response.brokers.iter().any(|broker| address(&broker.host, broker.port).is_some()) {
        true => Ok(()),
        false => Err(ErrorKind::NoBrokersListed),
    }
}

/// Whether brokers, topics and partitions have valid numbers and are listed once each.
pub(crate) fn is_consistent(response: &MetadataResponse) -> bool {
    let MetadataResponse { brokers, topics, .. } = response;
    let are_valid = |numbers: Vec<i32>| numbers.iter().all(|number| *number >= 0) && are_distinct(numbers);
    let partitions = |topic: &MetadataTopicResponse| {
        topic.partitions.iter().map(|partition| partition.partition_index).collect()
    };
    are_distinct(topics.iter().filter_map(|topic| topic.name.as_deref()))
        && are_valid(brokers.iter().map(|broker| broker.node_id).collect())
        && topics.iter().all(|topic| are_valid(partitions(topic)))
}

/// Whether no value is there twice.
pub(crate) fn are_distinct<T: Ord>(values: impl IntoIterator<Item = T>) -> bool {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable();
    values.is_sorted_by(|a, b| a < b)
}

/// Whether every requested topic is in the response. Brokers leave none out: what is unknown or denied has an
/// error code.
fn answers(request: &MetadataRequest, response: &MetadataResponse) -> bool {
    let answered: BTreeSet<_> = response.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
    let mut requested = request.topics.iter().flatten().filter_map(|topic| topic.name.as_deref());
    requested.all(|name| answered.contains(name))
}

/// Removes the topics that were not requested. Without a list of topics, all were.
pub(crate) fn retain_requested(request: &MetadataRequest, response: &mut MetadataResponse) {
    if let Some(topics) = &request.topics {
        let requested: BTreeSet<_> = topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
        response.topics.retain(|topic| topic.name.as_deref().is_some_and(|name| requested.contains(name)));
    }
}

#[cfg(test)]
mod tests {
    use kwal_protocol::messages::{MetadataBroker, MetadataPartition, MetadataTopic};

    use super::*;

    fn broker(node_id: i32) -> MetadataBroker {
        MetadataBroker { node_id, host: "a".to_owned(), port: 9092, rack: None }
    }

    fn topic(name: &str, partitions: &[i32]) -> MetadataTopicResponse {
        let partition =
            |index: &i32| MetadataPartition { partition_index: *index, ..MetadataPartition::default() };
        MetadataTopicResponse {
            name: Some(name.to_owned()),
            partitions: partitions.iter().map(partition).collect(),
            ..MetadataTopicResponse::default()
        }
    }

    fn request(names: Option<&[&str]>) -> MetadataRequest {
        let topic = |name: &&str| MetadataTopic { name: Some((*name).to_owned()), ..Default::default() };
        MetadataRequest { topics: names.map(|names| names.iter().map(topic).collect()), ..Default::default() }
    }

    #[test]
    fn brokers_topics_and_partitions_are_listed_once_each() {
        for (brokers, topics, is_valid) in [
            (&[1, 2][..], vec![topic("a", &[0, 1]), topic("b", &[1, 0])], true),
            (&[], vec![], true),
            // Partitions may be missing.
            (&[2, 0, 1], vec![topic("a", &[2])], true),
            (&[1, 2, 1], vec![], false),
            (&[1, -1], vec![], false),
            (&[1], vec![topic("a", &[0]), topic("b", &[0]), topic("a", &[1])], false),
            (&[1], vec![topic("a", &[0, 1, 0])], false),
            (&[1], vec![topic("a", &[-1, 0])], false),
        ] {
            let brokers = brokers.iter().copied().map(broker).collect();
            let response = MetadataResponse { brokers, topics, ..Default::default() };
            assert_eq!(is_consistent(&response), is_valid, "{response:?}");
            let is_malformed = matches!(check(&request(None), &response), Err(ErrorKind::MalformedResponse));
            assert_eq!(is_malformed, !is_valid, "{response:?}");
        }
        // An unknown topic id has no name.
        let nameless = MetadataTopicResponse { name: None, ..Default::default() };
        let topics = vec![nameless.clone(), nameless];
        assert!(is_consistent(&MetadataResponse { topics, ..Default::default() }));
    }

    #[test]
    fn what_was_requested_is_answered_and_nothing_else_is_kept() {
        let topics = vec![topic("a", &[0]), topic("b", &[]), topic("c", &[0])];
        let response = MetadataResponse { brokers: vec![broker(1)], topics, ..Default::default() };
        for (requested, kept) in [
            (Some(&["a", "b"][..]), Ok(2)),
            (Some(&["c"]), Ok(1)),
            (Some(&[]), Ok(0)),
            (None, Ok(3)),
            (Some(&["a", "d"]), Err(())),
        ] {
            let (request, mut response) = (request(requested), response.clone());
            let checked = check(&request, &response).map_err(drop);
            retain_requested(&request, &mut response);
            assert_eq!(checked.map(|()| response.topics.len()), kept, "{requested:?}");
        }
    }

    #[test]
    fn a_broker_that_can_be_reached_is_listed() {
        let mut unreachable = broker(2);
        unreachable.port = 70_000;
        for (brokers, is_usable) in
            [(vec![], false), (vec![unreachable.clone()], false), (vec![unreachable, broker(1)], true)]
        {
            let response = MetadataResponse { brokers, ..Default::default() };
            let checked = check(&request(Some(&[])), &response);
            assert_eq!(checked.is_ok(), is_usable, "{checked:?}");
            assert!(matches!(checked, Ok(()) | Err(ErrorKind::NoBrokersListed)), "{checked:?}");
        }
    }
}
