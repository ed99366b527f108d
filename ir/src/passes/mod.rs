//! Passes over regions. [`optimize`] is what a runtime calls.

mod dead;
mod promote;

pub use promote::promote;

use crate::Region;

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptLevel {
    /// For the interpreter: state must be exact at every access that may fault, nothing is promoted.
    Interp,
    /// For a compiler, with exact state at every access that may fault.
    Precise,
    /// For a compiler; at a fault only the guest pc is right.
    Full,
}

/// Improve a region for its engine.
pub fn optimize(region: &mut Region, level: OptLevel) {
    dead::dead_puts(region, level != OptLevel::Full);
    dead::dead_code(region);
    if level != OptLevel::Interp {
        promote(region, level == OptLevel::Precise);
    }
}
