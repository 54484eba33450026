//! Task switches: how often the task of a connection runs for a request.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, set_default},
};

use super::*;

/// Counts how often the span of a connection is entered: once for each poll of its task.
#[derive(Clone, Default)]
struct Polls(Arc<AtomicUsize>);

impl Polls {
    /// Starts to count the polls of connections that are opened in this thread while the guard lives.
    fn count() -> (Self, DefaultGuard) {
        let polls = Self::default();
        (polls.clone(), set_default(polls))
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Subscriber for Polls {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "connection"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_request_takes_two_task_switches() {
    let (polls, _guard) = Polls::count();
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    settle().await;
    peer.state().is_answering = false;
    for _ in 0..3 {
        polls.take();
        // From the caller to the task of the connection, which writes.
        submit(&connection, &notes, 0).unwrap();
        settle().await;
        assert_eq!(polls.take(), 1);
        // From the socket to it; there the recipient gets the response.
        peer.answer(1);
        settle().await;
        assert_eq!(polls.take(), 1);
    }
    assert_eq!(notes.tokens(), [0; 3]);
    // So many as well for several requests, when they are there at once.
    for token in 0..5 {
        submit(&connection, &notes, token).unwrap();
    }
    settle().await;
    peer.answer(5);
    settle().await;
    assert_eq!((polls.take(), notes.tokens().len()), (2, 8));
}

#[tokio::test]
async fn a_recipient_that_goes_on_needs_one() {
    let (polls, _guard) = Polls::count();
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    settle().await;
    peer.state().is_answering = false;
    notes.state().further = Some((connection.clone(), 9));
    submit(&connection, &notes, 0).unwrap();
    settle().await;
    polls.take();
    for answered in 1..=9 {
        peer.answer(1);
        settle().await;
        assert_eq!((polls.take(), notes.tokens().len()), (1, answered));
        assert_eq!(peer.state().requests.len(), answered + 1);
    }
}

#[tokio::test]
async fn a_caller_that_waits_runs_once_more() {
    let (polls, _guard) = Polls::count();
    let peer = Peer::new();
    let connection = open(&peer).await;
    settle().await;
    polls.take();
    let mut wakes = 0;
    let mut call = pin!(connection.call::<MetadataRequest>(encoded(&connection), CallOptions::default()));
    let response = std::future::poll_fn(|cx| {
        wakes += 1;
        call.as_mut().poll(cx)
    });
    response.await.unwrap();
    settle().await;
    assert_eq!((polls.take(), wakes), (2, 2));
}

/// A wake-up that is lost would leave a request without a response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_from_several_threads_all_wake_the_task() {
    const EACH: u64 = 2000;
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    let submit_all = |first: u64| {
        let (connection, notes) = (connection.clone(), Arc::clone(&notes));
        move || {
            for token in first..first + EACH {
                while let Err(error) = submit(&connection, &notes, token) {
                    assert_eq!(error, NotSubmitted::Full);
                    thread::yield_now();
                }
            }
        }
    };
    let threads = [0, EACH, 2 * EACH].map(|first| thread::spawn(submit_all(first)));
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
    while notes.state().got.len() < 3 * EACH as usize {
        yield_now().await;
    }
    let mut tokens = notes.tokens();
    // In order for each thread.
    for thread in 0..3 {
        let own = tokens.iter().filter(|token| **token / EACH == thread);
        assert!(own.is_sorted());
    }
    tokens.sort();
    assert!(tokens.into_iter().eq(0..3 * EACH));
    assert_eq!(notes.failed(), []);
}
