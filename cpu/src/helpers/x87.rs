//! x87 helpers: each operation runs on the host's x87 under the guest's control word (`unit`), so results,
//! precision and rounding control, and exception flags are those of the hardware. On hosts without one, `evm-fpu` does it.
//!
//! The guest's stack lives in `CpuState`: `fpr` are the physical registers, `ftw` has 0 for a register
//! in use and 3 for an empty one (full tags are computed when the environment is stored). On the
//! host's stack there is something only inside one assembly block, which leaves it empty and under the
//! default control word.
//!
//! * Stack faults are found here, before the operation: IE and SF, C1 tells which, and the default
//!   NaN as the result if IE is masked.
//! * An operation with an unmasked exception runs unmasked on the host by non-waiting
//!   instructions, so what is (or is not) written is right. ES is then set and the next waiting
//!   instruction raises #MF. One exception: a *store* with an unmasked exception raises #MF at
//!   once, because the memory access is not done here.
//! * A store to memory is done before memory is written, as far as the x87 state is concerned, and `x87_undo` says how to take it
//!   back: the lifted code clears that word after its store.
//! * On x86-64 hosts compiled code keeps the state in the host's unit ([`super::x87_live`]); every helper here puts it
//!   at rest first.
//! * The last instruction's address (`fip`) is put by the lifted code behind each instruction but those of control. Opcode and
//!   operand (`fop`, `fdp`) are those of the last that had an unmasked exception, as the CPU model's CPUID says (FDP_EXCPTN_ONLY):
//!   helpers are told where the instruction and its operand are ([`Running`]).
//!
//! # Safety
//! See the parent module.
#![allow(unsafe_code)]

use super::sse::Lanes;
use super::state;
use crate::{CpuState, exc};
use evm_ir::Vector as __m128i;

#[cfg(not(target_arch = "x86_64"))]
#[path = "unit/x87_portable.rs"]
mod unit;
#[cfg(target_arch = "x86_64")]
#[path = "unit/x87_x86.rs"]
mod unit;

type S = *mut u8;

helpers! { super::sse::BASE + super::sse::FNS.len();
    X87_FLD "x87_fld" I3(x87_fld) Private true;
    X87_FLD80 "x87_fld80" I4(x87_fld80) Private true;
    X87_FLD_ST "x87_fld_st" I1(x87_fld_st) Private true;
    X87_FBLD "x87_fbld" I4(x87_fbld) Private true;
    X87_FLDC "x87_fldc" I1(x87_fldc) Private true;
    X87_FST "x87_fst" I3_R(x87_fst) Private true;
    X87_FST80 "x87_fst80" I3_V(x87_fst80) Private true;
    X87_FBST "x87_fbst" I3_V(x87_fbst) Private true;
    X87_FST_ST "x87_fst_st" I1(x87_fst_st) Private true;
    X87_ARITH "x87_arith" I1(x87_arith) Private true;
    X87_ARITH_MEM "x87_arith_mem" I3(x87_arith_mem) Private true;
    X87_COM "x87_com" I1(x87_com) Private true;
    X87_COM_MEM "x87_com_mem" I3(x87_com_mem) Private true;
    X87_COMI "x87_comi" I1_R(x87_comi) Private true;
    X87_UNARY "x87_unary" I1(x87_unary) Private true;
    X87_FXCH "x87_fxch" I1(x87_fxch) Private true;
    X87_FREE "x87_free" I1(x87_free) Private true;
    X87_TOP "x87_top" I1(x87_top) Private true;
    X87_CMOV "x87_cmov" I2(x87_cmov) Private true;
    X87_INIT "x87_init" I0(x87_init) Private false;
    X87_CLEAR "x87_clear" I0(x87_clear) Private false;
    X87_STATUS "x87_status" I0_R(x87_status) Private false;
    X87_REST "x87_rest" I0(x87_rest) Private false;
    X87_EMMS "x87_emms" I0(x87_emms) Private true;
    X87_LDCW "x87_ldcw" I1(x87_ldcw) Private true;
    MMX_PUT "mmx_put" I2(mmx_put) Private true;
    MMX_ENTER "mmx_enter" I0(mmx_enter) Private true;
}

const IE: u16 = 1;
/// IE, DE, ZE: found before the result is computed.
const PRE: u16 = 7;
const PE: u16 = 0x20;
pub(super) const SF: u16 = 0x40;
const C0: u16 = 0x100;
const C1: u16 = 0x200;
const C2: u16 = 0x400;
const C3: u16 = 0x4000;
const CODES: u16 = C0 | C1 | C2 | C3;
/// The control word that Rust code runs under.
const DEFAULT: u16 = 0x37f;
/// "Real indefinite", the default NaN.
const QNAN: u128 = 0xffff_c000_0000_0000_0000;
const MASK80: u128 = (1 << 80) - 1;

/// `x87_undo` from this bit on says whose it is: 0 nobody's (the rest means nothing), 1 a helper's, which has the status word
/// in bits 0-15 and the tag word in 16-31, 256 a leaf's, which has the status word alone.
pub(super) const UNDO: u32 = 48;

/// How an operation runs: the guest's control word, and whether the guest has seen an inexact result already. The host's
/// status word may keep PE (clearing it costs more than an addition), but only where the guest has it as well.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct Mode {
    cw: u16,
    inexact: bool,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Mode {
    const EXACT: Mode = Mode { cw: DEFAULT, inexact: true };
    /// All exceptions are masked.
    fn is_masked(self) -> bool {
        self.cw & 0x3f == 0x3f
    }
}

impl CpuState {
    fn top(&self) -> usize {
        usize::from(self.fsw >> 11 & 7)
    }
    fn set_top(&mut self, t: usize) {
        self.fsw = self.fsw & !0x3800 | (t as u16 & 7) << 11;
    }
    fn phys(&self, i: u64) -> usize {
        (self.top() + i as usize) & 7
    }
    fn empty(&self, i: u64) -> bool {
        self.ftw >> (2 * self.phys(i)) & 3 == 3
    }
    fn st(&self, i: u64) -> u128 {
        unit::load80(self.reg(i))
    }
    fn reg(&self, i: u64) -> &u128 {
        &self.fpr[self.phys(i)]
    }
    fn mode(&self) -> Mode {
        Mode { cw: self.fcw, inexact: self.fsw & PE != 0 }
    }
    fn set_st(&mut self, i: u64, v: u128) {
        let p = self.phys(i);
        self.fpr[p] = v & MASK80;
        self.ftw &= !(3 << (2 * p));
    }
    fn pop(&mut self) {
        let p = self.top();
        self.ftw |= 3 << (2 * p);
        self.set_top(p + 1);
    }
    /// A waiting instruction begins: whether it must not go on because #MF is pending.
    fn wait(&mut self) -> bool {
        if self.fsw & 0x80 != 0 {
            self.raise(exc::MF, 0);
            return true;
        }
        false
    }
    /// ES and B follow from flags and masks.
    fn update_es(&mut self) {
        if self.fsw & !self.fcw & 0x3f != 0 {
            self.fsw |= 0x8080;
        } else {
            self.fsw &= !0x8080;
        }
    }
    /// Take exception flags and C1 from the host's status word; whether results are to be written.
    fn merge(&mut self, sw: u16) -> bool {
        self.fsw = self.fsw & !C1 | sw & (0x3f | C1);
        if sw & !self.fcw & 0x3f == 0 {
            return true;
        }
        self.update_es();
        sw & !self.fcw & PRE == 0
    }
    /// Stack overflow or underflow; whether it is masked.
    fn stack_fault(&mut self, overflow: bool) -> bool {
        self.fsw = self.fsw & !C1 | IE | SF | if overflow { C1 } else { 0 };
        if self.fcw & IE == 0 {
            self.update_es();
            return false;
        }
        true
    }
    /// Push; the default NaN on overflow.
    fn push(&mut self, v: u128) {
        let v = if self.empty(7) {
            v
        } else if self.stack_fault(true) {
            QNAN
        } else {
            return;
        };
        self.push_over(v);
    }
    /// Push, whether or not the register is empty.
    fn push_over(&mut self, v: u128) {
        self.set_top(self.top() + 7);
        self.set_st(0, v);
    }
}

/// The state, unless #MF is pending: then return.
macro_rules! waiting {
    ($st:ident) => {
        waiting!($st, ())
    };
    ($st:ident, $ret:expr) => {{
        // SAFETY: the engine's pointer.
        let s = unsafe { state($st) };
        s.x87_settle();
        if s.wait() {
            return $ret;
        }
        s
    }};
}

/// The state while an instruction runs that may have an unmasked exception, which leaves its opcode and operand.
struct Running<'a> {
    s: &'a mut CpuState,
    /// Its address.
    pc: u64,
    operand: Option<u64>,
}

/// From this bit on, the argument of a helper that says what to do holds the instruction's address.
pub const PC: u32 = 16;
/// What is below.
pub(super) const FORM: u64 = (1 << PC) - 1;

/// The opcode of an x87 instruction as FOP has it: the low three bits of the first byte, and the second.
fn opcode(s: &CpuState, pc: u64) -> u16 {
    let byte = |k: u64| s.mem().read::<u8>(pc.wrapping_add(k)).unwrap_or(0);
    // In front there are prefixes only.
    let at = (0..15).find(|k| byte(*k) & 0xf8 == 0xd8).unwrap_or(0);
    u16::from(byte(at) & 7) << 8 | u16::from(byte(at + 1))
}

impl std::ops::Deref for Running<'_> {
    type Target = CpuState;
    fn deref(&self) -> &CpuState {
        self.s
    }
}
impl std::ops::DerefMut for Running<'_> {
    fn deref_mut(&mut self) -> &mut CpuState {
        self.s
    }
}
impl Running<'_> {
    /// Leave out the rest of the instruction, which ends at `next`.
    fn skip(&mut self, next: u64) {
        self.fip = self.pc;
        self.raise(exc::SKIP, next);
    }
}
impl Drop for Running<'_> {
    fn drop(&mut self) {
        // None was pending when it began.
        if self.s.fsw & 0x80 != 0 {
            self.s.fop = opcode(self.s, self.pc);
            self.s.fdp = self.operand.unwrap_or(self.s.fdp);
        }
    }
}

/// As `waiting!`, for an instruction `$what` (form and address) with the memory operand at `$at` if it has one.
macro_rules! running {
    ($st:ident, $what:ident $(, $at:ident)?) => {
        running!($st, $what $(, $at)?; ())
    };
    ($st:ident, $what:ident $(, $at:ident)?; $ret:expr) => {{
        let s = waiting!($st, $ret);
        let operand = [$($at)?].first().copied();
        Running { s, pc: $what >> PC, operand }
    }};
}

/// FLD m32/m64, FILD m16/m32/m64 (kinds 0, 1, 2, 3, 4).
pub(super) extern "C" fn x87_fld(st: S, what: u64, bits: u64, at: u64) {
    let mut s = running!(st, what, at);
    let kind = what & FORM;
    if !s.empty(7) {
        return s.push(0);
    }
    let (r, sw) = unit::load(s.mode(), kind, bits);
    s.merge(sw & !C1);
    // An unmasked denormal operand is loaded all the same.
    if sw & !s.fcw & IE == 0 {
        s.push(r);
    }
}

/// FLD m80.
pub(super) extern "C" fn x87_fld80(st: S, lo: u64, hi: u64, what: u64, at: u64) {
    let mut s = running!(st, what, at);
    s.fsw &= !C1;
    s.push(u128::from(lo) | u128::from(hi) << 64);
}

/// FLD ST(i).
pub(super) extern "C" fn x87_fld_st(st: S, what: u64) {
    let mut s = running!(st, what);
    let i = what & FORM;
    s.fsw &= !C1;
    if !s.empty(i) {
        let v = s.st(i);
        s.push(v);
    } else if s.stack_fault(false) {
        // Underflow goes before overflow.
        s.push_over(QNAN);
    }
}

/// FBLD.
pub(super) extern "C" fn x87_fbld(st: S, lo: u64, hi: u64, what: u64, at: u64) {
    let mut s = running!(st, what, at);
    s.fsw &= !C1;
    s.push(unit::load_decimal(u128::from(lo) | u128::from(hi) << 64));
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (0-6), rounded by the control word.
pub(super) extern "C" fn x87_fldc(st: S, what: u64) {
    let mut s = running!(st, what);
    s.fsw &= !C1;
    let r = unit::constant(s.mode(), what & FORM);
    s.push(r);
}

/// ST(0) as it is stored to memory; it is popped if `pop`. `make` gives the bits and the status word; `or` is what an empty
/// register stores. An unmasked exception stores nothing and pops nothing, and the next waiting instruction raises #MF: the rest
/// of this instruction, up to `next`, is left out.
fn store<T>(s: &mut Running, next: u64, pop: bool, or: T, make: impl FnOnce(Mode, &u128) -> (T, u16)) -> T {
    let undo = 1 << UNDO | u64::from(s.ftw) << 16 | u64::from(s.fsw);
    let r = if s.empty(0) {
        if !s.stack_fault(false) {
            s.skip(next);
            return or;
        }
        or
    } else {
        let (r, sw) = make(s.mode(), s.reg(0));
        s.merge(sw);
        if sw & !s.fcw & 0x1f != 0 {
            s.skip(next);
            return r;
        }
        r
    };
    if pop {
        s.pop();
    }
    s.x87_undo = undo;
    s.x87_before = [s.fop.into(), s.fdp];
    r
}

/// FST, FIST (kinds 0-4) and FISTTP (8 + kind); 16: popped. `next`: the address of the next instruction.
pub(super) extern "C" fn x87_fst(st: S, what: u64, next: u64, at: u64) -> u64 {
    let mut s = running!(st, what, at; 0);
    let form = what & FORM;
    let default = match form & 7 {
        0 => 0xffc0_0000,
        1 => 0xfff8_0000_0000_0000,
        2 => 0x8000,
        3 => 0x8000_0000,
        _ => 1 << 63,
    };
    store(&mut s, next, form & 16 != 0, default, |mode, a| unit::store(mode, form & 15, a))
}

/// FSTP m80.
pub(super) extern "C" fn x87_fst80(st: S, what: u64, next: u64, at: u64) -> __m128i {
    let mut s = running!(st, what, at; 0u128.reg());
    store(&mut s, next, true, QNAN, |_, a| (unit::load80(a), 0)).reg()
}

/// FBSTP.
pub(super) extern "C" fn x87_fbst(st: S, what: u64, next: u64, at: u64) -> __m128i {
    let mut s = running!(st, what, at; 0u128.reg());
    store(&mut s, next, true, QNAN, unit::store_decimal).reg()
}

/// FST ST(i), FSTP ST(i), FSTPNCE ST(i): `form` is i | pop << 3, pop being 0, 1 and 2.
pub(super) extern "C" fn x87_fst_st(st: S, what: u64) {
    let mut s = running!(st, what);
    let form = what & FORM;
    let (i, pop) = (form & 7, form >> 3);
    s.fsw &= !C1;
    if pop == 2 && s.empty(0) {
        // FSTPNCE: no exception, and nothing is copied.
        return s.pop();
    }
    let v = if s.empty(0) {
        if !s.stack_fault(false) {
            return;
        }
        QNAN
    } else {
        s.st(0)
    };
    s.set_st(i, v);
    if pop != 0 {
        s.pop();
    }
}

/// ST(d) = ST(d) op ST(b): `form` is op | d << 3 | b << 6 | pop << 9.
pub(super) extern "C" fn x87_arith(st: S, what: u64) {
    let mut s = running!(st, what);
    let form = what & FORM;
    let (op, d, b, pop) = (form & 7, form >> 3 & 7, form >> 6 & 7, form >> 9 & 1 != 0);
    let r = if s.empty(d) || s.empty(b) {
        if !s.stack_fault(false) {
            return;
        }
        QNAN
    } else {
        let (r, sw) = unit::arith(s.mode(), op, s.reg(d), s.reg(b));
        if !s.merge(sw) {
            return;
        }
        r
    };
    s.set_st(d, r);
    if pop {
        s.pop();
    }
}

/// ST(0) = ST(0) op memory: `form` is op | kind << 3 (kinds 0-3).
pub(super) extern "C" fn x87_arith_mem(st: S, what: u64, bits: u64, at: u64) {
    let mut s = running!(st, what, at);
    let form = what & FORM;
    let r = if s.empty(0) {
        if !s.stack_fault(false) {
            return;
        }
        QNAN
    } else {
        let Some((r, sw)) = unit::arith_mem(s.mode(), form & 31, s.reg(0), bits) else {
            return;
        };
        if !s.merge(sw) {
            return;
        }
        r
    };
    s.set_st(0, r);
}

/// The codes of a comparison of ST(0) with ST(i), and whether the stack is to be popped: an unmasked
/// exception writes the codes but does not pop.
fn com(s: &mut CpuState, form: u64) -> (u16, bool) {
    let i = form & 7;
    if s.empty(0) || s.empty(i) {
        return (C0 | C2 | C3, s.stack_fault(false));
    }
    let sw = unit::compare(s.mode(), form >> 5 & 1 != 0, s.reg(0), s.reg(i));
    (sw & (C0 | C2 | C3), s.merge(sw & !C1))
}

/// FCOM*, FUCOM*: `form` is i | pops << 3 | unordered << 5.
pub(super) extern "C" fn x87_com(st: S, what: u64) {
    let mut s = running!(st, what);
    let form = what & FORM;
    let (c, ok) = com(&mut s, form);
    s.fsw = s.fsw & !CODES | c;
    if ok {
        for _ in 0..form >> 3 & 3 {
            s.pop();
        }
    }
}

/// FCOMI*, FUCOMI*: gives ZF, PF, CF.
pub(super) extern "C" fn x87_comi(st: S, what: u64) -> u64 {
    let mut s = running!(st, what; 0);
    let form = what & FORM;
    // C1 stays, except that a stack fault clears it.
    let c1 = s.fsw & C1;
    let fault = s.empty(0) || s.empty(form & 7);
    let (c, ok) = com(&mut s, form);
    if !fault {
        s.fsw = s.fsw & !C1 | c1;
    }
    if ok {
        for _ in 0..form >> 3 & 3 {
            s.pop();
        }
    }
    u64::from(c >> 8 & 0x45)
}

/// FCOM m, FICOM m: `form` is kind | pops << 3.
pub(super) extern "C" fn x87_com_mem(st: S, what: u64, bits: u64, at: u64) {
    let mut s = running!(st, what, at);
    let form = what & FORM;
    let (kind, pops) = (form & 7, form >> 3);
    let (c, ok) = if s.empty(0) {
        (C0 | C2 | C3, s.stack_fault(false))
    } else {
        let sw = unit::compare_mem(s.mode(), kind, s.reg(0), bits);
        (sw, s.merge(sw & !C1))
    };
    s.fsw = s.fsw & !CODES | c & (C0 | C2 | C3);
    if ok && pops != 0 {
        s.pop();
    }
}

/// The instructions D9 E0 … D9 FF that work on ST(0) (and ST(1)), by their second byte.
pub(super) extern "C" fn x87_unary(st: S, what: u64) {
    let mut s = running!(st, what);
    let code = what & FORM;
    if code == 0xe5 && s.empty(0) {
        let sign = if s.st(0) >> 79 & 1 != 0 { C1 } else { 0 };
        s.fsw = s.fsw & !CODES | C3 | C0 | sign;
        return;
    }
    let two = matches!(code, 0xf1 | 0xf3 | 0xf5 | 0xf8 | 0xf9 | 0xfd);
    let pushes = matches!(code, 0xf2 | 0xf4 | 0xfb);
    let pops = matches!(code, 0xf1 | 0xf3 | 0xf9);
    if matches!(code, 0xf2 | 0xfb | 0xfe | 0xff | 0xf5 | 0xf8) {
        s.fsw &= !C2;
    }
    if s.empty(0) || (two && s.empty(1)) {
        let masked = s.stack_fault(false);
        if code == 0xe4 {
            s.fsw |= C0 | C2 | C3;
            return;
        }
        if !masked {
            return;
        }
        match code {
            _ if pushes => {
                s.set_st(0, QNAN);
                s.push_over(QNAN);
            }
            _ if pops => {
                s.set_st(1, QNAN);
                s.pop();
            }
            _ => s.set_st(0, QNAN),
        }
        return;
    }
    if pushes && !s.empty(7) {
        if s.stack_fault(true) {
            s.set_st(0, QNAN);
            s.push_over(QNAN);
        }
        return;
    }
    let (r, q, sw) = unit::unary(s.mode(), code, s.reg(0), s.reg(1));
    let write = s.merge(sw);
    match code {
        0xe4 | 0xe5 => {
            s.fsw = s.fsw & !CODES | sw & CODES;
            return;
        }
        // A remainder that is a NaN has no quotient: C0 and C3 stay.
        0xf5 | 0xf8 if r >> 64 & 0x7fff == 0x7fff || !write => {}
        0xf5 | 0xf8 => s.fsw = s.fsw & !CODES | sw & CODES,
        // Out of range: nothing but C2.
        0xf2 | 0xfb | 0xfe | 0xff if sw & C2 != 0 && sw & IE == 0 => {
            s.fsw |= C2;
            return;
        }
        _ => {}
    }
    if !write {
        return;
    }
    if pushes {
        s.set_st(0, q);
        s.push_over(r);
    } else if pops {
        s.set_st(1, r);
        s.pop();
    } else {
        s.set_st(0, r);
    }
}

/// FXCH.
pub(super) extern "C" fn x87_fxch(st: S, what: u64) {
    let mut s = running!(st, what);
    let i = what & FORM;
    s.fsw &= !C1;
    if s.empty(0) || s.empty(i) {
        if !s.stack_fault(false) {
            return;
        }
        for k in [0, i] {
            if s.empty(k) {
                s.set_st(k, QNAN);
            }
        }
    }
    let (a, b) = (s.st(0), s.st(i));
    let (to_a, to_b) = (s.phys(0), s.phys(i));
    (s.fpr[to_a], s.fpr[to_b]) = (b, a);
}

/// FFREE, FFREEP: `form` is i | pop << 3.
pub(super) extern "C" fn x87_free(st: S, what: u64) {
    let form = what & FORM;
    let s = waiting!(st);
    s.fsw &= !C1;
    s.ftw |= 3 << (2 * s.phys(form & 7));
    if form >> 3 != 0 {
        s.pop();
    }
}

/// FINCSTP (1), FDECSTP (7), FNOP and FWAIT (0: only wait); 8: the beginning of an MMX store, which makes TOP 0
/// even if it faults.
pub(super) extern "C" fn x87_top(st: S, what: u64) {
    let add = what & FORM;
    let s = waiting!(st);
    if add == 8 {
        return s.set_top(0);
    }
    if add != 0 {
        s.fsw &= !C1;
        s.set_top(s.top() + add as usize);
    }
}

/// FCMOVcc with the condition's value.
pub(super) extern "C" fn x87_cmov(st: S, what: u64, cond: u64) {
    let mut s = running!(st, what);
    let i = what & FORM;
    if s.empty(0) || s.empty(i) {
        if s.stack_fault(false) {
            s.set_st(0, QNAN);
        }
    } else if cond != 0 {
        let v = s.st(i);
        s.set_st(0, v);
    }
}

/// FNINIT.
pub(super) extern "C" fn x87_init(st: S) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    s.x87_reset();
}

/// FNCLEX.
pub(super) extern "C" fn x87_clear(st: S) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    s.fsw &= 0x7f00;
}

/// The status word, for FNSTSW.
pub(super) extern "C" fn x87_status(st: S) -> u64 {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    u64::from(s.fsw)
}

/// Before lifted code looks at slots of the x87 state (MMX): puts it at rest.
pub(super) extern "C" fn x87_rest(st: S) {
    // SAFETY: the engine's pointer.
    unsafe { state(st) }.x87_settle();
}

impl CpuState {
    /// The x87 state after FNINIT (registers keep their contents, as empty ones).
    pub fn x87_reset(&mut self) {
        (self.fsw, self.fcw, self.ftw) = (0, DEFAULT, 0xffff);
        (self.fop, self.fip, self.fdp) = (0, 0, 0);
    }
    /// Set the control word: reserved bits are fixed, ES follows the new masks.
    pub fn set_fcw(&mut self, v: u16) {
        self.fcw = v & 0x1f3f | 0x40;
        self.update_es();
    }
    /// Tags as the environment shows them: 0 valid, 1 zero, 2 special, 3 empty.
    pub fn full_tags(&self) -> u16 {
        let mut t = 0;
        for (p, v) in self.fpr.iter().enumerate() {
            let (exp, frac) = ((v >> 64) as u16 & 0x7fff, *v as u64);
            let tag = if self.ftw >> (2 * p) & 3 == 3 {
                3
            } else if exp == 0 && frac == 0 {
                1
            } else if exp == 0 || exp == 0x7fff || frac >> 63 == 0 {
                2
            } else {
                0
            };
            t |= tag << (2 * p);
        }
        t
    }
    /// Set tags: only emptiness is kept.
    pub fn set_tags(&mut self, t: u16) {
        self.ftw = 0;
        for p in 0..8 {
            if t >> (2 * p) & 3 == 3 {
                self.ftw |= 3 << (2 * p);
            }
        }
    }
}

/// EMMS.
pub(super) extern "C" fn x87_emms(st: S) {
    let s = waiting!(st);
    s.ftw = 0xffff;
    s.set_top(0);
}

/// FLDCW.
pub(super) extern "C" fn x87_ldcw(st: S, v: u64) {
    let s = waiting!(st);
    s.set_fcw(v as u16);
}

/// Write MMX register `n`: exponent all ones, TOP 0, every register in use.
extern "C" fn mmx_put(st: S, n: u64, v: u64) {
    let s = waiting!(st);
    s.fpr[n as usize & 7] = u128::from(v) | 0xffff << 64;
    s.set_top(0);
    s.ftw = 0;
}

/// An MMX instruction that writes no MMX register: TOP 0, every register in use.
extern "C" fn mmx_enter(st: S) {
    let s = waiting!(st);
    s.set_top(0);
    s.ftw = 0;
}

#[cfg(test)]
#[path = "x87_tests.rs"]
mod tests;
