//! `evm run --profile`: names for sampled addresses, a table and a flame graph.

use crate::starts;
use anyhow::{Context, Result};
use evm_runtime::{ImageAt, Profile, Tier};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{Read, Seek, Write as _};

/// Functions shown in the table.
const SHOWN: usize = 20;
/// Of larger files no names are looked for.
const MOST_BYTES: u64 = 1 << 30;

/// Names of an image's functions, by their offsets in the file.
struct Names {
    file: String,
    lo: u64,
    hi: u64,
    offset: u64,
    symbols: BTreeMap<u64, String>,
    /// Where functions start for which there may be no symbol.
    starts: BTreeSet<u64>,
}

impl Names {
    fn of(image: &ImageAt) -> Names {
        let file = plain(image.label.rsplit('/').next().unwrap_or(&image.label));
        let mut data = vec![];
        // What cannot be read has no names; what is that large is no program, but may be the guest's.
        if image.file.metadata().is_ok_and(|m| m.len() <= MOST_BYTES) {
            let _ = (&image.file).rewind().and_then(|()| (&image.file).take(MOST_BYTES).read_to_end(&mut data));
        }
        let found = starts::find(&data);
        let (lo, hi, offset) = (image.lo, image.hi, image.offset);
        Names { file, lo, hi, offset, symbols: found.names, starts: found.functions }
    }
    fn name(&self, pc: u64) -> String {
        let at = pc - self.lo + self.offset;
        let start = self.starts.range(..=at).next_back().copied().unwrap_or(self.offset);
        match self.symbols.range(..=at).next_back().filter(|s| *s.0 >= start) {
            Some((_, name)) => format!("{} ({})", plain(name), self.file),
            None => format!("{}+{start:#x}", self.file),
        }
    }
}

/// What a file calls itself or a function, fit for a terminal.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A place in the graph.
#[derive(Default)]
struct Node {
    count: u64,
    /// Samples that were here and in no call further down, by tier.
    own: [u64; 3],
    below: BTreeMap<String, Node>,
}

/// Samples by functions.
pub struct Graph {
    root: Node,
    lost: u64,
}

impl Graph {
    /// Name what was sampled.
    pub fn of(profile: &Profile) -> Graph {
        let names: Vec<Names> = profile.images.iter().map(Names::of).collect();
        let mut known: HashMap<u64, String> = HashMap::new();
        let mut name = |pc: u64| {
            let found = || match names.iter().find(|n| (n.lo..n.hi).contains(&pc)) {
                Some(n) => n.name(pc),
                None if pc == 0 => "[start]".into(),
                None => "[code of no file]".into(),
            };
            known.entry(pc).or_insert_with(found).clone()
        };
        let mut root = Node::default();
        for s in &profile.samples {
            let mut at = &mut root;
            at.count += s.count;
            for pc in s.stack.iter().rev() {
                at = at.below.entry(name(*pc)).or_default();
                at.count += s.count;
            }
            if s.tier == Tier::Runtime {
                at = at.below.entry("[evm]".into()).or_default();
                at.count += s.count;
            }
            at.own[s.tier as usize] += s.count;
        }
        Graph { root, lost: profile.lost }
    }
    /// The functions that took the most time themselves.
    pub fn table(&self) -> String {
        let mut own: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        sum(&self.root, "[start]", &mut own);
        let mut all: Vec<(&str, [u64; 3])> = own.into_iter().collect();
        let total = |t: &[u64; 3]| t.iter().sum::<u64>();
        all.sort_by_key(|(name, t)| (std::cmp::Reverse(total(t)), *name));
        let share = |n: u64| 100.0 * n as f64 / self.root.count.max(1) as f64;
        let mut s = format!("{} samples of CPU time\n   share  copied compiled     evm  function\n", self.root.count);
        for (name, t) in all.iter().filter(|(_, t)| total(t) > 0).take(SHOWN) {
            let [copied, compiled, evm] = t.map(share);
            // Writing to a string does not fail.
            let _ = writeln!(s, "{:>7.1}% {copied:>6.1}% {compiled:>7.1}% {evm:>6.1}%  {name}", share(total(t)));
        }
        if self.lost > 0 {
            let _ = writeln!(s, "{} samples came too late: there was no room for more", self.lost);
        }
        s
    }
    /// A flame graph: who is called is above who calls, and the width is the time.
    pub fn svg(&self) -> String {
        let depth = depth(&self.root);
        let height = (depth + 1) * ROW + 40;
        let mut s = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"10\" y=\"16\">{} samples of CPU time. Orange: copied code, green: compiled, grey: evm itself. Point at a box for its name.</text>\n",
            self.root.count
        );
        draw(&mut s, "all", &self.root, (10.0, f64::from(WIDTH) - 20.0), height - 20, self.root.count.max(1));
        s.push_str("</svg>\n");
        s
    }
}

fn sum<'a>(n: &'a Node, name: &'a str, own: &mut BTreeMap<&'a str, [u64; 3]>) {
    let all = own.entry(name).or_default();
    for (a, t) in all.iter_mut().zip(n.own) {
        *a += t;
    }
    for (name, n) in &n.below {
        sum(n, name, own);
    }
}

const WIDTH: u32 = 1200;
const ROW: u32 = 17;
/// Boxes of less than that are left out, in units of the picture.
const LEAST: f64 = 0.3;

fn depth(n: &Node) -> u32 {
    n.below.values().map(depth).max().map_or(0, |d| d + 1)
}

fn draw(s: &mut String, name: &str, n: &Node, (x, width): (f64, f64), y: u32, all: u64) {
    if width < LEAST {
        return;
    }
    let tiers = tiers(n);
    let most = (0..3).max_by_key(|t| tiers[*t]).unwrap_or(0);
    let color = ["#f4a259", "#8cb369", "#bbb"][most];
    let name = escape(name);
    let share = 100.0 * n.count as f64 / all as f64;
    let letters = ((width - 6.0) / 6.2).max(0.0) as usize;
    let short: String = if letters < 3 { String::new() } else { name.chars().take(letters).collect() };
    // A reference that was cut would be an error.
    let short = short.rfind('&').filter(|at| !short[*at..].contains(';')).map_or(&*short, |at| &short[..at]);
    // Writing to a string does not fail.
    let _ = writeln!(
        s,
        "<g><title>{name}: {} samples, {share:.1}%</title><rect x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\" stroke=\"#fff\" stroke-width=\"0.5\"/><text x=\"{:.1}\" y=\"{}\">{short}</text></g>",
        n.count,
        y - ROW,
        ROW - 1,
        x + 3.0,
        y - 5
    );
    let mut at = x;
    for (name, below) in &n.below {
        let w = width * below.count as f64 / n.count.max(1) as f64;
        draw(s, name, below, (at, w), y - ROW, all);
        at += w;
    }
}

/// Samples here and further down, by tier.
fn tiers(n: &Node) -> [u64; 3] {
    let mut all = n.own;
    for below in n.below.values().map(tiers) {
        for (a, b) in all.iter_mut().zip(below) {
            *a += b;
        }
    }
    all
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Where the graph is to go: opened before the process confines itself.
pub struct Output {
    file: std::fs::File,
    path: std::path::PathBuf,
}

impl Output {
    pub fn new(path: &std::path::Path) -> Result<Output> {
        let file = std::fs::File::create(path).with_context(|| format!("the flame graph {}", path.display()))?;
        Ok(Output { file, path: path.to_owned() })
    }
    /// Write the graph, and the table to standard error.
    pub fn write(mut self, profile: &Profile) -> Result<()> {
        let graph = Graph::of(profile);
        self.file
            .write_all(graph.svg().as_bytes())
            .with_context(|| format!("the flame graph {}", self.path.display()))?;
        eprint!("{}", graph.table());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evm_runtime::Sample;

    #[test]
    fn samples_are_summed() {
        let sample = |tier, stack: &[u64], count| Sample { tier, stack: stack.to_vec(), count };
        let samples = vec![
            sample(Tier::Copied, &[0x2000, 0x1000], 3),
            sample(Tier::Runtime, &[0x2000], 1),
            sample(Tier::Compiled, &[0], 4),
        ];
        let g = Graph::of(&Profile { samples, images: vec![], lost: 0 });
        let table = g.table();
        assert!(table.starts_with("8 samples"), "{table}");
        assert!(table.contains("   37.5%   37.5%     0.0%    0.0%  [code of no file]"), "{table}");
        assert!(table.contains("   12.5%    0.0%     0.0%   12.5%  [evm]"), "{table}");
        assert!(table.contains("   50.0%    0.0%    50.0%    0.0%  [start]"), "{table}");
        let svg = g.svg();
        assert_eq!(svg.matches("<rect x=").count(), 5, "{svg}");
    }

    #[test]
    fn names_are_escaped() {
        let mut n = Node { count: 1, ..Node::default() };
        n.below.insert("operator<< <int&>".into(), Node { count: 1, own: [1, 0, 0], ..Node::default() });
        let svg = Graph { root: n, lost: 0 }.svg();
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a?[2Jb?");
        assert!(svg.contains("operator&lt;&lt; &lt;int&amp;&gt;") && !svg.contains("<<"), "{svg}");
    }
}
