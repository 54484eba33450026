//! Lets the client's source make mistakes.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=kwal_planted");
}
