//! CPU exceptions as signals.

use crate::mm::{Access, FaultKind, Mm};
use crate::signal::{SigFields, SigInfo};
use evm_cpu::{CpuState, exc};

/// What a signal frame says about the exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trap {
    pub number: u64,
    pub error: u64,
    pub cr2: u64,
}

/// End of the lower half of canonical addresses.
const CANONICAL: u64 = 1 << 47;

/// si_code of the first unmasked floating-point exception.
fn fpe_code(raised: u32) -> i32 {
    match raised {
        r if r & 1 != 0 => 7,    // FPE_FLTINV
        r if r & 4 != 0 => 3,    // FPE_FLTDIV
        r if r & 8 != 0 => 4,    // FPE_FLTOVF
        r if r & 0x12 != 0 => 5, // FPE_FLTUND
        r if r & 0x20 != 0 => 6, // FPE_FLTRES
        _ => 0,
    }
}

/// The signal for an exception of the instruction at `cpu.rip`.
pub(crate) fn signal(cpu: &CpuState, mm: &Mm, code: u32, arg: u64) -> (SigInfo, Trap) {
    let trap = |number: u32| Trap { number: u64::from(number), error: 0, cr2: 0 };
    let at = cpu.rip;
    let kernel = |sig| SigInfo { signo: sig, errno: 0, code: 0x80, fields: SigFields::None };
    match code {
        exc::DE => (SigInfo::fault(libc::SIGFPE, 1, at), trap(code)),
        exc::DB => (SigInfo::fault(libc::SIGTRAP, 2, at), trap(code)),
        exc::BP => (kernel(libc::SIGTRAP), trap(code)),
        exc::UD => (SigInfo::fault(libc::SIGILL, 2, at), trap(code)),
        exc::MF => {
            let raised = u32::from(cpu.fsw & !cpu.fcw & 0x3f);
            (SigInfo::fault(libc::SIGFPE, fpe_code(raised), at), trap(code))
        }
        exc::XM => {
            let raised = cpu.mxcsr & !(cpu.mxcsr >> 7) & 0x3f;
            (SigInfo::fault(libc::SIGFPE, fpe_code(raised), at), trap(code))
        }
        exc::SS => (kernel(libc::SIGBUS), trap(code)),
        exc::AC => (SigInfo::fault(libc::SIGBUS, 1, 0), trap(code)),
        exc::PF | exc::PF_WRITE | exc::PF_EXEC if arg < CANONICAL => {
            let (access, bits) = match code {
                exc::PF_WRITE => (Access::Write, 2),
                exc::PF_EXEC => (Access::Exec, 16),
                _ => (Access::Read, 0),
            };
            let kind = mm.fault_kind(arg, access);
            // Bit 0: the page was there, and the access not allowed.
            let error = 4 | bits | u64::from(kind == FaultKind::Denied && mm.is_present(arg));
            let info = match kind {
                FaultKind::Unmapped => SigInfo::fault(libc::SIGSEGV, 1, arg),
                FaultKind::Denied => SigInfo::fault(libc::SIGSEGV, 2, arg),
                FaultKind::Beyond => SigInfo::fault(libc::SIGBUS, 2, arg),
            };
            (info, Trap { number: 14, error, cr2: arg })
        }
        // The kernel's half: nothing there is told apart.
        exc::PF | exc::PF_WRITE | exc::PF_EXEC if arg >= CANONICAL.wrapping_neg() => {
            let bits = match code {
                exc::PF_WRITE => 2,
                exc::PF_EXEC => 16,
                _ => 0,
            };
            (SigInfo::fault(libc::SIGSEGV, 1, arg), Trap { number: 14, error: 5 | bits, cr2: arg })
        }
        // A non-canonical address is a general protection fault, without an address.
        _ => (kernel(libc::SIGSEGV), trap(if matches!(code, exc::OF | exc::BR) { code } else { exc::GP })),
    }
}
