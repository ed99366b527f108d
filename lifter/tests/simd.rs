//! Vector and x87 instructions, lifted and interpreted, against the host's own execution of the same bytes.
//!
//! # Safety
//! The unsafe code here is the pieces; see [`native`].
#![allow(unsafe_code)]

#[path = "vectors/native.rs"]
mod native;

use native::{ENGINES, Guest, MEM, Machine, Piece, native as run_native};

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// Kind 0: any bits and edge cases; 1: floats; 2: doubles.
    fn half(&mut self, kind: u64) -> u64 {
        let r = self.next();
        let float = |r: u64| -> u32 {
            match r % 12 {
                0 => 0,
                1 => 0x8000_0000,
                2 => 0x7f80_0000,
                3 => 0x7fc0_0000 | (r >> 20) as u32 & 0x8000_ffff,
                4 => 0xff80_0000 | (r >> 20) as u32 & 0xffff | 1,
                5 => (r >> 20) as u32 & 0x807f_ffff,
                6 => ((r >> 20) as i32 as f32).to_bits(),
                _ => ((r >> 20) as i32 as f32 / 65536.0).to_bits(),
            }
        };
        match kind {
            1 => u64::from(float(r)) | u64::from(float(self.next())) << 32,
            2 => match r % 12 {
                0 => 0,
                1 => 1 << 63,
                2 => 0xfff0_0000_0000_0000,
                3 => 0x7ff8_0000_0000_0000 | (r >> 8 & 0x800f_ffff),
                4 => 0x7ff0_0000_0000_0001 | r >> 8 & 0xffff,
                5 => r & 0x800f_ffff_ffff_ffff,
                6 => ((r as i64 >> 20) as f64).to_bits(),
                7 => f64::from(f32::from_bits((r >> 16) as u32 & 0xbfff_ffff)).to_bits(),
                _ => ((r as i64 >> 20) as f64 / 65536.0).to_bits(),
            },
            _ => match r % 4 {
                0 => [0, u64::MAX, 0x8000_8000_7fff_7fff, 0x8080_7f7f_00ff_0180][r as usize >> 8 & 3],
                1 => r >> 8 & 63,
                _ => self.next(),
            },
        }
    }
    fn vec(&mut self, kind: u64) -> u128 {
        u128::from(self.half(kind)) << 64 | u128::from(self.half(kind))
    }
    fn machine(&mut self, kind: u64, mmx: bool) -> Machine {
        let mut m = Machine { s: Default::default(), mem: [0; MEM] };
        let avx = std::is_x86_feature_detected!("avx");
        for i in 0..16 {
            m.s.xmm[i] = self.vec(kind);
            m.s.ymm_hi[i] = if avx { self.vec(kind) } else { 0 };
            if i != 4 && i != 15 {
                m.s.gpr[i] = self.half(0);
            }
        }
        m.s.gpr[7] = 0;
        for c in m.mem.chunks_mut(16) {
            c.copy_from_slice(&self.vec(kind).to_le_bytes());
        }
        for p in 0..8 {
            let e = 0x3fff_u128 + u128::from(self.next() % 8) + (u128::from(self.next() & 1) << 15);
            m.s.fpr[p] = if mmx {
                0xffff << 64 | u128::from(self.half(kind))
            } else {
                e << 64 | 1 << 63 | u128::from(self.next())
            };
        }
        m.s.ftw = 0;
        m.s.mxcsr = 0x1f80 | (self.next() as u32 & 0x6000);
        m.s.set_rflags(self.next() & 0x8d5);
        m
    }
}

/// What differs, if anything does; of MXCSR only the bits of `csr`.
fn difference(want: &Machine, have: &Machine, csr: u32) -> Option<String> {
    let (a, b) = (&want.s, &have.s);
    for i in (0..16).filter(|i| *i != 4 && *i != 15) {
        if a.gpr[i] != b.gpr[i] {
            return Some(format!("gpr{i} {:x} {:x}", a.gpr[i], b.gpr[i]));
        }
    }
    for i in 0..16 {
        if a.xmm[i] != b.xmm[i] || a.ymm_hi[i] != b.ymm_hi[i] {
            return Some(format!("ymm{i} {:x}:{:x} {:x}:{:x}", a.ymm_hi[i], a.xmm[i], b.ymm_hi[i], b.xmm[i]));
        }
    }
    if (a.fsw, a.fcw, a.ftw) != (b.fsw, b.fcw, b.ftw) || a.fpr != b.fpr {
        return Some(format!(
            "x87 {:x} {:x} {:x} {:x?}\n {:x} {:x} {:x} {:x?}",
            a.fsw, a.fcw, a.ftw, a.fpr, b.fsw, b.fcw, b.ftw, b.fpr
        ));
    }
    if (a.rflags() ^ b.rflags()) & 0x8d5 != 0 {
        return Some(format!("flags {:x} {:x}", a.rflags(), b.rflags()));
    }
    if (a.mxcsr ^ b.mxcsr) & csr != 0 {
        return Some(format!("mxcsr {:x} {:x}", a.mxcsr, b.mxcsr));
    }
    if want.mem != have.mem {
        let at = want.mem.iter().zip(&have.mem).position(|(x, y)| x != y).unwrap_or(0);
        return Some(format!("memory at {at} {:x?} {:x?}", &want.mem[at & !15..][..16], &have.mem[at & !15..][..16]));
    }
    None
}

fn check(kind: u64, mmx: bool, list: &[Piece]) {
    let mut guest = Guest::new();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ kind);
    let mut bad = vec![];
    for p in list {
        // Comparisons are done where their result is used, and not as the instruction that was written, so the
        // exception flags they raise may differ; and truncation is compared with its limits first.
        let inexact = ["com", "cmp", "cvtt"].iter().any(|s| p.0.contains(s));
        let csr = if inexact { !0x3f } else { !0 };
        let lifted = match guest.lift(p) {
            Ok(l) => l,
            Err(e) => {
                bad.push(format!("{}: {e}", p.0));
                continue;
            }
        };
        for (engine, name) in ENGINES.iter().enumerate() {
            for _ in 0..24 {
                let m = rng.machine(kind, mmx);
                let want = run_native(p, &m);
                let d = match guest.run(&lifted, engine, &m) {
                    Ok(have) => difference(&want, &have, csr),
                    Err(e) => Some(e),
                };
                if let Some(d) = d {
                    bad.push(format!("{}, {name}: {d}", p.0));
                    break;
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} of {} differ:\n{}", bad.len(), list.len(), bad.join("\n"));
}

/// Pieces from mnemonics and operand lists: every mnemonic with every list.
macro_rules! cross {
    ($ops:tt; $($m:literal)*) => { { let mut v: Vec<Piece> = vec![]; $( v.extend(cross!(@ $m $ops)); )* v } };
    (@ $m:literal [$($ops:literal),*]) => { pieces![$( concat!($m, " ", $ops) ),*] };
}

#[test]
fn sse_integer() {
    let two = cross!(["xmm1, xmm2", "xmm9, [rdi + 16]"];
        "paddb" "paddw" "paddd" "paddq" "psubb" "psubw" "psubd" "psubq" "paddsb" "paddsw" "paddusb" "paddusw"
        "psubsb" "psubsw" "psubusb" "psubusw" "pmullw" "pmulld" "pmulhw" "pmulhuw" "pmaddwd" "pmuludq" "pmuldq" "psadbw"
        "pminub" "pminsw" "pmaxub" "pmaxsw" "pminsb" "pminuw" "pminsd" "pminud" "pmaxsb" "pmaxuw" "pmaxsd" "pmaxud"
        "pavgb" "pavgw" "pand" "por" "pxor" "pandn" "pcmpeqb" "pcmpeqw" "pcmpeqd" "pcmpeqq" "pcmpgtb" "pcmpgtw" "pcmpgtd"
        "pcmpgtq" "packsswb" "packssdw" "packuswb" "packusdw" "pshufb" "pmulhrsw" "pmaddubsw" "psignb" "psignw" "psignd"
        "phaddw" "phaddd" "phaddsw" "phsubw" "phsubd" "phsubsw" "punpcklbw" "punpcklwd" "punpckldq" "punpcklqdq"
        "punpckhbw" "punpckhwd" "punpckhdq" "punpckhqdq" "unpcklps" "unpcklpd" "unpckhps" "unpckhpd" "pabsb" "pabsw" "pabsd"
        "andps" "andnpd" "orpd" "xorps" "psllw" "pslld" "psllq" "psrlw" "psrld" "psrlq" "psraw" "psrad" "phminposuw" "ptest"
        "movdqa" "movdqu" "movaps" "movups" "movapd" "movupd" "pblendvb" "blendvps" "blendvpd" "movsldup" "movshdup"
        "aesenc" "aesenclast" "aesdec" "aesdeclast" "aesimc" "sha1nexte" "sha1msg1" "sha1msg2" "sha256msg1" "sha256msg2"
        "sha256rnds2");
    check(0, false, &two);
    let imm = cross!(["xmm1, xmm2, 0x1b", "xmm9, [rdi + 16], 0xe4", "xmm3, xmm3, 7", "xmm3, xmm4, 0x5a", "xmm0, xmm1, 0x11"];
        "pshufd" "pshuflw" "pshufhw" "shufps" "shufpd" "palignr" "pblendw" "blendps" "blendpd" "mpsadbw" "pclmulqdq"
        "aeskeygenassist" "sha1rnds4" "pcmpistri" "pcmpistrm" "pcmpestri" "pcmpestrm");
    check(0, false, &imm);
    let shift = cross!(["xmm1, 0", "xmm2, 1", "xmm3, 7", "xmm4, 15", "xmm5, 16", "xmm6, 31", "xmm7, 40", "xmm8, 200"];
        "psllw" "pslld" "psllq" "psrlw" "psrld" "psrlq" "psraw" "psrad" "pslldq" "psrldq");
    check(0, false, &shift);
    check(
        0,
        false,
        &cross!(["xmm1, xmm2", "xmm9, [rdi + 17]"];
        "pmovsxbw" "pmovsxbd" "pmovsxbq" "pmovsxwd" "pmovsxwq" "pmovsxdq" "pmovzxbw" "pmovzxbd" "pmovzxbq" "pmovzxwd"
        "pmovzxwq" "pmovzxdq" "movddup" "movq" "movss" "movsd"),
    );
    check(
        0,
        false,
        &pieces![
            "palignr xmm1, xmm2, 16",
            "palignr xmm1, xmm2, 20",
            "palignr xmm1, xmm2, 31",
            "palignr xmm1, xmm2, 40",
            "palignr xmm1, xmm1, 0",
            "movd xmm1, eax",
            "movd ebx, xmm1",
            "movq xmm1, rax",
            "movq rbx, xmm1",
            "movd xmm1, [rdi]",
            "movd [rdi + 3], xmm1",
            "movq [rdi + 5], xmm7",
            "movss [rdi + 2], xmm1",
            "movsd [rdi + 1], xmm1",
            "movlps xmm1, [rdi + 4]",
            "movhps xmm1, [rdi + 4]",
            "movlpd [rdi + 1], xmm1",
            "movhpd [rdi + 1], xmm1",
            "movhlps xmm1, xmm2",
            "movlhps xmm1, xmm2",
            "movntdq [rdi], xmm3",
            "movntps [rdi + 16], xmm3",
            "movntdqa xmm1, [rdi]",
            "lddqu xmm1, [rdi + 3]",
            "movdqu [rdi + 5], xmm1",
            "movaps [rdi + 32], xmm8",
            "movmskps eax, xmm1",
            "movmskpd ecx, xmm2",
            "pmovmskb edx, xmm3",
            "pinsrb xmm1, eax, 5",
            "pinsrb xmm1, [rdi + 1], 15",
            "pinsrw xmm1, ecx, 7",
            "pinsrw xmm1, [rdi + 1], 2",
            "pinsrd xmm1, edx, 3",
            "pinsrd xmm1, [rdi], 1",
            "pinsrq xmm1, rax, 1",
            "pextrb eax, xmm1, 3",
            "pextrb [rdi], xmm1, 14",
            "pextrw ecx, xmm1, 5",
            "pextrw [rdi + 1], xmm1, 5",
            "pextrd eax, xmm2, 2",
            "pextrd [rdi], xmm2, 1",
            "pextrq rax, xmm2, 1",
            "extractps eax, xmm1, 3",
            "extractps [rdi + 9], xmm1, 2",
            "insertps xmm1, xmm2, 0x9a",
            "insertps xmm1, xmm2, 0x4f",
            "insertps xmm1, [rdi], 0x31",
            "maskmovdqu xmm1, xmm2",
            "crc32 eax, cl",
            "stmxcsr [rdi]",
            "fxsave64 [rdi + 0]\n fxrstor64 [rdi]\n mov dword ptr [rdi + 28], 0",
            "pcmpeqd xmm1, xmm1",
            "pxor xmm2, xmm2",
            "psubd xmm3, xmm3",
            "ptest xmm1, xmm2\n sete al\n setc cl",
            "ptest xmm1, xmm1\n setne al",
            "pcmpistri xmm1, [rdi + 1], 0x18\n seta al",
            "pcmpestri xmm1, xmm2, 0x44\n setc dl",
        ],
    );
}

#[test]
fn sse_float() {
    for (kind, list) in [
        (
            1,
            cross!(["xmm1, xmm2", "xmm9, [rdi + 16]", "xmm3, xmm3"];
            "addps" "subps" "mulps" "divps" "minps" "maxps" "sqrtps" "addss" "subss" "mulss" "divss" "minss" "maxss" "sqrtss"
            "haddps" "hsubps" "addsubps" "ucomiss" "comiss" "cvtdq2ps" "cvtps2dq" "cvttps2dq" "cvtps2pd" "cvtss2sd" "cvtdq2pd"),
        ),
        (
            2,
            cross!(["xmm1, xmm2", "xmm9, [rdi + 16]", "xmm3, xmm3"];
            "addpd" "subpd" "mulpd" "divpd" "minpd" "maxpd" "sqrtpd" "addsd" "subsd" "mulsd" "divsd" "minsd" "maxsd" "sqrtsd"
            "haddpd" "hsubpd" "addsubpd" "ucomisd" "comisd" "cvtpd2dq" "cvttpd2dq" "cvtpd2ps" "cvtsd2ss"),
        ),
        (
            1,
            cross!(["xmm1, xmm2, 0", "xmm1, [rdi], 1", "xmm1, xmm2, 2", "xmm1, xmm2, 3", "xmm1, xmm2, 4", "xmm1, xmm2, 5", "xmm1, xmm2, 6", "xmm1, xmm2, 7"];
            "cmpps" "cmpss" "roundps" "roundss" "dpps"),
        ),
        (
            2,
            cross!(["xmm1, xmm2, 0", "xmm1, [rdi], 1", "xmm1, xmm2, 2", "xmm1, xmm2, 3", "xmm1, xmm2, 4", "xmm1, xmm2, 5", "xmm1, xmm2, 6", "xmm1, xmm2, 7"];
            "cmppd" "cmpsd" "roundpd" "roundsd" "dppd"),
        ),
        (1, cross!(["eax, xmm2", "rcx, dword ptr [rdi + 4]"]; "cvtss2si" "cvttss2si")),
        (2, cross!(["eax, xmm2", "rcx, qword ptr [rdi + 8]"]; "cvtsd2si" "cvttsd2si")),
        (
            0,
            cross!(["xmm1, eax", "xmm2, rcx", "xmm3, dword ptr [rdi]", "xmm4, qword ptr [rdi]"]; "cvtsi2ss" "cvtsi2sd"),
        ),
        (
            2,
            pieces![
                "comisd xmm1, xmm2\n seta al\n setp bl\n setb cl\n sete dl",
                "ucomisd xmm1, xmm2\n jbe 2f\n mov eax, 1\n 2:",
                "mov dword ptr [rdi], 0x5f80\n ldmxcsr [rdi]\n addsd xmm1, xmm2"
            ],
        ),
    ] {
        check(kind, false, &list);
    }
}

#[test]
fn mmx() {
    check(
        0,
        true,
        &cross!(["mm1, mm2", "mm3, [rdi + 8]"];
        "paddb" "paddw" "paddd" "paddq" "psubb" "psubw" "psubd" "psubq" "paddsb" "paddsw" "paddusb" "paddusw" "psubsb" "psubsw"
        "psubusb" "psubusw" "pmullw" "pmulhw" "pmulhuw" "pmaddwd" "pmuludq" "psadbw" "pminub" "pminsw" "pmaxub" "pmaxsw" "pavgb"
        "pavgw" "pand" "por" "pxor" "pandn" "pcmpeqb" "pcmpeqw" "pcmpeqd" "pcmpgtb" "pcmpgtw" "pcmpgtd" "packsswb" "packssdw"
        "packuswb" "pshufb" "pmulhrsw" "pmaddubsw" "psignb" "psignw" "psignd" "phaddw" "phaddd" "phaddsw" "phsubw" "phsubd"
        "phsubsw" "punpcklbw" "punpcklwd" "punpckldq" "punpckhbw" "punpckhwd" "punpckhdq" "pabsb" "pabsw" "pabsd" "psllw" "pslld"
        "psllq" "psrlw" "psrld" "psrlq" "psraw" "psrad" "movq"),
    );
    check(
        0,
        true,
        &cross!(["mm1, 0", "mm2, 1", "mm3, 15", "mm4, 16", "mm5, 33", "mm6, 70"];
        "psllw" "pslld" "psllq" "psrlw" "psrld" "psrlq" "psraw" "psrad"),
    );
    check(
        0,
        true,
        &pieces![
            "palignr mm1, mm2, 3",
            "palignr mm1, mm2, 8",
            "palignr mm1, mm2, 11",
            "palignr mm1, mm2, 16",
            "pshufw mm1, mm2, 0x1b",
            "pshufw mm1, [rdi], 0x93",
            "pinsrw mm1, eax, 2",
            "pinsrw mm1, [rdi], 3",
            "pextrw eax, mm1, 1",
            "pmovmskb eax, mm2",
            "movd mm1, eax",
            "movd eax, mm1",
            "movq mm1, rax",
            "movq rax, mm1",
            "movd mm1, [rdi]",
            "movd [rdi], mm1",
            "movq [rdi], mm1",
            "movq2dq xmm1, mm2",
            "movdq2q mm1, xmm2",
            "movntq [rdi], mm1",
            "maskmovq mm1, mm2",
            "emms",
            "cvtpi2ps xmm1, mm2",
            "cvtpi2ps xmm1, [rdi]",
            "cvtpi2pd xmm1, mm2",
            "cvtpi2pd xmm1, [rdi]",
            "cvtps2pi mm1, xmm2",
            "cvttps2pi mm1, xmm2",
            "cvtpd2pi mm1, xmm2",
            "cvttpd2pi mm1, [rdi]",
            "movq mm1, [rdi]\n paddb mm1, mm2\n emms",
        ],
    );
}

#[test]
fn x87() {
    check(
        0,
        false,
        &pieces![
            "fstp st(0)\n fld1",
            "fstp st(0)\n fld dword ptr [rdi]",
            "fstp st(0)\n fld qword ptr [rdi]",
            "fstp st(0)\n fld tbyte ptr [rdi]",
            "fld st(3)",
            "fst dword ptr [rdi]",
            "fstp qword ptr [rdi]",
            "fstp tbyte ptr [rdi + 1]",
            "fistp word ptr [rdi]",
            "fist dword ptr [rdi]",
            "fistp qword ptr [rdi]",
            "fisttp dword ptr [rdi]",
            "fisttp qword ptr [rdi]",
            "fstp st(0)\n fild word ptr [rdi]",
            "fstp st(0)\n fild qword ptr [rdi]",
            "fbstp tbyte ptr [rdi]",
            "mov rax, 0x1234567890\n mov [rdi], rax\n mov word ptr [rdi + 8], 0x8012\n fstp st(0)\n fbld tbyte ptr [rdi]",
            "fadd st, st(2)",
            "fmul st(3), st",
            "fsub st, st(2)",
            "fsub st(2), st",
            "fsubr st(2), st",
            "fsubr st, st(1)",
            "fdivp st(1), st",
            "fdivrp st(2), st",
            "fsubp st(1), st",
            "fsubrp st(3), st",
            "faddp",
            "fadd dword ptr [rdi]",
            "fmul qword ptr [rdi]",
            "fidiv word ptr [rdi]",
            "fisubr dword ptr [rdi]",
            "fcom st(1)",
            "fcomp st(2)",
            "fcompp",
            "fucompp",
            "fucom st(3)",
            "fcom qword ptr [rdi]",
            "ficomp word ptr [rdi]",
            "fcomi st, st(2)\n seta al",
            "fucomip st, st(2)\n setb al",
            "fcomip st, st(1)\n sete al\n setp cl",
            "ftst\n fnstsw ax",
            "fxam\n fnstsw [rdi]",
            "fchs",
            "fabs",
            "fsqrt",
            "frndint",
            "fscale",
            "fprem",
            "fprem1",
            "fxtract",
            "f2xm1",
            "fyl2x",
            "fyl2xp1",
            "fpatan",
            "fstp st(0)\n fptan",
            "fstp st(0)\n fsincos",
            "fsin",
            "fcos",
            "fxch st(4)",
            "fxch",
            "ffree st(2)",
            "fincstp",
            "fdecstp",
            "fninit",
            "fnclex",
            "fnstcw [rdi]",
            "mov word ptr [rdi], 0x77f\n fldcw [rdi]\n fistp dword ptr [rdi + 8]",
            "fcmovb st, st(2)",
            "fcmovne st, st(3)",
            "fcmovbe st, st(1)",
            "fcmovnu st, st(1)",
            "fwait",
            "fnop",
            "fnsave [rdi]\n frstor [rdi]\n mov dword ptr [rdi + 12], 0\n mov qword ptr [rdi + 16], 0\n mov dword ptr [rdi + 24], 0",
            "fnstenv [rdi]\n fldenv [rdi]\n mov dword ptr [rdi + 12], 0\n mov qword ptr [rdi + 16], 0\n mov dword ptr [rdi + 24], 0",
            "fstp st(0)\n fstp st(0)\n fldpi\n fldl2e\n faddp",
            "fstp st(0)\n fldz\n fldln2",
            "fstp st(0)\n fldlg2\n fldl2t",
        ],
    );
}

#[test]
fn avx() {
    if !["avx2", "fma", "f16c"].iter().all(|f| match *f {
        "avx2" => std::is_x86_feature_detected!("avx2"),
        "fma" => std::is_x86_feature_detected!("fma"),
        _ => std::is_x86_feature_detected!("f16c"),
    }) {
        return;
    }
    check(
        0,
        false,
        &cross!(["xmm1, xmm2, xmm3", "ymm1, ymm2, ymm3", "ymm9, ymm1, [rdi + 3]", "xmm9, xmm1, [rdi + 3]"];
        "vpaddb" "vpaddw" "vpaddd" "vpaddq" "vpsubb" "vpsubq" "vpaddsb" "vpaddusw" "vpsubsb" "vpmullw" "vpmulld" "vpmulhw" "vpmulhuw" "vpmaddwd" "vpmuludq" "vpmuldq"
        "vpsadbw" "vpminub" "vpminsd" "vpmaxuw" "vpavgb" "vpand" "vpandn" "vpor" "vpxor" "vpcmpeqb" "vpcmpgtq" "vpacksswb" "vpackusdw" "vpshufb" "vpmulhrsw"
        "vpmaddubsw" "vpsignb" "vphaddw" "vphsubd" "vpunpcklbw" "vpunpckhqdq" "vunpcklps" "vandps" "vxorpd" "vpsllvd" "vpsllvq" "vpsrlvd" "vpsrlvq" "vpsravd"
        "vpermilps" "vpermilpd"),
    );
    check(
        0,
        false,
        &cross!(["xmm1, xmm2, xmm3, 0x1b", "ymm1, ymm2, ymm3, 0x75", "ymm9, ymm1, [rdi + 3], 0xe4"];
        "vshufps" "vshufpd" "vpalignr" "vblendps" "vblendpd" "vpblendw" "vpblendd" "vmpsadbw"),
    );
    check(
        0,
        false,
        &cross!(["xmm1, xmm2, xmm3, xmm4", "ymm1, ymm2, ymm3, ymm4", "ymm9, ymm1, [rdi + 3], ymm2"]; "vpblendvb" "vblendvps" "vblendvpd"),
    );
    check(
        0,
        false,
        &cross!(["ymm1, ymm2, 0x1b", "ymm3, [rdi + 1], 0xe7"]; "vpshufd" "vpshuflw" "vpshufhw" "vpermilps" "vpermilpd" "vpermq" "vpermpd"),
    );
    check(
        0,
        false,
        &cross!(["ymm1, ymm2, 3", "xmm1, xmm2, 40"]; "vpsllw" "vpsrld" "vpsraw" "vpsrlq" "vpslldq" "vpsrldq"),
    );
    check(
        0,
        false,
        &cross!(["ymm1, ymm2, xmm3", "xmm1, xmm2, [rdi]", "ymm1, ymm2, [rdi + 1]"]; "vpsllw" "vpslld" "vpsrlq" "vpsraw" "vpsrad"),
    );
    check(
        0,
        false,
        &cross!(["ymm1, xmm2", "ymm9, [rdi + 17]", "xmm1, xmm2"];
        "vpmovsxbw" "vpmovsxbd" "vpmovsxbq" "vpmovsxwd" "vpmovsxwq" "vpmovsxdq" "vpmovzxbw" "vpmovzxbd" "vpmovzxbq" "vpmovzxwd" "vpmovzxwq" "vpmovzxdq"
        "vpbroadcastb" "vpbroadcastw" "vpbroadcastd" "vpbroadcastq" "vcvtph2ps"),
    );
    check(
        0,
        false,
        &pieces![
            "vzeroupper",
            "vzeroall",
            "vbroadcastss ymm1, [rdi]",
            "vbroadcastsd ymm1, xmm2",
            "vbroadcastf128 ymm1, [rdi + 4]",
            "vinserti128 ymm1, ymm2, xmm3, 1",
            "vinsertf128 ymm1, ymm2, [rdi], 0",
            "vextracti128 xmm1, ymm2, 1",
            "vextractf128 [rdi], ymm2, 1",
            "vperm2i128 ymm1, ymm2, ymm3, 0x31",
            "vperm2f128 ymm1, ymm2, [rdi], 0x08",
            "vperm2f128 ymm1, ymm2, ymm3, 0x82",
            "vpermd ymm1, ymm2, ymm3",
            "vpermps ymm1, ymm2, [rdi]",
            "vmaskmovps ymm1, ymm2, [rdi]",
            "vpmaskmovq xmm1, xmm2, [rdi]",
            "vmaskmovpd [rdi], ymm1, ymm2",
            "vpmaskmovd [rdi + 1], xmm1, xmm2",
            "vpsrld ymm2, ymm2, 26\n vpgatherdd ymm1, [rdi + ymm2*4 - 100], ymm3",
            "vpsrld xmm2, xmm2, 26\n vgatherdps xmm1, [rdi + xmm2*2], xmm3",
            "vpsrld xmm2, xmm2, 26\n vpgatherdq ymm1, [rdi + xmm2*4], ymm3",
            "vpsrlq ymm2, ymm2, 58\n vpgatherqd xmm1, [rdi + ymm2*4], xmm3",
            "vpsrlq xmm2, xmm2, 58\n vgatherqps xmm1, [rdi + xmm2*4], xmm3",
            "vpsrlq ymm2, ymm2, 58\n vpgatherqq ymm1, [rdi + ymm2], ymm3",
            "vpsrld xmm2, xmm2, 26\n vgatherdpd xmm1, [rdi + xmm2*4], xmm3",
            "vmovdqa ymm1, ymm2",
            "vmovdqu ymm1, [rdi + 1]",
            "vmovups [rdi + 1], ymm3",
            "vmovaps [rdi], ymm3",
            "vmovss xmm1, xmm2, xmm3",
            "vmovsd xmm1, xmm2, xmm3",
            "vmovss xmm1, [rdi]",
            "vmovsd [rdi], xmm1",
            "vmovlps xmm1, xmm2, [rdi]",
            "vmovhps xmm1, xmm2, [rdi]",
            "vmovhlps xmm1, xmm2, xmm3",
            "vmovlhps xmm1, xmm2, xmm3",
            "vmovddup ymm1, ymm2",
            "vmovddup ymm1, [rdi]",
            "vmovsldup ymm1, ymm2",
            "vmovd xmm1, eax",
            "vmovq rax, xmm1",
            "vmovq xmm1, xmm2",
            "vmovmskps eax, ymm1",
            "vmovmskpd eax, ymm1",
            "vpmovmskb eax, ymm1",
            "vpinsrb xmm1, xmm2, eax, 3",
            "vpinsrq xmm1, xmm2, [rdi], 1",
            "vpextrw eax, xmm1, 3",
            "vinsertps xmm1, xmm2, xmm3, 0x92",
            "vptest ymm1, ymm2\n sete al\n setc cl",
            "vtestps ymm1, ymm2",
            "vtestpd xmm1, xmm2",
            "vpcmpistri xmm1, xmm2, 0x0c",
            "vpcmpistrm xmm1, xmm2, 0x44",
            "vaesenc xmm1, xmm2, xmm3",
            "vpclmulqdq xmm1, xmm2, xmm3, 0x11",
            "vphminposuw xmm1, xmm2",
            "vpabsd ymm1, ymm2",
            "vlddqu ymm1, [rdi + 1]",
            "vmovntdq [rdi], ymm1",
            "vstmxcsr [rdi]",
        ],
    );
    for kind in [1, 2] {
        check(
            kind,
            false,
            &cross!(["xmm1, xmm2, xmm3", "ymm1, ymm2, ymm3", "ymm9, ymm1, [rdi + 3]"];
            "vaddps" "vaddpd" "vsubps" "vmulpd" "vdivps" "vminps" "vmaxpd" "vhaddps" "vhsubpd" "vaddsubps" "vaddsubpd"
            "vfmadd132ps" "vfmadd213pd" "vfmadd231ps" "vfmsub132pd" "vfmsub231ps" "vfnmadd213ps" "vfnmadd231pd" "vfnmsub132ps" "vfmaddsub213ps" "vfmsubadd231pd"),
        );
        check(
            kind,
            false,
            &cross!(["xmm1, xmm2, xmm3", "xmm9, xmm1, [rdi + 3]"];
            "vaddss" "vsubsd" "vmulss" "vdivsd" "vminss" "vmaxsd" "vsqrtss" "vsqrtsd" "vcvtss2sd" "vcvtsd2ss"
            "vfmadd132ss" "vfmadd213sd" "vfmadd231sd" "vfmsub213ss" "vfnmadd231ss" "vfnmsub132sd"),
        );
        check(
            kind,
            false,
            &cross!(["xmm1, xmm2, xmm3, 0", "ymm1, ymm2, ymm3, 8", "ymm1, ymm2, ymm3, 9", "ymm1, ymm2, ymm3, 10", "ymm1, ymm2, ymm3, 11", "ymm1, ymm2, ymm3, 12",
            "ymm1, ymm2, ymm3, 13", "ymm1, ymm2, ymm3, 14", "ymm1, ymm2, ymm3, 15", "ymm1, ymm2, ymm3, 0x17", "ymm1, ymm2, ymm3, 0x1d"]; "vcmpps" "vcmppd"),
        );
        check(
            kind,
            false,
            &cross!(["xmm1, xmm2, xmm3, 0", "xmm1, xmm2, xmm3, 8", "xmm1, xmm2, xmm3, 13", "xmm1, xmm2, xmm3, 12", "xmm1, xmm2, xmm3, 0x1e"]; "vcmpss" "vcmpsd"),
        );
        check(
            kind,
            false,
            &cross!(["ymm1, ymm2", "xmm1, [rdi + 3]"]; "vsqrtps" "vsqrtpd" "vcvtdq2ps" "vcvtps2dq" "vcvttps2dq"),
        );
        check(
            kind,
            false,
            &pieces![
                "vcvtps2pd ymm1, xmm2",
                "vcvtdq2pd ymm1, [rdi]",
                "vcvtpd2ps xmm1, ymm2",
                "vcvtpd2dq xmm1, ymm2",
                "vcvttpd2dq xmm1, ymmword ptr [rdi]",
                "vcvtpd2ps xmm1, xmm2",
                "vroundps ymm1, ymm2, 1",
                "vroundpd ymm1, ymm2, 4",
                "vroundss xmm1, xmm2, xmm3, 2",
                "vdpps ymm1, ymm2, ymm3, 0xf1",
                "vcvtps2ph xmm1, ymm2, 4",
                "vcvtps2ph [rdi], xmm2, 1",
                "vucomisd xmm1, xmm2",
                "vcvttsd2si rax, xmm1",
                "vcvtsi2sd xmm1, xmm2, rax"
            ],
        );
    }
}

/// What ADCX and ADOX leave of the other flags is seen by whoever keeps ZF.
#[test]
fn chains_of_carries() {
    if !std::is_x86_feature_detected!("adx") {
        return;
    }
    check(
        0,
        false,
        &pieces![
            "adcx ecx, eax\n bts edx, 3\n setz al\n setc bl\n xor r8d, r8d",
            "adox rcx, rax\n btr rdx, 7\n setz al\n setc bl\n xor r8d, r8d",
            "add rbx, rax\n adcx ecx, eax\n btc edx, eax\n setbe al\n xor r8d, r8d",
            "sub rcx, rcx\n adox rcx, rax\n bt rdx, rax\n setz al\n seta bl\n xor r8d, r8d",
        ],
    );
}

#[test]
fn misaligned_operands_fault() {
    let mut guest = Guest::new();
    let m = Rng(5).machine(0, false);
    for p in pieces![
        "paddb xmm1, [rdi + 1]",
        "movaps xmm1, [rdi + 8]",
        "movdqa [rdi + 4], xmm1",
        "movntps [rdi + 8], xmm1",
        "addps xmm1, [rdi + 4]",
        "pshufd xmm1, [rdi + 2], 0"
    ] {
        let l = guest.lift(&p).expect(p.0);
        let e = guest.run(&l, 0, &m).err().unwrap_or_default();
        let misaligned = format!("addr: {}", evm_backend::abi::MISALIGNED);
        assert!(e.contains(&misaligned), "{}: {e}", p.0);
    }
    for p in pieces![
        "movups xmm1, [rdi + 1]",
        "lddqu xmm1, [rdi + 1]",
        "pcmpistri xmm1, [rdi + 1], 0",
        "vpaddb xmm1, xmm2, [rdi + 1]",
        "addss xmm1, [rdi + 1]"
    ] {
        let l = guest.lift(&p).expect(p.0);
        assert_eq!(guest.run(&l, 0, &m).err(), None, "{}", p.0);
    }
}
