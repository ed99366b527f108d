//! Files about the system: all values are those of the virtual machine.

use super::Item::{Dir, File, Link as L};
use super::{Ctx, Item};
use crate::errno::Result;
use crate::fs::node::Link;
use std::fmt::Write;

fn path(p: impl Into<Vec<u8>>) -> Result<Link> {
    Ok(Link::Path(p.into()))
}
fn text(s: impl Into<String>) -> Result<Vec<u8>> {
    Ok(s.into().into_bytes())
}

pub(super) static ROOT: &[Item] = &[
    L("self", 0o777, |c| path(c.pid.to_string())),
    L("thread-self", 0o777, |c| path(format!("{}/task/{}", c.pid, c.tid))),
    L("mounts", 0o777, |_| path("self/mounts")),
    L("net", 0o777, |_| path("self/net")),
    File("cpuinfo", 0o444, cpuinfo),
    File("meminfo", 0o444, meminfo),
    File("stat", 0o444, stat),
    File("uptime", 0o444, uptime),
    File("loadavg", 0o444, loadavg),
    File("version", 0o444, |c| {
        let k = &c.kernel.config;
        text(format!("Linux version {} (evm@{}) {}\n", k.release, k.hostname, k.version))
    }),
    File("cmdline", 0o444, |_| text("evm\n")),
    File("filesystems", 0o444, |_| text("nodev\tproc\nnodev\ttmpfs\nnodev\tdevtmpfs\nnodev\toverlay\n\text4\n")),
    File("devices", 0o444, |_| text("Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")),
    File("swaps", 0o444, |_| text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
    File("partitions", 0o444, |_| text("major minor  #blocks  name\n\n")),
    File("diskstats", 0o444, |_| text("")),
    File("modules", 0o444, |_| text("")),
    File("locks", 0o444, locks),
    File("vmstat", 0o444, |c| {
        let free = c.kernel.shown_memory().saturating_sub(c.kernel.limits.memory.used()) / 4096;
        text(format!("nr_free_pages {free}\npgfault 0\npgmajfault 0\npswpin 0\npswpout 0\n"))
    }),
    File("cgroups", 0o444, |_| text("#subsys_name\thierarchy\tnum_cgroups\tenabled\n")),
    File("interrupts", 0o444, |c| {
        let cpus: String = (0..c.kernel.config.cpus.max(1)).map(|n| format!("{:<11}", format!("CPU{n}"))).collect();
        text(format!("           {cpus}\n"))
    }),
    Dir(
        "sysvipc",
        &[
            File("shm", 0o444, |c| Ok(c.kernel.io.ipc.shm.listing())),
            File("sem", 0o444, |c| Ok(c.kernel.io.ipc.sem.listing())),
            File("msg", 0o444, |c| Ok(c.kernel.io.ipc.msg.listing())),
        ],
    ),
    Dir("sys", SYS),
];

static SYS: &[Item] = &[
    Dir(
        "kernel",
        &[
            File("osrelease", 0o444, |c| text(format!("{}\n", c.kernel.config.release))),
            File("ostype", 0o444, |_| text("Linux\n")),
            File("version", 0o444, |c| text(format!("{}\n", c.kernel.config.version))),
            File("hostname", 0o444, |c| text(format!("{}\n", c.kernel.config.hostname))),
            File("domainname", 0o444, |_| text("(none)\n")),
            File("pid_max", 0o444, |_| text(format!("{}\n", crate::kernel::PID_MAX))),
            File("threads-max", 0o444, |c| text(format!("{}\n", c.kernel.limits.procs.max().min(127_000)))),
            File("ngroups_max", 0o444, |_| text("65536\n")),
            File("cap_last_cap", 0o444, |_| text("40\n")),
            File("overflowuid", 0o444, |_| text("65534\n")),
            File("overflowgid", 0o444, |_| text("65534\n")),
            File("randomize_va_space", 0o444, |_| text("0\n")),
            File("shmmax", 0o444, |_| text("18446744073692774399\n")),
            File("shmall", 0o444, |_| text("18446744073692774399\n")),
            File("shmmni", 0o444, |_| text("4096\n")),
            File("sem", 0o444, |_| text("32000\t1024000000\t500\t32000\n")),
            File("msgmax", 0o444, |_| text("8192\n")),
            File("msgmnb", 0o444, |_| text("16384\n")),
            File("msgmni", 0o444, |_| text("32000\n")),
            File("tainted", 0o444, |_| text("0\n")),
            File("core_pattern", 0o444, |_| text("core\n")),
            File("perf_event_paranoid", 0o444, |_| text("4\n")),
            File("yama_ptrace_scope", 0o444, |_| text("1\n")),
            Dir(
                "random",
                &[
                    File("uuid", 0o444, uuid),
                    File("boot_id", 0o444, |_| text("00000000-0000-4000-8000-000000000000\n")),
                    File("entropy_avail", 0o444, |_| text("256\n")),
                    File("poolsize", 0o444, |_| text("256\n")),
                ],
            ),
        ],
    ),
    Dir(
        "vm",
        &[
            File("overcommit_memory", 0o444, |_| text("0\n")),
            File("overcommit_ratio", 0o444, |_| text("50\n")),
            File("max_map_count", 0o444, |_| text("65530\n")),
            File("mmap_min_addr", 0o444, |_| text("65536\n")),
            File("swappiness", 0o444, |_| text("60\n")),
            File("nr_hugepages", 0o444, |_| text("0\n")),
        ],
    ),
    Dir(
        "fs",
        &[
            File("file-max", 0o444, |_| text("9223372036854775807\n")),
            File("nr_open", 0o444, |_| text(format!("{}\n", crate::io::FdTable::MAX))),
            File("pipe-max-size", 0o444, |_| text(format!("{}\n", crate::io::pipe::MAX_CAPACITY))),
            File("file-nr", 0o444, |_| text("1024\t0\t9223372036854775807\n")),
            Dir(
                "inotify",
                &[
                    File("max_user_instances", 0o444, |_| text("128\n")),
                    File("max_user_watches", 0o444, |_| text("65536\n")),
                    File("max_queued_events", 0o444, |_| text("16384\n")),
                ],
            ),
            Dir(
                "mqueue",
                &[
                    File("msg_max", 0o444, |_| text("10\n")),
                    File("msgsize_max", 0o444, |_| text("8192\n")),
                    File("msg_default", 0o444, |_| text("10\n")),
                    File("msgsize_default", 0o444, |_| text("8192\n")),
                    File("queues_max", 0o444, |_| text("256\n")),
                ],
            ),
        ],
    ),
    Dir(
        "net",
        &[
            Dir(
                "core",
                &[
                    File("somaxconn", 0o444, |_| text("4096\n")),
                    File("rmem_max", 0o444, |_| text("212992\n")),
                    File("wmem_max", 0o444, |_| text("212992\n")),
                ],
            ),
            Dir("ipv4", &[File("ip_local_port_range", 0o444, |_| text("32768\t60999\n"))]),
        ],
    ),
];

fn cpuinfo(c: &Ctx) -> Result<Vec<u8>> {
    let cpus = c.kernel.config.cpus.max(1);
    let leaf = |l| evm_cpu::model::cpuid(c.model, cpus, l, 0);
    let bytes = |regs: &[u32]| regs.iter().flat_map(|r| r.to_le_bytes()).collect::<Vec<u8>>();
    let v = leaf(0);
    let vendor = String::from_utf8_lossy(&bytes(&[v[1], v[3], v[2]])).into_owned();
    let mut brand = Vec::new();
    for l in 0x8000_0002..=0x8000_0004u32 {
        brand.extend(bytes(&leaf(l)));
    }
    let brand = String::from_utf8_lossy(&brand).trim_matches(['\0', ' ']).to_string();
    let sig = leaf(1)[0];
    let (mut family, mut model) = (sig >> 8 & 15, sig >> 4 & 15);
    if family == 6 || family == 15 {
        model |= sig >> 12 & 0xf0;
    }
    if family == 15 {
        family += sig >> 20 & 0xff;
    }
    let flags = evm_cpu::model::features(c.model).join(" ");
    let address = leaf(0x8000_0008)[0];
    let (phys, virt) = (address & 0xff, address >> 8 & 0xff);
    let mut s = String::new();
    for n in 0..cpus {
        let _ = write!(
            s,
            "processor\t: {n}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {brand}\nstepping\t: {}\n\
             cpu MHz\t\t: 1000.000\ncache size\t: 8192 KB\nphysical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {n}\ncpu cores\t: {cpus}\n\
             apicid\t\t: {n}\ninitial apicid\t: {n}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t: {flags}\n\
             bugs\t\t:\nbogomips\t: 2000.00\nclflush size\t: 64\ncache_alignment\t: 64\n\
             address sizes\t: {phys} bits physical, {virt} bits virtual\npower management:\n\n",
            sig & 15,
            v[0],
        );
    }
    text(s)
}

fn meminfo(c: &Ctx) -> Result<Vec<u8>> {
    let total = c.kernel.shown_memory() / 1024;
    let free = total.saturating_sub(c.kernel.limits.memory.used() / 1024);
    let rows = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", total - free),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", total - free),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("CommitLimit", total),
        ("Committed_AS", total - free),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
    ];
    let mut s = String::new();
    for (n, v) in rows {
        let _ = writeln!(s, "{:<15} {v:>8} kB", format!("{n}:"));
    }
    s.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    text(s)
}

/// Clock ticks of /proc: 100 a second.
pub(super) fn ticks(d: std::time::Duration) -> u64 {
    (d.as_millis() / 10) as u64
}

fn used(c: &Ctx) -> std::time::Duration {
    c.kernel.processes().iter().map(|p| p.usage().0.utime + p.usage().0.stime).sum()
}

fn stat(c: &Ctx) -> Result<Vec<u8>> {
    let cpus = u64::from(c.kernel.config.cpus.max(1));
    let up = c.kernel.clock.monotonic();
    let user = ticks(used(c));
    let idle = (ticks(up) * cpus).saturating_sub(user);
    let mut s = format!("cpu  {user} 0 0 {idle} 0 0 0 0 0 0\n");
    for n in 0..cpus {
        let _ = writeln!(s, "cpu{n} {} 0 0 {} 0 0 0 0 0 0", user / cpus, idle / cpus);
    }
    let boot = c.kernel.clock.realtime().saturating_sub(up).as_secs();
    let running = c.kernel.processes().len();
    let _ = write!(s, "intr 0\nctxt 0\nbtime {boot}\nprocesses {running}\nprocs_running 1\nprocs_blocked 0\n");
    text(s)
}

fn uptime(c: &Ctx) -> Result<Vec<u8>> {
    let up = c.kernel.clock.monotonic();
    let idle = (up * c.kernel.config.cpus.max(1)).saturating_sub(used(c));
    text(format!("{:.2} {:.2}\n", up.as_secs_f64(), idle.as_secs_f64()))
}

fn loadavg(c: &Ctx) -> Result<Vec<u8>> {
    let all = c.kernel.processes();
    let threads: usize = all.iter().map(|p| p.threads().len()).sum();
    let last = all.iter().map(|p| p.pid).max().unwrap_or(1);
    text(format!("0.00 0.00 0.00 1/{threads} {last}\n"))
}

fn uuid(c: &Ctx) -> Result<Vec<u8>> {
    let mut b = [0u8; 16];
    c.kernel.random(&mut b);
    b[6] = b[6] & 15 | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let mut s = String::new();
    for (i, x) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            s.push('-');
        }
        let _ = write!(s, "{x:02x}");
    }
    s.push('\n');
    text(s)
}

fn locks(c: &Ctx) -> Result<Vec<u8>> {
    use crate::fs::locks::Owner;
    let mut s = String::new();
    let all = c.process()?.fs().ns().locks.all();
    for (i, ((dev, ino), r, flock)) in all.iter().enumerate() {
        let kind = match (flock, r.owner) {
            (true, _) => "FLOCK",
            (false, Owner::Process(_)) => "POSIX",
            (false, Owner::Description(_)) => "OFDLCK",
        };
        let pid = if let Owner::Process(p) = r.owner { p } else { -1 };
        let mode = if r.write { "WRITE" } else { "READ" };
        let end = if r.end == u64::MAX { "EOF".into() } else { r.end.to_string() };
        let _ = writeln!(s, "{}: {kind}  ADVISORY  {mode} {pid} 00:{dev:02x}:{ino} {} {end}", i + 1, r.start);
    }
    text(s)
}
