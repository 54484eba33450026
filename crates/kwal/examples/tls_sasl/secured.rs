//! An embedded broker with a user, and TLS in front of it.

use std::sync::Arc;

use kwal::transport::{HostPort, tls};
use kwal_testkit::{EmbeddedCluster, Sasl};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    spawn,
};
use tokio_rustls::TlsAcceptor;

use super::{Listener, Result};

/// The certificate of the broker, for 127.0.0.1, which is its own CA, and its key.
const CERTIFICATE: &[u8] = include_bytes!("broker.pem");
const KEY: &[u8] = include_bytes!("broker.key");

/// Starts a broker that runs as long as its handle lives.
pub(crate) async fn start(user: &str, password: &str) -> Result<(Listener, EmbeddedCluster)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = HostPort::from(listener.local_addr()?);
    let sasl = Sasl::new().user(user, password).mechanisms(&["SCRAM-SHA-512"]);
    // Clients connect to the address that a broker advertises: that of the listener with TLS.
    let cluster = EmbeddedCluster::builder().sasl(sasl).advertised(1, address.clone()).start().await?;
    let provider = Arc::clone(tls::ring().roots_pem(CERTIFICATE).build()?.crypto_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE)?],
            PrivateKeyDer::from_pem_slice(KEY)?,
        )?;
    spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), cluster.address(1)?));

    let (brokers, ca) = (vec![address.to_string()], CERTIFICATE.to_vec());
    Ok((Listener { brokers, ca, user: user.to_owned(), password: password.to_owned() }, cluster))
}

/// Decrypts what clients send, and passes it on to the broker.
async fn accept(listener: TcpListener, tls: TlsAcceptor, broker: HostPort) {
    while let Ok((client, _)) = listener.accept().await {
        let (tls, broker) = (tls.clone(), broker.clone());
        spawn(async move {
            let mut client = tls.accept(client).await?;
            let mut broker = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
            copy_bidirectional(&mut client, &mut broker).await
        });
    }
}
