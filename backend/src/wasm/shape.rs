//! The shape of a region's control flow: what can be written as nested blocks and loops.
//!
//! After N. Ramsey, "Beyond Relooper": in a reducible graph each block stands, in the order of a depth-first walk, inside the
//! block that dominates it. A block with several ways to it gets a label that encloses those ways, a loop's first block a loop.

use crate::wasm::Error;
use evm_ir::{Block, Region, Term};

/// Successors of a block inside the region.
pub fn successors(t: &Term) -> Vec<usize> {
    let of = |b: &Block| b.0 as usize;
    match t {
        Term::Jump(b) => vec![of(b)],
        Term::Br(_, a, b) => vec![of(a), of(b)],
        Term::Switch(_, table, d) => table.iter().chain([d]).map(of).collect(),
        Term::Call { cont, .. } | Term::Service { cont, .. } => cont.iter().map(of).collect(),
        Term::Exit(_) | Term::Return(_) | Term::Raise { .. } => vec![],
    }
}

/// Of a region; the node behind its last block is the function's entry.
pub struct Shape {
    /// Node of the function's entry.
    pub root: usize,
    /// (guest address, block), each address once.
    pub entries: Vec<(u64, usize)>,
    /// Nodes in reverse postorder, the root first.
    pub order: Vec<usize>,
    /// Place in `order`; `usize::MAX` for what cannot be reached.
    pub place: Vec<usize>,
    /// Whether the graph is reducible; the rest is only valid if it is.
    pub reducible: bool,
    /// Nodes that a node dominates immediately, in the order of `order`.
    pub children: Vec<Vec<usize>>,
    /// Nodes dominated, the node itself included.
    pub size: Vec<usize>,
    /// Reached by more than one forward edge, or by a table.
    pub merge: Vec<bool>,
    /// Target of a back edge.
    pub header: Vec<bool>,
}

impl Shape {
    /// Find it.
    pub fn new(r: &Region) -> Result<Shape, Error> {
        let root = r.blocks.len();
        let mut entries: Vec<(u64, usize)> = vec![];
        for e in &r.entries {
            let pc = r.blocks.get(e.0 as usize).ok_or(Error::Invalid("no such entry"))?.pc;
            if entries.iter().all(|x| x.0 != pc) {
                entries.push((pc, e.0 as usize));
            }
        }
        if entries.is_empty() {
            return Err(Error::Invalid("no entry"));
        }
        let mut succ: Vec<Vec<usize>> = r.blocks.iter().map(|b| successors(&b.term)).collect();
        if succ.iter().flatten().any(|t| *t >= root) {
            return Err(Error::Invalid("no such block"));
        }
        succ.push(entries.iter().map(|e| e.1).collect());
        let order = reverse_postorder(&succ, root);
        let mut place = vec![usize::MAX; root + 1];
        for (n, b) in order.iter().enumerate() {
            place[*b] = n;
        }
        let mut pred: Vec<Vec<usize>> = vec![vec![]; root + 1];
        for b in &order {
            for t in &succ[*b] {
                pred[*t].push(*b);
            }
        }
        let up = dominators(&order, &place, &pred);
        let mut s = Shape {
            root,
            entries,
            reducible: true,
            children: vec![vec![]; root + 1],
            size: vec![1; root + 1],
            merge: vec![false; root + 1],
            header: vec![false; root + 1],
            order,
            place,
        };
        s.classify(r, &succ, &pred, &up);
        Ok(s)
    }

    fn classify(&mut self, r: &Region, succ: &[Vec<usize>], pred: &[Vec<usize>], up: &[usize]) {
        let dominates = |a: usize, mut b: usize| {
            while self.place[b] > self.place[a] {
                b = up[b];
            }
            a == b
        };
        for b in &self.order {
            let table = r.blocks.get(*b).map_or(self.entries.len() > 1, |d| matches!(d.term, Term::Switch(..)));
            for t in &succ[*b] {
                if self.place[*t] <= self.place[*b] {
                    self.header[*t] = true;
                    self.reducible &= dominates(*t, *b);
                } else {
                    self.merge[*t] |= table;
                }
            }
            let forward = pred[*b].iter().filter(|p| self.place[**p] < self.place[*b]).count();
            self.merge[*b] |= forward > 1;
        }
        for b in self.order[1..].iter().rev() {
            self.size[up[*b]] += self.size[*b];
        }
        for b in &self.order[1..] {
            self.children[up[*b]].push(*b);
        }
    }
}

fn reverse_postorder(succ: &[Vec<usize>], root: usize) -> Vec<usize> {
    let mut seen = vec![false; succ.len()];
    let mut order = vec![];
    let mut stack = vec![(root, 0)];
    seen[root] = true;
    while let Some((b, next)) = stack.last_mut() {
        if let Some(t) = succ[*b].get(*next) {
            *next += 1;
            if !std::mem::replace(&mut seen[*t], true) {
                stack.push((*t, 0));
            }
        } else {
            order.push(*b);
            stack.pop();
        }
    }
    order.reverse();
    order
}

/// Immediate dominators (Cooper, Harvey, Kennedy); the root's is itself.
fn dominators(order: &[usize], place: &[usize], pred: &[Vec<usize>]) -> Vec<usize> {
    let mut up = vec![usize::MAX; pred.len()];
    up[order[0]] = order[0];
    loop {
        let mut changed = false;
        for b in &order[1..] {
            let mut new = usize::MAX;
            for p in pred[*b].iter().filter(|p| up[**p] != usize::MAX) {
                let (mut x, mut y) = (*p, new);
                if y != usize::MAX {
                    while x != y {
                        if place[x] > place[y] {
                            x = up[x];
                        } else {
                            y = up[y];
                        }
                    }
                }
                new = x;
            }
            changed |= up[*b] != new;
            up[*b] = new;
        }
        if !changed {
            return up;
        }
    }
}
