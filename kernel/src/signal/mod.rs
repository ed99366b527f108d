//! Signals: sets, information, actions and queues. Sending is in [`send`], delivery in [`deliver`].

pub(crate) mod deliver;
pub(crate) mod frame;
pub(crate) mod frame32;
pub mod info;
pub(crate) mod send;

pub use info::{SigFields, SigInfo};

/// A set of signals; bit n-1 is signal n.
pub type SigSet = u64;

/// Number of signals.
pub const NSIG: usize = 64;
/// First real-time signal.
pub const SIGRTMIN: i32 = 32;

/// Set of one signal.
pub const fn bit(sig: i32) -> SigSet {
    if sig >= 1 && sig <= NSIG as i32 { 1 << (sig - 1) } else { 0 }
}

/// Signals that cannot be blocked, caught or ignored.
pub const UNBLOCKABLE: SigSet = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
/// Signals that stop a process by default.
pub const STOPS: SigSet = bit(libc::SIGSTOP) | bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU);
/// Signals that are ignored by default.
pub const IGNORED: SigSet = bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGURG) | bit(libc::SIGWINCH);
/// Signals that dump core by default (no file is written).
pub const CORES: SigSet = bit(libc::SIGQUIT)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGABRT)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGSEGV)
    | bit(libc::SIGXCPU)
    | bit(libc::SIGXFSZ)
    | bit(libc::SIGSYS);
/// Signals that an instruction causes; delivered before others.
pub const SYNCHRONOUS: SigSet = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGFPE)
    | bit(libc::SIGSYS);

/// SIG_DFL.
pub const SIG_DFL: u64 = 0;
/// SIG_IGN.
pub const SIG_IGN: u64 = 1;

/// A signal's disposition (struct kernel_sigaction).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// SIG_DFL, SIG_IGN or a guest function.
    pub handler: u64,
    /// SA_*.
    pub flags: u64,
    /// Return trampoline (SA_RESTORER).
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

impl SigAction {
    /// Whether the signal has no effect with this action.
    pub fn ignores(&self, sig: i32) -> bool {
        self.handler == SIG_IGN || (self.handler == SIG_DFL && IGNORED & bit(sig) != 0)
    }
}

/// Queued signals.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Which signals are there.
    pub set: SigSet,
    queue: Vec<SigInfo>,
}

impl Pending {
    /// Queue a signal. A standard signal that is pending already is not queued again. False if the queue is full.
    pub fn push(&mut self, info: SigInfo, limit: usize) -> bool {
        let b = bit(info.signo);
        if info.signo < SIGRTMIN && self.set & b != 0 {
            return true;
        }
        // Standard signals always fit (at most 31); only real-time ones can be refused.
        if info.signo >= SIGRTMIN && self.queue.len() >= limit {
            return false;
        }
        self.set |= b;
        self.queue.push(info);
        true
    }
    /// Take the next signal out of those in `set`: synchronous ones first, then the lowest number, oldest first.
    pub fn take(&mut self, set: SigSet) -> Option<SigInfo> {
        let ready = self.set & set;
        if ready == 0 {
            return None;
        }
        let first = if ready & SYNCHRONOUS != 0 { ready & SYNCHRONOUS } else { ready };
        let sig = first.trailing_zeros() as i32 + 1;
        let i = self.queue.iter().position(|s| s.signo == sig);
        let info = i.map(|i| self.queue.remove(i));
        if !self.queue.iter().any(|s| s.signo == sig) {
            self.set &= !bit(sig);
        }
        info
    }
    /// Drop the signals in `set`.
    pub fn discard(&mut self, set: SigSet) {
        self.set &= !set;
        self.queue.retain(|s| bit(s.signo) & set == 0);
    }
    /// Whether a signal of this POSIX timer waits.
    pub(crate) fn has_timer(&self, timer: i32) -> bool {
        self.queue.iter().any(|s| matches!(s.fields, SigFields::Timer { id, .. } if id == timer))
    }
    /// Number of queued signals.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
