use std::{
    error::Error as _,
    io::{self, IoSlice},
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::memory::{self, MemoryNetwork};

#[tokio::test]
async fn a_valid_certificate_is_accepted_and_bytes_go_both_ways() {
    let ca = Ca::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = ca.server(&["kafka"], None, version);
        let (mut stream, mut peer) = connect(&ca.client().build().unwrap(), "kafka", server).await.unwrap();
        assert!(stream.is_encrypted() && stream.is_write_vectored());
        assert_eq!(stream.peer(), "kafka:9093 (memory)");
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let mut read = [0; 4];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
        peer.write_all(b"pong").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"pong");

        stream.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "close_notify, which rustls insists on");
    }
}

/// Certificates that rcgen cannot make: see `tests/certificates/make`.
macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../tests/certificates/", $name))
    };
}

#[tokio::test]
async fn an_error_of_a_certificate_says_what_to_do() {
    let signed = "the certificate of the peer cannot be accepted: ";
    for (certificate, root, text) in [
        (
            pem!("signed-by-rsa-1024.pem"),
            pem!("rsa-1024.pem"),
            "the signature of the peer's certificate is wrong: is the CA among the roots an older one, or another one of the \
             same name, or has an RSA key fewer than 2048 bits?",
        ),
        (
            pem!("sha1.pem"),
            pem!("rsa-2048.pem"),
            "it is signed with SHA-1, which is not secure: issue it again with SHA-256",
        ),
        (
            pem!("version-1.pem"),
            pem!("rsa-2048.pem"),
            "it is of X.509 version 1: issue it as version 3, with the broker's host in its subject alternative names",
        ),
        (
            pem!("critical-extension.pem"),
            pem!("rsa-2048.pem"),
            "it has a critical extension that is not known: issue it again without",
        ),
    ] {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pem!("leaf.key").as_bytes()).unwrap();
        let client = with_provider(provider()).roots_pem(root).build().unwrap();
        assert_rejected(&client, (chain, key), text, signed).await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_use_is_described() {
    let ca = Ca::new();
    let client = ca.client().build().unwrap();
    let signed = "the certificate of the peer cannot be accepted: ";
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(["kafka".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (vec![params.signed_by(&key, &ca.issuer).unwrap().der().clone()], private(&key))
    };
    for (certificate, text) in [
        (
            changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "it is the certificate of a CA (basic constraints CA:TRUE) and not one of a server: issue one with CA:FALSE for \
             the broker, signed by that CA",
        ),
        (
            changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "it is not for servers: issue it with `serverAuth` in its extended key usage",
        ),
    ] {
        assert_rejected(&client, certificate, text, signed).await;
    }
    // The CA's own certificate, as a broker's.
    let own = (vec![ca.issuer.der().clone()], private(ca.issuer.key()));
    assert_rejected(&client, own, "it is the certificate of a CA", signed).await;
    // Issued by a certificate that may not issue any.
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["kafka".to_owned()]).unwrap();
    let middle = params.clone().signed_by(&key, &ca.issuer).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["kafka".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let chain = (vec![leaf.der().clone(), middle.der().clone()], private(&key));
    assert_rejected(&client, chain, "it was issued by a certificate that is not one of a CA", signed).await;
}

/// Asserts that a certificate is rejected for good, and that no text has names of types or object ids in it.
async fn assert_rejected(client: &Arc<ClientConfig>, (chain, key): Identity, text: &str, before: &str) {
    let key = provider().key_provider.load_private_key(key).unwrap();
    let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
    let config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        // Without the checks of rustls, which would not serve these.
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let (stream, _) = dial(client, "kafka", Arc::new(config)).await;
    let error = stream.unwrap_err();
    assert!(error.is_permanent(), "{error:?}");
    let TransportError::Tls { source, .. } = &error else { panic!("{error:?}") };
    let found = match source.source() {
        Some(reason) => format!("{source}: {reason}"),
        None => source.to_string(),
    };
    assert!(found.strip_prefix(before).unwrap_or(&found).starts_with(text), "{found}");
    assert!(!found.contains("Other") && !found.contains('[') && !found.contains("2.5.29"), "{found}");
}

#[tokio::test]
async fn the_host_has_to_be_in_the_certificate() {
    let ca = Ca::new();
    let client = ca.client().build().unwrap();
    let names = ["kafka.example.org", "*.brokers.example.org", "127.0.0.1", "fd00::7"];
    for host in [
        "kafka.example.org",
        "kafka.example.org.",
        "KAFKA.example.org",
        "b1.brokers.example.org",
        "127.0.0.1",
        "fd00::7",
    ] {
        connect(&client, host, ca.tls13(&names)).await.unwrap_or_else(|error| panic!("{host}: {error:?}"));
    }
    for (host, said) in [
        ("example.org", "example.org"),
        ("kafka.example.org.evil.net.", "kafka.example.org.evil.net"),
        ("a.b.brokers.example.org", "a.b.brokers.example.org"),
        ("brokers.example.org", "brokers.example.org"),
        ("127.0.0.2", "127.0.0.2"),
        ("fd00::8", "fd00::8"),
        ("fd00::8%eth0", "fd00::8"),
    ] {
        let error = connect(&client, host, ca.tls13(&names)).await.unwrap_err();
        assert_eq!(
            source(&error),
            format!(
                "the certificate of the peer is not for {said} but for kafka.example.org, *.brokers.example.org, \
                 127.0.0.1, fd00::7: is this the broker's advertised name?"
            ),
        );
        assert!(error.is_permanent());
    }
    // The host may name an interface; the certificate only contains the address.
    connect(&client, "fd00::7%eth0", ca.tls13(&names)).await.unwrap();
    // An address does not match a name.
    let error = connect(&client, "10.0.0.7", ca.tls13(&["kafka"])).await.unwrap_err();
    assert!(source(&error).contains("is not for 10.0.0.7 but for kafka:"), "{error:?}");

    for host in ["kafka_1", "kafka-1.internal"] {
        connect(&client, host, ca.tls13(&[host])).await.unwrap();
    }
    for host in ["müller.example", "a..b", "-", "", &"x".repeat(254)] {
        let error = connect(&client, host, ca.tls13(&["kafka"])).await.unwrap_err();
        assert!(
            matches!(&error, TransportError::Tls { source: TlsError::InvalidHost { .. }, .. }),
            "{host}: {error:?}"
        );
        assert!(error.is_permanent());
    }
}

#[tokio::test]
async fn the_name_is_sent_and_an_address_is_not() {
    let ca = Ca::new();
    let client = ca.client().build().unwrap();
    for (host, sni) in
        [("kafka.example.org.", Some("kafka.example.org")), ("127.0.0.1", None), ("fd00::7", None)]
    {
        let (_, peer) =
            connect(&client, host, ca.tls13(&["kafka.example.org", "127.0.0.1", "fd00::7"])).await.unwrap();
        assert_eq!(peer.get_ref().1.server_name(), sni);
    }
}

#[tokio::test]
async fn no_invalid_certificate_is_accepted() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let client = ca.client().build().unwrap();
    let past = || (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 2, 3));
    let future = || (date_time_ymd(2999, 1, 2), date_time_ymd(3000, 1, 1));
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["kafka".to_owned()]).unwrap().self_signed(&key).unwrap();
        (vec![certificate.der().clone()], private(&key))
    };
    let not_a_ca = {
        // Signed by the key of an end entity, which the CA has signed.
        let (chain, key) = ca.certificate(&["middle"], None);
        let middle = rcgen::Issuer::new(
            CertificateParams::new(["middle".to_owned()]).unwrap(),
            KeyPair::try_from(key.secret_der()).unwrap(),
        );
        let leaf = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["kafka".to_owned()]).unwrap().signed_by(&leaf, &middle).unwrap();
        (vec![certificate.der().clone(), chain[0].clone()], private(&leaf))
    };
    let for_clients = {
        let mut params = CertificateParams::new(["kafka".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (vec![params.signed_by(&key, &ca.issuer).unwrap().der().clone()], private(&key))
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (identity, text) in [
            (
                other.certificate(&["kafka"], None),
                "the certificate of the peer was issued by a CA that is not trusted",
            ),
            (
                Ca::new().certificate(&["kafka"], None),
                "the signature of the peer's certificate is wrong: is the CA among the roots an older one",
            ),
            (clone(&self_signed), ""),
            (clone(&not_a_ca), ""),
            (clone(&for_clients), "the certificate of the peer cannot be accepted"),
            (
                ca.certificate(&["kafka"], Some(past())),
                "expired (it was valid until 2021-02-03 00:00:00 UTC, and it is ",
            ),
            (
                ca.certificate(&["kafka"], Some(future())),
                "not valid yet (it will be from 2999-01-02 00:00:00 UTC, and it is ",
            ),
            (ca.certificate(&["zookeeper"], None), "is not for kafka but for zookeeper"),
        ] {
            let server = server(identity, None, version);
            let error = connect(&client, "kafka", server).await.unwrap_err();
            assert!(source(&error).contains(text), "{error:?} is not {text:?}");
            assert!(error.is_permanent(), "{error:?}");
            assert_eq!(error.to_string(), "TLS with kafka:9093 failed");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented_and_its_rejection_explained() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let good = ca.client_with(&ca).build().unwrap();
    let unknown = ca.client_with(&other).build().unwrap();
    let none = ca.client().build().unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = || ca.server(&["kafka"], Some(&ca), version);
        let (_, peer) = connect(&good, "kafka", server()).await.unwrap();
        assert_eq!(peer.get_ref().1.peer_certificates().unwrap().len(), 1);

        for (client, writes, text) in [
            (&none, false, ": it requires a client certificate, but none is configured"),
            (&none, true, ": it requires a client certificate, but none is configured"),
            (&unknown, false, ": it does not accept the client certificate"),
            (&unknown, true, ": it does not accept the client certificate"),
        ] {
            // With TLS 1.2 the handshake fails. With TLS 1.3 the first read fails, or the first write to the
            // closed stream.
            let error = match dial(client, "kafka", server()).await {
                (Err(error), _) => error,
                (Ok(mut stream), peer) => {
                    peer.await.unwrap().unwrap_err();
                    let error = match writes {
                        true => stream.write_all(b"ApiVersions").await.unwrap_err(),
                        false => stream.read(&mut [0; 1]).await.unwrap_err(),
                    };
                    let carried = TransportError::within(&error).unwrap();
                    assert_eq!(error.to_string(), "TLS with kafka:9093 failed");
                    assert!(carried.is_permanent());
                    let source = error.into_inner().unwrap().downcast::<TransportError>().unwrap();
                    *source
                }
            };
            assert!(source(&error).starts_with("the peer ended TLS with the alert "), "{error:?}");
            assert!(source(&error).ends_with(text), "{error:?}");
            assert!(error.is_permanent());
        }
    }
}

#[tokio::test]
async fn a_close_right_after_the_handshake_hints_at_a_certificate() {
    let ca = Ca::new();
    for (client, text) in [
        (
            ca.client(),
            "the peer closed the connection right after the TLS handshake: does it require a client certificate? None is configured",
        ),
        (
            ca.client_with(&ca),
            "the peer closed the connection right after the TLS handshake: does it accept the client certificate?",
        ),
    ] {
        let (mut stream, peer) =
            connect(&client.build().unwrap(), "kafka", ca.tls13(&["kafka"])).await.unwrap();
        drop(peer);
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(source(TransportError::within(&error).unwrap()), text);
        assert!(!TransportError::within(&error).unwrap().is_permanent());

        let (mut stream, peer) =
            connect(&client.build().unwrap(), "kafka", ca.tls13(&["kafka"])).await.unwrap();
        drop(peer);
        stream.write_all(b"ApiVersions").await.unwrap_err();
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let ca = Ca::new();
    let (mut stream, mut peer) =
        connect(&ca.client().build().unwrap(), "kafka", ca.tls13(&["kafka"])).await.unwrap();
    peer.write_all(b"half a fra").await.unwrap();
    peer.flush().await.unwrap();
    drop(peer);
    let mut read = Vec::new();
    let error = stream.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, b"half a fra");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let carried = TransportError::within(&error).unwrap();
    assert!(matches!(carried, TransportError::Tls { source: TlsError::Truncated, .. }), "{carried:?}");
    assert!(!carried.is_permanent());
}

#[tokio::test]
async fn a_peer_without_tls_is_recognised() {
    let client = Ca::new().client().build().unwrap();
    let answers: &[&[u8]] = &[
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x23\x00\x00\x00\x00",
        b"\x16\x03\x03",
    ];
    for answer in answers {
        let error = against(&client, answer).await;
        match error {
            TlsError::ClosedInHandshake => assert_eq!(answer.len(), 3, "cut"),
            TlsError::NotTls => assert!(error.is_permanent()),
            error => panic!("{answer:?}: {error:?}"),
        }
    }

    // A plain listener of Kafka sends nothing: the frame is too large for it.
    let error = against(&client, b"").await;
    assert!(matches!(error, TlsError::ClosedInHandshake));
    assert!(!error.is_permanent(), "it may be a broker that starts");

    // An echo.
    let (near, far) = memory::pair(16 << 10);
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let error = TlsConnector::from(client).connect(server_name("kafka").unwrap(), near).await.unwrap_err();
    assert!(matches!(in_handshake(error, false), TlsError::NotTls));
    echo.await.unwrap();
}

#[tokio::test]
async fn a_peer_can_close_at_any_byte_of_the_handshake() {
    let ca = Ca::new();
    let client = ca.client().build().unwrap();
    let mut cut = 0;
    loop {
        let (mut near, far) = memory::pair(16 << 10);
        let (server_near, server_far) = memory::pair(16 << 10);
        let server = ca.tls13(&["kafka"]);
        let server = tokio::spawn(TlsAcceptor::from(server).accept(server_far));
        let relay = tokio::spawn(async move {
            let (mut from_client, mut to_client) = tokio::io::split(far);
            let (from_server, mut to_server) = tokio::io::split(server_near);
            let mut from_server = from_server.take(cut);
            tokio::select! {
                biased;
                _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            }
        });
        let connecting =
            TlsConnector::from(Arc::clone(&client)).connect(server_name("kafka").unwrap(), &mut near);
        let result = connecting.await.map(drop);
        relay.abort();
        server.abort();
        match result {
            Err(error) => assert!(matches!(in_handshake(error, false), TlsError::ClosedInHandshake), "{cut}"),
            Ok(()) => break,
        }
        // Every byte of the start, and some more.
        cut += if cut < 150 { 1 } else { 37 };
    }
    assert!(cut > 500, "{cut}");
}

#[tokio::test]
async fn alerts_are_reported() {
    let client = Ca::new().client().build().unwrap();
    for (code, text, permanent) in [
        (
            40,
            "the peer ended TLS with the alert handshake_failure: the two have no cipher suite in common, or it requires a client certificate, but none is configured",
            true,
        ),
        (
            70,
            "the peer ended TLS with the alert protocol_version: it supports neither TLS 1.2 nor TLS 1.3",
            true,
        ),
        (
            112,
            "the peer ended TLS with the alert unrecognized_name: it does not know the requested host name",
            true,
        ),
        (80, "the peer ended TLS with the alert internal_error", false),
        (200, "the peer ended TLS with the alert number 200", false),
    ] {
        let error = against(&client, &[21, 3, 3, 0, 2, 2, code]).await;
        assert_eq!(error.to_string(), text);
        assert_eq!(error.is_permanent(), permanent);
    }
}

#[tokio::test]
async fn certificates_can_change_between_connections() {
    let (ca, other) = (Ca::new(), Ca::named("another"));
    let requested = Arc::new(AtomicUsize::new(0));
    let configs = [ca.client().build().unwrap(), other.client().build().unwrap()];
    let (network, _server) = serve(ca.tls13(&["kafka"]), 3);
    let count = Arc::clone(&requested);
    let tls = Tls::new(move || {
        let config = configs.get(count.fetch_add(1, Ordering::Relaxed)).cloned();
        async { config.ok_or("the vault is sealed") }
    })
    .over(network);
    let to = HostPort::new("kafka", 9093);
    tls.connect(&to).await.unwrap();
    let error = tls.connect(&to).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { source: TlsError::UnknownIssuer, .. }), "{error:?}");
    let error = tls.connect(&to).await.unwrap_err();
    assert_eq!(source(&error), "the TLS configuration is not available");
    assert_eq!(error.source().unwrap().source().unwrap().to_string(), "the vault is sealed");
    assert!(!error.is_permanent(), "it may be open the next time");
    assert_eq!(requested.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn small_writes_are_one_record() {
    let ca = Ca::new();
    let (near, far) = memory::pair(64 << 10);
    let server = TlsAcceptor::from(ca.tls13(&["kafka"]));
    let connector = TlsConnector::from(ca.client().build().unwrap());
    let (client, server) =
        tokio::join!(connector.connect(server_name("kafka").unwrap(), near), server.accept(far));
    let (mut far, _) = server.unwrap().into_inner();
    let mut stream = TlsStream::new(client.unwrap(), HostPort::new("kafka", 9093), false);
    let batch = vec![7; 1000];
    let parts = [IoSlice::new(b"head"), IoSlice::new(&batch), IoSlice::new(b"tail")];
    assert_eq!(stream.write_vectored(&parts).await.unwrap(), 1008);
    stream.flush().await.unwrap();
    drop(stream);
    let mut wire = Vec::new();
    far.read_to_end(&mut wire).await.unwrap();
    // Type, version, length; TLS 1.3 adds a type and a tag of 16 bytes.
    assert_eq!(wire.len(), 5 + 1008 + 17);
    assert_eq!(wire[..5], [23, 3, 3, 4, 1]);
}

#[tokio::test]
async fn a_dropped_attempt_leaves_no_resources() {
    let network = MemoryNetwork::default();
    let mut listener = network.listen(HostPort::new("kafka", 9093)).unwrap();
    let tls = Tls::new(Ca::new().client().build().unwrap()).over(network);
    let to = HostPort::new("kafka", 9093);
    let connecting = async { tls.connect(&to).await };
    let mut peer = tokio::select! {
        biased;
        _ = connecting => panic!("nobody answers"),
        peer = listener.accept() => peer,
    };
    // The server ends when the future is dropped.
    let mut hello = Vec::new();
    peer.read_to_end(&mut hello).await.unwrap();
    assert!(hello.is_empty() || hello.starts_with(&[22, 3, 1]));
}

#[cfg(feature = "tls-aws-lc-rs")]
#[tokio::test]
async fn the_two_providers_interoperate() {
    let ca = Ca::new();
    let client = aws_lc_rs().roots_pem(ca.issuer.pem()).build().unwrap();
    connect(&client, "kafka", ca.tls13(&["kafka"])).await.unwrap();
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
#[tokio::test]
async fn public_cas_are_trusted_and_a_private_one_is_not() {
    let ca = Ca::new();
    let client = with_provider(provider()).webpki_roots().build().unwrap();
    let error = connect(&client, "kafka", ca.tls13(&["kafka"])).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { source: TlsError::UnknownIssuer, .. }), "{error:?}");
    // Together with others they still cannot be used.
    let both = with_provider(provider()).webpki_roots().roots_pem(ca.issuer.pem()).build().unwrap();
    connect(&both, "kafka", ca.tls13(&["kafka"])).await.unwrap();
}

pub(super) fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// A CA for one test.
pub(super) struct Ca {
    pub(super) issuer: CertifiedIssuer<'static, KeyPair>,
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Ca {
    pub(super) fn new() -> Self {
        Self::named("kwal")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(super) fn certificate(
        &self,
        names: &[&str],
        valid: Option<(time::OffsetDateTime, time::OffsetDateTime)>,
    ) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if let Some((from, to)) = valid {
            (params.not_before, params.not_after) = (from, to);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], private(&key))
    }

    /// A client that trusts this CA.
    fn client(&self) -> TlsBuilder {
        with_provider(provider()).roots_pem(self.issuer.pem())
    }

    /// The same with a certificate of another CA.
    fn client_with(&self, other: &Self) -> TlsBuilder {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["orders".to_owned()]).unwrap().signed_by(&key, &other.issuer).unwrap();
        self.client().client_pem(certificate.pem(), key.serialize_pem())
    }

    fn tls13(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server(names, None, &rustls::version::TLS13)
    }

    /// A server that accepts clients of another CA, if one is given.
    fn server(
        &self,
        names: &[&str],
        clients: Option<&Self>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        server(self.certificate(names, None), clients, version)
    }
}

fn server(
    (chain, key): Identity,
    clients: Option<&Ca>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = Arc::new(provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap();
    let config = match clients {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => config.with_no_client_auth(),
    };
    Arc::new(config.with_single_cert(chain, key).unwrap())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn clone((chain, key): &Identity) -> Identity {
    (chain.clone(), key.clone_key())
}

type Peer = tokio_rustls::server::TlsStream<Stream>;

/// Accepts this number of connections at kafka:9093.
fn serve(config: Arc<ServerConfig>, connections: usize) -> (MemoryNetwork, JoinHandle<()>) {
    let network = MemoryNetwork::default();
    let mut listener = network.listen(HostPort::new("kafka", 9093)).unwrap();
    let server = tokio::spawn(async move {
        for _ in 0..connections {
            let stream = listener.accept().await;
            let _ = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await;
        }
    });
    (network, server)
}

/// Connects to a server at the host; returns both ends.
async fn connect(
    client: &Arc<ClientConfig>,
    host: &str,
    server: Arc<ServerConfig>,
) -> Result<(Stream, Peer), TransportError> {
    let (stream, peer) = dial(client, host, server).await;
    Ok((stream?, peer.await.unwrap().unwrap()))
}

async fn dial(
    client: &Arc<ClientConfig>,
    host: &str,
    server: Arc<ServerConfig>,
) -> (Result<Stream, TransportError>, JoinHandle<io::Result<Peer>>) {
    let network = MemoryNetwork::default();
    let to = HostPort::new(host, 9093);
    let peer = match network.listen(to.clone()) {
        Ok(mut listener) => tokio::spawn(async move {
            let stream = listener.accept().await;
            TlsAcceptor::from(server).accept(stream).await
        }),
        Err(_) => tokio::spawn(async { Err(io::ErrorKind::NotFound.into()) }),
    };
    (Tls::new(Arc::clone(client)).over(network).connect(&to).await, peer)
}

/// The handshake with a peer that answers the first bytes with these and closes.
async fn against(client: &Arc<ClientConfig>, answer: &[u8]) -> TlsError {
    let (near, mut far) = memory::pair(16 << 10);
    let answer = answer.to_vec();
    let peer = tokio::spawn(async move {
        assert!(far.read(&mut [0; 1 << 14]).await.unwrap() > 100);
        far.write_all(&answer).await.unwrap();
    });
    let connecting = TlsConnector::from(Arc::clone(client)).connect(server_name("kafka").unwrap(), near);
    let error = connecting.await.map(drop).unwrap_err();
    peer.await.unwrap();
    in_handshake(error, client.client_auth_cert_resolver.has_certs())
}

fn source(error: &TransportError) -> String {
    error.source().unwrap().to_string()
}

#[test]
fn debug_shows_the_underlying_transport() {
    let tls = Tls::new(Ca::new().client()).over(MemoryNetwork::default());
    assert_eq!(format!("{tls:?}"), "Tls { base: MemoryNetwork { buffer: 65536, listeners: [] }, .. }");
    assert_eq!(server_name(&Ipv4Addr::LOCALHOST.to_string()).unwrap(), ServerName::from(Ipv4Addr::LOCALHOST));
}

#[tokio::test]
async fn the_addresses_are_those_of_the_underlying_transport() {
    let tls = |base: Arc<dyn Connect>| Tls::new(Ca::new().client().build().unwrap()).over(base);
    let to = HostPort::new("localhost", 9093);
    let over_tcp = tls(Arc::new(Tcp::default())).addresses(&to).await.unwrap();
    assert_eq!(over_tcp, Tcp::default().addresses(&to).await.unwrap());
    // It does not know any.
    assert!(tls(Arc::new(MemoryNetwork::default())).addresses(&to).await.unwrap().is_empty());
    let error = tls(Arc::new(Tcp::default())).addresses(&HostPort::new("*", 9093)).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { source: TlsError::InvalidHost { .. }, .. }), "{error:?}");

    // The certificate has to be for the name, whichever the address.
    let ca = Ca::new();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = ca.server(&["localhost"], None, &rustls::version::TLS13);
    let acceptor = TlsAcceptor::from(server);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    });
    let tls = Tls::new(ca.client().build().unwrap());
    let stream = tls.connect_at(&HostPort::new("localhost", address.port()), address).await.unwrap();
    assert!(stream.is_encrypted() && stream.peer().contains(&address.to_string()));
    let error = tls.connect_at(&HostPort::new("kafka", address.port()), address).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { source: TlsError::WrongHost { .. }, .. }), "{error:?}");
}
