//! Requests on one open connection: what goes in is encoded, what comes back is decoded or an error.

use std::{io, sync::Arc, time::Duration};

use kwal_protocol::{
    api::{ApiKey, Versions},
    connection::{
        CallError, ConnectionError, EncodedRequest, ProduceTemplate, RawResponse, ResponseProgress,
    },
    messages::ProduceRequest,
};
use tokio::time::Instant;

use super::{Broker, Closed, PooledConnection};
use crate::{
    connection::{
        CallOptions, Connection, FailureReason, NotSubmitted, Recipient, RequestFailed, Room, WaitPermit,
    },
    error::{CallContext, Error, ErrorKind, Outcome},
    versions::ClientRequest,
};

/// No broker is set to accept less than this, in bytes.
const SUSPECT: usize = 64 << 10;
/// A broker that rejects a request for its size closes the connection when it has read the length.
const AT_ONCE: Duration = Duration::from_secs(2);

/// An open connection, ready for requests.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(super) pooled: Arc<PooledConnection>,
    pub(super) connection: Connection,
}

/// A request that has been submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// The size of the request in bytes.
    pub(crate) size: usize,
    /// When it was submitted.
    pub(crate) begun: Instant,
}

/// A request that has not been submitted. Its recipient gets no response.
#[derive(Debug)]
pub(crate) enum SubmitError {
    /// The queue of the connection has no room; see [`Channel::room`].
    Full,
    /// The request cannot be sent, or not on this connection.
    Failed(Error),
}

impl Channel {
    /// Returns the broker at the other end.
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.pooled.broker
    }

    /// Returns the version in which requests of an API are sent, if one of the supported versions is common.
    pub(crate) fn version(&self, api: ApiKey, supported: Versions) -> Option<i16> {
        self.connection.versions().negotiate(api, supported).ok()
    }

    /// Returns how long the broker may wait before it answers the next request; see [`Connection::wait`].
    pub(crate) fn wait(&self, wanted: Duration) -> Arc<WaitPermit> {
        self.connection.wait(wanted)
    }

    /// Sends a request and decodes the response.
    ///
    /// The outcome counts as unknown from the moment the bytes are handed to the stream until a response
    /// arrives. `closed` is what became of the attempt before this one.
    pub(crate) async fn call<R: ClientRequest>(
        &self,
        request: &R,
        call: CallContext<'_>,
        versions: Versions,
        options: CallOptions,
        closed: &Closed,
    ) -> Result<R::Response, Error> {
        let encoded = self.encode(request, call, versions)?;
        let sent = Sent { size: encoded.size_in_bytes(), begun: Instant::now() };
        let result = self.connection.call::<R>(encoded, options).await;
        self.decode::<R>(call, &self.received::<R>(call, sent, closed, result)?)
    }

    /// Submits a request without waiting. The recipient gets the response in the task of the connection;
    /// [`received`](Self::received) interprets it.
    ///
    /// Requests are sent in the order in which they were submitted. If the deadline is over before a throttle
    /// is, the request is not sent.
    ///
    /// # Errors
    /// [`SubmitError::Full`] if the queue has no room: wait for [`room`](Self::room) first.
    /// [`SubmitError::Failed`] if the connection is closed.
    pub(crate) fn submit<R: ClientRequest>(
        &self,
        request: EncodedRequest,
        call: CallContext<'_>,
        deadline: Option<Instant>,
        (recipient, token): (Arc<dyn Recipient>, u64),
        room: Option<Room>,
    ) -> Result<(), SubmitError> {
        match self.connection.submit::<R>(request, deadline, recipient, token, room) {
            Ok(()) => Ok(()),
            Err(NotSubmitted::Full) => Err(SubmitError::Full),
            Err(NotSubmitted::Closed) => {
                self.broker().mark_unhealthy();
                let error = Error::from(ConnectionError::Closed);
                Err(SubmitError::Failed(error.with_context(call.at_broker(self.broker()))))
            }
        }
    }

    /// Whether both are on the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.connection.is(&other.connection)
    }

    /// Waits in turn for room in the queue of the connection; `None` if it is closed.
    pub(crate) async fn room(&self) -> Option<Room> {
        self.connection.room().await
    }

    fn encode<R: ClientRequest>(
        &self,
        request: &R,
        call: CallContext<'_>,
        versions: Versions,
    ) -> Result<EncodedRequest, Error> {
        let encoded = self.connection.versions().encode(request, versions);
        encoded.map_err(|error| self.not_encoded(call, error))
    }

    /// Encodes a request to append but for the records of its partition.
    pub(crate) fn template(
        &self,
        request: ProduceRequest,
        call: CallContext<'_>,
        versions: Versions,
    ) -> Result<ProduceTemplate, Error> {
        let template = self.connection.versions().produce_template(request, versions);
        template.map_err(|error| self.not_encoded(call, error))
    }

    /// Returns the error of a request that cannot be encoded for the broker.
    pub(crate) fn not_encoded(&self, call: CallContext<'_>, error: CallError) -> Error {
        let context = call.at_broker(self.broker());
        match error {
            CallError::Unsupported { ours, theirs, .. } => {
                Error::new(ErrorKind::Unsupported { ours, theirs }).with_context(context)
            }
            error => Error::invalid_input(format!("{context}: {error}")),
        }
    }

    /// Turns the reason why there is no response, if there is none, into an error. `closed` is what became of
    /// the attempt before this one.
    pub(crate) fn received<R: ClientRequest>(
        &self,
        call: CallContext<'_>,
        sent: Sent,
        closed: &Closed,
        result: Result<RawResponse, RequestFailed>,
    ) -> Result<RawResponse, Error> {
        match result {
            Ok(response) => {
                closed.clear();
                Ok(response)
            }
            Err(failed) => Err(self.failed::<R>(call, sent, closed, failed)),
        }
    }

    /// Decodes a response.
    pub(crate) fn decode<R: ClientRequest>(
        &self,
        call: CallContext<'_>,
        response: &RawResponse,
    ) -> Result<R::Response, Error> {
        let decoded = response.decode::<R>();
        decoded
            .map_err(|source| unknown::<R>(Error::from(source).with_context(call.at_broker(self.broker()))))
    }

    /// Turns the reason why there is no response into an error.
    pub(super) fn failed<R: ClientRequest>(
        &self,
        call: CallContext<'_>,
        Sent { size, begun }: Sent,
        closed: &Closed,
        RequestFailed { reason, sent, was_next }: RequestFailed,
    ) -> Error {
        let broker = self.broker();
        // Only the request that the broker was to answer next can be the reason why it closed the connection.
        let before = if sent && !was_next { None } else { closed.take() };
        let error = match reason {
            FailureReason::Throttled(remaining) => ErrorKind::Throttled { remaining }.into(),
            FailureReason::Incomplete(ResponseProgress { arrived, len }) => {
                ErrorKind::ResponseIncomplete { arrived, len }.into()
            }
            // A request is only withdrawn when nobody is left to get this.
            FailureReason::Withdrawn | FailureReason::Shutdown => ErrorKind::Closed.into(),
            FailureReason::Connection(source) => {
                broker.mark_unhealthy();
                let is_suspect = was_next && size >= SUSPECT && begun.elapsed() < AT_ONCE;
                match is_suspect && closed_by_peer(&source) && closed.again(before, broker) {
                    true => ErrorKind::RequestTooLarge { size }.into(),
                    false => Error::from(source),
                }
            }
        };
        let error = error.with_context(call.at_broker(broker));
        if sent { unknown::<R>(error) } else { error }
    }
}

/// The outcome of a request that may have reached the broker.
fn unknown<R: ClientRequest>(error: Error) -> Error {
    match R::KEY.changes_something() {
        true => error.with_outcome(Outcome::Unknown),
        false => error,
    }
}

/// Whether the peer closed the connection, as brokers do without a word with a request that is too large.
fn closed_by_peer(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::PeerClosed { .. } => true,
        ConnectionError::Io { source, .. } => source.kind() != io::ErrorKind::TimedOut,
        _ => false,
    }
}
