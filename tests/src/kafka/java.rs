//! Kafka's Java client as one long-lived process. Commands and results are lines of JSON.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::install::Installation;
use crate::message::Message;

/// The Java program of `tests/java/Interop.java`, running against one cluster.
///
/// It ends when its standard input is closed, at the latest with this process. Calls may overlap. All but
/// [`Self::call`] panic with the error of Java.
#[derive(Debug)]
pub struct Java {
    process: Child,
    input: Mutex<Option<ChildStdin>>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>,
    next_id: AtomicU64,
}

impl Java {
    pub(super) fn start(installation: &Installation, bootstrap: &str, log: &Path) -> Result<Self, String> {
        let java = installation.java();
        let spawned = File::create(log).and_then(|log| {
            Command::new(&java[0])
                .args(&java[1..])
                .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "Interop", bootstrap])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()
        });
        let mut process = spawned.map_err(|e| format!("cannot start Java: {e}"))?;
        let input = Mutex::new(process.stdin.take());
        let waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>> = Arc::default();
        let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let pending = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let response: Value = serde_json::from_str(&line).unwrap_or_default();
                let mut waiting = pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(call) = response["id"].as_u64().and_then(|id| waiting.remove(&id)) {
                    // The caller may have been dropped.
                    let _ = call.send(response);
                }
            }
            // Drops the senders, which ends the calls that wait.
            pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Self { process, input, waiting, next_id: AtomicU64::new(0) })
    }

    /// Runs one command of the program, for at most two minutes.
    ///
    /// # Errors
    ///
    /// The message of the Java exception, beginning with its class.
    pub async fn call(&self, command: &str, mut arguments: Value) -> Result<Value, String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        arguments["id"] = id.into();
        arguments["command"] = command.into();
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        {
            let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
            let input = input.as_mut().ok_or("the Java program was shut down")?;
            writeln!(input, "{arguments}").map_err(|e| format!("the Java program has ended: {e}"))?;
        }
        let received = tokio::time::timeout(Duration::from_secs(120), receiver).await;
        let mut response = received
            .map_err(|_| format!("{command}: no result within two minutes"))?
            .map_err(|_| format!("{command}: the Java program has ended"))?;
        match response["error"].as_str() {
            Some(error) => Err(format!("{command}: {error}")),
            None => Ok(response["result"].take()),
        }
    }

    /// Appends with a `KafkaProducer` and returns the offsets.
    pub async fn produce(
        &self,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
    ) -> Vec<i64> {
        self.produce_with(topic, partition, compression, records, json!({})).await
    }

    /// Appends with a `KafkaProducer`, each record to the partition of its key.
    pub async fn produce_by_key(&self, topic: &str, records: &[Message]) {
        let _: Vec<i64> = self.must("produce", json!({ "topic": topic, "records": records })).await;
    }

    /// Appends with a `KafkaProducer` that has these settings, by name.
    pub async fn produce_with(
        &self,
        topic: &str,
        partition: i32,
        compression: &str,
        records: &[Message],
        config: Value,
    ) -> Vec<i64> {
        let arguments = json!({
            "topic": topic, "partition": partition, "compression": compression, "records": records, "config": config,
        });
        self.must("produce", arguments).await
    }

    /// Appends within a transaction that is committed or aborted; its marker takes one more offset, and is
    /// there at the end.
    pub async fn produce_in_transaction(
        &self,
        topic: &str,
        partition: i32,
        records: &[Message],
        commit: bool,
    ) {
        let arguments = json!({
            "topic": topic, "partition": partition, "records": records,
            "transaction": if commit { "commit" } else { "abort" },
            "config": { "transactional.id": format!("{topic}-{partition}") },
        });
        let offsets: Vec<i64> = self.must("produce", arguments).await;
        // The coordinator answers before it has written the markers.
        let marker = offsets.last().map_or(0, |last| last + 1);
        while self.offset(topic, partition, "latest").await <= marker {
            tokio::task::yield_now().await;
        }
    }

    /// Reads with a `KafkaConsumer` from offset `from` to before `to`, or to the current end.
    pub async fn consume(&self, topic: &str, partition: i32, from: i64, to: Option<i64>) -> Vec<Message> {
        self.must("consume", json!({ "topic": topic, "partition": partition, "from": from, "to": to })).await
    }

    /// Looks up an offset with Kafka's admin client; −1 if there is none. `at` is `earliest`, `latest`,
    /// `max-timestamp` or milliseconds.
    pub async fn offset(&self, topic: &str, partition: i32, at: &str) -> i64 {
        self.must("offset", json!({ "topic": topic, "partition": partition, "at": at })).await
    }

    /// Lists the topics that are not internal.
    pub async fn topics(&self) -> Vec<String> {
        self.must("topics", json!({})).await
    }

    /// Creates a topic with the cluster's replication factor.
    pub async fn create_topic(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs: serde_json::Map<_, _> =
            configs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let arguments = json!({ "topic": topic, "partitions": partitions, "configs": configs });
        self.must("createTopic", arguments).await
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, topic: &str) {
        self.must("deleteTopic", json!({ "topic": topic })).await
    }

    /// Deletes the records of a partition before an offset.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        self.must("deleteRecords", json!({ "topic": topic, "partition": partition, "before": before })).await
    }

    /// Aborts a transaction of a producer that no coordinator knows.
    pub async fn abort_transaction(
        &self,
        topic: &str,
        partition: i32,
        producer_id: i64,
        producer_epoch: i16,
    ) {
        let arguments = json!({
            "topic": topic, "partition": partition, "producerId": producer_id, "producerEpoch": producer_epoch,
        });
        self.must("abortTransaction", arguments).await
    }

    /// Reassigns a partition to these replicas and waits until the first of them is the leader.
    pub async fn move_leader(&self, topic: &str, partition: i32, replicas: &[u16]) {
        let arguments = json!({ "topic": topic, "partition": partition, "replicas": replicas });
        self.must("moveLeader", arguments).await
    }

    /// Sets the producer quota of a client id, in bytes per second and broker; `None` removes it.
    pub async fn producer_quota(&self, client_id: &str, bytes_per_second: Option<u64>) {
        self.quota(client_id, "producer_byte_rate", bytes_per_second).await
    }

    /// Sets the consumer quota of a client id, in bytes per second and broker; `None` removes it.
    pub async fn consumer_quota(&self, client_id: &str, bytes_per_second: Option<u64>) {
        self.quota(client_id, "consumer_byte_rate", bytes_per_second).await
    }

    /// Grants rights to a user, all at once. Each is an operation, a type of resource and its name, as in
    /// `("Describe", "Topic", "wal")`. Brokers apply them a moment later.
    pub async fn grant(&self, user: &str, rights: &[(&str, &str, &str)]) {
        self.must("grant", json!({ "user": user, "rights": rights })).await
    }

    /// Takes all rights from a user. Brokers apply it a moment later.
    pub async fn revoke_all(&self, user: &str) {
        self.must("revokeAll", json!({ "user": user })).await
    }

    async fn quota(&self, client_id: &str, name: &str, bytes_per_second: Option<u64>) {
        let arguments = json!({ "clientId": client_id, "quotas": { name: bytes_per_second } });
        self.must("quota", arguments).await
    }

    async fn must<T: DeserializeOwned>(&self, command: &str, arguments: Value) -> T {
        let result = self.call(command, arguments).await.unwrap_or_else(|e| panic!("Java: {e}"));
        serde_json::from_value(result).unwrap_or_else(|e| panic!("Java: {command}: unexpected result: {e}"))
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        // The program ends at the end of its input.
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = self.process.wait();
    }
}
