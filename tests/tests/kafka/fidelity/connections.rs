//! Versions, frames and the order of answers.

use std::time::Duration;

use bytes::Buf;
use kwal_protocol::api::{ApiKey, Body, decode_response_header, encode_request};
use kwal_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest};
use kwal_protocol::wire::Wire as _;
use tokio::time::Instant;

use super::log::{FETCH, LIST_OFFSETS, PRODUCE, batch};
use super::tell;
use super::world::World;

/// Of each API that the codec knows.
pub(super) async fn versions_that_are_listed(world: &mut World) {
    let link = world.link().await;
    for api in ApiKey::ALL {
        match link.versions_of_api(*api) {
            Some(versions) => world.saw(format!("{api} {versions}")),
            None => world.saw(format!("no {api}")),
        }
    }
}

/// KIP-511: the answer is of version 0, with error 35 and the versions of ApiVersions alone. Then the connection goes on.
pub(super) async fn api_versions_of_an_unknown_version(world: &mut World) {
    let mut link = world.link().await;
    for version in [5, 99, i16::MAX, -1] {
        let frame = frame(&ApiVersionsRequest::default(), 4, ApiKey::API_VERSIONS, version);
        let Some(answer) = link.exchange(&frame).await else {
            world.saw(format!("version {version}: hangs up"));
            link = world.link().await;
            continue;
        };
        let zero = ApiVersionsResponse::version(0).unwrap();
        let (_, mut body) = decode_response_header::<ApiVersionsResponse>(&answer, zero).unwrap();
        let answer = ApiVersionsResponse::read(&mut body, zero).unwrap();
        body.finish().unwrap();
        let listed: Vec<String> = answer
            .api_keys
            .iter()
            .map(|api| format!("{} {} to {}", api.api_key, api.min_version, api.max_version))
            .collect();
        world.saw(format!(
            "version {version}: {}, lists {}",
            tell::code(answer.error_code),
            listed.join(", ")
        ));
        let next = link.call(&ApiVersionsRequest::default(), 2).await;
        world.saw(format!("then version 2: {}", tell::code(next.error_code)));
    }
}

pub(super) async fn api_versions_of_odd_software(world: &mut World) {
    let mut link = world.link().await;
    for (name, version) in
        [("kwal", "1.0"), ("", "1.0"), ("kwal", ""), ("a b", "1"), ("k.w-al", "1-x"), ("-k", "1")]
    {
        let request = ApiVersionsRequest {
            client_software_name: name.to_owned(),
            client_software_version: version.to_owned(),
        };
        let told = match link.ask(&request, 3).await {
            Some(answer) => format!(
                "{}, {}",
                tell::code(answer.error_code),
                if answer.api_keys.is_empty() { "lists nothing" } else { "lists APIs" }
            ),
            None => {
                link = world.link().await;
                "hangs up".to_owned()
            }
        };
        world.saw(format!("{name:?} {version:?}: {told}"));
    }
}

/// The broker hangs up without a word; also on some that it lists.
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
        let mut link = world.link().await;
        let frame = match api {
            ApiKey::PRODUCE => frame(&log.produce(batch(1).to_bytes(), 1), 3, api, version),
            ApiKey::FETCH => frame(&log.fetch_request(0, 1000), 4, api, version),
            ApiKey::LIST_OFFSETS => frame(&log.list_offsets(-1), 1, api, version),
            _ => frame(&MetadataRequest::default(), 1, api, version),
        };
        let told = told(link.exchange(&frame).await.is_some());
        world.saw(format!("{api} {version}: {told}"));
    }
    let mut link = world.link().await;
    // Below what 4.x takes, though it lists it.
    let frame = frame(&log.produce(batch(1).to_bytes(), 1), 2, ApiKey::PRODUCE, 2);
    if link.versions_of_api(ApiKey::FETCH).unwrap().oldest > 0 {
        let told = told(link.exchange(&frame).await.is_some());
        world.saw(format!("Produce 2: {told}"));
    }
}

pub(super) async fn an_unknown_api(world: &mut World) {
    for api in [1000, -1, 500] {
        let mut link = world.link().await;
        let frame = frame(&MetadataRequest::default(), 1, ApiKey(api), 0);
        let told = told(link.exchange(&frame).await.is_some());
        world.saw(format!("API {api}: {told}"));
    }
}

pub(super) async fn frames_of_odd_lengths(world: &mut World) {
    for length in [-1, i32::MIN, 0, 1, 7, i32::MAX, 200 << 20] {
        let mut link = world.link().await;
        let mut bytes = length.to_be_bytes().to_vec();
        // What is announced comes, if it is short.
        bytes.resize(4 + usize::try_from(length.clamp(0, 10)).unwrap(), 0);
        let told = told(link.exchange(&bytes).await.is_some());
        world.saw(format!("{length} bytes: {told}"));
    }
}

pub(super) async fn a_body_that_cannot_be_read(world: &mut World) {
    let log = world.log("bodies", &[]).await;
    let mut link = world.link().await;
    let mut cut = frame(&log.fetch_request(0, 1000), FETCH, ApiKey::FETCH, FETCH);
    cut.truncate(cut.len() - 20);
    let length = i32::try_from(cut.len() - 4).unwrap();
    cut[..4].copy_from_slice(&length.to_be_bytes());
    let said = told(link.exchange(&cut).await.is_some());
    world.saw(format!("cut off: {said}"));
    let mut link = world.link().await;
    let mut longer = frame(&MetadataRequest::default(), 1, ApiKey::METADATA, 1);
    longer.extend([0; 3]);
    let length = i32::try_from(longer.len() - 4).unwrap();
    longer[..4].copy_from_slice(&length.to_be_bytes());
    let said = told(link.exchange(&longer).await.is_some());
    world.saw(format!("three bytes too many: {said}"));
}

/// Pipelined, of different APIs: each answer is that of the request whose turn it is.
pub(super) async fn answers_in_order(world: &mut World) {
    let mut log = world.log("ordered", &[]).await;
    log.link.send(&log.produce(batch(1).to_bytes(), -1), PRODUCE).await;
    log.link.send(&log.list_offsets(-1), LIST_OFFSETS).await;
    log.link.send(&log.fetch_request(0, 1 << 20), FETCH).await;
    log.link.send(&ApiVersionsRequest::default(), 3).await;
    log.link.send(&log.produce(batch(1).to_bytes(), 1), PRODUCE).await;
    let mut first = None;
    for _ in 0..5 {
        let answer = log.link.receive().await.unwrap();
        let id = i32::from_be_bytes(answer[..4].try_into().unwrap());
        let first = *first.get_or_insert(id);
        world.saw(format!("answer to request {}", id - first));
    }
}

/// The next answer is that of the next request, and the batch is there by then.
pub(super) async fn no_answer_to_acks_0(world: &mut World) {
    let mut log = world.log("silent", &[]).await;
    log.link.send(&log.produce(batch(2).to_bytes(), 0), PRODUCE).await;
    let end = log.offset(-1, 0).await;
    world.saw(format!("the end, asked behind it: {end}"));
}

/// Nothing can say so but the end of the connection.
pub(super) async fn a_failed_append_with_acks_0(world: &mut World) {
    let mut log = world.log("failed", &[("max.message.bytes", "100")]).await;
    log.link.send(&log.produce(batch(9).to_bytes(), 0), PRODUCE).await;
    let answer = log.link.ask(&log.list_offsets(-1), LIST_OFFSETS).await;
    world.saw(format!("the next request: {}", told(answer.is_some())));
}

/// A request waits for the answer to the one before it, also while that is a long poll.
pub(super) async fn one_request_at_a_time(world: &mut World) {
    let mut log = world.log("turns", &[]).await;
    let poll = FetchRequest { max_wait_ms: 600, min_bytes: 1, ..log.fetch_request(0, 1 << 20) };
    let started = Instant::now();
    log.link.send(&poll, FETCH).await;
    log.link.send(&ApiVersionsRequest::default(), 0).await;
    let first = log.link.receive().await.unwrap();
    let second = log.link.receive().await.unwrap();
    let ids = [first, second].map(|answer| i32::from_be_bytes(answer[..4].try_into().unwrap()));
    let waited = started.elapsed() >= Duration::from_millis(590);
    world.saw(format!(
        "a long poll of 600 ms and ApiVersions behind it: answered {}, {} 600 ms",
        if ids[0] < ids[1] { "in order" } else { "the other way round" },
        if waited { "not before" } else { "before" },
    ));
}

/// A frame that is written in one version and says that it is of another, or of another API.
fn frame<R: kwal_protocol::api::Request>(request: &R, written: i16, api: ApiKey, version: i16) -> Vec<u8> {
    let mut frame = encode_request(request, written, 5, Some("kwal-tests")).unwrap();
    let mut bytes = frame.copy_to_bytes(frame.remaining()).to_vec();
    bytes[4..6].copy_from_slice(&api.0.to_be_bytes());
    bytes[6..8].copy_from_slice(&version.to_be_bytes());
    bytes
}

fn told(answered: bool) -> &'static str {
    match answered {
        true => "answers",
        false => "hangs up",
    }
}
