//! [`CpuState`]: everything one guest thread has in its registers, and the words engines need.

use evm_ir::{Layout, Slot, SlotInfo, Type};
use std::mem::offset_of;

/// State of one virtual CPU (one guest thread). Compiled code addresses it by byte offset.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct CpuState {
    // The words that code looks at all the time come first: their offsets fit a byte.
    /// Size of the guest address space in bytes; guard pages follow it on the host.
    pub mem_limit: u64,
    /// Host stack pointer below which compiled code must unwind.
    pub stack_limit: u64,
    /// Table of compiled entry points (host addresses, 0 = none), by engine-wide entry index.
    pub entries: u64,
    /// Table of entry counters (u32), by engine-wide entry index.
    pub counts: u64,
    /// General registers in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
    pub gpr: [u64; 16],
    /// Guest pc; exact whenever the runtime looks (outside regions).
    pub rip: u64,
    /// Lazy condition codes: operation (see [`crate::cc`]) and operands.
    pub cc_op: u64,
    /// First operand, or result.
    pub cc_a: u64,
    /// Second operand.
    pub cc_b: u64,
    /// Third operand (carry in, old carry).
    pub cc_c: u64,
    /// Direction flag, 0 or 1.
    pub df: u64,
    /// The other user-visible bits of RFLAGS that a program can set: TF, NT, AC, ID.
    pub rflags_sys: u64,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// XMM registers.
    pub xmm: [u128; 16],
    /// Upper halves of YMM.
    pub ymm_hi: [u128; 16],
    /// x87 registers, physical R0-R7, 80-bit in the low ten bytes.
    pub fpr: [u128; 8],
    /// x87 status word; TOP in bits 11-13.
    pub fsw: u16,
    /// x87 control word.
    pub fcw: u16,
    /// x87 full tag word (2 bits a register, 3 = empty).
    pub ftw: u16,
    /// Opcode of the last x87 instruction that had an unmasked exception: the low three bits of its first byte, and its second.
    pub fop: u16,
    /// MXCSR. While guest code runs, the host's MXCSR holds the live value; the run loop saves and restores.
    pub mxcsr: u32,
    /// Segment selectors es cs ss ds fs gs.
    pub segs: [u16; 6],
    /// Descriptors 12 to 14 of the global table, which a thread of a 32-bit program may set (set_thread_area).
    pub tls: [u64; 3],
    /// 1: the x87 state is in the host's x87 unit, and what is here of it is old (but the control word, if no copied code runs); else 0. See
    /// `helpers/x87_live.rs`.
    pub x87_live: u64,
    /// How to take back what an x87 store has done so far, if its access faults; see `helpers/x87.rs`.
    pub x87_undo: u64,
    /// `fop` and `fdp` before it.
    pub x87_before: [u64; 2],
    /// Address of the last x87 instruction, those of control left out.
    pub fip: u64,
    /// Address (in its segment) of the memory operand of the last x87 instruction that has one and had an unmasked exception.
    pub fdp: u64,
    /// Host address of guest address 0.
    pub mem_base: u64,
    /// Not zero: leave the region at the next poll. Written by other threads atomically.
    pub poll: u64,
    /// Table from guest pc to entry index: 65,536 words `(pc >> 16) << 32 | index`, slot `pc & 0xffff`.
    pub ibtc: u64,
    /// Table of where indirect jumps and calls went: see `evm_backend::abi`.
    pub targets: u64,
    /// Table of helper addresses, by helper index.
    pub helpers: u64,
    /// A helper's request: 0 none, else an [`exc`] code + 1.
    pub pending: u64,
    /// Detail of the pending exception (fault address).
    pub pending_arg: u64,
    /// Host stack pointer of the innermost entry into compiled code.
    pub host_sp: u64,
    /// The runtime's own pointer to its thread record.
    pub owner: u64,
    /// CPU model shown by CPUID (index in the runtime's list).
    pub model: u32,
    /// Logical CPUs shown.
    pub cpus: u32,
    /// Retired guest instructions as counted by the interpreter.
    pub insns: u64,
    /// Virtual time stamp counter, used if `tsc_step` is not 0.
    pub tsc: u64,
    /// What each RDTSC adds to `tsc`; 0: RDTSC shows the host's counter.
    pub tsc_step: u64,
    /// Address of the table of page permissions ([`evm_memory::perm`]), for engines without page protection.
    pub perms: u64,
    /// Bytes of stack that WebAssembly code may still use, signed.
    pub depth: u64,
    /// Not zero: engines whose floating-point code raises no inexact flag leave such code to the interpreter.
    pub fp_exact: u64,
    /// [`FP_LOOKED`] and [`FP_ASSUMED`].
    pub fp_seen: u64,
    /// Host address of a copy of this state that guest code runs on instead, or 0: who sets `poll` here sets it there.
    pub mirror: u64,
    /// Address of the table of records that copied code jumps through; see `evm_backend::direct`.
    pub records: u64,
    /// Address of the table from hashes of guest addresses to records.
    pub hashes: u64,
    /// Address of the table of targets of indirect jumps of copied code.
    pub near_targets: u64,
    /// How many more times such a target is found by its hash before it is added to that table.
    pub finds: u64,
    /// Base of FS if it is in guest memory, else an address behind it.
    pub fs_near: u64,
    /// A register of copied code for a moment.
    pub saved: u64,
    /// Where copied code goes to leave.
    pub way_out: u64,
    /// To go to a guest address.
    pub way_dispatch: u64,
    /// For a system call.
    pub way_service: u64,
    /// For an instruction that is not copied.
    pub way_step: u64,
    /// To have the x87 state put into the host's unit.
    pub way_x87: u64,
    /// 1: its thread is in copied code, or on its way in or out. Written by it alone, atomically.
    pub inside: u64,
    /// The host's number of the thread.
    pub host_tid: u64,
    /// The bits of a count of copied code that say that it is hot.
    pub count_mask: u64,
    /// Why copied code was left.
    pub left: u64,
    /// Not zero: it was left since a block has run often.
    pub hot: u64,
    /// Stack pointer of copied code.
    pub shadow: u64,
    /// Scratch of quick code.
    pub scratch: [u128; 64],
}

/// The guest has looked at MXCSR, or loaded it.
pub const FP_LOOKED: u64 = 1;
/// Before that, code ran that does not raise the inexact flag, and may have had reason to.
pub const FP_ASSUMED: u64 = 2;
/// MXCSR's inexact flag.
const PE: u32 = 0x20;

/// Exceptions a region or a helper can raise.
#[allow(missing_docs)]
pub mod exc {
    /// #DE
    pub const DE: u32 = 0;
    /// single step
    pub const DB: u32 = 1;
    /// int3
    pub const BP: u32 = 3;
    /// into
    pub const OF: u32 = 4;
    /// bound
    pub const BR: u32 = 5;
    /// #UD: not an instruction of the model, or not lifted
    pub const UD: u32 = 6;
    /// #SS: an address of the stack segment that is not canonical
    pub const SS: u32 = 12;
    /// #GP
    pub const GP: u32 = 13;
    /// #PF; arg is the address
    pub const PF: u32 = 14;
    /// #MF, x87 unmasked
    pub const MF: u32 = 16;
    /// #AC
    pub const AC: u32 = 17;
    /// #XM, SSE unmasked
    pub const XM: u32 = 19;
    /// #PF by a write
    pub const PF_WRITE: u32 = 32;
    /// #PF by an instruction fetch
    pub const PF_EXEC: u32 = 33;
    /// Not an exception: the rest of the instruction is left out; arg is the address to go on at
    pub const SKIP: u32 = 34;
    /// Not an exception: instructions are run one by one from now on; arg is the address to go on at
    pub const MODE: u32 = 35;
}

/// Services ([`evm_ir::Term::Service`] codes).
pub mod service {
    /// SYSCALL
    pub const SYSCALL: u32 = 0;
    /// INT 80h
    pub const INT80: u32 = 1;
}

macro_rules! layout {
    ($( $name:ident $text:literal $off:expr, $ty:ident, $promote:literal; )*) => {
        /// Slot numbers.
        #[allow(missing_docs)]
        pub mod slot {
            use super::*;
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum N { $( $name ),* }
            $( pub const $name: Slot = Slot(N::$name as u16); )*
        }
        static SLOTS: &[SlotInfo] = &[ $( SlotInfo {
            name: $text, offset: ($off) as u32, ty: Type::$ty, promote: $promote } ),* ];
    };
}

const G: usize = offset_of!(CpuState, gpr);
const X: usize = offset_of!(CpuState, xmm);
const Y: usize = offset_of!(CpuState, ymm_hi);
const F: usize = offset_of!(CpuState, fpr);
layout! {
    RAX "rax" G, I64, true; RCX "rcx" G + 8, I64, true; RDX "rdx" G + 16, I64, true; RBX "rbx" G + 24, I64, true;
    RSP "rsp" G + 32, I64, true; RBP "rbp" G + 40, I64, true; RSI "rsi" G + 48, I64, true; RDI "rdi" G + 56, I64, true;
    R8 "r8" G + 64, I64, true; R9 "r9" G + 72, I64, true; R10 "r10" G + 80, I64, true; R11 "r11" G + 88, I64, true;
    R12 "r12" G + 96, I64, true; R13 "r13" G + 104, I64, true; R14 "r14" G + 112, I64, true; R15 "r15" G + 120, I64, true;
    XMM0 "xmm0" X, V128, true; XMM1 "xmm1" X + 16, V128, true; XMM2 "xmm2" X + 32, V128, true; XMM3 "xmm3" X + 48, V128, true;
    XMM4 "xmm4" X + 64, V128, true; XMM5 "xmm5" X + 80, V128, true; XMM6 "xmm6" X + 96, V128, true; XMM7 "xmm7" X + 112, V128, true;
    XMM8 "xmm8" X + 128, V128, true; XMM9 "xmm9" X + 144, V128, true; XMM10 "xmm10" X + 160, V128, true; XMM11 "xmm11" X + 176, V128, true;
    XMM12 "xmm12" X + 192, V128, true; XMM13 "xmm13" X + 208, V128, true; XMM14 "xmm14" X + 224, V128, true; XMM15 "xmm15" X + 240, V128, true;
    YMM0 "ymm0h" Y, V128, true; YMM1 "ymm1h" Y + 16, V128, true; YMM2 "ymm2h" Y + 32, V128, true; YMM3 "ymm3h" Y + 48, V128, true;
    YMM4 "ymm4h" Y + 64, V128, true; YMM5 "ymm5h" Y + 80, V128, true; YMM6 "ymm6h" Y + 96, V128, true; YMM7 "ymm7h" Y + 112, V128, true;
    YMM8 "ymm8h" Y + 128, V128, true; YMM9 "ymm9h" Y + 144, V128, true; YMM10 "ymm10h" Y + 160, V128, true; YMM11 "ymm11h" Y + 176, V128, true;
    YMM12 "ymm12h" Y + 192, V128, true; YMM13 "ymm13h" Y + 208, V128, true; YMM14 "ymm14h" Y + 224, V128, true; YMM15 "ymm15h" Y + 240, V128, true;
    CC_OP "cc_op" offset_of!(CpuState, cc_op), I64, true; CC_A "cc_a" offset_of!(CpuState, cc_a), I64, true;
    CC_B "cc_b" offset_of!(CpuState, cc_b), I64, true; CC_C "cc_c" offset_of!(CpuState, cc_c), I64, true;
    DF "df" offset_of!(CpuState, df), I64, true; RFLAGS_SYS "rflags_sys" offset_of!(CpuState, rflags_sys), I64, false;
    FS_BASE "fs_base" offset_of!(CpuState, fs_base), I64, true; GS_BASE "gs_base" offset_of!(CpuState, gs_base), I64, true;
    RIP "rip" offset_of!(CpuState, rip), I64, false;
    MM0 "mm0" F, I64, false; MM1 "mm1" F + 16, I64, false; MM2 "mm2" F + 32, I64, false; MM3 "mm3" F + 48, I64, false;
    MM4 "mm4" F + 64, I64, false; MM5 "mm5" F + 80, I64, false; MM6 "mm6" F + 96, I64, false; MM7 "mm7" F + 112, I64, false;
    FTW "ftw" offset_of!(CpuState, ftw), I16, false;
    FSW "fsw" offset_of!(CpuState, fsw), I16, false; FCW "fcw" offset_of!(CpuState, fcw), I16, false;
    X87_UNDO "x87_undo" offset_of!(CpuState, x87_undo), I64, false;
    FIP "fip" offset_of!(CpuState, fip), I64, false;
}

/// The layout of [`CpuState`] as IR slots.
pub static LAYOUT: Layout = Layout { slots: SLOTS };

/// Slot of a general register by encoding number.
pub const fn gpr(n: usize) -> Slot {
    Slot(slot::RAX.0 + n as u16)
}
/// Slot of an XMM register.
pub const fn xmm(n: usize) -> Slot {
    Slot(slot::XMM0.0 + n as u16)
}
/// Slot of an MMX register.
pub const fn mm(n: usize) -> Slot {
    Slot(slot::MM0.0 + n as u16)
}
/// Slot of the upper half of a YMM register.
pub const fn ymm_hi(n: usize) -> Slot {
    Slot(slot::YMM0.0 + n as u16)
}

impl Default for CpuState {
    fn default() -> Self {
        CpuState {
            gpr: [0; 16],
            rip: 0,
            cc_op: 0,
            cc_a: 0,
            cc_b: 0,
            cc_c: 0,
            df: 0,
            rflags_sys: 0,
            fs_base: 0,
            gs_base: 0,
            xmm: [0; 16],
            ymm_hi: [0; 16],
            fpr: [0; 8],
            fsw: 0,
            fcw: 0x37f,
            ftw: 0xffff,
            fop: 0,
            mxcsr: 0x1f80,
            segs: [0, 0x33, 0x2b, 0, 0, 0],
            tls: [0; 3],
            x87_live: 0,
            x87_undo: 0,
            x87_before: [0; 2],
            fip: 0,
            fdp: 0,
            mem_base: 0,
            mem_limit: 0,
            poll: 0,
            stack_limit: 0,
            entries: 0,
            ibtc: 0,
            counts: 0,
            targets: 0,
            helpers: 0,
            pending: 0,
            pending_arg: 0,
            host_sp: 0,
            owner: 0,
            model: 0,
            cpus: 1,
            insns: 0,
            tsc: 0,
            tsc_step: 0,
            perms: 0,
            depth: 0,
            fp_exact: 1,
            fp_seen: 0,
            mirror: 0,
            records: 0,
            hashes: 0,
            near_targets: 0,
            finds: 0,
            fs_near: 0,
            saved: 0,
            way_out: 0,
            way_dispatch: 0,
            way_service: 0,
            way_step: 0,
            way_x87: 0,
            inside: 0,
            host_tid: 0,
            count_mask: 0,
            left: 0,
            hot: 0,
            shadow: 0,
            scratch: [0; 64],
        }
    }
}

impl CpuState {
    /// Vector registers of the mode: 32-bit code has eight.
    pub fn vectors(&self) -> usize {
        if self.segs[1] == crate::segment::CODE32 { 8 } else { 16 }
    }
    /// MXCSR is about to be seen by the guest: from now on its inexact flag is what the CPU's would be.
    pub fn look_at_flags(&mut self) {
        if self.fp_seen & FP_ASSUMED != 0 {
            // Floating-point arithmetic that runs unobserved is inexact sooner or later.
            self.mxcsr |= PE;
        }
        self.fp_seen = FP_LOOKED;
        self.loaded_mxcsr();
    }
    /// MXCSR was loaded.
    pub fn loaded_mxcsr(&mut self) {
        if !self.fp_is_plain() {
            self.fp_exact = 1;
        }
    }
    /// Code was interpreted because of `fp_exact`: is there still reason to?
    pub fn settle_fp_mode(&mut self) {
        self.fp_exact = u64::from(!self.fp_is_plain());
        if self.fp_exact == 0 && self.mxcsr & PE == 0 {
            self.fp_seen |= FP_ASSUMED;
        }
    }
    /// Whether code will do that rounds to nearest and does not raise the inexact flag: no other rounding and no exception is
    /// asked for, and that flag is set already or nobody has looked at it yet. (FTZ, alone and with DAZ, it looks at itself.)
    fn fp_is_plain(&self) -> bool {
        self.mxcsr & 0x7f80 == 0x1f80
            && self.mxcsr & 0x8040 != 0x40
            && (self.mxcsr & PE != 0 || self.fp_seen & FP_LOOKED == 0)
    }
    /// RFLAGS as PUSHFQ shows it.
    pub fn rflags(&self) -> u64 {
        crate::cc::flags(self.cc_op, self.cc_a, self.cc_b, self.cc_c) | self.df << 10 | self.rflags_sys | 0x202
    }
    /// Compute the flags of a floating comparison: they depend on MXCSR (denormals), which is about to change.
    pub fn settle_flags(&mut self) {
        if self.cc_op & !(3 | crate::cc::REPLACED | crate::cc::NEW_CF) == crate::cc::FCMP {
            self.cc_a = crate::cc::flags(self.cc_op, self.cc_a, self.cc_b, self.cc_c);
            self.cc_op = crate::cc::EAGER;
        }
    }
    /// Set RFLAGS as POPFQ does in user mode.
    pub fn set_rflags(&mut self, v: u64) {
        self.cc_op = crate::cc::EAGER;
        self.cc_a = v & crate::cc::MASK;
        self.df = v >> 10 & 1;
        self.rflags_sys = v & 0x24_4100;
    }
}
