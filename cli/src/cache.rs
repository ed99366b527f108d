//! Kept translations: the options of `evm run` about them, and `evm cache`.

use crate::args::{self, CacheAction, CacheMode};
use anyhow::{Context, Result};
use clap::ValueEnum;
use evm_runtime::cache::folder::{self, Folder};
use evm_runtime::cache::{self, format::View};
use std::process::ExitCode;

/// From `--cache` and the environment.
pub fn config(mode: Option<CacheMode>) -> Result<cache::Config> {
    let mode = match (mode, std::env::var("EVM_CACHE")) {
        (Some(m), _) => m,
        (None, Ok(v)) if !v.is_empty() => {
            CacheMode::from_str(&v, false).map_err(|_| anyhow::anyhow!("EVM_CACHE is {v:?}, not on, read or off"))?
        }
        _ => CacheMode::On,
    };
    let mode = match mode {
        CacheMode::On => cache::Mode::On,
        CacheMode::Read => cache::Mode::Read,
        CacheMode::Off => cache::Mode::Off,
    };
    let size = match std::env::var("EVM_CACHE_SIZE") {
        Ok(v) if !v.is_empty() => crate::units::size(&v).map_err(|e| anyhow::anyhow!(e)).context("EVM_CACHE_SIZE")?,
        _ => folder::DEFAULT_SIZE,
    };
    Ok(cache::Config { mode, folder: path(), size, artifact: None })
}

/// The folder.
pub fn path() -> std::path::PathBuf {
    match std::env::var_os("EVM_CACHE_DIR") {
        Some(p) if !p.is_empty() => p.into(),
        _ => folder::default_path(),
    }
}

/// A kept image, for `--json`.
#[derive(serde::Serialize)]
struct Kept {
    file: String,
    /// Guest path it was first run by.
    image: String,
    bytes: u64,
    blocks: usize,
    regions: usize,
    uses: u64,
    /// Why it will not be used, if it is damaged.
    damaged: Option<String>,
}

#[derive(serde::Serialize)]
struct Report {
    folder: String,
    bytes: u64,
    images: Vec<Kept>,
}

fn look(f: &Folder, l: &folder::Listed, verify: bool) -> Kept {
    let mut kept = Kept {
        file: l.name.clone(),
        image: String::new(),
        bytes: l.size,
        blocks: 0,
        regions: 0,
        uses: l.uses,
        damaged: None,
    };
    let checked = f.read(&l.name).and_then(|bytes| {
        let key = View::key_of(&bytes).ok_or("it is no file of translations, or of another version")?;
        let v = View::new(&bytes, &key).map_err(|e| e.to_string())?;
        kept.image = String::from_utf8_lossy(v.label()).chars().filter(|c| !c.is_control()).collect();
        kept.blocks = v.translated();
        kept.regions = v.region_count();
        if key.name() != l.name {
            return Err("it has another's name".into());
        }
        if verify && !v.is_whole() {
            return Err("a checksum of it is wrong".into());
        }
        Ok(())
    });
    kept.damaged = checked.err();
    kept
}

/// `evm cache`.
pub fn cache(o: &args::Cache) -> Result<ExitCode> {
    let f = Folder::open(&path()).map_err(|e| anyhow::anyhow!(e))?;
    let failed = |e: String| anyhow::anyhow!("{}: {e}", f.path().display());
    match o.action.unwrap_or(CacheAction::Show) {
        CacheAction::Clear => {
            let n = f.clear().map_err(failed)?;
            println!("{n} files removed from {}", f.path().display());
            return Ok(ExitCode::SUCCESS);
        }
        CacheAction::Wait => {
            f.wait().map_err(failed)?;
            return Ok(ExitCode::SUCCESS);
        }
        CacheAction::Show | CacheAction::Verify => {}
    }
    let verify = o.action == Some(CacheAction::Verify);
    let images: Vec<Kept> = f.list().map_err(failed)?.iter().rev().map(|l| look(&f, l, verify)).collect();
    let bad = images.iter().any(|i| i.damaged.is_some());
    let r = Report { folder: f.path().display().to_string(), bytes: images.iter().map(|i| i.bytes).sum(), images };
    if o.json {
        println!("{}", serde_json::to_string(&r)?);
    } else {
        print!("{}", text(&r));
    }
    Ok(if verify && bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(r: &Report) -> String {
    use std::fmt::Write;
    let mut s = format!("{}: {} images, {:.1} MB\n", r.folder, r.images.len(), r.bytes as f64 / 1e6);
    if !r.images.is_empty() {
        s += "    blocks  regions     uses       kB  image\n";
    }
    for i in &r.images {
        let note = i.damaged.as_ref().map(|d| format!(" ({}: {d}; it is not used)", i.file)).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(
            s,
            "{:>10} {:>8} {:>8} {:>8}  {}{note}",
            i.blocks,
            i.regions,
            i.uses,
            i.bytes.div_ceil(1000),
            i.image
        );
    }
    s
}
