//! What fetches return, and how long they wait.

use std::time::Duration;

use bytes::Bytes;
use kwal_protocol::{
    error_code::ErrorCode,
    messages::{FetchRequest, IsolationLevel},
    record::Batches,
};
use tokio::time::{Instant, timeout};

use crate::client::{Client, Place, batch, both, fetch, in_memory};

/// Returns the base offsets of the complete batches, and the size of an incomplete one after them.
fn read(records: Option<&Bytes>) -> (Vec<i64>, usize) {
    let mut batches = Batches::new(records.unwrap().clone());
    let offsets = batches.by_ref().map(|batch| batch.unwrap().base_offset()).collect();
    (offsets, batches.torn())
}

#[tokio::test]
async fn from_within_a_batch_at_the_end_and_past_it() {
    for broker in both().await {
        let place = Place::of(&broker, "wal", 0);
        let mut client = Client::connect(&broker).await;
        for values in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
            client.produce(&place, batch(values).to_bytes()).await;
        }
        for (offset, expected) in
            [(0, &[0, 3, 4][..]), (2, &[0, 3, 4]), (3, &[3, 4]), (4, &[4]), (5, &[4]), (6, &[])]
        {
            let answer = client.fetch(&place, offset).await;
            assert_eq!(answer.error_code, ErrorCode::NONE);
            assert_eq!(read(answer.records.as_ref()), (expected.to_vec(), 0), "from {offset}");
            assert_eq!((answer.high_watermark, answer.log_start_offset), (6, 0));
            assert_eq!(answer.aborted_transactions, None);
        }
        broker.delete_records("wal", 0, 3).unwrap();
        for offset in [-1, 2, 7] {
            let answer = client.fetch(&place, offset).await;
            assert_eq!(answer.error_code, ErrorCode::OFFSET_OUT_OF_RANGE, "from {offset}");
            assert_eq!((answer.high_watermark, answer.log_start_offset), (-1, -1));
        }
        assert_eq!(client.fetch(&place, 3).await.log_start_offset, 3);
    }
}

#[tokio::test]
async fn limits_truncate_the_last_batch_but_not_the_first() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    let places = [0, 1].map(|partition| Place::of(&broker, "wal", partition));
    for place in &places {
        for _ in 0..3 {
            client.produce(place, batch(&["a"]).to_bytes()).await;
        }
    }
    let size = batch(&["a"]).size_in_bytes() as i32;
    let mut request = fetch(&places[0], 0);
    for (limit, whole, torn) in
        [(0, 1, 0), (1, 1, 0), (size, 1, 0), (size + 9, 1, 9), (2 * size, 2, 0), (9 * size, 3, 0)]
    {
        request.topics[0].partitions[0].partition_max_bytes = limit;
        let answer = client.call(&request, 18).await;
        let (offsets, left) = read(answer.responses[0].partitions[0].records.as_ref());
        assert_eq!((offsets.len(), left), (whole, torn), "partition limit {limit}");
    }
    let mut request = fetch(&places[0], 0);
    request.topics[0].partitions.extend(fetch(&places[1], 0).topics[0].partitions.clone());
    // The second partition gets the rest of the limit, and no incomplete first batch.
    for (limit, first, second) in [
        (0, (1, 0), (0, 0)),
        (2 * size + 5, (2, 5), (0, 0)),
        (4 * size - 1, (3, 0), (0, 0)),
        (4 * size, (3, 0), (1, 0)),
        (4 * size + 5, (3, 0), (1, 5)),
        (i32::MAX, (3, 0), (3, 0)),
    ] {
        request.max_bytes = limit;
        let answer = client.call(&request, 18).await;
        let read: Vec<_> = answer.responses[0]
            .partitions
            .iter()
            .map(|partition| read(partition.records.as_ref()))
            .map(|(offsets, torn)| (offsets.len(), torn))
            .collect();
        assert_eq!(read, [first, second], "limit {limit}");
    }
}

#[tokio::test]
async fn refusals() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    let cases: [(&str, i16, Change, ErrorCode); 8] = [
        ("no topic", 12, |r| r.topics[0].topic = "nope".to_owned(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("no topic id", 13, |r| r.topics[0].topic_id.0[0] ^= 1, ErrorCode::UNKNOWN_TOPIC_ID),
        ("a zero id", 13, |r| r.topics[0].topic_id = Default::default(), ErrorCode::UNKNOWN_TOPIC_ID),
        ("no partition", 18, |r| partition(r).partition = 2, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("below", 18, |r| partition(r).partition = -1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("a leader to come", 18, |r| partition(r).current_leader_epoch = 1, ErrorCode::UNKNOWN_LEADER_EPOCH),
        ("a limit below 0", 18, |r| partition(r).partition_max_bytes = -1, ErrorCode::UNKNOWN_SERVER_ERROR),
        ("an epoch to come", 18, |r| partition(r).last_fetched_epoch = 1, ErrorCode::OFFSET_OUT_OF_RANGE),
    ];
    for (title, version, change, code) in cases {
        let mut request = FetchRequest { max_wait_ms: i32::MAX, min_bytes: i32::MAX, ..fetch(&place, 0) };
        change(&mut request);
        let answer = client.call(&request, version).await;
        assert_eq!(answer.responses[0].partitions[0].error_code, code, "{title}");
    }
    for (session_id, session_epoch, code) in [
        (0, 0, ErrorCode::NONE),
        (5, -1, ErrorCode::NONE),
        (5, 0, ErrorCode::NONE),
        (0, 1, ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
        (5, 1, ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
    ] {
        let request = FetchRequest { session_id, session_epoch, ..fetch(&place, 0) };
        let answer = client.call(&request, 18).await;
        assert_eq!((answer.error_code, answer.session_id), (code, 0));
    }
}

type Change = fn(&mut FetchRequest);

fn partition(request: &mut FetchRequest) -> &mut kwal_protocol::messages::FetchPartition {
    &mut request.topics[0].partitions[0]
}

#[tokio::test]
async fn committed_reads_return_an_empty_list_of_aborted_transactions() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    let request = FetchRequest { isolation_level: IsolationLevel::READ_COMMITTED, ..fetch(&place, 0) };
    let answer = client.call(&request, 18).await.responses.remove(0).partitions.remove(0);
    assert_eq!((answer.aborted_transactions, answer.last_stable_offset), (Some(Vec::new()), 1));
    assert_eq!(read(answer.records.as_ref()), (vec![0], 0));
}

fn waiting(place: &Place, offset: i64, min_bytes: i32) -> FetchRequest {
    FetchRequest { max_wait_ms: 30_000, min_bytes, ..fetch(place, offset) }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_time() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let begun = Instant::now();
    let answer = client.call(&waiting(&place, 0, 1), 18).await;
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(read(answer.responses[0].partitions[0].records.as_ref()), (vec![], 0));
    // The response has what is there, even if it is less than requested.
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    let begun = Instant::now();
    let answer = client.call(&waiting(&place, 0, 1_000_000), 18).await;
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(read(answer.responses[0].partitions[0].records.as_ref()), (vec![0], 0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_enough_bytes() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut reader = Client::connect(&broker).await;
    let mut writer = Client::connect(&broker).await;
    let size = batch(&["a"]).size_in_bytes() as i32;
    let begun = Instant::now();
    reader.send(&waiting(&place, 0, size * 2), 18).await;
    for expected in [None, Some(vec![0, 1])] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        writer.produce(&Place::of(&broker, "wal", 1), batch(&["elsewhere"]).to_bytes()).await;
        writer.produce(&place, batch(&["a"]).to_bytes()).await;
        let answer = timeout(Duration::from_millis(1), reader.receive::<FetchRequest>(18)).await;
        let answer = answer.ok().map(|answer| answer.unwrap().1.responses.remove(0).partitions.remove(0));
        assert_eq!(answer.map(|answer| read(answer.records.as_ref()).0), expected);
    }
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_topic_is_deleted() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    client.send(&waiting(&Place::of(&broker, "wal", 0), 0, 1), 18).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.delete_topic("wal").unwrap();
    let (_, answer) = client.receive::<FetchRequest>(18).await.unwrap();
    assert_eq!(answer.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
}

#[tokio::test(start_paused = true)]
async fn later_requests_wait_for_a_waiting_fetch() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let first = client.send(&waiting(&place, 0, 1), 18).await;
    let second = client.send(&fetch(&place, 0), 18).await;
    let begun = Instant::now();
    assert_eq!(client.receive::<FetchRequest>(18).await.unwrap().0, first);
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(client.receive::<FetchRequest>(18).await.unwrap().0, second);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn empty_fetches_and_fetches_without_minimum_do_not_wait() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let nothing = FetchRequest { topics: Vec::new(), ..waiting(&place, 0, 1) };
    assert_eq!(client.call(&nothing, 18).await.responses, []);
    let answer = client.call(&waiting(&place, 0, 0), 18).await;
    assert_eq!(read(answer.responses[0].partitions[0].records.as_ref()), (vec![], 0));
}

#[tokio::test]
async fn a_topic_id_under_the_same_name_is_another_topic() {
    let broker = in_memory();
    let old = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    client.produce(&old, batch(&["a"]).to_bytes()).await;
    broker.delete_topic("wal").unwrap();
    broker.create_topic("wal", 1).unwrap();
    assert_eq!(client.fetch(&old, 0).await.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    let new = client.fetch(&Place::of(&broker, "wal", 0), 0).await;
    assert_eq!((new.error_code, new.high_watermark), (ErrorCode::NONE, 0));
}
