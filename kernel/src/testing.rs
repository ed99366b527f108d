//! A host for unit tests: guest threads are Rust closures that make system calls.

use crate::clone::Program;
use crate::errno::{Errno, Result};
use crate::fs::FsContext;
use crate::io::FdTable;
use crate::kernel::{Config, Flow, Host, Kernel};
use crate::mm::Mm;
use crate::task::Task;
use std::sync::{Arc, Mutex};

type Body = Box<dyn FnOnce(&mut Task) + Send>;

#[derive(Default)]
pub(crate) struct TestHost {
    /// Bodies of the threads to come, in order.
    bodies: Mutex<Vec<Body>>,
}

impl TestHost {
    /// What the next new guest thread does. It ends with exit_group(0) if it does not end by itself.
    pub fn next(&self, f: impl FnOnce(&mut Task) + Send + 'static) {
        self.bodies.lock().unwrap().insert(0, Box::new(f));
    }
    /// Forget bodies that were not used.
    pub fn bodies_clear(&self) {
        self.bodies.lock().unwrap().clear();
    }
}

impl Host for TestHost {
    fn spawn(&self, mut task: Task) -> Result<()> {
        let body = self.bodies.lock().unwrap().pop().ok_or(Errno::EAGAIN)?;
        std::thread::spawn(move || {
            task.enter();
            if task.deliver_signals() != Flow::Exit {
                body(&mut task);
            }
            if !task.gone {
                call(&mut task, libc::SYS_exit_group, &[0]);
            }
        });
        Ok(())
    }
    fn code_changed(&self, _mm: &Mm, _addr: u64, _len: u64) {}
    fn new_arena(&self, _mm: &Mm) -> crate::errno::Result<()> {
        Ok(())
    }
    fn kick(&self, _tid: i32) {}
}

/// A system call as the guest makes it: the result register.
pub(crate) fn call(t: &mut Task, nr: i64, args: &[u64]) -> i64 {
    let a: [u64; 6] = std::array::from_fn(|i| args.get(i).copied().unwrap_or(0));
    let g = &mut t.cpu.gpr;
    (g[0], g[7], g[6], g[2], g[10], g[8], g[9]) = (nr as u64, a[0], a[1], a[2], a[3], a[4], a[5]);
    t.syscall();
    t.cpu.gpr[0] as i64
}

/// A minimal static program: one segment with `code` at 0x400000.
pub(crate) fn tiny_elf(code: &[u8]) -> Vec<u8> {
    let mut b = vec![0u8; 120];
    b[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    let mut put = |at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &0x40_0078u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(68, &7u32.to_le_bytes());
    put(80, &0x40_0000u64.to_le_bytes());
    put(96, &(120 + code.len() as u64).to_le_bytes());
    put(104, &(8192 + code.len() as u64).to_le_bytes());
    put(112, &4096u64.to_le_bytes());
    b.extend(code);
    b
}

/// A job with a first process that executes nothing yet.
pub(crate) fn start(config: Config) -> (Arc<TestHost>, Arc<Kernel>, Task) {
    let host = Arc::new(TestHost::default());
    let kernel = Kernel::new(Config { arena_size: 1 << 32, ..config }, host.clone());
    let task = start_in(&kernel, &tiny_elf(b"\x0f\x0b"));
    (host, kernel, task.expect("starts"))
}

/// Start a program given as bytes.
pub(crate) fn start_in(kernel: &Arc<Kernel>, elf: &[u8]) -> Result<Task> {
    kernel.start(Program {
        bytes: Some(elf.to_vec()),
        path: b"/bin/tiny".to_vec(),
        argv: vec![b"tiny".to_vec(), b"arg".to_vec()],
        envp: vec![b"A=B".to_vec()],
        fs: Arc::new(FsContext::default()),
        fds: Arc::new(FdTable::new(64)),
    })
}
