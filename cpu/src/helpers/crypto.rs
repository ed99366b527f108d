//! Helpers: crypto.

helpers! { super::x87::BASE + super::x87::FNS.len();
}
