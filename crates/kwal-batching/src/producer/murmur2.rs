//! The hash by which Kafka's Java producer finds the partition of a key.

/// Returns the partition of a key, of so many: what the default partitioner of Kafka's Java producer returns.
pub(super) fn partition(key: &[u8], partitions: usize) -> usize {
    // As Java clears the sign: `-hash` would differ, and `abs` fails for one number.
    let positive = murmur2(key) & 0x7fff_ffff;
    positive as usize % partitions.max(1)
}

/// MurmurHash2 of 32 bits, with the seed that Kafka has always used.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    let scramble = |word: u32| {
        let word = word.wrapping_mul(FACTOR);
        (word ^ (word >> 24)).wrapping_mul(FACTOR)
    };
    let (words, rest) = key.as_chunks::<4>();
    // Java's lengths have 31 bits.
    let mut hash = SEED ^ key.len() as u32;
    for word in words {
        hash = hash.wrapping_mul(FACTOR) ^ scramble(u32::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of what Kafka's own class returned.
    const VECTORS: &str = include_str!("murmur2/vectors.txt");

    #[test]
    fn keys_have_the_hash_and_the_partitions_that_kafka_returns() {
        let mut lengths = [0; 41];
        for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let mut columns = line.split(' ');
            let key = bytes(columns.next().unwrap());
            let hash: i32 = columns.next().unwrap().parse().unwrap();
            assert_eq!(murmur2(&key) as i32, hash, "{line}");
            let partitions: Vec<usize> = columns.map(|column| column.parse().unwrap()).collect();
            assert_eq!([1, 2, 3, 5, 12, 100, 1000].map(|of| partition(&key, of)), *partitions, "{line}");
            if let Some(seen) = lengths.get_mut(key.len()) {
                *seen += 1;
            }
        }
        assert!(lengths.iter().all(|seen| *seen > 0), "{lengths:?}");
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.trim_start_matches('-').as_bytes().chunks(2);
        digits.map(|byte| u8::from_str_radix(str::from_utf8(byte).unwrap(), 16).unwrap()).collect()
    }
}
