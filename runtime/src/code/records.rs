//! The tables that copied code jumps through: see `evm_backend::direct`.

use crate::code::tables::{ALL_ENTRIES, MAX_ENTRIES, Table};
use crate::code::targets::{self, TargetTable};
use crate::host::direct::way_out;
use evm_backend::direct::{BIAS, HASHES, RECORD, hash};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The records of a process, the table that finds them by a hash, and that of targets.
///
/// Of a record, the address of its code is the way out if there is none; all is 0 if nobody has named its
/// entry index yet: copied code that jumps to 0 is sent on its way out by the fault hook. Record 0 stands for what is not found.
pub(crate) struct Records {
    tables: Option<Tables>,
}

struct Tables {
    records: Table<[AtomicU64; 2]>,
    hashes: Table<AtomicU32>,
    /// `None`: the host has no address space for it.
    targets: OnceLock<Option<TargetTable>>,
    /// How many indices were remembered, up to [`FEW`].
    found: AtomicU32,
    /// The records that were set, which are to be emptied for another process.
    set: Mutex<Vec<u32>>,
}

/// From so many indices on the table that finds them has all its memory at once: two page faults for each page of it,
/// which is read first, cost more.
const FEW: u32 = 24;

impl Records {
    /// `used`: copied code will run.
    pub(crate) fn new(used: bool) -> std::io::Result<Records> {
        if !used {
            return Ok(Records { tables: None });
        }
        let records: Table<[AtomicU64; 2]> = Table::partly(ALL_ENTRIES, MAX_ENTRIES)?;
        records.slice()[0][0].store(way_out(), Ordering::Release);
        records.slice()[0][1].store(1, Ordering::Release);
        Ok(Records {
            tables: Some(Tables {
                records,
                hashes: Table::new(HASHES)?,
                targets: OnceLock::new(),
                found: AtomicU32::new(0),
                set: Mutex::default(),
            }),
        })
    }
    /// Whether copied code runs in this process.
    pub(crate) fn used(&self) -> bool {
        self.tables.is_some()
    }
    /// Values of the state's words `records`, `hashes` and `near_targets`.
    pub(crate) fn words(&self) -> (u64, u64, u64) {
        let all = |t: &Tables| {
            let (records, hashes) = (t.records.slice().as_ptr() as u64, t.hashes.slice().as_ptr() as u64);
            (records + BIAS, hashes, self.targets().map_or_else(targets::empty, TargetTable::address))
        };
        self.tables.as_ref().map_or((0, 0, 0), all)
    }
    fn targets(&self) -> Option<&TargetTable> {
        self.tables.as_ref()?.targets.get()?.as_ref()
    }
    /// Copied code found no memory at this address of a table of targets. Whether it does now. Signal-safe.
    pub(crate) fn open_targets(&self, addr: u64) -> bool {
        targets::open(self.targets(), addr)
    }
    /// Change the code of a guest address that is a target.
    fn change_target(&self, pc: u64, code: Option<u64>) {
        if let Some(t) = self.targets() {
            t.change(pc, code);
        }
    }
    fn record(&self, index: u32) -> Option<&[AtomicU64; 2]> {
        self.tables.as_ref()?.records.slice().get(index as usize)
    }
    /// Copied code of an entry index.
    pub(crate) fn code(&self, index: u32) -> Option<u64> {
        let code = self.record(index)?[0].load(Ordering::Acquire);
        (code != 0 && code != way_out()).then_some(code)
    }
    pub(super) fn set(&self, pc: u64, index: u32, code: u64) {
        if let Some(r) = self.record(index) {
            // A record that was another's, or nobody's, had no code for this address by which a target could have been made.
            let again = r[1].swap(pc.wrapping_neg(), Ordering::Relaxed) == pc.wrapping_neg();
            r[0].store(code, Ordering::Release);
            if !again {
                self.note(&[index]);
            } else {
                self.change_target(pc, Some(code));
                // What dropped the code meanwhile may not have seen the target.
                if self.code(index) != Some(code) {
                    self.change_target(pc, None);
                }
            }
        }
    }
    /// The same, of code that indirect jumps may go to: they are to find it without asking the run loop, unless it
    /// would take the place of what was remembered.
    pub(super) fn set_found(&self, pc: u64, index: u32, code: u64) {
        self.set(pc, index, code);
        if let Some(t) = &self.tables
            && t.hashes.slice()[hash(pc)].load(Ordering::Relaxed) == 0
        {
            self.remember(pc, index);
        }
    }
    /// Copied code names this entry.
    pub(crate) fn name(&self, index: u32) {
        if let Some(r) = self.record(index) {
            let _ = r[0].compare_exchange(0, way_out(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    /// The same of all of these, which are writable: nobody has to be sent on his way by the fault hook, which costs microseconds.
    pub(super) fn name_all(&self, entries: Range<usize>) {
        if let Some(t) = &self.tables {
            t.records.populate(entries.start, entries.len());
            // Nobody else has to do with them before they are committed, so no locked access is needed.
            for r in t.records.slice()[entries].iter().filter(|r| r[0].load(Ordering::Relaxed) == 0) {
                r[0].store(way_out(), Ordering::Release);
            }
        }
    }
    /// Signal-safe.
    pub(super) fn drop(&self, index: u32) {
        if let Some(r) = self.record(index)
            && r[0].load(Ordering::Relaxed) != 0
        {
            // A swap, as the target is looked at after that is seen: who adds it stores it and then looks here.
            r[0].swap(way_out(), Ordering::SeqCst);
            self.change_target(r[1].load(Ordering::Relaxed).wrapping_neg(), None);
        }
    }
    /// Let indirect jumps find the record of `pc`, whose entry index it is.
    pub(super) fn remember(&self, pc: u64, index: u32) {
        if let Some(t) = &self.tables {
            if t.found.load(Ordering::Relaxed) < FEW && t.found.fetch_add(1, Ordering::Relaxed) + 1 == FEW {
                t.hashes.populate(0, HASHES);
            }
            t.hashes.slice()[hash(pc)].store(index * RECORD, Ordering::Release);
        }
    }
    /// The entry index of a guest address, if it was the last of its hash that was remembered.
    pub(super) fn index(&self, pc: u64) -> Option<u32> {
        let index = self.tables.as_ref()?.hashes.slice()[hash(pc)].load(Ordering::Acquire) / RECORD;
        (self.record(index)?[1].load(Ordering::Relaxed) == pc.wrapping_neg()).then_some(index)
    }
    /// Indirect jumps go to `pc` often: they are to go to its code at once.
    pub(crate) fn add_target(&self, pc: u64) {
        let Some(t) = &self.tables else { return };
        let Some(code) = self.index(pc).and_then(|index| self.code(index)) else { return };
        if let Some(targets) = t.targets.get_or_init(|| TargetTable::new(true).ok()) {
            targets.add(pc, code);
            // What dropped the code meanwhile may not have seen the target.
            if self.index(pc).and_then(|index| self.code(index)) != Some(code) {
                targets.change(pc, None);
            }
        }
    }
    /// Make records writable that are not, see [`CodeSpace::commit`](super::space::CodeSpace::commit).
    pub(super) fn commit(&self, from: usize, len: usize) -> std::io::Result<()> {
        self.tables.as_ref().map_or(Ok(()), |t| t.records.protect(from, len, libc::PROT_READ | libc::PROT_WRITE))
    }
    /// Take over the records of these entries, which are writable.
    pub(super) fn inherit(&self, parent: &Records, entries: Range<usize>) {
        if let (Some(to), Some(from)) = (&self.tables, &parent.tables) {
            let (to, from) = (&to.records.slice()[entries.clone()], &from.records.slice()[entries]);
            for (t, f) in to.iter().zip(from).filter(|(_, f)| f[0].load(Ordering::Relaxed) != 0) {
                t[1].store(f[1].load(Ordering::Relaxed), Ordering::Relaxed);
                t[0].store(f[0].load(Ordering::Acquire), Ordering::Release);
            }
        }
    }
    /// Take over which of these records were set. (Those of images that the parent has no more are not writable here.)
    pub(super) fn inherit_noted(&self, parent: &Records, entries: &[Range<usize>]) {
        if let Some(from) = &parent.tables {
            let all = from.set.lock().unwrap_or_else(PoisonError::into_inner);
            let here = |index: &u32| entries.iter().any(|r| r.contains(&(*index as usize)));
            self.note(&all.iter().copied().filter(here).collect::<Vec<_>>());
        }
    }
    fn note(&self, indices: &[u32]) {
        if let Some(t) = &self.tables {
            t.set.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(indices);
        }
    }
    pub(super) fn clear(&self, entries: Range<usize>) {
        entries.filter(|index| *index != 0).for_each(|index| self.drop(index as u32));
    }
    /// All that were set have no code and are nobody's. Nothing runs that jumps through the records.
    pub(super) fn forget(&mut self) {
        let set = self.tables.as_mut().map(|t| std::mem::take(t.set.get_mut().unwrap_or_else(PoisonError::into_inner)));
        for r in set.iter().flatten().filter(|index| **index != 0).filter_map(|index| self.record(*index)) {
            r[1].store(0, Ordering::Relaxed);
            r[0].store(way_out(), Ordering::Relaxed);
        }
    }
    /// Nothing is found, by a hash or as a target. Nothing runs that looks.
    pub(super) fn forget_found(&mut self) -> std::io::Result<()> {
        let Some(t) = &mut self.tables else { return Ok(()) };
        if let Some(Some(targets)) = t.targets.get_mut()
            && !targets.clear()
        {
            t.targets.take();
        }
        if *t.found.get_mut() < FEW {
            *t.found.get_mut() = 0;
            t.hashes.discard()?;
        } else {
            // It has all its memory, and keeps it.
            t.hashes.clear();
        }
        Ok(())
    }
}
