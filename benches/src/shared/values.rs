//! The values of the records.

#[path = "../random.rs"]
#[allow(clippy::duplicate_mod, reason = "the other clients are built with it")]
mod random;

/// So many batches differ; others repeat them.
pub const DIFFERENT: usize = 8;
/// The words that values are made of.
const WORD: usize = 16;
const DICTIONARY: usize = 512;

/// Returns the values of a batch. A quarter of their words is random, and all others repeat.
pub fn values(count: usize, size: usize, batch: usize) -> Vec<Vec<u8>> {
    let dictionary = random::values(DICTIONARY, WORD, 1);
    let mut made = random::values(count, size, ((batch % DIFFERENT) as u64 + 1) << 32);
    for word in made.iter_mut().flat_map(|value| value.chunks_exact_mut(WORD)) {
        let random = usize::from(word[0]) | usize::from(word[1]) << 8;
        if random % 4 != 0 {
            word.copy_from_slice(&dictionary[random / 4 % DICTIONARY]);
        }
    }
    made
}

/// Returns a value that does not repeat itself.
pub(super) fn incompressible(size: usize) -> Vec<u8> {
    random::values(1, size, 0).remove(0)
}

/// Sums the words of a value: cheap, and it uses every byte.
#[inline]
pub fn sum(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add);
    rest.iter().map(|byte| u64::from(*byte)).fold(words, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_uses_every_byte() {
        let value: Vec<u8> = (1..=21).collect();
        for at in 0..value.len() {
            let mut other = value.clone();
            other[at] ^= 0x80;
            assert_ne!(sum(&other), sum(&value));
        }
    }

    #[test]
    fn batches_repeat() {
        assert_eq!(values(2, 40, 0), values(2, 40, DIFFERENT));
        assert_ne!(values(2, 40, 0), values(2, 40, 1));
    }
}
