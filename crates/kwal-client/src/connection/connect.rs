//! Opening a connection: credentials, name and proxy, stream, TLS, versions, SASL, within one time limit.

use std::{fmt, sync::Arc, sync::Mutex, time::Duration};

use kwal_protocol::connection::ConnectionConfig;
use kwal_transport::{HostPort, TransportError};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use super::{Connection, Reauthentication};
use crate::{
    config::Config,
    error::{Error, ErrorKind},
    random::Random,
};

/// Opens a connection to a broker. Its errors have no context yet.
pub(crate) async fn connect(
    address: &HostPort,
    config: &Config,
    random: &Random,
    runtime: &Handle,
) -> Result<Connection, Error> {
    let limit = config.deadlines.connect;
    let begun = Instant::now();
    let left = || limit.saturating_sub(begun.elapsed());
    // Credentials come first: without them a connection would be useless.
    let sasl = match &config.sasl {
        Some(sasl) => Some((sasl.begin(limit).await?, sasl.clone())),
        None => None,
    };
    let stream = match timeout(left(), config.connect.connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => return Err(Arc::new(source).into()),
        Err(_) => {
            let source = TimedOut { limit, route: config.route.clone() };
            return Err(Arc::new(TransportError::other(address.clone(), source)).into());
        }
    };
    if let Some((mechanism, sasl)) = &sasl
        && !sasl.may_use(stream.is_encrypted())
    {
        return Err(ErrorKind::EncryptionRequired { mechanism: mechanism.name().to_owned() }.into());
    }
    let connection_config = ConnectionConfig {
        client_id: Some(config.client_id.clone()),
        max_frame_len: config.limits.frame,
        request_timeout: config.deadlines.request,
        handshake_timeout: left(),
        ..ConnectionConfig::default()
    };
    let sasl = sasl.map(|(mechanism, sasl)| {
        let longest_request = config.deadlines.request;
        let rng = Mutex::new(random.fork());
        (mechanism, Reauthentication { sasl, longest_request, limit, rng })
    });
    Connection::open(stream, connection_config, sasl, runtime).await.map_err(|error| match error {
        Some(source) => source.into(),
        None => ErrorKind::Closed.into(),
    })
}

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
