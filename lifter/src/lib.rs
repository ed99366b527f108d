//! x86 machine code to IR.
//!
//! [`lift`] decodes the code reachable from an address by direct jumps, and translates it one
//! instruction at a time: [`discover`] finds blocks and their order, from what [`decode`] reads and by what [`indirect`] and [`table`] tell
//! of indirect jumps, [`region`] drives the translation, [`ctx`] is its context (registers, operands, addresses), [`cond`] the lazy
//! condition codes, `int` and `simd` the instructions by mnemonic family.
//!
//! Rules that all translation obeys:
//! 1. A marker starts each guest instruction; within an instruction no state is written before an
//!    access that may fault. So at a fault the state is that before the instruction.
//! 2. Flags are not computed where they are set: the operation and its operands are kept, and
//!    whoever reads a condition computes it from them.
//! 3. What is not translated raises #UD when (and if) it is reached, and is listed in [`Lifted::notes`].
#![deny(unsafe_code)]

mod cond;
mod ctx;
mod decode;
mod describe;
mod discover;
mod hash;
mod indirect;
mod inline;
mod int;
mod region;
mod simd;
mod step;
mod table;
#[cfg(test)]
mod tests;

pub use decode::Code;
pub use describe::{Access, access, describe, disassemble, is_nested_enter, is_undefined};
pub use hash::AddressHasher;
pub use iced_x86::Instruction;
pub use region::{LiftError, LiftNote, Lifted, Mode, Options, Plan, PlanBlock, block, lift, plan};
pub use step::{Misaligned, Step};
