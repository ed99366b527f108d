//! The guest roots: Debian packages with all they depend on, unpacked to `target/guest-root`, and the test programs of
//! `programs/`, compiled by the guest root's own compilers to `target/guest-programs`. One root is of the architecture
//! amd64, another (`…-i386`) of i386.
//!
//! apt works with its own state below `target/`; nothing on the host is installed, changed or asked for what it has
//! installed. What the packages' scripts would do is done by hand where the cases need it: the usr-merge links,
//! alternatives, users, the loader's cache.

use crate::exec::{self, Native};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The architecture of a guest root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit.
    #[default]
    Amd64,
    /// 32-bit.
    I386,
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::I386 => "i386",
        }
    }
    fn packages(self) -> &'static str {
        match self {
            Arch::Amd64 => include_str!("../packages.txt"),
            Arch::I386 => include_str!("../packages-i386.txt"),
        }
    }
    /// A path below the target folder.
    fn path(self, name: &str) -> PathBuf {
        crate::target().join(match self {
            Arch::Amd64 => name.into(),
            Arch::I386 => format!("{name}-i386"),
        })
    }
    /// Whether a test program is compiled for it.
    fn has_program(self, name: &str) -> bool {
        self == Arch::Amd64 || PROGRAMS_32.contains(&name)
    }
}

/// Test programs that are 32-bit programs as well.
const PROGRAMS_32: &[&str] = &[
    "calls_32.c",
    "numeric.c",
    "sys_files.c",
    "sys_memory.c",
    "sys_pipes.c",
    "sys_process.c",
    "sys_signals.c",
    "sys_threads.c",
    "sys_time.c",
];
/// Test programs that are 32-bit programs only.
const ONLY_32: &[&str] = &["calls_32.c"];

/// To be changed when the steps below change, so that old guest roots are made anew.
const STEPS: &str = "steps 3";

/// What is ready to use.
#[derive(Clone, Debug)]
pub struct GuestRoot {
    /// The root of the unpacked system.
    pub root: PathBuf,
    /// The compiled test programs, in the guest at /programs.
    pub programs: PathBuf,
    /// Its architecture.
    pub arch: Arch,
}

/// Make the guest root of an architecture, or find it made.
pub fn setup(arch: Arch) -> Result<GuestRoot> {
    let target = crate::target();
    fs::create_dir_all(&target)?;
    // Tests run in several processes; one makes, the others wait.
    let lock = fs::File::create(target.join("guest-root.lock"))?;
    lock.lock()?;
    let guest = GuestRoot { root: arch.path("guest-root"), programs: arch.path("guest-programs"), arch };
    let stamp = guest.root.with_extension("stamp");
    let want = format!("{STEPS}\n{}", arch.packages());
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&want) {
        let _ = fs::remove_file(&stamp);
        make_root(&guest, &arch.path("guest-apt"))?;
        fs::write(&stamp, want)?;
    }
    compile_programs(&guest)?;
    Ok(guest)
}

fn packages(arch: Arch) -> impl Iterator<Item = &'static str> {
    arch.packages().lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
}

fn make_root(guest: &GuestRoot, apt: &Path) -> Result<()> {
    let (root, arch) = (guest.root.as_path(), guest.arch);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    ensure!(
        release.lines().any(|l| l.trim_matches('"') == "VERSION_CODENAME=bookworm"),
        "the guest root is unpacked from Debian 12 packages with the host's apt-get, and this is not Debian 12 (bookworm)"
    );
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
    }
    eprintln!("guest root: downloading packages of {}", arch.name());
    let debs = download(apt, arch, &packages(arch).collect::<Vec<_>>())?;
    eprintln!("guest root: unpacking {} packages to {}", debs.len(), root.display());
    for dir in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32"] {
        fs::create_dir_all(root.join(dir))?;
        let name = dir.trim_start_matches("usr/");
        symlink(dir, root.join(name))?;
    }
    for deb in &debs {
        unpack(deb, root)?;
    }
    for dir in ["proc", "dev", "sys", "tmp", "run", "work", "programs", "home/user", "root", "etc/alternatives"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for (name, file) in [
        ("awk", "gawk"),
        ("cc", "gcc"),
        ("c++", "g++"),
        ("luajit", "luajit-2.1.0-beta3"),
        ("lua", "lua5.4"),
        ("pager", "more"),
    ] {
        let link = root.join("etc/alternatives").join(name);
        let _ = fs::remove_file(&link);
        symlink(format!("/usr/bin/{file}"), link)?;
        let link = root.join("usr/bin").join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("/etc/alternatives/{name}"), link)?;
        }
    }
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("hostname", "evm\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("resolv.conf", ""),
    ] {
        fs::write(root.join("etc").join(name), text)?;
    }
    let guest = GuestRoot { programs: root.join("programs"), ..guest.clone() };
    let as_root = |what: &str, args: &[&str]| -> Result<()> {
        let out = Native { writable_root: true, ..Native::new(&guest) }.command(args).run(Duration::from_secs(300))?;
        ensure!(out.status == 0, "{what} in the guest root failed: {}", out.describe());
        Ok(())
    };
    as_root("ldconfig", &["/sbin/ldconfig"])?;
    // Compiled Python modules, as the package's script makes them; without them each start compiles anew.
    as_root(
        "compiling Python modules",
        &["/usr/bin/python3", "-m", "compileall", "-q", "-x", "/(test|tests|lib2to3|idlelib)/", "/usr/lib/python3.11"],
    )?;
    Ok(())
}

/// Fetch the packages and all they depend on, as for a machine that has nothing installed.
fn download(apt: &Path, arch: Arch, names: &[&str]) -> Result<Vec<PathBuf>> {
    for dir in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(dir))?;
    }
    let status = apt.join("status");
    fs::write(&status, "")?;
    let apt_get = |args: &[&str]| -> Result<()> {
        let mut c = Command::new("apt-get");
        for (name, value) in [
            ("Dir::State", apt.join("state").display().to_string()),
            ("Dir::State::status", status.display().to_string()),
            ("Dir::Cache", apt.join("cache").display().to_string()),
            ("Debug::NoLocking", "1".into()),
            ("APT::Sandbox::User", "root".into()),
            ("APT::Architecture", arch.name().into()),
            ("APT::Architectures", arch.name().into()),
            ("Acquire::Retries", "3".into()),
        ] {
            c.arg("-o").arg(format!("{name}={value}"));
        }
        let out = c.args(args).env("LC_ALL", "C").output().context("apt-get (the guest root needs it)")?;
        if !out.status.success() {
            let all = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            let why: Vec<&str> = all
                .lines()
                .filter(|l| ["E:", "Err", "W:"].iter().any(|p| l.starts_with(p)) || l.contains("Depends:"))
                .collect();
            bail!("the guest root's packages cannot be fetched (apt-get {}):\n{}", args[0], why.join("\n"));
        }
        Ok(())
    };
    // One list of several may not be there at the moment: what counts is whether the packages can be fetched.
    if let Err(e) = apt_get(&["update", "-q"]) {
        eprintln!("guest root: {e:#}");
    }
    let mut args = vec!["install", "-q", "-y", "--no-install-recommends", "--download-only"];
    args.extend(names);
    // Old versions of an earlier set-up would be unpacked as well.
    let archives = apt.join("cache/archives");
    for e in fs::read_dir(&archives)? {
        let p = e?.path();
        if p.is_file() {
            fs::remove_file(p)?;
        }
    }
    apt_get(&args)?;
    let mut debs: Vec<PathBuf> = fs::read_dir(&archives)?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "deb"))
        .collect();
    debs.sort();
    ensure!(!debs.is_empty(), "apt-get fetched no packages");
    Ok(debs)
}

/// One package by itself, without what it depends on (a static program).
pub fn fetch_into(name: &str, folder: &Path) -> Result<()> {
    let debs = download(&crate::target().join("guest-apt"), Arch::Amd64, &[name])?;
    let own = debs.iter().find(|d| {
        let file = d.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}_"))
    });
    unpack(own.with_context(|| format!("{name} was not fetched"))?, folder)
}

/// The files of one package. tar keeps the usr-merge links, which dpkg-deb -x would replace.
fn unpack(deb: &Path, root: &Path) -> Result<()> {
    use std::process::Stdio;
    let mut from =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn().context("dpkg-deb")?;
    let pipe = from.stdout.take().context("dpkg-deb's output")?;
    let to = Command::new("tar")
        .args([
            "-x",
            "--keep-directory-symlink",
            "--no-same-owner",
            "--exclude=./usr/share/doc",
            "--exclude=./usr/share/man",
            "--exclude=./usr/share/locale",
            "--exclude=./dev/*",
            "-C",
        ])
        .arg(root)
        .stdin(pipe)
        .status()
        .context("tar")?;
    ensure!(from.wait()?.success() && to.success(), "unpacking {} failed", deb.display());
    Ok(())
}

/// What to make of a program: names and compiler options, by the comment lines it begins with. `// cc: -O2 -pthread` says
/// how it is compiled (else with -O2), `// cc NAME: OPTIONS` gives programs of other names, `// cc32 NAME: OPTIONS` those of
/// the 32-bit root.
fn builds(text: &str, stem: &str, arch: Arch) -> Vec<(String, String)> {
    let word = match arch {
        Arch::Amd64 => "cc",
        Arch::I386 => "cc32",
    };
    let mut all = Vec::new();
    let mut named = false;
    for l in text.lines().map_while(|l| l.strip_prefix("// cc")) {
        let Some((head, options)) = l.split_once(':') else { continue };
        let head = format!("cc{head}");
        match head.split_once(' ') {
            Some((w, name)) => {
                named = true;
                if w == word {
                    all.push((name.to_string(), options.trim().to_string()));
                }
            }
            None => all.push((stem.into(), options.trim().to_string())),
        }
    }
    if all.is_empty() && !named {
        all.push((stem.into(), "-O2".into()));
    }
    all
}

/// Compile each file of `programs/` that is new or changed; see [`builds`].
fn compile_programs(guest: &GuestRoot) -> Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let kept = guest.programs.join("src");
    fs::create_dir_all(&kept)?;
    let mut files: Vec<PathBuf> = fs::read_dir(&sources)?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    let header = fs::read_to_string(sources.join("common.h"))?;
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e != "h")) {
        let shown = file.file_name().unwrap_or_default().to_string_lossy();
        let other = guest.arch == Arch::Amd64 && ONLY_32.contains(&&*shown);
        let text = fs::read_to_string(file)?.replace("#include \"common.h\"\n", &header);
        if other || !guest.arch.has_program(&shown) && !text.contains("\n// cc32 ") {
            continue;
        }
        let name = file.file_name().unwrap_or_default();
        let copy = kept.join(name);
        if fs::read_to_string(&copy).ok().as_deref() == Some(&text) {
            continue;
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (to, options) in builds(&text, &stem, guest.arch) {
            compile(guest, &to, name.to_string_lossy().as_ref(), &options, &text)?;
        }
        fs::write(&copy, &text)?;
    }
    Ok(())
}

/// Compile one program, given as text, to `target/guest-programs/STEM`.
pub fn compile(guest: &GuestRoot, stem: &str, name: &str, options: &str, text: &str) -> Result<()> {
    let work = exec::WorkDir::new(&format!("compile-{stem}"))?;
    fs::write(work.path.join(name), text)?;
    work.give_to_guest()?;
    let compiler = match name.rsplit_once('.').map(|(_, e)| e) {
        Some("c" | "S") => format!("gcc {options} -o out.bin {name} -lm"),
        Some("cpp") => format!("g++ {options} -o out.bin {name}"),
        Some("go") => {
            "CGO_ENABLED=0 GOCACHE=/tmp/go GOPATH=/tmp/gopath GO111MODULE=off go build -o out.bin ".to_string() + name
        }
        _ => bail!("programs/{name}: no compiler for it"),
    };
    let out = Native { work: Some(&work.path), ..Native::new(guest) }
        .command(&["/bin/sh", "-c", &compiler])
        .run(Duration::from_secs(600))?;
    ensure!(out.status == 0, "compiling programs/{name} in the guest root failed: {}", out.describe());
    fs::create_dir_all(&guest.programs)?;
    // By rename, as a running test may still use the old one.
    let new = guest.programs.join(format!(".{stem}.new"));
    fs::copy(work.path.join("out.bin"), &new)?;
    fs::rename(&new, guest.programs.join(stem))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_read() {
        let one = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(builds("int main;\n", "p", Arch::Amd64), [one("p", "-O2")]);
        assert_eq!(builds("// cc: -O1 -lx\n// more: text\n", "p", Arch::I386), [one("p", "-O1 -lx")]);
        let text = "// cc p_a: -O1\n// cc p_b: -O3\n// cc32 p_c: -m\nint x;\n";
        assert_eq!(builds(text, "p", Arch::Amd64), [one("p_a", "-O1"), one("p_b", "-O3")]);
        assert_eq!(builds(text, "p", Arch::I386), [one("p_c", "-m")]);
        assert!(builds("// cc32 p_c: -m\n", "p", Arch::Amd64).is_empty());
    }
}
