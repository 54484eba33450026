use kwal_protocol::record::Headers;
use proptest::prelude::*;

use super::*;
use crate::producer::fixture::{compressing, partition};

/// Everything of the records of batches, one after another.
fn records(batches: &[EncodedBatch]) -> Vec<String> {
    let mut all = Vec::new();
    for batch in batches {
        let records = decode(batch).unwrap();
        for record in records.iter() {
            let record = record.unwrap();
            let headers: Vec<_> = record.headers().into_iter().map(|header| format!("{header:?}")).collect();
            all.push(format!("{} {:?} {:?} {headers:?}", record.timestamp_ms, record.key, record.value));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn parts_are_the_records_and_small_enough(
        values in prop::collection::vec((0..400_usize, 0..3_u8, any::<u32>()), 1..40),
        max_bytes in 0..2_000_usize,
        is_compressing: bool,
    ) {
        let partition = if is_compressing { compressing() } else { partition() };
        let mut builder = partition.batch_builder(0);
        let mut seed = 1_u64;
        for (bytes, kind, ms) in values {
            let value: Vec<u8> = (0..bytes)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 56) as u8
                })
                .collect();
            let mut headers = Headers::new();
            if kind == 1 {
                headers.push("name", value.clone());
            }
            builder.push(ms.into(), (kind == 2).then_some(b"key"), Some(&value), &headers);
        }
        let batch = partition.finish(builder).unwrap();
        let parts = split(partition, batch.clone(), max_bytes).unwrap();
        for part in &parts {
            prop_assert!(part.size_in_bytes() <= max_bytes || part.record_count() == 1);
            prop_assert_eq!(part.compression(), batch.compression());
        }
        prop_assert_eq!(records(&parts), records(std::slice::from_ref(&batch)));
        if batch.size_in_bytes() <= max_bytes {
            prop_assert_eq!(parts.len(), 1);
        }
    }
}
