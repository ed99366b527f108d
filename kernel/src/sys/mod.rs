//! The table of system calls: number → name, argument format and function.
//!
//! Each module of this folder has a `TABLE`; there is no other list. What is in none of them gives ENOSYS
//! and is counted under its name (from [`names`]).

pub(crate) mod compat;
pub mod fs;
pub mod info;
pub mod io;
mod ioprio;
pub mod ipc;
mod kcmp;
pub mod mm;
pub mod names;
pub mod process;
pub mod sched;
pub mod signal;
pub mod time;
pub mod trace;

use crate::errno::Result;
use crate::task::Task;
use std::sync::OnceLock;

/// One system call.
pub struct Syscall {
    /// Number (x86-64).
    pub nr: u32,
    /// Name.
    pub name: &'static str,
    /// One letter an argument. Of 32 bits: `d` int, `U` unsigned, `x` in hexadecimal, `o` in octal, `f` descriptor, `S` signal
    /// number. Of 64: `l` long, `u` unsigned, `X` in hexadecimal, `p` pointer, `s` string, `b` buffer of the length in the next
    /// argument.
    pub args: &'static str,
    /// What it does; the result goes to RAX.
    pub f: fn(&mut Task, [u64; 6]) -> Result<u64>,
}

impl Syscall {
    /// The arguments as the call's prototype has them: the upper halves of registers with 32-bit arguments are anything.
    pub fn narrowed(&self, mut args: [u64; 6]) -> [u64; 6] {
        for (a, letter) in args.iter_mut().zip(self.args.bytes()) {
            match letter {
                b'd' | b'f' | b'S' => *a = *a as i32 as u64,
                b'U' | b'x' | b'o' => *a = u64::from(*a as u32),
                _ => {}
            }
        }
        args
    }
}

/// Size of the dispatch table; x86-64 numbers in use are below.
pub const MAX: usize = 512;

static TABLES: [&[Syscall]; 9] = [
    fs::TABLE,
    io::TABLE,
    process::TABLE,
    sched::TABLE,
    mm::TABLE,
    signal::TABLE,
    time::TABLE,
    info::TABLE,
    ipc::TABLE,
];

/// The system call with a number.
pub fn lookup(nr: u32) -> Option<&'static Syscall> {
    static INDEX: OnceLock<Vec<Option<&'static Syscall>>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut v = vec![None; MAX];
        for s in TABLES.iter().copied().flatten() {
            if let Some(e) = v.get_mut(s.nr as usize) {
                *e = Some(s);
            }
        }
        v
    });
    index.get(nr as usize).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_named_right() {
        let mut seen = std::collections::HashMap::new();
        let mut twice = Vec::new();
        for s in TABLES.iter().copied().flatten() {
            if seen.insert(s.nr, s.name).is_some() {
                twice.push(s.name);
            }
            assert_eq!(names::name(s.nr), Some(s.name));
            assert!((s.nr as usize) < MAX && s.args.len() <= 6);
        }
        assert_eq!(twice, Vec::<&str>::new());
    }
}
