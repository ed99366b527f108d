//! Pages that forked processes share until one of them writes: the snapshot of an address space.
//!
//! The processes of a job are in one host process, so the host cannot do that for them as fork(2) does. Instead, a *snapshot* is a memory file that has
//! private anonymous pages at their guest addresses. A process that forks writes pages that differ from it there, and maps the file in their
//! place, privately; so does its child. Who writes to such a page gets a copy of his own from the host, and the next fork finds few pages that differ.
//!
//! Invariants:
//! 1. A VMA with `snapshot` set is private, anonymous and not executable when it is set, and its host mapping is the space's snapshot, privately, at the
//!    offset that is its address.
//! 2. The file is written to only while one address space has it, and one thread runs there: what a thread writes while its page is mapped anew would be lost. (Other processes write with the space locked.)
//!    Otherwise the child gets copies of what differs.

use super::{Backing, Mm, Space, Vma, X};
use crate::errno::Result;
use crate::process::lock;
use evm_memory::PAGE;
use rustix::fs::FallocateFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

/// All snapshots of a job. Their pages are nobody's own: if no process has them mapped, nothing else counts them.
#[derive(Default)]
pub(crate) struct Snapshots(Mutex<Vec<Weak<OwnedFd>>>);

impl Snapshots {
    fn enter(&self, file: OwnedFd) -> Arc<OwnedFd> {
        let file = Arc::new(file);
        let mut all = lock(&self.0);
        all.retain(|f| f.strong_count() > 0);
        all.push(Arc::downgrade(&file));
        file
    }
    /// Bytes of memory that they have.
    pub(crate) fn bytes(&self) -> u64 {
        let blocks = |f: Arc<OwnedFd>| rustix::fs::fstat(&*f).map_or(0, |s| s.st_blocks as u64 * 512);
        lock(&self.0).iter().filter_map(Weak::upgrade).map(blocks).sum()
    }
}

/// Pages of a mapping that are copied rather: to map them anew, and to copy them when they are written, would take as long.
const FEW: u64 = 64;

impl Vma {
    fn may_be_in_snapshot(&self) -> bool {
        matches!(self.backing, Backing::Anon) && !self.shared && self.prot != 0 && self.prot & X == 0 && !self.wipe
    }
}

/// Let go of the pages of a range of the file.
fn punch(file: &OwnedFd, start: u64, len: u64) -> Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len)?)
}

impl Mm {
    /// Put what has changed into the snapshot, if nobody else has it. What cannot be is copied.
    pub(super) fn take_snapshot(&self, s: &mut Space) {
        let file = match s.snapshot.take() {
            Some(f) if Arc::strong_count(&f) > 1 => {
                s.snapshot = Some(f);
                return;
            }
            Some(f) => f,
            None => match super::share::memory_file(self.arena().size()) {
                Ok(f) => self.kernel.snapshots.enter(f),
                Err(_) => return,
            },
        };
        let all = s.vmas.iter_mut().filter(|(_, v)| v.may_be_in_snapshot() && !v.dontfork);
        let mut used = false;
        for (start, v) in all {
            let saved = self.save(&file, *start, v);
            used |= v.snapshot;
            if saved.is_err() {
                break;
            }
        }
        if used {
            let size = self.size();
            s.snapshot = Some(file);
            s.join(0, size);
        }
    }
    fn save(&self, file: &OwnedFd, start: u64, v: &mut Vma) -> Result<()> {
        let (arena, len) = (self.arena(), v.end - start);
        let runs = arena.dirty_runs(start, len, !v.snapshot)?;
        if runs.iter().map(|r| r.1).sum::<u64>() < FEW * PAGE {
            return Ok(());
        }
        if !v.snapshot {
            // What else was there once.
            punch(file, start, len)?;
        }
        for (at, len) in &runs {
            arena.write_to(file.as_fd(), *at, *len)?;
        }
        arena.map_file(start, len, v.host_prot(), false, file.as_fd(), start)?;
        v.snapshot = true;
        for (at, len) in &runs {
            // They are as present as they were; otherwise faults do that.
            let _ = arena.advise(*at, *len, super::remap::POPULATE_READ);
        }
        Ok(())
    }

    /// Pages of a range are to be zero, where they are those of the snapshot.
    pub(super) fn leave_snapshot(&self, s: &mut Space, start: u64, end: u64) -> Result<()> {
        self.each_in_snapshot(s, start, end, |at, v| Ok(self.arena().map_anon(at, v.end - at, v.host_prot())?))
    }
    /// Pages of a range are to be those of an anonymous mapping, with their contents, where they are the snapshot's.
    pub(super) fn copy_snapshot(&self, s: &mut Space, start: u64, end: u64) -> Result<()> {
        self.each_in_snapshot(s, start, end, |at, v| Ok(self.arena().renew(at, v.end - at, v.host_prot())?))
    }
    fn each_in_snapshot(
        &self,
        s: &mut Space,
        start: u64,
        end: u64,
        change: impl Fn(u64, &Vma) -> Result<()>,
    ) -> Result<()> {
        let first = s.at(start).map_or(start, |(k, _)| k);
        if !s.vmas.range(first..end).any(|(_, v)| v.snapshot) {
            return Ok(());
        }
        s.split(start);
        s.split(end);
        for (at, v) in s.vmas.range_mut(start..end).filter(|(_, v)| v.snapshot) {
            change(*at, v)?;
            v.snapshot = false;
            forget(s.snapshot.as_ref(), *at, v.end);
        }
        s.join(start, end);
        Ok(())
    }
}

/// No mapping of this space has these pages of its snapshot any more: without them it is as good for others, who have theirs.
pub(super) fn forget(file: Option<&Arc<OwnedFd>>, start: u64, end: u64) {
    if let Some(f) = file.filter(|f| Arc::strong_count(f) == 1) {
        // If the host refuses, they are there until the file is gone.
        let _ = punch(f, start, end - start);
    }
}
