//! Delivery: what a thread does about its signals before it goes on in the guest.

use super::{SIG_DFL, STOPS, SigAction, SigInfo, SigSet, UNBLOCKABLE, bit, frame, frame32};
use crate::arch::trap::{self, Trap};
use crate::errno::{Errno, Result};
use crate::kernel::{EndReason, Flow};
use crate::process::{Life, lock};
use crate::task::Task;
use std::sync::atomic::Ordering;

/// What happens to a system call that a signal interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// It gives EINTR.
    Never,
    /// It starts again unless a handler without SA_RESTART ran.
    Sys,
    /// It starts again unless a handler ran; a relative timeout keeps its end.
    NoHandler,
}

/// The class of a system call, as signal(7) lists them.
pub(crate) fn restart_class(nr: u32) -> Restart {
    match i64::from(nr) {
        libc::SYS_rt_sigtimedwait
        | libc::SYS_epoll_wait
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2
        | libc::SYS_semop
        | libc::SYS_semtimedop
        | libc::SYS_msgrcv
        | libc::SYS_msgsnd
        | libc::SYS_execve
        | libc::SYS_execveat => Restart::Never,
        libc::SYS_poll
        | libc::SYS_ppoll
        | libc::SYS_select
        | libc::SYS_pselect6
        | libc::SYS_pause
        | libc::SYS_rt_sigsuspend
        | libc::SYS_nanosleep
        | libc::SYS_clock_nanosleep => Restart::NoHandler,
        _ => Restart::Sys,
    }
}

impl Task {
    /// Pending signals that are not blocked.
    pub(crate) fn deliverable(&self) -> SigSet {
        self.pending_set() & !self.thread.mask()
    }
    /// Set the signal mask.
    pub(crate) fn set_mask(&self, mask: SigSet) {
        let before = self.thread.mask.swap(mask & !UNBLOCKABLE, Ordering::AcqRel);
        if self.deliverable() != 0 {
            self.thread.attention.store(true, Ordering::Release);
        }
        // A signal sent to the process that this thread now blocks may be for another thread.
        let newly = mask & !before & lock(&self.process.pending).set;
        if newly != 0 {
            for t in self.process.threads() {
                if newly & !t.mask() != 0 {
                    super::send::attend(&*self.kernel().host, &t);
                }
            }
        }
    }
    /// Next signal to act on, out of those in `set`.
    pub(crate) fn take_signal(&self, set: SigSet) -> Option<SigInfo> {
        let own = lock(&self.thread.pending).take(set);
        let found = own.or_else(|| lock(&self.process.pending).take(set));
        found.map(|i| crate::timers::taken(&self.process, i))
    }

    /// Do what others asked this thread to do: run handlers, stop, end. Also finishes an interrupted system call.
    pub fn deliver_signals(&mut self) -> Flow {
        loop {
            self.thread.attention.store(false, Ordering::Release);
            if self.thread.killed.load(Ordering::Acquire) {
                return self.die();
            }
            if matches!(self.process.status().life, Life::Stopped(_)) {
                self.wait_stopped();
                continue;
            }
            let Some(info) = self.take_signal(!self.thread.mask()) else {
                break;
            };
            let action = self.take_action(info.signo);
            if action.ignores(info.signo) {
                continue;
            }
            if action.handler == SIG_DFL {
                if STOPS & bit(info.signo) != 0 {
                    self.stop(info.signo);
                    continue;
                }
                self.trace_signal(&info);
                return self.killed_by(info.signo);
            }
            self.trace_signal(&info);
            self.interrupt_call(Some(&action));
            if self.run_handler(&action, &info).is_err() {
                self.force(SigInfo::kernel(libc::SIGSEGV), info.signo == libc::SIGSEGV);
            }
        }
        self.interrupt_call(None);
        if let Some(m) = self.saved_mask.take() {
            self.set_mask(m);
            if self.deliverable() != 0 {
                return self.deliver_signals();
            }
        }
        Flow::Run
    }

    /// The action of a signal that is about to be acted on (SA_RESETHAND).
    fn take_action(&self, sig: i32) -> SigAction {
        let table = self.process.actions();
        let mut table = lock(&table);
        let Some(a) = table.get_mut((sig - 1) as usize) else {
            return SigAction::default();
        };
        let now = *a;
        if now.handler > 1 && now.flags & libc::SA_RESETHAND as u64 != 0 {
            a.handler = SIG_DFL;
        }
        now
    }

    /// Decide how an interrupted system call goes on, once.
    fn interrupt_call(&mut self, handler: Option<&SigAction>) {
        let Some(call) = self.interrupted_call.take() else {
            return;
        };
        let nr = call.nr;
        let timed = || {
            // The first argument of all calls that a socket can make wait.
            let fd = self.first_argument(nr) as i32;
            self.fds.get(fd).is_ok_and(|d| crate::io::socket::of(&d).is_ok_and(|s| s.has_timeout()))
        };
        let again = match (restart_class(call.native), handler) {
            (Restart::Never, _) => false,
            (_, None) => true,
            (Restart::Sys, Some(a)) => a.flags & libc::SA_RESTART as u64 != 0,
            (Restart::NoHandler, Some(_)) => false,
        };
        // With SO_RCVTIMEO or SO_SNDTIMEO a socket's calls are never restarted.
        let again = again && (restart_class(call.native) != Restart::Sys || !timed());
        if again {
            self.cpu.gpr[0] = u64::from(nr);
            self.cpu.rip = self.cpu.rip.wrapping_sub(2); // the SYSCALL or INT instruction
            self.restarting = handler.is_none().then_some(nr);
        } else {
            self.call_deadline = None;
        }
    }

    fn run_handler(&mut self, action: &SigAction, info: &SigInfo) -> Result<()> {
        let mask = self.saved_mask.unwrap_or_else(|| self.thread.mask());
        let x = self.kernel().config.xfeatures;
        let mem = self.mem();
        let trap = std::mem::take(&mut self.trap);
        let (cpu, alt) = (&mut *self.cpu, &mut self.alt_stack);
        if self.mm.bits == 32 {
            let back = crate::exec::TRAMPOLINES_32;
            frame32::enter(cpu, mem, x, action, info, mask, alt, &trap, back)?;
        } else {
            frame::enter(cpu, mem, x, action, info, mask, alt, &trap)?;
        }
        self.saved_mask = None;
        let own = if action.flags & libc::SA_NODEFER as u64 == 0 { bit(info.signo) } else { 0 };
        self.set_mask(self.thread.mask() | action.mask | own);
        Ok(())
    }

    /// rt_sigreturn.
    pub(crate) fn sigreturn(&mut self) {
        let mem = self.mem();
        let x = self.kernel().config.xfeatures;
        match frame::leave(&mut self.cpu, mem, x) {
            Ok((mask, alt)) => {
                self.set_mask(mask);
                let sp = self.cpu.gpr[4];
                let _ = self.set_alt_stack(alt, sp);
            }
            Err(_) => self.force(SigInfo::kernel(libc::SIGSEGV), false),
        }
    }

    /// The sigreturn of 32-bit programs, with siginfo or without.
    pub(crate) fn sigreturn32(&mut self, rt: bool) {
        let mem = self.mem();
        let x = self.kernel().config.xfeatures;
        let r = if rt {
            frame32::leave_rt(&mut self.cpu, mem, x).map(|(m, alt)| (m, Some(alt)))
        } else {
            frame32::leave(&mut self.cpu, mem, x).map(|m| (m, None))
        };
        match r {
            Ok((mask, alt)) => {
                self.set_mask(mask);
                let sp = self.cpu.gpr[4];
                // As on Linux a stack that is no good is left as it is.
                let _ = alt.map(|a| self.set_alt_stack(a, sp));
            }
            Err(_) => self.force(SigInfo::kernel(libc::SIGSEGV), false),
        }
    }

    /// Set the alternate stack as sigaltstack(2) does with a stack pointer.
    pub(crate) fn set_alt_stack(&mut self, new: frame::AltStack, sp: u64) -> Result<()> {
        let mode = new.flags & !frame::AUTODISARM;
        let disable = mode == libc::SS_DISABLE as u32;
        if !disable && mode != 0 && mode != libc::SS_ONSTACK as u32 {
            return Err(Errno::EINVAL);
        }
        if self.alt_stack.contains(sp) {
            return Err(Errno::EPERM);
        }
        if disable {
            self.alt_stack = frame::AltStack::NONE;
            return Ok(());
        }
        if new.size < frame::MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        }
        self.alt_stack = frame::AltStack { flags: new.flags & frame::AUTODISARM, ..new };
        Ok(())
    }

    /// A signal that cannot be put off: if it is blocked or ignored (or `fatal`), the default action is taken.
    pub(crate) fn force(&mut self, info: SigInfo, fatal: bool) {
        let b = bit(info.signo);
        let table = self.process.actions();
        {
            let mut table = lock(&table);
            if let Some(a) = table.get_mut((info.signo - 1) as usize)
                && (fatal || a.handler == super::SIG_IGN || self.thread.mask() & b != 0)
            {
                *a = SigAction::default();
            }
        }
        self.thread.mask.fetch_and(!b, Ordering::AcqRel);
        lock(&self.thread.pending).push(info, usize::MAX);
        self.thread.attention.store(true, Ordering::Release);
    }

    /// Turn a CPU exception (an `evm_cpu::exc` code) of the instruction at `cpu.rip` into a signal.
    pub fn exception(&mut self, mut exc: u32, mut arg: u64) -> Flow {
        if exc == evm_cpu::exc::PF_EXEC && self.in_vsyscall() {
            if let Some(flow) = self.vsyscall() {
                return flow;
            }
            (exc, arg) = (evm_cpu::exc::GP, 0);
        }
        if exc == evm_cpu::exc::BP {
            // A trap: the saved address is that after the instruction.
            self.cpu.rip = match self.mem().read::<u8>(self.cpu.rip) {
                Ok(0xcc) => self.cpu.rip.wrapping_add(1),
                Ok(0xcd) => self.cpu.rip.wrapping_add(2),
                _ => self.cpu.rip,
            };
        }
        if exc == evm_cpu::exc::OF {
            self.cpu.rip = self.cpu.rip.wrapping_add(1); // INTO is a trap as well
        }
        let (info, trap) = trap::signal(&self.cpu, &self.mm, exc, arg);
        self.trap = trap;
        self.force(info, false);
        let flow = self.deliver_signals();
        self.trap = Trap::default();
        flow
    }

    /// End because of a fatal signal.
    fn killed_by(&mut self, sig: i32) -> Flow {
        super::send::kill_group(&self.process, super::send::death_status(&self.process, sig));
        self.die()
    }

    /// End this thread with the status of its group.
    fn die(&mut self) -> Flow {
        let status = *lock(&self.process.group_exit);
        let status = status.unwrap_or(match *lock(&self.kernel().end) {
            Some(EndReason::Exit(c)) => (c & 0xff) << 8,
            Some(EndReason::Signal(s)) => super::send::death_status(&self.process, s),
            _ => libc::SIGKILL,
        });
        self.exit_thread(status)
    }

    /// Stop the whole process.
    fn stop(&mut self, sig: i32) {
        if sig != libc::SIGSTOP && self.kernel().is_orphaned(self.process.pgid()) {
            return;
        }
        crate::exit::stop_process(&self.process, sig);
    }

    fn wait_stopped(&self) {
        let p = &self.process;
        p.events.register(&self.thread.waker);
        while matches!(p.status().life, Life::Stopped(_)) && !self.thread.killed.load(Ordering::Acquire) {
            self.thread.waker.sleep(None);
        }
        p.events.unregister(&self.thread.waker);
    }

    fn trace_signal(&self, info: &SigInfo) {
        if let Some(t) = &self.kernel().config.trace {
            t(&format!(
                "[{}] --- {} code={} {:?} at {:#x} ---",
                self.tid(),
                crate::sys::trace::signal_name(info.signo),
                info.code,
                info.fields,
                self.cpu.rip
            ));
        }
    }
}
