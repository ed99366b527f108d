//! The first stack of a program: strings, auxiliary vector, environment, arguments.

use crate::errno::{Errno, Result};
use evm_memory::Mem;

/// What goes there.
pub(crate) struct Contents<'a> {
    pub argv: &'a [Vec<u8>],
    pub envp: &'a [Vec<u8>],
    /// Path as given to execve (AT_EXECFN).
    pub execfn: &'a [u8],
    pub random: [u8; 16],
    /// Entries without those that point to the strings here.
    pub auxv: Vec<(u64, u64)>,
}

/// Where it was put.
pub(crate) struct Placed {
    pub sp: u64,
    pub args: (u64, u64),
    pub env: (u64, u64),
    pub auxv: Vec<u8>,
}

/// Longest single argument (MAX_ARG_STRLEN).
const MAX_ARG: usize = 128 << 10;

/// E2BIG if the strings and pointers do not fit a stack of `stack` bytes (a quarter of it, 6 MiB at most).
pub(crate) fn check_size(argv: &[Vec<u8>], envp: &[Vec<u8>], stack: u64) -> Result<()> {
    let mut total = 0u64;
    for s in argv.iter().chain(envp) {
        if s.len() >= MAX_ARG {
            return Err(Errno::E2BIG);
        }
        total += s.len() as u64 + 9;
    }
    if total > (stack / 4).clamp(128 << 10, 6 << 20) { Err(Errno::E2BIG) } else { Ok(()) }
}

/// Bytes above it. Compiled WebAssembly looks at the permissions of two pages at once, so accesses to the last page of a mapping are
/// slow: programs with a shallow stack would have nothing else.
const SPARE: u64 = if cfg!(target_family = "wasm") { 2 * evm_memory::PAGE } else { 0 };

/// Write it below `top`, with words of so many bytes.
pub(crate) fn build(mem: Mem, top: u64, word: u64, c: &Contents<'_>) -> Result<Placed> {
    let mut at = top - SPARE - word; // a zero word ends the stack
    let put = |at: &mut u64, s: &[u8]| -> Result<u64> {
        *at = at.checked_sub(s.len() as u64 + 1).ok_or(Errno::E2BIG)?;
        mem.copy_in(*at, s)?;
        mem.write(*at + s.len() as u64, 0u8)?;
        Ok(*at)
    };
    let execfn = put(&mut at, c.execfn)?;
    let env_end = at;
    let mut env = Vec::with_capacity(c.envp.len());
    for s in c.envp.iter().rev() {
        env.push(put(&mut at, s)?);
    }
    env.reverse();
    let arg_end = at;
    let mut args = Vec::with_capacity(c.argv.len());
    for s in c.argv.iter().rev() {
        args.push(put(&mut at, s)?);
    }
    args.reverse();
    let arg_start = at;
    at &= !15;
    let platform = put(&mut at, if word == 4 { b"i686" } else { b"x86_64" })?;
    at = (at - 16) & !15;
    let random = at;
    mem.copy_in(random, &c.random)?;
    let mut auxv = c.auxv.clone();
    auxv.extend([
        (libc::AT_RANDOM, random),
        (libc::AT_EXECFN, execfn),
        (libc::AT_PLATFORM, platform),
        (libc::AT_NULL, 0),
    ]);
    let bytes = |v: u64| v.to_le_bytes().into_iter().take(word as usize);
    let auxv: Vec<u8> = auxv.iter().flat_map(|(k, v)| bytes(*k).chain(bytes(*v))).collect();
    let words = 1 + args.len() as u64 + 1 + env.len() as u64 + 1;
    let sp = at.checked_sub(words * word + auxv.len() as u64).ok_or(Errno::E2BIG)? & !15;
    let mut block = Vec::with_capacity((words * word) as usize + auxv.len());
    block.extend(bytes(args.len() as u64));
    for p in args.iter().chain(&[0]).chain(&env).chain(&[0]) {
        block.extend(bytes(*p));
    }
    block.extend(&auxv);
    mem.copy_in(sp, &block)?;
    Ok(Placed { sp, args: (arg_start, arg_end), env: (arg_end, env_end), auxv })
}
