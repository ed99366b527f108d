//! The host's SIGSEGV/SIGBUS handler: finds out whose access it was and where to go on.
//!
//! # Safety
//! The handler runs on an alternate stack, allocates nothing and takes no lock. It reads the
//! exception table (constant), and calls the hook that the runtime registered, which obeys the same
//! rules. It changes the interrupted context only to a landing of the table or as the hook says.
#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    #[link_name = "__start_evm_extable"]
    static EXTABLE_START: [i32; 2];
    #[link_name = "__stop_evm_extable"]
    static EXTABLE_STOP: [i32; 2];
}

/// What a hook decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The cause is gone (or the context was changed): resume.
    Resume,
    /// Not the hook's: try the exception table.
    Pass,
}

/// A host fault as the hook sees it.
pub struct HostFault<'a> {
    /// Signal number.
    pub signal: i32,
    /// Host address of the access (0 if unknown, as for non-canonical addresses).
    pub addr: u64,
    /// Whether it was a write.
    pub write: bool,
    /// The interrupted context.
    pub context: &'a mut libc::ucontext_t,
}

/// A hook: called in signal context for every synchronous host signal, and for [`ASK`].
pub type Hook = fn(&mut HostFault<'_>) -> Action;

static HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Register the runtime's hook (at most one per host process; the last one wins).
pub fn set_hook(hook: Hook) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// A signal by which threads interrupt each other; whoever gets one without reason ignores it. (The same that Go's runtime uses for that: nobody
/// sends it otherwise, and it does nothing where it is not handled.)
pub const ASK: libc::c_int = libc::SIGURG;

/// Those that are handled here.
const SIGNALS: [libc::c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, ASK];

/// Install the handlers. Idempotent.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for sig in SIGNALS {
            // SAFETY: a zeroed sigaction is valid; the handler has the SA_SIGINFO signature.
            unsafe {
                let mut sa: libc::sigaction = std::mem::zeroed();
                sa.sa_sigaction = handler as *const () as usize;
                let nested = if sig == ASK { 0 } else { libc::SA_NODEFER };
                sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | nested;
                libc::sigaction(sig, &sa, std::ptr::null_mut());
            }
        }
    });
    thread_init();
}

/// Let these signals come to the calling thread, and give it an alternate signal stack (Rust gives its own threads one already, too
/// small for nothing; this keeps a larger one for the thread's life).
pub fn thread_init() {
    unblock();
    thread_local! {
        static STACK: std::cell::OnceCell<Box<[u8]>> = const { std::cell::OnceCell::new() };
    }
    STACK.with(|s| {
        let stack = s.get_or_init(|| vec![0u8; 64 * 1024].into_boxed_slice());
        let ss = libc::stack_t { ss_sp: stack.as_ptr() as *mut libc::c_void, ss_flags: 0, ss_size: stack.len() };
        // SAFETY: the buffer lives as long as the thread; when the thread ends no handler runs any more.
        unsafe { libc::sigaltstack(&ss, std::ptr::null_mut()) };
    });
}

/// Let the signals that are handled here come to the calling thread: who started it may have blocked all.
pub fn unblock() {
    // SAFETY: the set is a local.
    unsafe {
        let mut ours: libc::sigset_t = std::mem::zeroed();
        SIGNALS.iter().for_each(|sig| _ = libc::sigaddset(&mut ours, *sig));
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &ours, std::ptr::null_mut());
    }
}

/// Landing address for a faulting access at `rip`, if it is in the exception table.
pub fn landing(rip: u64) -> Option<u64> {
    // SAFETY: the linker defines both symbols around an array of pairs of 32-bit self-relative offsets.
    unsafe {
        let mut p = std::ptr::addr_of!(EXTABLE_START).cast::<i32>();
        let end = std::ptr::addr_of!(EXTABLE_STOP).cast::<i32>();
        while p < end {
            let at = (p as u64).wrapping_add(*p as i64 as u64);
            if at == rip {
                let q = p.add(1);
                return Some((q as u64).wrapping_add(*q as i64 as u64));
            }
            p = p.add(2);
        }
    }
    None
}

extern "C" fn handler(sig: libc::c_int, info: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers to a handler with SA_SIGINFO.
    let (context, addr) = unsafe { (&mut *uc.cast::<libc::ucontext_t>(), (*info).si_addr() as u64) };
    let err = context.uc_mcontext.gregs[libc::REG_ERR as usize] as u64;
    let hook = HOOK.load(Ordering::Acquire);
    let mut fault = HostFault { signal: sig, addr, write: err & 2 != 0, context };
    if !hook.is_null() {
        // SAFETY: only `set_hook` stores here, and it stores a `Hook`.
        let hook: Hook = unsafe { std::mem::transmute::<*mut (), Hook>(hook) };
        if hook(&mut fault) == Action::Resume {
            return;
        }
    }
    let rip = fault.context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    if (sig == libc::SIGSEGV || sig == libc::SIGBUS)
        && let Some(to) = landing(rip)
    {
        fault.context.uc_mcontext.gregs[libc::REG_RIP as usize] = to as i64;
        return;
    }
    // A fault of our own code: die by the default action when the instruction runs again.
    // SAFETY: as in `install`.
    unsafe {
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(sig, &sa, std::ptr::null_mut());
    }
}
