//! Address spaces.

use evm_memory::{Arena, Mem};
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// What the translator needs to know about a page with code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePage {
    /// The guest may write it.
    pub writable: bool,
}

/// The address space of a process (shared by CLONE_VM).
pub struct Mm {
    arena: Arc<Arena>,
    /// The runtime's own record for this address space (its translations), set in
    /// [`Host::new_arena`](crate::kernel::Host::new_arena).
    pub attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Mm {
    /// The memory.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }
    /// Access to the memory.
    pub fn mem(&self) -> Mem {
        self.arena.mem()
    }
    /// Whether the page at an address is executable, and writable too.
    pub fn code_page(&self, _addr: u64) -> Option<CodePage> {
        None
    }
}
