//! Every kind of listener of three real brokers, and common mistakes, with the program `examples/wal.rs`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use kwal_tests::kafka::{Certificates, Kafka, MECHANISMS, PASSWORD, USER, free_port, unsecured_token};
use kwal_tests::socks5::Socks5;
use tokio::time::Instant;

use crate::program::{acknowledged, program_with_all_features};

kwal_tests::suite! {
    secured: [wal_by_tls, wal_by_sasl, wal_by_sasl_and_tls, wal_through_a_proxy, mistakes],
}

/// User and password of the proxy.
const LOGIN: (&str, &str) = ("bob", "bob-secret");

async fn wal_by_tls(kafka: &'static Kafka) {
    run_wal(kafka, Wal::at(kafka, "SSL").tls()).await;
    run_wal(kafka, Wal::at(kafka, "MTLS").tls().certificate(Certificates::shared().client())).await;
}

async fn wal_by_sasl(kafka: &'static Kafka) {
    for mechanism in MECHANISMS {
        run_wal(kafka, Wal::at(kafka, "SASL_PLAINTEXT").sasl(mechanism).option("--sasl-in-clear")).await;
    }
}

async fn wal_by_sasl_and_tls(kafka: &'static Kafka) {
    for mechanism in MECHANISMS {
        run_wal(kafka, Wal::at(kafka, "SASL_SSL").tls().sasl(mechanism)).await;
    }
}

/// TLS through the proxy, which resolves `localhost`.
async fn wal_through_a_proxy(kafka: &'static Kafka) {
    for login in [None, Some(LOGIN)] {
        let proxy = Socks5::start(login);
        run_wal(kafka, Wal::at(kafka, "SASL_SSL").tls().sasl("SCRAM-SHA-256").through(&proxy, login)).await;
    }
}

/// Appends, replays and verifies with three replicas; then checks the end of each partition with Kafka's
/// client.
async fn run_wal(kafka: &'static Kafka, wal: Wal) {
    const RECORDS: i64 = 100_000;
    const PARTITIONS: i32 = 4;
    let topic = kafka.topic_name("wal");
    let description = wal.description.clone();
    let wal = wal.value("--records", &RECORDS.to_string()).value("--partitions", &PARTITIONS.to_string());
    let (output, took) = wal.value("--topic", &topic).option("--keep").run().await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{description}: {printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = acknowledged(&printed, &topic);
    assert_eq!(acknowledged.iter().sum::<i64>(), RECORDS, "{description}");
    for (partition, end) in (0..PARTITIONS).zip(acknowledged) {
        assert_eq!(kafka.java().offset(&topic, partition, "latest").await, end, "{description}");
    }
    let version = kafka.version().unwrap();
    kwal_tests::report(format_args!("{version}: wal with {description} took {:.1} s", took.as_secs_f64()));
    kafka.java().delete_topic(&topic).await;
}

/// Common mistakes and the error of each, recorded in `mistakes.txt` for review. `UPDATE_SNAPSHOT=1` records
/// it again after an intended change.
async fn mistakes(kafka: &'static Kafka) {
    const RECORDED: &str = include_str!("mistakes.txt");
    // A single broker, so that the error names a known one.
    let at = |listener: &str| Wal::to(&kafka.cluster().unwrap().addresses(listener)[0]);
    let wrong = |wal: Wal| wal.variable("KAFKA_PASSWORD", "not-her-secret");
    let certificates = Certificates::shared();
    let proxy = Socks5::start(Some(LOGIN));
    let nowhere = format!("localhost:{}", free_port());
    let mut recorded = String::new();
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
        (
            "a mechanism that the listener does not support",
            at("SCRAM").sasl("PLAIN").option("--sasl-in-clear"),
        ),
        ("no SASL where it is required", at("SASL_PLAINTEXT")),
        ("SASL where it is not supported", at("PLAINTEXT").sasl("SCRAM-SHA-256")),
        ("SASL without TLS where both are required", at("SASL_SSL").sasl("SCRAM-SHA-256")),
        (
            "an authority that did not issue the certificate",
            at("SSL").tls_by(&certificates.other_authority()),
        ),
        ("an expired certificate", at("EXPIRED").tls()),
        ("a certificate of another host", at("WRONG_HOST").tls()),
        ("no client certificate where it is required", at("MTLS").tls()),
        (
            "a client certificate of another authority",
            at("MTLS").tls().certificate(certificates.untrusted_client()),
        ),
        ("TLS to a listener without TLS", at("PLAINTEXT").tls()),
        ("no TLS to a listener with TLS", at("SSL")),
        ("a closed port", Wal::to(&nowhere)),
        (
            "a wrong password for the proxy",
            at("SSL").tls().through(&proxy, Some((LOGIN.0, "not-his-secret"))),
        ),
        ("no password for the proxy", at("SSL").tls().through(&proxy, None)),
        ("a broker that the proxy cannot reach", Wal::to(&nowhere).tls().through(&proxy, Some(LOGIN))),
        ("a closed port of the proxy", at("SSL").tls().value("--socks5", &nowhere)),
    ] {
        let broker = wal.addresses.clone();
        let (output, took) = wal.run().await;
        assert_eq!(output.status.code(), Some(1), "{mistake} is not rejected");
        let error = String::from_utf8(output.stderr).unwrap();
        for secret in [PASSWORD, "not-her-secret", LOGIN.1, "not-his-secret", "eyJ"] {
            assert!(!error.contains(secret), "{mistake}: {secret} is in {error}");
        }
        // The broker delays the response to a failed login by 0.1 s. All other errors are immediate.
        assert!(took < Duration::from_secs(5), "{mistake}: {took:?} until {error}");
        let error = error.trim_end().replace(&proxy.address(), "PROXY");
        let _ = writeln!(recorded, "{mistake}\n    {}", normalized(error, &broker, &nowhere));
    }
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/mistakes.txt");
        std::fs::write(path, &recorded).unwrap();
        return;
    }
    for (now, before) in recorded.lines().zip(RECORDED.lines()) {
        assert!(
            now == before,
            "mistakes.txt has\n{before}\nbut the error of {} is\n{now}",
            kafka.version().unwrap()
        );
    }
    assert_eq!(
        recorded.lines().count(),
        RECORDED.lines().count(),
        "mistakes.txt has another number of lines"
    );
}

/// Replaces what differs between runs: addresses, times and the versions of brokers.
fn normalized(mut error: String, broker: &str, nowhere: &str) -> String {
    for (address, name) in [(nowhere, "NOWHERE"), (broker, "BROKER")] {
        let port = address.rsplit(':').next().unwrap();
        for host in ["localhost", "127.0.0.1"] {
            error = error.replace(&format!("{host}:{port}"), name);
        }
    }
    for version in ["12", "13"] {
        error = error.replace(&format!("Metadata version {version}:"), "Metadata version N:");
    }
    if let Some((before, rest)) = error.split_once(", and it is ")
        && let Some((_, after)) = rest.split_once(" now)")
    {
        error = format!("{before}, and it is NOW){after}");
    }
    error
}

/// A run of the program.
struct Wal {
    command: Command,
    /// For reports.
    description: String,
    /// The addresses of the brokers.
    addresses: String,
}

impl Wal {
    fn at(kafka: &Kafka, listener: &str) -> Self {
        let mut wal = Self::to(&kafka.cluster().unwrap().addresses(listener).join(","));
        wal.description = listener.to_owned();
        wal
    }

    fn to(addresses: &str) -> Self {
        let mut command = Command::new(program_with_all_features("wal"));
        for name in ["KAFKA_USER", "KAFKA_PASSWORD", "KAFKA_TOKEN", "SOCKS5_USER", "SOCKS5_PASSWORD"] {
            command.env_remove(name);
        }
        command.env("KAFKA_CONNECT", addresses);
        Self { command, description: addresses.to_owned(), addresses: addresses.to_owned() }
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
        let _ = write!(self.description, " and {mechanism}");
        self.value("--sasl", mechanism)
            .variable("KAFKA_USER", USER)
            .variable("KAFKA_PASSWORD", PASSWORD)
            .variable("KAFKA_TOKEN", &unsecured_token(USER, 3_600))
    }

    fn through(mut self, proxy: &Socks5, login: Option<(&str, &str)>) -> Self {
        self.description += " through a proxy";
        let wal = self.value("--socks5", &proxy.address());
        let Some((user, password)) = login else { return wal };
        let mut wal = wal.variable("SOCKS5_USER", user).variable("SOCKS5_PASSWORD", password);
        wal.description += " with a login";
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
