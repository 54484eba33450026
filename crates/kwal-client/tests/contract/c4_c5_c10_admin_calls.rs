//! C4, C5 and C10 for each call that describes or changes something, except appends and reads.

use std::time::Duration;

use kwal_client::{
    ControllerClient, Deadlines, PartitionClient,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::CreateTopicsRequest};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::{
    c4_administration::partitions,
    support::{Wire, WireMode, assert_took, broker, chain, deadlines, polled, record, settle, timed},
};

/// Every call that describes or changes something, each on its own cluster.
macro_rules! calls {
    ($run:ident) => {
        $run!(CREATE_TOPICS, |this| this.controller.create_topic("new", 1, 1).into_future().await.map(drop));
        $run!(DELETE_TOPICS, |this| this.controller.delete_topic("gone").await);
        $run!(CREATE_PARTITIONS, |this| this.controller.create_partitions("wal", 3).await);
        $run!(DESCRIBE_CONFIGS, |this| this.controller.describe_topic_configs("wal").await.map(drop));
        $run!(INCREMENTAL_ALTER_CONFIGS, |this| {
            this.controller.alter_topic_configs("wal").set("retention.ms", "-1").await
        });
        $run!(DESCRIBE_CLUSTER, |this| this.controller.describe_cluster().await.map(drop));
        $run!(DELETE_RECORDS, |this| this.partition.delete_records(1).await.map(drop));
        $run!(OFFSET_FOR_LEADER_EPOCH, |this| this.partition.offset_for_leader_epoch(0).await.map(drop));
    };
}

struct Setup {
    broker: EmbeddedCluster,
    wire: Wire,
    controller: ControllerClient,
    partition: PartitionClient,
}

impl Setup {
    async fn new() -> Self {
        Self::with(deadlines()).await
    }

    async fn with(deadlines: Deadlines) -> Self {
        let broker = broker();
        broker.create_topic("gone", 1).unwrap();
        let wire = Wire::to(&broker);
        let client = wire.builder().deadlines(deadlines).build().await.unwrap();
        let controller = client.controller_client().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        Self { broker, wire, controller, partition }
    }

    /// Returns whether a call has taken effect.
    fn done(&self, api: ApiKey) -> bool {
        match api {
            ApiKey::CREATE_TOPICS => self.broker.topic_id("new").is_some(),
            ApiKey::DELETE_TOPICS => self.broker.topic_id("gone").is_none(),
            ApiKey::CREATE_PARTITIONS => partitions(&self.broker, "wal") == 3,
            ApiKey::DELETE_RECORDS => self.broker.start_offset("wal", 0).unwrap() == 1,
            _ => true,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_retried() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            for (fault, wait) in [
                (Fault::Error(ErrorCode::NOT_CONTROLLER), None),
                (Fault::Error(ErrorCode::THROTTLING_QUOTA_EXCEEDED), None),
                (Fault::Drop, None),
                (Fault::DelayReply(Duration::from_secs(5)), Some(Duration::from_secs(5))),
            ] {
                let $this = Setup::new().await;
                $this.broker.on(ApiKey::$api, fault);
                let (result, took) = timed(async { $call }).await;
                result.unwrap_or_else(|error| panic!("{} {fault:?}: {}", ApiKey::$api, chain(&error)));
                assert!($this.done(ApiKey::$api), "{} {fault:?}", ApiKey::$api);
                assert!(wait.is_none_or(|wait| took == wait), "{} {fault:?}: {took:?}", ApiKey::$api);
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_response_is_used_and_delays_the_next_request() {
    const PAUSE: Duration = Duration::from_secs(25);
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            let $this = Setup::new().await;
            $this.broker.on(ApiKey::$api, Fault::Throttle(PAUSE));
            let (result, took) = timed(async { $call }).await;
            assert_eq!(took, Duration::ZERO, "{}", ApiKey::$api);
            result.unwrap();
            assert_eq!($this.broker.requests(ApiKey::$api), 1);
            let (result, took) = timed($this.controller.describe_cluster()).await;
            assert_eq!((result.unwrap().brokers.len(), took), (1, PAUSE), "{}", ApiKey::$api);
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn an_exceeded_quota_is_retried_after_the_throttle_time() {
    let Setup { broker, wire, controller, .. } = Setup::new().await;
    broker.on(ApiKey::CREATE_TOPICS, Fault::Error(ErrorCode::THROTTLING_QUOTA_EXCEEDED));
    wire.edit::<CreateTopicsRequest>(|response| {
        if response.topics[0].error_code == ErrorCode::THROTTLING_QUOTA_EXCEEDED {
            response.throttle_time_ms = 7_000;
        }
    });
    let (created, took) = timed(controller.create_topic("new", 1, 1)).await;
    created.unwrap();
    assert_eq!(took, Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_response_the_outcome_is_known_or_reported_as_unknown() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            let $this = Setup::new().await;
            $this.broker.on(ApiKey::$api, Fault::LoseReply);
            let result = async { $call }.await;
            assert!($this.done(ApiKey::$api), "{}", ApiKey::$api);
            match ApiKey::$api {
                // The state that is found may come from this call or from another client.
                ApiKey::CREATE_TOPICS | ApiKey::DELETE_TOPICS => {
                    assert_eq!(result.unwrap_err().outcome(), Outcome::Unknown, "{}", ApiKey::$api);
                }
                _ => result.unwrap(),
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_at_its_deadline() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            // After many attempts, and within the first one.
            let short = deadlines().operation(deadlines().request / 2);
            for (mode, deadlines) in
                [(WireMode::Deaf, deadlines()), (WireMode::Stalled, deadlines()), (WireMode::Deaf, short)]
            {
                let $this = Setup::with(deadlines).await;
                $this.wire.set(mode);
                let (result, took) = timed(async { $call }).await;
                let error = result.unwrap_err();
                assert!(
                    matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }),
                    "{}: {error:?}",
                    ApiKey::$api
                );
                assert_took(took, deadlines.operation);
                let open = ApiKey::$api.changes_something();
                let outcome = if open { Outcome::Unknown } else { Outcome::NotApplied };
                assert_eq!(error.outcome(), outcome, "{}", ApiKey::$api);
                assert!(error.is_retriable());
            }
        };
    }
    calls!(run);
}

#[tokio::test(start_paused = true)]
async fn every_call_may_be_dropped_at_any_poll() {
    macro_rules! run {
        ($api:ident, |$this:ident| $call:expr) => {
            for cut in [false, true] {
                for polls in 1.. {
                    let $this = Setup::new().await;
                    if cut {
                        $this.broker.disconnect_all();
                        settle().await;
                    }
                    let done = polled(Box::pin(async { $call }), polls).await;
                    let what = format!("{} after {polls} polls, cut {cut}", ApiKey::$api);
                    let described = $this.controller.describe_topic_configs("wal").await;
                    assert!(described.is_ok(), "{what}");
                    assert_eq!(
                        $this.partition.produce(record("b")).await.unwrap().base_offset,
                        Some(1),
                        "{what}"
                    );
                    if let Some(result) = done {
                        result.unwrap_or_else(|error| panic!("{what}: {error}"));
                        break;
                    }
                    assert!(polls < 100, "{what}");
                }
            }
        };
    }
    calls!(run);
}
