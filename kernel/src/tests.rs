//! Processes, signals and futexes, by system calls from Rust threads.

use crate::errno::Errno;
use crate::kernel::{Config, EndReason};
use crate::limits::LimitConfig;
use crate::task::Task;
use crate::testing::{call, start};
use libc::*;
use std::time::{Duration, Instant};

const ADDR: u64 = 0x40_1000; // a writable page of the test program

fn err(e: Errno) -> i64 {
    -i64::from(e.0)
}
fn word(t: &Task, at: u64) -> i32 {
    t.mem().read(at).unwrap()
}

#[test]
fn fork_exit_wait() {
    let (h, k, mut t) = start(Config::default());
    t.enter();
    h.next(|c| {
        c.mem().write(ADDR, 1u32).unwrap();
        call(c, SYS_exit_group, &[7]);
    });
    let pid = call(&mut t, SYS_fork, &[]);
    assert!(pid > 0);
    assert_eq!(call(&mut t, SYS_wait4, &[u64::MAX, ADDR + 8, 0, ADDR + 64]), pid);
    assert_eq!((word(&t, ADDR + 8), word(&t, ADDR)), (7 << 8, 0));
    assert_eq!(call(&mut t, SYS_wait4, &[u64::MAX, 0, 0, 0]), err(Errno::ECHILD));
    // A child that is killed while it sleeps.
    h.next(|c| {
        call(c, SYS_pause, &[]);
    });
    let pid = call(&mut t, SYS_fork, &[]);
    assert_eq!(call(&mut t, SYS_wait4, &[pid as u64, 0, WNOHANG as u64, 0]), 0);
    assert_eq!(call(&mut t, SYS_kill, &[pid as u64, SIGSEGV as u64]), 0);
    assert_eq!(call(&mut t, SYS_wait4, &[pid as u64, ADDR + 8, 0, 0]), pid);
    assert_eq!(word(&t, ADDR + 8), SIGSEGV);
    // Stopped and continued.
    h.bodies_clear();
    h.next(|c| {
        while !c.gone {
            call(c, SYS_pause, &[]);
        }
    });
    let pid = call(&mut t, SYS_fork, &[]);
    call(&mut t, SYS_kill, &[pid as u64, SIGSTOP as u64]);
    assert_eq!(call(&mut t, SYS_wait4, &[pid as u64, ADDR, WUNTRACED as u64, 0]), pid);
    assert_eq!(word(&t, ADDR), SIGSTOP << 8 | 0x7f);
    call(&mut t, SYS_kill, &[pid as u64, SIGCONT as u64]);
    assert_eq!(call(&mut t, SYS_wait4, &[pid as u64, ADDR, WCONTINUED as u64, 0]), pid);
    assert_eq!(word(&t, ADDR), 0xffff);
    call(&mut t, SYS_kill, &[pid as u64, SIGKILL as u64]);
    assert_eq!(call(&mut t, SYS_waitid, &[P_PID.into(), pid as u64, ADDR, WEXITED as u64, 0]), 0);
    assert_eq!([0, 8, 16, 24].map(|o| word(&t, ADDR + o)), [SIGCHLD, CLD_KILLED, pid as i32, SIGKILL]);
    call(&mut t, SYS_exit_group, &[3]);
    assert_eq!(k.wait_end(), EndReason::Exit(3));
    assert!(k.processes().is_empty());
    drop(t);
    // The children's host threads may still be letting go of their address spaces.
    while k.limits.memory.used() != 0 || k.limits.procs.used() != 0 {
        std::thread::yield_now();
    }
}

#[test]
fn threads_and_futexes() {
    let (h, _k, mut t) = start(Config::default());
    t.enter();
    const THREAD: u64 =
        (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES | CLONE_FS | CLONE_CHILD_CLEARTID) as u64;
    h.next(|c| {
        // Waits for 5, then changes it to 6 and wakes.
        assert_eq!(call(c, SYS_futex, &[ADDR, FUTEX_WAIT as u64, 1]), err(Errno::EAGAIN));
        assert_eq!(call(c, SYS_futex, &[ADDR, FUTEX_WAIT as u64, 0]), 0);
        assert_eq!(word(c, ADDR), 5);
        call(c, SYS_exit, &[0]);
    });
    t.mem().write(ADDR + 32, 1u32).unwrap();
    let tid = call(&mut t, SYS_clone, &[THREAD, 0, 0, ADDR + 32]);
    assert!(tid > t.pid().into());
    std::thread::sleep(Duration::from_millis(20));
    t.mem().write(ADDR, 5u32).unwrap();
    while call(&mut t, SYS_futex, &[ADDR, FUTEX_WAKE as u64, 1]) == 0 {}
    while word(&t, ADDR + 32) != 0 {
        let r = call(&mut t, SYS_futex, &[ADDR + 32, FUTEX_WAIT as u64, 1]);
        assert!(r == 0 || r == err(Errno::EAGAIN));
    }
    // Timeouts.
    t.mem().write(ADDR + 64, 0u64).unwrap();
    t.mem().write(ADDR + 72, 5_000_000u64).unwrap();
    assert_eq!(call(&mut t, SYS_futex, &[ADDR, FUTEX_WAIT as u64, 5, ADDR + 64]), err(Errno::ETIMEDOUT));
    assert_eq!(call(&mut t, SYS_rt_sigtimedwait, &[ADDR + 128, 0, ADDR + 64, 8]), err(Errno::EAGAIN));
    // PI locks hand on.
    t.mem().write(ADDR, 0u32).unwrap();
    assert_eq!(call(&mut t, SYS_futex, &[ADDR, FUTEX_LOCK_PI as u64]), 0);
    h.next(|c| {
        assert_eq!(call(c, SYS_futex, &[ADDR, FUTEX_TRYLOCK_PI as u64]), err(Errno::EAGAIN));
        assert_eq!(call(c, SYS_futex, &[ADDR, FUTEX_LOCK_PI as u64]), 0);
        assert_eq!(word(c, ADDR), c.tid());
        assert_eq!(call(c, SYS_futex, &[ADDR, FUTEX_UNLOCK_PI as u64]), 0);
        call(c, SYS_exit, &[0]);
    });
    t.mem().write(ADDR + 32, 1u32).unwrap();
    call(&mut t, SYS_clone, &[THREAD, 0, 0, ADDR + 32]);
    while word(&t, ADDR) as u32 >> 31 == 0 {
        std::thread::yield_now();
    }
    assert_eq!(call(&mut t, SYS_futex, &[ADDR, FUTEX_UNLOCK_PI as u64]), 0);
    call(&mut t, SYS_futex, &[ADDR + 32, FUTEX_WAIT as u64, 1]);
    assert_eq!(word(&t, ADDR), 0);
}

#[test]
fn handlers_and_restarts() {
    let (h, _k, mut t) = start(Config::default());
    t.enter();
    let handler = 0x40_0100u64;
    let act = |t: &mut Task, sig: i32, flags: u64| {
        for (i, v) in [handler, flags | 0x0400_0000, 0x40_0200, 0].into_iter().enumerate() {
            t.mem().write(ADDR + 8 * i as u64, v).unwrap();
        }
        assert_eq!(call(t, SYS_rt_sigaction, &[sig as u64, ADDR, 0, 8]), 0);
    };
    act(&mut t, SIGUSR1, 0);
    let (sp, rip) = (t.cpu.gpr[4], 0x40_0300);
    t.cpu.rip = rip;
    let (pid, tid) = (t.pid() as u64, t.tid() as u64);
    call(&mut t, SYS_tgkill, &[pid, tid, SIGUSR1 as u64]);
    assert_eq!((t.cpu.rip, t.cpu.gpr[7]), (handler, SIGUSR1 as u64));
    assert_eq!(t.thread.mask(), 1 << (SIGUSR1 - 1));
    t.cpu.gpr[4] += 8; // the handler returns to its restorer
    call(&mut t, SYS_rt_sigreturn, &[]);
    assert_eq!((t.cpu.rip, t.cpu.gpr[4], t.cpu.gpr[0], t.thread.mask()), (rip, sp, 0, 0));
    // A sleep is interrupted; without SA_RESTART wait4 gives EINTR, with it it starts again.
    for (flags, restarts) in [(0, false), (SA_RESTART as u64, true)] {
        act(&mut t, SIGUSR1, flags);
        h.next(move |c| {
            std::thread::sleep(Duration::from_millis(30));
            call(c, SYS_kill, &[pid, SIGUSR1 as u64]);
            call(c, SYS_pause, &[]);
        });
        let child = call(&mut t, SYS_fork, &[]);
        t.cpu.rip = rip;
        call(&mut t, SYS_wait4, &[child as u64, 0, 0, 0]);
        assert_eq!(t.cpu.rip, handler);
        t.cpu.gpr[4] += 8;
        call(&mut t, SYS_rt_sigreturn, &[]);
        let want = if restarts { (rip - 2, SYS_wait4) } else { (rip, err(Errno::EINTR)) };
        assert_eq!((t.cpu.rip, t.cpu.gpr[0] as i64), want);
        call(&mut t, SYS_kill, &[child as u64, SIGKILL as u64]);
        assert_eq!(call(&mut t, SYS_wait4, &[child as u64, 0, 0, 0]), child);
    }
    // A timer.
    act(&mut t, SIGALRM, 0);
    for (o, v) in [(64, 0u64), (72, 0), (80, 0), (88, 20_000)] {
        t.mem().write(ADDR + o, v).unwrap();
    }
    let begin = Instant::now();
    assert_eq!(call(&mut t, SYS_setitimer, &[0, ADDR + 64, 0]), 0);
    call(&mut t, SYS_pause, &[]);
    assert_eq!((t.cpu.rip, t.cpu.gpr[7]), (handler, SIGALRM as u64));
    assert!(begin.elapsed() >= Duration::from_millis(19));
    // A fault without a handler ends the process.
    assert_eq!(t.exception(evm_cpu::exc::PF, 8), crate::kernel::Flow::Exit);
    assert_eq!(*t.process.group_exit.lock().unwrap(), Some(SIGSEGV));
}

#[test]
fn exec_ends_threads_and_limits_end_jobs() {
    let limits = LimitConfig { procs: Some(3), wall: Some(Duration::from_millis(300)), ..LimitConfig::default() };
    let (h, k, mut t) = start(Config { limits, ..Config::default() });
    t.enter();
    const THREAD: u64 = (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND) as u64;
    for _ in 0..2 {
        h.next(|c| {
            call(c, SYS_pause, &[]);
        });
        assert!(call(&mut t, SYS_clone, &[THREAD]) > 0);
    }
    assert_eq!(call(&mut t, SYS_fork, &[]), err(Errno::EAGAIN));
    let file = crate::exec::bytes::description(&crate::testing::tiny_elf(b"\xf4"), b"/bin/new").unwrap();
    t.exec(file, b"/bin/new".to_vec(), vec![b"new".to_vec()], vec![]).unwrap();
    assert_eq!((t.process.threads().len(), k.limits.procs.used()), (1, 1));
    assert_eq!((t.cpu.rip, t.process.comm()), (0x40_0078, b"new".to_vec()));
    // Blocked signals and endless sleep do not help against the wall limit.
    t.set_mask(u64::MAX);
    call(&mut t, SYS_pause, &[]);
    assert_eq!(k.wait_end(), EndReason::Limit("wall"));
}

#[test]
fn virtual_clock_jumps() {
    let mode = crate::clock::ClockMode::Virtual { start: Duration::from_secs(1_000_000_000) };
    let (_h, k, mut t) = start(Config { clock: mode, ..Config::default() });
    t.enter();
    let begin = Instant::now();
    t.mem().write(ADDR, 3600u64).unwrap();
    t.mem().write(ADDR + 8, 0u64).unwrap();
    assert_eq!(call(&mut t, SYS_nanosleep, &[ADDR, 0]), 0);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(k.clock.realtime().as_secs(), 1_000_003_600);
}
