//! Each operation on the host's whole x87 state (FRSTOR, the instruction, FNSAVE) and by helpers on
//! `CpuState`: control, status and tag words and all registers must agree.

use super::*;
use crate::helpers::testing::Rng;
use std::arch::asm;

/// FNSAVE's image.
#[repr(C, align(16))]
#[derive(Clone, PartialEq, Eq, Debug)]
struct Image([u8; 108]);

fn to_image(s: &CpuState) -> Image {
    let mut m = [0u8; 108];
    m[0..2].copy_from_slice(&s.fcw.to_le_bytes());
    m[4..6].copy_from_slice(&s.fsw.to_le_bytes());
    m[8..10].copy_from_slice(&s.full_tags().to_le_bytes());
    for i in 0..8 {
        m[28 + 10 * i..][..10].copy_from_slice(&s.st(i as u64).to_le_bytes()[..10]);
    }
    Image(m)
}
/// What is compared: control, status, tags and registers; not the pointers.
fn seen(m: &Image) -> (u16, u16, u16, Vec<u128>) {
    let half = |k: usize| u16::from_le_bytes([m.0[k], m.0[k + 1]]);
    let regs = (0..8).map(|i| {
        let mut v = [0; 16];
        v[..10].copy_from_slice(&m.0[28 + 10 * i..][..10]);
        u128::from_le_bytes(v)
    });
    (half(0), half(4), half(8), regs.collect())
}

fn number(rng: &mut Rng) -> u128 {
    let r = rng.next();
    let sign = u128::from(r & 1) << 79;
    let frac = u128::from(rng.next() | 1 << 63);
    let exp = |e: u64| u128::from(e) << 64;
    sign | match r >> 8 & 31 {
        0 => 0,
        1 => exp(0x7fff) | 1 << 63,
        2 => exp(0x7fff) | 0xc000_0000_0000_1234,
        3 => exp(0x7fff) | 0x8000_0000_0000_1234,
        4 => frac >> 3 & !(1 << 63),
        5 => exp(0x7ffe) | frac,
        6 => exp(1) | frac,
        7 => exp(0x3fff) | 1 << 63,
        8 => exp(0x3ffe) | 1 << 63,
        9 => exp(0x4000) | 0xc000_0000_0000_0000,
        10..=14 => exp(0x3fff + r % 70) | frac,
        15..=18 => exp(0x3ffe - (r >> 20) % 70) | frac,
        19 => exp(0x3fff + 0x3ff) | frac,
        20 => exp(0x3fff - 0x3ff - r % 60) | frac,
        21 => exp(0x3fff + (r >> 20) % 14) | frac & 0xffff_0000_0000_0000,
        // An unsupported encoding.
        22 => exp(0x4003) | 0x1234_0000_0000_0000,
        _ => exp(0x3ffd + (r >> 20) % 5) | frac,
    }
}

fn random_state(rng: &mut Rng, unmasked: bool) -> CpuState {
    let mut s = CpuState::default();
    let r = rng.next();
    s.fcw = if r & 3 == 0 { 0x37f } else { 0x7f | (r >> 8 & 0xf00) as u16 };
    if s.fcw & 0x300 == 0x100 {
        s.fcw |= 0x300;
    }
    if unmasked {
        s.fcw &= !((r >> 20) as u16 & 0x3f);
    }
    s.fsw = (r >> 32 & 0x7f00) as u16;
    s.ftw = 0;
    for p in 0..8 {
        s.fpr[p] = number(rng);
        if rng.next() & 7 == 0 {
            s.ftw |= 3 << (2 * p);
        }
    }
    s
}

macro_rules! native {
    ($m:ident, $ins:literal, $mem:ident) => {
        // SAFETY: the image and the operand are locals; the host's x87 state is saved, then reset by FNSAVE.
        unsafe {
            asm!("frstor [{m}]", $ins, "fnsave [{m}] # {o}", m = in(reg) &mut $m, o = in(reg) &mut $mem,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _)
        }
    };
}

/// What lifted code does after a store.
fn stored<T>(s: *mut u8, v: T) -> T {
    // SAFETY: the test's own state.
    let s = unsafe { state(s) };
    s.x87_undo = 0;
    v
}

#[test]
fn operations_match_the_hardware() {
    let mut rng = Rng(0x1234_5678_9abc);
    let mut bad = std::collections::BTreeMap::<&str, (u32, String)>::new();
    for round in 0..3000 {
        let start = random_state(&mut rng, round % 4 == 3);
        let edges = [
            0,
            1,
            0x7fc0_0001,
            0x7f80_0001,
            0x7f80_0000,
            0x0000_0001,
            0x7ff0_0000_0000_0001,
            0x7ff8_0000_0000_0000,
            1 << 63,
            0x8000,
        ];
        let r = rng.next();
        let bits = match r & 7 {
            0 => edges[r as usize >> 8 & 7],
            1 => (1.5f64 * (r >> 40) as f64).to_bits(),
            2 => u64::from((0.7f32 * (r >> 40) as f32).to_bits()),
            _ => rng.next(),
        };
        macro_rules! cases { ($( $ins:literal $(=> $out:ident)? |$s:ident| $e:expr; )*) => { $( {
            let mut m = to_image(&start);
            let mut mem = [bits, 0u64];
            native!(m, $ins, mem);
            let mut mine = start.clone();
            let $s: S = (&raw mut mine).cast();
            let got = { let v: Result64 = $e.into(); v.0 };
            let _ = got;
            let (want, have) = (seen(&m), seen(&to_image(&mine)));
            let raised = mine.pending != 0;
            let mut same = want == have;
            $( if stringify!($out) == "o" { same &= raised || mem[0] == got; } )?
            if raised { same = want.1 == have.1; }
            if !same {
                let e = bad.entry($ins).or_default();
                e.0 += 1;
                if e.0 == 1 {
                    e.1 = format!("{:x?} bits {bits:x} mem {:x} got {got:x}\n want {want:x?}\n have {have:x?}", seen(&to_image(&start)), mem[0]);
                }
            }
        } )* } }
        cases! {
            "fadd st(0), st(3)" |s| x87_arith(s, 3 << 6);
            "fmul st(0), st(3)" |s| x87_arith(s, 1 | 3 << 6);
            "fsub st(0), st(3)" |s| x87_arith(s, 4 | 3 << 6);
            "fsubr st(0), st(3)" |s| x87_arith(s, 5 | 3 << 6);
            "fdiv st(0), st(3)" |s| x87_arith(s, 6 | 3 << 6);
            "fdivr st(0), st(3)" |s| x87_arith(s, 7 | 3 << 6);
            "fsub st(2), st(0)" |s| x87_arith(s, 4 | 2 << 3);
            "fdivr st(2), st(0)" |s| x87_arith(s, 7 | 2 << 3);
            "faddp st(1), st(0)" |s| x87_arith(s, 1 << 3 | 1 << 9);
            "fsubrp st(1), st(0)" |s| x87_arith(s, 5 | 1 << 3 | 1 << 9);
            "fdivp st(1), st(0)" |s| x87_arith(s, 6 | 1 << 3 | 1 << 9);
            "fadd dword ptr [{o}]" |s| x87_arith_mem(s, 0, bits & 0xffff_ffff, 0);
            "fsubr qword ptr [{o}]" |s| x87_arith_mem(s, 8 | 5, bits, 0);
            "fidiv word ptr [{o}]" |s| x87_arith_mem(s, 16 | 6, bits & 0xffff, 0);
            "fimul dword ptr [{o}]" |s| x87_arith_mem(s, 24 | 1, bits & 0xffff_ffff, 0);
            "fcom st(2)" |s| x87_com(s, 2);
            "fucomp st(2)" |s| x87_com(s, 2 | 1 << 3 | 1 << 5);
            "fcompp" |s| x87_com(s, 1 | 2 << 3);
            "fcomp qword ptr [{o}]" |s| x87_com_mem(s, 1 | 1 << 3, bits, 0);
            "ficom dword ptr [{o}]" |s| x87_com_mem(s, 3, bits & 0xffff_ffff, 0);
            "fld dword ptr [{o}]" |s| x87_fld(s, 0, bits & 0xffff_ffff, 0);
            "fld qword ptr [{o}]" |s| x87_fld(s, 1, bits, 0);
            "fild word ptr [{o}]" |s| x87_fld(s, 2, bits & 0xffff, 0);
            "fild dword ptr [{o}]" |s| x87_fld(s, 3, bits & 0xffff_ffff, 0);
            "fild qword ptr [{o}]" |s| x87_fld(s, 4, bits, 0);
            "fld tbyte ptr [{o}]" |s| x87_fld80(s, bits, 0, 0, 0);
            "fld st(2)" |s| x87_fld_st(s, 2);
            "fldpi" |s| x87_fldc(s, 3);
            "fldl2t" |s| x87_fldc(s, 1);
            "fst qword ptr [{o}]" => o |s| stored(s, x87_fst(s, 1, 0, 0));
            "fist dword ptr [{o}]" |s| stored(s, x87_fst(s, 3, 0, 0));
            "fst st(3)" |s| x87_fst_st(s, 3);
            "fstp st(3)" |s| x87_fst_st(s, 3 | 1 << 3);
            "fchs" |s| x87_unary(s, 0xe0);
            "fabs" |s| x87_unary(s, 0xe1);
            "ftst" |s| x87_unary(s, 0xe4);
            "fxam" |s| x87_unary(s, 0xe5);
            "f2xm1" |s| x87_unary(s, 0xf0);
            "fyl2x" |s| x87_unary(s, 0xf1);
            "fptan" |s| x87_unary(s, 0xf2);
            "fpatan" |s| x87_unary(s, 0xf3);
            "fxtract" |s| x87_unary(s, 0xf4);
            "fprem1" |s| x87_unary(s, 0xf5);
            "fprem" |s| x87_unary(s, 0xf8);
            "fyl2xp1" |s| x87_unary(s, 0xf9);
            "fsqrt" |s| x87_unary(s, 0xfa);
            "fsincos" |s| x87_unary(s, 0xfb);
            "frndint" |s| x87_unary(s, 0xfc);
            "fscale" |s| x87_unary(s, 0xfd);
            "fsin" |s| x87_unary(s, 0xfe);
            "fcos" |s| x87_unary(s, 0xff);
            "fxch st(3)" |s| x87_fxch(s, 3);
            "ffree st(3)" |s| x87_free(s, 3);
            "fincstp" |s| x87_top(s, 1);
            "fdecstp" |s| x87_top(s, 7);
            "fninit" |s| x87_init(s);
            "fldcw word ptr [{o}]" |s| x87_ldcw(s, bits & 0xffff);
            "movq mm3, qword ptr [{o}]" |s| mmx_put(s, 3, bits);
        }
    }
    for (ins, (n, first)) in &bad {
        println!("{ins}: {n} differ\n {first}");
    }
    assert!(bad.is_empty(), "{:?}", bad.iter().map(|(k, v)| (*k, v.0)).collect::<Vec<_>>());
}

/// Results of helpers as 64 bits.
struct Result64(u64);
impl From<()> for Result64 {
    fn from(_: ()) -> Self {
        Result64(0)
    }
}
impl From<u64> for Result64 {
    fn from(v: u64) -> Self {
        Result64(v)
    }
}
