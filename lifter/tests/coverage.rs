//! The opcode maps, walked: each instruction of the features that a CPU model shows has a translation, and
//! the translation is valid.

use evm_lifter::{Options, lift};
use iced_x86::{CpuidFeature as F, Decoder, DecoderOptions, Instruction, Mnemonic};
use std::collections::BTreeSet;

/// Features that the models show, as iced names them.
fn shown(f: F) -> bool {
    matches!(
        f,
        F::INTEL8086
            | F::INTEL8086_ONLY
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CMOV
            | F::CPUID
            | F::CX8
            | F::CMPXCHG16B
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::POPCNT
            | F::AES
            | F::PCLMULQDQ
            | F::SHA
            | F::AVX
            | F::AVX2
            | F::FMA
            | F::F16C
            | F::BMI1
            | F::BMI2
            | F::LZCNT
            | F::MOVBE
            | F::ADX
            | F::XSAVE
            | F::XSAVEOPT
            | F::XSAVEC
            | F::FXSR
            | F::SYSCALL
            | F::RDTSCP
            | F::TSC
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::PREFETCHW
            | F::CLFSH
            | F::CET_IBT
    )
}

/// Instructions that a program cannot execute in user mode of Linux (they fault or are for other modes).
fn privileged(i: &Instruction) -> bool {
    use Mnemonic::*;
    i.is_privileged()
        || matches!(
            i.mnemonic(),
            Sysret
                | Sysretq
                | Sysexit
                | Sysexitq
                | Sysenter
                | Iret
                | Iretd
                | Iretq
                | Retf
                | In
                | Out
                | Insb
                | Insw
                | Insd
                | Outsb
                | Outsw
                | Outsd
                | Cli
                | Sti
                | Lar
                | Lsl
                | Verr
                | Verw
                | Sgdt
                | Sidt
                | Sldt
                | Str
                | Smsw
                | Lfs
                | Lgs
                | Lss
                | Loadall
                | Invd
                | Wbinvd
                | Rsm
                | Hlt
                | Ud0
                | Ud1
                | Ud2
                | Umov
                | Xbts
                | Ibts
                | Into
                | Bound
                | Frstpm
                | Fnstsg
        )
        || i.is_call_far()
        || i.is_jmp_far()
        || i.is_call_far_indirect()
        || i.is_jmp_far_indirect()
}

/// Every (prefixes, opcode, ModRM) of the legacy and VEX maps.
fn encodings() -> Vec<Vec<u8>> {
    let mut out = vec![];
    let modrms: Vec<u8> = (0..8).flat_map(|r| [0x07 | r << 3, 0xc1 | r << 3]).chain(0xc0..=0xff).collect();
    let tail = |v: &mut Vec<u8>, m: u8| v.extend([m, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
    for prefix in [&[][..], &[0x66], &[0xf3], &[0xf2]] {
        for rex in [&[][..], &[0x48]] {
            for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
                for op in 0..=255u8 {
                    for m in &modrms {
                        let mut v = [prefix, rex, map, &[op]].concat();
                        tail(&mut v, *m);
                        out.push(v);
                    }
                }
            }
        }
    }
    for map in 1..=3u8 {
        for pp in 0..4u8 {
            for lw in 0..4u8 {
                for op in 0..=255u8 {
                    for m in [0x07, 0x0f, 0x17, 0x1f, 0xc1, 0xca, 0xd1, 0xd9, 0xe1, 0xf1, 0xf9, 0x44] {
                        for vvvv in [0xf, 0xd] {
                            let mut v = vec![0xc4, 0xe0 | map, (lw & 2) << 6 | vvvv << 3 | (lw & 1) << 2 | pp, op];
                            tail(&mut v, m);
                            out.push(v);
                        }
                    }
                }
            }
        }
    }
    out
}

#[test]
fn every_instruction_shown_is_translated() {
    walk(64, &[]);
}

#[test]
fn every_instruction_shown_is_translated_32() {
    // Decimal adjustments, far pointers and PUSHA/POPA are not translated.
    walk(32, &["Aaa", "Aas", "Aad_", "Aam_", "Daa", "Das", "Arpl_", "Lds_", "Les_", "Pusha", "Popa", "Salc"]);
}

fn walk(bits: u32, not_yet: &[&str]) {
    let (mut missing, mut invalid) = (BTreeSet::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    for bytes in encodings() {
        let i = Decoder::with_ip(bits, &bytes, 0x1000, DecoderOptions::NONE).decode();
        if i.is_invalid() || privileged(&i) || !i.cpuid_features().iter().all(|f| shown(*f)) {
            continue;
        }
        let kinds: Vec<String> = (0..i.op_count()).map(|n| format!("{:?}", i.op_kind(n))).collect();
        if !seen.insert((i.code() as u32, kinds)) {
            continue;
        }
        let mut fetch = |pc: u64, buf: &mut [u8]| {
            let at = (pc - 0x1000) as usize;
            let n = i.len().saturating_sub(at).min(buf.len());
            buf[..n].copy_from_slice(&bytes[at.min(bytes.len())..][..n]);
            n
        };
        let what = format!("{:?}", i.code());
        match lift(0x1000, &[], &mut fetch, &Options { bits, ..Options::default() }) {
            Ok(l) => {
                if !l.notes.is_empty() && !not_yet.iter().any(|n| what.starts_with(n)) {
                    missing.insert(what.clone());
                }
                if let Err(e) = evm_ir::validate(&l.region) {
                    invalid.insert(format!("{what}: {e:?}"));
                }
            }
            Err(e) => {
                missing.insert(format!("{what}: {e}"));
            }
        }
    }
    assert!(seen.len() > 1500, "{} encodings", seen.len());
    assert!(missing.is_empty() && invalid.is_empty(), "not translated: {missing:#?}\ninvalid: {invalid:#?}");
}
