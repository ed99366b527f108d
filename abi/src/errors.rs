//! WASI's error numbers as Linux has them.

/// Linux's number for each of WASI's (snapshot preview 1), in their order.
const LINUX: [i32; 77] = {
    use crate::*;
    [
        0,
        E2BIG,
        EACCES,
        EADDRINUSE,
        EADDRNOTAVAIL,
        EAFNOSUPPORT,
        EAGAIN,
        EALREADY,
        EBADF,
        74, // EBADMSG
        EBUSY,
        ECANCELED,
        ECHILD,
        ECONNABORTED,
        ECONNREFUSED,
        ECONNRESET,
        EDEADLK,
        EDESTADDRREQ,
        EDOM,
        EDQUOT,
        EEXIST,
        EFAULT,
        EFBIG,
        EHOSTUNREACH,
        EIDRM,
        EILSEQ,
        EINPROGRESS,
        EINTR,
        EINVAL,
        EIO,
        EISCONN,
        EISDIR,
        ELOOP,
        EMFILE,
        EMLINK,
        EMSGSIZE,
        72, // EMULTIHOP
        ENAMETOOLONG,
        ENETDOWN,
        102, // ENETRESET
        ENETUNREACH,
        ENFILE,
        ENOBUFS,
        ENODEV,
        ENOENT,
        ENOEXEC,
        ENOLCK,
        67, // ENOLINK
        ENOMEM,
        ENOMSG,
        ENOPROTOOPT,
        ENOSPC,
        ENOSYS,
        ENOTCONN,
        ENOTDIR,
        ENOTEMPTY,
        ENOTRECOVERABLE,
        ENOTSOCK,
        EOPNOTSUPP,
        ENOTTY,
        ENXIO,
        EOVERFLOW,
        EOWNERDEAD,
        EPERM,
        EPIPE,
        71, // EPROTO
        EPROTONOSUPPORT,
        EPROTOTYPE,
        ERANGE,
        EROFS,
        ESPIPE,
        ESRCH,
        ESTALE,
        ETIMEDOUT,
        ETXTBSY,
        EXDEV,
        // Not capable: what the sandbox does not give.
        EPERM,
    ]
};

/// Linux's error number for one of WASI's.
pub fn from_wasi(e: u16) -> i32 {
    LINUX.get(usize::from(e)).copied().unwrap_or(crate::EIO)
}
