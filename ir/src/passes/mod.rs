//! Passes over a region. They keep it valid, and keep what it does, with one exception that the
//! level states: in [`OptLevel::Full`] the state after a fault is not exact (only its pc is).

pub(crate) mod cfg;
mod dead;
mod fills;
mod fold;
mod latch;
mod peel;
mod promote;
mod reach;
mod simplify;

use crate::Region;

pub use dead::{Places, dead_code, dead_puts, dead_puts_but_at, dead_puts_but_at_traps, dead_puts_in_blocks};
pub use latch::latches;
pub use peel::peel;
pub use promote::{AtFaults, promote};
pub use reach::{WINDOW, unproven};
pub use simplify::simplify;

/// What the region is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptLevel {
    /// For the first tiers: cheap, exact state at faults, nothing promoted. (What [`simplify`] finds in a lifted block is
    /// too little to pay for itself: the lifter folds while it builds.)
    Interp,
    /// The same where floating-point exceptions are unmasked: exact state also at operations that raise them.
    Traps,
    /// For compilation: slots are variables, state at faults is not exact.
    Full,
    /// For compilation: slots are variables, state at faults is exact.
    Precise,
}

/// Optimize a valid region.
pub fn optimize(r: &mut Region, level: OptLevel) {
    let precise = level != OptLevel::Full;
    let compiled = !matches!(level, OptLevel::Interp | OptLevel::Traps);
    if compiled {
        latches(r);
        simplify(r);
        peel(r);
    }
    match level {
        OptLevel::Interp => dead_puts_in_blocks(r),
        // Calls and arithmetic stand between all writes.
        OptLevel::Traps => dead_puts_but_at_traps(r),
        OptLevel::Full | OptLevel::Precise => dead_puts(r, precise),
    }
    dead_code(r);
    if compiled {
        promote(r, if precise { AtFaults::Spilled } else { AtFaults::Lost });
    }
}
