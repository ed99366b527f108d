//! Packed operations: one table from mnemonics to operations on 128 bits.

use super::{Done, Form, Vector, select};
use evm_cpu::helper as h;
use evm_ir::{Cond, FCond, Op, Type, Type::*, Value};
use iced_x86::Mnemonic as M;

/// An operation on one 128-bit half.
#[derive(Clone, Copy)]
enum P {
    /// `op(a, b)`.
    Bin(Op, Type),
    /// `op(b)`: the only source.
    Un(Op, Type),
    /// Helper of `a, b`.
    H2(u16),
    /// Helper of the only source.
    H1(u16),
    /// Helper of the immediate, `a, b`.
    H2I(u16),
    /// Helper of the immediate and the only source.
    H1I(u16),
    /// ROUNDPS/PD: helper of the immediate and the source twice.
    Round(u16),
    /// Narrow: the op, source shape (in MMX both sources are in one vector first).
    Pack(Op, Type),
    /// Helper of `a, b` that works across neighbours (as `Pack` for MMX).
    Pairs(u16),
    /// Interleave lanes of so many bytes, high halves or low.
    Unpack(usize, bool),
    /// Constant shuffle of the only source, by the immediate.
    Shuf1(fn(u8) -> [u8; 16]),
    /// Constant shuffle of `a, b`, by the immediate; bits of the immediate that a half uses up.
    Shuf2(fn(u8) -> [u8; 16], u8),
    /// As `Shuf1`, each half with its own bits of the immediate.
    Shuf1Bits(fn(u8) -> [u8; 16], u8),
    /// Shift lanes by an immediate or by the low quadword of `b`.
    Shift(Op, Type),
    /// Shift the whole half by bytes; left or right.
    Bytes(bool),
    /// PALIGNR.
    Align,
    /// PSHUFB.
    ShufBytes,
    /// Float comparison with a predicate immediate.
    Compare(Type),
    /// Blend by the top bits of lanes of XMM0 (VEX: operand 3).
    BlendV(Type),
    /// Extend the low lanes: signedness, bytes from, bytes to.
    Widen(bool, u32, u32),
    /// SHA256RNDS2.
    Rounds2,
}

fn op_of(m: M) -> Option<P> {
    use M::*;
    use Op as O;
    use P::*;
    Some(match m {
        Paddb | Vpaddb => Bin(O::VAdd, I8X16),
        Paddw | Vpaddw => Bin(O::VAdd, I16X8),
        Paddd | Vpaddd => Bin(O::VAdd, I32X4),
        Paddq | Vpaddq => Bin(O::VAdd, I64X2),
        Psubb | Vpsubb => Bin(O::VSub, I8X16),
        Psubw | Vpsubw => Bin(O::VSub, I16X8),
        Psubd | Vpsubd => Bin(O::VSub, I32X4),
        Psubq | Vpsubq => Bin(O::VSub, I64X2),
        Paddsb | Vpaddsb => Bin(O::VAddSatS, I8X16),
        Paddsw | Vpaddsw => Bin(O::VAddSatS, I16X8),
        Paddusb | Vpaddusb => Bin(O::VAddSatU, I8X16),
        Paddusw | Vpaddusw => Bin(O::VAddSatU, I16X8),
        Psubsb | Vpsubsb => Bin(O::VSubSatS, I8X16),
        Psubsw | Vpsubsw => Bin(O::VSubSatS, I16X8),
        Psubusb | Vpsubusb => Bin(O::VSubSatU, I8X16),
        Psubusw | Vpsubusw => Bin(O::VSubSatU, I16X8),
        Pmullw | Vpmullw => Bin(O::VMul, I16X8),
        Pmulld | Vpmulld => Bin(O::VMul, I32X4),
        Pminub | Vpminub => Bin(O::VMinU, I8X16),
        Pminuw | Vpminuw => Bin(O::VMinU, I16X8),
        Pminud | Vpminud => Bin(O::VMinU, I32X4),
        Pminsb | Vpminsb => Bin(O::VMinS, I8X16),
        Pminsw | Vpminsw => Bin(O::VMinS, I16X8),
        Pminsd | Vpminsd => Bin(O::VMinS, I32X4),
        Pmaxub | Vpmaxub => Bin(O::VMaxU, I8X16),
        Pmaxuw | Vpmaxuw => Bin(O::VMaxU, I16X8),
        Pmaxud | Vpmaxud => Bin(O::VMaxU, I32X4),
        Pmaxsb | Vpmaxsb => Bin(O::VMaxS, I8X16),
        Pmaxsw | Vpmaxsw => Bin(O::VMaxS, I16X8),
        Pmaxsd | Vpmaxsd => Bin(O::VMaxS, I32X4),
        Pavgb | Vpavgb => Bin(O::VAvgU, I8X16),
        Pavgw | Vpavgw => Bin(O::VAvgU, I16X8),
        Pand | Vpand | Andps | Vandps | Andpd | Vandpd => Bin(O::VAnd, V128),
        Por | Vpor | Orps | Vorps | Orpd | Vorpd => Bin(O::VOr, V128),
        Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => Bin(O::VXor, V128),
        Pandn | Vpandn | Andnps | Vandnps | Andnpd | Vandnpd => Bin(O::VAndNot, V128),
        Pcmpeqb | Vpcmpeqb => Bin(O::VCmpEq, I8X16),
        Pcmpeqw | Vpcmpeqw => Bin(O::VCmpEq, I16X8),
        Pcmpeqd | Vpcmpeqd => Bin(O::VCmpEq, I32X4),
        Pcmpeqq | Vpcmpeqq => Bin(O::VCmpEq, I64X2),
        Pcmpgtb | Vpcmpgtb => Bin(O::VCmpGtS, I8X16),
        Pcmpgtw | Vpcmpgtw => Bin(O::VCmpGtS, I16X8),
        Pcmpgtd | Vpcmpgtd => Bin(O::VCmpGtS, I32X4),
        Pcmpgtq | Vpcmpgtq => Bin(O::VCmpGtS, I64X2),
        Addps | Vaddps => Bin(O::VAdd, F32X4),
        Addpd | Vaddpd => Bin(O::VAdd, F64X2),
        Subps | Vsubps => Bin(O::VSub, F32X4),
        Subpd | Vsubpd => Bin(O::VSub, F64X2),
        Mulps | Vmulps => Bin(O::VMul, F32X4),
        Mulpd | Vmulpd => Bin(O::VMul, F64X2),
        Divps | Vdivps => Bin(O::VDiv, F32X4),
        Divpd | Vdivpd => Bin(O::VDiv, F64X2),
        Minps | Vminps => Bin(O::VFMinX, F32X4),
        Minpd | Vminpd => Bin(O::VFMinX, F64X2),
        Maxps | Vmaxps => Bin(O::VFMaxX, F32X4),
        Maxpd | Vmaxpd => Bin(O::VFMaxX, F64X2),
        Sqrtps | Vsqrtps => Un(O::VSqrt, F32X4),
        Sqrtpd | Vsqrtpd => Un(O::VSqrt, F64X2),
        Pabsb | Vpabsb => Un(O::VAbs, I8X16),
        Pabsw | Vpabsw => Un(O::VAbs, I16X8),
        Pabsd | Vpabsd => Un(O::VAbs, I32X4),
        Cvtdq2ps | Vcvtdq2ps => Un(O::VCvtIF, F32X4),
        Packsswb | Vpacksswb => Pack(O::VPackS, I16X8),
        Packssdw | Vpackssdw => Pack(O::VPackS, I32X4),
        Packuswb | Vpackuswb => Pack(O::VPackU, I16X8),
        Packusdw | Vpackusdw => Pack(O::VPackU, I32X4),
        Pshufb | Vpshufb => P::ShufBytes,
        Pmulhw | Vpmulhw => H2(h::PMULHW),
        Pmulhuw | Vpmulhuw => H2(h::PMULHUW),
        Pmulhrsw | Vpmulhrsw => H2(h::PMULHRSW),
        Pmaddwd | Vpmaddwd => H2(h::PMADDWD),
        Pmaddubsw | Vpmaddubsw => H2(h::PMADDUBSW),
        Pmuludq | Vpmuludq => H2(h::PMULUDQ),
        Pmuldq | Vpmuldq => H2(h::PMULDQ),
        Psadbw | Vpsadbw => H2(h::PSADBW),
        Psignb | Vpsignb => H2(h::PSIGNB),
        Psignw | Vpsignw => H2(h::PSIGNW),
        Psignd | Vpsignd => H2(h::PSIGND),
        Phaddw | Vphaddw => Pairs(h::PHADDW),
        Phaddd | Vphaddd => Pairs(h::PHADDD),
        Phaddsw | Vphaddsw => Pairs(h::PHADDSW),
        Phsubw | Vphsubw => Pairs(h::PHSUBW),
        Phsubd | Vphsubd => Pairs(h::PHSUBD),
        Phsubsw | Vphsubsw => Pairs(h::PHSUBSW),
        Haddps | Vhaddps => H2(h::HADDPS),
        Haddpd | Vhaddpd => H2(h::HADDPD),
        Hsubps | Vhsubps => H2(h::HSUBPS),
        Hsubpd | Vhsubpd => H2(h::HSUBPD),
        Addsubps | Vaddsubps => H2(h::ADDSUBPS),
        Addsubpd | Vaddsubpd => H2(h::ADDSUBPD),
        Vpsllvd => H2(h::PSLLVD),
        Vpsllvq => H2(h::PSLLVQ),
        Vpsrlvd => H2(h::PSRLVD),
        Vpsrlvq => H2(h::PSRLVQ),
        Vpsravd => H2(h::PSRAVD),
        Aesenc | Vaesenc => H2(h::AESENC),
        Aesenclast | Vaesenclast => H2(h::AESENCLAST),
        Aesdec | Vaesdec => H2(h::AESDEC),
        Aesdeclast | Vaesdeclast => H2(h::AESDECLAST),
        Aesimc | Vaesimc => H1(h::AESIMC),
        Aeskeygenassist | Vaeskeygenassist => H1I(h::AESKEYGENASSIST),
        Pclmulqdq | Vpclmulqdq => H2I(h::PCLMULQDQ),
        Sha1nexte => H2(h::SHA1NEXTE),
        Sha1msg1 => H2(h::SHA1MSG1),
        Sha1msg2 => H2(h::SHA1MSG2),
        Sha256msg1 => H2(h::SHA256MSG1),
        Sha256msg2 => H2(h::SHA256MSG2),
        Sha1rnds4 => H2I(h::SHA1RNDS4),
        Sha256rnds2 => Rounds2,
        Phminposuw | Vphminposuw => H1(h::PHMINPOSUW),
        Mpsadbw | Vmpsadbw => H2I(h::MPSADBW),
        Dpps | Vdpps => H2I(h::DPPS),
        Dppd | Vdppd => H2I(h::DPPD),
        Rcpps | Vrcpps => H1(h::RCPPS),
        Rsqrtps | Vrsqrtps => H1(h::RSQRTPS),
        Roundps | Vroundps => Round(h::ROUNDPS),
        Roundpd | Vroundpd => Round(h::ROUNDPD),
        Cvtps2dq | Vcvtps2dq => H1(h::CVTPS2DQ),
        Cvttps2dq | Vcvttps2dq => H1(h::CVTTPS2DQ),
        Punpcklbw | Vpunpcklbw => Unpack(1, false),
        Punpcklwd | Vpunpcklwd => Unpack(2, false),
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => Unpack(4, false),
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => Unpack(8, false),
        Punpckhbw | Vpunpckhbw => Unpack(1, true),
        Punpckhwd | Vpunpckhwd => Unpack(2, true),
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => Unpack(4, true),
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => Unpack(8, true),
        Pshufd | Vpshufd => Shuf1(select::pshufd),
        Pshuflw | Vpshuflw | Pshufw => Shuf1(select::pshuflw),
        Pshufhw | Vpshufhw => Shuf1(select::pshufhw),
        Movsldup | Vmovsldup => Shuf1(|_| select::lanes(4, |k| k & 2)),
        Movshdup | Vmovshdup => Shuf1(|_| select::lanes(4, |k| k | 1)),
        Shufps | Vshufps => Shuf2(select::shufps, 0),
        Shufpd | Vshufpd => Shuf2(select::shufpd, 2),
        Blendps | Vblendps | Vpblendd => Shuf2(|imm| select::blend(4, imm), 4),
        Blendpd | Vblendpd => Shuf2(|imm| select::blend(8, imm), 2),
        Pblendw | Vpblendw => Shuf2(|imm| select::blend(2, imm), 0),
        Palignr | Vpalignr => Align,
        Psllw | Vpsllw => Shift(O::VShl, I16X8),
        Pslld | Vpslld => Shift(O::VShl, I32X4),
        Psllq | Vpsllq => Shift(O::VShl, I64X2),
        Psrlw | Vpsrlw => Shift(O::VShr, I16X8),
        Psrld | Vpsrld => Shift(O::VShr, I32X4),
        Psrlq | Vpsrlq => Shift(O::VShr, I64X2),
        Psraw | Vpsraw => Shift(O::VSar, I16X8),
        Psrad | Vpsrad => Shift(O::VSar, I32X4),
        Pslldq | Vpslldq => Bytes(true),
        Psrldq | Vpsrldq => Bytes(false),
        Cmpps | Vcmpps => Compare(F32X4),
        Cmppd | Vcmppd => Compare(F64X2),
        Pblendvb | Vpblendvb => BlendV(I8X16),
        Blendvps | Vblendvps => BlendV(I32X4),
        Blendvpd | Vblendvpd => BlendV(I64X2),
        Pmovsxbw | Vpmovsxbw => Widen(true, 1, 2),
        Pmovsxbd | Vpmovsxbd => Widen(true, 1, 4),
        Pmovsxbq | Vpmovsxbq => Widen(true, 1, 8),
        Pmovsxwd | Vpmovsxwd => Widen(true, 2, 4),
        Pmovsxwq | Vpmovsxwq => Widen(true, 2, 8),
        Pmovsxdq | Vpmovsxdq => Widen(true, 4, 8),
        Pmovzxbw | Vpmovzxbw => Widen(false, 1, 2),
        Pmovzxbd | Vpmovzxbd => Widen(false, 1, 4),
        Pmovzxbq | Vpmovzxbq => Widen(false, 1, 8),
        Pmovzxwd | Vpmovzxwd => Widen(false, 2, 4),
        Pmovzxwq | Vpmovzxwq => Widen(false, 2, 8),
        Pmovzxdq | Vpmovzxdq => Widen(false, 4, 8),
        _ => return None,
    })
}

/// Translate a packed instruction.
pub(super) fn lift(v: &mut Vector) -> Done {
    if matches!(v.i.mnemonic(), M::Vpermilps | M::Vpermilpd) {
        return permil(v);
    }
    let Some(p) = op_of(v.i.mnemonic()) else {
        return Ok(false);
    };
    v.aligned_if_legacy();
    let halves: Vec<Value> = (0..v.halves()).map(|half| eval(v, p, half)).collect();
    v.set(&halves);
    Ok(true)
}

fn eval(v: &mut Vector, p: P, half: usize) -> Value {
    let first = v.first();
    match p {
        P::Bin(op, ty) => {
            if op == Op::VXor && same_register(v) {
                return v.zero();
            }
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            v.cx.b.bin(op, ty, a, b)
        }
        P::Un(op, ty) => {
            let b = v.src(1, half);
            v.cx.b.un(op, ty, b)
        }
        P::H2(id) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            v.cx.call(id, &[a, b])
        }
        P::H1(id) => {
            let b = v.src(1, half);
            v.cx.call(id, &[b])
        }
        P::H2I(id) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            // VMPSADBW has three bits for each half.
            let shift = if id == h::MPSADBW { 3 * half } else { 0 };
            let imm = v.iconst(u64::from(v.imm() >> shift));
            v.cx.call(id, &[imm, a, b])
        }
        P::H1I(id) => {
            let b = v.src(1, half);
            let imm = v.iconst(u64::from(v.imm()));
            v.cx.call(id, &[imm, b])
        }
        P::Round(id) => {
            let b = v.src(1, half);
            let imm = v.iconst(u64::from(v.imm()));
            v.cx.call(id, &[imm, b, b])
        }
        P::Pack(op, ty) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            let (a, b) = join(v, a, b);
            v.cx.b.bin(op, ty, a, b)
        }
        P::Pairs(id) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            let (a, b) = join(v, a, b);
            v.cx.call(id, &[a, b])
        }
        P::Unpack(bytes, high) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            let sel = if v.form == Form::Mmx {
                // What PUNPCKH gives is the high half of the wide PUNPCKL.
                let s = select::unpack(bytes, false);
                if high { std::array::from_fn(|k| s[(k + 8) & 15]) } else { s }
            } else {
                select::unpack(bytes, high)
            };
            v.cx.b.shuffle(a, b, sel)
        }
        P::Shuf1(f) => {
            let b = v.src(1, half);
            v.cx.b.shuffle(b, b, f(v.imm_or_zero()))
        }
        P::Shuf1Bits(f, bits) => {
            let b = v.src(1, half);
            v.cx.b.shuffle(b, b, f(v.imm() >> (bits as usize * half)))
        }
        P::Shuf2(f, bits) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            v.cx.b.shuffle(a, b, f(v.imm() >> (bits as usize * half)))
        }
        P::Shift(op, ty) => shift(v, op, ty, half),
        P::Bytes(left) => {
            let a = v.src(first, half);
            let z = v.zero();
            let n = v.imm().min(16);
            if left { v.cx.b.shuffle(z, a, select::align(16 - n)) } else { v.cx.b.shuffle(a, z, select::align(n)) }
        }
        P::Align => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            let n = v.imm();
            let z = v.zero();
            let (lo, hi, n) = if v.form == Form::Mmx {
                let both = v.cx.b.shuffle(b, a, select::lanes(8, |k| 2 * k));
                (both, z, n)
            } else if n < 16 {
                (b, a, n)
            } else {
                (a, z, n - 16)
            };
            v.cx.b.shuffle(lo, hi, select::align(n))
        }
        P::ShufBytes => {
            let (a, mut b) = (v.src(first, half), v.src(first + 1, half));
            if v.form == Form::Mmx {
                let m = v.cx.b.vconst(0x8787_8787_8787_8787);
                b = v.cx.b.bin(Op::VAnd, V128, b, m);
            }
            v.cx.b.bin(Op::VPshufb, I8X16, a, b)
        }
        P::Compare(ty) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            let imm = v.imm();
            compare(v, ty, a, b, imm)
        }
        P::BlendV(ty) => {
            let (a, b) = (v.src(first, half), v.src(first + 1, half));
            let m = if v.vex() { v.src(3, half) } else { v.cx.xmm(0) };
            let m = sign_mask(v, ty, m);
            v.cx.b.push(Op::VSelect, V128, m, b, a, 0)
        }
        P::Widen(signed, from, to) => {
            // Sixteen bytes of result come from 16 * from / to bytes.
            let bytes = 16 * from / to;
            let mut x = v.part(1, bytes * half as u32, bytes);
            let op = if signed { Op::VWidenLowS } else { Op::VWidenLowU };
            let mut n = from;
            while n < to {
                let shape = match n {
                    1 => I8X16,
                    2 => I16X8,
                    _ => I32X4,
                };
                x = v.cx.b.un(op, shape, x);
                n *= 2;
            }
            x
        }
        P::Rounds2 => {
            let (a, b) = (v.src(0, half), v.src(1, half));
            let wk = v.cx.xmm(0);
            v.cx.call(h::SHA256RNDS2, &[a, b, wk])
        }
    }
}

impl Vector<'_> {
    fn imm_or_zero(&self) -> u8 {
        let last = self.i.op_count() - 1;
        if self.i.op_kind(last) == iced_x86::OpKind::Immediate8 { self.imm() } else { 0 }
    }
}

/// Whether both sources are one register.
fn same_register(v: &Vector) -> bool {
    let first = v.first();
    v.is_reg(first + 1) && v.i.op_register(first) == v.i.op_register(first + 1)
}

/// Both MMX sources in one vector, so that a wide narrowing or pairing operation has its result in the low half.
fn join(v: &mut Vector, a: Value, b: Value) -> (Value, Value) {
    if v.form != Form::Mmx {
        return (a, b);
    }
    let both = v.cx.b.shuffle(a, b, select::lanes(8, |k| 2 * k));
    (both, both)
}

/// Lanes of ones where the top bit of `m`'s lane is set.
pub(super) fn sign_mask(v: &mut Vector, ty: Type, m: Value) -> Value {
    let z = v.zero();
    v.cx.b.bin(Op::VCmpGtS, ty, z, m)
}

/// Shift by an immediate, or by the low quadword of a vector: at the lane width or more gives zero
/// (or all sign bits).
fn shift(v: &mut Vector, op: Op, ty: Type, half: usize) -> Value {
    let first = v.first();
    let bits = i64::from(ty.lane().bits());
    let last = v.i.op_count() - 1;
    if v.i.op_kind(last) == iced_x86::OpKind::Immediate8 {
        let a = v.src(first, half);
        let n = i64::from(v.imm());
        if n == 0 {
            return a;
        }
        if n >= bits && op != Op::VSar {
            return v.zero();
        }
        let n = v.cx.iconst(I32, n.min(bits - 1));
        return v.cx.b.bin(op, ty, a, n);
    }
    let a = v.src(first, half);
    // All of a memory operand is read, though only its low half counts.
    let count = v.src(first + 1, 0);
    let count = v.cx.b.extract(I64X2, count, 0);
    let fits = v.cx.icmpi(Cond::Ult, count, bits);
    if op == Op::VSar {
        let max = v.cx.iconst(I64, bits - 1);
        let n = v.cx.select(fits, count, max);
        let n = v.cx.trunc(I32, n);
        return v.cx.b.bin(op, ty, a, n);
    }
    let n = v.cx.trunc(I32, count);
    let n = v.cx.bini(Op::And, I32, n, bits - 1);
    let r = v.cx.b.bin(op, ty, a, n);
    let z = v.zero();
    v.cx.select(fits, r, z)
}

/// A float predicate in terms of the eight of the IR: condition, operands swapped, and what to combine it with.
enum Pred {
    Plain(FCond, bool),
    Or(FCond, FCond),
    And(FCond, FCond),
}

/// The predicates of VCMPPS that are made of the IR's.
fn predicate(imm: u8) -> Pred {
    match imm & 15 {
        n @ 0..=7 => Pred::Plain(FCond::ALL[usize::from(n)], false),
        8 => Pred::Or(FCond::Eq, FCond::Uno),
        9 => Pred::Plain(FCond::Nle, true),
        10 => Pred::Plain(FCond::Nlt, true),
        12 => Pred::And(FCond::Ne, FCond::Ord),
        13 => Pred::Plain(FCond::Le, true),
        _ => Pred::Plain(FCond::Lt, true),
    }
}

pub(super) fn compare(v: &mut Vector, ty: Type, a: Value, b: Value, imm: u8) -> Value {
    let imm = if v.vex() { imm & 31 } else { imm & 7 };
    // The IR's comparisons are signalling as the first eight are; the constants raise flags all the same.
    if imm > 15 || matches!(imm, 11 | 15) {
        let form = v.iconst(u64::from(imm) | u64::from(ty == F64X2) << 5);
        return v.cx.call(h::VCMP, &[form, a, b]);
    }
    let one = |v: &mut Vector, c: FCond, a, b| v.cx.b.push(Op::VFCmp, ty, a, b, Value::NONE, c as i64);
    match predicate(imm) {
        Pred::Plain(c, false) => one(v, c, a, b),
        Pred::Plain(c, true) => one(v, c, b, a),
        Pred::Or(c, d) => {
            let (x, y) = (one(v, c, a, b), one(v, d, a, b));
            v.cx.b.bin(Op::VOr, V128, x, y)
        }
        Pred::And(c, d) => {
            let (x, y) = (one(v, c, a, b), one(v, d, a, b));
            v.cx.b.bin(Op::VAnd, V128, x, y)
        }
    }
}

/// VPERMILPS/PD: by an immediate, or by a vector of selectors.
fn permil(v: &mut Vector) -> Done {
    let double = v.i.mnemonic() == M::Vpermilpd;
    let p = match (v.i.op_kind(2) == iced_x86::OpKind::Immediate8, double) {
        (true, false) => P::Shuf1(select::pshufd),
        (true, true) => P::Shuf1Bits(select::permilpd, 2),
        (false, false) => P::H2(h::PERMILPS),
        (false, true) => P::H2(h::PERMILPD),
    };
    let halves: Vec<Value> = (0..v.halves()).map(|half| eval(v, p, half)).collect();
    v.set(&halves);
    Ok(true)
}
