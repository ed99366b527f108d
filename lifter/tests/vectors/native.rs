//! Runs a piece of code natively, and lifted: interpreted, and compiled for two levels of host, from the same state.
//!
//! # Safety
//! Pieces are position independent, keep RSP, R15 and what is below the stack pointer, and touch only
//! the buffer around RDI. [`enter`] saves what the ABI asks it to save.
#![allow(unsafe_code)]

use evm_backend::abi::{Abi, FIRST_HELPER};
use evm_backend::cranelift::{CompileOptions, Compiler, CompilerSettings, HostFeatures};
use evm_backend::interp::{self, Exit, Frame, prepare};
use evm_cpu::{CpuState, helpers, xsave};
use evm_ir::passes::{OptLevel, optimize};
use evm_lifter::{Mode, Options, lift};
use evm_memory::{Arena, Prot};
use std::arch::{asm, naked_asm};
use std::mem::offset_of;

/// A piece of code: its text and its function.
pub type Piece = (&'static str, unsafe extern "sysv64" fn());

/// Define pieces from their text.
#[macro_export]
macro_rules! pieces {
    ($($text:expr),* $(,)?) => { ::std::vec::Vec::from([ $( {
        #[unsafe(naked)]
        unsafe extern "sysv64" fn piece() {
            // SAFETY: see the module.
            core::arch::naked_asm!($text, "ret")
        }
        ($text, piece as unsafe extern "sysv64" fn())
    } ),* ]) };
}

#[repr(C, align(64))]
struct Native {
    image: [u8; 1024],
    gpr: [u64; 16],
    flags: u64,
    func: u64,
}
const GPR: usize = offset_of!(Native, gpr);
const FLAGS: usize = offset_of!(Native, flags);
const FUNC: usize = offset_of!(Native, func);

/// Load the state, call the function, save the state.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(n: *mut Native) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15", "push rdi",
        "mov eax, 7", "xor edx, edx", "xrstor64 [rdi]",
        "push [rdi + {flags}]", "popfq",
        "mov rax, [rdi + {gpr}]", "mov rcx, [rdi + {gpr} + 8]", "mov rdx, [rdi + {gpr} + 16]",
        "mov rbx, [rdi + {gpr} + 24]", "mov rbp, [rdi + {gpr} + 40]", "mov rsi, [rdi + {gpr} + 48]",
        "mov r8, [rdi + {gpr} + 64]", "mov r9, [rdi + {gpr} + 72]", "mov r10, [rdi + {gpr} + 80]",
        "mov r15, [rdi + {func}]", "mov rdi, [rdi + {gpr} + 56]",
        "call r15",
        "pushfq", "push rdi", "mov rdi, [rsp + 16]",
        "mov [rdi + {gpr}], rax", "mov [rdi + {gpr} + 8], rcx", "mov [rdi + {gpr} + 16], rdx",
        "mov [rdi + {gpr} + 24], rbx", "mov [rdi + {gpr} + 40], rbp", "mov [rdi + {gpr} + 48], rsi",
        "mov [rdi + {gpr} + 64], r8", "mov [rdi + {gpr} + 72], r9", "mov [rdi + {gpr} + 80], r10",
        "pop rax", "mov [rdi + {gpr} + 56], rax", "pop rax", "mov [rdi + {flags}], rax",
        "mov eax, 7", "xor edx, edx", "xsave64 [rdi]",
        "fninit", "vzeroupper", "push 0x1f80", "ldmxcsr [rsp]", "pop rax", "cld",
        "pop rdi", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx", "ret",
        gpr = const GPR, flags = const FLAGS, func = const FUNC,
    )
}

const ABI: Abi = evm_backend::abi_of!(CpuState);

/// Bytes of memory that pieces see, at RDI - 128.
pub const MEM: usize = 512;
const BUF: u64 = 0x2_0000;
const STACK: u64 = 0x3_0000;

/// The guest side.
pub struct Guest {
    arena: Arena,
    frame: Frame,
    helpers: Vec<u64>,
    entries: Vec<u64>,
    ibtc: Vec<u64>,
    compilers: Vec<Compiler>,
    /// Memory that code may run in; the next free byte.
    code: (u64, usize),
}

/// A state and memory.
#[derive(Clone)]
pub struct Machine {
    /// Registers; RDI is set by the runs.
    pub s: CpuState,
    /// Memory around RDI.
    pub mem: [u8; MEM],
}

/// A lifted piece: its regions, more than one where an instruction ends a region.
pub struct Lifted(Vec<Part>);

struct Part {
    interp: interp::Code,
    /// Entry points of compiled forms.
    compiled: Vec<u64>,
    pc: u64,
}

/// Ways to run a lifted piece: 0 interpreted, others compiled.
pub const ENGINES: [&str; 3] = ["interpreted", "compiled for v2", "compiled for this host"];
const CODE_SIZE: usize = 32 << 20;

/// Enter compiled code: `(state, pc, base)`; gives the next pc.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter_compiled(code: u64, state: *mut CpuState, pc: u64, base: u64) -> u64 {
    naked_asm!(
        "push rbp",
        "push r15",
        "push rbx",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov r15, rcx",
        "call rax",
        "pop rbx",
        "pop r15",
        "pop rbp",
        "ret",
    )
}

impl Guest {
    /// An address space with a buffer and a stack.
    pub fn new() -> Guest {
        evm_memory::fault::install();
        evm_memory::fault::thread_init();
        let arena = Arena::reserve(1 << 20).expect("reserve");
        arena.map_anon(BUF, 0x2_0000, Prot::RW).expect("map");
        let mut helpers = vec![0; FIRST_HELPER as usize];
        helpers.extend(helpers::addresses());
        let compilers = [HostFeatures::V2, HostFeatures::Native]
            .map(|features| {
                let settings = CompilerSettings { features, verify: true, ..Default::default() };
                Compiler::new(ABI, settings).expect("compiler")
            })
            .into();
        // SAFETY: a fresh mapping.
        let code = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CODE_SIZE,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(code, libc::MAP_FAILED);
        Guest {
            arena,
            frame: Frame::default(),
            helpers,
            entries: vec![0; 64],
            ibtc: vec![0; 1 << 16],
            compilers,
            code: (code as u64, 0),
        }
    }
    /// Lift and compile.
    pub fn lift(&mut self, piece: &Piece) -> Result<Lifted, String> {
        let base = piece.1 as usize as u64;
        let (mut parts, mut todo) = (vec![], vec![base]);
        while let Some(pc) = todo.pop() {
            let (part, region) = self.part(pc)?;
            parts.push(part);
            for b in &region.blocks {
                let evm_ir::Term::Exit(v) = b.term else { continue };
                let to = b.insts.iter().find(|i| i.dst == v && i.op == evm_ir::Op::Const).map(|i| i.imm as u64);
                todo.extend(to.filter(|t| t.wrapping_sub(base) < 4096 && !parts.iter().any(|p: &Part| p.pc == *t)));
            }
        }
        Ok(Lifted(parts))
    }
    fn part(&mut self, base: u64) -> Result<(Part, evm_ir::Region), String> {
        let mut fetch = |pc: u64, buf: &mut [u8]| {
            // SAFETY: code of this test binary, which goes on for more than an instruction after the piece.
            unsafe { std::ptr::copy_nonoverlapping(pc as *const u8, buf.as_mut_ptr(), buf.len()) };
            buf.len()
        };
        let opts = Options { mode: Mode::Region, ..Options::default() };
        let l = lift(base, &[], &mut fetch, &opts).map_err(|e| e.to_string())?;
        if !l.notes.is_empty() {
            return Err(format!("not lifted: {}", l.notes[0].what));
        }
        evm_ir::validate(&l.region).map_err(|e| format!("{e:?}"))?;
        let mut full = l.region.clone();
        optimize(&mut full, OptLevel::Full);
        let mut compiled = vec![];
        for c in &mut self.compilers {
            let code = c.compile(&full, CompileOptions::default(), &mut |_| 0).map_err(|e| e.to_string())?.code;
            let at = self.code.1.next_multiple_of(64);
            assert!(at + code.len() <= CODE_SIZE);
            self.code.1 = at + code.len();
            let at = self.code.0 + at as u64;
            // SAFETY: inside the mapping.
            unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len()) };
            compiled.push(at);
        }
        Ok((Part { interp: prepare(&l.region, &ABI), compiled, pc: base }, l.region))
    }
    /// Run by one of [`ENGINES`]; `Err` says what went wrong.
    pub fn run(&mut self, l: &Lifted, engine: usize, m: &Machine) -> Result<Machine, String> {
        let mem = self.arena.mem();
        let mut out = m.clone();
        let s = &mut out.s;
        s.mem_base = self.arena.base();
        s.mem_limit = self.arena.size();
        s.entries = self.entries.as_ptr() as u64;
        s.ibtc = self.ibtc.as_ptr() as u64;
        s.helpers = self.helpers.as_ptr() as u64;
        s.gpr[7] = BUF + 128;
        s.gpr[4] = STACK;
        mem.copy_in(BUF, &m.mem).map_err(|e| e.to_string())?;
        mem.store(STACK, 8, 0x1234).map_err(|e| e.to_string())?;
        let mut csr = s.mxcsr;
        // SAFETY: the state and helpers are those the region was lifted for; MXCSR is put back.
        let exit = unsafe {
            asm!("ldmxcsr [{}]", in(reg) &csr);
            let mut part = &l.0[0];
            let exit = loop {
                let exit = if engine == 0 {
                    interp::run(&part.interp, 0, (&raw mut *s).cast(), mem, &helpers::FNS, &mut self.frame)
                } else {
                    let pc = enter_compiled(part.compiled[engine - 1], s, part.pc, s.mem_base);
                    s.x87_settle();
                    Exit::Return { pc }
                };
                match exit {
                    Exit::Jump { pc } | Exit::Return { pc } if l.0.iter().any(|p| p.pc == pc) => {
                        part = l.0.iter().find(|p| p.pc == pc).expect("as just found");
                    }
                    other => break other,
                }
            };
            asm!("stmxcsr [{}]", in(reg) &mut csr);
            asm!("ldmxcsr [{}]", in(reg) &0x1f80u32);
            exit
        };
        s.mxcsr = csr;
        if exit != (Exit::Return { pc: 0x1234 }) {
            return Err(format!("{exit:?} pending {}", s.pending));
        }
        mem.copy_out(BUF, &mut out.mem).map_err(|e| e.to_string())?;
        Ok(out)
    }
}

/// Run on the host.
pub fn native(piece: &Piece, m: &Machine) -> Machine {
    #[repr(C, align(64))]
    struct Buf([u8; MEM]);
    let mut buf = Buf(m.mem);
    let mut n = Native { image: [0; 1024], gpr: m.s.gpr, flags: m.s.rflags(), func: piece.1 as usize as u64 };
    n.image[..xsave::SIZE].copy_from_slice(&m.s.xsave_image());
    n.gpr[7] = buf.0.as_mut_ptr() as u64 + 128;
    let start = n.gpr[7];
    // SAFETY: see the module.
    unsafe { enter(&mut n) };
    let mut out = m.clone();
    out.s.gpr = n.gpr;
    out.s.gpr[7] = n.gpr[7].wrapping_sub(start).wrapping_add(BUF + 128);
    out.s.set_rflags(n.flags);
    out.s.set_xsave_image(&n.image[..xsave::SIZE]);
    out.mem = buf.0;
    out
}
