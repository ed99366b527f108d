//! Operations of the x87 unit in portable code.

use super::Mode;
use evm_fpu::x87;

pub(super) fn load80(v: &u128) -> u128 {
    *v
}
pub(super) fn load(m: Mode, kind: u64, bits: u64) -> (u128, u16) {
    x87::load(m.cw, kind, bits)
}
pub(super) fn load_decimal(m: u128) -> u128 {
    x87::load_decimal(m)
}
pub(super) fn constant(m: Mode, which: u64) -> u128 {
    x87::constant(m.cw, which)
}
pub(super) fn store(m: Mode, kind: u64, a: &u128) -> (u64, u16) {
    x87::store(m.cw, kind, *a)
}
pub(super) fn store_decimal(m: Mode, a: &u128) -> (u128, u16) {
    x87::store_decimal(m.cw, *a)
}
pub(super) fn arith(m: Mode, op: u64, d: &u128, b: &u128) -> (u128, u16) {
    x87::arith(m.cw, op, *d, *b)
}
pub(super) fn arith_mem(m: Mode, form: u64, a: &u128, bits: u64) -> Option<(u128, u16)> {
    Some(x87::arith_mem(m.cw, form, *a, bits))
}
pub(super) fn compare(m: Mode, unordered: bool, a: &u128, b: &u128) -> u16 {
    x87::compare(m.cw, unordered, *a, *b)
}
pub(super) fn compare_mem(m: Mode, kind: u64, a: &u128, bits: u64) -> u16 {
    x87::compare_mem(m.cw, kind, *a, bits)
}
pub(super) fn unary(m: Mode, code: u64, a: &u128, b: &u128) -> (u128, u128, u16) {
    x87::unary(m.cw, code, *a, *b)
}
