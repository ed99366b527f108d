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
//! take pages away here. Lifted code looks at the bits that speak of a page and the next one ([`crate::perm`] has their rule). They
//! follow from the others, and whoever changes those brings them up to date.
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

pub use crate::perm::{READ, WRITE};
/// The page may have contents that are not zero.
const DIRTY: u8 = 4;
/// Translations were made from the page, and it may be written: the hook is called before the first write to it. [`WRITE`] is not set.
const WATCHED: u8 = crate::perm::CODE;
