//! Shared anonymous memory, and the copy of an address space that fork(2) makes.

use super::{Backing, Mm, Space, Vma, W, X, host_prot};
use crate::errno::{Errno, Result};
use crate::process::lock;
use evm_memory::{Arena, Prot};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A host memory file of a length.
pub(crate) fn memory_file(len: u64) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("evm-shared", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, len)?;
    Ok(fd)
}

/// Make a memory file at least this long.
pub(super) fn extend(fd: &OwnedFd, len: u64) -> Result<()> {
    if (rustix::fs::fstat(fd)?.st_size as u64) < len {
        rustix::fs::ftruncate(fd, len)?;
    }
    Ok(())
}

/// Gap between two ranges up to which they are looked at together: nothing in it is resident, and to look there too costs less than
/// another call.
const NEAR: u64 = 1 << 20;

/// Resident bytes of ranges of an arena, which ascend, and between which nothing is mapped.
pub(super) fn resident(arena: &Arena, ranges: &[(u64, u64)]) -> u64 {
    let runs = ranges.chunk_by(|a, b| b.0 - a.1 <= NEAR);
    runs.map(|run| arena.resident(run[0].0, run[run.len() - 1].1)).sum()
}

impl Mm {
    /// Where else the guest can write what the shared page at `addr` holds: programs that make code map it twice, to execute
    /// and to write.
    pub fn writable_aliases(&self, addr: u64) -> Vec<u64> {
        let Some((kind, object, offset)) = self.shared_word(addr) else { return Vec::new() };
        let mapped: Vec<(u64, u64)> = {
            let s = lock(&self.space);
            s.vmas.iter().filter(|(_, v)| v.prot & W != 0 && v.is_shared()).map(|(k, v)| (*k, v.end - k)).collect()
        };
        let page = |(start, len): (u64, u64)| {
            let (k, o, first) = self.shared_word(start)?;
            let at = offset.checked_sub(first).filter(|at| (k, o) == (kind, object) && *at < len)?;
            Some(start + at).filter(|a| *a != addr)
        };
        mapped.into_iter().filter_map(page).collect()
    }
    /// Shared pages can be written at a new place: code in them has to be looked at again, and that place with it.
    pub(super) fn shared_code_changed(&self, s: &Space) {
        for (start, v) in s.vmas.iter().filter(|(_, v)| v.prot & X != 0 && v.is_shared()) {
            self.code_replaced(s, *start, v.end);
        }
    }
    /// Identity of a word in a shared mapping: the object (two numbers) and the offset in it.
    pub(crate) fn shared_word(&self, addr: u64) -> Option<(u64, u64, u64)> {
        let s = lock(&self.space);
        let (start, v) = s.at(addr)?;
        let offset = v.offset.wrapping_add(addr - start);
        match &v.backing {
            // The number 0 is no host device, so the two kinds never meet.
            Backing::Shared(fd) => Some((0, Arc::as_ptr(fd) as u64, offset)),
            Backing::Segment(g) => Some((0, Arc::as_ptr(g) as u64, offset)),
            Backing::File(d) if v.shared => {
                let st = rustix::fs::fstat(d.file.host_fd()?).ok()?;
                Some((st.st_dev + 1, st.st_ino, offset))
            }
            _ => None,
        }
    }

    /// A copy for a forked process. Private pages are shared until they are written ([`super::snapshot`]) or copied, shared ones stay shared. What
    /// the child has from its parent counts as memory when it is resident only, as what is mapped with MAP_NORESERVE: most of it never is.
    /// `alone`: the process that runs here has no other thread.
    pub fn fork(&self, alone: bool) -> Result<Arc<Mm>> {
        let child = Mm::new(&self.kernel, self.bits)?;
        let mut s = lock(&self.space);
        if alone && self.users.load(Ordering::Acquire) == 1 {
            self.take_snapshot(&mut s);
        }
        let generation = self.kernel.host.code_generation(self);
        let mut c = lock(&child.space);
        c.brk_start = s.brk_start;
        c.images_from = s.images_from;
        c.brk = s.brk;
        c.snapshot = s.snapshot.clone();
        c.mmap_top = s.mmap_top;
        let mut result = Ok(());
        for (k, v) in &s.vmas {
            if v.dontfork {
                continue;
            }
            let shared = matches!(v.backing, Backing::Shared(_));
            c.vmas.insert(*k, Vma { charged: false, noreserve: !shared, snapshot: v.snapshot && !v.wipe, ..v.clone() });
            c.total += v.end - k;
            if result.is_ok() {
                result = self.copy_vma(&child, *k, v, s.snapshot.as_ref());
            }
        }
        drop(c);
        if result.is_ok() {
            self.kernel.host.forked(self, &child, generation);
        }
        drop(s);
        result.map(|()| child)
    }

    fn copy_vma(&self, child: &Mm, start: u64, v: &Vma, snapshot: Option<&Arc<OwnedFd>>) -> Result<()> {
        let len = v.end - start;
        let (from, to) = (self.arena(), child.arena());
        let copied = match &v.backing {
            Backing::Hole(_) => return Ok(()),
            Backing::Shared(fd) => {
                to.map_file(start, len, host_prot(v.prot), true, fd.as_fd(), v.offset)?;
                return Ok(());
            }
            Backing::Segment(g) => {
                to.map_file(start, len, host_prot(v.prot), true, g.file.as_fd(), v.offset)?;
                return Ok(());
            }
            Backing::File(d) => {
                let fd = d.file.host_fd().ok_or(Errno::EIO)?;
                if v.shared {
                    to.map_file(start, len, host_prot(v.prot), true, fd, v.offset)?;
                    return Ok(());
                }
                to.map_file(start, len, Prot::RW, false, fd, v.offset)?;
                false
            }
            Backing::Anon if v.snapshot && !v.wipe => {
                let file = snapshot.ok_or(Errno::EIO)?;
                to.map_file(start, len, Prot::RW, false, file.as_fd(), start)?;
                false
            }
            Backing::Anon | Backing::Copy(_) => {
                to.map_anon(start, len, Prot::RW)?;
                if v.wipe {
                    to.protect(start, len, host_prot(v.prot))?;
                    return Ok(());
                }
                true
            }
        };
        let hidden = v.prot == 0;
        if hidden {
            from.protect(start, len, Prot::R)?;
        }
        let r = from.copy_dirty(to, start, len, copied);
        if hidden {
            from.protect(start, len, Prot::NONE)?;
        }
        r?;
        if v.host_prot() != Prot::RW {
            to.protect(start, len, v.host_prot())?;
        }
        Ok(())
    }
}
