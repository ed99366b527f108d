//! The edge to the host CPU: the trampoline into compiled code and the handling of its faults.

pub(crate) mod enter;
