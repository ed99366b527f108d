//! Files in memory as memory of this process: what is read and written often in small pieces needs no system call of the host.
//!
//! A file gets its window when it has been read or written a number of times. The window reaches behind the file's end, as files grow; who
//! uses it holds the lock of the file's length and stays within that.
//!
//! # Safety
//! A window owns its mapping, of which there are no references: bytes are copied by `evm_memory`, whose copies end at a fault. So a
//! page that the host has not, or takes away, costs a system call and nothing else.
#![allow(unsafe_code)]

use evm_memory::Mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A file is read or written so often before it gets a window: a mapping and its page faults cost as much as some dozens of calls.
const OFTEN: u32 = 64;
/// Most windows of this process, as the host bounds the number of mappings.
const MOST: u32 = 256;
static WINDOWS: AtomicU32 = AtomicU32::new(0);
/// Most bytes of all together. What a window shows is resident a second time where the guest has mapped the file, too, for which the
/// watchdog allows twice as much.
const MOST_BYTES: u64 = 256 << 20;
static BYTES: AtomicU64 = AtomicU64::new(0);
/// A window is of so many times its file's size.
const ROOM: u64 = 4;

/// A file's window, if it has one.
#[derive(Default)]
pub(in crate::fs) struct Windowed {
    uses: AtomicU32,
    window: OnceLock<Option<Window>>,
}

/// A mapping of a file, from its start on.
pub(in crate::fs) struct Window {
    start: u64,
    len: u64,
}

impl Windowed {
    /// The window of a file of this length, for another use of it.
    pub(in crate::fs) fn get(&self, fd: &OwnedFd, len: u64) -> Option<&Window> {
        if let Some(made) = self.window.get() {
            return made.as_ref();
        }
        // Two threads that count at once are one.
        let uses = self.uses.load(Ordering::Relaxed);
        self.uses.store(uses.saturating_add(1), Ordering::Relaxed);
        if uses < OFTEN {
            return None;
        }
        self.window.get_or_init(|| Window::new(fd, len)).as_ref()
    }
}

impl Window {
    fn new(fd: &OwnedFd, len: u64) -> Option<Window> {
        // To read from a hole would fill it.
        let filled = rustix::fs::fstat(fd).is_ok_and(|s| s.st_blocks as u64 * 512 >= len);
        if !filled || len > MOST_BYTES / ROOM {
            return None;
        }
        let len = len.next_power_of_two() * ROOM;
        // Both count, whether or not there is room.
        let (n, bytes) = (WINDOWS.fetch_add(1, Ordering::Relaxed), BYTES.fetch_add(len, Ordering::Relaxed));
        let window = if n < MOST && bytes + len <= MOST_BYTES { Window::map(fd, len) } else { None };
        if window.is_none() {
            Window::uncount(len);
        }
        window
    }
    fn uncount(len: u64) {
        WINDOWS.fetch_sub(1, Ordering::Relaxed);
        BYTES.fetch_sub(len, Ordering::Relaxed);
    }
    fn map(fd: &OwnedFd, len: u64) -> Option<Window> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a fresh mapping at an address of the host's choice.
        let p = unsafe { mmap(std::ptr::null_mut(), len as usize, prot, flags, fd.as_fd(), 0) };
        p.ok().map(|p| Window { start: p as u64, len })
    }
    /// The host address of a part of the file.
    fn part(&self, pos: u64, len: u64) -> Option<u64> {
        pos.checked_add(len).is_some_and(|end| end <= self.len).then(|| self.start + pos)
    }
    /// Copy a part of the file to guest memory. False: it is to be read in another way.
    pub(in crate::fs) fn read(&self, mem: &Mem, addr: u64, len: u64, pos: u64) -> bool {
        let part = self.part(pos, len);
        // SAFETY: the mapping is this window's, and nobody has references to it.
        part.is_some_and(|at| unsafe { mem.copy_in_from(addr, at, len) }.is_ok())
    }
    /// Copy guest memory to a part of the file. False: some of it may have been copied, and all is to be written in another way.
    pub(in crate::fs) fn write(&self, mem: &Mem, addr: u64, len: u64, pos: u64) -> bool {
        let part = self.part(pos, len);
        // SAFETY: as above.
        part.is_some_and(|at| unsafe { mem.copy_out_to(addr, at, len) }.is_ok())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        Window::uncount(self.len);
        // SAFETY: the mapping is this window's.
        let _ = unsafe { rustix::mm::munmap(self.start as *mut std::ffi::c_void, self.len as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evm_memory::{Arena, Prot};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn files_that_are_used_often() {
        let arena = Arena::reserve(1 << 24).unwrap();
        arena.map_anon(0x1000, 0x2000, Prot::RW).unwrap();
        let mem = arena.mem();
        let fd = memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&fd, &[7; 0x2000], 0).unwrap();
        let file = Windowed::default();
        assert!((0..OFTEN).all(|_| file.get(&fd, 0x2000).is_none()));
        let w = file.get(&fd, 0x2000).unwrap();
        assert!(w.read(&mem, 0x1000, 0x1000, 0xff0));
        assert_eq!(mem.read::<u8>(0x1fff), Ok(7));
        mem.write(0x1008, 0x1122_3344u32).unwrap();
        assert!(w.write(&mem, 0x1008, 4, 0x1ffc));
        let mut end = [0; 4];
        rustix::io::pread(&fd, &mut end, 0x1ffc).unwrap();
        assert_eq!(u32::from_le_bytes(end), 0x1122_3344);
        // The file grows, within bounds; bad guest memory, and what the file has no more.
        rustix::io::pwrite(&fd, &[9; 0x1000], 0x2000).unwrap();
        assert!(w.read(&mem, 0x1000, 8, 0x2ff8) && !w.read(&mem, 0x1000, 8, 0x7fff_ffff));
        assert_eq!(mem.read::<u8>(0x1007), Ok(9));
        assert!(!w.read(&mem, 0x2ffc, 8, 0) && !w.write(&mem, 0x8000, 8, 0));
        ftruncate(&fd, 0).unwrap();
        assert!(!w.read(&mem, 0x1000, 8, 0x1000) && !w.write(&mem, 0x1000, 8, 0x1000));
        // One with holes has none.
        ftruncate(&fd, 0x10_0000).unwrap();
        let file = Windowed::default();
        assert!((0..=OFTEN).all(|_| file.get(&fd, 0x10_0000).is_none()));
    }
}
