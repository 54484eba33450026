//! Batches in doubt, and what became of them.

use std::time::Duration;

use kwal_client::{Resolution, error::InDoubt, record::Record};
use kwal_protocol::api::ApiKey;
use kwal_testkit::Fault;
use tokio::time::sleep;

use crate::{
    fixture::{Appender, Fixture},
    support::{HOUR, in_doubt},
};

/// Opens partition 0, appends a batch, and another one of which the broker does something so that its outcome
/// is unknown.
async fn append_in_doubt(fixture: &Fixture, first: Option<Fault>, others: Fault) -> (Appender, InDoubt) {
    let owner = fixture.open_with_deadline(Duration::from_secs(3)).await;
    owner.append(&["a"]).await;
    if let Some(first) = first {
        fixture.cluster.on(ApiKey::PRODUCE, first);
    }
    fixture.cluster.on_all(ApiKey::PRODUCE, others);
    owner.append(&["b"]).await;
    fixture.cluster.clear_faults();
    let producer_id = fixture.cluster.log("wal", 0).unwrap()[0].header().producer_id;
    (owner, InDoubt { producer_id, sequence: 1, after: Some(0), ..in_doubt() })
}

/// Resolves a batch by another client.
async fn resolve(fixture: &Fixture, in_doubt: &InDoubt) -> Option<Resolution> {
    let resolver = fixture.open().await;
    let fence = resolver.record(&["fence"]);
    let resolution = resolver.partition.resolve(in_doubt, Record::new(None::<&str>, "fence")).await.ok();
    fence.unknown();
    resolution
}

/// Another client resolves a batch that was lost, and the owner goes on.
pub(crate) async fn fenced_by_another_client() -> Fixture {
    let fixture = Fixture::one_broker();
    let (owner, in_doubt) = append_in_doubt(&fixture, None, Fault::Drop).await;
    let resolution = resolve(&fixture, &in_doubt).await;
    fixture.expect(resolution == Some(Resolution::NotApplied), "a lost batch is not resolved");
    owner.append(&["c"]).await;
    fixture
}

/// A batch arrives after it was resolved.
pub(crate) async fn arrives_after_resolution() -> Fixture {
    let fixture = Fixture::one_broker();
    let (_owner, in_doubt) = append_in_doubt(&fixture, None, Fault::DelayRequest(HOUR)).await;
    let resolution = resolve(&fixture, &in_doubt).await;
    fixture.expect(resolution == Some(Resolution::NotApplied), "a late batch is not resolved");
    sleep(2 * HOUR).await;
    let log = fixture.cluster.records("wal", 0).unwrap();
    let is_there = log.iter().any(|record| record.value.as_deref() == Some(b"b"));
    fixture.expect(!is_there, "a batch is appended after it was resolved");
    fixture
}

/// The response to a batch is lost.
pub(crate) async fn appended_before_resolution() -> Fixture {
    let fixture = Fixture::one_broker();
    let (_owner, in_doubt) = append_in_doubt(&fixture, Some(Fault::LoseReply), Fault::Drop).await;
    let resolution = resolve(&fixture, &in_doubt).await;
    fixture.expect(resolution == Some(Resolution::Appended(1..2)), "a batch on the log is not found");
    fixture
}
