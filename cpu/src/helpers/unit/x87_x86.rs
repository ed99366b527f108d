//! Operations on the host's x87 unit.
//!
//! # Safety
//! Assembly reads and writes the locals given to it, starts and ends with an empty host x87 stack
//! and the default control word (0x37f, which the ABI promises), and declares the registers clobbered.
#![allow(unsafe_code)]

use super::{DEFAULT, Mode, PE, QNAN};
use std::arch::asm;
use std::cell::Cell;

thread_local! {
    /// The host's status word has kept PE.
    static KEPT: Cell<bool> = const { Cell::new(false) };
}

/// Clear exceptions that the host's status word has.
#[cold]
fn clear_host() {
    // SAFETY: FNCLEX has no operands and leaves the stack alone.
    unsafe { asm!("fnclex", options(nostack, nomem)) };
    KEPT.with(|k| k.set(false));
}

/// Run `$op` on the host's x87: `$pre` loads operands, `$post` stores results. Gives the status word.
macro_rules! host {
    ($mode:expr, [$($pre:literal)*] [$op:literal] [$($post:literal)*] $($args:tt)*) => {{
        let (mode, default): (Mode, u16) = ($mode, DEFAULT);
        let cw = mode.cw;
        let mut sw: u16;
        if (!mode.inexact || !mode.is_masked()) && KEPT.with(Cell::get) {
            clear_host();
        }
        // SAFETY: see the module: operands are locals or registers of the state, the stack ends empty, the control word
        // default.
        unsafe {
            if mode.is_masked() {
                if cw == DEFAULT {
                    asm!($($pre,)* $op, "fnstsw ax", $($post,)*
                        $($args)* out("ax") sw, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
                } else {
                    asm!("fldcw word ptr [{cw}]", $($pre,)* $op, "fnstsw ax", "fldcw word ptr [{default}]", $($post,)*
                        $($args)* cw = in(reg) &cw, default = in(reg) &default,
                        out("ax") sw, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
                }
                if sw & 0x5f != 0 {
                    clear_host();
                } else if sw & PE != 0 {
                    KEPT.with(|k| k.set(true));
                }
            } else {
                asm!("fldcw word ptr [{cw}]", $($pre,)* $op, "fnstsw ax", "fnclex", "fldcw word ptr [{default}]", $($post,)* "fninit",
                    $($args)* cw = in(reg) &cw, default = in(reg) &default,
                    out("ax") sw, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
            }
        }
        sw
    }};
}

/// An 80-bit value as the x87 unit stored it: read by the parts in which it was written, as one load of both would
/// have to wait for them.
pub(super) fn load80(v: &u128) -> u128 {
    let at: *const u128 = v;
    // SAFETY: both parts are inside `v`; every bit pattern is valid.
    let (low, high) = unsafe { (at.cast::<u64>().read(), at.cast::<u16>().add(4).read()) };
    u128::from(low) | u128::from(high) << 64
}

/// FLD m32/m64, FILD m16/m32/m64 (kinds 0, 1, 2, 3, 4): the value and the status word.
pub(super) fn load(cw: Mode, kind: u64, bits: u64) -> (u128, u16) {
    let mut r = 0u128;
    macro_rules! run {
        ($ins:literal) => {
            host!(cw, [] [$ins] ["fstp tbyte ptr [{r}]"] m = in(reg) &bits, r = in(reg) &mut r,)
        };
    }
    let sw = match kind {
        0 => run!("fld dword ptr [{m}]"),
        1 => run!("fld qword ptr [{m}]"),
        2 => run!("fild word ptr [{m}]"),
        3 => run!("fild dword ptr [{m}]"),
        _ => run!("fild qword ptr [{m}]"),
    };
    (load80(&r), sw)
}

/// FBLD.
pub(super) fn load_decimal(m: u128) -> u128 {
    let mut r = 0u128;
    host!(Mode::EXACT, [] ["fbld tbyte ptr [{m}]"] ["fstp tbyte ptr [{r}]"] m = in(reg) &m, r = in(reg) &mut r,);
    r
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (0-6), rounded by the control word.
pub(super) fn constant(cw: Mode, which: u64) -> u128 {
    let mut r = 0u128;
    macro_rules! run {
        ($ins:literal) => {
            host!(cw, [] [$ins] ["fstp tbyte ptr [{r}]"] r = in(reg) &mut r,)
        };
    }
    match which {
        0 => run!("fld1"),
        1 => run!("fldl2t"),
        2 => run!("fldl2e"),
        3 => run!("fldpi"),
        4 => run!("fldlg2"),
        5 => run!("fldln2"),
        _ => run!("fldz"),
    };
    r
}

/// What FST/FIST (kinds 0-4) or FISTTP (8 + kind) stores.
pub(super) fn store(cw: Mode, kind: u64, a: &u128) -> (u64, u16) {
    macro_rules! run {
        ($ty:ty, $ins:literal) => {{
            let mut r: $ty = 0;
            let sw = host!(cw, ["fld tbyte ptr [{a}]"] [$ins] [] a = in(reg) a, r = in(reg) &mut r,);
            (u64::from(r), sw)
        }};
    }
    match kind {
        0 => run!(u32, "fstp dword ptr [{r}]"),
        1 => run!(u64, "fstp qword ptr [{r}]"),
        2 => run!(u16, "fistp word ptr [{r}]"),
        3 => run!(u32, "fistp dword ptr [{r}]"),
        4 => run!(u64, "fistp qword ptr [{r}]"),
        10 => run!(u16, "fisttp word ptr [{r}]"),
        11 => run!(u32, "fisttp dword ptr [{r}]"),
        _ => run!(u64, "fisttp qword ptr [{r}]"),
    }
}

/// What FBSTP stores.
pub(super) fn store_decimal(cw: Mode, a: &u128) -> (u128, u16) {
    let mut r = QNAN;
    let sw = host!(cw, ["fld tbyte ptr [{a}]"] ["fbstp tbyte ptr [{r}]"] [] a = in(reg) a, r = in(reg) &mut r,);
    (r, sw)
}

/// `d op b`; `op` is the reg field of opcode D8 (0 add, 1 mul, 4 sub, 5 subr, 6 div, 7 divr).
pub(super) fn arith(cw: Mode, op: u64, d: &u128, b: &u128) -> (u128, u16) {
    let mut r = 0u128;
    macro_rules! run {
        ($ins:literal) => {
            host!(cw, ["fld tbyte ptr [{b}]" "fld tbyte ptr [{d}]"] [$ins] ["fstp tbyte ptr [{r}]" "fstp st(0)"]
                d = in(reg) d, b = in(reg) b, r = in(reg) &mut r,)
        };
    }
    let sw = match op {
        0 => run!("fadd st(0), st(1)"),
        1 => run!("fmul st(0), st(1)"),
        4 => run!("fsub st(0), st(1)"),
        5 => run!("fsubr st(0), st(1)"),
        6 => run!("fdiv st(0), st(1)"),
        _ => run!("fdivr st(0), st(1)"),
    };
    (load80(&r), sw)
}

/// `a op memory`: `form` is op | kind << 3 (kinds 0-3 as in [`load`]).
pub(super) fn arith_mem(cw: Mode, form: u64, a: &u128, bits: u64) -> Option<(u128, u16)> {
    let mut r = 0u128;
    macro_rules! table { ($( $n:literal $ins:literal )*) => { match form {
            $( $n => host!(cw, ["fld tbyte ptr [{a}]"] [$ins] ["fstp tbyte ptr [{r}]"]
                a = in(reg) a, m = in(reg) &bits, r = in(reg) &mut r,), )*
            _ => return None,
        } } }
    let sw = table! {
        0 "fadd dword ptr [{m}]" 1 "fmul dword ptr [{m}]" 4 "fsub dword ptr [{m}]" 5 "fsubr dword ptr [{m}]"
        6 "fdiv dword ptr [{m}]" 7 "fdivr dword ptr [{m}]"
        8 "fadd qword ptr [{m}]" 9 "fmul qword ptr [{m}]" 12 "fsub qword ptr [{m}]" 13 "fsubr qword ptr [{m}]"
        14 "fdiv qword ptr [{m}]" 15 "fdivr qword ptr [{m}]"
        16 "fiadd word ptr [{m}]" 17 "fimul word ptr [{m}]" 20 "fisub word ptr [{m}]" 21 "fisubr word ptr [{m}]"
        22 "fidiv word ptr [{m}]" 23 "fidivr word ptr [{m}]"
        24 "fiadd dword ptr [{m}]" 25 "fimul dword ptr [{m}]" 28 "fisub dword ptr [{m}]" 29 "fisubr dword ptr [{m}]"
        30 "fidiv dword ptr [{m}]" 31 "fidivr dword ptr [{m}]"
    };
    Some((load80(&r), sw))
}

/// Host comparison of `a` with `b`.
pub(super) fn compare(cw: Mode, unordered: bool, a: &u128, b: &u128) -> u16 {
    macro_rules! run {
        ($ins:literal) => {
            host!(cw, ["fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]"] [$ins] ["fstp st(0)" "fstp st(0)"]
                a = in(reg) a, b = in(reg) b,)
        };
    }
    if unordered { run!("fucom st(1)") } else { run!("fcom st(1)") }
}

/// FCOM m, FICOM m.
pub(super) fn compare_mem(cw: Mode, kind: u64, a: &u128, bits: u64) -> u16 {
    macro_rules! run {
            ($ins:literal) => {
                host!(cw, ["fld tbyte ptr [{a}]"] [$ins] ["fstp st(0)"] a = in(reg) a, m = in(reg) &bits,)
            }
        }
    match kind {
        0 => run!("fcom dword ptr [{m}]"),
        1 => run!("fcom qword ptr [{m}]"),
        2 => run!("ficom word ptr [{m}]"),
        _ => run!("ficom dword ptr [{m}]"),
    }
}

/// The instructions D9 E0 … D9 FF that work on ST(0) = `a` (and ST(1) = `b`), by their second byte: what becomes of ST(0),
/// the second result, the status word.
pub(super) fn unary(cw: Mode, code: u64, a: &u128, b: &u128) -> (u128, u128, u16) {
    let (mut r, mut q) = (0u128, 0u128);
    macro_rules! one { ($ins:literal) => {
        host!(cw, ["fld tbyte ptr [{a}]"] [$ins] ["fstp tbyte ptr [{r}]"] a = in(reg) a, r = in(reg) &mut r,) } }
    macro_rules! two { ($ins:literal) => {
        host!(cw, ["fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]"] [$ins] ["fstp tbyte ptr [{r}]" "fstp st(0)"]
            a = in(reg) a, b = in(reg) b, r = in(reg) &mut r,) } }
    // Two in, one out; if an unmasked exception stops it there are still two: `fninit` clears them.
    macro_rules! popping { ($ins:literal) => {
        host!(cw, ["fld tbyte ptr [{b}]" "fld tbyte ptr [{a}]"] [$ins] ["fstp tbyte ptr [{r}]"]
            a = in(reg) a, b = in(reg) b, r = in(reg) &mut r,) } }
    // One in, two out (or one, when C2 says out of range): a dummy below makes two stores safe either way.
    macro_rules! pushing { ($ins:literal) => {
        host!(cw, ["fldz" "fld tbyte ptr [{a}]"] [$ins] ["fstp tbyte ptr [{r}]" "fstp tbyte ptr [{q}]" "fninit"]
            a = in(reg) a, r = in(reg) &mut r, q = in(reg) &mut q,) } }
    let sw = match code {
        0xe0 => one!("fchs"),
        0xe1 => one!("fabs"),
        0xe4 => one!("ftst"),
        0xe5 => one!("fxam"),
        0xf0 => one!("f2xm1"),
        0xf1 => popping!("fyl2x"),
        0xf2 => pushing!("fptan"),
        0xf3 => popping!("fpatan"),
        0xf4 => pushing!("fxtract"),
        0xf5 => two!("fprem1"),
        0xf8 => two!("fprem"),
        0xf9 => popping!("fyl2xp1"),
        0xfa => one!("fsqrt"),
        0xfb => pushing!("fsincos"),
        0xfc => one!("frndint"),
        0xfd => two!("fscale"),
        0xfe => one!("fsin"),
        _ => one!("fcos"),
    };
    (load80(&r), load80(&q), sw)
}
