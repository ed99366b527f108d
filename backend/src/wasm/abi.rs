//! What compiled WebAssembly and the runtime that calls it have agreed on.
//!
//! # The module
//! One 32-bit memory holds the guest state, the guest's memory, the table of page permissions and the table of entry
//! points; one table of functions holds what can be called by index. All offsets in the state come from the IR's
//! layout and from [`WasmAbi`], so it does not matter for which machine the state structure was laid out.
//!
//! # Regions
//! A region is a function [`REGION`]: `(cpu: i32, pc: i64) -> i64`. `cpu` is the address of the guest state, `pc` the
//! guest address of the entry to be entered. The result is the guest address to go on at, with all state in its
//! slots, or [`EXIT_PENDING`](crate::abi::EXIT_PENDING): then the word `pending` tells why, and the word `rip` where. Regions are always
//! precise: what they leave behind is exact also at a fault. A region that is entered with a `pc` that is none of its
//! entries returns it unchanged.
//!
//! # Imports
//! * `env.memory`, `env.table`
//! * `evm.NAME`: the functions of [`Import`].
//!   A runtime module that is to be linked with regions exports [`FUNCTION_LIST`].
//! * `evm.helper.NAME`: a helper of the IR by its name: `(cpu: i32, i64 …, v128 …) -> (i64 | v128)?`, the numbers of
//!   parameters and the result as in its signature. A helper that is marked as raising leaves its exception in `pending`.
//!   A runtime module exports [`HELPER_LIST`].
//!
//! # Memory
//! Guest address `a` is at `mem_base + a`. An access needs `a + size <= mem_limit` and the permission of all pages it touches:
//! the byte `perms + (a >> 12)` of the table described in [`evm_memory::perm`]. Code tests one of the two `NEAR` bits of
//! the first page, and for an address beyond `mem_limit` those of page 0, which is never mapped; where that is not set, it calls [`Import::Access`] for the whole range. If that says no, the region leaves
//! with [`STEP`] pending, before the instruction: the runtime interprets it, which finds out what is the matter (a
//! fault with its exact address, a write to a page with translations), and goes on. `mem_limit` is a multiple of
//! the page size, and `mem_base + mem_limit` is at most 4 GiB less 64 KiB. A look is valid until the next call of a function
//! that may run guest code or change mappings ([`Import::Call`], [`Import::Resume`], [`Import::Service`], another region): nothing
//! else may take permissions away or set [`CODE`](evm_memory::perm::CODE) meanwhile.
//!
//! # Calls and jumps between regions
//! The word `ibtc` is the address of the table from guest pc to function index: 65,536 words of 64 bits `(pc >> 16) << 32
//! | index` (wrapping), at `pc & 0xffff`; an unused word is 0. Element 0 of `env.table` is [`NOWHERE`], a function of the region
//! type that returns its `pc`: who does not find a target calls that one. A guest call is a call of the function found; it goes on behind the call if
//! the result is the return address, else asks [`Import::Resume`]. What can be known when the module is made is called
//! directly. A jump out of the region is a tail call (with tail calls switched off: a call, counted as one).
//!
//! The word `depth` counts the bytes of stack that may still be used: a call takes what its caller has on the stack from it and gives it back. A region that
//! has calls and is entered with less than 0 returns its `pc`, and so does its caller. The return address is in guest memory, so
//! the run loop, which enters regions with more than that only, goes on there.
//!
//! # Polls
//! Loops look at the word `poll`; not zero: they return the loop's address.
//!
//! # Floating point
//! WebAssembly rounds to nearest, knows denormals, and has no exception flags. Compiled code looks at the bits FTZ and DAZ of the word `mxcsr`
//! itself, where a result may be touched by them (`special.rs`). Where the word `fp_exact` is not zero, a block with
//! floating-point arithmetic is not run: the region leaves with [`STEP`] pending at the block's address, and the
//! interpreter, which is exact, runs it. The word is not zero (`evm_cpu::CpuState` has the rules)
//! * while MXCSR asks for other than rounding to nearest with all exceptions masked, or has DAZ without FTZ;
//! * while the inexact flag is not set in MXCSR and the guest has ever loaded or stored MXCSR: what sets it next is found
//!   by the interpreter. (Before it did, the flag is assumed to be set as soon as compiled code did arithmetic.)
//!
//! As flags are sticky, nothing is left to find of that one then, which nearly all arithmetic raises. Of the others, compiled code finds
//! invalid, overflow and division by zero of arithmetic and conversions, as NaNs and infinities need care anyway, and sets
//! them in the word `mxcsr` of the state. It does not find underflow (unless it makes zeros of it) and denormal operands, nor the invalid of
//! comparisons, minimum and maximum.
//!
//! Results are always exact, NaNs included.

/// Byte offsets in the guest state of the words of 64 bits that compiled code uses. Addresses are in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WasmAbi {
    /// Address of guest address 0.
    pub mem_base: u32,
    /// Size of the guest address space.
    pub mem_limit: u32,
    /// Address of the table of page permissions.
    pub perms: u32,
    /// Not zero: leave at the next poll.
    pub poll: u32,
    /// Bytes of stack left, signed.
    pub depth: u32,
    /// Address of the table from guest pc to function index.
    pub ibtc: u32,
    /// Not zero: a helper has raised, or [`STEP`].
    pub pending: u32,
    /// Not zero: floating-point arithmetic is left to the interpreter.
    pub fp_exact: u32,
    /// MXCSR, of 32 bits.
    pub mxcsr: u32,
    /// The guest pc; stored before a return with `EXIT_PENDING`.
    pub rip: u32,
}

/// The [`WasmAbi`] of a guest state structure whose fields have the names that these words have in `evm_cpu::CpuState`.
#[macro_export]
macro_rules! wasm_abi_of {
    ($state:ty) => {
        $crate::wasm::abi::WasmAbi {
            mem_base: ::std::mem::offset_of!($state, mem_base) as u32,
            mem_limit: ::std::mem::offset_of!($state, mem_limit) as u32,
            perms: ::std::mem::offset_of!($state, perms) as u32,
            poll: ::std::mem::offset_of!($state, poll) as u32,
            depth: ::std::mem::offset_of!($state, depth) as u32,
            ibtc: ::std::mem::offset_of!($state, ibtc) as u32,
            pending: ::std::mem::offset_of!($state, pending) as u32,
            fp_exact: ::std::mem::offset_of!($state, fp_exact) as u32,
            mxcsr: ::std::mem::offset_of!($state, mxcsr) as u32,
            rip: ::std::mem::offset_of!($state, rip) as u32,
        }
    };
}

pub use crate::abi::STEP;

/// Signature of a region, for those who write it down: `(i32, i64) -> i64`.
pub const REGION: &str = "(cpu: i32, pc: i64) -> i64";

/// Name of the function in element 0 of the table, which a runtime module provides.
pub const NOWHERE: &str = "nowhere";

/// Export name of the global with the address of the numbers in the table of the [`Import`]s and [`NOWHERE`], words of 32 bits.
pub const FUNCTION_LIST: &str = "evm_functions";

/// Export name of the global with the address of the four words of 32 bits, zero at first, in which the linker tells a
/// runtime module what it was linked with: see [`HEADER_WORDS`](super::link::HEADER_WORDS).
pub const LIFTED: &str = "evm_lifted";

/// Export name of the global with the address of the helpers' numbers in the table, words of 32 bits in the IR's order.
pub const HELPER_LIST: &str = "evm_helpers";

/// Import module of [`Import`]s.
pub const MODULE: &str = "evm";
/// Import module of helpers.
pub const HELPERS: &str = "evm.helper";
/// Import module of memory and table.
pub const ENV: &str = "env";

/// Functions of the runtime that regions call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Import {
    /// `call (cpu: i32, target: i64, ret: i64) -> i64`: run on at `target` until the guest comes back to `ret`; see
    /// [`RuntimeFn::Call`](crate::abi::RuntimeFn). Used where the callee is known not to be in the table.
    Call,
    /// `resume (cpu: i32, next: i64, ret: i64) -> i64`: a call came back to `next` instead of `ret`; see
    /// [`RuntimeFn::Resume`](crate::abi::RuntimeFn).
    Resume,
    /// `service (cpu: i32, code: i64, pc: i64, next: i64) -> i64`: the result `next` goes on in the region.
    Service,
    /// `raise (cpu: i32, code: i64, arg: i64, pc: i64) -> i64`: the result is what the region returns.
    Raise,
    /// `access (cpu: i32, addr: i64, len: i64, write: i32) -> i32`: 1 if the guest may read (write) all of the range and no write
    /// needs to be noticed, else 0. It has no effect.
    Access,
}

impl Import {
    /// All of them.
    pub const ALL: [Import; 5] = [Import::Call, Import::Resume, Import::Service, Import::Raise, Import::Access];
    /// Name in module [`MODULE`].
    pub const fn name(self) -> &'static str {
        match self {
            Import::Call => "call",
            Import::Resume => "resume",
            Import::Service => "service",
            Import::Raise => "raise",
            Import::Access => "access",
        }
    }
}
