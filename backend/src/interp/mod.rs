//! The interpreter: the first tier, and the oracle of the others.
//!
//! [`prepare`] turns a region (not a promoted one: `fill` and `spill` are ignored) into an array of
//! fixed-size instructions whose operands are resolved to places in a frame, in the guest state, or
//! in the instruction. [`run`] executes it from an entry until it leaves. State is always exact at
//! an exit; at a fault it is that before the guest instruction at `pc`, by invariant 4 of the IR.
//!
//! # Safety
//! [`run`] passes its contract on to the handlers in [`exec`].
#![allow(unsafe_code)]

mod exec;
mod lower;
#[cfg(test)]
pub(crate) mod reference;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod vector;

use evm_ir::HelperFn;
use evm_memory::{Fault, Mem};
use exec::{CallRec, Ctx, Insn};

pub use lower::prepare;

/// Why prepared code was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Go on at `pc`.
    Jump {
        /// Guest address.
        pc: u64,
    },
    /// As `Jump`, by a return instruction.
    Return {
        /// Guest address.
        pc: u64,
    },
    /// Call the guest function at `target`; it is expected to return to `ret`.
    Call {
        /// Guest address of the callee.
        target: u64,
        /// Guest address after the call.
        ret: u64,
    },
    /// Service asked for, see [`evm_ir::Term::Service`].
    Service {
        /// Which.
        code: u32,
        /// Address of the instruction.
        pc: u64,
        /// Address after it.
        next: u64,
    },
    /// Exception, see [`evm_ir::Term::Raise`].
    Raise {
        /// Which.
        code: u32,
        /// Detail.
        arg: u64,
        /// Address of the instruction.
        pc: u64,
    },
    /// A guest memory access failed.
    Fault {
        /// Address of the instruction.
        pc: u64,
        /// The access.
        fault: Fault,
    },
    /// A helper has raised: the state's `pending` word is not zero.
    Pending {
        /// Address of the instruction.
        pc: u64,
    },
    /// The state's `poll` word is not zero; go on at `pc` afterwards.
    Poll {
        /// Guest address.
        pc: u64,
    },
}

/// A prepared region.
#[derive(Debug)]
pub struct Code {
    insns: Vec<Insn>,
    /// Instruction index of each of the region's entries.
    entries: Vec<u32>,
    /// (first instruction, guest pc), ascending.
    marks: Vec<(u32, u64)>,
    pool: Vec<u128>,
    calls: Vec<CallRec>,
    exits: Vec<Exit>,
    tables: Vec<u32>,
    /// Bytes of frame it needs.
    frame: usize,
}

impl Code {
    /// Guest pc of an instruction.
    fn pc_of(&self, p: *const Insn) -> u64 {
        let i = (p as usize).wrapping_sub(self.insns.as_ptr() as usize) / size_of::<Insn>();
        let n = self.marks.partition_point(|m| m.0 as usize <= i);
        self.marks.get(n.wrapping_sub(1)).map_or(0, |m| m.1)
    }
    /// Size in host memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.insns)
            + size_of_val(&*self.marks)
            + size_of_val(&*self.calls)
            + size_of_val(&*self.tables)
            + size_of_val(&*self.exits)
    }
    /// Number of prepared instructions.
    pub fn len(&self) -> usize {
        self.insns.len()
    }
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.insns.is_empty()
    }
}

/// Room for the values of running code; to be kept and used again.
#[derive(Debug, Default)]
pub struct Frame(Vec<u128>);

/// Run from the region's entry number `entry` until it leaves.
///
/// # Safety
/// `state` is a guest state of the region's layout and the [`crate::abi::Abi`] given to [`prepare`], borrowed by
/// nobody during the call (its `poll` word may be written by other threads atomically). `helpers`
/// is the table of the functions whose signatures the region was made with. `mem` is the memory
/// that this guest state runs on.
pub unsafe fn run(
    code: &Code,
    entry: usize,
    state: *mut u8,
    mem: Mem,
    helpers: &[HelperFn],
    frame: &mut Frame,
) -> Exit {
    let Some(&start) = code.entries.get(entry) else {
        return Exit::Raise { code: u32::MAX, arg: entry as u64, pc: 0 };
    };
    let words = code.frame.div_ceil(16);
    if frame.0.len() < words {
        frame.0.resize(words, 0);
    }
    let fr = frame.0.as_mut_ptr().cast::<u8>();
    let mut cx = Ctx { mem, code, helpers, exit: Exit::Poll { pc: 0 } };
    // SAFETY: `lower` makes code that obeys the rules of `exec`: entries are inside it, the frame is as large as it
    // asks; the state is as the caller promised.
    unsafe {
        let mut p = code.insns.as_ptr().add(start as usize);
        while !p.is_null() {
            p = ((*p).f)(p, state, fr, &mut cx);
        }
    }
    cx.exit
}
