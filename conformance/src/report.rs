//! Results of application cases: kept as JSON below `target/`, shown as the table of the book.

use crate::apps::Verdict;
use crate::exec::ENGINES;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

fn folder() -> PathBuf {
    crate::target().join("conformance/results")
}

/// Keep a verdict for the report.
pub fn keep(v: &Verdict) -> Result<()> {
    std::fs::create_dir_all(folder())?;
    let file = folder().join(format!("{}-{}.json", v.case, v.engine));
    std::fs::write(file, serde_json::to_string_pretty(v)?)?;
    Ok(())
}

/// All verdicts that were kept, in the order of the table of cases.
pub fn kept() -> Result<Vec<Verdict>> {
    let mut all = Vec::new();
    for case in crate::case::all()? {
        for engine in ENGINES {
            if let Ok(text) = std::fs::read(folder().join(format!("{}-{engine}.json", case.name))) {
                all.push(serde_json::from_slice(&text)?);
            }
        }
    }
    Ok(all)
}

/// The book's chapter.
pub fn markdown(verdicts: &[Verdict]) -> String {
    let mut s = String::from(
        "# Applications\n\n\
         Each line is a case of `conformance/apps/*.toml`: unmodified Debian 12 programs (and the programs of\n\
         `conformance/programs/`, compiled by Debian's compilers), run natively and under `evm` on each engine. A case passes if\n\
         standard output, exit status and all files it wrote are equal, byte by byte. This page is written by\n\n\
         ```sh\ncargo run --release -p evm-conformance -- apps --write-book\n```\n\n\
         Seconds are those of that run, with start and end of the job, on whatever machine it was; they are no benchmark.\n",
    );
    let mut cases: Vec<&str> = Vec::new();
    let mut by: BTreeMap<(&str, &str), &Verdict> = BTreeMap::new();
    for v in verdicts {
        if !cases.contains(&v.case.as_str()) {
            cases.push(&v.case);
        }
        by.insert((&v.case, &v.engine), v);
    }
    let mut group = "";
    for case in cases {
        let Some(any) = ENGINES.iter().find_map(|e| by.get(&(case, *e))) else {
            continue;
        };
        if any.group != group {
            group = &any.group;
            let _ = write!(s, "\n## {group}\n\n| case | native |");
            for e in ENGINES {
                let _ = write!(s, " {e} |");
            }
            s.push_str("\n|---|---|");
            s.push_str(&"---|".repeat(ENGINES.len()));
            s.push('\n');
        }
        let _ = write!(s, "| {case} | {:.2} s |", any.native_seconds);
        for e in ENGINES {
            let _ = match by.get(&(case, *e)) {
                None => write!(s, " not run |"),
                Some(v) => write!(s, " {}, {:.1} s |", v.word(), v.seconds),
            };
        }
        s.push('\n');
    }
    let known: Vec<&Verdict> = verdicts.iter().filter(|v| v.known.is_some()).collect();
    if !known.is_empty() {
        s.push_str("\n## Known failures\n\n");
        for v in known {
            let _ = writeln!(s, "* {} on {}: {}", v.case, v.engine, v.known.as_deref().unwrap_or_default());
        }
    }
    s
}
