//! Quotas: a throttled request *has been carried out*, and the connection is left waiting.

use std::time::Duration;

use kwal_protocol::messages::{FetchRequest, ProduceResponse};
use kwal_protocol::record::{BatchBuilder, Compression};
use tokio::time::Instant;

use super::log::{FETCH, LIST_OFFSETS, Log, NO_HEADERS, PRODUCE, TIME, batch};
use super::tell;
use super::world::{World, until};

/// The answer comes at once and names the pause; the next answer comes after it. On another connection, the batch is seen
/// meanwhile.
pub(super) async fn appends_over_the_quota(world: &mut World) {
    let mut log = world.log("throttled", &[]).await;
    world.limit("producer_byte_rate", 100_000.0).await;
    let mut other = world.link().await;
    let mut appended = 0;
    // The quota is an average of ten seconds or so, and known to the broker a little later.
    let (throttled, took) = until("an append is throttled", async || {
        let started = Instant::now();
        let answer = append_large(&mut log).await;
        appended += 1;
        (answer.throttle_time_ms > 0).then_some((answer, started.elapsed()))
    })
    .await;
    let pause = Duration::from_millis(u64::try_from(throttled.throttle_time_ms).unwrap());
    let asked = Instant::now();
    log.link.send(&log.list_offsets(-1), LIST_OFFSETS).await;
    let seen = other.call(&log.list_offsets(-1), LIST_OFFSETS).await.topics[0].partitions[0].offset;
    let seen_after = asked.elapsed();
    log.link.receive().await.unwrap();
    let waited = asked.elapsed();
    let code = throttled.responses[0].partition_responses[0].error_code;
    world.saw(format!(
        "throttled: {}, its answer {} the pause; on another connection the batch is {} meanwhile; \
         the next answer of this one comes {} the pause",
        tell::code(code),
        if took < pause { "before" } else { "after" },
        if seen == appended && seen_after < pause { "seen" } else { "not seen" },
        if waited > pause * 8 / 10 { "after" } else { "before" },
    ));
}

/// A fetch over the quota comes back empty, with the pause.
pub(super) async fn fetches_over_the_quota(world: &mut World) {
    let mut log = world.log("slow", &[]).await;
    for _ in 0..3 {
        append_large(&mut log).await;
    }
    world.limit("consumer_byte_rate", 100_000.0).await;
    let request = FetchRequest { max_wait_ms: 100, min_bytes: 1, ..log.fetch_request(0, 1 << 20) };
    let (answer, took) = until("a fetch is throttled", async || {
        let started = Instant::now();
        let answer = log.link.call(&request, FETCH).await;
        (answer.throttle_time_ms > 0).then_some((answer, started.elapsed()))
    })
    .await;
    let pause = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap());
    world.saw(format!(
        "throttled: {}, {} topics, its answer {} the pause",
        tell::code(answer.error_code),
        answer.responses.len(),
        if took < pause { "before" } else { "after" },
    ));
    for topic in &answer.responses {
        world.saw(tell::fetched(&topic.partitions[0]));
    }
}

async fn append_large(log: &mut Log) -> ProduceResponse {
    let mut large = BatchBuilder::new(Compression::None);
    large.push(TIME, None, Some(&[0; 300_000]), NO_HEADERS);
    assert!(large.size_in_bytes() > batch(1).size_in_bytes());
    let request = log.produce(large.finish().unwrap().to_bytes(), -1);
    log.link.call(&request, PRODUCE).await
}
