//! Hints, fences, identification, time, and what user code must not do.

use super::Done;
use crate::ctx::Lifter;
use evm_cpu::{exc, helper};
use evm_ir::{Op, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, Register};

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Nop
        | M::Reservednop
        | M::Endbr64
        | M::Endbr32
        | M::Pause
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Lfence
        | M::Sfence
        | M::Cldemote
        | M::Rdsspd
        | M::Rdsspq => {}
        // They read, as far as faults go.
        M::Clflush | M::Clflushopt | M::Clwb => {
            let a = cx.addr(i);
            cx.load(Type::I8, a);
        }
        M::Mfence => {
            cx.b.push(Op::Fence, Type::I64, Value::NONE, Value::NONE, Value::NONE, 0);
        }
        M::Movnti => {
            let v = cx.read_op(i, 1);
            cx.write_op(i, 0, v);
        }
        M::Cpuid => {
            cx.call(helper::CPUID, &[]);
        }
        M::Rdtsc | M::Rdtscp => {
            let v = cx.call(helper::RDTSC, &[]);
            let lo = cx.trunc(Type::I32, v);
            let hi = cx.bini(Op::Shr, Type::I64, v, 32);
            let hi = cx.trunc(Type::I32, hi);
            cx.set_gpr(Register::EAX, lo);
            cx.set_gpr(Register::EDX, hi);
            if i.mnemonic() == M::Rdtscp {
                let zero = cx.iconst(Type::I32, 0);
                cx.set_gpr(Register::ECX, zero);
            }
        }
        M::Xgetbv => {
            let c = cx.gpr(Register::ECX);
            let c = cx.zext(Type::I64, c);
            let v = cx.call(helper::XGETBV, &[c]);
            let lo = cx.trunc(Type::I32, v);
            let hi = cx.bini(Op::Shr, Type::I64, v, 32);
            let hi = cx.trunc(Type::I32, hi);
            cx.set_gpr(Register::EAX, lo);
            cx.set_gpr(Register::EDX, hi);
        }
        M::Hlt
        | M::Cli
        | M::Sti
        | M::In
        | M::Out
        | M::Clts
        | M::Invd
        | M::Wbinvd
        | M::Invlpg
        | M::Lgdt
        | M::Lidt
        | M::Lldt
        | M::Ltr
        | M::Lmsw
        | M::Rdmsr
        | M::Wrmsr
        | M::Rdpmc
        | M::Swapgs
        | M::Sysretq
        | M::Sysret
        | M::Sysexit
        | M::Sysexitq
        | M::Sysenter
        | M::Sgdt
        | M::Sidt
        | M::Sldt
        | M::Str
        | M::Smsw
        | M::Monitor
        | M::Mwait
        | M::Xsetbv
        | M::Rsm => cx.raise(exc::GP, 0),
        _ => return Ok(false),
    }
    Ok(true)
}
