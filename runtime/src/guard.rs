//! What happens when our own code panics.
//!
//! A panic in a translation costs that translation: it becomes an internal error, which is reported, and the guest
//! goes on as with any other region that no back end took. Any other panic is the embedder's to handle, as nothing can be
//! promised about the job any more; the `evm` command ends its process.

use crate::code::translate::Failure;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread, now, is caught by the runtime. For panic hooks.
pub fn panic_is_caught() -> bool {
    CAUGHT.get()
}

/// Translate; a panic is an internal error. What `f` touches is dropped with it or consistent at every step: tables of
/// translations are published whole.
pub(crate) fn caught<T>(pc: u64, f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let outer = CAUGHT.replace(true);
    let r = catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(outer);
    r.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure::Internal(format!("panic while translating {pc:#x}: {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        let r = caught(0x10, || -> Result<(), Failure> { panic!("one {}", 2) });
        let Err(Failure::Internal(text)) = r else { panic!("{r:?}") };
        assert_eq!(text, "panic while translating 0x10: one 2");
        assert!(!panic_is_caught());
    }
}
