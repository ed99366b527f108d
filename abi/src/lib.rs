//! What the kernel takes from the crates `libc`, `linux-raw-sys` and `rustix`, for targets without a Linux underneath.
//!
//! The constants are the guest's ABI: those of x86-64 Linux, whatever the target is. `libc` has WASI's own numbers on
//! wasm32, and `linux-raw-sys` has nothing there. On wasm32 `evm-kernel` gives this crate, by `extern crate`, the names
//! of all three, so its sources are the same for all targets. The tables are made by `generate.sh`; the test compares
//! each constant and its type with the original, and that none is missing.
//!
//! The functions of `rustix` that are here are those for descriptors of the host: there are none on such a target, so they say
//! ENOSYS, and the callers do what they do for files that no host descriptor is behind.
#![allow(missing_docs)]
#![deny(unsafe_code)]

macro_rules! constants {
    ($( $name:ident: $ty:ty = $value:expr; )*) => {
        $( pub const $name: $ty = $value; )*
        #[cfg(test)]
        #[allow(dead_code)] // of one table only
        pub(crate) const NAMES: &[&str] = &[ $( stringify!($name) ),* ];
    };
}

#[allow(non_upper_case_globals)] // SYS_*, as libc has them
mod libc_table {
    include!("libc.rs");
}
pub use libc_table::*;
pub mod general {
    //! Terminal modes.
    include!("general.rs");
}
pub mod ioctl {
    //! Requests of ioctl(2).
    include!("ioctl.rs");
}
#[cfg(target_family = "wasm")]
mod errors;
#[cfg(target_family = "wasm")]
mod host;
#[cfg(target_family = "wasm")]
pub use errors::from_wasi;
#[cfg(target_family = "wasm")]
pub use host::*;

/// A device number from its parts, as in glibc.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xffff_f000) << 32 | (major & 0xfff) << 8 | (minor & 0xffff_ff00) << 12 | minor & 0xff
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    macro_rules! constants {
        ($( $name:ident: $ty:ty = $value:expr; )*) => {{ $(
            let own: $ty = $value;
            assert_eq!(own, $name, stringify!($name));
        )* }};
    }
    #[test]
    fn as_libc_has_it() {
        use libc::*;
        include!("libc.rs");
        for (a, b) in [(5, 1), (136, 7), (0xfffff, 0xfffff)] {
            assert_eq!(super::makedev(a, b), libc::makedev(a, b));
        }
    }
    #[test]
    fn as_linux_raw_sys_has_it() {
        {
            use linux_raw_sys::general::*;
            include!("general.rs");
        }
        use linux_raw_sys::ioctl::*;
        include!("ioctl.rs");
    }
    #[test]
    fn none_is_missing() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel/src");
        let mut folders = vec![root];
        while let Some(d) = folders.pop() {
            for e in std::fs::read_dir(d).unwrap() {
                let path = e.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|x| x == "rs") && !path.ends_with("tests.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let text = text.split("#[cfg(test)]").next().unwrap_or("");
                    for name in text.split("libc::").skip(1).map(|s| {
                        let n = s.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(0);
                        &s[..n]
                    }) {
                        let constant = name.len() > 1 && !name.contains(|c: char| c.is_ascii_lowercase());
                        let known = name.starts_with("SYS_") || constant;
                        assert!(
                            !known || super::libc_table::NAMES.contains(&name),
                            "{}: {name} is not in the table: run abi/generate.sh",
                            path.display()
                        );
                    }
                }
            }
        }
    }
}
