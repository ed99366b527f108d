//! What belongs to a CPU model, and what is not compared, with reasons.

use super::state::Features;
use iced_x86::{Code, CpuidFeature as F, EncodingKind, Instruction, Mnemonic as M};

/// CPUID features whose instructions the models show.
const V2: &[F] = &[
    F::INTEL8086,
    F::INTEL186,
    F::INTEL286,
    F::INTEL386,
    F::INTEL486,
    F::X64,
    F::CMOV,
    F::CMPXCHG16B,
    F::CX8,
    F::CLFSH,
    F::FPU,
    F::FPU287,
    F::FPU387,
    F::FXSR,
    F::MMX,
    F::MULTIBYTENOP,
    F::PAUSE,
    F::PREFETCHW,
    F::SSE,
    F::SSE2,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
    F::POPCNT,
    F::AES,
    F::PCLMULQDQ,
    F::CET_IBT,
    F::MSR,
    F::SHA,
];
const V3: &[F] =
    &[F::AVX, F::AVX2, F::FMA, F::F16C, F::BMI1, F::BMI2, F::LZCNT, F::MOVBE, F::ADX, F::XSAVE, F::XSAVEOPT, F::XSAVEC];

/// What assemblers write WAIT and the form without it for (FSAVE is WAIT and FNSAVE): two instructions.
const WITH_WAIT: &[M] =
    &[M::Fclex, M::Fdisi, M::Feni, M::Finit, M::Fsave, M::Fsetpm, M::Fstcw, M::Fstdw, M::Fstenv, M::Fstsg, M::Fstsw];

/// Whether 64-bit user programs can have this instruction on this model.
pub fn belongs(code: Code, f: Features) -> bool {
    belongs_in(code, f, 64)
}

/// The same for programs of 64 or 32 bits.
pub fn belongs_in(code: Code, f: Features, bits: u32) -> bool {
    let op = code.op_code();
    let known = |c: &F| V2.contains(c) || f == Features::V3 && V3.contains(c);
    let mode = match bits {
        64 => op.mode64() && op.intel_decoder64(),
        _ => op.mode32() && op.intel_decoder32(),
    };
    op.is_instruction()
        && mode
        && !WITH_WAIT.contains(&code.mnemonic())
        && matches!(code.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && code.cpuid_features().iter().all(known)
}

/// The group of a report: the last feature that an instruction needs.
pub fn group(code: Code) -> String {
    let all = code.cpuid_features();
    let f = all.iter().rev().find(|f| !matches!(f, F::AVX) || all.len() == 1).copied().unwrap_or(F::INTEL8086);
    match f {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 => "base".into(),
        F::FPU | F::FPU287 | F::FPU387 => "x87".into(),
        f => format!("{f:?}"),
    }
}

/// Instructions not run, by mnemonic, and why.
const NOT_RUN: &[(M, &str)] = &[
    (M::Syscall, "a system call: the kernel's tests"),
    (M::Sysenter, "a system call"),
    (M::Sysexit, "leaves 64-bit mode"),
    (M::Sysret, "privileged; leaves 64-bit mode"),
    (M::Sysretq, "privileged"),
    (M::Sysexitq, "privileged"),
    (M::Iret, "may load selectors and leave 64-bit mode"),
    (M::Iretd, "may load selectors and leave 64-bit mode"),
    (M::Iretq, "may load selectors and leave 64-bit mode"),
    (M::Retf, "may load selectors and leave 64-bit mode"),
    (M::Lss, "loads selectors"),
    (M::Lfs, "loads selectors"),
    (M::Lgs, "loads selectors"),
    (M::Cpuid, "shows the model, not the host"),
    (M::Xgetbv, "shows the model, not the host"),
    (M::Rdtsc, "time"),
    (M::Rdtscp, "time"),
    (M::Rdpmc, "the host may allow it"),
    (M::Rcpps, "differs between CPU vendors; one definition here, tested by itself"),
    (M::Rcpss, "as rcpps"),
    (M::Rsqrtps, "as rcpps"),
    (M::Rsqrtss, "as rcpps"),
    (M::Vrcpps, "as rcpps"),
    (M::Vrcpss, "as rcpps"),
    (M::Vrsqrtps, "as rcpps"),
    (M::Vrsqrtss, "as rcpps"),
    (M::Sgdt, "shows the host's tables"),
    (M::Sidt, "shows the host's tables"),
    (M::Sldt, "shows the host's tables"),
    (M::Str, "shows the host's tables"),
    (M::Smsw, "shows the host's control register"),
    (M::Lar, "shows the host's tables"),
    (M::Lsl, "shows the host's tables"),
    (M::Verr, "shows the host's tables"),
    (M::Verw, "shows the host's tables"),
    (M::Xrstor, "runs in the frame; random images are mostly #GP"),
    (M::Xrstor64, "runs in the frame"),
    (M::Fxrstor, "runs in the frame"),
    (M::Fxrstor64, "runs in the frame"),
    (M::Xsave, "runs in the frame; which components are in use is the host's"),
    (M::Xsave64, "runs in the frame"),
    (M::Xsaveopt, "which components were modified is the host's"),
    (M::Xsaveopt64, "which components were modified is the host's"),
    (M::Xsavec, "which components are in use is the host's"),
    (M::Xsavec64, "which components are in use is the host's"),
    (M::Int, "system calls by other gates"),
    (M::Int1, "the host's kernel says what it is"),
    (M::Jmpe, "IA-64"),
    (M::Rsm, "system management mode"),
    (M::Ud0, "its length is not agreed on"),
    (M::Ud1, "its length is not agreed on"),
];

/// Why an instruction is not run.
pub fn not_run(code: Code) -> Option<&'static str> {
    if let Some((_, why)) = NOT_RUN.iter().find(|n| n.0 == code.mnemonic()) {
        return Some(why);
    }
    let op = code.op_code();
    if op.op_kinds().iter().any(|k| format!("{k:?}").starts_with("farbr"))
        || format!("{code:?}").contains("_m16") && is_far(code)
    {
        return Some("a far branch");
    }
    let stores_selector = op.op_count() > 0 && format!("{:?}", op.op_kind(0)) == "seg_reg";
    if stores_selector || matches!(code, Code::Popw_FS | Code::Popw_GS | Code::Popq_FS | Code::Popq_GS) {
        return Some("loads selectors");
    }
    None
}

fn is_far(code: Code) -> bool {
    matches!(code.mnemonic(), M::Call | M::Jmp)
}

/// Flags whose value is not compared after the instruction: those that the manual leaves undefined, on a CPU where they are not those of
/// the virtual one.
pub fn undefined_flags(i: &Instruction) -> u64 {
    if evm_runtime::host_flags() {
        return 0;
    }
    // OF is defined for a count of 1 only, which iced knows of constants; more than the width makes CF undefined.
    let shifts = matches!(
        i.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    );
    let one = i.code().op_code().op_kinds().contains(&iced_x86::OpCodeOperandKind::imm8_const_1);
    let more = if shifts && !one { 0x800 } else { 0 };
    iced_flags(i.rflags_undefined()) | more
}

/// Flags that an instruction is sure to write with a defined value.
pub fn written_flags(i: &Instruction) -> u64 {
    // Shifts and rotates by a count of zero, and repeated comparisons of nothing, leave flags as they were.
    let may_not = matches!(
        i.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    ) || i.has_rep_prefix()
        || i.has_repne_prefix();
    if may_not { 0 } else { iced_flags(i.rflags_modified()) & !undefined_flags(i) }
}

/// Flags that an instruction reads.
pub fn read_flags(i: &Instruction) -> u64 {
    iced_flags(i.rflags_read())
}

fn iced_flags(bits: u32) -> u64 {
    use iced_x86::RflagsBits as B;
    [(B::CF, 1), (B::PF, 4), (B::AF, 0x10), (B::ZF, 0x40), (B::SF, 0x80), (B::DF, 0x400), (B::OF, 0x800)]
        .iter()
        .filter(|(b, _)| bits & b != 0)
        .fold(0, |m, (_, f)| m | f)
}

/// Whether the host's x87 pointers are those of the model: FDP and FOP of exceptions only, no selectors (CPUID leaf 7).
fn host_keeps_pointers() -> bool {
    let bits = 1 << 6 | 1 << 13;
    std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).ebx & bits == bits
}

/// Whether a fault of this instruction leaves nothing that is not compared, see [`not_compared`]: cases may go on behind it.
pub fn state_at_fault_is_defined(i: &Instruction) -> bool {
    let halves = (0..i.op_count()).any(|n| i.op_register(n).is_ymm()) || i.memory_size().size() == 32;
    let repeats = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
    !i.is_vsib() && !repeats && !halves
}

/// Why a difference does not count, if it does not.
pub fn not_compared(insns: &[Instruction], kind: u64, what: &str, trap: u64) -> Option<&'static str> {
    let signal = kind >= 0x100;
    let vector = what.starts_with("xmm") || what.starts_with("ymm");
    if matches!(what, "fop" | "fip" | "fdp") && !host_keeps_pointers() {
        return Some("the CPU keeps other x87 pointers than the model");
    }
    if signal && vector && insns.iter().any(|i| i.is_vsib()) {
        return Some("how many elements of a gather are done before one faults is the CPU's choice; here none");
    }
    if kind == 0x10b && trap == 13 && (matches!(what, "rip" | "rsp") || what.starts_with("[")) {
        use iced_x86::FlowControl as F;
        let leaves = |i: &Instruction| matches!(i.flow_control(), F::IndirectBranch | F::IndirectCall | F::Return);
        if insns.last().is_some_and(leaves) {
            return Some("a jump to an address that is not canonical faults at the jump; here at that address");
        }
    }
    if signal
        && what == "flags"
        && insns.iter().any(|i| i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix()))
    {
        return Some("flags at a fault in the middle of a repeated comparison are those of some comparison before");
    }
    let memory = matches!(kind, 0x10b | 0x107);
    let has = |names: &[M]| insns.iter().any(|i| names.contains(&i.mnemonic()));
    if signal && what == "si_addr" && has(&[M::Frstor, M::Fldenv, M::Fnsave, M::Fnstenv]) {
        return Some("in which order microcode reads an image is the CPU's choice");
    }
    if signal
        && matches!(what, "si_addr" | "si_code")
        && has(&[
            M::Maskmovq,
            M::Maskmovdqu,
            M::Vmaskmovdqu,
            M::Vmaskmovps,
            M::Vmaskmovpd,
            M::Vpmaskmovd,
            M::Vpmaskmovq,
        ])
    {
        return Some(
            "which byte of a masked access is said to fault is the CPU's choice; here the first under the mask",
        );
    }
    let wide = insns.iter().any(|i| i.code().encoding() == EncodingKind::VEX);
    if kind == 0x108 && trap == 19 && wide && matches!(what, "mxcsr" | "si_code") {
        return Some("an unmasked exception shows the flags of the first half of a 256-bit instruction that has one");
    }
    if signal && what == "si_addr" && has(&[M::Enter]) {
        return Some("ENTER asks for its new stack top first or last, as the CPU likes");
    }
    if what == "mxcsr" && insns.len() > 1 && has(&[M::Ucomiss, M::Ucomisd, M::Vucomiss, M::Vucomisd]) {
        return Some(
            "UCOMISx raises its exception flags where a condition is wanted, at the latest at the block's end",
        );
    }
    if memory && what == "mxcsr" && insns.iter().any(|i| i.code().encoding() == EncodingKind::VEX) {
        return Some("a compiled 256-bit instruction may raise flags for its first half before its second half faults");
    }
    None
}

/// The same of a difference on an engine whose x87 unit is `evm-fpu`.
pub fn not_compared_in_software(insns: &[Instruction], what: &str) -> Option<&'static str> {
    let transcendental = |i: &Instruction| {
        matches!(i.mnemonic(), M::F2xm1 | M::Fptan | M::Fpatan | M::Fyl2x | M::Fyl2xp1 | M::Fsin | M::Fcos | M::Fsincos)
    };
    if (what == "fsw" || what.starts_with("st")) && insns.iter().any(transcendental) {
        return Some(
            "approximations: the last bit, whether it was rounded up (C1), results of operands out of the range are the CPU's (fpu/tests/x87.rs has the bounds)",
        );
    }
    None
}
