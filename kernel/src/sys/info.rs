//! To come.

use super::Syscall;

/// The system calls of this module.
pub static TABLE: &[Syscall] = &[];
