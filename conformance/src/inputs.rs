//! Input files made from a seed: the same bytes everywhere.
//!
//! | generator | what it makes |
//! |---|---|
//! | `numbers N` | N lines with an integer |
//! | `words N` | N lines with a few words |
//! | `text N` | about N bytes of running text |
//! | `bytes N` | N random bytes |
//! | `zeros N` | N zero bytes |
//! | `table N` | N lines of comma-separated values |
//! | `json N` | a JSON array of N objects |
//! | `sql N` | SQL that makes a table of N rows and asks for them |
//! | `proteins N` | FASTA: N proteins; every eighth is a member of one family, diverged |
//! | `family N` | Stockholm: an alignment of N members of that family |
//! | `query N` | FASTA: N members of the family |
//! | `dna N` | FASTA: N sequences of 2000 bases; every fourth holds a diverged copy of one region |
//! | `dna-query N` | FASTA: N copies of that region, diverged |

use anyhow::{Context, Result, bail};
use std::fmt::Write;

/// xorshift64*, enough for test data.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.bits() >> 32) * n as u64) >> 32) as usize
    }
}

const WORDS: &[&str] = &[
    "alpha", "beta", "gamma", "delta", "water", "stone", "river", "light", "the", "a", "of", "and", "cell", "protein",
    "membrane", "signal", "kernel", "guest", "Zürich", "naïve", "x86", "0x1f", "42", "bridge", "error", "warning",
];

const AMINO: &[u8] = b"ACDEFGHIKLMNPQRSTVWY";
/// In per mille, about as in nature; the rest goes to the last.
const AMINO_FREQUENCY: &[usize] = &[78, 19, 54, 63, 39, 74, 22, 52, 57, 90, 22, 43, 52, 43, 52, 71, 58, 64, 13];

fn residue(r: &mut Random) -> u8 {
    let mut x = r.below(1000);
    for (i, f) in AMINO_FREQUENCY.iter().enumerate() {
        if x < *f {
            return AMINO[i];
        }
        x -= f;
    }
    b'Y'
}

fn protein(r: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| residue(r)).collect()
}

/// The ancestor of the protein family.
fn ancestor() -> Vec<u8> {
    protein(&mut Random::new(777), 160)
}

/// A member: substitutions, and a deletion shown as gaps.
fn member(r: &mut Random, divergence: usize) -> Vec<u8> {
    let mut m: Vec<u8> = ancestor().iter().map(|a| if r.below(100) < divergence { residue(r) } else { *a }).collect();
    if r.below(3) == 0 {
        let at = 10 + r.below(120);
        let len = 1 + r.below(6);
        m[at..at + len].fill(b'-');
    }
    m
}

fn ungapped(s: &[u8]) -> Vec<u8> {
    s.iter().copied().filter(|c| *c != b'-').collect()
}

fn fasta(out: &mut String, name: &str, seq: &[u8]) {
    let _ = writeln!(out, ">{name}");
    for line in seq.chunks(60) {
        out.push_str(std::str::from_utf8(line).unwrap_or_default());
        out.push('\n');
    }
}

fn bases(r: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| b"ACGT"[r.below(4)]).collect()
}

fn diverged_region(r: &mut Random) -> Vec<u8> {
    let region = bases(&mut Random::new(778), 500);
    region.iter().map(|b| if r.below(100) < 6 { b"ACGT"[r.below(4)] } else { *b }).collect()
}

/// Make what `line` says.
pub fn generate(line: &str) -> Result<Vec<u8>> {
    let (kind, n) = line.split_once(' ').context("a generator and a number")?;
    let n: usize = n.trim().parse().with_context(|| format!("number in '{line}'"))?;
    let mut r = Random::new(n as u64 ^ 0x5eed);
    let mut s = String::new();
    match kind {
        "numbers" => {
            for _ in 0..n {
                let _ = writeln!(s, "{}", (r.bits() >> 40) as i64 - (1 << 23));
            }
        }
        "words" => {
            for _ in 0..n {
                for i in 0..=r.below(5) {
                    if i > 0 {
                        s.push(' ');
                    }
                    s.push_str(WORDS[r.below(WORDS.len())]);
                }
                s.push('\n');
            }
        }
        "text" => {
            while s.len() < n {
                s.push_str(WORDS[r.below(WORDS.len())]);
                s.push(if r.below(11) == 0 { '\n' } else { ' ' });
            }
            s.push('\n');
        }
        "bytes" => return Ok((0..n).map(|_| (r.bits() >> 32) as u8).collect()),
        "zeros" => return Ok(vec![0; n]),
        "table" => {
            s.push_str("id,name,value,weight\n");
            for i in 0..n {
                let (w, v, g) = (WORDS[r.below(WORDS.len())], r.below(100_000), r.below(1_000_000));
                let _ = writeln!(s, "{i},{w},{v},{}.{:06}", g % 100, g);
            }
        }
        "json" => {
            s.push('[');
            for i in 0..n {
                let w = WORDS[r.below(WORDS.len())];
                let sep = if i == 0 { "" } else { "," };
                let _ = write!(
                    s,
                    "{sep}\n{{\"id\": {i}, \"name\": \"{w}\", \"value\": {}.{:03}, \"ok\": {}}}",
                    r.below(10_000),
                    r.below(1000),
                    r.below(2) == 0
                );
            }
            s.push_str("\n]\n");
        }
        "sql" => {
            s.push_str("PRAGMA journal_mode=DELETE;\nCREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, v INT, w REAL);\nBEGIN;\n");
            for i in 0..n {
                let _ = writeln!(
                    s,
                    "INSERT INTO t VALUES({i},'{}',{},{}.{});",
                    WORDS[r.below(WORDS.len())],
                    r.below(1000),
                    r.below(1000),
                    r.below(100)
                );
            }
            s.push_str("COMMIT;\nCREATE INDEX i ON t(name, v);\n\
                SELECT name, count(*), sum(v), avg(w), min(v), max(w), total(w) FROM t GROUP BY name ORDER BY name;\n\
                SELECT a.id, b.id FROM t a JOIN t b ON a.name = b.name AND a.v = b.v + 1 ORDER BY a.id, b.id LIMIT 50;\n\
                SELECT v % 7, group_concat(id) FROM (SELECT * FROM t ORDER BY id LIMIT 200) GROUP BY 1;\n\
                WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) SELECT sum(x * x), avg(x) FROM c;\n\
                UPDATE t SET w = w * 1.5 WHERE v > 500;\nDELETE FROM t WHERE v % 3 = 0;\n\
                SELECT count(*), round(sum(w), 6), printf('%.15g', sum(w)) FROM t;\nPRAGMA integrity_check;\n");
        }
        "proteins" => {
            for i in 0..n {
                let seq = if i % 8 == 3 {
                    let (a, b) = (20 + r.below(100), 20 + r.below(100));
                    let mut s = protein(&mut r, a);
                    let divergence = 25 + r.below(40);
                    s.extend(ungapped(&member(&mut r, divergence)));
                    s.extend(protein(&mut r, b));
                    s
                } else {
                    let len = 80 + r.below(500);
                    protein(&mut r, len)
                };
                fasta(&mut s, &format!("seq{i:05} synthetic"), &seq);
            }
        }
        "family" => {
            s.push_str("# STOCKHOLM 1.0\n#=GF ID family\n\n");
            for i in 0..n {
                let m = member(&mut r, 30);
                let _ = writeln!(s, "member{i:03}  {}", std::str::from_utf8(&m).unwrap_or_default());
            }
            s.push_str("//\n");
        }
        "query" => {
            for i in 0..n {
                let m = ungapped(&member(&mut r, 20));
                fasta(&mut s, &format!("query{i}"), &m);
            }
        }
        "dna" => {
            for i in 0..n {
                let mut seq = bases(&mut r, 2000);
                if i % 4 == 1 {
                    let at = r.below(1500);
                    seq[at..at + 500].copy_from_slice(&diverged_region(&mut r));
                }
                fasta(&mut s, &format!("contig{i:04}"), &seq);
            }
        }
        "dna-query" => {
            for i in 0..n {
                let q = diverged_region(&mut r);
                fasta(&mut s, &format!("region{i}"), &q);
            }
        }
        _ => bail!("there is no generator '{kind}'"),
    }
    Ok(s.into_bytes())
}
