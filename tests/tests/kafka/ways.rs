//! Every way in to three real brokers, and every mistake on the way: the program of the main job, as a user runs it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use kwal_tests::kafka::{Certificates, Kafka, MECHANISMS, PASSWORD, USER, free_port, unsecured_token};
use kwal_tests::socks5::Socks5;
use tokio::time::Instant;

use crate::program::{acknowledged, program_with_all_features};

kwal_tests::suite! {
    secured: [main_job_by_tls, main_job_by_sasl, main_job_by_sasl_and_tls, main_job_through_a_proxy, mistakes],
}

/// The login of the proxy.
const LOGIN: (&str, &str) = ("bob", "bob-secret");

async fn main_job_by_tls(kafka: &'static Kafka) {
    main_job(kafka, Wal::at(kafka, "SSL").tls()).await;
    main_job(kafka, Wal::at(kafka, "MTLS").tls().certificate(Certificates::shared().client())).await;
}

async fn main_job_by_sasl(kafka: &'static Kafka) {
    for mechanism in MECHANISMS {
        main_job(kafka, Wal::at(kafka, "SASL_PLAINTEXT").sasl(mechanism).option("--sasl-in-clear")).await;
    }
}

async fn main_job_by_sasl_and_tls(kafka: &'static Kafka) {
    for mechanism in MECHANISMS {
        main_job(kafka, Wal::at(kafka, "SASL_SSL").tls().sasl(mechanism)).await;
    }
}

/// TLS goes through the proxy, which finds out where `localhost` is.
async fn main_job_through_a_proxy(kafka: &'static Kafka) {
    for login in [None, Some(LOGIN)] {
        let proxy = Socks5::start(login);
        main_job(kafka, Wal::at(kafka, "SASL_SSL").tls().sasl("SCRAM-SHA-256").through(&proxy, login)).await;
    }
}

/// Appends, replays and verifies on topics of three replicas; then Kafka's own client says where each partition ends.
async fn main_job(kafka: &'static Kafka, wal: Wal) {
    const RECORDS: i64 = 100_000;
    const PARTITIONS: i32 = 4;
    let topic = kafka.topic_name("main-job");
    let what = wal.what.clone();
    let wal = wal.value("--records", &RECORDS.to_string()).value("--partitions", &PARTITIONS.to_string());
    let (output, took) = wal.value("--topic", &topic).option("--keep").run().await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{what}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = acknowledged(&said, &topic);
    assert_eq!(acknowledged.iter().sum::<i64>(), RECORDS, "{what}");
    for (partition, end) in (0..PARTITIONS).zip(acknowledged) {
        assert_eq!(kafka.java().offset(&topic, partition, "latest").await, end, "{what}");
    }
    let version = kafka.version().unwrap();
    kwal_tests::report(format_args!("{version}: the main job by {what} took {:.1} s", took.as_secs_f64()));
    kafka.java().delete_topic(&topic).await;
}

/// What can be wrong, and what the user is told: `mistakes.txt`, to be read by people. A change that is meant to alter it
/// writes it anew with `UPDATE_SNAPSHOT=1`.
async fn mistakes(kafka: &'static Kafka) {
    const TOLD: &str = include_str!("mistakes.txt");
    // One of them, so that it is known which one is told of.
    let at = |listener: &str| Wal::to(&kafka.cluster().unwrap().addresses(listener)[0]);
    let wrong = |wal: Wal| wal.variable("KAFKA_PASSWORD", "not-her-secret");
    let certificates = Certificates::shared();
    let proxy = Socks5::start(Some(LOGIN));
    let nowhere = format!("localhost:{}", free_port());
    let mut told = String::new();
    for (mistake, wal) in [
        ("a wrong password, by PLAIN", wrong(at("SASL_SSL").tls().sasl("PLAIN"))),
        ("a wrong password, by SCRAM-SHA-256", wrong(at("SASL_PLAINTEXT").sasl("SCRAM-SHA-256"))),
        ("a wrong password, by SCRAM-SHA-512", wrong(at("SASL_SSL").tls().sasl("SCRAM-SHA-512"))),
        ("an unknown user", at("SASL_SSL").tls().sasl("SCRAM-SHA-512").variable("KAFKA_USER", "mallory")),
        (
            "a token that has expired",
            at("SASL_SSL").tls().sasl("OAUTHBEARER").variable("KAFKA_TOKEN", &unsecured_token(USER, -3_600)),
        ),
        ("a password in the clear", at("SASL_PLAINTEXT").sasl("PLAIN")),
        ("a mechanism that the brokers do not offer", at("SCRAM").sasl("PLAIN").option("--sasl-in-clear")),
        ("no SASL where it is wanted", at("SASL_PLAINTEXT")),
        ("SASL where it is not", at("PLAINTEXT").sasl("SCRAM-SHA-256")),
        ("SASL without TLS, where both are wanted", at("SASL_SSL").sasl("SCRAM-SHA-256")),
        ("an authority that did not sign", at("SSL").tls_by(&certificates.other_authority())),
        ("an expired certificate", at("EXPIRED").tls()),
        ("a certificate of another host", at("WRONG_HOST").tls()),
        ("no client certificate where it is wanted", at("MTLS").tls()),
        ("a client certificate of another authority", at("MTLS").tls().certificate(certificates.stranger())),
        ("TLS to a port without", at("PLAINTEXT").tls()),
        ("no TLS to a port with it", at("SSL")),
        ("a port where nobody listens", Wal::to(&nowhere)),
        (
            "a wrong password for the proxy",
            at("SSL").tls().through(&proxy, Some((LOGIN.0, "not-his-secret"))),
        ),
        ("no password for the proxy", at("SSL").tls().through(&proxy, None)),
        ("a broker that the proxy cannot reach", Wal::to(&nowhere).tls().through(&proxy, Some(LOGIN))),
        ("a proxy that is not there", at("SSL").tls().value("--socks5", &nowhere)),
    ] {
        let broker = wal.addresses.clone();
        let (output, took) = wal.run().await;
        assert_eq!(output.status.code(), Some(1), "{mistake} is no mistake");
        let said = String::from_utf8(output.stderr).unwrap();
        for secret in [PASSWORD, "not-her-secret", LOGIN.1, "not-his-secret", "eyJ"] {
            assert!(!said.contains(secret), "{mistake}: {secret} is in {said}");
        }
        // The broker waits for 0.1 s before it tells that a login has failed; everything else here is said at once.
        assert!(took < Duration::from_secs(5), "{mistake}: {took:?} until {said}");
        let said = said.trim_end().replace(&proxy.address(), "PROXY");
        let _ = writeln!(told, "{mistake}\n    {}", same_at_every_run(said, &broker, &nowhere));
    }
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/mistakes.txt");
        std::fs::write(path, &told).unwrap();
        return;
    }
    for (now, before) in told.lines().zip(TOLD.lines()) {
        assert!(
            now == before,
            "mistakes.txt has\n{before}\nand of {} is told\n{now}",
            kafka.version().unwrap()
        );
    }
    assert_eq!(told.lines().count(), TOLD.lines().count(), "mistakes.txt has other mistakes");
}

/// Names in place of the ports, the time and the version that a broker speaks.
fn same_at_every_run(mut said: String, broker: &str, nowhere: &str) -> String {
    for (address, name) in [(nowhere, "NOWHERE"), (broker, "BROKER")] {
        let port = address.rsplit(':').next().unwrap();
        for host in ["localhost", "127.0.0.1"] {
            said = said.replace(&format!("{host}:{port}"), name);
        }
    }
    for version in ["12", "13"] {
        said = said.replace(&format!("Metadata version {version} "), "Metadata version N ");
    }
    if let Some((before, rest)) = said.split_once(", and it is ")
        && let Some((_, after)) = rest.split_once(" now)")
    {
        said = format!("{before}, and it is NOW){after}");
    }
    said
}

/// A run of the program.
struct Wal {
    command: Command,
    /// In a few words.
    what: String,
    /// Of the brokers.
    addresses: String,
}

impl Wal {
    fn at(kafka: &Kafka, listener: &str) -> Self {
        let mut wal = Self::to(&kafka.cluster().unwrap().addresses(listener).join(","));
        wal.what = listener.to_owned();
        wal
    }

    fn to(addresses: &str) -> Self {
        let mut command = Command::new(program_with_all_features());
        for name in ["KAFKA_USER", "KAFKA_PASSWORD", "KAFKA_TOKEN", "SOCKS5_USER", "SOCKS5_PASSWORD"] {
            command.env_remove(name);
        }
        command.env("KAFKA_CONNECT", addresses);
        Self { command, what: addresses.to_owned(), addresses: addresses.to_owned() }
    }

    fn tls(self) -> Self {
        self.tls_by(&Certificates::shared().authority())
    }

    fn tls_by(self, authority: &Path) -> Self {
        self.value("--tls-ca", authority.to_str().unwrap())
    }

    fn certificate(self, (chain, key): (impl AsRef<Path>, impl AsRef<Path>)) -> Self {
        self.value("--tls-cert", chain.as_ref().to_str().unwrap())
            .value("--tls-key", key.as_ref().to_str().unwrap())
    }

    fn sasl(mut self, mechanism: &str) -> Self {
        let _ = write!(self.what, " and {mechanism}");
        self.value("--sasl", mechanism)
            .variable("KAFKA_USER", USER)
            .variable("KAFKA_PASSWORD", PASSWORD)
            .variable("KAFKA_TOKEN", &unsecured_token(USER, 3_600))
    }

    fn through(mut self, proxy: &Socks5, login: Option<(&str, &str)>) -> Self {
        self.what += " through a proxy";
        let wal = self.value("--socks5", &proxy.address());
        let Some((user, password)) = login else { return wal };
        let mut wal = wal.variable("SOCKS5_USER", user).variable("SOCKS5_PASSWORD", password);
        wal.what += " with a login";
        wal
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn option(mut self, option: &str) -> Self {
        self.command.arg(option);
        self
    }

    fn value(self, option: &str, value: &str) -> Self {
        self.option(option).option(value)
    }

    async fn run(mut self) -> (Output, Duration) {
        let begun = Instant::now();
        let output = tokio::task::spawn_blocking(move || self.command.output()).await.unwrap().unwrap();
        (output, begun.elapsed())
    }
}
