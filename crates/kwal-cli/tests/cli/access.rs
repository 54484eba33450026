//! Connecting: options, the environment and config files.

use kwal_testkit::{EmbeddedCluster, Sasl};

use crate::support::{Scratch, World, end, kwal};

fn secured() -> World {
    World::start(
        EmbeddedCluster::builder()
            .topic("wal", 1)
            .sasl(Sasl::new().user("alice", "a secret").iterations(4096)),
    )
}

#[test]
fn sasl_by_options_and_the_environment() {
    let world = secured();
    let file = Scratch::new("password", b"a secret\n");
    let list = "topics list --sasl SCRAM-SHA-256 --user alice --password-file";
    let mut by_file = world.kwal(list);
    by_file.arg(&file.0);
    assert_eq!(end(by_file, b"").code, 0);
    let mut by_environment = world.kwal("topics list --sasl SCRAM-SHA-512");
    by_environment.env("KAFKA_USER", "alice").env("KAFKA_PASSWORD", "a secret");
    assert_eq!(end(by_environment, b"").code, 0);

    let mut wrong = world.kwal("topics list --sasl PLAIN --user alice --sasl-in-clear");
    wrong.env("KAFKA_PASSWORD", "guess");
    let ended = end(wrong, b"");
    assert_eq!(ended.code, 3);
    assert!(!ended.stderr.contains("guess") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    let mut in_clear = world.kwal("topics list --sasl PLAIN --user alice");
    in_clear.env("KAFKA_PASSWORD", "a secret");
    let ended = end(in_clear, b"");
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("--sasl-in-clear"), "{}", ended.stderr);
    let mut allowed = world.kwal("topics list --sasl PLAIN --user alice --sasl-in-clear");
    allowed.env("KAFKA_PASSWORD", "a secret");
    assert_eq!(end(allowed, b"").code, 0);
}

#[test]
fn a_config_file_of_the_tools_of_kafka() {
    let world = secured();
    let text = format!(
        "bootstrap.servers={}\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n\
         sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n  \
         username=\"alice\" password=\"a secret\";\nacks=all\ngroup.id=x\n",
        world.brokers
    );
    let file = Scratch::new("client.properties", text.as_bytes());
    let with_file = |more: &str| {
        let mut command = kwal("--config");
        command.arg(&file.0).args(more.split_whitespace());
        command
    };
    let ended = end(with_file("topics list"), b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    let unused = format!("kwal: warning: config {}: not used: acks, group.id\n", file.0.display());
    assert_eq!(ended.stderr, unused);
    // The file wins over the environment, and options win over the file.
    let mut environment = with_file("topics list");
    environment.env("KAFKA_CONNECT", "127.0.0.1:1").env("KAFKA_PASSWORD", "guess");
    assert_eq!(end(environment, b"").code, 0);
    let ended = end(with_file("topics list --brokers 127.0.0.1:1"), b"");
    assert!(ended.code == 3 && ended.stderr.contains("127.0.0.1:1"), "{ended:?}");

    let file = Scratch::new("kerberos.properties", b"security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI\n");
    let mut command = kwal("topics list --config");
    command.arg(&file.0);
    let ended = end(command, b"");
    assert_eq!(ended.code, 2);
    let problem = "sasl.mechanism: \"GSSAPI\" is not supported, only PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER";
    assert_eq!(ended.stderr, format!("kwal: config {}: {problem}\n", file.0.display()));
}
