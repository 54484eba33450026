//! Every knob of a client, with its default and the reason for it.

use std::{sync::Arc, time::Duration};

use kwal_transport::{Connect, HostPort, Tcp};

use crate::{retry::RetryPolicy, sasl::Sasl};

/// What a [`ClientBuilder`](crate::ClientBuilder) collects.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) bootstrap: Vec<HostPort>,
    pub(crate) client_id: String,
    pub(crate) connect: Arc<dyn Connect>,
    /// How that goes, in words for who waited for a connection in vain.
    pub(crate) way: String,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) deadlines: Deadlines,
    pub(crate) limits: Limits,
    pub(crate) retry: RetryPolicy,
    pub(crate) seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: "kwal".to_owned(),
            connect: Arc::new(Tcp::default()),
            way: String::new(),
            sasl: None,
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            seed: None,
        }
    }
}

/// How long things may take. Every call of the client ends within its deadline, one way or the other.
///
/// ```
/// use std::time::Duration;
/// use kwal_client::Deadlines;
///
/// let patient = Deadlines { operation: Duration::from_secs(300), ..Deadlines::default() };
/// assert_eq!(patient.request, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadlines {
    /// A whole call with all that it retries, from its start to its result. Default 60 s.
    pub operation: Duration,
    /// One request, from its last byte written, and what is ahead of it on the connection answered, to its answer; what the
    /// broker itself waits for replicas is a little shorter, and the wait of a long poll comes on top. The time stands
    /// still while the broker throttles the connection. Default 10 s.
    pub request: Duration,
    /// Making a connection: something to authenticate with, name, proxy, stream, TLS, versions, authentication. Default
    /// 10 s.
    pub connect: Duration,
    /// How long a topic or partition that the brokers do not know is asked for again: right after it was made, not all of
    /// them know it. Default 5 s.
    pub unknown_topic: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            operation: Duration::from_secs(60),
            request: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            unknown_topic: Duration::from_secs(5),
        }
    }
}

/// How much memory things may take. Lengths are held against these before anything is reserved.
///
/// What kwal writes with its defaults, it reads with its defaults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The largest record batch to be appended, in bytes, before compression and after. Topics have a limit of their own,
    /// `max.message.bytes`, 1 MiB unless set. Default 16 MiB.
    pub batch: usize,
    /// The largest response frame, in bytes. Default 128 MiB.
    pub frame: usize,
    /// The largest record batch that is read, in bytes after decompression. Default 128 MiB.
    pub decompressed: usize,
    /// What all appends of a client that are waiting or under way may hold, in bytes. Further ones wait. Default 256 MiB.
    pub appends: usize,
    /// How many connections to one broker the partition clients share for appends, and as many again for reads; there is one
    /// more for all that is short. Default 16.
    ///
    /// A broker works on one request of a connection at a time, also while an append waits for its replicas or a fetch for
    /// records. Up to so many partition clients whose leader is the same broker have a connection of their own for appends,
    /// and one for reads from their first one on; further ones join where the fewest are. A connection that no partition
    /// client is on any more is closed.
    pub lanes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch: 16 << 20, frame: 128 << 20, decompressed: 128 << 20, appends: 256 << 20, lanes: 16 }
    }
}
