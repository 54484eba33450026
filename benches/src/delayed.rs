//! A longer way to the broker.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use kwal::transport::{BoxFuture, Connect, HostPort, Stream, TransportError, memory};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Connects over another transport, and delivers every byte later by the same time, in both directions.
#[derive(Clone, Debug)]
pub struct Delayed {
    over: Arc<dyn Connect>,
    one_way: Duration,
}

impl Delayed {
    /// Adds this to the round trip: one half on the way there, the other on the way back.
    pub fn new(over: Arc<dyn Connect>, round_trip: Duration) -> Self {
        Self { over, one_way: round_trip / 2 }
    }
}

impl Connect for Delayed {
    fn connect<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async { Ok(delayed(self.over.connect(to).await?, self.one_way)) })
    }

    fn addresses<'a>(&'a self, to: &'a HostPort) -> BoxFuture<'a, Result<Vec<SocketAddr>, TransportError>> {
        self.over.addresses(to)
    }

    fn connect_at<'a>(
        &'a self,
        to: &'a HostPort,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Stream, TransportError>> {
        Box::pin(async move { Ok(delayed(self.over.connect_at(to, address).await?, self.one_way)) })
    }
}

/// The bytes of a piece, and how many pieces may be on their way in each direction.
const PIECE: usize = 64 << 10;
const PIECES: usize = 64;

fn delayed(stream: Stream, one_way: Duration) -> Stream {
    let peer = stream.peer().to_owned();
    let (here, there) = memory::pair(PIECE);
    let (from_client, to_client) = split(there);
    let (from_broker, to_broker) = split(stream);
    tokio::spawn(carry(from_client, to_broker, one_way));
    tokio::spawn(carry(from_broker, to_client, one_way));
    Stream::new(here, peer)
}

/// Carries bytes until one of the ends is closed. The other end is closed then.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    one_way: Duration,
) -> io::Result<()> {
    let (send, mut on_its_way) = mpsc::channel::<(Instant, Bytes)>(PIECES);
    let depart = async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            let is_end = from.read_buf(&mut piece).await? == 0;
            if is_end || send.send((Instant::now() + one_way, piece.freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let arrive = async {
        while let Some((at, piece)) = on_its_way.recv().await {
            sleep_until(at).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(depart, arrive).map(|_| ())
}
