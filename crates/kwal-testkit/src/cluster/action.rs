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
    /// Send a frame after `delay`, in some mode; then read nothing for as long as `mute`.
    Reply { frame: Frame, delay: Duration, mode: ReplyMode, mute: Duration },
    /// Send nothing; then read nothing for as long as `mute`.
    Nothing { mute: Duration },
    /// Ask [`Cluster::resume`](super::Cluster::resume) later.
    Wait(Waiting),
    /// Close the connection.
    Close(CloseReason),
    /// Never answer anything any more, and leave the connection open.
    Ignore,
}

/// How an answer goes out.
#[derive(Debug)]
pub(crate) enum ReplyMode {
    Whole,
    /// Only so many bytes; then the connection is closed.
    Truncated(usize),
    /// So many bytes at a time, with a pause before each but the first.
    Trickle {
        bytes: usize,
        pause: Duration,
    },
    /// These bytes go out in its place.
    Garbage(Bytes),
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) until: Instant,
    /// A change may end the wait earlier; else only time does.
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
    #[error("{api} is not spoken at version {version}")]
    Unsupported { api: ApiKey, version: i16 },
    #[error("a request of {api} at version {version} is malformed")]
    Body {
        api: ApiKey,
        version: i16,
        #[source]
        error: DecodeError,
    },
    #[error("a response of {api} cannot be written")]
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
