//! The edge to the host CPU: the trampoline into compiled code and the handling of its faults;
//! and what the process gives up before the guest runs.

pub(crate) mod confine;
pub(crate) mod direct;
pub(crate) mod enter;
pub(crate) mod flags;
pub(crate) mod mxcsr;
pub(crate) mod room;
