//! Where sockets meet the [`Cluster`]: connections are taken, frames read, waits waited for.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes};
use kwal_transport::{Stream, memory};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, copy, sink},
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::cluster::{Answer, Cluster, Now, Waiting};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    cluster: Mutex<Cluster>,
    /// Wakes fetches that wait.
    changes: watch::Sender<()>,
    /// Ends all connections.
    pub(crate) disconnect: watch::Sender<()>,
    clock: Clock,
    max_frame_len: usize,
    pub(crate) open: AtomicUsize,
    pub(crate) accepted: AtomicUsize,
}

/// Tokio's clock, also told as milliseconds since the epoch.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_unix_ms: i64,
}

impl Clock {
    pub(crate) fn new(started_unix_ms: i64) -> Self {
        Self { started: Instant::now(), started_unix_ms }
    }

    fn now(&self) -> Now {
        let now = Instant::now();
        let passed = i64::try_from((now - self.started).as_millis()).unwrap_or(i64::MAX);
        Now { monotonic: now.into_std(), unix_ms: self.started_unix_ms.saturating_add(passed) }
    }
}

impl Shared {
    pub(crate) fn new(cluster: Cluster, clock: Clock, max_frame_len: usize) -> Self {
        Self {
            cluster: Mutex::new(cluster),
            changes: watch::Sender::new(()),
            disconnect: watch::Sender::new(()),
            clock,
            max_frame_len,
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        }
    }

    /// The cluster, for a moment; then fetches that wait for what was done are woken.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut cluster = self.lock();
        let done = act(&mut cluster);
        let changed = cluster.take_changed();
        drop(cluster);
        if changed {
            self.changes.send_replace(());
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        // A panic in a test that holds the lock should not hide itself behind others.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Memory(memory::Listener),
}

impl Acceptor {
    pub(crate) async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::new(stream, peer.to_string()))
            }
            Self::Memory(listener) => Ok(listener.accept().await),
        }
    }
}

/// Serves one connection until it ends or is ended.
pub(crate) async fn serve(shared: &Shared, node: i32, stream: Stream) {
    let _open = Open::count(shared);
    let peer = stream.peer().to_owned();
    let mut disconnect = shared.disconnect.subscribe();
    let mut connection = Connection {
        shared,
        node,
        stream: BufReader::with_capacity(READ_BUFFER, stream),
        changes: shared.changes.subscribe(),
    };
    tokio::select! {
        biased;
        _ = disconnect.changed() => tracing::debug!(peer, "disconnected by the test"),
        end = connection.run() => match end {
            Ok(()) => tracing::debug!(peer, "the client has gone"),
            Err(error) => {
                tracing::debug!(peer, error = &*error as &dyn std::error::Error, "connection closed");
            }
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    node: i32,
    stream: BufReader<Stream>,
    changes: watch::Receiver<()>,
}

impl Connection<'_> {
    /// Request by request: the next one is read only when the answer to the last is out, as in Kafka.
    async fn run(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        while let Some(frame) = self.read_frame().await? {
            self.changes.mark_unchanged();
            let mut answer = self.shared.with(|cluster| cluster.handle(self.node, self.now(), frame));
            let mute = loop {
                match answer {
                    Answer::Wait(waiting) => {
                        self.wait(&waiting).await;
                        answer = self.shared.with(|cluster| cluster.resume(self.now(), waiting));
                    }
                    Answer::Reply { mut frame, delay, mute } => {
                        pause(delay).await;
                        self.stream.get_mut().write_all_buf(&mut frame).await?;
                        self.stream.get_mut().flush().await?;
                        break mute;
                    }
                    Answer::Nothing { mute } => break mute,
                    Answer::Close(reason) => return Err(reason.into()),
                    Answer::Ignore => {
                        copy(&mut self.stream, &mut sink()).await?;
                        return Ok(());
                    }
                }
            };
            pause(mute).await;
        }
        Ok(())
    }

    async fn wait(&mut self, waiting: &Waiting) {
        let time = sleep_until(Instant::from_std(waiting.until));
        match waiting.heeds_changes {
            true => tokio::select! {
                biased;
                _ = self.changes.changed() => {}
                () = time => {}
            },
            false => time.await,
        }
    }

    /// The next frame without its length; `None` if the peer has ended the connection in front of it.
    ///
    /// The frame gets memory of its own: what is kept of it keeps nothing else.
    async fn read_frame(&mut self) -> io::Result<Option<Bytes>> {
        let mut len = [0; 4];
        if self.stream.read(&mut len[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut len[1..]).await?;
        let len = i32::from_be_bytes(len);
        let len = usize::try_from(len).ok().filter(|len| *len <= self.shared.max_frame_len);
        let len = len.ok_or_else(|| {
            let limit = self.shared.max_frame_len;
            io::Error::new(io::ErrorKind::InvalidData, format!("a frame's length is not within 0 to {limit}"))
        })?;
        let mut frame = Vec::with_capacity(len.min(TRUSTED));
        while frame.len() < len {
            if frame.len() == frame.capacity() {
                // No more than what has come already.
                frame.reserve_exact(frame.len().min(len - frame.len()));
            }
            let room = frame.capacity().min(len) - frame.len();
            if self.stream.read_buf(&mut (&mut frame).limit(room)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(frame.into()))
    }

    fn now(&self) -> Now {
        self.shared.clock.now()
    }
}

/// Counts a connection for as long as it lives.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(&shared.open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Small requests come in few reads; what is larger goes past this buffer.
const READ_BUFFER: usize = 8 * 1024;
/// How many bytes are reserved on the word of a length alone.
const TRUSTED: usize = 1 << 20;

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
