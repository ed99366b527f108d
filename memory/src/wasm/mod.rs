//! Guest memory inside WebAssembly's linear memory.
//!
//! Each arena is a *window* of linear memory, with a table before it of one byte for each of its pages:
//!
//! ```text
//! base - (size >> 12)         base                          base + size
//! | byte of page 0, 1, …      | guest address 0             |
//! ```
//!
//! The byte says what the guest may do with the page ([`READ`], [`WRITE`]), and every access looks at it: the host cannot
//! take pages away here. So the place of the table follows from base and size, for lifted code too.
//!
//! Windows are made by growing the memory and never given back, but used again. Engines commit memory when it is first touched,
//! so a window costs what is used of it; a page that was writable is zeroed when it is mapped anew ([`DIRTY`]).
//!
//! # Safety
//! A [`Mem`] is made for a live window only (contract of [`Mem::new`]), no Rust object lives in one, and there is one
//! thread. Every access is checked against the window's size and its table before an address is formed.
#![allow(unsafe_code)]

mod access;
mod arena;

pub use access::{Mem, set_write_hook};
pub use arena::Arena;

/// The page may be read.
pub const READ: u8 = 1;
/// The page may be written.
pub const WRITE: u8 = 2;
/// The page may have contents that are not zero.
const DIRTY: u8 = 4;
/// Translations were made from the page: the hook is called before the first write to it.
const WATCHED: u8 = 8;
