//! File systems (placeholder until the helper's own lands).

use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::task::Task;
use std::sync::Arc;

/// Root, working directory and umask of a process.
#[derive(Default)]
pub struct FsContext {}

impl FsContext {
    /// A copy for a forked process.
    pub fn fork(&self) -> FsContext {
        FsContext {}
    }
}

/// Open a program for execve: checks that it is a regular file with execute permission. `flags`: AT_EMPTY_PATH,
/// AT_SYMLINK_NOFOLLOW. The description's `path` is its absolute guest path.
pub fn open_exec(_task: &Task, _dirfd: i32, _path: &[u8], _flags: u32) -> Result<Arc<Description>> {
    Err(Errno::ENOENT)
}
