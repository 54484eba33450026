//! The minimum work of many callers that append one record at a time each: no client.
//!
//! A caller encodes its record into the open batch and waits on the completion that all records of the batch
//! share. One task takes the batch, sends it in a request of its own, and completes it with the response.
//! Meanwhile, records gather in the next one.

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{SystemTime, UNIX_EPOCH},
};

use kwal_protocol::{
    api::encode_request,
    compression::Compression,
    messages::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic},
    record::{BatchBuilder, Headers},
};
use tokio::{
    io::AsyncWriteExt,
    task::{JoinHandle, yield_now},
};

use super::wire::{Wire, decode};
use crate::shared::{
    Failure, Task,
    callers::{Caller, Key},
};

/// The newest version that names topics.
const PRODUCE: i16 = 12;
const TIMEOUT_MS: i32 = 30_000;

/// The task that sends, and what it shares with the callers.
#[derive(Debug)]
pub(crate) struct Group {
    shared: Arc<Mutex<State>>,
    sender: JoinHandle<()>,
}

impl Group {
    /// Connects and starts the task that sends.
    pub(crate) async fn connect(task: &Task) -> Result<Self, Failure> {
        let wire = Wire::connect(task).await?;
        let shared = Arc::new(Mutex::new(State { open: Open::new(0), sender: None }));
        let sender = tokio::spawn(send(Arc::clone(&shared), wire, task.topic.clone()));
        Ok(Self { shared, sender })
    }

    /// Returns a caller, whose records have this key.
    pub(crate) fn caller(&self, key: Key) -> GroupCaller {
        GroupCaller { shared: Arc::clone(&self.shared), key }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

#[derive(Debug)]
struct State {
    open: Open,
    /// Of the task that sends, while it waits for records.
    sender: Option<Waker>,
}

/// The open batch.
#[derive(Debug)]
struct Open {
    batch: BatchBuilder,
    completion: Arc<Mutex<Completion>>,
}

impl Open {
    /// `capacity` is that of the records, in bytes.
    fn new(capacity: usize) -> Self {
        let batch = BatchBuilder::with_capacity(Compression::None, capacity);
        Self { batch, completion: Arc::default() }
    }
}

/// What all records of a batch wait for.
#[derive(Debug, Default)]
struct Completion {
    /// The offset of the first record.
    result: Option<Result<i64, String>>,
    /// By index in the batch.
    wakers: Vec<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the callers.
#[derive(Debug)]
pub(crate) struct GroupCaller {
    shared: Arc<Mutex<State>>,
    key: Key,
}

impl Caller for GroupCaller {
    async fn append(&mut self, value: &[u8]) -> Result<(), Failure> {
        let mut pushed: Option<(Arc<Mutex<Completion>>, usize)> = None;
        let offset = poll_fn(|context| {
            let Some((completion, index)) = &pushed else {
                pushed = Some(self.push(value, context));
                return Poll::Pending;
            };
            let mut completion = lock(completion);
            match &completion.result {
                Some(Ok(base_offset)) => Poll::Ready(Ok(base_offset + *index as i64)),
                Some(Err(error)) => Poll::Ready(Err(error.clone())),
                None => {
                    completion.wakers[*index].clone_from(context.waker());
                    Poll::Pending
                }
            }
        });
        std::hint::black_box(offset.await?);
        Ok(())
    }
}

impl GroupCaller {
    /// Encodes a record into the open batch; returns what to wait for, and the index of the record.
    fn push(&self, value: &[u8], context: &Context<'_>) -> (Arc<Mutex<Completion>>, usize) {
        #[allow(clippy::disallowed_methods, reason = "it is the caller's, who makes the record")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp_ms = now.as_secs() as i64 * 1_000 + i64::from(now.subsec_millis());
        let mut state = lock(&self.shared);
        let index = state.open.batch.push(timestamp_ms, Some(&self.key), Some(value), &Headers::new());
        let completion = Arc::clone(&state.open.completion);
        lock(&completion).wakers.push(context.waker().clone());
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        (completion, index as usize)
    }
}

/// Sends one batch after the other.
async fn send(shared: Arc<Mutex<State>>, mut wire: Wire, topic: String) {
    let mut capacity = 0;
    loop {
        let mut is_idle = false;
        poll_fn(|context| {
            let mut state = lock(&shared);
            if state.open.batch.is_empty() {
                is_idle = true;
                state.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        if !is_idle {
            // So that callers that were just answered are part of it.
            yield_now().await;
        }
        let next = Open::new(capacity);
        let Open { batch, completion } = mem::replace(&mut lock(&shared).open, next);
        capacity = batch.size_in_bytes();
        let result = append(&mut wire, &topic, batch).await.map_err(|error| error.to_string());
        let wakers = {
            let mut completion = lock(&completion);
            completion.result = Some(result);
            mem::take(&mut completion.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Appends a batch; returns the offset of its first record.
async fn append(wire: &mut Wire, topic: &str, batch: BatchBuilder) -> Result<i64, Failure> {
    let batch = batch.finish()?;
    let partition = ProducePartition { index: 0, records: Some(batch.to_spliced()) };
    let topic =
        ProduceTopic { name: topic.to_owned(), partition_data: vec![partition], ..Default::default() };
    let request =
        ProduceRequest { acks: -1, timeout_ms: TIMEOUT_MS, topic_data: vec![topic], ..Default::default() };
    let mut frame = encode_request(&request, PRODUCE, 0, None)?;
    wire.stream.write_all_buf(&mut frame).await?;
    let response = wire.response().await?;
    let answer: ProduceResponse = decode(&response, PRODUCE)?;
    wire.give_back(response);
    let found = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
    Ok(found.ok_or("no partition")?.base_offset)
}
