//! What is emitted, looked at as one who does not trust it would.

use super::*;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic as M, OpAccess, OpKind, Register as R};

const WORDS: Words = Words {
    gpr: 32,
    df: 200,
    base: 208,
    poll: 216,
    records: 224,
    counts: 232,
    hot: 240,
    targets: 248,
    fs: 256,
    saved: 264,
    out: 272,
    dispatch: 280,
    service: 288,
    step: 296,
};

fn copy(blocks: &[Block]) -> (Vec<u8>, Vec<(u32, u64)>, u32) {
    let mut d = Direct::new(WORDS);
    let c = d.copy(blocks, true, &mut |pc| pc as u32 % 1000).expect("a copy");
    (c.code.to_vec(), c.pcs.to_vec(), c.left_out.len() as u32)
}

fn block(code: &[u8]) -> Block {
    let insns: Vec<Instruction> = Decoder::with_ip(64, code, 0x40_0000, DecoderOptions::NONE).iter().collect();
    Block { pc: 0x40_0000, insns, counted: None, entered: true }
}

/// What is wrong with code.
fn wrong(code: &[u8], pcs: &[(u32, u64)]) -> Option<String> {
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
                _ => {}
            }
        }
        if used.used_registers().iter().any(|u| writes(u) && u.register().is_segment_register()) {
            return bad("a segment is changed");
        }
        let string = (0..i.op_count()).any(|k| matches!(i.op_kind(k), OpKind::MemoryESRDI | OpKind::MemorySegRSI));
        if string && (!checked || prior != M::Lea) {
            return bad("a string that was not checked");
        }
        let memory = (0..i.op_count()).any(|k| i.op_kind(k) == OpKind::Memory) && i.mnemonic() != M::Lea;
        if memory {
            let (base, disp) = (i.memory_base(), i.memory_displacement64() as i64);
            let own = i.segment_prefix() == R::None
                && (base == R::R9 && i.memory_index() == R::None && (-36..1000).contains(&disp) || base == R::R10);
            let guard = i.segment_prefix() == R::GS
                && base == R::None
                && i.memory_index().full_register() != R::None
                && disp < -(1 << 30);
            let constant = base == R::None && i.memory_index() == R::None && (0..1 << 36).contains(&disp);
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

#[test]
fn whatever_is_copied_stays_inside() {
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
        // Of random bytes few are of the larger maps.
        let [a, b, c] = [bytes[0], bytes[1], bytes[2]];
        let start: &[u8] = match n % 8 {
            0 => &[0x0f],
            1 => &[0xc5, b | 0x78],
            2 => &[0xc4, b & 0xe0 | 1 + c % 3, c | 0x78],
            3 => &[0x48 | a & 7, 0x0f],
            4 => &[0x66, 0x0f, 0x38 + (c & 2)],
            _ => &[],
        };
        bytes[..start.len()].copy_from_slice(start);
        let i = Decoder::with_ip(64, &bytes, 0x40_0000, DecoderOptions::NONE).decode();
        if i.is_invalid() {
            continue;
        }
        all += 1;
        let b = Block { pc: 0x40_0000, insns: vec![i], counted: None, entered: true };
        let (code, pcs, left_out) = copy(&[b]);
        copied += 1 - left_out;
        if let Some(why) = wrong(&code, &pcs) {
            panic!("{i}: {why}");
        }
    }
    assert!(all > 50_000 && copied > all / 2, "{copied} of {all} copied");
}

#[test]
fn what_must_not_run_here_is_left_out() {
    let cases: &[&[u8]] = &[
        &[0x0f, 0x05],                   // syscall: a way
        &[0xcd, 0x80],                   // int 80h
        &[0x0f, 0xa2],                   // cpuid
        &[0xf3, 0x48, 0x0f, 0xae, 0xd8], // wrgsbase rax
        &[0x0f, 0xae, 0x10],             // ldmxcsr [rax]
        &[0x8e, 0xe8],                   // mov gs,eax
        &[0xd9, 0xe8],                   // fld1
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
    // mov rax,[rax]; mov rax,[rax]
    assert_eq!(count(&[0x48, 0x8b, 0x00, 0x48, 0x8b, 0x00]), 2);
    // mov eax,[rax+rcx*8]; mov edx,[rax+rcx*8+4]: EAX is another
    assert_eq!(count(&[0x8b, 0x04, 0xc8, 0x8b, 0x54, 0xc8, 4]), 2);
    // mov eax,[rsi+rcx*8]; mov edx,[rsi+rcx*8+4]
    assert_eq!(count(&[0x8b, 0x04, 0xce, 0x8b, 0x54, 0xce, 4]), 1);
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
