//! [`HelperFn`]: the address of a helper together with its type.
//!
//! The IR knows a helper by its [`crate::HelperSig`] alone; engines call it through this enum, so that an
//! address is never called with another type than that of the function behind it.
//!
//! # Safety
//! The one unsafe thing here is the call of a helper, whose contract [`HelperFn::call`] passes on.
#![allow(unsafe_code)]
#![allow(improper_ctypes_definitions)] // vectors: both sides are this compiler

use crate::Type;
/// A vector as helpers take and give it.
#[cfg(target_arch = "x86_64")]
pub type Vector = std::arch::x86_64::__m128i;
/// A vector as helpers take and give it.
#[cfg(target_arch = "wasm32")]
pub type Vector = std::arch::wasm32::v128;
use Vector as V;

/// A result of a helper as 128 bits.
trait Bits {
    fn bits(self) -> u128;
}
impl Bits for () {
    fn bits(self) -> u128 {
        0
    }
}
impl Bits for u64 {
    fn bits(self) -> u128 {
        u128::from(self)
    }
}
impl Bits for V {
    fn bits(self) -> u128 {
        from_v(self)
    }
}

fn from_v(v: V) -> u128 {
    // SAFETY: same size, every bit pattern is valid in both.
    unsafe { std::mem::transmute::<V, u128>(v) }
}
fn to_v(v: u128) -> V {
    // SAFETY: as in `from_v`.
    unsafe { std::mem::transmute::<u128, V>(v) }
}

macro_rules! arg {
    ($ints:ident, $vecs:ident, i $n:literal) => {
        $ints[$n]
    };
    ($ints:ident, $vecs:ident, v $n:literal) => {
        to_v($vecs[$n])
    };
}

macro_rules! shapes {
    ($( $name:ident ($i:literal, $v:literal, $ret:expr) ($($t:ident $k:ident $n:literal),*) -> $r:ty; )*) => {
        /// A helper's address with its type: `I2V1_R` takes two `u64` and one vector and gives a `u64` (`_V`: a
        /// vector). The first argument of every helper is the guest state.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs, non_camel_case_types)]
        pub enum HelperFn { $( $name(unsafe extern "C" fn(*mut u8 $(, $t)*) -> $r), )* }
        impl HelperFn {
            /// Numbers of integer and vector parameters, and the result.
            pub const fn shape(&self) -> (u8, u8, Option<Type>) {
                match self { $( HelperFn::$name(_) => ($i, $v, $ret), )* }
            }
            /// Host address.
            pub fn addr(&self) -> u64 {
                match self { $( HelperFn::$name(f) => *f as usize as u64, )* }
            }
            /// The function without its type, for tables made at compile time.
            pub const fn erased(&self) -> unsafe extern "C" fn() {
                // SAFETY: function pointers are alike in size; whoever calls it gives it its type back.
                match self { $( HelperFn::$name(f) => unsafe {
                    std::mem::transmute::<unsafe extern "C" fn(*mut u8 $(, $t)*) -> $r, unsafe extern "C" fn()>(*f)
                }, )* }
            }
            /// Call it with the first of these integers and vectors; a `u64` result is zero-extended.
            ///
            /// # Safety
            /// `state` is the guest state that the helper expects, and nothing else borrows it.
            #[allow(unused_variables)]
            pub unsafe fn call(&self, state: *mut u8, ints: &[u64; 4], vecs: &[u128; 3]) -> u128 {
                // SAFETY: by the contract above; the type of the function is that of the variant.
                unsafe { match self {
                    $( HelperFn::$name(f) => f(state $(, arg!(ints, vecs, $k $n))*).bits(), )*
                } }
            }
        }
    };
}

shapes! {
    I0 (0, 0, None) () -> ();
    I0_R (0, 0, Some(Type::I64)) () -> u64;
    I0_V (0, 0, Some(Type::V128)) () -> V;
    I0V1 (0, 1, None) (V v 0) -> ();
    I0V1_R (0, 1, Some(Type::I64)) (V v 0) -> u64;
    I0V1_V (0, 1, Some(Type::V128)) (V v 0) -> V;
    I0V2 (0, 2, None) (V v 0, V v 1) -> ();
    I0V2_R (0, 2, Some(Type::I64)) (V v 0, V v 1) -> u64;
    I0V2_V (0, 2, Some(Type::V128)) (V v 0, V v 1) -> V;
    I0V3 (0, 3, None) (V v 0, V v 1, V v 2) -> ();
    I0V3_R (0, 3, Some(Type::I64)) (V v 0, V v 1, V v 2) -> u64;
    I0V3_V (0, 3, Some(Type::V128)) (V v 0, V v 1, V v 2) -> V;
    I1 (1, 0, None) (u64 i 0) -> ();
    I1_R (1, 0, Some(Type::I64)) (u64 i 0) -> u64;
    I1_V (1, 0, Some(Type::V128)) (u64 i 0) -> V;
    I1V1 (1, 1, None) (u64 i 0, V v 0) -> ();
    I1V1_R (1, 1, Some(Type::I64)) (u64 i 0, V v 0) -> u64;
    I1V1_V (1, 1, Some(Type::V128)) (u64 i 0, V v 0) -> V;
    I1V2 (1, 2, None) (u64 i 0, V v 0, V v 1) -> ();
    I1V2_R (1, 2, Some(Type::I64)) (u64 i 0, V v 0, V v 1) -> u64;
    I1V2_V (1, 2, Some(Type::V128)) (u64 i 0, V v 0, V v 1) -> V;
    I1V3 (1, 3, None) (u64 i 0, V v 0, V v 1, V v 2) -> ();
    I1V3_R (1, 3, Some(Type::I64)) (u64 i 0, V v 0, V v 1, V v 2) -> u64;
    I1V3_V (1, 3, Some(Type::V128)) (u64 i 0, V v 0, V v 1, V v 2) -> V;
    I2 (2, 0, None) (u64 i 0, u64 i 1) -> ();
    I2_R (2, 0, Some(Type::I64)) (u64 i 0, u64 i 1) -> u64;
    I2_V (2, 0, Some(Type::V128)) (u64 i 0, u64 i 1) -> V;
    I2V1 (2, 1, None) (u64 i 0, u64 i 1, V v 0) -> ();
    I2V1_R (2, 1, Some(Type::I64)) (u64 i 0, u64 i 1, V v 0) -> u64;
    I2V1_V (2, 1, Some(Type::V128)) (u64 i 0, u64 i 1, V v 0) -> V;
    I2V2 (2, 2, None) (u64 i 0, u64 i 1, V v 0, V v 1) -> ();
    I2V2_R (2, 2, Some(Type::I64)) (u64 i 0, u64 i 1, V v 0, V v 1) -> u64;
    I2V2_V (2, 2, Some(Type::V128)) (u64 i 0, u64 i 1, V v 0, V v 1) -> V;
    I2V3 (2, 3, None) (u64 i 0, u64 i 1, V v 0, V v 1, V v 2) -> ();
    I2V3_R (2, 3, Some(Type::I64)) (u64 i 0, u64 i 1, V v 0, V v 1, V v 2) -> u64;
    I2V3_V (2, 3, Some(Type::V128)) (u64 i 0, u64 i 1, V v 0, V v 1, V v 2) -> V;
    I3 (3, 0, None) (u64 i 0, u64 i 1, u64 i 2) -> ();
    I3_R (3, 0, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2) -> u64;
    I3_V (3, 0, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2) -> V;
    I3V1 (3, 1, None) (u64 i 0, u64 i 1, u64 i 2, V v 0) -> ();
    I3V1_R (3, 1, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, V v 0) -> u64;
    I3V1_V (3, 1, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, V v 0) -> V;
    I3V2 (3, 2, None) (u64 i 0, u64 i 1, u64 i 2, V v 0, V v 1) -> ();
    I3V2_R (3, 2, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, V v 0, V v 1) -> u64;
    I3V2_V (3, 2, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, V v 0, V v 1) -> V;
    I3V3 (3, 3, None) (u64 i 0, u64 i 1, u64 i 2, V v 0, V v 1, V v 2) -> ();
    I3V3_R (3, 3, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, V v 0, V v 1, V v 2) -> u64;
    I3V3_V (3, 3, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, V v 0, V v 1, V v 2) -> V;
    I4 (4, 0, None) (u64 i 0, u64 i 1, u64 i 2, u64 i 3) -> ();
    I4_R (4, 0, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3) -> u64;
    I4_V (4, 0, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3) -> V;
    I4V1 (4, 1, None) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0) -> ();
    I4V1_R (4, 1, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0) -> u64;
    I4V1_V (4, 1, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0) -> V;
    I4V2 (4, 2, None) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0, V v 1) -> ();
    I4V2_R (4, 2, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0, V v 1) -> u64;
    I4V2_V (4, 2, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0, V v 1) -> V;
    I4V3 (4, 3, None) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0, V v 1, V v 2) -> ();
    I4V3_R (4, 3, Some(Type::I64)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0, V v 1, V v 2) -> u64;
    I4V3_V (4, 3, Some(Type::V128)) (u64 i 0, u64 i 1, u64 i 2, u64 i 3, V v 0, V v 1, V v 2) -> V;
}
