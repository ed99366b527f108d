//! MMX instructions that are not packed operations: transfers to and from XMM, and non-temporal stores.

use super::{Done, Vector, moves};
use evm_ir::Type::*;
use iced_x86::Mnemonic as M;

/// Translate an MMX instruction.
pub(super) fn lift(v: &mut Vector) -> Done {
    match v.i.mnemonic() {
        M::Movq2dq => {
            let x = v.src(1, 0);
            v.enter_mmx();
            v.cx.set_xmm(v.reg(0), x);
        }
        M::Movdq2q => {
            let x = v.src(1, 0);
            let x = v.cx.b.extract(I64X2, x, 0);
            v.set_mm(v.reg(0), x);
        }
        M::Movntq => {
            let x = v.src(1, 0);
            let x = v.cx.b.extract(I64X2, x, 0);
            v.wait_mmx();
            let a = v.addr();
            v.cx.store(I64, a, x);
            v.enter_mmx();
        }
        M::Maskmovq => {
            let (x, m) = (v.src(1, 0), v.src(2, 0));
            v.enter_mmx();
            moves::maskmov(v, x, m);
        }
        _ => return Ok(false),
    }
    Ok(true)
}
