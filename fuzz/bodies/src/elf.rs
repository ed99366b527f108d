//! Program files.

use evm_kernel::clone::Program;
use evm_kernel::errno::{Errno, Result};
use evm_kernel::fs::FsContext;
use evm_kernel::io::FdTable;
use evm_kernel::kernel::{Config, Host, Kernel};
use evm_kernel::mm::Mm;
use evm_kernel::task::Task;
use std::sync::Arc;

/// Nothing runs.
struct NoThreads;

impl Host for NoThreads {
    fn spawn(&self, _: Task) -> Result<()> {
        Err(Errno::EAGAIN)
    }
    fn code_changed(&self, _: &Mm, _: u64, _: u64) {}
    fn new_arena(&self, _: &Mm) -> Result<()> {
        Ok(())
    }
    fn kick(&self, _: i32) {}
}

/// Load a program file. What starts lies inside the address space, and its end gives everything back.
pub fn elf(data: &[u8]) -> bool {
    let kernel = Kernel::new(Config { arena_size: 1 << 32, ..Config::default() }, Arc::new(NoThreads));
    let program = Program {
        bytes: Some(data.to_vec()),
        path: b"/bin/program".to_vec(),
        argv: vec![b"program".to_vec()],
        envp: Vec::new(),
        fs: Arc::new(FsContext::default()),
        fds: Arc::new(FdTable::new(8)),
    };
    let started = kernel.start(program);
    let ok = started.is_ok();
    if let Ok(task) = started {
        let mut end = 0;
        for m in task.mm().maps() {
            assert!(m.start >= end && m.start < m.end && m.end <= task.mm().size(), "{:#x}..{:#x}", m.start, m.end);
            end = m.end;
        }
        drop(task);
    }
    assert!(kernel.processes().is_empty());
    assert_eq!((kernel.limits.procs.used(), kernel.limits.memory.used()), (0, 0));
    ok
}
