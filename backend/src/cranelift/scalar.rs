//! Integers, conversions and scalar floating point.

use super::Error;
use super::lower::{Lower, V, cl_type};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self as cl, InstBuilder, MemFlagsData, types};
use evm_ir::{Cond, FCond, Inst, Op, Type};

pub(super) fn int_cc(imm: i64) -> Result<IntCC, Error> {
    let c = Cond::ALL.get(imm as usize).ok_or(Error::Invalid("no such condition"))?;
    Ok(match c {
        Cond::Eq => IntCC::Equal,
        Cond::Ne => IntCC::NotEqual,
        Cond::Ult => IntCC::UnsignedLessThan,
        Cond::Ule => IntCC::UnsignedLessThanOrEqual,
        Cond::Ugt => IntCC::UnsignedGreaterThan,
        Cond::Uge => IntCC::UnsignedGreaterThanOrEqual,
        Cond::Slt => IntCC::SignedLessThan,
        Cond::Sle => IntCC::SignedLessThanOrEqual,
        Cond::Sgt => IntCC::SignedGreaterThan,
        Cond::Sge => IntCC::SignedGreaterThanOrEqual,
    })
}

pub(super) fn float_cc(imm: i64) -> Result<FloatCC, Error> {
    let c = FCond::ALL.get(imm as usize).ok_or(Error::Invalid("no such condition"))?;
    Ok(match c {
        FCond::Eq => FloatCC::Equal,
        FCond::Lt => FloatCC::LessThan,
        FCond::Le => FloatCC::LessThanOrEqual,
        FCond::Uno => FloatCC::Unordered,
        FCond::Ne => FloatCC::NotEqual,
        FCond::Nlt => FloatCC::UnorderedOrGreaterThanOrEqual,
        FCond::Nle => FloatCC::UnorderedOrGreaterThan,
        FCond::Ord => FloatCC::Ordered,
    })
}

impl Lower<'_, '_> {
    pub(super) fn scalar(&mut self, i: &Inst) -> Result<V, Error> {
        let ty = cl_type(i.ty);
        let a = self.val(i.a)?;
        // Operands of two-operand instructions; `a` again where there is no second.
        let b = if i.b.is_some() { self.val(i.b)? } else { a };
        match i.op {
            Op::Add | Op::Sub => return Ok(self.sum(i, a, b)),
            Op::And if i.ty == Type::I64 => {
                // Zero extensions need no constant.
                let from = match self.constant(i.b) {
                    Some(0xff) => Some(types::I8),
                    Some(0xffff) => Some(types::I16),
                    Some(0xffff_ffff) => Some(types::I32),
                    _ => None,
                };
                if let Some(from) = from {
                    let low = self.b.ins().ireduce(from, a);
                    return Ok(self.b.ins().uextend(ty, low));
                }
            }
            Op::Select => {
                let c = self.val(i.c)?;
                let (x, y) =
                    if i.ty == Type::V128 { (self.cast(b, types::I8X16), self.cast(c, types::I8X16)) } else { (b, c) };
                return Ok(self.b.ins().select(a, x, y));
            }
            Op::Zext | Op::Sext if self.extended.contains_key(&i.a) => return Ok(a),
            Op::FAdd | Op::FMul => {
                let a = self.keep_order(a, ty);
                return Ok(if i.op == Op::FAdd { self.b.ins().fadd(a, b) } else { self.b.ins().fmul(a, b) });
            }
            Op::FComi => return self.signaling(i, a, b),
            Op::CvtFI => return self.float_to_int(i, a),
            Op::Mul | Op::UMulHi | Op::SMulHi if i.ty == Type::I64 => {
                if let Some(v) = self.product(i, a, b) {
                    return Ok(v);
                }
            }
            Op::UDiv | Op::URem | Op::SDiv | Op::SRem => {
                if let Some(v) = self.quotient(i, a, b) {
                    return Ok(v);
                }
            }
            _ => {}
        }
        let n = self.b.ins();
        Ok(match i.op {
            Op::Mul => n.imul(a, b),
            Op::UMulHi => n.umulhi(a, b),
            Op::SMulHi => n.smulhi(a, b),
            Op::UDiv => n.udiv(a, b),
            Op::URem => n.urem(a, b),
            Op::SDiv => n.sdiv(a, b),
            Op::SRem => n.srem(a, b),
            Op::And => n.band(a, b),
            Op::Or => n.bor(a, b),
            Op::Xor => n.bxor(a, b),
            Op::Shl => n.ishl(a, b),
            Op::Shr => n.ushr(a, b),
            Op::Sar => n.sshr(a, b),
            Op::Rotl => n.rotl(a, b),
            Op::Rotr => n.rotr(a, b),
            Op::Neg => n.ineg(a),
            Op::Not => n.bnot(a),
            Op::Clz => n.clz(a),
            Op::Ctz => n.ctz(a),
            Op::Popcnt => n.popcnt(a),
            Op::Bswap => n.bswap(a),
            Op::Icmp => n.icmp(int_cc(i.imm)?, a, b),
            Op::Zext => n.uextend(ty, a),
            Op::Sext => n.sextend(ty, a),
            Op::Trunc => n.ireduce(ty, a),
            Op::Bitcast => n.bitcast(ty, MemFlagsData::new(), a),
            Op::FSub => n.fsub(a, b),
            Op::FDiv => n.fdiv(a, b),
            Op::FSqrt => n.sqrt(a),
            Op::FCmp => n.fcmp(float_cc(i.imm)?, a, b),
            // These two shapes become MINSx and MAXSx.
            Op::FMinX => {
                let c = n.fcmp(FloatCC::LessThan, a, b);
                self.b.ins().select(c, a, b)
            }
            Op::FMaxX => {
                let c = n.fcmp(FloatCC::LessThan, b, a);
                self.b.ins().select(c, a, b)
            }
            Op::FPromote => n.fpromote(ty, a),
            Op::FDemote => n.fdemote(ty, a),
            Op::CvtIF => n.fcvt_from_sint(ty, a),
            op => return Err(Error::Unsupported(op.name(), i.ty.name())),
        })
    }

    /// Add and subtract; sums with constants are remembered by their root, so that addresses made of
    /// them are checked once and computed by the addressing mode.
    fn sum(&mut self, i: &Inst, a: V, b: V) -> V {
        let sub = i.op == Op::Sub;
        let v = if sub { self.b.ins().isub(a, b) } else { self.b.ins().iadd(a, b) };
        if i.ty != Type::I64 {
            return v;
        }
        let (base, k) = match (self.constant(i.a), self.constant(i.b)) {
            (None, Some(k)) => (a, if sub { k.wrapping_neg() } else { k }),
            (Some(k), None) if !sub => (b, k),
            _ => return v,
        };
        let (root, k0) = self.sums.get(&base).copied().unwrap_or((base, 0));
        let k = k.wrapping_add(k0);
        if i32::try_from(k).is_ok() {
            self.sums.insert(v, (root, k));
        }
        v
    }

    /// Both halves of one product come from one multiplication.
    fn product(&mut self, i: &Inst, a: V, b: V) -> Option<V> {
        let signed = self.paired.contains(&(Op::SMulHi, i.a, i.b));
        let high = if signed { Op::SMulHi } else { Op::UMulHi };
        if !self.paired.contains(&(high, i.a, i.b)) || !(i.op == Op::Mul || i.op == high) {
            return None;
        }
        let (lo, hi) = match self.pairs.get(&(high, a, b)) {
            Some(p) => *p,
            None => {
                let [x, y] = [a, b].map(|v| {
                    let n = self.b.ins();
                    if signed { n.sextend(types::I128, v) } else { n.uextend(types::I128, v) }
                });
                let p = self.b.ins().imul(x, y);
                let p = self.b.ins().isplit(p);
                self.pairs.insert((high, a, b), p);
                p
            }
        };
        Some(if i.op == Op::Mul { lo } else { hi })
    }

    /// A remainder that is wanted beside its quotient is computed from it: one division, not two.
    fn quotient(&mut self, i: &Inst, a: V, b: V) -> Option<V> {
        let signed = matches!(i.op, Op::SDiv | Op::SRem);
        let rem = if signed { Op::SRem } else { Op::URem };
        if !self.paired.contains(&(rem, i.a, i.b)) {
            return None;
        }
        let (q, r) = match self.pairs.get(&(rem, a, b)) {
            Some(p) => *p,
            None => {
                let q = if signed { self.b.ins().sdiv(a, b) } else { self.b.ins().udiv(a, b) };
                let p = self.b.ins().imul(q, b);
                let r = self.b.ins().isub(a, p);
                self.pairs.insert((rem, a, b), (q, r));
                (q, r)
            }
        };
        Some(if i.op == rem { r } else { q })
    }

    /// Cranelift merges a load that is the first operand of a commutative operation by swapping the operands, which
    /// chooses the other NaN when both are. Seen through a vector the load is not merged that way.
    pub(super) fn keep_order(&mut self, a: V, ty: cl::Type) -> V {
        let cl::ValueDef::Result(d, _) = self.b.func.dfg.value_def(a) else {
            return a;
        };
        if self.b.func.dfg.insts[d].opcode() != cl::Opcode::Load {
            return a;
        }
        let shape = if ty == types::F32 { types::F32X4 } else { types::F64X2 };
        let v = self.b.ins().scalar_to_vector(shape, a);
        self.b.ins().extractlane(v, 0)
    }

    /// COMISx: UCOMISx, and where that finds a NaN a vector comparison for the exception flag.
    fn signaling(&mut self, i: &Inst, a: V, b: V) -> Result<V, Error> {
        let r = self.b.ins().fcmp(float_cc(i.imm)?, a, b);
        let nan = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        let (raise, go) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(raise);
        self.b.ins().brif(nan, raise, &[], go, &[]);
        self.b.switch_to_block(raise);
        let shape = if i.ty == Type::F32 { types::F32X4 } else { types::F64X2 };
        let (a, b) = (self.b.ins().scalar_to_vector(shape, a), self.b.ins().scalar_to_vector(shape, b));
        // CMPPS with LT, a signaling predicate.
        let m = self.b.ins().fcmp(FloatCC::LessThan, a, b);
        self.sink(m);
        self.b.ins().jump(go, &[]);
        self.b.switch_to_block(go);
        Ok(r)
    }

    /// Keep an operation whose result nobody uses: it raises flags.
    pub(super) fn sink(&mut self, v: V) {
        let slot = *self.sink_slot.get_or_insert_with(|| {
            self.b.create_sized_stack_slot(cl::StackSlotData::new(cl::StackSlotKind::ExplicitSlot, 16, 4))
        });
        self.b.ins().stack_store(types::I64, v, slot, 0);
    }

    /// CVTTSx2SI: out of range and NaN give the minimum integer.
    fn float_to_int(&mut self, i: &Inst, a: V) -> Result<V, Error> {
        let from = self.b.func.dfg.value_type(a);
        if i.ty == Type::I32 {
            return Ok(self.truncate32(a));
        }
        // What follows compares, which for a denormal would be seen in the flags. That goes the way of 32 bits, which gives
        // the same 0 and the right flags, and 0 goes this way.
        let (ints, normal, zero) = if from == types::F32 {
            (types::I32, 1i64 << 24, self.b.ins().f32const(0.0))
        } else {
            (types::I64, 1i64 << 53, self.b.ins().f64const(0.0))
        };
        let bits = self.b.ins().bitcast(ints, MemFlagsData::new(), a);
        let bits = self.b.ins().ishl_imm_u(bits, 1);
        let bits = self.b.ins().iadd_imm_s(bits, -1);
        let tiny = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, bits, normal - 1);
        let denormal = self.b.ins().select(tiny, a, zero);
        let nothing = self.truncate32(denormal);
        let nothing = self.b.ins().uextend(types::I64, nothing);
        let a = self.b.ins().select(tiny, zero, a);
        let a = if from == types::F32 { self.b.ins().fpromote(types::F64, a) } else { a };
        let sat = self.b.ins().fcvt_to_sint_sat(types::I64, a);
        let size = self.b.ins().fabs(a);
        let bound = self.b.ins().f64const(9_223_372_036_854_775_808.0);
        let fits = self.b.ins().fcmp(FloatCC::LessThan, size, bound);
        let min = self.b.ins().iconst(types::I64, i64::MIN);
        let r = self.b.ins().select(fits, sat, min);
        Ok(self.b.ins().bor(r, nothing))
    }

    /// CVTTSx2SI to 32 bits: the packed conversions have the same rule.
    fn truncate32(&mut self, a: V) -> V {
        let v = if self.b.func.dfg.value_type(a) == types::F32 {
            let v = self.b.ins().scalar_to_vector(types::F32X4, a);
            self.b.ins().x86_cvtt2dq(types::I32X4, v)
        } else {
            let v = self.b.ins().scalar_to_vector(types::F64X2, a);
            let w = self.b.ins().x86_cvtt2dq(types::I64X2, v);
            let zero = self.zero(types::I64X2);
            self.b.ins().snarrow(w, zero)
        };
        self.b.ins().extractlane(v, 0)
    }
}
