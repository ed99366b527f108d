//! What compiled regions look like, for those who work on translation: a file per region with its IR, and its host
//! code beside the guest code that it came from; and a list of symbols for `perf`.

use evm_backend::cranelift::Compiled;
use evm_ir::Region;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder for dumps.
#[derive(Debug)]
pub(crate) struct Dump {
    folder: PathBuf,
    count: AtomicU32,
}

impl Dump {
    pub(crate) fn new(folder: &Path) -> Dump {
        Dump { folder: folder.into(), count: AtomicU32::new(0) }
    }
    /// Write a region whose code is at host address `at`. `fetch` reads guest code.
    pub(crate) fn region(
        &self,
        region: &Region,
        code: &Compiled,
        at: u64,
        bits: u32,
        mut fetch: impl FnMut(u64, &mut [u8]) -> usize,
    ) {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let entry = region.entries.first().map_or(0, |b| region.blocks[b.0 as usize].pc);
        let mut s = format!("{region}\n");
        let _ =
            writeln!(s, "{} guest instructions, {:?}, {} bytes at {at:#x}", code.insns, code.stats, code.code.len());
        let mut lines = code.lines.iter().peekable();
        let mut pos = 0;
        while pos < code.code.len() {
            let mut pc = None;
            while let Some(l) = lines.next_if(|l| l.0 as usize <= pos) {
                pc = Some(l.1);
            }
            if let Some(pc) = pc {
                let mut bytes = [0; 15];
                let n = fetch(pc, &mut bytes);
                let _ = writeln!(s, "{pc:#x}: {}", evm_lifter::disassemble(bits, pc, &bytes[..n]).0);
            }
            let host = at + pos as u64;
            let (text, len) = evm_lifter::disassemble(64, host, &code.code[pos..]);
            let _ = writeln!(s, "    {host:x} {text}");
            pos += len.max(1);
        }
        // A dump that cannot be written is missing, and nothing else.
        let _ = fs::write(self.folder.join(format!("{n:05}-{entry:x}.txt")), s);
        let map = self.folder.join(format!("perf-{}.map", std::process::id()));
        if let Ok(mut f) = fs::OpenOptions::new().create(true).append(true).open(map) {
            let _ = writeln!(f, "{at:x} {:x} region{n:05}-{entry:x}", code.code.len());
        }
    }
}
