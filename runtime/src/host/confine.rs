//! The second wall: before anything of the guest runs, the host process gives up what it will not need.
//!
//! * Landlock: of the host's files only the mounts of the job can be opened from now on, and written only where a mount is
//!   writable; no TCP, no abstract sockets and no signals out of the process.
//! * seccomp: system calls that EVM never makes end the process: new programs and processes, sockets, other processes'
//!   memory, mounts, name spaces, kernel modules, and whatever else has been a way out.
//!
//! Both count for the calling thread and for those it starts, so this runs before the first of them. A host without
//! one of them runs the job all the same; `--stats` says what is active.
//!
//! # Safety
//! System calls with pointers to locals that outlive the call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Version of the host's Landlock; 0: none, or too old to be used.
    pub landlock: u32,
    /// The filter of system calls.
    pub seccomp: bool,
}

impl Confinement {
    /// For people.
    pub fn text(&self) -> String {
        match (self.landlock, self.seccomp) {
            (0, false) => "none".into(),
            (0, true) => "seccomp".into(),
            (v, s) => format!("Landlock {v}{}", if s { ", seccomp" } else { "" }),
        }
    }
}

/// Confine this thread and all that it starts to these host paths; the flag says read-only.
pub(crate) fn confine(mounts: &[(PathBuf, bool)]) -> io::Result<Confinement> {
    // Opened now, as it is used all along.
    evm_memory::pagemap()?;
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Ok(Confinement::default());
    }
    Ok(Confinement { landlock: landlock(mounts)?, seccomp: seccomp()? })
}

// linux/landlock.h
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Everything of version 1.
const ALL_1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
/// What a rule for a file, not a folder, may hold.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

#[repr(C)]
struct RulesetAttr {
    fs: u64,
    net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

fn result(r: libc::c_long) -> io::Result<libc::c_long> {
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

fn landlock(mounts: &[(PathBuf, bool)]) -> io::Result<u32> {
    let none: *const RulesetAttr = std::ptr::null();
    // SAFETY: asks for the version only.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1u32) };
    // Version 1 forbids every rename from one folder to another.
    if version < 2 {
        return Ok(0);
    }
    let mut fs = ALL_1 | REFER;
    fs |= if version >= 3 { TRUNCATE } else { 0 };
    fs |= if version >= 5 { IOCTL_DEV } else { 0 };
    let attr = RulesetAttr { fs, net: if version >= 4 { 3 } else { 0 }, scoped: if version >= 6 { 3 } else { 0 } };
    // A host that does not know the later fields takes the structure without them.
    let size = match version {
        2..=3 => 8usize,
        4..=5 => 16,
        _ => 24,
    };
    // SAFETY: reads `size` bytes of the local; gives a new descriptor.
    let set = unsafe {
        let fd = result(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0u32))?;
        OwnedFd::from_raw_fd(fd as i32)
    };
    for (path, read_only) in mounts {
        allow(&set, path, if *read_only { EXECUTE | READ_FILE | READ_DIR } else { fs })?;
    }
    // What the runtime itself opens later on, where the host has it.
    allow(&set, Path::new("/proc/self/status"), READ_FILE)?;
    allow(&set, Path::new("/dev/zero"), READ_FILE | WRITE_FILE)?;
    // SAFETY: a descriptor and no pointers.
    result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, set.as_raw_fd(), 0u32) })?;
    Ok(version as u32)
}

fn allow(set: &OwnedFd, path: &Path, access: u64) -> io::Result<()> {
    let f = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
    let access = if f.metadata()?.is_dir() { access } else { access & OF_FILES };
    let rule = PathBeneath { access, parent: f.as_raw_fd() };
    // SAFETY: reads the local; 1 is LANDLOCK_RULE_PATH_BENEATH.
    result(unsafe { libc::syscall(libc::SYS_landlock_add_rule, set.as_raw_fd(), 1u32, &raw const rule, 0u32) })?;
    Ok(())
}

/// System calls that EVM never makes.
const NEVER: &[libc::c_long] = &[
    // New programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    // The network.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Who and where we are.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknod,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_quotactl,
    libc::SYS_modify_ldt,
    // Parts of the host's kernel that have been ways out.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    libc::SYS_io_setup,
    libc::SYS_vmsplice,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
];

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The filter: another architecture's calls and those of [`NEVER`] kill, clone3 does not exist (the C library falls back
/// to clone), clone makes threads only. Numbers are found by halves: the host runs the filter for each number when it is set, so one that
/// compares with all of [`NEVER`] takes as long as the rest of the start's system calls.
fn filter() -> Vec<libc::sock_filter> {
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    // Offsets in seccomp_data.
    const NR: u32 = 0;
    const ARCH: u32 = 4;
    const ARG0: u32 = 16;
    let load = |at| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let end = |what| instruction(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    let equal = |k, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let any_bit = |k, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, k, jt, jf);
    let kill = libc::SECCOMP_RET_KILL_PROCESS;
    let mut f = vec![load(ARCH), equal(AUDIT_ARCH_X86_64, 1, 0), end(kill), load(NR)];
    // The x32 numbers.
    f.extend([any_bit(0x4000_0000, 0, 1), end(kill)]);
    f.extend([equal(libc::SYS_clone3 as u32, 0, 1), end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    let allow = libc::SECCOMP_RET_ALLOW;
    f.push(equal(libc::SYS_clone as u32, 0, 4));
    f.extend([load(ARG0), any_bit(libc::CLONE_THREAD as u32, 1, 0), end(kill), end(allow)]);
    let mut never: Vec<u32> = NEVER.iter().map(|nr| *nr as u32).collect();
    never.sort_unstable();
    f.extend(search(&never));
    f
}

/// Kill if the number is one of these, which ascend, or else allow.
fn search(never: &[u32]) -> Vec<libc::sock_filter> {
    let end = |what| instruction(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    let jump = |how, k, jt, jf| instruction(libc::BPF_JMP | how | libc::BPF_K, k, jt, jf);
    if never.len() <= 2 {
        let kill = |nr: &u32| [jump(libc::BPF_JEQ, *nr, 0, 1), end(libc::SECCOMP_RET_KILL_PROCESS)];
        return never.iter().flat_map(kill).chain([end(libc::SECCOMP_RET_ALLOW)]).collect();
    }
    let (low, high) = never.split_at(never.len() / 2);
    let below = search(low);
    // There are too few of them for a longer jump; a test says so.
    std::iter::once(jump(libc::BPF_JGE, high[0], below.len() as u8, 0)).chain(below).chain(search(high)).collect()
}

fn seccomp() -> io::Result<bool> {
    let mut f = filter();
    let program = libc::sock_fprog { len: f.len() as u16, filter: f.as_mut_ptr() };
    const SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: reads the program, which lives until after the call.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0u32, &raw const program) };
    match result(r) {
        Ok(_) => Ok(true),
        // A host kernel without filters.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, as it is for good.
    #[test]
    fn files_of_the_job_only() {
        let dir = std::env::temp_dir().join(format!("evm-confine-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("given")).unwrap();
        std::fs::write(dir.join("given/file"), "a").unwrap();
        std::fs::write(dir.join("secret"), "b").unwrap();
        let at = dir.clone();
        let c = std::thread::spawn(move || {
            let c = confine(&[(at.join("given"), true)]).unwrap();
            assert_eq!(std::fs::read(at.join("given/file")).unwrap(), b"a");
            if c.landlock != 0 {
                for denied in [std::fs::read(at.join("secret")), std::fs::read("/etc/passwd")] {
                    assert_eq!(denied.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
                }
                let write = std::fs::write(at.join("given/new"), "c");
                assert_eq!(write.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            }
            assert!(std::fs::read("/proc/self/status").is_ok());
            // Threads still start.
            std::thread::spawn(|| 7).join().unwrap();
            c
        });
        let c = c.join().unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        println!("{}", c.text());
    }

    #[test]
    fn filter_is_short_enough_to_jump_over() {
        let f = filter();
        // A jump reaches 255 instructions, and leads over half of them at most.
        assert!(f.len() < 2 * 255 && NEVER.len() * 2 < f.len());
        assert!(!NEVER.contains(&libc::SYS_clone) && !NEVER.contains(&libc::SYS_openat));
    }

    /// What the filter says of a system call's number, architecture and first argument.
    fn verdict(nr: u32, arch: u32, arg: u32) -> u32 {
        let (f, mut at, mut a) = (filter(), 0, 0);
        loop {
            let i = f[at];
            at += 1;
            let jump = |yes| usize::from(if yes { i.jt } else { i.jf });
            at += match u32::from(i.code) {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    a = match i.k {
                        0 => nr,
                        4 => arch,
                        16 => arg,
                        other => panic!("it looks at {other}"),
                    };
                    0
                }
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => jump(a == i.k),
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => jump(a >= i.k),
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => jump(a & i.k != 0),
                c if c == libc::BPF_RET | libc::BPF_K => return i.k,
                other => panic!("no instruction of it: {other}"),
            };
        }
    }

    #[test]
    fn filter_allows_what_is_not_on_the_list() {
        const ARCH: u32 = 0xc000_003e;
        let (allow, kill) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS);
        for nr in (0..700).filter(|nr| ![libc::SYS_clone, libc::SYS_clone3].contains(&i64::from(*nr))) {
            let want = if NEVER.contains(&nr.into()) { kill } else { allow };
            assert_eq!((nr, verdict(nr, ARCH, u32::MAX)), (nr, want));
            assert_eq!(verdict(nr, 0x4000_0003, u32::MAX), kill);
            assert_eq!(verdict(nr | 0x4000_0000, ARCH, u32::MAX), kill);
        }
        let clone = libc::SYS_clone as u32;
        assert_eq!((verdict(clone, ARCH, libc::CLONE_THREAD as u32), verdict(clone, ARCH, 0)), (allow, kill));
        assert_eq!(verdict(libc::SYS_clone3 as u32, ARCH, 0), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    }
}
