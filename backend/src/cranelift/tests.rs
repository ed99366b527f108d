//! Compiled code run on a small machine of its own: control flow, memory and faults here, every opcode
//! against the interpreter in [`ops`].
//!
//! # Safety
//! The trampoline calls code that the compiler made for this module's own `State`, which starts at the
//! address it is given and holds valid tables; code memory is mapped for as long as its `Code` lives.
#![allow(unsafe_code)]

mod flow;
mod fuzz;
pub(crate) mod ops;

use super::{CompileOptions, Compiled, Compiler, CompilerSettings};
use crate::abi::{Abi, FIRST_HELPER, RuntimeFn};
use crate::quick::Quick;
use evm_ir::{Builder, Effects, HelperSig, Layout, Region, Slot, SlotInfo, SlotSet, Type};
use evm_memory::fault::{Action, HostFault};
use evm_memory::{Arena, Prot};
use std::cell::Cell;
use std::mem::offset_of;

/// Guest state of the tests.
#[repr(C, align(64))]
pub struct State {
    pub r: [u64; 8],
    pub v: [u128; 8],
    pub rip: u64,
    base: u64,
    limit: u64,
    pub poll: u64,
    pub stack_limit: u64,
    entries: u64,
    ibtc: u64,
    targets: u64,
    helpers: u64,
    pub pending: u64,
    pub fault_addr: u64,
    counts: u64,
    pub scratch: [u128; 64],
}

const fn info(name: &'static str, offset: usize, ty: Type, promote: bool) -> SlotInfo {
    SlotInfo { name, offset: offset as u32, ty, promote }
}
const R: usize = offset_of!(State, r);
const X: usize = offset_of!(State, v);
static SLOTS: [SlotInfo; 17] = [
    info("r0", R, Type::I64, true),
    info("r1", R + 8, Type::I64, true),
    info("r2", R + 16, Type::I64, true),
    info("r3", R + 24, Type::I64, true),
    info("r4", R + 32, Type::I64, true),
    info("r5", R + 40, Type::I64, true),
    info("r6", R + 48, Type::I64, false),
    info("r7", R + 56, Type::I64, false),
    info("v0", X, Type::V128, true),
    info("v1", X + 16, Type::V128, true),
    info("v2", X + 32, Type::V128, true),
    info("v3", X + 48, Type::V128, true),
    info("v4", X + 64, Type::V128, true),
    info("v5", X + 80, Type::V128, true),
    info("v6", X + 96, Type::V128, false),
    info("v7", X + 112, Type::V128, false),
    info("rip", offset_of!(State, rip), Type::I64, false),
];
pub static LAYOUT: Layout = Layout { slots: &SLOTS };
const ALL: SlotSet = SlotSet(0x3f3f);

pub fn r(n: u16) -> Slot {
    Slot(n)
}
pub fn v(n: u16) -> Slot {
    Slot(8 + n)
}

pub static HELPERS: [HelperSig; 2] = [
    HelperSig {
        name: "mix",
        ints: 2,
        vecs: 2,
        ret: Some(Type::V128),
        effects: Effects::Pure,
        raises: false,
        leaf: None,
    },
    HelperSig {
        name: "raise_if",
        ints: 1,
        vecs: 0,
        ret: Some(Type::I64),
        effects: Effects::Private,
        raises: true,
        leaf: None,
    },
];

use std::arch::x86_64::{__m128i, _mm_add_epi64, _mm_set_epi64x};
#[allow(improper_ctypes_definitions)]
pub(crate) extern "C" fn mix(_: *mut State, a: u64, b: u64, x: __m128i, y: __m128i) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_add_epi64(_mm_add_epi64(x, y), _mm_set_epi64x(b as i64, a as i64)) }
}
pub(crate) extern "C" fn raise_if(s: *mut State, a: u64) -> u64 {
    // SAFETY: compiled code passes the state it runs on.
    unsafe { (*s).pending = u64::from(a == 13) };
    a.wrapping_add(1)
}

extern "C" fn on_hot(_: *mut State, pc: u64) {
    assert_ne!(pc, 0);
    HOT.set(HOT.get() + 1);
}

thread_local! {
    static HOT: Cell<u64> = const { Cell::new(0) };
    /// What the runtime's functions were called with.
    pub static LOG: Cell<[u64; 4]> = const { Cell::new([0; 4]) };
    /// Code being run and its traps, for the fault hook.
    static RUNNING: Cell<(u64, u64, u64)> = const { Cell::new((0, 0, 0)) };
    /// Host offset and guest address of the trap that ended the run.
    static TRAPPED: Cell<Option<(u32, u64)>> = const { Cell::new(None) };
}
extern "C" fn on_call(_: *mut State, target: u64, ret: u64) -> u64 {
    LOG.set([1, target, ret, 0]);
    ret
}
extern "C" fn on_resume(_: *mut State, next: u64, ret: u64) -> u64 {
    LOG.set([2, next, ret, 0]);
    if next == 0x7777 { ret } else { next }
}
extern "C" fn on_service(_: *mut State, code: u64, pc: u64, next: u64) -> u64 {
    LOG.set([3, code, pc, next]);
    if code == 99 { 0x9999 } else { next }
}
extern "C" fn on_raise(_: *mut State, code: u64, arg: u64, pc: u64) -> u64 {
    LOG.set([4, code, arg, pc]);
    0x4444
}

std::arch::global_asm!(
    // (code, state, pc, base, &sp): call compiled code; a trap lands at the label with the saved sp.
    ".global evm_test_enter",
    "evm_test_enter:",
    "push rbp; push rbx; push r12; push r13; push r14; push r15",
    "mov [r8], rsp; sub rsp, 8",
    "mov r15, rcx; mov rax, rdi; mov rdi, rsi; mov rsi, rdx",
    "call rax",
    "add rsp, 8",
    ".global evm_test_landing",
    "evm_test_landing:",
    "pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp; ret",
);
unsafe extern "C" {
    fn evm_test_enter(code: u64, state: *mut State, pc: u64, base: u64, sp: *mut u64) -> u64;
    static evm_test_landing: u8;
}

/// Leaves compiled code at a trap.
fn hook(f: &mut HostFault<'_>) -> Action {
    let (start, end, sp) = RUNNING.get();
    let g = &mut f.context.uc_mcontext.gregs;
    // INT3 is behind us.
    let rip = g[libc::REG_RIP as usize] as u64 - u64::from(f.signal == libc::SIGTRAP);
    if rip < start || rip >= end {
        return Action::Pass;
    }
    TRAPPED.set(Some(((rip - start) as u32, f.addr)));
    // SAFETY: `sp` points to the word that the trampoline filled.
    g[libc::REG_RSP as usize] = unsafe { *(sp as *const u64) } as i64;
    g[libc::REG_RIP as usize] = std::ptr::addr_of!(evm_test_landing) as i64;
    Action::Resume
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum End {
    /// Returned this.
    Next(u64),
    /// Trapped at guest pc, at a guest address or [`UNKNOWN`].
    Fault(u64, u64),
}
/// Quick code leaves it to the interpreter to find the address.
pub const UNKNOWN: u64 = u64::MAX;

/// Code mapped executable.
pub struct Code {
    at: u64,
    len: usize,
    pub compiled: Compiled,
}

impl Code {
    pub fn map(c: Compiled) -> Code {
        // SAFETY: a fresh mapping, filled and then made executable.
        let at = unsafe {
            let p = libc::mmap(
                std::ptr::null_mut(),
                c.code.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(p, libc::MAP_FAILED);
            std::ptr::copy_nonoverlapping(c.code.as_ptr(), p.cast(), c.code.len());
            assert_eq!(libc::mprotect(p, c.code.len(), libc::PROT_READ | libc::PROT_EXEC), 0);
            p as u64
        };
        Code { at, len: c.code.len(), compiled: c }
    }
}
impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no code of it runs.
        unsafe { libc::munmap(self.at as *mut libc::c_void, self.len) };
    }
}

/// A machine: memory, state, tables, a compiler.
pub struct Machine {
    pub arena: Arena,
    pub s: Box<State>,
    pub entries: Vec<u64>,
    pub ibtc: Vec<u64>,
    _helpers: Vec<u64>,
    pub abi: Abi,
    pub compiler: Compiler,
    pub options: CompileOptions,
    /// Compile with the quick tier.
    pub quick: bool,
    _counts: Vec<u32>,
    _targets: Vec<[u64; 2]>,
}

/// Pages mapped at the start.
pub const DATA: u64 = 0x10000;
pub const LIMIT: u64 = 1 << 32;

impl Machine {
    pub fn new() -> Machine {
        Self::with(super::HostFeatures::Native)
    }
    pub fn with(features: super::HostFeatures) -> Machine {
        let arena = Arena::reserve(LIMIT).unwrap();
        arena.map_anon(DATA, 0x10000, Prot::RW).unwrap();
        evm_memory::fault::set_hook(hook);
        let abi = Abi {
            mem_base: offset_of!(State, base) as u32,
            mem_limit: offset_of!(State, limit) as u32,
            poll: offset_of!(State, poll) as u32,
            stack_limit: offset_of!(State, stack_limit) as u32,
            entries: offset_of!(State, entries) as u32,
            ibtc: offset_of!(State, ibtc) as u32,
            helpers: offset_of!(State, helpers) as u32,
            pending: offset_of!(State, pending) as u32,
            fault_addr: offset_of!(State, fault_addr) as u32,
            mxcsr: 0,
            counts: offset_of!(State, counts) as u32,
            targets: offset_of!(State, targets) as u32,
            scratch: offset_of!(State, scratch) as u32,
            rip: offset_of!(State, rip) as u32,
        };
        let settings = CompilerSettings { features, verify: true, ..Default::default() };
        let mut helpers = vec![0; FIRST_HELPER as usize];
        helpers[RuntimeFn::Call as usize] = on_call as *const () as u64;
        helpers[RuntimeFn::Resume as usize] = on_resume as *const () as u64;
        helpers[RuntimeFn::Service as usize] = on_service as *const () as u64;
        helpers[RuntimeFn::Raise as usize] = on_raise as *const () as u64;
        helpers[RuntimeFn::Hot as usize] = on_hot as *const () as u64;
        helpers[RuntimeFn::Origin as usize] = crate::quick::origin();
        helpers.push(mix as *const () as u64);
        helpers.push(raise_if as *const () as u64);
        let entries = vec![0; 64];
        let ibtc = vec![0; 1 << 16];
        let counts = vec![0u32; 64];
        let targets = vec![[0; 2]; crate::abi::TARGETS];
        let s = Box::new(State {
            r: [0; 8],
            v: [0; 8],
            rip: 0,
            base: arena.base(),
            limit: LIMIT,
            poll: 0,
            stack_limit: 0,
            entries: entries.as_ptr() as u64,
            ibtc: ibtc.as_ptr() as u64,
            targets: targets.as_ptr() as u64,
            helpers: helpers.as_ptr() as u64,
            pending: 0,
            fault_addr: 0,
            counts: counts.as_ptr() as u64,
            scratch: [0; 64],
        });
        let compiler = Compiler::new(abi, settings).unwrap();
        Machine {
            arena,
            s,
            entries,
            ibtc,
            _helpers: helpers,
            abi,
            compiler,
            options: CompileOptions::default(),
            quick: false,
            _counts: counts,
            _targets: targets,
        }
    }

    /// Entry index of a guest pc: its own rule of this machine.
    pub fn index(pc: u64) -> u32 {
        (pc >> 12 & 63) as u32
    }

    /// Calls of the counter in this thread so far.
    pub fn hot() -> u64 {
        HOT.get()
    }

    pub fn compile(&mut self, region: &Region) -> Code {
        if self.quick {
            let mut quick = Quick::default();
            let c = quick.compile(region, &self.abi, 4, &mut |pc| Self::index(pc));
            let c = c.unwrap_or_else(|e| panic!("{e}"));
            return Code::map(Compiled { code: c.code.to_vec(), pcs: c.pcs.to_vec(), ..Compiled::default() });
        }
        let c = self.compiler.compile(region, self.options, &mut |pc| Self::index(pc));
        Code::map(c.unwrap_or_else(|e| panic!("{e}")))
    }

    /// Make code reachable from other regions.
    pub fn link(&mut self, pc: u64, code: &Code) {
        self.entries[Self::index(pc) as usize] = code.at;
        self.ibtc[crate::abi::ibtc_slot(pc)] = pc >> 16 << 32 | u64::from(Self::index(pc));
    }

    pub fn run(&mut self, code: &Code, pc: u64) -> End {
        let mut sp = 0u64;
        RUNNING.set((code.at, code.at + code.len as u64, &raw mut sp as u64));
        TRAPPED.set(None);
        let base = self.arena.base();
        // SAFETY: see the module's paragraph.
        let next = unsafe { evm_test_enter(code.at, &raw mut *self.s, pc, base, &raw mut sp) };
        RUNNING.set((0, 0, 0));
        match TRAPPED.get() {
            None => End::Next(next),
            Some((off, host)) => {
                let pc = code.compiled.pc_at(off).expect("trap without a guest pc");
                let addr = match code.compiled.code[off as usize..] {
                    [0x0f, 0x0b, ..] => self.s.fault_addr,
                    [0xcc, ..] => UNKNOWN,
                    _ => host.wrapping_sub(base),
                };
                End::Fault(pc, addr)
            }
        }
    }
}

/// A builder with a block at `pc` that is the entry and has filled all slots.
pub fn start(pc: u64) -> Builder {
    let mut b = Builder::new(&LAYOUT, &HELPERS);
    let e = b.block(pc, true);
    b.region.entries.push(e);
    b.switch_to(e);
    fill(&mut b);
    b.marker(pc);
    b
}
pub fn fill(b: &mut Builder) {
    sets(b, evm_ir::Op::Fill);
}
pub fn spill(b: &mut Builder) {
    sets(b, evm_ir::Op::Spill);
}
fn sets(b: &mut Builder, op: evm_ir::Op) {
    b.region.slot_sets.push(ALL);
    let i = b.region.slot_sets.len() as i64 - 1;
    let none = evm_ir::Value::NONE;
    b.push(op, Type::I64, none, none, none, i);
}
/// End with a return to a constant address.
pub fn finish(b: &mut Builder, pc: u64) {
    spill(b);
    let k = b.iconst(Type::I64, pc as i64);
    b.term(evm_ir::Term::Return(k));
}
