//! Bodies of functions while they are made: bytes, and the places where numbers of other functions will stand.
//!
//! A reference to a function or a type is left out of the bytes and noted with its place; whoever makes the module knows the
//! numbers and puts them in, as short as they are.

use super::abi::Import;
use super::intern::Intern;
use wasm_encoder::{BlockType, Encode, InstructionSink, MemArg, ValType};

/// What a body refers to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Sym {
    /// A function of the runtime.
    Import(Import),
    /// A helper, by its index.
    Helper(u16),
    /// A function that each module has for itself.
    Intern(Intern),
    /// The region whose entry is at this guest address.
    Region(u64),
    /// The number of the type of regions.
    RegionType,
}

/// Code with open references.
#[derive(Clone, Default, Debug)]
pub struct Body {
    /// Types of locals behind the parameters.
    pub locals: Vec<ValType>,
    /// Instructions without the references.
    pub code: Vec<u8>,
    /// (place in `code`, what is to be put in there), ascending.
    pub refs: Vec<(u32, Sym)>,
    /// Labels that are open, for the numbers of branches.
    labels: u32,
}

/// A label: how many were open when it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(u32);

/// An instruction without immediates.
pub type Ins = fn(&mut InstructionSink<'_>);
/// An instruction with a memory argument.
pub type MemIns = fn(&mut InstructionSink<'_>, MemArg);

/// An [`Ins`] by the name of the encoder's method.
macro_rules! ins {
    ($name:ident) => {{
        let f: $crate::wasm::emit::Ins = |s| {
            s.$name();
        };
        f
    }};
}
/// A [`MemIns`] by the name of the encoder's method.
macro_rules! mem_ins {
    ($name:ident) => {{
        let f: $crate::wasm::emit::MemIns = |s, m| {
            s.$name(m);
        };
        f
    }};
}
pub(super) use {ins, mem_ins};

/// A memory argument that promises no alignment.
pub fn at(offset: u32) -> MemArg {
    MemArg { offset: u64::from(offset), align: 0, memory_index: 0 }
}

impl Body {
    /// The encoder, at the end.
    pub fn ins(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.code)
    }
    /// Append an instruction without immediates.
    pub fn op(&mut self, i: Ins) {
        i(&mut self.ins());
    }
    /// Append a call or the like: an opcode and a reference.
    fn with_ref(&mut self, opcode: u8, s: Sym) {
        self.code.push(opcode);
        self.refs.push((self.code.len() as u32, s));
    }
    /// Call.
    pub fn call(&mut self, s: Sym) {
        self.with_ref(0x10, s);
    }
    /// Tail call.
    pub fn return_call(&mut self, s: Sym) {
        self.with_ref(0x12, s);
    }
    /// Tail call, or call and return.
    pub fn return_call_or(&mut self, tail: bool, s: Sym) {
        if tail {
            self.return_call(s);
        } else {
            self.call(s);
            self.ins().return_();
        }
    }
    /// Call of a region by its number in the table; `tail`: as a tail call.
    pub fn call_indirect(&mut self, tail: bool) {
        self.with_ref(if tail { 0x13 } else { 0x11 }, Sym::RegionType);
        self.code.push(0);
    }

    fn open(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }
    /// Open a block; branches to the label go to its end.
    pub fn block(&mut self) -> Label {
        self.ins().block(BlockType::Empty);
        self.open()
    }
    /// Open a loop; branches to the label go to its start.
    pub fn loop_(&mut self) -> Label {
        self.ins().loop_(BlockType::Empty);
        self.open()
    }
    /// Open a block that runs if the top of the stack is not zero.
    pub fn if_(&mut self) -> Label {
        self.ins().if_(BlockType::Empty);
        self.open()
    }
    /// The other half of an `if`.
    pub fn else_(&mut self) {
        self.ins().else_();
    }
    /// Close the innermost label.
    pub fn end(&mut self) {
        self.ins().end();
        self.labels -= 1;
    }
    fn depth(&self, l: Label) -> u32 {
        self.labels - l.0
    }
    /// Branch.
    pub fn br(&mut self, l: Label) {
        let d = self.depth(l);
        self.ins().br(d);
    }
    /// Branch if the top of the stack is not zero.
    pub fn br_if(&mut self, l: Label) {
        let d = self.depth(l);
        self.ins().br_if(d);
    }
    /// Branch by number.
    pub fn br_table(&mut self, table: &[Label], default: Label) {
        let table: Vec<u32> = table.iter().map(|l| self.depth(*l)).collect();
        let default = self.depth(default);
        self.ins().br_table(table, default);
    }

    /// An `i32.const` whose number is set later; gives its place.
    pub fn wide_const(&mut self) -> usize {
        self.code.extend([0x41, 0x80, 0x80, 0]);
        self.code.len() - 3
    }
    /// Set it; up to 20 bits.
    pub fn set_wide_const(&mut self, place: usize, k: i32) {
        let k = k.clamp(0, (1 << 20) - 1);
        self.code[place..place + 3].copy_from_slice(&[k as u8 | 0x80, (k >> 7) as u8 | 0x80, (k >> 14) as u8]);
    }

    /// A 64-bit word of the state (`cpu` is local 0).
    pub fn load64(&mut self, offset: u32) {
        self.ins().local_get(0).i64_load(at(offset));
    }
    /// Its low half.
    pub fn load32(&mut self, offset: u32) {
        self.ins().local_get(0).i32_load(at(offset));
    }

    /// The function as the code section has it, without its length, with the references filled in.
    pub fn finish(&self, mut number: impl FnMut(Sym) -> u32) -> Vec<u8> {
        let mut runs: Vec<(u32, ValType)> = vec![];
        for t in &self.locals {
            match runs.last_mut() {
                Some((n, last)) if last == t => *n += 1,
                _ => runs.push((1, *t)),
            }
        }
        let mut out = Vec::with_capacity(self.code.len() + 3 * self.refs.len() + 3 * runs.len() + 4);
        runs.len().encode(&mut out);
        for (n, t) in runs {
            n.encode(&mut out);
            t.encode(&mut out);
        }
        let mut from = 0;
        for (place, s) in &self.refs {
            out.extend_from_slice(&self.code[from..*place as usize]);
            number(*s).encode(&mut out);
            from = *place as usize;
        }
        out.extend_from_slice(&self.code[from..]);
        out
    }
}
