//! Accesses made of others, the same on every host: typed reads and writes, read-modify-write, strings.

use crate::{Fault, Mem, PAGE};

/// Integer types that guest memory can be read and written as.
pub trait Scalar: Copy + Sized {
    /// Size in bytes.
    const SIZE: u64;
    /// Little-endian value from the low bits.
    fn from_u64(v: u64) -> Self;
    /// Value in the low bits.
    fn to_u64(self) -> u64;
}
macro_rules! scalar { ($($t:ty)*) => { $( impl Scalar for $t {
    const SIZE: u64 = size_of::<$t>() as u64;
    #[inline(always)] fn from_u64(v: u64) -> Self { v as $t }
    #[inline(always)] fn to_u64(self) -> u64 { self as u64 }
} )* } }
scalar!(u8 u16 u32 u64 i8 i16 i32 i64);

macro_rules! rmw {
    ($name:ident, $doc:literal, $body:expr) => {
        #[doc = $doc]
        #[inline]
        pub fn $name(&self, addr: u64, size: u64, val: u64) -> Result<u64, Fault> {
            let f: fn(u64, u64) -> u64 = $body;
            loop {
                let old = self.load(addr, size).map_err(|f| Fault { write: true, ..f })?;
                if self.cas(addr, size, old, f(old, val))? == old {
                    return Ok(old);
                }
            }
        }
    };
}

impl Mem {
    rmw!(fetch_add, "Atomic add; gives the old value.", |a, b| a.wrapping_add(b));
    rmw!(fetch_and, "Atomic and; gives the old value.", |a, b| a & b);
    rmw!(fetch_or, "Atomic or; gives the old value.", |a, b| a | b);
    rmw!(fetch_xor, "Atomic exclusive or; gives the old value.", |a, b| a ^ b);
    rmw!(swap, "Atomic exchange; gives the old value.", |_, b| b);

    /// Fault as a write of `size` bytes, no more than a page, would: at its start, or where it crosses into the next page.
    pub fn probe_write(&self, addr: u64, size: u64) -> Result<(), Fault> {
        let second = addr.wrapping_add(size - 1) & !(PAGE - 1);
        // An atomic or with 0 asks for what a write asks for, and writes what is there.
        self.fetch_or(addr, 1, 0)?;
        if second > addr {
            self.fetch_or(second, 1, 0)?;
        }
        Ok(())
    }
    /// [`Mem::probe_write`] where a write lies in two pages, so that its parts are all written or none.
    pub fn whole(&self, addr: u64, size: u64) -> Result<(), Fault> {
        if addr % PAGE > PAGE - size { self.probe_write(addr, size) } else { Ok(()) }
    }
    /// Read a scalar.
    pub fn read<T: Scalar>(&self, addr: u64) -> Result<T, Fault> {
        self.load(addr, T::SIZE).map(T::from_u64)
    }
    /// Write a scalar.
    pub fn write<T: Scalar>(&self, addr: u64, v: T) -> Result<(), Fault> {
        self.store(addr, T::SIZE, v.to_u64())
    }
    /// A NUL-terminated string of at most `max` bytes (without the NUL); `Ok(None)` if it is longer.
    pub fn read_cstr(&self, addr: u64, max: usize) -> Result<Option<Vec<u8>>, Fault> {
        let mut out = Vec::new();
        let mut at = addr;
        while out.len() <= max {
            let chunk = (256 - (at & 255)) as usize;
            let mut buf = [0u8; 256];
            self.copy_out(at, &mut buf[..chunk])?;
            if let Some(n) = buf[..chunk].iter().position(|b| *b == 0) {
                out.extend_from_slice(&buf[..n]);
                return Ok((out.len() <= max).then_some(out));
            }
            out.extend_from_slice(&buf[..chunk]);
            at += chunk as u64;
        }
        Ok(None)
    }
}
