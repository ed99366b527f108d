//! System calls of 32-bit programs (int 0x80): the i386 table, on top of the functions of the 64-bit one.
//!
//! Where numbers and structures are the same, the function is called with the arguments zero-extended (descriptors and
//! other `int`s sign-extended, by the letters of its argument format). Where structures differ, a function here puts
//! them into scratch memory in the 64-bit layout ([`layout`]), calls, and converts what comes back. What is in
//! neither way in [`table`] gives ENOSYS.

mod fs;
mod io;
mod ipc;
mod layout;
mod message;
mod process;
mod signal;
mod table;
#[cfg(test)]
mod tests;
mod time;

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::task::Task;
use std::sync::OnceLock;

pub(crate) use signal::info32;

/// A row of the i386 table.
struct Row {
    /// The i386 number.
    nr: u32,
    /// The x86-64 call that it is, or is made of; also what it counts as.
    native: u32,
    /// The call, where it is not just that of the 64-bit table.
    own: Option<Syscall>,
}

/// A call of a 32-bit program.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The x86-64 number that it counts as.
    pub native: u32,
    pub entry: Option<&'static Syscall>,
}

impl Call {
    /// The arguments as the call's function takes them.
    pub fn arguments(&self, args: [u32; 6]) -> [u64; 6] {
        let letters = self.entry.map_or(&b""[..], |e| e.args.as_bytes());
        let mut out = args.map(u64::from);
        for (v, l) in out.iter_mut().zip(letters) {
            if matches!(l, b'd' | b'f') {
                *v = *v as u32 as i32 as u64;
            }
        }
        out
    }
}

/// Numbers in use are below.
const MAX: usize = 512;

/// The call with an i386 number.
pub(crate) fn lookup(nr: u32) -> Option<Call> {
    static INDEX: OnceLock<Vec<Option<Call>>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut v = vec![None; MAX];
        for r in table::rows() {
            let entry = r.own.as_ref().or_else(|| super::lookup(r.native));
            if let Some(e) = v.get_mut(r.nr as usize) {
                *e = Some(Call { native: r.native, entry });
            }
        }
        v
    });
    index.get(nr as usize).copied().flatten()
}

/// Call a function of the 64-bit table.
fn native(t: &mut Task, nr: i64, args: &[u64]) -> Result<u64> {
    let Some(s) = super::lookup(nr as u32) else {
        return Err(Errno::ENOSYS);
    };
    let mut a = [0; 6];
    a[..args.len()].copy_from_slice(args);
    (s.f)(t, a)
}

/// A 64-bit argument from its two halves.
fn join(low: u64, high: u64) -> u64 {
    low & 0xffff_ffff | high << 32
}
