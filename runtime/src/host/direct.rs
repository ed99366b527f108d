//! Entering and leaving copied code (`evm_backend::direct`): the ways, and the stack of its calls.
//!
//! Copied code runs on a stack of its own that holds nothing but return addresses of its calls. When it is full, a guard page faults
//! and the hook of [`super::enter`] drops all of them; who returns to the bottom looks up where the guest goes.
//!
//! # Safety
//! `evm_direct_enter` is entered with the address of copied code that was made for this layout of [`CpuState`], and with a state whose
//! words are set: R9, GS and the stack are then as that code expects. The ways restore what the System V rules ask of a function from
//! the stack that `evm_direct_enter` saved it on.
#![allow(unsafe_code)]

use crate::code::targets::FIRST;
use evm_backend::direct::{BIAS, SHIFT, Words};
use evm_cpu::{CpuState, cc};
use std::arch::global_asm;
use std::mem::offset_of;

/// Where copied code finds things in the state.
pub(crate) const WORDS: Words = Words {
    gpr: offset_of!(CpuState, gpr) as u32,
    df: offset_of!(CpuState, df) as u32,
    mxcsr: offset_of!(CpuState, mxcsr) as u32,
    base: offset_of!(CpuState, mem_base) as u32,
    records: offset_of!(CpuState, records) as u32,
    counts: offset_of!(CpuState, counts) as u32,
    hot: offset_of!(CpuState, count_mask) as u32,
    targets: offset_of!(CpuState, near_targets) as u32,
    fs: offset_of!(CpuState, fs_near) as u32,
    gs: offset_of!(CpuState, gs_base) as u32,
    out: offset_of!(CpuState, way_out) as u32,
    dispatch: offset_of!(CpuState, way_dispatch) as u32,
    service: offset_of!(CpuState, way_service) as u32,
    step: offset_of!(CpuState, way_step) as u32,
    x87_live: offset_of!(CpuState, x87_live) as u32,
    fip: offset_of!(CpuState, fip) as u32,
    x87: offset_of!(CpuState, way_x87) as u32,
};

/// [`CpuState::left`]: copied code was left for a system call; it goes on behind it. (0: there is no code where it goes on.)
pub(crate) const SERVICE: u64 = 1;
/// The same: the instruction at hand is not copied.
pub(crate) const STEP: u64 = 2;
/// The same: indirect jumps go often to where it goes on.
pub(crate) const OFTEN: u64 = 3;
/// The same: the instruction at hand is to find the guest's x87 state in the host's x87 unit.
pub(crate) const X87: u64 = 4;
/// It was not entered, as the thread is asked to leave.
pub(crate) const ASKED: u64 = 5;

/// For each vector register: its number, and its distance from the first in the state.
macro_rules! each_vector {
    ($m:ident) => {
        concat!(
            $m!("0", "0"),
            $m!("1", "16"),
            $m!("2", "32"),
            $m!("3", "48"),
            $m!("4", "64"),
            $m!("5", "80"),
            $m!("6", "96"),
            $m!("7", "112"),
            $m!("8", "128"),
            $m!("9", "144"),
            $m!("10", "160"),
            $m!("11", "176"),
            $m!("12", "192"),
            $m!("13", "208"),
            $m!("14", "224"),
            $m!("15", "240"),
        )
    };
}
macro_rules! load_low {
    ($n:literal, $at:literal) => {
        concat!("vmovups xmm", $n, ", [r9 + {xmm} + ", $at, "]\n")
    };
}
macro_rules! load {
    ($n:literal, $at:literal) => {
        concat!(load_low!($n, $at), "vinsertf128 ymm", $n, ", ymm", $n, ", [r9 + {ymm} + ", $at, "], 1\n",)
    };
}
macro_rules! store {
    ($n:literal, $at:literal) => {
        concat!(
            "vmovups [r9 + {xmm} + ",
            $at,
            "], xmm",
            $n,
            "\n",
            "vextractf128 [r9 + {ymm} + ",
            $at,
            "], ymm",
            $n,
            ", 1\n",
        )
    };
}

const fn at(offset: usize) -> isize {
    offset as isize - SHIFT as isize
}

global_asm!(
    // fn(state, code) -> pc
    ".global evm_direct_enter",
    "evm_direct_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "lea r9, [rdi + {shift}]",
    "push qword ptr [r9 + {host_sp}]",
    "mov [r9 + {host_sp}], rsp",
    "mov [r9 + {saved}], rsi",
    // Who asks a thread to leave sets `poll`, and then looks whether it is inside and has to be interrupted. This is a barrier, too.
    "mov eax, 1",
    "xchg [r9 + {inside}], rax",
    ".global evm_direct_entering",
    "evm_direct_entering:",
    "cmp qword ptr [r9 + {poll}], 0",
    "jne evm_direct_back",
    "mov rax, [r9 + {mem_base}]",
    "wrgsbase rax",
    // Upper halves that are zero are to be clean as well, as VZEROUPPER leaves them: otherwise each SSE instruction
    // waits for the one that wrote its destination before.
    "vmovups ymm0, [r9 + {ymm}]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 32]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 64]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 96]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 128]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 160]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 192]",
    "vorps ymm0, ymm0, [r9 + {ymm} + 224]",
    "vptest ymm0, ymm0",
    "jnz 4f",
    "vzeroupper",
    each_vector!(load_low),
    "jmp 5f",
    "4:",
    each_vector!(load),
    "5:",
    "push qword ptr [r9 + {cc_a}]",
    "popfq",
    "mov rsp, [r9 + {shadow}]",
    "mov rax, [r9 + {gpr}]",
    "mov rcx, [r9 + {gpr} + 8]",
    "mov rdx, [r9 + {gpr} + 16]",
    "mov rbx, [r9 + {gpr} + 24]",
    "mov r11, [r9 + {gpr} + 32]",
    "mov rbp, [r9 + {gpr} + 40]",
    "mov rsi, [r9 + {gpr} + 48]",
    "mov rdi, [r9 + {gpr} + 56]",
    "mov r8, [r9 + {gpr} + 64]",
    "mov r12, [r9 + {gpr} + 96]",
    "mov r13, [r9 + {gpr} + 104]",
    "mov r14, [r9 + {gpr} + 112]",
    "jmp qword ptr [r9 + {saved}]",
    // To here goes who is interrupted before that: the state has all that is the guest's.
    ".global evm_direct_back",
    "evm_direct_back:",
    "mov qword ptr [r9 + {left}], 5",
    "mov rsp, [r9 + {host_sp}]",
    "jmp 7f",
    // Here returns what finds the stack of calls empty.
    ".global evm_direct_bottom",
    "evm_direct_bottom:",
    "lea rsp, [rsp - 8]",
    // To the code of the guest address in R15.
    ".global evm_direct_dispatch",
    "evm_direct_dispatch:",
    "mov [r9 + {saved}], rcx",
    "mov ecx, 0",
    "crc32 rcx, r15",
    "movzx ecx, cx",
    "mov r10, [r9 + {hashes}]",
    "mov ecx, [r10 + rcx * 4]",
    "mov r10, [r9 + {records}]",
    "lea r10, [r10 + rcx - {bias}]",
    "mov rcx, [r10 + 8]",
    "lea rcx, [rcx + r15]",
    "jrcxz 2f",
    "mov rcx, [r9 + {saved}]",
    "jmp qword ptr [r9 + {way_out}]",
    "2:",
    "mov rcx, [r9 + {finds}]",
    "lea rcx, [rcx - 1]",
    "mov [r9 + {finds}], rcx",
    "jrcxz 6f",
    "mov rcx, [r9 + {saved}]",
    "jmp qword ptr [r10]",
    "6:",
    "mov rcx, [r9 + {saved}]",
    "mov r10d, 3",
    "jmp 3f",
    ".global evm_direct_service",
    "evm_direct_service:",
    "mov r10d, 1",
    "jmp 3f",
    ".global evm_direct_step",
    "evm_direct_step:",
    "mov r10d, 2",
    "jmp 3f",
    ".global evm_direct_x87",
    "evm_direct_x87:",
    "mov r10d, 4",
    "jmp 3f",
    ".global evm_direct_out",
    "evm_direct_out:",
    "mov r10d, 0",
    "3:",
    "mov [r9 + {left}], r10",
    "mov [r9 + {shadow}], rsp",
    "mov rsp, [r9 + {host_sp}]",
    "pushfq",
    "pop qword ptr [r9 + {cc_a}]",
    "and qword ptr [r9 + {cc_a}], {flags}",
    "mov qword ptr [r9 + {cc_op}], {eager}",
    "mov [r9 + {gpr}], rax",
    "mov [r9 + {gpr} + 8], rcx",
    "mov [r9 + {gpr} + 16], rdx",
    "mov [r9 + {gpr} + 24], rbx",
    "mov [r9 + {gpr} + 32], r11",
    "mov [r9 + {gpr} + 40], rbp",
    "mov [r9 + {gpr} + 48], rsi",
    "mov [r9 + {gpr} + 56], rdi",
    "mov [r9 + {gpr} + 64], r8",
    "mov [r9 + {gpr} + 96], r12",
    "mov [r9 + {gpr} + 104], r13",
    "mov [r9 + {gpr} + 112], r14",
    each_vector!(store),
    "7:",
    "vzeroupper",
    "mov rax, r15",
    "pop qword ptr [r9 + {host_sp}]",
    "mov qword ptr [r9 + {inside}], 0",
    // R9 tells the hook that this is copied code.
    "xor r9d, r9d",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".global evm_direct_end",
    "evm_direct_end:",
    shift = const SHIFT,
    bias = const BIAS,
    flags = const cc::MASK,
    eager = const cc::EAGER,
    host_sp = const at(offset_of!(CpuState, host_sp)),
    inside = const at(offset_of!(CpuState, inside)),
    poll = const at(offset_of!(CpuState, poll)),
    mem_base = const at(offset_of!(CpuState, mem_base)),
    saved = const at(offset_of!(CpuState, saved)),
    cc_op = const at(offset_of!(CpuState, cc_op)),
    cc_a = const at(offset_of!(CpuState, cc_a)),
    shadow = const at(offset_of!(CpuState, shadow)),
    gpr = const at(offset_of!(CpuState, gpr)),
    hashes = const at(offset_of!(CpuState, hashes)),
    records = const at(offset_of!(CpuState, records)),
    way_out = const at(offset_of!(CpuState, way_out)),
    left = const at(offset_of!(CpuState, left)),
    finds = const at(offset_of!(CpuState, finds)),
    xmm = const at(offset_of!(CpuState, xmm)),
    ymm = const at(offset_of!(CpuState, ymm_hi)),
);

unsafe extern "sysv64" {
    fn evm_direct_enter(state: *mut CpuState, code: u64) -> u64;
    fn evm_direct_entering();
    fn evm_direct_back();
    fn evm_direct_bottom();
    fn evm_direct_dispatch();
    fn evm_direct_service();
    fn evm_direct_step();
    fn evm_direct_x87();
    fn evm_direct_out();
    fn evm_direct_end();
}

/// Where a thread is that is inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// On its way in.
    Entering,
    /// Between pieces of copied code.
    Between,
    /// On its way out.
    Leaving,
    /// In copied code, or interrupted by something else.
    Elsewhere,
}

/// The place of a host address.
pub(crate) fn place(rip: u64) -> Place {
    let at = |f: unsafe extern "sysv64" fn()| f as *const () as u64;
    match rip {
        _ if rip < at(evm_direct_entering) || rip >= at(evm_direct_end) => Place::Elsewhere,
        _ if rip < at(evm_direct_back) => Place::Entering,
        _ if rip < at(evm_direct_bottom) => Place::Leaving,
        _ if rip < at(evm_direct_service) => Place::Between,
        _ => Place::Leaving,
    }
}

/// Address of the way out for who is on its way in.
pub(crate) fn way_back() -> u64 {
    evm_direct_back as *const () as u64
}

/// Address of the way out.
pub(crate) fn way_out() -> u64 {
    evm_direct_out as *const () as u64
}

/// Address of the way to the code of a guest address.
pub(crate) fn way_dispatch() -> u64 {
    evm_direct_dispatch as *const () as u64
}

/// Whether this host runs copied code: see [`evm_backend::direct::supported`]; the kernel lets programs set the base of GS; and the
/// flags that the manual leaves undefined are those of the virtual CPU.
pub fn supported() -> bool {
    const HWCAP2_FSGSBASE: u64 = 2;
    // SAFETY: reads a word of the auxiliary vector.
    let lets = unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE != 0;
    lets && evm_backend::direct::supported() && super::flags::host_flags()
}

/// Bytes of a stack of calls.
const SHADOW: usize = 1 << 20;
/// Inaccessible bytes on each side.
const GUARD: usize = 1 << 16;

/// The stack of a thread's calls in copied code.
pub(crate) struct Shadow {
    start: u64,
}

impl Shadow {
    pub(crate) fn new() -> std::io::Result<Shadow> {
        // SAFETY: fresh mappings; the second is inside the first.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let p = libc::mmap(std::ptr::null_mut(), SHADOW + 2 * GUARD, libc::PROT_NONE, flags, -1, 0);
            if p == libc::MAP_FAILED {
                return Err(std::io::Error::last_os_error());
            }
            let s = Shadow { start: p as u64 };
            if libc::mprotect(p.add(GUARD), SHADOW, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            (s.bottom() as *mut u64).write(evm_direct_bottom as *const () as u64);
            Ok(s)
        }
    }
    /// The stack pointer when there is no call on it.
    pub(crate) fn bottom(&self) -> u64 {
        self.start + (GUARD + SHADOW) as u64 - 8
    }
    /// Have the return of what runs next leave copied code.
    pub(crate) fn leave_at_return(&self, cpu: &mut CpuState) {
        let low = self.start + GUARD as u64 + 64;
        if cpu.shadow < low {
            cpu.shadow = self.bottom();
        }
        cpu.shadow -= 8;
        // SAFETY: inside the stack, which is only used by this thread's copied code.
        unsafe { (cpu.shadow as *mut u64).write(way_out()) };
    }
    /// Whether an access at this host address means that the stack is full.
    pub(crate) fn is_full(&self, addr: u64) -> bool {
        (self.start..self.start + GUARD as u64).contains(&addr)
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // SAFETY: owned mapping.
        unsafe { libc::munmap(self.start as *mut libc::c_void, SHADOW + 2 * GUARD) };
    }
}

/// Set the words of a state that do not change while its thread, the calling one, runs.
pub(crate) fn bind(cpu: &mut CpuState, shadow: &Shadow) {
    cpu.way_out = way_out();
    cpu.way_dispatch = way_dispatch();
    cpu.finds = FIRST;
    cpu.way_service = evm_direct_service as *const () as u64;
    cpu.way_step = evm_direct_step as *const () as u64;
    cpu.way_x87 = evm_direct_x87 as *const () as u64;
    cpu.count_mask = u64::from(0u32.wrapping_sub(evm_backend::direct::ENTRIES));
    cpu.shadow = shadow.bottom();
    // SAFETY: no pointers.
    cpu.host_tid = unsafe { libc::gettid() } as u64;
}

/// Run copied code; gives the guest address it was left at.
///
/// # Safety
/// `code` is the start of a published piece of copied code and `state` is the running thread's state, bound, with an x87 state that is at rest
/// or live.
pub(crate) unsafe fn enter(code: u64, state: *mut CpuState) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        let cpu = &mut *state;
        let flags = cc::flags(cpu.cc_op, cpu.cc_a, cpu.cc_b, cpu.cc_c);
        (cpu.cc_op, cpu.cc_a) = (cc::EAGER, flags | 0x202);
        // Far enough behind guest memory for any displacement.
        cpu.fs_near = if cpu.fs_base < cpu.mem_limit { cpu.fs_base } else { cpu.mem_limit + (1 << 31) };
        evm_direct_enter(state, code)
    }
}
