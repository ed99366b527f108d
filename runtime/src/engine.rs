//! The engine: what several virtual machines in one host process share. The compiler, the numbering
//! of entry points, the store of compiled regions, the compile thread and the counters.

use crate::cache::images::Images;
use crate::code::kept::Attached;
use crate::code::space::{CodeSpace, Compiled, MAX_ENTRIES, QuickStore};
use crate::code::translate::{self, Single};
use crate::config::EngineKind;
use crate::dump::Dump;
use crate::guard;
use crate::stats::Counters;
use evm_backend::cranelift::{CompileOptions, Compiled as Code, Compiler, CompilerSettings};
use evm_backend::quick::Quick;
use evm_ir::Region;
use evm_kernel::mm::Mm;
use evm_lifter::AddressHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Interpretations of a block before its region is compiled.
pub(crate) const HOT: u32 = 40;
/// Entries of a block of the quick tier between two reports that it is hot.
pub(crate) const QUICK_HOT: u32 = 16384;
/// Entries of a block since the region that holds it was installed that make it worth an entry of the region.
const OUTSIDE: u32 = 256;
/// Most entries that a region gets at a time because it is entered there.
const MAX_HOT_ENTRIES: usize = 32;
/// Most entries of one region.
const MAX_REGION_ENTRIES: usize = 256;
/// Single instructions that are kept, at most.
const SINGLES: usize = 1 << 14;

pub(crate) fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request for a region.
pub(crate) struct Job {
    pub space: Arc<CodeSpace>,
    pub mm: Arc<Mm>,
    pub pc: u64,
    pub precise: bool,
    /// Asked for by the quick tier's counters.
    pub background: bool,
    /// For the WebAssembly engine.
    pub wasm: bool,
}

/// Where translations are installed.
pub(crate) struct Target<'a> {
    pub space: &'a CodeSpace,
    pub mm: &'a Mm,
    pub precise: bool,
}

struct Inner {
    index: Mutex<HashMap<u64, u32, BuildHasherDefault<AddressHasher>>>,
    store: Mutex<HashMap<u64, Vec<Arc<Compiled>>>>,
    #[cfg(feature = "wasm")]
    wasm: OnceLock<Result<Arc<crate::wasm::WasmEngine>, String>>,
    /// The same for WebAssembly.
    wasm_store: Mutex<HashMap<u64, Vec<Arc<Compiled>>>>,
    /// The same for code of the quick tier.
    quick_store: Mutex<QuickStore>,
    /// Single instructions that are interpreted among copied code, by pc.
    singles: Mutex<HashMap<u64, Single>>,
    /// Translations kept from other runs.
    images: OnceLock<Images>,
    queue: Mutex<VecDeque<Job>>,
    wake: Condvar,
    stop: AtomicBool,
    worker: OnceLock<()>,
    counters: Counters,
    dump: OnceLock<Dump>,
    reported: Mutex<Vec<String>>,
}

/// Shared translation state. Cloning gives another handle.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new()
    }
}

impl Engine {
    /// A new engine with nothing translated.
    pub fn new() -> Engine {
        crate::host::enter::install();
        Engine {
            inner: Arc::new(Inner {
                index: Mutex::default(),
                store: Mutex::new(HashMap::new()),
                #[cfg(feature = "wasm")]
                wasm: OnceLock::new(),
                wasm_store: Mutex::new(HashMap::new()),
                quick_store: Mutex::default(),
                singles: Mutex::default(),
                images: OnceLock::new(),
                queue: Mutex::new(VecDeque::new()),
                wake: Condvar::new(),
                stop: AtomicBool::new(false),
                worker: OnceLock::new(),
                counters: Counters::default(),
                dump: OnceLock::new(),
                reported: Mutex::new(Vec::new()),
            }),
        }
    }
    /// Dump compiled regions to a folder from now on. The first folder stays.
    pub(crate) fn dump_to(&self, folder: &std::path::Path) {
        self.inner.dump.get_or_init(|| Dump::new(folder));
    }
    pub(crate) fn dump(&self) -> Option<&Dump> {
        self.inner.dump.get()
    }
    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }
    /// Engine-wide index of a guest pc as an entry point.
    pub(crate) fn entry_index(&self, pc: u64) -> u32 {
        let mut m = lock(&self.inner.index);
        if let Some(i) = m.get(&pc) {
            return *i;
        }
        if let Some(i) = self.inner.images.get().and_then(|i| i.index(pc)) {
            return i;
        }
        // Entry 0 never has code: compiled code uses it for addresses it does not find. Addresses that come when the
        // table is full share it.
        let n = m.len() as u32 + 1;
        if n as usize >= MAX_ENTRIES {
            return 0;
        }
        m.insert(pc, n);
        n
    }
    /// One more than the largest entry index given out one by one.
    pub(crate) fn entries(&self) -> usize {
        lock(&self.inner.index).len() + 1
    }
    /// The same if it has been given out.
    pub(crate) fn known_index(&self, pc: u64) -> Option<u32> {
        let known = lock(&self.inner.index).get(&pc).copied();
        known.or_else(|| self.inner.images.get()?.index(pc))
    }
    /// Use translations of other runs, and note what this one adds. The first call of an engine counts.
    pub(crate) fn keep(&self, images: impl FnOnce() -> Images) -> &Images {
        self.inner.images.get_or_init(images)
    }
    /// See [`Engine::keep`].
    pub(crate) fn images(&self) -> Option<&Images> {
        self.inner.images.get()
    }
    /// The image that holds `pc`, if translations are kept. It has to be known before `pc` is given an entry index.
    pub(crate) fn image(&self, space: &CodeSpace, mm: &Mm, pc: u64) -> Option<Arc<Attached>> {
        let images = self.inner.images.get()?;
        space.attached(pc).or_else(|| space.attach(images.find(mm, space, pc)?))
    }
    /// Install what other runs have left for the page of `pc`; true if there is code for its entry `index` now.
    pub(crate) fn kept(&self, t: &Target<'_>, a: &Attached, pc: u64, index: u32) -> bool {
        if t.space.traps() {
            return false;
        }
        if t.precise && !a.image.precise.load(Ordering::Relaxed) {
            a.image.precise.store(true, Ordering::Relaxed);
        }
        let Some(n) = t.space.install_kept(t.mm, a, pc) else { return false };
        a.image.taken.fetch_add(n, Ordering::Relaxed);
        let c = &self.inner.counters;
        Counters::add(&c.blocks_kept, u64::from(n));
        if n > 0 {
            let page = a.page(pc);
            for r in a.image.regions(page).filter(|r| r.copied || r.precise == t.precise) {
                // A region that can be entered in several pages is there after the first; the blocks of this one have just taken
                // the place of its entries. One with several entries in the page comes several times.
                let there = r.entries.iter().filter(|e| a.page(e.0) == page).all(|e| t.space.has(e.1, r));
                if !there && translate::adopt(t.space, t.mm, r) {
                    Counters::add(&c.regions_kept, 1);
                }
            }
        }
        t.space.code(index) != 0 || t.space.records().code(index).is_some()
    }
    pub(crate) fn compile(&self, region: &Region, precise: bool, min_limit: u64) -> Result<Code, String> {
        thread_local! {
            static COMPILER: std::cell::RefCell<Option<(u64, Compiler)>> = const { std::cell::RefCell::new(None) };
        }
        COMPILER.with_borrow_mut(|c| {
            let c = match c {
                Some((limit, c)) if *limit == min_limit => c,
                _ => {
                    let settings = CompilerSettings { min_limit, ..CompilerSettings::default() };
                    let made = Compiler::new(crate::thread::ABI, settings).map_err(|e| e.to_string())?;
                    &mut c.insert((min_limit, made)).1
                }
            };
            let options = CompileOptions { precise, disassemble: self.dump().is_some(), ..CompileOptions::default() };
            c.compile(region, options, &mut |pc| self.entry_index(pc)).map_err(|e| e.to_string())
        })
    }
    /// Say once that a translation failed, on standard error: it is a bug of ours, and the guest goes on interpreted.
    pub(crate) fn report(&self, what: String) {
        let mut r = lock(&self.inner.reported);
        if r.len() < 64 && !r.contains(&what) {
            eprintln!("evm: internal error: {what}; interpreting it instead");
            r.push(what);
        }
    }
    #[cfg(feature = "wasm")]
    pub(crate) fn wasm(&self) -> Result<Arc<crate::wasm::WasmEngine>, String> {
        self.inner.wasm.get_or_init(|| crate::wasm::WasmEngine::new().map(Arc::new)).clone()
    }
    fn store(&self, wasm: bool) -> &Mutex<HashMap<u64, Vec<Arc<Compiled>>>> {
        if wasm { &self.inner.wasm_store } else { &self.inner.store }
    }
    /// Take a region over from another process, if one compiled the same bytes.
    pub(crate) fn adopt(&self, j: &Job) -> bool {
        let candidates = lock(self.store(j.wasm)).get(&j.pc).cloned().unwrap_or_default();
        for r in candidates.iter().rev() {
            if (r.precise == j.precise || j.wasm) && translate::adopt(&j.space, &j.mm, r) {
                Counters::add(&self.inner.counters.regions_adopted, 1);
                return true;
            }
        }
        false
    }
    /// Code of the quick tier for `pc`: taken over from another process, or made. True if it is installed.
    pub(crate) fn quick(
        &self,
        space: &CodeSpace,
        mm: &Mm,
        pc: u64,
        compiler: &mut Quick,
        threshold: u32,
    ) -> Result<bool, translate::Failure> {
        let candidates = lock(&self.inner.quick_store).of(pc);
        for p in candidates.iter().flatten() {
            if translate::adopt_piece(space, mm, p) {
                Counters::add(&self.inner.counters.regions_adopted, 1);
                return Ok(true);
            }
        }
        let t = Instant::now();
        let r = guard::caught(pc, || translate::quick(self, space, mm, pc, compiler, threshold))?;
        let c = &self.inner.counters;
        Counters::add(&c.quick_us, t.elapsed().as_micros() as u64);
        let Some(p) = r else {
            Counters::add(&c.blocks_refused, 1);
            return Ok(false);
        };
        Counters::add(&c.blocks_quick, 1);
        if self.inner.images.get().is_some()
            && !p.traps
            && let Some(a) = space.attached(pc)
        {
            a.image.note(pc, p.index);
        }
        lock(&self.inner.quick_store).add(p);
        Ok(true)
    }
    /// The instruction at `pc`, as the last process that came to it made it.
    pub(crate) fn single(&self, pc: u64) -> Option<Single> {
        lock(&self.inner.singles).get(&pc).cloned()
    }
    /// See [`Engine::single`].
    pub(crate) fn add_single(&self, pc: u64, s: Single) {
        let mut all = lock(&self.inner.singles);
        if all.len() >= SINGLES {
            all.clear();
        }
        all.insert(pc, s);
    }
    /// Compile now, on this thread. True if code for `pc` is installed.
    pub(crate) fn compile_now(&self, j: &Job) -> bool {
        if self.adopt(j) {
            return true;
        }
        let t = Instant::now();
        let mut extra = Vec::new();
        let mut pc = j.pc;
        // A kept region is left as it is: what is hot beside it becomes a region of its own, of blocks that this run counted.
        let owner = if j.wasm { None } else { j.space.owner(j.pc).filter(|r| !r.kept) };
        if let Some(owner) = &owner
            && owner.entries.len() < MAX_REGION_ENTRIES
        {
            // Blocks of one loop get hot together; the region of the first has the others too, and they show by another
            // report that they are still entered from outside. Each time a region is extended it takes four times the heat.
            // What was counted before the region was there does not say so.
            let n = j.space.compiles(owner.entries[0].0);
            let since = j.space.entered_since(j.pc, self.entry_index(j.pc), QUICK_HOT);
            if j.background && (since < OUTSIDE || j.space.reports(j.pc) < 1 << (2 * n.min(8)).saturating_sub(1)) {
                return false;
            }
            pc = owner.entries[0].0;
            extra = owner.entries[1..].iter().map(|e| e.0).collect();
            extra.push(j.pc);
            extra.extend(j.space.hot_blocks(owner, MAX_HOT_ENTRIES, QUICK_HOT));
            extra.sort_unstable();
            extra.dedup();
            extra.retain(|e| *e != pc);
        }
        j.space.note_compile(pc);
        let c = &self.inner.counters;
        let r = guard::caught(pc, || {
            #[cfg(feature = "wasm")]
            if j.wasm {
                return translate::wasm(self, &j.space, &j.mm, pc);
            }
            translate::region(self, &j.space, &j.mm, pc, &extra, j.precise, j.background, owner.clone())
        });
        Counters::add(&c.compile_us, t.elapsed().as_micros() as u64);
        match r {
            Ok(Some(r)) => {
                Counters::add(&c.regions_compiled, 1);
                Counters::add(&c.insns_compiled, u64::from(r.insns));
                let mut store = lock(self.store(j.wasm));
                for (pc, _) in &r.entries {
                    let v = store.entry(*pc).or_default();
                    if v.len() >= 4 {
                        v.remove(0);
                    }
                    v.push(r.clone());
                }
                j.space.code(self.entry_index(j.pc)) != 0
            }
            Ok(None) => false,
            Err(translate::Failure::Fetch(_)) => false,
            Err(translate::Failure::Internal(e)) => {
                Counters::add(&c.regions_failed, 1);
                self.report(e);
                false
            }
        }
    }
    /// Compile in the background.
    pub(crate) fn request(&self, j: Job) {
        let inner = self.inner.clone();
        self.inner.worker.get_or_init(|| {
            let weak = Arc::downgrade(&inner);
            let _ = std::thread::Builder::new().name("evm-compile".into()).stack_size(16 << 20).spawn(move || {
                loop {
                    let Some(inner) = weak.upgrade() else { return };
                    let job = {
                        let mut q = lock(&inner.queue);
                        loop {
                            if inner.stop.load(Ordering::Relaxed) {
                                return;
                            }
                            if let Some(j) = q.pop_front() {
                                break j;
                            }
                            let (g, t) = inner
                                .wake
                                .wait_timeout(q, std::time::Duration::from_millis(200))
                                .unwrap_or_else(PoisonError::into_inner);
                            q = g;
                            if t.timed_out() && Arc::strong_count(&inner) == 1 {
                                return;
                            }
                        }
                    };
                    let engine = Engine { inner };
                    engine.compile_now(&job);
                }
            });
        });
        lock(&self.inner.queue).push_back(j);
        self.inner.wake.notify_one();
    }
    /// Forget queued requests (the job they were for has ended).
    pub(crate) fn clear_queue(&self) {
        lock(&self.inner.queue).clear();
    }
}

/// Entries of a quick piece between two reports, for an engine kind.
pub(crate) fn quick_threshold(kind: EngineKind) -> u32 {
    if matches!(kind, EngineKind::Jit | EngineKind::Direct) { QUICK_HOT } else { 1 << 31 }
}

/// How an engine kind treats a block.
pub(crate) fn threshold(kind: EngineKind) -> u32 {
    match kind {
        EngineKind::Interp | EngineKind::Quick | EngineKind::Wasm => u32::MAX,
        EngineKind::Cranelift => 0,
        EngineKind::Jit | EngineKind::Direct => HOT,
    }
}
