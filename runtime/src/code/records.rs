//! The tables that copied code jumps through: see `evm_backend::direct`.

use crate::code::space::{MAX_ENTRIES, Table};
use crate::host::direct::way_out;
use evm_backend::direct::{BIAS, HASHES, RECORD, hash};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The records of a process and the table that finds them.
///
/// Of a record, the address of its code is the way out if there is none; all is 0 if nobody has named its
/// entry index yet: copied code that jumps to 0 is sent on its way out by the fault hook. Record 0 stands for what is not found.
pub(crate) struct Records {
    tables: Option<(Table<[AtomicU64; 4]>, Table<AtomicU32>)>,
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
        let records: Table<[AtomicU64; 4]> = Table::new(MAX_ENTRIES)?;
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
    fn record(&self, index: u32) -> Option<&[AtomicU64; 4]> {
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
    /// Start to count anew.
    pub(crate) fn cool(&self, index: u32) {
        if let Some(r) = self.record(index) {
            r[2].store(0, Ordering::Relaxed);
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
    pub(super) fn inherit(&self, parent: &Records, entries: usize) {
        if let (Some((to, _)), Some((from, _))) = (&self.tables, &parent.tables) {
            for (t, f) in to.slice().iter().zip(from.slice()).take(entries) {
                t[1].store(f[1].load(Ordering::Relaxed), Ordering::Relaxed);
                t[0].store(f[0].load(Ordering::Acquire), Ordering::Release);
            }
        }
    }
    pub(super) fn clear(&self, entries: usize) {
        (1..entries as u32).for_each(|index| self.drop(index));
    }
}
