#!/bin/sh
# Compiler wrapper for this workspace's crates: what Rust 1.85 has behind features and later versions without.
exec "$@" '-Zcrate-attr=feature(let_chains, unsigned_is_multiple_of)'
