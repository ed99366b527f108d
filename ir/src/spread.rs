//! Choosing by some bits of an address.

/// The bits of addresses (shift and mask) that tell most of them apart.
pub fn spread(known: &[u64]) -> (u32, u64) {
    let most = known.len().next_power_of_two().trailing_zeros() + 2;
    let all = (1..=most).flat_map(|bits| (0..8).map(move |shift| (shift, (1u64 << bits) - 1)));
    let cost = |(shift, mask): &(u32, u64)| {
        let mut counts = vec![0usize; *mask as usize + 1];
        known.iter().for_each(|k| counts[(k >> shift & mask) as usize] += 1);
        // Comparisons, and a little for the size of the table.
        counts.iter().map(|n| n * n).sum::<usize>() * 4 + counts.len() / 4
    };
    all.min_by_key(cost).unwrap_or((0, 0))
}
