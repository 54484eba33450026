//! Opening a connection: credentials, name and proxy, stream, TLS, versions, SASL, within one time limit.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use kwal_protocol::{
    connection::{ConnectionConfig, ConnectionError},
    error_code::Recovery,
    sasl::Mechanism,
};
use kwal_transport::{HostPort, TransportError};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{Connection, History, Peer, Reauthentication};
use crate::{
    config::Config,
    error::{Error, ErrorKind, Source},
    metrics::BrokerMetrics,
    random::Random,
    trouble::Troubles,
};

/// One of several addresses gets at most this part of the time limit, so that the last one has most of it.
const SHARE: u32 = 4;

/// Opens connections to one host and port.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) to: HostPort,
    pub(crate) history: Arc<History>,
    pub(crate) config: Arc<Config>,
    pub(crate) random: Random,
    pub(crate) runtime: Handle,
    pub(crate) troubles: Arc<Troubles>,
    pub(crate) metrics: BrokerMetrics,
}

impl Connector {
    /// Opens a connection. `paused_until` is the end of a throttle that is running. Its errors have no
    /// context yet.
    ///
    /// A name may have several addresses, and one that accepts a connection need not lead to a broker that
    /// works. So the next one is tried whatever fails, unless the broker rejects the credentials: asking each
    /// address would only lock the account.
    pub(crate) async fn connect(&self, paused_until: Option<Instant>) -> Result<Connection, Error> {
        let Self { to, config, .. } = self;
        let begun = Instant::now();
        let whole = config.deadlines.connect;
        let left = || whole.saturating_sub(begun.elapsed());
        // Credentials come first: without them a connection would be useless.
        let mut mechanism = self.mechanism(left()).await?;
        let mut addresses = match timeout(left(), config.connect.addresses(to)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(source)) => return Err(Arc::new(source).into()),
            Err(_) => return Err(self.timed_out(whole)),
        };
        self.history.sort(&mut addresses);
        let Some((last, others)) = addresses.split_last() else {
            return self.open(None, mechanism, (left(), whole), paused_until).await;
        };
        let mut failed = Vec::new();
        for address in others {
            let remaining = u32::try_from(addresses.len() - failed.len()).unwrap_or(u32::MAX);
            let share = (left() / remaining).min(whole / SHARE);
            match self.open(Some(*address), mechanism, (share, share), paused_until).await {
                Ok(connection) => return Ok(connection),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    debug!(%to, %address, error = ?error, "address failed");
                    failed.push((*address, error));
                }
            }
            mechanism = self.mechanism(left()).await?;
        }
        // A host's only address is the transport's to try, with the time limits that it has for one.
        let at = (!others.is_empty()).then_some(*last);
        match self.open(at, mechanism, (left(), whole), paused_until).await {
            Err(error) if !others.is_empty() && !is_final(&error) => {
                failed.push((*last, error));
                Err(self.none_of(failed))
            }
            result => result,
        }
    }

    async fn mechanism(&self, limit: Duration) -> Result<Option<Box<dyn Mechanism>>, Error> {
        match &self.config.sasl {
            Some(sasl) => sasl.begin(limit).await.map(Some),
            None => Ok(None),
        }
    }

    /// Connects to an address, or to whichever the transport chooses, and does the handshake. The limit is
    /// what is left of the whole that its error names.
    async fn open(
        &self,
        at: Option<SocketAddr>,
        mechanism: Option<Box<dyn Mechanism>>,
        (limit, whole): (Duration, Duration),
        paused_until: Option<Instant>,
    ) -> Result<Connection, Error> {
        let Self { to, history, config, random, runtime, troubles, metrics } = self;
        let begun = Instant::now();
        let stream = match at {
            Some(address) => config.connect.connect_at(to, address),
            None => config.connect.connect(to),
        };
        let stream = match timeout(limit, stream).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(Arc::new(source).into()),
            Err(_) => return Err(self.timed_out(whole)),
        };
        if let (Some(mechanism), Some(sasl)) = (&mechanism, &config.sasl)
            && !sasl.may_use(stream.is_encrypted())
        {
            return Err(ErrorKind::EncryptionRequired { mechanism: mechanism.name().to_owned() }.into());
        }
        let connection_config = ConnectionConfig {
            client_id: Some(config.client_id.clone()),
            max_frame_len: config.limits.frame,
            request_timeout: config.deadlines.request,
            handshake_timeout: limit.saturating_sub(begun.elapsed()),
            max_throttle: config.deadlines.throttle,
            admitted: history.is_admitted(),
            ..ConnectionConfig::default()
        };
        let sasl = mechanism.zip(config.sasl.clone()).map(|(mechanism, sasl)| {
            let Config { deadlines, .. } = &**config;
            let rng = Mutex::new(random.fork());
            let (longest_request, limit) = (deadlines.request, deadlines.connect);
            (mechanism, Reauthentication { sasl, longest_request, limit, rng })
        });
        let (history, troubles) = (Arc::clone(history), Arc::clone(troubles));
        let metrics = metrics.connection();
        let peer = Peer { name: to.clone(), history, troubles, address: at, paused_until, metrics };
        let opened = Connection::open(stream, connection_config, sasl, runtime, peer);
        let connection = opened.await.map_err(|error| match error {
            Some(source) => source.into(),
            None => Error::from(ErrorKind::Closed),
        })?;
        if let Some(address) = at {
            self.history.connected(address);
        }
        Ok(connection)
    }

    fn timed_out(&self, limit: Duration) -> Error {
        let source = TimedOut { limit, route: self.config.route.clone() };
        Arc::new(TransportError::other(self.to.clone(), source)).into()
    }

    /// Returns the error of several addresses: that of the last one if no retry would help at any of them.
    fn none_of(&self, mut failed: Vec<(SocketAddr, Error)>) -> Error {
        let is_permanent = failed.iter().all(|(_, error)| error.recovery() == Recovery::Fail);
        match failed.pop() {
            Some((_, last)) if is_permanent => last,
            last => {
                failed.extend(last);
                Arc::new(TransportError::other(self.to.clone(), NoneWorks(failed))).into()
            }
        }
    }
}

/// Whether another address of the same host would not help: it has the same settings, and the same accounts.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::EncryptionRequired { .. } | ErrorKind::Closed)
        || matches!(error.below(), Some(Source::Connection(ConnectionError::AuthenticationFailed { .. })))
}

/// Every address of a host, with its error.
#[derive(Debug)]
struct NoneWorks(Vec<(SocketAddr, Error)>);

impl fmt::Display for NoneWorks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (address, error)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {}", error.reason())?;
        }
        Ok(())
    }
}

impl std::error::Error for NoneWorks {}

/// A connection that was not there in time.
#[derive(Debug)]
struct TimedOut {
    limit: Duration,
    route: String,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {:?}{}", self.limit, self.route)
    }
}

impl std::error::Error for TimedOut {}
