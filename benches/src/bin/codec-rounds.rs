//! Runs every measured operation of the codec once, each in a call of `measured`.
//!
//! The benchmark `codec_counts` runs it under callgrind, which counts the instructions inside of these calls.

use std::{hint::black_box, process::ExitCode};

use kwal_benches::codec::{Case, Glance, Input, Operation, Shape, Subject};

fn main() -> ExitCode {
    let inputs = Shape::ALL.map(|shape| (shape, Input::new(shape)));
    for (_, input) in &inputs {
        if let Err(error) = input.check() {
            eprintln!("codec-rounds: {error}");
            return ExitCode::FAILURE;
        }
    }
    for case in Case::all() {
        let (_, input) =
            inputs.iter().find(|(shape, _)| *shape == case.shape).expect("there is one for each");
        // Warm-up for the allocator and the detection of the processor's features.
        black_box(input.run::<Glance>(case.operation, case.subject));
        measured(input, case.operation, case.subject);
        println!("{case}");
    }
    ExitCode::SUCCESS
}

#[inline(never)]
fn measured(input: &Input, operation: Operation, subject: Subject) {
    black_box(black_box(input).run::<Glance>(operation, subject));
}
