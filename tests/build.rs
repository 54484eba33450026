//! Sets `cfg`s from the environment, so that tests that need a real broker are listed as ignored without one.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=TEST_INTEGRATION");
    println!("cargo::rerun-if-env-changed=KAFKA_CONNECT");
    println!("cargo::rerun-if-env-changed=KWAL_LONG");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(kwal_integration)");
    println!("cargo::rustc-check-cfg=cfg(kwal_external)");
    println!("cargo::rustc-check-cfg=cfg(kwal_long)");
    if env::var("TEST_INTEGRATION").is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=kwal_integration");
    }
    if env::var("KAFKA_CONNECT").is_ok_and(|value| !value.is_empty()) {
        println!("cargo::rustc-cfg=kwal_external");
    }
    if env::var("KWAL_LONG").is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=kwal_long");
    }
}
