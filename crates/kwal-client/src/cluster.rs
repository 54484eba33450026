//! State shared by all handles of a client.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use kwal_protocol::compression::Compressor;
use tokio::runtime::Handle;

use crate::{
    config::Config, memory::Memory, metadata::MetadataCache, pool::ConnectionPool,
    producer_id::ProducerIdPool, random::Random,
};

/// State shared by all handles of a client: cluster metadata, connections, budget and idle producer ids.
pub(crate) struct Cluster {
    pub(crate) config: Arc<Config>,
    pub(crate) runtime: Handle,
    pub(crate) random: Random,
    pub(crate) pool: Arc<ConnectionPool>,
    pub(crate) metadata: MetadataCache,
    pub(crate) memory: Memory,
    pub(crate) producer_ids: ProducerIdPool,
    /// Lent to one caller at a time. A caller that finds it taken makes its own.
    compressor: Mutex<Compressor>,
}

impl Cluster {
    pub(crate) fn new(config: Config, runtime: Handle) -> Self {
        let config = Arc::new(config);
        let random = Random::new(config.seed);
        let pool = Arc::new(ConnectionPool::new(Arc::clone(&config), random.clone(), runtime.clone()));
        Self {
            metadata: MetadataCache::new(Arc::clone(&pool)),
            memory: Memory::new(config.limits.memory),
            producer_ids: ProducerIdPool::default(),
            compressor: Mutex::default(),
            config,
            runtime,
            random,
            pool,
        }
    }

    /// Lends the memory that codecs work with.
    pub(crate) fn with_compressor<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        match self.compressor.try_lock() {
            Ok(mut compressor) => work(&mut compressor),
            Err(_) => work(&mut Compressor::new()),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = self.metadata.snapshot();
        f.debug_struct("Cluster")
            .field("id", &metadata.cluster_id)
            .field("brokers", &metadata.brokers)
            .finish_non_exhaustive()
    }
}
