//! Ahead of time to WebAssembly: finds the code of images at their planned addresses and makes a function of each region.
//!
//! A worker takes an address, lifts the region there, compiles it, and puts back where the region goes: to callees and to code beyond its
//! bounds. What a region is depends on its address and on the functions that the file tells of, not on the order of work, so the
//! module does not depend on the number of threads. A region ends where it comes to another function.
//!
//! Each loop of a region gets a region of its own, of its blocks alone, for who comes back into the middle of a function from the
//! interpreter: after a signal, a longjmp, or a stack too deep for calls inside each other.

use crate::engine::lock;
use crate::guard;
use crate::lift::Progress;
use evm_backend::wasm::{self, Body, Link, Module, Settings};
use evm_cpu::CpuState;
use evm_ir::{Op, Region, Term, Value};
use evm_lifter::{Mode, Options};
use std::collections::{BTreeMap, HashSet};
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

/// Bounds of a region, and of one that starts at what only may be code.
const INSNS: (usize, usize) = (1500, 200);
/// The same in blocks.
const BLOCKS: (usize, usize) = (500, 60);

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
    let text = Text { image, functions: image.functions.iter().copied().collect() };
    let first = image.functions.iter().map(|pc| (*pc, Kind::Code)).chain(image.guesses.iter().map(|g| (*g, Kind::Guess)));
    let queue = Queue::default();
    queue.add(first.filter(|i| text.segment(i.0, true).is_some()), progress);
    let work = || {
        let mut done = vec![];
        while let Some((pc, kind)) = queue.take() {
            // What cannot be translated is found out by the run, which reports it.
            let made = guard::caught(pc, || Ok(region(&text, pc, &kind, v3))).ok().flatten();
            let next = made.as_ref().map(|m| m.next.clone()).unwrap_or_default();
            progress.found.fetch_add(made.as_ref().map_or(0, |m| m.insns), Ordering::Relaxed);
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
        m.source.iter().for_each(|(a, n)| sum.cover(*a, a + u64::from(*n)));
        into.add(pc, m.body);
    }
    sum
}

/// What is known of an address.
#[derive(Clone, Debug)]
enum Kind {
    Code,
    Guess,
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
    functions: HashSet<u64>,
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
    start: u64,
    kind: &'a Kind,
}

impl evm_lifter::Code for Inside<'_> {
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        self.text.copy(addr, buf, true)
    }
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        self.text.copy(addr, buf, false)
    }
    fn is_warm(&mut self, pc: u64) -> bool {
        match self.kind {
            Kind::Loop(blocks) => blocks.contains(&pc),
            _ => pc == self.start || !self.text.functions.contains(&pc),
        }
    }
}

struct Made {
    body: Body,
    next: Vec<(u64, Kind)>,
    unresolved: usize,
    source: Vec<(u64, u32)>,
    insns: u64,
}

fn region(text: &Text<'_>, pc: u64, kind: &Kind, v3: bool) -> Option<Made> {
    let bound = |b: (usize, usize)| if let Kind::Guess = kind { b.1 } else { b.0 };
    let (max_insns, max_blocks) = (bound(INSNS), bound(BLOCKS));
    let opts = Options { mode: Mode::Region, max_insns, max_blocks, bits: 64, v3, ..Options::default() };
    let lifted = evm_lifter::lift(pc, &[], &mut Inside { text, start: pc, kind }, &opts).ok()?;
    // What does not decode was no code.
    if lifted.notes.iter().any(|n| n.pc == pc) {
        return None;
    }
    let mut r = lifted.region;
    let (mut next, unresolved) = targets(&r);
    next.extend(lifted.cold.iter().map(|pc| (*pc, Kind::Code)));
    if let Kind::Loop(_) = kind {
        next.clear();
    } else {
        next.extend(loops(&r, pc));
    }
    let (source, insns) = (r.source.clone(), u64::from(r.insns));
    evm_ir::validate(&r).ok()?;
    wasm::prepare(&mut r);
    evm_ir::validate(&r).ok()?;
    let here = |pc: u64| if text.segment(pc, true).is_some() { Link::Direct } else { Link::Table };
    let body = wasm::compile(&r, &SETTINGS, &here).ok()?;
    Some(Made { body, next, unresolved, source, insns })
}

/// Where a region goes at known addresses, and how many jumps go who knows where.
fn targets(r: &Region) -> (Vec<(u64, Kind)>, usize) {
    let (mut out, mut unresolved) = (vec![], 0);
    for b in &r.blocks {
        let constant = |v: Value| b.insts.iter().find(|i| i.dst == v && i.op == Op::Const).map(|i| i.imm as u64);
        match &b.term {
            Term::Exit(v) => match constant(*v) {
                Some(pc) => out.push((pc, Kind::Code)),
                None => unresolved += 1,
            },
            Term::Call { target, ret, cont, .. } => {
                out.extend(constant(*target).map(|pc| (pc, Kind::Code)));
                if cont.is_none() {
                    out.push((*ret, Kind::Code));
                }
            }
            Term::Service { next, cont, .. } => {
                if cont.is_none() {
                    out.push((*next, Kind::Code));
                }
            }
            Term::Jump(_) | Term::Br(..) | Term::Switch(..) | Term::Return(_) | Term::Raise { .. } => {}
        }
    }
    (out, unresolved)
}

/// Headers of loops, but for the region's own address, and what belongs to the loops. Blocks are in reverse post-order, so a
/// loop's are behind its header, and reach it without going before it.
fn loops(r: &Region, start: u64) -> Vec<(u64, Kind)> {
    let mut before: Vec<Vec<usize>> = vec![vec![]; r.blocks.len()];
    for (n, b) in r.blocks.iter().enumerate() {
        b.term.for_each_target(|t| before[t.0 as usize].push(n));
    }
    let headers = (0..r.blocks.len()).filter(|b| r.blocks[*b].loop_header && r.blocks[*b].insn_start);
    headers
        .filter(|h| r.blocks[*h].pc != start)
        .map(|h| {
            let mut inside = HashSet::from([h]);
            let mut work: Vec<usize> = before[h].iter().copied().filter(|b| *b >= h).collect();
            while let Some(b) = work.pop() {
                if inside.insert(b) {
                    work.extend(before[b].iter().filter(|b| **b > h));
                }
            }
            let pcs = inside.iter().map(|b| &r.blocks[*b]).filter(|b| b.insn_start).map(|b| b.pc);
            (r.blocks[h].pc, Kind::Loop(Arc::new(pcs.collect())))
        })
        .collect()
}
