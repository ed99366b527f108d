//! Files of translations in memory, where their code is executed as it lies.
//!
//! # Safety
//! A file is mapped private, to read and execute, and never unmapped, so views of it live forever and the signal handler may look at
//! them at any time. The folder's rules say who may have written it. A file is replaced by renaming, never changed; should
//! its owner truncate it all the same, this process dies of SIGBUS.
#![allow(unsafe_code)]

use super::format::{Key, MAX_FILE, Page, View, unmarked};
use evm_backend::direct::ADDRESS;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};

/// Most files that one host process maps.
const MOST: usize = 1 << 12;

/// A mapped file.
pub(crate) struct Mapped {
    /// Host address of its first byte.
    start: u64,
    /// What it holds.
    pub view: View<'static>,
    /// The image's first address.
    lo: u64,
    /// It is a file of copied code, for the most part.
    copied: bool,
    /// Checksums of pages, by their order in the file: 1 was right, 2 was wrong.
    checked: Box<[AtomicU8]>,
}

static ALL: [AtomicPtr<Mapped>; MOST] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Mapped {
    /// Map a file and check it.
    pub(crate) fn new(fd: &OwnedFd, key: &Key) -> Result<&'static Mapped, String> {
        let len = rustix::fs::fstat(fd).map_err(|e| e.to_string())?.st_size;
        Mapped::part(fd, 0, len as u64, key)
    }
    /// The same for a part of a file.
    pub(crate) fn part(fd: &OwnedFd, offset: u64, len: u64, key: &Key) -> Result<&'static Mapped, String> {
        let len = usize::try_from(len).ok().filter(|n| (1..=MAX_FILE).contains(n)).ok_or("its size is impossible")?;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the result is checked.
        let p = unsafe {
            let prot = libc::PROT_READ | libc::PROT_EXEC;
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_PRIVATE, fd.as_raw_fd(), offset as i64)
        };
        if p == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().to_string());
        }
        // SAFETY: the mapping is `len` bytes and stays for good if the view does.
        let bytes: &'static [u8] = unsafe { std::slice::from_raw_parts(p.cast(), len) };
        let made = View::new(bytes, key).map_err(|e| e.to_string()).and_then(|view| {
            let n = COUNT.fetch_add(1, Ordering::AcqRel);
            let at = ALL.get(n).ok_or("too many files are mapped")?;
            let checked = (0..view.page_count()).map(|_| AtomicU8::new(0)).collect();
            let m: &'static Mapped =
                Box::leak(Box::new(Mapped { start: p as u64, view, lo: key.lo, copied: key.copied, checked }));
            at.store(std::ptr::from_ref(m).cast_mut(), Ordering::Release);
            Ok(m)
        });
        if made.is_err() {
            // SAFETY: nothing has a view of the mapping made above.
            unsafe { libc::munmap(p, len) };
        }
        made
    }
    /// Whether what a page refers to is as it was written; looked at once.
    pub(crate) fn is_intact(&self, p: &Page<'_>) -> bool {
        let Some(c) = self.checked.get(p.order) else { return false };
        match c.load(Ordering::Relaxed) {
            0 => {
                let good = self.view.is_intact(p);
                c.store(if good { 1 } else { 2 }, Ordering::Relaxed);
                good
            }
            n => n == 1,
        }
    }
    /// Host address of an offset in the file.
    pub(crate) fn host(&self, offset: u64) -> u64 {
        self.start + offset
    }
}

/// Guest pc of the instruction whose code is at a host address in one of the files: `Some(None)` if it is in a file and not of an
/// access. Safe in a signal handler.
pub(crate) fn guest_pc(host: u64) -> Option<Option<u64>> {
    let (m, offset) = find(host)?;
    Some(m.view.pc_at(offset).map(|pc| m.lo + u64::from(pc)))
}

/// The same of copied code: with its marks.
pub(crate) fn copied_pc(host: u64) -> Option<u64> {
    let (m, offset) = find(host).filter(|f| f.0.copied)?;
    m.view.pc_at(offset).and_then(|word| unmarked(word, m.lo))
}

/// See [`crate::code::memory::nearest`].
pub(crate) fn nearest(host: u64) -> Option<(u64, bool)> {
    let (m, offset) = find(host)?;
    let word = m.view.pc_before(offset);
    let pc = if m.copied { word.and_then(|w| unmarked(w, m.lo)) } else { word.map(|pc| m.lo + u64::from(pc)) };
    Some((pc.map_or(0, |pc| pc & ADDRESS), m.copied))
}

/// The file that holds a host address, and its offset.
fn find(host: u64) -> Option<(&'static Mapped, u64)> {
    let n = COUNT.load(Ordering::Acquire).min(MOST);
    for p in &ALL[..n] {
        let p = p.load(Ordering::Acquire);
        if p.is_null() {
            continue;
        }
        // SAFETY: only leaked descriptors are stored.
        let m: &'static Mapped = unsafe { &*p };
        let off = host.wrapping_sub(m.start);
        if off < m.view.size() as u64 {
            return Some((m, off));
        }
    }
    None
}
