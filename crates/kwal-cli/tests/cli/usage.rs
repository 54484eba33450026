//! Bad input of every kind: one clear line, and an exit code.

use kwal::record::Compression;

use crate::support::{World, end, kwal};

#[test]
fn one_clear_line() {
    let world = World::wal();
    world.cluster.create_topic("two", 2).unwrap();
    let codecs = Compression::ALL.into_iter().filter(|codec| codec.is_built_in());
    let codecs: Vec<_> = codecs.map(Compression::name).collect();
    let brotli = format!(
        "invalid value 'brotli' for '--compression <CODEC>': not in this build, which has {}; see --help",
        codecs.join(", ")
    );
    for (arguments, code, line) in [
        ("", 2, "no command; see --help"),
        ("nonsense", 2, "unrecognized subcommand 'nonsense'; see --help"),
        ("read", 2, "the following required arguments were not provided: <TOPIC>; see --help"),
        (
            "read wal --frm 3",
            2,
            "unexpected argument '--frm' found; a similar argument exists: '--from'; see --help",
        ),
        (
            "read wal --from soon",
            2,
            "invalid value 'soon' for '--from <PLACE>': neither earliest, latest, latest-N, an offset, a position nor a \
             time, such as 2026-03-01T00:00:00Z or @1700000000000; see --help",
        ),
        (
            "read wal --partition=-1",
            2,
            "invalid value '-1' for '--partition <N>': -1 is not in 0..=2147483647; see --help",
        ),
        ("read wal --with key --json", 2, "--with is for --format lines, the others have their own"),
        ("read two", 2, "topic two has 2 partitions: name one by --partition, 0 to 1"),
        ("append two", 2, "topic two has 2 partitions: name one by --partition, 0 to 1"),
        (
            "append wal --header x",
            2,
            "invalid value 'x' for '--header <KEY=VALUE>': write it as key=value; see --help",
        ),
        ("append wal --compression brotli", 2, &brotli),
        ("trim wal", 2, "the following required arguments were not provided: --before <OFFSET>; see --help"),
        (
            "trim wal --before yesterday",
            2,
            "invalid value 'yesterday' for '--before <OFFSET>': neither an offset nor high-watermark; see --help",
        ),
        (
            "topics create wal --set x",
            2,
            "invalid value 'x' for '--set <NAME=VALUE>': write it as name=value; see --help",
        ),
        (
            "offsets wal --at now",
            2,
            "invalid value 'now' for '--at <TIME>': no time: write it as 2026-03-01T00:00:00Z, or as @ and milliseconds since the epoch; see --help",
        ),
        ("inspect", 2, "the following required arguments were not provided: <TOPIC>; see --help"),
        ("inspect wal --file x", 2, "the argument '[TOPIC]' cannot be used with '--file <FILE>'; see --help"),
        (
            "inspect --file /nowhere/0.log",
            5,
            "/nowhere/0.log cannot be read: No such file or directory (os error 2)",
        ),
        (
            "topics list --config /nowhere",
            5,
            "config /nowhere cannot be read: No such file or directory (os error 2)",
        ),
        (
            "topics list --sasl PLAIN",
            2,
            "SASL PLAIN takes a user: by --user, or KAFKA_USER in the environment",
        ),
        ("topics list --user alice", 2, "--user, --password-file and --token-file take --sasl as well"),
        (
            "topics list --sasl PLAIN --user a --password-file /nowhere",
            5,
            "/nowhere cannot be read: No such file or directory (os error 2)",
        ),
        ("topics list --tls-cert x", 2, "--tls-cert takes --tls-ca as well"),
        (
            "topics list --timeout 0",
            2,
            "invalid value '0' for '--timeout <SECONDS>': 0 is not in 1..=86400; see --help",
        ),
        (
            "bench --record-size 0",
            2,
            "invalid value '0' for '--record-size <BYTES>': 0 is not in 1..=8388608; see --help",
        ),
    ] {
        let ended = world.run(arguments);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (code, format!("kwal: {line}\n").as_str()),
            "{arguments}"
        );
        assert_eq!(ended.text(), "", "{arguments}");
    }
}

#[test]
fn what_the_cluster_does_not_have_or_allow() {
    let world = World::wal();
    for (arguments, code, part) in [
        ("--brokers 127.0.0.1:1 topics list", 3, "127.0.0.1:1: Connection refused"),
        ("--brokers localhost topics list", 2, "\"localhost\" has no port"),
        ("read nothing --timeout 1", 3, "nothing"),
        ("read wal -p 7 --timeout 1", 3, "7"),
        ("read wal --from 17", 3, "17"),
        ("topics create no/name", 2, "no/name"),
        ("topics create x -p 0", 2, "0"),
        ("topics create x --set no.such=1", 3, "no.such"),
    ] {
        let ended = world.run(arguments);
        assert_eq!(ended.code, code, "{arguments}: {ended:?}");
        assert!(ended.stderr.contains(part), "{arguments}: {}", ended.stderr);
        assert!(ended.text().is_empty() && ended.stderr.starts_with("kwal: "), "{arguments}: {ended:?}");
    }
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
#[test]
fn a_build_without_tls_says_so() {
    let ended = end(kwal("topics list --tls-ca platform"), b"");
    let line = "kwal: TLS is not in this build: it takes cryptography, by cargo's --features tls-ring\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (2, line));
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
#[test]
fn tls_files_are_read_before_anything_is_connected() {
    let ended = end(kwal("topics list --tls-ca /nowhere/ca.pem"), b"");
    assert_eq!(ended.code, 5);
    assert!(
        ended.stderr.starts_with("kwal: TLS: the roots cannot be read from /nowhere/ca.pem"),
        "{}",
        ended.stderr
    );
}

#[cfg(not(feature = "transport-socks5"))]
#[test]
fn a_build_without_proxies_says_so() {
    let ended = end(kwal("topics list --socks5 localhost:1080"), b"");
    let line = "kwal: --socks5 is not in this build: it takes cargo's --features transport-socks5\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (2, line));
}
