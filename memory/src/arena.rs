//! The arena: reserve, map, protect, copy.
//!
//! # Safety
//! All `mmap` family calls act on `[base, base + size)` of a live arena only (checked by `range`), which
//! no Rust object lives in.
#![allow(unsafe_code)]

use crate::perm::PermTable;
use crate::{Mem, PAGE, Prot, fault};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;

/// Inaccessible bytes on each side: covers any 32-bit displacement added to a checked address.
const GUARD: u64 = 1 << 32;

/// Distance from guest address 0 to a word that can only be read and holds the size of the address space, so that compiled code
/// finds it by the register that it has for guest memory anyway. It is as far in front as a displacement reaches; accesses
/// of guest code that go unchecked stay clear of it.
pub const LIMIT_AT: i32 = i32::MIN;

impl Prot {
    fn bits(self) -> i32 {
        let w = if self.write { libc::PROT_READ | libc::PROT_WRITE } else { 0 };
        w | if self.read { libc::PROT_READ } else { 0 }
    }
}

/// A guest address space on the host. Unmapped when dropped.
#[derive(Debug)]
pub struct Arena {
    base: u64,
    size: u64,
    /// Host address of a table of page permissions to be kept up to date.
    perms: OnceLock<u64>,
}

impl Arena {
    /// Reserve `size` bytes (a multiple of the page size) of guest address space, all unmapped.
    pub fn reserve(size: u64) -> io::Result<Arena> {
        fault::install();
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                (size + 2 * GUARD) as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let arena = Arena { base: p as u64 + GUARD, size, perms: OnceLock::new() };
        arena.write_limit()?;
        Ok(arena)
    }
    fn write_limit(&self) -> io::Result<()> {
        let p = self.base.wrapping_add_signed(LIMIT_AT.into()) as *mut libc::c_void;
        // SAFETY: inside the reservation, where nothing is yet.
        unsafe {
            if libc::mprotect(p, PAGE as usize, libc::PROT_READ | libc::PROT_WRITE) == 0 {
                p.cast::<u64>().write(self.size);
                if libc::mprotect(p, PAGE as usize, libc::PROT_READ) == 0 {
                    return Ok(());
                }
            }
        }
        Err(io::Error::last_os_error())
    }
    /// Host address of guest address 0.
    pub fn base(&self) -> u64 {
        self.base
    }
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Access to its bytes. Copies of the view must not outlive the arena; the kernel and the engines
    /// keep the arena alive by `Arc` while a guest thread runs.
    pub fn mem(&self) -> Mem {
        // SAFETY: the range is reserved while `self` lives.
        unsafe { Mem::new(self.base, self.size) }
    }
    /// Make the last `len` bytes of the guard in front of guest memory usable, zero at first: for an engine that wants its own
    /// tables near. Gives their host address.
    pub fn map_front(&self, len: u64) -> io::Result<u64> {
        // Behind the page of the limit.
        if len > GUARD / 2 - PAGE || !len.is_multiple_of(PAGE) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let p = (self.base - len) as *mut libc::c_void;
        // SAFETY: inside the reservation, where nothing is.
        let r = unsafe { libc::mprotect(p, len as usize, libc::PROT_READ | libc::PROT_WRITE) };
        if r == 0 { Ok(self.base - len) } else { Err(io::Error::last_os_error()) }
    }
    /// From now on keep the table of page permissions of [`crate::perm`] at this address in the front up to date, which has
    /// a byte for each page and is all zero. For an arena without mappings, once.
    pub fn track(&self, table: u64) {
        let inside = table >= self.base - GUARD && table + self.size / PAGE <= self.base;
        assert!(inside, "the table of permissions is not in front of guest memory");
        // A second call changes nothing.
        let _ = self.perms.set(table);
    }
    /// The table that is kept up to date.
    pub fn perms(&self) -> Option<PermTable<'_>> {
        let table = *self.perms.get()?;
        // SAFETY: `track` saw to it that the table is in the front, which is mapped and lives as long as `self`; it is only
        // accessed as atomics.
        let bytes = unsafe { std::slice::from_raw_parts(table as *const AtomicU8, (self.size / PAGE) as usize) };
        Some(PermTable::new(bytes))
    }
    /// Note what may be done with a range now.
    pub fn note(&self, addr: u64, len: u64, prot: Prot) {
        if let Some(t) = self.perms() {
            t.set((addr / PAGE) as usize, (len / PAGE) as usize, prot.perm());
        }
    }
    fn range(&self, addr: u64, len: u64) -> io::Result<*mut libc::c_void> {
        if !addr.is_multiple_of(PAGE)
            || !len.is_multiple_of(PAGE)
            || len == 0
            || len > self.size
            || addr > self.size - len
        {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok((self.base + addr) as *mut libc::c_void)
    }
    fn mmap(&self, addr: u64, len: u64, prot: i32, flags: i32, fd: i32, off: u64) -> io::Result<()> {
        let p = self.range(addr, len)?;
        // SAFETY: MAP_FIXED inside the arena, see the module's paragraph.
        let r = unsafe { libc::mmap(p, len as usize, prot, flags | libc::MAP_FIXED, fd, off as i64) };
        if r == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
    /// Map fresh zero pages.
    pub fn map_anon(&self, addr: u64, len: u64, prot: Prot) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.mmap(addr, len, prot.bits(), flags, -1, 0)?;
        self.note(addr, len, prot);
        Ok(())
    }
    /// Map a host file (`off` page-aligned), shared or private (copy on write). Pages past its end
    /// fault (SIGBUS on the host, reported as a fault here).
    pub fn map_file(
        &self,
        addr: u64,
        len: u64,
        prot: Prot,
        shared: bool,
        fd: BorrowedFd<'_>,
        off: u64,
    ) -> io::Result<()> {
        let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        self.mmap(addr, len, prot.bits(), flags | libc::MAP_NORESERVE, fd.as_raw_fd(), off)?;
        self.note(addr, len, prot);
        Ok(())
    }
    /// Give the pages back; later accesses fault.
    pub fn unmap(&self, addr: u64, len: u64) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // The table first: whoever looks must not find what is no longer there.
        self.note(addr, len, Prot::NONE);
        self.mmap(addr, len, libc::PROT_NONE, flags, -1, 0)
    }
    /// Change protection.
    pub fn protect(&self, addr: u64, len: u64, prot: Prot) -> io::Result<()> {
        let p = self.range(addr, len)?;
        self.note(addr, len, Prot::NONE);
        // SAFETY: inside the arena.
        let r = unsafe { libc::mprotect(p, len as usize, prot.bits()) };
        if r != 0 {
            return Err(io::Error::last_os_error());
        }
        self.note(addr, len, prot);
        Ok(())
    }
    /// `madvise` with MADV_DONTNEED, MADV_FREE and the like; advice that would undo isolation is refused
    /// by the caller.
    pub fn advise(&self, addr: u64, len: u64, advice: i32) -> io::Result<()> {
        let p = self.range(addr, len)?;
        // SAFETY: inside the arena; contents may become zero, which is what the guest asked for.
        let r = unsafe { libc::madvise(p, len as usize, advice) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    /// Move pages inside the arena (mremap); the old range becomes unmapped.
    pub fn move_pages(&self, from: u64, to: u64, len: u64) -> io::Result<()> {
        let (src, dst) = (self.range(from, len)?, self.range(to, len)?);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both ranges are inside the arena; the caller guarantees that they do not overlap.
        let r = unsafe { libc::mremap(src, len as usize, len as usize, flags, dst) };
        if r == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if let Some(t) = self.perms() {
            for page in 0..len / PAGE {
                t.set((to / PAGE + page) as usize, 1, t.get((from / PAGE + page) as usize));
            }
        }
        self.unmap(from, len)
    }
    /// Write dirty pages of a shared file mapping back.
    pub fn sync(&self, addr: u64, len: u64) -> io::Result<()> {
        let p = self.range(addr, len)?;
        // SAFETY: inside the arena.
        let r = unsafe { libc::msync(p, len as usize, libc::MS_SYNC) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    /// Bytes of `[start, end)` that the host keeps in memory.
    pub fn resident(&self, start: u64, end: u64) -> u64 {
        use std::os::unix::fs::FileExt;
        let Ok(map) = pagemap() else {
            return 0;
        };
        let (mut page, last) = ((self.base + start) / PAGE, (self.base + end) / PAGE);
        let mut buf = vec![0u8; 8 * last.saturating_sub(page).min(8192) as usize];
        let mut n = 0;
        while page < last {
            let k = (last - page).min(8192);
            let b = &mut buf[..8 * k as usize];
            if map.read_exact_at(b, page * 8).is_err() {
                return n * PAGE;
            }
            n += b.chunks_exact(8).filter(|w| w[7] & 0x80 != 0).count() as u64;
            page += k;
        }
        n * PAGE
    }
    /// Copy the private pages of `[addr, addr + len)` that differ from their backing into `child` (fork). The range
    /// must be mapped the same way in both, readable here and writable in `child`. With `anon`, only pages that
    /// are present are copied; else (a private file mapping) only those that were written.
    pub fn copy_dirty(&self, child: &Arena, addr: u64, len: u64, anon: bool) -> io::Result<()> {
        child.range(addr, len)?;
        self.each_dirty(addr, len, anon, |at, len| self.copy_run(child, at, len as usize))
    }
    /// The pages that [`Arena::copy_dirty`] would copy, as runs: address and bytes.
    pub fn dirty_runs(&self, addr: u64, len: u64, anon: bool) -> io::Result<Vec<(u64, u64)>> {
        let mut runs = vec![];
        self.each_dirty(addr, len, anon, |at, len| runs.push((at, len)))?;
        Ok(runs)
    }
    fn each_dirty(&self, addr: u64, len: u64, anon: bool, mut run_of: impl FnMut(u64, u64)) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.range(addr, len)?;
        let map = pagemap()?;
        let (first, pages) = ((self.base + addr) / PAGE, len / PAGE);
        let mut words = vec![0u8; 8 * pages.min(4096) as usize];
        let mut at = 0;
        while at < pages {
            let n = (pages - at).min(4096);
            let buf = &mut words[..8 * n as usize];
            map.read_exact_at(buf, (first + at) * 8)?;
            let copied = |w: &[u8]| {
                let w = u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]);
                let present = w >> 62 != 0; // bit 63 present, bit 62 swapped
                let file_page = w >> 61 & 1 != 0; // still the file's page or shared
                present && (anon || !file_page)
            };
            let mut off = addr + at * PAGE;
            for run in buf.as_chunks::<8>().0.chunk_by(|a, b| copied(a) == copied(b)) {
                let bytes = run.len() as u64 * PAGE;
                if copied(&run[0]) {
                    run_of(off, bytes);
                }
                off += bytes;
            }
            at += n;
        }
        Ok(())
    }
    /// Write a range, which is mapped readable, to a file, at the offset that is its address.
    pub fn write_to(&self, file: BorrowedFd<'_>, addr: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let p = self.range(addr + done, len - done)?;
            // SAFETY: the host reads inside the arena, and refuses what is not readable.
            let n = unsafe { libc::pwrite(file.as_raw_fd(), p, (len - done) as usize, (addr + done) as libc::off_t) };
            match n {
                n if n > 0 => done += n as u64,
                0 => return Err(io::ErrorKind::WriteZero.into()),
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
    /// Give a range fresh pages with the same contents and this protection.
    pub fn renew(&self, addr: u64, len: u64, prot: Prot) -> io::Result<()> {
        self.protect(addr, len, Prot::R)?;
        let (to, flags) = (self.range(addr, len)?, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: the range is inside the arena and readable; the copy is a mapping of our own, which takes its place.
        unsafe {
            let copy = libc::mmap(std::ptr::null_mut(), len as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if copy == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            for at in (0..len as usize).step_by(PAGE as usize) {
                let (from, to) = (to.cast::<u64>().byte_add(at), copy.cast::<u64>().byte_add(at));
                // What is zero needs no memory.
                if (0..PAGE as usize / 8).any(|n| from.add(n).read_volatile() != 0) {
                    std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast::<u8>(), PAGE as usize);
                }
            }
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            if libc::mremap(copy, len as usize, len as usize, flags, to) == libc::MAP_FAILED {
                let e = io::Error::last_os_error();
                libc::munmap(copy, len as usize);
                return Err(e);
            }
        }
        self.protect(addr, len, prot)
    }
    /// Copy pages to the same place of another arena. Both ranges are inside; see [`Arena::copy_dirty`].
    fn copy_run(&self, child: &Arena, off: u64, len: usize) {
        let (from, to) = ((self.base + off) as *const u8, (child.base + off) as *mut u8);
        // SAFETY: both are inside live arenas and mapped readable / writable (contract); the parent's threads may race, as they may in fork(2).
        unsafe {
            // All at once: a page fault for each page takes longer than the copy. A host that does not know how leaves it to the faults.
            if len > PAGE as usize {
                libc::madvise(to.cast(), len, libc::MADV_POPULATE_WRITE);
            }
            std::ptr::copy_nonoverlapping(from, to, len);
        }
    }
}

/// The host's page map of this process (8 bytes a page, by host address), opened once.
pub fn pagemap() -> io::Result<&'static std::fs::File> {
    static MAP: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();
    match MAP.get() {
        Some(f) => Ok(f),
        None => {
            let f = std::fs::File::open("/proc/self/pagemap")?;
            Ok(MAP.get_or_init(|| f))
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the arena owns the whole reservation; views of it are gone (see `mem`).
        unsafe {
            libc::munmap((self.base - GUARD) as *mut libc::c_void, (self.size + 2 * GUARD) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

    #[test]
    fn faults_are_errors() {
        let a = Arena::reserve(1 << 30).unwrap();
        let m = a.mem();
        assert_eq!(m.read::<u32>(0x1000), Err(Fault { addr: 0x1000, write: false }));
        a.map_anon(0x1000, 0x2000, Prot::RW).unwrap();
        m.write(0x1ffc, 0x1122_3344_5566_7788u64).unwrap();
        assert_eq!(m.read::<u64>(0x1ffc), Ok(0x1122_3344_5566_7788));
        // As the CPU says it: the first byte that is not there.
        assert_eq!(m.store128(0x2ff8, 5), Err(Fault { addr: 0x3000, write: true }));
        assert_eq!(m.read::<u8>(1 << 30), Err(Fault { addr: 1 << 30, write: false }));
        assert_eq!(m.read::<u64>(u64::MAX - 3), Err(Fault { addr: u64::MAX - 3, write: false }));
        a.protect(0x1000, 0x1000, Prot::R).unwrap();
        assert!(m.store(0x1000, 1, 1).is_err());
        assert_eq!(m.cas(0x2000, 2, 0x1122, 7), Ok(0x3344 & 0xffff).map(|_: u64| m.load(0x2000, 2).unwrap()));
        let mut b = [0u8; 0x3000];
        assert_eq!(m.copy_out(0x1000, &mut b), Err(Fault { addr: 0x3000, write: false }));
        m.store128(0x2000, 1 | 2 << 64).unwrap();
        assert_eq!(m.cas128(0x2000, 1 | 2 << 64, 9), Ok(1 | 2 << 64));
        assert_eq!(m.load128(0x2000), Ok(9));
        // It writes whether or not the comparison holds.
        a.protect(0x2000, 0x1000, Prot::R).unwrap();
        for expected in [9, 8] {
            assert_eq!(m.cas128(0x2000, expected, 7), Err(Fault { addr: 0x2000, write: true }));
        }
    }

    #[test]
    fn fork_copy() {
        let (a, b) = (Arena::reserve(1 << 24).unwrap(), Arena::reserve(1 << 24).unwrap());
        for x in [&a, &b] {
            x.map_anon(0x10000, 0x10000, Prot::RW).unwrap();
        }
        a.mem().write(0x12345, 77u8).unwrap();
        a.copy_dirty(&b, 0x10000, 0x10000, true).unwrap();
        assert_eq!(b.mem().read::<u8>(0x12345), Ok(77));
    }
}
