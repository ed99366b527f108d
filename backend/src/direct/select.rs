//! Which instructions are copied.
//!
//! What is not on the lists is not copied: in this process it might do something other than a program's own arithmetic.

use super::regs;
use iced_x86::{
    Code, CpuidFeature as F, EncodingKind, FlowControl, Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess,
    OpKind, Register as R,
};

/// Whether an instruction ends a block.
pub(super) fn is_control(i: &Instruction) -> bool {
    i.flow_control() != FlowControl::Next
}

/// Integer instructions, but for those of the stack.
const INTEGER: &[M] = &[
    M::Mov,
    M::Movzx,
    M::Movsx,
    M::Movsxd,
    M::Lea,
    M::Xchg,
    M::Bswap,
    M::Movbe,
    M::Cbw,
    M::Cwde,
    M::Cdqe,
    M::Cwd,
    M::Cdq,
    M::Cqo,
    M::Add,
    M::Sub,
    M::Adc,
    M::Sbb,
    M::Inc,
    M::Dec,
    M::Neg,
    M::Cmp,
    M::Mul,
    M::Imul,
    M::Div,
    M::Idiv,
    M::And,
    M::Or,
    M::Xor,
    M::Not,
    M::Test,
    M::Shl,
    M::Sal,
    M::Shr,
    M::Sar,
    M::Rol,
    M::Ror,
    M::Rcl,
    M::Rcr,
    M::Shld,
    M::Shrd,
    M::Bt,
    M::Bts,
    M::Btr,
    M::Btc,
    M::Bsf,
    M::Bsr,
    M::Popcnt,
    M::Lzcnt,
    M::Tzcnt,
    M::Andn,
    M::Bextr,
    M::Blsi,
    M::Blsmsk,
    M::Blsr,
    M::Bzhi,
    M::Mulx,
    M::Pdep,
    M::Pext,
    M::Rorx,
    M::Sarx,
    M::Shlx,
    M::Shrx,
    M::Adcx,
    M::Adox,
    M::Crc32,
    M::Cmpxchg,
    M::Cmpxchg8b,
    M::Cmpxchg16b,
    M::Xadd,
    M::Clc,
    M::Stc,
    M::Cmc,
    M::Lahf,
    M::Sahf,
    M::Pause,
    M::Lfence,
    M::Mfence,
    M::Sfence,
    M::Movnti,
];

/// Instructions on the x87 unit, for which the guest's state is in the host's unit, with all exceptions masked. What loads or stores the whole
/// environment is not among them: it has addresses of instructions in it.
const X87: &[M] = &[
    M::Fld,
    M::Fst,
    M::Fstp,
    M::Fild,
    M::Fist,
    M::Fistp,
    M::Fisttp,
    M::Fbld,
    M::Fbstp,
    M::Fld1,
    M::Fldl2t,
    M::Fldl2e,
    M::Fldpi,
    M::Fldlg2,
    M::Fldln2,
    M::Fldz,
    M::Fxch,
    M::Fcmovb,
    M::Fcmove,
    M::Fcmovbe,
    M::Fcmovu,
    M::Fcmovnb,
    M::Fcmovne,
    M::Fcmovnbe,
    M::Fcmovnu,
    M::Fadd,
    M::Faddp,
    M::Fiadd,
    M::Fsub,
    M::Fsubp,
    M::Fisub,
    M::Fsubr,
    M::Fsubrp,
    M::Fisubr,
    M::Fmul,
    M::Fmulp,
    M::Fimul,
    M::Fdiv,
    M::Fdivp,
    M::Fidiv,
    M::Fdivr,
    M::Fdivrp,
    M::Fidivr,
    M::Fchs,
    M::Fabs,
    M::Fsqrt,
    M::Frndint,
    M::Fscale,
    M::Fxtract,
    M::Fprem,
    M::Fprem1,
    M::F2xm1,
    M::Fyl2x,
    M::Fyl2xp1,
    M::Fptan,
    M::Fpatan,
    M::Fsin,
    M::Fcos,
    M::Fsincos,
    M::Fcom,
    M::Fcomp,
    M::Fcompp,
    M::Ficom,
    M::Ficomp,
    M::Fucom,
    M::Fucomp,
    M::Fucompp,
    M::Fcomi,
    M::Fcomip,
    M::Fucomi,
    M::Fucomip,
    M::Ftst,
    M::Fxam,
    M::Fincstp,
    M::Fdecstp,
    M::Ffree,
    M::Fnop,
    M::Fnclex,
    M::Fnstcw,
    M::Fnstsw,
    M::Wait,
];

/// Whether an instruction leaves its address in the x87 unit: all but those that control it.
pub(super) fn leaves_fip(i: &Instruction) -> bool {
    X87.contains(&i.mnemonic()) && !matches!(i.mnemonic(), M::Wait | M::Fnclex | M::Fnstcw | M::Fnstsw)
}

/// Extensions whose instructions on vector registers are copied.
const VECTOR: &[F] = &[
    F::MMX,
    F::SSE,
    F::SSE2,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
    F::AES,
    F::PCLMULQDQ,
    F::SHA,
    F::AVX,
    F::AVX2,
    F::FMA,
    F::F16C,
    F::VAES,
    F::VPCLMULQDQ,
];
/// Of them those that are not: they do more than arithmetic, or have operands that are not looked at. (STMXCSR is: the host's MXCSR is the guest's.)
const NOT: &[M] = &[
    M::Ldmxcsr,
    M::Vldmxcsr,
    M::Maskmovdqu,
    M::Vmaskmovdqu,
    M::Maskmovq,
    M::Clflush,
    M::Prefetchnta,
    M::Prefetcht0,
    M::Prefetcht1,
    M::Prefetcht2,
    M::Monitor,
    M::Mwait,
];

/// Whether an instruction has no effect on what is compared: it need not be there.
pub(super) fn is_nothing(i: &Instruction) -> bool {
    matches!(i.mnemonic(), M::Nop | M::Endbr64 | M::Endbr32)
}

/// Whether it asks for a line of the cache: it faults at no address and loads nothing that can be seen.
pub(super) fn is_prefetch(i: &Instruction) -> bool {
    matches!(i.mnemonic(), M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetchw)
}

/// Whether it is a string instruction that is copied, with all of its addresses in 64-bit registers and no segment.
pub(super) fn is_string(i: &Instruction) -> bool {
    use OpKind::{MemoryESRDI, MemorySegRSI, Register};
    let (a, b) = (i.op0_kind(), i.op1_kind());
    let operands = match i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => (a, b) == (MemoryESRDI, MemorySegRSI),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => (a, b) == (MemorySegRSI, MemoryESRDI),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => (a, b) == (MemoryESRDI, Register),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => (a, b) == (Register, MemoryESRDI),
        _ => false,
    };
    operands && i.segment_prefix() == R::None
}

/// Whether RSI is an operand of a string instruction.
pub(super) fn has_source(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::MemorySegRSI || i.op1_kind() == OpKind::MemorySegRSI
}

/// Whether a compiler does better with the block of these instructions: it has arithmetic that is not copied.
pub(super) fn is_for_compiler(insns: &[Instruction]) -> bool {
    insns.iter().any(Instruction::is_vsib)
}

/// Whether an instruction works on the x87 unit, or on the MMX registers, which are in it.
pub(super) fn is_x87(i: &Instruction) -> bool {
    // These do whatever their operand is. (WAIT, which is on the list, is an instruction of the 8086 for some.)
    matches!(i.mnemonic(), M::Cvtpi2ps | M::Cvtpi2pd)
        || X87.contains(&i.mnemonic())
        || i.cpuid_features().contains(&F::MMX)
        || (0..i.op_count()).any(|k| i.op_kind(k) == OpKind::Register && i.op_register(k).is_mm())
}

/// Whether CPUs differ in the result, which is to be the same everywhere: approximations, and what the manual leaves undefined (but for flags).
fn is_vendors_choice(i: &Instruction) -> bool {
    match i.mnemonic() {
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss | M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss => true,
        M::Bswap => i.op0_register().size() == 2,
        // A count beyond the operand.
        M::Shld | M::Shrd => i.op1_register().size() == 2,
        _ => false,
    }
}

/// Whether an instruction is copied with no more than its operands changed.
pub(super) fn is_copied(i: &Instruction, v3: bool) -> bool {
    let vex = i.code().encoding() == EncodingKind::VEX;
    if i.is_invalid() || !(i.code().encoding() == EncodingKind::Legacy || vex) {
        return false;
    }
    if !v3 && (vex || matches!(i.mnemonic(), M::Movbe | M::Adcx | M::Adox)) {
        return false;
    }
    if i.is_vsib() || i.has_rep_prefix() || i.has_repne_prefix() || is_vendors_choice(i) {
        return false;
    }
    for k in 0..i.op_count() {
        let good = match i.op_kind(k) {
            OpKind::Register => is_register(i.op_register(k)),
            OpKind::Memory => is_memory(i),
            OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64 => true,
            OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => true,
            _ => false,
        };
        if !good {
            return false;
        }
    }
    let m = i.mnemonic();
    if X87.contains(&m) {
        return true;
    }
    if INTEGER.contains(&m) || i.code().condition_code() != iced_x86::ConditionCode::None {
        // The bit of a string of bits may be far away.
        let far = matches!(m, M::Bt | M::Bts | M::Btr | M::Btc)
            && i.op0_kind() == OpKind::Memory
            && i.op1_kind() == OpKind::Register;
        return !far;
    }
    !NOT.contains(&m) && i.cpuid_features().iter().all(|f| VECTOR.contains(f))
}

/// The form of an instruction of two registers whose second operand may be in memory.
pub(super) fn reads_memory(code: Code) -> Option<Code> {
    use Code as C;
    Some(match code {
        C::Add_rm32_r32 | C::Add_r32_rm32 => C::Add_r32_rm32,
        C::Add_rm64_r64 | C::Add_r64_rm64 => C::Add_r64_rm64,
        C::Adc_rm32_r32 | C::Adc_r32_rm32 => C::Adc_r32_rm32,
        C::Adc_rm64_r64 | C::Adc_r64_rm64 => C::Adc_r64_rm64,
        C::Sub_rm32_r32 | C::Sub_r32_rm32 => C::Sub_r32_rm32,
        C::Sub_rm64_r64 | C::Sub_r64_rm64 => C::Sub_r64_rm64,
        C::Sbb_rm32_r32 | C::Sbb_r32_rm32 => C::Sbb_r32_rm32,
        C::Sbb_rm64_r64 | C::Sbb_r64_rm64 => C::Sbb_r64_rm64,
        C::And_rm32_r32 | C::And_r32_rm32 => C::And_r32_rm32,
        C::And_rm64_r64 | C::And_r64_rm64 => C::And_r64_rm64,
        C::Or_rm32_r32 | C::Or_r32_rm32 => C::Or_r32_rm32,
        C::Or_rm64_r64 | C::Or_r64_rm64 => C::Or_r64_rm64,
        C::Xor_rm32_r32 | C::Xor_r32_rm32 => C::Xor_r32_rm32,
        C::Xor_rm64_r64 | C::Xor_r64_rm64 => C::Xor_r64_rm64,
        C::Cmp_rm32_r32 | C::Cmp_r32_rm32 => C::Cmp_r32_rm32,
        C::Cmp_rm64_r64 | C::Cmp_r64_rm64 => C::Cmp_r64_rm64,
        C::Mov_rm32_r32 | C::Mov_r32_rm32 => C::Mov_r32_rm32,
        C::Mov_rm64_r64 | C::Mov_r64_rm64 => C::Mov_r64_rm64,
        C::Movsxd_r64_rm32 | C::Imul_r32_rm32 | C::Imul_r64_rm64 => code,
        // CMOVcc.
        _ if code.condition_code() != iced_x86::ConditionCode::None => code,
        _ => return None,
    })
}

/// Whether the first operand of a comparison may be in memory.
pub(super) fn may_be_memory(code: Code) -> bool {
    use Code as C;
    matches!(
        code,
        C::Cmp_rm32_r32
            | C::Cmp_rm64_r64
            | C::Cmp_rm32_imm8
            | C::Cmp_rm64_imm8
            | C::Cmp_rm32_imm32
            | C::Cmp_rm64_imm32
            | C::Test_rm32_r32
            | C::Test_rm64_r64
            | C::Test_rm32_imm32
            | C::Test_rm64_imm32
    )
}

fn is_register(r: R) -> bool {
    r.is_gpr() || r.is_xmm() || r.is_ymm() || r.is_mm() || r.is_st()
}

fn is_memory(i: &Instruction) -> bool {
    let address = |r: R| r == R::None || r.is_gpr64() || r.is_gpr32();
    let base = i.memory_base();
    // In 64-bit mode hardly anything uses GS.
    let segment = i.memory_segment() != R::GS || i.code_size() == iced_x86::CodeSize::Code32;
    (address(base) || base == R::RIP) && address(i.memory_index()) && segment
}

/// The shift that the scale of an index is.
pub(super) fn shift(i: &Instruction) -> u8 {
    i.memory_index_scale().trailing_zeros() as u8
}

/// General registers that an instruction writes, a bit each.
#[cfg(test)]
pub(super) fn written(info: &mut InstructionInfoFactory, i: &Instruction) -> u16 {
    used(info, i).writes
}

/// What an instruction does, as far as its copy needs it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// General registers that it reads, a bit each.
    pub reads: u16,
    /// Those that it writes. What it writes in part, or perhaps, it reads as well.
    pub writes: u16,
    /// It accesses memory, whatever its other operands are.
    pub accesses: bool,
}

pub(super) fn used(info: &mut InstructionInfoFactory, i: &Instruction) -> Used {
    let info = info.info(i);
    let sure = |a| matches!(a, OpAccess::Read | OpAccess::Write | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
    let mut used = Used { accesses: info.used_memory().iter().any(|m| sure(m.access())), ..Used::default() };
    for u in info.used_registers().iter().filter(|u| u.register().is_gpr()) {
        let r = u.register();
        let bit = 1 << regs::number(r);
        let (read, write) = match u.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write => (r.size() < 4, true),
            OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            OpAccess::None | OpAccess::NoMemAccess => (false, false),
        };
        used.reads |= if read { bit } else { 0 };
        used.writes |= if write { bit } else { 0 };
    }
    used
}
