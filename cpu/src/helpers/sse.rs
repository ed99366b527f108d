//! Helpers: sse.

helpers! { super::int::BASE + super::int::FNS.len();
}
