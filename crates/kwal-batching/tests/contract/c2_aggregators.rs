//! C2: inputs that are not records: each gets its own result back, and one that fails hurts only itself.

use std::{
    error::Error as StdError,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use kwal_batching::producer::{Aggregator, BatchProducer, Sink};
use kwal_client::{
    Limits, PartitionClient,
    error::{Error, ErrorKind, Outcome},
};
use kwal_protocol::{api::ApiKey, error_code::ErrorCode};
use kwal_testkit::{EmbeddedCluster, Fault};

use crate::support::{Rng, broker, builder, open_warm, record, settle, values};

/// What becomes of an input.
#[derive(Clone, Debug)]
enum Input {
    /// A record of its own.
    Record(String),
    /// So many records.
    Several(String, usize),
    /// A part of a record that others are in as well.
    Packed(String),
    /// It ends the record that others have begun, with its own part.
    Last(String),
    /// It does some of these things, and fails.
    Fails(Box<Self>),
    Panics(Box<Self>),
    /// It makes no record.
    Nothing,
}

/// Text joined by `|`. The tag of a packed input is the index of its part.
struct Joined;

impl Aggregator for Joined {
    type Input = Input;
    type Tag = usize;

    fn size_hint(&self, input: &Input) -> usize {
        match input {
            Input::Record(value) | Input::Packed(value) | Input::Last(value) => value.len() + 36,
            // It may be wrong.
            Input::Several(value, _) => value.len(),
            Input::Fails(input) | Input::Panics(input) => self.size_hint(input),
            Input::Nothing => 0,
        }
    }

    fn add(&self, input: &Input, sink: &mut Sink<'_>) -> Result<usize, Box<dyn StdError + Send + Sync>> {
        match input {
            Input::Record(value) => sink.push(&record(value.clone()))?,
            Input::Several(value, count) => {
                for index in 0..*count {
                    sink.push(&record(format!("{value}/{index}")))?;
                }
            }
            Input::Packed(value) | Input::Last(value) => {
                let packed = sink.packed();
                let index = packed.iter().filter(|byte| **byte == b'|').count();
                packed.extend_from_slice(value.as_bytes());
                packed.push(b'|');
                if let Input::Last(_) = input {
                    sink.end_packed();
                }
                return Ok(index);
            }
            Input::Fails(input) => {
                self.add(input, sink)?;
                return Err("it fails".into());
            }
            Input::Panics(input) => {
                self.add(input, sink)?;
                std::panic::resume_unwind(Box::new("it panics"));
            }
            Input::Nothing => {}
        }
        Ok(0)
    }
}

async fn open_joined(broker: &EmbeddedCluster) -> (PartitionClient, BatchProducer<Joined>) {
    let (_wire, _client, partition) = open_warm(broker).await;
    let producer = BatchProducer::builder(partition.clone()).aggregator(Joined).build();
    (partition, producer)
}

fn text(value: &str) -> String {
    value.to_owned()
}

/// Hands inputs over while another one is in flight, so that they are one batch.
async fn together(
    broker: &EmbeddedCluster,
    producer: &BatchProducer<Joined>,
    inputs: &[Input],
) -> Vec<Result<kwal_batching::producer::Appended<usize>, Error>> {
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let first = producer.reserve().await.unwrap().send(Input::Record(text("first")));
    let mut acks = Vec::new();
    for input in inputs {
        acks.push(producer.reserve().await.unwrap().send(input));
    }
    first.await.unwrap();
    join_all(acks).await
}

#[tokio::test(start_paused = true)]
async fn each_input_gets_its_own_result() {
    let broker = broker();
    let (_partition, producer) = open_joined(&broker).await;
    let inputs = [
        Input::Record(text("a")),
        Input::Packed(text("b")),
        Input::Packed(text("c")),
        Input::Several(text("d"), 3),
        Input::Packed(text("e")),
        Input::Last(text("f")),
        Input::Packed(text("g")),
        Input::Record(text("h")),
        Input::Packed(text("i")),
    ];
    let results = together(&broker, &producer, &inputs).await;
    let found: Vec<_> = results
        .into_iter()
        .map(|result| {
            result.map(|appended| (appended.offset.unwrap(), appended.records, appended.tag)).unwrap()
        })
        .collect();
    // Behind what warmed up and the first one.
    let expected =
        [(2, 1, 0), (3, 1, 0), (3, 1, 1), (4, 3, 0), (7, 1, 0), (7, 1, 1), (8, 1, 0), (9, 1, 0), (10, 1, 0)];
    assert_eq!(found, expected);
    let expected = ["warm", "first", "a", "b|c|", "d/0", "d/1", "d/2", "e|f|", "g|", "h", "i|"];
    assert_eq!(values(&broker), expected);
    let stats = producer.stats();
    assert_eq!((stats.appended, stats.batches, stats.records), (10, 2, 10));
}

#[tokio::test(start_paused = true)]
async fn an_input_that_fails_hurts_only_itself() {
    let broker = broker();
    let (partition, producer) = open_joined(&broker).await;
    let bad = || {
        let inner = [
            Input::Record(text("bad")),
            Input::Several(text("bad"), 2),
            Input::Packed(text("bad")),
            Input::Last(text("bad")),
        ];
        inner.map(|input| Input::Fails(Box::new(input))).into_iter().chain([Input::Nothing])
    };
    let good = [Input::Packed(text("a")), Input::Record(text("b")), Input::Packed(text("c"))];
    // Also as the first one of a batch, and as the only one.
    let inputs: Vec<_> =
        bad().chain(good.into_iter().flat_map(|input| [input].into_iter().chain(bad()))).collect();
    let results = together(&broker, &producer, &inputs).await;
    let (mut appended, mut failed) = (Vec::new(), 0);
    for result in results {
        match result {
            Ok(result) => appended.push(result.offset.unwrap()),
            Err(error) => {
                let ErrorKind::InvalidInput { reason, .. } = error.kind() else { panic!("{error:?}") };
                assert!(reason.contains("it fails") || reason.contains("no record"), "{error}");
                assert_eq!(error.outcome(), Outcome::NotApplied);
                failed += 1;
            }
        }
    }
    assert_eq!((appended, failed), (vec![2, 3, 4], 20));
    for input in bad() {
        producer.produce(&input).await.unwrap_err();
    }
    settle().await;
    producer.produce(Input::Record(text("d"))).await.unwrap();
    assert_eq!(values(&broker), ["warm", "first", "a|", "b", "c|", "d"]);
    let stats = producer.stats();
    // They were not accepted.
    assert_eq!((stats.appended, stats.failed, stats.in_flight, stats.gathering), (5, 0, 0, 0));
    drop(partition);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_panics_hurts_only_itself() {
    let broker = broker();
    let client = builder(&broker).limits(Limits::default().memory(64 << 10)).build().await.unwrap();
    let partition = client.partition_client("wal", 0).await.unwrap();
    let producer = BatchProducer::builder(partition.clone()).aggregator(Joined).build();
    let panics = |input: Input| Input::Panics(Box::new(input));
    // As the first one of a batch.
    for bad in [Input::Record(text("bad")), Input::Packed(text("bad"))] {
        let panic = AssertUnwindSafe(producer.produce(panics(bad))).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"it panics"));
    }
    assert_eq!(producer.produce(Input::Record(text("a"))).await.unwrap().offset, Some(0));
    // Among others.
    broker.on(ApiKey::PRODUCE, Fault::DelayReply(Duration::from_secs(1)));
    let mut acks = Vec::new();
    for value in 0..10 {
        acks.push(producer.reserve().await.unwrap().send(Input::Packed(value.to_string())));
        for bad in [Input::Several(text("bad"), 2), Input::Last(text("bad"))] {
            let slot = producer.reserve().await.unwrap();
            let sent = std::panic::catch_unwind(AssertUnwindSafe(|| slot.send(panics(bad))));
            assert!(sent.is_err());
        }
    }
    for (index, ack) in acks.into_iter().enumerate() {
        let appended = ack.await.unwrap();
        // The first one went alone.
        assert_eq!(
            (appended.offset, appended.tag),
            (Some(1 + i64::from(index > 0)), index.saturating_sub(1))
        );
    }
    assert_eq!(values(&broker), ["a", "0|", "1|2|3|4|5|6|7|8|9|"]);
    // One that waits for its turn does not keep it.
    let all = partition.reserve(48 << 10).await.unwrap();
    let bad = AssertUnwindSafe(producer.produce(panics(Input::Record(text("bad"))))).catch_unwind();
    let good = producer.produce(Input::Record(text("b")));
    let release = async {
        settle().await;
        drop(all);
    };
    let (bad, good, ()) = futures::future::join3(bad, good, release).await;
    assert_eq!((bad.is_err(), good.unwrap().offset), (true, Some(3)));
    assert_eq!(producer.stats().waiting, 0);
    drop(partition.try_reserve(48 << 10).expect("the memory is free"));
}

/// An error of the client is returned as it is.
#[tokio::test(start_paused = true)]
async fn the_error_of_a_record_is_returned_as_it_is() {
    struct Old;
    impl Aggregator for Old {
        type Input = str;
        type Tag = ();

        fn size_hint(&self, _: &str) -> usize {
            0
        }

        fn add(&self, value: &str, sink: &mut Sink<'_>) -> Result<(), Box<dyn StdError + Send + Sync>> {
            sink.push(&record(value))?;
            let mut old = record(value);
            old.timestamp = time::OffsetDateTime::from_unix_timestamp(-1)?;
            Ok(sink.push(&old)?)
        }
    }
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let producer = BatchProducer::builder(partition).aggregator(Old).build();
    let error = producer.produce("value").await.unwrap_err();
    assert!(error.to_string().contains("1970"), "{error}");
    assert_eq!(values(&broker), ["warm"]);
}

/// An input of several records that does not fit goes to the next batch as a whole.
#[tokio::test(start_paused = true)]
async fn the_records_of_an_input_are_in_one_batch() {
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let mut rng = Rng(2);
    for (max_records, max_bytes) in [(5, 1_000_000), (1_000, 400)] {
        let producer =
            BatchProducer::builder(partition.clone()).max_records(max_records).max_bytes(max_bytes);
        let producer = producer.aggregator(Joined).build();
        let inputs: Vec<_> = (0..60)
            .map(|value| match rng.below(3) {
                0 => Input::Several(value.to_string(), 1 + rng.below(8) as usize),
                1 => Input::Packed("x".repeat(rng.below(100) as usize)),
                _ => Input::Record(value.to_string()),
            })
            .collect();
        for (result, input) in together(&broker, &producer, &inputs).await.into_iter().zip(&inputs) {
            let appended = result.unwrap();
            let (offsets, first) = (appended.batch.offsets().unwrap(), appended.offset.unwrap());
            assert!(offsets.contains(&first) && offsets.end >= first + appended.records as i64);
            let is_alone = appended.batch.record_count == appended.records;
            assert!(appended.batch.record_count <= max_records || is_alone);
            assert!(appended.batch.wire_bytes <= max_bytes || is_alone);
            if let Input::Several(value, count) = input {
                let values = &values(&broker)[first as usize..first as usize + count];
                let expected: Vec<_> = (0..*count).map(|index| format!("{value}/{index}")).collect();
                assert_eq!((appended.records, values), (*count, &expected[..]));
            }
        }
    }
}

/// All inputs of a batch that fails get the error, and their parts are not on the log.
#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_fails_for_all_its_inputs() {
    let broker = broker();
    let (_partition, producer) = open_joined(&broker).await;
    broker.on(ApiKey::PRODUCE, Fault::Pass);
    broker.on(ApiKey::PRODUCE, Fault::Error(ErrorCode::INVALID_RECORD));
    let first = producer.reserve().await.unwrap().send(Input::Packed(text("first")));
    let mut acks = Vec::new();
    for value in 0..5 {
        acks.push(producer.reserve().await.unwrap().send(Input::Packed(value.to_string())));
    }
    first.await.unwrap();
    for ack in acks {
        assert_eq!(ack.await.unwrap_err().code(), Some(ErrorCode::INVALID_RECORD));
    }
    let last = producer.produce(Input::Packed(text("last"))).await.unwrap();
    assert_eq!((last.offset, last.tag), (Some(2), 0));
    assert_eq!(values(&broker), ["warm", "first|", "last|"]);
}

/// It runs in the order in which the inputs are accepted, one at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inputs_are_added_one_at_a_time() {
    #[derive(Clone, Default)]
    struct Ordered(Arc<Mutex<Vec<usize>>>);
    impl Aggregator for Ordered {
        type Input = usize;
        type Tag = usize;

        fn size_hint(&self, _: &usize) -> usize {
            40
        }

        fn add(&self, value: &usize, sink: &mut Sink<'_>) -> Result<usize, Box<dyn StdError + Send + Sync>> {
            sink.push(&record(value.to_string()))?;
            let mut all = self.0.try_lock().map_err(|_| "it runs twice at a time")?;
            // It may be called again for the same input.
            if all.last() != Some(value) {
                all.push(*value);
            }
            Ok(*value)
        }
    }
    let broker = broker();
    let (_wire, _client, partition) = open_warm(&broker).await;
    let ordered = Ordered::default();
    let producer = BatchProducer::builder(partition).aggregator(ordered.clone()).max_records(10).build();
    let callers = (0..200).map(|caller| {
        let producer = producer.clone();
        tokio::spawn(async move {
            for i in 0..5 {
                let value = caller * 10 + i;
                assert_eq!(producer.produce(value).await.unwrap().tag, value);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let order: Vec<_> = ordered.0.lock().unwrap().iter().map(usize::to_string).collect();
    assert_eq!(values(&broker)[1..], order);
}
