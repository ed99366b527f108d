//! The instruction oracle: programs that execute each instruction with random operands and print a checksum of all that
//! it changed. The same binary runs on the CPU and under `evm`; a difference names the instruction, the operands and the
//! results.
//!
//! Left out is what the architecture leaves undefined (flags, per line of the tables) and what differs between CPU
//! vendors: rcpps, rsqrtps and the x87 functions beyond sqrt and rem.

mod program;
mod table;

use crate::apps::Place;
use crate::exec::{Evm, Native};
use crate::root::{self, Arch};
use anyhow::{Result, ensure};
use std::fs;
use std::time::Duration;

pub use table::{Kind, Test};

/// Instructions of one table.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its name: that of the file.
    pub name: &'static str,
    text: &'static str,
    /// 32-bit groups are those instructions of a table that 32-bit code has.
    pub arch: Arch,
}

impl Group {
    /// Number of its instructions.
    pub fn count(&self) -> Result<usize> {
        Ok(self.tests()?.len())
    }
    /// Its instructions.
    fn tests(&self) -> Result<Vec<Test>> {
        let mut tests = table::read(self.name.trim_end_matches("-32"), self.text)?;
        if self.arch == Arch::I386 {
            tests = tests.into_iter().filter_map(Test::narrow).collect();
        }
        Ok(tests)
    }
}

/// All tables.
pub fn groups() -> &'static [Group] {
    &[
        Group { name: "int", text: include_str!("../../insn/int.txt"), arch: Arch::Amd64 },
        Group { name: "string", text: include_str!("../../insn/string.txt"), arch: Arch::Amd64 },
        Group { name: "sseint", text: include_str!("../../insn/sseint.txt"), arch: Arch::Amd64 },
        Group { name: "ssefp", text: include_str!("../../insn/ssefp.txt"), arch: Arch::Amd64 },
        Group { name: "mmx", text: include_str!("../../insn/mmx.txt"), arch: Arch::Amd64 },
        Group { name: "x87", text: include_str!("../../insn/x87.txt"), arch: Arch::Amd64 },
        Group { name: "int-32", text: include_str!("../../insn/int.txt"), arch: Arch::I386 },
        Group { name: "string-32", text: include_str!("../../insn/string.txt"), arch: Arch::I386 },
        Group { name: "sseint-32", text: include_str!("../../insn/sseint.txt"), arch: Arch::I386 },
        Group { name: "ssefp-32", text: include_str!("../../insn/ssefp.txt"), arch: Arch::I386 },
        Group { name: "mmx-32", text: include_str!("../../insn/mmx.txt"), arch: Arch::I386 },
        Group { name: "x87-32", text: include_str!("../../insn/x87.txt"), arch: Arch::I386 },
        Group { name: "legacy-32", text: include_str!("../../insn/legacy.txt"), arch: Arch::I386 },
    ]
}

/// Rounds with random operands for each instruction.
const ROUNDS: &str = "150";

/// Compile the group's program if it is new or changed.
fn ready(place: &Place, group: &Group, tests: &[Test]) -> Result<String> {
    let stem = format!("insn-{}", group.name);
    let text = program::source(tests, group.arch);
    let target = crate::target();
    let lock = fs::File::create(target.join("guest-programs.lock"))?;
    lock.lock()?;
    let kept = place.guest.programs.join("src").join(format!("{stem}.c"));
    if fs::read_to_string(&kept).ok().as_deref() != Some(&text) {
        let first = text.lines().next().unwrap_or_default();
        let options = first.split_once("cc:").map_or("-O2", |(_, o)| o).trim_end_matches("*/").trim();
        root::compile(&place.guest, &stem, &format!("{stem}.c"), options, &text)?;
        fs::write(kept, &text)?;
    }
    Ok(format!("/programs/{stem}"))
}

/// What differs, a few lines for each instruction.
pub fn compare(place: &Place, group: &Group, engine: &str) -> Result<Vec<String>> {
    let tests = group.tests()?;
    let program = ready(place, group, &tests)?;
    // For hangs alone: on a busy machine the interpreter takes minutes.
    let limit = Duration::from_secs(1800);
    let native = |args: &[&str]| Native::new(&place.guest).command(args).run(limit);
    let evm = |args: &[&str]| Evm::new(&place.evm, &place.guest, engine).command(args).run(limit);
    let all = [program.as_str(), "all", ROUNDS];
    let (want, got) = (native(&all)?, evm(&all)?);
    ensure!(want.status == 0, "{program} natively: {}", want.describe());
    let mut wrong = Vec::new();
    let (w, g) = (String::from_utf8_lossy(&want.stdout), String::from_utf8_lossy(&got.stdout));
    let mut lines = g.lines();
    for (i, (line, test)) in w.lines().zip(&tests).enumerate() {
        match lines.next() {
            Some(l) if l == line => {}
            Some(_) => {
                let index = i.to_string();
                let one = [program.as_str(), index.as_str(), ROUNDS];
                let (want, got) = (native(&one)?, evm(&one)?);
                wrong.push(format!("{}: {}", test.name, first_round(&want.stdout, &got.stdout)));
            }
            None => {
                wrong.push(format!("{}: the run ended here: {}", test.name, got.describe()));
                // Each of the others by itself, to say all that is wrong.
                let mut failed = 0;
                for (i, test) in tests.iter().enumerate().skip(i + 1) {
                    if failed > 8 {
                        wrong.push(format!("… and {} more were not tried", tests.len() - i));
                        break;
                    }
                    let index = i.to_string();
                    let one = [program.as_str(), index.as_str(), ROUNDS];
                    let (want, got) = (native(&one)?, evm(&one)?);
                    if got.status != 0 {
                        wrong.push(format!("{}: {}", test.name, got.describe()));
                        failed += 1;
                    } else if want.stdout != got.stdout {
                        wrong.push(format!("{}: {}", test.name, first_round(&want.stdout, &got.stdout)));
                    }
                }
                return Ok(wrong);
            }
        }
    }
    Ok(wrong)
}

/// The first round that differs: its operands, and the results that are not equal.
fn first_round(want: &[u8], got: &[u8]) -> String {
    let (w, g) = (String::from_utf8_lossy(want), String::from_utf8_lossy(got));
    let mut operands = "";
    for (a, b) in w.lines().zip(g.lines()) {
        if a == b {
            operands = a;
            continue;
        }
        let parts: Vec<String> = a
            .split_whitespace()
            .zip(b.split_whitespace())
            .filter(|(x, y)| x != y)
            .map(|(x, y)| {
                let value = y.split_once('=').map_or(y, |(_, v)| v);
                format!("{x} natively, {value} under evm")
            })
            .collect();
        return format!("{}\n      with {operands}", parts.join("; "));
    }
    "differs only sometimes".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_read() {
        for g in groups() {
            let tests = g.tests().unwrap();
            assert!(tests.len() > 30, "{}: {}", g.name, tests.len());
        }
    }

    #[test]
    fn difference_is_shown() {
        let s = first_round(b"in rax=1 rbx=2\nout rax=3 fl=4\n", b"in rax=1 rbx=2\nout rax=5 fl=4\n");
        assert!(s.starts_with("rax=3 natively, 5 under evm") && s.ends_with("in rax=1 rbx=2"), "{s}");
    }
}
