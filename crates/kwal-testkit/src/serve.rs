//! Connects sockets and clock to the [`Cluster`]: reads and writes frames, waits, and tells it the time.

use std::{
    io,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use kwal_protocol::writer::Frame;
use kwal_transport::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, copy, sink},
    sync::{Notify, futures::Notified},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cluster::{Action, Cluster, Connected, Now, ReplyMode},
    fault::Fault,
    sasl::{Sasl, SaslServer},
};

/// State shared by all connections.
///
/// `Notify` wakes waiting tasks in the order in which they began to wait, so that runs are reproducible.
#[derive(Debug)]
pub(crate) struct Shared {
    cluster: Mutex<Cluster>,
    /// Wakes waiting requests.
    changes: Notify,
    /// Wakes connections to check whether they are closed.
    closed: Notify,
    /// Wakes the timer task when an earlier event is planned.
    rescheduled: Notify,
    clock: Clock,
    max_frame_len: usize,
    /// `None` if clients do not authenticate.
    sasl: Option<Sasl>,
}

/// Tokio's clock, with milliseconds since the epoch.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_unix_ms: i64,
}

impl Clock {
    pub(crate) fn new(started_unix_ms: i64) -> Self {
        Self { started: Instant::now(), started_unix_ms }
    }

    pub(crate) fn now(&self) -> Now {
        let now = Instant::now();
        let passed = i64::try_from((now - self.started).as_millis()).unwrap_or(i64::MAX);
        Now { monotonic: now.into_std(), unix_ms: self.started_unix_ms.saturating_add(passed) }
    }
}

impl Shared {
    pub(crate) fn new(cluster: Cluster, clock: Clock, max_frame_len: usize, sasl: Option<Sasl>) -> Self {
        let (changes, closed, rescheduled) = (Notify::new(), Notify::new(), Notify::new());
        Self { cluster: Mutex::new(cluster), changes, closed, rescheduled, clock, max_frame_len, sasl }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Calls `act` with the cluster, then wakes everything that its changes concern.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut cluster = self.lock();
        cluster.advance(self.now());
        let before = cluster.next_event();
        let done = act(&mut cluster);
        let (changed, closed) = (cluster.take_changed(), cluster.take_closed());
        let rescheduled = cluster.next_event() != before;
        drop(cluster);
        for (notify, needed) in
            [(&self.closed, closed), (&self.changes, changed), (&self.rescheduled, rescheduled)]
        {
            if needed {
                notify.notify_waiters();
            }
        }
        done
    }

    /// Waits while a broker is paused.
    pub(crate) async fn until_running(&self, broker: i32) {
        loop {
            let changed = self.changes.notified();
            if !self.with(|cluster| cluster.is_paused(broker)) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the broker closes a connection.
    async fn until_closed(&self, connection: Connected) {
        loop {
            let closed = self.closed.notified();
            if !self.with(|cluster| cluster.is_open(connection)) {
                return;
            }
            closed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        // A panic in a test that holds the lock should not be hidden by others.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the planned events of a cluster when they are due.
pub(crate) async fn run_timers(shared: std::sync::Arc<Shared>) {
    loop {
        let rescheduled = shared.rescheduled.notified();
        let next = shared.with(|cluster| cluster.next_event());
        let due = async {
            match next {
                Some(next) => sleep_until(Instant::from_std(next)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = rescheduled => {}
            () = due => {}
        }
    }
}

/// Serves one connection until it is closed.
pub(crate) async fn serve(shared: &Shared, id: Connected, fault: Fault, stream: Stream) {
    let _guard = ConnectionGuard { shared, id };
    let (peer, connection) = (stream.peer().to_owned(), id.number);
    let mut serving = Connection {
        shared,
        id,
        sasl: SaslServer::default(),
        stream: BufReader::with_capacity(READ_BUFFER, stream),
    };
    tokio::select! {
        biased;
        () = shared.until_closed(id) => tracing::debug!(peer, connection, "closed by the broker"),
        end = serving.start(fault) => match end {
            Ok(()) => tracing::debug!(peer, connection, "the client has gone"),
            Err(error) => {
                tracing::debug!(peer, connection, error = &*error as &dyn std::error::Error, "connection closed");
            }
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    id: Connected,
    sasl: SaslServer,
    stream: BufReader<Stream>,
}

impl Connection<'_> {
    /// Starts with the fault of the connection.
    async fn start(&mut self, fault: Fault) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match fault {
            Fault::Drop | Fault::LoseReply => return Ok(()),
            Fault::BlackHole => {
                copy(&mut self.stream, &mut sink()).await?;
                return Ok(());
            }
            Fault::DelayRequest(delay) | Fault::DelayReply(delay) => pause(delay).await,
            _ => {}
        }
        self.run().await
    }

    /// Handles requests one at a time: the next one is read when the last is answered, as in Kafka.
    async fn run(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let shared = self.shared;
        while let Some(frame) = self.read_frame().await? {
            shared.until_running(self.id.node).await;
            // From before the request is handled, so that no change is missed.
            let mut changed = pin!(shared.changes.notified());
            let now = shared.now();
            let mut action = shared.with(|cluster| {
                match self.sasl.intercept(shared.sasl.as_ref(), cluster, self.id, now, &frame) {
                    Some(action) => action,
                    None => cluster.handle(self.id, now, frame),
                }
            });
            let mute = loop {
                match action {
                    Action::Wait(waiting) => {
                        wait_for_progress(waiting.until, waiting.wakes_on_change, changed.as_mut()).await;
                        shared.until_running(self.id.node).await;
                        changed.set(shared.changes.notified());
                        action = shared.with(|cluster| cluster.resume(shared.now(), waiting));
                    }
                    Action::Reply { frame, delay, mode, mute } => {
                        pause(delay).await;
                        shared.until_running(self.id.node).await;
                        self.write(frame, mode).await?;
                        break mute;
                    }
                    Action::Nothing { mute } => break mute,
                    Action::Close(reason) => return Err(reason.into()),
                    Action::Ignore => {
                        copy(&mut self.stream, &mut sink()).await?;
                        return Ok(());
                    }
                }
            };
            if self.sasl.is_over() {
                return Ok(());
            }
            shared.with(|cluster| cluster.reply_sent(self.id));
            pause(mute).await;
        }
        Ok(())
    }

    async fn write(&mut self, mut frame: Frame, mode: ReplyMode) -> io::Result<()> {
        let stream = self.stream.get_mut();
        match mode {
            ReplyMode::Whole => stream.write_all_buf(&mut frame).await?,
            ReplyMode::Garbage(bytes) => stream.write_all(&bytes).await?,
            ReplyMode::Truncated(bytes) => {
                stream.write_all_buf(&mut frame.take(bytes)).await?;
                stream.flush().await?;
                return Err(io::Error::other("the reply is cut off"));
            }
            ReplyMode::Trickle { bytes, pause: between } => {
                while frame.has_remaining() {
                    stream.write_all_buf(&mut (&mut frame).take(bytes)).await?;
                    stream.flush().await?;
                    pause(between).await;
                }
            }
        }
        self.stream.get_mut().flush().await
    }

    /// Reads the next frame without its length; `None` if the stream has ended before it.
    ///
    /// The frame has its own allocation, so that keeping a part of it keeps nothing else alive.
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
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the length of a frame is not within 0 to {limit}"),
            )
        })?;
        let mut frame = Vec::with_capacity(len.min(MAX_RESERVED));
        while frame.len() < len {
            if frame.len() == frame.capacity() {
                // No more than has arrived already.
                frame.reserve_exact(frame.len().min(len - frame.len()));
            }
            let room = frame.capacity().min(len) - frame.len();
            if self.stream.read_buf(&mut (&mut frame).limit(room)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(frame.into()))
    }
}

/// Waits until a time, or for a change if that may end the wait.
async fn wait_for_progress(
    until: std::time::Instant,
    wakes_on_change: bool,
    changed: Pin<&mut Notified<'_>>,
) {
    let time = sleep_until(Instant::from_std(until));
    match wakes_on_change {
        true => tokio::select! {
            biased;
            () = changed => {}
            () = time => {}
        },
        false => time.await,
    }
}

/// Tells the cluster when a connection ends.
struct ConnectionGuard<'a> {
    shared: &'a Shared,
    id: Connected,
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.shared.with(|cluster| cluster.close(self.id));
    }
}

/// Small requests take few reads; large ones bypass this buffer.
const READ_BUFFER: usize = 8 * 1024;
/// How many bytes are reserved before they have arrived.
const MAX_RESERVED: usize = 1 << 20;

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
