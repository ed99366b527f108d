//! Floating point: see [`special`](super::special) for what is not simply WebAssembly's.

use super::Error;
use super::emit::{Body, Ins, Sym, ins};
use super::intern::Intern;
use super::lower::{Bail, Lower, val_type};
use super::normal::{self, Lanes};
use super::special::{self, Arith, four, twice};
use evm_ir::{FCond, Inst, Op, Slot, SlotSet, Type, Value};
use wasm_encoder::{Ieee32, Ieee64, ValType};

/// Instructions for a float, a double, four floats, two doubles.
type Four = [Ins; 4];
macro_rules! four {
    ($s:ident $d:ident $ps:ident $pd:ident) => {
        [ins!($s), ins!($d), ins!($ps), ins!($pd)]
    };
}

/// Index in a [`Four`].
fn index(t: Type) -> usize {
    match t {
        Type::F32 => 0,
        Type::F64 => 1,
        Type::F32X4 => 2,
        _ => 3,
    }
}

fn arithmetic(op: Op) -> Option<(Arith, Four)> {
    Some(match op {
        Op::FAdd | Op::VAdd => (Arith::Add, four!(f32_add f64_add f32x4_add f64x2_add)),
        Op::FSub | Op::VSub => (Arith::Sub, four!(f32_sub f64_sub f32x4_sub f64x2_sub)),
        Op::FMul | Op::VMul => (Arith::Mul, four!(f32_mul f64_mul f32x4_mul f64x2_mul)),
        Op::FDiv | Op::VDiv => (Arith::Div, four!(f32_div f64_div f32x4_div f64x2_div)),
        Op::FSqrt | Op::VSqrt => (Arith::Sqrt, four!(f32_sqrt f64_sqrt f32x4_sqrt f64x2_sqrt)),
        _ => return None,
    })
}

const EQ: Four = four!(f32_eq f64_eq f32x4_eq f64x2_eq);

/// A comparison and whether its result is inverted; `None`: whether the operands are ordered.
fn comparison(imm: i64) -> Result<(Option<Four>, bool), Error> {
    const NE: Four = four!(f32_ne f64_ne f32x4_ne f64x2_ne);
    const LT: Four = four!(f32_lt f64_lt f32x4_lt f64x2_lt);
    const LE: Four = four!(f32_le f64_le f32x4_le f64x2_le);
    Ok(match FCond::ALL.get(imm as usize).ok_or(Error::Invalid("no such condition"))? {
        FCond::Eq => (Some(EQ), false),
        FCond::Ne => (Some(NE), false),
        FCond::Lt => (Some(LT), false),
        FCond::Nlt => (Some(LT), true),
        FCond::Le => (Some(LE), false),
        FCond::Nle => (Some(LE), true),
        FCond::Ord => (None, false),
        FCond::Uno => (None, true),
    })
}

/// The format of lanes.
struct Format {
    /// Bits of the fraction.
    fraction: u32,
    /// The exponent of infinities and NaNs.
    top: u64,
    /// Sums with exponents from here on are the same without denormal operands.
    sums: u64,
}
const SINGLE: Format = Format { fraction: 23, top: 0xff, sums: 32 };
const DOUBLE: Format = Format { fraction: 52, top: 0x7ff, sums: 64 };

impl Format {
    /// Above all exponents.
    fn above(&self) -> u64 {
        self.top + 1
    }
}

fn format(t: Type) -> &'static Format {
    if is_single(t) { &SINGLE } else { &DOUBLE }
}
fn is_single(t: Type) -> bool {
    matches!(t, Type::F32 | Type::F32X4)
}
fn is_packed(t: Type) -> bool {
    matches!(t, Type::F32X4 | Type::F64X2)
}

/// Leave on the stack whether the float in a local has an exponent outside `from..to`: the bits without the sign are shifted to the top, moved so that the
/// range is at the lower end of signed numbers, and compared. For vectors a mask; `doubled` is a local for the bits without sign.
fn outside(b: &mut Body, t: Type, local: u32, doubled: u32, from: u64, to: u64) {
    let f = format(t);
    // The exponent is at the top of the doubled bits.
    let (low, size) = (from << (f.fraction + 1), (to - from) << (f.fraction + 1));
    b.ins().local_get(local);
    match t {
        Type::F32 => {
            b.ins().i32_reinterpret_f32().i32_const(1).i32_shl().local_tee(doubled);
            b.ins().i32_const(low as u32 as i32).i32_sub().i32_const(size as u32 as i32).i32_ge_u();
        }
        Type::F64 => {
            b.ins().i64_reinterpret_f64().i64_const(1).i64_shl().local_tee(doubled);
            b.ins().i64_const(low as i64).i64_sub().i64_const(size as i64).i64_ge_u();
        }
        Type::F32X4 => {
            let (move_by, last) = ((1u32 << 31).wrapping_sub(low as u32), (1u32 << 31).wrapping_add(size as u32 - 1));
            b.ins().i32_const(1).i32x4_shl().local_tee(doubled);
            b.ins().v128_const(four(move_by)).i32x4_add().v128_const(four(last)).i32x4_gt_s();
        }
        _ => {
            let (move_by, last) = ((1u64 << 63).wrapping_sub(low), (1u64 << 63).wrapping_add(size - 1));
            b.ins().i32_const(1).i64x2_shl().local_tee(doubled);
            b.ins().v128_const(twice(move_by)).i64x2_add().v128_const(twice(last)).i64x2_gt_s();
        }
    }
}

/// An operand of the instruction that is being written.
#[derive(Clone, Copy)]
struct Operand {
    local: u32,
    /// Nothing else wants the local.
    temporary: bool,
}

impl Lower<'_> {
    /// A local for the bits of a float.
    fn bits(&mut self, t: Type) -> u32 {
        self.temp(match t {
            Type::F32 => ValType::I32,
            Type::F64 => ValType::I64,
            _ => ValType::V128,
        })
    }

    /// Open a block that runs if the float in a local has an exponent outside the range, and is not a zero.
    fn if_outside(&mut self, t: Type, local: u32, from: u64, to: u64) {
        let doubled = self.bits(t);
        if is_packed(t) {
            let mask = self.temp(ValType::V128);
            outside(&mut self.b, t, local, doubled, from, to);
            self.b.ins().local_tee(mask).v128_any_true();
            self.b.if_();
            // (Zeros are seldom, so they may take a second look.)
            self.b.ins().local_get(mask).local_get(doubled).v128_const(0);
            self.b.op(if is_single(t) { ins!(i32x4_eq) } else { ins!(i64x2_eq) });
            self.b.ins().v128_andnot().v128_any_true();
            self.free(mask);
        } else {
            outside(&mut self.b, t, local, doubled, from, to);
            self.b.if_();
            self.b.ins().local_get(doubled);
            if t == Type::F64 {
                self.b.ins().i64_const(0).i64_ne();
            }
        }
        self.b.if_();
        self.free(doubled);
    }
    fn end_outside(&mut self) {
        self.b.end();
        self.b.end();
    }

    /// A vector of the float in a local, or the vector in it.
    fn get_as_vector(&mut self, t: Type, local: u32) {
        self.b.ins().local_get(local);
        match t {
            Type::F32 => drop(self.b.ins().f32x4_splat()),
            Type::F64 => drop(self.b.ins().f64x2_splat()),
            _ => {}
        }
    }
    /// The other way.
    fn set_of_vector(&mut self, t: Type, local: u32) {
        match t {
            Type::F32 => drop(self.b.ins().f32x4_extract_lane(0)),
            Type::F64 => drop(self.b.ins().f64x2_extract_lane(0)),
            _ => {}
        }
        self.b.ins().local_set(local);
    }

    /// An operand in a local: its own, if it has one.
    fn operand(&mut self, v: Value, t: Type) -> Result<Operand, Error> {
        if let Some(local) = self.in_local(v) {
            let temporary = self.used(v);
            return Ok(Operand { local, temporary });
        }
        let local = self.operand_copy(v, t)?;
        Ok(Operand { local, temporary: true })
    }
    /// An operand in a local that may be changed.
    fn operand_copy(&mut self, v: Value, t: Type) -> Result<u32, Error> {
        let l = self.temp(if is_packed(t) { ValType::V128 } else { val_type(t) });
        self.push(v)?;
        self.b.ins().local_set(l);
        Ok(l)
    }
    /// What counts of operands, in locals, which may be those of earlier uses.
    fn counted(&mut self, values: &[Value], t: Type) -> Result<Vec<Operand>, Error> {
        let (mut all, mut new) = (vec![], vec![]);
        for v in values {
            all.push(if self.is_normal(*v, t) {
                self.operand(*v, t)?
            } else if let Some(local) = self.counted.get(&(*v, t)).copied() {
                self.lose(*v);
                Operand { local, temporary: false }
            } else {
                let local = self.operand_copy(*v, t)?;
                self.counted.insert((*v, t), local);
                new.push(local);
                Operand { local, temporary: false }
            });
        }
        if new.is_empty() {
            return Ok(all);
        }
        special::if_set(&mut self.b, &self.s.abi, special::DAZ);
        for l in new {
            self.if_outside(t, l, 1, format(t).above());
            self.b.ins().local_get(0);
            self.get_as_vector(t, l);
            self.b.call(Sym::Intern(Intern::Counted(is_single(t))));
            self.set_of_vector(t, l);
            self.end_outside();
        }
        self.b.end();
        Ok(all)
    }
    /// Whether an operand is known not to be denormal.
    fn is_normal(&self, v: Value, t: Type) -> bool {
        let lanes = normal::lanes(t);
        self.normal.of(v) & lanes == lanes
    }
    /// An operand is not used by this instruction any more.
    fn done(&mut self, o: Operand) {
        if o.temporary {
            self.free(o.local);
        }
    }

    /// An operation on floats: leaves its result on the stack.
    pub(super) fn floats(&mut self, i: &Inst) -> Result<(), Error> {
        if let Some((op, f)) = arithmetic(i.op) {
            return self.arithmetic(i, op, f[index(i.ty)]);
        }
        match i.op {
            Op::FMinX | Op::FMaxX | Op::VFMinX | Op::VFMaxX => self.min_max(i),
            Op::FCmp | Op::FComi | Op::VFCmp => self.float_compare(i),
            Op::FPromote => self.promote(i),
            Op::FDemote => self.demote(i),
            Op::CvtIF => self.from_int(i),
            Op::CvtFI => self.to_int(i),
            op => Err(Error::Unsupported(op.name(), i.ty.name())),
        }
    }

    fn arithmetic(&mut self, i: &Inst, op: Arith, f: Ins) -> Result<(), Error> {
        let t = i.ty;
        let values = if i.b.is_some() { vec![i.a, i.b] } else { vec![i.a] };
        let (sum, product) = (matches!(op, Arith::Add | Arith::Sub), op == Arith::Mul && is_packed(t));
        // The factors of those that may be denormal.
        let factors: Vec<bool> = values.iter().rev().map(|v| !self.is_normal(*v, t)).collect();
        let operands = if sum || product {
            values.iter().map(|v| self.operand(*v, t)).collect::<Result<Vec<_>, _>>()?
        } else {
            self.counted(&values, t)?
        };
        let r = self.temp(if is_packed(t) { ValType::V128 } else { val_type(t) });
        for o in &operands {
            self.b.ins().local_get(o.local);
        }
        self.b.op(f);
        self.b.ins().local_set(r);
        // (The least normal number may have been rounded up to.)
        let from = if sum { format(t).sums } else { 2 };
        let locals: Vec<u32> = operands.iter().map(|o| o.local).collect();
        if product && factors.contains(&true) {
            self.if_product(t, &locals, &factors, r, from);
        } else {
            self.if_outside(t, r, from, format(t).top);
        }
        self.b.ins().local_get(0);
        for l in [locals[0], locals[locals.len() - 1], r] {
            self.get_as_vector(t, l);
        }
        self.b.call(Sym::Intern(Intern::Special(op, is_single(t))));
        self.set_of_vector(t, r);
        self.end_outside();
        self.b.ins().local_get(r);
        self.free(r);
        operands.into_iter().for_each(|o| self.done(o));
        Ok(())
    }

    /// [`Self::if_outside`] for the products of two vectors, or if an operand may be small. A product of a denormal number and one below 2 is small itself, so
    /// what is looked at first is whether `factors` are below 2.
    fn if_product(&mut self, t: Type, operands: &[u32], factors: &[bool], r: u32, from: u64) {
        let [doubled, mask, of_operand] = [(); 3].map(|()| self.temp(ValType::V128));
        outside(&mut self.b, t, r, doubled, from, format(t).top);
        self.b.ins().local_tee(mask);
        // The uppermost bit of an exponent.
        let large: Vec<u32> = operands.iter().zip(factors).filter(|f| *f.1).map(|f| *f.0).collect();
        for (n, l) in large.iter().enumerate() {
            self.b.ins().local_get(*l);
            if n > 0 {
                self.b.ins().v128_or();
            }
        }
        self.b.ins().i32_const(1);
        self.b.op(if is_single(t) { ins!(i32x4_shl) } else { ins!(i64x2_shl) });
        self.b.ins().v128_or();
        self.b.op(if is_single(t) { ins!(i32x4_bitmask) } else { ins!(i64x2_bitmask) });
        self.b.if_();
        let is_zero = |b: &mut Body, doubled: u32| {
            b.ins().local_get(doubled).v128_const(0);
            b.op(if is_single(t) { ins!(i32x4_eq) } else { ins!(i64x2_eq) });
        };
        self.b.ins().local_get(mask);
        is_zero(&mut self.b, doubled);
        self.b.ins().v128_andnot();
        for l in operands {
            outside(&mut self.b, t, *l, of_operand, 1, format(t).above());
            is_zero(&mut self.b, of_operand);
            self.b.ins().v128_andnot().v128_or();
        }
        self.b.ins().v128_any_true();
        self.b.if_();
        for l in [doubled, mask, of_operand] {
            self.free(l);
        }
    }

    /// Of equal and unordered operands x86 gives the second.
    fn min_max(&mut self, i: &Inst) -> Result<(), Error> {
        let operands = self.counted(&[i.a, i.b], i.ty)?;
        let [x, y] = [operands[0], operands[1]];
        let min = matches!(i.op, Op::FMinX | Op::VFMinX);
        if is_packed(i.ty) {
            // WebAssembly gives the first.
            self.b.ins().local_get(y.local).local_get(x.local);
            self.b.op(match (min, is_single(i.ty)) {
                (true, true) => ins!(f32x4_pmin),
                (true, false) => ins!(f64x2_pmin),
                (false, true) => ins!(f32x4_pmax),
                (false, false) => ins!(f64x2_pmax),
            });
        } else {
            for o in [x, y, x, y] {
                self.b.ins().local_get(o.local);
            }
            self.b.op(match (min, is_single(i.ty)) {
                (true, true) => ins!(f32_lt),
                (true, false) => ins!(f64_lt),
                (false, true) => ins!(f32_gt),
                (false, false) => ins!(f64_gt),
            });
            self.b.ins().select();
        }
        self.done(x);
        self.done(y);
        Ok(())
    }

    fn float_compare(&mut self, i: &Inst) -> Result<(), Error> {
        let (c, not) = comparison(i.imm)?;
        let packed = is_packed(i.ty);
        match c {
            Some(c) => {
                let operands = self.counted(&[i.a, i.b], i.ty)?;
                let [x, y] = [operands[0], operands[1]];
                self.b.ins().local_get(x.local).local_get(y.local);
                self.b.op(c[index(i.ty)]);
                self.done(x);
                self.done(y);
            }
            None => {
                for v in [i.a, i.b] {
                    let o = self.operand(v, i.ty)?;
                    self.b.ins().local_get(o.local).local_get(o.local);
                    self.b.op(EQ[index(i.ty)]);
                    self.done(o);
                }
                self.b.op(if packed { ins!(v128_and) } else { ins!(i32_and) });
            }
        }
        if not {
            self.b.op(if packed { ins!(v128_not) } else { ins!(i32_eqz) });
        }
        Ok(())
    }

    fn promote(&mut self, i: &Inst) -> Result<(), Error> {
        let operand = self.operand(i.a, Type::F32)?;
        let (a, r) = (operand.local, self.temp(ValType::F64));
        self.b.ins().local_get(a).f64_promote_f32().local_set(r);
        self.if_outside(Type::F32, a, 1, SINGLE.top);
        self.b.ins().local_get(0).local_get(a);
        self.b.call(Sym::Intern(Intern::Promoted));
        self.b.ins().local_set(r);
        self.end_outside();
        self.b.ins().local_get(r);
        self.done(operand);
        self.free(r);
        Ok(())
    }
    fn demote(&mut self, i: &Inst) -> Result<(), Error> {
        let operand = self.operand(i.a, Type::F64)?;
        let (a, r, doubled) = (operand.local, self.temp(ValType::F32), self.temp(ValType::I32));
        self.b.ins().local_get(a).f32_demote_f64().local_set(r);
        // (A zero may be of what was not.)
        outside(&mut self.b, Type::F32, r, doubled, 2, SINGLE.top);
        self.b.if_();
        self.b.ins().local_get(0).local_get(a).local_get(r);
        self.b.call(Sym::Intern(Intern::Demoted));
        self.b.ins().local_set(r);
        self.b.end();
        self.b.ins().local_get(r);
        self.done(operand);
        self.free(r);
        self.free(doubled);
        Ok(())
    }

    fn from_int(&mut self, i: &Inst) -> Result<(), Error> {
        let from = self.ty(i.a)?;
        self.push(i.a)?;
        self.b.op(match (from, i.ty) {
            (Type::I32, Type::F32) => ins!(f32_convert_i32_s),
            (Type::I32, _) => ins!(f64_convert_i32_s),
            (_, Type::F32) => ins!(f32_convert_i64_s),
            _ => ins!(f64_convert_i64_s),
        });
        Ok(())
    }

    /// Out of range and NaN give the minimum integer and the invalid flag.
    fn to_int(&mut self, i: &Inst) -> Result<(), Error> {
        let single = self.ty(i.a)? == Type::F32;
        let wide = i.ty == Type::I64;
        let operand = self.operand(i.a, if single { Type::F32 } else { Type::F64 })?;
        let a = operand.local;
        let r = self.temp(val_type(i.ty));
        self.b.ins().local_get(a);
        self.b.op(match (single, wide) {
            (true, false) => ins!(i32_trunc_sat_f32_s),
            (false, false) => ins!(i32_trunc_sat_f64_s),
            (true, true) => ins!(i64_trunc_sat_f32_s),
            (false, true) => ins!(i64_trunc_sat_f64_s),
        });
        self.b.ins().local_set(r);
        // In range: above the largest value that truncates to less than the minimum, below the first that is too large.
        let top = if wide { 9_223_372_036_854_775_808.0 } else { 2_147_483_648.0f64 };
        let (bottom, inclusive) = match (single, wide) {
            (false, false) => (-2_147_483_649.0, false),
            _ => (-top, true),
        };
        let constant = |me: &mut Self, x: f64| {
            if single {
                me.b.ins().f32_const(Ieee32::new((x as f32).to_bits()));
            } else {
                me.b.ins().f64_const(Ieee64::new(x.to_bits()));
            }
        };
        self.b.ins().local_get(a);
        constant(self, top);
        self.b.op(if single { ins!(f32_lt) } else { ins!(f64_lt) });
        self.b.ins().local_get(a);
        constant(self, bottom);
        self.b.op(match (single, inclusive) {
            (true, true) => ins!(f32_ge),
            (true, false) => ins!(f32_gt),
            (false, true) => ins!(f64_ge),
            (false, false) => ins!(f64_gt),
        });
        self.b.ins().i32_and().i32_eqz();
        self.b.if_();
        self.b.ins().local_get(0);
        self.b.call(Sym::Intern(Intern::Invalid));
        if wide {
            self.b.ins().i64_const(i64::MIN);
        } else {
            self.b.ins().i32_const(i32::MIN);
        }
        self.b.ins().local_set(r);
        self.b.end();
        self.b.ins().local_get(r);
        self.done(operand);
        self.free(r);
        Ok(())
    }
    /// Make sure of what is known where a loop is entered, or leave.
    pub(super) fn ensure_normal(&mut self, known: &[(Slot, Lanes)], pc: u64) -> Result<(), Error> {
        for (s, lanes) in known {
            let l = self.slot_local(*s);
            for t in [Type::F32X4, Type::F64X2] {
                let want = lanes & normal::lanes(t);
                if want == 0 || val_type(self.r.layout.get(*s).ty) != ValType::V128 {
                    continue;
                }
                let doubled = self.temp(ValType::V128);
                outside(&mut self.b, t, l, doubled, 1, format(t).above());
                self.b.ins().v128_const(normal::mask(want));
                self.b.ins().v128_and().local_get(doubled).v128_const(0);
                self.b.op(if is_single(t) { ins!(i32x4_eq) } else { ins!(i64x2_eq) });
                self.b.ins().v128_andnot().v128_any_true();
                self.at_pc(pc);
                self.bail_if(Bail::Step, SlotSet::default())?;
                self.free(doubled);
            }
        }
        Ok(())
    }
}
