//! Bytes that are the same in every run. All programs are built with this file, which needs nothing else.

/// Returns `count` incompressible values of `size` bytes.
pub(crate) fn values(count: usize, size: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)).to_le_bytes()
    };
    (0..count)
        .map(|_| {
            let mut value: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| word()).collect();
            value.truncate(size);
            value
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        let values = values(3, 13, 7);
        assert!(values.iter().all(|value| value.len() == 13));
        assert!(values[0] != values[1] && values[1] != values[2]);
    }
}
