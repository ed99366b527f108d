//! Programs: finding the file to execute (scripts, interpreters), building its address space, switching to it.
//!
//! A new address space is complete before anything of the old program is given up, so that every error of execve(2)
//! leaves the caller as it was.

pub(crate) mod bytes;
mod elf;
mod stack;
#[cfg(test)]
mod tests;

use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::kernel::Kernel;
use crate::mm::scratch::SIZE_32;
use crate::mm::{Mm, R, W, X, image_place, page_down, page_up};
use crate::process::{Credentials, Image};
use crate::wait::Blocking;
use elf::Elf;
use evm_memory::PAGE;
use std::ops::Range;
use std::sync::Arc;

/// Opens a guest path for execution.
pub(crate) type Opener<'a> = &'a dyn Fn(&[u8]) -> Result<Arc<Description>>;

/// Longest `#!` line.
const SHEBANG: usize = 256;
/// Deepest nesting of scripts.
const DEPTH: usize = 5;
/// Room left between the stack and the other mappings.
const STACK_GAP: u64 = 1 << 20;

/// What to execute.
pub(crate) struct Request<'a> {
    pub file: Arc<Description>,
    /// Path as given, for AT_EXECFN and for scripts.
    pub path: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
    pub stack_limit: u64,
    /// The caller's personality(2).
    pub personality: u32,
    pub cred: &'a Credentials,
    pub open: Opener<'a>,
    pub who: &'a dyn Blocking,
}

/// A program ready to run.
pub(crate) struct Prepared {
    pub image: Image,
    pub entry: u64,
    pub comm: Vec<u8>,
}

/// Last component of a path, cut to the 15 bytes of a thread name.
pub(crate) fn comm_of(path: &[u8]) -> Vec<u8> {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    name[..name.len().min(15)].to_vec()
}

/// Interpreter and argument of a script.
type Shebang = (Vec<u8>, Option<Vec<u8>>);

/// The interpreter and argument of a `#!` line.
fn parse_shebang(line: &[u8]) -> Result<Option<Shebang>> {
    let Some(rest) = line.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let (text, whole) = match rest.iter().position(|b| *b == b'\n' || *b == 0) {
        Some(n) => (&rest[..n], true),
        None => (rest, line.len() < SHEBANG),
    };
    let start = text.iter().position(|b| !blank(b)).ok_or(Errno::ENOEXEC)?;
    let text = &text[start..];
    let end = text.iter().position(blank);
    if end.is_none() && !whole {
        return Err(Errno::ENOEXEC); // the path itself is cut off
    }
    let (path, arg) = text.split_at(end.unwrap_or(text.len()));
    if path.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let first = arg.iter().position(|b| !blank(b));
    let last = arg.iter().rposition(|b| !blank(b));
    let arg = match (first, last) {
        (Some(a), Some(b)) => Some(arg[a..=b].to_vec()),
        _ => None,
    };
    Ok(Some((path.to_vec(), arg)))
}

/// Where position-independent programs are mapped, in address spaces that reach that far. Each path has its place, so that the
/// translations of all programs of a job are used.
const PROGRAMS: Range<u64> = 0x1000_0000..0x3000_0000;
/// Distance of these places.
const PROGRAM_STEP: u64 = 64 << 10;
/// Where the return trampolines for signal handlers of 32-bit programs are: above the stack.
pub(crate) const TRAMPOLINES_32: u64 = SIZE_32 - 2 * PAGE;

/// personality(2): addresses shall be the same each time.
const ADDR_NO_RANDOMIZE: u32 = 0x004_0000;

/// Bytes that no image is put in behind a program whose heap starts there.
const DUMPED_HEAP: u64 = 512 << 20;

/// Build the address space of a program.
pub(crate) fn prepare(kernel: &Arc<Kernel>, mut r: Request<'_>) -> Result<Prepared> {
    let execfn = r.path.clone();
    stack::check_size(&r.argv, &r.envp, r.stack_limit)?;
    if r.argv.is_empty() {
        r.argv.push(Vec::new()); // as Linux 5.18 and later
    }
    let name = comm_of(&r.path);
    let mut depth = 0;
    let elf = loop {
        let mut head = [0u8; SHEBANG];
        let mut n = 0;
        while n < head.len() {
            match r.file.file.read(r.who, n as u64, &mut head[n..], false)? {
                0 => break,
                k => n += k,
            }
        }
        match parse_shebang(&head[..n])? {
            None => break Elf::parse(&r.file, r.who)?,
            Some((interp, arg)) => {
                depth += 1;
                if depth > DEPTH {
                    return Err(Errno::ELOOP);
                }
                let script = std::mem::replace(&mut r.path, interp.clone());
                let mut argv = vec![interp.clone()];
                argv.extend(arg);
                argv.push(script);
                argv.extend(r.argv.drain(..).skip(1));
                r.argv = argv;
                r.file = (r.open)(&interp)?;
            }
        }
    };
    let interp = match &elf.interp {
        None => None,
        Some(path) => {
            let file = (r.open)(path)?;
            let i = Elf::parse(&file, r.who).map_err(|e| if e == Errno::ENOEXEC { libbad() } else { e })?;
            if i.bits != elf.bits {
                return Err(libbad());
            }
            Some((i, file))
        }
    };
    let mm = Mm::new(kernel, elf.bits)?;
    let size = mm.size();
    let mut top = size - PAGE;
    if elf.bits == 32 {
        top = TRAMPOLINES_32 - PAGE;
        mm.map_trampolines(TRAMPOLINES_32, &crate::signal::frame32::TRAMPOLINES, r.who)?;
    }
    let stack_len = page_up(r.stack_limit).unwrap_or(u64::MAX).clamp(128 << 10, page_down(size / 8).min(1 << 30));
    mm.set_mmap_top(top - stack_len - STACK_GAP);
    let exec_stack = if elf.exec_stack { R | W | X } else { R | W };
    mm.map_stack(top, stack_len, exec_stack)?;
    let (low, high) = elf.span()?;
    let base = match size / 8 < PROGRAMS.end || high - low > PROGRAMS.end - PROGRAMS.start {
        true => page_down(size / 8).min(PROGRAMS.start),
        false => image_place(PROGRAMS, PROGRAM_STEP, high - low, &r.file.path),
    };
    let main = elf.load(&mm, &r.file, Some(base), r.who)?;
    let dumped = r.personality & ADDR_NO_RANDOMIZE != 0 && !elf.position_independent && elf.bits == 64;
    if dumped {
        // Programs that are dumps of themselves (GCL's, old Emacs) ask for this: their heap goes on where their data ends.
        mm.set_brk(main.brk, DUMPED_HEAP);
    } else {
        // The heap starts away from the images, where it has room to grow, or behind a program that reaches that far.
        mm.set_brk(page_up(main.brk).ok_or(Errno::ENOEXEC)?.max(page_down(size / 4)), 0);
    }
    let (entry, base) = match &interp {
        None => (main.entry, 0),
        Some((i, file)) => {
            let l = i.load(&mm, file, None, r.who)?;
            (l.entry, l.bias)
        }
    };
    let mut random = [0u8; 16];
    kernel.random(&mut random);
    let c = r.cred;
    let (hwcap, hwcap2) = kernel.config.hwcap;
    let min_stack = match elf.bits {
        32 => crate::signal::frame32::min_stack(kernel),
        _ => crate::signal::frame::min_stack(kernel),
    } as u64;
    let auxv = vec![
        (libc::AT_MINSIGSTKSZ, min_stack),
        (libc::AT_HWCAP, hwcap),
        (libc::AT_PAGESZ, PAGE),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, main.phdr),
        (libc::AT_PHENT, elf.phent as u64),
        (libc::AT_PHNUM, u64::from(elf.phnum)),
        (libc::AT_BASE, base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, main.entry),
        (libc::AT_UID, u64::from(c.uid)),
        (libc::AT_EUID, u64::from(c.euid)),
        (libc::AT_GID, u64::from(c.gid)),
        (libc::AT_EGID, u64::from(c.egid)),
        (libc::AT_SECURE, 0),
        (libc::AT_HWCAP2, hwcap2),
    ];
    let contents = stack::Contents { argv: &r.argv, envp: &r.envp, execfn: &execfn, random, auxv };
    let placed = stack::build(mm.mem(), top, mm.word(), &contents)?;
    let image = Image {
        mm,
        exe: r.file.path.clone(),
        file: crate::fs::Opened::of(&r.file).map(crate::fs::Opened::execute).transpose()?,
        args: placed.args,
        env: placed.env,
        auxv: placed.auxv.into(),
        stack: placed.sp,
    };
    Ok(Prepared { image, entry, comm: name })
}

/// What execve gives for an interpreter that is no ELF file.
fn libbad() -> Errno {
    Errno(libc::ELIBBAD)
}
