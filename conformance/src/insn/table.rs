//! The tables `insn/*.txt`: instructions in Intel's syntax, one pattern a line.
//!
//! * `{a,b}` is one line for each; several in a line are multiplied.
//! * `w=8,16,32,64`: `A`, `B`, `C` are rax, rbx, rcx and `M` is memory at rdi, of each of these widths.
//! * `X` is xmm1; `XM16`, `XM8`, `XM4`, `XM2` are xmm2 or memory of so many bytes.
//! * ` / ` separates instructions; labels are `1:` to `4:`, used as `1f` and `1b`.
//! * `fl=`: the flags that are defined (of `oszapc`, `-` none; all if not given; `logic`: all, but no AF after and, or,
//!   xor, test).
//! * `in=` and `mem=`: what registers and memory hold: `i` integers, `f32`, `f64`, `f80`, `f80near` (exponents close
//!   together), `f80small`, `bcd`, `str` (short strings of few characters).
//! * `n=`: depth of the x87 stack; `cc=`: its condition bits that are defined.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;

/// What operands look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Integers.
    Int = 0,
    /// Single precision.
    F32 = 1,
    /// Double precision.
    F64 = 2,
    /// Extended precision.
    F80 = 3,
    /// Extended precision with close exponents.
    F80Near = 4,
    /// Extended precision, below 10^18.
    F80Small = 5,
    /// Packed decimal.
    Bcd = 6,
    /// Short strings.
    Str = 7,
}

impl Kind {
    fn read(s: &str) -> Result<Kind> {
        Ok(match s {
            "i" => Kind::Int,
            "f32" => Kind::F32,
            "f64" => Kind::F64,
            "f80" => Kind::F80,
            "f80near" => Kind::F80Near,
            "f80small" => Kind::F80Small,
            "bcd" => Kind::Bcd,
            "str" => Kind::Str,
            _ => bail!("no kind of operands is called '{s}'"),
        })
    }
}

/// One instruction, or a few.
#[derive(Clone, Debug)]
pub struct Test {
    /// As written, with the braces resolved.
    pub name: String,
    /// Lines of assembly.
    pub code: Vec<String>,
    /// Mask of defined flags.
    pub flags: u32,
    /// Mask of defined bits of the x87 status word.
    pub status: u32,
    /// Contents of registers.
    pub regs: Kind,
    /// Contents of memory.
    pub mem: Kind,
    /// Depth of the x87 stack.
    pub depth: u32,
}

impl Test {
    /// The same in 32-bit code, if there it is: pointers are edi and esi, and other 64-bit registers and registers above 7
    /// are not there.
    pub fn narrow(mut self) -> Option<Test> {
        let narrow = |s: &str| {
            replace(s, &|w| {
                Some(match w {
                    "rdi" => "edi".into(),
                    "rsi" => "esi".into(),
                    _ => return None,
                })
            })
        };
        self.name = narrow(&self.name);
        self.code = self.code.iter().map(|c| narrow(c)).collect();
        let wide = |w: &str| {
            let number = w.trim_start_matches("xmm").trim_start_matches('r').trim_end_matches(['b', 'w', 'd']);
            let high = (w.starts_with('r') || w.starts_with("xmm")) && number.parse::<u32>().is_ok_and(|n| n > 7);
            let named = ["rax", "rbx", "rcx", "rdx", "rbp", "rsp", "rip", "sil", "dil", "bpl", "spl"].contains(&w);
            let only = matches!(w, "cqo" | "cdqe" | "movsxd" | "pushfq" | "popfq" | "jrcxz" | "cmpxchg16b" | "iretq")
                || (w.ends_with('q') && ["movs", "stos", "lods", "cmps", "scas"].contains(&&w[..w.len() - 1]))
                || matches!(w, "fxsave64" | "fxrstor64" | "xsave64" | "xrstor64" | "xsavec64" | "xsaveopt64");
            high || named || only
        };
        // Integers of 64 bits in memory.
        let long = |s: &str| {
            let first = s.trim_start_matches("lock ").split_whitespace().next().unwrap_or_default();
            s.contains("qword ptr")
                && !s.contains("mmword")
                && INTEGER.iter().any(|i| format!("{first} ").starts_with(i))
                || matches!(first, "pextrq" | "pinsrq")
        };
        let words = |s: &str| s.split(|c: char| !c.is_ascii_alphanumeric()).any(wide);
        (!self.code.iter().any(|c| words(c) || long(c))).then_some(self)
    }
}

/// How the names of instructions on integers start, as far as they have operands in memory.
const INTEGER: &[&str] = &[
    "add ", "sub ", "adc", "sbb", "cmp ", "and ", "or ", "xor ", "test", "inc", "dec", "neg", "not", "xadd", "xchg",
    "mul ", "imul", "div ", "idiv", "mov ", "movzx", "movsx", "movbe", "movnti", "bt", "bsf", "bsr", "sh", "sar", "ro",
    "rc", "cmov", "push", "pop", "crc32", "cvtsi2", "tzcnt", "lzcnt", "andn", "bl", "bextr", "bzhi", "pdep", "pext ",
    "sarx", "rorx", "mulx", "cmpxchg ",
];

const ALL_FLAGS: u32 = 0x8d5;

fn flags(s: &str) -> Result<u32> {
    s.chars()
        .filter(|c| *c != '-')
        .map(|c| {
            Ok(match c {
                'o' => 0x800,
                's' => 0x80,
                'z' => 0x40,
                'a' => 0x10,
                'p' => 4,
                'c' => 1,
                _ => bail!("no flag is called '{c}'"),
            })
        })
        .sum()
}

/// Resolve the braces.
fn expand(s: &str) -> Vec<String> {
    let Some((before, rest)) = s.split_once('{') else {
        return vec![s.into()];
    };
    let Some((choices, after)) = rest.split_once('}') else {
        return vec![s.into()];
    };
    let after = expand(after);
    choices.split(',').flat_map(|c| after.iter().map(move |a| format!("{before}{c}{a}"))).collect()
}

/// Replace words by what they stand for.
fn replace(s: &str, f: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in s.chars().chain(std::iter::once('\n')) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        out.push_str(&f(&word).unwrap_or_else(|| word.clone()));
        word.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    out
}

fn sized(s: &str, width: &str) -> Result<String> {
    let (a, b, c, m) = match width {
        "8" => ("al", "bl", "cl", "byte"),
        "16" => ("ax", "bx", "cx", "word"),
        "32" => ("eax", "ebx", "ecx", "dword"),
        "64" => ("rax", "rbx", "rcx", "qword"),
        _ => bail!("no width {width}"),
    };
    Ok(replace(s, &|w| {
        Some(match w {
            "A" => a.into(),
            "B" => b.into(),
            "C" => c.into(),
            "M" => format!("{m} ptr [rdi]"),
            _ => return None,
        })
    }))
}

fn vectors(s: &str) -> Vec<String> {
    let with = |memory: bool| {
        replace(s, &|w| {
            let (size, _) = match w {
                "X" => return Some("xmm1".into()),
                "XM16" | "XS16" => ("xmmword", 16),
                "XM8" => ("qword", 8),
                "XM4" => ("dword", 4),
                "XM2" => ("word", 2),
                _ => return None,
            };
            Some(if memory { format!("{size} ptr [rdi]") } else { "xmm2".into() })
        })
    };
    let (r, m) = (with(false), with(true));
    if r == m { vec![r] } else { vec![r, m] }
}

/// All tests of a table.
pub fn read(group: &str, text: &str) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let mut seen = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (pattern, options) = line.split_once(" ; ").unwrap_or((line, ""));
        let mut widths = vec![""];
        let (mut fl, mut cc) = ("oszapc", "");
        let (mut regs, mut mem) = (Kind::Int, None);
        let mut depth = if matches!(group, "x87" | "mmx") { 8 } else { 0 };
        for o in options.split_whitespace() {
            let (name, value) = o.split_once('=').with_context(|| format!("{o} in: {line}"))?;
            match name {
                "w" => widths = value.split(',').collect(),
                "fl" => fl = value,
                "cc" => cc = value,
                "in" => regs = Kind::read(value)?,
                "mem" => mem = Some(Kind::read(value)?),
                "n" => depth = value.parse()?,
                _ => bail!("{name} in: {line}"),
            }
        }
        let mem = mem.unwrap_or(match regs {
            Kind::F80 | Kind::F80Near | Kind::F80Small => Kind::Int,
            other => other,
        });
        // C0, C1, C2, C3 are bits 8, 9, 10 and 14.
        let status = cc.chars().fold(0xb8ff, |m, c| m | [0x100, 0x200, 0x400, 0x4000][c as usize - '0' as usize]);
        for e in expand(pattern) {
            for w in &widths {
                let e = if w.is_empty() { e.clone() } else { sized(&e, w)? };
                for name in vectors(&e) {
                    if !seen.insert(name.clone()) {
                        continue;
                    }
                    let number = tests.len();
                    let code = name.split(" / ").map(|i| labels(i, number)).collect();
                    let first = name.trim_start_matches("lock ").split_whitespace().next().unwrap_or_default();
                    let flags = match fl {
                        "logic" if matches!(first, "and" | "or" | "xor" | "test") => flags("oszpc")?,
                        "logic" => ALL_FLAGS,
                        f => flags(f)?,
                    };
                    tests.push(Test { name, code, flags, status, regs, mem, depth });
                }
            }
        }
    }
    ensure!(!tests.is_empty(), "{group}: an empty table");
    Ok(tests)
}

/// Local labels get names of their own, as Intel's syntax takes `1b` for a number.
fn labels(code: &str, test: usize) -> String {
    replace(code, &|w| {
        let digit = w.strip_suffix(['f', 'b']).unwrap_or(w);
        let is_label = ["1", "2", "3", "4"].contains(&digit) && (digit != w || code.starts_with(&format!("{w}:")));
        // `1` as an operand stays; `1:` stands at the start only.
        is_label.then(|| format!(".Lt{test}_{digit}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let t = read("int", "{add,and} A, {1,M} ; w=8,64 fl=logic\n# no\nmov ecx, 1 / 1: loop 1b ; fl=-").unwrap();
        let names: Vec<_> = t.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names[..4], ["add al, 1", "add rax, 1", "add al, byte ptr [rdi]", "add rax, qword ptr [rdi]"]);
        assert_eq!(t[0].flags, ALL_FLAGS);
        assert_eq!(t[4].flags, ALL_FLAGS & !0x10);
        assert_eq!(t[8].code, ["mov ecx, 1", ".Lt8_1: loop .Lt8_1"]);
        let t = read("x87", "paddb X, XM16\nfcom ; cc=03 n=2").unwrap();
        assert_eq!(t[1].name, "paddb xmm1, xmmword ptr [rdi]");
        assert_eq!((t[2].status, t[2].depth), (0xb8ff | 0x4100, 2));
        assert!(read("int", "a ; q=1").is_err() && read("int", "").is_err());
    }
}
