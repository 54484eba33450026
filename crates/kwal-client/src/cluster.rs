//! State shared by all handles of a client.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use kwal_protocol::compression::Compressor;
use tokio::runtime::Handle;

use crate::{
    buffers::ClientBuffers, config::Config, decompressors::Decompressors, memory::Memory,
    metadata::MetadataCache, metrics, pool::ConnectionPool, producer_id::ProducerIdPool, random::Random,
    trouble::Troubles,
};

/// State shared by all handles of a client: cluster metadata, connections, budget and idle producer ids.
pub(crate) struct Cluster {
    pub(crate) config: Arc<Config>,
    pub(crate) runtime: Handle,
    pub(crate) random: Random,
    pub(crate) troubles: Arc<Troubles>,
    pub(crate) pool: Arc<ConnectionPool>,
    pub(crate) metadata: MetadataCache,
    pub(crate) memory: Memory,
    pub(crate) buffers: ClientBuffers,
    pub(crate) producer_ids: ProducerIdPool,
    pub(crate) decompressors: Arc<Decompressors>,
    /// Lent to one caller at a time. A caller that finds it taken makes its own.
    compressor: Mutex<Compressor>,
}

impl Cluster {
    pub(crate) fn new(config: Config, runtime: Handle) -> Self {
        metrics::describe();
        let config = Arc::new(config);
        let random = Random::new(config.seed);
        let memory = Memory::new(config.limits.memory);
        let pool = ConnectionPool::new(Arc::clone(&config), random.clone(), memory.clone(), runtime.clone());
        let troubles = Arc::clone(pool.troubles());
        let pool = Arc::new(pool);
        let buffers = ClientBuffers::new(config.limits.memory, runtime.clone());
        Self {
            metadata: MetadataCache::new(Arc::clone(&pool)),
            memory,
            producer_ids: ProducerIdPool::default(),
            decompressors: Arc::default(),
            compressor: Mutex::new(Compressor::with_buffers(buffers.get().clone())),
            buffers,
            config,
            runtime,
            random,
            troubles,
            pool,
        }
    }

    /// Returns the most that one fetch asks for, in bytes, so that there may be one on each connection to a
    /// broker.
    pub(crate) fn most_per_fetch(&self) -> i32 {
        let most = self.memory.most_per_read(self.config.limits.max_connections_per_broker);
        i32::try_from(most).unwrap_or(i32::MAX)
    }

    /// Lends the memory that codecs work with.
    pub(crate) fn with_compressor<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        match self.compressor.try_lock() {
            Ok(mut compressor) => work(&mut compressor),
            Err(_) => self.with_new_compressor(work),
        }
    }

    /// Makes what a batch takes that is not compressed.
    pub(crate) fn with_new_compressor<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        work(&mut Compressor::with_buffers(self.buffers.get().clone()))
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
