//! x86 machine code to IR.
//!
//! [`lift`] decodes the code reachable from an address by direct jumps, and translates it one
//! instruction at a time: [`region`] finds blocks and their order, [`ctx`] is the translation
//! context (registers, operands, addresses), [`cond`] the lazy condition codes, `int` and `simd` the
//! instructions by mnemonic family, `table` the recognition of jump tables.
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
mod describe;
mod hash;
mod inline;
mod int;
mod region;
mod simd;
mod step;
mod table;
#[cfg(test)]
mod tests;

pub use describe::{Access, access, describe, disassemble, is_nested_enter, is_undefined};
pub use hash::AddressHasher;
pub use iced_x86::Instruction;
pub use region::{Code, LiftError, LiftNote, Lifted, Mode, Options, Plan, PlanBlock, block, lift, plan};
pub use step::{Misaligned, Step};
