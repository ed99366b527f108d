//! The instructions of prepared code and the functions that execute them.
//!
//! An instruction holds the address of its function, chosen by [`super::lower`] for the operation and for
//! where its operands are: in the frame, in the guest state, or in the instruction. A function
//! does its work and gives the next instruction, or null to leave with `Ctx::exit` set. It reads
//! all operands before it writes its result, so both may share a cell.
//!
//! # Safety
//! The functions trust the instruction: byte offsets `a`, `b`, `c`, `d` with base [`F`] lie in a frame of
//! `Code::frame` bytes, those with base [`S`] are offsets of slots in the guest state; jump targets
//! are inside the code. `lower` is the only place that makes instructions, and guarantees that.
//! Function addresses carried in `imm` are stored by `lower` with the type that the function that
//! takes them out expects.
#![allow(unsafe_code)]

use super::scalar::mask;
use super::{Code, Exit, scalar, vector};
use crate::abi::MISALIGNED;
use evm_ir::{HelperFn, Op, Type};
use evm_memory::{Fault, Mem};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Executes an instruction: (instruction, state, frame, context) -> next.
pub(super) type Handler = unsafe fn(*const Insn, *mut u8, *mut u8, &mut Ctx<'_>) -> *const Insn;

/// A prepared instruction.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Insn {
    pub f: Handler,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub d: u32,
    pub imm: u64,
}

/// What handlers need besides state and frame.
pub(super) struct Ctx<'a> {
    pub mem: Mem,
    pub code: &'a Code,
    pub helpers: &'a [HelperFn],
    pub exit: Exit,
}

/// Where an operand or result is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    Frame,
    State,
}

/// Where an operand is, or that `imm` is its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AtI {
    Frame,
    State,
    Imm,
}

/// Operand or result in the frame.
pub(super) struct F;
/// Operand or result in the guest state.
pub(super) struct S;
/// Operand in the instruction.
pub(super) struct I;

/// An operand.
pub(super) trait Rd {
    unsafe fn rd(off: u32, imm: u64, state: *mut u8, frame: *mut u8) -> u64;
}
/// An operand or result with an address.
pub(super) trait Place: Rd {
    fn base(state: *mut u8, frame: *mut u8) -> *mut u8;
    #[inline(always)]
    unsafe fn rdv(off: u32, state: *mut u8, frame: *mut u8) -> u128 {
        // SAFETY: see the module's paragraph.
        unsafe { Self::base(state, frame).add(off as usize).cast::<u128>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn wr(off: u32, v: u64, state: *mut u8, frame: *mut u8) {
        // SAFETY: see the module's paragraph.
        unsafe { Self::base(state, frame).add(off as usize).cast::<u64>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn wrv(off: u32, v: u128, state: *mut u8, frame: *mut u8) {
        // SAFETY: see the module's paragraph.
        unsafe { Self::base(state, frame).add(off as usize).cast::<u128>().write_unaligned(v) }
    }
}
impl Rd for I {
    #[inline(always)]
    unsafe fn rd(_: u32, imm: u64, _: *mut u8, _: *mut u8) -> u64 {
        imm
    }
}
impl Rd for F {
    #[inline(always)]
    unsafe fn rd(off: u32, _: u64, _: *mut u8, frame: *mut u8) -> u64 {
        // SAFETY: see the module's paragraph.
        unsafe { frame.add(off as usize).cast::<u64>().read_unaligned() }
    }
}
impl Rd for S {
    #[inline(always)]
    unsafe fn rd(off: u32, _: u64, state: *mut u8, _: *mut u8) -> u64 {
        // SAFETY: see the module's paragraph.
        unsafe { state.add(off as usize).cast::<u64>().read_unaligned() }
    }
}
impl Place for F {
    #[inline(always)]
    fn base(_: *mut u8, frame: *mut u8) -> *mut u8 {
        frame
    }
}
impl Place for S {
    #[inline(always)]
    fn base(state: *mut u8, _: *mut u8) -> *mut u8 {
        state
    }
}

/// Defines a handler: `$i` the instruction, `$st` and `$fr` the bases, `$cx` the context; the body gives nothing
/// and goes on with the next instruction, or returns early.
macro_rules! handler {
    ($(#[$m:meta])* $name:ident [$($g:ident : $b:ident),*] $(const $cn:ident: $ct:ty)?, |$i:ident, $st:ident, $fr:ident, $cx:ident| $body:block) => {
        $(#[$m])*
        #[allow(unused_variables)]
        unsafe fn $name<$($g: $b,)* $(const $cn: $ct)?>(p: *const Insn, $st: *mut u8, $fr: *mut u8, $cx: &mut Ctx<'_>) -> *const Insn {
            // SAFETY: see the module's paragraph; every block of code ends with a handler that jumps or leaves,
            // so the next instruction exists.
            unsafe {
                let $i = &*p;
                $body
                p.add(1)
            }
        }
    };
}

/// Match on places and give the handler made for them.
macro_rules! pick {
    ($d:expr; At => $($f:tt)*) => { match $d { At::Frame => pick!(@ F; $($f)*), At::State => pick!(@ S; $($f)*) } };
    (@ $x:ty; $name:ident [$($g:ty),*] [$($c:expr),*]) => { $name::<$($g,)* $x $(, $c)*> };
}
macro_rules! pick_a_d {
    ($a:expr, $d:expr; $name:ident [$($g:ty),*] $(, $c:expr)?) => {
        match ($a, $d) {
            (At::Frame, At::Frame) => $name::<$($g,)* F, F $(, $c)?>,
            (At::Frame, At::State) => $name::<$($g,)* F, S $(, $c)?>,
            (At::State, At::Frame) => $name::<$($g,)* S, F $(, $c)?>,
            (At::State, At::State) => $name::<$($g,)* S, S $(, $c)?>,
        }
    };
}
macro_rules! pick_ai_d {
    ($a:expr, $d:expr; $name:ident [$($g:ty),*] $(, $c:expr)?) => {
        match ($a, $d) {
            (AtI::Frame, At::Frame) => $name::<$($g,)* F, F $(, $c)?>,
            (AtI::Frame, At::State) => $name::<$($g,)* F, S $(, $c)?>,
            (AtI::State, At::Frame) => $name::<$($g,)* S, F $(, $c)?>,
            (AtI::State, At::State) => $name::<$($g,)* S, S $(, $c)?>,
            (AtI::Imm, At::Frame) => $name::<$($g,)* I, F $(, $c)?>,
            (AtI::Imm, At::State) => $name::<$($g,)* I, S $(, $c)?>,
        }
    };
}
macro_rules! pick_a_bi {
    ($a:expr, $b:expr; $name:ident [$($g:ty),*] $(, $c:expr)?) => {
        match ($a, $b) {
            (At::Frame, AtI::Frame) => $name::<$($g,)* F, F $(, $c)?>,
            (At::Frame, AtI::State) => $name::<$($g,)* F, S $(, $c)?>,
            (At::Frame, AtI::Imm) => $name::<$($g,)* F, I $(, $c)?>,
            (At::State, AtI::Frame) => $name::<$($g,)* S, F $(, $c)?>,
            (At::State, AtI::State) => $name::<$($g,)* S, S $(, $c)?>,
            (At::State, AtI::Imm) => $name::<$($g,)* S, I $(, $c)?>,
        }
    };
}
macro_rules! pick_a_bi_d {
    ($a:expr, $b:expr, $d:expr; $name:ident [$($g:ty),*]) => {
        match ($a, $b, $d) {
            (At::Frame, AtI::Frame, At::Frame) => $name::<$($g,)* F, F, F>,
            (At::Frame, AtI::Frame, At::State) => $name::<$($g,)* F, F, S>,
            (At::Frame, AtI::State, At::Frame) => $name::<$($g,)* F, S, F>,
            (At::Frame, AtI::State, At::State) => $name::<$($g,)* F, S, S>,
            (At::Frame, AtI::Imm, At::Frame) => $name::<$($g,)* F, I, F>,
            (At::Frame, AtI::Imm, At::State) => $name::<$($g,)* F, I, S>,
            (At::State, AtI::Frame, At::Frame) => $name::<$($g,)* S, F, F>,
            (At::State, AtI::Frame, At::State) => $name::<$($g,)* S, F, S>,
            (At::State, AtI::State, At::Frame) => $name::<$($g,)* S, S, F>,
            (At::State, AtI::State, At::State) => $name::<$($g,)* S, S, S>,
            (At::State, AtI::Imm, At::Frame) => $name::<$($g,)* S, I, F>,
            (At::State, AtI::Imm, At::State) => $name::<$($g,)* S, I, S>,
        }
    };
}
macro_rules! pick_a_b_d {
    ($a:expr, $b:expr, $d:expr; $name:ident) => {
        match ($a, $b, $d) {
            (At::Frame, At::Frame, At::Frame) => $name::<F, F, F>,
            (At::Frame, At::Frame, At::State) => $name::<F, F, S>,
            (At::Frame, At::State, At::Frame) => $name::<F, S, F>,
            (At::Frame, At::State, At::State) => $name::<F, S, S>,
            (At::State, At::Frame, At::Frame) => $name::<S, F, F>,
            (At::State, At::Frame, At::State) => $name::<S, F, S>,
            (At::State, At::State, At::Frame) => $name::<S, S, F>,
            (At::State, At::State, At::State) => $name::<S, S, S>,
        }
    };
}

// ---- two-operand integer operations and comparisons that are worth their own handlers

/// An operation on cells.
pub(super) trait Bin {
    fn f(a: u64, b: u64) -> u64;
}
macro_rules! bins {
    ($( $name:ident |$a:ident, $b:ident| $e:expr; )*) => { $(
        struct $name;
        impl Bin for $name { #[inline(always)] fn f($a: u64, $b: u64) -> u64 { $e } }
    )* };
}
bins! {
    Add8 |a, b| a.wrapping_add(b) & 0xff;
    Add16 |a, b| a.wrapping_add(b) & 0xffff;
    Add32 |a, b| u64::from((a as u32).wrapping_add(b as u32));
    Add64 |a, b| a.wrapping_add(b);
    Sub8 |a, b| a.wrapping_sub(b) & 0xff;
    Sub16 |a, b| a.wrapping_sub(b) & 0xffff;
    Sub32 |a, b| u64::from((a as u32).wrapping_sub(b as u32));
    Sub64 |a, b| a.wrapping_sub(b);
    Mul32 |a, b| u64::from((a as u32).wrapping_mul(b as u32));
    Mul64 |a, b| a.wrapping_mul(b);
    And64 |a, b| a & b;
    Or64 |a, b| a | b;
    Xor64 |a, b| a ^ b;
    Shl32 |a, b| u64::from((a as u32).wrapping_shl(b as u32));
    Shl64 |a, b| a.wrapping_shl(b as u32);
    Shr32 |a, b| u64::from((a as u32).wrapping_shr(b as u32));
    Shr64 |a, b| a.wrapping_shr(b as u32);
    Sar32 |a, b| (a as i32).wrapping_shr(b as u32) as u32 as u64;
    Sar64 |a, b| (a as i64).wrapping_shr(b as u32) as u64;
    Eq |a, b| u64::from(a == b);
    Ne |a, b| u64::from(a != b);
    Ult |a, b| u64::from(a < b);
    Ule |a, b| u64::from(a <= b);
    Ugt |a, b| u64::from(a > b);
    Uge |a, b| u64::from(a >= b);
}
macro_rules! signed {
    ($($name:ident $op:tt)*) => { $(
        struct $name<T>(PhantomData<T>);
        impl Bin for $name<i8> { #[inline(always)] fn f(a: u64, b: u64) -> u64 { u64::from((a as i8) $op (b as i8)) } }
        impl Bin for $name<i16> { #[inline(always)] fn f(a: u64, b: u64) -> u64 { u64::from((a as i16) $op (b as i16)) } }
        impl Bin for $name<i32> { #[inline(always)] fn f(a: u64, b: u64) -> u64 { u64::from((a as i32) $op (b as i32)) } }
        impl Bin for $name<i64> { #[inline(always)] fn f(a: u64, b: u64) -> u64 { u64::from((a as i64) $op (b as i64)) } }
    )* };
}
signed!(Slt < Sle <= Sgt > Sge >=);

handler!(h_bin [O: Bin, A: Rd, B: Rd, D: Place], |i, st, fr, cx| {
    D::wr(i.d, O::f(A::rd(i.a, 0, st, fr), B::rd(i.b, i.imm, st, fr)), st, fr);
});
/// Compare and branch: `c` and `d` are the targets, relative to this instruction.
unsafe fn h_brc<O: Bin, A: Rd, B: Rd>(p: *const Insn, st: *mut u8, fr: *mut u8, _: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph.
    unsafe {
        let i = &*p;
        let t = O::f(A::rd(i.a, 0, st, fr), B::rd(i.b, i.imm, st, fr)) != 0;
        p.offset(if t { i.c } else { i.d } as i32 as isize)
    }
}

macro_rules! cmp_type {
    ($op:expr, $ty:expr, $pick:ident ! ($($args:tt)*) $name:ident) => {{
        use evm_ir::Cond;
        macro_rules! s {
            ($t:ident) => { match $ty {
                Type::I8 => $pick!($($args)*; $name [$t<i8>]),
                Type::I16 => $pick!($($args)*; $name [$t<i16>]),
                Type::I32 => $pick!($($args)*; $name [$t<i32>]),
                _ => $pick!($($args)*; $name [$t<i64>]),
            } };
        }
        let h: Handler = match $op {
            Cond::Eq => $pick!($($args)*; $name [Eq]),
            Cond::Ne => $pick!($($args)*; $name [Ne]),
            Cond::Ult => $pick!($($args)*; $name [Ult]),
            Cond::Ule => $pick!($($args)*; $name [Ule]),
            Cond::Ugt => $pick!($($args)*; $name [Ugt]),
            Cond::Uge => $pick!($($args)*; $name [Uge]),
            Cond::Slt => s!(Slt),
            Cond::Sle => s!(Sle),
            Cond::Sgt => s!(Sgt),
            Cond::Sge => s!(Sge),
        };
        h
    }};
}

/// Comparison to a cell.
pub(super) fn icmp(cond: evm_ir::Cond, ty: Type, a: At, b: AtI, d: At) -> Handler {
    cmp_type!(cond, ty, pick_a_bi_d!(a, b, d) h_bin)
}
/// Comparison and branch.
pub(super) fn icmp_br(cond: evm_ir::Cond, ty: Type, a: At, b: AtI) -> Handler {
    cmp_type!(cond, ty, pick_a_bi!(a, b) h_brc)
}
/// A two-operand operation that has handlers of its own; `imm` is an operand if `b` says so.
pub(super) fn bin(op: Op, ty: Type, a: At, b: AtI, d: At) -> Option<Handler> {
    macro_rules! p {
        ($o:ident) => {{
            let h: Handler = pick_a_bi_d!(a, b, d; h_bin [$o]);
            h
        }};
    }
    Some(match (op, ty) {
        (Op::Add, Type::I8) => p!(Add8),
        (Op::Add, Type::I16) => p!(Add16),
        (Op::Add, Type::I32) => p!(Add32),
        (Op::Add, _) => p!(Add64),
        (Op::Sub, Type::I8) => p!(Sub8),
        (Op::Sub, Type::I16) => p!(Sub16),
        (Op::Sub, Type::I32) => p!(Sub32),
        (Op::Sub, _) => p!(Sub64),
        (Op::Mul, Type::I32) => p!(Mul32),
        (Op::Mul, Type::I64) => p!(Mul64),
        (Op::And, _) => p!(And64),
        (Op::Or, _) => p!(Or64),
        (Op::Xor, _) => p!(Xor64),
        (Op::Shl, Type::I32) => p!(Shl32),
        (Op::Shl, Type::I64) => p!(Shl64),
        (Op::Shr, Type::I32) => p!(Shr32),
        (Op::Shr, Type::I64) => p!(Shr64),
        (Op::Sar, Type::I32) => p!(Sar32),
        (Op::Sar, Type::I64) => p!(Sar64),
        _ => return None,
    })
}

// ---- moves

handler!(h_mov [A: Rd, D: Place], |i, st, fr, cx| {
    D::wr(i.d, A::rd(i.a, i.imm, st, fr), st, fr);
});
handler!(h_movv [A: Place, D: Place], |i, st, fr, cx| {
    D::wrv(i.d, A::rdv(i.a, st, fr), st, fr);
});
handler!(
    /// Constant `c` of the pool.
    h_vconst [D: Place], |i, st, fr, cx| {
    D::wrv(i.d, cx.code.pool.get(i.c as usize).copied().unwrap_or(0), st, fr);
});
handler!(
    /// Slot narrower than a cell at `a` to the frame.
    h_get_narrow [] const N: u64, |i, st, fr, cx| {
    let p = st.add(i.a as usize);
    let v = match N {
        1 => u64::from(p.read()),
        2 => u64::from(p.cast::<u16>().read_unaligned()),
        _ => u64::from(p.cast::<u32>().read_unaligned()),
    };
    F::wr(i.d, v, st, fr);
});
handler!(
    /// Low bytes of the operand to a slot narrower than a cell at `d`.
    h_put_narrow [A: Rd] const N: u64, |i, st, fr, cx| {
    let (p, v) = (st.add(i.d as usize), A::rd(i.a, i.imm, st, fr));
    match N {
        1 => p.write(v as u8),
        2 => p.cast::<u16>().write_unaligned(v as u16),
        _ => p.cast::<u32>().write_unaligned(v as u32),
    }
});
/// Cell to cell.
pub(super) fn mov(a: AtI, d: At) -> Handler {
    pick_ai_d!(a, d; h_mov [])
}
/// Vector to vector.
pub(super) fn movv(a: At, d: At) -> Handler {
    pick_a_d!(a, d; h_movv [])
}
/// Constant of the pool.
pub(super) fn vconst(d: At) -> Handler {
    pick!(d; At => h_vconst [] [])
}
/// Slot narrower than a cell to the frame.
pub(super) fn get_narrow(bytes: u32) -> Handler {
    match bytes {
        1 => h_get_narrow::<1>,
        2 => h_get_narrow::<2>,
        _ => h_get_narrow::<4>,
    }
}
/// Operand to a slot narrower than a cell.
pub(super) fn put_narrow(bytes: u32, a: AtI) -> Handler {
    macro_rules! p {
        ($n:literal) => {
            match a {
                AtI::Frame => h_put_narrow::<F, $n>,
                AtI::State => h_put_narrow::<S, $n>,
                AtI::Imm => h_put_narrow::<I, $n>,
            }
        };
    }
    match bytes {
        1 => p!(1),
        2 => p!(2),
        _ => p!(4),
    }
}

// ---- operations by address

macro_rules! apply {
    ($h:ident, $t:ty, [$($g:ident),*], |$i:ident, $st:ident, $fr:ident, $op:ident| $body:expr) => {
        handler!(
            /// Applies the operation whose address is in `imm`.
            $h [$($g: Place),*], |$i, $st, $fr, cx| {
            let $op: $t = std::mem::transmute::<usize, $t>($i.imm as usize);
            $body;
        });
    };
}
apply!(h_f1, scalar::Fn1, [A, D], |i, st, fr, f| D::wr(i.d, f(A::rd(i.a, 0, st, fr)), st, fr));
apply!(h_f2, scalar::Fn2, [A, B, D], |i, st, fr, f| D::wr(
    i.d,
    f(A::rd(i.a, 0, st, fr), B::rd(i.b, 0, st, fr)),
    st,
    fr
));
apply!(h_v1, vector::Fn1, [A, D], |i, st, fr, f| D::wrv(i.d, f(A::rdv(i.a, st, fr)), st, fr));
apply!(h_v2, vector::Fn2, [A, B, D], |i, st, fr, f| D::wrv(i.d, f(A::rdv(i.a, st, fr), B::rdv(i.b, st, fr)), st, fr));
apply!(h_ext, vector::FnExt, [A, D], |i, st, fr, f| D::wr(i.d, f(A::rdv(i.a, st, fr), i.c), st, fr));
apply!(h_ins, vector::FnIns, [A, B, D], |i, st, fr, f| D::wrv(
    i.d,
    f(A::rdv(i.a, st, fr), B::rd(i.b, 0, st, fr), i.c),
    st,
    fr
));
apply!(h_splat, vector::FnSplat, [A, D], |i, st, fr, f| D::wrv(i.d, f(A::rd(i.a, 0, st, fr)), st, fr));
handler!(
    /// Shuffle by the selectors at `c` of the pool.
    h_shuffle [A: Place, B: Place, D: Place], |i, st, fr, cx| {
    let sel = cx.code.pool.get(i.c as usize).copied().unwrap_or(0);
    D::wrv(i.d, vector::shuffle(A::rdv(i.a, st, fr), B::rdv(i.b, st, fr), sel), st, fr);
});
handler!(
    /// Bitwise select; `imm` is the offset of the mask.
    h_vselect [A: Place, B: Place, D: Place], |i, st, fr, cx| {
    let m = F::rdv(i.imm as u32, st, fr);
    D::wrv(i.d, A::rdv(i.a, st, fr) & m | B::rdv(i.b, st, fr) & !m, st, fr);
});
handler!(
    /// Select of cells; `c` is the offset of the condition.
    h_select [A: Place, B: Place, D: Place], |i, st, fr, cx| {
    let (x, y) = (A::rd(i.a, 0, st, fr), B::rd(i.b, 0, st, fr));
    D::wr(i.d, if F::rd(i.c, 0, st, fr) != 0 { x } else { y }, st, fr);
});
handler!(
    /// Select of vectors; `c` is the offset of the condition.
    h_select_v [A: Place, B: Place, D: Place], |i, st, fr, cx| {
    let (x, y) = (A::rdv(i.a, st, fr), B::rdv(i.b, st, fr));
    D::wrv(i.d, if F::rd(i.c, 0, st, fr) != 0 { x } else { y }, st, fr);
});

/// What the address in `imm` is to be applied to; see the types in `scalar` and `vector`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Apply1 {
    F1(scalar::Fn1),
    V1(vector::Fn1),
    Ext(vector::FnExt),
    Splat(vector::FnSplat),
}
/// As [`Apply1`], with two operands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Apply2 {
    F2(scalar::Fn2),
    V2(vector::Fn2),
    Ins(vector::FnIns),
}
/// Handler and `imm` for a one-operand operation.
pub(super) fn apply1(f: Apply1, a: At, d: At) -> (Handler, u64) {
    match f {
        Apply1::F1(f) => (pick_a_d!(a, d; h_f1 []), f as usize as u64),
        Apply1::V1(f) => (pick_a_d!(a, d; h_v1 []), f as usize as u64),
        Apply1::Ext(f) => (pick_a_d!(a, d; h_ext []), f as usize as u64),
        Apply1::Splat(f) => (pick_a_d!(a, d; h_splat []), f as usize as u64),
    }
}
/// Handler and `imm` for a two-operand operation.
pub(super) fn apply2(f: Apply2, a: At, b: At, d: At) -> (Handler, u64) {
    match f {
        Apply2::F2(f) => (pick_a_b_d!(a, b, d; h_f2), f as usize as u64),
        Apply2::V2(f) => (pick_a_b_d!(a, b, d; h_v2), f as usize as u64),
        Apply2::Ins(f) => (pick_a_b_d!(a, b, d; h_ins), f as usize as u64),
    }
}
/// Shuffle.
pub(super) fn shuffle(a: At, b: At, d: At) -> Handler {
    pick_a_b_d!(a, b, d; h_shuffle)
}
/// Bitwise select.
pub(super) fn vselect(a: At, b: At, d: At) -> Handler {
    pick_a_b_d!(a, b, d; h_vselect)
}
/// Select.
pub(super) fn select(wide: bool, a: At, b: At, d: At) -> Handler {
    if wide { pick_a_b_d!(a, b, d; h_select_v) } else { pick_a_b_d!(a, b, d; h_select) }
}

// ---- memory

/// Leave because of a fault of this instruction.
#[cold]
#[inline(never)]
fn fault(p: *const Insn, cx: &mut Ctx<'_>, fault: Fault) -> *const Insn {
    cx.exit = Exit::Fault { pc: cx.code.pc_of(p), fault };
    std::ptr::null()
}
/// Address operand plus displacement `c`.
#[inline(always)]
unsafe fn address<A: Rd>(i: &Insn, imm: u64, st: *mut u8, fr: *mut u8) -> u64 {
    // SAFETY: see the module's paragraph.
    unsafe { A::rd(i.a, imm, st, fr) }.wrapping_add(i.c as i32 as u64)
}
handler!(
    /// Fault unless the operand has none of the bits `c`.
    h_aligned [A: Place], |i, st, fr, cx| {
    if A::rd(i.a, 0, st, fr) & u64::from(i.c) != 0 {
        return fault(i, cx, Fault { addr: MISALIGNED, write: false });
    }
});
handler!(
    /// Fault as a write of `c` bytes would, if it lies in two pages.
    h_whole [A: Place], |i, st, fr, cx| {
    if let Err(e) = cx.mem.whole(A::rd(i.a, 0, st, fr), u64::from(i.c)) {
        return fault(i, cx, e);
    }
});
/// Check of a write.
pub(super) fn whole(a: At) -> Handler {
    match a {
        At::Frame => h_whole::<F>,
        At::State => h_whole::<S>,
    }
}
/// Alignment check.
pub(super) fn aligned(a: At) -> Handler {
    match a {
        At::Frame => h_aligned::<F>,
        At::State => h_aligned::<S>,
    }
}
handler!(h_load [A: Rd, D: Place] const N: u64, |i, st, fr, cx| {
    match cx.mem.load(address::<A>(i, i.imm, st, fr), N) {
        Ok(v) => D::wr(i.d, v, st, fr),
        Err(e) => return fault(i, cx, e),
    }
});
handler!(h_loadv [A: Rd, D: Place], |i, st, fr, cx| {
    match cx.mem.load128(address::<A>(i, i.imm, st, fr)) {
        Ok(v) => D::wrv(i.d, v, st, fr),
        Err(e) => return fault(i, cx, e),
    }
});
handler!(h_store [A: Rd, B: Rd] const N: u64, |i, st, fr, cx| {
    if let Err(e) = cx.mem.store(address::<A>(i, 0, st, fr), N, B::rd(i.b, i.imm, st, fr)) {
        return fault(i, cx, e);
    }
});
handler!(
    /// Store to a constant address.
    h_store_at [B: Place] const N: u64, |i, st, fr, cx| {
    if let Err(e) = cx.mem.store(address::<I>(i, i.imm, st, fr), N, B::rd(i.b, 0, st, fr)) {
        return fault(i, cx, e);
    }
});
handler!(h_storev [A: Rd, B: Place], |i, st, fr, cx| {
    if let Err(e) = cx.mem.store128(address::<A>(i, i.imm, st, fr), B::rdv(i.b, st, fr)) {
        return fault(i, cx, e);
    }
});
/// Load of `bytes` to a cell; the result is in the state only if 8 bytes wide.
pub(super) fn load(bytes: u32, a: AtI, d: At) -> Handler {
    match bytes {
        1 => pick_ai_d!(a, d; h_load [], 1),
        2 => pick_ai_d!(a, d; h_load [], 2),
        4 => pick_ai_d!(a, d; h_load [], 4),
        _ => pick_ai_d!(a, d; h_load [], 8),
    }
}
/// Load of a vector.
pub(super) fn loadv(a: AtI, d: At) -> Handler {
    pick_ai_d!(a, d; h_loadv [])
}
/// Store of a cell's low bytes.
pub(super) fn store(bytes: u32, a: At, b: AtI) -> Handler {
    match bytes {
        1 => pick_a_bi!(a, b; h_store [], 1),
        2 => pick_a_bi!(a, b; h_store [], 2),
        4 => pick_a_bi!(a, b; h_store [], 4),
        _ => pick_a_bi!(a, b; h_store [], 8),
    }
}
/// Store of a cell's low bytes to the address in `imm`.
pub(super) fn store_at(bytes: u32, b: At) -> Handler {
    macro_rules! p {
        ($n:literal) => {
            match b {
                At::Frame => h_store_at::<F, $n>,
                At::State => h_store_at::<S, $n>,
            }
        };
    }
    match bytes {
        1 => p!(1),
        2 => p!(2),
        4 => p!(4),
        _ => p!(8),
    }
}
/// Store of a vector.
pub(super) fn storev(a: AtI, b: At) -> Handler {
    pick_ai_d!(a, b; h_storev [])
}

/// Read, modify, write: `a` address, `b` operand, `d` result, all in the frame; `imm` = opcode | type << 8.
pub(super) unsafe fn h_rmw(p: *const Insn, st: *mut u8, fr: *mut u8, cx: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph.
    unsafe {
        let i = &*p;
        let (at, v) = (address::<F>(i, 0, st, fr), F::rd(i.b, 0, st, fr));
        let (op, n) = (i.imm as u8, i.imm >> 8);
        let m = &cx.mem;
        let r = if op == Op::AtomicAdd as u8 {
            m.fetch_add(at, n, v)
        } else if op == Op::AtomicAnd as u8 {
            m.fetch_and(at, n, v)
        } else if op == Op::AtomicOr as u8 {
            m.fetch_or(at, n, v)
        } else if op == Op::AtomicXor as u8 {
            m.fetch_xor(at, n, v)
        } else {
            m.swap(at, n, v)
        };
        match r {
            Ok(old) => F::wr(i.d, old, st, fr),
            Err(e) => return fault(p, cx, e),
        }
        p.add(1)
    }
}
/// Compare and swap: `a` address, `b` expected, low half of `imm` new, `d` result, all in the frame; high half of
/// `imm` is the size.
pub(super) unsafe fn h_cas(p: *const Insn, st: *mut u8, fr: *mut u8, cx: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph.
    unsafe {
        let i = &*p;
        let (at, new, n) = (address::<F>(i, 0, st, fr), i.imm as u32, i.imm >> 32);
        if n == 16 {
            match cx.mem.cas128(at, F::rdv(i.b, st, fr), F::rdv(new, st, fr)) {
                Ok(old) => F::wrv(i.d, old, st, fr),
                Err(e) => return fault(p, cx, e),
            }
        } else {
            match cx.mem.cas(at, n, F::rd(i.b, 0, st, fr), F::rd(new, 0, st, fr)) {
                Ok(old) => F::wr(i.d, old, st, fr),
                Err(e) => return fault(p, cx, e),
            }
        }
        p.add(1)
    }
}
handler!(h_fence_ [], |i, st, fr, cx| {
    std::sync::atomic::fence(Ordering::SeqCst);
});
/// Full fence.
pub(super) fn fence() -> Handler {
    h_fence_
}

// ---- control

/// Jump by `c` instructions.
pub(super) unsafe fn h_jump(p: *const Insn, _: *mut u8, _: *mut u8, _: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph.
    unsafe { p.offset((*p).c as i32 as isize) }
}
/// Branch on the frame's cell `a`.
pub(super) unsafe fn h_br(p: *const Insn, st: *mut u8, fr: *mut u8, _: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph.
    unsafe {
        let i = &*p;
        p.offset(if F::rd(i.a, 0, st, fr) != 0 { i.c } else { i.d } as i32 as isize)
    }
}
/// Jump through entries `c..c + b` of the code's tables, by the frame's cell `a`; entry `c + b` is the default.
pub(super) unsafe fn h_switch(p: *const Insn, st: *mut u8, fr: *mut u8, cx: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph; the table has b + 1 entries.
    unsafe {
        let i = &*p;
        let n = F::rd(i.a, 0, st, fr).min(u64::from(i.b)) as usize;
        cx.code.insns.as_ptr().add(*cx.code.tables.get_unchecked(i.c as usize + n) as usize)
    }
}
/// Leave with `Code::exits[c]`; its pc, if variable, is the frame's cell `a`.
pub(super) unsafe fn h_exit(p: *const Insn, st: *mut u8, fr: *mut u8, cx: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph.
    let (i, at) = unsafe { (&*p, F::rd((*p).a, 0, st, fr)) };
    cx.exit = match cx.code.exits.get(i.c as usize) {
        Some(Exit::Jump { .. }) => Exit::Jump { pc: at },
        Some(Exit::Return { .. }) => Exit::Return { pc: at },
        Some(Exit::Call { ret, .. }) => Exit::Call { target: at, ret: *ret },
        Some(e) => *e,
        None => Exit::Poll { pc: 0 },
    };
    std::ptr::null()
}
/// Leave for `imm` if the word at state offset `c` is not zero.
pub(super) unsafe fn h_poll(p: *const Insn, st: *mut u8, _: *mut u8, cx: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: the engine's words are in the state (contract of `run`), aligned, and other threads access this
    // one atomically.
    unsafe {
        let i = &*p;
        if AtomicU64::from_ptr(st.add(i.c as usize).cast()).load(Ordering::Relaxed) != 0 {
            cx.exit = Exit::Poll { pc: i.imm };
            return std::ptr::null();
        }
        p.add(1)
    }
}

/// An argument of a helper.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    Frame(u32),
    State(u32),
    Imm(u64),
}
/// A call of a helper.
#[derive(Clone, Debug)]
pub(super) struct CallRec {
    pub helper: u16,
    pub ints: [Arg; 4],
    pub vecs: [Arg; 3],
    /// Whether the result is a vector.
    pub wide: bool,
    /// Offset in the state of the word to look at afterwards.
    pub pending: Option<u32>,
}
/// Call `Code::calls[c]`; the result goes to the frame at `d` unless that is `u32::MAX`.
pub(super) unsafe fn h_call(p: *const Insn, st: *mut u8, fr: *mut u8, cx: &mut Ctx<'_>) -> *const Insn {
    // SAFETY: see the module's paragraph; the table of helpers is the one of the region's signatures, and
    // nothing borrows the state (contract of `run`).
    unsafe {
        let i = &*p;
        let (code, helpers) = (cx.code, cx.helpers);
        let rec = code.calls.get_unchecked(i.c as usize);
        let ints = rec.ints.map(|a| match a {
            Arg::Frame(o) => F::rd(o, 0, st, fr),
            Arg::State(o) => S::rd(o, 0, st, fr),
            Arg::Imm(v) => v,
        });
        let vecs = rec.vecs.map(|a| match a {
            Arg::Frame(o) => F::rdv(o, st, fr),
            Arg::State(o) => S::rdv(o, st, fr),
            Arg::Imm(v) => u128::from(v),
        });
        let r = match helpers.get(usize::from(rec.helper)) {
            Some(h) => h.call(st, &ints, &vecs),
            None => 0,
        };
        if i.d != u32::MAX {
            if rec.wide { F::wrv(i.d, r, st, fr) } else { F::wr(i.d, r as u64, st, fr) }
        }
        if let Some(o) = rec.pending
            && S::rd(o, 0, st, fr) != 0
        {
            cx.exit = Exit::Pending { pc: code.pc_of(p) };
            return std::ptr::null();
        }
        p.add(1)
    }
}

/// Low bits of an immediate as a cell of type `ty` holds them.
pub(super) fn cell(ty: Type, imm: i64) -> u64 {
    imm as u64 & mask(ty)
}
