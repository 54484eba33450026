//! C4: errors of TLS and SOCKS5 end a call at once and name what to change.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_client::{ClientBuilder, Deadlines, error::ErrorKind};
use kwal_testkit::EmbeddedCluster;
use kwal_transport::{
    BoxFuture, Connect, HostPort, Stream, TransportError, memory,
    tls::{TlsBuilder, TlsConfigError, with_provider},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer, server::WebPkiClientVerifier,
};
use tokio::{io::copy_bidirectional, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::support::{broker, chain, log, record, timed};

#[tokio::test(start_paused = true)]
async fn a_client_works_over_tls_with_client_certificates() {
    let (broker, ca) = (broker(), Ca::new());
    let relay = Relay::of(&broker, ca.server(&broker, Some(&ca)));
    let partition =
        relay.builder(ca.client_with(&ca)).build().await.unwrap().partition_client("wal", 0).await.unwrap();
    let produced = partition.produce(record("a")).await.unwrap();
    assert_eq!(produced.offsets(), Some(0..1));
    assert_eq!(partition.fetch(0).await.unwrap().next_offset, 1);
    assert_eq!(log(&broker), ["a"]);
}

/// Before anything is sent, once and not for each broker, with the method that needs a change.
#[tokio::test(start_paused = true)]
async fn tls_files_that_cannot_be_used_are_an_error_of_build() {
    let (broker, ca) = (EmbeddedCluster::builder().brokers(3).start_in_memory().unwrap(), Ca::new());
    let directory = std::env::temp_dir().join(format!("kwal-no-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let empty = directory.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let tls = || with_provider(ring::default_provider());
    let missing = directory.join("missing.pem");
    for (tls, parts) in [
        (tls(), ["no roots are configured", "add the CA of the brokers by `roots_pem_file`"]),
        (
            tls().roots_pem_file(&missing),
            ["missing.pem: check the path given to `roots_pem_file`", "No such file"],
        ),
        (tls().roots_pem_file(&empty), ["empty.pem) contains no certificate", "given to `roots_pem_file`"]),
        (tls().roots_pem(""), ["contains no certificate", "given to `roots_pem`"]),
        (ca.client().client_pem_files(&missing, &empty), ["missing.pem", "`client_pem_files`"]),
        (
            ca.client().client_pem_files(&empty, &empty),
            ["empty.pem) contains no certificate", "`client_pem_files`"],
        ),
        (ca.client().client_pem("", ""), ["the client certificate (given in memory)", "`client_pem`"]),
    ] {
        let builder = ClientBuilder::new(broker.bootstrap()).connector(broker.connector());
        let (error, took) = timed(builder.tls(tls).build()).await;
        let (error, text) = match error {
            Err(error) => (error.clone(), error.to_string()),
            Ok(_) => panic!("{parts:?}"),
        };
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert!(!error.is_retriable() && took.is_zero(), "{error:?}");
        assert!(text.starts_with("the TLS configuration cannot be used: "), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {text}");
        assert!(!text.contains("broker-"), "{text}");
        assert!(error.cause().is_some_and(|cause| cause.is::<TlsConfigError>()), "{error:?}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_certificate_ends_the_call_at_once() {
    let (broker, ca, other) = (broker(), Ca::new(), Ca::named("another"));
    let relay = Relay::of(&broker, ca.server(&broker, None));
    let (error, took) = timed(relay.builder(other.client()).build()).await;
    let error = error.unwrap_err();
    assert_eq!(took, Duration::ZERO);
    let address = broker.bootstrap().remove(0);
    assert_eq!(
        chain(&error),
        format!(
            "Metadata at {address}: TLS with {address} failed: the certificate of the peer was \
             issued by a CA that is not trusted: add the CA's certificate to the roots"
        ),
    );
    assert!(!error.is_retriable());

    // The same for a client that has been connected before.
    let partition =
        relay.builder(ca.client()).build().await.unwrap().partition_client("wal", 0).await.unwrap();
    partition.produce(record("a")).await.unwrap();
    relay.change(Some(other.server(&broker, None)));
    let (error, took) = timed(partition.produce(record("b"))).await;
    let error = error.unwrap_err();
    assert!(chain(&error).contains("is not trusted"), "{}", chain(&error));
    assert!(took < Duration::from_secs(1) && !error.is_retriable(), "{took:?}");

    // When the certificate is trusted again, the client continues.
    relay.change(Some(ca.server(&broker, None)));
    partition.produce(record("c")).await.unwrap();
    assert_eq!(log(&broker), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_rejected_client_certificate_is_reported_at_once() {
    let (broker, ca, other) = (broker(), Ca::new(), Ca::named("another"));
    let relay = Relay::of(&broker, ca.server(&broker, Some(&ca)));
    for (client, text) in [
        (ca.client(), "certificate_required: it requires a client certificate, but none is configured"),
        (ca.client_with(&other), "unknown_ca: it does not accept the client certificate"),
    ] {
        let (error, took) = timed(relay.builder(client).build()).await;
        let error = error.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Connection), "{error:?}");
        assert!(chain(&error).ends_with(text), "{}", chain(&error));
        assert!(took < Duration::from_secs(1) && !error.is_retriable(), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mismatch_of_tls_and_plain_is_reported() {
    let (broker, ca) = (broker(), Ca::new());
    let relay = Relay::of(&broker, ca.server(&broker, None));
    let plain = ClientBuilder::new(broker.bootstrap()).connector(relay.clone());
    let error = plain.build().await.unwrap_err();
    assert!(
        chain(&error).ends_with("the peer speaks TLS: connect with TLS, or to a listener without it"),
        "{}",
        chain(&error)
    );
    assert!(!error.is_retriable());

    relay.change(None);
    let error = relay.builder(ca.client()).build().await.unwrap_err();
    assert!(
        chain(&error)
            .ends_with("the peer closed the connection in the TLS handshake: does this listener use TLS?"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_connecting_includes_the_tls_handshake() {
    let connect = Duration::from_secs(3);
    let deadlines = Deadlines::default().connect(connect);
    let builder = ClientBuilder::new(vec!["kafka:9093".to_owned()]).connector(SilentPeer::default());
    let (error, took) = timed(builder.deadlines(deadlines).tls(Ca::new().client()).build()).await;
    assert!(error.unwrap_err().to_string().contains("no connection within 3s with TLS"));
    assert!((connect..connect + Duration::from_millis(10)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_of_tls_settings_is_retried() {
    let (broker, ca) = (broker(), Ca::new());
    let relay = Relay::of(&broker, ca.server(&broker, None));
    let config = ca.client().build().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let client = ClientBuilder::new(broker.bootstrap())
        .connector(relay.clone())
        .tls(move || {
            let sealed = count.fetch_add(1, Ordering::Relaxed) == 1;
            let config = Arc::clone(&config);
            async move { if sealed { Err("the vault is sealed") } else { Ok(config) } }
        })
        .build()
        .await
        .unwrap();
    // The second connection is the one to the broker by its id.
    client.partition_client("wal", 0).await.unwrap().produce(record("a")).await.unwrap();
    assert!(requests.load(Ordering::Relaxed) > 2);
}

#[cfg(feature = "transport-socks5")]
mod socks5 {
    use kwal_transport::{Socks5, Socks5Error};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::support::source;

    #[tokio::test(start_paused = true)]
    async fn tls_goes_through_the_proxy_which_resolves_names() {
        let (broker, ca) = (broker(), Ca::new());
        let relay = Relay::of(&broker, ca.server(&broker, Some(&ca)));
        let proxy = Proxy { relay, requests: Arc::default() };
        let client = ClientBuilder::new(broker.bootstrap())
            .connector(proxy.clone())
            .tls(ca.client_with(&ca))
            .socks5_proxy(socks5().login("alice", "open sesame").unwrap());
        let shown = format!("{client:?}");
        assert!(!shown.contains("sesame") && !shown.contains("PRIVATE"), "{shown}");
        let partition = client.build().await.unwrap().partition_client("wal", 0).await.unwrap();
        partition.produce(record("a")).await.unwrap();
        assert_eq!(log(&broker), ["a"]);
        let requests = proxy.requests.lock().unwrap();
        assert!(
            requests.len() >= 2 && requests.iter().all(|to| *to == broker.bootstrap()[0]),
            "{requests:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_login_ends_the_call_at_once() {
        let broker = broker();
        let relay = Relay::of(&broker, Ca::new().server(&broker, None));
        let proxy = Proxy { relay, requests: Arc::default() };
        for (socks5, reason) in [
            (socks5(), "the proxy requires a login, but none is configured"),
            (
                socks5().login("alice", "guess").unwrap(),
                "the proxy rejected the login: are user and password correct?",
            ),
        ] {
            let client = ClientBuilder::new(broker.bootstrap()).connector(proxy.clone());
            let (error, took) = timed(client.socks5_proxy(socks5).build()).await;
            let error = error.unwrap_err();
            assert_eq!(took, Duration::ZERO);
            let address = broker.bootstrap().remove(0);
            assert_eq!(
                chain(&error),
                format!(
                    "Metadata at {address}: cannot connect to {address} through the SOCKS5 \
                     proxy proxy:1080: {reason}"
                )
            );
            assert!(!error.is_retriable());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_proxy_is_named() {
        let client = ClientBuilder::new(vec!["kafka:9092".to_owned()]).connector(SilentPeer::default());
        let error = client.tls(Ca::new().client()).socks5_proxy(socks5()).build().await.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("no connection within 10s with TLS through the SOCKS5 proxy proxy:1080"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_proxy_is_retriable() {
        let client = ClientBuilder::new(vec!["kafka:9092".to_owned()])
            .connector(memory::MemoryNetwork::default())
            .socks5_proxy(socks5());
        let error = client.build().await.unwrap_err();
        let ErrorKind::NoBroker { attempts, .. } = error.kind() else { panic!("{error:?}") };
        let attempt = &attempts[0].1;
        assert!(matches!(attempt.kind(), ErrorKind::Connect), "{error:?}");
        assert!(matches!(source(attempt), TransportError::Socks5 { source: Socks5Error::Proxy { .. }, .. }));
        assert!(error.is_retriable());
    }

    fn socks5() -> Socks5 {
        Socks5::new(HostPort::new("proxy", 1080))
    }

    /// Reads a length and the bytes that follow it.
    async fn counted(stream: &mut Stream) -> Vec<u8> {
        let mut read = vec![0; stream.read_u8().await.unwrap().into()];
        stream.read_exact(&mut read).await.unwrap();
        read
    }

    /// A SOCKS5 proxy that accepts the login of alice.
    #[derive(Clone, Debug)]
    struct Proxy {
        relay: Relay,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Connect for Proxy {
        fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
            assert_eq!(to.to_string(), "proxy:1080");
            let (near, mut far) = memory::pair(64 << 10);
            let this = self.clone();
            tokio::spawn(async move {
                assert_eq!(far.read_u8().await.unwrap(), 5);
                let methods = counted(&mut far).await;
                if !methods.contains(&2) {
                    return far.write_all(&[5, 0xff]).await.unwrap();
                }
                far.write_all(&[5, 2]).await.unwrap();
                assert_eq!(far.read_u8().await.unwrap(), 1);
                let (user, password) = (counted(&mut far).await, counted(&mut far).await);
                let right = user == b"alice" && password == b"open sesame";
                far.write_all(&[1, u8::from(!right)]).await.unwrap();
                if !right {
                    return;
                }
                assert_eq!(far.read_u32().await.unwrap(), 0x05_01_00_03, "the proxy resolves names");
                let host = String::from_utf8(counted(&mut far).await).unwrap();
                let to = HostPort::new(host, far.read_u16().await.unwrap());
                this.requests.lock().unwrap().push(to.to_string());
                let mut broker = this.relay.connect(&to).await.unwrap();
                far.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                let _ = copy_bidirectional(&mut far, &mut broker).await;
            });
            Box::pin(async { Ok(near) })
        }
    }
}

/// A relay in front of the brokers, with TLS or without.
#[derive(Clone, Debug)]
struct Relay {
    bootstrap: Vec<String>,
    brokers: Arc<dyn Connect>,
    tls: Arc<Mutex<Option<Arc<ServerConfig>>>>,
    relays: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Relay {
    fn of(broker: &EmbeddedCluster, tls: Arc<ServerConfig>) -> Self {
        Self {
            bootstrap: broker.bootstrap(),
            brokers: Arc::new(broker.connector()),
            tls: Arc::new(Mutex::new(Some(tls))),
            relays: Arc::default(),
        }
    }

    /// Returns a builder that connects with TLS.
    fn builder(&self, tls: TlsBuilder) -> ClientBuilder {
        let tls = tls.build().unwrap();
        ClientBuilder::new(self.bootstrap.clone()).connector(self.clone()).tls(tls)
    }

    /// Closes all connections and sets TLS for the next ones.
    fn change(&self, tls: Option<Arc<ServerConfig>>) {
        *self.tls.lock().unwrap() = tls;
        for relay in self.relays.lock().unwrap().drain(..) {
            relay.abort();
        }
    }
}

impl Connect for Relay {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        let (near, mut far) = memory::pair(64 << 10);
        let (brokers, to) = (Arc::clone(&self.brokers), to.clone());
        let tls = self.tls.lock().unwrap().clone();
        self.relays.lock().unwrap().push(tokio::spawn(async move {
            let mut broker = brokers.connect(&to).await.unwrap();
            let Some(tls) = tls else {
                let _ = copy_bidirectional(&mut far, &mut broker).await;
                return;
            };
            if let Ok(mut client) = TlsAcceptor::from(tls).accept(far).await {
                let _ = copy_bidirectional(&mut client, &mut broker).await;
            }
        }));
        Box::pin(async { Ok(near) })
    }
}

/// A name with two addresses: something at the first, and the broker at the second.
#[derive(Clone, Debug)]
struct TwoAddresses {
    first: Arc<dyn Connect>,
    second: Relay,
}

impl TwoAddresses {
    const ALL: [([u8; 4], u16); 2] = [([10, 0, 0, 1], 9093), ([10, 0, 0, 2], 9093)];
}

impl Connect for TwoAddresses {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        panic!("{to} has several addresses")
    }

    fn addresses<'a>(&'a self, _: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        Box::pin(async { Ok(Self::ALL.map(SocketAddr::from).to_vec()) })
    }

    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        match address == SocketAddr::from(Self::ALL[0]) {
            true => self.first.connect(to),
            false => self.second.connect(to),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tls_that_fails_at_an_address_is_tried_at_the_next() {
    let (broker, ca, other) = (broker(), Ca::new(), Ca::named("another"));
    let second = Relay::of(&broker, ca.server(&broker, None));
    let untrusted = Relay::of(&broker, other.server(&broker, None));
    let in_the_clear = Relay::of(&broker, ca.server(&broker, None));
    in_the_clear.change(None);
    let firsts: [(Arc<dyn Connect>, Duration); 3] = [
        (Arc::new(untrusted), Duration::ZERO),
        (Arc::new(in_the_clear), Duration::ZERO),
        // A quarter of the time limit of connecting.
        (Arc::new(SilentPeer::default()), Duration::from_millis(2_500)),
    ];
    for (first, expected) in firsts {
        let builder = ClientBuilder::new(second.bootstrap.clone());
        let builder = builder.connector(TwoAddresses { first, second: second.clone() });
        let (client, took) = timed(builder.tls(ca.client().build().unwrap()).build()).await;
        let partition = client.unwrap().partition_client("wal", 0).await.unwrap();
        assert_eq!(took, expected);
        partition.produce(record("a")).await.unwrap();
    }
}

/// Accepts connections and never responds.
#[derive(Clone, Debug, Default)]
struct SilentPeer(Arc<Mutex<Vec<Stream>>>);

impl Connect for SilentPeer {
    fn connect<'a>(&'a self, _: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        let (near, far) = memory::pair(64 << 10);
        self.0.lock().unwrap().push(far);
        Box::pin(async { Ok(near) })
    }
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        Self::named("kwal")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn signed(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Returns the settings of a client that trusts this CA.
    fn client(&self) -> TlsBuilder {
        with_provider(ring::default_provider()).roots_pem(self.0.pem())
    }

    /// The same with a client certificate of another CA.
    fn client_with(&self, other: &Self) -> TlsBuilder {
        let (certificate, key) = other.signed("orders");
        self.client().client_pem(certificate.pem(), key.serialize_pem())
    }

    /// Returns the settings of the relay. With `clients`, it requires client certificates of that CA.
    fn server(&self, broker: &EmbeddedCluster, clients: Option<&Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => config.with_no_client_auth(),
        };
        let address: HostPort = broker.address(1).unwrap();
        let (certificate, key) = self.signed(&address.host);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Arc::new(config.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap())
    }
}
