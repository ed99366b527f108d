//! The i386 table: which calls are those of 64-bit programs, and which have functions of their own.

use super::{Row, fs, io, ipc, message, native, process, signal, time};
use crate::errno::{Errno, Result};
use crate::sys::Syscall;
use crate::sys::names;
use crate::task::Task;
use std::sync::OnceLock;

macro_rules! table {
    (same: $($nr:literal $name:ident;)* own: $($own_nr:literal $own:ident $args:literal $like:ident $f:expr;)*) => {
        /// Calls that have the same arguments and structures.
        static SAME: &[(u32, &str)] = &[ $( ($nr, stringify!($name)) ),* ];
        /// Calls with functions of their own: i386 number, name, arguments, the 64-bit call they count as, function.
        #[allow(clippy::type_complexity)]
        static OWN: &[(u32, &str, &str, &str, fn(&mut Task, [u64; 6]) -> Result<u64>)] =
            &[ $( ($own_nr, stringify!($own), $args, stringify!($like), $f) ),* ];
    };
}

#[rustfmt::skip]
table! {
    same:
        1 exit; 2 fork; 3 read; 4 write; 5 open; 6 close; 8 creat; 9 link; 10 unlink; 11 execve; 12 chdir; 14 mknod;
        15 chmod; 20 getpid; 21 mount; 26 ptrace; 27 alarm; 29 pause; 33 access; 36 sync; 37 kill; 38 rename; 39 mkdir;
        40 rmdir; 41 dup; 42 pipe; 45 brk; 51 acct; 52 umount2; 57 setpgid; 60 umask; 61 chroot; 62 ustat; 63 dup2;
        64 getppid; 65 getpgrp; 66 setsid; 74 sethostname; 79 settimeofday; 83 symlink; 85 readlink; 86 uselib;
        87 swapon; 88 reboot; 91 munmap; 94 fchmod; 96 getpriority; 97 setpriority; 101 ioperm; 103 syslog; 110 iopl;
        111 vhangup; 115 swapoff; 118 fsync; 121 setdomainname; 122 uname; 123 modify_ldt; 125 mprotect;
        127 create_module; 128 init_module; 129 delete_module; 130 get_kernel_syms; 131 quotactl; 132 getpgid;
        133 fchdir; 135 sysfs; 136 personality; 143 flock; 144 msync; 147 getsid; 148 fdatasync; 149 _sysctl;
        150 mlock; 151 munlock; 152 mlockall; 153 munlockall; 154 sched_setparam; 155 sched_getparam;
        156 sched_setscheduler; 157 sched_getscheduler; 158 sched_yield; 159 sched_get_priority_max;
        160 sched_get_priority_min; 163 mremap; 167 query_module; 168 poll; 172 prctl; 175 rt_sigprocmask;
        176 rt_sigpending; 179 rt_sigsuspend; 183 getcwd; 184 capget; 185 capset; 190 vfork; 198 lchown; 199 getuid;
        200 getgid; 201 geteuid; 202 getegid; 203 setreuid; 204 setregid; 205 getgroups; 206 setgroups; 207 fchown;
        208 setresuid; 209 getresuid; 210 setresgid; 211 getresgid; 212 chown; 213 setuid; 214 setgid; 215 setfsuid;
        216 setfsgid; 217 pivot_root; 218 mincore; 219 madvise; 224 gettid; 226 setxattr;
        227 lsetxattr; 228 fsetxattr; 229 getxattr; 230 lgetxattr; 231 fgetxattr; 232 listxattr; 233 llistxattr;
        234 flistxattr; 235 removexattr; 236 lremovexattr; 237 fremovexattr; 238 tkill; 239 sendfile;
        241 sched_setaffinity; 252 exit_group; 253 lookup_dcookie; 254 epoll_create; 255 epoll_ctl; 256 epoll_wait;
        257 remap_file_pages; 258 set_tid_address; 262 timer_getoverrun; 263 timer_delete; 264 clock_settime;
        270 tgkill; 274 mbind; 275 get_mempolicy; 276 set_mempolicy; 278 mq_unlink; 283 kexec_load; 286 add_key;
        287 request_key; 288 keyctl; 289 ioprio_set; 290 ioprio_get; 291 inotify_init; 292 inotify_add_watch;
        293 inotify_rm_watch; 294 migrate_pages; 295 openat; 296 mkdirat; 297 mknodat; 298 fchownat; 301 unlinkat;
        302 renameat; 303 linkat; 304 symlinkat; 305 readlinkat; 306 fchmodat; 307 faccessat; 310 unshare;
        311 set_robust_list; 312 get_robust_list; 313 splice; 315 tee; 317 move_pages; 318 getcpu; 319 epoll_pwait;
        321 signalfd; 322 timerfd_create; 323 eventfd; 327 signalfd4; 328 eventfd2; 329 epoll_create1; 330 dup3;
        331 pipe2; 332 inotify_init1; 336 perf_event_open; 338 fanotify_init; 340 prlimit64; 341 name_to_handle_at;
        342 open_by_handle_at; 344 syncfs; 346 setns; 349 kcmp; 350 finit_module; 351 sched_setattr; 352 sched_getattr;
        353 renameat2; 354 seccomp; 355 getrandom; 356 memfd_create; 357 bpf; 358 execveat; 359 socket; 360 socketpair;
        361 bind; 362 connect; 363 listen; 364 accept4; 367 getsockname; 368 getpeername; 369 sendto; 371 recvfrom;
        373 shutdown; 374 userfaultfd; 375 membarrier; 376 mlock2; 377 copy_file_range; 380 pkey_mprotect;
        381 pkey_alloc; 382 pkey_free; 386 rseq; 393 semget; 395 shmget; 397 shmat; 398 shmdt; 399 msgget;
        403 clock_gettime; 404 clock_settime; 406 clock_getres; 405 clock_adjtime; 408 timer_gettime;
        410 timerfd_gettime; 423 sched_rr_get_interval; 425 io_uring_setup; 426 io_uring_enter; 427 io_uring_register;
        428 open_tree; 429 move_mount; 430 fsopen; 431 fsconfig; 432 fsmount; 433 fspick; 434 pidfd_open; 435 clone3;
        436 close_range; 437 openat2; 438 pidfd_getfd; 439 faccessat2; 440 process_madvise; 442 mount_setattr;
        443 quotactl_fd; 444 landlock_create_ruleset; 445 landlock_add_rule; 446 landlock_restrict_self;
        447 memfd_secret; 448 process_mrelease; 450 set_mempolicy_home_node; 451 cachestat; 452 fchmodat2;
    own:
        7 waitpid "dpx" wait4 process::waitpid;
        13 time "p" time time::time;
        16 lchown "sdd" lchown process::lchown16;
        19 lseek "fdd" lseek fs::lseek;
        22 umount "s" umount2 |t, a| native(t, libc::SYS_umount2, &[a[0], 0]);
        23 setuid "d" setuid process::setuid16;
        24 getuid "" getuid process::getuid16;
        25 stime "p" settimeofday |_, _| Err(Errno::EPERM);
        30 utime "sp" utime time::utime;
        34 nice "d" setpriority process::nice;
        43 times "p" times time::times;
        46 setgid "d" setgid process::setgid16;
        47 getgid "" getgid process::getgid16;
        48 signal "Sp" rt_sigaction signal::signal;
        49 geteuid "" geteuid process::geteuid16;
        50 getegid "" getegid process::getegid16;
        54 ioctl "fxx" ioctl fs::ioctl;
        55 fcntl "fdx" fcntl fs::fcntl;
        59 oldolduname "p" uname process::oldolduname;
        67 sigaction "Spp" rt_sigaction signal::sigaction;
        68 sgetmask "" rt_sigprocmask signal::sgetmask;
        69 ssetmask "x" rt_sigprocmask signal::ssetmask;
        70 setreuid "dd" setreuid process::setreuid16;
        71 setregid "dd" setregid process::setregid16;
        72 sigsuspend "xxx" rt_sigsuspend signal::sigsuspend;
        73 sigpending "p" rt_sigpending signal::sigpending;
        75 setrlimit "dp" setrlimit process::setrlimit;
        76 getrlimit "dp" getrlimit process::old_getrlimit;
        77 getrusage "dp" getrusage process::getrusage;
        78 gettimeofday "pp" gettimeofday time::gettimeofday;
        80 getgroups "dp" getgroups process::getgroups16;
        81 setgroups "dp" setgroups |_, _| Err(Errno::EPERM);
        82 select "p" select io::old_select;
        90 mmap "p" mmap fs::mmap;
        92 truncate "sd" truncate fs::truncate;
        93 ftruncate "fd" ftruncate fs::ftruncate;
        95 fchown "fdd" fchown process::fchown16;
        99 statfs "sp" statfs fs::statfs;
        100 fstatfs "fp" fstatfs fs::fstatfs;
        102 socketcall "dp" socket message::socketcall;
        104 setitimer "dpp" setitimer time::setitimer;
        105 getitimer "dp" getitimer time::getitimer;
        106 stat "sp" stat fs::stat;
        107 lstat "sp" lstat fs::lstat;
        108 fstat "fp" fstat fs::fstat;
        109 olduname "p" uname process::olduname;
        114 wait4 "dpxp" wait4 process::wait4;
        116 sysinfo "p" sysinfo process::sysinfo;
        117 ipc "uddxpd" semop ipc::ipc;
        119 sigreturn "" rt_sigreturn signal::sigreturn;
        120 clone "xpppp" clone process::clone;
        124 adjtimex "p" adjtimex time::adjtimex;
        126 sigprocmask "dpp" rt_sigprocmask signal::sigprocmask;
        138 setfsuid "d" setfsuid process::setfsuid16;
        139 setfsgid "d" setfsgid process::setfsgid16;
        140 _llseek "fxxpd" lseek fs::llseek;
        141 getdents "fpu" getdents fs::getdents;
        142 _newselect "dpppp" select io::select;
        145 readv "fpl" readv io::readv;
        146 writev "fpl" writev io::writev;
        161 sched_rr_get_interval "dp" sched_rr_get_interval time::sched_rr_get_interval;
        162 nanosleep "pp" nanosleep time::nanosleep;
        164 setresuid "ddd" setresuid process::setresuid16;
        165 getresuid "ppp" getresuid process::getresuid16;
        170 setresgid "ddd" setresgid process::setresgid16;
        171 getresgid "ppp" getresgid process::getresgid16;
        173 rt_sigreturn "" rt_sigreturn signal::rt_sigreturn;
        174 rt_sigaction "Sppu" rt_sigaction signal::rt_sigaction;
        177 rt_sigtimedwait "pppu" rt_sigtimedwait signal::rt_sigtimedwait;
        178 rt_sigqueueinfo "dSp" rt_sigqueueinfo signal::rt_sigqueueinfo;
        180 pread64 "fpuxx" pread64 io::pread64;
        181 pwrite64 "fbuxx" pwrite64 io::pwrite64;
        182 chown "sdd" chown process::chown16;
        186 sigaltstack "pp" sigaltstack signal::sigaltstack;
        187 sendfile "ffpu" sendfile io::sendfile;
        191 ugetrlimit "dp" getrlimit process::ugetrlimit;
        192 mmap2 "puxxfx" mmap fs::mmap2;
        193 truncate64 "sxx" truncate fs::truncate64;
        194 ftruncate64 "fxx" ftruncate fs::ftruncate64;
        195 stat64 "sp" stat fs::stat64;
        196 lstat64 "sp" lstat fs::lstat64;
        197 fstat64 "fp" fstat fs::fstat64;
        220 getdents64 "fpu" getdents64 fs::getdents64;
        221 fcntl64 "fdx" fcntl fs::fcntl64;
        225 readahead "fxxu" readahead fs::readahead;
        240 futex "pxxpxx" futex time::futex;
        242 sched_getaffinity "dup" sched_getaffinity process::sched_getaffinity;
        243 set_thread_area "p" set_thread_area process::set_thread_area;
        244 get_thread_area "p" get_thread_area process::get_thread_area;
        250 fadvise64 "fxxud" fadvise64 fs::fadvise64;
        259 timer_create "dpp" timer_create time::timer_create;
        260 timer_settime "dxpp" timer_settime time::timer_settime;
        261 timer_gettime "dp" timer_gettime time::timer_gettime;
        265 clock_gettime "dp" clock_gettime time::clock_gettime;
        266 clock_getres "dp" clock_getres time::clock_getres;
        267 clock_nanosleep "dxpp" clock_nanosleep time::clock_nanosleep;
        268 statfs64 "sup" statfs fs::statfs64;
        269 fstatfs64 "fup" fstatfs fs::fstatfs64;
        271 utimes "sp" utimes time::utimes;
        272 fadvise64_64 "fxxxxd" fadvise64 fs::fadvise64_64;
        277 mq_open "sxop" mq_open ipc::mq_open;
        279 mq_timedsend "fbuup" mq_timedsend ipc::mq_timedsend;
        280 mq_timedreceive "fpupp" mq_timedreceive ipc::mq_timedreceive;
        281 mq_notify "fp" mq_notify ipc::mq_notify;
        282 mq_getsetattr "fpp" mq_getsetattr ipc::mq_getsetattr;
        284 waitid "ddpxp" waitid process::waitid;
        299 futimesat "fsp" futimesat time::futimesat;
        300 fstatat64 "fspx" newfstatat fs::fstatat64;
        308 pselect6 "dppppp" pselect6 io::pselect6;
        309 ppoll "puppu" ppoll io::ppoll;
        314 sync_file_range "fxxxxx" sync_file_range fs::sync_file_range;
        316 vmsplice "fpux" vmsplice io::vmsplice;
        320 utimensat "fspx" utimensat time::utimensat;
        324 fallocate "fxxxxx" fallocate fs::fallocate;
        325 timerfd_settime "fxpp" timerfd_settime time::timerfd_settime;
        326 timerfd_gettime "fp" timerfd_gettime time::timerfd_gettime;
        333 preadv "fpuxx" preadv io::preadv;
        334 pwritev "fpuxx" pwritev io::pwritev;
        335 rt_tgsigqueueinfo "ddSp" rt_tgsigqueueinfo signal::rt_tgsigqueueinfo;
        337 recvmmsg "fpuxp" recvmmsg message::recvmmsg;
        343 clock_adjtime "dp" clock_adjtime time::clock_adjtime;
        345 sendmmsg "fpux" sendmmsg message::sendmmsg;
        347 process_vm_readv "dpupux" process_vm_readv io::process_vm_readv;
        348 process_vm_writev "dpupux" process_vm_writev io::process_vm_writev;
        365 getsockopt "fddpp" getsockopt message::getsockopt;
        366 setsockopt "fddpu" setsockopt message::setsockopt;
        370 sendmsg "fpx" sendmsg message::sendmsg;
        372 recvmsg "fpx" recvmsg message::recvmsg;
        378 preadv2 "fpuxxx" preadv2 io::preadv2;
        379 pwritev2 "fpuxxx" pwritev2 io::pwritev2;
        383 statx "fsxxp" statx fs::statx;
        384 arch_prctl "xp" arch_prctl process::arch_prctl;
        394 semctl "ddxx" semctl ipc::semctl;
        396 shmctl "dxp" shmctl ipc::shmctl;
        400 msgsnd "dpux" msgsnd ipc::msgsnd;
        401 msgrcv "dpudx" msgrcv ipc::msgrcv;
        402 msgctl "dxp" msgctl ipc::msgctl;
        407 clock_nanosleep_time64 "dxpp" clock_nanosleep time::clock_nanosleep64;
        409 timer_settime64 "dxpp" timer_settime time::timer_settime64;
        411 timerfd_settime64 "fxpp" timerfd_settime time::timerfd_settime64;
        412 utimensat_time64 "fspx" utimensat time::utimensat64;
        413 pselect6_time64 "dppppp" pselect6 io::pselect6_time64;
        414 ppoll_time64 "puppu" ppoll io::ppoll64;
        417 recvmmsg_time64 "fpuxp" recvmmsg message::recvmmsg64;
        418 mq_timedsend_time64 "fbuup" mq_timedsend ipc::mq_timedsend64;
        419 mq_timedreceive_time64 "fpupp" mq_timedreceive ipc::mq_timedreceive64;
        420 semtimedop_time64 "dpup" semtimedop ipc::semtimedop64;
        421 rt_sigtimedwait_time64 "pppu" rt_sigtimedwait signal::rt_sigtimedwait64;
        422 futex_time64 "pxxpxx" futex time::futex64;
        424 pidfd_send_signal "fdpx" pidfd_send_signal signal::pidfd_send_signal;
        441 epoll_pwait2 "fpdppu" epoll_pwait2 io::epoll_pwait2;
}

/// All rows, for the index.
pub(super) fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    let number = |name: &str| names::number(name).unwrap_or(u32::MAX);
    let same = SAME.iter().map(|(nr, name)| Row { nr: *nr, native: number(name), own: None });
    let own = OWN.iter().map(|(nr, name, args, like, f)| {
        let native = number(like);
        Row { nr: *nr, native, own: Some(Syscall { nr: native, name, args, f: *f }) }
    });
    ROWS.get_or_init(|| same.chain(own).collect())
}

/// Make a call by its i386 number.
pub(super) fn call(t: &mut Task, nr: u32, args: [u32; 6]) -> Result<u64> {
    let c = super::lookup(nr).ok_or(Errno::ENOSYS)?;
    let s = c.entry.ok_or(Errno::ENOSYS)?;
    (s.f)(t, c.arguments(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_named_right() {
        let mut seen = std::collections::HashMap::new();
        for r in rows() {
            assert_ne!(r.native, u32::MAX, "{}", r.nr);
            assert_eq!(seen.insert(r.nr, ()), None, "{}", r.nr);
            assert!((r.nr as usize) < super::super::MAX);
        }
        assert!(seen.len() > 380, "{}", seen.len());
    }
}
