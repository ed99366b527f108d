//! Sockets in the file system: the inode is the name.

use crate::errno::{Errno, Result};
use crate::io::socket::Key;
use crate::task::Task;

/// Make the socket inode for bind(2); EADDRINUSE if the path exists.
pub(super) fn make_socket(_task: &Task, _path: &[u8]) -> Result<Key> {
    Err(Errno::EOPNOTSUPP)
}

/// The socket inode for connect(2); ECONNREFUSED if it is none, EACCES without write permission.
pub(super) fn find_socket(_task: &Task, _path: &[u8]) -> Result<Key> {
    Err(Errno::EOPNOTSUPP)
}
