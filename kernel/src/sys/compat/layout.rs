//! Structures in the two layouts, and the conversion between them.

use crate::errno::{Errno, Result};
use crate::mm::scratch::Scratch;
use crate::task::Task;
use evm_memory::Mem;

/// A field: offset and size in the 32-bit structure, then in the 64-bit one.
pub(super) struct Field(pub u16, pub u16, pub u16, pub u16, pub Kind);

/// How a field changes its size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A signed number; what does not fit is cut off.
    Int,
    /// An unsigned number or an address; what does not fit is cut off.
    Word,
    /// An unsigned number that must fit (EOVERFLOW).
    Fits,
    /// A limit: all ones, and all that does not fit, mean none.
    Limit,
}

use Kind::{Fits, Int, Limit, Word};

/// A structure.
pub(super) struct Layout {
    /// Size of the 64-bit structure.
    pub wide: u64,
    /// Size of the 32-bit structure.
    pub narrow: u64,
    pub fields: &'static [Field],
}

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident $narrow:literal $wide:literal { $($o:literal $s:literal $wo:literal $ws:literal $k:ident),* $(,)? })*) => {
        $( $(#[$doc])* pub(super) static $name: Layout =
            Layout { narrow: $narrow, wide: $wide, fields: &[ $( Field($o, $s, $wo, $ws, $k) ),* ] }; )*
    };
}

layouts! {
    TIMESPEC 8 16 { 0 4 0 8 Int, 4 4 8 8 Int }
    /// The structure of the calls of 64-bit time: the upper half of the nanoseconds is not looked at.
    TIMESPEC64 16 16 { 0 8 0 8 Int, 8 4 8 8 Int }
    TIMEVAL 8 16 { 0 4 0 8 Int, 4 4 8 8 Int }
    TIMESPECS 16 32 { 0 4 0 8 Int, 4 4 8 8 Int, 8 4 16 8 Int, 12 4 24 8 Int }
    TIMESPECS64 32 32 { 0 8 0 8 Int, 8 4 8 8 Int, 16 8 16 8 Int, 24 4 24 8 Int }
    UTIMBUF 8 16 { 0 4 0 8 Int, 4 4 8 8 Int }
    TMS 16 32 { 0 4 0 8 Int, 4 4 8 8 Int, 8 4 16 8 Int, 12 4 24 8 Int }
    RLIMIT 8 16 { 0 4 0 8 Limit, 4 4 8 8 Limit }
    RUSAGE 72 144 {
        0 4 0 8 Int, 4 4 8 8 Int, 8 4 16 8 Int, 12 4 24 8 Int, 16 4 32 8 Int, 20 4 40 8 Int, 24 4 48 8 Int, 28 4 56 8 Int,
        32 4 64 8 Int, 36 4 72 8 Int, 40 4 80 8 Int, 44 4 88 8 Int, 48 4 96 8 Int, 52 4 104 8 Int, 56 4 112 8 Int,
        60 4 120 8 Int, 64 4 128 8 Int, 68 4 136 8 Int,
    }
    /// struct stat of the calls without 64 in their names.
    STAT 64 144 {
        0 4 0 8 Fits, 4 4 8 8 Fits, 8 2 24 4 Word, 10 2 16 8 Word, 12 2 28 4 Word, 14 2 32 4 Word, 16 4 40 8 Fits,
        20 4 48 8 Fits, 24 4 56 8 Word, 28 4 64 8 Fits, 32 4 72 8 Int, 36 4 80 8 Int, 40 4 88 8 Int, 44 4 96 8 Int,
        48 4 104 8 Int, 52 4 112 8 Int,
    }
    STAT64 96 144 {
        0 8 0 8 Word, 12 4 8 8 Word, 16 4 24 4 Word, 20 4 16 8 Word, 24 4 28 4 Word, 28 4 32 4 Word, 32 8 40 8 Word,
        44 8 48 8 Word, 52 4 56 8 Word, 56 8 64 8 Word, 64 4 72 8 Int, 68 4 80 8 Int, 72 4 88 8 Int, 76 4 96 8 Int,
        80 4 104 8 Int, 84 4 112 8 Int, 88 8 8 8 Word,
    }
    STATFS 64 120 {
        0 4 0 8 Word, 4 4 8 8 Word, 8 4 16 8 Fits, 12 4 24 8 Fits, 16 4 32 8 Fits, 20 4 40 8 Fits, 24 4 48 8 Fits,
        28 8 56 8 Word, 36 4 64 8 Word, 40 4 72 8 Word, 44 4 80 8 Word,
    }
    STATFS64 84 120 {
        0 4 0 8 Word, 4 4 8 8 Word, 8 8 16 8 Word, 16 8 24 8 Word, 24 8 32 8 Word, 32 8 40 8 Word, 40 8 48 8 Word,
        48 8 56 8 Word, 56 4 64 8 Word, 60 4 72 8 Word, 64 4 80 8 Word,
    }
    FLOCK 16 32 { 0 2 0 2 Int, 2 2 2 2 Int, 4 4 8 8 Int, 8 4 16 8 Int, 12 4 24 4 Int }
    FLOCK64 24 32 { 0 2 0 2 Int, 2 2 2 2 Int, 4 8 8 8 Int, 12 8 16 8 Int, 20 4 24 4 Int }
    SIGACTION 20 32 { 0 4 0 8 Word, 4 4 8 8 Word, 8 4 16 8 Word, 12 8 24 8 Word }
    /// struct old_sigaction, with a mask of 32 signals.
    OLD_SIGACTION 16 32 { 0 4 0 8 Word, 4 4 24 8 Word, 8 4 8 8 Word, 12 4 16 8 Word }
    ALTSTACK 12 24 { 0 4 0 8 Word, 4 4 8 4 Word, 8 4 16 8 Word }
    SIGEVENT 64 64 { 0 4 0 8 Word, 4 4 8 4 Int, 8 4 12 4 Int, 12 4 16 4 Int }
    IOVEC 8 16 { 0 4 0 8 Word, 4 4 8 8 Word }
    MSGHDR 28 56 { 0 4 0 8 Word, 4 4 8 4 Word, 8 4 16 8 Word, 12 4 24 8 Word, 16 4 32 8 Word, 20 4 40 8 Word, 24 4 48 4 Word }
    /// The sixth argument of pselect6: address and size of a signal set.
    SIGSET_AND_SIZE 8 16 { 0 4 0 8 Word, 4 4 8 8 Word }
    /// struct shmid64_ds: owner, size, times, counts.
    SHMID 84 112 {
        0 4 0 4 Word, 4 4 4 4 Word, 8 4 8 4 Word, 12 4 12 4 Word, 16 4 16 4 Word, 20 2 20 4 Word, 24 2 24 2 Word,
        36 4 48 8 Word, 40 8 56 8 Word, 48 8 64 8 Word, 56 8 72 8 Word, 64 4 80 4 Word, 68 4 84 4 Word, 72 4 88 8 Word,
    }
    MSQID 88 120 {
        0 4 0 4 Word, 4 4 4 4 Word, 8 4 8 4 Word, 12 4 12 4 Word, 16 4 16 4 Word, 20 2 20 4 Word, 24 2 24 2 Word,
        36 8 48 8 Word, 44 8 56 8 Word, 52 8 64 8 Word, 60 4 72 8 Word, 64 4 80 8 Word, 68 4 88 8 Word, 72 4 96 4 Word,
        76 4 100 4 Word,
    }
    SEMID 64 104 {
        0 4 0 4 Word, 4 4 4 4 Word, 8 4 8 4 Word, 12 4 12 4 Word, 16 4 16 4 Word, 20 2 20 4 Word, 24 2 24 2 Word,
        36 8 48 8 Word, 44 8 64 8 Word, 52 4 80 8 Word,
    }
    SHMINFO 36 72 { 0 4 0 8 Limit, 4 4 8 8 Word, 8 4 16 8 Word, 12 4 24 8 Word, 16 4 32 8 Limit }
    SHM_INFO 24 48 { 0 4 0 4 Int, 4 4 8 8 Word, 8 4 16 8 Word, 12 4 24 8 Word, 16 4 32 8 Word, 20 4 40 8 Word }
    MQ_ATTR 32 64 { 0 4 0 8 Int, 4 4 8 8 Int, 8 4 16 8 Int, 12 4 24 8 Int }
    TIMEX 128 208 {
        0 4 0 4 Word, 4 4 8 8 Int, 8 4 16 8 Int, 12 4 24 8 Int, 16 4 32 8 Int, 20 4 40 4 Int, 24 4 48 8 Int, 28 4 56 8 Int,
        32 4 64 8 Int, 36 4 72 8 Int, 40 4 80 8 Int, 44 4 88 8 Int, 48 4 96 8 Int, 52 4 104 8 Int, 56 4 112 4 Int,
        60 4 120 8 Int, 64 4 128 8 Int, 68 4 136 8 Int, 72 4 144 8 Int, 76 4 152 8 Int, 80 4 160 4 Int,
    }
}

impl Layout {
    /// The 64-bit structure of a 32-bit one.
    pub fn widen(&self, from: &[u8]) -> Vec<u8> {
        let mut to = vec![0; self.wide as usize];
        for Field(o, s, wo, ws, kind) in self.fields {
            let v = number(from, *o, *s, *kind == Int);
            let v = if *kind == Limit && v == u64::from(u32::MAX) { u64::MAX } else { v };
            to[usize::from(*wo)..usize::from(wo + ws)].copy_from_slice(&v.to_le_bytes()[..usize::from(*ws)]);
        }
        to
    }
    /// Put the values of a 64-bit structure into a 32-bit one.
    pub fn narrow(&self, from: &[u8], to: &mut [u8]) -> Result<()> {
        for Field(o, s, wo, ws, kind) in self.fields {
            let v = number(from, *wo, *ws, *kind == Int);
            let most = u64::MAX >> (64 - 8 * u32::from(*s));
            let v = match kind {
                Fits if v > most => return Err(Errno::EOVERFLOW),
                Limit => v.min(most),
                _ => v,
            };
            to[usize::from(*o)..usize::from(o + s)].copy_from_slice(&v.to_le_bytes()[..usize::from(*s)]);
        }
        Ok(())
    }
}

fn number(b: &[u8], at: u16, size: u16, signed: bool) -> u64 {
    let mut v = [0; 8];
    v[..usize::from(size)].copy_from_slice(&b[usize::from(at)..usize::from(at + size)]);
    let (v, unused) = (u64::from_le_bytes(v), 64 - 8 * u32::from(size));
    if signed { ((v << unused) as i64 >> unused) as u64 } else { v }
}

/// Scratch memory of one call, and the guest's.
pub(super) struct Area {
    scratch: Scratch,
    pub mem: Mem,
}

impl Area {
    pub fn new(t: &Task) -> Result<Area> {
        Ok(Area { scratch: Scratch::new(t.mm())?, mem: t.mem() })
    }
    /// Room for `len` bytes, zeroed.
    pub fn room(&mut self, len: u64) -> Result<u64> {
        let at = self.scratch.take(len)?;
        self.mem.fill(at, len, 0)?;
        Ok(at)
    }
    /// Most that [`Area::room`] can give.
    pub fn left(&self) -> u64 {
        self.scratch.left()
    }
    /// Room for a structure that the call gives; 0 if the guest wants none.
    pub fn out(&mut self, at: u64, l: &Layout) -> Result<u64> {
        if at == 0 { Ok(0) } else { self.room(l.wide) }
    }
    /// These bytes in scratch memory.
    pub fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.scratch.take(bytes.len() as u64)?;
        self.mem.copy_in(at, bytes)?;
        Ok(at)
    }
    /// The guest's structure at `at`, widened; 0 for 0.
    pub fn widen(&mut self, at: u64, l: &Layout) -> Result<u64> {
        if at == 0 {
            return Ok(0);
        }
        self.widen_all(at, 1, l)
    }
    /// An array of structures.
    pub fn widen_all(&mut self, at: u64, n: u64, l: &Layout) -> Result<u64> {
        let to = self.scratch.take(n * l.wide)?;
        let mut b = vec![0; l.narrow as usize];
        for i in 0..n {
            self.mem.copy_out(end32(at.wrapping_add(i * l.narrow)), &mut b)?;
            self.mem.copy_in(to + i * l.wide, &l.widen(&b))?;
        }
        Ok(to)
    }
    /// The structure at `from` in scratch memory goes to the guest's `to`, unless that is 0.
    pub fn narrow(&self, from: u64, to: u64, l: &Layout) -> Result<()> {
        if to == 0 {
            return Ok(());
        }
        let (mut wide, mut b) = (vec![0; l.wide as usize], vec![0; l.narrow as usize]);
        self.mem.copy_out(from, &mut wide)?;
        l.narrow(&wide, &mut b)?;
        Ok(self.mem.copy_in(to, &b)?)
    }
}

/// An address modulo 2^32.
pub(super) fn end32(at: u64) -> u64 {
    at & 0xffff_ffff
}
