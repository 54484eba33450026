//! Ctrl-C and SIGTERM.

use std::{
    future,
    io::{self, IsTerminal as _, Write as _},
    process, thread,
};

use tokio::sync::{oneshot, watch};

use crate::exit::{Exit, Failure};

/// Reports Ctrl-C and SIGTERM. The first asks a command to stop; `append` still waits for what is in
/// flight. The second asks it not to wait for that, and the third ends the program at once.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    count: watch::Receiver<u8>,
}

impl Interrupt {
    /// Listens from now on. It takes a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let mut signals =
            Signals::new().map_err(|error| Failure::local("signals cannot be received", &error))?;
        let (counter, count) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                signals.next().await;
                // The terminal has written ^C where the cursor was.
                if io::stderr().is_terminal() {
                    let _ = writeln!(io::stderr());
                }
                counter.send_modify(|count| *count += 1);
                if *counter.borrow() >= 3 {
                    process::exit(Exit::Interrupted as i32);
                }
            }
        });
        Ok(Self { count })
    }

    /// Waits until the command is to stop.
    pub(crate) async fn stop(&self) {
        self.reached(1).await;
    }

    /// Waits until the command is not to wait any longer.
    pub(crate) async fn abandon(&self) {
        self.reached(2).await;
    }

    /// Whether the command is to stop.
    pub(crate) fn is_set(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Runs something until it is done or the command is to stop; it may be dropped at any await.
    pub(crate) async fn or<T, E: Into<Failure>>(
        &self,
        work: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.or_say("", work).await
    }

    /// The same for a change; the text says what may have become of it if it was dropped.
    pub(crate) async fn or_say<T, E: Into<Failure>>(
        &self,
        dropped: &str,
        work: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let work = work.into_future();
        tokio::select! {
            biased;
            () = self.stop() => Err(Failure::Interrupted(dropped.to_owned())),
            done = work => done.map_err(Into::into),
        }
    }

    /// Runs what blocks, on a thread of its own, until it is done or the command is to stop: then the thread
    /// is left behind.
    pub(crate) async fn or_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, done) = oneshot::channel();
        thread::spawn(move || {
            // Nobody waits any more after Ctrl-C.
            let _ = sender.send(work());
        });
        self.or(async { done.await.map_err(|_| Failure::Interrupted(String::new())) }).await
    }

    async fn reached(&self, wanted: u8) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= wanted).await.is_err() {
            // The listener has ended, with the runtime.
            future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
#[derive(Debug)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            future::pending::<()>().await;
        }
    }
}
