//! How `evm` is linked.

use std::process::Command;

/// The first version of the GNU C library whose loader knows packed relocations.
const PACKED: (u32, u32) = (2, 36);

/// The version of this machine's GNU C library, if it has one.
fn library() -> Option<(u32, u32)> {
    let out = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    let gnu = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    let native = std::env::var_os("TARGET") == std::env::var_os("HOST");
    if gnu && native && library().is_some_and(|v| v >= PACKED) {
        // The program has 26,000 relocations, as it may be anywhere. The loader reads 600 KB less of them so, in each start.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
