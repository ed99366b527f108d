//! One case, natively and under `evm`, and the comparison.

use crate::case::{self, Case};
use crate::exec::{Evm, Native, Outcome, WorkDir};
use crate::inputs;
use crate::root::{Arch, GuestRoot};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// What a run left below /work: names with kind, mode and contents.
type Tree = BTreeMap<String, (String, Vec<u8>)>;

/// How a case ended on an engine.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Its name.
    pub case: String,
    /// Its group.
    pub group: String,
    /// What was run.
    pub line: String,
    /// The engine.
    pub engine: String,
    /// Equal to native.
    pub pass: bool,
    /// Why not.
    pub why: String,
    /// The reason in `known-failures.txt`.
    pub known: Option<String>,
    /// Seconds natively.
    pub native_seconds: f64,
    /// Seconds under `evm`.
    pub seconds: f64,
}

impl Verdict {
    /// Neither a new failure nor an unexpected pass.
    pub fn is_expected(&self) -> bool {
        self.pass == self.known.is_none()
    }
    /// One word.
    pub fn word(&self) -> &'static str {
        match (self.pass, self.known.is_some()) {
            (true, false) => "pass",
            (true, true) => "UNEXPECTED PASS",
            (false, true) => "known failure",
            (false, false) => "FAIL",
        }
    }
}

/// Where and with what cases run.
#[derive(Clone, Debug)]
pub struct Place {
    /// The guest root.
    pub guest: GuestRoot,
    /// The `evm` binary.
    pub evm: PathBuf,
}

impl Place {
    /// Make all that is needed, once in a process.
    pub fn ready() -> Result<Place> {
        Place::ready_for(Arch::Amd64)
    }
    /// The same for an architecture.
    pub fn ready_for(arch: Arch) -> Result<Place> {
        static READY: [OnceLock<Result<Place, String>>; 2] = [const { OnceLock::new() }; 2];
        let make = || Ok(Place { guest: crate::root::setup(arch)?, evm: crate::exec::evm_binary()? });
        READY[arch as usize]
            .get_or_init(|| make().map_err(|e: anyhow::Error| format!("{e:#}")))
            .clone()
            .map_err(anyhow::Error::msg)
    }
}

fn prepare(case: &Case, on: &str) -> Result<WorkDir> {
    let work = WorkDir::new(&format!("{}-{on}", case.name))?;
    let write = |name: &str, bytes: &[u8]| -> Result<()> {
        let file = work.path.join(name);
        fs::create_dir_all(file.parent().context("file name")?)?;
        fs::write(&file, bytes)?;
        let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        Ok(())
    };
    for (name, text) in &case.text {
        write(name, text.as_bytes())?;
    }
    for (name, line) in &case.make {
        write(name, &inputs::generate(line)?)?;
    }
    fs::set_permissions(&work.path, fs::Permissions::from_mode(0o755))?;
    work.give_to_guest()?;
    Ok(work)
}

fn tree(at: &Path, case: &Case) -> Result<Tree> {
    fn walk(at: &Path, name: &str, case: &Case, out: &mut Tree) -> Result<()> {
        for e in fs::read_dir(at)? {
            let e = e?;
            let name = format!("{name}{}", e.file_name().to_string_lossy());
            if case.ignore.iter().any(|i| i.strip_suffix('*').map_or(*i == name, |p| name.starts_with(p))) {
                continue;
            }
            let meta = fs::symlink_metadata(e.path())?;
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_dir() {
                out.insert(name.clone(), (format!("folder {mode:o}"), Vec::new()));
                walk(&e.path(), &(name + "/"), case, out)?;
            } else if meta.is_symlink() {
                let to = fs::read_link(e.path())?;
                out.insert(name, ("link".into(), to.to_string_lossy().into_owned().into_bytes()));
            } else if meta.is_file() {
                out.insert(name, (format!("file {mode:o}"), fs::read(e.path())?));
            } else {
                out.insert(name, (format!("special {mode:o}"), Vec::new()));
            }
        }
        Ok(())
    }
    let mut out = Tree::new();
    walk(at, "", case, &mut out)?;
    Ok(out)
}

/// The native result of a case.
#[derive(Debug)]
pub struct Expected {
    outcome: Outcome,
    tree: Tree,
}

fn env_of(case: &Case) -> Vec<(String, String)> {
    case.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl Expected {
    /// All of it, for a person.
    pub fn show(&self) -> String {
        let o = &self.outcome;
        let files: Vec<&str> = self.tree.keys().map(String::as_str).collect();
        format!(
            "status {}, {:.2} s\n{}\nstderr: {}\nfiles: {}",
            o.status,
            o.wall.as_secs_f64(),
            String::from_utf8_lossy(&o.stdout),
            String::from_utf8_lossy(&o.stderr),
            files.join(" ")
        )
    }
}

/// Run it natively.
pub fn native(place: &Place, case: &Case) -> Result<Expected> {
    native_in(&place.guest, case)
}

/// Run it natively, without an `evm`.
pub fn native_in(guest: &GuestRoot, case: &Case) -> Result<Expected> {
    let work = prepare(case, "native")?;
    let env = env_of(case);
    let outcome = Native { work: Some(&work.path), env: &env, cpu: case.cpu(), ..Native::new(guest) }
        .command(&case.arguments())
        .stdin(case.stdin.as_ref().map(|s| work.path.join(s)))
        .run(Duration::from_secs(case.timeout))?;
    // Nothing would be equal to nothing.
    ensure!(!outcome.stderr.starts_with(b"sh: 1: exec: "), "{}: {}", case.name, outcome.describe());
    Ok(Expected { outcome, tree: tree(&work.path, case)? })
}

/// Run it under `evm` and compare.
pub fn on_engine(place: &Place, case: &Case, engine: &str, want: &Expected) -> Result<Verdict> {
    let work = prepare(case, engine)?;
    let env = env_of(case);
    let mut options = case.options.clone();
    options.extend(case.cpu.iter().flat_map(|c| ["--cpu".to_string(), c.clone()]));
    let got =
        Evm { work: Some(&work.path), env: &env, options: &options, ..Evm::new(&place.evm, &place.guest, engine) }
            .command(&case.arguments())
            .stdin(case.stdin.as_ref().map(|s| work.path.join(s)))
            .run(Duration::from_secs(case.timeout))?;
    let got_tree = tree(&work.path, case)?;
    let why = differences(case, want, &got, &got_tree);
    Ok(Verdict {
        case: case.name.clone(),
        group: case.group.clone(),
        line: case.line(),
        engine: engine.into(),
        pass: why.is_empty(),
        why: why.join("\n"),
        known: case::known_failure(&case.name, engine).map(String::from),
        native_seconds: want.outcome.wall.as_secs_f64(),
        seconds: got.wall.as_secs_f64(),
    })
}

/// One case on one engine.
pub fn check(place: &Place, case: &Case, engine: &str) -> Result<Verdict> {
    on_engine(place, case, engine, &native(place, case)?)
}

fn differences(case: &Case, want: &Expected, got: &Outcome, got_tree: &Tree) -> Vec<String> {
    let mut why = Vec::new();
    if want.outcome.timed_out {
        why.push(format!("natively: {}", want.outcome.describe()));
        return why;
    }
    if got.timed_out {
        why.push(got.describe());
        return why;
    }
    if want.outcome.status != got.status {
        why.push(format!("status {} instead of {}; {}", got.status, want.outcome.status, got.describe()));
    }
    why.extend(differ("stdout", &want.outcome.stdout, &got.stdout));
    if case.stderr {
        why.extend(differ("stderr", &want.outcome.stderr, &got.stderr));
    } else if !why.is_empty() && want.outcome.status == got.status {
        why.push(format!("stderr: {}", String::from_utf8_lossy(&got.stderr)));
    }
    for (name, (kind, bytes)) in &want.tree {
        match got_tree.get(name) {
            None => why.push(format!("{name} is missing")),
            Some((k, _)) if k != kind => why.push(format!("{name}: {k} instead of {kind}")),
            Some((_, b)) => why.extend(differ(name, bytes, b)),
        }
    }
    for name in got_tree.keys().filter(|n| !want.tree.contains_key(*n)) {
        why.push(format!("{name} should not be there"));
    }
    why
}

/// The first difference, for a person.
fn differ(what: &str, want: &[u8], got: &[u8]) -> Option<String> {
    if want == got {
        return None;
    }
    let at = want.iter().zip(got).position(|(a, b)| a != b).unwrap_or(want.len().min(got.len()));
    let line = want[..at].iter().filter(|b| **b == b'\n').count() + 1;
    let show = |b: &[u8]| {
        let start = b[..at].iter().rposition(|c| *c == b'\n').map_or(0, |i| i + 1).max(at.saturating_sub(200));
        let end = b[at..].iter().position(|c| *c == b'\n').map_or(b.len(), |i| at + i).min(at + 200);
        String::from_utf8_lossy(&b[start..end]).into_owned()
    };
    Some(format!(
        "{what} differs at byte {at}, line {line} (lengths {} and {})\n    native: {}\n    evm:    {}",
        want.len(),
        got.len(),
        show(want),
        show(got)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_difference() {
        assert_eq!(differ("x", b"a\nb", b"a\nb"), None);
        let d = differ("x", b"one\ntwo\n", b"one\ntoo\n").unwrap();
        assert!(d.contains("byte 5, line 2") && d.contains("native: two") && d.contains("evm:    too"), "{d}");
        assert!(differ("x", b"abc", b"ab").unwrap().contains("lengths 3 and 2"));
        assert!(differ("x", b"", b"ab").is_some());
    }
}
