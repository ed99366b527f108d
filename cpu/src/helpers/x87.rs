//! Helpers: x87.

helpers! { super::sse::BASE + super::sse::FNS.len();
}
