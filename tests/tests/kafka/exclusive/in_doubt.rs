//! Appends in doubt of a holder, which the next one resolves.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use kwal_client::error::{ErrorKind, InDoubt, Outcome};
use kwal_client::record::Record;
use kwal_client::{ClientBuilder, Deadlines, PartitionClient, Resolution};
use kwal_tests::kafka::Kafka;

use super::judge::{Entry, read};
use super::{NAME, connect, transactional_id};

/// How many appends are in doubt.
const APPENDS: usize = 4;

/// A holder whose appends end in doubt when its leader is stopped.
pub(super) struct Doubtful {
    topic: String,
    partition: PartitionClient,
    /// Each append and its handle.
    in_doubt: Vec<(String, InDoubt)>,
}

impl Doubtful {
    /// Takes over the log and appends.
    pub(super) async fn hold(kafka: &Kafka, topic: &str) -> Self {
        let client = connect(kafka).await;
        let partition = client.partition_client(topic, 0).exclusive(NAME).await.unwrap();
        partition.produce([record("before")]).await.unwrap();
        Self { topic: topic.to_owned(), partition, in_doubt: Vec::new() }
    }

    /// Appends for a moment, while the leader does not answer.
    pub(super) async fn append(&mut self) {
        let appends = (0..APPENDS).map(async |number| {
            let value = format!("in doubt {number}");
            let append = self.partition.produce([record(&value)]).deadline(Duration::from_millis(500));
            let error = append.await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
            // The handles are plain data.
            let handle = serde_json::to_string(error.in_doubt().unwrap()).unwrap();
            (value, serde_json::from_str(&handle).unwrap())
        });
        self.in_doubt = join_all(appends).await;
    }

    /// Takes over, and resolves all. Returns how many were appended.
    pub(super) async fn resolve_by_next(&self, kafka: &Kafka) -> usize {
        let patience = Duration::from_secs(2);
        let deadlines = Deadlines::default().request(patience).connect(patience);
        let client = ClientBuilder::new(kafka.bootstrap()).deadlines(deadlines).build().await.unwrap();
        let next = client.partition_client(&self.topic, 0).exclusive(NAME).await.unwrap();
        let unnamed = client.partition_client(&self.topic, 0).await.unwrap();
        let mut resolutions = Vec::new();
        for (value, in_doubt) in &self.in_doubt {
            assert_eq!(in_doubt.transactional_id, Some(transactional_id(&self.topic)));
            let error = unnamed.resolve(in_doubt, record("no fence")).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
            let resolution = next.resolve(in_doubt, record(&format!("fence of {value}"))).await.unwrap();
            resolutions.push((value, resolution));
        }
        next.produce([record("next")]).await.unwrap();
        let error = self.partition.produce([record("too late")]).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Fenced), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");

        let (_, entries) = read(&client, &self.topic).await;
        let barrier = next.holder().unwrap().barrier;
        let values: Vec<_> = entries.values().map(|entry| &*entry.value).collect();
        for value in ["before", "next"] {
            assert_eq!(values.iter().filter(|found| **found == value).count(), 1, "{values:?}");
        }
        for value in ["no fence", "too late"] {
            assert!(!values.contains(&value), "{values:?}");
        }
        resolutions
            .iter()
            .filter(|(value, resolution)| is_appended(&entries, value, resolution, barrier))
            .count()
    }
}

/// Checks a resolution, and returns whether the record is on the log: once, before the barrier.
fn is_appended(entries: &BTreeMap<i64, Entry>, value: &str, resolution: &Resolution, barrier: i64) -> bool {
    let mut found = entries.iter().filter(|(_, entry)| entry.value == value).map(|(offset, _)| *offset);
    let offset = found.next();
    assert_eq!(found.next(), None, "{value} is on the log twice");
    let expected = offset.map_or(Resolution::NotApplied, |offset| Resolution::Appended(offset..offset + 1));
    assert_eq!(resolution, &expected, "{value}");
    assert!(offset.is_none_or(|offset| offset < barrier), "{value} is behind the barrier {barrier}");
    offset.is_some()
}

fn record(value: &str) -> Record {
    Record::new(None::<&str>, value)
}
