//! The seeded stream of random bytes, for jobs that must repeat exactly. Not for secrets: without a seed the host's
//! randomness is used.

/// xoshiro256**, seeded by SplitMix64 (Blackman and Vigna).
#[derive(Debug)]
pub(crate) struct Stream {
    s: [u64; 4],
}

impl Stream {
    pub fn new(seed: u64) -> Stream {
        let mut x = seed;
        let s = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        });
        Stream { s }
    }
    fn next(&mut self) -> u64 {
        let s = &mut self.s;
        let r = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        r
    }
    pub fn fill(&mut self, buf: &mut [u8]) {
        for c in buf.chunks_mut(8) {
            let w = self.next().to_le_bytes();
            c.copy_from_slice(&w[..c.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_and_repeatable() {
        // First outputs of SplitMix64 with seed 1234567, from its authors' code.
        let s = Stream::new(1_234_567);
        assert_eq!(s.s[0], 6_457_827_717_110_365_317);
        assert_eq!(s.s[1], 3_203_168_211_198_807_973);
        let (mut a, mut b) = (Stream::new(7), Stream::new(7));
        let (mut x, mut y) = ([0u8; 33], [0u8; 33]);
        a.fill(&mut x);
        b.fill(&mut y);
        assert_eq!(x, y);
    }
}
