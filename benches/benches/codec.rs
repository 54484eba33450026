//! Measures encoding and decoding of a batch of 1000 records: kwal, kafka-protocol, rskafka and the floors.
//!
//! ```sh
//! cargo bench -p kwal-benches --bench codec
//! ```
//!
//! The times of one run are comparable with each other, not with those of another machine or hour. The
//! benchmark `codec_counts` is the one that is checked.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kwal_benches::codec::{Glance, Input, Operation, RECORDS, Shape};

fn codec(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let input = Input::new(shape);
        input.check().expect("all make the same of the records");
        for operation in Operation::ALL {
            let mut group = criterion.benchmark_group(format!("{} {}", operation.name(), shape.name()));
            group.throughput(Throughput::Elements(RECORDS as u64));
            for &subject in operation.subjects() {
                group.bench_function(subject.name(), |bencher| {
                    bencher.iter(|| black_box(&input).run::<Glance>(black_box(operation), subject));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
