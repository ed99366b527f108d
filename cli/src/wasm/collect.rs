//! The files that a program needs: itself, its loader or interpreter, the libraries these name, and what the user adds.
//!
//! A file is added by its path in the guest, whose folders may be links on the host: these become links of the archive, and
//! lookups in the guest go the way they go here.

use anyhow::{Context, Result, bail};
use evm_kernel::fs::archive::Entry;
use object::elf::{self, DT_NEEDED, DT_RPATH, DT_RUNPATH};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, StringTable};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Where libraries are looked for when the program does not say, as the loaders of the common systems do.
const FOLDERS: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];
/// Links in a row that are followed.
const LINKS: usize = 40;

/// Collected files, by guest path.
pub struct Files {
    /// The guest's root on this machine.
    root: PathBuf,
    found: BTreeMap<PathBuf, Entry>,
}

/// What a program file asks for.
#[derive(Debug, Default)]
struct Needs {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    /// Folders to look in first.
    folders: Vec<String>,
}

impl Files {
    /// Nothing yet. `root`: the folder that is the guest's root.
    pub fn new(root: &Path) -> Files {
        Files { root: root.into(), found: BTreeMap::new() }
    }
    /// All of them.
    pub fn entries(self) -> Vec<Entry> {
        self.found.into_values().collect()
    }
    fn host(&self, guest: &Path) -> PathBuf {
        self.root.join(guest.strip_prefix("/").unwrap_or(guest))
    }
    fn put(&mut self, guest: &Path, host: &Path) -> Result<()> {
        let what = || host.display().to_string();
        let meta = host.symlink_metadata().with_context(what)?;
        let bytes = if meta.is_symlink() {
            std::fs::read_link(host).with_context(what)?.as_os_str().as_bytes().to_vec()
        } else if meta.is_file() {
            std::fs::read(host).with_context(what)?
        } else {
            Vec::new()
        };
        let entry = Entry {
            path: guest.as_os_str().as_bytes().to_vec(),
            mode: meta.mode() & 0o17_1777,
            mtime: meta.mtime(),
            bytes,
        };
        self.found.insert(guest.into(), entry);
        Ok(())
    }
    /// Add a file of the guest's root, and the links on the way to it. Gives its path without links.
    pub fn add(&mut self, guest: &Path) -> Result<PathBuf> {
        let mut left: Vec<PathBuf> = Vec::new();
        let push = |left: &mut Vec<PathBuf>, p: &Path| {
            for c in p.components().rev() {
                match c {
                    Component::Normal(n) => left.push(n.into()),
                    Component::ParentDir => left.push("..".into()),
                    _ => {}
                }
            }
        };
        push(&mut left, guest);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = left.pop() {
            if name.as_os_str() == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let host = self.host(&next);
            let meta = host.symlink_metadata().with_context(|| guest.display().to_string())?;
            if !meta.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS {
                bail!("{}: too many links", guest.display());
            }
            self.put(&next, &host)?;
            let to = std::fs::read_link(&host)?;
            if to.is_absolute() {
                at = "/".into();
            }
            push(&mut left, &to);
        }
        let host = self.host(&at);
        self.put(&at, &host)?;
        Ok(at)
    }
    /// Add a program with all that it asks for.
    pub fn add_program(&mut self, guest: &Path) -> Result<()> {
        let (mut work, mut seen) = (vec![guest.to_path_buf()], Vec::new());
        while let Some(p) = work.pop() {
            let real = self.add(&p)?;
            if seen.contains(&real) {
                continue;
            }
            let needs = needs(&std::fs::read(self.host(&real))?).with_context(|| real.display().to_string())?;
            work.extend(needs.interpreter);
            let origin = real.parent().unwrap_or(Path::new("/")).display().to_string();
            let own = needs.folders.iter().map(|f| f.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin));
            let folders: Vec<String> = own.chain(FOLDERS.iter().map(|f| f.to_string())).collect();
            for name in &needs.libraries {
                let found = folders.iter().map(|f| Path::new(f).join(name)).find(|p| self.host(p).exists());
                work.push(found.with_context(|| format!("{}: the library {name} was not found", real.display()))?);
            }
            seen.push(real);
        }
        Ok(())
    }
    /// Add a file or folder of this machine at a path in the guest.
    pub fn add_tree(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let meta = host.symlink_metadata().with_context(|| host.display().to_string())?;
        self.put(guest, host)?;
        if meta.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(host)
                .with_context(|| host.display().to_string())?
                .collect::<std::io::Result<Vec<_>>>()?;
            names.sort_by_key(|e| e.file_name());
            for e in names {
                let kind = e.file_type()?;
                if kind.is_dir() || kind.is_file() || kind.is_symlink() {
                    self.add_tree(&e.path(), &guest.join(e.file_name()))?;
                }
            }
        }
        Ok(())
    }
    /// The same, by default at the path that it has: below the guest's root if it is there.
    pub fn add_bundle(&mut self, host: &Path, guest: Option<&Path>) -> Result<()> {
        let whole = host.canonicalize().with_context(|| host.display().to_string())?;
        let root = self.root.canonicalize()?;
        let guest = match guest {
            Some(g) => g.to_path_buf(),
            None => Path::new("/").join(whole.strip_prefix(&root).unwrap_or(whole.strip_prefix("/").unwrap_or(&whole))),
        };
        self.add_tree(&whole, &guest)
    }
    /// A file that may be executed.
    pub fn is_program(&self, guest: &Path) -> bool {
        std::fs::metadata(self.host(guest)).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    }
}

fn needs(data: &[u8]) -> Result<Needs> {
    if let Some(rest) = data.strip_prefix(b"#!") {
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).trim().to_string();
        let path = line.split([' ', '\t']).next().unwrap_or_default();
        return Ok(Needs { interpreter: Some(path.into()), ..Needs::default() });
    }
    match data.get(4) {
        _ if !data.starts_with(&elf::ELFMAG) => bail!("it is neither an ELF file nor a script"),
        Some(&elf::ELFCLASS64) => read_elf::<elf::FileHeader64<Endianness>>(data),
        _ => bail!("32-bit programs cannot be lifted to WebAssembly"),
    }
}

fn read_elf<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<Needs> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut n = Needs::default();
    for s in segments {
        if let Some(i) = s.interpreter(endian, data)? {
            n.interpreter = Some(String::from_utf8_lossy(i).into_owned().into());
        }
        let Some(table) = s.dynamic(endian, data)? else {
            continue;
        };
        let value = |tag: i64| table.iter().find(|d| d.d_tag(endian).into() == tag).map(|d| d.d_val(endian).into());
        let Some(strings) = value(elf::DT_STRTAB).and_then(|a| offset(segments, endian, a)) else {
            continue;
        };
        let size = value(elf::DT_STRSZ).unwrap_or(0);
        let strings = StringTable::new(data, strings, strings.saturating_add(size));
        for d in table {
            let tag = d.d_tag(endian).into();
            if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&tag) {
                continue;
            }
            let at = u32::try_from(d.d_val(endian).into())?;
            let text = strings.get(at).map_err(|()| anyhow::anyhow!("a name in its dynamic section is damaged"))?;
            let text = String::from_utf8_lossy(text).into_owned();
            if tag == DT_NEEDED {
                n.libraries.push(text);
            } else {
                n.folders.extend(text.split(':').filter(|f| !f.is_empty()).map(str::to_string));
            }
        }
    }
    Ok(n)
}

/// Where an address of the image is in the file.
fn offset<P: ProgramHeader<Endian = Endianness>>(segments: &[P], endian: Endianness, addr: u64) -> Option<u64> {
    segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|s| {
        let (start, size): (u64, u64) = (s.p_vaddr(endian).into(), s.p_filesz(endian).into());
        let at = addr.checked_sub(start).filter(|at| *at < size)?;
        Some(s.p_offset(endian).into() + at)
    })
}
