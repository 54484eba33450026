//! Input for tests.

/// Repeated words and noise.
pub(super) fn input(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 24
    };
    let mut input = Vec::with_capacity(len + 16);
    while input.len() < len {
        let word = next();
        let noise = word % 7 == 0;
        input.extend((0..16).map(|i| if noise { next() as u8 } else { (word + i) as u8 }));
    }
    input.truncate(len);
    input
}
