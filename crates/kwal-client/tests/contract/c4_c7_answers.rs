//! C4, C7: a response is about what was requested, exactly once, or it is malformed.

use std::fmt::Debug;

use kwal_client::{
    OffsetAt, PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{
    api::Request,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeConfigsRequest, FetchRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
        OffsetForLeaderEpochRequest,
    },
    wire::Uuid,
};

use crate::support::{Wire, broker, record};

/// Changes a list in a response so that it no longer has what was requested, exactly once.
///
/// `rename` makes an element one about something else.
fn change<T: Clone>(list: &mut Vec<T>, change: Change, rename: fn(&mut T)) {
    match change {
        Change::Missing => list.clear(),
        Change::Other => rename(&mut list[0]),
        Change::Twice => list.push(list[0].clone()),
        Change::OtherAfter => {
            list.push(list[0].clone());
            rename(&mut list[1]);
        }
        Change::OtherBefore => {
            list.push(list[0].clone());
            rename(&mut list[0]);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Missing,
    Other,
    Twice,
    OtherAfter,
    OtherBefore,
}

/// Checks that a call fails with each change to a list in its response.
async fn check<R, T, O>(
    wire: &Wire,
    outcome: Outcome,
    list: fn(&mut R::Response) -> &mut Vec<T>,
    rename: fn(&mut T),
    call: impl AsyncFn() -> Result<O, Error>,
) where
    R: Request<Response: 'static>,
    T: Clone + 'static,
    O: Debug,
{
    use Change::{Missing, Other, OtherAfter, OtherBefore, Twice};
    for kind in [Missing, Other, Twice, OtherAfter, OtherBefore] {
        wire.edit::<R>(move |response| change(list(response), kind, rename));
        let error = call().await.unwrap_err();
        let text = format!("{} {kind:?}: {error:?}", R::KEY);
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{text}");
        assert_eq!((error.outcome(), error.is_retriable()), (outcome, false), "{text}");
    }
    wire.clear_edits();
}

async fn partition(wire: &Wire) -> PartitionClient {
    let partition = wire.client().await.partition_client("wal", 0).await.unwrap();
    partition.produce(record("value 0")).await.unwrap();
    partition
}

#[tokio::test(start_paused = true)]
async fn a_read_accepts_an_answer_about_its_partition_alone() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = partition(&wire).await;
    let none = Outcome::NotApplied;

    let fetch = async || partition.fetch(0).await;
    check::<FetchRequest, _, _>(
        &wire,
        none,
        |response| &mut response.responses,
        |topic| topic.topic_id = Uuid([9; 16]),
        fetch,
    )
    .await;
    check::<FetchRequest, _, _>(
        &wire,
        none,
        |response| &mut response.responses[0].partitions,
        |partition| partition.partition_index = 1,
        fetch,
    )
    .await;
    assert_eq!(fetch().await.unwrap().next_offset, 1);

    let end = async || partition.get_offset(OffsetAt::Latest).await;
    check::<ListOffsetsRequest, _, _>(
        &wire,
        none,
        |response| &mut response.topics,
        |topic| topic.name = "other".to_owned(),
        end,
    )
    .await;
    check::<ListOffsetsRequest, _, _>(
        &wire,
        none,
        |response| &mut response.topics[0].partitions,
        |partition| partition.partition_index = 1,
        end,
    )
    .await;
    assert_eq!(end().await.unwrap(), 1);

    let epoch = async || partition.offset_for_leader_epoch(0).await;
    check::<OffsetForLeaderEpochRequest, _, _>(
        &wire,
        none,
        |response| &mut response.topics,
        |topic| topic.topic = "other".to_owned(),
        epoch,
    )
    .await;
    check::<OffsetForLeaderEpochRequest, _, _>(
        &wire,
        none,
        |response| &mut response.topics[0].partitions,
        |partition| partition.partition = 1,
        epoch,
    )
    .await;
    assert_eq!(epoch().await.unwrap().unwrap().end_offset, 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_is_about_something_else_is_in_doubt() {
    let broker = broker();
    let wire = Wire::to(&broker);
    let partition = partition(&wire).await;
    let controller = wire.client().await.controller_client().await.unwrap();
    let unknown = Outcome::Unknown;

    let delete = async || partition.delete_records(1).await;
    check::<DeleteRecordsRequest, _, _>(
        &wire,
        unknown,
        |response| &mut response.topics,
        |topic| topic.name = "other".to_owned(),
        delete,
    )
    .await;
    check::<DeleteRecordsRequest, _, _>(
        &wire,
        unknown,
        |response| &mut response.topics[0].partitions,
        |partition| partition.partition_index = 1,
        delete,
    )
    .await;
    assert_eq!(delete().await.unwrap(), 1);

    check::<CreateTopicsRequest, _, _>(
        &wire,
        unknown,
        |response| &mut response.topics,
        |topic| topic.name = "other".to_owned(),
        async || controller.create_topic("new", 1, 1).await,
    )
    .await;
    check::<CreatePartitionsRequest, _, _>(
        &wire,
        unknown,
        |response| &mut response.results,
        |topic| topic.name = "other".to_owned(),
        async || controller.create_partitions("new", 2).await,
    )
    .await;
    check::<IncrementalAlterConfigsRequest, _, _>(
        &wire,
        unknown,
        |response| &mut response.responses,
        |resource| resource.resource_type = 4,
        async || controller.alter_topic_configs("new").set("retention.ms", "1").await,
    )
    .await;
    check::<DescribeConfigsRequest, _, _>(
        &wire,
        Outcome::NotApplied,
        |response| &mut response.results,
        |resource| resource.resource_name = "other".to_owned(),
        async || controller.describe_topic_configs("new").await,
    )
    .await;
    check::<DeleteTopicsRequest, _, _>(
        &wire,
        unknown,
        |response| &mut response.responses,
        |topic| topic.name = Some("other".to_owned()),
        async || controller.delete_topic("new").await,
    )
    .await;
}
