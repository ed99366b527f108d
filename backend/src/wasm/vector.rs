//! 128-bit vectors.

use super::Error;
use super::emit::{Ins, ins};
use super::lower::Lower;
use evm_ir::{Inst, Op, Sig, Type};
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

impl Lower<'_> {
    pub(super) fn vector(&mut self, i: &Inst) -> Result<(), Error> {
        if matches!(i.ty, Type::F32X4 | Type::F64X2) && (i.op.raises_flags(i.ty)) && i.op != Op::VCvtIF {
            return self.floats(i);
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
}
