//! What the connections of a wire share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kwal_protocol::api::ApiKey;
use kwal_transport::{Connect, HostPort};
use tokio::sync::watch;

use super::frame::{Decision, Direction, Frame, Hook};
use crate::cluster::Connections;

/// How a [`Wire`](super::Wire) treats connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WireMode {
    /// Passes everything on. The default.
    Passing,
    /// Reads nothing from clients, so their writes block once buffers are full. Responses still pass.
    Stalled,
    /// Reads and discards what clients send, for the rest of the connection. New connections are accepted.
    Deaf,
    /// As [`Deaf`](Self::Deaf), and new connections are never established.
    Unreachable,
}

pub(super) struct Inner {
    pub(super) connector: Arc<dyn Connect>,
    pub(super) modes: watch::Sender<Modes>,
    /// How often [`Wire::release`](super::Wire::release) was called.
    pub(super) released: watch::Sender<u64>,
    pub(super) hooks: Mutex<Hooks>,
    pub(super) counts: Mutex<Counts>,
}

/// The modes of single hosts, and that of all others.
#[derive(Clone, Debug)]
pub(super) struct Modes {
    pub(super) hosts: BTreeMap<String, WireMode>,
    pub(super) others: WireMode,
}

#[derive(Default)]
pub(super) struct Hooks {
    pub(super) requests: Vec<Hook>,
    pub(super) responses: Vec<Hook>,
    pub(super) rewrites: BTreeMap<ApiKey, Hook>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: Connections,
    pub(super) hosts: BTreeMap<String, HostCounts>,
    pub(super) requests: BTreeMap<ApiKey, u64>,
    pub(super) responses: BTreeMap<ApiKey, u64>,
}

#[derive(Debug, Default)]
pub(super) struct HostCounts {
    pub(super) attempts: usize,
    pub(super) connections: Connections,
}

impl Inner {
    /// Counts a frame and runs the hooks.
    ///
    /// Returns their decision, and the bytes of the frame, which they may have replaced.
    pub(super) fn decide(&self, direction: Direction, mut frame: Frame) -> (Decision, Bytes) {
        let mut counts = self.counts();
        let count = match direction {
            Direction::Request => &mut counts.requests,
            Direction::Response => &mut counts.responses,
        };
        *count.entry(frame.api).or_default() += 1;
        drop(counts);
        let mut hooks = self.hooks();
        let Hooks { requests, responses, rewrites } = &mut *hooks;
        let (hooks, rewrite) = match direction {
            Direction::Request => (requests, None),
            Direction::Response => (responses, rewrites.get_mut(&frame.api)),
        };
        for hook in hooks.iter_mut().chain(rewrite) {
            match hook.decide(&frame) {
                Decision::Pass => {}
                Decision::Replace(bytes) => frame.bytes = bytes,
                other => return (other, frame.bytes),
            }
        }
        (Decision::Pass, frame.bytes)
    }

    /// Counts a connection that opens; returns its number.
    pub(super) fn opened(&self, to: &HostPort) -> u64 {
        let mut counts = self.counts();
        counts.connections.add();
        counts.hosts.entry(to.host.clone()).or_default().connections.add();
        counts.connections.accepted as u64
    }

    pub(super) fn closed(&self, to: &HostPort) {
        let mut counts = self.counts();
        counts.connections.open -= 1;
        counts.hosts.entry(to.host.clone()).or_default().connections.open -= 1;
    }

    pub(super) fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Modes {
    pub(super) fn of(&self, to: &HostPort) -> WireMode {
        self.hosts.get(&to.host).copied().unwrap_or(self.others)
    }
}
