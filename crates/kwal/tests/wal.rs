//! The example `wal` as a user runs it.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::{
    env::{consts::EXE_SUFFIX, current_exe},
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

use kwal::record::Compression;

/// Runs the program on the embedded broker, and returns its report: everything is appended, over all
/// partitions.
#[track_caller]
fn report(arguments: &str, more: &[&str], partitions: usize, records: u64) -> String {
    let output = wal(None, arguments.split(' ').chain(more.iter().copied()));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let ends = ends(&report);
    assert_eq!((ends.len(), ends.iter().sum::<u64>()), (partitions, records), "{report}");
    assert!(ends.iter().all(|end| end.abs_diff(records / partitions as u64) <= 1), "{report}");
    report
}

#[test]
fn does_the_main_job_on_the_embedded_broker() {
    for (records, size, partitions, more) in
        [(1_000, 100, 3, &[][..]), (20, 300_000, 1, &["--batch", "1"]), (2, 12, 4, &["--keep"])]
    {
        let arguments =
            format!("--records {records} --size {size} --partitions {partitions} --topic the-wal");
        let report = report(&arguments, more, partitions, records);
        assert!(report.contains("verified count, order and every byte"), "{report}");
        // "…, max 1.234 ms (…"
        assert!(number(&report, "max ") > 0.01, "{report}");
    }
}

#[test]
fn many_writers_do_the_main_job_one_record_at_a_time() {
    for (records, size, writers, partitions, more) in [
        (4_000, 100, 50, 3, &["--partitions", "3"][..]),
        (4_000, 400, 200, 4, &[]),
        // Each goes alone.
        (40, 1_200_000, 8, 2, &["--partitions", "2"]),
        // Some have nothing to do.
        (5, 12, 9, 4, &[]),
        (300, 100, 1, 1, &[]),
        (7, 100, 2, 2, &["--keep"]),
    ] {
        let arguments = format!("--records {records} --size {size} --writers {writers} --topic the-wal");
        let report = report(&arguments, more, partitions, records);
        let verified = "verified each writer's count, order, acknowledged offsets and every byte";
        assert!(report.contains(verified), "{report}");
        assert!(report.contains(" appends of one record by "), "{report}");
        assert!(number(&report, "max ") > 0.01, "{report}");
        // "batches  1,358 of 14.7 records on average, at most 16; …"
        let batches = number(&report, "batches  ");
        let (_, rest) = report.split_once("batches  ").unwrap();
        let all = batches * number(rest, " of ");
        assert!((all - records as f64).abs() <= records as f64 / 20.0, "{report}");
        let gathers = writers > partitions && size < 1_000_000 && records > 100;
        assert_eq!(batches < records as f64 / 2.0, gathers, "{report}");
        assert!(number(rest, "on the wire for ") > 0.0, "{report}");
    }
}

#[test]
fn compresses() {
    for codec in Compression::ALL.into_iter().filter(|codec| codec.is_built_in()) {
        for more in [&[][..], &["--writers", "200"]] {
            let arguments = ["--records", "5000", "--size", "400", "--compression", codec.name()];
            let output = wal(None, arguments.into_iter().chain(more.iter().copied()));
            let report = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // "…; 2.0 MB of values, 1.2 MB on the wire"
            let wire = number(&report, "MB of values, ");
            assert_eq!(wire < 1.5, codec != Compression::None, "{report}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_command_line_is_told_in_a_line() {
    for (arguments, told) in [
        (&["--record", "5"][..], "--record"),
        (&["more"], "more"),
        (&["--records"], "--records"),
        (&["--records", "many"], "--records \"many\" is not a whole number from 1"),
        (&["--size", "11"], "--size \"11\" is not a whole number from 12"),
        (&["--partitions", "0"], "--partitions \"0\" is not a whole number from 1"),
        (&["--compression", "lzma"], "--compression \"lzma\" is not in this build, which has none"),
        (&["--keep=yes"], "--keep"),
        (&["--replicas", "0"], "--replicas \"0\" is not a whole number from 1"),
        (&["--writers", "0"], "--writers \"0\" is not a whole number from 1"),
        (&["--writers", "100001"], "--writers \"100001\" is not a whole number from 1 to 100000"),
        (&["--writers"], "--writers"),
        (&["--writers", "8", "--batch", "100"], "--batch is not for --writers, whose records are gathered"),
        (
            &["--partitions", "3", "--writers", "2"],
            "--writers 2 are too few for --partitions 3: each appends to one",
        ),
        (&["--sasl"], "--sasl"),
        // The embedded broker has none of these.
        (&["--tls-ca", "webpki"], "KAFKA_CONNECT, which is not set"),
        (&["--socks5", "localhost:1080"], "KAFKA_CONNECT, which is not set"),
    ] {
        let line = fails(2, &wal(None, arguments.iter().copied()));
        assert!(line.contains(told) && line.ends_with("--help lists the options"), "{line}");
    }
}

/// Other members of the workspace may add codecs to the build, so the features of this crate do not decide.
#[test]
fn a_codec_that_is_not_built_in_is_refused_in_a_line() {
    for codec in Compression::ALL {
        let output = wal(None, ["--records", "5", "--compression", codec.name()]);
        if codec.is_built_in() {
            assert!(output.status.success(), "{codec:?}: {}", String::from_utf8_lossy(&output.stderr));
        } else {
            let line = fails(2, &output);
            let told = format!("--compression {:?} is not in this build, which has none", codec.name());
            assert!(line.contains(&told), "{line}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_way_in_is_told_in_a_line() {
    for (arguments, told) in [
        (&["--sasl", "KERBEROS"][..], "--sasl \"KERBEROS\" is none of PLAIN"),
        (&["--sasl", "PLAIN"], "--sasl PLAIN takes KAFKA_USER in the environment"),
        (&["--sasl", "OAUTHBEARER"], "--sasl OAUTHBEARER takes KAFKA_TOKEN in the environment"),
        (&["--tls-key", "key.pem"], "--tls-cert and --tls-key take --tls-ca as well"),
        #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
        (
            &["--tls-ca", "webpki"],
            "--tls-ca is not in this build: it takes cryptography, by cargo's --features tls-ring",
        ),
        #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
        (&["--tls-ca", "webpki", "--tls-key", "key.pem"], "--tls-key takes --tls-cert as well"),
        #[cfg(not(feature = "transport-socks5"))]
        (
            &["--socks5", "localhost:1080"],
            "--socks5 is not in this build: it takes cargo's --features transport-socks5",
        ),
        #[cfg(feature = "transport-socks5")]
        (&["--socks5", "localhost"], "--socks5: \"localhost\" has no port"),
    ] {
        let line = fails(2, &wal(Some("localhost:9092"), arguments.iter().copied()));
        assert!(line.contains(told) && line.ends_with("--help lists the options"), "{line}");
    }
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    {
        let line = fails(1, &wal(Some("localhost:9092"), ["--tls-ca", "/nowhere/ca.pem"]));
        assert!(line.contains("/nowhere/ca.pem: check the path given to"), "{line}");
        assert!(line.contains(": No such file"), "{line}");
    }
}

#[test]
fn help_lists_every_option() {
    let output = wal(None, ["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for option in [
        "--records",
        "--size",
        "--partitions",
        "--compression",
        "--batch",
        "--writers",
        "--topic",
        "--replicas",
        "--keep",
        "--tls-ca",
        "--tls-cert",
        "--tls-key",
        "--sasl ",
        "--sasl-in-clear",
        "--socks5",
        "KAFKA_CONNECT",
    ] {
        assert!(help.contains(option), "{option}: {help}");
    }
}

#[test]
fn a_wrong_address_is_told_in_a_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (address, told) in [
        (&*free, &*format!("{free}: Connection refused")),
        ("localhost", "\"localhost\" has no port"),
        ("http://localhost:9092", "starts with a scheme"),
        ("no-such-host.invalid:9092", "no-such-host.invalid"),
        ("localhost:9092,", "has no"),
    ] {
        let line = fails(1, &wal(Some(address), ["--records", "1"]));
        assert!(line.starts_with("wal: cannot use the brokers of KAFKA_CONNECT: "), "{line}");
        assert!(line.contains(told), "{line}");
    }
}

#[test]
fn a_port_that_is_not_kafka_is_told_in_a_line() {
    for (answer, told) in
        [("HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"), ("", "Kafka"), ("220 mail ESMTP\r\n", "220 mail")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // It ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 100]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let line = fails(1, &wal(Some(&address), ["--records", "1"]));
        assert!(line.contains(told) && line.contains(&address), "{line}");
    }
}

/// It says so before anything can interrupt it.
#[tokio::test]
async fn a_topic_that_ctrl_c_leaves_behind_is_told_in_a_line() {
    use std::{
        io::{BufRead as _, BufReader},
        process::Stdio,
    };
    let broker = kwal_testkit::EmbeddedCluster::builder().start().await.unwrap();
    let arguments = ["--records", "1000000000", "--topic", "interrupted", "--replicas", "1"];
    let mut program = command(Some(&broker.bootstrap()[0]), arguments);
    let mut child = program.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let told = tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        let read = BufReader::new(child.stderr.take().unwrap()).read_line(&mut told);
        // Not by the signal of Ctrl-C, which the program does not handle: a test in the background inherits
        // that it is ignored.
        child.kill().unwrap();
        child.wait().unwrap();
        read.map(|_| told).unwrap()
    });
    assert_eq!(told.await.unwrap(), "wal: topic interrupted is deleted at the end; after Ctrl-C it stays\n");
    assert_eq!(broker.topics(), ["interrupted"]);
    // Without an interruption nothing stays.
    let arguments = ["--records", "10", "--topic", "deleted", "--replicas", "1"];
    let mut program = command(Some(&broker.bootstrap()[0]), arguments);
    let output = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(broker.topics(), ["interrupted"]);
}

/// The brokers of the environment do as well as the embedded one.
#[tokio::test]
async fn many_writers_append_to_the_brokers_of_kafka_connect() {
    let broker = kwal_testkit::EmbeddedCluster::builder().brokers(3).start().await.unwrap();
    let arguments =
        "--records 2000 --writers 20 --partitions 3 --replicas 3 --topic written --keep".split(' ');
    let mut program = command(Some(&broker.bootstrap().join(",")), arguments);
    let output = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts = (0..3).map(|partition| broker.records("written", partition).unwrap().len());
    assert!(counts.eq([667, 667, 666]));
}

/// The end offsets of the partitions of `the-wal`.
fn ends(report: &str) -> Vec<u64> {
    let end = |line: &str| line.strip_prefix("the-wal:")?.split(':').nth(1)?.parse().ok();
    report.lines().filter_map(end).collect()
}

/// The number after a text.
fn number(report: &str, text: &str) -> f64 {
    let (_, rest) = report.split_once(text).unwrap_or_else(|| panic!("{text:?}: {report}"));
    let digits = rest.chars().take_while(|found| found.is_ascii_digit() || ",.".contains(*found));
    let digits: String = digits.filter(|found| *found != ',').collect();
    digits.parse().unwrap_or_else(|_| panic!("{text:?}: {report}"))
}

/// The one line that it says on its way out.
fn fails(code: i32, output: &Output) -> String {
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.starts_with("wal: ") && told.ends_with('\n') && told.lines().count() == 1, "{told}");
    assert!(output.stdout.is_empty());
    told.trim_end().to_owned()
}

fn wal<'a>(kafka: Option<&str>, arguments: impl IntoIterator<Item = &'a str>) -> Output {
    command(kafka, arguments).output().unwrap()
}

fn command<'a>(kafka: Option<&str>, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    // Cargo builds the examples before it runs the tests, but names them nowhere.
    let mut program = current_exe().unwrap();
    program.pop();
    program.pop();
    program.push(format!("examples/wal{EXE_SUFFIX}"));
    assert!(program.exists(), "{} is not built: run `cargo test -p kwal` as a whole", program.display());
    let mut command = Command::new(program);
    command.args(arguments);
    for name in
        ["KAFKA_CONNECT", "KAFKA_USER", "KAFKA_PASSWORD", "KAFKA_TOKEN", "SOCKS5_USER", "SOCKS5_PASSWORD"]
    {
        command.env_remove(name);
    }
    if let Some(address) = kafka {
        command.env("KAFKA_CONNECT", address);
    }
    command
}
