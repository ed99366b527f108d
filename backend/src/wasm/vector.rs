//! 128-bit vectors.

use super::Error;
use super::emit::{Ins, Sym, ins};
use super::flush::Arith;
use super::intern::{INF_PD, INF_PS, Intern};
use super::lower::Lower;
use super::scalar::float_comparison;
use evm_ir::{FCond, Inst, Op, Sig, Type};
use wasm_encoder::ValType;

/// An instruction by integer shape.
macro_rules! by_shape {
    ($ty:expr; $($shape:ident $name:ident),*) => {
        match $ty {
            $( Type::$shape => Some(ins!($name)), )*
            _ => None,
        }
    };
}

/// Operations that are one instruction on their operands in order.
fn plain(op: Op, t: Type) -> Option<Ins> {
    match op {
        Op::VAdd => by_shape!(t; I8X16 i8x16_add, I16X8 i16x8_add, I32X4 i32x4_add, I64X2 i64x2_add),
        Op::VSub => by_shape!(t; I8X16 i8x16_sub, I16X8 i16x8_sub, I32X4 i32x4_sub, I64X2 i64x2_sub),
        Op::VMul => by_shape!(t; I16X8 i16x8_mul, I32X4 i32x4_mul),
        Op::VAddSatS => by_shape!(t; I8X16 i8x16_add_sat_s, I16X8 i16x8_add_sat_s),
        Op::VAddSatU => by_shape!(t; I8X16 i8x16_add_sat_u, I16X8 i16x8_add_sat_u),
        Op::VSubSatS => by_shape!(t; I8X16 i8x16_sub_sat_s, I16X8 i16x8_sub_sat_s),
        Op::VSubSatU => by_shape!(t; I8X16 i8x16_sub_sat_u, I16X8 i16x8_sub_sat_u),
        Op::VMinS => by_shape!(t; I8X16 i8x16_min_s, I16X8 i16x8_min_s, I32X4 i32x4_min_s),
        Op::VMinU => by_shape!(t; I8X16 i8x16_min_u, I16X8 i16x8_min_u, I32X4 i32x4_min_u),
        Op::VMaxS => by_shape!(t; I8X16 i8x16_max_s, I16X8 i16x8_max_s, I32X4 i32x4_max_s),
        Op::VMaxU => by_shape!(t; I8X16 i8x16_max_u, I16X8 i16x8_max_u, I32X4 i32x4_max_u),
        Op::VAvgU => by_shape!(t; I8X16 i8x16_avgr_u, I16X8 i16x8_avgr_u),
        Op::VAbs => by_shape!(t; I8X16 i8x16_abs, I16X8 i16x8_abs, I32X4 i32x4_abs),
        Op::VAnd => Some(ins!(v128_and)),
        Op::VOr => Some(ins!(v128_or)),
        Op::VXor => Some(ins!(v128_xor)),
        Op::VCmpEq => by_shape!(t; I8X16 i8x16_eq, I16X8 i16x8_eq, I32X4 i32x4_eq, I64X2 i64x2_eq),
        Op::VCmpGtS => by_shape!(t; I8X16 i8x16_gt_s, I16X8 i16x8_gt_s, I32X4 i32x4_gt_s, I64X2 i64x2_gt_s),
        Op::VShl => by_shape!(t; I8X16 i8x16_shl, I16X8 i16x8_shl, I32X4 i32x4_shl, I64X2 i64x2_shl),
        Op::VShr => by_shape!(t; I8X16 i8x16_shr_u, I16X8 i16x8_shr_u, I32X4 i32x4_shr_u, I64X2 i64x2_shr_u),
        Op::VSar => by_shape!(t; I8X16 i8x16_shr_s, I16X8 i16x8_shr_s, I32X4 i32x4_shr_s),
        Op::VMask => by_shape!(t; I8X16 i8x16_bitmask, I16X8 i16x8_bitmask, I32X4 i32x4_bitmask, I64X2 i64x2_bitmask),
        Op::VPackS => by_shape!(t; I16X8 i8x16_narrow_i16x8_s, I32X4 i16x8_narrow_i32x4_s),
        Op::VPackU => by_shape!(t; I16X8 i8x16_narrow_i16x8_u, I32X4 i16x8_narrow_i32x4_u),
        Op::VWidenLowS => by_shape!(t; I8X16 i16x8_extend_low_i8x16_s, I16X8 i32x4_extend_low_i16x8_s,
            I32X4 i64x2_extend_low_i32x4_s),
        Op::VWidenLowU => by_shape!(t; I8X16 i16x8_extend_low_i8x16_u, I16X8 i32x4_extend_low_i16x8_u,
            I32X4 i64x2_extend_low_i32x4_u),
        Op::VCvtIF => Some(ins!(f32x4_convert_i32x4_s)),
        Op::Splat => by_shape!(t; I8X16 i8x16_splat, I16X8 i16x8_splat, I32X4 i32x4_splat, I64X2 i64x2_splat,
            F32X4 f32x4_splat, F64X2 f64x2_splat),
        _ => None,
    }
}

/// Arithmetic on floats.
fn float(op: Op, t: Type) -> Option<(Arith, Ins)> {
    let single = t == Type::F32X4;
    if !single && t != Type::F64X2 {
        return None;
    }
    let (arith, narrow, wide) = match op {
        Op::VAdd => (Arith::Add, ins!(f32x4_add), ins!(f64x2_add)),
        Op::VSub => (Arith::Sub, ins!(f32x4_sub), ins!(f64x2_sub)),
        Op::VMul => (Arith::Mul, ins!(f32x4_mul), ins!(f64x2_mul)),
        Op::VDiv => (Arith::Div, ins!(f32x4_div), ins!(f64x2_div)),
        Op::VSqrt => (Arith::Sqrt, ins!(f32x4_sqrt), ins!(f64x2_sqrt)),
        _ => return None,
    };
    Some((arith, if single { narrow } else { wide }))
}

impl Lower<'_> {
    pub(super) fn vector(&mut self, i: &Inst) -> Result<(), Error> {
        if let Some(f) = float(i.op, i.ty) {
            return self.packed(i, f);
        }
        if let Some(f) = plain(i.op, i.ty) {
            self.push(i.a)?;
            if i.b.is_some() {
                // A count is an i32; lanes of a splat are cut off by it.
                self.push(i.b)?;
            }
            self.b.op(f);
            return Ok(());
        }
        match (i.op, i.op.sig()) {
            // What these give for equal and unordered operands is the first one, on x86 the second.
            (Op::VFMinX | Op::VFMaxX, _) => {
                let (a, b) = (self.temp(ValType::V128), self.temp(ValType::V128));
                self.push(i.a)?;
                self.b.ins().local_set(a);
                self.push(i.b)?;
                self.b.ins().local_set(b);
                self.count_packed(i.ty == Type::F32X4, &[a, b]);
                self.b.ins().local_get(b).local_get(a);
                self.b.op(match (i.op, i.ty) {
                    (Op::VFMinX, Type::F32X4) => ins!(f32x4_pmin),
                    (Op::VFMinX, _) => ins!(f64x2_pmin),
                    (_, Type::F32X4) => ins!(f32x4_pmax),
                    _ => ins!(f64x2_pmax),
                });
                self.free(a);
                self.free(b);
            }
            (Op::VAndNot, _) => {
                let a = self.temp(ValType::V128);
                self.push(i.a)?;
                self.b.ins().local_set(a);
                self.push(i.b)?;
                self.b.ins().local_get(a).v128_andnot();
                self.free(a);
            }
            (Op::VPshufb, _) => {
                self.push(i.a)?;
                self.push(i.b)?;
                // Selectors with the top bit set stay above 15, all others get below 16.
                let mask = i128::from_le_bytes([0x8f; 16]);
                self.b.ins().v128_const(mask).v128_and().i8x16_swizzle();
            }
            (_, Sig::Shuffle) => {
                let sel = self.r.pool.get(i.imm as usize).ok_or(Error::Invalid("no such vector constant"))?;
                let lanes = sel.to_le_bytes().map(|s| s & 31);
                self.push(i.a)?;
                self.push(i.b)?;
                self.b.ins().i8x16_shuffle(lanes);
            }
            (_, Sig::VSelect) => {
                self.push(i.b)?;
                self.push(i.c)?;
                self.push(i.a)?;
                self.b.ins().v128_bitselect();
            }
            (_, Sig::VFCmp) => self.packed_compare(i)?,
            (_, Sig::Extract) => {
                self.push(i.a)?;
                self.extract_lane(i)?;
            }
            (_, Sig::Insert) => {
                self.push(i.a)?;
                self.push(i.b)?;
                self.replace_lane(i)?;
            }
            (op, _) => return Err(Error::Unsupported(op.name(), i.ty.name())),
        }
        Ok(())
    }

    fn extract_lane(&mut self, i: &Inst) -> Result<(), Error> {
        let (lane, mut n) = (i.imm as u8, self.b.ins());
        match i.ty {
            Type::I8X16 => n.i8x16_extract_lane_u(lane),
            Type::I16X8 => n.i16x8_extract_lane_u(lane),
            Type::I32X4 => n.i32x4_extract_lane(lane),
            Type::I64X2 => n.i64x2_extract_lane(lane),
            Type::F32X4 => n.f32x4_extract_lane(lane),
            Type::F64X2 => n.f64x2_extract_lane(lane),
            t => return Err(Error::Unsupported("extract", t.name())),
        };
        Ok(())
    }
    fn replace_lane(&mut self, i: &Inst) -> Result<(), Error> {
        let (lane, mut n) = (i.imm as u8, self.b.ins());
        match i.ty {
            Type::I8X16 => n.i8x16_replace_lane(lane),
            Type::I16X8 => n.i16x8_replace_lane(lane),
            Type::I32X4 => n.i32x4_replace_lane(lane),
            Type::I64X2 => n.i64x2_replace_lane(lane),
            Type::F32X4 => n.f32x4_replace_lane(lane),
            Type::F64X2 => n.f64x2_replace_lane(lane),
            t => return Err(Error::Unsupported("insert", t.name())),
        };
        Ok(())
    }

    /// Arithmetic; if a result is not finite, what x86 makes of it.
    fn packed(&mut self, i: &Inst, (op, f): (Arith, Ins)) -> Result<(), Error> {
        let single = i.ty == Type::F32X4;
        let (a, r) = (self.temp(ValType::V128), self.temp(ValType::V128));
        self.push(i.a)?;
        let mut b = a;
        if i.b.is_some() {
            b = self.temp(ValType::V128);
            self.b.ins().local_set(a);
            self.push(i.b)?;
            self.b.ins().local_set(b);
        } else {
            self.b.ins().local_set(a);
        }
        self.if_flushing();
        self.b.ins().local_get(0).local_get(a).local_get(b);
        self.b.call(Sym::Intern(Intern::Flushed(op, single)));
        self.b.ins().local_set(r);
        self.b.else_();
        self.b.ins().local_get(a);
        if i.b.is_some() {
            self.b.ins().local_get(b);
        }
        self.b.op(f);
        self.b.ins().local_tee(r);
        if single {
            self.b.ins().f32x4_abs().v128_const(INF_PS).f32x4_lt().i32x4_all_true();
        } else {
            self.b.ins().f64x2_abs().v128_const(INF_PD).f64x2_lt().i64x2_all_true();
        }
        self.b.ins().i32_eqz();
        self.b.if_();
        self.b.ins().local_get(0).local_get(a).local_get(b).local_get(r).i32_const(i32::from(i.op == Op::VDiv));
        self.b.call(Sym::Intern(if single { Intern::OddPs } else { Intern::OddPd }));
        self.b.ins().local_set(r);
        self.b.end();
        self.b.end();
        self.b.ins().local_get(r);
        for l in [a, b, r] {
            self.free(l);
        }
        Ok(())
    }

    fn packed_compare(&mut self, i: &Inst) -> Result<(), Error> {
        let (c, not) = float_comparison(i.imm)?;
        let single = i.ty == Type::F32X4;
        match c {
            Some(c) => {
                let (a, b) = (self.temp(ValType::V128), self.temp(ValType::V128));
                for (v, l) in [(i.a, a), (i.b, b)] {
                    self.push(v)?;
                    self.b.ins().local_set(l);
                }
                self.count_packed(single, &[a, b]);
                self.b.ins().local_get(a).local_get(b);
                self.free(a);
                self.free(b);
                self.b.op(match (c, single) {
                    (FCond::Eq, true) => ins!(f32x4_eq),
                    (FCond::Eq, false) => ins!(f64x2_eq),
                    (FCond::Ne, true) => ins!(f32x4_ne),
                    (FCond::Ne, false) => ins!(f64x2_ne),
                    (FCond::Lt, true) => ins!(f32x4_lt),
                    (FCond::Lt, false) => ins!(f64x2_lt),
                    (_, true) => ins!(f32x4_le),
                    (_, false) => ins!(f64x2_le),
                });
            }
            None => {
                let l = self.temp(ValType::V128);
                let eq = if single { ins!(f32x4_eq) } else { ins!(f64x2_eq) };
                self.push(i.a)?;
                self.b.ins().local_tee(l).local_get(l);
                self.b.op(eq);
                self.push(i.b)?;
                self.b.ins().local_tee(l).local_get(l);
                self.b.op(eq);
                self.b.ins().v128_and();
                self.free(l);
            }
        }
        if not {
            self.b.ins().v128_not();
        }
        Ok(())
    }
}
