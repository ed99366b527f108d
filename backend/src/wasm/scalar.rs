//! Integers and their conversions.

use super::Error;
use super::emit::{Ins, Sym, ins};
use super::intern::Intern;
use super::lower::{Lower, val_type};
use evm_ir::{Cond, Inst, Op, Type};

/// Whether an engine may trap on it, so that it stays where it is.
pub fn may_trap(op: Op) -> bool {
    matches!(op, Op::UDiv | Op::URem | Op::SDiv | Op::SRem)
}

/// How the operands of an integer operation have to be, in types narrower than `i32`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Narrow {
    /// Any; the result is dirty.
    Any,
    /// Any, the second is a count; the result is dirty.
    Left,
    /// Clean, the second is a count; so is the result.
    Right,
    /// Sign-extended, the second is a count; the result is dirty.
    RightS,
    /// Clean; so is the result.
    Clean,
    /// Sign-extended; the result is dirty.
    Signed,
}

/// Operations that are one instruction in 32 and 64 bits.
fn plain(op: Op) -> Option<(Ins, Ins, Narrow)> {
    Some(match op {
        Op::Add => (ins!(i32_add), ins!(i64_add), Narrow::Any),
        Op::Sub => (ins!(i32_sub), ins!(i64_sub), Narrow::Any),
        Op::Mul => (ins!(i32_mul), ins!(i64_mul), Narrow::Any),
        Op::And => (ins!(i32_and), ins!(i64_and), Narrow::Any),
        Op::Or => (ins!(i32_or), ins!(i64_or), Narrow::Any),
        Op::Xor => (ins!(i32_xor), ins!(i64_xor), Narrow::Any),
        Op::Shl => (ins!(i32_shl), ins!(i64_shl), Narrow::Left),
        Op::Shr => (ins!(i32_shr_u), ins!(i64_shr_u), Narrow::Right),
        Op::Sar => (ins!(i32_shr_s), ins!(i64_shr_s), Narrow::RightS),
        Op::UDiv => (ins!(i32_div_u), ins!(i64_div_u), Narrow::Clean),
        Op::URem => (ins!(i32_rem_u), ins!(i64_rem_u), Narrow::Clean),
        Op::SDiv => (ins!(i32_div_s), ins!(i64_div_s), Narrow::Signed),
        Op::SRem => (ins!(i32_rem_s), ins!(i64_rem_s), Narrow::Signed),
        _ => return None,
    })
}

/// Comparison in 32 and 64 bits, and whether it is signed.
fn comparison(c: Cond) -> (Ins, Ins, bool) {
    match c {
        Cond::Eq => (ins!(i32_eq), ins!(i64_eq), false),
        Cond::Ne => (ins!(i32_ne), ins!(i64_ne), false),
        Cond::Ult => (ins!(i32_lt_u), ins!(i64_lt_u), false),
        Cond::Ule => (ins!(i32_le_u), ins!(i64_le_u), false),
        Cond::Ugt => (ins!(i32_gt_u), ins!(i64_gt_u), false),
        Cond::Uge => (ins!(i32_ge_u), ins!(i64_ge_u), false),
        Cond::Slt => (ins!(i32_lt_s), ins!(i64_lt_s), true),
        Cond::Sle => (ins!(i32_le_s), ins!(i64_le_s), true),
        Cond::Sgt => (ins!(i32_gt_s), ins!(i64_gt_s), true),
        Cond::Sge => (ins!(i32_ge_s), ins!(i64_ge_s), true),
    }
}

impl Lower<'_> {
    pub(super) fn scalar(&mut self, i: &Inst) -> Result<bool, Error> {
        let wide = i.ty == Type::I64;
        let narrow = matches!(i.ty, Type::I8 | Type::I16);
        if let Some((f32_, f64_, rule)) = plain(i.op) {
            return self.integer(i, if wide { f64_ } else { f32_ }, rule);
        }
        match i.op {
            Op::UMulHi | Op::SMulHi => self.high_product(i),
            Op::Rotl | Op::Rotr => self.rotate(i),
            Op::Neg => {
                if wide {
                    self.b.ins().i64_const(0);
                } else {
                    self.b.ins().i32_const(0);
                }
                self.push(i.a)?;
                self.b.op(if wide { ins!(i64_sub) } else { ins!(i32_sub) });
                Ok(narrow)
            }
            Op::Not => {
                self.push(i.a)?;
                if wide {
                    self.b.ins().i64_const(-1).i64_xor();
                } else {
                    self.b.ins().i32_const(-1).i32_xor();
                }
                Ok(narrow)
            }
            Op::Clz | Op::Ctz | Op::Popcnt => self.count(i),
            Op::Bswap => self.swap_bytes(i),
            Op::Icmp => self.compare(i),
            Op::Select => {
                let dirty = self.push(i.b)? | self.push(i.c)?;
                self.push_clean(i.a)?;
                self.b.ins().select();
                Ok(dirty)
            }
            Op::Zext | Op::Sext | Op::Trunc | Op::Bitcast => self.convert(i),
            _ => self.floats(i).map(|()| false),
        }
    }

    fn integer(&mut self, i: &Inst, f: Ins, rule: Narrow) -> Result<bool, Error> {
        let narrow = matches!(i.ty, Type::I8 | Type::I16);
        if !narrow {
            self.push(i.a)?;
            self.push(i.b)?;
            self.b.op(f);
            return Ok(false);
        }
        match rule {
            Narrow::Any | Narrow::Left => {
                self.push(i.a)?;
            }
            Narrow::Right | Narrow::Clean => self.push_clean(i.a)?,
            Narrow::RightS | Narrow::Signed => self.push_signed(i.a)?,
        }
        match rule {
            Narrow::Any => {
                self.push(i.b)?;
            }
            Narrow::Clean => self.push_clean(i.b)?,
            Narrow::Signed => self.push_signed(i.b)?,
            Narrow::Left | Narrow::Right | Narrow::RightS => {
                self.push(i.b)?;
                self.b.ins().i32_const(i.ty.bits() as i32 - 1).i32_and();
            }
        }
        self.b.op(f);
        Ok(!matches!(rule, Narrow::Right | Narrow::Clean))
    }

    fn high_product(&mut self, i: &Inst) -> Result<bool, Error> {
        let signed = i.op == Op::SMulHi;
        match i.ty {
            Type::I64 => {
                self.push(i.a)?;
                self.push(i.b)?;
                self.b.call(Sym::Intern(if signed { Intern::MulHiS } else { Intern::MulHiU }));
            }
            Type::I32 => {
                for v in [i.a, i.b] {
                    self.push(v)?;
                    self.b.op(if signed { ins!(i64_extend_i32_s) } else { ins!(i64_extend_i32_u) });
                }
                self.b.ins().i64_mul().i64_const(32).i64_shr_u().i32_wrap_i64();
            }
            _ => {
                for v in [i.a, i.b] {
                    if signed {
                        self.push_signed(v)?;
                    } else {
                        self.push_clean(v)?;
                    }
                }
                self.b.ins().i32_mul().i32_const(i.ty.bits() as i32).i32_shr_u();
                return Ok(signed);
            }
        }
        Ok(false)
    }

    fn rotate(&mut self, i: &Inst) -> Result<bool, Error> {
        let left = i.op == Op::Rotl;
        match i.ty {
            Type::I64 | Type::I32 => {
                self.push(i.a)?;
                self.push(i.b)?;
                self.b.op(match (i.ty, left) {
                    (Type::I64, true) => ins!(i64_rotl),
                    (Type::I64, false) => ins!(i64_rotr),
                    (_, true) => ins!(i32_rotl),
                    (_, false) => ins!(i32_rotr),
                });
                Ok(false)
            }
            _ => {
                // The value twice or four times in a word, which is rotated.
                self.push_clean(i.a)?;
                let l = self.temp(val_type(i.ty));
                self.b.ins().local_tee(l).local_get(l).i32_const(i.ty.bits() as i32).i32_shl().i32_or();
                if i.ty == Type::I8 {
                    self.b.ins().local_tee(l).local_get(l).i32_const(16).i32_shl().i32_or();
                }
                self.free(l);
                self.push(i.b)?;
                self.b.op(if left { ins!(i32_rotl) } else { ins!(i32_rotr) });
                Ok(true)
            }
        }
    }

    fn count(&mut self, i: &Inst) -> Result<bool, Error> {
        if i.ty == Type::I64 {
            self.push(i.a)?;
            self.b.op(match i.op {
                Op::Clz => ins!(i64_clz),
                Op::Ctz => ins!(i64_ctz),
                _ => ins!(i64_popcnt),
            });
            return Ok(false);
        }
        self.push_clean(i.a)?;
        let bits = i.ty.bits() as i32;
        match i.op {
            Op::Clz => {
                self.b.ins().i32_clz();
                if bits < 32 {
                    self.b.ins().i32_const(32 - bits).i32_sub();
                }
            }
            Op::Ctz => {
                if bits < 32 {
                    self.b.ins().i32_const(1 << bits).i32_or();
                }
                self.b.ins().i32_ctz();
            }
            _ => {
                self.b.ins().i32_popcnt();
            }
        }
        Ok(false)
    }

    fn swap_bytes(&mut self, i: &Inst) -> Result<bool, Error> {
        let l = self.temp(val_type(i.ty));
        match i.ty {
            Type::I64 => {
                self.push(i.a)?;
                for (mask, by) in [(0x00ff_00ff_00ff_00ff, 8), (0x0000_ffff_0000_ffff, 16)] {
                    self.b.ins().local_tee(l).i64_const(mask).i64_and().i64_const(by).i64_shl();
                    self.b.ins().local_get(l).i64_const(by).i64_shr_u().i64_const(mask).i64_and().i64_or();
                }
                self.b.ins().i64_const(32).i64_rotl();
            }
            Type::I32 => {
                self.push(i.a)?;
                self.b.ins().local_tee(l).i32_const(8).i32_rotl().i32_const(0x00ff_00ff).i32_and();
                self.b.ins().local_get(l).i32_const(8).i32_rotr().i32_const(0xff00_ff00u32 as i32).i32_and().i32_or();
            }
            _ => {
                self.push_clean(i.a)?;
                self.b.ins().local_tee(l).i32_const(8).i32_shl().local_get(l).i32_const(8).i32_shr_u().i32_or();
            }
        }
        self.free(l);
        Ok(i.ty == Type::I16)
    }

    fn compare(&mut self, i: &Inst) -> Result<bool, Error> {
        let c = *Cond::ALL.get(i.imm as usize).ok_or(Error::Invalid("no such condition"))?;
        let (narrow, wide, signed) = comparison(c);
        let zero = self.constant(i.b) == Some(0);
        for v in [i.a, i.b] {
            if v == i.b && zero && v != i.a && matches!(c, Cond::Eq) {
                continue;
            }
            if signed {
                self.push_signed(v)?;
            } else {
                self.push_clean(v)?;
            }
        }
        if zero && i.a != i.b && c == Cond::Eq {
            self.lose(i.b);
            self.b.op(if i.ty == Type::I64 { ins!(i64_eqz) } else { ins!(i32_eqz) });
        } else {
            self.b.op(if i.ty == Type::I64 { wide } else { narrow });
        }
        Ok(false)
    }

    fn convert(&mut self, i: &Inst) -> Result<bool, Error> {
        let from = self.ty(i.a)?;
        match i.op {
            Op::Zext => {
                self.push_clean(i.a)?;
                if i.ty == Type::I64 {
                    self.b.ins().i64_extend_i32_u();
                }
                Ok(false)
            }
            Op::Sext => {
                self.push_signed(i.a)?;
                if i.ty == Type::I64 {
                    self.b.ins().i64_extend_i32_s();
                }
                Ok(i.ty == Type::I16)
            }
            Op::Trunc => {
                self.push(i.a)?;
                if from == Type::I64 {
                    self.b.ins().i32_wrap_i64();
                }
                Ok(i.ty != Type::I32)
            }
            _ => {
                self.push(i.a)?;
                self.b.op(match i.ty {
                    Type::I32 => ins!(i32_reinterpret_f32),
                    Type::I64 => ins!(i64_reinterpret_f64),
                    Type::F32 => ins!(f32_reinterpret_i32),
                    _ => ins!(f64_reinterpret_i64),
                });
                Ok(false)
            }
        }
    }
}
