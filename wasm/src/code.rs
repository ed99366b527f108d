//! Translated blocks of the address space, and which pages they came from.

use evm_backend::abi::Abi;
use evm_backend::interp;
use evm_cpu::CpuState;
use evm_kernel::mm::Mm;
use evm_lifter::{LiftError, Mode, Options};
use evm_memory::PAGE;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Where the interpreter finds things in the state.
pub const ABI: Abi = evm_backend::abi_of!(CpuState);

/// A basic block, ready to be interpreted.
pub struct Block {
    pub pc: u64,
    pub code: interp::Code,
    pub insns: u32,
}

/// Why there is no block at an address.
pub enum Failure {
    /// The instruction at this guest address cannot be fetched.
    Fetch(u64),
    /// A bug of ours.
    Internal(String),
}

/// Guest code as the lifter reads it. Each page that is looked at is watched for writes.
struct Reader<'a> {
    mm: &'a Mm,
    /// The last page, and whether it is executable.
    page: Option<(u64, bool)>,
}

impl Reader<'_> {
    fn is_code(&mut self, page: u64) -> bool {
        match self.page {
            Some((p, good)) if p == page => good,
            _ => {
                let good = self.mm.with_page(page * PAGE, |p| p.executable) == Some(true);
                if good {
                    self.mm.mem().watch(page * PAGE);
                }
                self.page = Some((page, good));
                good
            }
        }
    }
}

impl evm_lifter::Code for Reader<'_> {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        if self.mm.mem().copy_out(addr, buf).is_ok() { buf.len() } else { 0 }
    }
    fn is_warm(&mut self, _: u64) -> bool {
        true
    }
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = addr.checked_add(done as u64) else { break };
            if !self.is_code(at / PAGE) {
                break;
            }
            let n = ((PAGE - at % PAGE) as usize).min(buf.len() - done);
            if self.mm.mem().copy_out(at, &mut buf[done..done + n]).is_err() {
                break;
            }
            done += n;
        }
        done
    }
}

/// Translate the block at an address, or in strict mode the instruction. Gives the guest bytes it came from, too.
pub fn translate(mm: &Mm, pc: u64, mode: Mode, v3: bool) -> Result<(Block, u64), Failure> {
    let opts = Options { mode, bits: mm.bits, v3, ..Options::default() };
    let mut region = match evm_lifter::lift(pc, &[], &mut Reader { mm, page: None }, &opts) {
        Ok(l) => l.region,
        Err(LiftError::Fetch { addr }) => return Err(Failure::Fetch(addr)),
        Err(e) => return Err(Failure::Internal(e.to_string())),
    };
    evm_ir::passes::optimize(&mut region, evm_ir::passes::OptLevel::Interp);
    evm_ir::validate(&region).map_err(|e| Failure::Internal(format!("block {pc:#x}: {e}")))?;
    let end = region.source.last().map_or(pc + 1, |(a, n)| a + u64::from(*n));
    Ok((Block { pc, code: interp::prepare(&region, &ABI), insns: region.insns }, end))
}

const CACHE: usize = 1 << 14;

/// All blocks.
pub struct Blocks {
    all: HashMap<u64, Rc<Block>>,
    /// Blocks that have bytes in a page.
    pages: BTreeMap<u64, Vec<u64>>,
    recent: Box<[Option<Rc<Block>>]>,
    /// See [`Options`].
    pub v3: bool,
}

fn slot(pc: u64) -> usize {
    (pc ^ pc >> 14) as usize % CACHE
}

impl Blocks {
    pub fn new(v3: bool) -> Blocks {
        Blocks { all: HashMap::new(), pages: BTreeMap::new(), recent: vec![None; CACHE].into(), v3 }
    }
    /// The block at an address, translated if there is none yet.
    pub fn get(&mut self, mm: &Mm, pc: u64) -> Result<Rc<Block>, Failure> {
        if let Some(b) = &self.recent[slot(pc)]
            && b.pc == pc
        {
            return Ok(b.clone());
        }
        let b = match self.all.get(&pc) {
            Some(b) => b.clone(),
            None => {
                let (b, end) = translate(mm, pc, Mode::Block, self.v3)?;
                for page in pc / PAGE..=(end.max(pc + 1) - 1) / PAGE {
                    self.pages.entry(page).or_default().push(pc);
                }
                let b = Rc::new(b);
                self.all.insert(pc, b.clone());
                b
            }
        };
        self.recent[slot(pc)] = Some(b.clone());
        Ok(b)
    }
    /// Drop what was translated from a range.
    pub fn drop_range(&mut self, start: u64, end: u64) {
        let hit: Vec<u64> = self.pages.range(start / PAGE..end.div_ceil(PAGE)).map(|p| *p.0).collect();
        for pc in hit.into_iter().filter_map(|p| self.pages.remove(&p)).flatten() {
            self.all.remove(&pc);
            let r = &mut self.recent[slot(pc)];
            if r.as_ref().is_some_and(|b| b.pc == pc) {
                *r = None;
            }
        }
    }
    /// Drop everything.
    pub fn clear(&mut self) {
        self.all.clear();
        self.pages.clear();
        self.recent.fill(None);
    }
}
