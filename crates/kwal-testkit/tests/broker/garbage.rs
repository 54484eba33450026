//! Arbitrary bytes: the connection is closed or answered, and the broker continues.

use std::time::Duration;

use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::{Request, encode_request},
    messages::{
        ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest,
        ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataTopic,
    },
};
use kwal_testkit::EmbeddedCluster;
use kwal_transport::memory::MemoryNetwork;
use tokio::time::timeout;

use crate::client::{CODEC, Client, Place, batch, compressed, fetch, in_memory, produce, values};

#[tokio::test]
async fn invalid_frame_lengths() {
    let broker = EmbeddedCluster::builder().topic("wal", 1).max_frame_len(1000).start().await.unwrap();
    let place = Place::of(&broker, "wal", 0);
    for len in [-1, i32::MIN, 1001, i32::MAX, 0, 3, 7] {
        let mut client = Client::connect(&broker).await;
        let bytes = [&i32::to_be_bytes(len)[..], &[0; 7]].concat();
        client.send_bytes(&bytes[..]).await;
        assert!(client.receive_frame().await.is_none(), "length {len}");
    }
    let request = |value_len| produce(&place, batch(&[&"x".repeat(value_len)]).to_bytes());
    let fits = 500 + 1000 - (bytes_of(&request(500), 12).len() - 4);
    for (len, answered) in [(fits, true), (fits + 1, false)] {
        let mut client = Client::connect(&broker).await;
        client.send(&request(len), 12).await;
        assert_eq!(client.receive_frame().await.is_some(), answered, "a value of {len} bytes");
    }
}

#[tokio::test]
async fn a_frame_may_arrive_byte_by_byte_and_end_early() {
    // Streams with a buffer of a single byte.
    let network = MemoryNetwork::with_buffer(1);
    let address = kwal_transport::HostPort::new("slow", 9092);
    let broker = EmbeddedCluster::builder().topic("wal", 1).start_in(&network, address).unwrap();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    client.produce(&place, batch(&["a"]).to_bytes()).await;
    assert_eq!(client.fetch(&place, 0).await.high_watermark, 1);
    let mut frame = encode_request(&produce(&place, batch(&["b"]).to_bytes()), 12, 1, None).unwrap();
    let frame = frame.copy_to_bytes(frame.remaining());
    for cut in 0..frame.len() {
        let mut client = Client::connect(&broker).await;
        client.send_bytes(frame.slice(..cut)).await;
    }
    let mut client = Client::connect(&broker).await;
    assert_eq!(client.fetch(&place, 0).await.high_watermark, 1);
    assert_eq!(values(&broker, &place), ["a"]);
}

/// Kafka reads what the version has, and ignores what follows.
#[tokio::test]
async fn bytes_after_the_end_of_a_request_are_ignored() {
    let broker = EmbeddedCluster::builder().topic("wal", 1).journal(1000).start_in_memory().unwrap();
    let place = Place::of(&broker, "wal", 0);
    let mut frames = vec![
        bytes_of(&produce(&place, batch(&["a"]).to_bytes()), 3),
        bytes_of(&produce(&place, batch(&["b"]).to_bytes()), 13),
        bytes_of(&fetch(&place, 0), 4),
        bytes_of(&fetch(&place, 0), 18),
        bytes_of(&CreateTopicsRequest::default(), 7),
        bytes_of(&DeleteTopicsRequest::default(), 6),
        bytes_of(&InitProducerIdRequest::default(), 5),
        bytes_of(&ListOffsetsRequest::default(), 1),
        bytes_of(&ApiVersionsRequest::default(), 0),
        bytes_of(&ApiVersionsRequest::default(), 4),
    ];
    frames.extend((0..=13).map(|version| bytes_of(&MetadataRequest::default(), version)));
    for frame in frames {
        for more in [&[0][..], &[0; 3], &[0xff; 3], &[7; 5_000]] {
            let mut frame = [&frame, more].concat();
            let len = (frame.len() - 4) as i32;
            frame[..4].copy_from_slice(&len.to_be_bytes());
            let mut client = Client::connect(&broker).await;
            client.send_bytes(&frame[..]).await;
            let answer = client.receive_frame().await;
            assert!(answer.is_some(), "{} bytes after {:?}", more.len(), &frame[..8]);
        }
    }
    assert_eq!(values(&broker, &place), ["a", "a", "a", "a", "b", "b", "b", "b"]);
    let journal = broker.journal().to_string();
    assert!(journal.contains("> Produce 13 acks=-1 wal-0"), "they are in its summaries, too: {journal}");
}

#[tokio::test(start_paused = true)]
async fn mutilated_requests() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut frames = vec![
        bytes_of(&produce(&place, batch(&["a", "b"]).stamp(1, 0, 0).to_bytes()), 13),
        bytes_of(&produce(&place, compressed(CODEC, &["a", "b"]).to_bytes()), 3),
        bytes_of(&fetch(&place, 0), 18),
        bytes_of(&fetch(&place, 0), 4),
        bytes_of(&CreateTopicsRequest::default(), 7),
        bytes_of(&DeleteTopicsRequest::default(), 6),
        bytes_of(&InitProducerIdRequest::default(), 5),
    ];
    let named = MetadataTopic { name: Some("wal".to_owned()), ..Default::default() };
    let metadata = MetadataRequest { topics: Some(vec![named]), ..Default::default() };
    let partitions = vec![ListOffsetsPartition { timestamp: -3, ..Default::default() }];
    let topics = vec![ListOffsetsTopic { name: "wal".to_owned(), partitions }];
    let offsets = ListOffsetsRequest { topics, ..Default::default() };
    for version in [0, 5, 13] {
        frames.push(bytes_of(&metadata, version));
    }
    for version in [1, 11] {
        frames.push(bytes_of(&offsets, version));
    }
    for version in [0, 4] {
        frames.push(bytes_of(&ApiVersionsRequest::default(), version));
    }
    let mut random = fastrand::Rng::with_seed(7);
    let (mut answered, mut closed) = (0, 0);
    for _ in 0..4000 {
        let mut frame = frames[random.usize(..frames.len())].to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(4..frame.len());
            match random.u8(..4) {
                0 => frame[at] = random.u8(..),
                1 => frame[at] = [0, 0xff, 0x7f, 0x80][random.usize(..4)],
                2 => frame.truncate(at + 1),
                _ => frame.insert(at, random.u8(..)),
            }
        }
        let len = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        let mut client = Client::connect(&broker).await;
        client.send_bytes(&frame[..]).await;
        // Longer than any wait that a request can have.
        match timeout(Duration::from_secs(86_400 * 60), client.receive_frame()).await {
            Ok(Some(_)) => answered += 1,
            Ok(None) => closed += 1,
            // Acks is 0 now.
            Err(_) => {}
        }
    }
    assert!(answered > 300 && closed > 300, "{answered} answered, {closed} closed");
    let mut client = Client::connect(&broker).await;
    let end = broker.end_offset("wal", 0).unwrap();
    assert_eq!(client.fetch(&place, 0).await.high_watermark, end);
    assert!(broker.records("wal", 0).is_ok(), "what was appended can be read");
}

fn bytes_of<R: Request>(request: &R, version: i16) -> Bytes {
    let mut frame = encode_request(request, version, 1, Some("test")).unwrap();
    frame.copy_to_bytes(frame.remaining())
}
