//! The part of `rustix` that the kernel uses, where the host has no Unix descriptors.
//!
//! # Safety
//! The one call of WASI gets the address and the length of a whole slice.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

pub mod io {
    //! Errors, reads and writes.
    use super::AsFd;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Errno(i32);
    impl Errno {
        pub const NOSYS: Errno = Errno(crate::ENOSYS);
        pub const INTR: Errno = Errno(crate::EINTR);
        pub const fn raw_os_error(self) -> i32 {
            self.0
        }
    }
    impl std::fmt::Display for Errno {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "error {}", self.0)
        }
    }
    pub type Result<T> = std::result::Result<T, Errno>;
    pub fn pread(_: impl AsFd, _: &mut [u8], _: u64) -> Result<usize> {
        Err(Errno::NOSYS)
    }
    pub fn pwrite(_: impl AsFd, _: &[u8], _: u64) -> Result<usize> {
        Err(Errno::NOSYS)
    }
}

pub mod fs {
    //! Files in memory.
    use super::io::{Errno, Result};
    use super::{AsFd, OwnedFd};

    macro_rules! flags {
        ($($name:ident $ty:ty: $($flag:ident)*;)*) => { $(
            #[derive(Clone, Copy)]
            pub struct $name($ty);
            impl $name {
                $( pub const $flag: $name = $name(0); )*
                pub const fn empty() -> $name { $name(0) }
                pub const fn from_bits_retain(bits: $ty) -> $name { $name(bits) }
            }
            impl std::ops::BitOr for $name {
                type Output = $name;
                fn bitor(self, o: $name) -> $name { $name(self.0 | o.0) }
            }
        )* };
    }
    flags! {
        MemfdFlags u32: CLOEXEC;
        FallocateFlags u32: PUNCH_HOLE KEEP_SIZE ZERO_RANGE;
        OFlags u32: RDWR CLOEXEC;
        Mode u32: ;
    }
    pub struct Stat {
        pub st_size: i64,
        pub st_blocks: i64,
        pub st_dev: u64,
        pub st_ino: u64,
    }
    #[derive(Clone, Copy)]
    pub enum SeekFrom {
        Data(u64),
        Hole(u64),
    }
    pub fn memfd_create<N: ?Sized>(_: &N, _: MemfdFlags) -> Result<OwnedFd> {
        Err(Errno::NOSYS)
    }
    pub fn open(_: &str, _: OFlags, _: Mode) -> Result<OwnedFd> {
        Err(Errno::NOSYS)
    }
    pub fn ftruncate(_: impl AsFd, _: u64) -> Result<()> {
        Err(Errno::NOSYS)
    }
    pub fn fstat(_: impl AsFd) -> Result<Stat> {
        Err(Errno::NOSYS)
    }
    pub fn fallocate(_: impl AsFd, _: FallocateFlags, _: u64, _: u64) -> Result<()> {
        Err(Errno::NOSYS)
    }
    pub fn seek(_: impl AsFd, _: SeekFrom) -> Result<u64> {
        Err(Errno::NOSYS)
    }
}

pub mod rand {
    //! Randomness.
    use super::io::{Errno, Result};

    pub struct GetRandomFlags;
    impl GetRandomFlags {
        pub const fn empty() -> GetRandomFlags {
            GetRandomFlags
        }
    }
    pub fn getrandom(buf: &mut [u8], _: GetRandomFlags) -> Result<usize> {
        // SAFETY: the whole of `buf`.
        match unsafe { wasi::random_get(buf.as_mut_ptr(), buf.len()) } {
            Ok(()) => Ok(buf.len()),
            Err(_) => Err(Errno::NOSYS),
        }
    }
}
