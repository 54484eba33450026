use std::{sync::Mutex, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::memory::MemoryNetwork;

const NO_LOGIN: &[u8] = &[5, 0];
const LOGIN: &[u8] = &[5, 2];
const WELCOME: &[u8] = &[1, 0];
const CONNECTED: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 7, 0x23, 0x84];

#[tokio::test]
async fn names_go_to_the_proxy_and_each_message_is_one_write() {
    let (stream, writes) = talk(&socks5(), "kafka.internal:9092", &[NO_LOGIN, CONNECTED]).await.unwrap();
    assert_eq!(stream.peer(), "kafka.internal:9092 through proxy:1080 (memory)");
    assert!(!stream.is_encrypted());
    let request = [&[5, 1, 0, 3, 14], &b"kafka.internal"[..], &[0x23, 0x84]].concat();
    assert_eq!(writes, [vec![5, 1, 0], request]);
}

#[tokio::test]
async fn user_and_password_are_sent_on_request() {
    let socks5 = socks5().login("alice", "open sesame").unwrap();
    let (_, writes) = talk(&socks5, "kafka:1", &[LOGIN, WELCOME, CONNECTED]).await.unwrap();
    let login = [&[1, 5], &b"alice"[..], &[11], &b"open sesame"[..]].concat();
    assert_eq!(writes[..2], [vec![5, 2, 0, 2], login]);
    assert_eq!(writes.len(), 3);

    let (_, writes) = talk(&socks5, "kafka:1", &[NO_LOGIN, CONNECTED]).await.unwrap();
    assert_eq!(writes.len(), 2, "the login is only sent on request");
}

#[tokio::test]
async fn ip_addresses_go_as_addresses() {
    let (_, writes) = talk(&socks5(), "10.0.0.7:9092", &[NO_LOGIN, CONNECTED]).await.unwrap();
    assert_eq!(writes[1], [5, 1, 0, 1, 10, 0, 0, 7, 0x23, 0x84]);
    let (_, writes) = talk(&socks5(), "[fd00::7]:9092", &[NO_LOGIN, CONNECTED]).await.unwrap();
    let mut request = vec![5, 1, 0, 4, 0xfd, 0];
    request.extend([0; 13]);
    request.extend([7, 0x23, 0x84]);
    assert_eq!(writes[1], request);
}

/// fast-socks5 assumes that a write writes everything.
#[tokio::test]
async fn messages_leave_whole_also_bit_by_bit() {
    let network = MemoryNetwork::with_buffer(1);
    let mut listener = network.listen(HostPort::new("proxy", 1080)).unwrap();
    let proxy = tokio::spawn(async move {
        let mut stream = listener.accept().await;
        let mut request = [0; 3 + 5 + 14 + 2];
        stream.read_exact(&mut request[..3]).await.unwrap();
        stream.write_all(NO_LOGIN).await.unwrap();
        stream.read_exact(&mut request[3..]).await.unwrap();
        stream.write_all(CONNECTED).await.unwrap();
        request
    });
    let (socks5, to) = (socks5().over(network), HostPort::new("kafka.internal", 9092));
    timeout(Duration::from_secs(10), socks5.connect(&to)).await.unwrap().unwrap();
    assert_eq!(proxy.await.unwrap()[8..22], *b"kafka.internal");
}

#[tokio::test]
async fn data_after_the_reply_is_not_lost() {
    let replies = [NO_LOGIN, &[CONNECTED, b"hello"].concat()];
    let (mut stream, _) = talk(&socks5(), "kafka:9092", &replies).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"hello");
}

#[tokio::test]
async fn bound_addresses_of_every_type_are_skipped() {
    let name = [&[5, 0, 0, 3, 4], &b"host"[..], &[0, 0]].concat();
    let v6 = [&[5, 0, 0, 4][..], &[0; 18]].concat();
    for bound in [&name, &v6] {
        talk(&socks5(), "kafka:9092", &[NO_LOGIN, bound]).await.unwrap();
    }
}

#[tokio::test]
async fn refusals_are_distinguished() {
    let with_login = socks5().login("alice", "open sesame").unwrap();
    let cases: &[(&Socks5, &[&[u8]], &str, bool)] = &[
        (&socks5(), &[&[5, 0xff]], "the proxy requires a login, but none is configured", true),
        (&socks5(), &[&[5, 2]], "the proxy requires a login, but none is configured", true),
        (
            &with_login,
            &[&[5, 0xff]],
            "the proxy accepts neither clients without authentication nor user and password",
            true,
        ),
        (&with_login, &[&[5, 1]], "the proxy chose authentication method 1, which was not offered", true),
        (
            &with_login,
            &[LOGIN, &[1, 1]],
            "the proxy rejected the login: are user and password correct?",
            true,
        ),
        (&with_login, &[LOGIN, &[]], "the proxy closed the connection during the login", false),
        (
            &socks5(),
            &[b"HTTP/1.1 400 Bad Request\r\n\r\n"],
            "the peer is not a SOCKS5 proxy (it speaks HTTP): is this the right port?",
            true,
        ),
        (
            &socks5(),
            &[&[0, 0x5b]],
            "the peer is not a SOCKS5 proxy (it may speak SOCKS4): is this the right port?",
            true,
        ),
        (&socks5(), &[&[]], "the proxy closed the connection during the greeting", false),
        (&socks5(), &[NO_LOGIN, &[]], "the proxy closed the connection during the connect request", false),
        (
            &socks5(),
            &[NO_LOGIN, &[5, 0, 0, 9, 0, 0]],
            "the proxy's response during the connect request is malformed",
            false,
        ),
        (
            &socks5(),
            &[NO_LOGIN, b"HTTP"],
            "the peer is not a SOCKS5 proxy (it speaks HTTP): is this the right port?",
            true,
        ),
    ];
    for (socks5, replies, text, permanent) in cases {
        let error = talk(socks5, "kafka:9092", replies).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot connect to kafka:9092 through the SOCKS5 proxy proxy:1080");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), *text);
        assert_eq!(error.is_permanent(), *permanent, "{text}");
    }
}

#[tokio::test]
async fn every_reply_is_reported() {
    let mut texts = std::collections::BTreeSet::new();
    for code in 1..=255 {
        let error = talk(&socks5(), "kafka:9092", &[NO_LOGIN, &[5, code, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
        let TransportError::Socks5 { source: Socks5Error::Refused { reply }, .. } = error.unwrap_err() else {
            panic!("{code}")
        };
        assert_eq!(reply, Socks5Reply(code));
        texts.insert(reply.to_string());
    }
    assert_eq!(texts.len(), 255);
}

#[tokio::test]
async fn an_unreachable_proxy_is_named_with_the_reason() {
    let error =
        socks5().over(MemoryNetwork::default()).connect(&HostPort::new("kafka", 9092)).await.unwrap_err();
    let TransportError::Socks5 { source: Socks5Error::Proxy { source }, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        source.to_string(),
        "cannot connect to proxy:1080: nothing listens there on the in-memory network"
    );
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn lengths_are_checked_before_anything_is_sent() {
    for (user, password, field, len) in [
        ("", "x", "user", 0),
        ("x", "", "password", 0),
        (&*"u".repeat(256), "x", "user", 256),
        ("x", &*"p".repeat(300), "password", 300),
    ] {
        let error = socks5().login(user, password).unwrap_err();
        assert!(
            matches!(error, Socks5Error::InvalidLogin { field: f, len: l } if (f, l) == (field, len)),
            "{error}"
        );
    }
    let longest = socks5().login("u".repeat(255), "p".repeat(255)).unwrap();
    let (_, writes) = talk(&longest, "kafka:1", &[LOGIN, WELCOME, CONNECTED]).await.unwrap();
    assert_eq!(writes[1].len(), 3 + 255 + 255);

    // No connection is made, so no proxy is needed.
    let nobody = socks5().over(MemoryNetwork::default());
    let error = nobody.connect(&HostPort::new("x".repeat(256), 1)).await.unwrap_err();
    assert!(
        matches!(error, TransportError::Socks5 { source: Socks5Error::HostTooLong { len: 256 }, .. }),
        "{error:?}"
    );
    let error = nobody.connect(&HostPort::new("", 1)).await.unwrap_err();
    assert!(matches!(error, TransportError::InvalidAddress(_)), "{error:?}");
    let host = "x".repeat(255);
    let (_, writes) = talk(&socks5(), &format!("{host}:1"), &[NO_LOGIN, CONNECTED]).await.unwrap();
    assert_eq!(writes[1].len(), 5 + 255 + 2);
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let socks5 = socks5().login("alice", "open sesame").unwrap();
    let error = talk(&socks5, "kafka:9092", &[LOGIN, &[1, 1]]).await.unwrap_err();
    for shown in [format!("{socks5:?}"), format!("{error:?}"), error.to_string()] {
        assert!(!shown.contains("sesame") && !shown.contains("alice"), "{shown}");
    }
}

/// Truncated anywhere, the exchange fails; modified anywhere, it ends.
#[tokio::test]
async fn a_proxy_cannot_make_it_hang_or_panic() {
    let socks5 = socks5().login("alice", "open sesame").unwrap();
    let whole = [LOGIN, WELCOME, CONNECTED].concat();
    for cut in 0..whole.len() {
        let error = talk_bytes(&socks5, &whole[..cut]).await.unwrap_err();
        assert!(
            matches!(&error, TransportError::Socks5 { source: Socks5Error::Closed { .. }, .. }),
            "{cut}: {error:?}"
        );
    }
    talk_bytes(&socks5, &whole).await.unwrap();
    for place in 0..whole.len() {
        for byte in 0..=255 {
            let mut changed = whole.clone();
            changed[place] = byte;
            let _ = talk_bytes(&socks5, &changed).await;
        }
    }
}

fn socks5() -> Socks5 {
    Socks5::new(HostPort::new("proxy", 1080))
}

/// Connects through a proxy that sends one of `replies` per message and then closes.
///
/// Also returns the messages sent.
async fn talk(
    socks5: &Socks5,
    to: &str,
    replies: &[&[u8]],
) -> Result<(Stream, Vec<Vec<u8>>), TransportError> {
    let network = Recorded { network: MemoryNetwork::default(), writes: Arc::default() };
    let mut listener = network.network.listen(HostPort::new("proxy", 1080)).unwrap();
    let replies: Vec<_> = replies.iter().map(|reply| reply.to_vec()).collect();
    let proxy: JoinHandle<()> = tokio::spawn(async move {
        let mut stream = listener.accept().await;
        for reply in replies {
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let _ = stream.write_all(&reply).await;
        }
    });
    let writes = Arc::clone(&network.writes);
    let result = socks5.clone().over(network).connect(&to.parse().unwrap()).await;
    proxy.await.unwrap();
    let stream = result?;
    Ok((stream, std::mem::take(&mut *writes.lock().unwrap())))
}

/// The same with a proxy that sends everything at once.
async fn talk_bytes(socks5: &Socks5, bytes: &[u8]) -> Result<Stream, TransportError> {
    let network = MemoryNetwork::default();
    let mut listener = network.listen(HostPort::new("proxy", 1080)).unwrap();
    let bytes = bytes.to_vec();
    let proxy = tokio::spawn(async move {
        let mut stream = listener.accept().await;
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let result = socks5.clone().over(network).connect(&HostPort::new("kafka", 9092)).await;
    proxy.abort();
    result
}

/// Records the bytes of each write.
#[derive(Clone, Debug)]
struct Recorded {
    network: MemoryNetwork,
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Connect for Recorded {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async {
            let stream = self.network.connect(to).await?;
            let peer = stream.peer().to_owned();
            Ok(Stream::new(Recorder { stream, writes: Arc::clone(&self.writes) }, peer))
        })
    }
}

struct Recorder {
    stream: Stream,
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.lock().unwrap().push(buf.to_vec());
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
