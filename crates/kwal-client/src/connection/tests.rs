//! Requests of recipients: each gets one response or one failure, in order, whatever happens.

mod peer;
mod polls;

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
};

use kwal_protocol::messages::MetadataRequest;
use tokio::{runtime::Builder, task::yield_now};

use self::peer::Peer;
use super::*;
use crate::{metrics::BrokerMetrics, state::Purpose};

const SECOND: Duration = Duration::from_secs(1);

/// A recipient that notes what it gets.
#[derive(Debug)]
struct Notes {
    me: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    got: Vec<(u64, Result<RawResponse, RequestFailed>)>,
    gone: BTreeSet<u64>,
    /// Submits a further request whenever one is responded to, up to a last token.
    further: Option<(Connection, u64)>,
    not_submitted: Vec<NotSubmitted>,
}

impl Notes {
    fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens in the order in which they came.
    fn tokens(&self) -> Vec<u64> {
        self.state().got.iter().map(|(token, _)| *token).collect()
    }

    /// The tokens that came with a failure, and whether the requests may have been sent.
    fn failed(&self) -> Vec<(u64, bool)> {
        let state = self.state();
        let failed =
            state.got.iter().filter_map(|(token, result)| Some((*token, result.as_ref().err()?.sent)));
        failed.collect()
    }

    fn reason(&self, token: u64) -> String {
        let state = self.state();
        let (_, result) = state.got.iter().find(|(got, _)| *got == token).unwrap();
        match result.as_ref().unwrap_err() {
            RequestFailed { reason: FailureReason::Connection(error), .. } => error.to_string(),
            RequestFailed { reason, .. } => format!("{reason:?}"),
        }
    }
}

impl Recipient for Notes {
    fn respond(&self, token: u64, result: Result<RawResponse, RequestFailed>) {
        // Locked while it submits, as a state machine is: neither must wait for the other.
        let mut state = self.state();
        state.got.push((token, result));
        if let Some((connection, last)) = state.further.clone()
            && token < last
        {
            let submitted = submit(&connection, &self.me.upgrade().unwrap(), token + 1);
            state.not_submitted.extend(submitted.err());
        }
    }

    fn is_gone(&self, token: u64) -> bool {
        self.state().gone.contains(&token)
    }
}

fn config() -> ConnectionConfig {
    ConnectionConfig::default()
}

async fn open(peer: &Peer) -> Connection {
    let name = HostPort::new("a", 9092);
    let (history, troubles) = (Arc::default(), Arc::default());
    let metrics = BrokerMetrics::new(None, Purpose::General).connection();
    let end = super::Peer { name, history, troubles, address: None, paused_until: None, metrics };
    let runtime = runtime::Handle::current();
    Connection::open(peer.stream(), config(), None, &runtime, end).await.unwrap()
}

fn encoded(connection: &Connection) -> EncodedRequest {
    connection.versions().encode(&MetadataRequest::default(), MetadataRequest::SUPPORTED).unwrap()
}

fn submit(connection: &Connection, notes: &Arc<Notes>, token: u64) -> Result<(), NotSubmitted> {
    submit_until(connection, notes, token, None)
}

fn submit_until(
    connection: &Connection,
    notes: &Arc<Notes>,
    token: u64,
    deadline: Option<Instant>,
) -> Result<(), NotSubmitted> {
    let recipient = Arc::clone(notes) as Arc<dyn Recipient>;
    connection.submit::<MetadataRequest>(encoded(connection), deadline, recipient, token, None)
}

/// Lets the task of the connection run until it waits.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test]
async fn responses_come_in_the_order_of_the_requests() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    peer.state().is_answering = false;
    for token in 0..10 {
        submit(&connection, &notes, token).unwrap();
    }
    settle().await;
    assert_eq!((peer.state().requests.len(), notes.tokens()), (10, vec![]));
    for count in [1, 3, 6] {
        let before = notes.tokens().len();
        peer.answer(count);
        settle().await;
        assert_eq!(notes.tokens().len(), before + count);
    }
    assert!(notes.tokens().into_iter().eq(0..10), "{notes:?}");
    assert_eq!(notes.failed(), []);
    drop(connection);
    settle().await;
    assert!(peer.state().is_dropped);
    assert_eq!(notes.tokens().len(), 10, "nothing comes twice");
}

/// Two requests that were sent and not answered, one of which some bytes were, one that was not, and one that
/// the task has not seen.
async fn in_every_state(peer: &Peer, connection: &Connection, notes: &Arc<Notes>) {
    let size = encoded(connection).size_in_bytes();
    peer.change(|state| {
        state.is_answering = false;
        state.accepts = 2 * size + 7;
    });
    for token in 0..3 {
        submit(connection, notes, token).unwrap();
        settle().await;
    }
    submit(connection, notes, 3).unwrap();
    settle().await;
    assert_eq!(peer.state().requests.len(), 2);
    assert_eq!(peer.state().accepts, 0);
    submit(connection, notes, 4).unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_one_failure_however_the_connection_ends() {
    type End = fn(&Peer, &Connection);
    let ends: [(&str, End); 6] = [
        ("the broker closed the connection", |peer, _| peer.change(|state| state.end = Some(Ok(())))),
        ("reset", |peer, _| peer.change(|state| state.end = Some(Err(io::ErrorKind::ConnectionReset)))),
        ("broken", |peer, _| peer.change(|state| state.fails_writes = Some(io::ErrorKind::BrokenPipe))),
        ("closed", |_, connection| connection.close()),
        ("not a response", |peer, _| peer.send(&[0, 0, 0, 8, 0x7f, 0, 0, 0, 0, 0, 0, 0])),
        ("no time", |_, _| {}),
    ];
    for (name, end) in ends {
        let (peer, notes) = (Peer::new(), Notes::new());
        let connection = open(&peer).await;
        // Whoever gets a failure may try again at once, and learns that this connection is closed.
        notes.state().further = Some((connection.clone(), u64::MAX));
        in_every_state(&peer, &connection, &notes).await;
        end(&peer, &connection);
        tokio::time::sleep(60 * SECOND).await;
        assert!(!connection.is_open(), "{name}");
        // A write that fails may have sent a part of all that it offered.
        let sent = [(0, true), (1, true), (2, true), (3, name == "broken"), (4, name == "broken")];
        assert_eq!(notes.failed(), sent, "{name}");
        assert_eq!(notes.state().not_submitted, [NotSubmitted::Closed; 5], "{name}");
        let next: Vec<_> =
            notes.state().got.iter().map(|(_, got)| got.as_ref().unwrap_err().was_next).collect();
        assert_eq!(next, [true, false, false, false, false], "{name}");
        assert_eq!(submit(&connection, &notes, 9), Err(NotSubmitted::Closed));
        assert_eq!(notes.tokens().len(), 5, "{name}: what was not submitted gets nothing");
    }
}

#[test]
fn each_request_gets_one_failure_when_the_runtime_shuts_down() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let connection = runtime.block_on(async {
        let connection = open(&peer).await;
        in_every_state(&peer, &connection, &notes).await;
        connection
    });
    assert!(notes.tokens().is_empty());
    notes.state().further = Some((connection.clone(), u64::MAX));
    drop(runtime);
    assert!(peer.state().is_dropped);
    assert_eq!(notes.failed(), [(0, true), (1, true), (2, true), (3, false), (4, false)]);
    assert_eq!(notes.reason(0), "Shutdown");
    assert_eq!(notes.state().not_submitted, [NotSubmitted::Closed; 5]);
    assert_eq!(submit(&connection, &notes, 5), Err(NotSubmitted::Closed));
}

#[test]
fn what_arrived_before_the_runtime_shut_down_is_a_response() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let connection = runtime.block_on(open(&peer));
    submit(&connection, &notes, 0).unwrap();
    runtime.block_on(settle());
    submit(&connection, &notes, 1).unwrap();
    drop(runtime);
    assert_eq!((notes.tokens(), notes.failed()), (vec![0, 1], vec![(1, false)]));
}

#[tokio::test]
async fn a_response_without_handles_still_comes() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    peer.state().is_answering = false;
    submit(&connection, &notes, 0).unwrap();
    // Nobody waits for it: the connection closes with its last handle.
    drop(connection);
    settle().await;
    assert_eq!((notes.tokens(), peer.state().is_dropped), (vec![0], true));
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_sent() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    in_every_state(&peer, &connection, &notes).await;
    submit(&connection, &notes, 5).unwrap();
    notes.state().gone.extend([0, 2, 3, 4]);
    settle().await;
    // What the broker may have is not withdrawn.
    let withdrawn = BTreeSet::from_iter(notes.failed());
    assert!(withdrawn.into_iter().eq([(3, false), (4, false)]), "{notes:?}");
    assert_eq!(notes.reason(3), "Withdrawn");
    peer.change(|state| state.accepts = usize::MAX);
    settle().await;
    peer.answer(4);
    settle().await;
    assert_eq!(peer.state().requests.len(), 4);
    assert_eq!((&notes.tokens()[2..], notes.failed().len()), (&[0, 1, 2, 5][..], 2));
}

#[tokio::test]
async fn a_recipient_submits_while_it_takes_a_response() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    notes.state().further = Some((connection.clone(), 99));
    submit(&connection, &notes, 0).unwrap();
    for _ in 0..100 {
        settle().await;
    }
    assert!(notes.tokens().into_iter().eq(0..100), "{notes:?}");
    assert_eq!((notes.failed(), peer.state().requests.len()), (vec![], 100));
}

#[tokio::test]
async fn a_full_queue_takes_no_more_until_it_has_room() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    peer.state().is_answering = false;
    let mut submitted = 0;
    loop {
        settle().await;
        match submit(&connection, &notes, submitted) {
            Ok(()) => submitted += 1,
            Err(NotSubmitted::Full) => break,
            Err(NotSubmitted::Closed) => panic!("it is open"),
        }
    }
    assert_eq!(submitted, 2 * QUEUE as u64);
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.room().await.is_some() }
    });
    settle().await;
    assert!(!waiting.is_finished());
    peer.answer(1);
    assert!(waiting.await.unwrap());
    submit(&connection, &notes, submitted).unwrap();
    assert_eq!(submit(&connection, &notes, submitted + 1), Err(NotSubmitted::Full));
    assert_eq!(notes.tokens(), [0]);
    connection.close();
    assert!(connection.room().await.is_none());
    settle().await;
    assert!(notes.tokens().into_iter().eq(0..=submitted), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_end_before_a_throttle_does_are_not_sent() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    peer.state().throttle_ms = 10_000;
    let now = Instant::now();
    submit(&connection, &notes, 0).unwrap();
    settle().await;
    assert_eq!(notes.tokens(), [0]);
    for (token, seconds) in [(1, 5), (2, 20), (3, 9), (4, 11)] {
        submit_until(&connection, &notes, token, Some(now + seconds * SECOND)).unwrap();
    }
    settle().await;
    assert_eq!(notes.failed(), [(1, false), (3, false)]);
    assert_eq!((notes.reason(1), peer.state().requests.len()), ("Throttled(10s)".to_owned(), 1));
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(notes.tokens(), [0, 1, 3, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn requests_are_held_back_while_the_broker_waits_for_a_caller_that_left() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    peer.state().is_answering = false;
    let permit = Some(connection.wait(5 * SECOND));
    let options = CallOptions { permit, ..CallOptions::default() };
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call::<MetadataRequest>(encoded(&connection), options).await }
    });
    settle().await;
    call.abort();
    settle().await;
    submit_until(&connection, &notes, 0, Some(Instant::now() + SECOND)).unwrap();
    submit(&connection, &notes, 1).unwrap();
    settle().await;
    assert_eq!((peer.state().requests.len(), notes.tokens()), (1, vec![]));
    tokio::time::sleep(2 * SECOND).await;
    // Its call is over; the next one takes its place.
    assert_eq!((notes.failed(), notes.reason(0)), (vec![(0, false)], "Withdrawn".to_owned()));
    assert_eq!(peer.state().requests.len(), 1);
    peer.change(|state| state.is_answering = true);
    peer.answer(1);
    settle().await;
    assert_eq!((notes.tokens(), notes.failed().len()), (vec![0, 1], 1));
}

#[tokio::test]
async fn room_is_for_one_request_of_its_connection() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let (connection, other) = (open(&peer).await, open(&Peer::new()).await);
    let with = |connection: &Connection, token, room| {
        let recipient = Arc::clone(&notes) as Arc<dyn Recipient>;
        connection.submit::<MetadataRequest>(encoded(connection), None, recipient, token, room)
    };
    let mut rooms = Vec::new();
    for _ in 0..QUEUE {
        rooms.push(connection.room().await);
    }
    assert_eq!(submit(&connection, &notes, 0), Err(NotSubmitted::Full));
    assert_eq!(with(&connection, 1, other.room().await), Err(NotSubmitted::Full));
    with(&connection, 2, rooms.pop().unwrap()).unwrap();
    assert_eq!(submit(&connection, &notes, 3), Err(NotSubmitted::Full));
    settle().await;
    assert_eq!(notes.tokens(), [2]);
    let last = rooms.pop().unwrap();
    // What is not used is given back.
    drop(rooms);
    for token in 0..QUEUE as u64 - 1 {
        submit(&connection, &notes, token).unwrap();
    }
    assert_eq!(submit(&connection, &notes, 4), Err(NotSubmitted::Full));
    settle().await;
    assert_eq!(notes.tokens().len(), QUEUE);
    connection.close();
    settle().await;
    assert_eq!(with(&connection, 5, last), Err(NotSubmitted::Closed));
    assert_eq!((notes.tokens().len(), notes.failed()), (QUEUE, vec![]));
}

/// What the writes of some requests were, each with its number of bytes.
async fn writes(peer: &Peer, connection: &Connection, notes: &Arc<Notes>, count: u64) -> Vec<usize> {
    peer.state().writes.clear();
    for token in 0..count {
        submit(connection, notes, token).unwrap();
    }
    settle().await;
    std::mem::take(&mut peer.state().writes)
}

#[tokio::test]
async fn frames_that_are_ready_go_out_in_one_write() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    let size = encoded(&connection).size_in_bytes();
    assert_eq!(writes(&peer, &connection, &notes, 5).await, [5 * size]);
    assert_eq!(writes(&peer, &connection, &notes, 1).await, [size]);
    // A write has a limited number of pieces.
    assert_eq!(writes(&peer, &connection, &notes, 40).await, [32 * size, 8 * size]);
    // What is submitted while a write waits goes out with the rest.
    peer.change(|state| state.accepts = size + 1);
    assert_eq!(writes(&peer, &connection, &notes, 2).await, [size + 1]);
    assert!(writes(&peer, &connection, &notes, 3).await.is_empty());
    peer.change(|state| state.accepts = usize::MAX);
    settle().await;
    assert_eq!(peer.state().writes, [size - 1 + 3 * size]);
    peer.state().is_vectored = false;
    assert_eq!(writes(&peer, &connection, &notes, 3).await, [size; 3]);
    assert_eq!((notes.tokens().len(), notes.failed()), (54, vec![]));
}

#[tokio::test]
async fn writes_may_end_at_every_byte() {
    let whole = 3 * encoded(&open(&Peer::new()).await).size_in_bytes();
    for is_vectored in [true, false] {
        for at_once in 1..=whole {
            let (peer, notes) = (Peer::new(), Notes::new());
            let connection = open(&peer).await;
            peer.change(|state| (state.at_once, state.is_vectored) = (at_once, is_vectored));
            let writes = writes(&peer, &connection, &notes, 3).await;
            let long = async {
                while notes.tokens().len() < 3 {
                    yield_now().await;
                }
            };
            long.await;
            assert!(writes.iter().all(|written| *written <= at_once));
            assert_eq!((notes.tokens(), notes.failed()), (vec![0, 1, 2], vec![]), "{at_once}");
        }
    }
}

/// The time of a request starts with its last byte, and not with that of the write.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_request_starts_when_it_has_been_written() {
    let size = encoded(&open(&Peer::new()).await).size_in_bytes();
    for accepted in size..=2 * size {
        let (peer, notes) = (Peer::new(), Notes::new());
        let connection = open(&peer).await;
        let limit = config().request_timeout;
        peer.change(|state| (state.is_answering, state.accepts) = (false, accepted));
        submit(&connection, &notes, 0).unwrap();
        submit(&connection, &notes, 1).unwrap();
        settle().await;
        tokio::time::sleep(limit / 2).await;
        peer.answer(1);
        settle().await;
        assert_eq!(notes.tokens(), [0]);
        // The first one is answered: from now on it is the time of the second one, if that was written, or of
        // the write, which made no progress before either.
        let left = if accepted == 2 * size { limit } else { limit / 2 };
        tokio::time::sleep(left - SECOND / 10).await;
        assert_eq!(notes.tokens(), [0], "{accepted}");
        tokio::time::sleep(SECOND / 5).await;
        // One byte of it is enough for doubt. Without, it is the first one of the next write.
        assert_eq!(notes.failed(), [(1, true)], "{accepted}");
        let timed_out = notes.reason(1).contains("no response");
        assert_eq!(timed_out, accepted == 2 * size, "{}", notes.reason(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_back_what_is_ready() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    let size = encoded(&connection).size_in_bytes();
    peer.change(|state| (state.is_answering, state.accepts) = (false, size));
    for token in 0..5 {
        submit(&connection, &notes, token).unwrap();
    }
    settle().await;
    peer.change(|state| (state.throttle_ms, state.accepts) = (10_000, 0));
    peer.answer(1);
    settle().await;
    peer.change(|state| state.accepts = usize::MAX);
    settle().await;
    // As before: one frame is on its way to the stream already.
    assert_eq!(peer.state().requests.len(), 2);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(peer.state().requests.len(), 2);
    peer.state().writes.clear();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(peer.state().writes, [3 * size]);
}

#[tokio::test]
async fn what_a_failed_write_offered_may_have_been_sent() {
    for (is_vectored, sent) in [(true, 3), (false, 1)] {
        let (peer, notes) = (Peer::new(), Notes::new());
        let connection = open(&peer).await;
        peer.change(|state| {
            (state.fails_writes, state.is_vectored) = (Some(io::ErrorKind::BrokenPipe), is_vectored);
        });
        for token in 0..3 {
            submit(&connection, &notes, token).unwrap();
        }
        settle().await;
        assert!(notes.failed().into_iter().eq((0..3).map(|token| (token, token < sent))), "{notes:?}");
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_has_just_ended_was_not_sent() {
    let (peer, notes) = (Peer::new(), Notes::new());
    let connection = open(&peer).await;
    peer.change(|state| state.end = Some(Ok(())));
    submit(&connection, &notes, 0).unwrap();
    settle().await;
    assert_eq!((notes.failed(), &peer.state().requests), (vec![(0, false)], &vec![]));
}

/// Of how many of some requests a stream that accepts so many bytes may have some: of the first one that it
/// did not accept whole as well, which is offered until it does.
fn begun(accepted: usize, size: usize, requests: usize) -> usize {
    requests.min(accepted / size + 1)
}

#[tokio::test]
async fn a_connection_that_ends_at_any_byte_reports_what_may_have_been_sent() {
    let size = encoded(&open(&Peer::new()).await).size_in_bytes();
    for accepted in 0..=3 * size {
        let (peer, notes) = (Peer::new(), Notes::new());
        let connection = open(&peer).await;
        peer.change(|state| (state.is_answering, state.accepts) = (false, accepted));
        for token in 0..4 {
            submit(&connection, &notes, token).unwrap();
        }
        settle().await;
        connection.close();
        settle().await;
        let sent: Vec<_> = notes.failed().into_iter().map(|(_, sent)| sent).collect();
        let begun = begun(accepted, size, 4);
        assert!(sent.iter().copied().eq((0..4).map(|token| token < begun)), "{accepted}: {sent:?}");
    }
}

#[tokio::test]
async fn callers_that_leave_at_any_byte_leave_no_half_frame() {
    let size = encoded(&open(&Peer::new()).await).size_in_bytes();
    for accepted in 0..=3 * size {
        let peer = Peer::new();
        let connection = open(&peer).await;
        peer.change(|state| (state.is_answering, state.accepts) = (false, accepted));
        let call = |connection: Connection| async move {
            connection.call::<MetadataRequest>(encoded(&connection), CallOptions::default()).await
        };
        let calls = [(); 3].map(|()| tokio::spawn(call(connection.clone())));
        settle().await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        settle().await;
        peer.change(|state| state.accepts = usize::MAX);
        settle().await;
        let sent = peer.state().requests.len();
        assert_eq!(sent, begun(accepted, size, 3), "{accepted}");
        peer.answer(sent);
        peer.state().is_answering = true;
        call(connection.clone()).await.unwrap();
        assert_eq!(peer.state().requests.len(), sent + 1);
    }
}
