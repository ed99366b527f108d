//! Units of pages: the blocks of an image that are copied together.
//!
//! All blocks that begin in a page of guest code and that runs came to are one unit. They go to each other directly, and are not counted;
//! a page's unit is compared with the guest's bytes, installed and dropped as a whole.
//!
//! A block of a unit is *entered* if control comes to it from outside, by a record: it is called, another page jumps to it, an instruction
//! before it is the interpreter's, or nothing that is known goes to it, so that an indirect jump does. What this leaves out shows
//! itself: a run that finds no code for an address says so, and the block is entered from then on. An entered block starts
//! knowing nothing of addresses, so there are to be few.
//!
//! A loop may go through several pages. What is entered in it by a jump is counted, for a region to have the loop to itself if it is hot.

use super::format::{Content, Known, NO_SLOT, Unit};
use super::maker::{Links, Maker, Slots, Text};
use crate::code::translate::BLOCK_INSNS;
use evm_backend::direct::{Block, Way, is_for_compiler, ways};
use evm_lifter::Instruction;
use petgraph::algo::kosaraju_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is known of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// See the module.
    pub entered: bool,
    /// See the module.
    pub counted: bool,
    /// It is compiled, not copied.
    pub compiled: bool,
    /// A block of its unit goes there.
    near: bool,
}

/// The blocks of an image, by their pc told from its first address.
pub(crate) struct Graph(BTreeMap<u32, Node>);

/// The blocks of a page.
pub(crate) type Nodes = Vec<(u32, Node)>;

/// The instructions of the block at `pc`, up to the next that is known.
fn instructions(text: &Text, bits: u32, pc: u32, is_known: &dyn Fn(u32) -> bool) -> Vec<Instruction> {
    let mut bytes = text;
    let Ok(mut insns) = evm_lifter::block(text.lo + u64::from(pc), &mut bytes, bits, BLOCK_INSNS) else {
        return vec![];
    };
    if let Some(n) = insns.iter().skip(1).position(|i| text.near(i.ip()).is_some_and(is_known)) {
        insns.truncate(n + 1);
    }
    insns
}

impl Graph {
    /// Of the blocks that `content` has, and of `more`. Runs came to those that they `missed` from outside.
    pub(crate) fn new(text: &Text, bits: u32, content: &Content, more: &[u32], missed: &[u32]) -> Graph {
        let old = content.entries.iter().filter(|e| e.1.1.is_block());
        let node = |known: &Known| Node { entered: *known == Known::InUnit { entered: true }, ..Node::default() };
        let mut nodes: BTreeMap<u32, Node> = old.map(|(pc, e)| (*pc, node(&e.1))).collect();
        let end = (text.hi - text.lo) as u32;
        for pc in more.iter().chain(missed).filter(|pc| **pc < end) {
            nodes.entry(*pc).or_default();
        }
        for pc in missed {
            nodes.entry(*pc).and_modify(|n| n.entered = true);
        }
        let all = nodes.keys().copied().collect();
        let jumps = connect(text, bits, &mut nodes, all);
        for node in nodes.values_mut() {
            node.entered |= !node.near;
        }
        count(&mut nodes, &jumps);
        Graph(nodes)
    }
    /// These are entered, be they known or not.
    pub(crate) fn enter(&mut self, text: &Text, bits: u32, blocks: &[u32]) {
        let new = blocks.iter().copied().filter(|pc| !self.0.contains_key(pc)).collect();
        for pc in blocks.iter().filter(|pc| u64::from(**pc) < text.hi - text.lo) {
            self.0.entry(*pc).or_default().entered = true;
        }
        connect(text, bits, &mut self.0, new);
    }
    /// Those that have to have a slot.
    pub(crate) fn entered(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter(|n| n.1.entered || n.1.compiled).map(|n| *n.0)
    }
    /// The pages whose blocks `content` does not have so, and these blocks.
    pub(crate) fn changed(&self, content: &Content) -> Vec<(u32, Nodes)> {
        let mut pages: BTreeMap<u32, Nodes> = BTreeMap::new();
        self.0.iter().for_each(|(pc, n)| pages.entry(pc / 4096).or_default().push((*pc, *n)));
        let same = |(pc, node): &(u32, Node)| match content.entries.get(pc).map(|e| &e.1) {
            Some(Known::InUnit { entered }) => !node.compiled && *entered == node.entered,
            Some(Known::Alone(p)) => node.compiled && !p.copied,
            Some(Known::Named) | None => false,
        };
        pages.into_iter().filter(|p| !p.1.iter().all(same)).collect()
    }
}

/// Find out where these of the blocks go, and which of them are compiled. Gives the jumps.
fn connect(text: &Text, bits: u32, nodes: &mut BTreeMap<u32, Node>, mut all: Vec<u32>) -> Vec<(u32, u32)> {
    let mut jumps = vec![];
    while let Some(from) = all.pop() {
        let insns = instructions(text, bits, from, &|pc| nodes.contains_key(&pc));
        let compiled = is_for_compiler(&insns);
        nodes.entry(from).and_modify(|n| n.compiled = compiled);
        for way in insns.last().into_iter().flat_map(ways) {
            let (to, is_jump) = match way {
                Way::Jump(to) | Way::Next(to) => (to, !compiled),
                Way::Outside(to) => (to, false),
            };
            let Some(to) = text.near(to) else { continue };
            // What goes on without a jump has run as well.
            if matches!(way, Way::Next(_)) && insns.len() == BLOCK_INSNS && !nodes.contains_key(&to) {
                nodes.insert(to, Node::default());
                all.push(to);
            }
            let Some(node) = nodes.get_mut(&to) else { continue };
            let near = is_jump && to / 4096 == from / 4096;
            node.near |= near;
            node.entered |= !near;
            jumps.extend(is_jump.then_some((from, to)));
        }
    }
    jumps
}

/// Have the blocks counted that another page jumps to, if that is in a loop.
fn count(nodes: &mut BTreeMap<u32, Node>, jumps: &[(u32, u32)]) {
    let graph: DiGraphMap<u32, ()> = DiGraphMap::from_edges(jumps);
    let mut part = HashMap::new();
    for (n, all) in kosaraju_scc(&graph).into_iter().enumerate() {
        part.extend(all.into_iter().map(|pc| (pc, n)));
    }
    for (_, to) in jumps.iter().filter(|(from, to)| from / 4096 != to / 4096 && part.get(from) == part.get(to)) {
        nodes.entry(*to).and_modify(|n| n.counted = true);
    }
}

/// What was made of a page.
pub(crate) struct Made {
    page: u32,
    unit: Option<Unit>,
    /// Those that are known to be blocks, with their translations.
    blocks: Vec<(u32, Known)>,
}

impl Made {
    /// How many blocks.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }
    /// Add it to what there is; a block that is entered gets a slot.
    pub(crate) fn put(self, content: &mut Content, most: u32) {
        match self.unit {
            Some(u) => content.units.insert(self.page, u),
            None => content.units.remove(&self.page),
        };
        for (pc, known) in self.blocks {
            let slot = match known {
                Known::InUnit { entered: false } => content.entries.get(&pc).map_or(NO_SLOT, |e| e.0),
                _ => content.slot(pc, most).unwrap_or(NO_SLOT),
            };
            content.entries.insert(pc, (slot, known));
        }
    }
}

impl Maker<'_> {
    /// Translate the blocks of a page.
    pub(crate) fn page(&mut self, slots: &mut Slots<'_>, page: u32, mut nodes: Nodes) -> Made {
        let made = catch_unwind(AssertUnwindSafe(|| self.unit(slots, &mut nodes)));
        let unit = made.unwrap_or_else(|_| {
            // Whatever was wrong, the run finds it again and reports it.
            self.forget();
            None
        });
        let mut blocks = vec![];
        for (pc, node) in nodes {
            let known = if unit.is_some() && !node.compiled {
                Some(Known::InUnit { entered: node.entered })
            } else {
                self.alone(slots, pc).map(Known::Alone)
            };
            blocks.extend(known.map(|k| (pc, k)));
        }
        Made { page, unit, blocks }
    }
    /// Copy these blocks of a page; those that turn out to be entered are marked.
    fn unit(&mut self, slots: &mut Slots<'_>, nodes: &mut Nodes) -> Option<Unit> {
        let (key, text) = (self.key, self.text);
        let known: Vec<u32> = nodes.iter().map(|n| n.0).collect();
        let is_known = |pc: u32| known.binary_search(&pc).is_ok();
        loop {
            let mut links = Links::new(key, slots);
            let mut blocks = vec![];
            let mut order = vec![];
            for (pc, node) in nodes.iter().filter(|n| !n.1.compiled) {
                let at = text.lo + u64::from(*pc);
                let insns = instructions(text, key.bits, *pc, &is_known);
                let counted = Some(links.index(at)).filter(|i| *i != 0 && node.counted);
                blocks.push(Block { pc: at, insns, counted, entered: node.entered });
                order.push((*pc, node.entered));
            }
            let code = self.direct.as_mut()?.copy(&blocks, key.bits, key.v3, &mut |pc| links.index(pc))?;
            if links.full {
                return None;
            }
            let mut again = false;
            for pc in code.left_out.iter().filter_map(|pc| text.near(*pc)) {
                match nodes.binary_search_by_key(&pc, |n| n.0) {
                    Ok(n) => again |= !std::mem::replace(&mut nodes[n].1.entered, true),
                    Err(_) => self.starts.push(pc),
                }
            }
            if again {
                continue;
            }
            let starts = order.iter().zip(code.starts).filter(|(o, _)| o.1).map(|(o, at)| (o.0, *at)).collect();
            let (code, pcs) = (code.code.to_vec(), super::maker::near_pcs(code.pcs, key.lo)?);
            let end = |b: &Block| b.insns.last().map_or(b.pc, Instruction::next_ip).max(b.pc + 1);
            let (source, bytes) = source(text, blocks.iter().map(|b| (b.pc, end(b))).collect())?;
            return Some(Unit { source, bytes, code, pcs, starts });
        }
    }
}

/// Guest bytes from `start` to `end` of each of these: the ranges, those that touch as one, and the bytes one after the other.
pub(super) fn source(text: &Text, mut parts: Vec<(u64, u64)>) -> Option<(Vec<(u32, u32)>, Vec<u8>)> {
    parts.sort_unstable();
    parts.dedup_by(|next, r| {
        let touches = next.0 <= r.1;
        if touches {
            r.1 = r.1.max(next.1);
        }
        touches
    });
    let (mut source, mut bytes) = (vec![], vec![]);
    for (from, to) in parts {
        let b = text.range(from, (to - from) as usize);
        if b.len() as u64 != to - from {
            return None;
        }
        source.push((text.near(from)?, b.len() as u32));
        bytes.extend_from_slice(b);
    }
    Some((source, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::format::Key;

    const LO: u64 = 0x40_0000;

    /// Two pages with these pieces of code in them.
    fn text(pieces: &[(usize, &[u8])]) -> (Key, Text) {
        let mut bytes = vec![0xcc; 0x2000];
        pieces.iter().for_each(|(at, code)| bytes[*at..*at + code.len()].copy_from_slice(code));
        let key = Key { lo: LO, hi: LO + 0x2000, bits: 64, v3: true, copied: true, ..Key::default() };
        let text = Text::new(&key, bytes, std::fs::File::open("/dev/null").expect("a file"));
        (key, text)
    }
    /// Those of the blocks that are entered, and those that are counted.
    fn entered(g: &Graph) -> (Vec<u32>, Vec<u32>) {
        let of = |f: &dyn Fn(&Node) -> bool| g.0.iter().filter(|n| f(n.1)).map(|n| *n.0).collect();
        (of(&|n| n.entered), of(&|n| n.counted))
    }
    fn jump(from: i32, to: i32) -> [u8; 5] {
        let [a, b, c, d] = (to - from - 5).to_le_bytes();
        [0xe9, a, b, c, d]
    }

    #[test]
    fn what_is_entered() {
        // 0: call 0x40   5: je 0x5   7: syscall   9: ret   40: jmp 0x1008   1008: je 0x1000   100a: jmp 0x40
        let (_, text) = text(&[
            (0, &[0xe8, 0x3b, 0, 0, 0, 0x74, 0xfe, 0x0f, 0x05, 0xc3]),
            (0x40, &jump(0x40, 0x1008)),
            (0x1000, &[0xc3]),
            (0x1008, &[0x74, 0xf6]),
            (0x100a, &jump(0x100a, 0x40)),
        ]);
        let all = [0, 5, 7, 9, 0x40, 0x1000, 0x1008, 0x100a];
        let g = Graph::new(&text, 64, &Content::default(), &all, &[]);
        assert_eq!(entered(&g), (vec![0, 9, 0x40, 0x1008], vec![0x40, 0x1008]));
        // A run says that it came to one from outside.
        let g = Graph::new(&text, 64, &Content::default(), &all, &[7]);
        assert_eq!(entered(&g).0, [0, 7, 9, 0x40, 0x1008]);
        let mut g = Graph::new(&text, 64, &Content::default(), &all, &[]);
        g.enter(&text, 64, &[7, 0x100c]);
        assert_eq!(entered(&g).0, [0, 7, 9, 0x40, 0x1008, 0x100c]);
        // What is not known to run is not looked at, and what is outside of the image is none.
        let g = Graph::new(&text, 64, &Content::default(), &[0x1008, 0x100a, 0x3000], &[0x9000]);
        assert_eq!(entered(&g), (vec![0x1008], vec![]));
    }

    #[test]
    fn straight_code_is_found() {
        let (_, text) = text(&[(0, &[0x90; 200]), (200, &[0xc3])]);
        let g = Graph::new(&text, 64, &Content::default(), &[0], &[]);
        assert_eq!(g.0.keys().copied().collect::<Vec<_>>(), [0, 64, 128, 192]);
    }

    /// A page is made once, and again when more is known of it; what was entered stays so.
    #[test]
    fn pages_change_with_what_is_known() {
        // 0: je 4   2: nop; nop   4: ret
        let (key, text) = text(&[(0, &[0x74, 2, 0x90, 0x90, 0xc3])]);
        let mut content = Content::default();
        let mut maker = Maker::new(&key, &text);
        assert_eq!(maker.blocks(&mut content, &[0, 4], &[]), 2);
        let unit = content.units[&0].clone();
        assert_eq!((unit.source.clone(), unit.starts.len()), (vec![(0, 2), (4, 1)], 1));
        assert_eq!(unit.bytes, [0x74, 2, 0xc3]);
        assert_eq!(maker.blocks(&mut content, &[0, 4], &[]), 0);
        assert_eq!(content.units[&0], unit);
        assert_eq!(maker.blocks(&mut content, &[2], &[]), 3);
        assert_eq!(content.units[&0].source, [(0, 5)]);
        assert_eq!(maker.blocks(&mut content, &[], &[4]), 3);
        assert_eq!(content.units[&0].starts.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(maker.blocks(&mut content, &[0, 2, 4], &[]), 0);
    }
}
