//! C4: sessions that expire are extended in time (KIP-368), without disturbing calls.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_client::{
    ClientBuilder, Limits, OffsetAt,
    error::ErrorKind,
    sasl::{Sasl, Token},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode, messages::SaslAuthenticateRequest};
use kwal_testkit::Fault;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    c4_authentication::{SECOND, any_token, bearer, cluster, plain, users},
    support::{Wire, builder, chain, log, polled, record, settle, timed},
};

/// Appends, and fetches with long polls, for some time. Returns the number of records.
async fn append_and_poll(builder: ClientBuilder, for_so_long: Duration) -> usize {
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
            // There are no records, and the wait is as long as requested.
            let (fetched, took) = timed(idle.fetch(0).max_wait(30 * SECOND)).await;
            assert_eq!(fetched.unwrap().wire_bytes, 0);
            assert!(took > 29 * SECOND && took < 31 * SECOND, "{took:?}");
        }
    });
    let mut count = 0;
    while Instant::now() < end {
        let produced = partition.produce(record(count.to_string())).await.unwrap();
        assert_eq!((produced.base_offset, produced.attempts), (Some(count), 1));
        count += 1;
        sleep(Duration::from_millis(210)).await;
    }
    partition.produce(record("last")).await.unwrap();
    assert_eq!(reading.await.unwrap() as i64, count + 1);
    polling.await.unwrap();
    count as usize + 1
}

/// Asserts that no other request is sent between SaslHandshake and the last SaslAuthenticate, and that
/// authentications are at least a second apart.
fn assert_nothing_between_handshake_and_authentication(wire: &Wire) {
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
async fn sessions_of_five_seconds_are_extended_without_interruption() {
    let cluster = cluster(users().max_session(5 * SECOND));
    let wire = Wire::to(&cluster);
    let count = append_and_poll(wire.builder().sasl(plain()), 120 * SECOND).await;
    let expected: Vec<_> = (0..count - 1).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(log(&cluster), expected);
    assert_nothing_between_handshake_and_authentication(&wire);
    // The bootstrap connection, the general one, two for appends and two for fetches: none is replaced.
    assert!(wire.connections() <= 6, "{}", wire.connections());
    assert!(wire.count(ApiKey::SASL_HANDSHAKE) >= 5 * 120 / 5, "{}", wire.count(ApiKey::SASL_HANDSHAKE));
    assert!(wire.count(ApiKey::FETCH) < 1500, "{}", wire.count(ApiKey::FETCH));
}

#[tokio::test(start_paused = true)]
async fn sessions_are_extended_while_fetches_share_a_connection() {
    let cluster = cluster(users().max_session(5 * SECOND));
    let wire = Wire::to(&cluster);
    let limits = Limits::default().max_connections_per_broker(1);
    let client = wire.builder().sasl(plain()).limits(limits).build().await.unwrap();
    let end = Instant::now() + 60 * SECOND;
    let mut readers = Vec::new();
    for index in 0..2 {
        let partition = client.partition_client("wal", index).await.unwrap();
        readers.push(tokio::spawn(async move {
            let mut next = 0;
            while Instant::now() < end {
                let (fetched, took) = timed(partition.fetch(next).max_wait(20 * SECOND)).await;
                assert!(took < 21 * SECOND, "{took:?}");
                next = fetched.unwrap().next_offset;
            }
            next
        }));
    }
    let writer = client.partition_client("wal", 1).await.unwrap();
    for count in 0..60 {
        assert_eq!(writer.produce(record(count.to_string())).await.unwrap().attempts, 1);
        sleep(SECOND).await;
    }
    let next = futures::future::join_all(readers).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(next, [0, 60]);
    assert_nothing_between_handshake_and_authentication(&wire);
    // The bootstrap connection, the general one, one for appends and one for fetches: none is replaced.
    assert!(wire.connections() <= 4, "{}", wire.connections());
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_fetched_before_the_old_one_expires() {
    let (sasl, tokens, fetched) = bearer(7 * SECOND);
    let cluster = cluster(tokens);
    let wire = Wire::to(&cluster);
    append_and_poll(wire.builder().sasl(sasl), 60 * SECOND).await;
    assert_nothing_between_handshake_and_authentication(&wire);
    assert!(wire.connections() <= 6, "{}", wire.connections());
    assert_eq!(fetched.load(Ordering::Relaxed), wire.count(ApiKey::SASL_HANDSHAKE));
}

#[tokio::test(start_paused = true)]
async fn calls_continue_while_a_token_is_fetched() {
    let cluster = cluster(any_token().max_session(60 * SECOND));
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
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
    assert!(fetches.load(Ordering::Relaxed) > 6);
    assert_nothing_between_handshake_and_authentication(&wire);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_extended_lasts_to_its_end_and_the_next_call_reports_why() {
    let cluster = cluster(any_token().max_session(60 * SECOND));
    let down = Arc::new(Mutex::new(false));
    let (is_down, fetches) = (Arc::clone(&down), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&fetches);
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
    partition.produce(record("a")).await.unwrap();
    let begun = Instant::now();
    let connections = wire.connections();
    *down.lock().unwrap() = true;
    while begun.elapsed() < 58 * SECOND {
        let (produced, took) = timed(partition.produce(record("a"))).await;
        assert_eq!((produced.unwrap().attempts, took), (1, Duration::ZERO), "after {:?}", begun.elapsed());
        // A reader does not spin in the meantime.
        let (error, took) = timed(read()).await;
        let error = error.unwrap_err();
        let is_known = matches!(error.kind(), ErrorKind::BeyondEnd { end: 2.., .. });
        assert!(is_known && took <= SECOND, "after {took:?} at {:?}: {error}", begun.elapsed());
        sleep(SECOND / 2).await;
    }
    assert!((5..200).contains(&fetches.load(Ordering::Relaxed)), "{fetches:?}");
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
async fn readers_do_not_spin_while_reauthentication_waits_for_a_token() {
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
async fn a_rejected_reauthentication_ends_calls_at_once() {
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
async fn sessions_shorter_than_a_request_or_a_reauthentication_only_cost_connections() {
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
        assert_nothing_between_handshake_and_authentication(&wire);
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

/// The pause holds the exchange back, so it is no part of its time limit.
#[tokio::test(start_paused = true)]
async fn a_throttle_longer_than_the_time_limit_of_an_authentication_does_not_close_the_connection() {
    let cluster = cluster(users().max_session(300 * SECOND));
    let wire = Wire::to(&cluster);
    let client = wire.builder().sasl(plain()).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    // Sessions are extended 255 to 285 s after they began.
    sleep(250 * SECOND).await;
    let connections = wire.connections();
    cluster.on(ApiKey::PRODUCE, Fault::Throttle(40 * SECOND));
    partition.produce(record("b")).await.unwrap();
    let (produced, took) = timed(partition.produce(record("c"))).await;
    assert_eq!((produced.unwrap().attempts, took), (1, 40 * SECOND));
    let used: Vec<_> = wire.seen(ApiKey::PRODUCE).iter().map(|seen| seen.connection).collect();
    assert!(used.iter().all(|one| *one == used[0]), "{used:?}");
    assert!(wire.connections() <= connections + 1, "{} after {connections}", wire.connections());
    assert_eq!(log(&cluster), ["a", "b", "c"]);
}

/// A lifetime is a number of the broker. Whatever it is, calls end, and no loop spins.
#[tokio::test(start_paused = true)]
async fn any_session_lifetime_is_survived() {
    for (ms, is_limited) in [
        (i64::MAX, false),
        (i64::MAX / 2, false),
        (0, false),
        (-1, false),
        (i64::MIN, false),
        (1, true),
        (20, true),
    ] {
        let cluster = cluster(any_token());
        let wire = Wire::to(&cluster);
        wire.edit::<SaslAuthenticateRequest>(move |response| response.session_lifetime_ms = ms);
        let sasl = Sasl::oauth_bearer(|| async { Ok::<_, io::Error>(Token::new("token")) });
        let client = wire.builder().sasl(sasl.danger_send_unencrypted()).build().await.unwrap();
        let partition = client.partition_client("wal", 0).await.unwrap();
        for i in 0..10 {
            let (produced, took) = timed(partition.produce(record("a"))).await;
            assert_eq!((produced.unwrap().base_offset, took < SECOND), (Some(i), true), "{ms}: {took:?}");
            sleep(SECOND).await;
        }
        let connections = wire.connections();
        assert_eq!(connections > 4, is_limited, "{ms}: {connections}");
        assert!(connections < 40, "{ms}: {connections}");
    }
}
