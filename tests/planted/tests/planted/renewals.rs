//! How an exclusive writer keeps its name: renewals, silence and probes.

use std::time::Duration;

use kwal_client::{Client, Deadlines};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{Fault, wire::Decision};
use tokio::time::{sleep, timeout};

use crate::{
    exclusive::{ID, append_in_doubt, forget},
    fixture::{Appender, Fixture, MINUTE},
    support::{HOUR, Wire, WireMode},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Returns a client whose requests may take days.
async fn patient(fixture: &Fixture) -> Client {
    let deadlines = Deadlines::default().operation(30 * DAY).request(30 * DAY);
    fixture.builder().deadlines(deadlines).build().await.unwrap()
}

/// The renewal of a holder that has lost its log is due.
pub(crate) async fn renewed_after_takeover() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    first.append(&["a"]).await;
    sleep(HOUR).await;
    let second = fixture.hold().await;
    second.append(&["b"]).await;
    // Not yet that of the other one.
    sleep(DAY - HOUR / 2).await;
    first.append(&["late"]).await;
    second.append(&["c"]).await;
    fixture
}

/// The name was forgotten twice, and there was a holder in between.
pub(crate) async fn renewed_after_two_were_forgotten() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = fixture.hold().await;
    first.append(&["a"]).await;
    sleep(HOUR).await;
    forget(&fixture);
    let second = fixture.hold().await;
    second.append(&["b"]).await;
    forget(&fixture);
    sleep(DAY - HOUR / 2).await;
    first.append(&["late"]).await;
    second.append(&["c"]).await;
    fixture
}

/// A holder is cut off for days, and the partition forgets the next one, which has not appended.
pub(crate) async fn back_after_silence() -> Fixture {
    let fixture = Fixture::one_broker();
    let wire = Wire::to(&fixture.cluster);
    let first = fixture.try_hold(&wire.client().await).await.unwrap();
    first.append(&["a"]).await;
    wire.set(WireMode::Unreachable);
    let second = fixture.hold().await;
    sleep(3 * DAY + HOUR / 2).await;
    fixture.cluster.forget_producers("wal", 0).unwrap();
    wire.set(WireMode::Passing);
    first.append(&["late"]).await;
    second.append(&["b"]).await;
    fixture
}

/// A takeover lasts so long that the partition has forgotten the next holder when it ends.
pub(crate) async fn stopped_while_taking_over() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = patient(&fixture).await;
    fixture.cluster.on(ApiKey::FETCH, Fault::DelayReply(2 * DAY));
    let first = tokio::spawn(client.partition_client("wal", 0).exclusive("writer").into_future());
    sleep(HOUR).await;
    let second = fixture.hold().await;
    fixture.cluster.forget_producers("wal", 0).unwrap();
    let first = fixture.holder(first.await.unwrap().unwrap(), MINUTE);
    first.append(&["late"]).await;
    second.append(&["b"]).await;
    fixture
}

/// An acknowledgement arrives so late that the partition has forgotten the next holder.
pub(crate) async fn stopped_before_acknowledgement() -> Fixture {
    let fixture = Fixture::one_broker();
    let client = patient(&fixture).await;
    let partition = client.partition_client("wal", 0).exclusive("writer").await.unwrap();
    let first = fixture.holder(partition, 30 * DAY);
    fixture.cluster.on(ApiKey::PRODUCE, Fault::DelayReply(20 * HOUR));
    let append = first.submit(&["a"]).await;
    sleep(HOUR).await;
    let second = fixture.hold().await;
    fixture.cluster.forget_producers("wal", 0).unwrap();
    append.await.unwrap();
    first.append(&["late"]).await;
    second.append(&["b"]).await;
    fixture
}

/// A holder appends nothing for longer than the coordinator remembers an unused name.
pub(crate) async fn idle_for_long() -> Fixture {
    let fixture = Fixture::one_broker();
    let holder = fixture.hold().await;
    sleep(9 * DAY).await;
    fixture.expect(holder.append(&["a"]).await.is_some(), "the name of a holder was forgotten");
    fixture
}

/// An append is submitted while a renewal fails.
pub(crate) async fn renewal_rejected() -> Fixture {
    let fixture = Fixture::one_broker();
    let wire = Wire::to(&fixture.cluster);
    let holder = fixture.try_hold(&wire.client().await).await.unwrap();
    for value in ["a", "b"] {
        sleep(11 * HOUR).await;
        holder.append(&[value]).await;
    }
    let rejected = Fault::Error(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    fixture.cluster.on_all(ApiKey::INIT_PRODUCER_ID, rejected);
    wire.on_request(|frame| match frame.api {
        ApiKey::INIT_PRODUCER_ID => Decision::Delay(SECOND / 2),
        _ => Decision::Pass,
    });
    sleep(2 * HOUR + SECOND / 10).await;
    let is_appended = holder.append(&["c"]).await.is_some();
    fixture.expect(is_appended, "an append failed because the name could not be renewed");
    fixture
}

/// An append is submitted while a renewal is not answered.
pub(crate) async fn renewal_not_answered() -> Fixture {
    let fixture = Fixture::one_broker();
    let partition = fixture.client().await.partition_client("wal", 0).exclusive("writer").await.unwrap();
    let holder = fixture.holder(partition, 5 * SECOND);
    for value in ["a", "b"] {
        sleep(11 * HOUR).await;
        holder.append(&[value]).await;
    }
    fixture.cluster.on_all(ApiKey::INIT_PRODUCER_ID, Fault::BlackHole);
    sleep(2 * HOUR + 2 * SECOND).await;
    let is_appended = holder.append(&["c"]).await.is_some();
    fixture.expect(is_appended, "an append waited for a renewal that it did not need");
    fixture
}

async fn hold_with_probe(fixture: &Fixture) -> Appender {
    let client = fixture.client().await;
    let partition = client.partition_client("wal", 0).exclusive("writer").probe(MINUTE).await.unwrap();
    fixture.holder(partition, MINUTE)
}

/// A holder that probes loses its log.
pub(crate) async fn probed_after_takeover() -> Fixture {
    let fixture = Fixture::one_broker();
    let first = hold_with_probe(&fixture).await;
    fixture.hold().await;
    let fenced = timeout(HOUR, first.partition.fenced()).await;
    fixture.expect(fenced.is_ok(), "a probe does not notice another holder");
    fixture
}

/// A holder gets its next epoch while a probe is on its way.
pub(crate) async fn probed_while_epoch_is_raised() -> Fixture {
    let fixture = Fixture::brokers(2);
    // The request for the epoch does not wait for the probe.
    let coordinator = fixture.cluster.coordinator(ID).unwrap();
    fixture.cluster.move_leader("wal", 0, 3 - coordinator).unwrap();
    let holder = hold_with_probe(&fixture).await;
    holder.append(&["a"]).await;
    fixture.cluster.on(ApiKey::DESCRIBE_PRODUCERS, Fault::DelayRequest(5 * SECOND));
    sleep(MINUTE + SECOND).await;
    append_in_doubt(&fixture, &holder).await;
    holder.append(&["b"]).await;
    sleep(10 * SECOND).await;
    fixture.expect(holder.append(&["c"]).await.is_some(), "a holder is fenced by its own probe");
    fixture
}
