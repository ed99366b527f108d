//! Inputs for helper tests.

/// Xorshift numbers.
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// 128 bits: random, or with lanes that are edge cases.
    pub fn vec(&mut self) -> u128 {
        const EDGES: [u64; 12] = [
            0,
            u64::MAX,
            0x8000_0000_8000_0000,
            0x8000_8000_7fff_7fff,
            0x7f80_8000_ff01_00ff,
            0x7ff0_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0x3f80_0000_bf80_0000,
            0x7fc0_0001_7f80_0001,
            0x0000_0001_807f_ffff,
            0xfff8_0000_0000_0001,
            0x8080_8080_7f7f_7f7f,
        ];
        let mut half = || {
            let r = self.next();
            match r % 3 {
                0 => EDGES[(r >> 8) as usize % EDGES.len()],
                1 => self.next() & EDGES[(r >> 8) as usize % EDGES.len()],
                _ => self.next(),
            }
        };
        u128::from(half()) << 64 | u128::from(half())
    }
}
