//! How a read of records is sent: within the memory budget, and in one request with others.

use std::sync::Arc;

use kwal_protocol::{
    api::{Request, Versions},
    messages::{FetchRequest, FetchResponse},
};

use super::{Opened, Target, Trace, Tracker};
use crate::{
    cluster::Cluster,
    error::{CallContext, Error, Progress},
    memory::Reservation,
    pool::{Channel, PartitionFetch},
};

/// A read of records.
#[derive(Debug)]
pub(crate) struct Fetching<'a, R: Request> {
    /// The most that the response is requested to have, in bytes.
    bytes: usize,
    /// Whether it may be combined with others: not if the broker waits for more than the first record.
    may_be_combined: bool,
    /// Memory that was reserved before.
    ahead: Option<&'a Arc<Reservation>>,
    request: fn(&R) -> FetchRequest,
    response: fn(FetchResponse) -> R::Response,
}

impl<'a> Fetching<'a, FetchRequest> {
    pub(crate) fn new(max_bytes: i32, min_bytes: i32, ahead: Option<&'a Arc<Reservation>>) -> Self {
        Self {
            bytes: usize::try_from(max_bytes).unwrap_or_default(),
            may_be_combined: min_bytes <= 1,
            ahead,
            request: FetchRequest::clone,
            response: |response| response,
        }
    }
}

impl<R: Request> Fetching<'_, R> {
    /// Opens the connection to a target, and reserves memory for the response, unless the fetch is combined
    /// with others: then they all need only one.
    pub(super) async fn open(
        &self,
        cluster: &Cluster,
        target: Target<'_>,
        call: CallContext<'_>,
        min_generation: u64,
        trace: &mut Trace,
        tracker: &Tracker,
    ) -> Result<(Opened, Option<Arc<Reservation>>), Error> {
        let mut memory = self.ahead.cloned();
        loop {
            let opened = Opened::open(cluster, target, call, min_generation, trace, tracker).await?;
            if self.is_combined(&opened.channel) {
                return Ok((opened, None));
            }
            let reserved =
                memory.take().or_else(|| cluster.memory.try_reserve_read(self.bytes).map(Arc::new));
            if let Some(memory) = reserved {
                // That of an earlier attempt has been corrected to its response.
                memory.correct(self.bytes);
                return Ok((opened, Some(memory)));
            }
            tracker.set(Progress::Memory, None);
            // The connection may be another one by then.
            memory = Some(Arc::new(cluster.memory.reserve_read(self.bytes).await));
        }
    }

    pub(super) fn is_combined(&self, channel: &Channel) -> bool {
        self.may_be_combined && channel.combines_fetches()
    }

    /// Sends a request in one with those of others. Returns the response, and the memory that it holds.
    pub(super) async fn send(
        &self,
        cluster: &Cluster,
        channel: &Channel,
        request: &R,
        (wait, version): (std::time::Duration, i16),
        (call, trace): (CallContext<'_>, &Trace),
        tracker: &Tracker,
    ) -> Result<(R::Response, Option<Arc<Reservation>>), Error> {
        let fetch = PartitionFetch {
            request: (self.request)(request),
            versions: Versions::new(version, version),
            wait,
            deadline: trace.deadline,
            memory: self.ahead.map(Arc::downgrade),
        };
        let waits_for_memory = |waits| match waits {
            true => tracker.set(Progress::Memory, None),
            false => tracker.sent(channel.broker()),
        };
        let sent = channel.fetch(&cluster.pool, fetch, call, &tracker.closed, waits_for_memory);
        let (response, memory) = sent.await?;
        Ok(((self.response)(response), memory))
    }
}
