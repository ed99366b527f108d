//! What is emitted, looked at as one who does not trust it would.

use super::*;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic as M, OpAccess, OpKind, Register as R};

const WORDS: Words = Words {
    gpr: 32,
    df: 200,
    mxcsr: 304,
    base: 208,
    records: 224,
    counts: 232,
    hot: 240,
    targets: 248,
    fs: 256,
    gs: 336,
    out: 272,
    dispatch: 280,
    service: 288,
    step: 296,
    x87_live: 312,
    fip: 320,
    x87: 328,
};

fn copy(blocks: &[Block]) -> (Vec<u8>, Vec<(u32, u64)>, u32) {
    copy_bits(blocks, 64)
}

fn copy_bits(blocks: &[Block], bits: u32) -> (Vec<u8>, Vec<(u32, u64)>, u32) {
    let mut d = Direct::new(WORDS);
    let c = d.copy(blocks, bits, true, &mut |pc| pc as u32 % 1000).expect("a copy");
    (c.code.to_vec(), c.pcs.to_vec(), c.left_out.len() as u32)
}

fn block(code: &[u8]) -> Block {
    let insns: Vec<Instruction> = Decoder::with_ip(64, code, 0x40_0000, DecoderOptions::NONE).iter().collect();
    Block { pc: 0x40_0000, insns, counted: None, entered: true }
}

/// What is wrong with code.
fn wrong(code: &[u8], pcs: &[(u32, u64)]) -> Option<String> {
    wrong_bits(code, pcs, 64)
}

/// The same with code of so many bits.
fn wrong_bits(code: &[u8], pcs: &[(u32, u64)], bits: u32) -> Option<String> {
    let mut info = InstructionInfoFactory::new();
    // Registers that hold what was checked, or was made by this code and not by the guest's.
    let mut checked = false;
    let mut prior = M::INVALID;
    for i in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        let bad = |why: &str| Some(format!("{why}: {i} at {:#x} of {code:02x?}", i.ip()));
        if i.is_invalid() {
            return bad("no instruction");
        }
        if i.mnemonic() == M::Shrx && i.op2_register() == R::R9 {
            checked = true;
        }
        let privileged = matches!(i.flow_control(), FlowControl::Interrupt | FlowControl::XbeginXabortXend);
        let entered = matches!(i.mnemonic(), M::Syscall | M::Sysenter | M::Sysexit | M::Iretq | M::Retf | M::Hlt);
        if privileged || entered || i.is_privileged() || i.is_save_restore_instruction() {
            return bad("not a program's own arithmetic");
        }
        let writes =
            |u: &iced_x86::UsedRegister| !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
        let used = info.info(&i);
        let control = i.flow_control() != FlowControl::Next;
        for u in used.used_registers().iter().filter(|u| writes(u) && u.register().is_gpr()) {
            match u.register().full_register() {
                R::R9 => return bad("the state's address is changed"),
                R::RSP if !control => return bad("the host's stack is changed"),
                // A string instruction has host addresses for a moment, and what is behind a call saves RCX.
                R::R10 | R::R15 | R::RCX | R::RSI | R::RDI => {}
                _ if bits == 32 && i.op0_register().is_gpr64() && !control => return bad("an upper half is written"),
                _ => {}
            }
        }
        if used.used_registers().iter().any(|u| writes(u) && u.register().is_segment_register()) {
            return bad("a segment is changed");
        }
        let string = (0..i.op_count()).any(|k| matches!(i.op_kind(k), OpKind::MemoryESRDI | OpKind::MemorySegRSI));
        if string && (bits == 64 && !checked || prior != M::Lea) {
            return bad("a string that was not checked");
        }
        let harmless = i.mnemonic() == M::Lea || select::is_prefetch(&i);
        let memory = (0..i.op_count()).any(|k| i.op_kind(k) == OpKind::Memory) && !harmless;
        if memory {
            let (base, disp) = (i.memory_base(), i.memory_displacement64() as i64);
            let own = i.segment_prefix() == R::None
                && (base == R::R9 && i.memory_index() == R::None && (-36..1000).contains(&disp) || base == R::R10);
            let guard = i.segment_prefix() == R::GS
                && base == R::None
                && i.memory_index().full_register() != R::None
                && disp < -(1 << 30);
            let constant = base == R::None && i.memory_index() == R::None && (0..1 << 36).contains(&disp);
            let short = |r: R| r == R::None || r.is_gpr32();
            let stack = matches!(base, R::R11 | R::RBP) && i.memory_index() == R::None && disp.abs() < 1 << 16;
            if bits == 32 && !own && !guard {
                // A word of the stack, or an address that the host cuts off.
                let cut = base != R::None || i.memory_index() != R::None || i.memory_displ_size() == 4;
                if i.segment_prefix() != R::GS || !(stack || short(base) && short(i.memory_index()) && cut) {
                    return bad("an access that may be far away");
                }
            }
            let checked = checked || bits == 32;
            let near = constant || base == R::R11 && i.memory_index() == R::None || base == R::R10 || checked;
            // 32-bit addresses are in guest memory, whatever they are.
            if !(own || guard || i.segment_prefix() == R::GS && near) {
                return bad("an access that was not checked");
            }
            if i.segment_prefix() == R::GS && pcs.iter().all(|p| u64::from(p.0) != i.ip()) {
                return bad("an access that nobody knows");
            }
        }
        prior = i.mnemonic();
    }
    None
}

/// Copy random instructions, with the first bytes that `start` makes of a number and three random bytes, and look through what comes of it.
fn copy_random(bits: u32, start: fn(u32, [u8; 3]) -> Vec<u8>) {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut copied, mut all) = (0, 0);
    for n in 0..200_000 {
        let mut bytes: Vec<u8> = (0..2).flat_map(|_| next().to_le_bytes()).collect();
        let first = start(n % 8, [bytes[0], bytes[1], bytes[2]]);
        bytes[..first.len()].copy_from_slice(&first);
        let i = Decoder::with_ip(bits, &bytes, 0x40_0000, DecoderOptions::NONE).decode();
        if i.is_invalid() {
            continue;
        }
        all += 1;
        let b = Block { pc: 0x40_0000, insns: vec![i], counted: None, entered: true };
        let (code, pcs, left_out) = copy_bits(&[b], bits);
        copied += 1 - left_out;
        if let Some(why) = wrong_bits(&code, &pcs, bits) {
            panic!("{i}: {why}");
        }
    }
    assert!(all > 50_000 && copied > all / 2, "{copied} of {all} copied");
}

#[test]
fn whatever_is_copied_stays_inside() {
    // Of random bytes few are of the larger maps.
    copy_random(64, |n, [a, b, c]| match n {
        0 => vec![0x0f],
        1 => vec![0xc5, b | 0x78],
        2 => vec![0xc4, b & 0xe0 | 1 + c % 3, c | 0x78],
        3 => vec![0x48 | a & 7, 0x0f],
        4 => vec![0x66, 0x0f, 0x38 + (c & 2)],
        5 => vec![0xd8 | a & 7],
        _ => vec![],
    });
}

#[test]
fn whatever_is_copied_of_32_bit_code_stays_inside() {
    copy_random(32, |n, [a, b, c]| match n {
        0 => vec![0x0f],
        1 => vec![0xc5, b | 0xf8],
        2 => vec![0xc4, b & 0x20 | 0xc1 + c % 3, c | 0x78],
        3 => vec![0x64 + a % 3],
        4 => vec![0x66, 0x0f],
        5 => vec![0xd8 | a & 7],
        _ => vec![],
    });
}

#[test]
fn what_must_not_run_here_is_left_out() {
    let cases: &[&[u8]] = &[
        &[0x0f, 0x05],                   // syscall: a way
        &[0xcd, 0x80],                   // int 80h
        &[0x0f, 0xa2],                   // cpuid
        &[0xf3, 0x48, 0x0f, 0xae, 0xd8], // wrgsbase rax
        &[0x8e, 0xe8],                   // mov gs,eax
        &[0xd9, 0x30],                   // fnstenv [rax]: an address is in it
        &[0xdb, 0xe3],                   // fninit
        &[0x0f, 0xab, 0x08],             // bts [rax],ecx: the bit is anywhere
        &[0x9d],                         // popf
        &[0x0f, 0x53, 0xc1],             // rcpps xmm0,xmm1: not the same everywhere
        &[0x66, 0x0f, 0xa5, 0xc8],       // shld ax,cx,cl
        &[0x65, 0x8b, 0x00],             // mov eax,gs:[rax]
    ];
    for c in cases {
        let (code, _, left_out) = copy(&[block(c)]);
        assert_eq!(left_out, u32::from(!c.starts_with(&[0x0f, 0x05])), "{c:02x?}");
        let last = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).iter().last().expect("code");
        assert!(last.is_jmp_near_indirect() && last.memory_base() == R::R9, "{c:02x?}: {last}");
    }
}

/// Whatever works on the x87 unit finds the guest's state there: a block looks once, in front of the first.
#[test]
fn the_x87_state_is_looked_for() {
    let looks = |code: &[u8]| {
        let (code, _, left_out) = copy(&[block(code)]);
        let live = (WORDS.x87_live - SHIFT).into();
        let all = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE);
        (all.into_iter().filter(|i| i.memory_base() == R::R9 && i.memory_displacement64() == live).count(), left_out)
    };
    let cases: &[&[u8]] = &[
        &[0xd9, 0xe8],             // fld1
        &[0x9b],                   // wait
        &[0xdd, 0x00],             // fld qword [rax]
        &[0xdf, 0xe0],             // fnstsw ax
        &[0xd9, 0x28],             // fldcw [rax]
        &[0xdb, 0xe2],             // fnclex
        &[0x0f, 0x6f, 0x00],       // movq mm0,[rax]
        &[0x0f, 0x77],             // emms
        &[0x0f, 0x2a, 0x00],       // cvtpi2ps xmm0,[rax]
        &[0xf2, 0x0f, 0xd6, 0xc0], // movdq2q mm0,xmm0
        &[0xd9, 0xe8, 0xde, 0xc1], // fld1; faddp
    ];
    for c in cases {
        assert_eq!(looks(c), (1, 0), "{c:02x?}");
    }
    // addps xmm0,xmm1
    assert_eq!(looks(&[0x0f, 0x58, 0xc1]), (0, 0));
}

#[test]
fn mxcsr_is_loaded_of_a_copy_that_was_looked_at() {
    let (code, pcs, left_out) = copy(&[block(&[0x0f, 0xae, 0x10])]);
    assert_eq!((left_out, wrong(&code, &pcs)), (0, None));
    let all: Vec<_> = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).iter().collect();
    let at = all.iter().position(|i| i.mnemonic() == M::Ldmxcsr).expect("it is copied");
    assert_eq!(all[at].memory_base(), R::R9);
    // The masks and the reserved bits.
    let guards = all[..at].iter().filter(|i| i.memory_base() == R::None && i.memory_index() == R::R10);
    assert_eq!(guards.count(), 2 + all[..at].iter().filter(|i| i.mnemonic() == M::Shrx).count());
}

#[test]
fn checks_are_made_once() {
    let count = |code: &[u8]| {
        let (code, ..) = copy(&[block(code)]);
        Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).iter().filter(|i| i.mnemonic() == M::Shrx).count()
    };
    // mov ecx,[rax]; mov edx,[rax+8]; add rax,16; mov esi,[rax]
    assert_eq!(count(&[0x8b, 0x08, 0x8b, 0x50, 8, 0x48, 0x83, 0xc0, 16, 0x8b, 0x30]), 1);
    // push rax; mov [rsp+8],rcx; pop rdx
    assert_eq!(count(&[0x50, 0x48, 0x89, 0x4c, 0x24, 8, 0x5a]), 0);
    // sub rsp,24 alone is seen to at the end; not if memory there is used
    assert_eq!(count(&[0x48, 0x83, 0xec, 24]), 1);
    assert_eq!(count(&[0x48, 0x83, 0xec, 24, 0x89, 0x04, 0x24]), 0);
    // mov rdi,rax; mov ecx,[rax+8]; mov edx,[rdi]: the same value
    assert_eq!(count(&[0x48, 0x89, 0xc7, 0x8b, 0x48, 8, 0x8b, 0x17]), 1);
    // mov rdi,rax; inc rdi; mov ecx,[rax+8]; mov edx,[rdi]: another, though near it would be
    assert_eq!(count(&[0x48, 0x89, 0xc7, 0x48, 0xff, 0xc7, 0x8b, 0x48, 8, 0x8b, 0x17]), 2);
    // mov rax,[rax]; mov rax,[rax]
    assert_eq!(count(&[0x48, 0x8b, 0x00, 0x48, 0x8b, 0x00]), 2);
    // mov eax,[rax+rcx*8]; mov edx,[rax+rcx*8+4]: EAX is another
    assert_eq!(count(&[0x8b, 0x04, 0xc8, 0x8b, 0x54, 0xc8, 4]), 2);
    // mov eax,[rsi+rcx*8]; mov edx,[rsi+rcx*8+4]
    assert_eq!(count(&[0x8b, 0x04, 0xce, 0x8b, 0x54, 0xce, 4]), 1);
}

/// Blocks of a unit: each with its address, its code and whether it is entered from outside.
fn unit(blocks: &[(u64, &[u8], bool)]) -> Vec<Block> {
    let block = |(pc, code, entered): &(u64, &[u8], bool)| {
        let insns = Decoder::with_ip(64, code, *pc, DecoderOptions::NONE).iter().collect();
        Block { pc: *pc, insns, counted: None, entered: *entered }
    };
    blocks.iter().map(block).collect()
}

/// Checks in each block's code.
fn checks_in(blocks: &[Block]) -> Vec<usize> {
    let mut d = Direct::new(WORDS);
    let c = d.copy(blocks, 64, true, &mut |pc| pc as u32 % 1000).expect("a copy");
    let mut ends: Vec<u32> = c.starts[1..].to_vec();
    ends.push(c.code.len() as u32);
    let count = |(from, to): (&u32, &u32)| {
        let code = &c.code[*from as usize..*to as usize];
        Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().filter(|i| i.mnemonic() == M::Shrx).count()
    };
    c.starts.iter().zip(&ends).map(count).collect()
}

/// What is known where ways meet is what is known on all of them, whoever says that they are there.
#[test]
fn ways_meet() {
    // 0: mov ecx,[rax]; je 0x20    4: nop; jmp 0x20    20: mov edx,[rax]; ret
    let (a, nop, c): (&[u8], &[u8], &[u8]) = (&[0x8b, 0x08, 0x74, 0x1c], &[0x90], &[0x8b, 0x10, 0xc3]);
    let jump_to_20: &[u8] = &[0x90, 0xeb, 0x19];
    let [x, y, z] = [0x0, 0x4, 0x20].map(|a| 0x40_0000 + a);
    assert_eq!(checks_in(&unit(&[(x, a, true), (y, jump_to_20, false), (z, c, false)])), [1, 0, 0]);
    // One way has another RAX: mov rax,rbx; jmp 0x20
    let other: &[u8] = &[0x48, 0x89, 0xd8, 0xeb, 0x17];
    assert_eq!(checks_in(&unit(&[(x, a, true), (y, other, false), (z, c, false)])), [1, 0, 1]);
    // Others come from outside.
    assert_eq!(checks_in(&unit(&[(x, a, true), (y, jump_to_20, false), (z, c, true)])), [1, 0, 1]);
    // Something behind it jumps back: 0x30: mov rax,rbx; jmp 0x20
    let back: &[u8] = &[0x48, 0x89, 0xd8, 0xeb, 0xeb];
    let blocks =
        unit(&[(x, a, true), (y, nop, false), (z, &[0x8b, 0x10, 0x74, 0x0c], false), (0x40_0030, back, false)]);
    assert_eq!(checks_in(&blocks)[2], 1);
    // Falls into it, without a jump: nop up to 0x20.
    let falls: &[u8] = &[0x48, 0x89, 0xc8];
    assert_eq!(checks_in(&unit(&[(x, a, true), (z - 3, falls, true), (z, c, false)]))[2], 1);
}

/// A jump back in the guest polls, also where it goes forward in the unit: its loop may come back by way of other units.
#[test]
fn what_goes_back_in_the_guest_can_be_stopped() {
    let [low, high] = [0x40_0000, 0x40_0040];
    let stops = |blocks: &[(u64, &[u8], bool)]| -> Vec<u64> {
        let (_, pcs, _) = copy(&unit(blocks));
        pcs.iter().filter(|p| p.1 & BOUNDARY != 0).map(|p| p.1 & !BOUNDARY).collect()
    };
    // nop; and: jmp from 0x40 to 0, to 0x80, from 0 to 0x40, to itself
    let (nop, back, on, forth): (&[u8], &[u8], &[u8], &[u8]) = (&[0x90], &[0xeb, 0xbe], &[0xeb, 0x3e], &[0xeb, 0x3e]);
    assert_eq!(stops(&[(high, back, true), (low, nop, false)]), [low]);
    assert_eq!(stops(&[(low, forth, true), (high, on, false)]), []);
    // Each cycle once, in whichever order.
    assert_eq!(stops(&[(high, back, true), (low, forth, false)]), [low]);
    assert_eq!(stops(&[(low, forth, true), (high, back, false)]), [low]);
    assert_eq!(stops(&[(low, &[0xeb, 0xfe], true)]), [low]);
    // Out of the unit.
    assert_eq!(stops(&[(high, back, true)]), [low]);
}

/// The copy of a loop, and where it goes back to: `front` is entered; the loop is of these blocks, and ends in a jump back.
fn looped(front: &[u8], turn: &[&[u8]]) -> (Vec<Instruction>, Instruction) {
    let mut turn: Vec<Vec<u8>> = turn.iter().map(|b| b.to_vec()).collect();
    let back = -(turn.iter().map(Vec::len).sum::<usize>() as i8) - 2;
    turn.last_mut().expect("a block").extend([0x75, back as u8]);
    let nop: &[u8] = &[0x90];
    let mut all = vec![(0x40_0000, if front.is_empty() { nop } else { front }, true)];
    for b in &turn {
        let (pc, code, _) = all[all.len() - 1];
        all.push((pc + code.len() as u64, b, false));
    }
    let blocks = unit(&all);
    let mut d = Direct::new(WORDS);
    let c = d.copy(&blocks, 64, true, &mut |pc| pc as u32 % 1000).expect("a copy");
    let all: Vec<Instruction> = Decoder::with_ip(64, c.code, 0, DecoderOptions::NONE).iter().collect();
    let back = *all.iter().find(|i| i.is_jcc_short_or_near() && i.near_branch_target() < i.ip()).expect("a jump back");
    (all, back)
}

/// Checks in front of such a loop and in it.
fn checks_of_blocks(front: &[u8], turn: &[&[u8]]) -> [usize; 2] {
    let (all, back) = looped(front, turn);
    let checks =
        |from: u64, to: u64| all.iter().filter(|i| i.mnemonic() == M::Shrx && (from..to).contains(&i.ip())).count();
    [checks(0, back.near_branch_target()), checks(back.near_branch_target(), back.ip())]
}

fn checks_of_loop(front: &[u8], turn: &[u8]) -> [usize; 2] {
    checks_of_blocks(front, &[turn])
}

/// What does not change in a loop, or moves with what is accessed, is checked in front of it.
#[test]
fn loops_check_in_front() {
    // mov rcx,[rdi]; dec rcx
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x0f, 0x48, 0xff, 0xc9]), [1, 0]);
    // movsd xmm0,[rdi+rbx]; add rbx,8; movsd [rbx+r13-8],xmm0
    let moved = [0xf2, 0x0f, 0x10, 0x04, 0x1f, 0x48, 0x83, 0xc3, 8, 0xf2, 0x42, 0x0f, 0x11, 0x44, 0x2b, 0xf8];
    assert_eq!(checks_of_loop(&[], &moved), [2, 0]);
    // mov rcx,[rdi]; add rdi,8; dec rcx: what was accessed is near
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x0f, 0x48, 0x83, 0xc7, 8, 0x48, 0xff, 0xc9]), [1, 0]);
    // mov rcx,[rdi+rdx*8]; inc rdx
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x0c, 0xd7, 0x48, 0xff, 0xc2]), [1, 0]);
    // mov rcx,[rdi]; add rdi,0x10000000: each turn moves it, and it was near before; twice that is too far
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x0f, 0x48, 0x81, 0xc7, 0, 0, 0, 0x10]), [1, 0]);
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x0f, 0x48, 0x81, 0xc7, 0, 0, 0, 0x20]), [0, 1]);
    // mov rcx,[rdi]; add rdi,rcx; and mov rdi,[rdi]: another address each time
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x0f, 0x48, 0x01, 0xcf]), [0, 1]);
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8b, 0x3f, 0x48, 0x85, 0xff]), [0, 1]);
    // lea rsi,[rdi+8]; mov rcx,[rsi]: RSI is not what it was
    assert_eq!(checks_of_loop(&[], &[0x48, 0x8d, 0x77, 8, 0x48, 0x8b, 0x0e, 0x48, 0xff, 0xc9]), [0, 1]);
    // Known in front: mov rcx,[rdi]
    assert_eq!(checks_of_loop(&[0x48, 0x8b, 0x0f], &[0x48, 0x8b, 0x0f, 0x48, 0xff, 0xc9]), [1, 0]);
    // RDI moves, and is not accessed: add rdi,8; dec rcx. Known in front, it is not known behind the loop.
    assert_eq!(checks_of_loop(&[0x48, 0x8b, 0x0f], &[0x48, 0x83, 0xc7, 8, 0x48, 0xff, 0xc9]), [1, 0]);
    // A call in it: nothing is known of registers any more. mov rcx,[rdi]; call [rip]; dec rcx. (Where the call goes is checked, too.)
    let call: &[u8] = &[0x48, 0x8b, 0x0f, 0xff, 0x15, 0, 0, 0, 0];
    assert_eq!(checks_of_blocks(&[], &[call, &[0x48, 0xff, 0xc9]]), [0, 2]);
    // mov edx,0x1000; xor eax,eax in front; mov [rdx+rax],ecx; add rax,4; dec ecx: that the sum is near needs to be checked is seen late
    let front: &[u8] = &[0xba, 0, 0x10, 0, 0, 0x31, 0xc0];
    assert_eq!(checks_of_loop(front, &[0x89, 0x0c, 0x02, 0x48, 0x83, 0xc0, 4, 0xff, 0xc9]), [1, 0]);
    // mov rcx,[rdi]; je out; mov rdx,[rsi]; dec rcx: each turn comes to both
    let load: &[u8] = &[0x48, 0x8b, 0x0f, 0x74, 0x40];
    assert_eq!(checks_of_blocks(&[], &[load, &[0x48, 0x8b, 0x16, 0x48, 0xff, 0xc9]]), [2, 0]);
    // mov rcx,[rdi]; je over; mov rdx,[rsi]; over: dec rcx: not to the second
    let load: &[u8] = &[0x48, 0x8b, 0x0f, 0x74, 3];
    assert_eq!(checks_of_blocks(&[], &[load, &[0x48, 0x8b, 0x16], &[0x48, 0xff, 0xc9]]), [1, 1]);
}

/// A register of the state that was looked at in front of a loop is loaded in it: it has changed when the loop comes back.
#[test]
fn loops_load_what_changes() {
    // mov rcx,[rdi+r9*8]; inc r9
    let (all, back) = looped(&[], &[&[0x4a, 0x8b, 0x0c, 0xcf, 0x49, 0xff, 0xc1]]);
    let turn = || all.iter().filter(|i| (back.near_branch_target()..back.ip()).contains(&i.ip()));
    let sum = turn().find(|i| i.mnemonic() == M::Lea && i.memory_index() == R::R15).expect("the address");
    let load = |i: &Instruction| i.mnemonic() == M::Mov && i.op0_register() == R::R15 && i.memory_base() == R::R9;
    assert!(turn().any(|i| load(i) && i.ip() < sum.ip()), "{all:#?}");
}

/// Every register of the state is stored when it changes, and what is read is what was stored last: run on paper.
#[test]
fn registers_of_the_state_are_followed() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 9) % n
    };
    for _ in 0..3000 {
        // mov, add, xor of two 64-bit registers among RAX, RCX, R9, R10, R11, R15; and inc.
        let mut code = vec![];
        let mut want: [u64; 16] = std::array::from_fn(|n| n as u64 * 0x0101_0101_0101 + 7);
        let first = want;
        for _ in 0..30 {
            let registers = [0u8, 1, 9, 10, 11, 15];
            let (a, b) = (registers[next(6) as usize], registers[next(6) as usize]);
            let (x, y) = (usize::from(a), usize::from(b));
            let rex = 0x48 | (b >> 3) << 2 | a >> 3;
            let modrm = 0xc0 | (b & 7) << 3 | a & 7;
            match next(4) {
                0 => {
                    code.extend([rex, 0x89, modrm]);
                    want[x] = want[y];
                }
                1 => {
                    code.extend([rex, 0x01, modrm]);
                    want[x] = want[x].wrapping_add(want[y]);
                }
                2 => {
                    code.extend([rex, 0x31, modrm]);
                    want[x] ^= want[y];
                }
                _ => {
                    code.extend([0x48 | a >> 3, 0xff, 0xc0 | a & 7]);
                    want[x] = want[x].wrapping_add(1);
                }
            }
        }
        let (emitted, ..) = copy(&[block(&code)]);
        assert_eq!(paper(&emitted, first), want, "{code:02x?}");
    }
}

/// What code of moves, additions and the like does with the guest's registers, up to its last jump.
fn paper(code: &[u8], guest: [u64; 16]) -> [u64; 16] {
    let is_state = |n: usize| matches!(n, 9 | 10 | 11 | 15);
    let mut host: [u64; 16] = std::array::from_fn(|n| if is_state(n) { 0xdead_0000 + n as u64 } else { guest[n] });
    host[11] = guest[4];
    let mut state = guest;
    for i in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        let slot = |i: &Instruction| {
            let at = i.memory_displacement64() as i64 + 36 - 32;
            (i.memory_base() == R::R9 && (0..128).contains(&at)).then_some(at as usize / 8)
        };
        let memory = (0..i.op_count()).find(|k| i.op_kind(*k) == OpKind::Memory);
        if i.flow_control() != FlowControl::Next || memory.is_some() && slot(&i).is_none() {
            break;
        }
        let read = |k: u32, host: &[u64; 16], state: &[u64; 16]| match i.op_kind(k) {
            OpKind::Memory => state[slot(&i).unwrap_or(0)],
            _ => host[i.op_register(k).number()],
        };
        let source = if i.op_count() > 1 { read(1, &host, &state) } else { 0 };
        let old = read(0, &host, &state);
        let new = match i.mnemonic() {
            M::Mov => source,
            M::Add => old.wrapping_add(source),
            M::Xor => old ^ source,
            M::Inc => old.wrapping_add(1),
            // Of the way out.
            _ => break,
        };
        match i.op0_kind() {
            OpKind::Memory => state[slot(&i).unwrap_or(0)] = new,
            _ => host[i.op_register(0).number()] = new,
        }
    }
    std::array::from_fn(|n| {
        if is_state(n) {
            state[n]
        } else if n == 4 {
            guest[4]
        } else {
            host[n]
        }
    })
}

#[test]
fn hashes_are_those_of_the_instruction() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sse4.2") {
        #[allow(unsafe_code)]
        for pc in [0u64, 1, 0x40_1000, 0x7fff_f7dd_1234, u64::MAX] {
            // SAFETY: the host has SSE4.2.
            let crc = unsafe { std::arch::x86_64::_mm_crc32_u64(0, pc) };
            assert_eq!(hash(pc), crc as usize % HASHES);
        }
    }
}

/// Two loops with the same head: what is checked in the inner one is checked where the outer one comes, too.
#[test]
fn loops_with_one_head() {
    // a: mov rcx,[rdi+rdx*8]; inc rdx; mov [rdi+rdx*8],rcx; jne a    b: mov r8,[rsi]; inc rsi; jne b    c: mov rdi,rsi; jmp a
    let a: &[u8] = &[0x48, 0x8b, 0x0c, 0xd7, 0x48, 0xff, 0xc2, 0x48, 0x89, 0x0c, 0xd7, 0x75, 0xf3];
    let b: &[u8] = &[0x4c, 0x8b, 0x06, 0x48, 0xff, 0xc6, 0x75, 0xf8];
    let c: &[u8] = &[0x48, 0x89, 0xf7, 0xeb, 0xe6];
    let blocks = unit(&[(0x40_0000, a, true), (0x40_000d, b, false), (0x40_0015, c, false)]);
    let mut d = Direct::new(WORDS);
    let code = d.copy(&blocks, 64, true, &mut |pc| pc as u32 % 1000).expect("a copy").code.to_vec();
    let all: Vec<Instruction> = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).iter().collect();
    let backs: Vec<&Instruction> =
        all.iter().filter(|i| i.is_jcc_short_or_near() && i.near_branch_target() < i.ip()).collect();
    assert_eq!(backs.len(), 2, "{all:#?}");
    for back in &backs {
        let turn = |i: &&Instruction| (back.near_branch_target()..back.ip()).contains(&i.ip());
        assert_eq!(all.iter().filter(turn).filter(|i| i.mnemonic() == M::Shrx).count(), 0, "{all:#?}");
    }
    let outer = all.iter().find(|i| i.is_jmp_short_or_near()).expect("the outer loop");
    assert_eq!(outer.near_branch_target(), 0, "{all:#?}");
    assert!(all.iter().any(|i| i.mnemonic() == M::Shrx && i.ip() < backs[0].near_branch_target()));
}

/// Pushes move RSP once, where they end; a fault in one of them is one of the first.
#[test]
fn runs_move_rsp_once() {
    // push rbx; push rbp; push 7; mov ebx,1; pop rax; pop rbp; ret
    let blocks = unit(&[(0x40_0000, &[0x53, 0x55, 0x6a, 7, 0xbb, 1, 0, 0, 0, 0x58, 0x5d, 0xc3], true)]);
    let mut d = Direct::new(WORDS);
    let c = d.copy(&blocks, 64, true, &mut |pc| pc as u32 % 1000).expect("a copy");
    let all: Vec<Instruction> = Decoder::with_ip(64, c.code, 0, DecoderOptions::NONE).iter().collect();
    let moves = |i: &&Instruction| i.mnemonic() == M::Lea && i.op0_register() == R::R11;
    let by: Vec<i64> = all.iter().filter(moves).map(|i| i.memory_displacement64() as i64).collect();
    assert_eq!(by, [-24, 24], "{all:#?}");
    let known: Vec<u64> = c.pcs.iter().map(|p| p.1).collect();
    assert_eq!(known, [0x40_0000, 0x40_0000, 0x40_0000, 0x40_0009, 0x40_0009, 0x40_0009]);
}

/// What asks for a line of the cache still does so.
#[test]
fn prefetches_are_copied() {
    // prefetcht0 [rax+rcx*4+8]; prefetchw [r9]
    let (code, _, out) = copy(&[block(&[0x0f, 0x18, 0x4c, 0x88, 8, 0x41, 0x0f, 0x0d, 0x09])]);
    let all: Vec<Instruction> = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).iter().collect();
    let found: Vec<M> =
        all.iter().filter(|i| select::is_prefetch(i) && i.segment_prefix() == R::GS).map(|i| i.mnemonic()).collect();
    assert_eq!((found, out), (vec![M::Prefetcht0, M::Prefetchw], 0), "{all:#?}");
}
