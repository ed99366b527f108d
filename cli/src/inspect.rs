//! `evm inspect`: what a program file is, which libraries it needs and which instructions it holds.
//!
//! Instructions are found by a linear sweep over the executable sections (segments, if there are no sections). Data in
//! them may decode as instructions, so rare entries of the count need not be real.

use crate::args::Inspect;
use anyhow::{Context, Result};
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction};
use object::elf;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, SectionFlags};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

/// What was found.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    file: String,
    /// `ELF`, `script`, or what else it may be.
    format: String,
    bits: u32,
    machine: String,
    /// `static`, `static-pie`, `dynamic`, `dynamic pie`, `shared library`, `object`, `core`.
    linking: String,
    interpreter: Option<String>,
    soname: Option<String>,
    needed: Vec<String>,
    run_path: Option<String>,
    entry: u64,
    executable_stack: bool,
    code_bytes: u64,
    instructions: u64,
    /// Instruction set → number of instructions.
    features: BTreeMap<String, u64>,
    /// Instruction sets that the default CPU (x86-64-v3) does not offer.
    beyond_cpu: BTreeMap<String, u64>,
    undecoded_bytes: u64,
    /// Functions that it imports and that cannot work in a WebAssembly module.
    beyond_wasm: Vec<String>,
    /// Whether `evm run` takes this format.
    runnable: bool,
    note: Option<String>,
    /// What can be found of each executable segment without running it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    coverage: Vec<crate::lift::Coverage>,
    /// What was lifted to a module, image by image.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifted: Option<serde_json::Value>,
}

/// Functions of the C library that start threads or processes, or talk to other machines.
const BEYOND_WASM: &[&str] = &[
    "fork",
    "vfork",
    "clone",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
    "pthread_create",
    "thrd_create",
    "connect",
    "accept",
];

/// What the virtual CPU offers; see `--cpu`.
const OFFERED: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::CPUID,
    CpuidFeature::FXSR,
    CpuidFeature::MMX,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::POPCNT,
    CpuidFeature::AVX,
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::F16C,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::LZCNT,
    CpuidFeature::MOVBE,
    CpuidFeature::XSAVE,
    CpuidFeature::XSAVEOPT,
    CpuidFeature::XSAVEC,
    CpuidFeature::TSC,
    CpuidFeature::SYSCALL,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::CLFSH,
    // No-operations where they are not offered.
    CpuidFeature::CET_IBT,
    CpuidFeature::PREFETCHW,
];

/// Run `evm inspect`.
pub fn inspect(o: &Inspect) -> Result<ExitCode> {
    let data = std::fs::read(&o.file).with_context(|| o.file.display().to_string())?;
    let mut r = read(&data);
    r.file = o.file.display().to_string();
    if o.coverage && r.format == "WebAssembly" {
        r.lifted = crate::wasm::contents(&data);
    } else if o.coverage {
        r.coverage = crate::lift::coverage(&o.file)?;
    }
    let mut text = if o.json { serde_json::to_string_pretty(&r)? } else { show(&r) };
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn read(data: &[u8]) -> Report {
    let mut r = Report::default();
    if let Some(rest) = data.strip_prefix(b"#!") {
        r.format = "script".into();
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        r.interpreter = Some(String::from_utf8_lossy(line).trim().into());
        r.runnable = true;
        return r;
    }
    if data.starts_with(b"\0asm\x01\0\0\0") {
        r.format = "WebAssembly".into();
        if crate::wasm::contents(data).is_none() {
            r.note = Some("not made by 'evm lift'".into());
        }
        return r;
    }
    if !data.starts_with(&elf::ELFMAG) {
        r.format = "unknown".into();
        r.note = Some("neither an ELF file nor a script (#!)".into());
        return r;
    }
    r.format = "ELF".into();
    let read = if data.get(4) == Some(&elf::ELFCLASS32) {
        r.bits = 32;
        read_elf::<elf::FileHeader32<Endianness>>(data, &mut r, elf::EM_386, "i386")
    } else {
        r.bits = 64;
        read_elf::<elf::FileHeader64<Endianness>>(data, &mut r, elf::EM_X86_64, "x86-64")
    };
    if let Err(e) = read {
        r.note = Some(format!("damaged: {e}"));
        r.runnable = false;
    }
    r
}

/// A file of one class, whose programs run if they are for the machine `wanted`.
fn read_elf<H: FileHeader<Endian = Endianness>>(
    data: &[u8],
    r: &mut Report,
    wanted: u16,
    name: &str,
) -> object::Result<()> {
    let file = ElfFile::<H>::parse(data)?;
    let e = file.endian();
    let header = file.elf_header();
    let machine = header.e_machine(e);
    r.machine = if machine == wanted { name.into() } else { format!("machine {}", machine) };
    r.entry = header.e_entry(e).into();
    let mut dynamic = false;
    let mut pie = false;
    for ph in file.elf_program_headers() {
        if let Some(i) = ph.interpreter(e, data)? {
            r.interpreter = Some(String::from_utf8_lossy(i).into_owned());
        }
        if ph.p_type(e) == elf::PT_GNU_STACK {
            r.executable_stack = ph.p_flags(e) & elf::PF_X != 0;
        }
        dynamic |= ph.p_type(e) == elf::PT_DYNAMIC;
    }
    let table = file.elf_dynamic_table()?;
    for d in &table {
        let text = || table.string(d).ok().map(|s| String::from_utf8_lossy(s).into_owned());
        match d.tag {
            elf::DT_NEEDED => r.needed.extend(text()),
            elf::DT_SONAME => r.soname = text(),
            elf::DT_RUNPATH | elf::DT_RPATH => r.run_path = text(),
            elf::DT_FLAGS_1 => pie |= d.val & u64::from(elf::DF_1_PIE) != 0,
            _ => {}
        }
    }
    r.linking = match header.e_type(e) {
        elf::ET_EXEC if r.interpreter.is_some() => "dynamic",
        elf::ET_EXEC => "static",
        elf::ET_DYN if r.interpreter.is_some() && (pie || r.soname.is_none()) => "dynamic pie",
        elf::ET_DYN if pie && dynamic => "static-pie",
        elf::ET_DYN => "shared library",
        elf::ET_REL => "object",
        elf::ET_CORE => "core",
        _ => "unknown type",
    }
    .into();
    let imported = file.imports()?;
    let named = |n: &&&str| imported.iter().any(|i| i.name() == n.as_bytes());
    r.beyond_wasm = BEYOND_WASM.iter().filter(named).map(|n| n.to_string()).collect();
    r.runnable = machine == wanted && matches!(header.e_type(e), elf::ET_EXEC | elf::ET_DYN);
    if machine != wanted {
        r.note = Some("not an x86 program".into());
        return Ok(());
    }
    let mut sweep = Sweep { bits: r.bits, ..Sweep::default() };
    let mut swept = false;
    for s in file.sections() {
        if let SectionFlags::Elf { sh_flags, .. } = s.flags()
            && sh_flags & u64::from(elf::SHF_EXECINSTR) != 0
        {
            swept = true;
            sweep.code(s.data()?, s.address());
        }
    }
    if !swept {
        for ph in file.elf_program_headers() {
            if ph.p_type(e) == elf::PT_LOAD && ph.p_flags(e) & elf::PF_X != 0 {
                sweep.code(ph.data(e, data).unwrap_or_default(), ph.p_vaddr(e).into());
            }
        }
    }
    sweep.finish(r);
    Ok(())
}

/// Counts of a linear sweep.
#[derive(Default)]
struct Sweep {
    bits: u32,
    bytes: u64,
    instructions: u64,
    invalid: u64,
    features: BTreeMap<String, u64>,
    beyond: BTreeMap<String, u64>,
}

impl Sweep {
    fn code(&mut self, code: &[u8], address: u64) {
        self.bytes += code.len() as u64;
        let mut counts: BTreeMap<Vec<CpuidFeature>, u64> = BTreeMap::new();
        let mut decoder = Decoder::with_ip(self.bits, code, address, DecoderOptions::NONE);
        let mut i = Instruction::default();
        let mut last: (&[CpuidFeature], u64) = (&[], 0);
        while decoder.can_decode() {
            let before = decoder.position();
            decoder.decode_out(&mut i);
            if i.is_invalid() {
                // Go on behind the first byte, as after data in code.
                self.invalid += 1;
                if decoder.set_position(before + 1).is_err() {
                    break;
                }
                decoder.set_ip(address + before as u64 + 1);
                continue;
            }
            self.instructions += 1;
            let f = i.cpuid_features();
            if f == last.0 {
                last.1 += 1;
            } else {
                *counts.entry(last.0.to_vec()).or_default() += last.1;
                last = (f, 1);
            }
        }
        *counts.entry(last.0.to_vec()).or_default() += last.1;
        for (set, n) in counts {
            if set.is_empty() {
                continue;
            }
            let name = set.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join("+");
            *self.features.entry(name.clone()).or_default() += n;
            if !set.iter().all(|f| OFFERED.contains(f)) {
                *self.beyond.entry(name).or_default() += n;
            }
        }
    }
    fn finish(self, r: &mut Report) {
        r.code_bytes = self.bytes;
        r.instructions = self.instructions;
        r.undecoded_bytes = self.invalid;
        r.features = self.features;
        r.beyond_cpu = self.beyond;
    }
}

fn show(r: &Report) -> String {
    let mut s = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(s, "{name:<13} {value}");
        }
    };
    line("file", r.file.clone());
    let bits = if r.bits == 0 { String::new() } else { format!(" {}-bit", r.bits) };
    line(
        "format",
        [&format!("{}{bits}", r.format), &r.machine, &r.linking].map(String::as_str).join(" ").trim().into(),
    );
    line("interpreter", r.interpreter.clone().unwrap_or_default());
    line("soname", r.soname.clone().unwrap_or_default());
    line("needs", r.needed.join(" "));
    line("run path", r.run_path.clone().unwrap_or_default());
    if r.instructions > 0 {
        line("entry", format!("{:#x}", r.entry));
        line("code", format!("{} bytes, {} instructions", r.code_bytes, r.instructions));
        let mut sets: Vec<_> = r.features.iter().collect();
        sets.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), (*name).clone()));
        for (i, (name, n)) in sets.into_iter().enumerate() {
            let mark = if r.beyond_cpu.contains_key(name) { "  not offered by x86-64-v3" } else { "" };
            line(if i == 0 { "instructions" } else { "" }, format!("{n:>10} {name}{mark}"));
        }
        if r.undecoded_bytes > 0 {
            line("not code", format!("{} bytes did not decode", r.undecoded_bytes));
        }
        if r.executable_stack {
            line("stack", "executable".into());
        }
    }
    for c in &r.coverage {
        line(
            "coverage",
            format!(
                "{} of {} bytes at {:#x} found without running it, in {} pieces: {} blocks, {} functions, {} jumps to unknown places",
                c.found_bytes, c.code_bytes, c.offset, c.ranges, c.blocks, c.functions, c.unresolved
            ),
        );
    }
    for i in r.lifted.iter().flat_map(|l| l.as_array()).flatten() {
        let n = |key: &str| i[key].as_u64().unwrap_or(0);
        line(
            "lifted",
            format!(
                "{}: {} of {} bytes of code, in {} pieces: {} functions, {} of them for loops, {} jumps to unknown places",
                i["image"].as_str().unwrap_or_default(),
                n("found_bytes"),
                n("code_bytes"),
                n("pieces"),
                n("regions"),
                n("loops"),
                n("unresolved")
            ),
        );
    }
    line("not in wasm", r.beyond_wasm.join(" "));
    line("note", r.note.clone().unwrap_or_default());
    line("runs", if r.runnable { "yes".into() } else { "no".into() });
    s.truncate(s.trim_end().len());
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_program() {
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let r = read(&data);
        assert_eq!((r.bits, r.machine.as_str(), r.runnable), (64, "x86-64", true), "{r:?}");
        assert!(r.needed.iter().any(|n| n == "libc.so.6"), "{r:?}");
        assert!(r.features.get("SSE2").is_some_and(|n| *n > 100), "{r:?}");
        assert!(show(&r).contains("dynamic pie"));
        // Each prefix of a real file is answered, too.
        for len in (0..4096.min(data.len())).step_by(7) {
            read(&data[..len]);
        }
    }

    #[test]
    fn not_programs() {
        for (data, format, runs) in
            [(&b"#!/bin/sh -e\necho"[..], "script", true), (b"hello", "unknown", false), (b"\x7fELF\x01", "ELF", false)]
        {
            let r = read(data);
            assert_eq!((r.format.as_str(), r.runnable), (format, runs));
        }
        assert_eq!(read(b"#! /bin/sh -e\necho").interpreter.as_deref(), Some("/bin/sh -e"));
    }
}
