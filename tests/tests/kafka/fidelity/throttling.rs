//! Quotas: a throttled request has taken effect, and later requests of the connection wait.

use std::time::Duration;

use kwal_protocol::messages::{FetchRequest, ProduceResponse};
use kwal_protocol::record::{BatchBuilder, Compression};
use tokio::time::Instant;

use super::describe;
use super::log::{FETCH, LIST_OFFSETS, Log, NO_HEADERS, PRODUCE, TIME, batch};
use super::world::{World, until};

/// The response is immediate and contains the throttle time; the next response follows after it. Another
/// connection sees the batch meanwhile.
pub(super) async fn appends_over_the_quota(world: &mut World) {
    let mut log = world.log("throttled", &[]).await;
    world.limit("producer_byte_rate", 100_000.0).await;
    let mut other = world.connect().await;
    let mut appended = 0;
    // The quota is an average over about ten seconds, and the broker learns of it a little later.
    let (throttled, took) = until("an append is throttled", async || {
        let started = Instant::now();
        let response = append_large(&mut log).await;
        appended += 1;
        (response.throttle_time_ms > 0).then_some((response, started.elapsed()))
    })
    .await;
    let pause = Duration::from_millis(u64::try_from(throttled.throttle_time_ms).unwrap());
    let sent = Instant::now();
    log.connection.send(&log.list_offsets(-1), LIST_OFFSETS).await;
    let seen = other.call(&log.list_offsets(-1), LIST_OFFSETS).await.topics[0].partitions[0].offset;
    let seen_after = sent.elapsed();
    log.connection.receive().await.unwrap();
    let waited = sent.elapsed();
    let code = throttled.responses[0].partition_responses[0].error_code;
    world.record(format!(
        "throttled: {}, its answer {} the pause; on another connection the batch is {} meanwhile; \
         the next answer of this one comes {} the pause",
        describe::code(code),
        if took < pause { "before" } else { "after" },
        if seen == appended && seen_after < pause { "seen" } else { "not seen" },
        if waited > pause * 8 / 10 { "after" } else { "before" },
    ));
}

/// The response to a fetch over the quota is empty and contains the throttle time.
pub(super) async fn fetches_over_the_quota(world: &mut World) {
    let mut log = world.log("slow", &[]).await;
    for _ in 0..3 {
        append_large(&mut log).await;
    }
    world.limit("consumer_byte_rate", 100_000.0).await;
    let request = FetchRequest { max_wait_ms: 100, min_bytes: 1, ..log.fetch_request(0, 1 << 20) };
    let (response, took) = until("a fetch is throttled", async || {
        let started = Instant::now();
        let response = log.connection.call(&request, FETCH).await;
        (response.throttle_time_ms > 0).then_some((response, started.elapsed()))
    })
    .await;
    let pause = Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap());
    world.record(format!(
        "throttled: {}, {} topics, its answer {} the pause",
        describe::code(response.error_code),
        response.responses.len(),
        if took < pause { "before" } else { "after" },
    ));
    for topic in &response.responses {
        world.record(describe::fetched(&topic.partitions[0]));
    }
}

async fn append_large(log: &mut Log) -> ProduceResponse {
    let mut large = BatchBuilder::new(Compression::None);
    large.push(TIME, None, Some(&[0; 300_000]), NO_HEADERS);
    assert!(large.size_in_bytes() > batch(1).size_in_bytes());
    let request = log.produce(large.finish().unwrap().to_bytes(), -1);
    log.connection.call(&request, PRODUCE).await
}
