//! The program of a batch: a static ELF file with a frame, the cases' code and their states before.
//!
//! The frame, for each case: copies the pattern and the window's bytes to memory, loads flags, registers and the
//! floating-point state, jumps to the case's code; at the end, or in a signal handler, it stores all that
//! to the case's record. A case may go on behind its first instruction when that faults: what an engine does to the state on its
//! way to a fault shows in what comes after. All records are written to standard output at the end.
//!
//! ```text
//! SCRATCH  two pages read-write, one read-only, around them nothing   what cases access
//! PATTERN  the read-write pages as they are before each case
//! GLOBALS  the frame's variables and stacks
//! FRAME    the frame
//! CODE     the cases
//! INPUT    states before, OUTPUT states after
//! ```

use super::state::{Features, Input};
use anyhow::Result;
use iced_x86::code_asm::*;

/// Read-write memory of the cases, followed by one read-only page.
pub const SCRATCH: u64 = 0x6a00_0000;
/// Its read-write bytes.
pub const SCRATCH_RW: u64 = 0x2000;
/// Read-only bytes behind.
pub const SCRATCH_RO: u64 = 0x1000;
/// What those bytes are before each case.
const PATTERN: u64 = 0x6b00_0000;
const GLOBALS: u64 = 0x6d12_0000;
const GLOBALS_SIZE: u64 = 0x2_0000;
const FRAME: u64 = 0x9a34_0000;
/// The cases' code.
pub const CODE: u64 = 0x9c56_0000;
const INPUT: u64 = 0xa178_0000;
const OUTPUT: u64 = 0xb9ac_0000;

/// Bases of FS and GS.
pub const FS_BASE: u64 = 0x1230;
/// Base of GS.
pub const GS_BASE: u64 = 0x2_0000_0010;

/// Layout of a state before: byte offsets of what the names say.
#[allow(missing_docs)]
pub mod input {
    pub const FLAGS: i32 = 0x80;
    pub const CODE: i32 = 0x88;
    pub const WINDOW: i32 = 0x90;
    pub const OUT_WINDOW: i32 = 0x98;
    pub const GO_ON: i32 = 0xa0;
    pub const DATA: i32 = 0x100;
    pub const DATA_LEN: usize = 256;
    pub const FPU: i32 = 0x200;
    pub const SIZE: i32 = 0x580;
}
/// Layout of a state after: byte offsets of what the names say.
#[allow(missing_docs)]
pub mod output {
    pub const FLAGS: i32 = 0x80;
    pub const KIND: i32 = 0x88;
    pub const SI_CODE: i32 = 0x90;
    pub const SI_ADDR: i32 = 0x98;
    pub const RIP: i32 = 0xa0;
    pub const TRAPNO: i32 = 0xa8;
    pub const ERR: i32 = 0xb0;
    pub const DATA: i32 = 0x100;
    pub const DATA_LEN: usize = 512;
    pub const FPU: i32 = 0x300;
    pub const SIZE: i32 = 0x640;
}

// Variables.
const CUR_IN: u64 = GLOBALS;
const CUR_OUT: u64 = GLOBALS + 8;
const LEFT: u64 = GLOBALS + 16;
const TARGET: u64 = GLOBALS + 24;
const SAVE_RAX: u64 = GLOBALS + 32;
const SAVE_RSP: u64 = GLOBALS + 40;
const KIND: u64 = GLOBALS + 48;
const ACTION: u64 = GLOBALS + 64;
const ALTSTACK: u64 = GLOBALS + 128;
/// The most that is below RSP of the stack that a program starts with.
const KERNEL_STACK: i32 = 0x80_0000;
const STACK_TOP: u64 = GLOBALS + 0x8000;
const ALT_BASE: u64 = GLOBALS + 0x1_0000;
const ALT_SIZE: u64 = 0xf000;

/// Offsets of general registers in `ucontext_t`, in encoding order.
const UC: [i32; 16] = [144, 152, 136, 128, 160, 120, 112, 104, 40, 48, 56, 64, 72, 80, 88, 96];

/// Offset of RIP there.
const UC_RIP: i32 = 168;

fn registers() -> [AsmRegister64; 16] {
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
}

/// Where cases end.
#[derive(Clone, Copy, Debug)]
pub struct Exits {
    /// By falling through.
    pub through: u64,
    /// By a branch.
    pub taken: u64,
}

/// The frame's code for a number of cases, and where cases end.
fn frame(cases: usize, f: Features) -> Result<(Vec<u8>, Exits)> {
    let mut a = CodeAssembler::new(64)?;
    let (mut main, mut handler, mut restorer) = (a.create_label(), a.create_label(), a.create_label());
    let (mut next, mut common, mut tail, mut write) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    let (mut through, mut taken) = (a.create_label(), a.create_label());
    // The exits come first, so that their addresses are known: each is 12 bytes and a jump.
    a.set_label(&mut through)?;
    a.mov(qword_ptr(KIND), 0)?;
    a.jmp(common)?;
    a.set_label(&mut taken)?;
    a.mov(qword_ptr(KIND), 1)?;
    a.set_label(&mut common)?;
    a.mov(qword_ptr(SAVE_RAX), rax)?;
    a.mov(qword_ptr(SAVE_RSP), rsp)?;
    a.mov(rsp, qword_ptr(GLOBALS + 56))?;
    a.pushfq()?;
    a.mov(rax, qword_ptr(CUR_OUT))?;
    for (n, r) in registers().into_iter().enumerate() {
        if n != 0 && n != 4 {
            a.mov(qword_ptr(rax + 8 * n as i32), r)?;
        }
    }
    a.pop(qword_ptr(rax + output::FLAGS))?;
    a.push(2)?;
    a.popfq()?;
    a.mov(rcx, qword_ptr(SAVE_RAX))?;
    a.mov(qword_ptr(rax), rcx)?;
    a.mov(rcx, qword_ptr(SAVE_RSP))?;
    a.mov(qword_ptr(rax + 32), rcx)?;
    a.mov(rcx, qword_ptr(KIND))?;
    a.mov(qword_ptr(rax + output::KIND), rcx)?;
    a.mov(rdi, rax)?;
    match f {
        Features::V2 => a.fxsave64(ptr(rdi + output::FPU))?,
        Features::V3 => {
            a.mov(eax, 7)?;
            a.xor(edx, edx)?;
            a.xsave64(ptr(rdi + output::FPU))?;
        }
    }
    a.set_label(&mut tail)?;
    // The output record is in rdi.
    a.fninit()?;
    a.ldmxcsr(dword_ptr(GLOBALS + 192))?;
    a.mov(rax, qword_ptr(CUR_IN))?;
    a.mov(rsi, qword_ptr(rax + input::OUT_WINDOW))?;
    a.add(rdi, output::DATA)?;
    a.mov(ecx, output::DATA_LEN as i32 / 8)?;
    a.rep().movsq()?;
    a.add(qword_ptr(CUR_IN), input::SIZE)?;
    a.add(qword_ptr(CUR_OUT), output::SIZE)?;
    a.sub(qword_ptr(LEFT), 1)?;
    a.jne(next)?;
    // Write all.
    a.mov(r12, OUTPUT)?;
    a.mov(r13, cases as u64 * output::SIZE as u64)?;
    a.set_label(&mut write)?;
    a.mov(eax, 1)?;
    a.mov(edi, 1)?;
    a.mov(rsi, r12)?;
    a.mov(rdx, r13)?;
    a.syscall()?;
    let mut out = a.create_label();
    a.test(rax, rax)?;
    a.jle(out)?;
    a.add(r12, rax)?;
    a.sub(r13, rax)?;
    a.jne(write)?;
    a.set_label(&mut out)?;
    a.mov(edi, r13d)?;
    a.mov(eax, 231)?;
    a.syscall()?;

    a.set_label(&mut main)?;
    // The stack that the kernel made is at another place in a guest: without it, addresses that hit it fault in both.
    a.mov(rdi, rsp)?;
    a.and(rdi, -0x1000)?;
    a.sub(rdi, KERNEL_STACK)?;
    a.mov(esi, KERNEL_STACK + 0x1_0000)?;
    a.mov(eax, 11)?;
    a.syscall()?;
    a.mov(rsp, STACK_TOP)?;
    for (code, base) in [(0x1002, FS_BASE), (0x1001, GS_BASE)] {
        a.mov(eax, 158)?;
        a.mov(edi, code)?;
        a.mov(rsi, base)?;
        a.syscall()?;
    }
    a.mov(rax, STACK_TOP)?;
    a.mov(qword_ptr(GLOBALS + 56), rax)?;
    a.mov(dword_ptr(GLOBALS + 192), 0x1f80)?;
    a.mov(rax, ALT_BASE)?;
    a.mov(qword_ptr(ALTSTACK), rax)?;
    a.mov(dword_ptr(ALTSTACK + 8), 0)?;
    a.mov(qword_ptr(ALTSTACK + 16), ALT_SIZE as i32)?;
    a.mov(eax, 131)?;
    a.mov(rdi, ALTSTACK)?;
    a.xor(esi, esi)?;
    a.syscall()?;
    a.lea(rax, ptr(handler))?;
    a.mov(qword_ptr(ACTION), rax)?;
    a.mov(qword_ptr(ACTION + 8), 0x4c00_0004)?;
    a.lea(rax, ptr(restorer))?;
    a.mov(qword_ptr(ACTION + 16), rax)?;
    a.mov(qword_ptr(ACTION + 24), 0)?;
    for sig in [4, 5, 7, 8, 11] {
        a.mov(eax, 13)?;
        a.mov(edi, sig)?;
        a.mov(rsi, ACTION)?;
        a.xor(edx, edx)?;
        a.mov(r10d, 8)?;
        a.syscall()?;
    }
    a.mov(rax, INPUT)?;
    a.mov(qword_ptr(CUR_IN), rax)?;
    a.mov(rax, OUTPUT)?;
    a.mov(qword_ptr(CUR_OUT), rax)?;
    a.mov(qword_ptr(LEFT), cases as i32)?;
    a.set_label(&mut next)?;
    a.mov(rbx, qword_ptr(CUR_IN))?;
    a.mov(rsi, PATTERN)?;
    a.mov(rdi, SCRATCH)?;
    a.mov(ecx, SCRATCH_RW as i32 / 8)?;
    a.rep().movsq()?;
    a.mov(rdi, qword_ptr(rbx + input::WINDOW))?;
    a.lea(rsi, ptr(rbx + input::DATA))?;
    a.mov(ecx, input::DATA_LEN as i32 / 8)?;
    a.rep().movsq()?;
    a.mov(rax, qword_ptr(rbx + input::CODE))?;
    a.mov(qword_ptr(TARGET), rax)?;
    match f {
        Features::V2 => a.fxrstor64(ptr(rbx + input::FPU))?,
        Features::V3 => {
            a.mov(eax, 7)?;
            a.xor(edx, edx)?;
            a.xrstor64(ptr(rbx + input::FPU))?;
        }
    }
    a.mov(rsp, STACK_TOP)?;
    a.push(qword_ptr(rbx + input::FLAGS))?;
    a.popfq()?;
    a.mov(rax, rbx)?;
    for (n, r) in registers().into_iter().enumerate() {
        if n != 0 {
            a.mov(r, qword_ptr(rax + 8 * n as i32))?;
        }
    }
    a.mov(rax, qword_ptr(rax))?;
    a.jmp(qword_ptr(TARGET))?;

    // handler(edi signal, rsi siginfo, rdx ucontext)
    a.set_label(&mut handler)?;
    let mut ends = a.create_label();
    a.mov(rax, qword_ptr(CUR_IN))?;
    a.mov(rcx, qword_ptr(rax + input::GO_ON))?;
    a.test(rcx, rcx)?;
    a.je(ends)?;
    a.mov(r8, qword_ptr(rdx + UC_RIP))?;
    a.cmp(r8, qword_ptr(rax + input::CODE))?;
    a.jne(ends)?;
    a.mov(qword_ptr(rdx + UC_RIP), rcx)?;
    a.ret()?;
    a.set_label(&mut ends)?;
    a.mov(rax, qword_ptr(CUR_OUT))?;
    for (n, at) in UC.into_iter().enumerate() {
        a.mov(rcx, qword_ptr(rdx + at))?;
        a.mov(qword_ptr(rax + 8 * n as i32), rcx)?;
    }
    for (from, to) in [(UC_RIP, output::RIP), (176, output::FLAGS), (192, output::ERR), (200, output::TRAPNO)] {
        a.mov(rcx, qword_ptr(rdx + from))?;
        a.mov(qword_ptr(rax + to), rcx)?;
    }
    a.add(edi, 0x100)?;
    a.mov(qword_ptr(rax + output::KIND), rdi)?;
    a.movsxd(rcx, dword_ptr(rsi + 8))?;
    a.mov(qword_ptr(rax + output::SI_CODE), rcx)?;
    a.mov(rcx, qword_ptr(rsi + 16))?;
    a.mov(qword_ptr(rax + output::SI_ADDR), rcx)?;
    a.mov(rsi, qword_ptr(rdx + 224))?;
    a.lea(rdi, ptr(rax + output::FPU))?;
    a.mov(ecx, if f == Features::V2 { 64 } else { 104 })?;
    a.rep().movsq()?;
    a.mov(rdi, rax)?;
    a.mov(rsp, STACK_TOP)?;
    a.jmp(tail)?;
    a.set_label(&mut restorer)?;
    a.mov(eax, 15)?;
    a.syscall()?;
    a.nop()?;

    let done = a.assemble_options(FRAME, iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let at = |l: &CodeLabel| done.label_ip(l);
    let exits = Exits { through: at(&through)?, taken: at(&taken)? };
    let entry = at(&main)?;
    let mut bytes = done.inner.code_buffer;
    bytes.extend_from_slice(&entry.to_le_bytes());
    Ok((bytes, exits))
}

/// Where cases end; the same in every program.
pub fn exits() -> Result<Exits> {
    Ok(frame(1, Features::V2)?.1)
}

/// The pattern of the scratch pages, the same before every case but for its window: the byte at an offset.
pub fn scratch_byte(k: u64) -> u8 {
    (k * 37 + (k >> 8) * 11) as u8
}

/// The ELF file of a batch; `code` is all cases' code, from [`CODE`] on.
pub fn elf(inputs: &[Input], code: &[u8], f: Features) -> Result<Vec<u8>> {
    let (mut frame, _) = frame(inputs.len(), f)?;
    let entry = u64::from_le_bytes(frame.split_off(frame.len() - 8).try_into().unwrap_or_default());
    let scratch: Vec<u8> = (0..SCRATCH_RW + SCRATCH_RO).map(scratch_byte).collect();
    let data: Vec<u8> = inputs.iter().flat_map(|i| i.bytes()).collect();
    let size = |n: u64| n.next_multiple_of(0x1000).max(0x1000);
    const R: u32 = 4;
    const W: u32 = 2;
    const X: u32 = 1;
    let (rw, ro) = scratch.split_at(SCRATCH_RW as usize);
    let out = inputs.len() as u64 * output::SIZE as u64;
    // Address, contents, bytes in memory, protection.
    let parts: [(u64, &[u8], u64, u32); 8] = [
        (SCRATCH, rw, SCRATCH_RW, R | W),
        (SCRATCH + SCRATCH_RW, ro, SCRATCH_RO, R),
        (PATTERN, rw, SCRATCH_RW, R),
        (GLOBALS, &[], GLOBALS_SIZE, R | W),
        (FRAME, &frame, frame.len() as u64, R | X),
        (CODE, code, code.len() as u64, R | X),
        (INPUT, &data, data.len() as u64, R),
        (OUTPUT, &[], out, R | W),
    ];
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2u16, 62].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([entry, 64, 0].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, parts.len() as u16, 0, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
    let mut at = 0x1000u64;
    for (addr, bytes, mem, prot) in &parts {
        file.extend([1u32, *prot].iter().flat_map(|v| v.to_le_bytes()));
        let (offset, mem) = (if bytes.is_empty() { 0 } else { at }, size(*mem));
        file.extend([offset, *addr, *addr, bytes.len() as u64, mem, 0x1000].iter().flat_map(|v| v.to_le_bytes()));
        if !bytes.is_empty() {
            at += size(bytes.len() as u64);
        }
    }
    for (_, bytes, _, _) in parts.iter().filter(|p| !p.1.is_empty()) {
        file.resize(file.len().next_multiple_of(0x1000), 0);
        file.extend_from_slice(bytes);
    }
    Ok(file)
}
