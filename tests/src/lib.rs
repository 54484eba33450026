//! Support for the integration tests.
//!
//! A test against a real broker is an `async fn` that takes a [`Kafka`](kafka::Kafka); [`suite!`] makes one test of it
//! for each version of Apache Kafka. They run with `TEST_INTEGRATION=1`, are listed as ignored without it, and fail
//! when no broker can be had: Java 17 and Maven, which fetch and start Apache Kafka, or `KAFKA_CONNECT=host:port[,…]`,
//! which names a cluster to use instead.

pub mod kafka;
pub mod message;

use std::future::Future;
use std::time::Duration;

/// Makes a module of tests for each Kafka version out of functions of the calling module.
///
/// `shared` functions are `async fn(&'static Kafka)` and get one broker that the tests of a process share; `own`
/// functions are `async fn(Version)`, for what cannot be done to a broker of others: ending it, reading its files. They
/// are ignored under `KAFKA_CONNECT`.
///
/// ```text
/// suite! { shared: [offsets], own: [broker_killed] }       // v3_9_2::offsets, v4_3_1::offsets, …
/// ```
#[macro_export]
macro_rules! suite {
    (shared: [$($shared:ident),* $(,)?], own: [$($own:ident),* $(,)?] $(,)?) => {
        $crate::suite!(@version v3_9_2 V3_9_2 [$($shared)*] [$($own)*]);
        $crate::suite!(@version v4_3_1 V4_3_1 [$($shared)*] [$($own)*]);

        #[cfg(kwal_external)]
        mod external {
            $(
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
                fn $shared() {
                    $crate::run(async { super::$shared($crate::kafka::Kafka::external()).await });
                }
            )*
        }
    };
    (@version $module:ident $version:ident [$($shared:ident)*] [$($own:ident)*]) => {
        mod $module {
            $(
                #[cfg(not(kwal_external))]
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
                fn $shared() {
                    $crate::run(async {
                        super::$shared($crate::kafka::Kafka::shared($crate::kafka::Version::$version)).await
                    });
                }
            )*
            $(
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
                #[cfg_attr(
                    all(kwal_integration, kwal_external),
                    ignore = "needs brokers of its own: not those of KAFKA_CONNECT"
                )]
                fn $own() {
                    $crate::run(super::$own($crate::kafka::Version::$version));
                }
            )*
        }
    };
}

/// Runs a test on a runtime of its own, with a limit: what hangs fails.
///
/// # Panics
///
/// As the test does, and after five minutes.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(300), test)
            .await
            .expect("the test ends within five minutes");
    });
    runtime.shutdown_background();
}
