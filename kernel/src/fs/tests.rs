//! The same operations on each file system and on the real kernel; and attempts to get out.

use super::hostfs::{HostFs, HostOptions};
use super::memfs::MemFs;
use super::node::*;
use super::*;
use crate::wait::Nobody;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A temporary folder that goes when dropped.
struct Temp(PathBuf);
impl Temp {
    fn new(name: &str) -> Temp {
        let p = std::env::temp_dir().join(format!("evm-fs-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&p);
        std::fs::create_dir_all(&p).unwrap();
        Temp(p)
    }
}
impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Free;
impl World for Free {
    fn charge_disk(&self, _: u64) -> bool {
        true
    }
    fn release_disk(&self, _: u64) {}
    fn disk(&self) -> (u64, u64) {
        (u64::MAX, 0)
    }
    fn charge_tmpfs(&self, _: u64) -> bool {
        true
    }
    fn release_tmpfs(&self, _: u64) {}
    fn tmpfs(&self) -> (u64, u64) {
        (u64::MAX, 0)
    }
    fn now(&self) -> (i64, u32) {
        (1000, 5)
    }
    fn random(&self, buf: &mut [u8]) {
        buf.fill(4);
    }
    fn terminal(&self, _: i32) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}
fn world() -> Arc<dyn World> {
    Arc::new(Free)
}
fn host(p: &Path, read_only: bool) -> Arc<dyn Node> {
    HostFs::mount(p, HostOptions { dev: 9, key: 7, read_only, public: false, owner: (0, 0) }, world()).unwrap()
}
fn space(root: Arc<dyn Node>) -> Arc<Namespace> {
    let ns = Namespace::new(world(), MemFs::root(world(), 1, 0o755, (0, 0)), false, "tmpfs");
    let at = ns.make(&Caller::default(), &ns.root(), b"/t", Make::Dir, 0o755).unwrap().place;
    ns.mount(&at, root, false, "test");
    Arc::new(ns)
}

const CREAT: u32 = (libc::O_CREAT | libc::O_RDWR) as u32;
fn open_flags(s: &str) -> u32 {
    s.chars().fold(0, |f, c| {
        f | match c {
            'r' => libc::O_RDONLY,
            'w' => libc::O_WRONLY,
            '+' => libc::O_RDWR,
            'c' => libc::O_CREAT,
            'x' => libc::O_EXCL,
            't' => libc::O_TRUNC,
            'd' => libc::O_DIRECTORY,
            'n' => libc::O_NOFOLLOW,
            'p' => libc::O_PATH,
            'T' => libc::O_TMPFILE,
            _ => panic!("flag {c}"),
        } as u32
    })
}
fn rename_flags(s: &str) -> u32 {
    match s {
        "x" => libc::RENAME_EXCHANGE,
        "n" => libc::RENAME_NOREPLACE,
        "-" => 0,
        _ => 1 << 7,
    }
}
fn show(mode: u32, nlink: u64, size: i64) -> String {
    // The size of a directory and its link count are the file system's own business.
    if is_dir(mode) { format!("{mode:o} dir") } else { format!("{mode:o} {nlink} {size}") }
}

/// One line of a script: an operation and its arguments.
trait Machine {
    fn run(&self, a: &[&str]) -> std::result::Result<String, i32>;
}

struct Real(OwnedFd);
impl Machine for Real {
    fn run(&self, a: &[&str]) -> std::result::Result<String, i32> {
        let fd = self.0.as_raw_fd();
        let c = |i: usize| CString::new(a[i].replace('~', "")).unwrap();
        let done = |r: i64| {
            if r < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(r) }
        };
        let mode = |i: usize| u32::from_str_radix(a[i], 8).unwrap();
        // SAFETY: plain system calls with valid strings and buffers of the given sizes.
        #[allow(unsafe_code)]
        unsafe {
            let r = match a[0] {
                "mkdir" => libc::mkdirat(fd, c(1).as_ptr(), mode(2)).into(),
                "rmdir" => libc::unlinkat(fd, c(1).as_ptr(), libc::AT_REMOVEDIR).into(),
                "unlink" => libc::unlinkat(fd, c(1).as_ptr(), 0).into(),
                "symlink" => libc::symlinkat(c(1).as_ptr(), fd, c(2).as_ptr()).into(),
                "link" => libc::linkat(fd, c(1).as_ptr(), fd, c(2).as_ptr(), 0).into(),
                "linkf" => libc::linkat(fd, c(1).as_ptr(), fd, c(2).as_ptr(), libc::AT_SYMLINK_FOLLOW).into(),
                "mkfifo" => libc::mknodat(fd, c(1).as_ptr(), libc::S_IFIFO | mode(2), 0).into(),
                "rename" => {
                    libc::syscall(libc::SYS_renameat2, fd, c(1).as_ptr(), fd, c(2).as_ptr(), rename_flags(a[3]))
                }
                "chmod" => libc::fchmodat(fd, c(1).as_ptr(), mode(2), 0).into(),
                "open" => {
                    let n = libc::openat(fd, c(1).as_ptr(), open_flags(a[2]) as i32, mode(3));
                    done(n.into())?;
                    libc::close(n).into()
                }
                "stat" | "lstat" => {
                    let mut s: libc::stat = std::mem::zeroed();
                    let f = if a[0] == "stat" { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                    done(libc::fstatat(fd, c(1).as_ptr(), &mut s, f).into())?;
                    return Ok(show(s.st_mode, s.st_nlink, s.st_size));
                }
                "readlink" => {
                    let mut b = [0u8; 256];
                    let n = done(libc::readlinkat(fd, c(1).as_ptr(), b.as_mut_ptr().cast(), 256) as i64)?;
                    return Ok(String::from_utf8_lossy(&b[..n as usize]).into());
                }
                "put" | "add" => {
                    let f = if a[0] == "put" { libc::O_TRUNC } else { libc::O_APPEND };
                    let n = libc::openat(fd, c(1).as_ptr(), libc::O_CREAT | libc::O_WRONLY | f, 0o644);
                    done(n.into())?;
                    let w = done(libc::write(n, a[2].as_ptr().cast(), a[2].len()) as i64);
                    libc::close(n);
                    return w.map(|n| n.to_string());
                }
                "truncate" => {
                    let n = libc::openat(fd, c(1).as_ptr(), libc::O_WRONLY);
                    done(n.into())?;
                    let w = done(libc::ftruncate(n, a[2].parse().unwrap()).into());
                    libc::close(n);
                    return w.map(|n| n.to_string());
                }
                "get" => {
                    let n = libc::openat(fd, c(1).as_ptr(), libc::O_RDONLY);
                    done(n.into())?;
                    let mut b = [0u8; 256];
                    let w = done(libc::read(n, b.as_mut_ptr().cast(), 256) as i64);
                    libc::close(n);
                    return w.map(|n| format!("{:?}", &b[..n as usize]));
                }
                "ls" => {
                    let n = libc::openat(fd, c(1).as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY);
                    done(n.into())?;
                    let mut v: Vec<String> = std::fs::read_dir(format!("/proc/self/fd/{n}"))
                        .unwrap()
                        .map(|e| String::from_utf8_lossy(e.unwrap().file_name().as_bytes()).into())
                        .collect();
                    libc::close(n);
                    v.sort();
                    return Ok(v.join(" "));
                }
                op => panic!("{op}"),
            };
            done(r).map(|n| n.to_string())
        }
    }
}

struct Ours {
    ns: Arc<Namespace>,
    who: Caller,
    at: Place,
}
impl Ours {
    fn new(root: Arc<dyn Node>, uid: u32) -> Ours {
        let ns = space(root);
        let at = ns.resolve(&Caller::default(), &ns.root(), b"/t", true).unwrap().place;
        Ours { ns, at, who: Caller { uid, gid: uid, ..Caller::default() } }
    }
    fn open(&self, path: &str, flags: u32) -> Result<Arc<Description>> {
        self.ns.open(&self.who, &Nobody::new(), &self.at, path.as_bytes(), flags, 0o644)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let d = self.open(path, 0)?;
        let mut b = vec![0; 4096];
        let n = d.file.read(&Nobody::new(), 0, &mut b, true)?;
        b.truncate(n);
        Ok(b)
    }
    fn entry(&self, path: &str, follow: bool) -> Result<Entry> {
        self.ns.resolve(&self.who, &self.at, path.as_bytes(), follow)
    }
    fn ls(&self, path: &str) -> Result<Vec<Vec<u8>>> {
        let d = self.open(path, libc::O_DIRECTORY as u32)?;
        let (mut v, mut pos) = (Vec::new(), 0);
        loop {
            let batch = d.file.entries(pos)?;
            let Some((_, next)) = batch.last() else { break };
            pos = *next;
            v.extend(batch.into_iter().map(|e| e.0.name).filter(|n| n != b"." && n != b".."));
        }
        v.sort();
        Ok(v)
    }
    fn try_run(&self, a: &[&str]) -> Result<String> {
        let (ns, who, at) = (&self.ns, &self.who, &self.at);
        let p = |i: usize| a[i].replace('~', "").into_bytes();
        let mode = |i: usize| u32::from_str_radix(a[i], 8).unwrap() & !0o22;
        match a[0] {
            "mkdir" => drop(ns.make(who, at, &p(1), Make::Dir, mode(2))?),
            "rmdir" => ns.remove(who, at, &p(1), true)?,
            "unlink" => ns.remove(who, at, &p(1), false)?,
            "symlink" => drop(ns.make(who, at, &p(2), Make::Symlink(&p(1)), 0o777)?),
            "link" | "linkf" => {
                let t = ns.resolve(who, at, &p(1), a[0] == "linkf")?;
                ns.link(who, &t, at, &p(2))?;
            }
            "mkfifo" => drop(ns.make(who, at, &p(1), Make::Fifo, mode(2))?),
            "rename" => ns.rename(who, at, &p(1), at, &p(2), rename_flags(a[3]))?,
            "chmod" => {
                let e = ns.resolve(who, at, &p(1), true)?;
                ns.chmod(who, &e, u32::from_str_radix(a[2], 8).unwrap())?;
            }
            "open" => drop(ns.open(who, &Nobody::new(), at, &p(1), open_flags(a[2]), mode(3))?),
            "stat" | "lstat" => {
                let s = ns.resolve(who, at, &p(1), a[0] == "stat")?.stat;
                return Ok(show(s.mode, s.nlink.into(), s.size as i64));
            }
            "readlink" => {
                let e = ns.resolve(who, at, &p(1), false)?;
                return Ok(String::from_utf8_lossy(&ns.readlink(who, &e)?).into());
            }
            "put" | "add" => {
                let f = libc::O_CREAT | libc::O_WRONLY | if a[0] == "put" { libc::O_TRUNC } else { libc::O_APPEND };
                let d = ns.open(who, &Nobody::new(), at, &p(1), f as u32, 0o644)?;
                let pos = if a[0] == "put" { 0 } else { u64::MAX };
                return Ok(d.file.write(&Nobody::new(), pos, a[2].as_bytes(), true)?.to_string());
            }
            "truncate" => {
                let d = ns.open(who, &Nobody::new(), at, &p(1), libc::O_WRONLY as u32, 0)?;
                d.file.truncate(a[2].parse().unwrap())?;
            }
            "get" => {
                return self.get(&String::from_utf8_lossy(&p(1))).map(|v| format!("{v:?}"));
            }
            "ls" => {
                let v: Vec<String> = self
                    .ls(&String::from_utf8_lossy(&p(1)))?
                    .iter()
                    .map(|n| String::from_utf8_lossy(n).into())
                    .collect();
                return Ok(v.join(" "));
            }
            op => panic!("{op}"),
        }
        Ok("0".into())
    }
}
impl Machine for Ours {
    fn run(&self, a: &[&str]) -> std::result::Result<String, i32> {
        self.try_run(a).map_err(|e| e.0)
    }
}

/// What is there at the start of each.
const BEFORE: &str =
    "mkdir low 755;put low/f lower;put low/g other;mkdir low/d 755;put low/d/x deep;symlink f low/s;put low/rm gone";

const SCRIPT: &str = "
ls .;ls low;get low/f;add low/f +more;get low/f;stat low/f;put low/g new;get low/g;get low/s;truncate low/d/x 2;get low/d/x
unlink low/rm;lstat low/rm;open low/rm r 0;ls low;put low/rm again;get low/rm;ls low;rename low/d low/e -;ls low;ls low/e;get low/e/x
rename low low2 -;ls low2;get low2/f;rename low2 low -;rmdir low;chmod low/g 600;stat low/g;link low/g low/h;stat low/h;unlink low/g;stat low/h
mkdir a 755;mkdir a 755;mkdir a/ 755;mkdir b/ 750;stat b;mkdir x/y 755;mkdir a/. 755;mkdir a/.. 755;mkdir . 755;mkdir ~ 755
put a/f hello;get a/f;put a/f/ x;open a/f/ r 0;get a/f/g;stat a/f/;lstat a/f/;stat a/;stat a/.;stat a/..;stat ./a//f;open a/f d 0;open a w 0;open a + 0;open a rd 0
open a/n c 600;stat a/n;open a/n cx 600;open a/m/ c 644;open nope/m c 644;open a cd 644;open a/q p 0;open a/f pd 0;open a c 644;open a/ c 644;open a/.. c 644;open a/. cx 644
symlink f a/l;lstat a/l;stat a/l;get a/l;readlink a/l;readlink a/f;readlink a;symlink ../a b/up;ls b/up;ls b/up/;lstat b/up/;get b/up/f;get b/up/../a/l;stat b/up/..
symlink loop loop;stat loop;open loop r 0;open loop rn 0;open loop c 644;open loop pn 0;symlink nowhere dang;open dang r 0;open dang c 644;stat nowhere;open dang cx 644;open dang rn 0;open dang cn 644
symlink a/ la;ls la;open la rdn 0;open la/ rdn 0;symlink a/f/ lf;get lf;symlink newdir/ ln;open ln c 644;mkdir ln 755;mkdir ln/ 755;ls newdir;symlink ~ empty;symlink x a/l;symlink x a/new/
link a/f a/hard;stat a/f;link a/f a/f;link a a2;link a/none a3;link a/l a/l2;lstat a/l2;linkf a/l a/l3;lstat a/l3;link a/f a/new/;link a/f/ a/new;add a/hard !;get a/f
unlink a/hard;stat a/f;unlink a;unlink a/;unlink a/f/;unlink a/zz;unlink a/zz/;unlink a/.;unlink a/..;unlink .;unlink ~;unlink la/
rmdir a;rmdir a/f;rmdir a/.;rmdir a/..;rmdir .;rmdir nope;rmdir nope/;rmdir la;rmdir la/;rmdir b/../b;mkdir c 755;rmdir c/;stat c
rename a/f a/ff -;get a/ff;rename a/ff a/ff -;rename a/none a/x -;rename a b -;mkdir e 755;rename a e -;ls e;ls .;rename e a -;rename a a/sub -;rename a/ff a -;rename a a/ff -;rename a/ff b/ff/ -;rename a/ff/ b/ff -
put p 1;put q 22;rename p q n;rename p q x;get p;get q;rename p zz x;rename p zz bad;rename p nope/q -;rename . x -;rename a/. x -;rename a/.. x -;rename x .. -;rename p a/. -;rename p .. n
mkdir t1 755;mkdir t1/in 755;put t1/in/f 7;mkdir t2 755;rename t1 t2 x;ls t1;ls t2;ls t2/in;rename t2 t2/in x;rename t2/in t2 x;rename t2/in t2 -;rename t2 p -;rename p t2 -;rename p t2 x;ls p;get t2;rename p t2 x
link p p2;rename p p2 -;stat p;stat p2;mkfifo fi 644;lstat fi;mkfifo fi 644;mkfifo fi2/ 644;open fi d 0;ls fi;unlink fi
truncate q 10;get q;truncate q 1;get q;truncate a 1;chmod a/ff 7755;stat a/ff;chmod a 1777;stat a;chmod none 1;chmod a 755
open . T 600;open . +T 600;open a/ff +T 600;get a;put a x;ls q;ls nope;ls .;ls a;ls b
";

/// Set-user-id bits do not get to the host.
fn no_set_ids(line: &str, fs: &str) -> bool {
    fs == "host" && (line.starts_with("chmod a/ff 7755") || line == "stat a/ff")
}

#[test]
fn same_as_the_real_kernel() {
    let real = Temp::new("real");
    let lower = Temp::new("lower");
    let own = Temp::new("own");
    let fd = |t: &Temp| Real(OwnedFd::from(std::fs::File::open(&t.0).unwrap()));
    let mem: Arc<dyn Node> = MemFs::root(world(), 3, 0o755, (0, 0));
    let over: Arc<dyn Node> = MemFs::with_lower(world(), 4, 0o755, (0, 0), Some(host(&lower.0, true)));
    let uid = rustix::process::geteuid().as_raw();
    let (mem, over, own_fs) = (Ours::new(mem, 0), Ours::new(over, 0), Ours::new(host(&own.0, false), 0));
    let (real_fd, lower_fd) = (fd(&real), fd(&lower));
    for line in BEFORE.split(';') {
        let a: Vec<&str> = line.split(' ').collect();
        for m in [&real_fd as &dyn Machine, &lower_fd, &mem, &own_fs] {
            m.run(&a).unwrap();
        }
    }
    let mut bad = Vec::new();
    for line in SCRIPT.split([';', '\n']).filter(|l| !l.is_empty()) {
        let a: Vec<&str> = line.split(' ').collect();
        let want = real_fd.run(&a);
        for (name, m) in [("memory", &mem), ("overlay", &over), ("host", &own_fs)] {
            let got = m.run(&a);
            // O_TMPFILE needs a file system that has it.
            let tmpfile = line.contains("+T") && name == "host" && got == Err(libc::EOPNOTSUPP);
            if got != want && !no_set_ids(line, name) && !tmpfile {
                bad.push(format!("{line} on {name}: {got:?}, the kernel: {want:?}"));
            }
        }
    }
    // Only root sees the same as the kernel's root.
    assert!(bad.is_empty() || uid != 0, "{}", bad.join("\n"));
}

#[test]
fn no_way_out() {
    let t = Temp::new("jail");
    let inside = t.0.join("in");
    std::fs::create_dir_all(inside.join("d/e")).unwrap();
    std::fs::write(t.0.join("secret"), "outside").unwrap();
    std::fs::write(inside.join("f"), "inside").unwrap();
    // Links that the host made.
    for (to, at) in
        [("../secret", "rel"), ("/etc/passwd", "abs"), ("..", "up"), ("/proc/self/root", "proc"), ("/", "root")]
    {
        std::os::unix::fs::symlink(to, inside.join(at)).unwrap();
    }
    std::os::unix::fs::symlink(t.0.join("secret"), inside.join("full")).unwrap();
    std::os::unix::fs::symlink("../../../../secret", inside.join("d/e/deep")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, inside.join("fifo"), rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
    let o = Ours::new(host(&inside, false), 0);
    for p in [
        "rel",
        "abs",
        "proc/secret",
        "full",
        "d/e/deep",
        "../secret",
        "d/../../secret",
        "d/e/../../../secret",
        "up/secret",
        "root/etc/passwd",
        "root/proc/self/root/etc/passwd",
        "d/e/../../../../../etc/passwd",
        "/etc/passwd",
        "//etc//passwd",
        "/t/../etc/passwd",
        "proc",
    ] {
        assert_eq!(o.get(p).err().map(|e| e == Errno::ENOENT || e == Errno::EISDIR), Some(true), "{p}");
    }
    // `..` of the mount is the guest's directory above, `/` the guest's root.
    assert_eq!(o.ls("up").unwrap(), [b"t"]);
    assert_eq!(o.ls("root").unwrap(), [b"t"]);
    assert_eq!(o.ls("d/e/../../../..").unwrap(), [b"t"]);
    // What the host's FIFOs, sockets and devices would say is not for the guest.
    assert_eq!(o.open("fifo", 0).err(), Some(Errno::EACCES));
    // Hard links of the guest to what it cannot name.
    for p in ["rel", "full", "abs"] {
        let who = &o.who;
        assert!(o.ns.resolve(who, &o.at, p.as_bytes(), true).is_err());
        let e = o.entry(p, false).unwrap();
        o.ns.link(who, &e, &o.at, format!("hard-{p}").as_bytes()).unwrap();
        assert!(std::fs::symlink_metadata(inside.join(format!("hard-{p}"))).unwrap().is_symlink());
        assert!(o.get(&format!("hard-{p}")).is_err());
        assert_eq!(o.open(p, libc::O_TRUNC as u32 | CREAT | libc::O_NOFOLLOW as u32).err(), Some(Errno::ELOOP));
    }
    assert_eq!(std::fs::read(t.0.join("secret")).unwrap(), b"outside");
    // No set-user-id programs for other users of the host.
    o.open("suid", CREAT).unwrap();
    o.ns.chmod(&o.who, &o.entry("suid", true).unwrap(), 0o6755).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(inside.join("suid")).unwrap().permissions().mode() & 0o7777, 0o755);
    // Numbers of the host's inodes stay there.
    use std::os::unix::fs::MetadataExt;
    let (s, h) = (o.entry("f", true).unwrap().stat, std::fs::metadata(inside.join("f")).unwrap());
    assert!(s.ino != h.ino() && s.dev != h.dev());
    assert_eq!(s.ino, o.entry("d/../f", true).unwrap().stat.ino);
    let d = o.open(".", 0).unwrap();
    assert!(d.file.entries(0).unwrap().iter().any(|(e, _)| e.name == b"f" && e.ino == s.ino));
}

#[test]
fn races_do_not_lead_out() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let t = Temp::new("race");
    let inside = t.0.join("in");
    std::fs::create_dir_all(inside.join("a/b/c")).unwrap();
    std::fs::create_dir_all(t.0.join("out/b/c")).unwrap();
    std::fs::write(inside.join("a/b/c/f"), "inside").unwrap();
    std::fs::write(t.0.join("out/b/c/f"), "outside").unwrap();
    std::fs::create_dir(inside.join("x")).unwrap();
    std::os::unix::fs::symlink("../out", inside.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flip = {
        let (stop, inside) = (stop.clone(), inside.clone());
        std::thread::spawn(move || {
            let dir = std::fs::File::open(&inside).unwrap();
            let swap = |a: &str, b: &str| {
                let _ = rustix::fs::renameat_with(&dir, a, &dir, b, rustix::fs::RenameFlags::EXCHANGE);
            };
            while !stop.load(Ordering::Relaxed) {
                // A directory becomes a link out and back; another moves deeper and back.
                swap("a", "link");
                swap("a", "link");
                let _ = rustix::fs::renameat(&dir, "a/b", &dir, "x/b");
                let _ = rustix::fs::renameat(&dir, "x/b", &dir, "a/b");
            }
        })
    };
    let o = Ours::new(host(&inside, false), 0);
    let (mut hits, end) = (0, std::time::Instant::now() + std::time::Duration::from_millis(300));
    while std::time::Instant::now() < end {
        for p in ["a/b/c/f", "link/b/c/f", "a/b/../b/c/f", "a/b/c/../../b/c/f", "x/b/c/f", "x/b/../../out/b/c/f"] {
            if let Ok(v) = o.get(p) {
                assert_eq!(v, b"inside", "{p}");
                hits += 1;
            }
            let _ = o.open("a/b/new", CREAT);
        }
    }
    stop.store(true, Ordering::Relaxed);
    flip.join().unwrap();
    assert!(hits > 0);
    assert!(!t.0.join("out/b/new").exists());
}

#[test]
fn permissions() {
    let root = MemFs::root(world(), 3, 0o755, (0, 0));
    let super_ = Ours::new(root.clone(), 0);
    let user = Ours {
        who: Caller { uid: 1000, gid: 1000, groups: vec![50], ..Caller::default() },
        ns: super_.ns.clone(),
        at: super_.at.clone(),
    };
    for line in "put f x;chmod f 600;mkdir shut 700;put shut/g 1;mkdir tmp 755;chmod tmp 1777;put tmp/r 1;mkdir ours 755;chmod ours 777;put ours/r 1;put ro 1".split(';') {
        super_.run(&line.split(' ').collect::<Vec<_>>()).unwrap();
    }
    for (line, want) in [
        ("get f", libc::EACCES),
        ("put f 1", libc::EACCES),
        ("put new 1", libc::EACCES),
        ("mkdir new 755", libc::EACCES),
        ("mkdir f 755", libc::EEXIST),
        ("unlink f", libc::EACCES),
        ("rename f g -", libc::EACCES),
        ("get shut/g", libc::EACCES),
        ("ls shut", libc::EACCES),
        ("stat shut/none", libc::EACCES),
        ("chmod f 777", libc::EPERM),
        ("unlink tmp/r", libc::EPERM),
        ("rename tmp/r tmp/q -", libc::EPERM),
        ("link f tmp/l", libc::EPERM),
        ("put tmp/own 1", 0),
        ("unlink tmp/own", 0),
        ("unlink ours/r", 0),
        ("put ro 1", libc::EACCES),
        ("get ro", 0),
        ("open tmp/none c 0", 0),
        ("get tmp/none", libc::EACCES),
        ("chmod tmp/none 644", 0),
        ("get tmp/none", 0),
    ] {
        assert_eq!(user.run(&line.split(' ').collect::<Vec<_>>()).err().unwrap_or(0), want, "{line}");
    }
    let e = user.entry("tmp/none", true).unwrap();
    let chown = |u: u32, g: u32| user.ns.chown(&user.who, &e, u, g);
    assert_eq!(chown(1000, 50), Ok(()));
    assert_eq!(chown(u32::MAX, 7), Err(Errno::EPERM));
    assert_eq!(chown(0, u32::MAX), Err(Errno::EPERM));
    // A read-only mount comes before permissions.
    let t = Temp::new("ro");
    std::fs::write(t.0.join("f"), "1").unwrap();
    let ns = super_.ns.clone();
    let at = ns.make(&super_.who, &ns.root(), b"/ro", Make::Dir, 0o755).unwrap().place;
    let at = ns.mount(&at, host(&t.0, true), true, "ext4");
    let ro = Ours { ns, at, who: Caller::default() };
    for (line, want) in [
        ("put f 1", libc::EROFS),
        ("put g 1", libc::EROFS),
        ("mkdir f 755", libc::EEXIST),
        ("mkdir g 755", libc::EROFS),
        ("unlink f", libc::EROFS),
        ("unlink g", libc::ENOENT),
        ("get f", 0),
        ("rename f g -", libc::EROFS),
        ("chmod f 600", libc::EROFS),
        ("link f g", libc::EROFS),
        ("open f rt 0", libc::EROFS),
    ] {
        assert_eq!(ro.run(&line.split(' ').collect::<Vec<_>>()).err().unwrap_or(0), want, "{line}");
    }
    let busy = Ours { at: ro.ns.root(), ns: ro.ns.clone(), who: Caller::default() };
    for line in ["rmdir ro", "rename ro r -", "rename t ro x"] {
        assert_eq!(busy.run(&line.split(' ').collect::<Vec<_>>()), Err(libc::EBUSY), "{line}");
    }
    assert_eq!(busy.run(&["rename", "ro/f", "x", "-"]), Err(libc::EXDEV));
}

/// Where the host checks no permissions for us (these tests run as root, often), directories that were just looked at are not looked
/// at again: what the guest changes counts at once all the same.
#[test]
fn changes_on_the_way_count_at_once() {
    let t = Temp::new("way");
    let opt = HostOptions { dev: 9, key: 7, read_only: false, public: false, owner: (1000, 1000) };
    let user = Ours::new(HostFs::mount(&t.0, opt, world()).unwrap(), 1000);
    let (one, two, no) = (Ok("[49]"), Ok("[50]"), |e| Err(e));
    for (line, want) in [
        ("mkdir a 755", Ok("0")),
        ("mkdir a/b 755", Ok("0")),
        ("put a/b/f 1", Ok("1")),
        ("get a/b/f", one),
        ("chmod a 600", Ok("0")),
        ("get a/b/f", no(libc::EACCES)),
        ("get a/b/none", no(libc::EACCES)),
        ("chmod a 700", Ok("0")),
        ("get a/b/f", one),
        ("chmod a/b 400", Ok("0")),
        ("get a/b/f", no(libc::EACCES)),
        ("chmod a/b 500", Ok("0")),
        ("get a/b/f", one),
        ("get a/b/f/g", no(libc::ENOTDIR)),
        ("get a/b/none/g", no(libc::ENOENT)),
        ("rename a/b a/c -", Ok("0")),
        ("get a/b/f", no(libc::ENOENT)),
        ("get a/c/f", one),
        // A link where a directory was, a directory where a link was.
        ("rename a real -", Ok("0")),
        ("symlink real a", Ok("0")),
        ("get a/c/f", one),
        ("get a/c/f", one),
        ("mkdir other 755", Ok("0")),
        ("mkdir other/c 755", Ok("0")),
        ("put other/c/f 2", Ok("1")),
        ("unlink a", Ok("0")),
        ("rename other a -", Ok("0")),
        ("get a/c/f", two),
        ("unlink a/c/f", Ok("0")),
        ("rmdir a/c", Ok("0")),
        ("rmdir a", Ok("0")),
        ("get a/c/f", no(libc::ENOENT)),
        ("symlink / a", Ok("0")),
        ("get a/t/real/c/f", one),
        ("get a/c/f", no(libc::ENOENT)),
    ] {
        let got = user.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(got.as_deref().map_err(|e| *e), want, "{line}");
    }
}

#[test]
fn working_directories_follow_renames() {
    for root in [MemFs::root(world(), 3, 0o755, (0, 0)) as Arc<dyn Node>, host(&Temp::new("cwd").0, false)] {
        let o = Ours::new(root, 0);
        let made = o.run(&["mkdir", "a", "755"]);
        if made.is_err() {
            continue; // the folder is gone already
        }
        o.run(&["mkdir", "a/b", "755"]).unwrap();
        o.run(&["mkdir", "z", "755"]).unwrap();
        let cwd = o.entry("a/b", true).unwrap().place.hold();
        o.run(&["rename", "a", "z/c", "-"]).unwrap();
        assert_eq!(cwd.absolute(), b"/t/z/c/b");
        let up = o.ns.resolve(&o.who, &cwd, b"../..", true).unwrap().place;
        assert_eq!(up.absolute(), b"/t/z");
    }
}

#[test]
fn files_in_memory() {
    let o = Ours::new(MemFs::root(world(), 3, 0o755, (0, 0)), 0);
    let d = o.open("f", CREAT).unwrap();
    let me = Nobody::new();
    assert_eq!(d.file.write(&me, 0, b"abc", true), Ok(3));
    assert!(d.file.direct_fd().is_none());
    let fd = d.file.host_fd().unwrap();
    let mut b = [0u8; 8];
    assert_eq!(rustix::io::pread(fd, &mut b, 0), Ok(3));
    // Large, sparse, appended to, cut.
    assert_eq!(d.file.write(&me, 1 << 20, b"end", true), Ok(3));
    assert_eq!(d.file.write(&me, u64::MAX, b"!", true), Ok(1));
    assert_eq!(d.file.stat().unwrap().size, (1 << 20) + 4);
    assert_eq!(d.file.read(&me, (1 << 20) - 1, &mut b, true), Ok(5));
    assert_eq!(&b[..5], b"\0end!");
    assert_eq!(d.file.truncate(2), Ok(()));
    assert_eq!(d.file.truncate(4), Ok(()));
    assert_eq!(o.get("f").unwrap(), b"ab\0\0");
    assert_eq!(d.file.truncate(1 << 63), Err(Errno::EFBIG));
    assert_eq!(d.file.write(&me, i64::MAX as u64, b"12", true), Err(Errno::EFBIG));
    // Entries keep their positions when others go.
    for i in 0..50 {
        o.open(&format!("n{i}"), CREAT).unwrap();
    }
    let dir = o.open(".", 0).unwrap();
    let all = dir.file.entries(0).unwrap();
    let at = all[20].1;
    for (e, _) in &all[3..15] {
        o.ns.remove(&o.who, &o.at, &e.name, false).unwrap();
    }
    assert_eq!(dir.file.entries(at).unwrap()[0].0.name, all[21].0.name);
    // Gone but open.
    o.run(&["unlink", "f"]).unwrap();
    assert_eq!(d.file.read(&me, 0, &mut b, true), Ok(4));
    assert_eq!(d.file.stat().unwrap().nlink, 0);
}

#[test]
fn the_world_of_a_job() {
    let give = Temp::new("give");
    std::fs::write(give.0.join("data"), "1").unwrap();
    let setup = Setup {
        sysroot: Sysroot::Host,
        dirs: vec![DirMount { host: give.0.clone(), guest: b"/work".to_vec(), read_only: false }],
        ..Setup::default()
    };
    let ns = setup.build(world(), None).unwrap();
    let who = Caller { uid: 1000, gid: 1000, ..Caller::default() };
    let o = Ours { at: ns.root(), ns, who };
    for p in [
        "/root/.bashrc",
        "/home/somebody",
        "/etc/shadow",
        "/proc/1",
        "/usr/bin/env",
        "/bin/sh",
        "/work/../root/x",
        "/sys/kernel",
    ] {
        assert!(o.entry(p, true).is_err(), "{p}");
    }
    for p in [
        "/etc/passwd",
        "/dev/null",
        "/tmp",
        "/usr/lib",
        "/work/data",
        "/home/user",
        "/etc/localtime",
        "/dev/shm",
        "/lib64",
    ] {
        o.entry(p, true).unwrap_or_else(|e| panic!("{p}: {e}"));
    }
    assert_eq!(o.get("/dev/null").unwrap(), b"");
    assert_eq!(o.get("/dev/zero").unwrap(), [0; 4096]);
    assert!(String::from_utf8(o.get("/etc/passwd").unwrap()).unwrap().contains("user:x:1000:1000"));
    for p in ["/tmp/f", "/work/f", "/home/user/f", "/dev/shm/f"] {
        o.open(p, CREAT).unwrap_or_else(|e| panic!("{p}: {e}"));
    }
    assert_eq!(o.entry("/work/f", true).unwrap().stat.uid, 1000);
    for p in ["/f", "/etc/f", "/usr/lib/f", "/dev/f"] {
        assert!(matches!(o.open(p, CREAT).err(), Some(Errno::EACCES | Errno::EROFS)), "{p}");
    }
    // A folder as root, changes in memory.
    let sys = Temp::new("sys");
    std::fs::create_dir_all(sys.0.join("usr/bin")).unwrap();
    std::fs::create_dir_all(sys.0.join("etc")).unwrap();
    std::fs::write(sys.0.join("usr/bin/prog"), "#!").unwrap();
    std::fs::write(sys.0.join("etc/passwd"), "root:x:0:0::/:\n").unwrap();
    std::os::unix::fs::symlink("usr/bin", sys.0.join("bin")).unwrap();
    let setup = Setup { sysroot: Sysroot::Dir(sys.0.clone()), ..Setup::default() };
    let ns = setup.build(world(), None).unwrap();
    let o = Ours { at: ns.root(), ns, who: Caller::default() };
    assert_eq!(o.get("/bin/prog").unwrap(), b"#!");
    assert_eq!(o.get("/etc/passwd").unwrap(), b"root:x:0:0::/:\n");
    o.run(&["put", "/usr/bin/prog", "new"]).unwrap();
    o.run(&["put", "/tmp/x", "new"]).unwrap();
    assert_eq!(o.get("/bin/prog").unwrap(), b"new");
    assert_eq!(std::fs::read(sys.0.join("usr/bin/prog")).unwrap(), b"#!");
    assert!(!sys.0.join("tmp").exists());
    // The same with a tree of the embedder's: what it has at places to write to is seen, and can be changed.
    std::fs::create_dir_all(sys.0.join("tmp/b")).unwrap();
    std::fs::write(sys.0.join("tmp/b/prog"), "#!").unwrap();
    let setup = Setup { sysroot: Sysroot::Tree(Tree(host(&sys.0, true))), ..Setup::default() };
    let ns = setup.build(world(), None).unwrap();
    let o = Ours { at: ns.root(), ns, who: Caller::default() };
    assert_eq!(o.get("/tmp/b/prog").unwrap(), b"#!");
    o.run(&["put", "/tmp/b/prog", "new"]).unwrap();
    o.run(&["put", "/tmp/x", "new"]).unwrap();
    assert_eq!(o.get("/tmp/b/prog").unwrap(), b"new");
    assert_eq!(std::fs::read(sys.0.join("tmp/b/prog")).unwrap(), b"#!");
}
