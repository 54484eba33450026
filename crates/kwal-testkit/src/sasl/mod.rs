//! Authentication of clients.

mod config;
mod mechanism;
mod server;

pub use config::Sasl;
pub(crate) use server::SaslServer;
