//! C4: authentication with each mechanism, and a clear error for each mistake.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    OffsetAt,
    error::{Error, ErrorKind},
    sasl::{Authenticate, Sasl, Token},
};
use kwal_protocol::{
    api::ApiKey,
    connection::ConnectionError,
    error_code::ErrorCode,
    sasl::{Mechanism, Plain},
};
use kwal_testkit::{EmbeddedCluster, Fault};
use kwal_transport::BoxFuture;
use tokio::{
    runtime::Builder,
    task::{spawn_blocking, yield_now},
    time::{Instant, sleep},
};
use tracing::Level;

use crate::{
    recording::Recording,
    support::{builder, chain, deadlines, log, record, settle, source, timed},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// The delay of the broker before it rejects an authentication.
const DELAY: Duration = Duration::from_millis(100);
const SECRET: &str = "wonderland";

pub(crate) fn users() -> kwal_testkit::Sasl {
    kwal_testkit::Sasl::new().user("alice", SECRET)
}

pub(crate) fn cluster(sasl: kwal_testkit::Sasl) -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).sasl(sasl).start_in_memory().unwrap()
}

pub(crate) fn plain() -> Sasl {
    Sasl::plain("alice", SECRET).danger_send_unencrypted()
}

/// Returns a source of tokens with a validity from the time at which they are fetched, a broker that checks
/// it, and the number of tokens fetched.
pub(crate) fn bearer(good_for: Duration) -> (Sasl, kwal_testkit::Sasl, Arc<AtomicUsize>) {
    let begun = Instant::now();
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let sasl = Sasl::oauth_bearer(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let expires_at = (begun.elapsed() + good_for).as_millis();
        async move { Ok::<_, io::Error>(Token::new(format!("until-{expires_at}"))) }
    });
    let broker = kwal_testkit::Sasl::new().oauthbearer(move |token| {
        let expires_at = Duration::from_millis(token.strip_prefix("until-")?.parse().ok()?);
        expires_at.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
    });
    (sasl.danger_send_unencrypted(), broker, fetched)
}

#[tokio::test(start_paused = true)]
async fn each_mechanism_authenticates() {
    let (bearer, tokens, _) = bearer(60 * SECOND);
    for (index, sasl) in [
        plain(),
        Sasl::scram_sha_256("alice", SECRET),
        Sasl::scram_sha_512("alice", SECRET),
        bearer,
        Sasl::new(CustomMechanism).danger_send_unencrypted(),
    ]
    .into_iter()
    .enumerate()
    {
        let tokens = tokens.clone().user("alice", SECRET);
        let cluster = cluster(tokens);
        let client = builder(&cluster).sasl(sasl.clone()).build().await.unwrap();
        client.list_topics().await.unwrap();
        assert_eq!(cluster.requests(ApiKey::SASL_HANDSHAKE), 2, "each connection authenticates: {index}");
        let shown = format!("{client:?} {sasl:?} {:?}", builder(&cluster).sasl(sasl.clone()));
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// A custom mechanism.
#[derive(Debug)]
struct CustomMechanism;

impl Authenticate for CustomMechanism {
    fn mechanism(
        &self,
    ) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(async { Ok(Box::new(Plain::new("alice", SECRET)?) as Box<dyn Mechanism>) })
    }

    fn requires_encryption(&self) -> bool {
        true
    }
}

/// Builds a client, which fails. Returns the error and how long it took.
async fn build_error(cluster: &EmbeddedCluster, sasl: Sasl) -> (Error, Duration) {
    let (result, took) = timed(builder(cluster).sasl(sasl).build()).await;
    let error = result.unwrap_err();
    let shown = format!("{error:?} {}", chain(&error));
    assert!(!shown.contains(SECRET) && !shown.contains("wrong"), "{shown}");
    (error, took)
}

#[tokio::test(start_paused = true)]
async fn rejections_end_the_call_at_once_with_the_message_of_the_broker() {
    let invalid =
        "Authentication failed during authentication due to invalid credentials with SASL mechanism";
    let tokens = || users().oauthbearer(|_| None);
    let wrong_token = || Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new("wrong")));
    for (sasl, broker, message) in [
        (
            Sasl::plain("alice", "wrong").danger_send_unencrypted(),
            users(),
            "the broker rejected the SASL PLAIN authentication: Authentication failed: Invalid username or password"
                .to_owned(),
        ),
        (
            Sasl::scram_sha_256("alice", "wrong"),
            users(),
            format!("the broker rejected the SASL SCRAM-SHA-256 authentication: {invalid} SCRAM-SHA-256"),
        ),
        (
            Sasl::scram_sha_512("nobody", "wrong"),
            users(),
            format!("the broker rejected the SASL SCRAM-SHA-512 authentication: {invalid} SCRAM-SHA-512"),
        ),
        (
            wrong_token().danger_send_unencrypted(),
            tokens(),
            "the broker rejected the SASL OAUTHBEARER authentication: {\"status\":\"invalid_token\"}".to_owned(),
        ),
        (
            wrong_token().danger_send_unencrypted(),
            users(),
            "the broker does not offer SASL OAUTHBEARER, it offers PLAIN, SCRAM-SHA-256, SCRAM-SHA-512".to_owned(),
        ),
        (
            Sasl::scram_sha_256("alice", SECRET),
            users().mechanisms(&["PLAIN"]),
            "the broker does not offer SASL SCRAM-SHA-256, it offers PLAIN".to_owned(),
        ),
        (
            Sasl::scram_sha_256("alice", SECRET),
            users().iterations(i32::MAX as u32),
            "SASL SCRAM-SHA-256 failed: the broker's SCRAM-SHA-256 message is not valid: it requires 2147483647 \
             iterations, but only 4096 to 1000000 are accepted"
                .to_owned(),
        ),
    ] {
        let cluster = cluster(broker);
        let (error, took) = build_error(&cluster, sasl).await;
        let text = chain(&error);
        assert_eq!(text, format!("Metadata at {}: {message}", cluster.bootstrap()[0]));
        assert!(took <= DELAY, "{text} took {took:?}");
        assert!(!error.is_retriable(), "{text}");
        assert_eq!(cluster.requests(ApiKey::API_VERSIONS), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_without_sasl_is_reported_at_once() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let (error, took) = build_error(&cluster, plain()).await;
    assert!(
        chain(&error).ends_with(
            "the request is not valid in the current state of authentication: does this listener use SASL?"
        ),
        "{error:?}"
    );
    assert!(!error.is_retriable() && took == Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn transient_errors_of_authentication_are_retried() {
    let cluster = cluster(users());
    let client = builder(&cluster).sasl(plain()).build().await.unwrap();
    for (api, code) in [
        (ApiKey::SASL_AUTHENTICATE, ErrorCode::COORDINATOR_NOT_AVAILABLE),
        (ApiKey::SASL_HANDSHAKE, ErrorCode::REQUEST_TIMED_OUT),
    ] {
        cluster.disconnect_all();
        settle().await;
        cluster.on_times(api, 3, Fault::Error(code));
        let partition = client.partition_client("wal", 0).await.unwrap();
        partition.get_offset(OffsetAt::Latest).await.unwrap();
        assert_eq!(cluster.faults_left(), 0);
    }
    // A broker that disconnects during the authentication has not rejected the password.
    cluster.disconnect_all();
    settle().await;
    cluster.on(ApiKey::SASL_AUTHENTICATE, Fault::LoseReply);
    client.list_topics().await.unwrap();
    assert_eq!(cluster.faults_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn secrets_are_not_sent_unencrypted_unless_allowed() {
    let bearer = Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new(SECRET)));
    for (sasl, name) in [(Sasl::plain("alice", SECRET), "PLAIN"), (bearer, "OAUTHBEARER")] {
        let cluster = cluster(users().oauthbearer(|_| Some(60 * SECOND)));
        let (error, took) = build_error(&cluster, sasl.clone()).await;
        assert!(
            matches!(error.kind(), ErrorKind::EncryptionRequired { mechanism, .. } if mechanism == name),
            "{error:?}"
        );
        assert!(!error.is_retriable() && took == Duration::ZERO);
        assert_eq!(cluster.requests(ApiKey::API_VERSIONS), 0, "nothing was sent");
        builder(&cluster).sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    }
    Sasl::scram_sha_256("alice", SECRET);
}

#[tokio::test(start_paused = true)]
async fn unusable_credentials_are_invalid_input() {
    let cluster = cluster(users());
    let bearer = |token: Token| {
        let fetch = move || std::future::ready(Ok::<_, io::Error>(token.clone()));
        Sasl::oauth_bearer(fetch).danger_send_unencrypted()
    };
    for (sasl, message) in [
        (Sasl::plain("", SECRET), "the user name is empty"),
        (Sasl::plain("alice", "a\0b"), "the password contains a NUL"),
        (Sasl::scram_sha_512("alice", ""), "the password is empty"),
        (bearer(Token::new("a b")), "the token is empty or has characters other than letters"),
        (
            bearer(Token::new("a").extension("auth", "b")),
            "the name auth is reserved and cannot be an extension",
        ),
    ] {
        let (error, took) = build_error(&cluster, sasl).await;
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("credentials: {message}")), "{error}");
        assert_eq!(took, Duration::ZERO);
    }
    assert_eq!(cluster.requests(ApiKey::API_VERSIONS), 0);
}

pub(crate) fn any_token() -> kwal_testkit::Sasl {
    kwal_testkit::Sasl::new().oauthbearer(|_| Some(3600 * SECOND))
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_token_source_is_reported_and_the_source_is_retried() {
    let cluster = cluster(any_token());
    let sasl = Sasl::oauth_bearer(async || Err::<Token, _>(io::Error::other("the token endpoint is down")));
    let (error, took) = build_error(&cluster, sasl).await;
    let address = &cluster.bootstrap()[0];
    let text =
        format!("Metadata at {address}: no credentials to authenticate with: the token endpoint is down");
    assert_eq!(chain(&error), text);
    assert!(error.is_retriable());
    assert_eq!(
        (took, cluster.requests(ApiKey::API_VERSIONS)),
        (Duration::ZERO, 0),
        "building does not retry"
    );

    let sasl = Sasl::oauth_bearer(std::future::pending::<Result<Token, io::Error>>);
    let (error, took) = build_error(&cluster, sasl).await;
    assert!(
        chain(&error).ends_with("no credentials to authenticate with: not available within 10s"),
        "{error:?}"
    );
    assert_eq!((took, cluster.requests(ApiKey::API_VERSIONS)), (deadlines().connect, 0));

    // A call retries until its deadline.
    let failing = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failing);
    let sasl = Sasl::oauth_bearer(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match number {
                1..4 => Err(io::Error::other("the token endpoint is down")),
                _ => Ok(Token::new("token")),
            }
        }
    });
    let client = builder(&cluster).sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    assert!(failing.load(Ordering::Relaxed) >= 5);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_calls_end_at_their_deadline() {
    let cluster = cluster(any_token());
    let down = Arc::new(Mutex::new(false));
    let is_down = Arc::clone(&down);
    let sasl = Sasl::oauth_bearer(move || {
        let down = *is_down.lock().unwrap();
        async move {
            match down {
                true => Err(io::Error::other("the token endpoint is down")),
                false => Ok(Token::new("token")),
            }
        }
    });
    let client = builder(&cluster).sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    *down.lock().unwrap() = true;
    cluster.disconnect_all();
    settle().await;
    let (result, took) = timed(partition.produce(record("a"))).await;
    let error = result.unwrap_err();
    assert!(
        chain(&error).ends_with("no credentials to authenticate with: the token endpoint is down"),
        "{error:?}"
    );
    assert!(took <= deadlines().operation && took + 2 * SECOND > deadlines().operation, "{took:?}");
    *down.lock().unwrap() = false;
    partition.produce(record("b")).await.unwrap();
    assert_eq!(log(&cluster), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn tokens_with_a_lifetime_are_shared() {
    let cluster = cluster(any_token());
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let sasl = Sasl::oauth_bearer(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, io::Error>(Token::new("token").expires_in(100 * SECOND)) }
    });
    let client = builder(&cluster).sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
    for (after, fetched) in [(49, 1), (2, 2)] {
        sleep(after * SECOND).await;
        cluster.disconnect_all();
        settle().await;
        client.list_topics().await.unwrap();
        assert_eq!(fetches.load(Ordering::Relaxed), fetched);
    }
    // A rejected token is not used again.
    cluster.disconnect_all();
    settle().await;
    cluster.on(ApiKey::SASL_AUTHENTICATE, Fault::Error(ErrorCode::SASL_AUTHENTICATION_FAILED));
    client.list_topics().await.unwrap_err();
    client.list_topics().await.unwrap();
    assert_eq!(fetches.load(Ordering::Relaxed), 3);
}

#[test]
fn scram_is_computed_on_a_blocking_thread() {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let cluster = cluster(users().iterations(5_000));
        // While the only blocking thread is occupied, nothing is computed.
        let (release, released) = std::sync::mpsc::channel();
        let taken = spawn_blocking(move || released.recv());
        let builder = builder(&cluster).sasl(Sasl::scram_sha_512("alice", SECRET));
        let client = tokio::spawn(builder.build());
        // No time passes.
        for _ in 0..1_000 {
            yield_now().await;
        }
        assert!(cluster.requests(ApiKey::SASL_AUTHENTICATE) > 0 && !client.is_finished());
        release.send(()).unwrap();
        taken.await.unwrap().unwrap();
        client.await.unwrap().unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_for_connecting_includes_authentication() {
    let cluster = cluster(users());
    cluster.on_all(ApiKey::SASL_AUTHENTICATE, Fault::BlackHole);
    let short = deadlines().connect(2 * SECOND);
    let (result, took) = timed(builder(&cluster).deadlines(short).sasl(plain()).build()).await;
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoBroker { .. }), "{error:?}");
    assert!(error.to_string().contains("during authentication"), "{error}");
    assert_eq!(took, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_source_of_a_rejection_names_mechanism_and_code() {
    let cluster = cluster(users());
    let wrong = Sasl::plain("alice", "wrong").danger_send_unencrypted();
    let (error, _) = build_error(&cluster, wrong).await;
    assert!(matches!(error.kind(), ErrorKind::Connection), "{error:?}");
    let ConnectionError::AuthenticationFailed { mechanism, code, .. } = source(&error) else {
        panic!("{error:?}")
    };
    assert_eq!((mechanism.as_str(), *code), ("PLAIN", ErrorCode::SASL_AUTHENTICATION_FAILED));
}

/// At any level.
#[tokio::test(start_paused = true)]
async fn logs_contain_no_secrets() {
    let recording = Recording::at(Level::TRACE);
    let cluster =
        cluster(users().max_session(5 * SECOND).oauthbearer(|token| (token == SECRET).then_some(HOUR)));
    let bearer = Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new(SECRET).extension("x", SECRET)));
    builder(&cluster).sasl(Sasl::scram_sha_256("alice", SECRET)).build().await.unwrap();
    for sasl in [plain(), bearer.danger_send_unencrypted()] {
        let client = builder(&cluster).sasl(sasl).build().await.unwrap();
        client.partition_client("wal", 0).await.unwrap().fetch(0).max_wait(8 * SECOND).await.unwrap();
    }
    builder(&cluster).sasl(Sasl::plain("bob", SECRET).danger_send_unencrypted()).build().await.unwrap_err();
    let text = recording.take().join("\n");
    assert!(text.contains("authenticated"), "something was logged");
    assert!(!text.contains(SECRET), "{text}");
}

const HOUR: Duration = Duration::from_secs(3600);
