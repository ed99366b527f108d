//! Cases as text, a line each:
//!
//! ```text
//! f30fb8c1 | rcx=f0 | rax=4 flags=0 # popcnt eax,ecx
//! ```
//!
//! * the instructions' bytes, a blank between two;
//! * the state before, where it is not [`Input::plain`]: registers by name, `flags`, `window` (the address of the case's
//!   bytes), `[18]` (the eight bytes at an offset from there), `st0`, `ymm3h` (upper half) and so on, `cpu=v2`,
//!   `fault=on` (when the first instruction faults, the case goes on with the second);
//! * the state after, where it is not that before: also `end=` and what a signal says; `code+5` is an address
//!   behind the case's first byte, `taken` that of the exit for branches.
//!
//! All numbers are hexadecimal. What is not compared, for the reasons that [`table`] gives, is not there.

use super::generate::{Case, Fix};
use super::image::{CODE, output};
use super::state::{Features, Field, Input, Output, REGS};
use super::{defined_flags, table};
use anyhow::{Context, Result, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, Encoder, Instruction, OpKind};
use std::collections::BTreeMap;

/// What differs after a case from before, by the names of the text.
pub type After = BTreeMap<String, String>;

/// A line of a file.
#[derive(Clone, Debug)]
pub struct Line {
    /// Code and state before.
    pub case: Case,
    /// CPU model.
    pub features: Features,
    /// State after.
    pub after: After,
}

const SIGNALS: [(u64, &str); 5] = [(4, "SIGILL"), (5, "SIGTRAP"), (7, "SIGBUS"), (8, "SIGFPE"), (11, "SIGSEGV")];

/// What came of a case, as text. `input`: the state before, with its addresses.
pub fn after(case: &Case, input: &Input, out: &Output, f: Features) -> Result<After> {
    let kind = out.kind();
    let mask = u128::from(defined_flags(case, kind));
    let trap = out.word(output::TRAPNO);
    let before: BTreeMap<Field, u128> = input.fields().into_iter().collect();
    let length = case.encode(input.code, super::image::exits()?).context("a case that does not encode")?.0.len() as u64;
    let mut all = After::new();
    for (field, value) in out.fields(input, f) {
        let mask = if field == Field::Flags { mask } else { u128::MAX };
        let name = field.name();
        if before.get(&field).is_some_and(|b| b & mask == value & mask)
            || table::not_compared(&case.insns, kind, &name, trap).is_some()
        {
            continue;
        }
        let value = value & mask;
        let text = match (field, value as u64) {
            (Field::End, 0) => continue,
            (Field::End, 1) => "taken".into(),
            (Field::End, k) => {
                SIGNALS.iter().find(|s| s.0 + 0x100 == k).map_or_else(|| format!("{k:x}"), |s| s.1.into())
            }
            (_, v) if value >> 64 == 0 && (input.code..input.code + length).contains(&v) => {
                format!("code+{:x}", v - input.code)
            }
            _ => format!("{value:x}"),
        };
        all.insert(name, text);
    }
    Ok(all)
}

impl Line {
    /// As a line of a file, without the end of line.
    pub fn show(&self) -> Result<String> {
        let bytes = encode(&self.case.insns)?;
        let code: Vec<String> = bytes.iter().map(|b| b.iter().map(|b| format!("{b:02x}")).collect()).collect();
        let mut before = vec![];
        if self.features == Features::V2 {
            before.push("cpu=v2".into());
        }
        if self.case.go_on {
            before.push("fault=on".into());
        }
        let s = &self.case.state;
        if s.window != Input::default_window() {
            before.push(format!("window={:x}", s.window));
        }
        let plain: BTreeMap<Field, u128> = Input::plain(s.window).fields().into_iter().collect();
        for (field, value) in s.fields() {
            let fixed = match field {
                Field::Gpr(n) => self.case.fixes.contains(&Fix::Reg(n)),
                Field::Mem(at) => self.case.fixes.contains(&Fix::Data(at as usize)),
                _ => false,
            };
            if fixed {
                before.push(format!("{}=taken", field.name()));
            } else if plain.get(&field) != Some(&value) && field.is_before() {
                before.push(format!("{}={value:x}", field.name()));
            }
        }
        let after: Vec<String> = self.after.iter().map(|(n, v)| format!("{n}={v}")).collect();
        Ok(format!("{} | {} | {} # {}", code.join(" "), before.join(" "), after.join(" "), self.case.text()))
    }
    /// Read a line.
    pub fn parse(line: &str) -> Result<Line> {
        let line = line.split('#').next().unwrap_or_default();
        let parts: Vec<&str> = line.split('|').collect();
        let [code, before, after] = parts[..] else {
            bail!("not of the form `code | before | after`");
        };
        let mut insns = vec![];
        let mut at = CODE;
        for hex in code.split_whitespace() {
            let bytes = unhex(hex).with_context(|| format!("not the bytes of an instruction: {hex}"))?;
            let i = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).decode();
            ensure!(i.len() == bytes.len() && !i.is_invalid(), "{hex} is not one instruction");
            at += bytes.len() as u64;
            insns.push(i);
        }
        ensure!(!insns.is_empty(), "no instruction");
        for (i, (bytes, hex)) in insns.iter().zip(encode(&insns)?.iter().zip(code.split_whitespace())) {
            let branch = i.op_count() > 0 && i.op_kind(0) == OpKind::NearBranch64;
            ensure!(branch || unhex(hex).as_ref() == Some(bytes), "{hex}: not as iced-x86 encodes it");
        }
        let (case, features) = before_of(insns, before)?;
        let after = pairs(after)?.into_iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Ok(Line { case, features, after })
    }
}

/// Code and the text of the state before.
fn before_of(insns: Vec<Instruction>, text: &str) -> Result<(Case, Features)> {
    let pairs = pairs(text)?;
    let mut window = Input::default_window();
    let mut features = Features::V3;
    let mut go_on = false;
    for (name, value) in &pairs {
        match *name {
            "window" => window = u64::from_str_radix(value, 16).context("window")?,
            "cpu" => {
                ensure!(*value == "v2", "no CPU model {value}");
                features = Features::V2;
            }
            "fault" => {
                ensure!(*value == "on", "a fault does not go {value}");
                go_on = true;
            }
            _ => {}
        }
    }
    let mut state = Input::plain(window);
    let mut fixes = vec![];
    for (name, value) in pairs.iter().filter(|p| !matches!(p.0, "window" | "cpu" | "fault")) {
        let field = Field::named(name).with_context(|| format!("nothing is called {name}"))?;
        if *value == "taken" {
            fixes.push(match field {
                Field::Gpr(n) => Fix::Reg(n),
                Field::Mem(at) if (0..=248).contains(&at) => Fix::Data(at as usize),
                _ => bail!("{name} cannot be an address of a branch"),
            });
            continue;
        }
        let value = u128::from_str_radix(value, 16).with_context(|| format!("{name}={value}: not a number"))?;
        ensure!(state.set(field, value), "{name} cannot be set before");
    }
    Ok((Case { insns, state, fixes, go_on }, features))
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>> {
    text.split_whitespace().map(|p| p.split_once('=').with_context(|| format!("{p}: not name=value"))).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).ok()).collect()
}

/// Their bytes at [`CODE`].
fn encode(insns: &[Instruction]) -> Result<Vec<Vec<u8>>> {
    let mut at = CODE;
    let mut all = vec![];
    for i in insns {
        let mut e = Encoder::new(64);
        let mut i = *i;
        if i.op_count() > 0 && i.op_kind(0) == OpKind::NearBranch64 {
            // Where it goes is known when the program is made.
            i.set_near_branch64(at);
        }
        at += e.encode(&i, at)? as u64;
        all.push(e.take_buffer());
    }
    Ok(all)
}

impl Field {
    /// Its name in texts.
    pub fn name(self) -> String {
        match self {
            Field::Gpr(n) => REGS[n].into(),
            Field::Xmm(n) => format!("xmm{n}"),
            Field::YmmHigh(n) => format!("ymm{n}h"),
            Field::St(n) => format!("st{n}"),
            Field::Mem(at) if at < 0 => format!("[-{:x}]", -at),
            Field::Mem(at) => format!("[{at:x}]"),
            _ => NAMES.iter().find(|n| n.0 == self).map_or("", |n| n.1).into(),
        }
    }
    /// That of a name.
    pub fn named(name: &str) -> Option<Field> {
        if let Some(n) = NAMES.iter().find(|n| n.1 == name) {
            return Some(n.0);
        }
        if let Some(n) = REGS.iter().position(|r| *r == name) {
            return Some(Field::Gpr(n));
        }
        if let Some(at) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
            let at = i64::from_str_radix(at, 16).ok()?;
            return (at % 8 == 0).then_some(Field::Mem(at));
        }
        let number = |s: &str, below: usize| s.parse::<usize>().ok().filter(|n| *n < below);
        if let Some(n) = name.strip_prefix("st") {
            return number(n, 8).map(Field::St);
        }
        if let Some(n) = name.strip_prefix("xmm") {
            return number(n, 16).map(Field::Xmm);
        }
        let n = name.strip_prefix("ymm")?.strip_suffix('h')?;
        number(n, 16).map(Field::YmmHigh)
    }
}

const NAMES: [(Field, &str); 14] = [
    (Field::End, "end"),
    (Field::SiCode, "si_code"),
    (Field::SiAddr, "si_addr"),
    (Field::Rip, "rip"),
    (Field::Trapno, "trapno"),
    (Field::Err, "err"),
    (Field::Flags, "flags"),
    (Field::Fcw, "fcw"),
    (Field::Fsw, "fsw"),
    (Field::Ftw, "ftw"),
    (Field::Fop, "fop"),
    (Field::Fip, "fip"),
    (Field::Fdp, "fdp"),
    (Field::Mxcsr, "mxcsr"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_print_as_they_were_read() {
        for text in [
            "f30fb8c1 | rcx=f0 | flags=0 rax=4 # popcnt eax,ecx",
            "c5fe7f00 | window=6a000f80 rax=6a000ff0 ymm0h=1 | [80]=1 # vmovdqu [rax],ymm0",
            "8800 ffc0 | fault=on | rax=1 # mov [rax],al; inc eax",
            "0f84fafffff | | ",
        ] {
            match Line::parse(text) {
                Ok(l) => assert_eq!(l.show().unwrap(), text),
                Err(e) => assert!(text.starts_with("0f84"), "{text}: {e}"),
            }
        }
        for wrong in [
            "90",
            "90 | rxx=1 |",
            "90 | rax=1 | | ",
            "90 | [1]=1 |",
            "9090 | |",
            "| |",
            "90 | end=1 |",
            "90 | fault=off |",
            "ü0 | |",
        ] {
            assert!(Line::parse(wrong).is_err(), "{wrong}");
        }
    }
}
