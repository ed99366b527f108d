//! System calls on processes and threads: making, executing, ending, waiting; groups and sessions; prctl.

use super::Syscall;
use super::time::write_timeval;
use crate::clone::CloneArgs;
use crate::errno::{Errno, Result};
use crate::exit::{Found, Which, wait_child};
use crate::process::{Process, lock};
use crate::task::Task;
use evm_memory::Mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 39, name: "getpid", args: "", f: |t, _| Ok(t.pid() as u64) },
    Syscall { nr: 56, name: "clone", args: "XpppX", f: clone },
    Syscall { nr: 57, name: "fork", args: "", f: |t, _| fork_with(t, 0) },
    Syscall { nr: 58, name: "vfork", args: "", f: |t, _| fork_with(t, libc::CLONE_VM | libc::CLONE_VFORK) },
    Syscall { nr: 59, name: "execve", args: "spp", f: |t, a| exec_at(t, libc::AT_FDCWD, a[0], a[1], a[2], 0) },
    Syscall { nr: 60, name: "exit", args: "d", f: exit },
    Syscall { nr: 61, name: "wait4", args: "dpxp", f: wait4 },
    Syscall { nr: 109, name: "setpgid", args: "dd", f: setpgid },
    Syscall { nr: 110, name: "getppid", args: "", f: |t, _| Ok(t.process.ppid() as u64) },
    Syscall { nr: 111, name: "getpgrp", args: "", f: |t, _| Ok(t.process.pgid() as u64) },
    Syscall { nr: 112, name: "setsid", args: "", f: setsid },
    Syscall { nr: 121, name: "getpgid", args: "d", f: |t, a| find(t, a[0] as i32).map(|p| p.pgid() as u64) },
    Syscall { nr: 124, name: "getsid", args: "d", f: |t, a| find(t, a[0] as i32).map(|p| p.sid() as u64) },
    Syscall { nr: 135, name: "personality", args: "x", f: personality },
    Syscall { nr: 157, name: "prctl", args: "dXXXX", f: prctl },
    Syscall { nr: 158, name: "arch_prctl", args: "xp", f: arch_prctl },
    Syscall { nr: 186, name: "gettid", args: "", f: |t, _| Ok(t.tid() as u64) },
    Syscall { nr: 218, name: "set_tid_address", args: "p", f: set_tid_address },
    Syscall { nr: 231, name: "exit_group", args: "d", f: exit_group },
    Syscall { nr: 247, name: "waitid", args: "ddpxp", f: waitid },
    Syscall { nr: 272, name: "unshare", args: "X", f: unshare },
    Syscall { nr: 273, name: "set_robust_list", args: "pu", f: set_robust_list },
    Syscall { nr: 274, name: "get_robust_list", args: "dpp", f: get_robust_list },
    Syscall { nr: 322, name: "execveat", args: "fsppx", f: |t, a| exec_at(t, a[0] as i32, a[1], a[2], a[3], a[4] as i32) },
    Syscall { nr: 435, name: "clone3", args: "pu", f: clone3 },
];

fn fork_with(t: &mut Task, flags: i32) -> Result<u64> {
    let a = CloneArgs { flags: flags as u64, exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
    t.clone_task(a).map(|pid| pid as u64)
}

fn clone(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [flags, stack, parent_tid, child_tid, tls, _] = a;
    // Here the two share an argument.
    if flags & libc::CLONE_PIDFD as u64 != 0 && flags & libc::CLONE_PARENT_SETTID as u64 != 0 {
        return Err(Errno::EINVAL);
    }
    let exit_signal = (flags & 0xff) as i32;
    let flags = flags & 0xffff_ff00;
    let args = CloneArgs { flags, exit_signal, stack, parent_tid, child_tid, tls, pidfd: parent_tid };
    t.clone_task(args).map(|pid| pid as u64)
}

fn clone3(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (at, size) = (a[0], a[1]);
    if size < 64 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut w = [0u64; 11];
    let mem = t.mem();
    for i in 0..size / 8 {
        let v: u64 = mem.read(at.wrapping_add(8 * i))?;
        match w.get_mut(i as usize) {
            Some(x) => *x = v,
            None if v != 0 => return Err(Errno::E2BIG),
            None => {}
        }
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _cgroup] = w;
    if flags & 0xff != 0 || exit_signal > 64 || (set_tid != 0) != (set_tid_size != 0) {
        return Err(Errno::EINVAL);
    }
    if flags & (libc::CLONE_THREAD | libc::CLONE_PARENT) as u64 != 0 && exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    if set_tid != 0 {
        return Err(Errno::EPERM);
    }
    if (stack == 0) != (stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    let stack = stack.checked_add(stack_size).ok_or(Errno::EINVAL)?;
    let args = CloneArgs { flags, exit_signal: exit_signal as i32, stack, parent_tid, child_tid, tls, pidfd };
    t.clone_task(args).map(|pid| pid as u64)
}

/// A NULL-terminated array of strings.
fn strings(mem: Mem, word: u64, at: u64) -> Result<Vec<Vec<u8>>> {
    let mut v = Vec::new();
    let mut total = 0;
    if at == 0 {
        return Ok(v); // as Linux allows
    }
    loop {
        let p = mem.load(at.wrapping_add(word * v.len() as u64), word)?;
        if p == 0 {
            return Ok(v);
        }
        let s = mem.read_cstr(p, (128 << 10) - 1)?.ok_or(Errno::E2BIG)?;
        total += s.len() + 9;
        if total > 8 << 20 {
            return Err(Errno::E2BIG);
        }
        v.push(s);
    }
}

fn exec_at(t: &mut Task, dirfd: i32, path: u64, argv: u64, envp: u64, flags: i32) -> Result<u64> {
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mem = t.mem();
    let path = mem.read_cstr(path, 4095)?.ok_or(Errno::ENAMETOOLONG)?;
    let file = crate::fs::open_exec(t, dirfd, &path, flags as u32)?;
    let word = t.mm().word();
    let argv = strings(mem, word, argv)?;
    let envp = strings(mem, word, envp)?;
    // What scripts are told their path is.
    let shown = match dirfd {
        _ if path.starts_with(b"/") || dirfd == libc::AT_FDCWD => path,
        fd if path.is_empty() => format!("/dev/fd/{fd}").into_bytes(),
        fd => [format!("/dev/fd/{fd}/").as_bytes(), &path].concat(),
    };
    t.exec(file, shown, argv, envp)?;
    Ok(0)
}

fn exit(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    t.flow = t.exit_thread((a[0] as i32 & 0xff) << 8);
    Ok(0)
}

fn exit_group(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    t.flow = t.exit_group((a[0] as i32 & 0xff) << 8);
    Ok(0)
}

pub(super) fn write_rusage(mem: Mem, at: u64, u: &crate::process::Usage) -> Result<()> {
    mem.fill(at, 144, 0)?;
    write_timeval(mem, at, u.utime)?;
    write_timeval(mem, at.wrapping_add(16), u.stime)?;
    mem.write(at.wrapping_add(32), u.maxrss * 4)?;
    Ok(())
}

fn wait4(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (pid, status, options, usage) = (a[0] as i32, a[1], a[2] as i32, a[3]);
    const ALLOWED: i32 =
        libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WNOTHREAD | libc::__WALL | libc::__WCLONE;
    if options & !ALLOWED != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(t.process.pgid()),
        p if p < 0 => Which::Group(-p),
        p => Which::Pid(p),
    };
    let Some(f) = wait_child(t, which, options | libc::WEXITED)? else {
        return Ok(0);
    };
    if status != 0 {
        t.mem().write(status, f.status)?;
    }
    if usage != 0 {
        write_rusage(t.mem(), usage, &f.usage)?;
    }
    Ok(f.pid as u64)
}

fn waitid(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (kind, id, info, options, usage) = (a[0] as u32, a[1] as i32, a[2], a[3] as i32, a[4]);
    const NEWS: i32 = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    const ALLOWED: i32 = NEWS | libc::WNOHANG | libc::WNOWAIT | libc::__WNOTHREAD | libc::__WALL | libc::__WCLONE;
    if options & !ALLOWED != 0 || options & NEWS == 0 {
        return Err(Errno::EINVAL);
    }
    let which = match kind {
        libc::P_ALL => Which::Any,
        libc::P_PID if id > 0 => Which::Pid(id),
        libc::P_PGID if id > 0 => Which::Group(id),
        libc::P_PGID if id == 0 => Which::Group(t.process.pgid()),
        libc::P_PIDFD if id >= 0 => {
            let d = t.fds().get_io(id)?;
            let pid = crate::io::pidfd::PidFd::of(&d)?.pid;
            // A descriptor that does not block makes the call not wait.
            if d.nonblock() && options & libc::WNOHANG == 0 {
                let none = wait_child(t, Which::Pid(pid), options | libc::WNOHANG | libc::WNOWAIT)?.is_none();
                if none {
                    return Err(Errno::EAGAIN);
                }
            }
            Which::Pid(pid)
        }
        _ => return Err(Errno::EINVAL),
    };
    let found: Option<Found> = wait_child(t, which, options)?;
    let mem = t.mem();
    if let Some(f) = &found
        && usage != 0
    {
        write_rusage(mem, usage, &f.usage)?;
    }
    if info != 0 {
        let (signo, code, pid, uid, status) = match &found {
            None => (0, 0, 0, 0, 0),
            Some(f) => {
                let value = match f.code {
                    libc::CLD_EXITED => f.status >> 8 & 0xff,
                    libc::CLD_STOPPED => f.status >> 8,
                    libc::CLD_CONTINUED => libc::SIGCONT,
                    _ => f.status & 0x7f,
                };
                (libc::SIGCHLD, f.code, f.pid, f.uid, value)
            }
        };
        for (off, v) in [(0, signo), (4, 0), (8, code), (16, pid), (20, uid as i32), (24, status)] {
            mem.write(info.wrapping_add(off), v)?;
        }
    }
    Ok(0)
}

/// The process with an id; 0 is the caller's.
pub(super) fn find(t: &Task, pid: i32) -> Result<Arc<Process>> {
    if pid == 0 {
        return Ok(t.process.clone());
    }
    let k = t.kernel();
    k.known(pid).or_else(|| k.thread(pid).and_then(|th| th.process())).ok_or(Errno::ESRCH)
}

fn setpgid(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (pid, pgid) = (a[0] as i32, a[1] as i32);
    let me = &t.process;
    let pid = if pid == 0 { me.pid } else { pid };
    let pgid = if pgid == 0 { pid } else { pgid };
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let table = lock(&t.kernel().table);
    let p = table.procs.get(&pid).ok_or(Errno::ESRCH)?;
    let rel = lock(&p.rel).clone();
    if p.pid != me.pid {
        if rel.ppid != me.pid {
            return Err(Errno::ESRCH);
        }
        if rel.sid != me.sid() {
            return Err(Errno::EPERM);
        }
        if rel.execed {
            return Err(Errno::EACCES);
        }
    }
    if rel.sid == p.pid {
        return Err(Errno::EPERM); // a session leader
    }
    let known = pgid == pid
        || table.procs.values().any(|q| {
            let r = lock(&q.rel);
            r.pgid == pgid && r.sid == rel.sid
        });
    if !known {
        return Err(Errno::EPERM);
    }
    lock(&p.rel).pgid = pgid;
    Ok(0)
}

fn setsid(t: &mut Task, _a: [u64; 6]) -> Result<u64> {
    let pid = t.pid();
    let table = lock(&t.kernel().table);
    if table.procs.values().any(|q| lock(&q.rel).pgid == pid) {
        return Err(Errno::EPERM);
    }
    let mut r = lock(&t.process.rel);
    r.pgid = pid;
    r.sid = pid;
    Ok(pid as u64)
}

fn personality(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let p = &t.process.personality;
    let old = p.load(Ordering::Relaxed);
    if a[0] as u32 != u32::MAX {
        p.store(a[0] as u32, Ordering::Relaxed);
    }
    Ok(u64::from(old))
}

fn set_tid_address(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    t.clear_child_tid = a[0];
    Ok(t.tid() as u64)
}

fn set_robust_list(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[1] != 3 * t.mm().word() {
        return Err(Errno::EINVAL);
    }
    t.robust_list = a[0];
    Ok(0)
}

/// Only the caller's own: lists of others are nobody's business here.
fn get_robust_list(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] as i32 != 0 && a[0] as i32 != t.tid() {
        t.kernel().thread(a[0] as i32).ok_or(Errno::ESRCH)?;
        return Err(Errno::EPERM);
    }
    let word = t.mm().word();
    t.mem().store(a[1], word, t.robust_list)?;
    t.mem().store(a[2], word, 3 * word)?;
    Ok(0)
}

fn unshare(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    const OWN: u64 = (libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SYSVSEM) as u64;
    const ALONE: u64 = (libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM) as u64;
    const SPACES: u64 = 0x7e02_0080 | libc::CLONE_NEWUSER as u64;
    let f = a[0];
    if f & !(OWN | ALONE | SPACES) != 0 {
        return Err(Errno::EINVAL);
    }
    if f & SPACES != 0 {
        return Err(Errno::EPERM);
    }
    if f & ALONE != 0 && t.process.threads().len() > 1 {
        return Err(Errno::EINVAL);
    }
    if f & libc::CLONE_FILES as u64 != 0 {
        let own = Arc::new(t.fds().fork());
        t.set_fds(own);
    }
    if f & libc::CLONE_FS as u64 != 0 {
        let own = Arc::new(t.fs().fork());
        t.set_fs(own);
    }
    Ok(0)
}

fn arch_prctl(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
    match a[0] {
        0x1001 | 0x1002 if a[1] >= TASK_SIZE_MAX => return Err(Errno::EPERM),
        0x1001 => t.cpu.gs_base = a[1],
        0x1002 => t.cpu.fs_base = a[1],
        0x1003 => t.mem().write(a[1], t.cpu.fs_base)?,
        0x1004 => t.mem().write(a[1], t.cpu.gs_base)?,
        0x1011 => return Ok(1), // ARCH_GET_CPUID: CPUID does not fault
        0x1012 if a[1] != 0 => return Ok(0),
        0x1012 => return Err(Errno::ENODEV),
        0x1021 => t.mem().write(a[1], t.kernel().config.xfeatures)?, // ARCH_GET_XCOMP_SUPP
        0x1022 => t.mem().write(a[1], t.kernel().config.xfeatures)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn prctl(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [op, x, y, z, w, _] = a;
    let p = t.process.clone();
    let flag = |b: bool| Ok(u64::from(b));
    match op as i32 {
        libc::PR_SET_PDEATHSIG => {
            if x > 64 {
                return Err(Errno::EINVAL);
            }
            p.pdeath_signal.store(x as i32, Ordering::Relaxed);
            Ok(0)
        }
        libc::PR_GET_PDEATHSIG => {
            t.mem().write(x, p.pdeath_signal.load(Ordering::Relaxed))?;
            Ok(0)
        }
        libc::PR_GET_DUMPABLE => Ok(u64::from(p.dumpable.load(Ordering::Relaxed))),
        libc::PR_SET_DUMPABLE => {
            if x > 1 {
                return Err(Errno::EINVAL);
            }
            p.dumpable.store(x as u32, Ordering::Relaxed);
            Ok(0)
        }
        libc::PR_GET_KEEPCAPS => flag(p.keepcaps.load(Ordering::Relaxed)),
        libc::PR_SET_KEEPCAPS => {
            if x > 1 {
                return Err(Errno::EINVAL);
            }
            p.keepcaps.store(x == 1, Ordering::Relaxed);
            Ok(0)
        }
        libc::PR_GET_TIMING => Ok(0),
        libc::PR_SET_TIMING => {
            if x == 0 {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        libc::PR_SET_NAME => {
            let mut name = Vec::new();
            while name.len() < 15 {
                match t.mem().read::<u8>(x.wrapping_add(name.len() as u64))? {
                    0 => break,
                    b => name.push(b),
                }
            }
            if t.tid() == t.pid() {
                lock(&p.comm_).clone_from(&name);
            }
            *lock(&t.thread.comm) = name;
            Ok(0)
        }
        libc::PR_GET_NAME => {
            let mut b = [0u8; 16];
            let name = t.thread.comm();
            b[..name.len().min(15)].copy_from_slice(&name[..name.len().min(15)]);
            t.mem().copy_in(x, &b)?;
            Ok(0)
        }
        libc::PR_GET_ENDIAN | libc::PR_GET_FPEMU | libc::PR_GET_FPEXC | libc::PR_GET_UNALIGN => Err(Errno::EINVAL),
        libc::PR_GET_TSC => {
            t.mem().write(x, libc::PR_TSC_ENABLE)?;
            Ok(0)
        }
        libc::PR_SET_TSC => {
            if x as i32 == libc::PR_TSC_ENABLE {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        libc::PR_GET_SECCOMP => Ok(0),
        libc::PR_SET_SECCOMP => Err(Errno::EINVAL),
        libc::PR_CAPBSET_READ => {
            if x <= 40 {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            }
        }
        libc::PR_CAPBSET_DROP => Err(Errno::EPERM),
        libc::PR_GET_SECUREBITS => Ok(0),
        libc::PR_SET_SECUREBITS => Err(Errno::EPERM),
        libc::PR_CAP_AMBIENT => match x as i32 {
            libc::PR_CAP_AMBIENT_IS_SET if y <= 40 => Ok(0),
            libc::PR_CAP_AMBIENT_CLEAR_ALL | libc::PR_CAP_AMBIENT_LOWER => Ok(0),
            libc::PR_CAP_AMBIENT_RAISE => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        },
        libc::PR_SET_TIMERSLACK => Ok(0),
        libc::PR_GET_TIMERSLACK => Ok(50_000),
        libc::PR_SET_NO_NEW_PRIVS => {
            if x != 1 || y != 0 || z != 0 || w != 0 {
                return Err(Errno::EINVAL);
            }
            p.no_new_privs.store(true, Ordering::Relaxed);
            Ok(0)
        }
        libc::PR_GET_NO_NEW_PRIVS => flag(p.no_new_privs.load(Ordering::Relaxed)),
        libc::PR_SET_CHILD_SUBREAPER => {
            p.subreaper.store(x != 0, Ordering::Relaxed);
            Ok(0)
        }
        libc::PR_GET_CHILD_SUBREAPER => {
            t.mem().write(x, u32::from(p.subreaper.load(Ordering::Relaxed)))?;
            Ok(0)
        }
        libc::PR_GET_TID_ADDRESS => {
            t.mem().write(x, t.clear_child_tid)?;
            Ok(0)
        }
        libc::PR_SET_THP_DISABLE | libc::PR_MCE_KILL => Ok(0),
        libc::PR_GET_THP_DISABLE => Ok(0),
        libc::PR_SET_PTRACER => Ok(0),
        // Naming of anonymous memory: a kernel without the option says EINVAL.
        _ => Err(Errno::EINVAL),
    }
}
