//! Byte streams to Kafka brokers.
//!
//! This crate transports bytes and does not depend on Kafka's protocol. A [`Connect`] turns a [`HostPort`]
//! into a [`Stream`]:
//!
//! | transport | type | for |
//! | --- | --- | --- |
//! | TCP | [`Tcp`] | brokers on a network |
#![cfg_attr(
    feature = "transport-tls",
    doc = "| TLS | [`Tls`], over any other | listeners with the protocol `SSL` or `SASL_SSL` |"
)]
#![cfg_attr(
    feature = "transport-socks5",
    doc = "| SOCKS5 | [`Socks5`], over any other | brokers that are only reachable through a proxy |"
)]
//! | memory | [`memory::MemoryNetwork`] | a broker in the same process: tests, simulations |
//! | your own | `impl Connect` | tunnels, service meshes, fault injection |
//!
//! They nest: TLS through a proxy is `Tls::new(…).over(Socks5::new(…))`. The caller limits the time of
//! connecting by dropping the future.
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `transport-tls` | yes | TLS by rustls; without a crypto provider |
//! | `tls-ring` | no | the provider *ring*, and Mozilla's and the system's root certificates |
//! | `tls-aws-lc-rs` | no | the provider AWS-LC, and the same roots |
//! | `transport-socks5` | no | SOCKS5 proxies by fast-socks5 |
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

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod connect;
mod error;
pub mod memory;
#[cfg(feature = "transport-socks5")]
mod socks5;
mod tcp;
#[cfg(feature = "transport-tls")]
pub mod tls;

pub use address::{AddressProblem, HostPort, InvalidAddress};
pub use connect::{BoxFuture, Connect, Stream};
pub use error::{Alert, Attempt, Socks5Error, Socks5Reply, TlsError, TransportError};
#[cfg(feature = "transport-socks5")]
pub use socks5::Socks5;
pub use tcp::{Keepalive, Tcp};
#[cfg(feature = "transport-tls")]
pub use tls::Tls;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
