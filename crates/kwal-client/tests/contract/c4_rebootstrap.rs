//! C4: a client that a broker requires to start again from its bootstrap addresses does so (KIP-1102), and
//! other codes of a whole response.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use kwal_client::{
    Client, ClientBuilder,
    error::{ErrorKind, Outcome},
};
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{FetchRequest, FetchResponse, MetadataRequest, MetadataResponse},
};
use kwal_testkit::{
    EmbeddedCluster, Fault,
    wire::{Decision, Wire},
};
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, TransportError};

use crate::support::{chain, record, settle, timed};

/// One broker that clients reach under any name. `boot` is the bootstrap address; metadata names `old` at
/// first.
struct Moving {
    cluster: EmbeddedCluster,
    wire: Wire,
    name: Arc<Mutex<&'static str>>,
    /// The names under which metadata is answered with an error code.
    rejects: Arc<Mutex<Rejects>>,
}

struct Rejects {
    names: &'static [&'static str],
    code: ErrorCode,
}

/// Connects to one address, whatever the name.
#[derive(Debug)]
struct AnyName(Arc<dyn Connect>, HostPort);

impl Connect for AnyName {
    fn connect<'a>(&'a self, _to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        self.0.connect(&self.1)
    }
}

impl Moving {
    fn start() -> Self {
        let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
        let wire = Wire::new(AnyName(cluster.connector(), cluster.address(1).unwrap()));
        let name = Arc::new(Mutex::new("old"));
        let rejects = Arc::new(Mutex::new(Rejects { names: &[], code: ErrorCode::NONE }));
        wire.on_response({
            let (name, rejects) = (Arc::clone(&name), Arc::clone(&rejects));
            move |frame| match frame.response::<MetadataRequest>() {
                Some(mut response) => {
                    response.brokers[0].host = (*name.lock().unwrap()).to_owned();
                    let rejects = rejects.lock().unwrap();
                    if rejects.names.contains(&frame.to.host.as_str()) {
                        response = MetadataResponse { error_code: rejects.code, ..Default::default() };
                    }
                    frame.replace_response::<MetadataRequest>(&response)
                }
                None => Decision::Pass,
            }
        });
        Self { cluster, wire, name, rejects }
    }

    async fn client(&self) -> Client {
        let builder = ClientBuilder::new(["boot:9092"]).connector(self.wire.clone()).seed(7);
        builder.build().await.unwrap()
    }

    fn set_name(&self, name: &'static str) {
        *self.name.lock().unwrap() = name;
    }

    fn reject(&self, names: &'static [&'static str], code: ErrorCode) {
        *self.rejects.lock().unwrap() = Rejects { names, code };
    }

    fn open(&self, name: &str) -> usize {
        self.wire.connections_to(name).open
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_to_start_again_does_so() {
    let moving = Moving::start();
    let client = moving.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    moving.set_name("new");
    moving.reject(&["old"], ErrorCode::REBOOTSTRAP_REQUIRED);
    let attempts = moving.wire.attempts_to("boot");
    moving.cluster.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let (produced, took) = timed(partition.produce(record("b"))).await;
    produced.unwrap();
    assert!(took <= Duration::from_millis(100), "{took:?}");
    assert_eq!(moving.wire.attempts_to("boot"), attempts + 1, "its name is resolved again");
    settle().await;
    assert_eq!((moving.open("old"), moving.open("boot")), (0, 0));
    assert_eq!(client.brokers()[0].1.to_string(), "new:9092");
    // The connections to what is known now stay.
    let connections = moving.wire.connections_to("new").accepted;
    partition.produce(record("c")).await.unwrap();
    assert_eq!(moving.wire.connections_to("new").accepted, connections);
}

#[tokio::test(start_paused = true)]
async fn every_call_starts_again_where_it_has_to() {
    let moving = Moving::start();
    let client = moving.client().await;
    let controller = client.controller_client().await.unwrap();
    moving.cluster.create_topic("late", 1).unwrap();
    for round in 0..3 {
        let names = if round % 2 == 0 { ["old", "new"] } else { ["new", "old"] };
        moving.set_name(names[1]);
        moving.reject(if round % 2 == 0 { &["old"] } else { &["new"] }, ErrorCode::REBOOTSTRAP_REQUIRED);
        let (result, took) = timed(async {
            match round {
                0 => client.list_topics().await.map(drop),
                1 => controller.ensure_topic("wal", 1, 1).await.map(drop),
                _ => client.partition_client("late", 0).await.map(drop),
            }
        })
        .await;
        result.unwrap();
        assert!(took <= Duration::from_millis(100), "{took:?}");
        client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
        settle().await;
        assert_eq!(moving.open(names[0]), 0, "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_starts_again_if_no_producer_id_is_given_without() {
    let moving = Moving::start();
    let client = moving.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    moving.set_name("new");
    moving.cluster.on(ApiKey::INIT_PRODUCER_ID, Fault::Error(ErrorCode::REBOOTSTRAP_REQUIRED));
    let (produced, took) = timed(partition.produce(record("a"))).await;
    produced.unwrap();
    assert!(took <= Duration::from_millis(200), "{took:?}");
    settle().await;
    assert_eq!((moving.open("old"), moving.open("boot")), (0, 0));
    assert_eq!(client.brokers()[0].1.to_string(), "new:9092");
}

#[tokio::test(start_paused = true)]
async fn many_calls_that_have_to_start_again_do_so_once() {
    let moving = Moving::start();
    let client = moving.client().await;
    client.list_topics().await.unwrap();
    moving.set_name("new");
    moving.reject(&["old"], ErrorCode::REBOOTSTRAP_REQUIRED);
    let accepted = moving.wire.connections().accepted;
    let lists = join_all((0..100).map(|_| client.list_topics().into_future())).await;
    assert!(lists.iter().all(Result::is_ok), "{lists:?}");
    assert!(moving.wire.connections().accepted - accepted <= 2, "{:?}", moving.wire.connections());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_always_wants_a_new_start_gets_one_after_each_pause() {
    let moving = Moving::start();
    let client = moving.client().await;
    let partition = client.partition_client("wal", 0).await.unwrap();
    moving.reject(&["old", "boot"], ErrorCode::REBOOTSTRAP_REQUIRED);
    moving.cluster.on_all(ApiKey::PRODUCE, Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let attempts = moving.wire.attempts_to("boot");
    for error in
        [client.list_topics().await.unwrap_err(), client.partition_client("other", 0).await.unwrap_err()]
    {
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }), "{error:?}");
        assert!(chain(&error).contains("REBOOTSTRAP_REQUIRED"), "{}", chain(&error));
        assert_eq!((error.is_retriable(), error.outcome()), (true, Outcome::NotApplied));
    }
    assert!(moving.wire.attempts_to("boot") - attempts <= 2 * 130);
    let append = partition.produce(record("a"));
    moving.reject(&[], ErrorCode::NONE);
    moving.cluster.clear_faults();
    append.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_error_code_of_the_whole_metadata_never_leaves_a_read_in_doubt() {
    for (code, is_retriable) in [
        (ErrorCode(9999), false),
        (ErrorCode::UNKNOWN_SERVER_ERROR, false),
        (ErrorCode::CLUSTER_AUTHORIZATION_FAILED, false),
        (ErrorCode::LEADER_NOT_AVAILABLE, true),
        (ErrorCode::REQUEST_TIMED_OUT, true),
    ] {
        let moving = Moving::start();
        let client = moving.client().await;
        moving.reject(&["old", "boot"], code);
        for error in
            [client.list_topics().await.unwrap_err(), client.partition_client("wal", 0).await.unwrap_err()]
        {
            let found = (error.code(), error.is_retriable(), error.outcome());
            assert_eq!(found, (Some(code), is_retriable, Outcome::NotApplied), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_of_a_whole_fetch_response_is_treated_as_one_of_the_partition() {
    for (code, ends) in [
        (ErrorCode::REBOOTSTRAP_REQUIRED, false),
        (ErrorCode::FETCH_SESSION_ID_NOT_FOUND, false),
        (ErrorCode(9999), true),
        (ErrorCode::UNKNOWN_SERVER_ERROR, true),
    ] {
        let moving = Moving::start();
        let partition = moving.client().await.partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        let mut times = 1;
        moving.wire.rewrite::<FetchRequest>(move |response| {
            if times > 0 {
                times -= 1;
                *response = FetchResponse { error_code: code, ..Default::default() };
            }
        });
        moving.set_name("new");
        let fetched = partition.fetch(0).await;
        match ends {
            false => assert_eq!(fetched.unwrap().next_offset, 1, "{code}"),
            true => {
                let error = fetched.unwrap_err();
                assert_eq!((error.code(), error.outcome()), (Some(code), Outcome::NotApplied), "{error:?}");
            }
        }
        settle().await;
        let has_moved = moving.wire.connections_to("new").accepted > 0;
        assert_eq!(has_moved, code == ErrorCode::REBOOTSTRAP_REQUIRED, "{code}");
    }
}
