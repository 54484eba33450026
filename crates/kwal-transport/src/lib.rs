//! Byte streams to Kafka brokers.
//!
//! This crate carries bytes and knows nothing of Kafka. A [`Connect`] turns a [`HostPort`] into a [`Stream`]:
//!
//! | way | type | for |
//! | --- | --- | --- |
//! | TCP | [`Tcp`] | brokers on a network |
//! | memory | [`memory::MemoryNetwork`] | a broker in the same process: tests, simulations |
//! | your own | `impl Connect` | tunnels, service meshes, fault injection |
//!
//! ```
//! use kwal_transport::{Connect, HostPort, Tcp};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address: HostPort = format!("localhost:{}", server.local_addr()?.port()).parse()?;
//!
//! let mut stream = Tcp::default().connect(&address).await?;
//! stream.write_all(b"ping").await?;
//!
//! let (mut accepted, _) = server.accept().await?;
//! let mut read = [0; 4];
//! accepted.read_exact(&mut read).await?;
//! assert_eq!(&read, b"ping");
//! # Ok(())
//! # }
//! ```

mod address;
mod connect;
mod error;
pub mod memory;
mod tcp;

pub use address::{AddressProblem, HostPort, InvalidAddress};
pub use connect::{BoxFuture, Connect, Stream};
pub use error::{Attempt, TransportError};
pub use tcp::{Keepalive, Tcp};
