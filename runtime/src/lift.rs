//! Translating ahead of time: images that a survey found, their code discovered and translated on all cores.

use crate::cache::discover::{Found, discover};
use crate::cache::folder::Folder;
use crate::cache::format::{Content, Key, Known, NO_SLOT, Piece, Region, View};
use crate::cache::images::Image;
use crate::cache::maker::{Maker, Slots, Text};
use crate::cache::units::{self, Graph, Nodes};
use crate::cache::worker;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// An image that a program maps.
pub struct Surveyed(Arc<Image>);

/// A lifted image.
pub struct Lifted {
    /// Name of its file of translations.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// What was found.
    pub found: Found,
    /// Blocks that have code.
    pub blocks: usize,
    /// Regions of optimized code.
    pub regions: usize,
    /// Blocks without, because they have no translation or the image has no slots left.
    pub without: usize,
}

/// How much is done, for a progress bar.
#[derive(Default)]
pub struct Progress {
    /// Guest instructions found.
    pub found: AtomicU64,
    /// Blocks to translate.
    pub blocks: AtomicU64,
    /// Of these, done.
    pub done: AtomicU64,
}

/// What to do with the code that is found.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiftOptions {
    /// Make a region of each function besides.
    pub optimize: bool,
    /// Threads.
    pub threads: usize,
}

impl Surveyed {
    pub(crate) fn new(image: Arc<Image>) -> Surveyed {
        Surveyed(image)
    }
    /// Guest path.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(self.0.label()).into_owned()
    }
    /// What it is.
    pub fn key(&self) -> Key {
        self.0.key
    }
    /// The file.
    pub fn file(&self) -> std::io::Result<File> {
        Ok(File::from(self.0.file.try_clone()?))
    }
    /// Discover and translate its code. `starts` are offsets in the file that are known to be code; what `profile`, the folder of
    /// kept translations, has of it is taken over.
    pub fn lift(
        &self,
        starts: &[u64],
        profile: Option<&Folder>,
        options: LiftOptions,
        progress: &Progress,
    ) -> Result<Lifted, String> {
        let key = self.key();
        let text = worker::text(&key, &self.0.file).map_err(|e| e.to_string())?;
        let text = text.ok_or("its file has changed, or its code is too large")?;
        let old = profile.and_then(|f| f.read(&key.name()).ok());
        let view = old.as_deref().and_then(|b| View::new(b, &key).ok());
        let mut content = view.and_then(|v| v.content()).unwrap_or_default();
        content.label = self.0.label().to_vec();
        let mut starts: Vec<u32> = starts
            .iter()
            .filter_map(|o| o.checked_sub(key.offset).filter(|o| *o < key.hi - key.lo).map(|o| o as u32))
            .chain(content.entries.iter().filter(|e| e.1.1.is_block()).map(|e| *e.0))
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let found = discover(&key, &text, &starts, &|n| {
            progress.found.fetch_add(n, Ordering::Relaxed);
        });
        translate(&key, &text, &mut content, &found, options, progress);
        let bytes = content.write(&key).ok_or("its translations are too large")?;
        let blocks = content.entries.values().filter(|e| e.1.is_block()).count();
        let is_block = |pc: &&u32| content.entries.get(pc).is_some_and(|e| e.1.is_block());
        let (regions, without) =
            (content.regions.len(), found.blocks.len() - found.blocks.iter().filter(is_block).count());
        Ok(Lifted { name: key.name(), bytes, found, blocks, regions, without })
    }
}

/// The code that can be found in an executable segment of a file, without running anything. Addresses and `starts` are told
/// from the file's start.
pub fn coverage(file: &File, offset: u64, size: u64, bits: u32, starts: &[u64]) -> std::io::Result<Found> {
    use std::os::unix::fs::FileExt;
    let lo = offset & !4095;
    let len = (offset + size).next_multiple_of(4096) - lo;
    let key = Key { size: file.metadata()?.len(), lo, hi: lo + len, offset: lo, bits, v3: true, ..Key::default() };
    let mut bytes = vec![0; len.min(key.size.saturating_sub(lo)) as usize];
    file.read_exact_at(&mut bytes, lo)?;
    let text = Text::new(&key, bytes, file.try_clone()?);
    let starts: Vec<u32> = starts.iter().filter_map(|s| s.checked_sub(lo)?.try_into().ok()).collect();
    Ok(discover(&key, &text, &starts, &|_| {}))
}

/// Translate all blocks that were found and have no code, and with `optimize` all functions.
fn translate(key: &Key, text: &Text, content: &mut Content, found: &Found, options: LiftOptions, progress: &Progress) {
    let mut run = |content: &mut Content, jobs| run(key, text, content, jobs, options.threads, progress);
    let is_new = |pc: &u32| content.entries.get(pc).is_none_or(|e| !e.1.is_block());
    let blocks: Vec<u32> = found.blocks.iter().copied().filter(is_new).collect();
    if key.copied {
        copy_pages(key, text, content, found, &blocks, &mut run);
    } else {
        const CHUNK: usize = 256;
        let with_slot = |pc: &u32| content.slot(*pc, key.slots()).is_some();
        let blocks: Vec<u32> = blocks.into_iter().filter(with_slot).collect();
        run(content, blocks.chunks(CHUNK).map(|some| Job::Blocks(some.to_vec())).collect());
    }
    if options.optimize {
        let functions = found.functions.iter().filter(|pc| content.entries.contains_key(pc));
        let functions = functions.map(|pc| Job::Function(*pc)).collect();
        run(content, functions);
    }
}

/// Copy all pages that these blocks are in.
fn copy_pages(
    key: &Key,
    text: &Text,
    content: &mut Content,
    found: &Found,
    blocks: &[u32],
    run: &mut dyn FnMut(&mut Content, Vec<Job>) -> BTreeSet<u32>,
) {
    // Each round finds what is behind instructions that the one before did not copy. A file may have a million of these in a row; what is
    // left is copied by the run.
    const ROUNDS: usize = 16;
    // What is known to begin a function may be called by what is not found.
    let mut entered: Vec<u32> = found.indirect.union(&found.functions).copied().collect();
    entered.retain(|pc| found.blocks.contains(pc));
    let mut graph = Graph::new(text, key.bits, content, blocks, &entered);
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        graph.entered().for_each(|pc| {
            content.slot(pc, key.slots());
        });
        let pages = graph.changed(content).into_iter().map(|(page, nodes)| Job::Page(page, nodes)).collect();
        let starts = run(content, pages);
        let new = |pc: &u32| match content.entries.get(pc) {
            Some((_, Known::InUnit { entered })) => !entered,
            Some((_, Known::Alone(_))) => false,
            Some((_, Known::Named)) | None => true,
        };
        let more: Vec<u32> = starts.into_iter().filter(new).filter(|pc| seen.insert(*pc)).collect();
        if more.is_empty() {
            break;
        }
        graph.enter(text, key.bits, &more);
    }
}

/// What a thread does at a time.
enum Job {
    Blocks(Vec<u32>),
    Page(u32, Nodes),
    Function(u32),
}

impl Job {
    /// Blocks and functions.
    fn len(&self) -> usize {
        match self {
            Job::Blocks(all) => all.len(),
            Job::Page(_, nodes) => nodes.len(),
            Job::Function(_) => 1,
        }
    }
}

/// What a thread has made.
#[derive(Default)]
struct Made {
    pieces: Vec<(u32, Piece)>,
    pages: Vec<units::Made>,
    regions: Vec<Region>,
    starts: Vec<u32>,
}

/// Do all of that on all threads. Gives where runs will go on behind instructions that were not copied.
fn run(
    key: &Key,
    text: &Text,
    content: &mut Content,
    jobs: Vec<Job>,
    threads: usize,
    progress: &Progress,
) -> BTreeSet<u32> {
    let slots: HashMap<u32, u32> =
        content.entries.iter().map(|(pc, e)| (*pc, e.0)).filter(|e| e.1 != NO_SLOT).collect();
    progress.blocks.fetch_add(jobs.iter().map(Job::len).sum::<usize>() as u64, Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut maker = Maker::new(key, text);
        let mut made = Made::default();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            match job {
                Job::Blocks(some) => {
                    let piece = |pc: &u32| Some((*pc, maker.alone(&mut Slots::Fixed(&slots), *pc)?));
                    made.pieces.extend(some.iter().filter_map(piece));
                }
                Job::Page(page, nodes) => made.pages.push(maker.page(&mut Slots::Fixed(&slots), *page, nodes.clone())),
                Job::Function(pc) => made.regions.extend(maker.function(&slots, *pc)),
            }
            progress.done.fetch_add(job.len() as u64, Ordering::Relaxed);
        }
        made.starts = maker.starts;
        made
    };
    let all: Vec<Made> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| s.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    let mut starts = BTreeSet::new();
    for mut made in all {
        starts.extend(made.starts);
        made.pages.into_iter().for_each(|p| p.put(content, key.slots()));
        for (pc, piece) in made.pieces {
            if let Some(e) = content.entries.get_mut(&pc) {
                e.1 = Known::Alone(piece);
            }
        }
        content.regions.append(&mut made.regions);
    }
    // The order of threads is not to be seen in the file.
    content.regions.sort_by(|a, b| a.entries.cmp(&b.entries));
    starts
}
