//! Addition, subtraction, logic, comparison, multiplication, division; locked forms; exchanges.

use super::{Done, Loc};
use crate::ctx::{Lifter, Unlifted, full};
use evm_cpu::{cc, exc, helper};
use evm_ir::{Cond, Op, Term, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

const NO: Value = Value::NONE;

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Add | M::Sub | M::And | M::Or | M::Xor | M::Adc | M::Sbb => binary(cx, i),
        M::Cmp => {
            let a = cx.read_op(i, 0);
            let b = cx.read_op(i, 1);
            let ty = cx.b.ty(a);
            cx.set_cc(cc::SUB, ty, a, b, NO);
        }
        M::Test => {
            let a = cx.read_op(i, 0);
            let b = cx.read_op(i, 1);
            let ty = cx.b.ty(a);
            let r = cx.bin(Op::And, ty, a, b);
            cx.set_cc(cc::LOGIC, ty, r, NO, NO);
        }
        M::Inc | M::Dec => inc_dec(cx, i),
        M::Neg => neg(cx, i),
        M::Not => {
            let d = cx.dest(i);
            let ty = d.ty();
            if locked(i) {
                let Loc::Mem(a, _) = d else {
                    return Err(Unlifted);
                };
                let ones = cx.iconst(ty, -1);
                cx.rmw(Op::AtomicXor, ty, a, ones);
            } else {
                let v = cx.read_loc(d);
                let v = cx.un(Op::Not, ty, v);
                cx.write_loc(d, v);
            }
        }
        M::Mul => mul_wide(cx, i, false),
        M::Imul if i.op_count() == 1 => mul_wide(cx, i, true),
        M::Imul => {
            let (x, y) = if i.op_count() == 2 { (0, 1) } else { (1, 2) };
            let a = cx.read_op(i, x);
            let b = cx.read_op(i, y);
            let ty = cx.b.ty(a);
            let r = cx.bin(Op::Mul, ty, a, b);
            cx.set_gpr(i.op_register(0), r);
            cx.set_cc_res(cc::SMUL, ty, a, b, NO, r);
        }
        M::Mulx => {
            let b = cx.read_op(i, 2);
            let ty = cx.b.ty(b);
            let a = cx.gpr(if ty == Type::I64 { Register::RDX } else { Register::EDX });
            let (lo, hi) = product(cx, ty, a, b, false);
            // If both destinations are one register, it gets the high half.
            cx.set_gpr(i.op_register(1), lo);
            cx.set_gpr(i.op_register(0), hi);
        }
        M::Div => divide(cx, i, false),
        M::Idiv => divide(cx, i, true),
        M::Adcx | M::Adox => {
            let b = cx.read_op(i, 1);
            let a = cx.read_op(i, 0);
            let ty = cx.b.ty(a);
            let (rest, carry, overflow) = cx.carries();
            let is_carry = i.mnemonic() == M::Adcx;
            let c = cx.zext(ty, if is_carry { carry } else { overflow });
            let s = cx.bin(Op::Add, ty, a, b);
            let r = cx.bin(Op::Add, ty, s, c);
            let c1 = cx.icmp(Cond::Ult, s, a);
            let c2 = cx.icmp(Cond::Ult, r, s);
            let out = cx.bin(Op::Or, Type::I8, c1, c2);
            cx.set_gpr(i.op_register(0), r);
            let (c, o) = if is_carry { (out, overflow) } else { (carry, out) };
            cx.set_cc(cc::CARRIES, Type::I64, rest, c, o);
        }
        M::Xchg => {
            let r = i.op_register(1);
            match cx.dest(i) {
                Loc::Mem(a, ty) => {
                    let v = cx.gpr(r);
                    let old = cx.rmw(Op::AtomicXchg, ty, a, v);
                    cx.set_gpr(r, old);
                }
                Loc::Reg(d) => {
                    let (x, y) = (cx.gpr(d), cx.gpr(r));
                    cx.set_gpr(d, y);
                    cx.set_gpr(r, x);
                }
            }
        }
        M::Xadd => {
            let r = i.op_register(1);
            let b = cx.gpr(r);
            let d = cx.dest(i);
            let ty = d.ty();
            let (old, sum);
            if let (true, Loc::Mem(a, _)) = (locked(i), d) {
                old = cx.rmw(Op::AtomicAdd, ty, a, b);
                sum = cx.bin(Op::Add, ty, old, b);
                cx.set_gpr(r, old);
            } else {
                old = cx.read_loc(d);
                sum = cx.bin(Op::Add, ty, old, b);
                if let Loc::Mem(..) = d {
                    cx.write_loc(d, sum);
                    cx.set_gpr(r, old);
                } else {
                    // XADD r, r: the sum wins.
                    cx.set_gpr(r, old);
                    cx.write_loc(d, sum);
                }
            }
            cx.set_cc_res(cc::ADD, ty, old, b, NO, sum);
        }
        M::Cmpxchg => cmpxchg(cx, i),
        M::Cmpxchg8b => cmpxchg8b(cx, i),
        M::Cmpxchg16b => cmpxchg16b(cx, i),
        _ => return Ok(false),
    }
    Ok(true)
}

fn locked(i: &Instruction) -> bool {
    i.has_lock_prefix()
}

fn binary(cx: &mut Lifter, i: &Instruction) {
    let m = i.mnemonic();
    let d = cx.dest(i);
    let ty = d.ty();
    let b = cx.read_op(i, 1);
    // SUB r, r and XOR r, r do not depend on the register.
    let carry = match m {
        M::Adc | M::Sbb => {
            let c = cx.carry();
            Some(cx.zext(ty, c))
        }
        _ => None,
    };
    let (a, r);
    if let (true, Loc::Mem(at, _)) = (locked(i), d) {
        let (op, v) = match m {
            M::Add => (Op::AtomicAdd, b),
            M::Sub => (Op::AtomicAdd, cx.un(Op::Neg, ty, b)),
            M::And => (Op::AtomicAnd, b),
            M::Or => (Op::AtomicOr, b),
            M::Xor => (Op::AtomicXor, b),
            _ => {
                let c = carry.unwrap_or(b);
                let v = cx.bin(Op::Add, ty, b, c);
                (Op::AtomicAdd, if m == M::Sbb { cx.un(Op::Neg, ty, v) } else { v })
            }
        };
        a = cx.rmw(op, ty, at, v);
        r = combine(cx, m, ty, a, b, carry);
    } else {
        a = cx.read_loc(d);
        r = combine(cx, m, ty, a, b, carry);
        cx.write_loc(d, r);
    }
    let (kind, a, b, c) = match m {
        M::Add => (cc::ADD, a, b, NO),
        M::Sub => (cc::SUB, a, b, NO),
        M::Adc => (cc::ADC, a, b, carry.unwrap_or(NO)),
        M::Sbb if a == b => {
            let z = cx.iconst(ty, 0);
            (cc::SBB, z, z, carry.unwrap_or(NO))
        }
        M::Sbb => (cc::SBB, a, b, carry.unwrap_or(NO)),
        _ => (cc::LOGIC, r, NO, NO),
    };
    cx.set_cc_res(kind, ty, a, b, c, r);
}

fn combine(cx: &mut Lifter, m: M, ty: Type, a: Value, b: Value, carry: Option<Value>) -> Value {
    match (m, carry) {
        (M::Add, _) => cx.bin(Op::Add, ty, a, b),
        (M::Sub, _) => cx.bin(Op::Sub, ty, a, b),
        (M::And, _) => cx.bin(Op::And, ty, a, b),
        (M::Or, _) => cx.bin(Op::Or, ty, a, b),
        (M::Adc, Some(c)) => {
            let r = cx.bin(Op::Add, ty, a, b);
            cx.bin(Op::Add, ty, r, c)
        }
        (M::Sbb, Some(c)) if a == b => cx.un(Op::Neg, ty, c),
        (M::Sbb, Some(c)) => {
            let r = cx.bin(Op::Sub, ty, a, b);
            cx.bin(Op::Sub, ty, r, c)
        }
        _ => cx.bin(Op::Xor, ty, a, b),
    }
}

fn inc_dec(cx: &mut Lifter, i: &Instruction) {
    let inc = i.mnemonic() == M::Inc;
    let carry = cx.carry();
    let d = cx.dest(i);
    let ty = d.ty();
    let step = cx.iconst(ty, if inc { 1 } else { -1 });
    let r = if let (true, Loc::Mem(at, _)) = (locked(i), d) {
        let old = cx.rmw(Op::AtomicAdd, ty, at, step);
        cx.bin(Op::Add, ty, old, step)
    } else {
        let v = cx.read_loc(d);
        let r = cx.bin(Op::Add, ty, v, step);
        cx.write_loc(d, r);
        r
    };
    cx.set_cc(if inc { cc::INC } else { cc::DEC }, ty, r, NO, carry);
}

fn neg(cx: &mut Lifter, i: &Instruction) {
    let d = cx.dest(i);
    let ty = d.ty();
    if let (true, Loc::Mem(..)) = (locked(i), d) {
        let (again, done) = (cx.inner(), cx.inner());
        cx.end(Term::Jump(again));
        cx.start(again);
        cx.b.region.blocks[again.0 as usize].loop_header = true;
        let Loc::Mem(at, _) = cx.dest(i) else { return };
        let old = cx.load(ty, at);
        let new = cx.un(Op::Neg, ty, old);
        let seen = cx.cas(ty, at, old, new);
        let same = cx.icmp(Cond::Eq, seen, old);
        let zero = cx.iconst(ty, 0);
        cx.set_cc_res(cc::SUB, ty, zero, seen, NO, new);
        cx.end(Term::Br(same, done, again));
        cx.start(done);
        return;
    }
    let v = cx.read_loc(d);
    let r = cx.un(Op::Neg, ty, v);
    cx.write_loc(d, r);
    let zero = cx.iconst(ty, 0);
    cx.set_cc_res(cc::SUB, ty, zero, v, NO, r);
}

/// Low and high half of a product.
fn product(cx: &mut Lifter, ty: Type, a: Value, b: Value, signed: bool) -> (Value, Value) {
    if ty == Type::I64 {
        let lo = cx.bin(Op::Mul, ty, a, b);
        let hi = cx.bin(if signed { Op::SMulHi } else { Op::UMulHi }, ty, a, b);
        return (lo, hi);
    }
    let wide = Type::int(ty.bytes() * 2);
    let ext = if signed { Op::Sext } else { Op::Zext };
    let (a, b) = (cx.extend(ext, wide, a), cx.extend(ext, wide, b));
    let r = cx.bin(Op::Mul, wide, a, b);
    let lo = cx.trunc(ty, r);
    let hi = cx.bini(Op::Shr, wide, r, i64::from(ty.bits()));
    (lo, cx.trunc(ty, hi))
}

/// Accumulator and its upper half by width.
fn pair(ty: Type) -> (Register, Register) {
    match ty {
        Type::I8 => (Register::AL, Register::AH),
        Type::I16 => (Register::AX, Register::DX),
        Type::I32 => (Register::EAX, Register::EDX),
        _ => (Register::RAX, Register::RDX),
    }
}

fn mul_wide(cx: &mut Lifter, i: &Instruction, signed: bool) {
    let b = cx.read_op(i, 0);
    let ty = cx.b.ty(b);
    let (rl, rh) = pair(ty);
    let a = cx.gpr(rl);
    let (lo, hi) = product(cx, ty, a, b, signed);
    cx.set_gpr(rl, lo);
    cx.set_gpr(rh, hi);
    cx.set_cc_res(if signed { cc::SMUL } else { cc::UMUL }, ty, a, b, NO, lo);
}

/// Whether `hi` is known to be the extension of `lo`.
fn extended(cx: &Lifter, lo: Value, hi: Value, signed: bool) -> bool {
    if !signed {
        return cx.const_of(hi) == Some(0);
    }
    let bits = i64::from(cx.b.ty(lo).bits()) - 1;
    match cx.def(hi) {
        Some(d) => d.op == Op::Sar && d.a == lo && cx.const_of(d.b) == Some(bits),
        None => false,
    }
}

/// DIV and IDIV. Flags, which the manual leaves undefined, stay.
fn divide(cx: &mut Lifter, i: &Instruction, signed: bool) {
    let ty = cx.op_type(i, 0);
    let (rl, rh) = pair(ty);
    let (lo, hi) = (cx.gpr(rl), cx.gpr(rh));
    let narrow = ty != Type::I8 && extended(cx, lo, hi, signed);
    if ty == Type::I64 && !narrow {
        let d = cx.read_op(i, 0);
        cx.call(if signed { helper::IDIV128 } else { helper::DIV128 }, &[d]);
        return;
    }
    let d = cx.read_op(i, 0);
    let bad = div_check(cx, ty, d, narrow, signed).2;
    cx.raise_if(bad, exc::DE, 0);
    // Values are gone: once more. A divisor in memory may have changed since the check.
    let d = cx.read_op(i, 0);
    let (n, mut dd, bad) = div_check(cx, ty, d, narrow, signed);
    if i.op_kind(0) == OpKind::Memory {
        let wide = cx.b.ty(dd);
        let one = cx.iconst(wide, 1);
        dd = cx.select(bad, one, dd);
    }
    let wide = cx.b.ty(n);
    let (dop, rop) = if signed { (Op::SDiv, Op::SRem) } else { (Op::UDiv, Op::URem) };
    let q = cx.bin(dop, wide, n, dd);
    let r = cx.bin(rop, wide, n, dd);
    let q = cx.trunc(ty, q);
    let r = cx.trunc(ty, r);
    cx.set_gpr(rl, q);
    cx.set_gpr(rh, r);
}

/// Dividend and divisor at the width to divide in, and whether the division raises #DE.
fn div_check(cx: &mut Lifter, ty: Type, d: Value, narrow: bool, signed: bool) -> (Value, Value, Value) {
    let (rl, rh) = pair(ty);
    let (lo, hi) = (cx.gpr(rl), cx.gpr(rh));
    if narrow {
        let zero = cx.icmpi(Cond::Eq, d, 0);
        if !signed {
            return (lo, d, zero);
        }
        let min = cx.icmpi(Cond::Eq, lo, i64::MIN >> (64 - ty.bits()));
        let m1 = cx.icmpi(Cond::Eq, d, -1);
        let over = cx.bin(Op::And, Type::I8, min, m1);
        let bad = cx.bin(Op::Or, Type::I8, zero, over);
        return (lo, d, bad);
    }
    let wide = Type::int(ty.bytes() * 2);
    let l = cx.zext(wide, lo);
    let h = cx.zext(wide, hi);
    let h = cx.bini(Op::Shl, wide, h, i64::from(ty.bits()));
    let n = cx.bin(Op::Or, wide, h, l);
    if !signed {
        let bad = cx.icmp(Cond::Uge, hi, d);
        let d = cx.zext(wide, d);
        return (n, d, bad);
    }
    let d = cx.sext(wide, d);
    let zero = cx.icmpi(Cond::Eq, d, 0);
    let m1 = cx.icmpi(Cond::Eq, d, -1);
    let min = cx.icmpi(Cond::Eq, n, i64::MIN >> (64 - wide.bits()));
    let over = cx.bin(Op::And, Type::I8, min, m1);
    let bad = cx.bin(Op::Or, Type::I8, zero, over);
    let one = cx.iconst(wide, 1);
    let safe = cx.select(bad, one, d);
    let q = cx.bin(Op::SDiv, wide, n, safe);
    let t = cx.trunc(ty, q);
    let t = cx.sext(wide, t);
    let over = cx.icmp(Cond::Ne, t, q);
    let bad = cx.bin(Op::Or, Type::I8, bad, over);
    (n, safe, bad)
}

fn cmpxchg(cx: &mut Lifter, i: &Instruction) {
    let src = cx.gpr(i.op_register(1));
    let ty = cx.b.ty(src);
    let acc = pair(ty).0;
    let a = cx.gpr(acc);
    let rax = cx.gpr64(Register::RAX);
    let d = cx.dest(i);
    let old;
    match d {
        Loc::Mem(at, _) => {
            if locked(i) {
                old = cx.cas(ty, at, a, src);
            } else {
                old = cx.load(ty, at);
                let eq = cx.icmp(Cond::Eq, a, old);
                let v = cx.select(eq, src, old);
                cx.store(ty, at, v);
            }
            let eq = cx.icmp(Cond::Eq, a, old);
            keep_or_set(cx, acc, ty, eq, rax, old);
        }
        Loc::Reg(r) => {
            // On failure the destination is not written at all, not even zero-extended.
            old = cx.gpr(r);
            let full_old = cx.gpr64(r);
            let eq = cx.icmp(Cond::Eq, a, old);
            keep_or_set(cx, acc, ty, eq, rax, old);
            if ty == Type::I32 {
                let new = cx.zext(Type::I64, src);
                let v = cx.select(eq, new, full_old);
                cx.put(evm_cpu::gpr(full(r)), v);
            } else if full(r) != 0 || r == Register::AH {
                let v = cx.select(eq, src, old);
                cx.set_gpr(r, v);
            } else {
                cx.set_gpr(r, src);
            }
        }
    }
    cx.set_cc(cc::SUB, ty, a, old, NO);
}

/// `acc = eq ? acc : old`; RAX stays whole if equal.
fn keep_or_set(cx: &mut Lifter, acc: Register, ty: Type, eq: Value, rax: Value, old: Value) {
    if ty == Type::I32 {
        let z = cx.zext(Type::I64, old);
        let v = cx.select(eq, rax, z);
        cx.put(evm_cpu::slot::RAX, v);
    } else {
        // Equal means the same value at this width.
        cx.set_gpr(acc, old);
    }
}

/// Replace ZF, keep the other flags.
fn set_zf(cx: &mut Lifter, eq: Value) {
    let all = cx.all_flags();
    let rest = cx.bini(Op::And, Type::I64, all, !(cc::ZF as i64));
    let z = cx.zext(Type::I64, eq);
    let z = cx.bini(Op::Shl, Type::I64, z, 6);
    let f = cx.bin(Op::Or, Type::I64, rest, z);
    cx.set_flags(f);
}

fn cmpxchg8b(cx: &mut Lifter, i: &Instruction) {
    let join = |cx: &mut Lifter, lo: Register, hi: Register| {
        let (l, h) = (cx.gpr(lo), cx.gpr(hi));
        let (l, h) = (cx.zext(Type::I64, l), cx.zext(Type::I64, h));
        let h = cx.bini(Op::Shl, Type::I64, h, 32);
        cx.bin(Op::Or, Type::I64, h, l)
    };
    let want = join(cx, Register::EAX, Register::EDX);
    let new = join(cx, Register::EBX, Register::ECX);
    let (rax, rdx) = (cx.gpr64(Register::RAX), cx.gpr64(Register::RDX));
    let at = cx.addr(i);
    let old = if locked(i) {
        cx.cas(Type::I64, at, want, new)
    } else {
        let old = cx.load(Type::I64, at);
        let eq = cx.icmp(Cond::Eq, want, old);
        let v = cx.select(eq, new, old);
        cx.store(Type::I64, at, v);
        old
    };
    let eq = cx.icmp(Cond::Eq, old, want);
    let lo = cx.trunc(Type::I32, old);
    let lo = cx.zext(Type::I64, lo);
    let hi = cx.bini(Op::Shr, Type::I64, old, 32);
    let lo = cx.select(eq, rax, lo);
    let hi = cx.select(eq, rdx, hi);
    cx.put(evm_cpu::slot::RAX, lo);
    cx.put(evm_cpu::slot::RDX, hi);
    set_zf(cx, eq);
}

fn cmpxchg16b(cx: &mut Lifter, i: &Instruction) {
    let at = cx.addr(i);
    let at = cx.flat(at);
    let low = cx.bini(Op::And, Type::I64, at, 15);
    let bad = cx.icmpi(Cond::Ne, low, 0);
    cx.raise_if(bad, exc::GP, 0);
    let join = |cx: &mut Lifter, lo: Register, hi: Register| {
        let (l, h) = (cx.gpr(lo), cx.gpr(hi));
        let v = cx.b.push(Op::Splat, Type::I64X2, l, NO, NO, 0);
        cx.b.insert(Type::I64X2, v, 1, h)
    };
    let want = join(cx, Register::RAX, Register::RDX);
    let new = join(cx, Register::RBX, Register::RCX);
    let (wl, wh) = (cx.gpr(Register::RAX), cx.gpr(Register::RDX));
    let at = cx.addr(i);
    let old = cx.cas(Type::V128, at, want, new);
    let lo = cx.b.extract(Type::I64X2, old, 0);
    let hi = cx.b.extract(Type::I64X2, old, 1);
    let (e1, e2) = (cx.icmp(Cond::Eq, lo, wl), cx.icmp(Cond::Eq, hi, wh));
    let eq = cx.bin(Op::And, Type::I8, e1, e2);
    cx.set_gpr(Register::RAX, lo);
    cx.set_gpr(Register::RDX, hi);
    set_zf(cx, eq);
}
