//! See the crate's page in the book.
