//! A lifted program (`.evm`): files of translations of the images that it maps, in one file, and what program it is.
//!
//! ```text
//! "EVMlift1", length of the text, the text (one JSON line for people and for `evm run`), then from multiples of 4096 on the files
//! ```
//! The text says where each file is. Each is checked as any file of kept translations; the whole must be closed to other writers,
//! as what is in it is executed.

use super::format::MAX_FILE;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// First bytes.
pub const MAGIC: &[u8; 8] = b"EVMlift1";
/// Longest text.
const MAX_TEXT: u64 = 1 << 20;

/// A file of translations in an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name, as in the folder of kept translations.
    pub name: String,
    /// Where it is.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// An artifact that is open.
#[derive(Debug)]
pub struct Artifact {
    /// The file.
    pub file: OwnedFd,
    /// Where it is.
    pub path: PathBuf,
    /// What it has.
    pub parts: Vec<Part>,
}

/// Put an artifact together: `text` gets the parts and gives the line for people.
pub fn write(
    out: &mut impl std::io::Write,
    files: &[(String, Vec<u8>)],
    text: impl Fn(&[Part]) -> String,
) -> std::io::Result<u64> {
    // The text's length depends on the offsets, and these on it: a page more than it has with offsets of zero is enough.
    let part = |(name, bytes): &(String, Vec<u8>), offset| Part { name: name.clone(), offset, len: bytes.len() as u64 };
    let guess = text(&files.iter().map(|f| part(f, u64::MAX)).collect::<Vec<_>>()).len() as u64;
    let mut at = (16 + guess).next_multiple_of(4096);
    let mut parts = vec![];
    for f in files {
        parts.push(part(f, at));
        at = (at + f.1.len() as u64).next_multiple_of(4096);
    }
    let text = text(&parts);
    out.write_all(MAGIC)?;
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    let mut here = 16 + text.len() as u64;
    for (p, (_, bytes)) in parts.iter().zip(files) {
        out.write_all(&vec![0; (p.offset - here) as usize])?;
        out.write_all(bytes)?;
        here = p.offset + p.len;
    }
    Ok(here)
}

/// The text of an artifact; `None` if the file is none.
pub fn text(file: &std::fs::File) -> Result<Option<String>, String> {
    let mut head = [0; 16];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) if head[..8] == *MAGIC => {}
        _ => return Ok(None),
    }
    let m = file.metadata().map_err(|e| e.to_string())?;
    if m.uid() != rustix::process::geteuid().as_raw() && m.uid() != 0 {
        return Err("it belongs to another user, and what is in it would be executed".into());
    }
    if m.mode() & 0o022 != 0 {
        return Err("others may write it (chmod go-w), and what is in it would be executed".into());
    }
    let len = u64::from_le_bytes(head[8..].try_into().unwrap_or_default());
    if len > MAX_TEXT || len + 16 > m.len() {
        return Err("it is truncated or damaged".into());
    }
    let mut text = vec![0; len as usize];
    file.read_exact_at(&mut text, 16).map_err(|e| e.to_string())?;
    String::from_utf8(text).map(Some).map_err(|_| "its text is damaged".into())
}

impl Artifact {
    /// With the parts that its text says; those that cannot be are left out.
    pub fn new(file: std::fs::File, path: &Path, parts: Vec<Part>) -> Result<Artifact, String> {
        let size = file.metadata().map_err(|e| e.to_string())?.len();
        let fits = |p: &Part| {
            p.offset.is_multiple_of(4096)
                && p.len <= MAX_FILE as u64
                && p.offset.checked_add(p.len).is_some_and(|end| end <= size)
        };
        if let Some(p) = parts.iter().find(|p| !fits(p)) {
            return Err(format!("it is truncated or damaged: {} is not all in it", p.name));
        }
        Ok(Artifact { file: file.into(), path: path.into(), parts })
    }
}
