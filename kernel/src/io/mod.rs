//! Input and output: the descriptor table and every kind of file that is not in a file system.
//!
//! Each kind is one module and implements [`crate::file::File`]. No lock of a table or of a file is
//! held while a thread blocks, and queues are woken after the file's lock is released.

pub mod epoll;
pub mod eventfd;
mod fdtable;
#[cfg_attr(target_family = "wasm", path = "wasi.rs")]
pub mod host;
pub mod inotify;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod pty;
pub mod signalfd;
pub mod socket;
pub mod stdio;
#[cfg_attr(target_family = "wasm", path = "stream_wasi.rs")]
pub mod stream;
pub mod termios;
pub mod timerfd;
pub mod tty;

pub use fdtable::{FdEntry, FdTable};

use crate::file::Stat;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a job has of things that are not files of a process.
#[derive(Default)]
pub struct JobIo {
    /// Names of sockets.
    pub sockets: Arc<socket::Registry>,
    /// Shared memory, semaphores and message queues.
    pub ipc: Arc<crate::ipc::JobIpc>,
    /// Pseudo terminals.
    pub ptys: pty::Ptys,
}

/// Lock without regard to poisoning: state stays consistent, since nothing here panics while it changes.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fresh inode number for a file without a file system.
pub(crate) fn new_ino() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// stat(2) of a file without a file system (pipes, sockets, anonymous inodes).
pub(crate) fn anon_stat(mode: u32, ino: u64) -> Stat {
    Stat { dev: 14, ino, mode, nlink: 1, blksize: 4096, ..Stat::default() }
}
