//! Extended attributes: which there may be, and who may see and change them. What keeps them is the file system.
//!
//! Only those of the namespace `user` are kept, on regular files and directories. The others belong to privileged users
//! and security modules: they are as where nobody has set any.

use super::node::{Caller, R, W, is_dir, kind_of};
use super::notify;
use super::walk::{Entry, Namespace};
use crate::errno::{Errno, Result};

/// Longest name.
pub const NAME_MAX: usize = 255;
/// Longest value, and longest list of names.
pub const SIZE_MAX: usize = 65536;

/// What a name is.
enum Kind {
    User,
    /// Of privileged users.
    Trusted,
    /// Of security modules.
    Security,
    /// Access control lists and the like.
    System,
    Unknown,
}

fn kind(name: &[u8]) -> Result<Kind> {
    let spaces = [
        (&b"user."[..], Kind::User),
        (b"trusted.", Kind::Trusted),
        (b"security.", Kind::Security),
        (b"system.", Kind::System),
    ];
    for (prefix, kind) in spaces {
        if let Some(rest) = name.strip_prefix(prefix) {
            return if rest.is_empty() { Err(Errno::EINVAL) } else { Ok(kind) };
        }
    }
    Ok(Kind::Unknown)
}

fn has_user(e: &Entry) -> bool {
    matches!(kind_of(e.stat.mode), libc::S_IFREG | libc::S_IFDIR)
}

impl Namespace {
    /// getxattr(2) of what was resolved.
    pub fn xattr(&self, who: &Caller, e: &Entry, name: &[u8]) -> Result<Vec<u8>> {
        match kind(name)? {
            Kind::User if has_user(e) => {
                who.check(&e.stat, R)?;
                e.place.node.xattr(name)
            }
            Kind::User | Kind::Trusted | Kind::Security | Kind::System => Err(Errno::ENODATA),
            Kind::Unknown => Err(Errno::EOPNOTSUPP),
        }
    }
    /// listxattr(2) of what was resolved: names, each with a NUL behind it.
    pub fn xattrs(&self, e: &Entry) -> Result<Vec<u8>> {
        if has_user(e) { e.place.node.xattrs() } else { Ok(Vec::new()) }
    }
    /// setxattr(2) of what was resolved, removexattr(2) without a value. `flags`: XATTR_CREATE, XATTR_REPLACE.
    pub fn set_xattr(&self, who: &Caller, e: &Entry, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        self.writable(&e.place)?;
        match kind(name)? {
            Kind::User if has_user(e) => {
                if is_dir(e.stat.mode) && e.stat.mode & libc::S_ISVTX != 0 && !who.owns(&e.stat) {
                    return Err(Errno::EPERM);
                }
                who.check(&e.stat, W)?;
                e.place.node.set_xattr(name, value, flags)?;
                self.happened(&e.place, notify::IN_ATTRIB);
                Ok(())
            }
            Kind::User | Kind::Trusted | Kind::Security => Err(Errno::EPERM),
            Kind::System | Kind::Unknown => Err(Errno::EOPNOTSUPP),
        }
    }
}
