//! Prints the public items of a crate, one per line, without blanket, auto trait and derived implementations.
//!
//! ```text
//! kwal-public-api target/doc/kwal.json
//! ```

use std::{env, error::Error};

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let json = env::args_os().nth(1).ok_or("usage: kwal-public-api JSON")?;
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    print!("{api}");
    Ok(())
}
