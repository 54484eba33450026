use std::time::Duration;

/// Settings of a [`Connection`](super::Connection).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionConfig {
    /// The client id, which appears in the broker's logs, metrics and quotas. `None` sends null.
    pub client_id: Option<String>,
    /// The name of the client library, for the broker's metrics (KIP-511).
    ///
    /// It consists of letters, digits, `-` and `.`, and starts and ends with a letter or digit.
    pub client_software_name: String,
    /// The version of the client library; made of the same characters.
    pub client_software_version: String,
    /// The largest response to Fetch that is accepted, in bytes; 128 MiB by default.
    ///
    /// Other responses have lower limits: 64 KiB during the handshake, 16 MiB where a whole cluster is
    /// described (Metadata, DescribeConfigs, DescribeLogDirs, DescribeProducers and
    /// DescribeTopicPartitions), 4 MiB for all others, and never more than this one. Metadata of 100,000
    /// partitions takes up to 6.3 MB.
    ///
    /// The default is more than a broker accepts with its default settings (`socket.request.max.bytes`, 100
    /// MiB), and more than the 50 MiB that Kafka's consumers fetch at once.
    pub max_frame_len: usize,
    /// The number of requests that may be pending, queued or in flight; 1000 by default.
    ///
    /// A broker processes one request of a connection at a time.
    pub max_in_flight: usize,
    /// Time limit of one request, 10 s by default. Bytes of its response that arrive restart it, see
    /// [`handle_progress`](super::Connection::handle_progress).
    ///
    /// See also [`EncodedRequest::with_timeout`](super::EncodedRequest::with_timeout).
    ///
    /// A broker processes one request of a connection at a time. So the time of a request starts when it has
    /// been written and every earlier request on the connection has been answered. It is paused while the
    /// broker throttles.
    pub request_timeout: Duration,
    /// Time limit of the whole handshake, 10 s by default.
    pub handshake_timeout: Duration,
    /// The longest pause that the peer may demand by a throttle time, 60 s by default. Longer ones are cut to
    /// it: the protocol can express 24 days.
    pub max_throttle: Duration,
    /// Whether the peer has answered requests on an earlier connection with the same settings, so that a lack
    /// of SASL does not explain why it closes this one. False by default.
    pub admitted: bool,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            client_id: None,
            client_software_name: "kwal".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
            max_frame_len: 128 << 20,
            max_in_flight: 1000,
            request_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            max_throttle: Duration::from_secs(60),
            admitted: false,
        }
    }
}
