//! Wires: what they show of the frames between a client and a broker, and what they do to them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::{ApiKey, encode_request},
    messages::{ApiVersionsRequest, MetadataRequest, ProduceRequest},
};
use kwal_testkit::{
    EmbeddedCluster,
    wire::{Decision, Wire, WireMode},
};
use kwal_transport::{Connect, Stream, memory};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::client::{Client, Place, batch, both, in_memory, outcome, produce, values};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_passes_is_counted_and_seen() {
    for cluster in both().await {
        let wire = Wire::new(cluster.connector());
        let seen = Arc::new(Mutex::new(Vec::new()));
        for response in [false, true] {
            let seen = Arc::clone(&seen);
            let hook = move |frame: &kwal_testkit::wire::Frame| {
                let decoded = match response {
                    false => frame.request::<MetadataRequest>().is_some(),
                    true => frame.response::<MetadataRequest>().is_some(),
                };
                let line = (frame.connection, frame.api, frame.version, frame.correlation_id, decoded);
                seen.lock().unwrap().push((response, line));
                Decision::Pass
            };
            match response {
                false => wire.on_request(hook),
                true => wire.on_response(hook),
            }
        }
        let place = Place::of(&cluster, "wal", 0);
        let mut first = connect(&wire, &cluster).await;
        let mut second = connect(&wire, &cluster).await;
        let mut unanswered = produce(&place, batch(&["a"]).to_bytes());
        unanswered.acks = 0;
        first.send(&unanswered, 12).await;
        first.call(&MetadataRequest::default(), 12).await;
        second.produce(&place, batch(&["b"]).to_bytes()).await;
        assert_eq!((wire.requests(ApiKey::PRODUCE), wire.responses(ApiKey::PRODUCE)), (2, 1));
        assert_eq!((wire.requests(ApiKey::METADATA), wire.responses(ApiKey::METADATA)), (1, 1));
        assert_eq!(wire.requests(ApiKey::FETCH), 0);
        let expected = [
            (false, (1, ApiKey::PRODUCE, 12, 1, false)),
            (false, (1, ApiKey::METADATA, 12, 2, true)),
            (true, (1, ApiKey::METADATA, 12, 2, true)),
            (false, (2, ApiKey::PRODUCE, 13, 1, false)),
            (true, (2, ApiKey::PRODUCE, 13, 1, false)),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
        let host = cluster.address(1).unwrap().host;
        let connections = wire.connections_to(&host);
        assert_eq!((connections.open, connections.accepted, connections.most_open), (2, 2, 2));
        assert_eq!((wire.connections(), wire.attempts_to(&host)), (connections, 2));
        drop((first, second));
        until(|| wire.connections().open == 0).await;
        assert_eq!(wire.connections_to("elsewhere").accepted, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn responses_are_rewritten_until_that_is_cleared() {
    let cluster = in_memory();
    let wire = Wire::new(cluster.connector());
    wire.rewrite::<MetadataRequest>(|response| response.controller_id = 7);
    wire.rewrite::<MetadataRequest>(|response| response.controller_id += 100);
    let mut client = connect(&wire, &cluster).await;
    // Every version is encoded in its own format.
    for version in [1, 8, 9, 12, 13] {
        let response = client.call(&MetadataRequest::default(), version).await;
        assert_eq!((response.controller_id, response.brokers.len()), (101, 1), "version {version}");
    }
    // The response to an unknown version has the format of version 0, and passes as it is.
    wire.rewrite::<ApiVersionsRequest>(|response| response.api_keys.clear());
    let mut unknown = encode_request(&ApiVersionsRequest::default(), 4, 9, None).unwrap();
    let mut bytes = unknown.copy_to_bytes(unknown.remaining()).to_vec();
    bytes[6..8].copy_from_slice(&99_i16.to_be_bytes());
    client.send_bytes(&bytes[..]).await;
    assert!(client.receive_frame().await.unwrap().len() > 10);
    wire.clear_rewrites();
    assert_eq!(client.call(&MetadataRequest::default(), 12).await.controller_id, 1);
}

#[tokio::test(start_paused = true)]
async fn hooks_run_in_order_and_the_first_that_stops_a_frame_decides() {
    let cluster = in_memory();
    let wire = Wire::new(cluster.connector());
    let mut client = connect(&wire, &cluster).await;
    wire.on_response(|frame| {
        let mut response = frame.response::<MetadataRequest>().unwrap();
        response.controller_id = 20;
        frame.replace_response::<MetadataRequest>(&response)
    });
    wire.on_response(|frame| {
        let mut response = frame.response::<MetadataRequest>().unwrap();
        response.controller_id += 1;
        frame.replace_response::<MetadataRequest>(&response)
    });
    assert_eq!(client.call(&MetadataRequest::default(), 12).await.controller_id, 21);
    wire.on_response(|_| Decision::Discard);
    wire.on_response(|_| unreachable!("the frame is discarded already"));
    client.send(&MetadataRequest::default(), 12).await;
    assert!(timeout(SECOND, client.receive_frame()).await.is_err());
    wire.clear_hooks();
    assert_eq!(client.call(&MetadataRequest::default(), 12).await.controller_id, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_are_replaced_delayed_held_and_discarded() {
    let cluster = in_memory();
    let place = Place::of(&cluster, "wal", 0);
    let wire = Wire::new(cluster.connector());
    let mut client = connect(&wire, &cluster).await;
    let other = produce(&place, batch(&["other"]).to_bytes());
    wire.on_request(move |frame| match frame.correlation_id {
        1 => {
            let mut encoded = encode_request(&other, 13, 1, Some("test")).unwrap();
            encoded.advance(4);
            Decision::Replace(encoded.copy_to_bytes(encoded.remaining()))
        }
        2 => Decision::Delay(3 * SECOND),
        3 => Decision::Hold,
        4 => Decision::Discard,
        _ => Decision::Pass,
    });
    assert_eq!(outcome(&client.produce(&place, batch(&["one"]).to_bytes()).await), Ok(0));
    let begun = Instant::now();
    assert_eq!(outcome(&client.produce(&place, batch(&["two"]).to_bytes()).await), Ok(1));
    assert_eq!(begun.elapsed(), 3 * SECOND);

    let begun = Instant::now();
    let held = client.produce(&place, batch(&["three"]).to_bytes());
    let release = async {
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(cluster.end_offset("wal", 0).unwrap(), 2);
        wire.release();
    };
    assert_eq!((outcome(&tokio::join!(held, release).0), begun.elapsed()), (Ok(2), 5 * SECOND));

    client.send(&produce(&place, batch(&["four"]).to_bytes()), 13).await;
    assert_eq!(outcome(&client.produce(&place, batch(&["five"]).to_bytes()).await), Ok(3));
    assert_eq!(values(&cluster, &place), ["other", "two", "three", "five"]);
}

#[tokio::test]
async fn frames_are_cut_in_either_direction() {
    for cluster in both().await {
        let place = Place::of(&cluster, "wal", 0);
        let wire = Wire::new(cluster.connector());
        wire.on_request(|frame| match frame.request::<ProduceRequest>() {
            Some(request) if request.timeout_ms == 1 => Decision::Cut(frame.bytes.len()),
            _ => Decision::Pass,
        });
        wire.on_response(|frame| match frame.api {
            ApiKey::PRODUCE => Decision::Cut(6),
            _ => Decision::Pass,
        });
        let mut client = connect(&wire, &cluster).await;
        let mut cut = produce(&place, batch(&["cut"]).to_bytes());
        cut.timeout_ms = 1;
        client.send(&cut, 13).await;
        assert_eq!(client.receive_bytes().await, b"", "closed in the middle of the request");

        let mut client = connect(&wire, &cluster).await;
        client.send(&produce(&place, batch(&["a"]).to_bytes()), 13).await;
        let received = client.receive_bytes().await;
        assert_eq!((received.len(), &received[4..]), (6, &[0, 0][..]));
        assert_eq!(values(&cluster, &place), ["a"], "the broker got only the second request");
        until(|| wire.connections().open == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn modes_stop_connections_to_all_hosts_or_one() {
    let cluster = EmbeddedCluster::builder().brokers(2).start_in_memory().unwrap();
    let wire = Wire::new(cluster.connector());
    let (one, two) = (cluster.address(1).unwrap(), cluster.address(2).unwrap());
    let mut first = Client::connect_by(&wire, &one).await;
    let mut second = Client::connect_by(&wire, &two).await;
    let metadata = MetadataRequest::default();
    first.call(&metadata, 12).await;

    wire.set_at(&one.host, WireMode::Stalled);
    first.send(&metadata, 12).await;
    assert!(timeout(SECOND, first.receive_frame()).await.is_err());
    second.call(&metadata, 12).await;
    assert_eq!(wire.requests(ApiKey::METADATA), 2, "a stalled request is not read");
    wire.set(WireMode::Passing);
    first.receive_frame().await.unwrap();

    wire.set(WireMode::Deaf);
    first.send(&metadata, 12).await;
    assert!(timeout(SECOND, first.receive_frame()).await.is_err());
    assert!(timeout(SECOND, wire.connect(&one)).await.is_ok());
    wire.set(WireMode::Unreachable);
    assert!(timeout(SECOND, wire.connect(&one)).await.is_err());
    assert_eq!((wire.attempts_to(&one.host), wire.connections_to(&one.host).accepted), (3, 2));
    wire.set(WireMode::Passing);
    first.send(&metadata, 12).await;
    assert!(timeout(SECOND, first.receive_frame()).await.is_err(), "deaf for good");
    Client::connect_by(&wire, &one).await.call(&metadata, 12).await;
}

/// A change of mode while half of a frame has arrived must not lose that half.
#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_in_pieces_survives_a_change_of_mode() {
    let cluster = in_memory();
    let wire = Wire::new(cluster.connector());
    let mut client = connect(&wire, &cluster).await;
    let mut frame = encode_request(&MetadataRequest::default(), 12, 1, Some("test")).unwrap();
    let bytes = frame.copy_to_bytes(frame.remaining());
    for at in 1..bytes.len() {
        client.send_bytes(bytes.slice(..at)).await;
        tokio::time::sleep(SECOND).await;
        wire.set(WireMode::Stalled);
        tokio::time::sleep(SECOND).await;
        wire.set(WireMode::Passing);
        client.send_bytes(bytes.slice(at..)).await;
        client.receive_frame().await.unwrap();
    }
}

/// As with TLS, the first bytes are not the length of a frame.
#[tokio::test(start_paused = true)]
async fn encrypted_connections_pass_unseen() {
    let network = memory::MemoryNetwork::default();
    let mut listener = network.listen("broker:9093".parse().unwrap()).unwrap();
    let wire = Wire::new(network);
    wire.on_request(|_| unreachable!("there is no frame"));
    let mut client: Stream = wire.connect(listener.address()).await.unwrap();
    let mut server = listener.accept().await;
    let hello = Bytes::from_static(b"\x16\x03\x01\x02\x00 and more");
    client.write_all(&hello).await.unwrap();
    let mut read = vec![0; hello.len()];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(read, hello);
    server.write_all(b"\x16\x03\x03").await.unwrap();
    client.read_exact(&mut read[..3]).await.unwrap();
    assert_eq!(read[..3], *b"\x16\x03\x03");
    client.write_all(&hello).await.unwrap();
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(read, hello);
    drop(server);
    assert_eq!(client.read(&mut read).await.unwrap(), 0);
    until(|| wire.connections().open == 0).await;
    assert_eq!(wire.connections().accepted, 1);
}

async fn connect(wire: &Wire, cluster: &EmbeddedCluster) -> Client {
    Client::connect_by(wire, &cluster.address(1).unwrap()).await
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}
