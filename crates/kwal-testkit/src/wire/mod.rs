//! A [`Connect`] that sees, holds, cuts and rewrites the frames between a client and its brokers.
//!
//! A [`Wire`] wraps the connector that a client would use. It counts what passes, hands every frame to hooks,
//! which decide what becomes of it, and can stop whole connections.
//!
//! ```
//! use kwal_protocol::{
//!     api::{ApiKey, encode_request},
//!     messages::MetadataRequest,
//! };
//! use kwal_testkit::{
//!     EmbeddedCluster,
//!     wire::{Decision, Wire},
//! };
//! use kwal_transport::Connect;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = EmbeddedCluster::builder().brokers(3).start_in_memory()?;
//! let wire = Wire::new(cluster.connector());
//! // All brokers but the first disappear from metadata.
//! wire.rewrite::<MetadataRequest>(|response| response.brokers.truncate(1));
//! // Each append reaches the broker, and its response gets lost together with the connection.
//! wire.on_response(|frame| match frame.api {
//!     ApiKey::PRODUCE => Decision::Cut(0),
//!     _ => Decision::Pass,
//! });
//!
//! // Usually a client is given `wire.clone()` as its connector. Here a request is made by hand.
//! let mut stream = wire.connect(&cluster.address(1)?).await?;
//! stream.write_all_buf(&mut encode_request(&MetadataRequest::default(), 12, 1, None)?).await?;
//! let len = stream.read_u32().await?;
//! stream.read_exact(&mut vec![0; len as usize]).await?;
//! assert_eq!((wire.requests(ApiKey::METADATA), wire.responses(ApiKey::METADATA)), (1, 1));
//! assert_eq!(wire.connections().open, 1);
//! # Ok(())
//! # }
//! ```
//!
//! A wire has to see Kafka's frames in the clear, so TLS belongs between it and the brokers, as in
//! `Wire::new(Tls::new(…))`. A connection whose first bytes cannot be a frame, such as those of a TLS
//! handshake, is passed on as it is: it is counted, and hooks do not see it.

mod frame;
mod relay;
mod state;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use kwal_protocol::api::{ApiKey, Request};
use kwal_transport::{BoxFuture, Connect, HostPort, Stream, TransportError, memory};
use tokio::sync::watch;

use self::{
    frame::Hook,
    relay::relay,
    state::{Hooks, Inner, Modes},
};
pub use self::{
    frame::{Decision, Frame},
    state::WireMode,
};
use crate::cluster::Connections;

/// A connector that sees, holds, cuts and rewrites the frames that pass. Clones share everything.
///
/// See the [module](self) for an example.
#[derive(Clone)]
pub struct Wire(Arc<Inner>);

impl Wire {
    /// Wraps a connector.
    pub fn new(connector: impl Connect) -> Self {
        let modes = Modes { hosts: BTreeMap::new(), others: WireMode::Passing };
        Self(Arc::new(Inner {
            connector: Arc::new(connector),
            modes: watch::Sender::new(modes),
            released: watch::Sender::new(0),
            hooks: Mutex::default(),
            counts: Mutex::default(),
        }))
    }

    /// Calls `hook` for every request frame before it is passed on.
    ///
    /// Hooks run in the order in which they were added. Each sees the frame as the ones before have
    /// [replaced](Decision::Replace) it; any other decision than to pass or replace ends the sequence. A hook
    /// must not add or clear hooks of the same wire.
    pub fn on_request(&self, hook: impl FnMut(&Frame) -> Decision + Send + 'static) {
        self.0.hooks().requests.push(Hook::new(hook));
    }

    /// Calls `hook` for every response frame before it is passed on.
    ///
    /// Hooks run in the same way as those of [`on_request`](Self::on_request).
    ///
    /// A response whose correlation id belongs to no request passes without a hook seeing it.
    pub fn on_response(&self, hook: impl FnMut(&Frame) -> Decision + Send + 'static) {
        self.0.hooks().responses.push(Hook::new(hook));
    }

    /// Changes every response to requests of type `R`, after the hooks.
    ///
    /// It takes the place of an earlier rewrite of the same API.
    ///
    /// A response that cannot be decoded, or no longer be encoded, passes as it is.
    pub fn rewrite<R: Request>(&self, mut rewrite: impl FnMut(&mut R::Response) + Send + 'static) {
        let rewrite = move |frame: &Frame| match frame.response::<R>() {
            Some(mut response) => {
                rewrite(&mut response);
                frame.replace_response::<R>(&response)
            }
            None => Decision::Pass,
        };
        self.0.hooks().rewrites.insert(R::KEY, Hook::new(rewrite));
    }

    /// Removes all [rewrites](Self::rewrite).
    pub fn clear_rewrites(&self) {
        self.0.hooks().rewrites.clear();
    }

    /// Removes all hooks and rewrites.
    pub fn clear_hooks(&self) {
        *self.0.hooks() = Hooks::default();
    }

    /// Lets all frames pass that are on [hold](Decision::Hold) now.
    pub fn release(&self) {
        self.0.released.send_modify(|times| *times += 1);
    }

    /// Sets the mode of all connections, present and future.
    ///
    /// It replaces the modes of [single hosts](Self::set_at).
    pub fn set(&self, mode: WireMode) {
        self.0.modes.send_replace(Modes { hosts: BTreeMap::new(), others: mode });
    }

    /// Sets the mode of the connections to one host.
    pub fn set_at(&self, host: &str, mode: WireMode) {
        self.0.modes.send_modify(|modes| _ = modes.hosts.insert(host.to_owned(), mode));
    }

    /// Returns how many requests of an API clients have sent.
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.0.counts().requests.get(&api).copied().unwrap_or_default()
    }

    /// Returns how many responses of an API brokers have sent.
    pub fn responses(&self, api: ApiKey) -> u64 {
        self.0.counts().responses.get(&api).copied().unwrap_or_default()
    }

    /// Returns the number of connections to all hosts.
    pub fn connections(&self) -> Connections {
        self.0.counts().connections
    }

    /// Returns the number of connections to one host.
    pub fn connections_to(&self, host: &str) -> Connections {
        self.0.counts().hosts.get(host).map(|host| host.connections).unwrap_or_default()
    }

    /// Connects to one address of a host, or to whichever the connector chooses.
    async fn open(&self, to: &HostPort, at: Option<SocketAddr>) -> Result<Stream, TransportError> {
        self.0.counts().hosts.entry(to.host.clone()).or_default().attempts += 1;
        if self.0.modes.borrow().of(to) == WireMode::Unreachable {
            return std::future::pending().await;
        }
        let broker = match at {
            Some(address) => self.0.connector.connect_at(to, address).await?,
            None => self.0.connector.connect(to).await?,
        };
        let (client, here) = memory::pair(BUFFER);
        let client = Stream::new(client, broker.peer());
        let client = if broker.is_encrypted() { client.encrypted() } else { client };
        let number = self.0.opened(to);
        let (inner, to) = (Arc::clone(&self.0), to.clone());
        tokio::spawn(async move {
            if let Err(error) = relay(&inner, number, &to, here, broker).await {
                tracing::debug!(%to, number, error = &error as &dyn std::error::Error, "wire ended");
            }
            inner.closed(&to);
        });
        Ok(client)
    }

    /// Returns how often clients tried to connect to a host, successfully or not.
    pub fn attempts_to(&self, host: &str) -> usize {
        self.0.counts().hosts.get(host).map_or(0, |host| host.attempts)
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.open(to, None))
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        self.0.connector.addresses(to)
    }

    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(self.open(to, Some(address)))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("connector", &self.0.connector)
            .field("modes", &*self.0.modes.borrow())
            .field("counts", &*self.0.counts())
            .finish_non_exhaustive()
    }
}

/// How many bytes a client can write ahead of the relay.
const BUFFER: usize = 64 << 10;
