//! From a guest pc to something that runs: a basic block for the interpreter, a region for Cranelift.

use crate::code::memory::CodeMemory;
use crate::code::space::{CodeSpace, Compiled};
use crate::engine::Engine;
use evm_backend::interp;
use evm_cpu::LAYOUT;
use evm_kernel::mm::Mm;
use evm_lifter::{Code, LiftError, Mode, Options};
use evm_memory::PAGE;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Why a pc could not be translated.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The instruction at this guest address cannot be fetched.
    Fetch(u64),
    /// A back end or the validator refused the region: a bug of ours, reported once.
    Internal(String),
}

/// Guest code as it was when its pages were first looked at.
struct Snapshot<'a> {
    space: &'a CodeSpace,
    mm: &'a Mm,
    pages: HashMap<u64, (Option<Box<[u8]>>, u32)>,
}

impl Snapshot<'_> {
    fn page(&mut self, page: u64) -> Option<&[u8]> {
        let (space, mm) = (self.space, self.mm);
        self.pages
            .entry(page)
            .or_insert_with(|| {
                let addr = page * PAGE;
                let Some(perm) = mm.code_page(addr) else {
                    return (None, 0);
                };
                let version = space.version(addr);
                space.watch(addr, perm.writable);
                let mut buf = vec![0u8; PAGE as usize].into_boxed_slice();
                match space.arena.mem().copy_out(addr, &mut buf) {
                    Ok(()) => (Some(buf), version),
                    Err(_) => (None, version),
                }
            })
            .0
            .as_deref()
    }
    fn versions(&self, start: u64, len: u64) -> u64 {
        let mut sum = 0;
        for page in start / PAGE..=(start + len.max(1) - 1) / PAGE {
            sum += self.pages.get(&page).map_or(0, |p| u64::from(p.1));
        }
        sum
    }
}

impl evm_lifter::Code for Snapshot<'_> {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        if self.space.arena.mem().copy_out(addr, buf).is_ok() { buf.len() } else { 0 }
    }
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = addr.checked_add(done as u64) else {
                break;
            };
            let off = (at % PAGE) as usize;
            let Some(bytes) = self.page(at / PAGE) else {
                break;
            };
            let n = (bytes.len() - off).min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&bytes[off..off + n]);
            done += n;
        }
        done
    }
}

/// A basic block ready for the interpreter.
pub(crate) struct BlockEntry {
    pub pc: u64,
    pub code: interp::Code,
    /// Guest bytes [pc, pc + len).
    pub len: u64,
    /// Page versions it was made from.
    pub versions: u64,
    /// Code space generation at which the versions were last compared.
    pub generation: AtomicU64,
    /// Times it was interpreted.
    pub count: AtomicU32,
    /// Entry index of its pc.
    pub index: u32,
    pub insns: u32,
}

fn lift(snap: &mut Snapshot<'_>, pc: u64, extra: &[u64], mode: Mode) -> Result<evm_ir::Region, Failure> {
    let opts = Options { mode, ..Options::default() };
    match evm_lifter::lift(pc, extra, snap, &opts) {
        Ok(l) => Ok(l.region),
        Err(LiftError::Fetch { addr }) => Err(Failure::Fetch(addr)),
        Err(e) => Err(Failure::Internal(e.to_string())),
    }
}

/// Translate one basic block, or in strict mode one instruction, for the interpreter.
pub(crate) fn block(
    engine: &Engine,
    space: &CodeSpace,
    mm: &Mm,
    pc: u64,
    mode: Mode,
) -> Result<BlockEntry, Failure> {
    let mut snap = Snapshot { space, mm, pages: HashMap::new() };
    let mut region = lift(&mut snap, pc, &[], mode)?;
    evm_ir::passes::optimize(&mut region, evm_ir::passes::OptLevel::Interp);
    evm_ir::validate(&region).map_err(|e| Failure::Internal(format!("block {pc:#x}: {e}")))?;
    let end = region.source.last().map_or(pc + 1, |(a, n)| a + u64::from(*n));
    let len = end.saturating_sub(pc).max(1);
    Ok(BlockEntry {
        pc,
        code: interp::prepare(&region, &crate::thread::ABI),
        len,
        versions: snap.versions(pc, len),
        generation: AtomicU64::new(0),
        count: AtomicU32::new(0),
        index: engine.entry_index(pc),
        insns: region.insns,
    })
}

/// Compile the region at `pc` and install it.
pub(crate) fn region(
    engine: &Engine,
    space: &CodeSpace,
    mm: &Mm,
    pc: u64,
    extra: &[u64],
    precise: bool,
) -> Result<Option<Arc<Compiled>>, Failure> {
    let Some(memory) = CodeMemory::get() else {
        return Ok(None);
    };
    let mut snap = Snapshot { space, mm, pages: HashMap::new() };
    let mut region = lift(&mut snap, pc, extra, Mode::Region)?;
    let level = if precise { evm_ir::passes::OptLevel::Precise } else { evm_ir::passes::OptLevel::Full };
    evm_ir::passes::optimize(&mut region, level);
    // The trust boundary: nothing but the validator's word makes a region safe to run.
    evm_ir::validate(&region).map_err(|e| Failure::Internal(format!("region {pc:#x}: {e}")))?;
    debug_assert!(std::ptr::eq(region.layout, &raw const LAYOUT));
    let code = engine.compile(&region, precise).map_err(|e| Failure::Internal(format!("region {pc:#x}: {e}")))?;
    let Some(piece) = memory.publish(&code.code, code.pcs) else {
        return Ok(None);
    };
    let entries =
        region.entries.iter().map(|b| region.blocks[b.0 as usize].pc).map(|pc| (pc, engine.entry_index(pc))).collect();
    let mut versions = 0;
    let mut source = Vec::new();
    for (a, n) in &region.source {
        let mut bytes = vec![0; *n as usize];
        snap.fetch(*a, &mut bytes);
        versions += snap.versions(*a, u64::from(*n));
        source.push((*a, bytes));
    }
    let blocks = region.blocks.iter().filter(|b| b.insn_start).map(|b| b.pc).collect();
    let r = Arc::new(Compiled { code: piece.start, entries, source, precise, insns: region.insns, blocks });
    Ok(space.install(&r, versions).then_some(r))
}

/// Install a region compiled for another process if the guest bytes are the same here.
pub(crate) fn adopt(space: &CodeSpace, mm: &Mm, r: &Arc<Compiled>) -> bool {
    let mut snap = Snapshot { space, mm, pages: HashMap::new() };
    let mut versions = 0;
    for (a, bytes) in &r.source {
        let mut now = vec![0; bytes.len()];
        if snap.fetch(*a, &mut now) != bytes.len() || now != *bytes {
            return false;
        }
        versions += snap.versions(*a, bytes.len() as u64);
    }
    space.install(r, versions)
}
