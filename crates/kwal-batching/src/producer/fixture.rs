//! A partition client for tests of what needs one and sends nothing.

use std::sync::OnceLock;

use kwal_client::{ClientBuilder, PartitionClient};
use kwal_protocol::record::{Compression, EncodedBatch};
use kwal_testkit::EmbeddedCluster;
use tokio::runtime::Runtime;

use super::split::decode;

struct Fixture {
    partition: PartitionClient,
    _cluster: EmbeddedCluster,
    _runtime: Runtime,
}

impl Fixture {
    fn new(compression: Compression) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.unwrap();
        let (partition, _cluster) = runtime.block_on(async {
            let cluster = EmbeddedCluster::builder().topic("wal", 1).start_in_memory().unwrap();
            let client = ClientBuilder::new(cluster.bootstrap()).connector(cluster.connector());
            let client = client.build().await.unwrap();
            (client.partition_client("wal", 0).compression(compression).await.unwrap(), cluster)
        });
        Self { partition, _cluster, _runtime: runtime }
    }
}

/// Returns a partition client that all tests share.
pub(super) fn partition() -> &'static PartitionClient {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    &FIXTURE.get_or_init(|| Fixture::new(Compression::None)).partition
}

/// Returns another one that compresses batches.
pub(super) fn compressing() -> &'static PartitionClient {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    let compression = if cfg!(feature = "compression-lz4") { Compression::Lz4 } else { Compression::None };
    &FIXTURE.get_or_init(|| Fixture::new(compression)).partition
}

/// Returns the values of a batch.
pub(super) fn values(batch: &EncodedBatch) -> Vec<Vec<u8>> {
    let records = decode(batch).unwrap();
    records.iter().map(|record| record.unwrap().value.unwrap_or_default().to_vec()).collect()
}
