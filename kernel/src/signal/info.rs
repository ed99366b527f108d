//! siginfo_t: what a signal says about itself, and its 128-byte image.

/// The part of siginfo_t that depends on the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SigFields {
    None,
    /// kill, tgkill.
    Kill {
        pid: i32,
        uid: u32,
    },
    /// sigqueue and others with a value.
    Queue {
        pid: i32,
        uid: u32,
        value: u64,
    },
    /// SIGCHLD.
    Child {
        pid: i32,
        uid: u32,
        status: i32,
        utime: i64,
        stime: i64,
    },
    /// Faults.
    Fault {
        addr: u64,
    },
    /// POSIX timers.
    Timer {
        id: i32,
        overrun: i32,
        value: u64,
    },
    /// SIGIO.
    Poll {
        band: i64,
        fd: i32,
    },
    /// As a program gave it (rt_sigqueueinfo with its own si_code).
    Raw([u64; 14]),
}

/// A signal and what it says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// si_errno.
    pub errno: i32,
    /// si_code.
    pub code: i32,
    /// The rest.
    pub fields: SigFields,
}

impl SigInfo {
    /// From the kernel itself (SI_KERNEL).
    pub fn kernel(signo: i32) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code: 0x80,
            fields: SigFields::None,
        }
    }
    /// From kill(2) by a process.
    pub fn user(signo: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code: libc::SI_USER,
            fields: SigFields::Kill { pid, uid },
        }
    }
    /// A fault at an address.
    pub fn fault(signo: i32, code: i32, addr: u64) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code,
            fields: SigFields::Fault { addr },
        }
    }
    /// siginfo_t as x86-64 lays it out.
    pub fn to_bytes(&self) -> [u8; 128] {
        let mut b = [0u8; 128];
        let mut put = |at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
        put(0, &self.signo.to_le_bytes());
        put(4, &self.errno.to_le_bytes());
        put(8, &self.code.to_le_bytes());
        match self.fields {
            SigFields::None => {}
            SigFields::Kill { pid, uid } => {
                put(16, &pid.to_le_bytes());
                put(20, &uid.to_le_bytes());
            }
            SigFields::Queue { pid, uid, value } => {
                put(16, &pid.to_le_bytes());
                put(20, &uid.to_le_bytes());
                put(24, &value.to_le_bytes());
            }
            SigFields::Child {
                pid,
                uid,
                status,
                utime,
                stime,
            } => {
                put(16, &pid.to_le_bytes());
                put(20, &uid.to_le_bytes());
                put(24, &status.to_le_bytes());
                put(32, &utime.to_le_bytes());
                put(40, &stime.to_le_bytes());
            }
            SigFields::Fault { addr } => put(16, &addr.to_le_bytes()),
            SigFields::Timer { id, overrun, value } => {
                put(16, &id.to_le_bytes());
                put(20, &overrun.to_le_bytes());
                put(24, &value.to_le_bytes());
            }
            SigFields::Poll { band, fd } => {
                put(16, &band.to_le_bytes());
                put(24, &fd.to_le_bytes());
            }
            SigFields::Raw(w) => {
                for (i, v) in w.iter().enumerate() {
                    put(16 + 8 * i, &v.to_le_bytes());
                }
            }
        }
        b
    }
    /// As a program gives it (rt_sigqueueinfo).
    pub fn from_bytes(signo: i32, b: &[u8; 128]) -> SigInfo {
        let w = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        SigInfo {
            signo,
            errno: (w(0) >> 32) as i32,
            code: w(8) as i32,
            fields: SigFields::Raw(std::array::from_fn(|i| w(16 + 8 * i))),
        }
    }
}
