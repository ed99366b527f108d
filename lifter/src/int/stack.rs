use super::Done;
use crate::ctx::Lifter;
use iced_x86::Instruction;
pub(super) fn lift(_cx: &mut Lifter, _i: &Instruction) -> Done { Ok(false) }
