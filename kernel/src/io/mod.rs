//! Input and output: the descriptor table and every kind of file that is not in a file system.
//!
//! Each kind is one module and implements [`crate::file::File`]. No lock of a table or of a file is
//! held while a thread blocks.

mod fdtable;

pub use fdtable::{FdEntry, FdTable};
