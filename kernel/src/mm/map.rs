//! mmap, munmap, mprotect, brk.

use super::{Backing, Label, MIN_ADDR, Mm, R, Space, Vma, W, X, host_prot, page_down, page_up};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::ipc::shm::Segment;
use crate::process::lock;
use crate::wait::Blocking;
use evm_memory::{PAGE, Prot};
use std::sync::Arc;

/// A mapping to make.
pub struct MapRequest<'a> {
    /// Address or hint.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// R, W, X bits.
    pub prot: u8,
    /// MAP_*.
    pub flags: u32,
    /// File and offset; `None` = anonymous.
    pub file: Option<(Arc<Description>, u64)>,
    /// RLIMIT_AS.
    pub limit: u64,
    /// The thread, for reads of files that have to be copied.
    pub who: &'a dyn Blocking,
}

const MAP_TYPE: u32 = 0xf;
const MAP_32BIT: u32 = 0x40;
const MAP_HUGETLB: u32 = 0x4_0000;
const MAP_SYNC: u32 = 0x8_0000;

impl Mm {
    /// mmap(2); gives the address.
    pub fn map(&self, r: MapRequest<'_>) -> Result<u64> {
        self.map_backing(r, None)
    }
    /// shmat(2): map a segment, as `r` says.
    pub(crate) fn map_segment(&self, r: MapRequest<'_>, segment: &Arc<Segment>) -> Result<u64> {
        self.map_backing(r, Some(Backing::Segment(segment.clone())))
    }
    /// shmdt(2): unmap the segment that was attached at an address; gives its number.
    pub(crate) fn unmap_segment(&self, addr: u64) -> Result<i32> {
        let (id, parts) = {
            let s = lock(&self.space);
            // As Linux: what is left of an attachment is known by where its start would be.
            let mut found: Option<Arc<Segment>> = None;
            let mut parts = Vec::new();
            for (start, v) in s.vmas.range(addr..) {
                if let Backing::Segment(g) = &v.backing
                    && start - addr == v.offset
                    && found.as_ref().is_none_or(|f| Arc::ptr_eq(f, g))
                {
                    found = Some(g.clone());
                    parts.push((*start, v.end - start));
                }
            }
            (found.ok_or(Errno::EINVAL)?.id(), parts)
        };
        for (start, len) in parts {
            self.unmap(start, len)?;
        }
        Ok(id)
    }
    fn map_backing(&self, r: MapRequest<'_>, given: Option<Backing>) -> Result<u64> {
        let fixed = r.flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) as u32 != 0;
        if r.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(r.len).ok_or(Errno::ENOMEM)?;
        let shared = match r.flags & MAP_TYPE {
            1 | 3 => true,
            2 => false,
            _ => return Err(Errno::EINVAL),
        };
        if r.flags & MAP_TYPE == 3 && r.flags & MAP_SYNC != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if r.flags & MAP_HUGETLB != 0 {
            return Err(Errno::ENOMEM); // no huge pages are set aside
        }
        if len > self.size() {
            return Err(Errno::ENOMEM);
        }
        let (mut backing, offset) = match &r.file {
            None if given.is_some() => (given.unwrap_or(Backing::Anon), 0),
            None => (Backing::Anon, 0),
            Some((d, off)) => match check_file(d, *off, len, r.prot, shared)? {
                Backing::Anon => (Backing::Anon, 0),
                b => (b, *off),
            },
        };
        let mut s = lock(&self.space);
        let addr = if fixed {
            if !r.addr.is_multiple_of(PAGE) {
                return Err(Errno::EINVAL);
            }
            let end = r.addr.checked_add(len).ok_or(Errno::ENOMEM)?;
            if end > self.size() {
                return Err(Errno::ENOMEM);
            }
            if r.addr < MIN_ADDR {
                return Err(Errno::EPERM);
            }
            if r.flags & libc::MAP_FIXED_NOREPLACE as u32 != 0 && !s.is_free(r.addr, end) {
                return Err(Errno::EEXIST);
            }
            r.addr
        } else {
            let hint = page_down(r.addr);
            let fits = hint >= MIN_ADDR
                && hint.checked_add(len).is_some_and(|e| e <= self.size() && s.is_free(hint, e))
                && (r.flags & MAP_32BIT == 0 || hint + len <= 1 << 31);
            if fits {
                hint
            } else if r.flags & MAP_32BIT != 0 {
                s.find_free(len, MIN_ADDR, (1 << 31).min(s.mmap_top)).ok_or(Errno::ENOMEM)?
            } else {
                let image = r.file.as_ref().filter(|_| !shared).and_then(|(d, offset)| {
                    let wanted = if *offset == 0 { self.wanted_address(d) } else { None };
                    let free = |at: &u64| *at <= self.size() - len && s.is_free(*at, at + len);
                    wanted.filter(free).or_else(|| s.find_image(len, &d.path))
                });
                image.or_else(|| s.find_free(len, MIN_ADDR, s.mmap_top)).ok_or(Errno::ENOMEM)?
            }
        };
        let end = addr + len;
        let replaced: u64 = s.overlap(addr, end);
        if s.total - replaced + len > r.limit {
            return Err(Errno::ENOMEM);
        }
        // In a WebAssembly module there is no other process to share with.
        if shared && matches!(backing, Backing::Anon) && !cfg!(target_family = "wasm") {
            backing = Backing::Shared(Arc::new(super::share::memory_file(len)?));
        }
        let mut v = Vma::anon(end, r.prot, Label::None);
        v.shared = shared;
        v.offset = offset;
        v.noreserve = r.flags & libc::MAP_NORESERVE as u32 != 0;
        v.stack = r.flags & libc::MAP_STACK as u32 != 0;
        v.backing = backing;
        v.charged = v.counts();
        if v.charged {
            self.kernel.limits.charge_memory(len)?;
        }
        let had_code = self.clear(&mut s, addr, end);
        let done = self.map_host(&mut v, addr, r.who);
        if let Err(e) = done {
            if v.charged {
                self.kernel.limits.release_memory(len);
            }
            let _ = self.arena.unmap(addr, len);
            return Err(e);
        }
        let valid_end = done.unwrap_or(end);
        s.total += len;
        if valid_end < end
            && let Backing::Copy(d) = &v.backing
        {
            // The part beyond the file's end.
            let mut hole = v.clone();
            hole.backing = Backing::Hole(d.clone());
            hole.offset = v.offset.wrapping_add(valid_end - addr);
            v.end = valid_end;
            s.vmas.insert(valid_end, hole);
        }
        if v.end > addr {
            s.vmas.insert(addr, v);
        }
        s.join(addr, end);
        let alias = shared && r.prot & W != 0;
        let code = had_code || alias || r.prot & X != 0;
        if code {
            self.code_changed(&s, addr, len);
        }
        if alias {
            self.shared_code_changed(&s);
        }
        drop(s);
        if code {
            self.kernel.host.mapped(self, addr);
        }
        Ok(addr)
    }

    /// Make the host mapping of a VMA at `addr`; gives the end of what is accessible.
    pub(super) fn map_host(&self, v: &mut Vma, addr: u64, who: &dyn Blocking) -> Result<u64> {
        let len = v.end - addr;
        let prot = v.host_prot();
        match &v.backing {
            Backing::Anon => self.arena.map_anon(addr, len, prot)?,
            Backing::Shared(fd) => {
                use std::os::fd::AsFd;
                self.arena.map_file(addr, len, prot, true, fd.as_fd(), v.offset)?;
            }
            Backing::Segment(g) => {
                use std::os::fd::AsFd;
                self.arena.map_file(addr, len, prot, true, g.file.as_fd(), v.offset)?;
            }
            Backing::File(d) => {
                let fd = d.file.host_fd().ok_or(Errno::ENODEV)?;
                self.arena.map_file(addr, len, prot, v.shared, fd, v.offset)?;
            }
            Backing::Hole(_) => self.arena.unmap(addr, len)?,
            Backing::Copy(d) => {
                let size = d.file.stat()?.size;
                let valid = page_up(size.saturating_sub(v.offset)).unwrap_or(len).min(len);
                if valid > 0 {
                    self.arena.map_anon(addr, valid, Prot::RW)?;
                    self.fill_from(d, v.offset, addr, valid, who)?;
                    self.arena.protect(addr, valid, prot)?;
                }
                if valid < len {
                    self.arena.unmap(addr + valid, len - valid)?;
                }
                return Ok(addr + valid);
            }
        }
        Ok(v.end)
    }

    /// Copy file contents into fresh pages.
    pub(super) fn fill_from(&self, d: &Description, off: u64, addr: u64, len: u64, who: &dyn Blocking) -> Result<()> {
        let mut buf = vec![0u8; (64 << 10).min(len as usize)];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(buf.len() as u64) as usize;
            let got = d.file.read(who, off + done, &mut buf[..n], false)?;
            if got == 0 {
                break;
            }
            self.mem().copy_in(addr + done, &buf[..got])?;
            done += got as u64;
        }
        Ok(())
    }

    /// Forget the mappings in a range (the host pages stay as they are). True if code was there.
    pub(super) fn clear(&self, s: &mut Space, start: u64, end: u64) -> bool {
        if s.is_free(start, end) {
            return false;
        }
        s.split(start);
        s.split(end);
        let keys: Vec<u64> = s.vmas.range(start..end).map(|(k, _)| *k).collect();
        let mut code = false;
        for k in keys {
            if let Some(v) = s.vmas.remove(&k) {
                code |= v.prot & X != 0;
                s.total -= v.end - k;
                if v.charged {
                    self.kernel.limits.release_memory(v.end - k);
                }
                if v.snapshot {
                    super::snapshot::forget(s.snapshot.as_ref(), k, v.end);
                }
            }
        }
        code
    }

    /// munmap(2).
    pub fn unmap(&self, addr: u64, len: u64) -> Result<()> {
        let end = self.range(addr, len)?;
        if end == addr {
            return Err(Errno::EINVAL);
        }
        let mut s = lock(&self.space);
        if s.is_free(addr, end) {
            return Ok(());
        }
        self.arena.unmap(addr, end - addr)?;
        if self.clear(&mut s, addr, end) {
            self.code_changed(&s, addr, end - addr);
        }
        Ok(())
    }

    /// End of a page-aligned range within the address space; EINVAL if it is none.
    pub(super) fn range(&self, addr: u64, len: u64) -> Result<u64> {
        if !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        addr.checked_add(len).filter(|e| *e <= self.size()).ok_or(Errno::EINVAL)
    }

    /// mprotect(2).
    pub fn protect(&self, addr: u64, len: u64, prot: u8) -> Result<()> {
        if !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|l| addr.checked_add(l)).ok_or(Errno::ENOMEM)?;
        if end == addr {
            return Ok(());
        }
        if end > self.size() {
            return Err(Errno::ENOMEM);
        }
        let mut s = lock(&self.space);
        let stop = s.first_hole(addr, end).unwrap_or(end);
        s.split(addr);
        s.split(stop);
        let keys: Vec<u64> = s.vmas.range(addr..stop).map(|(k, _)| *k).collect();
        let (mut code, mut shared) = (false, false);
        let mut result = Ok(());
        for k in keys {
            let Some(v) = s.vmas.get_mut(&k) else {
                continue;
            };
            if v.shared
                && prot & W != 0
                && let Some(d) = v.backing.description()
                && (d.flags() & libc::O_ACCMODE as u32 != libc::O_RDWR as u32
                    || crate::fs::Opened::of(d).and_then(|o| o.memory()).is_some_and(|m| m.write_sealed(true)))
            {
                result = Err(Errno::EACCES);
                break;
            }
            let before = v.prot;
            v.prot = prot;
            if prot & !before & W != 0 {
                v.noreserve = false; // reserved before, used now
            }
            if v.counts() && !v.charged {
                if let Err(e) = self.kernel.limits.charge_memory(v.end - k) {
                    v.prot = before;
                    result = Err(e);
                    break;
                }
                v.charged = true;
            }
            code |= (before | prot) & X != 0;
            shared |= v.is_shared() && prot & !before & W != 0;
            if !matches!(v.backing, Backing::Hole(_)) {
                let (end, hp) = (v.end, host_prot(prot));
                if let Err(e) = self.arena.protect(k, end - k, hp) {
                    result = Err(e.into());
                    break;
                }
            }
        }
        s.join(addr, stop);
        if code || shared {
            self.code_changed(&s, addr, stop - addr);
        }
        if shared {
            self.shared_code_changed(&s);
        }
        drop(s);
        if code {
            self.kernel.host.mapped(self, addr);
        }
        result?;
        if stop < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Set where the heap starts (execve), and how much behind that is not for images.
    pub(crate) fn set_brk(&self, start: u64, room: u64) {
        let mut s = lock(&self.space);
        if room > 0 {
            s.images_from = s.images_from.max(start.saturating_add(room) & !0xf_ffff);
        }
        s.brk_start = start;
        s.brk = start;
    }
    /// Set below what free ranges are looked for (execve).
    /// Map a page with code of the kernel's at `addr`.
    pub(crate) fn map_trampolines(&self, addr: u64, code: &[u8], who: &dyn Blocking) -> Result<()> {
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u32;
        self.map(MapRequest { addr, len: PAGE, prot: R | W, flags, file: None, limit: u64::MAX, who })?;
        self.mem().copy_in(addr, code)?;
        self.protect(addr, PAGE, R | X)?;
        if let Some(v) = lock(&self.space).vmas.get_mut(&addr) {
            v.label = Label::Trampolines;
        }
        Ok(())
    }
    pub(crate) fn set_mmap_top(&self, top: u64) {
        lock(&self.space).mmap_top = top;
    }
    fn wanted_address(&self, d: &Description) -> Option<u64> {
        let images = self.kernel.images.get()?;
        let st = d.file.stat().ok()?;
        images.get(&(st.dev, st.ino)).copied()
    }
    /// Where a position-independent image is wanted, if that is free.
    pub(crate) fn wanted(&self, d: &Description, len: u64) -> Option<u64> {
        let at = self.wanted_address(d)?;
        let end = at.checked_add(len).filter(|e| *e <= self.size())?;
        lock(&self.space).is_free(at, end).then_some(at)
    }
    /// A free range for a position-independent image.
    pub(crate) fn image_range(&self, len: u64, path: &[u8]) -> Option<u64> {
        let s = lock(&self.space);
        s.find_image(len, path).or_else(|| s.find_free(len, MIN_ADDR, s.mmap_top))
    }
    /// brk(2): the new end of the heap, or the old one if it cannot be moved. `limit` is RLIMIT_DATA, `space` RLIMIT_AS.
    pub fn brk(&self, to: u64, limit: u64, space: u64) -> u64 {
        let mut s = lock(&self.space);
        let old = s.brk;
        if to < s.brk_start || to - s.brk_start > limit {
            return old;
        }
        let (Some(from), Some(end)) = (page_up(old), page_up(to)) else {
            return old;
        };
        if end > self.size() {
            return old;
        }
        if end > from {
            // One page stays free above the heap.
            if s.total.saturating_add(end - from) > space
                || !s.is_free(from, (end + PAGE).min(self.size()))
                || self.kernel.limits.charge_memory(end - from).is_err()
            {
                return old;
            }
            if self.arena.map_anon(from, end - from, Prot::RW).is_err() {
                self.kernel.limits.release_memory(end - from);
                return old;
            }
            let mut v = Vma::anon(end, R | W, Label::Heap);
            v.charged = true;
            s.vmas.insert(from, v);
            s.total += end - from;
            s.join(from, end);
        } else if end < from && !s.is_free(end, from) {
            if self.arena.unmap(end, from - end).is_err() {
                return old;
            }
            self.clear(&mut s, end, from);
        }
        s.brk = to;
        to
    }

    /// Map the main stack: `[top - len, top)`.
    pub(crate) fn map_stack(&self, top: u64, len: u64, prot: u8) -> Result<()> {
        let mut s = lock(&self.space);
        if !s.is_free(top - len, top) {
            return Err(Errno::ENOMEM);
        }
        self.arena.map_anon(top - len, len, host_prot(prot))?;
        let mut v = Vma::anon(top, prot, Label::Stack);
        v.noreserve = true;
        s.vmas.insert(top - len, v);
        s.total += len;
        Ok(())
    }
}

impl Space {
    /// Bytes mapped in a range.
    pub fn overlap(&self, start: u64, end: u64) -> u64 {
        let from = self.at(start).map_or(start, |(s, _)| s);
        self.vmas.range(from..end).map(|(s, v)| v.end.min(end) - (*s).max(start)).sum()
    }
}

/// Whether a description can be mapped so, and how.
fn check_file(d: &Arc<Description>, off: u64, len: u64, prot: u8, shared: bool) -> Result<Backing> {
    let access = d.flags() & libc::O_ACCMODE as u32;
    if d.flags() & libc::O_PATH as u32 != 0 {
        return Err(Errno::EBADF);
    }
    if !off.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    if off.checked_add(len).is_none_or(|e| e > i64::MAX as u64) {
        return Err(Errno::EOVERFLOW);
    }
    if access == libc::O_WRONLY as u32 {
        return Err(Errno::EACCES);
    }
    if shared && prot & W != 0 && access != libc::O_RDWR as u32 {
        return Err(Errno::EACCES);
    }
    let st = d.file.stat()?;
    if shared && crate::fs::Opened::of(d).and_then(|o| o.memory()).is_some_and(|m| m.write_sealed(prot & W != 0)) {
        return Err(Errno::EPERM);
    }
    match st.mode & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFCHR if st.rdev == libc::makedev(1, 5) => return Ok(Backing::Anon), // /dev/zero: shared anonymous memory if shared
        _ if d.file.host_fd().is_some() => {}
        _ => return Err(Errno::ENODEV),
    }
    if d.file.host_fd().is_some() {
        return Ok(Backing::File(d.clone()));
    }
    if shared && prot & W != 0 || !d.file.copied() {
        return Err(Errno::ENODEV); // writes could not reach the file, or it has no pages (as those of /proc)
    }
    Ok(Backing::Copy(d.clone()))
}
