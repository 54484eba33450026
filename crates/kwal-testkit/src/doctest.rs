//! Runs documentation examples that contain a broker's address.

use std::{error::Error, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{embedded::EmbeddedCluster, error};

/// Runs an example with a new [`EmbeddedCluster`] at a port of localhost, for as long as the example runs.
///
/// With it, two hidden lines turn an example that can be copied as it stands into a doc test:
///
/// ```
/// # kwal_testkit::doctest(29092, async {
/// let stream = tokio::net::TcpStream::connect("localhost:29092").await?;
/// # assert!(stream.peer_addr()?.ip().is_loopback()); Ok(()) });
/// ```
///
/// Examples with the same port wait for each other, also across processes.
///
/// # Panics
/// If the example fails, with its error; if the port is not free within 30 s; inside a tokio runtime.
#[track_caller]
pub fn doctest(port: u16, example: impl Future<Output = Result<(), Box<dyn Error>>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            let _broker = start(port).await?;
            example.await
        })
    });
    if let Err(error) = result {
        panic!("the example failed: {error}: {error:?}");
    }
}

async fn start(port: u16) -> Result<EmbeddedCluster, error::Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match EmbeddedCluster::builder().port(port).start().await {
            Err(error::Error::Listen { .. }) if Instant::now() < deadline => sleep(PAUSE).await,
            result => return result,
        }
    }
}

/// How long another process may hold the port.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
