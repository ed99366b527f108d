//! Directories on the way to files of a host folder, as they were lately: which may be searched by whom.
//!
//! Where the host checks no permissions for us, a path is looked up name by name, which takes three system calls for each directory
//! although most of them have just been looked at. What was seen of a directory is used again for a moment: it decides only whether
//! the caller may search it. Where a path leads is the host's to say each time, and stays below the root as ever.
//!
//! Changes that a guest makes are known at once, whatever mount it makes them through; those of other host processes after
//! [`LIFE`].

use super::node::*;
use crate::errno::{Errno, Result};
use crate::file::Stat;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long what was seen counts.
const LIFE: Duration = Duration::from_millis(100);
/// Most directories that are remembered.
const MOST: usize = 4096;

/// Grows when a guest has changed what a path leads to, or a mode.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A guest has renamed something, or removed a directory, or changed a mode.
pub(super) fn changed() {
    CHANGES.fetch_add(1, Ordering::SeqCst);
}

/// What a path led to.
#[derive(Clone)]
enum Seen {
    Dir(Stat),
    /// A link: paths through it are looked up name by name.
    Link,
}

/// When something was seen.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    changes: u64,
    time: Instant,
}

impl Moment {
    pub(super) fn now() -> Moment {
        Moment { changes: CHANGES.load(Ordering::SeqCst), time: Instant::now() }
    }
}

/// What was seen below a root, by path from there.
#[derive(Default)]
pub(super) struct Searched(Mutex<HashMap<Vec<u8>, (Seen, Moment)>>);

impl Searched {
    /// Whether `who` may search the directory at a path, if that is known at this moment. ELOOP: it is a link.
    pub(super) fn check(&self, who: &Caller, path: &[u8], now: Moment) -> Option<Result<()>> {
        let all = lock(&self.0);
        let (seen, at) = all.get(path)?;
        if at.changes != now.changes || now.time.saturating_duration_since(at.time) > LIFE {
            return None;
        }
        Some(match seen {
            Seen::Dir(stat) => who.check(stat, X),
            Seen::Link => Err(Errno::ELOOP),
        })
    }
    /// Note what was seen at a path, looked for since `now`; gives the same answer. ENOTDIR: it is neither.
    pub(super) fn saw(&self, who: &Caller, path: &[u8], stat: &Stat, now: Moment) -> Result<()> {
        let (seen, r) = match kind_of(stat.mode) {
            libc::S_IFDIR => (Seen::Dir(*stat), who.check(stat, X)),
            libc::S_IFLNK => (Seen::Link, Err(Errno::ELOOP)),
            _ => return Err(Errno::ENOTDIR),
        };
        let mut all = lock(&self.0);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(path.to_vec(), (seen, now));
        r
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_counts_until_something_changes() {
        let (s, who) = (Searched::default(), Caller { uid: 7, ..Caller::default() });
        let dir = |mode: u32| Stat { mode: libc::S_IFDIR | mode, uid: 7, ..Stat::default() };
        // Other tests change things meanwhile.
        let t = Moment { changes: 5, time: Instant::now() };
        assert_eq!(s.check(&who, b"a", t), None);
        assert_eq!(s.saw(&who, b"a", &dir(0o700), t), Ok(()));
        assert_eq!(s.check(&who, b"a", t), Some(Ok(())));
        assert_eq!(s.check(&Caller { uid: 8, ..Caller::default() }, b"a", t), Some(Err(Errno::EACCES)));
        assert_eq!(s.check(&who, b"a/b", t), None);
        assert_eq!(s.check(&who, b"a", Moment { changes: 6, ..t }), None);
        assert_eq!(s.check(&who, b"a", Moment { time: t.time + 2 * LIFE, ..t }), None);
        assert_eq!(s.saw(&who, b"a", &dir(0o600), t), Err(Errno::EACCES));
        assert_eq!(s.check(&who, b"a", t), Some(Err(Errno::EACCES)));
        assert_eq!(s.saw(&who, b"l", &Stat { mode: libc::S_IFLNK, ..Stat::default() }, t), Err(Errno::ELOOP));
        assert_eq!(s.check(&who, b"l", t), Some(Err(Errno::ELOOP)));
        assert_eq!(s.saw(&who, b"f", &Stat { mode: libc::S_IFREG, ..Stat::default() }, t), Err(Errno::ENOTDIR));
        assert_eq!(s.check(&who, b"f", t), None);
    }
}
