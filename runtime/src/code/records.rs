//! The tables that copied code jumps through: see `evm_backend::direct`.

use crate::code::space::{ALL_ENTRIES, MAX_ENTRIES, Table};
use crate::host::direct::way_out;
use evm_backend::direct::{BIAS, HASHES, RECORD, hash};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The records of a process and the table that finds them.
///
/// Of a record, the address of its code is the way out if there is none; all is 0 if nobody has named its
/// entry index yet: copied code that jumps to 0 is sent on its way out by the fault hook. Record 0 stands for what is not found.
pub(crate) struct Records {
    tables: Option<(Table<[AtomicU64; 2]>, Table<AtomicU32>)>,
}

/// A table that finds nothing, for threads that are asked to leave.
pub(crate) fn nothing() -> std::io::Result<u64> {
    static NOTHING: OnceLock<Option<Table<AtomicU32>>> = OnceLock::new();
    let t = NOTHING.get_or_init(|| Table::new(HASHES).ok());
    t.as_ref().map(|t| t.slice().as_ptr() as u64).ok_or_else(std::io::Error::last_os_error)
}

impl Records {
    /// `used`: copied code will run.
    pub(crate) fn new(used: bool) -> std::io::Result<Records> {
        if !used {
            return Ok(Records { tables: None });
        }
        nothing()?;
        let records: Table<[AtomicU64; 2]> = Table::partly(ALL_ENTRIES, MAX_ENTRIES)?;
        records.slice()[0][0].store(way_out(), Ordering::Release);
        records.slice()[0][1].store(1, Ordering::Release);
        Ok(Records { tables: Some((records, Table::new(HASHES)?)) })
    }
    /// Whether copied code runs in this process.
    pub(crate) fn used(&self) -> bool {
        self.tables.is_some()
    }
    /// Values of the state's words `records` and `hashes`.
    pub(crate) fn words(&self) -> (u64, u64) {
        match &self.tables {
            Some((r, h)) => (r.slice().as_ptr() as u64 + BIAS, h.slice().as_ptr() as u64),
            None => (0, 0),
        }
    }
    fn record(&self, index: u32) -> Option<&[AtomicU64; 2]> {
        self.tables.as_ref()?.0.slice().get(index as usize)
    }
    /// Copied code of an entry index.
    pub(crate) fn code(&self, index: u32) -> Option<u64> {
        let code = self.record(index)?[0].load(Ordering::Acquire);
        (code != 0 && code != way_out()).then_some(code)
    }
    pub(super) fn set(&self, pc: u64, index: u32, code: u64) {
        if let Some(r) = self.record(index) {
            r[1].store(pc.wrapping_neg(), Ordering::Relaxed);
            r[0].store(code, Ordering::Release);
        }
    }
    /// Copied code names this entry.
    pub(crate) fn name(&self, index: u32) {
        if let Some(r) = self.record(index) {
            let _ = r[0].compare_exchange(0, way_out(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    /// Signal-safe.
    pub(super) fn drop(&self, index: u32) {
        if let Some(r) = self.record(index)
            && r[0].load(Ordering::Relaxed) != 0
        {
            r[0].store(way_out(), Ordering::Release);
        }
    }
    /// Let indirect jumps find the record of `pc`.
    pub(crate) fn find(&self, pc: u64, index: u32) {
        if let Some((_, hashes)) = &self.tables {
            hashes.slice()[hash(pc)].store(index * RECORD, Ordering::Release);
        }
    }
    /// Make records writable that are not, see [`CodeSpace::commit`](super::space::CodeSpace::commit).
    pub(super) fn commit(&self, from: usize, len: usize) -> std::io::Result<()> {
        self.tables.as_ref().map_or(Ok(()), |t| t.0.protect(from, len, libc::PROT_READ | libc::PROT_WRITE))
    }
    /// Take over the records of these entries, which are writable.
    pub(super) fn inherit(&self, parent: &Records, entries: Range<usize>) {
        if let (Some((to, _)), Some((from, _))) = (&self.tables, &parent.tables) {
            let (to, from) = (&to.slice()[entries.clone()], &from.slice()[entries]);
            for (t, f) in to.iter().zip(from).filter(|(_, f)| f[0].load(Ordering::Relaxed) != 0) {
                t[1].store(f[1].load(Ordering::Relaxed), Ordering::Relaxed);
                t[0].store(f[0].load(Ordering::Acquire), Ordering::Release);
            }
        }
    }
    pub(super) fn clear(&self, entries: Range<usize>) {
        entries.filter(|index| *index != 0).for_each(|index| self.drop(index as u32));
    }
}
