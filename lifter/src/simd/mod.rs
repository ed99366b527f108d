//! MMX, SSE, x87 and cryptographic instructions.

use crate::ctx::{Lifter, Unlifted};
use iced_x86::Instruction;

/// Translate one instruction that is not an integer instruction.
pub(crate) fn lift(_cx: &mut Lifter, _insn: &Instruction) -> Result<(), Unlifted> {
    Err(Unlifted)
}
