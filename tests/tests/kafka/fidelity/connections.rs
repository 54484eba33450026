//! Versions, frames and the order of responses.

use std::time::Duration;

use bytes::Buf;
use kwal_protocol::api::{ApiKey, Body, decode_response_header, encode_request};
use kwal_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest};
use kwal_protocol::wire::Wire as _;
use tokio::time::Instant;

use super::describe;
use super::log::{FETCH, LIST_OFFSETS, PRODUCE, batch};
use super::world::World;

/// Of each API in kwal-protocol.
pub(super) async fn versions_that_are_listed(world: &mut World) {
    let connection = world.connect().await;
    for api in ApiKey::ALL {
        match connection.versions_of_api(*api) {
            Some(versions) => world.record(format!("{api} {versions}")),
            None => world.record(format!("no {api}")),
        }
    }
}

/// KIP-511: the response has version 0, error 35 and only the versions of ApiVersions. The connection stays
/// open.
pub(super) async fn api_versions_of_an_unknown_version(world: &mut World) {
    let mut connection = world.connect().await;
    for version in [5, 99, i16::MAX, -1] {
        let frame = frame(&ApiVersionsRequest::default(), 4, ApiKey::API_VERSIONS, version);
        let Some(response) = connection.exchange(&frame).await else {
            world.record(format!("version {version}: hangs up"));
            connection = world.connect().await;
            continue;
        };
        let zero = ApiVersionsResponse::version(0).unwrap();
        let (_, mut body) = decode_response_header::<ApiVersionsResponse>(&response, zero).unwrap();
        let response = ApiVersionsResponse::read(&mut body, zero).unwrap();
        body.finish().unwrap();
        let listed: Vec<String> = response
            .api_keys
            .iter()
            .map(|api| format!("{} {} to {}", api.api_key, api.min_version, api.max_version))
            .collect();
        world.record(format!(
            "version {version}: {}, lists {}",
            describe::code(response.error_code),
            listed.join(", ")
        ));
        let next = connection.call(&ApiVersionsRequest::default(), 2).await;
        world.record(format!("then version 2: {}", describe::code(next.error_code)));
    }
}

pub(super) async fn api_versions_of_odd_software(world: &mut World) {
    let mut connection = world.connect().await;
    for (name, version) in
        [("kwal", "1.0"), ("", "1.0"), ("kwal", ""), ("a b", "1"), ("k.w-al", "1-x"), ("-k", "1")]
    {
        let request = ApiVersionsRequest {
            client_software_name: name.to_owned(),
            client_software_version: version.to_owned(),
        };
        let text = match connection.try_call(&request, 3).await {
            Some(response) => format!(
                "{}, {}",
                describe::code(response.error_code),
                if response.api_keys.is_empty() { "lists nothing" } else { "lists APIs" }
            ),
            None => {
                connection = world.connect().await;
                "hangs up".to_owned()
            }
        };
        world.record(format!("{name:?} {version:?}: {text}"));
    }
}

/// The broker closes the connection without a response, also for some versions that it lists.
pub(super) async fn versions_that_the_broker_lacks(world: &mut World) {
    let log = world.log("versions", &[]).await;
    for (api, version) in [
        (ApiKey::METADATA, 14),
        (ApiKey::METADATA, -1),
        (ApiKey::PRODUCE, 14),
        (ApiKey::PRODUCE, 3),
        (ApiKey::FETCH, 19),
        (ApiKey::FETCH, 4),
        (ApiKey::LIST_OFFSETS, 12),
        (ApiKey::LIST_OFFSETS, 1),
    ] {
        let mut connection = world.connect().await;
        let frame = match api {
            ApiKey::PRODUCE => frame(&log.produce(batch(1).to_bytes(), 1), 3, api, version),
            ApiKey::FETCH => frame(&log.fetch_request(0, 1000), 4, api, version),
            ApiKey::LIST_OFFSETS => frame(&log.list_offsets(-1), 1, api, version),
            _ => frame(&MetadataRequest::default(), 1, api, version),
        };
        let outcome = outcome(connection.exchange(&frame).await.is_some());
        world.record(format!("{api} {version}: {outcome}"));
    }
    let mut connection = world.connect().await;
    // Kafka 4 lists these versions and does not accept them.
    let frame = frame(&log.produce(batch(1).to_bytes(), 1), 2, ApiKey::PRODUCE, 2);
    if connection.versions_of_api(ApiKey::FETCH).unwrap().oldest > 0 {
        let outcome = outcome(connection.exchange(&frame).await.is_some());
        world.record(format!("Produce 2: {outcome}"));
    }
}

pub(super) async fn an_unknown_api(world: &mut World) {
    for api in [1000, -1, 500] {
        let mut connection = world.connect().await;
        let frame = frame(&MetadataRequest::default(), 1, ApiKey(api), 0);
        let outcome = outcome(connection.exchange(&frame).await.is_some());
        world.record(format!("API {api}: {outcome}"));
    }
}

pub(super) async fn frames_of_odd_lengths(world: &mut World) {
    for length in [-1, i32::MIN, 0, 1, 7, i32::MAX, 200 << 20] {
        let mut connection = world.connect().await;
        let mut bytes = length.to_be_bytes().to_vec();
        // Short frames are sent completely.
        bytes.resize(4 + usize::try_from(length.clamp(0, 10)).unwrap(), 0);
        let outcome = outcome(connection.exchange(&bytes).await.is_some());
        world.record(format!("{length} bytes: {outcome}"));
    }
}

pub(super) async fn a_body_that_cannot_be_read(world: &mut World) {
    let log = world.log("bodies", &[]).await;
    let mut connection = world.connect().await;
    let mut cut = frame(&log.fetch_request(0, 1000), FETCH, ApiKey::FETCH, FETCH);
    cut.truncate(cut.len() - 20);
    let length = i32::try_from(cut.len() - 4).unwrap();
    cut[..4].copy_from_slice(&length.to_be_bytes());
    let response = outcome(connection.exchange(&cut).await.is_some());
    world.record(format!("cut off: {response}"));
    let mut connection = world.connect().await;
    let mut longer = frame(&MetadataRequest::default(), 1, ApiKey::METADATA, 1);
    longer.extend([0; 3]);
    let length = i32::try_from(longer.len() - 4).unwrap();
    longer[..4].copy_from_slice(&length.to_be_bytes());
    let response = outcome(connection.exchange(&longer).await.is_some());
    world.record(format!("three bytes too many: {response}"));
}

/// Pipelined requests of different APIs are answered in order.
pub(super) async fn answers_in_order(world: &mut World) {
    let mut log = world.log("ordered", &[]).await;
    log.connection.send(&log.produce(batch(1).to_bytes(), -1), PRODUCE).await;
    log.connection.send(&log.list_offsets(-1), LIST_OFFSETS).await;
    log.connection.send(&log.fetch_request(0, 1 << 20), FETCH).await;
    log.connection.send(&ApiVersionsRequest::default(), 3).await;
    log.connection.send(&log.produce(batch(1).to_bytes(), 1), PRODUCE).await;
    let mut first = None;
    for _ in 0..5 {
        let response = log.connection.receive().await.unwrap();
        let id = i32::from_be_bytes(response[..4].try_into().unwrap());
        let first = *first.get_or_insert(id);
        world.record(format!("answer to request {}", id - first));
    }
}

/// The next response is that of the next request, and the batch is on the log by then.
pub(super) async fn no_answer_to_acks_0(world: &mut World) {
    let mut log = world.log("silent", &[]).await;
    log.connection.send(&log.produce(batch(2).to_bytes(), 0), PRODUCE).await;
    let end = log.offset(-1, 0).await;
    world.record(format!("the end, asked behind it: {end}"));
}

/// The broker can only report it by closing the connection.
pub(super) async fn a_failed_append_with_acks_0(world: &mut World) {
    let mut log = world.log("failed", &[("max.message.bytes", "100")]).await;
    log.connection.send(&log.produce(batch(9).to_bytes(), 0), PRODUCE).await;
    let response = log.connection.try_call(&log.list_offsets(-1), LIST_OFFSETS).await;
    world.record(format!("the next request: {}", outcome(response.is_some())));
}

/// A request waits for the response to the previous one, even if that is a long poll.
pub(super) async fn one_request_at_a_time(world: &mut World) {
    let mut log = world.log("turns", &[]).await;
    let poll = FetchRequest { max_wait_ms: 600, min_bytes: 1, ..log.fetch_request(0, 1 << 20) };
    let started = Instant::now();
    log.connection.send(&poll, FETCH).await;
    log.connection.send(&ApiVersionsRequest::default(), 0).await;
    let first = log.connection.receive().await.unwrap();
    let second = log.connection.receive().await.unwrap();
    let ids = [first, second].map(|response| i32::from_be_bytes(response[..4].try_into().unwrap()));
    let waited = started.elapsed() >= Duration::from_millis(590);
    world.record(format!(
        "a long poll of 600 ms and ApiVersions behind it: answered {}, {} 600 ms",
        if ids[0] < ids[1] { "in order" } else { "the other way round" },
        if waited { "not before" } else { "before" },
    ));
}

/// Encodes a frame in one version, with another API and version in its header.
fn frame<R: kwal_protocol::api::Request>(request: &R, written: i16, api: ApiKey, version: i16) -> Vec<u8> {
    let mut frame = encode_request(request, written, 5, Some("kwal-tests")).unwrap();
    let mut bytes = frame.copy_to_bytes(frame.remaining()).to_vec();
    bytes[4..6].copy_from_slice(&api.0.to_be_bytes());
    bytes[6..8].copy_from_slice(&version.to_be_bytes());
    bytes
}

fn outcome(has_response: bool) -> &'static str {
    match has_response {
        true => "answers",
        false => "hangs up",
    }
}
