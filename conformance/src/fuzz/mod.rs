//! The instruction fuzzer: random instructions on random states, on the CPU and on the engines.
//!
//! * [`table`] says which instructions belong to a CPU model, and what is not compared, with reasons;
//! * [`generate`] makes cases from iced-x86's tables: all forms, operands, prefixes; memory operands at and across
//!   the ends of pages; sequences in which nothing undefined is read;
//! * [`state`] has states: edge values of integers, floats of all classes, rounding modes, x87 stacks;
//! * [`image`] makes the program of a batch, [`mod@run`] runs it natively and in an engine;
//! * [`text`] writes and reads cases as lines, [`files`] runs files of them;
//! * here cases are compared, and those that differ are made small.

pub mod files;
pub mod generate;
pub mod image;
pub mod run;
pub mod state;
pub mod table;
pub mod text;

use anyhow::{Result, ensure};
use generate::{Case, Generator};
use iced_x86::Code;
use run::{Batch, On, Outputs, Runner};
use state::{Difference, Features, Input};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use text::Line;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long; at least one batch is run.
    pub time: Duration,
    /// Seed.
    pub seed: u64,
    /// Engines.
    pub engines: Vec<&'static str>,
    /// CPU model.
    pub features: Features,
    /// Only instructions whose mnemonic or code has one of these in its name.
    pub only: Vec<String>,
    /// Cases with unmasked floating exceptions, of a hundred, in the mean of all programs; a quarter of the programs has them.
    pub unmask: u64,
    /// Report no more than this many kinds of differences.
    pub most: usize,
}

/// Counts of a form.
#[derive(Clone, Default, Debug)]
pub struct Count {
    /// Cases with this form in them.
    pub cases: u64,
    /// Of these, equal to native, by engine.
    pub equal: Vec<u64>,
}

/// A difference that stays.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The engine.
    pub engine: &'static str,
    /// The smallest case, and what it is natively.
    pub line: Line,
    /// What differs.
    pub differences: Vec<Difference>,
    /// How many cases differed in the same way before they were made small.
    pub times: u64,
}

/// What came out.
#[derive(Default)]
pub struct Outcome {
    /// Cases run.
    pub cases: u64,
    /// Differences.
    pub findings: Vec<Finding>,
    /// Counts by form.
    pub counts: BTreeMap<Code, Count>,
    /// Forms for which no case could be made.
    pub not_made: Vec<Code>,
    /// Cases that say nothing: natively they destroyed the frame or did not end.
    pub left_out: u64,
    /// Batches that an engine did not come to the end of, although it did with each of their cases: what it said, and the
    /// program, which is kept.
    pub unexplained: Vec<(&'static str, String, PathBuf)>,
    /// Seconds spent natively, and by engine.
    pub seconds: Vec<f64>,
}

/// Whether the host has what a model shows.
pub fn host_has(f: Features) -> bool {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse4.2") && has!("popcnt") && has!("aes") && has!("pclmulqdq") && has!("sha");
    let v3 = has!("avx2")
        && has!("fma")
        && has!("f16c")
        && has!("bmi1")
        && has!("bmi2")
        && has!("lzcnt")
        && has!("movbe")
        && has!("adx")
        && has!("xsave");
    v2 && (f == Features::V2 || v3)
}

/// Forms that belong to a model: those that are run.
pub fn forms(f: Features) -> Vec<Code> {
    Code::values().filter(|c| table::belongs(*c, f) && table::not_run(*c).is_none()).collect()
}

/// Engines by name.
pub const ENGINES: &[&str] =
    if cfg!(feature = "wasm") { &["interp", "quick", "cranelift", "wasm"] } else { &["interp", "quick", "cranelift"] };

/// Those, and the one that copies code, if this host is one for it.
pub fn engines() -> Vec<&'static str> {
    crate::exec::with_direct(ENGINES)
}

const BATCH: usize = 1500;

struct Fuzz<'a> {
    options: &'a Options,
    runner: Runner,
    out: Outcome,
    /// Cases of a kind already made small.
    seen: BTreeMap<(&'static str, Vec<Code>), usize>,
}

/// Run.
pub fn run(options: &Options, program: &Path) -> Result<Outcome> {
    ensure!(host_has(options.features), "this host lacks instructions of {}", options.features.model());
    let mut forms = forms(options.features);
    forms.retain(|c| {
        let name = format!("{c:?}").to_lowercase();
        options.only.is_empty() || options.only.iter().any(|o| name.contains(&o.to_lowercase()))
    });
    ensure!(!forms.is_empty(), "no instruction of that name");
    let mut f = Fuzz {
        options,
        runner: Runner::new(program, options.features)?,
        out: Outcome { seconds: vec![0.0; 1 + options.engines.len()], ..Outcome::default() },
        seen: BTreeMap::new(),
    };
    let mut rng = state::Rng(options.seed);
    let mut generator = Generator::new(rng.next(), options.unmask);
    let end = Instant::now() + options.time;
    let mut minute = Instant::now() + Duration::from_secs(60);
    let mut order: Vec<Code> = vec![];
    loop {
        // A program that unmasks exceptions is run in another way from then on: not all of them do.
        generator.unmask = if rng.chance(25) { (4 * options.unmask).min(100) } else { 0 };
        let mut cases = vec![];
        while cases.len() < BATCH {
            if order.is_empty() {
                order.clone_from(&forms);
                for k in (1..order.len()).rev() {
                    order.swap(k, rng.below(k as u64 + 1) as usize);
                }
            }
            let Some(first) = order.pop() else {
                continue;
            };
            // Every form by itself, and at the end of a sequence.
            let long = if rng.chance(30) { 11 } else { 3 };
            let n = if rng.chance(60) { 0 } else { 1 + rng.below(long) };
            let mut codes: Vec<Code> = (0..n).map(|_| forms[rng.below(forms.len() as u64) as usize]).collect();
            codes.push(first);
            let made = generator.case(&codes).or_else(|| (0..20).find_map(|_| generator.case(&[first])));
            match made {
                Some(c) => cases.push(c),
                None => {
                    if !f.out.not_made.contains(&first) {
                        f.out.not_made.push(first);
                    }
                    if f.out.not_made.len() == forms.len() {
                        break;
                    }
                }
            }
        }
        ensure!(!cases.is_empty(), "no case could be made");
        f.batch(&cases)?;
        if Instant::now() > minute {
            minute += Duration::from_secs(60);
            eprintln!("{} cases, {} differences, {} left out", f.out.cases, f.out.findings.len(), f.out.left_out);
        }
        if Instant::now() > end || f.out.findings.len() >= options.most {
            break;
        }
    }
    let counts = &f.out.counts;
    f.out.not_made.retain(|c| !counts.contains_key(c));
    Ok(f.out)
}

impl Fuzz<'_> {
    fn batch(&mut self, cases: &[Case]) -> Result<()> {
        let batch = self.runner.batch(cases)?;
        let start = Instant::now();
        let Ok(native) = self.runner.run(&batch, On::Native)? else {
            // A case destroyed the frame, or does not end: run the halves.
            if cases.len() > 1 {
                let (a, b) = cases.split_at(cases.len() / 2);
                self.batch(a)?;
                return self.batch(b);
            }
            self.out.left_out += 1;
            return Ok(());
        };
        self.out.seconds[0] += start.elapsed().as_secs_f64();
        self.out.cases += cases.len() as u64;
        let engines = self.options.engines.clone();
        for c in cases {
            for i in &c.insns {
                let n = self.out.counts.entry(i.code()).or_default();
                n.cases += 1;
                n.equal.resize(engines.len(), 0);
            }
        }
        for (e, engine) in engines.iter().enumerate() {
            let start = Instant::now();
            let got = self.runner.run(&batch, On::named(Some(engine)))?;
            self.out.seconds[1 + e] += start.elapsed().as_secs_f64();
            match got {
                Ok(got) => self.check(cases, &batch, e, &native, &got)?,
                Err(how) => {
                    if !self.halves(cases, e)? {
                        let file = self.runner.keep(&batch)?;
                        self.out.unexplained.push((engine, how, file));
                    }
                }
            }
        }
        Ok(())
    }
    /// Compare what all cases of a batch came to.
    fn check(&mut self, cases: &[Case], batch: &Batch, e: usize, native: &Outputs, got: &Outputs) -> Result<()> {
        for (n, c) in cases.iter().enumerate() {
            let (Some(a), Some(b)) = (native.get(n), got.get(n)) else {
                continue;
            };
            if compare(c, &batch.inputs[n], &a, &b, self.options.features, self.options.engines[e]).is_empty() {
                for i in &c.insns {
                    if let Some(k) = self.out.counts.get_mut(&i.code()) {
                        k.equal[e] += 1;
                    }
                }
            } else {
                self.found(c, self.options.engines[e])?;
            }
        }
        Ok(())
    }
    /// The engine did not come to the end of these cases: run the halves, down to a single one, and compare the rest. Whether
    /// a case was found that it does not come to the end of.
    fn halves(&mut self, cases: &[Case], e: usize) -> Result<bool> {
        let engine = self.options.engines[e];
        if let [c] = cases {
            let d = self.differs(c, engine)?;
            let found = d.is_some();
            if let Some(d) = d {
                let (small, d) = self.shrink(c.clone(), d, engine)?;
                self.keep(small, engine, d)?;
            }
            return Ok(found);
        }
        let mut found = false;
        let (a, b) = cases.split_at(cases.len() / 2);
        for half in [a, b] {
            let batch = self.runner.batch(half)?;
            let Ok(native) = self.runner.run(&batch, On::Native)? else {
                self.out.left_out += half.len() as u64;
                continue;
            };
            match self.runner.run(&batch, On::named(Some(engine)))? {
                Ok(got) => self.check(half, &batch, e, &native, &got)?,
                Err(_) => found |= self.halves(half, e)?,
            }
        }
        Ok(found)
    }
    /// What differs when the case runs by itself.
    fn differs(&mut self, c: &Case, engine: &'static str) -> Result<Option<Vec<Difference>>> {
        let Ok(batch) = self.runner.batch(std::slice::from_ref(c)) else {
            return Ok(None);
        };
        let Ok(native) = self.runner.run(&batch, On::Native)? else {
            return Ok(None);
        };
        let d = match self.runner.run(&batch, On::named(Some(engine)))? {
            Ok(got) => match (native.get(0), got.get(0)) {
                (Some(a), Some(b)) => compare(c, &batch.inputs[0], &a, &b, self.options.features, engine),
                _ => vec![],
            },
            Err(how) => vec![("engine".into(), "ended".into(), how)],
        };
        Ok((!d.is_empty()).then_some(d))
    }
    fn found(&mut self, c: &Case, engine: &'static str) -> Result<()> {
        let key = (engine, c.insns.iter().map(|i| i.code()).collect::<Vec<_>>());
        if let Some(n) = self.seen.get(&key) {
            self.out.findings[*n].times += 1;
            return Ok(());
        }
        if self.out.findings.len() >= self.options.most {
            return Ok(());
        }
        // Differences of single instructions that are known explain longer ones, mostly.
        if c.insns.len() > 1
            && let Some(n) = c.insns.iter().find_map(|i| self.seen.get(&(engine, vec![i.code()])))
        {
            self.out.findings[*n].times += 1;
            return Ok(());
        }
        let Some(d) = self.differs(c, engine)? else {
            return Ok(());
        };
        let (small, d) = self.shrink(c.clone(), d, engine)?;
        self.keep(small, engine, d)
    }
    fn keep(&mut self, case: Case, engine: &'static str, differences: Vec<Difference>) -> Result<()> {
        let key = (engine, case.insns.iter().map(|i| i.code()).collect::<Vec<_>>());
        if let Some(n) = self.seen.get(&key) {
            self.out.findings[*n].times += 1;
            return Ok(());
        }
        self.seen.insert(key, self.out.findings.len());
        let mut line = Line { case, features: self.options.features, after: text::After::new() };
        files::bless(&mut self.runner, std::slice::from_mut(&mut line))?;
        let finding = Finding { engine, line, differences, times: 1 };
        // At once, as a long run may be stopped.
        eprint!("{}", finding.show());
        self.out.findings.push(finding);
        Ok(())
    }
    /// Leave out instructions, then make state plain, as long as there is a difference.
    fn shrink(&mut self, mut c: Case, mut d: Vec<Difference>, engine: &'static str) -> Result<(Case, Vec<Difference>)> {
        let mut k = c.insns.len();
        while k > 0 && c.insns.len() > 1 {
            k -= 1;
            let mut less = c.clone();
            less.insns.remove(k);
            less.go_on &= less.insns.len() > 1;
            if let Some(x) = self.differs(&less, engine)? {
                (c, d) = (less, x);
            }
        }
        let plain = Input::plain(c.state.window);
        type Step = fn(&mut Input, &Input);
        let steps: &[Step] = &[
            |s, p| s.gpr = p.gpr,
            |s, p| (s.xmm, s.ymm) = (p.xmm, p.ymm),
            |s, p| s.ymm = p.ymm,
            |s, p| s.data = p.data,
            |s, p| (s.st, s.ftw, s.fsw) = (p.st, p.ftw, p.fsw),
            |s, p| s.fcw = p.fcw,
            |s, p| s.fsw = p.fsw,
            |s, p| s.mxcsr = p.mxcsr,
            |s, _| s.mxcsr &= !0x3f,
            |s, p| s.flags = p.flags,
        ];
        for step in steps {
            let mut less = c.clone();
            step(&mut less.state, &plain);
            less.state.fix();
            if less.state != c.state
                && let Some(x) = self.differs(&less, engine)?
            {
                (c, d) = (less, x);
            }
        }
        for n in 0..16 {
            for vector in [false, true] {
                let mut less = c.clone();
                if vector {
                    (less.state.xmm[n], less.state.ymm[n]) = (0, 0);
                } else if n != 4 {
                    less.state.gpr[n] = 0;
                }
                if less.state != c.state
                    && let Some(x) = self.differs(&less, engine)?
                {
                    (c, d) = (less, x);
                }
            }
        }
        Ok((c, d))
    }
}

/// Flags that are defined after a case that ended in this way.
fn defined_flags(case: &Case, kind: u64) -> u64 {
    let (insns, go_on) = (&case.insns, case.go_on);
    let mut undefined = insns.iter().fold(0, |u, i| u & !table::written_flags(i) | table::undefined_flags(i));
    if kind != 0 || go_on {
        // It ended at a branch or a fault, or went on behind one: what was undefined there is not known here.
        undefined |= insns.iter().map(table::undefined_flags).fold(0, |a, b| a | b);
    }
    0xcd5 & !undefined
}

/// What of a case's result is to be equal, and is not.
fn compare(c: &Case, i: &Input, a: &state::Output, b: &state::Output, f: Features, engine: &str) -> Vec<Difference> {
    let flags = defined_flags(c, a.kind());
    let mut d = a.differences(b, i, f, flags);
    let trap = a.word(image::output::TRAPNO);
    d.retain(|(what, _, _)| table::not_compared(&c.insns, a.kind(), what, trap).is_none());
    if engine == run::NODE {
        d.retain(|(what, _, _)| table::not_compared_in_software(&c.insns, what).is_none());
    }
    d
}

impl Outcome {
    /// No difference, and every engine came to the end.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.unexplained.is_empty()
    }
    /// All that is wrong.
    pub fn show(&self) -> String {
        let mut s: String = self.findings.iter().map(Finding::show).collect();
        for (engine, how, file) in &self.unexplained {
            s += &format!("{engine}: a batch, but none of its cases by itself: {how}; kept as {}\n", file.display());
        }
        s
    }
}

impl Finding {
    /// The case and what is wrong with it.
    pub fn show(&self) -> String {
        let c = &self.line.case;
        let codes: Vec<String> = c.insns.iter().map(|i| format!("{:?}", i.code())).collect();
        let mut s = format!("{} ({}): {}\n", self.engine, self.times, codes.join(" "));
        for (what, a, b) in self.differences.iter().take(6) {
            s += &format!("    {what}: {a} natively, {b} here\n");
        }
        s + &self.line.show().map_or_else(|e| format!("    {e:#}\n"), |l| format!("    {l}\n"))
    }
}
