//! What a connection does about a request.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error::{DecodeError, EncodeError},
    writer::Frame,
};

use super::{node::Connected, state::Cluster};
use crate::fault::Fault;

/// What a connection does about a request.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a frame after `delay`; then read nothing for the time of `mute`.
    Reply { frame: Frame, delay: Duration, mode: ReplyMode, mute: Duration },
    /// Send nothing; then read nothing for the time of `mute`.
    Nothing { mute: Duration },
    /// Call [`Cluster::resume`](super::Cluster::resume) later.
    Wait(Waiting),
    /// Close the connection.
    Close(CloseReason),
    /// Never answer this or any later request, and leave the connection open.
    Ignore,
}

/// How a reply is sent.
#[derive(Debug)]
pub(crate) enum ReplyMode {
    Whole,
    /// Only this many bytes; then the connection is closed.
    Truncated(usize),
    /// In pieces, with a pause before each but the first.
    Trickle {
        bytes: usize,
        pause: Duration,
    },
    /// These bytes in its place.
    Garbage(Bytes),
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) until: Instant,
    /// Whether a change of the cluster may end the wait earlier.
    pub(crate) wakes_on_change: bool,
    pub(super) from: Connected,
    pub(super) resume: Continuation<Action>,
}

/// The rest of a request that waits.
pub(super) struct Continuation<T>(Box<dyn FnOnce(&mut Cluster) -> T + Send>);

impl<T> Continuation<T> {
    pub(super) fn new(resume: impl FnOnce(&mut Cluster) -> T + Send + 'static) -> Self {
        Self(Box::new(resume))
    }

    pub(super) fn run(self, cluster: &mut Cluster) -> T {
        (self.0)(cluster)
    }
}

impl<T> fmt::Debug for Continuation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Continuation").finish_non_exhaustive()
    }
}

/// Why a broker closes a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the header of a request is malformed")]
    Header(#[source] DecodeError),
    #[error("{api} version {version} is not supported")]
    Unsupported { api: ApiKey, version: i16 },
    #[error("the {api} request of version {version} is malformed")]
    Body {
        api: ApiKey,
        version: i16,
        #[source]
        error: DecodeError,
    },
    #[error("the {api} response cannot be encoded")]
    Response {
        api: ApiKey,
        #[source]
        error: EncodeError,
    },
    #[error("a produce request with acks = 0 failed")]
    AcksZero,
    #[error("a produce request has null instead of records")]
    NoRecords,
    #[error("{0}")]
    Sasl(&'static str),
    #[error("{0:?}")]
    Fault(Fault),
    #[error("the broker has closed the connection")]
    Ended,
}
