//! What brokers do, in a table of scenarios: recorded from real Kafka, and asked of the embedded cluster.
//!
//! A scenario is a function that makes requests of brokers and writes down what it sees, in lines without anything random.
//! On real brokers a run compares the lines with those of the file of that version, `tests/fidelity/VERSION.txt`, or writes
//! the file if `KWAL_RECORD=1` is set; so nobody *says* what Kafka does. The embedded cluster is held against the same files,
//! in its dialect of that version and under a paused clock, without any broker.
//!
//! A new scenario is a function in one of the files here and its name in the table; then a run that records.

mod acts;
mod administration;
mod appends;
mod connections;
mod coordinators;
mod expiry;
mod log;
mod producers;
mod reading;
mod recording;
mod replicas;
mod tell;
mod throttling;
mod topics;
mod transactions;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use kwal_testkit::{Dialect, EmbeddedCluster};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, spawn_blocking, spawn_local};

use self::recording::{RECORD, Recording, difference};
use self::world::{Place, World};

scenarios! {
    connections, 1: [
        versions_that_are_listed,
        api_versions_of_an_unknown_version,
        api_versions_of_odd_software,
        versions_that_the_broker_lacks,
        an_unknown_api,
        frames_of_odd_lengths,
        a_body_that_cannot_be_read,
        answers_in_order,
        no_answer_to_acks_0,
        a_failed_append_with_acks_0,
        one_request_at_a_time,
    ]
    throttling, 1: [appends_over_the_quota, fetches_over_the_quota]
    producers, 1: [
        sequences_of_a_known_producer,
        a_duplicate_is_known_by_its_numbers,
        any_sequence_of_an_unknown_producer,
        sequences_begin_again_after_the_last,
        epochs,
        a_fence,
        a_fence_after_all_records_are_deleted,
        producer_ids,
        two_in_flight_of_a_fresh_producer,
    ]
    appends, 1: [
        batches_that_are_refused,
        batches_of_odd_counts,
        acks,
        batches_without_a_producer,
        log_append_time,
        times_far_from_now,
        times_that_a_topic_does_not_take,
        records_of_a_compacted_topic,
        codecs,
        a_topic_with_a_codec_of_its_own,
        zstd_of_old_versions,
        transactional_batches_outside_of_a_transaction,
        several_partitions_in_a_request,
        appends_to_what_is_not_there,
        appends_by_topic_id,
    ]
    reading, 1: [
        fetches,
        limits_of_a_whole_request,
        a_long_poll,
        a_long_poll_that_ends_early,
        offsets,
        offsets_of_old_and_odd_kinds,
        leader_epochs_of_one_leader,
        fetches_with_epochs,
        fetches_of_what_is_not_there,
        fetches_by_topic_id,
        fetch_sessions,
        deleted_records,
    ]
    topics, 1: [
        topics_made,
        topics_with_settings,
        topics_with_assignments,
        a_topic_named_twice,
        topic_names_that_collide,
        topics_deleted,
        a_topic_made_again,
        metadata_of_unknown_topics,
        metadata_by_topic_id,
        metadata_of_no_topics,
        a_topic_made_by_asking,
    ]
    administration, 1: [
        partitions_added,
        settings_described,
        settings_changed,
        the_cluster_described,
        producers_described,
        sasl_where_there_is_none,
    ]
    transactions, 1: [
        a_transaction_that_is_committed,
        a_transaction_that_is_aborted,
        what_lies_behind_an_open_transaction,
        transactions_of_two_producers,
        a_transaction_of_a_fenced_producer,
    ]
    coordinators, 1: [
        coordinators_found,
        names_and_epochs,
        times_of_transactions,
        a_fence_by_name,
        an_epoch_raised_past_the_coordinator,
    ]
    replicas, 3: [
        requests_to_brokers_that_do_not_lead,
        a_leader_that_moves,
        an_epoch_that_rose_unseen,
        a_follower_that_falls_silent,
        a_connection_that_waits_for_replicas,
        the_end_of_the_log_after_an_election,
        an_unclean_election,
        brokers_killed_and_restarted,
        a_broker_that_shuts_down,
        topics_of_three_brokers,
    ]
    expiry, 3: [producers_that_expire, producers_of_old_records, names_that_expire]
}

/// A scenario of the table.
struct Scenario {
    name: &'static str,
    /// How many there are. One is shared with other tests and scenarios; three are the scenario's own as long as it runs.
    brokers: i32,
    run: for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

macro_rules! scenarios {
    ($($module:ident, $brokers:literal: [$($name:ident),* $(,)?])*) => {
        /// All scenarios, in the order of the files.
        const TABLE: &[Scenario] = &[$($(
            Scenario {
                name: stringify!($name),
                brokers: $brokers,
                run: |world| Box::pin($module::$name(world)),
            },
        )*)*];

        mod real {
            #[test]
            #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
            #[cfg_attr(
                all(kwal_integration, kwal_external),
                ignore = "needs brokers of its own: not those of KAFKA_CONNECT"
            )]
            fn v3_9_2() {
                super::on_real_brokers(kwal_tests::kafka::Version::V3_9_2);
            }

            #[test]
            #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
            #[cfg_attr(
                all(kwal_integration, kwal_external),
                ignore = "needs brokers of its own: not those of KAFKA_CONNECT"
            )]
            fn v4_3_1() {
                super::on_real_brokers(kwal_tests::kafka::Version::V4_3_1);
            }
        }

        mod embedded {
            mod v3_9_2 {
                $($(#[test]
                fn $name() {
                    super::super::on_embedded_brokers(kwal_tests::kafka::Version::V3_9_2, stringify!($name));
                })*)*
            }

            mod v4_3_1 {
                $($(#[test]
                fn $name() {
                    super::super::on_embedded_brokers(kwal_tests::kafka::Version::V4_3_1, stringify!($name));
                })*)*
            }
        }
    };
}
use scenarios;

/// Plays all scenarios on real brokers and compares with the file, or writes it.
fn on_real_brokers(version: Version) {
    // One version after the other: there are waits in them that a busy machine should not stretch.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut played = BTreeMap::new();
    kwal_tests::run(
        &format!("fidelity of {version}"),
        LocalSet::new().run_until(async {
            let one = Kafka::shared(version);
            // Starts while the scenarios of one broker are played.
            let three = spawn_blocking(move || Kafka::start(version, &of_three()));
            let room = Arc::new(Semaphore::new(6));
            let playing: Vec<_> = of(1)
                .map(|scenario| {
                    let room = Arc::clone(&room);
                    let play = async move {
                        let _room = room.acquire_owned().await.unwrap();
                        play(scenario, Place::Real(one), OffsetDateTime::now_utc()).await
                    };
                    (scenario.name, spawn_local(play))
                })
                .collect();
            for (name, playing) in playing {
                played.insert(name, playing.await.unwrap());
            }
            // Nobody else has them, and they end with the process.
            let three = Box::leak(Box::new(three.await.unwrap()));
            for scenario in of(3) {
                played.insert(
                    scenario.name,
                    play(scenario, Place::Real(three), OffsetDateTime::now_utc()).await,
                );
                acts::restore(three).await;
            }
        }),
    );
    let mut failed = String::new();
    let mut seen = Vec::new();
    for Scenario { name, .. } in TABLE {
        match played.remove(name).unwrap() {
            Ok(lines) => seen.push(((*name).to_owned(), lines)),
            Err(end) => failed.push_str(&end),
        }
    }
    assert!(failed.is_empty(), "Kafka {version}:\n{failed}");
    let seen = Recording::new(seen);
    if std::env::var(RECORD).is_ok_and(|value| value == "1") {
        seen.write(version);
        return;
    }
    let difference = Recording::read(version).compare(&seen);
    assert!(
        difference.is_empty(),
        "Kafka {version} does not do what the file says of it (-); if it is right, record again with {RECORD}=1:\n{difference}"
    );
}

fn of(brokers: i32) -> impl Iterator<Item = &'static Scenario> {
    TABLE.iter().filter(move |scenario| scenario.brokers == brokers)
}

/// Three brokers, the first of them the only controller, which no scenario ends.
fn of_three() -> ClusterConfig {
    let properties = [
        // A broker that falls silent is given up after this time.
        ("broker.session.timeout.ms", "4000"),
        ("producer.id.expiration.check.interval.ms", "200"),
        ("transactional.id.expiration.ms", "1500"),
        ("transaction.remove.expired.transaction.cleanup.interval.ms", "300"),
    ];
    ClusterConfig {
        nodes: 3,
        controllers: 1,
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..ClusterConfig::default()
    }
}

/// Plays one scenario on the embedded brokers and compares with the file.
fn on_embedded_brokers(version: Version, name: &str) {
    let scenario = TABLE.iter().find(|scenario| scenario.name == name).unwrap();
    let recording = Recording::read(version);
    let recorded = recording.of(name).unwrap_or_else(|| panic!("record it first, by a run with {RECORD}=1"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let played = LocalSet::new().block_on(&runtime, async {
        let dialect = match version {
            Version::V3_9_2 => Dialect::kafka_3_9(),
            Version::V4_3_1 => Dialect::kafka_4_3(),
        };
        let mut cluster =
            EmbeddedCluster::builder().brokers(scenario.brokers).dialect(dialect).auto_create_topics(true);
        if scenario.brokers == 3 {
            // As the real ones have it.
            cluster = cluster.setting("min.insync.replicas", "2");
            cluster = cluster.setting("broker.session.timeout.ms", "4000");
        }
        let now = OffsetDateTime::now_utc();
        let cluster = cluster.started_at((now.unix_timestamp_nanos() / 1_000_000) as i64);
        play(scenario, Place::Embedded(cluster.start_in_memory().unwrap()), now).await
    });
    let difference = match played {
        Ok(seen) => difference(name, recorded, &seen, same_but_for_what_is_meant),
        Err(end) => end,
    };
    assert!(difference.is_empty(), "not as in Kafka {version} (-):\n{difference}");
}

/// Where the embedded cluster is meant to differ: what is recorded, and what it does instead.
const MEANT: &[(&str, &str)] = &[
    // Kafka passes over these mistakes of a client; who tests a client wants to hear of them.
    ("three bytes too many: answers", "three bytes too many: hangs up"),
    (
        "offsets that go back: OK, offset 5, log start 0",
        "offsets that go back: INVALID_RECORD, log start 0, record 0, record 2",
    ),
    // It has no disks, and what tells of topics page by page is for those with very many.
    ("DescribeLogDirs 0 to 4", "no DescribeLogDirs"),
    ("DescribeLogDirs 1 to 5", "no DescribeLogDirs"),
    ("DescribeTopicPartitions 0 to 0", "no DescribeTopicPartitions"),
];

/// Whether a line says the same. The embedded cluster explains its refusals in words of its own, and also some that Kafka
/// does not explain.
fn same_but_for_what_is_meant(recorded: &str, seen: &str) -> bool {
    let words = |line: &str| line.matches('“').count();
    let (plain_recorded, plain_seen) = (without_words(recorded), without_words(seen));
    let told = words(recorded) == words(seen) || words(recorded) < words(seen) && !plain_seen.ends_with("OK");
    plain_recorded == plain_seen && told || MEANT.contains(&(&plain_recorded, &plain_seen))
}

fn without_words(line: &str) -> String {
    let mut parts = line.split('“');
    let mut kept = parts.next().unwrap_or_default().trim_end().to_owned();
    for part in parts {
        kept.push_str(part.split_once('”').map_or("", |(_, rest)| rest).trim_end());
    }
    kept
}

/// What a scenario sees; or what it saw until it failed, as text.
async fn play(scenario: &'static Scenario, place: Place, now: OffsetDateTime) -> Result<Vec<String>, String> {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let mut world = World::new(place, now, Rc::clone(&lines));
    let playing: JoinHandle<()> = spawn_local(async move { (scenario.run)(&mut world).await });
    match playing.await {
        Ok(()) => Ok(lines.take()),
        Err(_) => Err(format!(
            "{} failed (see its panic above) after:\n{}\n",
            scenario.name,
            lines.take().join("\n")
        )),
    }
}
