//! The large buffers that a client uses again, and their end when it is idle.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kwal_protocol::buffers::Buffers;
use tokio::{runtime::Handle, time::sleep};

/// A buffer that is not used for so long, and at most for twice as long, is freed.
const IDLE: Duration = Duration::from_secs(5);

/// The buffers of a client. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ClientBuffers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    buffers: Buffers,
    runtime: Handle,
    /// Whether a task frees those that are not used.
    is_swept: AtomicBool,
}

impl ClientBuffers {
    /// `limit` is in bytes, of buffers that are kept and of those that are in use.
    pub(crate) fn new(limit: usize, runtime: Handle) -> Self {
        let is_swept = AtomicBool::new(false);
        Self(Arc::new(Shared { buffers: Buffers::new(limit), runtime, is_swept }))
    }

    /// Returns the buffers, for those who [watch](Self::watch) them afterwards.
    pub(crate) fn get(&self) -> &Buffers {
        &self.0.buffers
    }

    /// Sees to it that buffers are freed some time after their last use. It is called after bytes of this
    /// size have been shared, or given back.
    ///
    /// There is a task for it only while buffers are used or kept.
    pub(crate) fn watch(&self, bytes: usize) {
        // The buffer may have a little more than what it was lent for.
        let is_kept = bytes >= Buffers::SMALLEST / 2;
        let Shared { runtime, is_swept, .. } = &*self.0;
        // Most calls only have to look.
        if is_kept && !is_swept.load(Ordering::SeqCst) && !is_swept.swap(true, Ordering::SeqCst) {
            runtime.spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

/// Frees the buffers that are not used, until there are none, or no client.
async fn sweep(shared: Weak<Shared>) {
    loop {
        sleep(IDLE).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.buffers.sweep() {
            continue;
        }
        shared.is_swept.store(false, Ordering::SeqCst);
        // What came meanwhile was not watched, as this task still was there.
        let is_used = shared.buffers.kept_bytes() + shared.buffers.shared_bytes() > 0;
        if !is_used || shared.is_swept.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[tokio::test(start_paused = true)]
    async fn buffers_are_freed_when_they_are_idle() {
        let buffers = ClientBuffers::new(1 << 20, Handle::current());
        buffers.watch(100);
        assert_eq!(tasks(), 0);
        for _ in 0..2 {
            let bytes = buffers.get().copy(&[1; 100_000]);
            buffers.watch(bytes.len());
            buffers.watch(bytes.len());
            assert_eq!(tasks(), 1);
            // As long as a slice is there.
            sleep(10 * IDLE).await;
            assert!(buffers.get().shared_bytes() >= 100_000);
            drop(bytes);
            sleep(IDLE / 2).await;
            assert!(buffers.get().kept_bytes() >= 100_000);
            sleep(2 * IDLE).await;
            assert_eq!((buffers.get().kept_bytes(), tasks()), (0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn buffers_in_use_are_kept() {
        let buffers = ClientBuffers::new(1 << 20, Handle::current());
        for _ in 0..20 {
            drop(buffers.get().copy(&[1; 100_000]));
            buffers.watch(100_000);
            sleep(IDLE / 2).await;
            assert!(buffers.get().kept_bytes() >= 100_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_client() {
        let buffers = ClientBuffers::new(1 << 20, Handle::current());
        let bytes = buffers.get().copy(&[1; 100_000]);
        buffers.watch(bytes.len());
        drop(buffers);
        sleep(2 * IDLE).await;
        assert_eq!((tasks(), bytes.len()), (0, 100_000));
    }
}
