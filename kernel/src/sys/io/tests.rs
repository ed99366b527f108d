//! The same system calls, with the same arguments, in a job and on the host's kernel: results and memory must agree.
//!
//! # Safety
//! The host's calls get pointers into a buffer that the test owns, and descriptors that it opened.
#![allow(unsafe_code)]

use crate::kernel::{Config, Kernel};
use crate::task::Task;
use crate::testing::{call, start};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Size of the shared scratch memory.
const SIZE: usize = 0x8000;
/// Guest address of it.
const BASE: u64 = 0x10_0000;

/// An argument.
#[derive(Clone, Copy)]
enum A {
    /// A number.
    N(i64),
    /// A descriptor, by its number in the guest.
    F(i64),
    /// A pointer to this offset of the scratch memory.
    P(usize),
}
use A::{F, N, P};

struct Both {
    task: Task,
    _kernel: Arc<Kernel>,
    native: Box<[u64]>,
    /// Guest descriptor → host descriptor.
    fds: BTreeMap<i64, i32>,
    /// Words of the memory that hold pointers or descriptors and so differ.
    differ: Vec<(usize, usize)>,
}

impl Both {
    fn new() -> Both {
        let (_host, kernel, task) = start(Config::default());
        task.mm().arena().map_anon(BASE, SIZE as u64, evm_memory::Prot::RW).unwrap();
        Both { task, _kernel: kernel, native: vec![0; SIZE / 8].into(), fds: BTreeMap::new(), differ: Vec::new() }
    }
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the same memory as bytes.
        unsafe { std::slice::from_raw_parts_mut(self.native.as_mut_ptr().cast(), SIZE) }
    }
    fn put(&mut self, at: usize, b: &[u8]) {
        self.bytes()[at..at + b.len()].copy_from_slice(b);
        self.task.mem().copy_in(BASE + at as u64, b).unwrap();
    }
    fn put_ptr(&mut self, at: usize, to: usize) {
        let p = self.native.as_ptr() as u64 + to as u64;
        self.bytes()[at..at + 8].copy_from_slice(&p.to_le_bytes());
        self.task.mem().write(BASE + at as u64, BASE + to as u64).unwrap();
        self.differ.push((at, 8));
    }
    fn put_fd(&mut self, at: usize, fd: i64) {
        let n = self.fds[&fd];
        self.bytes()[at..at + 4].copy_from_slice(&n.to_le_bytes());
        self.task.mem().write(BASE + at as u64, fd as i32).unwrap();
        self.differ.push((at, 4));
    }
    fn word(&mut self, at: usize) -> (i64, i32) {
        let g = self.task.mem().read::<i32>(BASE + at as u64).unwrap();
        let b = self.bytes();
        (g.into(), i32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]))
    }
    fn raw(&mut self, nr: i64, args: &[A]) -> (i64, i64) {
        let g: Vec<u64> = args
            .iter()
            .map(|a| match *a {
                N(n) => n as u64,
                F(f) => f as u64,
                P(p) => BASE + p as u64,
            })
            .collect();
        let base = self.native.as_ptr() as i64;
        let h: [i64; 6] = std::array::from_fn(|i| match args.get(i) {
            None => 0,
            Some(N(n)) => *n,
            Some(F(f)) => self.fds.get(f).map_or(-1, |n| i64::from(*n)),
            Some(P(p)) => base + *p as i64,
        });
        let guest = call(&mut self.task, nr, &g);
        // SAFETY: see the module's paragraph.
        let r = unsafe { libc::syscall(nr, h[0], h[1], h[2], h[3], h[4], h[5]) };
        let host = if r == -1 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { r };
        (guest, host)
    }
    /// Result and memory must be the same.
    #[track_caller]
    fn same(&mut self, nr: i64, args: &[A]) -> i64 {
        let (g, h) = self.raw(nr, args);
        assert_eq!(g, h, "{}: result, guest and host", crate::sys::names::name(nr as u32).unwrap());
        let mut guest = vec![0; SIZE];
        self.task.mem().copy_out(BASE, &mut guest).unwrap();
        let mut host = self.bytes().to_vec();
        for (at, n) in &self.differ {
            guest[*at..at + n].fill(0);
            host[*at..at + n].fill(0);
        }
        let first = (0..SIZE).find(|i| guest[*i] != host[*i]);
        if let Some(i) = first {
            let (g, h) = (&guest[i & !7..(i & !7) + 16], &host[i & !7..(i & !7) + 16]);
            panic!("{}: memory at {:#x}: {g:x?}, host {h:x?}", crate::sys::names::name(nr as u32).unwrap(), i & !7);
        }
        g
    }
    /// The result is a new descriptor.
    #[track_caller]
    fn open(&mut self, nr: i64, args: &[A]) -> i64 {
        let (g, h) = self.raw(nr, args);
        assert!(g >= 0 && h >= 0, "{g} {h}");
        self.fds.insert(g, h as i32);
        g
    }
    /// Two descriptors are written to memory.
    #[track_caller]
    fn pair(&mut self, nr: i64, args: &[A], at: usize) -> (i64, i64) {
        let (g, h) = self.raw(nr, args);
        assert_eq!((g, h), (0, 0));
        let (a, b) = (self.word(at), self.word(at + 4));
        self.fds.insert(a.0, a.1);
        self.fds.insert(b.0, b.1);
        self.put(at, &[0; 8]);
        (a.0, b.0)
    }
    fn close(&mut self, fd: i64) {
        self.same(libc::SYS_close, &[F(fd)]);
        self.fds.remove(&fd);
    }
    /// poll(2) of one descriptor for everything.
    #[track_caller]
    fn poll(&mut self, fd: i64) {
        self.put(0x7000, &[0; 8]);
        self.put_fd(0x7000, fd);
        self.put(0x7004, &0x21ffu16.to_le_bytes());
        self.same(libc::SYS_poll, &[P(0x7000), N(1), N(0)]);
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        for fd in self.fds.values() {
            // SAFETY: opened by the test.
            unsafe { libc::close(*fd) };
        }
    }
}

const NB: i64 = libc::O_NONBLOCK as i64;

#[test]
fn pipes() {
    let mut b = Both::new();
    let (r, w) = b.pair(libc::SYS_pipe2, &[P(0), N(NB)], 0);
    b.same(libc::SYS_read, &[F(r), P(0x100), N(10)]);
    b.same(libc::SYS_write, &[F(r), P(0x100), N(10)]);
    b.same(libc::SYS_read, &[F(w), P(0x100), N(10)]);
    b.same(libc::SYS_pread64, &[F(r), P(0x100), N(10), N(0)]);
    b.same(libc::SYS_lseek, &[F(r), N(0), N(0)]);
    b.same(libc::SYS_ftruncate, &[F(w), N(0)]);
    b.same(libc::SYS_fsync, &[F(w)]);
    b.put(0x200, b"hello, pipe");
    b.same(libc::SYS_write, &[F(w), P(0x200), N(11)]);
    b.same(libc::SYS_ioctl, &[F(r), N(0x541b), P(0x300)]);
    b.same(libc::SYS_ioctl, &[F(r), N(0x5413), P(0x300)]);
    b.poll(r);
    b.poll(w);
    b.same(libc::SYS_read, &[F(r), P(0x100), N(5)]);
    b.same(libc::SYS_fcntl, &[F(r), N(1032), N(0)]);
    b.same(libc::SYS_fcntl, &[F(r), N(1031), N(5000)]);
    for (cmd, arg) in
        [(1, 0), (2, 1), (1, 0), (3, 0), (4, 0), (3, 0), (4, NB | 0x400), (3, 0), (9, 0), (99, 0), (1033, 0), (1025, 0)]
    {
        b.same(libc::SYS_fcntl, &[F(w), N(cmd), N(arg)]);
    }
    b.same(libc::SYS_write, &[F(w), N(-1), N(4)]);
    b.same(libc::SYS_write, &[F(w), N(8), N(4)]);
    b.same(libc::SYS_write, &[F(w), P(0), N(-1)]);
    b.same(libc::SYS_read, &[F(r), P(0x100), N(0)]);
    b.put_ptr(0x400, 0x500);
    b.put(0x408, &3u64.to_le_bytes());
    b.put_ptr(0x410, 0x600);
    b.put(0x418, &100u64.to_le_bytes());
    b.same(libc::SYS_readv, &[F(r), P(0x400), N(2)]);
    b.same(libc::SYS_writev, &[F(w), P(0x400), N(2)]);
    b.same(libc::SYS_writev, &[F(w), P(0x400), N(1025)]);
    b.same(libc::SYS_writev, &[F(w), P(0x400), N(-1)]);
    b.same(libc::SYS_preadv, &[F(r), P(0x400), N(1), N(0)]);
    b.poll(r);
    b.close(w);
    b.poll(r);
    b.same(libc::SYS_read, &[F(r), P(0x100), N(200)]);
    b.same(libc::SYS_read, &[F(r), P(0x100), N(200)]);
    let (r, w) = b.pair(libc::SYS_pipe2, &[P(0), N(NB)], 0);
    b.close(r);
    b.poll(w);
    b.same(libc::SYS_pipe2, &[P(0), N(0x1000_0000)]);
    b.same(libc::SYS_pipe2, &[N(-1), N(0)]);
    b.same(libc::SYS_dup2, &[F(99), N(5)]);
    b.same(libc::SYS_dup3, &[F(w), F(w), N(0)]);
    b.same(libc::SYS_close_range, &[N(9), N(8), N(0)]);
}

#[test]
fn full_pipes() {
    let mut b = Both::new();
    let (r, w) = b.pair(libc::SYS_pipe2, &[P(0), N(NB)], 0);
    b.same(libc::SYS_fcntl, &[F(r), N(1031), N(4096 * 4)]);
    for n in [4096, 4096, 4096, 4096, 1, 4096] {
        b.same(libc::SYS_write, &[F(w), P(0), N(n)]);
        b.poll(w);
    }
    b.same(libc::SYS_fcntl, &[F(r), N(1031), N(4096)]);
    b.same(libc::SYS_read, &[F(r), P(0x1000), N(4096)]);
    b.poll(w);
    b.same(libc::SYS_write, &[F(w), P(0), N(0x7000)]);
    b.same(libc::SYS_read, &[F(r), P(0), N(0x7000)]);
    let (r2, w2) = b.pair(libc::SYS_pipe2, &[P(0), N(NB)], 0);
    b.put(0x100, b"splice and tee");
    b.same(libc::SYS_write, &[F(w), P(0x100), N(14)]);
    b.same(libc::SYS_tee, &[F(r), F(w2), N(6), N(0)]);
    b.same(libc::SYS_read, &[F(r2), P(0x200), N(100)]);
    b.same(libc::SYS_tee, &[F(r), F(w), N(6), N(0)]);
    b.same(libc::SYS_splice, &[F(r), N(0), F(w2), N(0), N(10), N(2)]);
    b.same(libc::SYS_read, &[F(r2), P(0x200), N(100)]);
    b.same(libc::SYS_read, &[F(r), P(0x200), N(100)]);
    b.same(libc::SYS_splice, &[F(r), N(0), F(w2), N(0), N(10), N(2)]);
    b.same(libc::SYS_splice, &[F(r), P(0x300), F(w2), N(0), N(10), N(2)]);
    b.same(libc::SYS_sendfile, &[F(w2), F(w), N(0), N(10)]);
}

#[test]
fn eventfds_and_select() {
    let mut b = Both::new();
    let e = b.open(libc::SYS_eventfd2, &[N(3), N(NB)]);
    b.same(libc::SYS_eventfd2, &[N(3), N(0x40)]);
    b.poll(e);
    b.same(libc::SYS_read, &[F(e), P(0x100), N(4)]);
    b.same(libc::SYS_read, &[F(e), P(0x100), N(8)]);
    b.same(libc::SYS_read, &[F(e), P(0x100), N(8)]);
    b.poll(e);
    b.put(0x100, &(u64::MAX - 1).to_le_bytes());
    b.same(libc::SYS_write, &[F(e), P(0x100), N(8)]);
    b.same(libc::SYS_write, &[F(e), P(0x100), N(8)]);
    b.poll(e);
    b.same(libc::SYS_lseek, &[F(e), N(0), N(0)]);
    b.same(libc::SYS_poll, &[N(0), N(0), N(0)]);
    b.same(libc::SYS_poll, &[P(0x100), N(0x7fff_ffff), N(0)]);
    // Bad time.
    b.put(0x200, &(-1i64).to_le_bytes());
    b.same(libc::SYS_select, &[N(0), N(0), N(0), N(0), P(0x200)]);
    b.same(libc::SYS_ppoll, &[P(0x100), N(0), P(0x200), N(0), N(8)]);
    b.put(0x200, &[0; 16]);
    b.same(libc::SYS_select, &[N(0), N(0), N(0), N(0), P(0x200)]);
    b.same(libc::SYS_select, &[N(-1), N(0), N(0), N(0), P(0x200)]);
    b.put(0x300, &[0xff; 8]);
    b.same(libc::SYS_select, &[N(1), N(0), N(0), N(0), P(0x200)]);
}

#[test]
fn epolls() {
    let mut b = Both::new();
    let ep = b.open(libc::SYS_epoll_create1, &[N(0)]);
    b.same(libc::SYS_epoll_create, &[N(0)]);
    let (r, w) = b.pair(libc::SYS_pipe2, &[P(0), N(NB)], 0);
    let event = |b: &mut Both, e: u32, d: u64| {
        b.put(0x100, &e.to_le_bytes());
        b.put(0x104, &d.to_le_bytes());
    };
    event(&mut b, 1, 77);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(2), F(r), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(3), F(r), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(9), F(r), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(1), F(ep), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(r), N(1), F(w), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(1), F(99), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(1), F(r), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(1), F(r), P(0x100)]);
    let look = |b: &mut Both| b.same(libc::SYS_epoll_wait, &[F(ep), P(0x200), N(8), N(0)]);
    look(&mut b);
    b.poll(ep);
    b.same(libc::SYS_write, &[F(w), P(0), N(5)]);
    b.poll(ep);
    look(&mut b);
    look(&mut b);
    for mode in [1 << 31, 1 << 30, 1 << 31 | 1 << 30, 0x2000, 1 << 31 | 4] {
        event(&mut b, 1 | mode, 78);
        b.same(libc::SYS_epoll_ctl, &[F(ep), N(3), F(r), P(0x100)]);
        look(&mut b);
        look(&mut b);
        b.same(libc::SYS_write, &[F(w), P(0), N(5)]);
        look(&mut b);
        b.same(libc::SYS_read, &[F(r), P(0x1000), N(100)]);
        look(&mut b);
        b.same(libc::SYS_write, &[F(w), P(0), N(5)]);
        look(&mut b);
    }
    event(&mut b, 4, 79);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(1), F(w), P(0x100)]);
    b.same(libc::SYS_epoll_ctl, &[F(ep), N(2), F(r), P(0x100)]);
    look(&mut b);
    b.same(libc::SYS_epoll_wait, &[F(ep), P(0x200), N(0), N(0)]);
    b.same(libc::SYS_epoll_wait, &[F(ep), N(8), N(1), N(0)]);
    b.same(libc::SYS_epoll_wait, &[F(r), P(0x200), N(1), N(0)]);
    b.close(r);
    look(&mut b);
    b.close(w);
    look(&mut b);
    b.same(libc::SYS_read, &[F(ep), P(0x200), N(8)]);
}

/// `struct msghdr` at 0x800 with one buffer and room for control data.
fn message(b: &mut Both, data: usize, len: u64, control: usize, control_len: u64) {
    b.put(0x800, &[0; 56]);
    b.put_ptr(0x810, 0x880);
    b.put(0x818, &1u64.to_le_bytes());
    b.put_ptr(0x880, data);
    b.put(0x888, &len.to_le_bytes());
    if control_len > 0 {
        b.put_ptr(0x820, control);
        b.put(0x828, &control_len.to_le_bytes());
    }
}

#[test]
fn unix_sockets() {
    for kind in [1, 2, 5] {
        let mut b = Both::new();
        let (x, y) = b.pair(libc::SYS_socketpair, &[N(1), N(kind | NB), N(0), P(0)], 0);
        b.put(0x100, b"some bytes to send");
        b.same(libc::SYS_recvfrom, &[F(y), P(0x200), N(9), N(0), N(0), N(0)]);
        b.same(libc::SYS_write, &[F(x), P(0x100), N(4)]);
        b.same(libc::SYS_sendto, &[F(x), P(0x104), N(6), N(0x4000), N(0), N(0)]);
        b.poll(x);
        b.poll(y);
        b.same(libc::SYS_ioctl, &[F(y), N(0x541b), P(0x300)]);
        b.same(libc::SYS_recvfrom, &[F(y), P(0x200), N(3), N(2), N(0), N(0)]);
        b.same(libc::SYS_recvfrom, &[F(y), P(0x200), N(3), N(0x20), N(0), N(0)]);
        b.same(libc::SYS_read, &[F(y), P(0x200), N(99)]);
        b.same(libc::SYS_sendto, &[F(y), P(0x104), N(0), N(0x4000), N(0), N(0)]);
        b.same(libc::SYS_recvfrom, &[F(x), P(0x200), N(3), N(0), N(0), N(0)]);
        // Names.
        b.put(0x300, &[0xaa; 32]);
        b.put(0x320, &32u32.to_le_bytes());
        b.same(libc::SYS_getsockname, &[F(x), P(0x300), P(0x320)]);
        b.same(libc::SYS_getpeername, &[F(x), P(0x300), P(0x320)]);
        for (level, name) in
            [(1, 3), (1, 4), (1, 39), (1, 38), (1, 30), (1, 7), (1, 8), (1, 20), (1, 2), (1, 18), (6, 1), (1, 999)]
        {
            b.put(0x320, &32u32.to_le_bytes());
            b.put(0x300, &[0; 32]);
            b.same(libc::SYS_getsockopt, &[F(x), N(level), N(name), P(0x300), P(0x320)]);
        }
        // A descriptor and credentials.
        let one = 1u32.to_le_bytes();
        b.put(0x340, &one);
        b.same(libc::SYS_setsockopt, &[F(x), N(1), N(7), P(0x340), N(4)]);
        b.same(libc::SYS_setsockopt, &[F(x), N(1), N(7), P(0x340), N(2)]);
        b.same(libc::SYS_setsockopt, &[F(x), N(1), N(999), P(0x340), N(4)]);
        b.same(libc::SYS_setsockopt, &[F(x), N(6), N(1), P(0x340), N(4)]);
        b.put(0xa00, &[20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        b.put_fd(0xa10, x);
        message(&mut b, 0x100, 3, 0xa00, 24);
        b.same(libc::SYS_sendmsg, &[F(x), P(0x800), N(0)]);
        message(&mut b, 0x200, 9, 0xb00, 64);
        b.differ.push((0xb10, 4));
        b.same(libc::SYS_recvmsg, &[F(y), P(0x800), N(0)]);
        let got = b.word(0xb10);
        b.fds.insert(got.0, got.1);
        b.close(got.0);
        b.put(0xa00, &[21]);
        message(&mut b, 0x100, 3, 0xa00, 20);
        b.same(libc::SYS_sendmsg, &[F(x), P(0x800), N(0)]);
        // Cut off.
        b.put(0xa00, &[20]);
        message(&mut b, 0x100, 8, 0xa00, 24);
        b.same(libc::SYS_sendmsg, &[F(x), P(0x800), N(0)]);
        message(&mut b, 0x200, 4, 0xb00, 8);
        b.same(libc::SYS_recvmsg, &[F(y), P(0x800), N(0)]);
        b.same(libc::SYS_recvfrom, &[F(y), P(0x200), N(99), N(0), N(0), N(0)]);
        b.same(libc::SYS_shutdown, &[F(x), N(3)]);
        b.same(libc::SYS_shutdown, &[F(x), N(1)]);
        b.poll(x);
        b.poll(y);
        b.same(libc::SYS_sendto, &[F(x), P(0x104), N(6), N(0x4000), N(0), N(0)]);
        b.same(libc::SYS_recvfrom, &[F(y), P(0x200), N(3), N(0x40), N(0), N(0)]);
        b.same(libc::SYS_listen, &[F(x), N(3)]);
        b.same(libc::SYS_accept, &[F(x), N(0), N(0)]);
        b.same(libc::SYS_lseek, &[F(x), N(0), N(0)]);
        b.close(x);
        b.poll(y);
        b.same(libc::SYS_sendto, &[F(y), P(0x104), N(6), N(0x4000), N(0), N(0)]);
        b.same(libc::SYS_recvfrom, &[F(y), P(0x200), N(3), N(0x40), N(0), N(0)]);
        b.same(libc::SYS_sendto, &[F(y), P(0x104), N(6), N(0x4000), N(0), N(0)]);
        b.same(libc::SYS_getpeername, &[F(y), P(0x300), P(0x320)]);
    }
}

#[test]
fn named_sockets() {
    for kind in [1, 2, 5] {
        let mut b = Both::new();
        let s = b.open(libc::SYS_socket, &[N(1), N(kind | NB), N(0)]);
        let c = b.open(libc::SYS_socket, &[N(1), N(kind | NB), N(0)]);
        b.poll(c);
        let name = format!("\x01\x00\0evm-test-{}-{kind}", std::process::id());
        b.put(0x100, name.as_bytes());
        let n = N(name.len() as i64);
        b.same(libc::SYS_connect, &[F(c), P(0x100), n]);
        b.same(libc::SYS_bind, &[F(s), P(0x100), N(1)]);
        b.same(libc::SYS_bind, &[F(s), P(0x100), N(200)]);
        b.same(libc::SYS_listen, &[F(s), N(1)]);
        b.same(libc::SYS_bind, &[F(s), P(0x100), n]);
        b.same(libc::SYS_bind, &[F(s), P(0x100), n]);
        b.same(libc::SYS_bind, &[F(c), P(0x100), n]);
        b.same(libc::SYS_sendto, &[F(c), P(0x100), N(4), N(0x4000), N(0), N(0)]);
        b.same(libc::SYS_read, &[F(c), P(0x100), N(4)]);
        b.same(libc::SYS_sendto, &[F(c), P(0x100), N(4), N(0x4000), P(0x100), n]);
        b.same(libc::SYS_accept, &[F(s), N(0), N(0)]);
        b.same(libc::SYS_listen, &[F(s), N(1)]);
        b.poll(s);
        b.same(libc::SYS_connect, &[F(c), P(0x100), n]);
        b.same(libc::SYS_connect, &[F(c), P(0x100), n]);
        b.poll(s);
        b.poll(c);
        b.put(0x320, &100u32.to_le_bytes());
        b.same(libc::SYS_getpeername, &[F(c), P(0x300), P(0x320)]);
        b.put(0x320, &100u32.to_le_bytes());
        b.same(libc::SYS_getsockname, &[F(s), P(0x300), P(0x320)]);
        if kind == 2 {
            b.put(0x320, &100u32.to_le_bytes());
            b.same(libc::SYS_recvfrom, &[F(s), P(0x200), N(9), N(0), P(0x300), P(0x320)]);
            continue;
        }
        b.put(0x320, &100u32.to_le_bytes());
        let a = b.open(libc::SYS_accept4, &[F(s), P(0x300), P(0x320), N(NB)]);
        b.same(libc::SYS_write, &[F(c), P(0x100), N(4)]);
        b.same(libc::SYS_read, &[F(a), P(0x200), N(9)]);
        b.put(0x320, &100u32.to_le_bytes());
        b.same(libc::SYS_getsockname, &[F(a), P(0x300), P(0x320)]);
        b.same(libc::SYS_accept, &[F(s), N(0), N(0)]);
        b.close(a);
        b.poll(c);
        b.same(libc::SYS_read, &[F(c), P(0x200), N(9)]);
    }
}

#[test]
fn loopback() {
    let mut b = Both::new();
    let s = b.open(libc::SYS_socket, &[N(2), N(1 | NB), N(0)]);
    b.same(libc::SYS_socket, &[N(2), N(1), N(17)]);
    b.same(libc::SYS_socket, &[N(99), N(1), N(0)]);
    b.put(0x100, &[2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    b.same(libc::SYS_bind, &[F(s), P(0x100), N(16)]);
    b.same(libc::SYS_bind, &[F(s), P(0x100), N(16)]);
    b.same(libc::SYS_listen, &[F(s), N(5)]);
    b.put(0x320, &16u32.to_le_bytes());
    b.differ.push((0x302, 2));
    b.same(libc::SYS_getsockname, &[F(s), P(0x300), P(0x320)]);
    let c = b.open(libc::SYS_socket, &[N(2), N(1), N(0)]);
    let (g, h) = (b.task.mem().read::<u16>(BASE + 0x302).unwrap(), [b.bytes()[0x302], b.bytes()[0x303]]);
    b.put(0x400, &[2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    b.differ.push((0x402, 2));
    b.task.mem().write(BASE + 0x402, g).unwrap();
    b.bytes()[0x402..0x404].copy_from_slice(&h);
    b.same(libc::SYS_connect, &[F(c), P(0x400), N(16)]);
    b.same(libc::SYS_connect, &[F(c), P(0x400), N(16)]);
    b.poll(s);
    let a = b.open(libc::SYS_accept4, &[F(s), N(0), N(0), N(NB)]);
    b.poll(a);
    b.same(libc::SYS_read, &[F(a), P(0x200), N(9)]);
    b.put(0x500, b"loop");
    b.same(libc::SYS_write, &[F(c), P(0x500), N(4)]);
    b.same(libc::SYS_read, &[F(a), P(0x200), N(9)]);
    b.same(libc::SYS_shutdown, &[F(c), N(1)]);
    b.poll(a);
    b.same(libc::SYS_read, &[F(a), P(0x200), N(9)]);
    b.put(0x320, &16u32.to_le_bytes());
    b.put(0x600, &[1, 0, 0, 0]);
    b.same(libc::SYS_setsockopt, &[F(a), N(6), N(1), P(0x600), N(4)]);
    b.put(0x600, &[0; 4]);
    b.put(0x320, &4u32.to_le_bytes());
    b.same(libc::SYS_getsockopt, &[F(a), N(6), N(1), P(0x600), P(0x320)]);
}

#[test]
fn timers() {
    let mut b = Both::new();
    b.same(libc::SYS_timerfd_create, &[N(99), N(0)]);
    let t = b.open(libc::SYS_timerfd_create, &[N(1), N(NB)]);
    b.poll(t);
    b.same(libc::SYS_read, &[F(t), P(0x100), N(8)]);
    b.same(libc::SYS_timerfd_gettime, &[F(t), P(0x100)]);
    b.put(0x200, &[0; 32]);
    b.put(0x218, &1u64.to_le_bytes());
    b.same(libc::SYS_timerfd_settime, &[F(t), N(0), P(0x200), P(0x300)]);
    std::thread::sleep(std::time::Duration::from_millis(5));
    b.poll(t);
    b.same(libc::SYS_read, &[F(t), P(0x100), N(8)]);
    b.same(libc::SYS_read, &[F(t), P(0x100), N(8)]);
    b.put(0x218, &2_000_000_000u64.to_le_bytes());
    b.same(libc::SYS_timerfd_settime, &[F(t), N(0), P(0x200), N(0)]);
    b.same(libc::SYS_timerfd_settime, &[F(99), N(0), P(0x200), N(0)]);
    // It wakes a waiter.
    b.put(0x218, &10_000_000u64.to_le_bytes());
    b.same(libc::SYS_timerfd_settime, &[F(t), N(0), P(0x200), N(0)]);
    b.put_fd(0x7000, t);
    b.put(0x7004, &1u32.to_le_bytes());
    b.same(libc::SYS_poll, &[P(0x7000), N(1), N(5000)]);
}
