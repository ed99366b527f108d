//! Packed floating-point instructions in portable code, by the names of those of the CPU.

use super::cast;
use evm_fpu::sse::{self, Double, Single};
use std::array::from_fn;

/// An operation on each pair of singles.
pub(super) fn singles(f: fn(u64, u64) -> u64, a: u128, b: u128) -> u128 {
    let (a, b): ([u32; 4], [u32; 4]) = (cast(a), cast(b));
    cast(from_fn::<u32, 4, _>(|i| f(a[i].into(), b[i].into()) as u32))
}
/// An operation on each pair of doubles.
pub(super) fn doubles(f: fn(u64, u64) -> u64, a: u128, b: u128) -> u128 {
    let (a, b): ([u64; 2], [u64; 2]) = (cast(a), cast(b));
    cast(from_fn::<u64, 2, _>(|i| f(a[i], b[i])))
}

#[rustfmt::skip]
macro_rules! fp {
    ("addps") => { |a, b| instructions::singles(evm_fpu::sse::add_::<evm_fpu::sse::Single>, a, b) };
    ("subps") => { |a, b| instructions::singles(evm_fpu::sse::sub_::<evm_fpu::sse::Single>, a, b) };
    ("mulps") => { |a, b| instructions::singles(evm_fpu::sse::mul_::<evm_fpu::sse::Single>, a, b) };
    ("divps") => { |a, b| instructions::singles(evm_fpu::sse::div_::<evm_fpu::sse::Single>, a, b) };
    ("minps") => { |a, b| instructions::singles(evm_fpu::sse::min::<evm_fpu::sse::Single>, a, b) };
    ("maxps") => { |a, b| instructions::singles(evm_fpu::sse::max::<evm_fpu::sse::Single>, a, b) };
    ("addpd") => { |a, b| instructions::doubles(evm_fpu::sse::add_::<evm_fpu::sse::Double>, a, b) };
    ("subpd") => { |a, b| instructions::doubles(evm_fpu::sse::sub_::<evm_fpu::sse::Double>, a, b) };
    ("mulpd") => { |a, b| instructions::doubles(evm_fpu::sse::mul_::<evm_fpu::sse::Double>, a, b) };
    ("divpd") => { |a, b| instructions::doubles(evm_fpu::sse::div_::<evm_fpu::sse::Double>, a, b) };
    ("minpd") => { |a, b| instructions::doubles(evm_fpu::sse::min::<evm_fpu::sse::Double>, a, b) };
    ("maxpd") => { |a, b| instructions::doubles(evm_fpu::sse::max::<evm_fpu::sse::Double>, a, b) };
    ("sqrtps") => { |_, b| instructions::singles(|_, b| evm_fpu::sse::sqrt_::<evm_fpu::sse::Single>(b), b, b) };
    ("sqrtpd") => { |_, b| instructions::doubles(|_, b| evm_fpu::sse::sqrt_::<evm_fpu::sse::Double>(b), b, b) };
    ("cvtdq2ps") => { |_, b| instructions::singles(|_, b| evm_fpu::sse::from_integer::<evm_fpu::sse::Single>(b as i32 as i64), b, b) };
}

pub(super) fn cmps<const P: u8>(a: u128, b: u128) -> u128 {
    singles(|a, b| if sse::cmp::<Single>(a, b, P.into()) { 0xffff_ffff } else { 0 }, a, b)
}
pub(super) fn cmpd<const P: u8>(a: u128, b: u128) -> u128 {
    doubles(|a, b| if sse::cmp::<Double>(a, b, P.into()) { u64::MAX } else { 0 }, a, b)
}
