//! Values of options: sizes, times, dates, limits, mounts.

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A clap parser of text values.
pub fn str<T: Clone + Send + Sync + 'static>(f: fn(&str) -> Result<T, String>) -> impl TypedValueParser<Value = T> {
    StringValueParser::new().try_map(move |s| f(&s))
}

/// A clap parser of values that need not be UTF-8.
pub fn os<T: Clone + Send + Sync + 'static>(f: fn(&OsStr) -> Result<T, String>) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |s| f(&s))
}

/// A number, perhaps with a fraction, and what follows it.
fn number(s: &str) -> Option<(f64, &str)> {
    let end = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let (digits, unit) = s.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
}

/// `512`, `4k`, `1.5MiB`, `2GiB`, `3GB`: bytes.
pub fn size(s: &str) -> Result<u64, String> {
    let wrong = || format!("'{s}' is no size; write a number and a unit, as in 512MiB or 2GiB");
    let (n, unit) = number(s).ok_or_else(wrong)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    // Beyond 2^62 nothing can be reserved, and below it the product is exact enough.
    let bytes = n * factor as f64;
    if bytes < 4.6e18 { Ok(bytes as u64) } else { Err(format!("'{s}' is too large")) }
}

/// `90`, `90s`, `1.5m`, `250ms`, `2h`, `7d`, `1h30m`: a time.
pub fn duration(s: &str) -> Result<Duration, String> {
    let wrong = || format!("'{s}' is no time; write a number and a unit, as in 90s, 5m or 1h30m");
    let mut rest = s;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let n: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += n * match &rest[..end] {
            "" | "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
    }
    if s.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn count(s: &str) -> Result<u64, String> {
    match s.parse() {
        Ok(0) => Err("at least 1 is needed".into()),
        Ok(n) => Ok(n),
        Err(_) => Err(format!("'{s}' is no number")),
    }
}

/// One `NAME=VALUE` of `--limit`; `None` lifts the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LimitArg {
    /// Bytes of memory.
    Memory(Option<u64>),
    /// CPU time of the job.
    Cpu(Option<Duration>),
    /// Wall time of the job.
    Wall(Option<Duration>),
    /// Processes and threads.
    Procs(Option<u64>),
    /// Open files of a process.
    Files(Option<u64>),
    /// Bytes in written files.
    Disk(Option<u64>),
    /// Bytes of standard output and error.
    Output(Option<u64>),
    /// Work of a WebAssembly module.
    Fuel(Option<u64>),
}

impl LimitArg {
    /// Read one.
    pub fn parse(s: &str) -> Result<LimitArg, String> {
        const NAMES: &str = "memory, cpu, wall, procs, files, disk, output, fuel";
        let (name, value) = s.split_once('=').ok_or_else(|| format!("'{s}' is not NAME=VALUE; names are {NAMES}"))?;
        fn some<T>(value: &str, f: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
            if value == "none" { Ok(None) } else { f(value).map(Some) }
        }
        Ok(match name {
            "memory" => LimitArg::Memory(some(value, size)?),
            "cpu" => LimitArg::Cpu(some(value, duration)?),
            "wall" => LimitArg::Wall(some(value, duration)?),
            "procs" => LimitArg::Procs(some(value, count)?),
            "files" => LimitArg::Files(some(value, count)?),
            "disk" => LimitArg::Disk(some(value, size)?),
            "output" => LimitArg::Output(some(value, size)?),
            "fuel" => LimitArg::Fuel(some(value, count)?),
            _ => return Err(format!("there is no limit '{name}'; names are {NAMES}")),
        })
    }
}

/// All limits of a job; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// CPU time of the job.
    pub cpu: Option<Duration>,
    /// Wall time of the job.
    pub wall: Option<Duration>,
    /// Processes and threads.
    pub procs: Option<u64>,
    /// Open files of a process.
    pub files: Option<u64>,
    /// Bytes in written files.
    pub disk: Option<u64>,
    /// Bytes of standard output and error.
    pub output: Option<u64>,
    /// Work of a WebAssembly module, about one for an operation.
    pub fuel: Option<u64>,
}

impl Default for Limits {
    /// What `--help` says.
    fn default() -> Limits {
        Limits {
            memory: Some(4 << 30),
            cpu: None,
            wall: None,
            procs: Some(256),
            files: Some(1024),
            disk: Some(16 << 30),
            output: Some(1 << 30),
            fuel: None,
        }
    }
}

impl Limits {
    /// The defaults, changed by the arguments in their order.
    pub fn from_args(args: &[LimitArg]) -> Limits {
        let mut l = Limits::default();
        for a in args {
            match *a {
                LimitArg::Memory(v) => l.memory = v,
                LimitArg::Cpu(v) => l.cpu = v,
                LimitArg::Wall(v) => l.wall = v,
                LimitArg::Procs(v) => l.procs = v,
                LimitArg::Files(v) => l.files = v,
                LimitArg::Disk(v) => l.disk = v,
                LimitArg::Output(v) => l.output = v,
                LimitArg::Fuel(v) => l.fuel = v,
            }
        }
        l
    }
}

/// `--clock`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clock {
    /// The host's clocks.
    Host,
    /// A virtual clock that starts at this time since 1970.
    Start(Duration),
}

impl Clock {
    /// Read one.
    pub fn parse(s: &str) -> Result<Clock, String> {
        if s == "host" {
            return Ok(Clock::Host);
        }
        let wrong = || format!("'{s}' is no time; write host, seconds since 1970, or a date as 2024-01-31T12:00:00Z");
        let seconds = s.strip_prefix('@').unwrap_or(s);
        if let Ok(n) = seconds.parse::<f64>() {
            return Duration::try_from_secs_f64(n).map(Clock::Start).map_err(|_| wrong());
        }
        let (date, time) = s.split_once(['T', ' ']).unwrap_or((s, "00:00:00"));
        let fields = |s: &str, by: char| -> Option<[u64; 3]> {
            let v: Vec<u64> = s.split(by).map(str::parse).collect::<Result<_, _>>().ok()?;
            v.try_into().ok()
        };
        let [y, m, d] = fields(date, '-').ok_or_else(wrong)?;
        let [hh, mm, ss] = fields(time.strip_suffix('Z').unwrap_or(time), ':').ok_or_else(wrong)?;
        if !(1970..10000).contains(&y)
            || !(1..=12).contains(&m)
            || d < 1
            || d > month_days(y, m)
            || hh > 23
            || mm > 59
            || ss > 60
        {
            return Err(wrong());
        }
        let days = (1970..y).map(|y| if leap(y) { 366 } else { 365 }).sum::<u64>()
            + (1..m).map(|m| month_days(y, m)).sum::<u64>()
            + (d - 1);
        Ok(Clock::Start(Duration::from_secs(days * 86400 + hh * 3600 + mm * 60 + ss)))
    }
}

fn leap(y: u64) -> bool {
    y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400))
}

fn month_days(y: u64, m: u64) -> u64 {
    match m {
        2 if leap(y) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `--seed`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seed {
    /// From the host's randomness.
    Random,
    /// Fixed.
    Fixed(u64),
}

impl Seed {
    /// Read one.
    pub fn parse(s: &str) -> Result<Seed, String> {
        if s == "random" {
            return Ok(Seed::Random);
        }
        s.parse().map(Seed::Fixed).map_err(|_| format!("'{s}' is neither a number nor 'random'"))
    }
}

/// `--stats`.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub enum Stats {
    /// Lines for people.
    #[value(hide = true)]
    Text,
    /// One JSON object.
    Json,
}

/// `--sysroot`.
#[derive(Clone, Debug, PartialEq)]
pub enum Sysroot {
    /// The host's libraries and their data, read-only.
    Host,
    /// This folder is the guest's root, read-only below a layer in memory.
    Dir(PathBuf),
    /// Nothing.
    None,
}

impl Sysroot {
    /// Read one.
    pub fn parse(s: &OsStr) -> Result<Sysroot, String> {
        match s.as_bytes() {
            b"host" => Ok(Sysroot::Host),
            b"none" => Ok(Sysroot::None),
            b"" => Err("write host, none or a folder".into()),
            _ => Ok(Sysroot::Dir(s.into())),
        }
    }
}

/// A variable for the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvVar {
    /// Its name.
    pub name: OsString,
    /// Its value; the host's if `None`.
    pub value: Option<OsString>,
}

/// `NAME` or `NAME=VALUE`.
pub fn env_var(s: &OsStr) -> Result<EnvVar, String> {
    let b = s.as_bytes();
    let (name, value) = match b.iter().position(|c| *c == b'=') {
        Some(i) => (&b[..i], Some(OsString::from_vec(b[i + 1..].to_vec()))),
        None => (b, None),
    };
    if name.is_empty() {
        return Err(format!("'{}' has no name", s.to_string_lossy()));
    }
    Ok(EnvVar { name: OsString::from_vec(name.to_vec()), value })
}

/// `--dir`: a host folder or file and where the guest sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// On the host.
    pub host: PathBuf,
    /// In the guest, absolute.
    pub guest: PathBuf,
    /// No writing.
    pub read_only: bool,
}

impl Mount {
    /// Read `HOST[::GUEST][:ro]`.
    pub fn parse(s: &OsStr) -> Result<Mount, String> {
        let shown = s.to_string_lossy();
        let (b, read_only) = match s.as_bytes() {
            b if b.ends_with(b":ro") => (&b[..b.len() - 3], true),
            b if b.ends_with(b":rw") => (&b[..b.len() - 3], false),
            b => (b, false),
        };
        let (host, guest) = match b.windows(2).position(|w| w == b"::") {
            Some(i) => (&b[..i], Some(&b[i + 2..])),
            None => (b, None),
        };
        if host.is_empty() {
            return Err(format!("'{shown}' names no folder; write HOST[::GUEST][:ro]"));
        }
        let host = PathBuf::from(OsStr::from_bytes(host));
        let guest = match guest {
            Some(g) if g.starts_with(b"/") => PathBuf::from(OsStr::from_bytes(g)),
            Some(_) => return Err(format!("in '{shown}' the guest's path must be absolute")),
            None => default_guest(&host).ok_or_else(|| {
                format!("'{shown}' leads out of the current folder; say where the guest sees it: {shown}::/GUEST")
            })?,
        };
        Ok(Mount { host, guest, read_only })
    }
}

/// `--bundle`: a host folder or file and where it is in the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// On the host.
    pub host: PathBuf,
    /// In the guest, absolute, if that is said.
    pub guest: Option<PathBuf>,
}

impl Bundle {
    /// Read `HOST[::GUEST]`.
    pub fn parse(s: &OsStr) -> Result<Bundle, String> {
        let b = s.as_bytes();
        let (host, guest) = match b.windows(2).position(|w| w == b"::") {
            Some(i) => (&b[..i], Some(&b[i + 2..])),
            None => (b, None),
        };
        match guest {
            _ if host.is_empty() => Err(format!("'{}' names no file; write HOST[::GUEST]", s.to_string_lossy())),
            Some(g) if !g.starts_with(b"/") => {
                Err(format!("in '{}' the guest's path must be absolute", s.to_string_lossy()))
            }
            _ => Ok(Bundle { host: OsStr::from_bytes(host).into(), guest: guest.map(|g| OsStr::from_bytes(g).into()) }),
        }
    }
}

/// Where `host` is mounted if nothing is said: an absolute path at itself, a relative one below /work.
fn default_guest(host: &Path) -> Option<PathBuf> {
    let mut guest = PathBuf::from("/work");
    for c in host.components() {
        match c {
            Component::RootDir => guest = PathBuf::from("/"),
            Component::Normal(n) => guest.push(n),
            Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (s, n) in [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("1.5KiB", 1536),
            ("64MiB", 64 << 20),
            ("2GiB", 2 << 30),
            ("2g", 2 << 30),
            ("3GB", 3_000_000_000),
            ("1 TiB", 1 << 40),
        ] {
            assert_eq!(size(s), Ok(n), "{s}");
        }
        for s in ["", "GiB", "-1", "1x", "1.2.3", "1e9", "99999999TiB", "2Gi B"] {
            assert!(size(s).is_err(), "{s}");
        }
    }

    #[test]
    fn durations() {
        for (s, ms) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("250ms", 250),
            ("0.5s", 500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(s), Ok(Duration::from_millis(ms)), "{s}");
        }
        for s in ["", "s", "1y", "-1s", "1h-3m", "99999999999999999999999d"] {
            assert!(duration(s).is_err(), "{s}");
        }
    }

    #[test]
    fn clocks() {
        let at = |s| Ok(Clock::Start(Duration::from_secs(s)));
        for (s, want) in [
            ("host", Ok(Clock::Host)),
            ("1700000000", at(1_700_000_000)),
            ("@0", at(0)),
            ("1970-01-02", at(86400)),
            ("2000-02-29", at(951_782_400)),
            ("2024-03-01T12:00:01Z", at(1_709_294_401)),
        ] {
            assert_eq!(Clock::parse(s), want, "{s}");
        }
        for s in ["", "now", "2023-02-29", "2024-13-01", "2024-01-01T25:00:00", "-5", "1969-01-01"] {
            assert!(Clock::parse(s).is_err(), "{s}");
        }
    }

    #[test]
    fn mounts() {
        for (s, host, guest, ro) in [
            (".", ".", "/work", false),
            (".:ro", ".", "/work", true),
            ("data", "data", "/work/data", false),
            ("./a/b:ro", "./a/b", "/work/a/b", true),
            ("/srv/x", "/srv/x", "/srv/x", false),
            ("/::/", "/", "/", false),
            ("/::/host:ro", "/", "/host", true),
            ("../in::/in:rw", "../in", "/in", false),
        ] {
            let want = Mount { host: host.into(), guest: guest.into(), read_only: ro };
            assert_eq!(Mount::parse(OsStr::new(s)), Ok(want), "{s}");
        }
        for s in ["", ":ro", "::/x", "x::", "x::y", "../x"] {
            assert!(Mount::parse(OsStr::new(s)).is_err(), "{s}");
        }
    }

    #[test]
    fn variables() {
        let v = |s: &str| env_var(OsStr::new(s));
        assert_eq!(v("A=b=c"), Ok(EnvVar { name: "A".into(), value: Some("b=c".into()) }));
        assert_eq!(v("A="), Ok(EnvVar { name: "A".into(), value: Some("".into()) }));
        assert_eq!(v("A"), Ok(EnvVar { name: "A".into(), value: None }));
        assert!(v("=x").is_err() && v("").is_err());
    }
}
