//! The pages in front of guest memory, and the linear memory made of both.
//!
//! # Safety
//! The window of an arena is its front and as much of the arena as makes up 4 GiB; all of it is reserved as long as the arena lives, and
//! a [`Front`] keeps it alive. Tables in the front are viewed as slices of atomics, zero at first. Each thread's state has a place of its own.
#![allow(unsafe_code)]

use evm_backend::wasm::Fixed;
use evm_cpu::CpuState;
use evm_memory::Arena;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Size of a linear memory.
pub(crate) const WINDOW: u64 = 1 << 32;
/// Bytes in front of guest memory.
pub(crate) const FRONT: u64 = 32 << 20;
/// Size of guest memory that fits into the window.
pub(crate) const ARENA: u64 = WINDOW - FRONT - (64 << 10);
/// What is reserved behind the window.
pub(crate) const GUARD: u64 = 2 << 30;
/// What compiled code may rely on.
pub(crate) const FIXED: Fixed = Fixed { base: FRONT as u32, limit: ARENA, perms: PERMS as u32 };
/// Where things are in the front.
const PERMS: u64 = 64 << 10;
const IBTC: u64 = 2 << 20;
const STATES: u64 = 4 << 20;
const STATE: u64 = 8 << 10;
/// Words of the table of entry points.
const WORDS: usize = 1 << 16;

/// The front of an arena.
pub(crate) struct Front {
    /// Keeps the window reserved.
    _arena: Arc<Arena>,
    /// Host address of the window.
    start: u64,
    free: Mutex<Vec<u32>>,
}

impl Front {
    /// Of a new arena; from now on its page permissions are in the table.
    pub(crate) fn new(arena: Arc<Arena>) -> std::io::Result<Front> {
        let start = arena.map_front(FRONT)?;
        arena.track(start + PERMS);
        if arena.size() != ARENA {
            return Err(std::io::Error::other("guest memory does not fit into the window"));
        }
        let states = ((FRONT - STATES) / STATE) as u32;
        Ok(Front { _arena: arena, start, free: Mutex::new((0..states).rev().collect()) })
    }
    /// Host address of linear memory.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }
    /// Addresses in linear memory: guest memory, permissions, entry points.
    pub(crate) fn addresses() -> [u64; 3] {
        [FRONT, PERMS, IBTC]
    }
    fn ibtc(&self) -> &[AtomicU64] {
        // SAFETY: see the module's paragraph.
        unsafe { std::slice::from_raw_parts((self.start + IBTC) as *const AtomicU64, WORDS) }
    }
    /// Let compiled code find a guest address.
    pub(crate) fn remember(&self, pc: u64, index: u32) {
        if pc >> 48 == 0 {
            self.ibtc()[(pc & 0xffff) as usize].store((pc >> 16) << 32 | u64::from(index), Ordering::Relaxed);
        }
    }
    /// Compiled code finds nothing any more.
    pub(crate) fn forget(&self) {
        for w in self.ibtc() {
            w.store(0, Ordering::Relaxed);
        }
    }
    /// A place for a thread's state: its address in linear memory.
    pub(crate) fn take_state(&self) -> Option<u32> {
        let n = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some((STATES + u64::from(n) * STATE) as u32)
    }
    pub(crate) fn give_state(&self, at: u32) {
        let n = ((u64::from(at) - STATES) / STATE) as u32;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(n);
    }
    /// Host address of a state.
    pub(crate) fn state(&self, at: u32) -> *mut CpuState {
        const { assert!(size_of::<CpuState>() as u64 <= STATE) };
        (self.start + u64::from(at)) as *mut CpuState
    }
    /// Make a linear memory with `f`: it is the window of this arena.
    pub(crate) fn with_memory<T>(&self, f: impl FnOnce() -> T) -> T {
        NEXT.set(self.start);
        let r = f();
        NEXT.set(0);
        r
    }
}

thread_local! {
    /// Start of the window that the next linear memory of this thread is.
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// Makes the linear memories.
pub(super) struct Windows;

struct Window(u64);

// SAFETY: the memory is the window that `with_memory` named, which is reserved as a whole (the arena's guards on both sides
// included) while the thread's `Front` lives, and that is longer than its store. Nothing in it is ever handed out as Rust data but atomics and the
// states.
unsafe impl wasmtime::LinearMemory for Window {
    fn byte_size(&self) -> usize {
        WINDOW as usize
    }
    fn byte_capacity(&self) -> usize {
        WINDOW as usize
    }
    fn grow_to(&mut self, _: usize) -> wasmtime::Result<()> {
        wasmtime::bail!("guest memory does not grow")
    }
    fn as_ptr(&self) -> *mut u8 {
        self.0 as *mut u8
    }
}

// SAFETY: as above; what is asked for is compared with what a window has.
unsafe impl wasmtime::MemoryCreator for Windows {
    fn new_memory(
        &self,
        _: wasmtime::MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn wasmtime::LinearMemory>, String> {
        let start = NEXT.replace(0);
        if start == 0 || minimum > WINDOW as usize || reserved.unwrap_or(0) > WINDOW as usize || guard > GUARD as usize
        {
            return Err("no memory but windows of guest memory".into());
        }
        Ok(Box::new(Window(start)))
    }
}
