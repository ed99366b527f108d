//! Files in memory where memory cannot be mapped (WebAssembly): none has a window. See `window.rs`.

use evm_memory::Mem;
use std::os::fd::OwnedFd;

#[derive(Default)]
pub(in crate::fs) struct Windowed;

pub(in crate::fs) enum Window {}

impl Windowed {
    pub(in crate::fs) fn get(&self, _: &OwnedFd, _: u64) -> Option<&Window> {
        None
    }
}

impl Window {
    pub(in crate::fs) fn read(&self, _: &Mem, _: u64, _: u64, _: u64) -> bool {
        match *self {}
    }
    pub(in crate::fs) fn write(&self, _: &Mem, _: u64, _: u64, _: u64) -> bool {
        match *self {}
    }
}
