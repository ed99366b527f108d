//! System calls on descriptors.

mod control;
mod inotify;
mod locks;
mod message;
mod names;
mod notify;
mod readwrite;
mod socket;
mod sockopt;
mod splice;
#[cfg(test)]
mod tests;
mod waiting;

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::task::Task;

macro_rules! table {
    ($($nr:literal $name:ident $args:literal $f:expr;)*) => {
        &[ $( Syscall { nr: $nr, name: stringify!($name), args: $args, f: $f } ),* ]
    };
}

/// The system calls of this module.
pub static TABLE: &[Syscall] = table! {
    0 read "fbl" readwrite::read;
    1 write "fbl" readwrite::write;
    17 pread64 "fbll" readwrite::pread64;
    18 pwrite64 "fbll" readwrite::pwrite64;
    19 readv "fpl" readwrite::readv;
    20 writev "fpl" readwrite::writev;
    295 preadv "fpll" readwrite::preadv;
    296 pwritev "fpll" readwrite::pwritev;
    327 preadv2 "fpllXx" readwrite::preadv2;
    328 pwritev2 "fpllXx" readwrite::pwritev2;
    8 lseek "fld" readwrite::lseek;
    40 sendfile "ffpl" splice::sendfile;
    275 splice "fpfplx" splice::splice;
    276 tee "fflx" splice::tee;
    278 vmsplice "fplx" splice::vmsplice;
    3 close "f" control::close;
    436 close_range "ffx" control::close_range;
    32 dup "f" control::dup;
    33 dup2 "ff" control::dup2;
    292 dup3 "ffx" control::dup3;
    72 fcntl "fdX" control::fcntl;
    16 ioctl "fxX" control::ioctl;
    22 pipe "p" control::pipe;
    293 pipe2 "px" control::pipe2;
    284 eventfd "U" control::eventfd;
    290 eventfd2 "Ux" control::eventfd2;
    7 poll "pUd" waiting::poll;
    271 ppoll "pUppl" waiting::ppoll;
    23 select "dpppp" waiting::select;
    270 pselect6 "dppppp" waiting::pselect6;
    213 epoll_create "d" waiting::epoll_create;
    291 epoll_create1 "x" waiting::epoll_create1;
    233 epoll_ctl "fdfp" waiting::epoll_ctl;
    232 epoll_wait "fpdd" waiting::epoll_wait;
    281 epoll_pwait "fpddpl" waiting::epoll_pwait;
    41 socket "ddd" socket::socket;
    53 socketpair "dddp" socket::socketpair;
    49 bind "fpd" socket::bind;
    50 listen "fd" socket::listen;
    42 connect "fpd" socket::connect;
    43 accept "fpp" socket::accept;
    288 accept4 "fppx" socket::accept4;
    48 shutdown "fd" socket::shutdown;
    51 getsockname "fpp" socket::getsockname;
    52 getpeername "fpp" socket::getpeername;
    54 setsockopt "fddpd" sockopt::setsockopt;
    55 getsockopt "fddpp" sockopt::getsockopt;
    44 sendto "fblxpd" message::sendto;
    45 recvfrom "fplxpp" message::recvfrom;
    46 sendmsg "fpx" message::sendmsg;
    47 recvmsg "fpx" message::recvmsg;
    307 sendmmsg "fpUx" message::sendmmsg;
    299 recvmmsg "fpUxp" message::recvmmsg;
    253 inotify_init "" inotify::inotify_init;
    294 inotify_init1 "x" inotify::inotify_init1;
    254 inotify_add_watch "fsx" inotify::inotify_add_watch;
    255 inotify_rm_watch "fd" inotify::inotify_rm_watch;
    283 timerfd_create "dx" notify::timerfd_create;
    286 timerfd_settime "fxpp" notify::timerfd_settime;
    287 timerfd_gettime "fp" notify::timerfd_gettime;
    282 signalfd "fpl" notify::signalfd;
    289 signalfd4 "fplx" notify::signalfd4;
    434 pidfd_open "dx" notify::pidfd_open;
    424 pidfd_send_signal "fdpx" notify::pidfd_send_signal;
    438 pidfd_getfd "ffx" notify::pidfd_getfd;
    441 epoll_pwait2 "fpdppl" waiting::epoll_pwait2;
};

const O_ACCMODE: u32 = libc::O_ACCMODE as u32;

/// Open for reading.
fn readable(d: &Description) -> Result<()> {
    if d.flags() & O_ACCMODE == libc::O_WRONLY as u32 { Err(Errno::EBADF) } else { Ok(()) }
}

/// Open for writing.
fn writable(d: &Description) -> Result<()> {
    if d.flags() & O_ACCMODE == libc::O_RDONLY as u32 { Err(Errno::EBADF) } else { Ok(()) }
}

/// The result of a write: EPIPE also sends SIGPIPE.
fn signal_epipe<T>(task: &Task, r: Result<T>) -> Result<T> {
    if matches!(r, Err(Errno::EPIPE)) {
        task.raise(libc::SIGPIPE);
    }
    r
}
