//! Scenarios that are recorded from real Kafka and compared with the embedded cluster.
//!
//! A scenario is a function that sends requests to brokers and records its observations as lines, without
//! anything random. With real brokers, a run compares the lines with the file of that version,
//! `tests/fidelity/VERSION.txt`, or writes the file if `KWAL_RECORD=1` is set. The embedded cluster is
//! compared with the same files, in its dialect of that version, under a paused clock and without brokers.
//!
//! To add a scenario, write a function in one of the files here, add its name to the table, and record.

pub(crate) mod actions;
mod administration;
mod appends;
mod connections;
pub(crate) mod coordinators;
mod describe;
mod expiry;
mod failover;
pub(crate) mod log;
mod positions;
mod producers;
mod reading;
mod recording;
mod replicas;
mod throttling;
mod topics;
mod transactions;
pub(crate) mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use kwal_testkit::{Dialect, EmbeddedCluster};
use kwal_tests::kafka::{ClusterConfig, Kafka, Version};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, spawn_blocking, spawn_local};

use self::recording::{RECORD, Recording, difference};
use self::world::{Backend, World};

scenarios! {
    connections, One: [
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
    throttling, One: [appends_over_the_quota, fetches_over_the_quota]
    producers, One: [
        sequences_of_a_known_producer,
        a_duplicate_is_known_by_its_numbers,
        any_sequence_of_an_unknown_producer,
        sequences_begin_again_after_the_last,
        epochs,
        a_fence,
        a_fence_after_all_records_are_deleted,
        a_fence_on_the_last_epoch,
        producer_ids,
        two_in_flight_of_a_fresh_producer,
    ]
    appends, One: [
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
    reading, One: [
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
    topics, One: [
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
    administration, One: [
        partitions_added,
        settings_described,
        settings_changed,
        the_cluster_described,
        producers_described,
        sasl_where_there_is_none,
    ]
    transactions, One: [
        a_transaction_that_is_committed,
        a_transaction_that_is_aborted,
        what_lies_behind_an_open_transaction,
        transactions_of_two_producers,
        a_transaction_of_a_fenced_producer,
        transactions_of_three_producers,
        a_transaction_whose_beginning_is_deleted,
        a_log_that_ends_with_markers,
    ]
    positions, One: [the_order_of_checks]
    coordinators, One: [
        coordinators_found,
        names_and_epochs,
        times_of_transactions,
        a_fence_by_name,
        an_epoch_raised_past_the_coordinator,
        renewals,
        epochs_used_up,
    ]
    failover, Three: [
        a_coordinator_that_is_created,
        a_coordinator_that_moves,
        a_coordinator_without_replicas,
        a_fence_after_deletion_and_restart,
        a_fence_after_deletion_at_another_leader,
    ]
    replicas, Three: [
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
    positions, Three: [
        positions_after_clean_elections,
        an_epoch_that_is_lost,
        a_log_that_ends_with_a_hole,
    ]
    expiry, Expiring: [producers_that_expire, producers_of_old_records, names_that_expire]
    positions, Expiring: [a_log_that_is_compacted, transactions_that_are_compacted]
    failover, NoTransactionLog: [a_transaction_log_that_cannot_be_created]
}

/// A scenario of the table.
struct Scenario {
    name: &'static str,
    setup: Setup,
    run: for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// The brokers that a scenario needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// One, which other tests and scenarios share.
    One,
    /// Three, used by one scenario at a time.
    Three,
    /// One that forgets transactional ids soon and often looks for expired producers.
    Expiring,
    /// One that cannot create the log of transactional ids, which needs three replicas.
    NoTransactionLog,
}

macro_rules! scenarios {
    ($($module:ident, $setup:ident: [$($name:ident),* $(,)?])*) => {
        /// All scenarios, in the order of the files.
        const TABLE: &[Scenario] = &[$($(
            Scenario {
                name: stringify!($name),
                setup: Setup::$setup,
                run: |world| Box::pin($module::$name(world)),
            },
        )*)*];

        mod real {
            /// One version after the other, since a busy machine would prolong the waits of the scenarios.
            #[test]
            #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
            #[cfg_attr(
                all(kwal_integration, kwal_external),
                ignore = "starts its own brokers: not those of KAFKA_CONNECT"
            )]
            fn v3_9_2_and_v4_3_1() {
                super::on_real_brokers(kwal_tests::kafka::Version::V3_9_2);
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

/// Runs all scenarios on real brokers and compares with the file, or writes it.
fn on_real_brokers(version: Version) {
    let mut played = BTreeMap::new();
    kwal_tests::run(
        &format!("fidelity of {version}"),
        LocalSet::new().run_until(async {
            let one = Kafka::shared(version);
            // They start while the scenarios with one broker run.
            let others = [Setup::Expiring, Setup::NoTransactionLog, Setup::Three].map(|setup| {
                let config = configuration(setup);
                (setup, spawn_blocking(move || Kafka::start(version, &config)))
            });
            let permits = Arc::new(Semaphore::new(6));
            let playing: Vec<_> = of(Setup::One)
                .map(|scenario| {
                    let permits = Arc::clone(&permits);
                    let play = async move {
                        let _permit = permits.acquire_owned().await.unwrap();
                        play(scenario, Backend::Real(one), OffsetDateTime::now_utc()).await
                    };
                    (scenario.name, spawn_local(play))
                })
                .collect();
            for (name, playing) in playing {
                played.insert(name, playing.await.unwrap());
            }
            for (setup, started) in others {
                // They end with the process.
                let brokers = Box::leak(Box::new(started.await.unwrap()));
                for scenario in of(setup) {
                    let result = play(scenario, Backend::Real(brokers), OffsetDateTime::now_utc()).await;
                    played.insert(scenario.name, result);
                    actions::restore(brokers).await;
                }
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

fn of(setup: Setup) -> impl Iterator<Item = &'static Scenario> {
    TABLE.iter().filter(move |scenario| scenario.setup == setup)
}

/// Returns the configuration of real brokers. The first one is the only controller, and no scenario stops it.
fn configuration(setup: Setup) -> ClusterConfig {
    let properties: &[(&str, &str)] = match setup {
        Setup::One => &[],
        Setup::Three => &[
            // The time after which the controller fences a silent broker.
            ("broker.session.timeout.ms", "4000"),
            ("producer.id.expiration.check.interval.ms", "200"),
            ("log.cleaner.backoff.ms", "100"),
        ],
        Setup::Expiring => &[
            ("log.cleaner.backoff.ms", "100"),
            ("producer.id.expiration.check.interval.ms", "200"),
            ("transactional.id.expiration.ms", "1500"),
            ("transaction.remove.expired.transaction.cleanup.interval.ms", "300"),
        ],
        Setup::NoTransactionLog => &[("transaction.state.log.replication.factor", "3")],
    };
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    ClusterConfig {
        nodes: setup.brokers(),
        controllers: 1,
        properties: properties.iter().map(own).collect(),
        ..ClusterConfig::default()
    }
}

impl Setup {
    fn brokers(self) -> u16 {
        if self == Self::Three { 3 } else { 1 }
    }
}

/// Runs a scenario on the embedded cluster and compares with the file.
fn on_embedded_brokers(version: Version, name: &str) {
    let scenario = TABLE.iter().find(|scenario| scenario.name == name).unwrap();
    let recording = Recording::read(version);
    let recorded = recording.of(name).unwrap_or_else(|| panic!("record it first with {RECORD}=1"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let played = LocalSet::new().block_on(&runtime, async {
        let dialect = match version {
            Version::V3_9_2 => Dialect::kafka_3_9(),
            Version::V4_3_1 => Dialect::kafka_4_3(),
        };
        let brokers = scenario.setup.brokers().into();
        // Like the real ones.
        let mut cluster =
            EmbeddedCluster::builder().brokers(brokers).dialect(dialect).auto_create_topics(true);
        match scenario.setup {
            Setup::One | Setup::Expiring => {}
            Setup::Three => {
                cluster = cluster.setting("min.insync.replicas", "2");
                cluster = cluster.setting("broker.session.timeout.ms", "4000");
                cluster = cluster.setting("transaction.state.log.num.partitions", "1");
            }
            Setup::NoTransactionLog => {
                cluster = cluster.setting("transaction.state.log.replication.factor", "3");
            }
        }
        let now = OffsetDateTime::now_utc();
        let cluster = cluster.started_at((now.unix_timestamp_nanos() / 1_000_000) as i64);
        play(scenario, Backend::Embedded(cluster.start_in_memory().unwrap()), now).await
    });
    let difference = match played {
        Ok(seen) => difference(name, recorded, &seen, equal_as_intended),
        Err(end) => end,
    };
    assert!(difference.is_empty(), "not as in Kafka {version} (-):\n{difference}");
}

/// Intended differences of the embedded cluster: the recorded line, and that of the embedded cluster.
const INTENDED_DIFFERENCES: &[(&str, &str)] = &[
    // Kafka ignores this mistake of a client; the test of a client should fail.
    (
        "offsets that go back: OK, offset 5, log start 0",
        "offsets that go back: INVALID_RECORD, log start 0, record 0, record 2",
    ),
    // It has no disks, and does not paginate topics.
    ("DescribeLogDirs 0 to 4", "no DescribeLogDirs"),
    ("DescribeLogDirs 1 to 5", "no DescribeLogDirs"),
    ("DescribeTopicPartitions 0 to 0", "no DescribeTopicPartitions"),
];

/// Returns whether two lines are equal except for messages and intended differences. The embedded cluster has
/// its own error messages, also where Kafka has none.
fn equal_as_intended(recorded: &str, seen: &str) -> bool {
    let words = |line: &str| line.matches('“').count();
    let (plain_recorded, plain_seen) = (without_quotes(recorded), without_quotes(seen));
    let text = words(recorded) == words(seen) || words(recorded) < words(seen) && !plain_seen.ends_with("OK");
    plain_recorded == plain_seen && text || INTENDED_DIFFERENCES.contains(&(&plain_recorded, &plain_seen))
}

fn without_quotes(line: &str) -> String {
    let mut parts = line.split('“');
    let mut kept = parts.next().unwrap_or_default().trim_end().to_owned();
    for part in parts {
        kept.push_str(part.split_once('”').map_or("", |(_, rest)| rest).trim_end());
    }
    kept
}

/// Runs a scenario and returns its lines; or, if it panicked, a text with the lines until then.
async fn play(
    scenario: &'static Scenario,
    backend: Backend,
    now: OffsetDateTime,
) -> Result<Vec<String>, String> {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let mut world = World::new(backend, now, Rc::clone(&lines));
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
