//! System calls on memory.

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::mm::{MapRequest, RemapRequest, page_up};
use crate::task::Task;

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 9, name: "mmap", args: "pudxfX", f: mmap },
    Syscall { nr: 10, name: "mprotect", args: "puX", f: mprotect },
    Syscall { nr: 11, name: "munmap", args: "pu", f: |t, a| t.mm().unmap(a[0], a[1]).map(|()| 0) },
    Syscall { nr: 12, name: "brk", args: "p", f: brk },
    Syscall { nr: 25, name: "mremap", args: "puuXp", f: mremap },
    Syscall { nr: 26, name: "msync", args: "pux", f: |t, a| t.mm().sync(a[0], a[1], a[2] as i32).map(|()| 0) },
    Syscall { nr: 27, name: "mincore", args: "pup", f: mincore },
    Syscall { nr: 28, name: "madvise", args: "pud", f: |t, a| t.mm().advise(a[0], a[1], a[2] as i32, t).map(|()| 0) },
    Syscall { nr: 149, name: "mlock", args: "pu", f: mlock },
    Syscall { nr: 150, name: "munlock", args: "pu", f: munlock },
    Syscall { nr: 151, name: "mlockall", args: "x", f: mlockall },
    Syscall { nr: 152, name: "munlockall", args: "", f: |_, _| Ok(0) },
    Syscall { nr: 216, name: "remap_file_pages", args: "puuux", f: |_, _| Err(Errno::EINVAL) },
    Syscall { nr: 237, name: "mbind", args: "pudpux", f: mbind },
    Syscall { nr: 238, name: "set_mempolicy", args: "dpu", f: set_mempolicy },
    Syscall { nr: 239, name: "get_mempolicy", args: "ppupX", f: get_mempolicy },
    Syscall { nr: 256, name: "migrate_pages", args: "dupp", f: migrate_pages },
    Syscall { nr: 279, name: "move_pages", args: "duppp", f: |_, _| Err(Errno::ENOSYS) },
    Syscall { nr: 324, name: "membarrier", args: "dxd", f: membarrier },
    Syscall { nr: 325, name: "mlock2", args: "pux", f: mlock2 },
    Syscall { nr: 329, name: "pkey_mprotect", args: "puXd", f: pkey_mprotect },
    Syscall { nr: 330, name: "pkey_alloc", args: "XX", f: pkey_alloc },
    Syscall { nr: 331, name: "pkey_free", args: "d", f: |_, _| Err(Errno::EINVAL) },
];

/// mbind(2): there is one node, where all memory is.
fn mbind(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    const MPOL_MF_MOVE_ALL: u64 = 4;
    const MPOL_MF_VALID: u64 = 7;
    if a[5] & !MPOL_MF_VALID != 0 || a[0] & 4095 != 0 {
        return Err(Errno::EINVAL);
    }
    if a[5] & MPOL_MF_MOVE_ALL != 0 {
        // That needs CAP_SYS_NICE.
        return Err(Errno::EPERM);
    }
    t.mm().check_mapped(a[0], a[1]).map(|_| 0).or(Err(Errno::EFAULT))
}

fn mmap(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [addr, len, prot, flags, fd, off] = a;
    if !off.is_multiple_of(4096) {
        return Err(Errno::EINVAL);
    }
    let flags = flags as u32;
    let file = if flags & libc::MAP_ANONYMOUS as u32 != 0 { None } else { Some((t.fds().get(fd as i32)?, off)) };
    let prot = (prot & 7) as u8;
    let limit = t.process.rlimit(libc::RLIMIT_AS as usize).cur;
    t.mm().map(MapRequest { addr, len, prot, flags, file, limit, who: t })
}

fn mprotect(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    const GROWS: u64 = 0x0300_0000; // PROT_GROWSDOWN, PROT_GROWSUP
    if a[2] & !(7 | 8 | GROWS) != 0 || a[2] & GROWS == GROWS {
        return Err(Errno::EINVAL);
    }
    t.mm().protect(a[0], a[1], (a[2] & 7) as u8)?;
    Ok(0)
}

fn brk(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let limit = t.process.rlimit(libc::RLIMIT_DATA as usize).cur;
    let space = t.process.rlimit(libc::RLIMIT_AS as usize).cur;
    Ok(t.mm().brk(a[0], limit, space))
}

fn mremap(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let limit = t.process.rlimit(libc::RLIMIT_AS as usize).cur;
    let [old, old_len, new_len, flags, to, _] = a;
    t.mm().remap(RemapRequest { old, old_len, new_len, flags: flags as u32, to, limit, who: t })
}

fn mincore(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let pages = t.mm().check_mapped(a[0], a[1])?;
    t.mem().fill(a[2], pages, 1)?;
    Ok(0)
}

fn lock_allowed(t: &Task, len: u64) -> Result<()> {
    let limit = t.process.rlimit(libc::RLIMIT_MEMLOCK as usize).cur;
    match limit {
        0 => Err(Errno::EPERM),
        l if len > l => Err(Errno::ENOMEM),
        _ => Ok(()),
    }
}

fn mlock(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let from = a[0] & !4095;
    let len = page_up(a[1].wrapping_add(a[0] - from)).ok_or(Errno::EINVAL)?;
    lock_allowed(t, len)?;
    t.mm().check_mapped(from, len).map_err(|_| Errno::ENOMEM)?;
    Ok(0)
}

fn munlock(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let from = a[0] & !4095;
    t.mm().check_mapped(from, a[1].wrapping_add(a[0] - from)).map_err(|_| Errno::ENOMEM)?;
    Ok(0)
}

fn mlock2(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[2] & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    mlock(t, a)
}

fn mlockall(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] == 0 || a[0] & !7 != 0 || a[0] == 4 {
        return Err(Errno::EINVAL);
    }
    lock_allowed(t, if a[0] & 1 != 0 { t.mm().grown() } else { 0 })?;
    Ok(0)
}

/// One memory node: the policies that name it, or none, are accepted.
fn set_mempolicy(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let mode = a[0] as u32 & 0xff;
    if mode > 6 {
        return Err(Errno::EINVAL);
    }
    if a[1] != 0 && a[2] > 0 && t.mem().read::<u64>(a[1])? & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

fn get_mempolicy(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [mode, nodes, max, _addr, flags, _] = a;
    const F_NODE: u64 = 1;
    const F_MEMS_ALLOWED: u64 = 4;
    if flags & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    if nodes != 0 && max > 0 {
        let bytes = max.div_ceil(64).min(64) * 8;
        t.mem().fill(nodes, bytes, 0)?;
        if flags & F_MEMS_ALLOWED != 0 {
            t.mem().write(nodes, 1u8)?;
        }
    }
    if mode != 0 {
        let _ = F_NODE; // the node asked for is 0, and so is MPOL_DEFAULT
        t.mem().write(mode, 0u32)?;
    }
    Ok(0)
}

/// The host's own command makes all its threads pass a barrier, and so those of the guest.
fn membarrier(_t: &mut Task, a: [u64; 6]) -> Result<u64> {
    const SUPPORTED: u64 = 0x7f;
    if a[1] != 0 {
        return Err(Errno::EINVAL);
    }
    match a[0] as i32 {
        0 => Ok(SUPPORTED),
        1 | 2 | 8 | 32 => {
            crate::arch::barrier::all_threads();
            Ok(0)
        }
        4 | 16 | 64 => Ok(0), // registrations
        _ => Err(Errno::EINVAL),
    }
}

fn pkey_mprotect(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[3] as i32 != -1 {
        return Err(Errno::EINVAL); // no key is allocated
    }
    mprotect(t, a)
}

/// The CPU model has no protection keys.
fn pkey_alloc(_t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] != 0 || a[1] & !3 != 0 { Err(Errno::EINVAL) } else { Err(Errno::ENOSPC) }
}

/// There is one node, so there is nothing to move; other processes than the job's do not exist.
fn migrate_pages(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let pid = a[0] as i32;
    if pid != 0 && t.kernel().process(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(0)
}
