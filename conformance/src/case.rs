//! The table of cases: `apps/*.toml`.
//!
//! A file holds a `group`, perhaps `arch = "i386"` (its cases run in the guest root of 32-bit programs), and any number of
//! `[[case]]`:
//!
//! * `name`; `run` (arguments) or `sh` (a line for /bin/sh) or `bash`;
//! * `make`: input files by generator (`"numbers.txt" = "numbers 1000"`, see [`crate::inputs`]), `text`: by their text;
//!   names of scripts end in `.sh` if they are to be executable;
//! * `stdin`: the input file that is standard input;
//! * `stderr = true`: standard error is compared, too;
//! * `ignore`: files in /work that are not compared (all others are: names, kinds, modes, contents);
//! * `heavy = true`: it takes minutes; `cargo test` leaves it out, `evm-conformance apps` does not;
//! * `cpu`: the CPU model (it is left out on hosts that cannot run it);
//! * `timeout`: seconds under `evm` (default 120); `env`; `options`: further options of `evm run`.
//!
//! Standard output, exit status and all files below /work are compared.

use crate::root::Arch;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One case.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Arguments.
    #[serde(default)]
    pub run: Vec<String>,
    /// A line for /bin/sh.
    #[serde(default)]
    pub sh: Option<String>,
    /// A line for bash.
    #[serde(default)]
    pub bash: Option<String>,
    /// Generated input files.
    #[serde(default)]
    pub make: BTreeMap<String, String>,
    /// Input files.
    #[serde(default)]
    pub text: BTreeMap<String, String>,
    /// Which input is standard input.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Compare standard error.
    #[serde(default)]
    pub stderr: bool,
    /// Files not compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Takes minutes: not part of `cargo test`.
    #[serde(default)]
    pub heavy: bool,
    /// Seconds under `evm`.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// Further variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Further options of `evm run`.
    #[serde(default)]
    pub options: Vec<String>,
    /// The CPU model, if not the default one.
    #[serde(default)]
    pub cpu: Option<String>,
    /// The group of its file.
    #[serde(skip)]
    pub group: String,
    /// The architecture of its file.
    #[serde(skip)]
    pub arch: Arch,
}

fn default_timeout() -> u64 {
    120
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: String,
    #[serde(default)]
    arch: Arch,
    #[serde(rename = "case")]
    cases: Vec<Case>,
}

impl Case {
    /// What is run.
    pub fn arguments(&self) -> Vec<String> {
        match (&self.sh, &self.bash) {
            (Some(s), _) => ["/bin/sh", "-c", s].map(String::from).to_vec(),
            (_, Some(s)) => ["/bin/bash", "-c", s].map(String::from).to_vec(),
            _ => self.run.clone(),
        }
    }
    /// The CPU model.
    pub fn cpu(&self) -> &str {
        self.cpu.as_deref().unwrap_or(crate::exec::DEFAULT_CPU)
    }
    /// Whether this host can run its CPU model.
    pub fn runs_here(&self) -> bool {
        evm_cpu::model::by_name(self.cpu()).is_none_or(evm_cpu::model::runs)
    }
    /// For the table in the book.
    pub fn line(&self) -> String {
        self.sh.clone().or_else(|| self.bash.clone()).unwrap_or_else(|| self.run.join(" "))
    }
}

/// All cases, in the order of files and lines.
pub fn all() -> Result<Vec<Case>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps");
    let mut files: Vec<_> = std::fs::read_dir(&folder)?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    let mut cases = Vec::new();
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let read: File = toml::from_str(&text).with_context(|| file.display().to_string())?;
        for mut c in read.cases {
            c.group.clone_from(&read.group);
            c.arch = read.arch;
            let ways = usize::from(c.sh.is_some()) + usize::from(c.bash.is_some()) + usize::from(!c.run.is_empty());
            ensure!(ways == 1, "{}: case {} needs one of run, sh, bash", file.display(), c.name);
            ensure!(names.insert(c.name.clone()), "{}: case {} is there twice", file.display(), c.name);
            cases.push(c);
        }
    }
    Ok(cases)
}

/// What is known to fail: `case engine reason…` a line; `*` is every engine.
pub fn known_failure(case: &str, engine: &str) -> Option<&'static str> {
    include_str!("../known-failures.txt").lines().find_map(|l| {
        let mut words = l.trim().splitn(3, char::is_whitespace);
        let (name, on, why) = (words.next()?, words.next()?, words.next()?);
        (name == case && (on == "*" || on == engine)).then_some(why)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn tables_read() {
        let cases = super::all().unwrap();
        assert!(cases.len() > 50);
        for c in &cases {
            for (name, line) in &c.make {
                assert!(crate::inputs::generate(line).is_ok(), "{}: {name} = {line}", c.name);
            }
            if let Some(s) = &c.stdin {
                assert!(c.make.contains_key(s) || c.text.contains_key(s), "{}: no input {s}", c.name);
            }
        }
        let names: Vec<_> = cases.iter().map(|c| c.name.as_str()).collect();
        for l in include_str!("../known-failures.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let name = l.split_whitespace().next().unwrap();
            assert!(names.contains(&name), "known-failures.txt names '{name}', which is no case");
        }
    }
}
