//! A request on its way to its response.

use kwal_protocol::api::ApiKey;

use super::node::Connected;
use crate::fault::Fault;

/// A request on its way to its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestContext {
    pub(super) from: Connected,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// Of its body, in bytes.
    pub(super) size: usize,
    /// Its client's id, if quotas care.
    pub(super) client: Option<ClientId>,
    pub(super) fault: Fault,
}

/// A request that is to be answered, and what becomes of a client whose connection ends before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) node: i32,
    pub(super) api: ApiKey,
    /// Something was appended.
    pub(super) appended: bool,
    /// If the connection ends, it is not because the client had enough of it.
    pub(super) faulty: bool,
}

/// A client's id, by its place in [`Cluster::clients`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientId(pub(super) usize);
