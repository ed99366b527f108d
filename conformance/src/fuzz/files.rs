//! Files of cases, `conformance/insn/cases/*.txt`: one for each map of opcodes, with every form that is run, and `found.txt`
//! with what the fuzzer found. Each line says what the CPU makes of it, so an engine can be tested where there is no such CPU; where
//! there is, the CPU is asked as well.

use super::generate::{Case, Fix, Generator};
use super::image::{FS_BASE, GS_BASE, input};
use super::run::{On, Runner};
use super::state::{Features, Input, Rng};
use super::table;
use super::text::{self, After, Line};
use super::{forms, host_has};
use anyhow::{Context, Result, ensure};
use iced_x86::{Code, CpuidFeature, EncodingKind, InstructionInfoFactory, OpCodeTableKind, Register};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The file for what the fuzzer finds.
pub const FOUND: &str = "found";
/// Cases of a program.
const BATCH: usize = 1500;

/// A file: its name without `.txt`, and its cases with the numbers of their lines.
#[derive(Clone, Debug)]
pub struct File {
    /// Name.
    pub name: String,
    /// Cases.
    pub lines: Vec<(usize, Line)>,
    path: PathBuf,
}

/// Where the files are.
pub fn folder() -> PathBuf {
    crate::workspace().join("conformance/insn/cases")
}

/// All files, by name.
pub fn all() -> Result<Vec<File>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder())
        .with_context(|| folder().display().to_string())?
        .map(|e| Ok(e?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    paths.into_iter().map(|p| File::read(&p)).collect()
}

impl File {
    fn read(path: &Path) -> Result<File> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut lines = vec![];
        for (n, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                let read = Line::parse(line).with_context(|| format!("{}:{}", path.display(), n + 1))?;
                lines.push((n + 1, read));
            }
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(File { name, lines, path: path.into() })
    }
    /// Write the states after that the CPU gives, the rest as it is; how many lines changed.
    pub fn bless(&mut self, program: &Path) -> Result<usize> {
        let old = fs::read_to_string(&self.path)?;
        let mut text: Vec<String> = old.lines().map(String::from).collect();
        let mut changed = 0;
        for f in [Features::V2, Features::V3] {
            ensure!(host_has(f), "this CPU lacks instructions of {}", f.model());
            let mut runner = Runner::new(program, f)?;
            for (n, line) in self.lines.iter_mut().filter(|l| l.1.features == f) {
                let before = line.after.clone();
                bless(&mut runner, std::slice::from_mut(line))?;
                if line.after != before {
                    text[*n - 1] = line.show()?;
                    changed += 1;
                }
            }
        }
        if changed > 0 {
            fs::write(&self.path, text.join("\n") + "\n")?;
        }
        Ok(changed)
    }
    /// Cases that are not as the file says, on the CPU (`None`) or an engine; why, each by its line.
    pub fn wrong(&self, engine: Option<&'static str>, program: &Path) -> Result<Vec<String>> {
        let mut wrong = vec![];
        for f in [Features::V2, Features::V3] {
            if engine.is_none() && !host_has(f) {
                continue;
            }
            let mut runner = Runner::new(program, f)?;
            let on = On::named(engine);
            let mine: Vec<&(usize, Line)> = self.lines.iter().filter(|l| l.1.features == f).collect();
            for part in mine.chunks(BATCH) {
                let cases: Vec<&Case> = part.iter().map(|l| &l.1.case).collect();
                for ((n, line), got) in part.iter().zip(outcomes(&mut runner, &cases, on)?) {
                    let at = || format!("{}.txt:{n}: {}", self.name, line.case.text());
                    match got {
                        Ok(got) => {
                            let free = |what: &str| {
                                on == On::Node && table::not_compared_in_software(&line.case.insns, what).is_some()
                            };
                            let d = differ(&line.after, &got, free);
                            if !d.is_empty() {
                                wrong.push(format!("{}: {d}", at()));
                            }
                        }
                        Err(why) => wrong.push(format!("{}: {why}", at())),
                    }
                }
            }
        }
        Ok(wrong)
    }
}

/// What is not the same, and not free to be anything.
fn differ(want: &After, got: &After, free: impl Fn(&str) -> bool) -> String {
    let unchanged = String::from("unchanged");
    let names: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
    let parts: Vec<String> = names
        .into_iter()
        .filter(|n| want.get(*n) != got.get(*n) && !free(n))
        .map(|n| {
            let of = |a: &After| a.get(n).unwrap_or(&unchanged).clone();
            format!("{n} should be {} and is {}", of(want), of(got))
        })
        .collect();
    parts.join(", ")
}

/// What comes of cases; where the program of all does not come to its end, of each by itself.
fn outcomes(runner: &mut Runner, cases: &[&Case], on: On) -> Result<Vec<std::result::Result<After, String>>> {
    let owned: Vec<Case> = cases.iter().map(|c| (*c).clone()).collect();
    let batch = runner.batch(&owned)?;
    match runner.run(&batch, on)? {
        Ok(out) => (0..cases.len())
            .map(|n| {
                let o = out.get(n).context("an outcome is missing")?;
                text::after(cases[n], &batch.inputs[n], &o, runner.features()).map(Ok)
            })
            .collect(),
        Err(how) if cases.len() == 1 => Ok(vec![Err(how)]),
        Err(_) => {
            let (a, b) = cases.split_at(cases.len() / 2);
            let mut all = outcomes(runner, a, on)?;
            all.extend(outcomes(runner, b, on)?);
            Ok(all)
        }
    }
}

/// Fill in what the CPU gives.
pub fn bless(runner: &mut Runner, lines: &mut [Line]) -> Result<()> {
    for part in lines.chunks_mut(BATCH) {
        let cases: Vec<Case> = part.iter().map(|l| l.case.clone()).collect();
        let got = outcomes(runner, &cases.iter().collect::<Vec<_>>(), On::Native)?;
        for (line, got) in part.iter_mut().zip(got) {
            line.after = got.unwrap_or_else(|how| After::from([("end".into(), how.replace(' ', "-"))]));
        }
    }
    Ok(())
}

/// Append cases to the file of those that were found.
pub fn add(lines: &[&Line]) -> Result<PathBuf> {
    let path = folder().join(FOUND).with_extension("txt");
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    for l in lines {
        let line = l.show()?;
        if !text.lines().any(|t| t == line) {
            text += &(line + "\n");
        }
    }
    fs::write(&path, text)?;
    Ok(path)
}

/// Make the files of the opcode maps anew: `each` cases of every form.
pub fn make(each: usize, seed: u64, program: &Path) -> Result<usize> {
    let mut rng = Rng(seed);
    let mut generator = Generator::new(rng.next(), 2);
    let mut by_map: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let old: BTreeSet<Code> = forms(Features::V2).into_iter().collect();
    for code in forms(Features::V3) {
        for n in 0..each {
            let Some(mut case) = (0..100).find_map(|_| generator.case(&[code])) else {
                break;
            };
            // Some forms are others on the older model.
            let features = if n % 2 == 1 && old.contains(&code) { Features::V2 } else { Features::V3 };
            plain(&mut case, features);
            by_map.entry(map(code)).or_default().push(Line { case, features, after: After::new() });
        }
    }
    fs::create_dir_all(folder())?;
    let mut count = 0;
    for (name, mut lines) in by_map {
        let head = format!(
            "# Cases of the opcode map {name}, each form, made by `evm-conformance cases --make` (seed {seed}).\n# Format: conformance/src/fuzz/text.rs.\n"
        );
        let mut kept = vec![];
        for f in [Features::V2, Features::V3] {
            let mut runner = Runner::new(program, f)?;
            let mut mine: Vec<Line> = lines.iter().filter(|l| l.features == f).cloned().collect();
            bless(&mut runner, &mut mine)?;
            kept.extend(mine);
        }
        // A case that destroys the frame says nothing.
        kept.retain(|l| l.after.get("end").is_none_or(|e| e == "taken" || e.starts_with("SIG")));
        lines = kept;
        lines.sort_by_key(|l| l.case.insns[0].code() as usize);
        count += lines.len();
        let text: Vec<String> = lines.iter().map(Line::show).collect::<Result<_>>()?;
        fs::write(folder().join(&name).with_extension("txt"), head + &text.join("\n") + "\n")?;
    }
    Ok(count)
}

/// The file for a form.
fn map(code: Code) -> String {
    let op = code.op_code();
    let table = match op.table() {
        OpCodeTableKind::T0F => "0f",
        OpCodeTableKind::T0F38 => "0f38",
        OpCodeTableKind::T0F3A => "0f3a",
        _ if (0xd8..=0xdf).contains(&(op.op_code() & 0xff)) || op.op_code() > 0xff => "x87",
        _ => "one-byte",
    };
    if code.encoding() == EncodingKind::VEX { format!("vex-{table}") } else { table.into() }
}

fn mask(bytes: usize) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 }
}

/// Make plain what the instructions do not use, so that the line says what matters.
fn plain(case: &mut Case, features: Features) {
    let mut info = InstructionInfoFactory::new();
    let (mut gpr, mut vectors, mut x87) = (1u32 << 4, 0u32, false);
    // Offsets of the window's bytes that are accessed.
    let mut memory: Vec<std::ops::Range<u64>> = vec![];
    let w = case.state.window;
    let state = case.state.clone();
    let value = |r: Register, _: usize, _: usize| -> Option<u64> {
        Some(match r {
            Register::FS => FS_BASE,
            Register::GS => GS_BASE,
            r if r.is_segment_register() => 0,
            r if r.is_gpr() => state.gpr[r.full_register().number()] & mask(r.size()),
            _ => return None,
        })
    };
    for i in &case.insns {
        let used = info.info(i);
        let mut register = |r: Register| {
            let full = r.full_register();
            if full.is_gpr64() {
                gpr |= 1 << full.number();
            } else if full.is_vector_register() {
                vectors |= 1 << (full.number() & 31);
            }
        };
        used.used_registers().iter().for_each(|r| register(r.register()));
        for m in used.used_memory() {
            register(m.base());
            register(m.index());
            let repeated = i.has_rep_prefix() || i.has_repne_prefix();
            memory.push(match m.virtual_address(0, value) {
                Some(at) if !repeated => {
                    at.wrapping_sub(w)..at.wrapping_sub(w).wrapping_add(m.memory_size().size() as u64)
                }
                _ => 0..input::DATA_LEN as u64,
            });
        }
        let features = i.code().cpuid_features();
        x87 |= features.iter().any(|f| {
            use CpuidFeature as F;
            matches!(f, F::FPU | F::FPU287 | F::FPU387 | F::MMX)
        }) || (0..i.op_count()).any(|n| i.op_register(n).is_mm());
    }
    for fix in &case.fixes {
        match fix {
            Fix::Reg(n) => gpr |= 1 << n,
            Fix::Data(at) => memory.push(*at as u64..*at as u64 + 8),
        }
    }
    let p = Input::plain(case.state.window);
    let s = &mut case.state;
    for n in 0..16 {
        if gpr >> n & 1 == 0 {
            s.gpr[n] = p.gpr[n];
        }
        if vectors >> n & 1 == 0 {
            s.xmm[n] = 0;
        }
        if vectors >> n & 1 == 0 || features == Features::V2 {
            s.ymm[n] = 0;
        }
    }
    for (k, word) in s.data.chunks_exact_mut(8).enumerate() {
        // An access may begin before the window.
        let (start, end) = (8 * k as u64, 8 * k as u64 + 8);
        if !memory.iter().any(|m| start < m.end && (m.start < end || m.start > m.end)) {
            word.fill(0);
        }
    }
    if vectors == 0 && !x87 {
        s.mxcsr = p.mxcsr;
    }
    if !x87 {
        (s.st, s.fcw, s.fsw, s.ftw) = (p.st, p.fcw, p.fsw, p.ftw);
    }
}
