//! Lazy flags against the real CPU.
#![allow(unsafe_code)]

use evm_cpu::cc::{self, AF, CF, OF, PF, SF, ZF};
use std::arch::asm;

/// Flags after an instruction on `a` (in and out) and `b`, with CF set to `c` before.
macro_rules! real {
    ($text:expr, $a:expr, $b:expr, $c:expr) => {{
        let mut a: u64 = $a;
        let flags: u64;
        // SAFETY: register operations only.
        unsafe {
            asm!("bt {c}, 0", $text, "pushfq", "pop {f}", a = inout(reg_abcd) a, b = in(reg_abcd) $b,
                c = in(reg) $c as u64, f = lateout(reg) flags);
        }
        (a, flags)
    }};
}

/// Operands with many corners.
fn operands() -> Vec<(u64, u64, u64)> {
    let corners = [
        0,
        1,
        2,
        0x0f,
        0x10,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
    ];
    let mut out = vec![];
    for a in corners {
        for b in corners {
            out.extend([(a, b, 0), (a, b, 1)]);
        }
    }
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..500 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.push((x, x.rotate_left(29).wrapping_mul(0x2545_f491), x & 1));
    }
    out
}

macro_rules! widths {
    // instruction, kind, flags compared, closure from (a, b, c, result) to the thunk's operands
    ($ins:literal, $kind:expr, $mask:expr, $f:expr) => {{
        for (a, b, c) in operands() {
            let f: fn(u64, u64, u64, u64, u32) -> (u64, u64, u64) = $f;
            let all = [
                real!(concat!($ins, " {a:l}, {b:l}"), a, b, c),
                real!(concat!($ins, " {a:x}, {b:x}"), a, b, c),
                real!(concat!($ins, " {a:e}, {b:e}"), a, b, c),
                real!(concat!($ins, " {a}, {b}"), a, b, c),
            ];
            for (w, (r, flags)) in all.into_iter().enumerate() {
                let m = u64::MAX >> (64 - (8 << w));
                let (x, y, z) = f(a & m, b & m, c, r & m, 8 << w);
                let got = cc::flags($kind | w as u64, x, y, z);
                assert_eq!(got & $mask, flags & $mask, "{} width {} {a:#x} {b:#x} {c}", $ins, 8 << w);
            }
        }
    }};
}

const ALL: u64 = CF | PF | AF | ZF | SF | OF;

#[test]
fn arithmetic() {
    widths!("add", cc::ADD, ALL, |a, b, _, _, _| (a, b, 0));
    widths!("adc", cc::ADC, ALL, |a, b, c, _, _| (a, b, c));
    widths!("sub", cc::SUB, ALL, |a, b, _, _, _| (a, b, 0));
    widths!("sbb", cc::SBB, ALL, |a, b, c, _, _| (a, b, c));
    widths!("cmp", cc::SUB, ALL, |a, b, _, _, _| (a, b, 0));
    widths!("and", cc::LOGIC, ALL & !AF, |_, _, _, r, _| (r, 0, 0));
    widths!("xor", cc::LOGIC, ALL & !AF, |_, _, _, r, _| (r, 0, 0));
}

macro_rules! unary {
    ($ins:literal, $kind:expr, $mask:expr, $f:expr) => {{
        for (a, _, c) in operands() {
            let f: fn(u64, u64, u64, u32) -> (u64, u64, u64) = $f;
            let all = [
                real!(concat!($ins, " {a:l} /* {b} */"), a, 0u64, c),
                real!(concat!($ins, " {a:x} /* {b} */"), a, 0u64, c),
                real!(concat!($ins, " {a:e} /* {b} */"), a, 0u64, c),
                real!(concat!($ins, " {a} /* {b} */"), a, 0u64, c),
            ];
            for (w, (r, flags)) in all.into_iter().enumerate() {
                let m = u64::MAX >> (64 - (8 << w));
                let (x, y, z) = f(a & m, c, r & m, 8 << w);
                let got = cc::flags($kind | w as u64, x, y, z);
                assert_eq!(got & $mask, flags & $mask, "{} width {} {a:#x} {c}", $ins, 8 << w);
            }
        }
    }};
}

#[test]
fn unary() {
    unary!("inc", cc::INC, ALL, |_, c, r, _| (r, 0, c));
    unary!("dec", cc::DEC, ALL, |_, c, r, _| (r, 0, c));
    unary!("neg", cc::SUB, ALL, |a, _, _, _| (0, a, 0));
}

#[test]
fn shifts() {
    let szp = ZF | SF | PF;
    unary!("shl", cc::SHL, szp | CF | OF, |a, _, _, _| (a, 1, 0));
    unary!("shr", cc::SHR, szp | CF | OF, |a, _, _, _| (a, 1, 0));
    let sext = |a: u64, _: u64, _: u64, w: u32| (((a << (64 - w)) as i64 >> (64 - w)) as u64, 1, 0);
    unary!("sar", cc::SAR, szp | CF | OF, sext);
    for (v, n, _) in operands() {
        // By CL: OF is undefined, CF too past the width.
        let n = n & 31;
        if n == 0 {
            continue;
        }
        macro_rules! one {
            ($text:literal, $kind:expr, $w:expr, $signed:expr) => {{
                let mut a = v;
                let flags: u64;
                // SAFETY: register operations only.
                unsafe {
                    asm!($text, "pushfq", "pop {f}", a = inout(reg_abcd) a, in("rcx") n, f = lateout(reg) flags);
                }
                let _ = a;
                let bits = 8u32 << $w;
                let x = v << (64 - bits);
                let x = if $signed { (x as i64 >> (64 - bits)) as u64 } else { x >> (64 - bits) };
                let mask = szp | if n <= u64::from(bits) { CF } else { 0 };
                assert_eq!(cc::flags($kind | $w, x, n, 0) & mask, flags & mask, "{} {v:#x} {n}", $text);
            }};
        }
        one!("shl {a:l}, cl", cc::SHL, 0, false);
        one!("shl {a:x}, cl", cc::SHL, 1, false);
        one!("shl {a:e}, cl", cc::SHL, 2, false);
        one!("shl {a}, cl", cc::SHL, 3, false);
        one!("shr {a:l}, cl", cc::SHR, 0, false);
        one!("shr {a}, cl", cc::SHR, 3, false);
        one!("sar {a:l}, cl", cc::SAR, 0, true);
        one!("sar {a:x}, cl", cc::SAR, 1, true);
        one!("sar {a:e}, cl", cc::SAR, 2, true);
        one!("sar {a}, cl", cc::SAR, 3, true);
    }
}

#[test]
fn products() {
    for (a, b, c) in operands() {
        for (w, (_, flags)) in
            [real!("imul {a:x}, {b:x}", a, b, c), real!("imul {a:e}, {b:e}", a, b, c), real!("imul {a}, {b}", a, b, c)]
                .into_iter()
                .enumerate()
        {
            let w = w + 1;
            let m = u64::MAX >> (64 - (8 << w));
            let got = cc::flags(cc::SMUL | w as u64, a & m, b & m, 0);
            assert_eq!(got & (CF | OF), flags & (CF | OF), "imul {} {a:#x} {b:#x}", 8 << w);
        }
        let flags: u64;
        // SAFETY: register operations only.
        unsafe {
            asm!("mul {b}", "pushfq", "pop {f}", b = in(reg) b, inout("rax") a => _, out("rdx") _, f = lateout(reg) flags);
        }
        assert_eq!(cc::flags(cc::UMUL | 3, a, b, 0) & (CF | OF), flags & (CF | OF), "mul {a:#x} {b:#x}");
    }
}

#[test]
fn floats() {
    let v = [0.0, -0.0, 1.0, -1.5, f64::INFINITY, f64::NAN, 1e-310];
    for a in v {
        for b in v {
            let flags: u64;
            // SAFETY: register operations only.
            unsafe {
                asm!("ucomisd {a}, {b}", "pushfq", "pop {f}", a = in(xmm_reg) a, b = in(xmm_reg) b, f = out(reg) flags);
            }
            assert_eq!(cc::flags(cc::FCMP | 3, a.to_bits(), b.to_bits(), 0), flags & ALL, "{a} {b}");
            let (a, b) = (a as f32, b as f32);
            assert_eq!(cc::flags(cc::FCMP | 2, u64::from(a.to_bits()), u64::from(b.to_bits()), 0), {
                let flags: u64;
                // SAFETY: register operations only.
                unsafe {
                    asm!("ucomiss {a}, {b}", "pushfq", "pop {f}", a = in(xmm_reg) a, b = in(xmm_reg) b, f = out(reg) flags);
                }
                flags & ALL
            });
        }
    }
}
