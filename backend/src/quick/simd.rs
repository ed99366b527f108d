//! Floating-point and vector operations: the SSE instruction of the same meaning, or one or two around it.
//! Rules of NaN operands and status flags are the instruction's own, first operand first.

use super::lower::{Lower, fcond};
use super::place::SCRATCH;
use crate::asm::{Reg, Rm};
use crate::interp::vector;
use evm_ir::{Inst, Op, Type};

/// Mandatory prefix and opcode.
type Code = (u8, u32);

/// By lane width 8, 16, 32, 64 bits, all with prefix 66; 0 = none.
fn int_lanes(ty: Type, codes: [u32; 4]) -> Option<Code> {
    let n = match ty {
        Type::I8X16 => 0,
        Type::I16X8 => 1,
        Type::I32X4 => 2,
        Type::I64X2 => 3,
        _ => return None,
    };
    (codes[n] != 0).then_some((0x66, codes[n]))
}
/// The four forms of an SSE arithmetic instruction.
fn float(ty: Type, op: u32) -> Option<Code> {
    let prefix = match ty {
        Type::F32 => 0xf3,
        Type::F64 => 0xf2,
        Type::F32X4 => 0,
        Type::F64X2 => 0x66,
        _ => return None,
    };
    Some((prefix, op))
}

fn bin(op: Op, ty: Type) -> Option<Code> {
    let ints = |c| int_lanes(ty, c);
    match op {
        Op::FAdd => float(ty, 0x0f58),
        Op::FSub => float(ty, 0x0f5c),
        Op::FMul => float(ty, 0x0f59),
        Op::FDiv | Op::VDiv => float(ty, 0x0f5e),
        Op::FMinX | Op::VFMinX => float(ty, 0x0f5d),
        Op::FMaxX | Op::VFMaxX => float(ty, 0x0f5f),
        Op::VAdd => float(ty, 0x0f58).or_else(|| ints([0x0ffc, 0x0ffd, 0x0ffe, 0x0fd4])),
        Op::VSub => float(ty, 0x0f5c).or_else(|| ints([0x0ff8, 0x0ff9, 0x0ffa, 0x0ffb])),
        Op::VMul => float(ty, 0x0f59).or_else(|| ints([0, 0x0fd5, 0x0f3840, 0])),
        Op::VAddSatS => ints([0x0fec, 0x0fed, 0, 0]),
        Op::VAddSatU => ints([0x0fdc, 0x0fdd, 0, 0]),
        Op::VSubSatS => ints([0x0fe8, 0x0fe9, 0, 0]),
        Op::VSubSatU => ints([0x0fd8, 0x0fd9, 0, 0]),
        Op::VMinS => ints([0x0f3838, 0x0fea, 0x0f3839, 0]),
        Op::VMinU => ints([0x0fda, 0x0f383a, 0x0f383b, 0]),
        Op::VMaxS => ints([0x0f383c, 0x0fee, 0x0f383d, 0]),
        Op::VMaxU => ints([0x0fde, 0x0f383e, 0x0f383f, 0]),
        Op::VAvgU => ints([0x0fe0, 0x0fe3, 0, 0]),
        Op::VCmpEq => ints([0x0f74, 0x0f75, 0x0f76, 0x0f3829]),
        Op::VCmpGtS => ints([0x0f64, 0x0f65, 0x0f66, 0x0f3837]),
        Op::VPackS => ints([0, 0x0f63, 0x0f6b, 0]),
        Op::VPackU => ints([0, 0x0f67, 0x0f382b, 0]),
        Op::VPshufb => Some((0x66, 0x0f3800)),
        Op::VAnd => Some((0x66, 0x0fdb)),
        Op::VOr => Some((0x66, 0x0feb)),
        Op::VXor => Some((0x66, 0x0fef)),
        Op::VAndNot => Some((0x66, 0x0fdf)),
        _ => None,
    }
}

fn un(op: Op, ty: Type) -> Option<Code> {
    let ints = |c| int_lanes(ty, c);
    match op {
        Op::FSqrt | Op::VSqrt => float(ty, 0x0f51),
        Op::VAbs => ints([0x0f381c, 0x0f381d, 0x0f381e, 0]),
        Op::VWidenLowS => ints([0x0f3820, 0x0f3823, 0x0f3825, 0]),
        Op::VWidenLowU => ints([0x0f3830, 0x0f3833, 0x0f3835, 0]),
        Op::VCvtIF if ty == Type::F32X4 => Some((0, 0x0f5b)),
        _ => None,
    }
}

impl Lower<'_> {
    fn copy(&mut self, d: Reg, s: Reg) {
        if d != s {
            self.a.sse(0, 4, 0x0f28, d, Rm::Reg(s));
        }
    }

    /// False: no template.
    pub(super) fn simd_bin(&mut self, i: &Inst) -> bool {
        let Some((prefix, op)) = bin(i.op, i.ty) else { return false };
        let b = self.xmm_or_const(i.b);
        let d = self.dst_from(i.dst, i.a);
        self.mark_float();
        self.a.sse(prefix, 4, op, d, b);
        true
    }
    /// False: no template.
    pub(super) fn simd_un(&mut self, i: &Inst) -> bool {
        let Some((prefix, op)) = un(i.op, i.ty) else { return false };
        let a = self.xmm(i.a);
        let d = self.dst(i.dst);
        self.mark_float();
        self.a.sse(prefix, 4, op, d, Rm::Reg(a));
        true
    }
    /// Conversions between integers and floats. False: no template.
    pub(super) fn simd_conv(&mut self, i: &Inst, from: Type) -> bool {
        let p = |t: Type| if t == Type::F32 { 0xf3 } else { 0xf2 };
        match i.op {
            Op::FPromote | Op::FDemote => {
                let a = self.xmm(i.a);
                let d = self.dst(i.dst);
                self.mark_float();
                self.a.sse(p(from), 4, 0x0f5a, d, Rm::Reg(a));
            }
            Op::CvtIF if from.bytes() >= 4 => {
                let a = self.gpr(i.a);
                let d = self.dst(i.dst);
                self.mark_float();
                self.a.sse(p(i.ty), from.bytes(), 0x0f2a, d, Rm::Reg(a));
            }
            Op::CvtFI if i.ty.bytes() >= 4 => {
                let a = self.xmm(i.a);
                let d = self.dst(i.dst);
                self.mark_float();
                self.a.sse(p(from), i.ty.bytes(), 0x0f2c, d, Rm::Reg(a));
            }
            _ => return false,
        }
        true
    }
    pub(super) fn vfcmp(&mut self, i: &Inst) {
        let Some((prefix, _)) = float(i.ty, 0) else {
            self.failed = true;
            return;
        };
        let n = fcond(i).map_or(0, |c| c as u8);
        let b = self.xmm_or_const(i.b);
        let d = self.dst_from(i.dst, i.a);
        self.mark_float();
        self.a.sse_imm(prefix, 4, 0x0fc2, d, b, n);
    }
    pub(super) fn extract(&mut self, i: &Inst) {
        let lane = i.imm as u8;
        let a = self.xmm(i.a);
        match i.ty {
            Type::F32X4 | Type::F64X2 if lane == 0 => {
                self.dst_from(i.dst, i.a);
            }
            Type::F64X2 => {
                let d = self.dst(i.dst);
                self.copy(d, a);
                self.a.sse(0x66, 4, 0x0f15, d, Rm::Reg(d));
            }
            Type::F32X4 => {
                let d = self.dst(i.dst);
                self.copy(d, a);
                self.a.sse_imm(0, 4, 0x0fc6, d, Rm::Reg(d), lane * 0x55);
            }
            Type::I32X4 | Type::I64X2 if lane == 0 => {
                let d = self.dst(i.dst);
                self.a.sse(0x66, i.ty.lane().bytes(), 0x0f7e, a, Rm::Reg(d));
            }
            Type::I64X2 | Type::I32X4 => {
                let d = self.dst(i.dst);
                self.a.sse_imm(0x66, i.ty.lane().bytes(), 0x0f3a16, a, Rm::Reg(d), lane);
            }
            Type::I16X8 => {
                let d = self.dst(i.dst);
                self.a.sse_imm(0x66, 4, 0x0fc5, d, Rm::Reg(a), lane);
            }
            Type::I8X16 => {
                let d = self.dst(i.dst);
                self.a.sse_imm(0x66, 4, 0x0f3a14, a, Rm::Reg(d), lane);
            }
            t => self.host_extract(i, vector::extract(t), u32::from(lane)),
        }
    }
    pub(super) fn insert(&mut self, i: &Inst) {
        let lane = i.imm as u8;
        let b = self.reg(i.b);
        match i.ty {
            Type::F64X2 => {
                let d = self.dst_from(i.dst, i.a);
                if lane == 0 {
                    self.a.sse(0xf2, 4, 0x0f10, d, Rm::Reg(b));
                } else {
                    self.a.sse(0x66, 4, 0x0f14, d, Rm::Reg(b));
                }
            }
            Type::F32X4 => {
                let d = self.dst_from(i.dst, i.a);
                self.a.sse_imm(0x66, 4, 0x0f3a21, d, Rm::Reg(b), lane << 4);
            }
            Type::I64X2 | Type::I32X4 => {
                let d = self.dst_from(i.dst, i.a);
                self.a.sse_imm(0x66, i.ty.lane().bytes(), 0x0f3a22, d, Rm::Reg(b), lane);
            }
            Type::I16X8 => {
                let d = self.dst_from(i.dst, i.a);
                self.a.sse_imm(0x66, 4, 0x0fc4, d, Rm::Reg(b), lane);
            }
            Type::I8X16 => {
                let d = self.dst_from(i.dst, i.a);
                self.a.sse_imm(0x66, 4, 0x0f3a20, d, Rm::Reg(b), lane);
            }
            t => self.host_insert(i, vector::insert(t), u32::from(lane)),
        }
    }
    pub(super) fn splat(&mut self, i: &Inst) {
        let a = self.reg(i.a);
        match i.ty {
            Type::F32X4 => {
                let d = self.dst(i.dst);
                self.copy(d, a);
                self.a.sse_imm(0, 4, 0x0fc6, d, Rm::Reg(d), 0);
            }
            Type::F64X2 => {
                let d = self.dst(i.dst);
                self.copy(d, a);
                self.a.sse(0x66, 4, 0x0f14, d, Rm::Reg(d));
            }
            Type::I64X2 => {
                let d = self.dst(i.dst);
                self.a.sse(0x66, 8, 0x0f6e, d, Rm::Reg(a));
                self.a.sse(0x66, 4, 0x0f6c, d, Rm::Reg(d));
            }
            Type::I32X4 => {
                let d = self.dst(i.dst);
                self.a.sse(0x66, 4, 0x0f6e, d, Rm::Reg(a));
                self.a.sse_imm(0x66, 4, 0x0f70, d, Rm::Reg(d), 0);
            }
            t => self.host_splat(i, vector::splat(t)),
        }
    }
    pub(super) fn vmask(&mut self, i: &Inst) {
        let (prefix, op) = match i.ty {
            Type::I8X16 => (0x66, 0x0fd7),
            Type::I32X4 => (0, 0x0f50),
            Type::I64X2 => (0x66, 0x0f50),
            t => return self.host_extract(i, vector::mask(t), 0),
        };
        let a = self.xmm(i.a);
        let d = self.dst(i.dst);
        self.a.sse(prefix, 4, op, d, Rm::Reg(a));
    }
    /// False: no template.
    pub(super) fn vshift(&mut self, i: &Inst) -> bool {
        let code = match i.op {
            Op::VShl => int_lanes(i.ty, [0, 0x0ff1, 0x0ff2, 0x0ff3]),
            Op::VShr => int_lanes(i.ty, [0, 0x0fd1, 0x0fd2, 0x0fd3]),
            Op::VSar => int_lanes(i.ty, [0, 0x0fe1, 0x0fe2, 0]),
            _ => None,
        };
        let Some((prefix, op)) = code else { return false };
        if let Some(k) = self.imm_of(i.b) {
            // Groups 12 to 14: the lane width is in the opcode as above, the operation in the register field.
            let n = match i.op {
                Op::VShr => 2,
                Op::VSar => 4,
                _ => 6,
            };
            let d = self.dst_from(i.dst, i.a);
            self.a.sse_imm(prefix, 4, 0x0f70 | (op & 3), n, Rm::Reg(d), k as u8);
            return true;
        }
        let by = self.gpr(i.b);
        self.a.sse(0x66, 4, 0x0f6e, SCRATCH, Rm::Reg(by));
        let d = self.dst_from(i.dst, i.a);
        self.a.sse(prefix, 4, op, d, Rm::Reg(SCRATCH));
        true
    }
    pub(super) fn shuffle(&mut self, i: &Inst) {
        let sel = self.r.pool[i.imm as usize].to_le_bytes();
        // PSHUFB selectors of one source; 0x80 gives 0.
        let of = |lo: u8| u128::from_le_bytes(sel.map(|s| if s & 0x10 == lo { s & 0xf } else { 0x80 }));
        let (of_a, of_b) = (of(0), of(0x10));
        const NONE: u128 = u128::from_le_bytes([0x80; 16]);
        if of_b == NONE || i.a == i.b {
            let k = if i.a == i.b { u128::from_le_bytes(sel.map(|s| s & 0xf)) } else { of_a };
            let k = self.a.constant(k);
            let d = self.dst_from(i.dst, i.a);
            self.a.sse(0x66, 4, 0x0f3800, d, k);
            return;
        }
        let (ka, kb) = (self.a.constant(of_a), self.a.constant(of_b));
        let b = self.xmm(i.b);
        self.copy(SCRATCH, b);
        self.a.sse(0x66, 4, 0x0f3800, SCRATCH, kb);
        let d = self.dst_from(i.dst, i.a);
        self.a.sse(0x66, 4, 0x0f3800, d, ka);
        self.a.sse(0x66, 4, 0x0feb, d, Rm::Reg(SCRATCH));
    }
    pub(super) fn vselect(&mut self, i: &Inst) {
        let (m, c) = (self.xmm(i.a), self.xmm(i.c));
        self.copy(SCRATCH, m);
        self.a.sse(0x66, 4, 0x0fdf, SCRATCH, Rm::Reg(c));
        let d = self.dst_from(i.dst, i.b);
        self.a.sse(0x66, 4, 0x0fdb, d, Rm::Reg(m));
        self.a.sse(0x66, 4, 0x0feb, d, Rm::Reg(SCRATCH));
    }
}
