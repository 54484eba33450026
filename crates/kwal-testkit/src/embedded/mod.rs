//! The cluster that a test starts.

mod brokers;
mod builder;
mod cluster;
mod topics;

pub use self::{builder::EmbeddedClusterBuilder, cluster::EmbeddedCluster};
