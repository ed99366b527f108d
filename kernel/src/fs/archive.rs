//! A tree of files in a run of bytes, read-only: what a stand-alone module brings along.
//!
//! ```text
//! "EVMFILES" | number of entries: u64 | entry … | paths and contents
//! entry: mode u32 | length of the path u32 | offset of the path u64 | offset u64 | length u64 | seconds of mtime i64
//! ```
//! All numbers are little-endian, offsets count from the start. Paths are absolute; a directory that no entry names is there as well. The
//! contents of a symbolic link are its target.

use super::node::*;
use crate::errno::{Errno, Result};
use crate::file::{DirEntry, File, Stat};
use crate::wait::Blocking;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"EVMFILES";
const HEAD: usize = 16;
const ENTRY: usize = 40;

/// A file to put into an archive.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Absolute path.
    pub path: Vec<u8>,
    /// Type and permissions.
    pub mode: u32,
    /// Time of modification, seconds since the epoch.
    pub mtime: i64,
    /// Contents, or the target of a symbolic link.
    pub bytes: Vec<u8>,
}

/// Make an archive.
pub fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let mut at = HEAD + ENTRY * entries.len();
    for e in entries {
        let contents = at + e.path.len();
        out.extend_from_slice(&e.mode.to_le_bytes());
        out.extend_from_slice(&(e.path.len() as u32).to_le_bytes());
        for v in [at as u64, contents as u64, e.bytes.len() as u64, e.mtime as u64] {
            out.extend_from_slice(&v.to_le_bytes());
        }
        at = contents + e.bytes.len();
    }
    for e in entries {
        out.extend_from_slice(&e.path);
        out.extend_from_slice(&e.bytes);
    }
    out
}

struct Item {
    mode: u32,
    mtime: i64,
    bytes: &'static [u8],
    children: BTreeMap<&'static [u8], usize>,
    /// Directories in it, for the link count.
    folders: u32,
}

/// An archive as a file system.
struct ArchiveFs {
    dev: u64,
    items: Vec<Item>,
    world: Arc<dyn World>,
}

/// Where the contents of the file at an absolute path are in an archive: offset and length.
pub fn position(bytes: &[u8], path: &[u8]) -> Option<(usize, usize)> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let size = |v: u64| usize::try_from(v).ok();
    (0..size(word(8)?)?).find_map(|i| {
        let e = HEAD + ENTRY * i;
        let (len, at) = (size(word(e)? >> 32)?, size(word(e + 8)?)?);
        let found = bytes.get(at..at.checked_add(len)?)? == path;
        if found { Some((size(word(e + 16)?)?, size(word(e + 24)?)?)) } else { None }
    })
}

/// The root of an archive; EINVAL if it is none.
pub fn mount(bytes: &'static [u8], dev: u64, world: Arc<dyn World>) -> Result<Arc<dyn Node>> {
    let fs = ArchiveFs { dev, items: parse(bytes).ok_or(Errno::EINVAL)?, world };
    Ok(Arc::new(ArchiveNode { fs: Arc::new(fs), at: 0 }))
}

fn parse(bytes: &'static [u8]) -> Option<Vec<Item>> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let part = |at: u64, len: u64| {
        let at = usize::try_from(at).ok()?;
        bytes.get(at..at.checked_add(usize::try_from(len).ok()?)?)
    };
    let folder = || Item { mode: libc::S_IFDIR | 0o755, mtime: 0, bytes: &[], children: BTreeMap::new(), folders: 0 };
    if bytes.get(..8)? != MAGIC {
        return None;
    }
    let mut items = vec![folder()];
    for i in 0..usize::try_from(word(8)?).ok()? {
        let e = HEAD + ENTRY * i;
        let (first, path_at) = (word(e)?, word(e + 8)?);
        let (mode, path) = (first as u32, part(path_at, first >> 32)?);
        let (contents, mtime) = (part(word(e + 16)?, word(e + 24)?)?, word(e + 32)? as i64);
        let mut at = 0;
        let mut names = path.split(|c| *c == b'/').filter(|n| !n.is_empty()).peekable();
        while let Some(name) = names.next() {
            let next = items.len();
            let parent = items.get_mut(at)?;
            let (to, fresh) = match parent.children.get(name) {
                Some(n) => (*n, false),
                None => (next, true),
            };
            if fresh {
                parent.children.insert(name, to);
                if names.peek().is_some() || is_dir(mode) {
                    parent.folders += 1;
                }
                items.push(folder());
            }
            at = to;
        }
        let item = items.get_mut(at)?;
        (item.mode, item.mtime, item.bytes) = (mode, mtime, contents);
    }
    Some(items)
}

struct ArchiveNode {
    fs: Arc<ArchiveFs>,
    at: usize,
}

impl ArchiveNode {
    fn item(&self) -> &Item {
        &self.fs.items[self.at]
    }
    fn child(&self, at: usize) -> ArchiveNode {
        ArchiveNode { fs: self.fs.clone(), at }
    }
}

impl Node for ArchiveNode {
    fn stat(&self) -> Result<Stat> {
        let i = self.item();
        let size = if is_dir(i.mode) { 4096 } else { i.bytes.len() as u64 };
        let time = (i.mtime, 0);
        Ok(Stat {
            dev: self.fs.dev,
            ino: self.at as u64 + 16,
            mode: i.mode,
            nlink: if is_dir(i.mode) { 2 + i.folders } else { 1 },
            size,
            blksize: 4096,
            blocks: size.div_ceil(4096) * 8,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..Stat::default()
        })
    }
    fn lookup(&self, _: &Caller, name: &[u8]) -> Result<Found> {
        if !is_dir(self.item().mode) {
            return Err(Errno::ENOTDIR);
        }
        let node = self.child(*self.item().children.get(name).ok_or(Errno::ENOENT)?);
        Ok(Found { stat: node.stat()?, node: Arc::new(node) })
    }
    fn readlink(&self, _: &Caller) -> Result<Link> {
        match kind_of(self.item().mode) {
            libc::S_IFLNK => Ok(Link::Path(self.item().bytes.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }
    fn open(&self, _: &Caller, flags: u32) -> Result<Arc<dyn File>> {
        if flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
            return Err(Errno::EROFS);
        }
        match kind_of(self.item().mode) {
            libc::S_IFREG | libc::S_IFDIR => Ok(Arc::new(ArchiveFile(self.child(self.at)))),
            _ => Err(Errno::ELOOP),
        }
    }
    fn statfs(&self) -> StatFs {
        let (blocks, free) = shown_blocks(self.fs.world.tmpfs());
        StatFs { kind: 0xef53, blocks, free, files: self.fs.items.len() as u64 }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ArchiveFile(ArchiveNode);

impl File for ArchiveFile {
    fn read(&self, _: &dyn Blocking, pos: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        let i = self.0.item();
        if is_dir(i.mode) {
            return Err(Errno::EISDIR);
        }
        let left = usize::try_from(pos).ok().and_then(|p| i.bytes.get(p..)).unwrap_or_default();
        let n = left.len().min(buf.len());
        buf[..n].copy_from_slice(&left[..n]);
        Ok(n)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn copied(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        self.0.stat()
    }
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        let i = self.0.item();
        if !is_dir(i.mode) {
            return Err(Errno::ENOTDIR);
        }
        let dot = |name: &[u8]| DirEntry { ino: self.0.at as u64 + 16, kind: libc::DT_DIR, name: name.to_vec() };
        let real = i.children.iter().map(|(name, at)| DirEntry {
            ino: *at as u64 + 16,
            kind: dirent_kind(self.0.fs.items[*at].mode),
            name: name.to_vec(),
        });
        let all = [dot(b"."), dot(b"..")].into_iter().chain(real);
        Ok(all.zip(1..).skip(usize::try_from(pos).unwrap_or(usize::MAX)).collect())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::KernelWorld;
    use std::sync::Weak;

    #[test]
    fn there_and_back() {
        let entry = |path: &str, mode, bytes: &str| Entry {
            path: path.into(),
            mode,
            mtime: 7,
            bytes: bytes.as_bytes().to_vec(),
        };
        let all = [
            entry("/bin/sh", libc::S_IFREG | 0o755, "shell"),
            entry("/bin/link", libc::S_IFLNK | 0o777, "sh"),
            entry("/empty", libc::S_IFDIR | 0o700, ""),
        ];
        let bytes: &'static [u8] = write(&all).leak();
        let world: Arc<dyn World> = Arc::new(KernelWorld(Weak::new()));
        let (root, who) = (mount(bytes, 5, world.clone()).unwrap(), Caller::default());
        let bin = root.lookup(&who, b"bin").unwrap();
        assert_eq!((bin.stat.mode, root.stat().unwrap().nlink), (libc::S_IFDIR | 0o755, 4));
        let sh = bin.node.lookup(&who, b"sh").unwrap();
        assert_eq!((sh.stat.size, sh.stat.mtime.0), (5, 7));
        let mut buf = [0; 9];
        let n = sh.node.open(&who, 0).unwrap().read(&crate::wait::Nobody::new(), 1, &mut buf, true).unwrap();
        assert_eq!(&buf[..n], b"hell");
        let link = bin.node.lookup(&who, b"link").unwrap().node;
        assert!(matches!(link.readlink(&who), Ok(Link::Path(p)) if p == b"sh"));
        let names: Vec<_> = root.open(&who, 0).unwrap().entries(1).unwrap().into_iter().map(|e| e.0.name).collect();
        assert_eq!(names, [&b".."[..], b"bin", b"empty"]);
        assert!(mount(&bytes[..bytes.len() - 1], 5, world).is_err());
    }
}
