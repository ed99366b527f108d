//! A plain evaluator of regions, promoted ones included, written for likeness to the definition of the IR.
//! The tests compare prepared code with it.

use super::{Exit, scalar, vector};
use crate::abi::MISALIGNED;
use evm_ir::*;
use evm_memory::{Fault, Mem};

/// What a region runs on.
pub struct World<'a> {
    pub state: &'a mut [u8],
    pub mem: Mem,
    pub helpers: &'a [HelperFn],
    pub pending: usize,
}

fn read(state: &[u8], info: &SlotInfo) -> u128 {
    let n = info.ty.bytes() as usize;
    let mut b = [0u8; 16];
    b[..n].copy_from_slice(&state[info.offset as usize..][..n]);
    u128::from_le_bytes(b)
}
fn write(state: &mut [u8], info: &SlotInfo, v: u128) {
    let n = info.ty.bytes() as usize;
    state[info.offset as usize..][..n].copy_from_slice(&v.to_le_bytes()[..n]);
}

/// Run from an entry. In a promoted region promotable slots are variables that begin as garbage.
pub fn eval(r: &Region, entry: usize, w: &mut World<'_>) -> Exit {
    eval_until(r, entry, w, &mut |_, _, _| false)
}

/// The same until a function of the place of an instruction (its guest address, and whether a block starts there) and the state
/// says so: ends as if by a poll.
pub fn eval_until(r: &Region, entry: usize, w: &mut World<'_>, stop: &mut dyn FnMut(u64, bool, &[u8]) -> bool) -> Exit {
    let promoted = r.blocks.iter().any(|b| b.insts.iter().any(|i| matches!(i.op, Op::Fill | Op::Spill)));
    let mut vars = vec![0x5555_5555_5555_5555_5555_5555_5555_5555u128; r.layout.slots.len()];
    let mut values = vec![0u128; r.types.len()];
    let mut at = r.entries[entry];
    let mut pc;
    loop {
        let b = &r.blocks[at.0 as usize];
        pc = b.pc;
        if stop(pc, true, w.state) {
            return Exit::Poll { pc };
        }
        for i in &b.insts {
            if i.op == Op::Marker {
                pc = i.imm as u64;
                if stop(pc, false, w.state) {
                    return Exit::Poll { pc };
                }
                continue;
            }
            if i.op == Op::Keep {
                continue;
            }
            if let Op::Fill | Op::Spill = i.op {
                for s in r.slot_sets[i.imm as usize].iter() {
                    let info = r.layout.get(s);
                    if i.op == Op::Fill {
                        vars[s.0 as usize] = read(w.state, info);
                    } else {
                        write(w.state, info, vars[s.0 as usize]);
                    }
                }
                continue;
            }
            let result = match i.op {
                Op::Get | Op::Put => {
                    let info = r.layout.get(Slot(i.imm as u16));
                    let var = promoted && info.promote;
                    if i.op == Op::Put {
                        let v = values[i.a.0 as usize];
                        if var {
                            vars[i.imm as usize] = v
                        } else {
                            write(w.state, info, v)
                        }
                        continue;
                    }
                    Ok(Some(if var { vars[i.imm as usize] } else { read(w.state, info) }))
                }
                Op::Call => {
                    let c = &r.calls[i.imm as usize];
                    let sig = r.helpers[usize::from(c.helper)];
                    let (mut ints, mut vecs) = ([0; 4], [0; 3]);
                    for (n, v) in c.args.iter().enumerate() {
                        let x = values[v.0 as usize];
                        match n.checked_sub(usize::from(sig.ints)) {
                            None => ints[n] = x as u64,
                            Some(n) => vecs[n] = x,
                        }
                    }
                    // SAFETY: the helpers of the tests take this state.
                    let v = unsafe { w.helpers[usize::from(c.helper)].call(w.state.as_mut_ptr(), &ints, &vecs) };
                    if sig.raises && w.state[w.pending..][..8] != [0; 8] {
                        return Exit::Pending { pc };
                    }
                    Ok(Some(v))
                }
                _ => operation(r, i, &values, w.mem),
            };
            match result {
                Ok(Some(v)) if i.dst.is_some() => values[i.dst.0 as usize] = v,
                Ok(_) => {}
                Err(fault) => return Exit::Fault { pc, fault },
            }
        }
        let v = |v: &Value| values[v.0 as usize] as u64;
        at = match &b.term {
            Term::Jump(b) => *b,
            Term::Br(c, x, y) => {
                if v(c) != 0 {
                    *x
                } else {
                    *y
                }
            }
            Term::Switch(n, table, default) => {
                *usize::try_from(v(n)).ok().and_then(|n| table.get(n)).unwrap_or(default)
            }
            Term::Exit(x) => return Exit::Jump { pc: v(x) },
            Term::Return(x) => return Exit::Return { pc: v(x) },
            Term::Call { target, ret, .. } => {
                return Exit::Call { target: v(target), ret: *ret };
            }
            Term::Service { code, pc, next, .. } => {
                return Exit::Service { code: *code, pc: *pc, next: *next };
            }
            Term::Raise { code, arg, pc } => {
                return Exit::Raise { code: *code, arg: *arg, pc: *pc };
            }
        };
    }
}

fn operation(r: &Region, i: &Inst, values: &[u128], m: Mem) -> Result<Option<u128>, Fault> {
    let v = |x: Value| if x.is_some() { values[x.0 as usize] } else { 0 };
    let (wa, wb, wc) = (v(i.a), v(i.b), v(i.c));
    let (a, b, c) = (wa as u64, wb as u64, wc as u64);
    let (ty, n) = (i.ty, u64::from(i.ty.bytes()));
    let at = a.wrapping_add(i.imm as u64);
    let cell = |x: u64| Ok(Some(u128::from(x)));
    let vec = |x: u128| Ok(Some(x));
    let fcond = FCond::ALL[(i.imm as usize).min(7)];
    match i.op.sig() {
        Sig::Const => cell(i.imm as u64 & scalar::mask(ty)),
        Sig::VConst => vec(r.pool[i.imm as usize]),
        Sig::Un if ty.is_shape() => vec(vector::un(i.op, ty).unwrap()(wa)),
        Sig::Un => cell(scalar::un(i.op, ty).unwrap()(a)),
        Sig::Bin if n == 16 => vec(vector::bin(i.op, ty).unwrap()(wa, wb)),
        Sig::Bin => cell(scalar::bin(i.op, ty).unwrap()(a, b)),
        Sig::Cmp => {
            let sx = |x: u64| (x << (64 - ty.bits())) as i64 >> (64 - ty.bits());
            let (sa, sb) = (sx(a), sx(b));
            cell(u64::from(match Cond::ALL[i.imm as usize] {
                Cond::Eq => a == b,
                Cond::Ne => a != b,
                Cond::Ult => a < b,
                Cond::Ule => a <= b,
                Cond::Ugt => a > b,
                Cond::Uge => a >= b,
                Cond::Slt => sa < sb,
                Cond::Sle => sa <= sb,
                Cond::Sgt => sa > sb,
                Cond::Sge => sa >= sb,
            }))
        }
        Sig::FCmp if i.op == Op::FComi => cell(scalar::fcomi(fcond, ty).unwrap()(a, b)),
        Sig::FCmp => cell(scalar::fcmp(fcond, ty).unwrap()(a, b)),
        Sig::VFCmp => vec(vector::fcmp(fcond, ty).unwrap()(wa, wb)),
        Sig::Select => vec(if a != 0 { wb } else { wc }),
        Sig::VSelect => vec(wa & wb | !wa & wc),
        Sig::Conv => match i.op {
            Op::Zext | Op::Bitcast => cell(a),
            Op::Trunc => cell(a & scalar::mask(ty)),
            _ => cell(scalar::conv(i.op, Type::ALL[i.imm as usize], ty).unwrap()(a)),
        },
        Sig::Align if i.op == Op::Whole => m.whole(a, i.imm as u64).map(|()| None),
        Sig::Align if a & (i.imm as u64 - 1) != 0 => Err(Fault { addr: MISALIGNED, write: false }),
        Sig::Align => Ok(None),
        Sig::Load if n == 16 => m.load128(at).map(Some),
        Sig::Load => m.load(at, n).map(|x| Some(u128::from(x))),
        Sig::Store if n == 16 => m.store128(at, wb).map(|()| None),
        Sig::Store => m.store(at, n, b).map(|()| None),
        Sig::Rmw => match i.op {
            Op::AtomicAdd => m.fetch_add(at, n, b),
            Op::AtomicAnd => m.fetch_and(at, n, b),
            Op::AtomicOr => m.fetch_or(at, n, b),
            Op::AtomicXor => m.fetch_xor(at, n, b),
            _ => m.swap(at, n, b),
        }
        .map(|x| Some(u128::from(x))),
        Sig::Cas if n == 16 => m.cas128(at, wb, wc).map(Some),
        Sig::Cas => m.cas(at, n, b, c).map(|x| Some(u128::from(x))),
        Sig::Extract => cell(vector::extract(ty)(wa, i.imm as u32)),
        Sig::Insert => vec(vector::insert(ty)(wa, b, i.imm as u32)),
        Sig::Splat => vec(vector::splat(ty)(a)),
        Sig::VShift => vec(vector::shift(i.op, ty).unwrap()(wa, b, 0)),
        Sig::Shuffle => vec(vector::shuffle(wa, wb, r.pool[i.imm as usize])),
        Sig::VMask => cell(vector::mask(ty)(wa, 0)),
        _ => Ok(None),
    }
}
