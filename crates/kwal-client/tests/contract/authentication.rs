//! Authentication: each mechanism, each mistake with its words, and sessions that end.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    ClientBuilder, OffsetAt,
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
    time::{Instant, sleep, timeout},
};

use crate::support::{Wire, builder, chain, deadlines, log, polled, record, settle, source, timed};

const SECOND: Duration = Duration::from_secs(1);
/// A refusal is held back for so long.
const DELAY: Duration = Duration::from_millis(100);
const SECRET: &str = "wonderland";

fn users() -> kwal_testkit::Sasl {
    kwal_testkit::Sasl::new().user("alice", SECRET)
}

fn cluster(sasl: kwal_testkit::Sasl) -> EmbeddedCluster {
    EmbeddedCluster::builder().topic("wal", 2).sasl(sasl).start_in_memory().unwrap()
}

fn plain() -> Sasl {
    Sasl::plain("alice", SECRET).danger_send_unencrypted()
}

/// Tokens are numbers, and each is good from when it was fetched for so many seconds.
fn bearer(good_for: Duration) -> (Sasl, kwal_testkit::Sasl, Arc<AtomicUsize>) {
    let begun = Instant::now();
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let sasl = Sasl::oauth_bearer(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let expires_at = (begun.elapsed() + good_for).as_millis();
        async move { Ok::<_, io::Error>(Token::new(format!("until-{expires_at}"))) }
    });
    let judge = kwal_testkit::Sasl::new().oauthbearer(move |token| {
        let expires_at = Duration::from_millis(token.strip_prefix("until-")?.parse().ok()?);
        expires_at.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
    });
    (sasl.danger_send_unencrypted(), judge, fetched)
}

#[tokio::test(start_paused = true)]
async fn each_mechanism() {
    let (bearer, tokens, _) = bearer(60 * SECOND);
    for (index, sasl) in [
        plain(),
        Sasl::scram_sha_256("alice", SECRET),
        Sasl::scram_sha_512("alice", SECRET),
        bearer,
        Sasl::new(Own).danger_send_unencrypted(),
    ]
    .into_iter()
    .enumerate()
    {
        let tokens = tokens.clone().user("alice", SECRET);
        let cluster = cluster(tokens);
        let client = builder(&cluster).sasl(sasl.clone()).build().await.unwrap();
        client.list_topics().await.unwrap();
        assert_eq!(cluster.requests(ApiKey::SASL_HANDSHAKE), 2, "each connection authenticates: {index}");
        let told = format!("{client:?} {sasl:?} {:?}", builder(&cluster).sasl(sasl.clone()));
        assert!(!told.contains(SECRET), "{told}");
    }
}

/// A mechanism of the user's own.
#[derive(Debug)]
struct Own;

impl Authenticate for Own {
    fn mechanism(
        &self,
    ) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(async { Ok(Box::new(Plain::new("alice", SECRET)?) as Box<dyn Mechanism>) })
    }

    fn requires_encryption(&self) -> bool {
        true
    }
}

/// Builds a client, which fails; answers the error, in how much time.
async fn mistake(cluster: &EmbeddedCluster, sasl: Sasl) -> (Error, Duration) {
    let (result, took) = timed(builder(cluster).sasl(sasl).build()).await;
    let error = result.unwrap_err();
    let told = format!("{error:?} {}", chain(&error));
    assert!(!told.contains(SECRET) && !told.contains("wrong"), "{told}");
    (error, took)
}

#[tokio::test(start_paused = true)]
async fn mistakes_end_at_once_with_the_brokers_words() {
    let invalid =
        "Authentication failed during authentication due to invalid credentials with SASL mechanism";
    let tokens = || users().oauthbearer(|_| None);
    let wrong_token = || Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new("wrong")));
    for (sasl, broker, words) in [
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
        let (error, took) = mistake(&cluster, sasl).await;
        let text = chain(&error);
        assert_eq!(text, format!("Metadata at {}: the connection failed: {words}", cluster.bootstrap()[0]));
        assert!(took <= DELAY, "{text} took {took:?}");
        assert!(!error.is_retriable(), "{text}");
        assert_eq!(cluster.requests(ApiKey::API_VERSIONS), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_wants_nobody_to_authenticate_is_told_at_once() {
    let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
    let (error, took) = mistake(&cluster, plain()).await;
    assert!(
        chain(&error).ends_with(
            "the request is not valid in the current state of authentication: does this listener use SASL?"
        ),
        "{error:?}"
    );
    assert!(!error.is_retriable() && took == Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again() {
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
    // A broker that goes away meanwhile has said nothing about the password.
    cluster.disconnect_all();
    settle().await;
    cluster.on(ApiKey::SASL_AUTHENTICATE, Fault::LoseReply);
    client.list_topics().await.unwrap();
    assert_eq!(cluster.faults_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn secrets_do_not_go_over_unencrypted_connections_unasked() {
    let bearer = Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new(SECRET)));
    for (sasl, name) in [(Sasl::plain("alice", SECRET), "PLAIN"), (bearer, "OAUTHBEARER")] {
        let cluster = cluster(users().oauthbearer(|_| Some(60 * SECOND)));
        let (error, took) = mistake(&cluster, sasl.clone()).await;
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
async fn credentials_that_cannot_be_used_are_the_callers_mistake() {
    let cluster = cluster(users());
    let bearer = |token: Token| {
        let fetch = move || std::future::ready(Ok::<_, io::Error>(token.clone()));
        Sasl::oauth_bearer(fetch).danger_send_unencrypted()
    };
    for (sasl, words) in [
        (Sasl::plain("", SECRET), "the user name is empty"),
        (Sasl::plain("alice", "a\0b"), "the password contains a NUL"),
        (Sasl::scram_sha_512("alice", ""), "the password is empty"),
        (bearer(Token::new("a b")), "the token is empty or has characters other than letters"),
        (
            bearer(Token::new("a").extension("auth", "b")),
            "the name auth is reserved and cannot be an extension",
        ),
    ] {
        let (error, took) = mistake(&cluster, sasl).await;
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("credentials: {words}")), "{error}");
        assert_eq!(took, Duration::ZERO);
    }
    assert_eq!(cluster.requests(ApiKey::API_VERSIONS), 0);
}

fn any_token() -> kwal_testkit::Sasl {
    kwal_testkit::Sasl::new().oauthbearer(|_| Some(3600 * SECOND))
}

#[tokio::test(start_paused = true)]
async fn a_source_of_tokens_that_fails_has_its_words_and_is_asked_again() {
    let cluster = cluster(any_token());
    let sasl = Sasl::oauth_bearer(async || Err::<Token, _>(io::Error::other("the token endpoint is down")));
    let (error, took) = mistake(&cluster, sasl).await;
    let place = &cluster.bootstrap()[0];
    let text =
        format!("Metadata at {place}: no credentials to authenticate with: the token endpoint is down");
    assert_eq!(chain(&error), text);
    assert!(error.is_retriable());
    assert_eq!((took, cluster.requests(ApiKey::API_VERSIONS)), (Duration::ZERO, 0), "building tries once");

    let sasl = Sasl::oauth_bearer(std::future::pending::<Result<Token, io::Error>>);
    let (error, took) = mistake(&cluster, sasl).await;
    assert!(
        chain(&error).ends_with("no credentials to authenticate with: not available within 10s"),
        "{error:?}"
    );
    assert_eq!((took, cluster.requests(ApiKey::API_VERSIONS)), (deadlines().connect, 0));

    // A call goes on asking until its deadline.
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
async fn a_source_of_tokens_that_stays_away_ends_calls_at_their_deadline() {
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
async fn tokens_that_say_how_long_they_are_good_are_shared() {
    let cluster = cluster(any_token());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let sasl = Sasl::oauth_bearer(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, io::Error>(Token::new("token").expires_in(100 * SECOND)) }
    });
    let client = builder(&cluster).sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    for (after, fetched) in [(49, 1), (2, 2)] {
        sleep(after * SECOND).await;
        cluster.disconnect_all();
        settle().await;
        client.list_topics().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), fetched);
    }
    // One that a broker has refused is not used again.
    cluster.disconnect_all();
    settle().await;
    cluster.on(ApiKey::SASL_AUTHENTICATE, Fault::Error(ErrorCode::SASL_AUTHENTICATION_FAILED));
    client.list_topics().await.unwrap_err();
    client.list_topics().await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

/// Appends and long polls for so long; answers how many records there were.
async fn use_it(builder: ClientBuilder, for_so_long: Duration) -> usize {
    let client = builder.build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let end = Instant::now() + for_so_long;
    let reader = partition.clone();
    let reading = tokio::spawn(async move {
        let (mut next, mut seen) = (0, 0);
        while Instant::now() < end {
            let fetched = reader.fetch(next).max_wait(30 * SECOND).await.unwrap();
            seen += fetched.records().collect::<Result<Vec<_>, _>>().unwrap().len();
            next = fetched.next_offset;
        }
        seen
    });
    let idle = client.partition_client("wal", 1).await.unwrap();
    let polling = tokio::spawn(async move {
        while Instant::now() < end {
            // Nothing comes, and the wait is as long as was asked for.
            let (fetched, took) = timed(idle.fetch(0).max_wait(30 * SECOND)).await;
            assert_eq!(fetched.unwrap().wire_bytes, 0);
            assert!(took > 29 * SECOND && took < 31 * SECOND, "{took:?}");
        }
    });
    let mut count = 0;
    while Instant::now() < end {
        let produced = partition.produce(record(count.to_string())).await.unwrap();
        assert_eq!((produced.offsets().start, produced.attempts), (count, 1));
        count += 1;
        sleep(Duration::from_millis(210)).await;
    }
    partition.produce(record("last")).await.unwrap();
    assert_eq!(reading.await.unwrap() as i64, count + 1);
    polling.await.unwrap();
    count as usize + 1
}

/// From SaslHandshake to the last SaslAuthenticate nothing else is sent on a connection, and renewals are a second apart.
fn assert_nothing_between(wire: &Wire) {
    for connection in 1..=wire.connections() {
        let seen: Vec<_> = wire.all().into_iter().filter(|seen| seen.connection == connection).collect();
        let mut last: Option<Instant> = None;
        for (at, request) in seen.iter().enumerate() {
            if request.api == ApiKey::SASL_HANDSHAKE {
                let next = seen.get(at + 1).map_or(ApiKey::SASL_AUTHENTICATE, |next| next.api);
                assert_eq!(next, ApiKey::SASL_AUTHENTICATE, "{connection}");
                assert!(last.is_none_or(|last| request.at - last >= SECOND), "{connection}");
                last = Some(request.at);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_of_five_seconds_are_renewed_without_a_gap() {
    let cluster = cluster(users().max_session(5 * SECOND));
    let wire = Wire::to(&cluster);
    let count = use_it(wire.builder().sasl(plain()), 120 * SECOND).await;
    let expected: Vec<_> = (0..count - 1).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(log(&cluster), expected);
    assert_nothing_between(&wire);
    // The one that bootstraps, one to ask the broker, two for appends, two to read, and never another.
    assert!(wire.connections() <= 6, "{}", wire.connections());
    assert!(wire.count(ApiKey::SASL_HANDSHAKE) >= 5 * 120 / 5, "{}", wire.count(ApiKey::SASL_HANDSHAKE));
    assert!(wire.count(ApiKey::FETCH) < 1500, "{}", wire.count(ApiKey::FETCH));
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_fetched_before_the_old_one_expires() {
    let (sasl, tokens, fetched) = bearer(7 * SECOND);
    let cluster = cluster(tokens);
    let wire = Wire::to(&cluster);
    use_it(wire.builder().sasl(sasl), 60 * SECOND).await;
    assert_nothing_between(&wire);
    assert!(wire.connections() <= 6, "{}", wire.connections());
    assert_eq!(fetched.load(Ordering::Relaxed), wire.count(ApiKey::SASL_HANDSHAKE));
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_while_a_token_is_fetched() {
    let cluster = cluster(any_token().max_session(60 * SECOND));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let sasl = Sasl::oauth_bearer(move || {
        let first = count.fetch_add(1, Ordering::Relaxed) < 4;
        async move {
            if !first {
                sleep(5 * SECOND).await;
            }
            Ok::<_, io::Error>(Token::new("token"))
        }
    });
    let wire = Wire::to(&cluster);
    let client = wire.builder().sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < 120 * SECOND {
        let (produced, took) = timed(partition.produce(record("a"))).await;
        assert_eq!(produced.unwrap().attempts, 1);
        assert!(took < SECOND, "{took:?}");
        sleep(Duration::from_millis(300)).await;
    }
    assert!(asked.load(Ordering::Relaxed) > 6);
    assert_nothing_between(&wire);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_renewed_goes_on_to_its_end_and_the_next_call_says_why() {
    let cluster = cluster(any_token().max_session(60 * SECOND));
    let down = Arc::new(Mutex::new(false));
    let (is_down, asked) = (Arc::clone(&down), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let sasl = Sasl::oauth_bearer(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let down = *is_down.lock().unwrap();
        async move {
            match down {
                true => Err(io::Error::other("the token endpoint is down")),
                false => Ok(Token::new("token")),
            }
        }
    });
    let wire = Wire::to(&cluster);
    let client = wire.builder().sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let read = || partition.fetch(1_000_000).max_wait(SECOND).into_future();
    read().await.unwrap_err();
    let begun = Instant::now();
    let connections = wire.connections();
    *down.lock().unwrap() = true;
    while begun.elapsed() < 58 * SECOND {
        let (produced, took) = timed(partition.produce(record("a"))).await;
        assert_eq!((produced.unwrap().attempts, took), (1, Duration::ZERO), "after {:?}", begun.elapsed());
        // Nor does a reader spin meanwhile.
        let (error, took) = timed(read()).await;
        let error = error.unwrap_err();
        let is_known = matches!(error.kind(), ErrorKind::OffsetOutOfRange { log: Some(_), .. });
        assert!(is_known && took <= SECOND, "after {took:?} at {:?}: {error}", begun.elapsed());
        sleep(SECOND / 2).await;
    }
    assert!((5..200).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
    assert_eq!(wire.connections(), connections);
    sleep(2 * SECOND).await;
    let (result, _) = timed(partition.produce(record("b"))).await;
    let text = chain(&result.unwrap_err());
    assert!(text.ends_with("no credentials to authenticate with: the token endpoint is down"), "{text}");
    *down.lock().unwrap() = false;
    partition.produce(record("c")).await.unwrap();
    assert!(!log(&cluster).contains(&"b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn readers_do_not_spin_while_a_renewal_waits_for_its_token() {
    let cluster = cluster(any_token().max_session(60 * SECOND));
    let count = AtomicUsize::new(0);
    let sasl = Sasl::oauth_bearer(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match number < 4 {
                true => Ok(Token::new("token")),
                false => Err(io::Error::other("the token endpoint is down")),
            }
        }
    });
    let wire = Wire::to(&cluster);
    let client = wire.builder().sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < 50 * SECOND {
        let _ = timeout(58 * SECOND - begun.elapsed(), partition.fetch(0).max_wait(30 * SECOND)).await;
    }
    assert!(wire.count(ApiKey::FETCH) < 60, "{}", wire.count(ApiKey::FETCH));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_ends_calls_at_once() {
    let cluster = cluster(users().max_session(60 * SECOND));
    let wire = Wire::to(&cluster);
    let client = wire.builder().sasl(plain()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    cluster.on_all(ApiKey::SASL_AUTHENTICATE, Fault::Error(ErrorCode::SASL_AUTHENTICATION_FAILED));
    sleep(60 * SECOND).await;
    let (result, took) = timed(partition.produce(record("b"))).await;
    let error = result.unwrap_err();
    assert!(!error.is_retriable() && took == Duration::ZERO, "{took:?}: {error:?}");
    assert!(
        chain(&error).ends_with("rejected the SASL PLAIN authentication: it gave no reason"),
        "{error:?}"
    );
    cluster.clear_faults();
    partition.produce(record("c")).await.unwrap();
    assert_eq!(log(&cluster), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn sessions_shorter_than_a_request_or_a_renewal_only_cost_connections() {
    for (session, slow) in [(3 * SECOND, 5 * SECOND), (SECOND, Duration::ZERO), (SECOND / 2, SECOND)] {
        let cluster = cluster(users().max_session(session));
        let wire = Wire::to(&cluster);
        let client = wire.builder().sasl(plain()).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        for number in 0..20 {
            cluster.on(ApiKey::PRODUCE, Fault::DelayReply(slow));
            partition.produce(record(number.to_string())).await.unwrap();
            sleep(SECOND / 3).await;
            partition.fetch(0).max_wait(2 * SECOND).await.unwrap();
        }
        let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(log(&cluster), expected, "{session:?}");
        assert_nothing_between(&wire);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_at_any_point_of_an_authentication_leaves_the_client_usable() {
    let cluster = cluster(users().max_session(5 * SECOND));
    let client = builder(&cluster).sasl(plain()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    for times in 1..40 {
        cluster.disconnect_all();
        settle().await;
        let _ = polled(partition.get_offset(OffsetAt::Latest), times).await;
        settle().await;
        partition.get_offset(OffsetAt::Latest).await.unwrap();
    }
    for times in 1..40 {
        sleep(Duration::from_millis(97 * times)).await;
        let _ = polled(partition.fetch(0).max_wait(30 * SECOND), 2).await;
        partition.get_offset(OffsetAt::Latest).await.unwrap();
    }
}

#[test]
fn scram_is_computed_where_it_holds_nobody_up() {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let cluster = cluster(users().iterations(5_000));
        // As long as the only thread for what takes long is taken, nothing is computed.
        let (release, released) = std::sync::mpsc::channel();
        let taken = spawn_blocking(move || released.recv());
        let builder = builder(&cluster).sasl(Sasl::scram_sha_512("alice", SECRET));
        let client = tokio::spawn(builder.build());
        // Time stands still meanwhile.
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
async fn the_time_for_connecting_rules_the_authentication_too() {
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
async fn an_error_can_be_told_by_its_kind() {
    let cluster = cluster(users());
    let wrong = Sasl::plain("alice", "wrong").danger_send_unencrypted();
    let (error, _) = mistake(&cluster, wrong).await;
    assert!(matches!(error.kind(), ErrorKind::Connection), "{error:?}");
    let ConnectionError::AuthenticationFailed { mechanism, code, .. } = source(&error) else {
        panic!("{error:?}")
    };
    assert_eq!((mechanism.as_str(), *code), ("PLAIN", ErrorCode::SASL_AUTHENTICATION_FAILED));
}

/// Nothing that is logged, at any level, tells a secret.
#[tokio::test(start_paused = true)]
async fn logs_tell_no_secrets() {
    let text = Arc::new(Mutex::new(String::new()));
    // With a single one, what other tests have met first would count as not wanted.
    let another = tracing::Dispatch::new(Log(Arc::default()));
    let guard = tracing::subscriber::set_default(Log(Arc::clone(&text)));
    let cluster =
        cluster(users().max_session(5 * SECOND).oauthbearer(|token| (token == SECRET).then_some(HOUR)));
    let bearer = Sasl::oauth_bearer(async || Ok::<_, io::Error>(Token::new(SECRET).extension("x", SECRET)));
    builder(&cluster).sasl(Sasl::scram_sha_256("alice", SECRET)).build().await.unwrap();
    for sasl in [plain(), bearer.danger_send_unencrypted()] {
        let client = builder(&cluster).sasl(sasl).build().await.unwrap();
        client.partition_client("wal", 0).await.unwrap().fetch(0).max_wait(8 * SECOND).await.unwrap();
    }
    builder(&cluster).sasl(Sasl::plain("bob", SECRET).danger_send_unencrypted()).build().await.unwrap_err();
    drop((guard, another));
    let text = text.lock().unwrap();
    assert!(text.contains("authenticated"), "something was logged");
    assert!(!text.contains(SECRET), "{text}");
}

const HOUR: Duration = Duration::from_secs(3600);

struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Text(&mut self.0.lock().unwrap()));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Text<'a>(&'a mut String);

impl tracing::field::Visit for Text<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        writeln!(self.0, "{field} {value:?}").unwrap();
    }
}
