//! Whether the host's CPU leaves the flags that the manual calls undefined as the virtual CPU does (`evm_cpu::cc`).
//!
//! Copied code has the host's flags, and a program is to do the same everywhere.
//!
//! # Safety
//! The instructions work on registers that are declared.
#![allow(unsafe_code)]

use evm_cpu::cc;
use std::arch::asm;
use std::sync::LazyLock;

/// The flags after an instruction on RAX, RDX and CL, from these values of RAX, RDX and CL, with all flags clear before and with all set.
macro_rules! flags {
    ($text:literal, $a:expr, $d:expr, $c:expr) => {{
        let run = |before: u64| {
            let after: u64;
            // SAFETY: pushes and pops in pairs below the red zone of no leaf (`asm!` without `nostack`), and registers that are named.
            unsafe {
                asm!("push {f}", "popfq", $text, "pushfq", "pop {f}", f = inout(reg) before | 2 => after,
                    inout("rax") $a as u64 => _, inout("rdx") $d as u64 => _, inout("rcx") $c as u64 => _);
            }
            after & cc::MASK
        };
        (run(0), run(cc::MASK))
    }};
}

/// Whether the host's CPU is such a one. False as well if it lacks the instructions.
pub fn host_flags() -> bool {
    static AGREES: LazyLock<bool> = LazyLock::new(|| {
        use std::arch::is_x86_feature_detected as has;
        has!("bmi1") && has!("bmi2") && has!("lzcnt") && agrees()
    });
    *AGREES
}

fn agrees() -> bool {
    use cc::{AF, CF, OF, PF, SF, ZF};
    const REST: u64 = PF | AF | ZF | SF;
    const TOP: u64 = 1 << 63;
    let same = |v| (v, v);
    [
        // AF after logic; the flags after products and divisions.
        (flags!("and rax, rdx", 8, 12, 0), same(0)),
        (flags!("test eax, edx", 8, 3, 0), same(ZF | PF)),
        (flags!("xor al, dl", 0x81, 1, 0), same(SF)),
        (flags!("mul rdx", 0, 7, 0), same(PF)),
        (flags!("mul dl", 0x40, 2, 0), same(SF)),
        (flags!("imul rdx", TOP, 1, 0), same(SF | PF)),
        (flags!("imul eax, edx", 1 << 31, 2, 0), same(CF | OF | PF)),
        (flags!("imul ax, dx, 3", 0, 1, 0), same(PF)),
        (flags!("div rcx", 100, 0, 7), (0, cc::MASK)),
        (flags!("idiv ecx", 100, 0, 7), (0, cc::MASK)),
        // OF after shifts and rotates by more than one: as by one.
        (flags!("shl rax, cl", TOP, 0, 4), same(OF | ZF | PF)),
        (flags!("shl eax, 5", 3u64 << 30, 0, 0), same(ZF | PF)),
        (flags!("shl al, cl", 0x81, 0, 12), same(OF | ZF | PF)),
        (flags!("shr rax, cl", TOP | 8, 0, 4), same(CF | OF | PF)),
        (flags!("shr ax, 3", 0x4004, 0, 0), same(CF | PF)),
        (flags!("sar rax, cl", TOP, 0, 5), same(SF | PF)),
        (flags!("rol rax, cl", TOP, 0, 4), (OF, OF | REST)),
        (flags!("rol eax, 5", 3u64 << 30, 0, 0), (0, OF | REST)),
        (flags!("ror rax, cl", 1, 0, 4), (OF, OF | REST)),
        (flags!("ror ax, 5", 1, 0, 0), (0, OF | REST)),
        (flags!("push rax; ror qword ptr [rsp], 5; pop rax", 1, 0, 0), (OF, OF | REST)),
        (flags!("rcl rax, cl", TOP, 0, 4), (OF, OF | REST)),
        (flags!("rcr eax, 5", 0, 0, 0), (0, OF | REST)),
        (flags!("rcl al, cl", 0x80, 0, 9), (0, cc::MASK)),
        (flags!("shld rax, rdx, cl", TOP, 0, 4), same(OF | ZF | PF)),
        (flags!("shld eax, edx, 5", 3u64 << 30, 0, 0), same(ZF | PF)),
        (flags!("shrd rax, rdx, cl", 0, 1, 4), same(OF | PF)),
        (flags!("shrd eax, edx, 5", 1 << 31, 1, 0), same(PF)),
        // Bit tests, scans and counts.
        (flags!("bt rax, rdx", 2, 1, 0), (CF, cc::MASK)),
        (flags!("btr eax, 3", 0, 0, 0), (0, OF | REST)),
        (flags!("bsf rdx, rax", 8, 0, 0), same(PF)),
        (flags!("bsf edx, eax", 2, 0, 0), same(0)),
        (flags!("bsr rdx, rax", 0, 0, 0), same(ZF | PF)),
        (flags!("bsr edx, eax", 0x8000, 0, 0), same(PF)),
        (flags!("tzcnt rdx, rax", 8, 0, 0), same(0)),
        (flags!("lzcnt rdx, rax", 0, 0, 0), same(CF)),
        (flags!("bextr rdx, rax, rcx", TOP | 3, 0, 0x4000), same(0)),
        (flags!("blsr rdx, rax", TOP | 1, 0, 0), same(SF)),
        (flags!("andn rdx, rax, rdx", 0, TOP | 3, 0), same(SF)),
        (flags!("bzhi rdx, rax, rcx", TOP | 3, 0, 2), same(0)),
    ]
    .into_iter()
    .all(|(found, ours)| found == ours)
}
