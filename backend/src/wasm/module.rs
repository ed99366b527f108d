//! Modules of functions.

use super::abi::{ENV, HELPERS, Import, MODULE};
use super::emit::{Body, Sym};
use super::intern::Intern;
use super::{Error, Settings};
use evm_ir::HelperSig;
use evm_ir::Type;
use std::collections::{BTreeMap, BTreeSet};
use wasm_encoder::ValType::{self, I32, I64, V128};
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, FunctionSection, ImportSection, MemorySection, MemoryType,
    RefType, TableType, TypeSection,
};

/// Regions of one module.
pub struct Module {
    settings: Settings,
    helpers: &'static [HelperSig],
    /// By the guest address of the first entry.
    regions: BTreeMap<u64, Body>,
    /// Addresses of other entries, and the region.
    entries: BTreeMap<u64, u64>,
}

impl Module {
    /// An empty one, for regions with these helpers.
    pub fn new(settings: Settings, helpers: &'static [HelperSig]) -> Module {
        Module { settings, helpers, regions: BTreeMap::new(), entries: BTreeMap::new() }
    }
    /// Add a region, by the address of its first entry.
    pub fn add(&mut self, pc: u64, body: Body) {
        self.regions.insert(pc, body);
    }
    /// The region whose first entry is at `of` has one at `pc` as well.
    pub fn add_entry(&mut self, pc: u64, of: u64) {
        self.entries.insert(pc, of);
    }
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().filter(|e| !self.regions.contains_key(e.0)).map(|e| (*e.0, *e.1))
    }
    /// Guest addresses in the order of the functions.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.regions.keys().copied()
    }

    /// The functions, in that order.
    pub(super) fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.regions.values()
    }
    pub(super) fn helpers(&self) -> &'static [HelperSig] {
        self.helpers
    }
    /// Functions of the module that regions and they themselves call.
    pub(super) fn interns(&self) -> BTreeMap<Intern, Body> {
        let mut found = BTreeMap::new();
        let mut work: Vec<Sym> = self.regions.values().flat_map(|b| b.refs.iter().map(|r| r.1)).collect();
        while let Some(s) = work.pop() {
            if let Sym::Intern(i) = s
                && !found.contains_key(&i)
            {
                let body = i.body(&self.settings.abi, self.settings.tail_calls);
                work.extend(body.refs.iter().map(|r| r.1));
                found.insert(i, body);
            }
        }
        found
    }

    /// The module: regions are exported as `r` and their address in hexadecimal.
    pub fn finish(&self) -> Result<Vec<u8>, Error> {
        let interns = self.interns();
        let used: BTreeSet<Sym> =
            self.regions.values().chain(interns.values()).flat_map(|b| b.refs.iter().map(|r| r.1)).collect();
        let mut types = Types::default();
        let region = types.index((vec![I32, I64], vec![I64]));
        let mut imports = ImportSection::new();
        let memory = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
        let table =
            TableType { element_type: RefType::FUNCREF, table64: false, minimum: 0, maximum: None, shared: false };
        imports.import(ENV, "memory", EntityType::Memory(memory));
        imports.import(ENV, "table", EntityType::Table(table));
        let mut numbers: BTreeMap<Sym, u32> = BTreeMap::new();
        numbers.insert(Sym::RegionType, region);
        let mut count = 0;
        for s in &used {
            let (module, name, ty) = match s {
                Sym::Import(i) => (MODULE, i.name(), i.signature()),
                Sym::Helper(n) => {
                    let h = self.helpers.get(usize::from(*n)).ok_or(Error::Invalid("no such helper"))?;
                    (HELPERS, h.name, helper_signature(h))
                }
                Sym::Intern(_) | Sym::Region(_) | Sym::RegionType => continue,
            };
            imports.import(module, name, EntityType::Function(types.index(ty)));
            numbers.insert(*s, count);
            count += 1;
        }
        let mut functions = FunctionSection::new();
        let mut exports = ExportSection::new();
        for i in interns.keys() {
            functions.function(types.index(i.signature()));
            numbers.insert(Sym::Intern(*i), count);
            count += 1;
        }
        for pc in self.regions.keys() {
            functions.function(region);
            numbers.insert(Sym::Region(*pc), count);
            exports.export(&format!("r{pc:x}"), ExportKind::Func, count);
            count += 1;
        }
        for (pc, of) in self.entries() {
            let n = *numbers
                .get(&Sym::Region(of))
                .ok_or(Error::Invalid("an entry of a region that is not in the module"))?;
            numbers.insert(Sym::Region(pc), n);
        }
        if used.iter().any(|s| !numbers.contains_key(s)) {
            return Err(Error::Invalid("a call of a region that is not in the module"));
        }
        let mut code = CodeSection::new();
        for b in interns.values().chain(self.regions.values()) {
            code.raw(&b.finish(|s| numbers[&s]));
        }
        let mut m = wasm_encoder::Module::new();
        m.section(&types.section).section(&imports).section(&functions).section(&exports).section(&code);
        Ok(m.finish())
    }
}

/// A module with a memory of this many pages, exported as `memory`, and nothing else.
pub fn memory_module(pages: u64) -> Vec<u8> {
    let mut memories = MemorySection::new();
    let ty = MemoryType { minimum: pages, maximum: Some(pages), memory64: false, shared: false, page_size_log2: None };
    memories.memory(ty);
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    let mut m = wasm_encoder::Module::new();
    m.section(&memories).section(&exports);
    m.finish()
}

/// Check a module, with the features of WebAssembly that these settings use and no others.
pub fn validate(module: &[u8], s: &Settings) -> Result<(), String> {
    use wasmparser::WasmFeatures as F;
    let mut f = F::WASM2;
    f.set(F::TAIL_CALL, s.tail_calls);
    f.set(F::THREADS, s.atomics);
    wasmparser::Validator::new_with_features(f).validate_all(module).map(drop).map_err(|e| e.to_string())
}

/// Type section without repetitions.
#[derive(Default)]
pub(super) struct Types {
    pub section: TypeSection,
    seen: BTreeMap<String, u32>,
}
impl Types {
    pub fn index(&mut self, (params, results): (Vec<ValType>, Vec<ValType>)) -> u32 {
        let key = format!("{params:?}{results:?}");
        *self.seen.entry(key).or_insert_with(|| {
            self.section.ty().function(params, results);
            self.section.len() - 1
        })
    }
}

/// WebAssembly type of a helper.
pub fn helper_signature(h: &HelperSig) -> (Vec<ValType>, Vec<ValType>) {
    let mut params = vec![I32];
    params.extend(std::iter::repeat_n(I64, h.ints.into()));
    params.extend(std::iter::repeat_n(V128, h.vecs.into()));
    (params, h.ret.map(|t| if t == Type::V128 { V128 } else { I64 }).into_iter().collect())
}

impl Import {
    /// WebAssembly type.
    pub fn signature(self) -> (Vec<ValType>, Vec<ValType>) {
        match self {
            Import::Call | Import::Resume => (vec![I32, I64, I64], vec![I64]),
            Import::Service | Import::Raise => (vec![I32, I64, I64, I64], vec![I64]),
            Import::Access => (vec![I32, I64, I64, I32], vec![I32]),
        }
    }
}
