//! The sandboxed intermediate representation.
//!
//! A [`Region`] is a control-flow graph of blocks. Values are SSA and local to their block; what
//! flows between blocks flows through *slots*, the named pieces of guest state, read by `get` and
//! written by `put`. The promotion pass turns slots into variables of the region: it adds `fill`
//! (state to variables) at entries and after calls, and `spill` (variables to state) before
//! exits, calls, and, in precise regions, before each access that may fault.
//!
//! Invariants, checked by the validator alone:
//! 1. Guest memory is touched only by opcodes flagged `READ`/`WRITE`, whose address is a guest
//!    address; there is no host pointer in the language.
//! 2. State is touched only through slots of the layout and through helpers of the table.
//! 3. Every value is defined before its use in the same block, with the type its use asks for.
//! 4. Inside one guest instruction no `put` comes before an access that may fault (restartable
//!    string instructions are loops of such steps), so the state at a fault is that before it.
#![deny(unsafe_code)]

mod helper;
mod op;
mod parse;
pub mod passes;
mod print;
pub mod random;
mod region;
mod spread;
mod types;
mod validate;

pub use helper::{HelperFn, Vector};
pub use op::{Cond, FCond, Op, Sig, flags};
pub use parse::{ParseError, parse};
pub use region::{BlockData, Builder, Effects, FindLeaf, HelperCall, HelperSig, Inst, Region, Term};
pub use spread::spread;
pub use types::{Block, Layout, Slot, SlotInfo, SlotSet, Type, Value};
pub use validate::{Invalid, shapes, validate};
