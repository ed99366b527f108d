//! Files about a process or thread.

use super::Item::{Dir, FdInfos, Fds, File, Link as L, Mem, Set, Tasks};
use super::system::ticks;
use super::{Ctx, Item};
use crate::errno::{Errno, Result};
use crate::fs::node::Link;
use crate::fs::walk::Namespace;
use crate::process::{Life, Process, Thread, lock};
use crate::sys::sched::{Sched, show_mask};
use std::fmt::Write;
use std::sync::Arc;

macro_rules! common {
    ($($extra:expr),*) => { &[
        $($extra,)*
        Fds,
        FdInfos,
        L("cwd", 0o777, |c| {
            let p = c.process()?.fs().cwd();
            let t = p.shown();
            Ok(Link::Jump(p, t))
        }),
        L("root", 0o777, |c| {
            let p = c.process()?.fs().ns().root();
            Ok(Link::Jump(p, b"/".to_vec()))
        }),
        L("exe", 0o777, exe),
        File("stat", 0o444, stat),
        File("statm", 0o444, statm),
        File("status", 0o444, status),
        File("cmdline", 0o444, |c| strings(c, |i| i.args)),
        File("environ", 0o400, |c| strings(c, |i| i.env)),
        File("auxv", 0o400, |c| Ok(c.process()?.image().map_or_else(Vec::new, |i| i.auxv.to_vec()))),
        Set("comm", 0o644, comm, set_comm),
        Mem,
        File("schedstat", 0o444, |c| {
            let t = thread(c)?.1.map_or(0, |t| t.cpu_time().as_nanos());
            Ok(format!("{t} 0 0\n").into_bytes())
        }),
        File("maps", 0o444, maps),
        File("smaps", 0o444, |c| Ok(c.process()?.mm().map_or_else(Vec::new, |m| crate::fs::procmaps::smaps(&m)))),
        File("smaps_rollup", 0o444, |c| Ok(c.process()?.mm().map_or_else(Vec::new, |m| crate::fs::procmaps::rollup(&m)))),
        File("limits", 0o444, limits),
        File("mounts", 0o444, mounts),
        File("mountinfo", 0o444, mountinfo),
        File("cgroup", 0o444, |_| Ok(b"0::/\n".to_vec())),
        File("oom_score", 0o444, |_| Ok(b"0\n".to_vec())),
        Set("oom_score_adj", 0o644, |c| Ok(format!("{}\n", c.process()?.oom_adjust()).into_bytes()), set_oom_adjust),
        File("loginuid", 0o444, |_| Ok(b"4294967295".to_vec())),
        File("sessionid", 0o444, |_| Ok(b"4294967295".to_vec())),
        File("personality", 0o400, |_| Ok(b"00000000\n".to_vec())),
        File("wchan", 0o444, |_| Ok(b"0".to_vec())),
        File("uid_map", 0o444, |_| Ok(b"         0          0 4294967295\n".to_vec())),
        File("gid_map", 0o444, |_| Ok(b"         0          0 4294967295\n".to_vec())),
        File("setgroups", 0o444, |_| Ok(b"allow\n".to_vec())),
        File("io", 0o400, |_| {
            Ok(b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_vec())
        })
    ] };
}

pub(super) static PROCESS: &[Item] = common!(
    Tasks,
    Dir(
        "net",
        &[
            File("dev", 0o444, |_| {
                Ok(b"Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n".to_vec())
            }),
            File("route", 0o444, |_| {
                let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
                Ok(format!("{head:<127}\n").into_bytes())
            }),
            File("if_inet6", 0o444, |_| Ok(b"00000000000000000000000000000001 01 80 10 80       lo\n".to_vec())),
            File("unix", 0o444, |_| Ok(b"Num       RefCount Protocol Flags    Type St Inode Path\n".to_vec())),
        ]
    )
);
pub(super) static THREAD: &[Item] = common!();

fn exe(c: &Ctx) -> Result<Link> {
    let p = c.process()?;
    let path = p.image().map(|i| i.exe).unwrap_or_default();
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    // By path: the program that runs now is reached again even through a rename of folders above it.
    Ok(Link::Path(path))
}

fn thread(c: &Ctx) -> Result<(Arc<Process>, Option<Arc<Thread>>)> {
    let p = c.process()?;
    let t = p.threads().into_iter().find(|t| t.tid() == c.tid);
    Ok((p, t))
}

fn name(p: &Process, t: &Option<Arc<Thread>>) -> Vec<u8> {
    t.as_ref().map_or_else(|| p.comm(), |t| t.comm())
}

/// Bytes mapped and resident.
fn size(p: &Process) -> (u64, u64) {
    p.mm().map_or((0, 0), |m| crate::fs::procmaps::size(&m))
}

fn comm(c: &Ctx) -> Result<Vec<u8>> {
    let (p, t) = thread(c)?;
    Ok([&name(&p, &t)[..], b"\n"].concat())
}

fn set_comm(c: &Ctx, name: &[u8]) -> Result<()> {
    let (p, t) = thread(c)?;
    let name = name.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
    let name = name[..name.len().min(15)].to_vec();
    if c.tid == c.pid {
        lock(&p.comm_).clone_from(&name);
    }
    if let Some(t) = t {
        *lock(&t.comm) = name;
    }
    Ok(())
}

fn set_oom_adjust(c: &Ctx, text: &[u8]) -> Result<()> {
    let n = std::str::from_utf8(text).ok().and_then(|s| s.trim().parse::<i32>().ok()).ok_or(Errno::EINVAL)?;
    if !(-1000..=1000).contains(&n) {
        return Err(Errno::EINVAL);
    }
    let p = c.process()?;
    // Only a privileged process makes itself less likely to be chosen.
    if n < p.oom_adjust() && p.credentials().euid != 0 {
        return Err(Errno::EACCES);
    }
    p.oom_adjust.store(n, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// Strings in the memory of the process; as much as there is.
fn strings(c: &Ctx, range: fn(&crate::process::Image) -> (u64, u64)) -> Result<Vec<u8>> {
    // A zombie has none.
    let Some(image) = c.process()?.image() else {
        return Ok(Vec::new());
    };
    let (start, end) = range(&image);
    let len = end.saturating_sub(start).min(4 << 20);
    let mut buf = vec![0; len as usize];
    match image.mm.mem().copy_out(start, &mut buf) {
        Ok(()) => {}
        Err(f) => buf.truncate(f.addr.saturating_sub(start) as usize),
    }
    Ok(buf)
}

fn state(p: &Process, t: &Option<Arc<Thread>>) -> (char, &'static str) {
    match p.status().life {
        Life::Stopped(_) => ('T', "stopped"),
        Life::Zombie(_) => ('Z', "zombie"),
        Life::Running if t.as_ref().is_some_and(|t| t.asleep()) => ('S', "sleeping"),
        Life::Running => ('R', "running"),
    }
}

/// Signals ignored and caught.
fn actions(p: &Process) -> (u64, u64) {
    let (mut ignored, mut caught) = (0, 0);
    for sig in 1..=64 {
        match p.action(sig).handler {
            0 => {}
            1 => ignored |= 1u64 << (sig - 1),
            _ => caught |= 1u64 << (sig - 1),
        }
    }
    (ignored, caught)
}

fn stat(c: &Ctx) -> Result<Vec<u8>> {
    let (p, t) = thread(c)?;
    let image = p.image();
    let (own, children) = p.usage();
    let time = t.as_ref().filter(|_| c.tid != c.pid).map_or(own.utime, |t| t.cpu_time());
    let (vsize, rss) = size(&p);
    let (stack, args, env) = image.map_or((0, (0, 0), (0, 0)), |i| (i.stack, i.args, i.env));
    let (ignored, caught) = actions(&p);
    let mask = t.as_ref().map_or(0, |t| t.mask());
    let nice = i64::from(p.nice());
    let fields: [i64; 49] = [
        p.ppid().into(),
        p.pgid().into(),
        p.sid().into(),
        0,
        -1,
        0x40_0000,
        0,
        0,
        0,
        0,
        ticks(time) as i64,
        ticks(own.stime) as i64,
        ticks(children.utime) as i64,
        ticks(children.stime) as i64,
        20 + nice,
        nice,
        p.threads().len() as i64,
        0,
        ticks(p.start_time()) as i64,
        vsize as i64,
        (rss / 4096) as i64,
        p.rlimit(libc::RLIMIT_RSS as usize).cur as i64,
        0,
        0,
        stack as i64,
        0,
        0,
        0,
        mask as u32 as i64,
        ignored as u32 as i64,
        caught as u32 as i64,
        0,
        0,
        0,
        17,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        args.0 as i64,
        args.1 as i64,
        env.0 as i64,
        env.1 as i64,
        0,
    ];
    let mut out = format!("{} (", c.tid).into_bytes();
    out.extend_from_slice(&name(&p, &t));
    let mut s = format!(") {}", state(&p, &t).0);
    for (i, f) in fields.iter().enumerate() {
        // The limits are unsigned.
        let _ = if i == 21 { write!(s, " {}", *f as u64) } else { write!(s, " {f}") };
    }
    s.push('\n');
    out.extend_from_slice(s.as_bytes());
    Ok(out)
}

fn statm(c: &Ctx) -> Result<Vec<u8>> {
    let (size, rss) = size(&*c.process()?);
    Ok(format!("{} {} 0 0 0 {} 0\n", size / 4096, rss / 4096, rss / 4096).into_bytes())
}

fn status(c: &Ctx) -> Result<Vec<u8>> {
    let (p, t) = thread(c)?;
    let cred = p.credentials();
    let (st, long) = state(&p, &t);
    let (size, rss) = size(&p);
    let (ignored, caught) = actions(&p);
    let mask = t.as_ref().map_or(0, |t| t.mask());
    let cpus = c.kernel.config.cpus.max(1);
    let mask_of_cpus = t.as_ref().map_or_else(|| Sched::default().mask(cpus), |t| lock(&t.sched).mask(cpus));
    let (allowed, allowed_list) = show_mask(&mask_of_cpus, cpus);
    let groups: Vec<String> = cred.groups.iter().map(u32::to_string).collect();
    let umask = p.fs().umask();
    let threads = p.threads().len();
    let caps: u64 = if cred.euid == 0 { 0x1ff_ffff_ffff } else { 0 };
    let mut out = b"Name:\t".to_vec();
    out.extend_from_slice(&name(&p, &t));
    let s = format!(
        "\nUmask:\t{umask:04o}\nState:\t{st} ({long})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0\n\
         Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{}\nGroups:\t{} \nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}\n\
         VmPeak:\t{:8} kB\nVmSize:\t{:8} kB\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nVmHWM:\t{:8} kB\nVmRSS:\t{:8} kB\n\
         RssAnon:\t{:8} kB\nRssFile:\t       0 kB\nRssShmem:\t       0 kB\nVmData:\t{:8} kB\nVmStk:\t{:8} kB\nVmExe:\t       0 kB\nVmLib:\t       0 kB\n\
         VmPTE:\t       0 kB\nVmSwap:\t       0 kB\nThreads:\t{threads}\nSigQ:\t0/{}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{mask:016x}\n\
         SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\nCapInh:\t{:016x}\nCapPrm:\t{caps:016x}\nCapEff:\t{caps:016x}\nCapBnd:\t{caps:016x}\n\
         CapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0\nCpus_allowed:\t{allowed}\nCpus_allowed_list:\t{allowed_list}\nMems_allowed:\t1\n\
         Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
        c.pid,
        c.tid,
        p.ppid(),
        cred.uid,
        cred.euid,
        cred.suid,
        cred.fsuid,
        cred.gid,
        cred.egid,
        cred.sgid,
        cred.fsgid,
        p.fds().list().last().map_or(64, |(n, _)| (*n as usize + 1).next_multiple_of(64)),
        groups.join(" "),
        c.pid,
        c.tid,
        p.pgid(),
        p.sid(),
        size / 1024,
        size / 1024,
        rss / 1024,
        rss / 1024,
        rss / 1024,
        rss / 1024,
        p.rlimit(libc::RLIMIT_STACK as usize).cur.min(8 << 20) / 1024,
        p.rlimit(libc::RLIMIT_SIGPENDING as usize).cur,
        t.as_ref().map_or(0, |t| lock(&t.pending).set),
        lock(&p.pending).set,
        0,
        0,
        u32::from(p.no_new_privs.load(std::sync::atomic::Ordering::Relaxed)),
    );
    out.extend_from_slice(s.as_bytes());
    Ok(out)
}

fn maps(c: &Ctx) -> Result<Vec<u8>> {
    Ok(c.process()?.mm().map_or_else(Vec::new, |m| crate::fs::procmaps::maps(&m)))
}

fn limits(c: &Ctx) -> Result<Vec<u8>> {
    let p = c.process()?;
    let rows = [
        ("Max cpu time", libc::RLIMIT_CPU, "seconds"),
        ("Max file size", libc::RLIMIT_FSIZE, "bytes"),
        ("Max data size", libc::RLIMIT_DATA, "bytes"),
        ("Max stack size", libc::RLIMIT_STACK, "bytes"),
        ("Max core file size", libc::RLIMIT_CORE, "bytes"),
        ("Max resident set", libc::RLIMIT_RSS, "bytes"),
        ("Max processes", libc::RLIMIT_NPROC, "processes"),
        ("Max open files", libc::RLIMIT_NOFILE, "files"),
        ("Max locked memory", libc::RLIMIT_MEMLOCK, "bytes"),
        ("Max address space", libc::RLIMIT_AS, "bytes"),
        ("Max file locks", libc::RLIMIT_LOCKS, "locks"),
        ("Max pending signals", libc::RLIMIT_SIGPENDING, "signals"),
        ("Max msgqueue size", libc::RLIMIT_MSGQUEUE, "bytes"),
        ("Max nice priority", libc::RLIMIT_NICE, ""),
        ("Max realtime priority", libc::RLIMIT_RTPRIO, ""),
        ("Max realtime timeout", libc::RLIMIT_RTTIME, "us"),
    ];
    let show = |v: u64| {
        if v == u64::MAX { "unlimited".into() } else { v.to_string() }
    };
    let mut s = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (name, which, unit) in rows {
        let r = p.rlimit(which as usize);
        let _ = writeln!(s, "{name:<25} {:<20} {:<20} {unit:<10}", show(r.cur), show(r.max));
    }
    Ok(s.into_bytes())
}

/// Spaces and the like as in /proc/mounts.
fn escaped(path: &[u8]) -> String {
    let mut s = String::new();
    for b in path {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => {
                let _ = write!(s, "\\{b:03o}");
            }
            _ => s.push(*b as char),
        }
    }
    s
}

fn each_mount(ns: &Namespace, mut f: impl FnMut(&crate::fs::Mount, String, &'static str)) {
    for m in ns.mounts() {
        let at = escaped(&m.absolute(b""));
        f(&m, at, if m.read_only { "ro" } else { "rw" });
    }
}

fn mounts(c: &Ctx) -> Result<Vec<u8>> {
    let mut s = String::new();
    each_mount(c.process()?.fs().ns(), |m, at, rw| {
        let _ = writeln!(s, "{} {at} {} {rw},nosuid,nodev,relatime 0 0", m.fstype, m.fstype);
    });
    Ok(s.into_bytes())
}

fn mountinfo(c: &Ctx) -> Result<Vec<u8>> {
    let mut s = String::new();
    each_mount(c.process()?.fs().ns(), |m, at, rw| {
        let parent = m.parent.as_ref().map_or(0, |(p, _)| p.id);
        let dev = m.root.stat().map_or(0, |s| s.dev);
        let _ =
            writeln!(s, "{} {parent} 0:{dev} / {at} {rw},nosuid,nodev,relatime - {} {} {rw}", m.id, m.fstype, m.fstype);
    });
    Ok(s.into_bytes())
}
