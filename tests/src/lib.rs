//! Support for the integration tests.
//!
//! A test against a real broker is an `async fn` that takes a [`Kafka`](kafka::Kafka). [`suite!`] generates
//! one test of it for each version of Apache Kafka. These tests run with `TEST_INTEGRATION=1` and are listed
//! as ignored without it. They need Java 17 and Maven to download and start Apache Kafka, or
//! `KAFKA_CONNECT=host:port[,…]` to use a running cluster, and fail without either. The proxy tests need
//! microsocks.

pub mod holder;
pub mod kafka;
pub mod message;
mod process;
pub mod socks5;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::time::Duration;

use tokio::time::Instant;

/// Generates a module of tests for each Kafka version from functions of the calling module.
///
/// `shared` functions are `async fn(&'static Kafka)` and get one broker that the tests of a process share.
/// `secured` functions are the same with three brokers and all kinds of listeners
/// ([`Kafka::secured`](kafka::Kafka::secured)). `own` functions are `async fn(Version)` and start their own
/// brokers, to stop them or read their files. `older` and `newer` functions are the same on one version, and
/// with `KWAL_LONG=1` on both. With `KAFKA_CONNECT`, the first kind gets that cluster, and the others are
/// ignored.
///
/// ```text
/// // v3_9_2::offsets, v4_3_1::offsets, …
/// suite! { shared: [offsets], secured: [by_tls], own: [broker_killed] }
/// ```
#[macro_export]
macro_rules! suite {
    (
        $(shared: [$($shared:ident),* $(,)?] $(,)?)?
        $(secured: [$($secured:ident),* $(,)?] $(,)?)?
        $(own: [$($own:ident),* $(,)?] $(,)?)?
        $(older: [$($older:ident),* $(,)?] $(,)?)?
        $(newer: [$($newer:ident),* $(,)?] $(,)?)?
    ) => {
        $crate::suite!(
            @version v3_9_2 V3_9_2
            [$($($shared)*)?] [$($($secured)*)?] [$($($own)*)? $($($older)*)?] [$($($newer)*)?]
        );
        $crate::suite!(
            @version v4_3_1 V4_3_1
            [$($($shared)*)?] [$($($secured)*)?] [$($($own)*)? $($($newer)*)?] [$($($older)*)?]
        );

        $(
            #[cfg(kwal_external)]
            mod external {
                $(
                    #[test]
                    #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
                    fn $shared() {
                        let test = async { super::$shared($crate::kafka::Kafka::external()).await };
                        $crate::run(concat!(module_path!(), "::", stringify!($shared)), test);
                    }
                )*
            }
        )?
    };
    (
        @version $module:ident $version:ident
        [$($shared:ident)*] [$($secured:ident)*] [$($own:ident)*] [$($long:ident)*]
    ) => {
        mod $module {
            $(
                #[cfg(not(kwal_external))]
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
                fn $shared() {
                    let test = async {
                        super::$shared($crate::kafka::Kafka::shared($crate::kafka::Version::$version)).await
                    };
                    $crate::run(concat!(module_path!(), "::", stringify!($shared)), test);
                }
            )*
            $(
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs brokers: TEST_INTEGRATION=1")]
                #[cfg_attr(
                    all(kwal_integration, kwal_external),
                    ignore = "starts its own brokers: not those of KAFKA_CONNECT"
                )]
                fn $secured() {
                    let test = async {
                        super::$secured($crate::kafka::Kafka::secured($crate::kafka::Version::$version)).await
                    };
                    $crate::run(concat!(module_path!(), "::", stringify!($secured)), test);
                }
            )*
            $(
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs a broker: TEST_INTEGRATION=1")]
                #[cfg_attr(
                    all(kwal_integration, kwal_external),
                    ignore = "starts its own brokers: not those of KAFKA_CONNECT"
                )]
                fn $own() {
                    let test = super::$own($crate::kafka::Version::$version);
                    $crate::run(concat!(module_path!(), "::", stringify!($own)), test);
                }
            )*
            $(
                #[test]
                #[cfg_attr(not(kwal_integration), ignore = "needs brokers: TEST_INTEGRATION=1")]
                #[cfg_attr(
                    all(kwal_integration, kwal_external),
                    ignore = "starts its own brokers: not those of KAFKA_CONNECT"
                )]
                #[cfg_attr(
                    all(kwal_integration, not(kwal_external), not(kwal_long)),
                    ignore = "runs on the other version; KWAL_LONG=1: on both"
                )]
                fn $long() {
                    let test = super::$long($crate::kafka::Version::$version);
                    $crate::run(concat!(module_path!(), "::", stringify!($long)), test);
                }
            )*
        }
    };
}

/// Runs a test on its own runtime, with a time limit. A duration of more than ten seconds is
/// [reported](report).
///
/// # Panics
///
/// If the test panics, or takes ten minutes. The first tests may download and start brokers and build
/// programs.
pub fn run(name: &str, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(600), test).await.expect("the test ends within ten minutes");
        let took = begun.elapsed();
        if took > Duration::from_secs(10) {
            report(format_args!("{name} took {:.1} s", took.as_secs_f64()));
        }
    });
    runtime.shutdown_background();
}

/// Returns whether tests with a short and a long form run the long one: `KWAL_LONG=1`.
pub fn long() -> bool {
    std::env::var("KWAL_LONG").is_ok_and(|value| value == "1")
}

/// Prints what a test has measured. Unlike captured output, it is also shown for tests that pass.
pub fn report(line: impl Display) {
    // One write per line, since other tests print at the same time. A failure to print is not worth failing
    // the test.
    let _ = io::stderr().write_all(format!("      {line}\n").as_bytes());
}
