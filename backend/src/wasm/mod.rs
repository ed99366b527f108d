//! WebAssembly: one function per region, in modules that run in any engine.
//!
//! [`compile`] makes a function with open references, [`Module`] puts functions together into a module that imports
//! memory, table and the runtime's functions; [`link`] merges one with a runtime. What all of them have agreed on is in [`abi`].
//!
//! Invariants: guest memory is only touched at `mem_base + address` after a check of the address against the size of
//! guest memory and of the page's permissions ([`facts`](self) says which check covers which access); state is
//! exact wherever the code may be left.

pub mod abi;
mod ahead;
mod emit;
mod exits;
mod facts;
mod floating;
mod floats;
mod intern;
pub mod link;
mod lower;
mod mem;
mod module;
mod normal;
mod scalar;
mod sequences;
mod shape;
mod special;
#[cfg(all(test, feature = "wasmtime"))]
mod tests;
mod vector;

pub use abi::WasmAbi;
pub use emit::{Body, Sym};
pub use intern::Intern;
pub use module::{Module, helper_signature, memory_module, validate};
pub use wasm_encoder::ValType;

use evm_ir::Region;
use evm_ir::passes::{self, AtFaults};

/// What is fixed for a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Settings {
    /// Where things are in the state.
    pub abi: WasmAbi,
    /// Jumps between regions are tail calls.
    pub tail_calls: bool,
    /// Where guest memory is, if that is known when the code is made.
    pub fixed: Option<Fixed>,
    /// Guest atomics are WebAssembly's, for memory that several threads use; else they are loads and stores.
    pub atomics: bool,
    /// Look only at the size of guest memory, not at the permissions of its pages (but for the first one): faster, and a
    /// guest that writes to what it may not, or to its own code, is not noticed.
    pub trust_pages: bool,
}

/// What else the words `mem_base`, `mem_limit` and `perms` of the state tell. Addresses that an engine can fold into its own
/// checks are below 32 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Fixed {
    /// Address of guest address 0.
    pub base: u32,
    /// Size of the guest address space; at least a page.
    pub limit: u64,
    /// Address of the table of page permissions.
    pub perms: u32,
}

impl Settings {
    /// The usual ones.
    pub fn new(abi: WasmAbi) -> Settings {
        Settings { abi, tail_calls: true, fixed: None, atomics: false, trust_pages: false }
    }
}

/// How a guest address that is known is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// A region of the same module has it as its first entry.
    Direct,
    /// By the table of entry points.
    Table,
    /// It has no code: by the run loop.
    Nowhere,
}

/// Why a region could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An instruction with a type that the back end does not know.
    #[error("{0} on {1} is not supported by the WebAssembly back end")]
    Unsupported(&'static str, &'static str),
    /// A region that breaks a rule the validator checks, or was not prepared by [`prepare`].
    #[error("invalid region: {0}")]
    Invalid(&'static str),
}

/// Apply the passes that [`compile`] wants to a valid region.
pub fn prepare(r: &mut Region) {
    passes::latches(r);
    passes::simplify(r);
    // What is stored where the code is left has to be right.
    let places = floats::marks(r);
    passes::dead_puts_but_at(r, &places);
    passes::dead_code(r);
    passes::promote(r, AtFaults::Kept(floats::marks));
}

/// Compile a region that went through [`prepare`].
pub fn compile(r: &Region, s: &Settings, links: &dyn Fn(u64) -> Link) -> Result<Body, Error> {
    lower::Lower::new(r, s, links)?.run()
}

/// Whether a region can be written as blocks and loops inside one another, without a loop around everything that goes from block to block.
pub fn is_reducible(r: &Region) -> bool {
    shape::Shape::new(r).is_ok_and(|s| s.reducible)
}
