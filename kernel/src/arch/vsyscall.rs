//! The page of calls at a fixed address that programs linked before 2012 jump into (arch/x86/entry/vsyscall, `vsyscall=xonly`):
//! it can be called and not read.

use crate::kernel::Flow;
use crate::task::Task;

/// First address of the page.
pub(crate) const PAGE: u64 = 0xffff_ffff_ff60_0000;
/// The three entries, 1 KiB apart, as system calls.
const CALLS: [u32; 3] = [libc::SYS_gettimeofday as u32, libc::SYS_time as u32, libc::SYS_getcpu as u32];

/// The system call behind an address.
fn number(pc: u64) -> Option<u32> {
    let at = pc.checked_sub(PAGE)?;
    CALLS.get(usize::try_from(at >> 10).ok()?).copied().filter(|_| at.is_multiple_of(1 << 10))
}

impl Task {
    /// Whether the program jumped into the page.
    pub(crate) fn in_vsyscall(&self) -> bool {
        self.mm().bits == 64 && self.cpu.rip & !0xfff == PAGE
    }
    /// Serve the call at `cpu.rip` and return from it. `None` if none is there or there is no return address.
    pub(crate) fn vsyscall(&mut self) -> Option<Flow> {
        let nr = number(self.cpu.rip)?;
        let caller = self.mem().read::<u64>(self.cpu.gpr[4]).ok()?;
        // Before the call, so that a signal that comes with its end finds the return done. RCX and R11 stay.
        self.cpu.gpr[4] = self.cpu.gpr[4].wrapping_add(8);
        self.cpu.rip = caller;
        let g = &self.cpu.gpr;
        let args = [g[7], g[6], g[2], 0, 0, 0];
        Some(self.serve(nr, nr, crate::sys::lookup(nr), args))
    }
}
