//! The tables that copied code jumps through: see `evm_backend::direct`.

use crate::code::space::{ALL_ENTRIES, MAX_ENTRIES, Table};
use crate::host::direct::way_out;
use evm_backend::direct::{BIAS, HASHES, RECORD, hash};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The records of a process and the tables that find code by a hash.
///
/// Of a record, the address of its code is the way out if there is none; all is 0 if nobody has named its
/// entry index yet: copied code that jumps to 0 is sent on its way out by the fault hook. Record 0 stands for what is not found.
///
/// A target is a guest address negated and its code. Who finds the address may read the code a moment later: so a target belongs to the
/// address that had it first, and others of that hash are found by their records.
pub(crate) struct Records {
    tables: Option<Tables>,
}

struct Tables {
    records: Table<[AtomicU64; 2]>,
    hashes: Table<AtomicU32>,
    targets: Table<[AtomicU64; 2]>,
    /// How many targets were made, up to [`FEW`].
    found: AtomicU32,
}

/// From so many targets on the tables that find code by a hash have all their memory at once: two page faults for each page of them,
/// which is read first, cost more.
const FEW: u32 = 24;

/// A target that is being made: no address that code has.
const TAKEN: u64 = 1;

/// Tables that find nothing, for threads that are asked to leave.
pub(crate) fn nothing() -> std::io::Result<(u64, u64)> {
    static NOTHING: OnceLock<Option<(Table<AtomicU32>, Table<[AtomicU64; 2]>)>> = OnceLock::new();
    let t = NOTHING.get_or_init(|| Some((Table::new(HASHES).ok()?, Table::new(HASHES).ok()?)));
    let address =
        |t: &(Table<AtomicU32>, Table<[AtomicU64; 2]>)| (t.0.slice().as_ptr() as u64, t.1.slice().as_ptr() as u64);
    t.as_ref().map(address).ok_or_else(std::io::Error::last_os_error)
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
        Ok(Records {
            tables: Some(Tables {
                records,
                hashes: Table::new(HASHES)?,
                targets: Table::new(HASHES)?,
                found: AtomicU32::new(0),
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
            (records + BIAS, hashes, t.targets.slice().as_ptr() as u64)
        };
        self.tables.as_ref().map_or((0, 0, 0), all)
    }
    /// Change the code of the target of a guest address, told negated, if it has one.
    fn change_target(&self, negated: u64, code: u64) {
        if let Some(t) = &self.tables {
            let target = &t.targets.slice()[hash(negated.wrapping_neg())];
            if target[0].load(Ordering::Acquire) == negated {
                target[1].store(code, Ordering::Release);
            }
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
            let negated = pc.wrapping_neg();
            // A record that was another's, or nobody's, had no code for this address by which a target could have been made.
            let again = r[1].swap(negated, Ordering::Relaxed) == negated;
            r[0].store(code, Ordering::Release);
            if again {
                self.change_target(negated, code);
            }
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
            entries.for_each(|index| self.name(index as u32));
        }
    }
    /// Signal-safe.
    pub(super) fn drop(&self, index: u32) {
        if let Some(r) = self.record(index)
            && r[0].load(Ordering::Relaxed) != 0
        {
            r[0].store(way_out(), Ordering::Release);
            self.change_target(r[1].load(Ordering::Relaxed), way_out());
        }
    }
    /// Let indirect jumps find the record of `pc`, whose entry index it is.
    pub(super) fn remember(&self, pc: u64, index: u32) {
        if let Some(t) = &self.tables {
            t.hashes.slice()[hash(pc)].store(index * RECORD, Ordering::Release);
        }
    }
    /// The entry index of a guest address, if it was the last of its hash that was remembered.
    pub(super) fn index(&self, pc: u64) -> Option<u32> {
        let index = self.tables.as_ref()?.hashes.slice()[hash(pc)].load(Ordering::Acquire) / RECORD;
        (self.record(index)?[1].load(Ordering::Relaxed) == pc.wrapping_neg()).then_some(index)
    }
    /// Let indirect jumps find `pc`, which has this code.
    pub(crate) fn find(&self, pc: u64, index: u32, code: u64) {
        let Some(t) = &self.tables else { return };
        if t.found.load(Ordering::Relaxed) < FEW && t.found.fetch_add(1, Ordering::Relaxed) + 1 == FEW {
            t.hashes.populate(0, HASHES);
            t.targets.populate(0, HASHES);
        }
        let (at, negated) = (hash(pc), pc.wrapping_neg());
        let target = &t.targets.slice()[at];
        if pc != 0 && target[0].compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            target[1].store(code, Ordering::Release);
            target[0].store(negated, Ordering::Release);
            // What dropped the code meanwhile did not see the target.
            if self.code(index) != Some(code) {
                target[1].store(way_out(), Ordering::Release);
            }
        } else if target[0].load(Ordering::Acquire) == negated && target[1].load(Ordering::Acquire) == way_out() {
            target[1].store(code, Ordering::Release);
            if self.code(index) != Some(code) {
                target[1].store(way_out(), Ordering::Release);
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
    pub(super) fn clear(&self, entries: Range<usize>) {
        entries.filter(|index| *index != 0).for_each(|index| self.drop(index as u32));
    }
    /// The entry has no code and is nobody's. Nothing runs that jumps through the records.
    pub(super) fn forget(&self, index: u32) {
        if let Some(r) = self.record(index).filter(|_| index != 0)
            && r[0].load(Ordering::Relaxed) != 0
        {
            r[1].store(0, Ordering::Relaxed);
            r[0].store(way_out(), Ordering::Relaxed);
        }
    }
    /// Nothing is found by a hash. Nothing runs that looks.
    pub(super) fn forget_found(&mut self) -> std::io::Result<()> {
        let Some(t) = &mut self.tables else { return Ok(()) };
        if *t.found.get_mut() < FEW {
            *t.found.get_mut() = 0;
            t.hashes.discard()?;
            t.targets.discard()?;
        } else {
            // They have all their memory, and keep it.
            t.hashes.clear();
            t.targets.clear();
        }
        Ok(())
    }
}
