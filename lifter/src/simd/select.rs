//! Byte selectors of shuffles whose pattern is constant: 0-15 first operand, 16-31 second.

/// Selectors for lanes of `bytes`: result lane `k` is lane `lane(k)` of the pair of operands.
pub(super) fn lanes(bytes: usize, lane: impl Fn(usize) -> usize) -> [u8; 16] {
    std::array::from_fn(|i| (lane(i / bytes) * bytes + i % bytes) as u8 & 31)
}

/// Interleave the low or high halves (PUNPCKL*, PUNPCKH*, UNPCK*).
pub(super) fn unpack(bytes: usize, high: bool) -> [u8; 16] {
    let n = 16 / bytes;
    let from = if high { n / 2 } else { 0 };
    lanes(bytes, |k| from + k / 2 + if k & 1 != 0 { n } else { 0 })
}

/// PSHUFD: lanes of the first operand.
pub(super) fn pshufd(imm: u8) -> [u8; 16] {
    lanes(4, |k| usize::from(imm >> (2 * k) & 3))
}
/// PSHUFLW.
pub(super) fn pshuflw(imm: u8) -> [u8; 16] {
    lanes(2, |k| if k < 4 { usize::from(imm >> (2 * k) & 3) } else { k })
}
/// PSHUFHW.
pub(super) fn pshufhw(imm: u8) -> [u8; 16] {
    lanes(2, |k| if k < 4 { k } else { 4 + usize::from(imm >> (2 * (k - 4)) & 3) })
}
/// SHUFPS.
pub(super) fn shufps(imm: u8) -> [u8; 16] {
    lanes(4, |k| usize::from(imm >> (2 * k) & 3) + if k < 2 { 0 } else { 4 })
}
/// SHUFPD.
pub(super) fn shufpd(imm: u8) -> [u8; 16] {
    lanes(8, |k| usize::from(imm >> k & 1) + 2 * k)
}
/// VPERMILPD by immediate.
pub(super) fn permilpd(imm: u8) -> [u8; 16] {
    lanes(8, |k| usize::from(imm >> k & 1))
}
/// Lane `k` of the second operand where bit `k` of `imm` is set (BLENDPS, PBLENDW, …).
pub(super) fn blend(bytes: usize, imm: u8) -> [u8; 16] {
    lanes(bytes, |k| k + if imm >> k & 1 != 0 { 16 / bytes } else { 0 })
}
/// 16 bytes from byte `n` (0-16) of the 32 bytes of both operands.
pub(super) fn align(n: u8) -> [u8; 16] {
    std::array::from_fn(|i| i as u8 + n.min(16))
}
