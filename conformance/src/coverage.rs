//! The coverage report: for each group of instructions, how many forms there are, how many are lifted, and in how many
//! random cases each engine agreed with the CPU. What is not complete is listed in `insn/known.txt` with a reason; a line
//! there that is not true any more fails the report, as does a gap without a line.

use crate::apps::Place;
use crate::fuzz::{self, state::Features, table};
use crate::insn;
use anyhow::{Result, ensure};
use evm_lifter::{Mode, Options, lift};
use iced_x86::{Code, Decoder, DecoderOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What `insn/known.txt` can say of a form: `BITS CODE unlifted REASON` or `BITS CODE differs-ENGINE REASON`.
struct Known {
    bits: u32,
    code: &'static str,
    what: &'static str,
    why: &'static str,
}

fn known() -> impl Iterator<Item = Known> {
    include_str!("../insn/known.txt").lines().filter(|l| !l.starts_with('#')).filter_map(|l| {
        let mut words = l.splitn(4, char::is_whitespace);
        Some(Known { bits: words.next()?.parse().ok()?, code: words.next()?, what: words.next()?, why: words.next()? })
    })
}

/// One feature group in one mode.
#[derive(Default)]
struct Row {
    forms: usize,
    lifted: usize,
    run: usize,
    cases: u64,
    equal: Vec<u64>,
}

/// A table of 32-bit instructions on an engine.
struct Table {
    name: &'static str,
    tests: usize,
    /// By engine, instructions that differ.
    wrong: Vec<usize>,
}

/// All that the report shows.
pub struct Report {
    seed: u64,
    cases: u64,
    rows: BTreeMap<(u32, String), Row>,
    tables: Vec<Table>,
    engines: Vec<&'static str>,
    /// Reasons why forms are not run, with their mnemonics.
    not_run: BTreeMap<&'static str, BTreeSet<String>>,
    /// Lines of the list that apply.
    listed: Vec<String>,
    /// Gaps without a line, lines without a gap, differences.
    wrong: Vec<String>,
}

/// An encoding of every form that the decoder knows, found by walking the opcode maps.
fn samples(bits: u32) -> BTreeMap<Code, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut take = |bytes: Vec<u8>| {
        let i = Decoder::with_ip(bits, &bytes, 0x1000, DecoderOptions::NONE).decode();
        if !i.is_invalid() {
            found.entry(i.code()).or_insert_with(|| bytes[..i.len()].to_vec());
        }
    };
    let modrms: Vec<u8> = (0..8).flat_map(|r| [0x04 | r << 3, 0x07 | r << 3]).chain(0xc0..=0xff).collect();
    let tail = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x11];
    for prefix in [&[][..], &[0x66], &[0xf3], &[0xf2], &[0x67], &[0x66, 0x67], &[0x66, 0xf3], &[0x66, 0xf2]] {
        for rex in [&[][..], &[0x48]].iter().take(if bits == 64 { 2 } else { 1 }) {
            for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
                for op in 0..=255u8 {
                    for m in &modrms {
                        take([prefix, rex, map, &[op, *m], &tail].concat());
                    }
                }
            }
        }
    }
    for (map, pp, lw) in (1..=3u8).flat_map(|m| (0..4u8).flat_map(move |p| (0..4u8).map(move |l| (m, p, l)))) {
        for (op, m) in (0..=255u8).flat_map(|op| modrms.iter().map(move |m| (op, *m))) {
            for vvvv in [0xf, 0xd] {
                let second = (lw & 2) << 6 | vvvv << 3 | (lw & 1) << 2 | pp;
                take([&[0xc4, 0xe0 | map, second, op, m], &tail[..]].concat());
            }
        }
    }
    found
}

fn is_lifted(bits: u32, bytes: &[u8]) -> bool {
    let mut fetch = |pc: u64, buf: &mut [u8]| {
        let rest = bytes.get((pc - 0x1000) as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    };
    let options = Options { bits, mode: Mode::Block, ..Options::default() };
    lift(0x1000, &[], &mut fetch, &options).is_ok_and(|l| l.notes.is_empty())
}

/// Make the report: `time` for random cases, with a seed. `program`: an `evm-conformance` to run engines with.
pub fn make(time: Duration, seed: u64, program: &Path) -> Result<Report> {
    ensure!(fuzz::host_has(Features::V3), "the report needs a host with x86-64-v3 and SHA");
    let engines = fuzz::ENGINES.to_vec();
    let out = fuzz::run(
        &fuzz::Options {
            time,
            seed,
            engines: engines.clone(),
            features: Features::V3,
            only: vec![],
            unmask: 0,
            most: 100,
        },
        program,
    )?;
    let mut r = Report {
        seed,
        cases: out.cases,
        rows: BTreeMap::new(),
        tables: vec![],
        engines,
        not_run: BTreeMap::new(),
        listed: vec![],
        wrong: if out.is_clean() { vec![] } else { vec![out.show()] },
    };
    for bits in [64, 32] {
        r.forms(bits, &out);
    }
    r.tables_32()?;
    Ok(r)
}

impl Report {
    fn forms(&mut self, bits: u32, out: &fuzz::Outcome) {
        let samples = samples(bits);
        let mut listed: BTreeSet<(String, String)> =
            known().filter(|k| k.bits == bits).map(|k| (k.code.to_string(), k.what.to_string())).collect();
        let mut gap = |code: Code, what: &str, list: &mut Vec<String>, wrong: &mut Vec<String>| {
            let name = format!("{code:?}");
            let line = known().find(|k| k.bits == bits && k.code == name && k.what == what);
            listed.remove(&(name.clone(), what.to_string()));
            match line {
                Some(k) => list.push(format!("{bits}-bit {name}: {what}: {}", k.why)),
                None => wrong.push(format!("{bits}-bit {name}: {what}, and not in insn/known.txt")),
            }
        };
        for code in Code::values().filter(|c| table::belongs_in(*c, Features::V3, bits)) {
            let row = self.rows.entry((bits, table::group(code))).or_default();
            row.equal.resize(self.engines.len(), 0);
            row.forms += 1;
            match samples.get(&code) {
                Some(bytes) if is_lifted(bits, bytes) => row.lifted += 1,
                _ => gap(code, "unlifted", &mut self.listed, &mut self.wrong),
            }
            if let Some(why) = table::not_run(code) {
                self.not_run.entry(why).or_default().insert(format!("{:?}", code.mnemonic()).to_lowercase());
            }
            if bits == 32 {
                continue;
            }
            if let Some(n) = out.counts.get(&code) {
                row.run += 1;
                row.cases += n.cases;
                for (e, equal) in n.equal.iter().enumerate() {
                    row.equal[e] += equal;
                    if *equal != n.cases {
                        gap(code, &format!("differs-{}", self.engines[e]), &mut self.listed, &mut self.wrong);
                    }
                }
            }
        }
        // Few cases may agree by chance.
        let many = |name: &str| out.counts.iter().any(|(c, n)| format!("{c:?}") == name && n.cases >= 1000);
        for (name, what) in listed {
            if what == "unlifted" || many(&name) {
                self.wrong.push(format!("{bits}-bit {name}: listed in insn/known.txt as {what}, and is not"));
            }
        }
    }

    /// The tables of 32-bit instructions, whose operands are random as well.
    fn tables_32(&mut self) -> Result<()> {
        for g in insn::groups().iter().filter(|g| g.arch == crate::root::Arch::I386) {
            let place = Place::ready_for(g.arch)?;
            let mut t = Table { name: g.name, tests: g.count()?, wrong: vec![] };
            for e in &self.engines {
                let wrong = insn::compare(&place, g, e)?;
                t.wrong.push(wrong.len());
                self.wrong.extend(wrong.into_iter().map(|w| format!("{e} {}: {w}", g.name)));
            }
            self.tables.push(t);
        }
        Ok(())
    }

    /// Whether nothing is wrong that is not listed.
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }

    /// What is wrong, one finding a line or more.
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// The page of the book.
    pub fn markdown(&self) -> String {
        let mut s = format!(
            "# Coverage of the instruction set\n\nWritten by\n\n```sh\ncargo run --release -p evm-conformance -- report --write-book\n```\n\n\
             A form is a `Code` of iced-x86: an instruction with its encoding and operand kinds. Forms counted are those of x86-64-v3\n\
             (and SHA) that the mode has, privileged ones included. *Lifted*: translated; others raise #UD. *Run*: random cases\n\
             were made, alone and in sequences, with edge values as operands, on random states. *Agreed*: the cases in which\n\
             registers, flags, x87 and MXCSR state, memory and faults were those of the CPU. Seed {}, {} cases.\n\n## 64-bit code\n\n",
            self.seed, self.cases
        );
        let head = |s: &mut String, first: &str, engines: &[&str]| {
            let _ = write!(s, "| {first} |");
            for e in engines {
                let _ = write!(s, " {e} |");
            }
            let columns = first.matches('|').count() + 1 + engines.len();
            let _ = writeln!(s, "\n|{}", "---|".repeat(columns));
        };
        let percent = |part: u64, all: u64| match (part, all) {
            (_, 0) => "–".to_string(),
            (p, a) if p == a => "100 %".to_string(),
            (p, a) => format!("{:.3} %", (p as f64 / a as f64 * 100.0).min(99.999)),
        };
        head(&mut s, "group | forms | lifted | run | cases", &self.engines);
        for ((_, name), r) in self.rows.iter().filter(|r| r.0.0 == 64) {
            let _ = write!(s, "| {name} | {} | {} | {} | {} |", r.forms, r.lifted, r.run, r.cases);
            for e in &r.equal {
                let _ = write!(s, " {} |", percent(*e, r.cases));
            }
            s.push('\n');
        }
        s.push_str("\n## 32-bit code\n\n");
        head(&mut s, "group | forms | lifted", &[]);
        for ((_, name), r) in self.rows.iter().filter(|r| r.0.0 == 32) {
            let _ = writeln!(s, "| {name} | {} | {} |", r.forms, r.lifted);
        }
        s.push_str("\nRun with random operands: the tables of `conformance/insn/`, as far as 32-bit code has their instructions.\n\n");
        head(&mut s, "table | instructions", &self.engines);
        for t in &self.tables {
            let _ = write!(s, "| {} | {} |", t.name, t.tests);
            for w in &t.wrong {
                let _ = write!(s, " {} |", percent((t.tests - w.min(&t.tests)) as u64, t.tests as u64));
            }
            s.push('\n');
        }
        s.push_str("\n## Not run\n\n");
        for (why, names) in &self.not_run {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let _ = writeln!(s, "* {}: {why}", names.join(" "));
        }
        if !self.listed.is_empty() {
            s.push_str("\n## Known gaps\n\n");
            for l in &self.listed {
                let _ = writeln!(s, "* {l}");
            }
        }
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form is lifted or listed, and nothing is listed that is lifted.
    #[test]
    fn forms_are_lifted_or_listed() {
        let mut r = Report {
            seed: 0,
            cases: 0,
            rows: BTreeMap::new(),
            tables: vec![],
            engines: fuzz::ENGINES.to_vec(),
            not_run: BTreeMap::new(),
            listed: vec![],
            wrong: vec![],
        };
        for bits in [64, 32] {
            r.forms(bits, &fuzz::Outcome::default());
        }
        assert!(r.is_good(), "{:#?}", r.wrong());
        assert!(r.rows.values().map(|r| r.forms).sum::<usize>() > 3000);
        assert!(r.markdown().contains("| AVX2 |"));
    }
}
