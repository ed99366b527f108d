//! The virtual Linux.
#![deny(unsafe_code)]

pub mod errno;
pub mod file;
pub mod io;
pub mod wait;
