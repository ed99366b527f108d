//! `evm run`: options to a job, and the job's end to an exit status.

use crate::args::Run;
use crate::status;
use crate::units::{EnvVar, Limits, Sysroot};
use anyhow::Result;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The search path of the guest's environment.
const GUEST_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why a program did not start.
#[derive(Debug)]
pub enum Failure {
    /// No such program.
    NotFound(PathBuf),
    /// It is there and cannot be run, for this reason.
    NotRunnable(PathBuf, String),
}

impl Failure {
    /// What `evm` exits with.
    pub fn status(&self) -> u8 {
        match self {
            Failure::NotFound(_) => status::NOT_FOUND,
            Failure::NotRunnable(..) => status::NOT_RUNNABLE,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::NotFound(p) => write!(f, "{}: not found", p.display()),
            Failure::NotRunnable(p, why) => write!(f, "{}: cannot be run: {why}", p.display()),
        }
    }
}

impl std::error::Error for Failure {}

/// The file of a program of this machine.
fn find_host_program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let check = |file: &Path| -> Result<(), Failure> {
        let meta = std::fs::metadata(file).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::NotFound(file.into()),
            _ => Failure::NotRunnable(file.into(), e.to_string()),
        })?;
        if meta.is_dir() {
            return Err(Failure::NotRunnable(file.into(), "it is a folder".into()));
        }
        if meta.permissions().mode() & 0o111 == 0 {
            return Err(Failure::NotRunnable(
                file.into(),
                "it is not marked executable (chmod +x)".into(),
            ));
        }
        Ok(())
    };
    if name.as_bytes().contains(&b'/') {
        check(Path::new(name))?;
        return Ok(name.into());
    }
    let mut found = Err(Failure::NotFound(name.into()));
    for dir in path.map(std::env::split_paths).into_iter().flatten() {
        let file = dir.join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(e @ Failure::NotRunnable(..)) if found.is_err() && file.is_file() => found = Err(e),
            Err(_) => {}
        }
    }
    found
}

/// The guest's environment: the defaults, changed by `--env`.
fn environment(changes: &[EnvVar], term: Option<OsString>) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = [
        ("PATH", GUEST_PATH),
        ("HOME", "/home/user"),
        ("USER", "user"),
        ("LOGNAME", "user"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(n, v)| (n.into(), v.into()))
    .to_vec();
    env.extend(term.map(|t| ("TERM".into(), t)));
    for c in changes {
        env.retain(|(n, _)| *n != c.name);
        let value = c.value.clone().or_else(|| std::env::var_os(&c.name));
        env.extend(value.map(|v| (c.name.clone(), v)));
    }
    env
}

/// Run the job and return what `evm` shall exit with.
pub fn run(o: &Run) -> Result<ExitCode> {
    use std::io::IsTerminal;
    let Some(name) = o.command.first() else {
        anyhow::bail!("no program")
    };
    let limits = Limits::from_args(&o.limits);
    let term = if std::io::stdin().is_terminal() || std::io::stdout().is_terminal() {
        std::env::var_os("TERM")
    } else {
        None
    };
    let env = environment(&o.env, term);
    let program = match &o.sysroot {
        Sysroot::Dir(_) => PathBuf::from(name),
        Sysroot::Host | Sysroot::None => {
            find_host_program(name, std::env::var_os("PATH").as_deref())?
        }
    };
    let _ = (limits, env, program);
    anyhow::bail!("this build has no engine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs() {
        let path = Some(OsStr::new("/nonexistent:/bin"));
        assert_eq!(
            find_host_program(OsStr::new("true"), path).unwrap(),
            Path::new("/bin/true")
        );
        for (name, status) in [
            ("no-such", 127),
            ("/no/such", 127),
            ("/etc/passwd", 126),
            ("/etc", 126),
            ("./", 126),
        ] {
            let e = find_host_program(OsStr::new(name), path).unwrap_err();
            assert_eq!(e.status(), status, "{name}: {e}");
        }
    }

    #[test]
    fn clean_environment() {
        let changes = ["LANG=C", "PATH", "NO_SUCH_VARIABLE"]
            .map(|s| crate::units::env_var(OsStr::new(s)).unwrap());
        let env = environment(&changes, Some("vt100".into()));
        let get = |n: &str| {
            env.iter()
                .filter(|(k, _)| k == n)
                .map(|(_, v)| v.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(get("LANG"), ["C"]);
        assert_eq!(get("TERM"), ["vt100"]);
        assert_eq!(get("PATH"), [std::env::var_os("PATH").unwrap()]);
        assert!(get("NO_SUCH_VARIABLE").is_empty());
        assert_eq!(env.len(), 7);
    }
}
