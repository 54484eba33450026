//! A request on its way to its response.

use bytes::Bytes;
use kwal_protocol::{
    api::{ApiKey, Request},
    error::DecodeError,
    reader::Reader,
    wire::Version,
};

use super::node::Connected;
use crate::fault::Fault;

/// Decodes the body of a request as brokers do: bytes after its end are ignored.
pub(crate) fn decode<R: Request>(body: &Bytes, version: Version) -> Result<R, DecodeError> {
    R::read(&mut Reader::new(body), version)
}

/// A request on its way to its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestContext {
    pub(super) from: Connected,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// The size of its body in bytes.
    pub(super) size: usize,
    /// Its client id, if there are quotas.
    pub(super) client: Option<ClientId>,
    pub(super) fault: Fault,
}

/// A request without a reply so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) node: i32,
    pub(super) api: ApiKey,
    /// It has appended a batch.
    pub(super) appended: bool,
    /// If the connection ends, a fault is the reason.
    pub(super) faulty: bool,
}

/// A client id, by its index in [`Cluster::clients`](super::state::Cluster::clients).
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientId(pub(super) usize);
