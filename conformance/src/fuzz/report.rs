//! The table of feature groups: forms, how many are lifted, run, and equal to native.

use super::state::Features;
use super::{Outcome, table};
use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Default)]
struct Row {
    forms: usize,
    run: usize,
    cases: u64,
    equal: Vec<u64>,
    differ: usize,
}

/// The table, the forms that are not run with reasons, and those for which no case was made.
pub fn text(out: &Outcome, engines: &[&str], f: Features) -> String {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for c in Code::values().filter(|c| table::belongs(*c, f)) {
        let row = rows.entry(table::group(c)).or_default();
        row.forms += 1;
        row.equal.resize(engines.len(), 0);
        if let Some(why) = table::not_run(c) {
            let names = skipped.entry(why).or_default();
            let name = format!("{:?}", c.mnemonic()).to_lowercase();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if let Some(n) = out.counts.get(&c) {
            row.run += 1;
            row.cases += n.cases;
            for (a, b) in row.equal.iter_mut().zip(&n.equal) {
                *a += b;
            }
            row.differ += usize::from(n.equal.iter().any(|e| *e != n.cases));
        }
    }
    let mut s = format!("{:12} {:>6} {:>6} {:>9}", "group", "forms", "run", "cases");
    for e in engines {
        let _ = write!(s, " {:>9}", format!("={e}"));
    }
    s += "  forms that differ\n";
    for (name, r) in &rows {
        let _ = write!(s, "{name:12} {:6} {:6} {:9}", r.forms, r.run, r.cases);
        for e in &r.equal {
            let _ = write!(s, " {e:9}");
        }
        let _ = writeln!(s, "  {}", r.differ);
    }
    for (why, names) in skipped {
        let _ = writeln!(s, "not run ({why}): {}", names.join(" "));
    }
    if !out.not_made.is_empty() {
        let _ = writeln!(s, "no case made: {:?}", out.not_made);
    }
    s
}
