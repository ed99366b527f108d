//! `--stats`: what a run did, as text or JSON.

use evm_runtime::Outcome;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// One JSON object on one line.
pub fn json(o: &Outcome) -> Value {
    let engine: Map<String, Value> = o.stats.engine.iter().map(|(n, _, v)| ((*n).to_string(), json!(v))).collect();
    json!({
        "status": o.status(),
        "wall_us": o.stats.wall_us,
        "peak_rss_bytes": o.stats.peak_rss,
        "confinement": { "landlock": o.stats.confinement.landlock, "seccomp": o.stats.confinement.seccomp },
        "cache": o.stats.cache,
        "engine": engine,
        "syscalls": o.stats.syscalls,
        "unknown_syscalls": o.stats.unknown_syscalls,
        "unlifted": o.stats.unlifted,
    })
}

/// A table for a person.
pub fn text(o: &Outcome) -> String {
    let mut s = format!("{:>14}  confines the host process\n", o.stats.confinement.text());
    for c in &o.stats.cache {
        // Writing to a string does not fail.
        let _ = writeln!(s, "{:>14}  {c}", "kept");
    }
    let mut row = |v: u64, what: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(s, "{v:>14}  {what}");
    };
    row(o.stats.wall_us, "microseconds of wall time");
    row(o.stats.peak_rss, "bytes of host memory at the peak");
    for (_, what, v) in &o.stats.engine {
        row(*v, what);
    }
    for (name, n) in &o.stats.syscalls {
        let unknown = if o.stats.unknown_syscalls.contains_key(name) { " (not there: ENOSYS)" } else { "" };
        row(*n, &format!("{name}{unknown}"));
    }
    s
}
