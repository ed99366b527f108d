//! Functions that each module has for itself: what is too long to stand at each place, and is seldom needed.

use super::abi::WasmAbi;
use super::emit::{Body, Sym, at};
use super::special::{self, Arith};
use evm_memory::perm;
use wasm_encoder::ValType;
use wasm_encoder::ValType::{F32, F64, I32, I64, V128};

/// A function of the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Intern {
    /// A region's type: run the region at `pc` if the table has it, else return `pc`.
    Jump,
    /// High half of the unsigned product.
    MulHiU,
    /// High half of the signed product.
    MulHiS,
    /// `(cpu, a, b, r: v128) -> v128`: what arithmetic on floats, or else doubles, gives for operands `a` and `b` and WebAssembly's result `r`.
    /// With one operand `b` is `a`.
    Special(Arith, bool),
    /// `(cpu, a: v128) -> v128`: what counts of an operand that is floats, or else doubles.
    Counted(bool),
    /// `(cpu, a: f64, r: f32) -> f32`: what a conversion gives, for WebAssembly's result `r`.
    Demoted,
    /// `(cpu, a: f32) -> f64`: the other one.
    Promoted,
    /// `(cpu)`: raise the invalid flag.
    Invalid,
    /// As [`Import::Access`](super::abi::Import::Access), which it calls if the range has more than two pages or may not be accessed.
    Access,
    /// `(cpu, addr: i64, place: i32, what: i32) -> i32`: `place`, which is not 0, if an access may not be made, else 0. `what` is twice
    /// its length, and 1 more if it writes.
    Refused,
    /// `(cpu, next: i64, ret: i64, left: i32) -> i64`: as [`Import::Resume`](super::abi::Import::Resume), but `next` if no stack was left
    /// for what was called.
    Back,
}

impl Intern {
    /// Parameters and result.
    pub fn signature(self) -> (Vec<ValType>, Vec<ValType>) {
        match self {
            Intern::Jump => (vec![I32, I64], vec![I64]),
            Intern::MulHiU | Intern::MulHiS => (vec![I64, I64], vec![I64]),
            Intern::Special(..) => (vec![I32, V128, V128, V128], vec![V128]),
            Intern::Counted(_) => (vec![I32, V128], vec![V128]),
            Intern::Demoted => (vec![I32, F64, F32], vec![F32]),
            Intern::Promoted => (vec![I32, F32], vec![F64]),
            Intern::Invalid => (vec![I32], vec![]),
            Intern::Access => super::abi::Import::Access.signature(),
            Intern::Refused => (vec![I32, I64, I32, I32], vec![I32]),
            Intern::Back => (vec![I32, I64, I64, I32], vec![I64]),
        }
    }
    /// The function.
    pub fn body(self, abi: &WasmAbi, tail_calls: bool) -> Body {
        let mut b = Body::default();
        match self {
            Intern::Jump => jump(&mut b, abi, tail_calls),
            Intern::MulHiU => high_product(&mut b, false),
            Intern::MulHiS => high_product(&mut b, true),
            Intern::Special(op, single) => special::arithmetic(&mut b, abi, op, single),
            Intern::Counted(single) => special::counted(&mut b, abi, single),
            Intern::Demoted => special::demoted(&mut b, abi),
            Intern::Promoted => special::promoted(&mut b, abi),
            Intern::Invalid => special::raise(&mut b, abi, special::IE),
            Intern::Access => access(&mut b, abi),
            Intern::Refused => refused(&mut b),
            Intern::Back => back(&mut b),
        }
        b.ins().end();
        b
    }
}

/// Leave what `pc` (local 1) has in the table of entry points on the stack: its function's number, or 0.
fn look_up(b: &mut Body, abi: &WasmAbi, word: u32) {
    b.load32(abi.ibtc);
    b.ins().local_get(1).i32_wrap_i64().i32_const(0xffff).i32_and().i32_const(3).i32_shl().i32_add();
    b.ins().i64_load(at(0)).local_tee(word).i32_wrap_i64().i32_const(0);
    b.ins().local_get(word).i64_const(32).i64_shr_u().local_get(1).i64_const(16).i64_shr_u().i64_eq().select();
}

fn jump(b: &mut Body, abi: &WasmAbi, tail_calls: bool) {
    b.locals.extend([I64, I32]);
    let (word, left) = (2, 3);
    if tail_calls {
        b.ins().local_get(0).local_get(1);
        look_up(b, abi, word);
        b.call_indirect(true);
        return;
    }
    // A call in place of a jump: as long as there is stack for it.
    b.load32(abi.depth);
    b.ins().i32_const(super::exits::JUMP_FRAME).i32_sub().local_tee(left).i32_const(0).i32_lt_s();
    b.if_();
    b.ins().local_get(1).return_();
    b.end();
    b.ins().local_get(0).local_get(left).i32_store(at(abi.depth));
    b.ins().local_get(0).local_get(1);
    look_up(b, abi, word);
    b.call_indirect(false);
    b.ins().local_get(0).local_get(left).i32_const(super::exits::JUMP_FRAME).i32_add().i32_store(at(abi.depth));
}

/// Whether the range's first and last page allow the access.
fn access(b: &mut Body, abi: &WasmAbi) {
    let (addr, len, write) = (1, 2, 3);
    b.locals.extend([I64, I32, I32]);
    let (last, first, second) = (4, 5, 6);
    let elsewhere = b.block();
    b.ins().local_get(addr).local_get(len).i64_add().i64_const(1).i64_sub().local_set(last);
    for at in [addr, last] {
        b.ins().local_get(at);
        b.load64(abi.mem_limit);
        b.ins().i64_ge_u();
        b.br_if(elsewhere);
    }
    b.ins().local_get(last).local_get(addr).i64_sub().i64_const(i64::from(evm_memory::PAGE as u32)).i64_ge_u();
    b.br_if(elsewhere);
    for (at, page) in [(addr, first), (last, second)] {
        b.load32(abi.perms);
        b.ins()
            .local_get(at)
            .i64_const(12)
            .i64_shr_u()
            .i32_wrap_i64()
            .i32_add()
            .i32_load8_u(super::emit::at(0))
            .local_set(page);
    }
    // Of a page with translations only reading is plain.
    let (r, w, code) = (i32::from(perm::READ), i32::from(perm::WRITE), i32::from(perm::CODE));
    b.ins().local_get(first).local_get(second).i32_and().i32_const(w).i32_const(r).local_get(write).select().i32_and();
    b.ins().i32_eqz();
    b.br_if(elsewhere);
    b.ins().local_get(first).local_get(second).i32_or().i32_const(code).i32_and();
    b.ins().i32_const(0).local_get(write).select();
    b.br_if(elsewhere);
    b.ins().i32_const(1).return_();
    b.end();
    b.ins().local_get(0).local_get(addr).local_get(len).local_get(write);
    b.call(Sym::Import(super::abi::Import::Access));
}

fn refused(b: &mut Body) {
    let (addr, place, what) = (1, 2, 3);
    b.ins().i32_const(0).local_get(place).local_get(0).local_get(addr);
    b.ins().local_get(what).i32_const(1).i32_shr_u().i64_extend_i32_u();
    b.ins().local_get(what).i32_const(1).i32_and();
    b.call(Sym::Intern(Intern::Access));
    b.ins().select();
}

fn back(b: &mut Body) {
    let (next, ret, left) = (1, 2, 3);
    b.ins().local_get(left).i32_const(0).i32_lt_s();
    b.if_();
    b.ins().local_get(next).return_();
    b.end();
    b.ins().local_get(0).local_get(next).local_get(ret);
    b.call(Sym::Import(super::abi::Import::Resume));
}

/// By four products of 32-bit halves.
fn high_product(b: &mut Body, signed: bool) {
    b.locals.extend([I64; 5]);
    let (al, ah, bl, bh, t) = (2, 3, 4, 5, 6);
    for (v, lo, hi) in [(0, al, ah), (1, bl, bh)] {
        b.ins().local_get(v).i64_const(0xffff_ffff).i64_and().local_set(lo);
        b.ins().local_get(v).i64_const(32).i64_shr_u().local_set(hi);
    }
    // t = ah * bl + (al * bl >> 32)
    b.ins().local_get(ah).local_get(bl).i64_mul();
    b.ins().local_get(al).local_get(bl).i64_mul().i64_const(32).i64_shr_u().i64_add().local_set(t);
    // ah * bh + (t >> 32) + ((al * bh + (t & mask)) >> 32)
    b.ins().local_get(ah).local_get(bh).i64_mul().local_get(t).i64_const(32).i64_shr_u().i64_add();
    b.ins().local_get(al).local_get(bh).i64_mul().local_get(t).i64_const(0xffff_ffff).i64_and().i64_add();
    b.ins().i64_const(32).i64_shr_u().i64_add();
    if signed {
        for (v, other) in [(0, 1), (1, 0)] {
            b.ins().local_get(v).i64_const(63).i64_shr_s().local_get(other).i64_and().i64_sub();
        }
    }
}
