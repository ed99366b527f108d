//! Ahead of time to WebAssembly: finds the code of images at their planned addresses and makes a function of each region.
//!
//! First the graph of all blocks that can be found is made ([`Graph`]): each block is lifted once, from the functions that the file tells of along
//! direct jumps, calls and jump tables; then from what may be code. Then the graph is divided: a region starts at what is
//! called, and at each block that two regions would come to; so a block is in one region, and regions are entered at their start alone.
//! Then workers make a function of each region. The result does not depend on their number.
//!
//! Who comes back into the middle of a function from the interpreter (after a signal, a longjmp, or a stack too deep for calls inside each
//! other) is back in compiled code at the next loop: the header of each outermost loop is an entry of the region as well. Each loop that calls inside another
//! gets a region of its own, of its blocks alone; entries into the middle of loops would leave none that can be written as loops.

use crate::engine::lock;
use crate::guard;
use crate::lift::Progress;
use evm_backend::wasm::{self, Body, Link, Module, Settings};
use evm_cpu::CpuState;
use evm_ir::{BlockData, Op, Region, Term, Value};
use evm_lifter::{Lifted, Mode, Options};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};

/// How the functions of modules are made.
pub const SETTINGS: Settings = Settings {
    abi: evm_backend::wasm_abi_of!(CpuState),
    tail_calls: true,
    fixed: None,
    atomics: false,
    trust_pages: false,
};

/// Bounds of a region in instructions, and of what begins in the middle of one that is larger.
const INSNS: (usize, usize) = (6000, 300);
/// The same in blocks.
const BLOCKS: (usize, usize) = (2000, 100);

/// The same while blocks are looked for.
const FIRST: (usize, usize) = (500, 200);

/// A part of a file that is mapped.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Guest address.
    pub addr: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes of the file.
    pub size: u64,
    /// It is executable.
    pub code: bool,
}

/// A file that the guest will map.
#[derive(Debug, Default)]
pub struct Image {
    /// For people.
    pub label: String,
    /// The file.
    pub data: Vec<u8>,
    /// What is mapped of it.
    pub segments: Vec<Segment>,
    /// Guest addresses of functions.
    pub functions: Vec<u64>,
    /// Guest addresses that may be of code.
    pub guesses: Vec<u64>,
}

/// What came of an image.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Bytes of its executable segments.
    pub code: u64,
    /// Ranges of code that is in regions: start and end, disjoint.
    pub covered: BTreeMap<u64, u64>,
    /// Functions made.
    pub regions: usize,
    /// Of them, those of loops.
    pub loops: usize,
    /// Entries at loops.
    pub entries: usize,
    /// Bytes of WebAssembly, without what the linker puts in.
    pub wasm: usize,
    /// Indirect jumps whose targets are not known.
    pub unresolved: usize,
    /// Addresses without a region, because nothing there can be decoded or a translation failed.
    pub without: usize,
}

impl Summary {
    /// Bytes of code in regions.
    pub fn found(&self) -> u64 {
        self.covered.iter().map(|(a, b)| b - a).sum()
    }
    fn cover(&mut self, mut start: u64, mut end: u64) {
        while let Some((a, b)) = self.covered.range(..=end).next_back().map(|r| (*r.0, *r.1)).filter(|r| r.1 >= start) {
            self.covered.remove(&a);
            (start, end) = (start.min(a), end.max(b));
        }
        self.covered.insert(start, end);
    }
}

/// Make functions of all code that can be found in an image.
pub fn lower(image: &Image, v3: bool, threads: usize, into: &mut Module, progress: &Progress) -> Summary {
    let text = Text { image };
    let graph = Graph::of(&text, v3, progress);
    let queue = Queue::default();
    queue.add(graph.starts.iter().map(|pc| (*pc, Kind::Region)), progress);
    let work = || {
        let mut done = vec![];
        while let Some((pc, kind)) = queue.take() {
            // What cannot be translated is found out by the run, which reports it.
            let made = guard::caught(pc, || Ok(region(&text, &graph, pc, &kind, v3))).ok().flatten();
            let next = made.as_ref().map(|m| m.next.clone()).unwrap_or_default();
            queue.add(next.into_iter().filter(|i| text.segment(i.0, true).is_some()), progress);
            queue.finish();
            progress.done.fetch_add(1, Ordering::Relaxed);
            done.push((pc, kind, made));
        }
        done
    };
    let all: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| s.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).flatten().collect()
    });
    let code = image.segments.iter().filter(|s| s.code).map(|s| s.size).sum();
    let mut sum = Summary { code, ..Summary::default() };
    for (pc, kind, made) in all {
        let Some(m) = made else {
            sum.without += 1;
            continue;
        };
        sum.regions += 1;
        sum.loops += usize::from(matches!(kind, Kind::Loop(_)));
        sum.wasm += m.body.code.len();
        sum.unresolved += m.unresolved;
        sum.entries += m.entries.len();
        m.source.iter().for_each(|(a, n)| sum.cover(*a, a + u64::from(*n)));
        m.entries.iter().for_each(|e| into.add_entry(*e, pc));
        into.add(pc, m.body);
    }
    sum
}

/// What starts at an address.
#[derive(Clone, Debug)]
enum Kind {
    /// A region of the graph.
    Region,
    /// What did not fit into one.
    Rest,
    /// A loop's header, and the addresses of the loop's blocks.
    Loop(Arc<HashSet<u64>>),
}

#[derive(Default)]
struct Queue {
    inner: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    items: Vec<(u64, Kind)>,
    /// Loops wait until all else is done: their header may be reached in another way.
    loops: BTreeMap<u64, Kind>,
    seen: HashSet<u64>,
    busy: usize,
}

impl Queue {
    fn add(&self, items: impl Iterator<Item = (u64, Kind)>, progress: &Progress) {
        let mut w = lock(&self.inner);
        for (pc, kind) in items {
            match kind {
                Kind::Loop(_) => {
                    let add = |old: &mut Kind, new: Kind| {
                        // The larger one, whoever comes first.
                        let size = |k: &Kind| if let Kind::Loop(b) = k { b.len() } else { 0 };
                        if size(&new) > size(old) {
                            *old = new;
                        }
                    };
                    match w.loops.get_mut(&pc) {
                        Some(old) => add(old, kind),
                        None => drop(w.loops.insert(pc, kind)),
                    }
                }
                _ if w.seen.insert(pc) => {
                    progress.blocks.fetch_add(1, Ordering::Relaxed);
                    w.items.push((pc, kind));
                }
                _ => {}
            }
        }
        self.changed.notify_all();
    }
    /// The next item; `None` when there will be no more. Whoever takes one finishes it.
    fn take(&self) -> Option<(u64, Kind)> {
        let mut w = lock(&self.inner);
        loop {
            if let Some(i) = w.items.pop() {
                w.busy += 1;
                return Some(i);
            }
            if w.busy == 0 {
                let Waiting { loops, seen, items, .. } = &mut *w;
                items.extend(std::mem::take(loops).into_iter().filter(|(pc, _)| seen.insert(*pc)));
                if items.is_empty() {
                    self.changed.notify_all();
                    return None;
                }
                continue;
            }
            w = self.changed.wait(w).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
    fn finish(&self) {
        lock(&self.inner).busy -= 1;
        self.changed.notify_all();
    }
}

/// An image as the lifter reads it.
struct Text<'a> {
    image: &'a Image,
}

impl Text<'_> {
    fn segment(&self, addr: u64, code: bool) -> Option<&Segment> {
        self.image.segments.iter().find(|s| (s.code || !code) && (s.addr..s.addr + s.size).contains(&addr))
    }
    fn copy(&self, addr: u64, buf: &mut [u8], code: bool) -> usize {
        let Some(s) = self.segment(addr, code) else { return 0 };
        let at = addr - s.addr;
        let n = buf.len().min((s.size - at) as usize);
        let from = (s.offset + at) as usize;
        match self.image.data.get(from..from + n) {
            Some(b) => {
                buf[..n].copy_from_slice(b);
                n
            }
            None => 0,
        }
    }
}

/// The code that a region may have.
struct Inside<'a> {
    text: &'a Text<'a>,
    warm: &'a dyn Fn(u64) -> bool,
}

impl evm_lifter::Code for Inside<'_> {
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        self.text.copy(addr, buf, true)
    }
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        self.text.copy(addr, buf, false)
    }
    fn is_warm(&mut self, pc: u64) -> bool {
        (self.warm)(pc)
    }
}

/// The region at an address; `None` if nothing there can be decoded, so that it is no code.
fn lift(
    text: &Text<'_>,
    pc: u64,
    more: &[u64],
    bounds: (usize, usize),
    v3: bool,
    warm: &dyn Fn(u64) -> bool,
) -> Option<Lifted> {
    let (max_insns, max_blocks) = bounds;
    let opts = Options { mode: Mode::Region, max_insns, max_blocks, bits: 64, v3, ..Options::default() };
    let lifted = evm_lifter::lift(pc, more, &mut Inside { text, warm }, &opts).ok()?;
    (!lifted.notes.iter().any(|n| n.pc == pc)).then_some(lifted)
}

/// The blocks of an image.
#[derive(Default)]
struct Graph {
    /// Where each goes by direct jumps, or comes back to after a call.
    blocks: BTreeMap<u64, Vec<u64>>,
    /// First addresses of regions.
    starts: BTreeSet<u64>,
    /// The region that a block is in.
    owners: HashMap<u64, u64>,
}

/// While a graph is made.
#[derive(Default)]
struct Search {
    graph: Graph,
    work: Vec<u64>,
    /// Instructions by address.
    insns: HashMap<u64, Insn>,
    /// What is no code.
    dead: HashSet<u64>,
}

/// What a search knows of an instruction.
#[derive(Clone, Copy)]
struct Insn {
    /// The address behind it.
    end: u64,
    /// Whether its code has a jump to who knows where.
    open: bool,
}

impl Graph {
    fn of(text: &Text<'_>, v3: bool, progress: &Progress) -> Graph {
        let mut s = Search::default();
        let inside = |pc: &u64| text.segment(*pc, true).is_some();
        let functions: BTreeSet<u64> = text.image.functions.iter().copied().filter(inside).collect();
        s.work.extend(functions.iter().rev());
        s.graph.starts.extend(&functions);
        s.run(text, v3, progress);
        let mut guesses: Vec<u64> = text.image.guesses.iter().copied().filter(inside).collect();
        guesses.sort_unstable();
        guesses.dedup();
        for g in guesses {
            match s.insns.get(&g) {
                // Where it is reached in a way that is known, that is enough.
                Some(i) if !i.open => {}
                Some(_) => {
                    s.graph.starts.insert(g);
                    s.work.push(g);
                }
                None if !s.is_within(g) => {
                    s.graph.starts.insert(g);
                    s.work.push(g);
                }
                // In the middle of an instruction.
                None => {}
            }
            s.run(text, v3, progress);
        }
        let Search { mut graph, dead, .. } = s;
        graph.starts.retain(|pc| !dead.contains(pc) && inside(pc));
        graph.divide();
        graph
    }
    /// Give each block to a region; a block that two would have starts one.
    fn divide(&mut self) {
        loop {
            let mut owners: HashMap<u64, u64> = self.starts.iter().map(|s| (*s, *s)).collect();
            let mut shared = vec![];
            for start in &self.starts {
                let mut work = vec![*start];
                while let Some(b) = work.pop() {
                    for t in self.blocks.get(&b).into_iter().flatten() {
                        match owners.get(t) {
                            None => {
                                owners.insert(*t, *start);
                                work.push(*t);
                            }
                            Some(o) if o != start && o != t => shared.push(*t),
                            Some(_) => {}
                        }
                    }
                }
            }
            self.owners = owners;
            if shared.is_empty() {
                return;
            }
            self.starts.extend(shared);
        }
    }
}

impl Search {
    /// Whether an address is in an instruction that begins before it.
    fn is_within(&self, pc: u64) -> bool {
        (1..15).any(|n| self.insns.get(&pc.wrapping_sub(n)).is_some_and(|i| i.end > pc))
    }
    /// Lift all blocks that are reached from the addresses in `work`.
    fn run(&mut self, text: &Text<'_>, v3: bool, progress: &Progress) {
        while let Some(pc) = self.work.pop() {
            if self.graph.blocks.contains_key(&pc) || self.dead.contains(&pc) || text.segment(pc, true).is_none() {
                continue;
            }
            let blocks = &self.graph.blocks;
            let warm = |to: u64| to == pc || !blocks.contains_key(&to);
            let made = guard::caught(pc, || Ok(lift(text, pc, &[], FIRST, v3, &warm))).ok().flatten();
            let Some(lifted) = made else {
                self.dead.insert(pc);
                continue;
            };
            progress.found.fetch_add(lifted.region.insns.into(), Ordering::Relaxed);
            self.take(&lifted.region);
        }
    }
    fn take(&mut self, r: &Region) {
        let (targets, unresolved) = targets(r);
        let markers = r.blocks.iter().flat_map(|b| &b.insts).filter(|i| i.op == Op::Marker);
        let pcs: BTreeSet<u64> = markers.map(|i| i.imm as u64).collect();
        for pc in &pcs {
            // It ends where the next one begins, or the bytes do that were lifted.
            let bytes = r.source.iter().map(|(a, n)| *a..a + u64::from(*n)).find(|b| b.contains(pc));
            let next = pcs.range(pc + 1..).next().copied();
            let Some(end) = bytes.map(|b| next.map_or(b.end, |n| n.min(b.end))) else { continue };
            let insn = self.insns.entry(*pc).or_insert(Insn { end, open: false });
            insn.open |= unresolved > 0;
        }
        for t in targets {
            if t.call {
                self.graph.starts.insert(t.pc);
            }
            self.work.push(t.pc);
        }
        for (n, b) in r.blocks.iter().enumerate().filter(|b| b.1.insn_start) {
            let to = successors(r, n);
            self.work.extend(&to);
            self.graph.blocks.entry(b.pc).or_insert(to);
        }
    }
}

/// Addresses that a block goes to without a call, through blocks that are parts of an instruction.
fn successors(r: &Region, from: usize) -> Vec<u64> {
    let (mut out, mut seen, mut work) = (vec![], HashSet::new(), vec![from]);
    while let Some(b) = work.pop() {
        let data = &r.blocks[b];
        match &data.term {
            Term::Exit(v) => out.extend(constant(data, *v)),
            Term::Call { ret, .. } => out.push(*ret),
            Term::Service { next, .. } => out.push(*next),
            Term::Jump(_) | Term::Br(..) | Term::Switch(..) | Term::Return(_) | Term::Raise { .. } => {}
        }
        data.term.for_each_target(|t| {
            let t = t.0 as usize;
            if r.blocks[t].insn_start {
                out.push(r.blocks[t].pc);
            } else if seen.insert(t) {
                work.push(t);
            }
        });
    }
    out.sort_unstable();
    out.dedup();
    out
}

struct Made {
    body: Body,
    next: Vec<(u64, Kind)>,
    /// Other addresses at which it can be entered.
    entries: Vec<u64>,
    unresolved: usize,
    source: Vec<(u64, u32)>,
}

fn region(text: &Text<'_>, graph: &Graph, pc: u64, kind: &Kind, v3: bool) -> Option<Made> {
    let (whole, rest) = ((INSNS.0, BLOCKS.0), (INSNS.1, BLOCKS.1));
    let inside = |to: u64| match kind {
        Kind::Region => graph.owners.get(&to) == Some(&pc),
        Kind::Rest => to == pc || !graph.starts.contains(&to),
        Kind::Loop(blocks) => blocks.contains(&to),
    };
    let bounds = if matches!(kind, Kind::Rest) { rest } else { whole };
    let mut r = lift(text, pc, &[], bounds, v3, &inside)?.region;
    let (to, unresolved) = targets(&r);
    let (mut next, mut entries) = (vec![], vec![]);
    if let Kind::Region = kind {
        let unknown = |pc: &u64| !graph.starts.contains(pc) && text.segment(*pc, true).is_some();
        next.extend(to.iter().map(|t| t.pc).filter(unknown).map(|pc| (pc, Kind::Rest)));
    }
    if !matches!(kind, Kind::Loop(_)) {
        // Where blocks are numbered anyway, every loop can be entered; else the outermost ones can, and others are functions.
        let numbered = !wasm::is_reducible(&r);
        let (outer, inner): (Vec<_>, Vec<_>) = loops(&r, pc).into_iter().partition(|l| l.outermost || numbered);
        let own = |l: Loop| (l.header, Kind::Loop(Arc::new(l.blocks)));
        next.extend(inner.into_iter().filter(|l| l.calls).map(own));
        let headers: Vec<u64> = outer.iter().map(|l| l.header).collect();
        let entered = || lift(text, pc, &headers, bounds, v3, &inside);
        match Some(&headers).filter(|h| !h.is_empty()).and_then(|_| entered()) {
            Some(l) if numbered || wasm::is_reducible(&l.region) => {
                r = l.region;
                entries = headers;
            }
            _ => next.extend(outer.into_iter().map(own)),
        }
    }
    let source = r.source.clone();
    evm_ir::validate(&r).ok()?;
    wasm::prepare(&mut r);
    evm_ir::validate(&r).ok()?;
    let here = |pc: u64| if text.segment(pc, true).is_some() { Link::Direct } else { Link::Table };
    let body = wasm::compile(&r, &SETTINGS, &here).ok()?;
    Some(Made { body, next, entries, unresolved, source })
}

/// Where a region goes.
struct Target {
    pc: u64,
    call: bool,
}

fn constant(b: &BlockData, v: Value) -> Option<u64> {
    b.insts.iter().find(|i| i.dst == v && i.op == Op::Const).map(|i| i.imm as u64)
}

/// Where a region goes at known addresses, and how many jumps go who knows where.
fn targets(r: &Region) -> (Vec<Target>, usize) {
    let (mut out, mut unresolved) = (vec![], 0);
    for b in &r.blocks {
        match &b.term {
            Term::Exit(v) => match constant(b, *v) {
                Some(pc) => out.push(Target { pc, call: false }),
                None => unresolved += 1,
            },
            Term::Call { target, ret, cont, .. } => {
                out.extend(constant(b, *target).map(|pc| Target { pc, call: true }));
                if cont.is_none() {
                    out.push(Target { pc: *ret, call: false });
                }
            }
            Term::Service { next, cont, .. } => {
                if cont.is_none() {
                    out.push(Target { pc: *next, call: false });
                }
            }
            Term::Jump(_) | Term::Br(..) | Term::Switch(..) | Term::Return(_) | Term::Raise { .. } => {}
        }
    }
    (out, unresolved)
}

/// A loop that is entered from outside.
struct Loop {
    header: u64,
    blocks: HashSet<u64>,
    outermost: bool,
    /// There are calls in it.
    calls: bool,
}

/// Headers of loops, but for the region's own address, and what belongs to the loops. Blocks are in reverse post-order, so a
/// loop's are behind its header, and reach it without going before it.
fn loops(r: &Region, start: u64) -> Vec<Loop> {
    let mut before: Vec<Vec<usize>> = vec![vec![]; r.blocks.len()];
    for (n, b) in r.blocks.iter().enumerate() {
        b.term.for_each_target(|t| before[t.0 as usize].push(n));
    }
    let headers = (0..r.blocks.len()).filter(|b| r.blocks[*b].loop_header && r.blocks[*b].insn_start);
    let (mut out, mut covered) = (vec![], HashSet::<usize>::new());
    for h in headers {
        let mut inside = HashSet::from([h]);
        let mut work: Vec<usize> = before[h].iter().copied().filter(|b| *b >= h).collect();
        while let Some(b) = work.pop() {
            if inside.insert(b) {
                work.extend(before[b].iter().filter(|b| **b > h));
            }
        }
        let calls = |b: &usize| matches!(r.blocks[*b].term, Term::Call { .. } | Term::Service { .. });
        let (outermost, calls) = (!covered.contains(&h), inside.iter().any(calls));
        covered.extend(inside.iter().copied());
        if r.blocks[h].pc != start {
            let blocks = inside.iter().map(|b| &r.blocks[*b]).filter(|b| b.insn_start).map(|b| b.pc).collect();
            out.push(Loop { header: r.blocks[h].pc, blocks, outermost, calls });
        }
    }
    out
}
