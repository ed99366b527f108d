//! Helpers that are one instruction of the host, in place of a call: by Cranelift's instruction, or a stand-in for it
//! ([`patch`]).

use super::Error;
use super::lower::{Lower, V, cl_type};
use super::patch;
use cranelift_codegen::ir::InstBuilder;
use evm_ir::{Type, Value};

impl Lower<'_, '_> {
    /// The result of a helper, by its name, computed in place; `None`: it is to be called.
    pub(super) fn inline(&mut self, name: &str, args: &[Value]) -> Result<Option<V>, Error> {
        if name == "fma" { self.fma(args) } else { self.patched(name, args) }
    }

    /// A helper that is one instruction of the host, by a stand-in for it.
    fn patched(&mut self, name: &str, args: &[Value]) -> Result<Option<V>, Error> {
        let Some((form, unary)) = patch::form(name) else {
            return Ok(None);
        };
        let has = match name {
            "pclmulqdq" => std::arch::is_x86_feature_detected!("pclmulqdq"),
            name if name.starts_with("aes") => std::arch::is_x86_feature_detected!("aes"),
            _ => true,
        };
        let (imm, vecs) = if form.0 == 3 {
            match self.constant(args[0]) {
                Some(imm) => (Some(imm as u8), &args[1..]),
                None => return Ok(None),
            }
        } else {
            (None, args)
        };
        let Some(&last) = vecs.last().filter(|_| has) else {
            return Ok(None);
        };
        // The helpers of ROUNDPx take their source twice, too.
        let (a, b) = (self.val(if unary { last } else { vecs[0] })?, self.val(last)?);
        Ok(self.stand_in(patch::Form { form, unary, imm }, a, b))
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
        let below = self.below(v, lane);
        let whole = self.cast(below, cl_type(shape));
        let v = self.b.ins().insertlane(whole, r, 0);
        self.low.insert(v, (r, below));
        self.unread.insert(r);
        Ok(Some(v))
    }
    /// Lane 0 of a vector.
    fn low_lane(&mut self, v: Value, shape: Type) -> Result<V, Error> {
        let v = self.val(v)?;
        if let Some(x) = self.low_part(v, shape) {
            self.unread.remove(&x);
            return Ok(x);
        }
        let v = self.cast(v, cl_type(shape));
        Ok(self.b.ins().extractlane(v, 0))
    }
}
