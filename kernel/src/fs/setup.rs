//! The world of a job: which file systems are where.
//!
//! The frame is a file system in memory (over a folder, if the sysroot is one). What comes from the host is mounted into it;
//! what would tell the guest about the host (/etc, /dev, /proc) is made here.

use super::hostfs::{HostFs, HostOptions};
use super::memfs::MemFs;
use super::node::*;
use super::{Namespace, Place, devfs};
use crate::errno::{Errno, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where programs and libraries of the guest's system come from.
#[derive(Clone, Debug, Default)]
pub enum Sysroot {
    /// Libraries and shared data of the host, read-only.
    Host,
    /// This folder is the root, read-only, with changes kept in memory.
    Dir(PathBuf),
    /// The same with a file system that the embedder has.
    Tree(Tree),
    /// Nothing.
    #[default]
    None,
}

/// A file system of the embedder's.
#[derive(Clone)]
pub struct Tree(pub Arc<dyn Node>);
impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tree")
    }
}

/// A host folder given to the guest.
#[derive(Clone, Debug)]
pub struct DirMount {
    /// Host folder (or file).
    pub host: PathBuf,
    /// Absolute guest path; `/` gives the host folder as the guest's root.
    pub guest: Vec<u8>,
    /// Read only.
    pub read_only: bool,
}

/// Configuration of the name space.
#[derive(Clone, Debug)]
pub struct Setup {
    /// System files.
    pub sysroot: Sysroot,
    /// Host folders.
    pub dirs: Vec<DirMount>,
    /// A program: host file and absolute guest path.
    pub program: Option<(PathBuf, Vec<u8>)>,
    /// User of the guest.
    pub uid: u32,
    /// Group of the guest.
    pub gid: u32,
    /// User name.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Key of the hash that hides inode numbers of the host.
    pub inode_key: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            sysroot: Sysroot::None,
            dirs: Vec::new(),
            program: None,
            uid: 1000,
            gid: 1000,
            user: "user".into(),
            hostname: "evm".into(),
            inode_key: 0x6576_6d20_696e_6f64,
        }
    }
}

/// System folders and files of the host that a guest may see.
const SYSTEM: &[&str] = &[
    "/lib",
    "/lib64",
    "/lib32",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib32",
    "/usr/libexec",
    "/usr/share",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl",
    "/etc/terminfo",
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/python3",
    "/etc/perl",
];

/// Ports by name.
const SERVICES: &str = "echo\t7/tcp\necho\t7/udp\ndiscard\t9/tcp\tsink null\ndaytime\t13/tcp\nftp\t21/tcp\nssh\t22/tcp\n\
                        telnet\t23/tcp\nsmtp\t25/tcp\tmail\ntime\t37/tcp\ndomain\t53/tcp\ndomain\t53/udp\ntftp\t69/udp\n\
                        http\t80/tcp\twww\npop3\t110/tcp\nntp\t123/udp\nimap2\t143/tcp\timap\nsnmp\t161/udp\nldap\t389/tcp\n\
                        https\t443/tcp\nhttps\t443/udp\nsyslog\t514/udp\nimaps\t993/tcp\npop3s\t995/tcp\n";

/// As many descriptors for the host process as it may have.
fn more_descriptors() {
    #[cfg(not(target_family = "wasm"))]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        if now.current != now.maximum {
            // No more is not an error: the guest gets EMFILE earlier.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
        }
    }
}

struct Builder {
    ns: Arc<Namespace>,
    world: Arc<dyn World>,
    setup: Setup,
    next_dev: u64,
}

/// The kernel itself.
fn kernel() -> Caller {
    Caller::default()
}

impl Setup {
    /// Build the name space. `synthetic` are the roots of /proc and /sys. The host process gets as many descriptors as it may have, since
    /// each open file of the guest is one or two of its.
    pub fn build(self, world: Arc<dyn World>, synthetic: Option<[Arc<dyn Node>; 2]>) -> Result<Arc<Namespace>> {
        more_descriptors();
        let key = self.inode_key;
        let host = |path: &Path, dev: u64, read_only: bool, owner: (u32, u32)| {
            HostFs::mount(path, HostOptions { dev, key, read_only, public: false, owner }, world.clone())
        };
        let root_dir = self.dirs.iter().find(|d| d.guest == b"/");
        let (root, read_only, fstype): (Arc<dyn Node>, bool, &'static str) = match (root_dir, &self.sysroot) {
            (Some(d), _) => (host(&d.host, 0x20, d.read_only, (self.uid, self.gid))?, d.read_only, "ext4"),
            (None, Sysroot::Tree(Tree(lower))) => {
                (MemFs::with_lower(world.clone(), 0x21, 0o755, (0, 0), Some(lower.clone())), false, "overlay")
            }
            (None, Sysroot::Dir(p)) => {
                let lower = host(p, 0x20, true, (0, 0))?;
                (MemFs::with_lower(world.clone(), 0x21, 0o755, (0, 0), Some(lower)), false, "overlay")
            }
            _ => (MemFs::root(world.clone(), 0x21, 0o755, (0, 0)), false, "tmpfs"),
        };
        let framed = root_dir.is_none();
        let ns = Arc::new(Namespace::new(world.clone(), root, read_only, fstype));
        let mut b = Builder { ns, world, setup: self, next_dev: 0x22 };
        if framed {
            b.frame()?;
        }
        b.memory_mounts(framed)?;
        b.devices()?;
        for (root, name) in synthetic.into_iter().flatten().zip(["proc", "sysfs"]) {
            let path: &[u8] = if name == "proc" { b"/proc" } else { b"/sys" };
            if let Ok(at) = b.dir(path, 0o555) {
                b.ns.mount(&at, root, name != "proc", name);
            }
        }
        if framed && matches!(b.setup.sysroot, Sysroot::Host) {
            b.system()?;
        }
        b.granted()?;
        Ok(b.ns)
    }
}

impl Builder {
    fn dev(&mut self) -> u64 {
        self.next_dev += 1;
        self.next_dev
    }
    fn root(&self) -> Place {
        self.ns.root()
    }
    fn exists(&self, path: &[u8]) -> bool {
        self.ns.resolve(&kernel(), &self.root(), path, false).is_ok()
    }
    /// The directory at a path; what is missing is made.
    fn dir(&self, path: &[u8], mode: u32) -> Result<Place> {
        let mut sofar = Vec::new();
        let mut at = self.root();
        for c in path.split(|c| *c == b'/').filter(|c| !c.is_empty()) {
            sofar.push(b'/');
            sofar.extend_from_slice(c);
            at = match self.ns.child(&kernel(), &at, c) {
                Ok(e) if is_dir(e.stat.mode) => e.place,
                // A link, most likely.
                Ok(_) => self.ns.resolve(&kernel(), &self.root(), &sofar, true)?.place,
                Err(Errno::ENOENT) => {
                    let m = if sofar == path { mode } else { 0o755 };
                    self.ns.make(&kernel(), &at, c, Make::Dir, m)?.place
                }
                Err(e) => return Err(e),
            };
        }
        Ok(at)
    }
    fn parent_of(&self, path: &[u8]) -> Result<()> {
        let n = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
        self.dir(&path[..n], 0o755).map(drop)
    }
    /// A file with this text, unless there is one and `keep`.
    fn file(&self, path: &[u8], text: &[u8], keep: bool) -> Result<()> {
        self.parent_of(path)?;
        if self.exists(path) {
            if keep {
                return Ok(());
            }
            self.ns.remove(&kernel(), &self.root(), path, false)?;
        }
        let e = self.ns.make(&kernel(), &self.root(), path, Make::File, 0o644)?;
        let f = e.place.node.open(&kernel(), libc::O_WRONLY as u32)?;
        f.write(&crate::wait::Nobody::new(), 0, text, true)?;
        Ok(())
    }
    fn link(&self, path: &[u8], to: &[u8]) -> Result<()> {
        self.parent_of(path)?;
        match self.ns.make(&kernel(), &self.root(), path, Make::Symlink(to), 0o777) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e),
        }
    }
    fn chown(&self, p: &Place) -> Result<()> {
        p.node.set(&Change { uid: Some(self.setup.uid), gid: Some(self.setup.gid), ..Change::default() })
    }
    /// Directories that every system has, and the files of /etc that say who and where we are.
    fn frame(&mut self) -> Result<()> {
        for d in [
            "/etc",
            "/usr/bin",
            "/usr/lib",
            "/usr/share",
            "/usr/local/bin",
            "/var/lib",
            "/var/cache",
            "/mnt",
            "/opt",
            "/sys",
            "/root",
        ] {
            self.dir(d.as_bytes(), if d == "/root" { 0o700 } else { 0o755 })?;
        }
        if !matches!(self.setup.sysroot, Sysroot::Dir(_)) {
            self.link(b"/bin", b"usr/bin")?;
            self.link(b"/sbin", b"usr/bin")?;
            self.link(b"/usr/sbin", b"bin")?;
        }
        let s = self.setup.clone();
        let (u, uid, gid, host) = (&s.user, s.uid, s.gid, &s.hostname);
        let user = if uid == 0 { String::new() } else { format!("{u}:x:{uid}:{gid}:{u}:/home/{u}:/bin/sh\n") };
        let group = if gid == 0 { String::new() } else { format!("{u}:x:{gid}:\n") };
        let system = matches!(s.sysroot, Sysroot::Dir(_));
        let identity = [
            (
                "passwd",
                format!("root:x:0:0:root:/root:/bin/sh\n{user}nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
            ),
            ("group", format!("root:x:0:\ntty:x:5:\n{group}nogroup:x:65534:\n")),
            ("hostname", format!("{host}\n")),
            ("hosts", format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{host}\n")),
            ("resolv.conf", String::new()),
            ("machine-id", "00000000000000000000000000000000\n".into()),
        ];
        for (name, text) in identity {
            // A folder's own users are kept: they are data of the guest's system, not of the host's.
            let keep = system && matches!(name, "passwd" | "group");
            self.file(format!("/etc/{name}").as_bytes(), text.as_bytes(), keep)?;
        }
        let defaults = [
            ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n"),
            ("os-release", "NAME=\"EVM\"\nID=evm\nID_LIKE=debian\nPRETTY_NAME=\"EVM virtual Linux\"\n"),
            ("shells", "/bin/sh\n"),
            ("services", SERVICES),
            ("protocols", "ip\t0\tIP\nicmp\t1\tICMP\ntcp\t6\tTCP\nudp\t17\tUDP\n"),
            ("timezone", "Etc/UTC\n"),
        ];
        for (name, text) in defaults {
            self.file(format!("/etc/{name}").as_bytes(), text.as_bytes(), true)?;
        }
        // UTC: version 2, no transitions, one type.
        let header = |counts: [u32; 6]| {
            let mut h = b"TZif2".to_vec();
            h.extend_from_slice(&[0; 15]);
            counts.iter().for_each(|c| h.extend_from_slice(&c.to_be_bytes()));
            h.extend_from_slice(&[0; 6]);
            h.extend_from_slice(b"UTC\0");
            h
        };
        let block = header([0, 0, 0, 0, 1, 4]);
        self.file(b"/etc/localtime", &[&block[..], &block[..], b"\nUTC0\n"].concat(), false)?;
        self.link(b"/etc/mtab", b"/proc/self/mounts")?;
        Ok(())
    }
    /// Places to write to that vanish with the job. Where the root is a folder that was given, that has its own, but for devices.
    fn memory_mounts(&mut self, all: bool) -> Result<()> {
        let home = format!("/home/{}", self.setup.user).into_bytes();
        let owner = (self.setup.uid, self.setup.gid);
        let mounts: [(&[u8], u32, (u32, u32)); 6] = [
            (b"/tmp", 0o1777, (0, 0)),
            (b"/var/tmp", 0o1777, (0, 0)),
            (b"/run", 0o755, owner),
            (b"/dev", 0o755, (0, 0)),
            (&home, 0o755, owner),
            (b"/work", 0o755, owner),
        ];
        for (path, mode, owner) in mounts.into_iter().filter(|m| all || m.0 == b"/dev") {
            // On a host folder as root, what is not there stays away.
            let at = match self.dir(path, 0o755) {
                Ok(p) => p,
                Err(Errno::EROFS | Errno::EACCES | Errno::EPERM) => continue,
                Err(e) => return Err(e),
            };
            let dev = self.dev();
            let kind = if path == b"/dev" { "devtmpfs" } else { "tmpfs" };
            // An embedder's tree is made for the job: what it has there is meant to be seen.
            let below = matches!(self.setup.sysroot, Sysroot::Tree(_)).then(|| at.node.clone());
            self.ns.mount(&at, MemFs::with_lower(self.world.clone(), dev, mode, owner, below), false, kind);
        }
        if !self.exists(b"/var/run") {
            let _ = self.link(b"/var/run", b"/run");
        }
        Ok(())
    }
    fn devices(&mut self) -> Result<()> {
        let Ok(dev) = self.ns.resolve(&kernel(), &self.root(), b"/dev", true) else {
            return Ok(());
        };
        for (name, rdev) in devfs::DEVICES {
            dev.place.node.make(&kernel(), name, Make::Device(*rdev), 0o666)?;
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            dev.place.node.make(&kernel(), name.as_bytes(), Make::Symlink(to.as_bytes()), 0o777)?;
        }
        let shm = self.dir(b"/dev/shm", 0o1777)?;
        let n = self.dev();
        self.ns.mount(&shm, MemFs::root(self.world.clone(), n, 0o1777, (0, 0)), false, "tmpfs");
        self.dir(b"/dev/pts", 0o755)?;
        Ok(())
    }
    /// Mount a host folder or file at a guest path.
    fn host(&mut self, host: &Path, guest: &[u8], read_only: bool, owner: (u32, u32)) -> Result<()> {
        let dev = self.dev();
        let public = owner == (0, 0) && (guest.starts_with(b"/usr/") || guest.starts_with(b"/lib"));
        let opt = HostOptions { dev, key: self.setup.inode_key, read_only, public, owner };
        let root = HostFs::mount(host, opt, self.world.clone())?;
        let at = if is_dir(root.stat()?.mode) {
            self.dir(guest, 0o755)?
        } else {
            self.file(guest, b"", true)?;
            self.ns.resolve(&kernel(), &self.root(), guest, true)?.place
        };
        self.ns.mount(&at, root, read_only, "ext4");
        Ok(())
    }
    /// The host's libraries and shared data. Links among these names stay links.
    fn system(&mut self) -> Result<()> {
        for p in SYSTEM {
            let path = Path::new(p);
            let Ok(meta) = path.symlink_metadata() else {
                continue;
            };
            if meta.is_symlink() {
                let to = std::fs::read_link(path)?;
                self.link(p.as_bytes(), to.as_os_str().as_encoded_bytes())?;
            } else {
                self.host(path, p.as_bytes(), true, (0, 0))?;
            }
        }
        Ok(())
    }
    /// What the user gives.
    fn granted(&mut self) -> Result<()> {
        let s = self.setup.clone();
        for d in s.dirs.iter().filter(|d| d.guest != b"/") {
            self.host(&d.host, &d.guest, d.read_only, (s.uid, s.gid))?;
        }
        if let Some((host, guest)) = &s.program {
            self.host(host, guest, true, (s.uid, s.gid))?;
        }
        let home = format!("/home/{}", s.user);
        if let Ok(e) = self.ns.resolve(&kernel(), &self.root(), home.as_bytes(), true)
            && e.stat.uid != s.uid
        {
            let _ = self.chown(&e.place);
        }
        Ok(())
    }
}
