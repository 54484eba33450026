//! A client without a runtime, which is an example of kwal-protocol.

use kwal_testkit::EmbeddedCluster;
use tokio::task::spawn_blocking;

use crate::client::batch;

#[path = "../../../kwal-protocol/examples/tiny_client.rs"]
#[allow(dead_code, reason = "the example has a main")]
mod example;

/// It asks any broker, and reads from the leader.
#[tokio::test]
async fn it_reads_the_beginning_of_a_log() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start().await.unwrap();
    cluster.append_raw("wal", 0, batch(&["a", "b"]).to_bytes()).unwrap();
    cluster.append_raw("wal", 0, batch(&["c"]).to_bytes()).unwrap();
    let addresses = cluster.bootstrap();
    let read = move || {
        for address in addresses {
            let mut client = example::Client::connect(&address)?;
            assert_eq!(client.topics()?, ["wal"]);
            assert_eq!(client.read("wal")?, ["a", "b", "c"]);
            let error = client.read("nothing").unwrap_err().to_string();
            assert!(error.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
        }
        example::Result::Ok(())
    };
    spawn_blocking(read).await.unwrap().unwrap();
}
