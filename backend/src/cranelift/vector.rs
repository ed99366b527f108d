//! 128-bit vectors.

use super::Error;
use super::lower::{Lower, V, cl_type};
use super::scalar::float_cc;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self as cl, ConstantData, InstBuilder, types};
use evm_ir::{Inst, Op, Sig, Type};

impl Lower<'_, '_> {
    /// A vector of zeros.
    pub(super) fn zero(&mut self, ty: cl::Type) -> V {
        let c = self.b.func.dfg.constants.insert(ConstantData::from(&[0u8; 16][..]));
        self.b.ins().vconst(ty, c)
    }

    /// Whether a vector is a constant of zeros.
    fn is_zero(&self, v: V) -> bool {
        let dfg = &self.b.func.dfg;
        let mut v = v;
        while let cl::ValueDef::Result(i, 0) = dfg.value_def(v) {
            match dfg.insts[i] {
                cl::InstructionData::UnaryConst { constant_handle, .. } => {
                    return dfg.constants.get(constant_handle).as_slice().iter().all(|b| *b == 0);
                }
                _ if dfg.insts[i].opcode() == cl::Opcode::Bitcast => v = dfg.inst_args(i)[0],
                _ => return false,
            }
        }
        false
    }

    fn pool(&self, imm: i64) -> Result<[u8; 16], Error> {
        let v = self.r.pool.get(imm as usize).ok_or(Error::Invalid("no such vector constant"))?;
        Ok(v.to_le_bytes())
    }

    pub(super) fn vector(&mut self, i: &Inst) -> Result<V, Error> {
        let shape = if i.ty == Type::V128 { Type::I8X16 } else { i.ty };
        let ty = cl_type(shape);
        let float = matches!(i.ty, Type::F32X4 | Type::F64X2);
        match i.op.sig() {
            Sig::VConst => {
                let bytes = self.pool(i.imm)?;
                let c = self.b.func.dfg.constants.insert(ConstantData::from(&bytes[..]));
                return Ok(self.b.ins().vconst(types::I8X16, c));
            }
            Sig::Splat => {
                let a = self.val(i.a)?;
                return Ok(self.b.ins().splat(ty, a));
            }
            Sig::Extract => return self.extract(i, shape),
            Sig::Insert => return self.insert(i, shape),
            Sig::Shuffle => {
                let (a, b) = (self.vec(i.a, Type::I8X16)?, self.vec(i.b, Type::I8X16)?);
                let mut sel = self.pool(i.imm)?;
                sel.iter_mut().for_each(|s| *s &= 31);
                // An operand of which nothing is taken may come from an operation, which stays for its flags.
                for (v, range) in [(i.a, 0..16), (i.b, 16..32)] {
                    let x = self.val(v)?;
                    if self.unread.remove(&x) && !sel.iter().any(|s| range.contains(s)) {
                        self.sink(x);
                    }
                }
                let imm = self.b.func.dfg.immediates.push(ConstantData::from(&sel[..]));
                return Ok(self.b.ins().shuffle(a, b, imm));
            }
            Sig::VShift => {
                let (a, n) = (self.vec(i.a, shape)?, self.val(i.b)?);
                return Ok(match i.op {
                    Op::VShl => self.b.ins().ishl(a, n),
                    Op::VShr => self.b.ins().ushr(a, n),
                    _ => self.b.ins().sshr(a, n),
                });
            }
            Sig::VFCmp => {
                let (a, b) = (self.vec(i.a, shape)?, self.vec(i.b, shape)?);
                return Ok(self.b.ins().fcmp(float_cc(i.imm)?, a, b));
            }
            Sig::VSelect => return self.bit_select(i),
            _ => {}
        }
        let a = self.vec(i.a, shape)?;
        let b = if i.b.is_some() { self.vec(i.b, shape)? } else { a };
        let n = self.b.ins();
        Ok(match i.op {
            Op::VAdd if float => n.fadd(a, b),
            Op::VSub if float => n.fsub(a, b),
            Op::VMul if float => n.fmul(a, b),
            Op::VAdd => n.iadd(a, b),
            Op::VSub => n.isub(a, b),
            Op::VMul => n.imul(a, b),
            Op::VDiv => n.fdiv(a, b),
            Op::VSqrt => n.sqrt(a),
            // These two shapes become MINPx and MAXPx.
            Op::VFMinX => {
                let m = n.fcmp(FloatCC::LessThan, a, b);
                let m = self.cast(m, ty);
                self.b.ins().bitselect(m, a, b)
            }
            Op::VFMaxX => {
                let m = n.fcmp(FloatCC::LessThan, b, a);
                let m = self.cast(m, ty);
                self.b.ins().bitselect(m, a, b)
            }
            Op::VAddSatS => n.sadd_sat(a, b),
            Op::VAddSatU => n.uadd_sat(a, b),
            Op::VSubSatS => n.ssub_sat(a, b),
            Op::VSubSatU => n.usub_sat(a, b),
            Op::VMinS => n.smin(a, b),
            Op::VMinU => n.umin(a, b),
            Op::VMaxS => n.smax(a, b),
            Op::VMaxU => n.umax(a, b),
            Op::VAvgU => n.avg_round(a, b),
            Op::VAbs => n.iabs(a),
            Op::VAnd => n.band(a, b),
            Op::VOr => n.bor(a, b),
            Op::VXor => n.bxor(a, b),
            Op::VAndNot => n.band_not(b, a),
            Op::VCmpEq => n.icmp(IntCC::Equal, a, b),
            Op::VCmpGtS => n.icmp(IntCC::SignedGreaterThan, a, b),
            Op::VPshufb => n.x86_pshufb(a, b),
            Op::VMask => n.vhigh_bits(types::I32, a),
            Op::VPackS => n.snarrow(a, b),
            Op::VPackU => n.unarrow(a, b),
            Op::VWidenLowS => n.swiden_low(a),
            Op::VWidenLowU => n.uwiden_low(a),
            Op::VCvtIF => {
                let x = self.cast(a, types::I32X4);
                self.b.ins().fcvt_from_sint(types::F32X4, x)
            }
            op => return Err(Error::Unsupported(op.name(), i.ty.name())),
        })
    }

    /// Bitwise select. A mask that a comparison made keeps its type, so that it can become a blend.
    fn bit_select(&mut self, i: &Inst) -> Result<V, Error> {
        let m = self.val(i.a)?;
        let ty = self.b.func.dfg.value_type(m);
        let (x, y) = (self.val(i.b)?, self.val(i.c)?);
        let (x, y) = (self.cast(x, ty), self.cast(y, ty));
        Ok(self.b.ins().bitselect(m, x, y))
    }

    fn extract(&mut self, i: &Inst, shape: Type) -> Result<V, Error> {
        let v = self.val(i.a)?;
        if i.imm == 0
            && let Some(x) = self.low_part(v, shape)
        {
            return Ok(x);
        }
        let v = self.cast(v, cl_type(shape));
        Ok(self.b.ins().extractlane(v, i.imm as u8))
    }

    /// Lane 0 of a vector, if it is known by itself.
    pub(super) fn low_part(&self, v: V, shape: Type) -> Option<V> {
        let (x, _) = *self.low.get(&v)?;
        let same = self.b.func.dfg.value_type(x) == cl_type(shape.lane());
        same.then_some(x)
    }
    /// What a vector's upper lanes are of, where a scalar is to replace its low one: an older scalar as wide or less need not
    /// be merged. If that came from an operation, that stays for its flags.
    pub(super) fn below(&mut self, v: V, lane: Type) -> V {
        let Some((old, below)) = self.low.get(&v).copied() else { return v };
        if self.b.func.dfg.value_type(old).bits() > lane.bits() {
            return v;
        }
        if self.unread.remove(&old) {
            self.sink(old);
        }
        below
    }

    fn insert(&mut self, i: &Inst, shape: Type) -> Result<V, Error> {
        let (mut v, x) = (self.val(i.a)?, self.val(i.b)?);
        if i.imm == 0 {
            v = self.below(v, shape.lane());
        }
        let below = v;
        let v = self.cast(v, cl_type(shape));
        let r = if i.imm == 0 && shape.lane().bytes() >= 4 && self.is_zero(v) {
            self.b.ins().scalar_to_vector(cl_type(shape), x)
        } else {
            self.b.ins().insertlane(v, x, i.imm as u8)
        };
        if i.imm == 0 && matches!(shape, Type::F32X4 | Type::F64X2) {
            self.low.insert(r, (x, below));
        }
        Ok(r)
    }
}
