//! Floating-point helpers by what computes them: the CPU's unit, or portable code where there is none. Both have the same names.

#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use portable::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::*;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
