//! Lazy condition codes: what set the flags last, and conditions computed from it.
//!
//! The kind (operation and width) is known while translating whenever all paths to a point agree; then
//! a condition is one comparison of the operands. Otherwise a helper computes the flags.
//! Writing the four slots is put off until something could see them ([`Lifter::flush_cc`]), so that flags
//! overwritten by the next instruction cost nothing.

use crate::ctx::Lifter;
use evm_cpu::{cc, helper, slot};
use evm_ir::{Cond, FCond, Op, Type, Value};
use iced_x86::ConditionCode;

/// What is known of the condition codes.
#[derive(Default)]
pub(crate) struct Cc {
    /// Kind and width, if known.
    pub kind: Option<u64>,
    /// Operands as set in this block: integers of the kind's width, or I64.
    vals: [Option<Value>; 3],
    /// The result of the operation, when at hand.
    res: Option<Value>,
    /// All flags as an I64, when computed.
    all: Option<Value>,
    /// The operation when it is chosen at run time (then `kind` is `None`).
    op: Option<Value>,
    /// The slots are still to be written.
    dirty: bool,
    /// CF, if it is not that of the operation ([`cc::REPLACED`]).
    cf: Option<Value>,
    /// The operation's slot is still to be written with it.
    cf_dirty: bool,
}

impl Cc {
    /// Values are gone (another block); the slots hold them.
    pub fn forget_values(&mut self) {
        self.kind = self.pure_kind();
        self.cf = None;
        self.vals = [None; 3];
        self.res = None;
        self.all = None;
        self.op = None;
    }
    /// The kind, if the slots hold nothing else.
    pub fn pure_kind(&self) -> Option<u64> {
        self.kind.filter(|_| self.cf.is_none())
    }
}

/// Type of the width encoded in a kind.
fn width(op: u64) -> Type {
    Type::int(1 << (op & 3))
}

impl Lifter {
    /// The flags are now those of `kind` (of module [`cc`]) at width `ty` with these operands, given as
    /// integers of that width (or I64). `Value::NONE` for operands that the kind does not use.
    pub fn set_cc(&mut self, kind: u64, ty: Type, a: Value, b: Value, c: Value) {
        self.drop_fcmp();
        let some = |v: Value| v.is_some().then_some(v);
        let w = if kind == cc::EAGER { 0 } else { u64::from(ty.bytes().trailing_zeros()) };
        self.cc = Cc {
            kind: Some(kind | w),
            vals: [some(a), some(b), some(c)],
            res: match kind {
                cc::LOGIC | cc::INC | cc::DEC | cc::BMI | cc::RES => some(a),
                _ => None,
            },
            dirty: true,
            ..Cc::default()
        };
    }
    /// CF is now `cf` (I8, 0 or 1); the other flags stay.
    pub fn replace_carry(&mut self, cf: Value) {
        (self.cc.cf, self.cc.cf_dirty, self.cc.all) = (Some(cf), true, None);
    }
    /// The flags are about to be replaced, or to leave the block. If they are those of UCOMISx and no condition was wanted, nothing has raised
    /// its exception flags yet: a comparison that stays does.
    fn drop_fcmp(&mut self) {
        let Some(kind) = self.cc.kind.filter(|k| k & !3 == cc::FCMP && !self.fcmp_used) else {
            return;
        };
        let (ints, floats) =
            if width(kind) == Type::I32 { (Type::I32X4, Type::F32X4) } else { (Type::I64X2, Type::F64X2) };
        if let [Some(a), Some(b), _] = self.cc.vals {
            let z = self.b.vconst(0);
            let (x, y) = (self.b.insert(ints, z, 0, a), self.b.insert(ints, z, 0, b));
            self.b.push(Op::VFCmp, floats, x, y, Value::NONE, FCond::Eq as i64);
        }
    }
    /// If `cond` (I8) is not zero the flags become as by [`Lifter::set_cc`], else they stay.
    pub fn set_cc_if(&mut self, cond: Value, kind: u64, ty: Type, a: Value, b: Value, c: Value) {
        let old = self.words();
        let op = self.iconst(Type::I64, (kind | u64::from(ty.bytes().trailing_zeros())) as i64);
        let mut new = [op, Value::NONE, Value::NONE, Value::NONE];
        for (i, v) in [a, b, c].into_iter().enumerate() {
            new[i + 1] = if !v.is_some() {
                old[i + 1]
            } else if kind == cc::SAR && i == 0 {
                self.sext(Type::I64, v)
            } else {
                self.zext(Type::I64, v)
            };
        }
        let w: [Value; 4] = std::array::from_fn(|i| self.select(cond, new[i], old[i]));
        self.cc =
            Cc { kind: None, vals: [Some(w[1]), Some(w[2]), Some(w[3])], op: Some(w[0]), dirty: true, ..Cc::default() };
    }
    /// As [`Lifter::set_cc`], with the result of the operation, which conditions may use.
    pub fn set_cc_res(&mut self, kind: u64, ty: Type, a: Value, b: Value, c: Value, res: Value) {
        self.set_cc(kind, ty, a, b, c);
        self.cc.res = Some(res);
    }
    /// The flags are these bits (I64, RFLAGS positions).
    pub fn set_flags(&mut self, flags: Value) {
        self.set_cc(cc::EAGER, Type::I8, flags, Value::NONE, Value::NONE);
    }
    /// The slots were written by hand or by a helper: nothing is known.
    pub fn cc_unknown(&mut self) {
        self.cc = Cc::default();
    }
    /// Write the flags that were put off.
    pub fn flush_cc(&mut self) {
        if !self.cc.dirty && !self.cc.cf_dirty {
            return;
        }
        self.drop_fcmp();
        self.fcmp_used = true;
        let op = self.cc.kind.unwrap_or(0);
        let k = self.op_word();
        self.put(slot::CC_OP, k);
        self.cc.cf_dirty = false;
        if !self.cc.dirty {
            return;
        }
        for (i, s) in [slot::CC_A, slot::CC_B, slot::CC_C].into_iter().enumerate() {
            if let Some(v) = self.cc.vals[i] {
                let v = if op & !3 == cc::SAR && i == 0 { self.sext(Type::I64, v) } else { self.zext(Type::I64, v) };
                self.put(s, v);
            }
        }
        self.cc.dirty = false;
    }
    /// Operand `i` at the kind's width.
    fn cc_arg(&mut self, i: usize, ty: Type) -> Value {
        let v = match self.cc.vals[i] {
            Some(v) => v,
            None => {
                let v = self.get(SLOTS[i]);
                self.cc.vals[i] = Some(v);
                v
            }
        };
        if self.b.ty(v).bytes() < ty.bytes() { self.zext(ty, v) } else { self.trunc(ty, v) }
    }
    /// The operation's word (I64), with CF if that is replaced.
    fn op_word(&mut self) -> Value {
        let op = match (self.cc.op, self.cc.kind) {
            (Some(v), _) => v,
            (None, Some(k)) => self.iconst(Type::I64, k as i64),
            (None, None) => self.get(slot::CC_OP),
        };
        let Some(cf) = self.cc.cf else { return op };
        let old = self.bini(Op::And, Type::I64, op, !(cc::NEW_CF as i64));
        let old = self.bini(Op::Or, Type::I64, old, cc::REPLACED as i64);
        let cf = self.zext(Type::I64, cf);
        let cf = self.bini(Op::Shl, Type::I64, cf, i64::from(cc::NEW_CF.trailing_zeros()));
        self.bin(Op::Or, Type::I64, old, cf)
    }
    /// The four thunk words as they would be in the slots (I64), without writing them. Words that the
    /// kind does not use are 0 or what they were.
    fn words(&mut self) -> [Value; 4] {
        let k = self.op_word();
        if !self.cc.dirty {
            let [a, b, c] = [slot::CC_A, slot::CC_B, slot::CC_C].map(|s| self.get(s));
            return [k, a, b, c];
        }
        let op = self.cc.kind.unwrap_or(0);
        let zero = self.iconst(Type::I64, 0);
        let mut out = [k, zero, zero, zero];
        for i in 0..3 {
            if let Some(v) = self.cc.vals[i] {
                out[i + 1] =
                    if op & !3 == cc::SAR && i == 0 { self.sext(Type::I64, v) } else { self.zext(Type::I64, v) };
            }
        }
        out
    }
    /// All six flags, in their RFLAGS positions (I64).
    pub fn all_flags(&mut self) -> Value {
        if let Some(v) = self.cc.all {
            return v;
        }
        let (kind, cf) = (self.cc.kind, self.cc.cf);
        let mut v = if kind == Some(cc::EAGER) {
            self.cc_arg(0, Type::I64)
        } else if kind.is_some_and(|k| k & !3 == cc::CARRIES) {
            let (rest, c, o) = (self.cc_arg(0, Type::I64), self.cc_arg(1, Type::I64), self.cc_arg(2, Type::I64));
            let o = self.bini(Op::Shl, Type::I64, o, i64::from(cc::OF.trailing_zeros()));
            let c = self.bin(Op::Or, Type::I64, c, o);
            self.bin(Op::Or, Type::I64, rest, c)
        } else if let (Some(k), [Some(a), _, _]) = (kind, self.cc.vals)
            && k & !3 == cc::LOGIC
            && let Some(a) = self.const_of(a)
        {
            // A register was set to zero.
            self.iconst(Type::I64, cc::flags(k, a as u64, 0, 0) as i64)
        } else {
            let args = self.words();
            let v = self.call(helper::CC_FLAGS, &args);
            self.cc.all = Some(v);
            return v;
        };
        if let Some(cf) = cf {
            v = self.bini(Op::And, Type::I64, v, !(cc::CF as i64));
            let cf = self.zext(Type::I64, cf);
            v = self.bin(Op::Or, Type::I64, v, cf);
        }
        self.cc.all = Some(v);
        v
    }
    /// Flags other than CF and OF (I64, RFLAGS positions), and these two (I8).
    pub fn carries(&mut self) -> (Value, Value, Value) {
        let (c, o) = (self.cond(ConditionCode::b), self.cond(ConditionCode::o));
        let rest = if self.cc.kind.is_some_and(|k| k & !3 == cc::CARRIES) {
            self.cc_arg(0, Type::I64)
        } else {
            let all = self.all_flags();
            self.bini(Op::And, Type::I64, all, (cc::PF | cc::AF | cc::ZF | cc::SF) as i64)
        };
        (rest, c, o)
    }
    fn flag_bit(&mut self, mask: u64) -> Value {
        let f = self.all_flags();
        let f = self.bini(Op::And, Type::I64, f, mask as i64);
        self.icmpi(Cond::Ne, f, 0)
    }
    fn result(&mut self, op: u64, ty: Type) -> Value {
        if let Some(v) = self.cc.res {
            return v;
        }
        let a = self.cc_arg(0, ty);
        let r = match op & !3 {
            cc::ADD => {
                let b = self.cc_arg(1, ty);
                self.bin(Op::Add, ty, a, b)
            }
            cc::SUB => {
                let b = self.cc_arg(1, ty);
                self.bin(Op::Sub, ty, a, b)
            }
            cc::SMUL | cc::UMUL => {
                let b = self.cc_arg(1, ty);
                self.bin(Op::Mul, ty, a, b)
            }
            cc::ADC => {
                let (b, c) = (self.cc_arg(1, ty), self.cc_arg(2, ty));
                let r = self.bin(Op::Add, ty, a, b);
                self.bin(Op::Add, ty, r, c)
            }
            cc::SBB => {
                let (b, c) = (self.cc_arg(1, ty), self.cc_arg(2, ty));
                let r = self.bin(Op::Sub, ty, a, b);
                self.bin(Op::Sub, ty, r, c)
            }
            _ => a,
        };
        self.cc.res = Some(r);
        r
    }
    /// The carry flag (I8).
    pub fn carry(&mut self) -> Value {
        self.cond(ConditionCode::b)
    }
    /// A condition (I8, 0 or 1).
    pub fn cond(&mut self, c: ConditionCode) -> Value {
        use ConditionCode as C;
        match (self.cc.cf, c) {
            (Some(cf), C::b) => return cf,
            (Some(cf), C::ae) => return self.not_bool(cf),
            (Some(cf), C::be | C::a) => {
                let z = self.cond(C::e);
                let v = self.or(cf, z);
                return if c == C::a { self.not_bool(v) } else { v };
            }
            _ => {}
        }
        // The negated conditions by the plain ones, except where a kind has a direct form.
        if let Some(op) = self.cc.kind
            && let Some(v) = self.cond_known(op, c)
        {
            return v;
        }
        match c {
            C::o => self.flag_bit(cc::OF),
            C::b => self.flag_bit(cc::CF),
            C::e => self.flag_bit(cc::ZF),
            C::be => self.flag_bit(cc::CF | cc::ZF),
            C::s => self.flag_bit(cc::SF),
            C::p => self.flag_bit(cc::PF),
            C::l => {
                let (s, o) = (self.flag_bit(cc::SF), self.flag_bit(cc::OF));
                self.bin(Op::Xor, Type::I8, s, o)
            }
            C::le => {
                let (l, z) = (self.cond(C::l), self.flag_bit(cc::ZF));
                self.bin(Op::Or, Type::I8, l, z)
            }
            C::no | C::ae | C::ne | C::a | C::ns | C::np | C::ge | C::g => {
                let v = self.cond(opposite(c));
                self.not_bool(v)
            }
            C::None => self.iconst(Type::I8, 0),
        }
    }
    fn zero(&mut self) -> Value {
        self.iconst(Type::I8, 0)
    }
    fn one(&mut self) -> Value {
        self.iconst(Type::I8, 1)
    }
    fn or(&mut self, a: Value, b: Value) -> Value {
        self.bin(Op::Or, Type::I8, a, b)
    }
    /// PF of a result: even number of ones in the low byte.
    fn parity(&mut self, r: Value) -> Value {
        let r = self.trunc(Type::I8, r);
        let n = self.un(Op::Popcnt, Type::I8, r);
        let n = self.bini(Op::And, Type::I8, n, 1);
        self.bini(Op::Xor, Type::I8, n, 1)
    }
    /// Condition for a known kind, or `None` if it has no direct form.
    fn cond_known(&mut self, op: u64, c: ConditionCode) -> Option<Value> {
        use ConditionCode as C;
        let ty = width(op);
        let kind = op & !3;
        if kind == cc::FCMP {
            return Some(self.cond_fcmp(ty, c));
        }
        if kind == cc::EAGER {
            return None;
        }
        if kind == cc::CARRIES {
            return match c {
                C::b => Some(self.cc_arg(1, Type::I8)),
                C::o => Some(self.cc_arg(2, Type::I8)),
                _ => None,
            };
        }
        if matches!(kind, cc::ZERO | cc::BSF | cc::BSR) {
            return self.cond_zero(kind, ty, c);
        }
        // What depends only on the result.
        match c {
            C::e | C::ne | C::s | C::ns => {
                let cond = match c {
                    C::e => Cond::Eq,
                    C::ne => Cond::Ne,
                    C::s => Cond::Slt,
                    _ => Cond::Sge,
                };
                if kind == cc::SUB && matches!(c, C::e | C::ne) {
                    let (a, b) = (self.cc_arg(0, ty), self.cc_arg(1, ty));
                    return Some(self.icmp(cond, a, b));
                }
                if matches!(kind, cc::SHL | cc::SHR | cc::SAR) && self.cc.res.is_none() {
                    return None;
                }
                // ZF is clear after a product.
                match (kind, c) {
                    (cc::SMUL | cc::UMUL, C::e) => return Some(self.zero()),
                    (cc::SMUL | cc::UMUL, C::ne) => return Some(self.one()),
                    _ => {}
                }
                let r = self.result(op, ty);
                return Some(self.icmpi(cond, r, 0));
            }
            C::p if !matches!(kind, cc::BMI | cc::SHL | cc::SHR | cc::SAR) => {
                let r = self.result(op, ty);
                return Some(self.parity(r));
            }
            _ => {}
        }
        match kind {
            cc::SUB => {
                let (a, b) = (self.cc_arg(0, ty), self.cc_arg(1, ty));
                let cond = match c {
                    C::b => Cond::Ult,
                    C::ae => Cond::Uge,
                    C::be => Cond::Ule,
                    C::a => Cond::Ugt,
                    C::l => Cond::Slt,
                    C::ge => Cond::Sge,
                    C::le => Cond::Sle,
                    C::g => Cond::Sgt,
                    C::o => {
                        let r = self.result(op, ty);
                        let x = self.bin(Op::Xor, ty, a, b);
                        let y = self.bin(Op::Xor, ty, a, r);
                        let x = self.bin(Op::And, ty, x, y);
                        return Some(self.icmpi(Cond::Slt, x, 0));
                    }
                    _ => return None,
                };
                Some(self.icmp(cond, a, b))
            }
            cc::LOGIC => {
                let r = self.cc_arg(0, ty);
                Some(match c {
                    C::o | C::b => self.zero(),
                    C::no | C::ae => self.one(),
                    C::be => self.icmpi(Cond::Eq, r, 0),
                    C::a => self.icmpi(Cond::Ne, r, 0),
                    C::l => self.icmpi(Cond::Slt, r, 0),
                    C::ge => self.icmpi(Cond::Sge, r, 0),
                    C::le => self.icmpi(Cond::Sle, r, 0),
                    C::g => self.icmpi(Cond::Sgt, r, 0),
                    _ => return None,
                })
            }
            cc::ADD | cc::ADC => {
                let r = self.result(op, ty);
                let (a, b) = (self.cc_arg(0, ty), self.cc_arg(1, ty));
                match c {
                    C::b => {
                        let lt = self.icmp(Cond::Ult, r, a);
                        if kind == cc::ADD {
                            return Some(lt);
                        }
                        let cin = self.cc_arg(2, Type::I8);
                        let eq = self.icmp(Cond::Eq, r, a);
                        let eq = self.bin(Op::And, Type::I8, eq, cin);
                        Some(self.or(lt, eq))
                    }
                    C::o => {
                        let x = self.bin(Op::Xor, ty, a, r);
                        let y = self.bin(Op::Xor, ty, b, r);
                        let x = self.bin(Op::And, ty, x, y);
                        Some(self.icmpi(Cond::Slt, x, 0))
                    }
                    _ => self.cond_compound(c),
                }
            }
            cc::SBB => {
                let (a, b) = (self.cc_arg(0, ty), self.cc_arg(1, ty));
                match c {
                    C::b => {
                        let lt = self.icmp(Cond::Ult, a, b);
                        let cin = self.cc_arg(2, Type::I8);
                        let eq = self.icmp(Cond::Eq, a, b);
                        let eq = self.bin(Op::And, Type::I8, eq, cin);
                        Some(self.or(lt, eq))
                    }
                    C::o => {
                        let r = self.result(op, ty);
                        let x = self.bin(Op::Xor, ty, a, b);
                        let y = self.bin(Op::Xor, ty, a, r);
                        let x = self.bin(Op::And, ty, x, y);
                        Some(self.icmpi(Cond::Slt, x, 0))
                    }
                    _ => self.cond_compound(c),
                }
            }
            cc::INC | cc::DEC => match c {
                C::b => Some(self.carry_word()),
                C::o => {
                    let r = self.cc_arg(0, ty);
                    let min = 1i64 << (ty.bits() - 1);
                    let at = if kind == cc::INC { min } else { min.wrapping_sub(1) };
                    Some(self.icmpi(Cond::Eq, r, at))
                }
                _ => self.cond_compound(c),
            },
            cc::BMI => match c {
                C::b => Some(self.carry_word()),
                C::o | C::p => Some(self.zero()),
                C::l => {
                    let r = self.cc_arg(0, ty);
                    Some(self.icmpi(Cond::Slt, r, 0))
                }
                _ => self.cond_compound(c),
            },
            cc::SHL | cc::SHR | cc::SAR => self.cond_shift(kind, ty, c),
            cc::SMUL | cc::UMUL => match c {
                C::b | C::o => Some(self.mul_overflow(kind == cc::SMUL, ty)),
                _ => self.cond_compound(c),
            },
            cc::RES => match c {
                C::b | C::o => {
                    let v = self.cc_arg(2, Type::I64);
                    let m = if c == C::b { cc::CF } else { cc::OF };
                    let v = self.bini(Op::And, Type::I64, v, m as i64);
                    Some(self.icmpi(Cond::Ne, v, 0))
                }
                _ => self.cond_compound(c),
            },
            _ => None,
        }
    }
    /// BE, L and LE from simpler ones; negations are left to the caller.
    fn cond_compound(&mut self, c: ConditionCode) -> Option<Value> {
        use ConditionCode as C;
        Some(match c {
            C::be => {
                let (b, e) = (self.cond(C::b), self.cond(C::e));
                self.or(b, e)
            }
            C::l => {
                let (s, o) = (self.cond(C::s), self.cond(C::o));
                self.bin(Op::Xor, Type::I8, s, o)
            }
            C::le => {
                let (l, e) = (self.cond(C::l), self.cond(C::e));
                self.or(l, e)
            }
            _ => return None,
        })
    }
    /// Whether the product of the operands does not fit.
    fn mul_overflow(&mut self, signed: bool, ty: Type) -> Value {
        let (a, b) = (self.cc_arg(0, ty), self.cc_arg(1, ty));
        if ty == Type::I64 {
            if signed {
                let lo = self.bin(Op::Mul, ty, a, b);
                let hi = self.bin(Op::SMulHi, ty, a, b);
                let s = self.bini(Op::Sar, ty, lo, 63);
                return self.icmp(Cond::Ne, hi, s);
            }
            let hi = self.bin(Op::UMulHi, ty, a, b);
            return self.icmpi(Cond::Ne, hi, 0);
        }
        let wide = Type::int(ty.bytes() * 2);
        let ext = if signed { Op::Sext } else { Op::Zext };
        let (a, b) = (self.extend(ext, wide, a), self.extend(ext, wide, b));
        let r = self.bin(Op::Mul, wide, a, b);
        let low = self.trunc(ty, r);
        let back = self.extend(ext, wide, low);
        self.icmp(Cond::Ne, r, back)
    }
    /// Conditions of the kinds that set little but ZF.
    fn cond_zero(&mut self, kind: u64, ty: Type, c: ConditionCode) -> Option<Value> {
        use ConditionCode as C;
        Some(match c {
            C::e | C::ne => {
                let a = self.cc_arg(0, ty);
                self.icmpi(if c == C::e { Cond::Eq } else { Cond::Ne }, a, 0)
            }
            C::b if kind == cc::ZERO => self.carry_word(),
            C::p if kind != cc::ZERO => return None,
            C::b | C::o | C::s | C::p | C::l => self.zero(),
            C::ns | C::no | C::ge => self.one(),
            C::be | C::le => return self.cond_compound(c),
            _ => return None,
        })
    }
    /// The C operand as a boolean.
    fn carry_word(&mut self) -> Value {
        let v = self.cc_arg(2, Type::I8);
        self.bini(Op::And, Type::I8, v, 1)
    }
    /// CF of a shift whose count is a known constant (then the operands are those of this block).
    fn cond_shift(&mut self, kind: u64, ty: Type, c: ConditionCode) -> Option<Value> {
        use ConditionCode as C;
        let n = self.cc.vals[1].and_then(|v| self.const_of(v))? as u64;
        if n == 0 || n > u64::from(ty.bits()) {
            return None;
        }
        match c {
            C::b => {
                let a = self.cc_arg(0, ty);
                let at = if kind == cc::SHL { u64::from(ty.bits()) - n } else { n - 1 };
                let v = self.bini(Op::Shr, ty, a, at as i64);
                let v = self.trunc(Type::I8, v);
                Some(self.bini(Op::And, Type::I8, v, 1))
            }
            C::o => {
                let a = self.cc_arg(0, ty);
                match kind {
                    cc::SAR => Some(self.zero()),
                    cc::SHR => Some(self.icmpi(Cond::Slt, a, 0)),
                    _ => {
                        let next = self.bini(Op::Shl, ty, a, 1);
                        let x = self.bin(Op::Xor, ty, a, next);
                        Some(self.icmpi(Cond::Slt, x, 0))
                    }
                }
            }
            C::be | C::l | C::le => self.cond_compound(c),
            _ => None,
        }
    }
    /// Conditions after UCOMISS/UCOMISD: ZF = equal or unordered, PF = unordered, CF = less or unordered.
    fn cond_fcmp(&mut self, ty: Type, c: ConditionCode) -> Value {
        use ConditionCode as C;
        let fty = if ty == Type::I32 { Type::F32 } else { Type::F64 };
        let (a, b) = (self.cc_arg(0, ty), self.cc_arg(1, ty));
        self.fcmp_used |= !matches!(c, C::o | C::s | C::l | C::no | C::ns | C::ge);
        match c {
            C::o | C::s | C::l => return self.zero(),
            C::no | C::ns | C::ge => return self.one(),
            _ => {}
        }
        let (a, b) = (self.bitcast(fty, a), self.bitcast(fty, b));
        match c {
            C::a => self.b.fcmp(FCond::Lt, fty, b, a),
            C::ae => self.b.fcmp(FCond::Le, fty, b, a),
            C::b => self.b.fcmp(FCond::Nle, fty, b, a),
            C::be => self.b.fcmp(FCond::Nlt, fty, b, a),
            C::p => self.b.fcmp(FCond::Uno, fty, a, b),
            C::np => self.b.fcmp(FCond::Ord, fty, a, b),
            C::e | C::le => {
                let x = self.b.fcmp(FCond::Eq, fty, a, b);
                let y = self.b.fcmp(FCond::Uno, fty, a, b);
                self.or(x, y)
            }
            _ => {
                let x = self.b.fcmp(FCond::Ne, fty, a, b);
                let y = self.b.fcmp(FCond::Ord, fty, a, b);
                self.bin(Op::And, Type::I8, x, y)
            }
        }
    }
}

const SLOTS: [evm_ir::Slot; 3] = [slot::CC_A, slot::CC_B, slot::CC_C];

/// The opposite of a negated condition.
fn opposite(c: ConditionCode) -> ConditionCode {
    use ConditionCode as C;
    match c {
        C::no => C::o,
        C::ae => C::b,
        C::ne => C::e,
        C::a => C::be,
        C::ns => C::s,
        C::np => C::p,
        C::ge => C::l,
        C::g => C::le,
        c => c,
    }
}
