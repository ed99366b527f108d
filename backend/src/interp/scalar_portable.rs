//! Scalar floating-point instructions in portable code, by the names of those of the CPU.

use evm_fpu::sse::{Double, Single, holds, relation};

#[rustfmt::skip]
macro_rules! fp2 {
    ("addss", $t:ty, $b:ty) => { evm_fpu::sse::add_::<evm_fpu::sse::Single> };
    ("subss", $t:ty, $b:ty) => { evm_fpu::sse::sub_::<evm_fpu::sse::Single> };
    ("mulss", $t:ty, $b:ty) => { evm_fpu::sse::mul_::<evm_fpu::sse::Single> };
    ("divss", $t:ty, $b:ty) => { evm_fpu::sse::div_::<evm_fpu::sse::Single> };
    ("minss", $t:ty, $b:ty) => { evm_fpu::sse::min::<evm_fpu::sse::Single> };
    ("maxss", $t:ty, $b:ty) => { evm_fpu::sse::max::<evm_fpu::sse::Single> };
    ("addsd", $t:ty, $b:ty) => { evm_fpu::sse::add_::<evm_fpu::sse::Double> };
    ("subsd", $t:ty, $b:ty) => { evm_fpu::sse::sub_::<evm_fpu::sse::Double> };
    ("mulsd", $t:ty, $b:ty) => { evm_fpu::sse::mul_::<evm_fpu::sse::Double> };
    ("divsd", $t:ty, $b:ty) => { evm_fpu::sse::div_::<evm_fpu::sse::Double> };
    ("minsd", $t:ty, $b:ty) => { evm_fpu::sse::min::<evm_fpu::sse::Double> };
    ("maxsd", $t:ty, $b:ty) => { evm_fpu::sse::max::<evm_fpu::sse::Double> };
    ("sqrtss", $t:ty, $b:ty) => { |a, _| evm_fpu::sse::sqrt_::<evm_fpu::sse::Single>(a) };
    ("sqrtsd", $t:ty, $b:ty) => { |a, _| evm_fpu::sse::sqrt_::<evm_fpu::sse::Double>(a) };
}
#[rustfmt::skip]
macro_rules! cvt {
    ("cvtss2sd", $x:expr => $rc:ident, $init:expr) => { evm_fpu::sse::convert::<evm_fpu::sse::Single, evm_fpu::sse::Double>($x.to_bits().into()) };
    ("cvtsd2ss", $x:expr => $rc:ident, $init:expr) => { evm_fpu::sse::convert::<evm_fpu::sse::Double, evm_fpu::sse::Single>($x.to_bits()) };
    ("cvtsi2ss", $x:expr => $rc:ident, $init:expr) => { evm_fpu::sse::from_integer::<evm_fpu::sse::Single>($x as i64) };
    ("cvtsi2sd", $x:expr => $rc:ident, $init:expr) => { evm_fpu::sse::from_integer::<evm_fpu::sse::Double>($x as i64) };
    ("cvttss2si", $x:expr, $mod:literal, $r:ty) => { evm_fpu::sse::to_int::<evm_fpu::sse::Single>($x.to_bits().into(), <$r>::BITS, true) };
    ("cvttsd2si", $x:expr, $mod:literal, $r:ty) => { evm_fpu::sse::to_int::<evm_fpu::sse::Double>($x.to_bits(), <$r>::BITS, true) };
}

macro_rules! compare {
    ($( $name:ident $t:ty, $mask:expr, $signal:expr; )*) => { $(
        pub(super) fn $name<const P: u8>(a: u64, b: u64) -> u64 {
            u64::from(holds(relation::<$t>(a & $mask, b & $mask, $signal), P.into()))
        }
    )* };
}
compare! {
    cmp32 Single, 0xffff_ffff, false;
    cmp64 Double, u64::MAX, false;
    signal32 Single, 0xffff_ffff, true;
    signal64 Double, u64::MAX, true;
}
