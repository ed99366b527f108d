//! System calls between processes: System V's and POSIX's queues, shared memory and semaphores, and the memory of other processes.

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::ipc::{mqueue, msg, sem, shm};
use crate::task::Task;

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 29, name: "shmget", args: "dux", f: shm::get },
    Syscall { nr: 30, name: "shmat", args: "dpx", f: shm::attach },
    Syscall { nr: 31, name: "shmctl", args: "ddp", f: shm::control },
    Syscall { nr: 67, name: "shmdt", args: "p", f: shm::detach },
    Syscall { nr: 64, name: "semget", args: "ddx", f: sem::get },
    Syscall { nr: 65, name: "semop", args: "dpU", f: |t, [id, ops, n, ..]| sem::operate(t, [id, ops, n, 0, 0, 0]) },
    Syscall { nr: 66, name: "semctl", args: "dddX", f: sem::control },
    Syscall { nr: 220, name: "semtimedop", args: "dpUp", f: sem::operate },
    Syscall { nr: 68, name: "msgget", args: "dx", f: msg::get },
    Syscall { nr: 69, name: "msgsnd", args: "dpux", f: msg::send },
    Syscall { nr: 70, name: "msgrcv", args: "dpulx", f: msg::receive },
    Syscall { nr: 71, name: "msgctl", args: "ddp", f: msg::control },
    Syscall { nr: 240, name: "mq_open", args: "sxop", f: mqueue::open },
    Syscall { nr: 241, name: "mq_unlink", args: "s", f: mqueue::unlink },
    Syscall { nr: 242, name: "mq_timedsend", args: "fbuUp", f: mqueue::send },
    Syscall { nr: 243, name: "mq_timedreceive", args: "fpupp", f: mqueue::receive },
    Syscall { nr: 244, name: "mq_notify", args: "fp", f: mqueue::notify },
    Syscall { nr: 245, name: "mq_getsetattr", args: "fpp", f: mqueue::attributes },
    Syscall { nr: 310, name: "process_vm_readv", args: "dpupuX", f: |t, a| process_vm(t, a, false) },
    Syscall { nr: 311, name: "process_vm_writev", args: "dpupuX", f: |t, a| process_vm(t, a, true) },
];

/// Copy between the caller's memory and that of a process of the same user.
fn process_vm(task: &mut Task, [pid, local, local_n, remote, remote_n, flags]: [u64; 6], write: bool) -> Result<u64> {
    if flags != 0 || local_n > 1024 || remote_n > 1024 {
        return Err(Errno::EINVAL);
    }
    let parts = |at: u64, n: u64| -> Result<Vec<(u64, u64)>> {
        (0..n)
            .map(|i| {
                let at = at.wrapping_add(16 * i);
                let (addr, len) = (task.mem().read(at)?, task.mem().read::<u64>(at.wrapping_add(8))?);
                if len > i64::MAX as u64 { Err(Errno::EINVAL) } else { Ok((addr, len)) }
            })
            .collect()
    };
    let (own, theirs) = (parts(local, local_n)?, parts(remote, remote_n)?);
    if own.iter().all(|p| p.1 == 0) || theirs.is_empty() {
        return Ok(0);
    }
    let p = task.kernel().process(pid as i32).ok_or(Errno::ESRCH)?;
    let (a, b) = (task.process.credentials(), p.credentials());
    if p.pid != task.pid() && a.euid != 0 && [b.uid, b.euid, b.suid].iter().any(|u| *u != a.uid) {
        return Err(Errno::EPERM);
    }
    let mm = p.mm().ok_or(Errno::ESRCH)?;
    let (mine, other) = (task.mem(), mm.mem());
    let mut buf = vec![0u8; 1 << 16];
    let mut done = 0u64;
    let (mut i, mut at) = (0, 0);
    for (mut addr, mut left) in theirs {
        while left > 0 {
            let Some(&(base, len)) = own.get(i) else { return Ok(done) };
            if at == len {
                i += 1;
                at = 0;
                continue;
            }
            // Up to the end of a page on either side, so that what is there is copied.
            let page = |a: u64| 4096 - a % 4096;
            let here = base.wrapping_add(at);
            let n = left.min(len - at).min(page(addr)).min(page(here));
            let b = &mut buf[..n as usize];
            let r = if write {
                mine.copy_out(here, b).and_then(|()| mm.write_for_other(addr, b))
            } else {
                other.copy_out(addr, b).and_then(|()| mine.copy_in(here, b))
            };
            match r {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e.into()),
            }
            done += n;
            at += n;
            addr = addr.wrapping_add(n);
            left -= n;
        }
    }
    Ok(done)
}
