//! The program on a terminal: progress, questions, Ctrl-C, and screens of all widths.

use std::{net::TcpListener, process::Stdio};

use kwal::{Client, Record, protocol::ApiKey};
use kwal_testkit::{EmbeddedCluster, Fault, FaultTarget};
use rustix::process::Signal;

use crate::{
    screen::{CTRL_C, CTRL_D, Left, Redirected, Terminal},
    support::{World, end, kwal},
};

/// A log of several fetches.
fn long_log() -> World {
    let world = World::wal();
    let value = "x".repeat(10_000);
    let lines: String = (0..1_000).map(|i| format!("{i} {value}\n")).collect();
    world.ok_with("append wal", lines.as_bytes());
    world
}

impl World {
    fn terminal(&self, arguments: &str, columns: u16) -> Terminal {
        Terminal::start(&self.kwal(arguments), columns)
    }

    /// The program at its end, on a terminal on which nobody types.
    fn on_terminal(&self, arguments: &str, columns: u16) -> Left {
        self.terminal(arguments, columns).end()
    }
}

#[test]
fn progress_is_on_a_terminal_only() {
    for columns in [40, 60, 120] {
        let world = long_log();
        // What comes after the first part of the log does not arrive.
        world.cluster.on_all(FaultTarget::api(ApiKey::FETCH).after(1), Fault::BlackHole);
        let mut verifying = world.terminal("verify wal", columns);
        // The end of the line: what is before it may come alone.
        let screen = verifying.wait_for(" left");
        println!("{screen}");
        assert_eq!(screen.contains(" of 1,000 offsets, "), columns == 120, "{screen}");
        assert!(screen.starts_with("wal/0 ") && screen.lines().count() == 1, "{screen}");
        verifying.press(CTRL_C);
        let left = verifying.end();
        println!("{}", left.screen);
        assert_eq!(left.code, 130, "{}", left.screen);
        let text = "kwal: interrupted; of partition 0, ";
        assert!(left.screen.lines().any(|line| line.starts_with(text)), "{}", left.screen);
    }
    let piped = long_log().run("verify wal");
    assert_eq!((piped.code, piped.stderr.as_str()), (0, ""));
}

#[test]
fn a_question_is_answered() {
    let question = "kwal: delete topic wal with 1 partition and all records? [y/N]";
    let nothing = "kwal: nothing was changed";
    for (keys, code, rest) in [
        ("y\n", 0, " y\ntopic wal was deleted".to_owned()),
        ("YES\n", 0, " YES\ntopic wal was deleted".to_owned()),
        ("n\n", 1, format!(" n\n{nothing}")),
        ("\n", 1, format!("\n{nothing}")),
        ("yesterday\n", 1, format!(" yesterday\n{nothing}")),
        (CTRL_D, 1, format!("\n{nothing}")),
        (CTRL_C, 130, " ^C\nkwal: interrupted".to_owned()),
    ] {
        let world = World::wal();
        let mut asking = world.terminal("topics delete wal", 80);
        asking.wait_for(question);
        asking.press(keys);
        let left = asking.end();
        assert_eq!((left.code, left.screen), (code, format!("{question}{rest}")), "{keys:?}");
        assert_eq!(world.cluster.topics().is_empty(), code == 0, "{keys:?}");
    }

    let world = World::wal();
    world.ok_with("append wal", b"a\nb\nc\n");
    let mut asking = world.terminal("trim wal --before 2 --json", 80);
    let question = asking.wait_for("kwal: delete offsets 0 to 1 of wal/0? [y/N]");
    asking.press("n\n");
    let left = asking.end();
    let json = r#"{"topic":"wal","partition":0,"log_start":0,"deleted":0}"#;
    assert_eq!((left.code, left.screen), (1, format!("{question} n\n{nothing}\n{json}")));
    let mut asking = world.terminal("trim wal --before 2", 80);
    asking.wait_for("[y/N]");
    asking.press("y\n");
    let left = asking.end();
    assert_eq!((left.code, left.screen.lines().last()), (0, Some("wal/0 begins at 2: 2 offsets removed")));
}

#[test]
fn a_question_that_nobody_sees_is_not_asked() {
    let world = World::wal();
    for redirected in [
        Redirected { stdin: Some(Stdio::null()), ..Redirected::default() },
        Redirected { stderr: Some(Stdio::null()), ..Redirected::default() },
    ] {
        let left = Terminal::start_with(&world.kwal("topics delete wal"), 80, redirected).end();
        assert_eq!(left.code, 2, "{}", left.screen);
        assert_eq!(world.cluster.topics(), ["wal"]);
    }
}

/// A topic with long configs, a holder, transactions and findings.
fn full() -> World {
    let world = World::start(EmbeddedCluster::builder().brokers(3).topic("a-write-ahead-log", 3));
    world.runtime.block_on(async {
        let client = Client::connect(world.cluster.bootstrap()).await.unwrap();
        let other = client.partition_client("a-write-ahead-log", 0).await.unwrap();
        other.produce(vec![Record::new("key", "x".repeat(1_000)); 1_000]).await.unwrap();
        let holder =
            client.partition_client("a-write-ahead-log", 0).exclusive("writer-of-eu-west-1").await.unwrap();
        holder.produce([Record::new("d", "4")]).await.unwrap();
        other.produce([Record::new("e", "5")]).await.unwrap();
    });
    world
}

#[test]
fn no_figure_is_cut() {
    let world = full();
    for arguments in [
        "topics list",
        "topics describe a-write-ahead-log",
        "offsets a-write-ahead-log --at 2026-03-01T00:00:00Z",
        "audit a-write-ahead-log",
        "holder a-write-ahead-log -p 0",
        "inspect a-write-ahead-log -p 0",
        "verify a-write-ahead-log -p 0",
    ] {
        let piped = world.run(arguments);
        for columns in [40, 80, 200] {
            let left = world.on_terminal(arguments, columns);
            println!("== {arguments}, {columns} columns\n{}", left.screen);
            assert_eq!(left.code, piped.code);
            let shown: Vec<_> = left.screen.split_whitespace().collect();
            let text = piped.text();
            // A finding is a line, which a terminal breaks anywhere.
            let lines = text.lines().filter(|line| !line.starts_with("partition 0, offset "));
            let mut words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
            // In a list, an empty cell has no name.
            words.retain(|word| *word != "OFFLINE");
            if arguments.starts_with("verify") {
                // The rate, which is another one each time.
                words.truncate(words.len() - 2);
            }
            for word in words {
                assert!(shown.contains(&word), "{word} is cut in {columns} columns:\n{}", left.screen);
            }
        }
    }
}

#[test]
fn ctrl_c_while_a_broker_says_nothing() {
    // It takes connections and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for arguments in [
        "topics list",
        "topics create x",
        "audit wal",
        "append wal",
        "read wal",
        "follow wal",
        "offsets wal",
        "trim wal --before 1",
        "inspect wal",
        "holder wal",
        "verify wal",
        "bench",
    ] {
        let mut command = kwal(arguments);
        command.env("KAFKA_CONNECT", &address);
        let mut connecting = Terminal::start(&command, 80);
        let (_connection, _) = silent.accept().unwrap();
        connecting.press(CTRL_C);
        let left = connecting.end();
        assert_eq!((left.code, left.screen.as_str()), (130, "^C\nkwal: interrupted"), "{arguments}");
    }
}

#[test]
fn ctrl_c_while_appends_are_in_flight() {
    let world = World::wal();
    let mut appending = world.terminal("append wal --offsets", 200);
    appending.wait_for("kwal: reading lines; Ctrl-D ends");
    appending.press("one\n");
    appending.wait_for("inputs 1: offsets 0");
    world.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    let before = world.cluster.requests(ApiKey::PRODUCE);
    appending.press("two\n");
    world.wait_for(|cluster| cluster.requests(ApiKey::PRODUCE) > before);
    appending.press(CTRL_C);
    appending.wait_for("kwal: waiting for 1 batch in flight; Ctrl-C again leaves that in doubt");
    appending.press(CTRL_C);
    let left = appending.end();
    println!("{}", left.screen);
    assert_eq!(left.code, 4, "{}", left.screen);
    for text in [
        "kwal: warning: on the log: inputs 1\n",
        "kwal: warning: in doubt: inputs 2\n",
        "`kwal inspect wal -p 0 --from 0`",
        "kwal: warning: 2 inputs were read\nkwal: interrupted",
    ] {
        assert!(left.screen.contains(text), "{text}:\n{}", left.screen);
    }
}

#[test]
fn ctrl_c_while_reading() {
    let world = World::wal();
    world.ok_with("append wal", b"a\nb\n");
    let id = world.cluster.topic_id("wal").unwrap();
    for arguments in ["follow wal --from earliest", "read wal"] {
        if arguments.starts_with("read") {
            world.cluster.on_all(ApiKey::FETCH, Fault::BlackHole);
        }
        let before = world.cluster.requests(ApiKey::FETCH);
        let mut reading = world.terminal(arguments, 80);
        let (shown, count) = if arguments.starts_with("read") {
            world.wait_for(|cluster| cluster.requests(ApiKey::FETCH) > before);
            ("", "0 records")
        } else {
            reading.wait_for("a\nb");
            ("a\nb\n", "2 records")
        };
        reading.press(CTRL_C);
        let left = reading.end();
        let offset = if shown.is_empty() { "-:0" } else { "0:2" };
        let rest = format!("kwal: {count}; go on with --from {id}:{offset}\nkwal: interrupted");
        assert_eq!((left.code, left.screen), (130, format!("{shown}^C\n{rest}")), "{arguments}");
    }
}

#[test]
fn ctrl_c_ends_a_benchmark_early_and_keeps_its_figures() {
    let world = World::start(EmbeddedCluster::builder());
    let mut measuring = world.terminal("bench --seconds 60", 120);
    measuring.wait_for("of 60 s");
    measuring.press(CTRL_C);
    let left = measuring.end();
    println!("{}", left.screen);
    assert_eq!(left.code, 130);
    assert!(left.screen.contains("\nappend "), "{}", left.screen);
    assert!(left.screen.ends_with("kwal: interrupted; measured was what came before"), "{}", left.screen);
    assert!(world.cluster.topics().is_empty(), "its topic is deleted");

    // Neither its appends nor the deletion of its topic come to an end.
    world.cluster.on_all(ApiKey::PRODUCE, Fault::BlackHole);
    world.cluster.on_all(ApiKey::DELETE_TOPICS, Fault::BlackHole);
    let before = world.cluster.requests(ApiKey::PRODUCE);
    let mut measuring = world.terminal("bench --seconds 60 --topic measured", 120);
    world.wait_for(|cluster| cluster.requests(ApiKey::PRODUCE) > before);
    measuring.press(CTRL_C);
    measuring.wait_for("kwal: waiting for 5 batches in flight; Ctrl-C again does not wait");
    measuring.press(CTRL_C);
    let left = measuring.end();
    println!("{}", left.screen);
    assert_eq!(left.code, 130);
    assert!(left.screen.contains("`kwal topics delete measured`"), "{}", left.screen);
}

#[test]
fn a_signal_from_elsewhere_is_like_ctrl_c() {
    let world = long_log();
    world.cluster.on_all(ApiKey::FETCH, Fault::BlackHole);
    for arguments in ["inspect wal", "holder wal", "verify wal"] {
        let before = world.cluster.requests(ApiKey::FETCH);
        let running = world.spawn(arguments);
        world.wait_for(|cluster| cluster.requests(ApiKey::FETCH) > before);
        running.signal(Signal::TERM);
        let ended = running.end();
        assert_eq!(ended.code, 130, "{arguments}: {ended:?}");
        assert!(ended.stderr.lines().last().unwrap().starts_with("kwal: interrupted"), "{}", ended.stderr);
    }
    assert_eq!(end(world.kwal("topics list"), b"").code, 0);
}
