//! From a guest pc to something that runs: a basic block for the interpreter, a region for Cranelift.

use crate::code::memory::{CodeMemory, Piece};
use crate::code::space::{CodeSpace, Compiled, QuickPiece, Targets};
use crate::engine::{Engine, QUICK_HOT};
use evm_backend::direct::{self, Direct};
use evm_backend::interp;
use evm_backend::quick::Quick;
use evm_cpu::LAYOUT;
use evm_ir::passes::OptLevel;
use evm_kernel::mm::{Mm, PageView};
use evm_lifter::{Code, LiftError, Mode, Options, PlanBlock};
use evm_memory::PAGE;
use std::cell::RefCell;
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

/// Entries of a block that make it part of the regions it is reached from.
const WARM: u32 = 128;

/// Guest instructions of a region from which on its blocks are not translated again as part of others.
pub(crate) const LARGE: u32 = 800;

/// How far regions reach when nothing is known of what runs.
pub(crate) const UNPROFILED: Options = Options::REGION;
/// The same where only what has run is translated.
pub(crate) const PROFILED: Options = Options { max_insns: 2500, max_blocks: 1000, max_inlined: 800, ..UNPROFILED };

/// The same where nobody waits for it: the loop of an interpreter is one region, however many operations it has.
pub(crate) const KEPT: Options = Options { max_insns: 12_000, max_blocks: 4000, ..PROFILED };

/// Guest code whose pages are watched from when they were first looked at: if their versions are still the same
/// when the translation is installed, all reads saw the same bytes.
struct Snapshot<'a> {
    space: &'a CodeSpace,
    mm: &'a Mm,
    /// Pages looked at: number, whether it can be executed, version.
    pages: Vec<(u64, bool, u32)>,
    /// Translate only blocks that the quick tier's counters have seen.
    profile: Option<&'a Engine>,
    /// The region that the translation is to replace.
    replaces: Option<Arc<Compiled>>,
    /// Where indirect jumps went, once asked for.
    targets: Option<Targets>,
    /// It is to be copied: blocks that were not are left out.
    copies: bool,
}

impl<'a> Snapshot<'a> {
    fn new(space: &'a CodeSpace, mm: &'a Mm, profile: Option<&'a Engine>) -> Snapshot<'a> {
        Snapshot { space, mm, pages: Vec::with_capacity(2), profile, replaces: None, targets: None, copies: false }
    }
    fn is_code(&mut self, page: u64) -> bool {
        if let Some(p) = self.pages.iter().find(|p| p.0 == page) {
            return p.1;
        }
        let addr = page * PAGE;
        let watch = |p: &PageView<'_>| p.executable.then(|| (self.space.watch(p), p.shared));
        let (good, version) = match self.mm.with_page(addr, watch).flatten() {
            None => (false, 0),
            Some((version, shared)) => {
                if shared {
                    for alias in self.mm.writable_aliases(addr) {
                        self.mm.with_page(alias, |p| self.space.watch_alias(p, addr));
                    }
                }
                (true, version)
            }
        };
        self.pages.push((page, good, version));
        good
    }
    fn versions(&self, start: u64, len: u64) -> u64 {
        let last = (start + len.max(1) - 1) / PAGE;
        self.pages.iter().filter(|p| (start / PAGE..=last).contains(&p.0)).map(|p| u64::from(p.2)).sum()
    }
}

impl evm_lifter::Code for Snapshot<'_> {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        if self.space.arena.mem().copy_out(addr, buf).is_ok() { buf.len() } else { 0 }
    }
    fn is_warm(&mut self, pc: u64) -> bool {
        let runs =
            |i| self.space.records().code(i).is_some() || !self.copies && self.space.entered(i, QUICK_HOT) >= WARM;
        let in_unit = |e: &Engine| self.copies && e.images().is_some_and(|i| i.is_in_unit(pc));
        self.profile.is_none_or(|e| e.known_index(pc).is_some_and(runs) || in_unit(e))
    }
    fn is_taken(&mut self, pc: u64) -> bool {
        if self.copies {
            return self.space.has_large(pc);
        }
        let other = |r: &Arc<Compiled>| self.replaces.as_ref().is_none_or(|x| !Arc::ptr_eq(x, r));
        self.profile.is_some() && self.space.owner(pc).is_some_and(|r| r.insns >= LARGE && other(&r))
    }
    fn targets(&mut self, pc: u64) -> Vec<u64> {
        // Copied code does not say where it goes.
        if self.profile.is_none() || self.space.records().used() {
            return vec![];
        }
        let space = self.space;
        let all = self.targets.get_or_insert_with(|| {
            let mut all = space.targets();
            space.add_kept_targets(&mut all);
            all
        });
        all.get(&(pc as u32)).cloned().unwrap_or_default()
    }
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = addr.checked_add(done as u64) else {
                break;
            };
            if !self.is_code(at / PAGE) {
                break;
            }
            let n = ((PAGE - at % PAGE) as usize).min(buf.len() - done);
            if self.space.arena.mem().copy_out(at, &mut buf[done..done + n]).is_err() {
                break;
            }
            done += n;
        }
        done
    }
}

/// A basic block ready for the interpreter.
pub(crate) struct BlockEntry {
    pub pc: u64,
    pub code: Arc<interp::Code>,
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

fn lift(snap: &mut Snapshot<'_>, pc: u64, extra: &[u64], mode: Mode) -> Result<evm_lifter::Lifted, Failure> {
    let bounds = if snap.profile.is_some() { PROFILED } else { UNPROFILED };
    let traps = snap.space.traps();
    let opts = Options { mode, bits: snap.space.bits, v3: snap.space.v3, traps, ..bounds };
    match evm_lifter::lift(pc, extra, snap, &opts) {
        Ok(l) => Ok(l),
        Err(LiftError::Fetch { addr }) => Err(Failure::Fetch(addr)),
        Err(e) => Err(Failure::Internal(e.to_string())),
    }
}

/// Translate one basic block, or in strict mode one instruction, for the interpreter.
pub(crate) fn block(engine: &Engine, space: &CodeSpace, mm: &Mm, pc: u64, mode: Mode) -> Result<BlockEntry, Failure> {
    let mut snap = Snapshot::new(space, mm, None);
    let mut region = lift(&mut snap, pc, &[], mode)?.region;
    evm_ir::passes::optimize(&mut region, OptLevel::Interp);
    evm_ir::validate(&region).map_err(|e| Failure::Internal(format!("block {pc:#x}: {e}")))?;
    let end = region.source.last().map_or(pc + 1, |(a, n)| a + u64::from(*n));
    let len = end.saturating_sub(pc).max(1);
    let entry = BlockEntry {
        pc,
        code: Arc::new(interp::prepare(&region, &crate::thread::ABI)),
        len,
        versions: snap.versions(pc, len),
        generation: AtomicU64::new(0),
        count: AtomicU32::new(0),
        index: engine.entry_index(pc),
        insns: region.insns,
    };
    region.recycle();
    Ok(entry)
}

/// A single instruction ready for the interpreter, and what it was made from: for other processes that come to the same.
#[derive(Clone)]
pub(crate) struct Single {
    bytes: Vec<u8>,
    bits: u32,
    v3: bool,
    traps: bool,
    code: Arc<interp::Code>,
    insns: u32,
}

/// Translate one instruction for the interpreter, or take it over from another process.
pub(crate) fn single(engine: &Engine, space: &CodeSpace, mm: &Mm, pc: u64) -> Result<BlockEntry, Failure> {
    let (bits, v3, traps) = (space.bits, space.v3, space.traps());
    if let Some(s) = engine.single(pc).filter(|s| (s.bits, s.v3, s.traps) == (bits, v3, traps)) {
        let mut snap = Snapshot::new(space, mm, None);
        let mut here = vec![0; s.bytes.len()];
        if snap.fetch(pc, &mut here) == here.len() && here == s.bytes {
            let len = here.len() as u64;
            return Ok(BlockEntry {
                pc,
                code: s.code,
                len,
                versions: snap.versions(pc, len),
                generation: AtomicU64::new(0),
                count: AtomicU32::new(0),
                index: engine.entry_index(pc),
                insns: s.insns,
            });
        }
    }
    let b = block(engine, space, mm, pc, Mode::Strict)?;
    let mut bytes = vec![0; b.len as usize];
    // If they are others by now the translation is none of them; and if it traps by now it is none for that.
    if space.arena.mem().copy_out(pc, &mut bytes).is_ok()
        && space.versions(pc, b.len) == b.versions
        && space.traps() == traps
    {
        engine.add_single(pc, Single { bytes, bits, v3, traps, code: b.code.clone(), insns: b.insns });
    }
    Ok(b)
}

/// Instructions by which a program asks about the CPU and the time, dozens of them while it starts: to be done as they are, as
/// translating them would take longer than much that they are followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Cpuid,
    Rdtsc,
    Xgetbv,
    /// XSAVEC to, and XRSTOR from, so many bytes behind RSP: the dynamic loader does so whenever it binds a symbol.
    Xsavec(i8),
    Xrstor(i8),
}

impl Plain {
    /// By their bytes, without prefixes, and their length.
    fn of(bytes: &[u8]) -> Option<(Plain, u64)> {
        Some(match bytes {
            [0x0f, 0xa2, ..] => (Plain::Cpuid, 2),
            [0x0f, 0x31, ..] => (Plain::Rdtsc, 2),
            [0x0f, 0x01, 0xd0, ..] => (Plain::Xgetbv, 3),
            [0x0f, 0xc7, 0x64, 0x24, at, ..] => (Plain::Xsavec(*at as i8), 5),
            [0x0f, 0xae, 0x6c, 0x24, at, ..] => (Plain::Xrstor(*at as i8), 5),
            _ => return None,
        })
    }
}

/// A plain instruction at a pc, and the versions of the pages that it was read from.
#[derive(Clone, Copy)]
pub(crate) struct PlainAt {
    pub what: Plain,
    pub len: u64,
    pub versions: u64,
}

/// The plain instruction at `pc`, if it can be fetched and is one.
pub(crate) fn plain(space: &CodeSpace, mm: &Mm, pc: u64) -> Option<PlainAt> {
    let mut snap = Snapshot::new(space, mm, None);
    let mut bytes = [0; 5];
    let n = snap.fetch(pc, &mut bytes);
    let (what, len) = Plain::of(&bytes[..n])?;
    Some(PlainAt { what, len, versions: snap.versions(pc, len) })
}

/// Compile the region at `pc` and install it.
#[allow(clippy::too_many_arguments)]
pub(crate) fn region(
    engine: &Engine,
    space: &CodeSpace,
    mm: &Mm,
    pc: u64,
    extra: &[u64],
    precise: bool,
    profile: bool,
    replaces: Option<Arc<Compiled>>,
) -> Result<Option<Arc<Compiled>>, Failure> {
    let Some(memory) = CodeMemory::get() else {
        return Ok(None);
    };
    if space.traps() {
        return Ok(None);
    }
    let mut snap = Snapshot::new(space, mm, profile.then_some(engine));
    snap.replaces = replaces;
    let evm_lifter::Lifted { mut region, cold, blocks, .. } = lift(&mut snap, pc, extra, Mode::Region)?;
    let level = if precise { OptLevel::Precise } else { OptLevel::Full };
    evm_ir::passes::optimize(&mut region, level);
    // The trust boundary: nothing but the validator's word makes a region safe to run.
    evm_ir::validate(&region).map_err(|e| Failure::Internal(format!("region {pc:#x}: {e}")))?;
    debug_assert!(std::ptr::eq(region.layout, &raw const LAYOUT));
    let code = engine
        .compile(&region, precise, space.arena.size())
        .map_err(|e| Failure::Internal(format!("region {pc:#x}: {e}")))?;
    let Some(piece) = memory.publish(pc, &code.code, &code.pcs, false) else {
        return Ok(None);
    };
    if let Some(dump) = engine.dump() {
        dump.region(&region, &code, piece.start, space.bits, |at, buf| snap.fetch(at, buf));
    }
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
    let blocks = blocks.into_iter().chain(cold).map(|pc| (pc, engine.entry_index(pc))).collect();
    let r = Arc::new(Compiled {
        code: piece.start,
        entries,
        source,
        precise,
        kept: false,
        copied: false,
        bits: space.bits,
        v3: space.v3,
        min_limit: space.arena.size(),
        insns: region.insns,
        blocks,
    });
    Ok(space.install(&r, versions).then_some(r))
}

/// Compile the region at `pc` to WebAssembly and install it.
#[cfg(feature = "wasm")]
pub(crate) fn wasm(engine: &Engine, space: &CodeSpace, mm: &Mm, pc: u64) -> Result<Option<Arc<Compiled>>, Failure> {
    use evm_backend::wasm;
    let internal = |e: String| Failure::Internal(format!("region {pc:#x}: {e}"));
    let mut snap = Snapshot::new(space, mm, None);
    let mut region = lift(&mut snap, pc, &[], Mode::Region)?.region;
    wasm::prepare(&mut region);
    evm_ir::validate(&region).map_err(|e| internal(e.to_string()))?;
    let body = wasm::compile(&region, &crate::wasm::SETTINGS, &|_| wasm::Link::Table);
    let mut module = wasm::Module::new(crate::wasm::SETTINGS, &evm_cpu::helpers::SIGS);
    module.add(pc, body.map_err(|e| internal(e.to_string()))?);
    let bytes = module.finish().map_err(|e| internal(e.to_string()))?;
    let code = engine.wasm().and_then(|w| w.compile(&bytes)).map_err(internal)?;
    let mut versions = 0;
    let mut source = Vec::new();
    for (a, n) in &region.source {
        let mut bytes = vec![0; *n as usize];
        snap.fetch(*a, &mut bytes);
        versions += snap.versions(*a, u64::from(*n));
        source.push((*a, bytes));
    }
    let r = Arc::new(Compiled {
        code,
        entries: vec![(pc, engine.entry_index(pc))],
        source,
        precise: true,
        kept: false,
        copied: false,
        bits: space.bits,
        v3: space.v3,
        min_limit: 0,
        insns: region.insns,
        blocks: vec![],
    });
    Ok(space.install(&r, versions).then_some(r))
}

/// Most instructions of a basic block that is translated alone.
pub(crate) const BLOCK_INSNS: usize = 64;
/// Bytes of such a block, at most.
const BLOCK: usize = BLOCK_INSNS * 15;

/// Compile the basic block at `pc` with the quick tier and install it. `None`: code memory is full, or the tier has no
/// code for the block, or it changed meanwhile; it is interpreted.
pub(crate) fn quick(
    engine: &Engine,
    space: &CodeSpace,
    mm: &Mm,
    pc: u64,
    compiler: &mut Quick,
    threshold: u32,
) -> Result<Option<QuickPiece>, Failure> {
    let Some(memory) = CodeMemory::get().filter(|_| evm_backend::quick::supported()) else {
        return Ok(None);
    };
    if space.records().used()
        && !space.traps()
        && let Some(done) = copied(engine, space, mm, pc, memory)?
    {
        return Ok(done);
    }
    let traps = space.traps();
    let mut snap = Snapshot::new(space, mm, None);
    let mut region = lift(&mut snap, pc, &[], Mode::Block)?.region;
    evm_ir::passes::optimize(&mut region, if traps { OptLevel::Traps } else { OptLevel::Interp });
    evm_ir::validate(&region).map_err(|e| Failure::Internal(format!("block {pc:#x}: {e}")))?;
    compiler.traps = traps;
    // A block is one run of bytes.
    let [(start, len)] = region.source[..] else { return Ok(None) };
    let mut bytes = [0; BLOCK];
    let Some(bytes) = bytes.get_mut(..len as usize).filter(|_| start == pc) else { return Ok(None) };
    snap.fetch(start, bytes);
    // 64-bit code has hardly any 32-bit addresses: its translations are good for small address spaces too.
    let min_limit = if space.bits == 32 { space.arena.size() } else { 0 };
    compiler.min_limit = min_limit;
    let Ok(code) = compiler.compile(&region, &crate::thread::ABI, threshold, &mut |pc| engine.entry_index(pc)) else {
        return Ok(None);
    };
    region.recycle();
    let Some(piece) = memory.publish(pc, code.code, code.pcs, false) else {
        return Ok(None);
    };
    let (index, source) = (engine.entry_index(pc), memory.keep(bytes));
    let bits = space.bits;
    let p = QuickPiece { code: piece.start, pc, index, source, bits, v3: space.v3, min_limit, traps, copied: false };
    Ok(space.install_piece(&p, snap.versions(start, u64::from(len))).then_some(p))
}

/// Copy the basic block at `pc` and install it. `None`: it is better compiled; inside: code memory is full, or it changed meanwhile.
fn copied(
    engine: &Engine,
    space: &CodeSpace,
    mm: &Mm,
    pc: u64,
    memory: &'static CodeMemory,
) -> Result<Option<Option<QuickPiece>>, Failure> {
    let mut snap = Snapshot::new(space, mm, None);
    let insns = match evm_lifter::block(pc, &mut snap, space.bits, BLOCK_INSNS) {
        Ok(i) => i,
        Err(LiftError::Fetch { addr }) => return Err(Failure::Fetch(addr)),
        Err(e) => return Err(Failure::Internal(e.to_string())),
    };
    if direct::is_for_compiler(&insns) {
        return Ok(None);
    }
    let len = insns.iter().map(|i| i.len().max(1)).sum::<usize>();
    let index = engine.entry_index(pc);
    let block = direct::Block { pc, insns, counted: Some(index), entered: true };
    let Some((piece, _)) = publish_copy(engine, space, memory, &[block]) else { return Ok(Some(None)) };
    let mut bytes = [0; BLOCK];
    let bytes = &mut bytes[..len];
    snap.fetch(pc, bytes);
    let p = QuickPiece {
        code: piece.start,
        pc,
        index,
        source: memory.keep(bytes),
        bits: space.bits,
        v3: space.v3,
        min_limit: if space.bits == 32 { direct::SPACE_32 } else { direct::SPACE },
        traps: space.traps(),
        copied: true,
    };
    Ok(Some(space.install_piece(&p, snap.versions(pc, len as u64)).then_some(p)))
}

/// Copy a unit to code memory: the piece, and where its blocks start.
fn publish_copy(
    engine: &Engine,
    space: &CodeSpace,
    memory: &'static CodeMemory,
    blocks: &[direct::Block],
) -> Option<(&'static Piece, Vec<u64>)> {
    thread_local! {
        static COPIER: RefCell<Direct> = RefCell::new(Direct::new(crate::host::direct::WORDS));
    }
    COPIER.with_borrow_mut(|copier| {
        let code = copier.copy(blocks, space.bits, space.v3, &mut |to| {
            let index = engine.entry_index(to);
            // It may belong to an image that this process has not mapped.
            if space.commit(index, 1) {
                space.records().name(index);
            }
            index
        })?;
        let piece = memory.publish(blocks.first()?.pc, code.code, code.pcs, true)?;
        let starts = code.starts.iter().map(|s| piece.start + u64::from(*s)).collect();
        Some((piece, starts))
    })
}

/// Instructions of a region of copied code that others do not have a part of.
pub(crate) const COPIED_LARGE: u32 = 300;
/// How far regions of copied code reach.
pub(crate) const COPIED: Options = Options { max_insns: 600, max_blocks: 150, block_insns: BLOCK_INSNS, ..UNPROFILED };

/// Blocks to be copied together.
pub(crate) struct Unit {
    pub blocks: Vec<direct::Block>,
    /// Guest bytes they are made from: start and end of each.
    pub ranges: Vec<(u64, u64)>,
    /// Blocks that can be entered: the first, and those that indirect jumps go to.
    pub entries: Vec<usize>,
    pub insns: u32,
}

impl Unit {
    pub(crate) fn of(plan: Vec<PlanBlock>) -> Unit {
        let mut unit = Unit { blocks: vec![], ranges: vec![], entries: vec![], insns: 0 };
        for (n, b) in plan.into_iter().enumerate() {
            let end = b.insns.last().map_or(b.pc + 1, |i| i.next_ip());
            unit.ranges.push((b.pc, end.max(b.pc + 1)));
            unit.insns += b.insns.len() as u32;
            let entry = n == 0 || b.indirect;
            if entry {
                unit.entries.push(n);
            }
            unit.blocks.push(direct::Block { pc: b.pc, insns: b.insns, counted: None, entered: entry });
        }
        unit
    }
}

/// Copy the blocks around `pc` that have run, together, and install them: the number of their instructions.
pub(crate) fn copied_region(engine: &Engine, space: &CodeSpace, mm: &Mm, pc: u64) -> Result<Option<u32>, Failure> {
    let Some(memory) = CodeMemory::get() else { return Ok(None) };
    let mut snap = Snapshot::new(space, mm, Some(engine));
    snap.copies = true;
    let unit = match evm_lifter::plan(pc, &mut snap, &Options { bits: space.bits, v3: space.v3, ..COPIED }) {
        Ok(plan) => Unit::of(plan.blocks),
        Err(LiftError::Fetch { addr }) => return Err(Failure::Fetch(addr)),
        Err(e) => return Err(Failure::Internal(e.to_string())),
    };
    let Some((_, starts)) = publish_copy(engine, space, memory, &unit.blocks) else { return Ok(None) };
    let versions = unit.ranges.iter().map(|r| snap.versions(r.0, r.1 - r.0)).sum();
    let entry = |n: &usize| (unit.blocks[*n].pc, engine.entry_index(unit.blocks[*n].pc), starts[*n]);
    let entries: Vec<_> = unit.entries.iter().map(entry).collect();
    if !space.install_copied(&unit.ranges, &entries, versions) {
        return Ok(None);
    }
    space.note_copied(pc, unit.insns);
    if let Some(a) = space.attached(pc) {
        a.image.note_copied(pc);
    }
    Ok(Some(unit.insns))
}

/// Install a piece made for another process if the guest bytes are the same here.
pub(crate) fn adopt_piece(space: &CodeSpace, mm: &Mm, p: &QuickPiece) -> bool {
    let here = (space.bits, space.v3, space.traps());
    if here != (p.bits, p.v3, p.traps) || p.copied && !space.records().used() || space.arena.size() < p.min_limit {
        return false;
    }
    let mut snap = Snapshot::new(space, mm, None);
    let (mut now, len) = ([0; BLOCK], p.source.len());
    let now = &mut now[..len];
    snap.fetch(p.pc, now) == len && now == p.source && space.install_piece(p, snap.versions(p.pc, len as u64))
}

/// Install a region compiled for another process if the guest bytes are the same here.
pub(crate) fn adopt(space: &CodeSpace, mm: &Mm, r: &Arc<Compiled>) -> bool {
    let here = (space.bits, space.v3) == (r.bits, r.v3) && (!r.copied || space.records().used());
    if !here || space.arena.size() < r.min_limit {
        return false;
    }
    let mut snap = Snapshot::new(space, mm, None);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_instructions_by_their_bytes() {
        assert_eq!(Plain::of(&[0x0f, 0xa2, 0xcc]), Some((Plain::Cpuid, 2)));
        assert_eq!(Plain::of(&[0x0f, 0x31]), Some((Plain::Rdtsc, 2)));
        assert_eq!(Plain::of(&[0x0f, 0x01, 0xd0]), Some((Plain::Xgetbv, 3)));
        assert_eq!(Plain::of(&[0x0f, 0xc7, 0x64, 0x24, 0x40]), Some((Plain::Xsavec(0x40), 5)));
        assert_eq!(Plain::of(&[0x0f, 0xae, 0x6c, 0x24, 0xf0, 0x90]), Some((Plain::Xrstor(-16), 5)));
        for other in [&[0x0f, 0xc7, 0x64, 0x24][..], &[0x0f, 0xc7, 0x6c, 0x24, 0], &[0x0f, 0xae, 0x64, 0x24, 0]] {
            assert_eq!(Plain::of(other), None);
        }
        // Cut off, with a prefix, and others of the group.
        for other in [&[0x0f][..], &[0x0f, 0x01], &[0x48, 0x0f, 0xa2], &[0x0f, 0x01, 0xf9], &[]] {
            assert_eq!(Plain::of(other), None);
        }
    }
}
