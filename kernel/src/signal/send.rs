//! Sending signals.

use super::SigInfo;
use crate::errno::Errno;
use crate::kernel::Host;
use crate::process::{Process, Thread};
use std::sync::atomic::Ordering;

/// Make a thread look at what it has to do.
pub(crate) fn attend(host: &dyn Host, t: &Thread) {
    t.attention.store(true, Ordering::Release);
    t.waker.wake();
    host.kick(t.tid());
}

/// Send to a process as a whole.
pub(crate) fn to_process(_p: &Process, _info: SigInfo) -> Result<(), Errno> {
    Ok(())
}
