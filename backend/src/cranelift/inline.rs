//! Helpers that Cranelift has an instruction for, or a shape that becomes one.

use super::Error;
use super::lower::{Lower, V, cl_type};
use cranelift_codegen::ir::{ConstantData, InstBuilder, types};
use evm_ir::{Type, Value};

impl Lower<'_, '_> {
    /// The result of a helper, by its name, computed in place; `None`: it is to be called.
    pub(super) fn inline(&mut self, name: &str, args: &[Value]) -> Result<Option<V>, Error> {
        use Type::{I8X16, I16X8, I32X4};
        Ok(Some(match name {
            "fma" => return self.fma(args),
            "pmulhrsw" => {
                let (a, b) = self.two(args, I16X8)?;
                self.b.ins().x86_pmulhrsw(a, b)
            }
            // The helper's first operand has the unsigned bytes, Cranelift's the signed ones.
            "pmaddubsw" => {
                let (a, b) = self.two(args, I8X16)?;
                self.b.ins().x86_pmaddubsw(b, a)
            }
            "phaddw" => {
                let (a, b) = self.two(args, I16X8)?;
                self.b.ins().iadd_pairwise(a, b)
            }
            "phaddd" => {
                let (a, b) = self.two(args, I32X4)?;
                self.b.ins().iadd_pairwise(a, b)
            }
            "pmaddwd" => {
                let (a, b) = self.two(args, I16X8)?;
                let (al, bl) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                let (ah, bh) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
                let (lo, hi) = (self.b.ins().imul(al, bl), self.b.ins().imul(ah, bh));
                self.b.ins().iadd_pairwise(lo, hi)
            }
            "pmuludq" => {
                let (a, b) = (self.even(args[0])?, self.even(args[1])?);
                let (a, b) = (self.b.ins().uwiden_low(a), self.b.ins().uwiden_low(b));
                self.b.ins().imul(a, b)
            }
            "pmuldq" => {
                let (a, b) = (self.even(args[0])?, self.even(args[1])?);
                let (a, b) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
                self.b.ins().imul(a, b)
            }
            _ => return Ok(None),
        }))
    }

    fn two(&mut self, args: &[Value], shape: Type) -> Result<(V, V), Error> {
        Ok((self.vec(args[0], shape)?, self.vec(args[1], shape)?))
    }
    /// Lanes 0 and 2 of four, in the low half.
    fn even(&mut self, v: Value) -> Result<V, Error> {
        let v = self.vec(v, Type::I8X16)?;
        let sel: [u8; 16] = std::array::from_fn(|k| ((k & 4) * 2 + (k & 8) + k % 4) as u8 & 15);
        let imm = self.b.func.dfg.immediates.push(ConstantData::from(&sel[..]));
        let v = self.b.ins().shuffle(v, v, imm);
        Ok(self.cast(v, types::I32X4))
    }

    /// Helper `fma`: `form`, `x`, `y`, `z` give `x * y + z` with the signs that the form says; `y` goes before `x` among
    /// NaNs. Forms that add and subtract in turn are not here.
    fn fma(&mut self, args: &[Value]) -> Result<Option<V>, Error> {
        let Some(form) = self.constant(args[0]).filter(|f| self.has_fma && f >> 1 & 7 < 4) else {
            return Ok(None);
        };
        let scalar = form & 16 != 0;
        let (lane, shape) = if form & 1 != 0 { (Type::F64, Type::F64X2) } else { (Type::F32, Type::F32X4) };
        let operand = |me: &mut Self, v| if scalar { me.low_lane(v, shape) } else { me.vec(v, shape) };
        let (mut x, y, mut z) = (operand(self, args[1])?, operand(self, args[2])?, operand(self, args[3])?);
        // A `y` that is a load would be taken for the second factor. A vector has been cast, so it is none.
        let y = if scalar { self.keep_order(y, cl_type(lane)) } else { y };
        if form & 4 != 0 {
            x = self.b.ins().fneg(x);
        }
        if form & 2 != 0 {
            z = self.b.ins().fneg(z);
        }
        let r = self.b.ins().fma(x, y, z);
        if !scalar {
            return Ok(Some(r));
        }
        // The upper lanes are those of operand `x`.
        let v = self.val(args[1])?;
        let below = match self.low.get(&v).copied() {
            Some((old, below)) if self.b.func.dfg.value_type(old).bits() <= lane.bits() => below,
            _ => v,
        };
        let whole = self.cast(below, cl_type(shape));
        let v = self.b.ins().insertlane(whole, r, 0);
        self.low.insert(v, (r, below));
        Ok(Some(v))
    }
    /// Lane 0 of a vector.
    fn low_lane(&mut self, v: Value, shape: Type) -> Result<V, Error> {
        let v = self.val(v)?;
        if let Some((x, _)) = self.low.get(&v)
            && self.b.func.dfg.value_type(*x) == cl_type(shape.lane())
        {
            return Ok(*x);
        }
        let v = self.cast(v, cl_type(shape));
        Ok(self.b.ins().extractlane(v, 0))
    }
}
