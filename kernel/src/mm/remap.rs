//! mremap, madvise, msync and the queries about ranges.

use super::{Backing, MIN_ADDR, Mm, R, Space, W, X, page_up};
use crate::errno::{Errno, Result};
use crate::process::lock;
use crate::wait::Blocking;
use evm_memory::{PAGE, Prot};

const MAYMOVE: u32 = 1;
const FIXED: u32 = 2;
const DONTUNMAP: u32 = 4;
pub(super) const POPULATE_READ: i32 = 22;

/// Arguments of mremap(2).
pub struct RemapRequest<'a> {
    /// Address and length of the old range.
    pub old: u64,
    #[allow(missing_docs)]
    pub old_len: u64,
    /// New length.
    pub new_len: u64,
    /// MREMAP_*.
    pub flags: u32,
    /// New address, with MREMAP_FIXED.
    pub to: u64,
    /// RLIMIT_AS.
    pub limit: u64,
    /// The thread, for reads of files that have to be copied.
    pub who: &'a dyn Blocking,
}

impl Mm {
    /// mremap(2); gives the new address.
    pub fn remap(&self, r: RemapRequest<'_>) -> Result<u64> {
        let RemapRequest { old, old_len, new_len, flags, to, limit, who } = r;
        if flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0 || !old.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if flags & (FIXED | DONTUNMAP) != 0 && flags & MAYMOVE == 0 {
            return Err(Errno::EINVAL);
        }
        let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(new_len).ok_or(Errno::EINVAL)?;
        if new_len == 0 || new_len > self.size() || (flags & DONTUNMAP != 0 && old_len != new_len) {
            return Err(if new_len > self.size() { Errno::ENOMEM } else { Errno::EINVAL });
        }
        let old_end = old.checked_add(old_len).filter(|e| *e <= self.size()).ok_or(Errno::EFAULT)?;
        if flags & FIXED != 0 {
            let end = to.checked_add(new_len).filter(|e| *e <= self.size()).ok_or(Errno::EINVAL)?;
            if !to.is_multiple_of(PAGE) || (to < old_end && old < end) {
                return Err(Errno::EINVAL);
            }
            if to < MIN_ADDR {
                return Err(Errno::EPERM);
            }
        }
        let shrinks = flags & (FIXED | DONTUNMAP) == 0 && old_len > 0 && new_len <= old_len;
        // A moved mapping must be one mapping.
        {
            let mut s = lock(&self.space);
            let end_of = |s: &Space| s.at(old).map(|(_, v)| v.end).ok_or(Errno::EFAULT);
            if old_end > end_of(&s)? && !shrinks {
                // It may be one but for what is in the snapshot.
                self.copy_snapshot(&mut s, old, old_end)?;
                if old_end > end_of(&s)? {
                    return Err(Errno::EFAULT);
                }
            }
            let (_, v) = s.at(old).ok_or(Errno::EFAULT)?;
            if old_len == 0 && !v.shared {
                return Err(Errno::EINVAL);
            }
        }
        if flags & FIXED != 0 {
            self.unmap(to, new_len)?;
        }
        if shrinks {
            if new_len < old_len {
                self.unmap(old + new_len, old_len - new_len)?;
            }
            return Ok(old);
        }
        if flags & (FIXED | DONTUNMAP) == 0 && old_len > 0 && self.grow(old, old_end, new_len - old_len, limit, who)? {
            return Ok(old);
        }
        if flags & MAYMOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        self.move_to(&RemapRequest { old_len, new_len, ..r })
    }

    /// Extend the mapping that ends at `end` by `more` bytes in place, if there is room.
    fn grow(&self, old: u64, end: u64, more: u64, limit: u64, who: &dyn Blocking) -> Result<bool> {
        let mut s = lock(&self.space);
        let Some((start, v)) = s.at(old) else {
            return Err(Errno::EFAULT);
        };
        let Some(new_end) = end.checked_add(more).filter(|e| *e <= self.size() - PAGE) else {
            return Ok(false);
        };
        if v.end != end || !s.is_free(end, new_end) {
            return Ok(false);
        }
        let mut piece = v.clone();
        if s.total.checked_add(more).is_none_or(|t| t > limit) {
            return Err(Errno::ENOMEM);
        }
        piece.offset = piece.offset.wrapping_add(end - start);
        (piece.end, piece.snapshot) = (new_end, false);
        if piece.charged {
            self.kernel.limits.charge_memory(more)?;
        }
        if let Backing::Shared(fd) = &piece.backing {
            super::share::extend(fd, piece.offset.saturating_add(more))?;
        }
        if let Err(e) = self.map_host(&mut piece, end, who) {
            if piece.charged {
                self.kernel.limits.release_memory(more);
            }
            let _ = self.arena().unmap(end, more);
            return Err(e);
        }
        if !piece.has_offset() {
            piece.offset = 0;
        }
        s.total += more;
        s.vmas.insert(end, piece);
        s.join(start, new_end);
        Ok(true)
    }

    fn move_to(&self, r: &RemapRequest<'_>) -> Result<u64> {
        let RemapRequest { old, old_len, new_len, flags, to, limit, who } = *r;
        let mut s = lock(&self.space);
        // Elsewhere they would not be at their place of it.
        self.copy_snapshot(&mut s, old, old + old_len)?;
        let (start, v) = s.at(old).ok_or(Errno::EFAULT)?;
        if old + old_len > v.end {
            return Err(Errno::EFAULT);
        }
        let keep_old = flags & DONTUNMAP != 0 || old_len == 0;
        if flags & DONTUNMAP != 0 && v.shared {
            return Err(Errno::EINVAL);
        }
        let mut piece = v.clone();
        if piece.has_offset() {
            piece.offset = piece.offset.wrapping_add(old - start);
        }
        let added = if keep_old { new_len } else { new_len.saturating_sub(old_len) };
        if s.total.checked_add(added).is_none_or(|t| t > limit) {
            return Err(Errno::ENOMEM);
        }
        let dest =
            if flags & FIXED != 0 { to } else { s.find_free(new_len, MIN_ADDR, s.mmap_top).ok_or(Errno::ENOMEM)? };
        piece.end = dest + new_len;
        if piece.charged {
            self.kernel.limits.charge_memory(new_len)?;
        }
        if let Backing::Shared(fd) = &piece.backing {
            super::share::extend(fd, piece.offset.saturating_add(new_len))?;
        }
        let moved = old_len.min(new_len);
        let result = self.map_host(&mut piece, dest, who).and_then(|_| {
            if moved > 0 && !matches!(piece.backing, Backing::Hole(_)) {
                // One protection for all, so that the host sees one mapping.
                self.arena().protect(old, moved, piece.host_prot())?;
                if self.arena().move_pages(old, dest, moved).is_err() {
                    let mut at = 0;
                    while at < moved {
                        self.arena().move_pages(old + at, dest + at, PAGE)?;
                        at += PAGE;
                    }
                }
                self.arena().protect(dest, moved, piece.host_prot())?;
            }
            Ok(())
        });
        if let Err(e) = result {
            if piece.charged {
                self.kernel.limits.release_memory(new_len);
            }
            let _ = self.arena().unmap(dest, new_len);
            return Err(e);
        }
        let prot = piece.prot;
        let again = piece.clone();
        s.total += new_len;
        s.vmas.insert(dest, piece);
        s.join(dest, dest + new_len);
        if flags & DONTUNMAP != 0 {
            // The old range stays mapped, without its pages.
            let mut left = again;
            left.end = old + old_len;
            self.map_host(&mut left, old, who)?;
        }
        if prot & X != 0 {
            self.code_changed(&s, old, old_len.max(PAGE));
            self.code_changed(&s, dest, new_len);
        }
        drop(s);
        if !keep_old {
            self.unmap(old, old_len)?;
        }
        Ok(dest)
    }

    /// madvise(2).
    pub fn advise(&self, addr: u64, len: u64, advice: i32, who: &dyn Blocking) -> Result<()> {
        const POPULATE_WRITE: i32 = 23;
        const DONTNEED_LOCKED: i32 = 24;
        match advice {
            libc::MADV_HWPOISON | libc::MADV_SOFT_OFFLINE => return Err(Errno::EPERM),
            0..=4 | 8..=21 | POPULATE_READ | POPULATE_WRITE | DONTNEED_LOCKED => {}
            _ => return Err(Errno::EINVAL),
        }
        let end = self.range(addr, len)?;
        if addr == end {
            return Ok(());
        }
        let mut s = lock(&self.space);
        if matches!(advice, libc::MADV_DONTNEED | DONTNEED_LOCKED | libc::MADV_FREE) {
            self.leave_snapshot(&mut s, addr, end)?;
        }
        let mut code = false;
        let flag =
            matches!(advice, libc::MADV_DONTFORK | libc::MADV_DOFORK | libc::MADV_WIPEONFORK | libc::MADV_KEEPONFORK);
        if flag {
            s.split(addr);
            s.split(end);
        }
        let first = s.at(addr).map_or(addr, |(k, _)| k);
        let keys: Vec<u64> = s.vmas.range(first..end).map(|(k, _)| *k).collect();
        for k in keys {
            let Some(v) = s.vmas.get_mut(&k) else {
                continue;
            };
            let (from, to) = (k.max(addr), v.end.min(end));
            let anon = matches!(v.backing, Backing::Anon);
            match advice {
                libc::MADV_DONTFORK => v.dontfork = true,
                libc::MADV_DOFORK => v.dontfork = false,
                libc::MADV_WIPEONFORK if anon => v.wipe = true,
                libc::MADV_WIPEONFORK => return Err(Errno::EINVAL),
                libc::MADV_KEEPONFORK => v.wipe = false,
                libc::MADV_DONTNEED | DONTNEED_LOCKED => {
                    code |= v.prot & X != 0;
                    match &v.backing {
                        Backing::Copy(d) => {
                            let (d, off, prot) = (d.clone(), v.offset + (from - k), v.host_prot());
                            self.arena().map_anon(from, to - from, Prot::RW)?;
                            self.fill_from(&d, off, from, to - from, who)?;
                            self.arena().protect(from, to - from, prot)?;
                        }
                        Backing::Hole(_) => {}
                        _ => self.arena().advise(from, to - from, libc::MADV_DONTNEED)?,
                    }
                }
                libc::MADV_FREE => {
                    if !anon {
                        return Err(Errno::EINVAL);
                    }
                    code |= v.prot & X != 0;
                    // At once rather than under pressure: allowed, and the same in every run.
                    self.arena().advise(from, to - from, libc::MADV_DONTNEED)?;
                }
                libc::MADV_REMOVE => {
                    if !v.shared || v.prot & W == 0 {
                        return Err(if v.shared { Errno::EACCES } else { Errno::EINVAL });
                    }
                    code |= v.prot & X != 0;
                    self.arena().advise(from, to - from, libc::MADV_REMOVE)?;
                }
                POPULATE_READ | POPULATE_WRITE => {
                    let need = if advice == POPULATE_READ { R } else { W };
                    if v.prot & need == 0 {
                        return Err(Errno::EFAULT);
                    }
                    self.arena().advise(from, to - from, advice)?;
                }
                _ => {}
            }
        }
        let hole = !s.covered(addr, end);
        if flag {
            s.join(addr, end);
        }
        if code {
            self.code_replaced(&s, addr, end);
        }
        drop(s);
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// msync(2).
    pub fn sync(&self, addr: u64, len: u64, flags: i32) -> Result<()> {
        if flags & !(libc::MS_ASYNC | libc::MS_SYNC | libc::MS_INVALIDATE) != 0
            || flags & (libc::MS_ASYNC | libc::MS_SYNC) == libc::MS_ASYNC | libc::MS_SYNC
        {
            return Err(Errno::EINVAL);
        }
        if !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let end = self.range(addr, len).map_err(|_| Errno::ENOMEM)?;
        let mut shared = Vec::new();
        let hole = {
            let s = lock(&self.space);
            let first = s.at(addr).map_or(addr, |(k, _)| k);
            for (k, v) in s.vmas.range(first..end) {
                if v.shared && matches!(v.backing, Backing::File(_)) {
                    shared.push(((*k).max(addr), v.end.min(end)));
                }
            }
            !s.covered(addr, end)
        };
        if flags & libc::MS_SYNC != 0 {
            for (a, b) in shared {
                self.arena().sync(a, b - a)?;
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// ENOMEM unless the whole range is mapped (mlock, mincore); gives its length in pages.
    pub fn check_mapped(&self, addr: u64, len: u64) -> Result<u64> {
        let end = self.range(addr, len)?;
        if lock(&self.space).covered(addr, end) { Ok((end - addr) / PAGE) } else { Err(Errno::ENOMEM) }
    }
}
