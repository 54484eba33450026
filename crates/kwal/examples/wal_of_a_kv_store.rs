//! A key-value store with a log: append, then apply; recover by a snapshot and a replay; trim.
//!
//! ```sh
//! cargo run -p kwal --example wal_of_a_kv_store
//! ```
//!
//! It runs on an embedded broker, or on the brokers of `KAFKA_CONNECT=host:port[,host:port…]`. The recipe
//! `database` of the guide has the same store with what is left out here: appends of unknown outcome.

use std::{collections::BTreeMap, error::Error};

use kwal::{
    Client, ErrorKind, PartitionClient, Record,
    client::{OffsetAt, Position},
    consumer,
    record::Barrier,
};

mod brokers;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a snapshot keeps: the entries, and the position up to which they are complete.
#[derive(Clone, Default)]
struct State {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    position: Option<Position>,
}

impl State {
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.entries.insert(key.to_vec(), value.to_vec()),
            None => self.entries.remove(key),
        };
    }
}

struct Store {
    wal: PartitionClient,
    state: State,
}

impl Store {
    /// Recovers: becomes the only writer, and applies what the log has after the snapshot.
    async fn open(client: &Client, topic: &str, mut state: State) -> Result<Self> {
        let wal = client.partition_client(topic, 0).exclusive("store").await?;
        let barrier = wal.holder().ok_or("it was opened by a name")?.barrier;
        let from = state.position.unwrap_or_else(|| Position::from(0));
        let mut replay = consumer::replay(&wal, from).end(barrier).await?;
        while let Some(batch) = replay.next_batch().await? {
            batch.for_each(|record| {
                if Barrier::parse(&record).is_none() {
                    state.apply(record.key.unwrap_or_default(), record.value);
                }
            })?;
            state.position = Some(batch.position());
        }
        println!("recovered {} entries; replayed {}", state.entries.len(), replay.summary());
        Ok(Self { wal, state })
    }

    /// Sets an entry, or removes it: on the log first, and in the state when it is there.
    ///
    /// After an error, open the store again: the change may be on the log, and the next one would move the
    /// position past it.
    async fn put(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        let produced = self.wal.produce(vec![Record::new(key, value)]).await?;
        self.state.apply(key.as_bytes(), value.map(str::as_bytes));
        self.state.position = Some(produced.position().ok_or("the broker does not report offsets")?);
        Ok(())
    }

    /// Returns what is to be stored, with a position that is verified when it is used again.
    async fn snapshot(&self) -> Result<State> {
        let mut snapshot = self.state.clone();
        // A record that was read has a leader epoch, an acknowledgement has none.
        if let Some(Position { leader_epoch: None, offset, .. }) = snapshot.position {
            let fetched = self.wal.fetch(offset - 1).await?;
            let last = fetched.records().next().ok_or("the last change is not on the log")??;
            snapshot.position = Some(self.wal.position_after(&last));
        }
        Ok(snapshot)
    }

    /// Deletes what a stored snapshot has, but its last record: a log is never emptied.
    async fn trim(&self, snapshot: &State) -> Result<()> {
        if let Some(position) = snapshot.position {
            self.wal.delete_records(position.offset - 1).await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (brokers, _embedded) = brokers::brokers().await?;
    let client = Client::connect(brokers).await?;
    let topic = brokers::new_topic("wal-of-a-kv-store");
    let controller = client.controller_client().await?;
    controller.create_topic(&topic, 1, -1).await?;

    let mut store = Store::open(&client, &topic, State::default()).await?; // its barrier is at offset 0
    store.put("a", Some("1")).await?;
    store.put("b", Some("2")).await?;
    let snapshot = store.snapshot().await?;
    store.trim(&snapshot).await?;
    store.put("a", None).await?;
    let before = store.state.entries.clone();
    drop(store);

    let store = Store::open(&client, &topic, snapshot).await?;
    assert_eq!((&store.state.entries, before.len()), (&before, 1));
    assert_eq!(store.wal.get_offset(OffsetAt::Earliest).await?, 2);

    let lost = Store::open(&client, &topic, State::default()).await.err().ok_or("the log was trimmed")?;
    println!("without the snapshot: {lost}");
    let kind = lost.downcast_ref::<kwal::Error>().map(kwal::Error::kind);
    assert!(matches!(kind, Some(ErrorKind::Trimmed { .. })), "{lost}");
    controller.delete_topic(&topic).await?;
    Ok(())
}
