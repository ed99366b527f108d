//! Linking lifted functions with a runtime module: one module, with the runtime's imports.
//!
//! Everything is appended: types, functions, elements of the table, data. So all numbers of the runtime's own code stay as they
//! are, and its sections are copied. What regions import are elements of the runtime's table, whose numbers are
//! data at its exports [`FUNCTION_LIST`] and [`HELPER_LIST`]. These exports do not stay. A region that calls one that is not in the module calls [`NOWHERE`].
//!
//! Data goes behind the runtime's initial memory, which grows by as much. The runtime finds it by the address that its export
//! [`LIFTED`] gives, a global: there the linker writes a [header](HEADER_WORDS).

use super::abi::{FUNCTION_LIST, HELPER_LIST, Import, LIFTED, NOWHERE};
use super::emit::Sym;
use super::module::{Module, helper_signature};
use std::collections::{BTreeMap, HashMap};
use wasm_encoder::ValType::{self, I32, I64};
use wasm_encoder::{ConstExpr, Encode};
use wasmparser::{
    CompositeInnerType, DataKind, ElementItems, ElementKind, ExternalKind, Operator, Parser, Payload, TypeRef,
};

/// Why modules could not be linked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The runtime is no module.
    #[error("the runtime module: {0}")]
    Read(#[from] wasmparser::BinaryReaderError),
    /// The runtime has not what lifted code needs.
    #[error("the runtime module has no export {0}")]
    Missing(String),
    /// The runtime has something else by that name.
    #[error("the runtime's export {0} has another type")]
    Type(String),
    /// The runtime uses something that the linker does not know.
    #[error("the runtime module {0}")]
    Unsupported(&'static str),
    /// A lifted function is not right.
    #[error(transparent)]
    Lifted(#[from] super::Error),
}

/// Data for the runtime: where it is wanted, if that matters, and the bytes.
#[derive(Clone, Debug, Default)]
pub struct Blob {
    /// What it is; at most eight bytes, shown to the runtime as a number.
    pub name: [u8; 8],
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the runtime is told, at the address in [`LIFTED`], in words of 32 bits: the number of entry points, the address of their
/// list, the number of blobs, the address of their list.
///
/// The list of entry points is sorted by guest address: `(guest address: u64, index in the table: u32, 0: u32)`. The list
/// of blobs: `(name: [u8; 8], address: u32, length: u32)`.
pub const HEADER_WORDS: usize = 4;

const PAGE: usize = 65536;

/// A module's sections by their numbers.
#[derive(Default)]
struct Runtime<'a> {
    sections: BTreeMap<u8, &'a [u8]>,
    customs: Vec<(&'a str, &'a [u8])>,
    types: Vec<Option<(Vec<ValType>, Vec<ValType>)>>,
    /// Type of each function, imported ones first.
    functions: Vec<u32>,
    globals: Vec<Option<u32>>,
    exports: HashMap<&'a str, (ExternalKind, u32)>,
    /// Functions in the table, by element.
    elements: HashMap<u32, u32>,
    /// Data at the start: address and bytes.
    segments: Vec<(u32, &'a [u8])>,
    /// Elements and pages at the start.
    table: Option<(u64, Option<u64>)>,
    memory: Option<(u64, Option<u64>)>,
}

fn val_type(t: wasmparser::ValType) -> Option<ValType> {
    use wasmparser::ValType as W;
    Some(match t {
        W::I32 => ValType::I32,
        W::I64 => ValType::I64,
        W::F32 => ValType::F32,
        W::F64 => ValType::F64,
        W::V128 => ValType::V128,
        W::Ref(_) => return None,
    })
}

/// The value of an initializer, if it is a constant of 32 bits.
fn constant(e: &wasmparser::ConstExpr<'_>) -> Result<Option<u32>, LinkError> {
    Ok(match e.get_operators_reader().read()? {
        Operator::I32Const { value } => Some(value as u32),
        _ => None,
    })
}

impl<'a> Runtime<'a> {
    fn read(bytes: &'a [u8]) -> Result<Runtime<'a>, LinkError> {
        let mut m = Runtime::default();
        for p in Parser::new(0).parse_all(bytes) {
            let p = p?;
            if let Some((id, range)) = p.as_section()
                && id != 0
            {
                m.sections.insert(id, &bytes[range]);
            }
            match p {
                Payload::TypeSection(s) => {
                    for group in s {
                        let group = group?;
                        if group.is_explicit_rec_group() {
                            return Err(LinkError::Unsupported("has recursive types"));
                        }
                        for t in group.into_types() {
                            m.types.push(match t.composite_type.inner {
                                CompositeInnerType::Func(f) => {
                                    let list = |l: &[wasmparser::ValType]| l.iter().map(|t| val_type(*t)).collect();
                                    let list = |l| -> Option<Vec<ValType>> { list(l) };
                                    list(f.params()).zip(list(f.results()))
                                }
                                _ => None,
                            });
                        }
                    }
                }
                Payload::ImportSection(s) => {
                    for i in s.into_imports() {
                        match i?.ty {
                            TypeRef::Func(t) => m.functions.push(t),
                            TypeRef::Global(_) => m.globals.push(None),
                            _ => return Err(LinkError::Unsupported("imports a memory or a table")),
                        }
                    }
                }
                Payload::FunctionSection(s) => {
                    for t in s {
                        m.functions.push(t?);
                    }
                }
                Payload::TableSection(s) => {
                    for t in s {
                        let t = t?;
                        if m.table.is_some() || t.ty.table64 {
                            return Err(LinkError::Unsupported("has several tables"));
                        }
                        m.table = Some((t.ty.initial, t.ty.maximum));
                    }
                }
                Payload::MemorySection(s) => {
                    for t in s {
                        let t = t?;
                        if m.memory.is_some() || t.memory64 || t.shared || t.page_size_log2.is_some() {
                            return Err(LinkError::Unsupported("has another memory than one of 32 bits"));
                        }
                        m.memory = Some((t.initial, t.maximum));
                    }
                }
                Payload::GlobalSection(s) => {
                    for g in s {
                        m.globals.push(constant(&g?.init_expr)?);
                    }
                }
                Payload::ExportSection(s) => {
                    for e in s {
                        let e = e?;
                        m.exports.insert(e.name, (e.kind, e.index));
                    }
                }
                Payload::ElementSection(s) => {
                    for e in s {
                        m.read_elements(e?)?;
                    }
                }
                Payload::DataSection(s) => {
                    for d in s {
                        let d = d?;
                        if let DataKind::Active { memory_index: 0, offset_expr } = d.kind
                            && let Some(at) = constant(&offset_expr)?
                        {
                            m.segments.push((at, d.data));
                        }
                    }
                }
                Payload::CustomSection(c) => m.customs.push((c.name(), c.data())),
                _ => {}
            }
        }
        Ok(m)
    }

    fn read_elements(&mut self, e: wasmparser::Element<'a>) -> Result<(), LinkError> {
        let ElementKind::Active { table_index: None | Some(0), offset_expr } = e.kind else {
            return Ok(());
        };
        let (Some(at), ElementItems::Functions(list)) = (constant(&offset_expr)?, e.items) else {
            return Ok(());
        };
        for (n, f) in list.into_iter().enumerate() {
            self.elements.insert(at.wrapping_add(n as u32), f?);
        }
        Ok(())
    }
    /// The value of an exported global, an address.
    fn address(&self, name: &str) -> Result<u32, LinkError> {
        let Some((ExternalKind::Global, n)) = self.exports.get(name).copied() else {
            return Err(LinkError::Missing(name.into()));
        };
        self.globals.get(n as usize).copied().flatten().ok_or_else(|| LinkError::Type(name.into()))
    }
    /// A word of the initial memory.
    fn word(&self, at: u32) -> u32 {
        let byte = |at: u32| {
            let holds = |s: &&(u32, &[u8])| at.checked_sub(s.0).is_some_and(|o| (o as usize) < s.1.len());
            self.segments.iter().rev().find(holds).map_or(0, |s| s.1[(at - s.0) as usize])
        };
        u32::from_le_bytes([0, 1, 2, 3].map(|i| byte(at.wrapping_add(i))))
    }
    /// Number of the function with this place in a list.
    fn listed(&self, list: &str, n: u32, name: &str, want: &(Vec<ValType>, Vec<ValType>)) -> Result<u32, LinkError> {
        let element = self.word(self.address(list)?.wrapping_add(4 * n));
        let wrong = || LinkError::Type(format!("{list}, {name},"));
        let f = self.elements.get(&element).copied().ok_or_else(wrong)?;
        let ty = self.functions.get(f as usize).and_then(|t| self.types.get(*t as usize));
        if ty.is_some_and(|t| t.as_ref() == Some(want)) { Ok(f) } else { Err(wrong()) }
    }
}

/// What is appended to a section that is a list.
#[derive(Default)]
struct More {
    count: u32,
    bytes: Vec<u8>,
}

impl More {
    /// The section with it.
    fn after(&self, old: Option<&[u8]>) -> Result<Vec<u8>, LinkError> {
        let (mut n, mut rest) = (0, &[][..]);
        if let Some(old) = old {
            let mut r = wasmparser::BinaryReader::new(old, 0);
            n = r.read_var_u32()?;
            rest = &old[r.original_position()..];
        }
        let mut out = vec![];
        n.checked_add(self.count).ok_or(LinkError::Unsupported("has sections that are full"))?.encode(&mut out);
        out.extend_from_slice(rest);
        out.extend_from_slice(&self.bytes);
        Ok(out)
    }
}

/// Merge the regions of `lifted` with a runtime.
pub fn link(runtime: &[u8], lifted: &Module, blobs: &[Blob]) -> Result<Vec<u8>, LinkError> {
    let rt = Runtime::read(runtime)?;
    let (Some(table), Some(memory)) = (rt.table, rt.memory) else {
        return Err(LinkError::Unsupported("has no table, or no memory"));
    };
    let mut parts = Parts { types: More::default(), known: HashMap::new(), first: rt.types.len() as u32 };
    for (n, t) in rt.types.iter().enumerate() {
        if let Some(t) = t {
            parts.known.entry(key(t)).or_insert(n as u32);
        }
    }
    let region = (vec![I32, I64], vec![I64]);
    let nowhere = rt.listed(FUNCTION_LIST, Import::ALL.len() as u32, NOWHERE, &region)?;
    let interns = lifted.interns();
    let mut numbers: HashMap<Sym, u32> = HashMap::new();
    numbers.insert(Sym::RegionType, parts.index(&region));
    let mut functions = More::default();
    let mut next = rt.functions.len() as u32;
    let mut add = |s: Sym, ty: u32| {
        ty.encode(&mut functions.bytes);
        functions.count += 1;
        numbers.insert(s, next);
        next += 1;
        next - 1
    };
    for i in interns.keys() {
        let ty = parts.index(&i.signature());
        add(Sym::Intern(*i), ty);
    }
    let ty = parts.index(&region);
    let mut places: BTreeMap<u64, u32> = BTreeMap::new();
    let mut elements = vec![];
    for pc in lifted.addresses() {
        places.insert(pc, table.0 as u32 + elements.len() as u32);
        elements.push(add(Sym::Region(pc), ty));
    }
    for (pc, of) in lifted.entries() {
        let n =
            places.get(&of).copied().ok_or(super::Error::Invalid("an entry of a region that is not in the module"))?;
        places.insert(pc, n);
        if let Some(f) = numbers.get(&Sym::Region(of)).copied() {
            numbers.insert(Sym::Region(pc), f);
        }
    }
    let mut code = More::default();
    for b in interns.values().chain(lifted.bodies()) {
        for (_, s) in &b.refs {
            if !numbers.contains_key(s) {
                let n = if let Sym::Region(_) = s { nowhere } else { imported(&rt, lifted, *s)? };
                numbers.insert(*s, n);
            }
        }
        b.finish(|s| numbers[&s]).encode(&mut code.bytes);
        code.count += 1;
    }
    let (data, pages) = data(&rt, memory.0, &places, blobs)?;
    Output { rt, table, memory, parts, functions, elements, nowhere, code, data, pages }.write()
}

fn imported(rt: &Runtime<'_>, lifted: &Module, s: Sym) -> Result<u32, LinkError> {
    match s {
        Sym::Import(i) => rt.listed(FUNCTION_LIST, i as u32, i.name(), &i.signature()),
        Sym::Helper(n) => {
            let h = lifted.helpers().get(usize::from(n)).ok_or(super::Error::Invalid("no such helper"))?;
            rt.listed(HELPER_LIST, n.into(), h.name, &helper_signature(h))
        }
        Sym::Intern(_) | Sym::Region(_) | Sym::RegionType => {
            Err(super::Error::Invalid("a call of a region that is not in the module").into())
        }
    }
}

/// Data segments: the list of entry points and the blobs behind initial memory, and the header. Gives also the pages that they need.
fn data(rt: &Runtime<'_>, pages: u64, places: &BTreeMap<u64, u32>, blobs: &[Blob]) -> Result<(More, u64), LinkError> {
    let start = pages as usize * PAGE;
    let mut bytes: Vec<u8> = vec![];
    for (pc, index) in places {
        bytes.extend(pc.to_le_bytes());
        bytes.extend(index.to_le_bytes());
        bytes.extend([0; 4]);
    }
    let list = start + bytes.len();
    let mut at = list + 16 * blobs.len();
    let mut rest: Vec<u8> = vec![];
    for b in blobs {
        // Each on a page of the guest, so that it can be used where it is.
        let aligned = at.next_multiple_of(4096);
        rest.resize(rest.len() + (aligned - at), 0);
        at = aligned;
        bytes.extend(b.name);
        bytes.extend((at as u32).to_le_bytes());
        bytes.extend((b.bytes.len() as u32).to_le_bytes());
        rest.extend(&b.bytes);
        at += b.bytes.len();
    }
    bytes.extend(rest);
    if start + bytes.len() > u32::MAX as usize - PAGE {
        return Err(LinkError::Unsupported("cannot hold as much data"));
    }
    let header: Vec<u8> =
        [places.len(), start, blobs.len(), list].iter().flat_map(|w| (*w as u32).to_le_bytes()).collect();
    let mut out = More::default();
    for (at, bytes) in [(start, &bytes), (rt.address(LIFTED)? as usize, &header)] {
        out.bytes.push(0);
        ConstExpr::i32_const(at as i32).encode(&mut out.bytes);
        bytes.encode(&mut out.bytes);
        out.count += 1;
    }
    Ok((out, bytes.len().div_ceil(PAGE) as u64))
}

fn key((params, results): &(Vec<ValType>, Vec<ValType>)) -> String {
    format!("{params:?}{results:?}")
}

/// Types, the runtime's and new ones.
struct Parts {
    types: More,
    known: HashMap<String, u32>,
    first: u32,
}
impl Parts {
    fn index(&mut self, t: &(Vec<ValType>, Vec<ValType>)) -> u32 {
        *self.known.entry(key(t)).or_insert_with(|| {
            self.types.bytes.push(0x60);
            t.0.encode(&mut self.types.bytes);
            t.1.encode(&mut self.types.bytes);
            self.types.count += 1;
            self.first + self.types.count - 1
        })
    }
}

struct Output<'a> {
    rt: Runtime<'a>,
    table: (u64, Option<u64>),
    memory: (u64, Option<u64>),
    parts: Parts,
    functions: More,
    elements: Vec<u32>,
    nowhere: u32,
    code: More,
    data: More,
    pages: u64,
}

/// Numbers of sections, in the order they stand in a module.
const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

impl Output<'_> {
    fn write(&self) -> Result<Vec<u8>, LinkError> {
        let mut out = b"\0asm\x01\0\0\0".to_vec();
        for id in ORDER {
            let old = self.rt.sections.get(&id).copied();
            let new = match id {
                1 => self.parts.types.after(old)?,
                3 => self.functions.after(old)?,
                4 => self.table(),
                5 => self.memory(),
                7 => self.exports(),
                9 => self.elements().after(old)?,
                10 => self.code.after(old)?,
                11 => self.data.after(old)?,
                12 => match old {
                    Some(old) => More { count: self.data.count, bytes: vec![] }.after(Some(old))?,
                    None => continue,
                },
                _ => match old {
                    Some(old) => old.to_vec(),
                    None => continue,
                },
            };
            out.push(id);
            new.encode(&mut out);
        }
        for (name, bytes) in self.rt.customs.iter().filter(|c| !c.0.starts_with(".debug") && c.0 != "linking") {
            add_section(&mut out, name, bytes);
        }
        Ok(out)
    }

    fn limits(out: &mut Vec<u8>, (min, max): (u64, Option<u64>), more: u64) {
        out.push(u8::from(max.is_some()));
        (min + more).encode(out);
        if let Some(max) = max {
            (max + more).encode(out);
        }
    }
    fn table(&self) -> Vec<u8> {
        let mut out = vec![1, 0x70];
        Self::limits(&mut out, self.table, self.elements.len() as u64);
        out
    }
    fn memory(&self) -> Vec<u8> {
        let mut out = vec![1];
        // The largest memory is as large as it may be, whatever is in it at the start.
        let (min, max) = self.memory;
        out.push(u8::from(max.is_some()));
        (min + self.pages).encode(&mut out);
        if let Some(max) = max {
            max.max(min + self.pages).encode(&mut out);
        }
        out
    }
    fn exports(&self) -> Vec<u8> {
        let mut keep: Vec<_> = self.rt.exports.iter().filter(|(name, _)| !name.starts_with("evm_")).collect();
        keep.sort_by_key(|(name, _)| **name);
        let mut out = vec![];
        keep.len().encode(&mut out);
        for (name, (kind, index)) in keep {
            name.encode(&mut out);
            out.push(match kind {
                ExternalKind::Func | ExternalKind::FuncExact => 0,
                ExternalKind::Table => 1,
                ExternalKind::Memory => 2,
                ExternalKind::Global => 3,
                ExternalKind::Tag => 4,
            });
            index.encode(&mut out);
        }
        out
    }
    fn elements(&self) -> More {
        let mut m = More { count: 2, bytes: vec![] };
        for (at, functions) in [(0, &vec![self.nowhere]), (self.table.0 as i32, &self.elements)] {
            m.bytes.push(0);
            ConstExpr::i32_const(at).encode(&mut m.bytes);
            functions.encode(&mut m.bytes);
        }
        m
    }
}

/// Append a custom section to a module.
pub fn add_section(module: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut body = vec![];
    name.encode(&mut body);
    body.extend_from_slice(bytes);
    module.push(0);
    body.encode(module);
}

/// A custom section of a module; `None` also for what is no module.
pub fn section<'a>(module: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    Parser::new(0).parse_all(module).map_while(Result::ok).find_map(|p| match p {
        Payload::CustomSection(c) if c.name() == wanted => Some(c.data()),
        _ => None,
    })
}
