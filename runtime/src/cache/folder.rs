//! The folder of kept translations.
//!
//! Files of it are executed, so nobody but its owner may be able to write there: the folder and each file must belong to the
//! user who runs EVM and be closed to others, links are not followed, and no job may have it, or what it is in, to write
//! ([`Folder::is_inside`]). Files are written under another name and renamed: a reader sees all of one or nothing, and
//! writers that meet at worst work in vain.

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes that the folder may hold unless the user says otherwise.
pub const DEFAULT_SIZE: u64 = 1 << 30;
/// Ends of names.
const IMAGE: &str = ".img";
const TEMPORARY: &str = ".tmp";
/// Ends of lists of blocks that were too few to write an image's file for. Without new ones for an hour they go.
const FEW: &str = ".few.tmp";
/// Most bytes of such a list.
const FEW_MAX: u64 = 1 << 12;
const LOCK: &str = "lock";
/// One line for each image that a run used: its name.
const USES: &str = "uses";
/// The list of uses is made short when it is longer.
const USES_MAX: u64 = 1 << 20;

/// A folder that was found good.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

/// A file of the folder.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last used or written, as far as that was noted.
    pub used: SystemTime,
    /// How many runs used it.
    pub uses: u64,
}

/// Where it is unless the user says otherwise: not in the home folder, which many a job is given.
pub fn default_path() -> PathBuf {
    PathBuf::from(format!("/var/tmp/evm-{}", rustix::process::geteuid().as_raw()))
}

fn why(what: &str, e: impl std::fmt::Display) -> String {
    format!("{what}: {e}")
}

/// Whether it is ours alone to write, and of this type.
fn is_ours(stat: &fs::Stat, kind: fs::FileType) -> Result<(), String> {
    if fs::FileType::from_raw_mode(stat.st_mode) != kind {
        return Err("it is no folder or file of translations".into());
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".into());
    }
    if stat.st_mode & 0o077 != 0 {
        return Err("others have access to it (chmod go-rwx)".into());
    }
    Ok(())
}

impl Folder {
    /// Open a folder, which is made if there is none.
    pub fn open(path: &Path) -> Result<Folder, String> {
        let said = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(said(&e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|e| said(&e))?;
        let stat = fs::fstat(&fd).map_err(|e| said(&e))?;
        is_ours(&stat, fs::FileType::Directory).map_err(|e| said(&e))?;
        let path = path.canonicalize().map_err(|e| said(&e))?;
        // Made now, as runs cannot make it later.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&fd, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(|e| said(&e))?;
        Ok(Folder { path, fd })
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Whether the folder is in `mount`, or the other way round.
    pub fn is_inside(path: &Path, mount: &Path) -> bool {
        let real = |p: &Path| {
            // What does not exist yet has the place of what does.
            let mut rest = vec![];
            let mut at = p;
            loop {
                if let Ok(real) = at.canonicalize() {
                    return rest.iter().rev().fold(real, |p: PathBuf, n| p.join(n));
                }
                match (at.parent(), at.file_name()) {
                    (Some(up), Some(name)) => {
                        rest.push(name.to_owned());
                        at = up;
                    }
                    _ => return p.to_owned(),
                }
            }
        };
        let (path, mount) = (real(path), real(mount));
        path.starts_with(&mount) || mount.starts_with(&path)
    }
    /// Open a file of translations.
    pub fn image(&self, name: &str) -> Result<OwnedFd, String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| e.to_string())?;
        let stat = fs::fstat(&fd).map_err(|e| e.to_string())?;
        is_ours(&stat, fs::FileType::RegularFile)?;
        Ok(fd)
    }
    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
    /// Read a whole file of translations.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut out = vec![];
        let limit = super::format::MAX_FILE as u64 + 1;
        let n = std::fs::File::from(self.image(name)?).take(limit).read_to_end(&mut out);
        match n {
            Ok(n) if (n as u64) < limit => Ok(out),
            Ok(_) => Err("it is too large".into()),
            Err(e) => Err(e.to_string()),
        }
    }
    /// Write a file, at once for those who read.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let tmp = format!("{name}.{}{TEMPORARY}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What another process of this number left.
        let _ = fs::unlinkat(&self.fd, &*tmp, AtFlags::empty());
        let fd = fs::openat(&self.fd, &*tmp, flags, Mode::RUSR | Mode::WUSR).map_err(|e| why("new file", e))?;
        let done = std::fs::File::from(fd)
            .write_all(bytes)
            .map_err(|e| why("writing", e))
            .and_then(|()| fs::renameat(&self.fd, &*tmp, &self.fd, name).map_err(|e| why("renaming", e)));
        if done.is_err() {
            let _ = fs::unlinkat(&self.fd, &*tmp, AtFlags::empty());
        }
        done
    }
    /// Blocks that earlier runs came to and that were too few to write a file for, a block as often as it was come to.
    pub(crate) fn few(&self, name: &str) -> Vec<u32> {
        let mut bytes = vec![];
        if let Ok(fd) = self.image(&format!("{name}{FEW}")) {
            // Of a list that cannot be read, what was read counts.
            let _ = std::fs::File::from(fd).take(FEW_MAX).read_to_end(&mut bytes);
        }
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
    /// Add to them.
    pub(crate) fn add_few(&self, name: &str, blocks: &[u32]) -> Result<(), String> {
        let bytes: Vec<u8> = blocks.iter().flat_map(|pc| pc.to_le_bytes()).collect();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, format!("{name}{FEW}"), flags, Mode::RUSR | Mode::WUSR);
        std::fs::File::from(fd.map_err(|e| why("few", e))?).write_all(&bytes).map_err(|e| why("few", e))
    }
    /// They are in the image's file now.
    pub(crate) fn forget_few(&self, name: &str) {
        let _ = fs::unlinkat(&self.fd, format!("{name}{FEW}"), AtFlags::empty());
    }
    fn lock_file(&self) -> Result<OwnedFd, String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.fd, LOCK, flags, Mode::empty()).map_err(|e| why("lock", e))
    }
    /// Say that something is to be written: until the descriptor is closed, [`Folder::wait`] waits.
    pub(crate) fn announce(&self) -> std::io::Result<OwnedFd> {
        let fd = self.lock_file().map_err(std::io::Error::other)?;
        // Somebody who waits holds it for a moment only; nobody may hold up a run with it.
        fs::flock(&fd, FlockOperation::NonBlockingLockShared)?;
        Ok(fd)
    }
    /// Wait until nobody is going to write.
    pub fn wait(&self) -> Result<(), String> {
        fs::flock(self.lock_file()?, FlockOperation::LockExclusive).map_err(|e| why("lock", e))
    }
    /// One writer at a time, by another lock file.
    pub(crate) fn write_lock(&self) -> Result<OwnedFd, String> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, "writer", flags, Mode::RUSR | Mode::WUSR).map_err(|e| why("lock", e))?;
        fs::flock(&fd, FlockOperation::LockExclusive).map_err(|e| why("lock", e))?;
        Ok(fd)
    }
    /// Note that files were used: that is their access time, from then on.
    pub(crate) fn note_uses<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timespec { tv_sec: now.as_secs() as i64, tv_nsec: now.subsec_nanos().into() };
        let times = Timestamps { last_access: now, last_modification: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT } };
        let used = |n: &&str| fs::utimensat(&self.fd, *n, &times, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let text: String = names.filter(used).flat_map(|n| [n, "\n"]).collect();
        if text.is_empty() {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, USES, flags, Mode::RUSR | Mode::WUSR).map_err(|e| why("uses", e))?;
        std::fs::File::from(fd).write_all(text.as_bytes()).map_err(|e| why("uses", e))
    }
    /// Files of translations, those that were neither written nor used for the longest time first.
    pub fn list(&self) -> Result<Vec<Listed>, String> {
        let uses = self.uses();
        let mut counts = std::collections::HashMap::new();
        for name in uses.lines() {
            *counts.entry(name).or_insert(0u64) += 1;
        }
        let mut out = vec![];
        for e in fs::Dir::read_from(self.fd.as_fd()).map_err(|e| e.to_string())? {
            let e = e.map_err(|e| e.to_string())?;
            let name = OsStr::from_bytes(e.file_name().to_bytes()).to_string_lossy().into_owned();
            if !name.ends_with(IMAGE) {
                continue;
            }
            let Ok(s) = fs::statat(&self.fd, &*name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let time = |s: i64, ns: u64| SystemTime::UNIX_EPOCH + Duration::new(s.max(0) as u64, ns as u32);
            let used = time(s.st_atime, s.st_atime_nsec).max(time(s.st_mtime, s.st_mtime_nsec));
            let uses = counts.get(&*name).copied().unwrap_or(0);
            out.push(Listed { uses, size: s.st_size.max(0) as u64, used, name });
        }
        out.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.name.cmp(&b.name)));
        Ok(out)
    }
    fn uses(&self) -> String {
        let mut text = String::new();
        if let Ok(fd) = fs::openat(&self.fd, USES, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            // What cannot be read is a list that is shorter.
            let _ = std::fs::File::from(fd).take(2 * USES_MAX).read_to_string(&mut text);
        }
        text
    }
    /// Remove what was not used for the longest time until what is left is at most `size`; gives how many files went.
    pub fn shrink(&self, size: u64) -> Result<usize, String> {
        let all = self.list()?;
        let mut total: u64 = all.iter().map(|l| l.size).sum();
        let mut gone = 0;
        for l in &all {
            if total <= size {
                break;
            }
            self.forget_few(&l.name);
            if fs::unlinkat(&self.fd, &*l.name, AtFlags::empty()).is_ok() {
                total -= l.size;
                gone += 1;
            }
        }
        self.shorten_uses(&all)?;
        self.remove_leftovers();
        Ok(gone)
    }
    /// Remove everything.
    pub fn clear(&self) -> Result<usize, String> {
        let n = self.shrink(0)?;
        let _ = fs::unlinkat(&self.fd, USES, AtFlags::empty());
        Ok(n)
    }
    /// Forget how often files were used when the list has become long.
    fn shorten_uses(&self, all: &[Listed]) -> Result<(), String> {
        let long = fs::statat(&self.fd, USES, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| s.st_size as u64 > USES_MAX);
        if !long {
            return Ok(());
        }
        let text: String = all.iter().filter(|l| l.uses > 0).flat_map(|l| [&*l.name, "\n"]).collect();
        self.write(USES, text.as_bytes())
    }
    /// Remove files that writers that were killed left behind.
    fn remove_leftovers(&self) {
        let Ok(dir) = fs::Dir::read_from(self.fd.as_fd()) else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        for e in dir.flatten() {
            let name = e.file_name();
            if !name.to_bytes().ends_with(TEMPORARY.as_bytes()) {
                continue;
            }
            let old = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| now - s.st_mtime > 3600);
            if old {
                let _ = fs::unlinkat(&self.fd, name, AtFlags::empty());
            }
        }
    }
    /// Remove one file of translations.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(|e| e.to_string())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_folder_keeps_what_is_new() {
        let path = std::env::temp_dir().join(format!("evm-folder-{}", std::process::id()));
        let f = Folder::open(&path).unwrap();
        for name in ["a.img", "b.img", "c.img"] {
            f.write(name, &[0; 100]).unwrap();
        }
        let names = || f.list().unwrap().into_iter().map(|l| (l.name, l.uses)).collect::<Vec<_>>();
        let pause = || std::thread::sleep(Duration::from_millis(20));
        pause();
        f.note_uses(["b.img"].into_iter()).unwrap();
        f.note_uses(["a.img", "gone.img"].into_iter()).unwrap();
        assert_eq!(names(), [("c.img".into(), 0), ("b.img".into(), 1), ("a.img".into(), 1)]);
        // What has just been written could not be used yet: a folder that is full would never keep anything new.
        pause();
        f.write("c.img", &[0; 100]).unwrap();
        f.shrink(200).unwrap();
        assert_eq!(names(), [("a.img".into(), 1), ("c.img".into(), 0)]);
        // Blocks that are too few for an image's file add up, and go with it.
        f.add_few("a.img", &[1, 2]).unwrap();
        f.add_few("a.img", &[2]).unwrap();
        assert_eq!((f.few("a.img"), f.few("c.img")), (vec![1, 2, 2], vec![]));
        f.forget_few("a.img");
        assert_eq!(f.few("a.img"), []);
        f.add_few("a.img", &[3]).unwrap();
        assert_eq!(f.clear().unwrap(), 2);
        assert_eq!(f.few("a.img"), []);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
