//! `evm lift PROGRAM -o X.wasm`: a program, its files and the runtime in one WebAssembly module.

mod append;
mod collect;

use crate::args::{CpuModel, Lift};
use crate::run;
use crate::units::Sysroot;
use anyhow::{Context, Result};
use append::Blob;
use collect::Files;
use evm_kernel::fs::archive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The runtime module: see wasm/build.sh.
const RUNTIME: &[u8] = include_bytes!("../../../wasm/evm-runtime.wasm");

/// Make the module.
pub fn lift(o: &Lift) -> Result<()> {
    let name = &o.program;
    let (root, program) = match &o.sysroot {
        Sysroot::Dir(d) => (d.clone(), PathBuf::from(name)),
        Sysroot::Host | Sysroot::None => {
            let found = run::find_host_program(name, std::env::var_os("PATH").as_deref())?;
            (PathBuf::from("/"), std::path::absolute(&found)?)
        }
    };
    let mut files = Files::new(&root);
    if !files.is_program(&program) {
        return Err(run::Failure::NotFound(program).into());
    }
    files.add_program(&program)?;
    for b in &o.bundle {
        files.add_bundle(&b.host, b.guest.as_deref())?;
    }
    let blobs = [
        Blob { name: *b"config\0\0", bytes: config(o, &program) },
        Blob { name: *b"files\0\0\0", bytes: archive::write(&files.entries()) },
    ];
    let module = append::append(RUNTIME, &blobs)?;
    std::fs::write(&o.output, module).with_context(|| o.output.display().to_string())
}

/// The settings that the runtime reads: lines of a word and a value.
fn config(o: &Lift, program: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let mut line = |word: &str, value: &[u8]| {
        out.extend_from_slice(word.as_bytes());
        out.push(b' ');
        out.extend_from_slice(value);
        out.push(b'\n');
    };
    line("program", program.as_os_str().as_bytes());
    line("arg0", o.program.as_bytes());
    for (n, v) in run::environment(&o.env, None) {
        line("env", &[n.as_bytes(), b"=", v.as_bytes()].concat());
    }
    line("cpu", run::cpu(o.cpu.unwrap_or(CpuModel::X86_64V2)).as_bytes());
    if let Some(m) = o.memory {
        line("memory", m.to_string().as_bytes());
    }
    out
}
