//! What the kernel has to know about x86-64: the image of the FPU state, and exceptions as signals.

pub(crate) mod barrier;
pub mod fpstate;
pub(crate) mod trap;
pub(crate) mod vsyscall;
