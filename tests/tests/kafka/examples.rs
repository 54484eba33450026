//! The examples of README on real brokers.

use std::process::Command;

use kwal_tests::kafka::{Certificates, Kafka, PASSWORD, USER};
use kwal_tests::message::Message;

use crate::program::program_with_all_features;

kwal_tests::suite! {
    shared: [each_runs, the_tiny_client_reads],
    secured: [tls_and_sasl],
    own: [],
}

/// Each with what it prints at its end. They verify what they read.
async fn each_runs(kafka: &'static Kafka) {
    for (name, end) in [
        ("quickstart", "Some(b\"account\") Some(b\"-30\")\n"),
        ("wal_of_a_kv_store", "without the snapshot: "),
        ("failover", "the log has what was acknowledged, 102 entries, and nothing that came too late\n"),
        ("many_writers", "the log has every change of "),
        ("follow", "stopped: offsets 2 to 4: 2 records, "),
        ("large_entries", "read 3 entries, and the last one again from a checkpoint"),
        ("mirror", "2 batches are on the mirror, byte for byte"),
        ("metrics", "kwal_appended_records_total"),
    ] {
        let printed = run(name, &[], &[("KAFKA_CONNECT", kafka.bootstrap().join(","))]).await;
        assert!(printed.contains(end), "{name}: {printed}");
    }
}

async fn the_tiny_client_reads(kafka: &'static Kafka) {
    let topic = kafka.topic("tiny", 1, &[]).await;
    let messages = ["+100", "-30"].map(|value| Message::new(1_750_000_000_000, None, Some(value.as_bytes())));
    kafka.java().produce(&topic, 0, "none", &messages).await;
    let printed = run("tiny_client", &[&kafka.bootstrap()[0], &topic], &[]).await;
    assert!(printed.lines().any(|line| line == topic), "{printed}");
    assert!(printed.ends_with("[\n    \"+100\",\n    \"-30\",\n]\n"), "{printed}");
}

async fn tls_and_sasl(kafka: &'static Kafka) {
    let printed = run(
        "tls_sasl",
        &[],
        &[
            ("KAFKA_CONNECT", kafka.cluster().unwrap().addresses("SASL_SSL").join(",")),
            ("KAFKA_CA", Certificates::shared().authority().to_str().unwrap().to_owned()),
            ("KAFKA_USER", USER.to_owned()),
            ("KAFKA_PASSWORD", PASSWORD.to_owned()),
        ],
    )
    .await;
    let [read, refused] = printed.lines().collect::<Vec<_>>()[..] else { panic!("{printed}") };
    assert_eq!(read, format!("appended and read as {USER}"));
    assert!(refused.contains("rejected the SASL SCRAM-SHA-512 authentication"), "{refused}");
}

/// Returns what the example printed.
async fn run(name: &str, arguments: &[&str], variables: &[(&str, String)]) -> String {
    let mut program = Command::new(program_with_all_features(name));
    program.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    let output = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{name}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
