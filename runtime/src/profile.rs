//! Where a job's CPU time goes: samples of its threads.
//!
//! Each guest thread has a timer of its own CPU time. Its signal notes where the thread is: the guest address of the code at hand, and in
//! copied code that of each call on the stack of calls, which is a guess that is nearly always right. Nothing else is known of the guest's stack: programs
//! need not keep frame pointers.
//!
//! # Safety
//! The handler touches the interrupted thread's own record and atomics. A thread that is in copied code has a stack of calls between the
//! host's RSP and its bottom.
#![allow(unsafe_code)]

use crate::code::memory;
use crate::host::enter;
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

/// Microseconds of CPU time between two samples, if the host's clock is that fine.
const INTERVAL_US: i64 = 1000;
/// Words for samples: 32 MiB, some hours.
const WORDS: usize = 1 << 22;
/// Most calls of a sample.
const DEPTH: usize = 60;

/// What ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Copies of the guest's instructions.
    Copied,
    /// Code of the quick tier or of Cranelift.
    Compiled,
    /// EVM itself: system calls, the interpreter, translating.
    Runtime,
}

/// Samples that are alike.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What ran.
    pub tier: Tier,
    /// Guest addresses: where it was, and in which calls.
    pub stack: Vec<u64>,
    /// How many.
    pub count: u64,
}

/// A file that a process of the job had mapped as code.
#[derive(Debug)]
pub struct ImageAt {
    /// The guest's path.
    pub label: String,
    /// Guest addresses: first, and behind the last.
    pub lo: u64,
    #[allow(missing_docs)]
    pub hi: u64,
    /// Offset in the file of `lo`.
    pub offset: u64,
    /// The file.
    pub file: File,
}

/// Where a job's CPU time went.
#[derive(Debug, Default)]
pub struct Profile {
    /// By tier and stack, the most frequent first.
    pub samples: Vec<Sample>,
    /// Whose code it was.
    pub images: Vec<ImageAt>,
    /// Samples for which there was no room.
    pub lost: u64,
}

static SAMPLES: OnceLock<Box<[AtomicU64]>> = OnceLock::new();
static USED: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Take samples from now on.
pub(crate) fn start() {
    SAMPLES.get_or_init(|| (0..WORDS).map(|_| AtomicU64::new(0)).collect());
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is one for SA_SIGINFO, and safe in a signal handler.
        unsafe {
            let mut a: libc::sigaction = std::mem::zeroed();
            a.sa_sigaction = on_tick as *const () as usize;
            a.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigaction(libc::SIGPROF, &raw const a, std::ptr::null_mut());
        }
    });
}

/// The timer of a guest thread.
pub(crate) struct Ticks(libc::timer_t);

impl Ticks {
    /// One for the calling thread, if samples are taken.
    pub(crate) fn new() -> Option<Ticks> {
        SAMPLES.get()?;
        // SAFETY: plain system calls on own memory.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGPROF;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = std::ptr::null_mut();
            if libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer) != 0 {
                return None;
            }
            let every = libc::timespec { tv_sec: 0, tv_nsec: INTERVAL_US * 1000 };
            let when = libc::itimerspec { it_interval: every, it_value: every };
            libc::timer_settime(timer, 0, &raw const when, std::ptr::null_mut());
            Some(Ticks(timer))
        }
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        // SAFETY: made by `new` and not deleted yet.
        unsafe { libc::timer_delete(self.0) };
    }
}

extern "C" fn on_tick(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: a handler for SA_SIGINFO gets the context.
    let gregs = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let word = |r: i32| gregs[r as usize] as u64;
    let mut stack = [0; DEPTH + 1];
    let Some((tier, n)) = enter::sample(word(libc::REG_RIP), word(libc::REG_RSP), word(libc::REG_R9), &mut stack)
    else {
        return;
    };
    let Some(all) = SAMPLES.get() else { return };
    let at = USED.fetch_add(n + 1, Ordering::Relaxed);
    let Some(to) = all.get(at..at + n + 1) else {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    };
    for (w, pc) in to[1..].iter().zip(stack) {
        w.store(pc, Ordering::Relaxed);
    }
    to[0].store((n as u64) << 8 | (tier as u64 + 1), Ordering::Release);
}

/// What has been noted.
pub(crate) fn finish() -> Profile {
    let mut counts: HashMap<(Tier, Vec<u64>), u64> = HashMap::new();
    let all = SAMPLES.get().map_or(&[][..], |s| &s[..]);
    let used = USED.load(Ordering::Acquire).min(all.len());
    let mut at = 0;
    while at < used {
        let head = all[at].load(Ordering::Acquire);
        let n = (head >> 8) as usize;
        let tier = match head & 255 {
            1 => Tier::Copied,
            2 => Tier::Compiled,
            3 => Tier::Runtime,
            // Its handler has not come to an end.
            _ => break,
        };
        let stack = all.get(at + 1..at + 1 + n).unwrap_or_default();
        *counts.entry((tier, stack.iter().map(|w| w.load(Ordering::Relaxed)).collect())).or_insert(0) += 1;
        at += n + 1;
    }
    let mut samples: Vec<Sample> =
        counts.into_iter().map(|((tier, stack), count)| Sample { tier, stack, count }).collect();
    samples.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.tier, &a.stack).cmp(&(b.tier, &b.stack))));
    Profile { samples, images: vec![], lost: LOST.load(Ordering::Relaxed) }
}

/// The calls of copied code that is interrupted, as guest addresses; `rsp` and `bottom` are the ends of the stack of calls. Gives how many.
pub(crate) fn calls(rsp: u64, bottom: u64, out: &mut [u64]) -> usize {
    let mut n = 0;
    let mut at = rsp;
    while at < bottom && n < out.len() {
        // SAFETY: between the two ends is the thread's own memory, which holds return addresses.
        let back = unsafe { (at as *const u64).read() };
        if let Some(pc) = memory::nearest(back - 1) {
            out[n] = pc.0;
            n += 1;
        }
        at += 8;
    }
    n
}
