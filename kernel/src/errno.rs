//! Error numbers of Linux, as a newtype so that values from the host can be kept.

/// An error number (positive, as in errno(3)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errno {
    ($($name:ident)*) => {
        #[allow(missing_docs)]
        impl Errno { $( pub const $name: Errno = Errno(libc::$name); )* }
        impl Errno {
            /// Name as in errno(3), or "?".
            pub fn name(self) -> &'static str {
                match self { $( Errno::$name => stringify!($name), )* _ => "?" }
            }
        }
    };
}
errno! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA ETIME EOVERFLOW EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE
    EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN
    ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ETIMEDOUT ECONNREFUSED EHOSTUNREACH EALREADY
    EINPROGRESS ESTALE EDQUOT ENOMSG EIDRM ECANCELED EOWNERDEAD ENOTRECOVERABLE
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}
impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
impl std::error::Error for Errno {}
impl From<evm_memory::Fault> for Errno {
    fn from(_: evm_memory::Fault) -> Errno {
        Errno::EFAULT
    }
}
impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Errno {
        Errno(e.raw_os_error())
    }
}
impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Errno {
        match (e.raw_os_error(), e.kind()) {
            (Some(n), _) => host_errno(n),
            (None, std::io::ErrorKind::OutOfMemory) => Errno::ENOMEM,
            (None, std::io::ErrorKind::InvalidInput) => Errno::EINVAL,
            (None, _) => Errno::EIO,
        }
    }
}
/// An error number of the host's.
#[cfg(not(target_family = "wasm"))]
fn host_errno(n: i32) -> Errno {
    Errno(n)
}
#[cfg(target_family = "wasm")]
fn host_errno(n: i32) -> Errno {
    Errno(libc::from_wasi(n as u16))
}
/// Result of a system call or of a part of one.
pub type Result<T> = std::result::Result<T, Errno>;
