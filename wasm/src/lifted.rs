//! The lifted functions of the module: which guest addresses have one, and whether the guest has the code there that they were
//! lifted from.
//!
//! The linker's list has the addresses and the functions' numbers in the table. The blob `images` has a line for each executable
//! segment that was lifted: the address at which its file is wanted (0: it has a fixed one), the segment's address, its size, where its
//! bytes are in the archive, all hexadecimal, and the file's path.
//!
//! An image is *good* once its bytes in guest memory were compared with those it was lifted from, all of them, since lifted functions call each
//! other directly. Its pages are watched from then on: whatever changes one makes it unknown again, and takes all its functions
//! out of the table that compiled code looks at.
//!
//! # Safety
//! As in [`crate::bundle`]: the list is constant data that the linker made.
#![allow(unsafe_code)]

use crate::bundle::{blob, evm_lifted};
use evm_kernel::mm::Mm;
use evm_memory::PAGE;

/// Words of the table from guest pc to function: see `evm_backend::wasm::abi`, which is not part of this build.
const WORDS: usize = 1 << 16;

/// A row of the linker's list.
#[repr(C)]
struct Entry {
    pc: u64,
    index: u32,
    _zero: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Good,
    /// Something else is there.
    Other,
}

struct Image {
    lo: u64,
    bytes: &'static [u8],
    state: State,
}

impl Image {
    fn end(&self) -> u64 {
        self.lo + self.bytes.len() as u64
    }
    /// Compare guest memory with the bytes, and have it watched.
    fn check(&self, mm: &Mm) -> State {
        if mm.exec_range(self.lo).is_none_or(|(_, end)| end < self.end()) {
            return State::Other;
        }
        let mem = mm.mem();
        let mut page = [0; PAGE as usize];
        for (i, want) in self.bytes.chunks(PAGE as usize).enumerate() {
            let at = self.lo + i as u64 * PAGE;
            let have = &mut page[..want.len()];
            if mem.copy_out(at, have).is_err() || have != want {
                return State::Other;
            }
            mem.watch(at);
            mem.watch(at + want.len() as u64 - 1);
        }
        State::Good
    }
}

/// A file and the address of its first page.
pub struct Wanted {
    pub path: &'static str,
    pub at: u64,
}

/// See the module.
pub struct Lifted {
    entries: &'static [Entry],
    images: Vec<Image>,
    table: Box<[u64]>,
}

struct Line {
    wanted: Wanted,
    lo: u64,
    bytes: &'static [u8],
}

fn lines() -> impl Iterator<Item = Line> {
    let text = blob(b"images\0\0").and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
    let files = blob(b"files\0\0\0").unwrap_or_default();
    text.lines().filter_map(|line| {
        let mut words = line.splitn(5, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let (at, lo, len, offset) = (number()?, number()?, number()? as usize, number()? as usize);
        Some(Line {
            wanted: Wanted { path: words.next()?, at },
            lo,
            bytes: files.get(offset..offset.checked_add(len)?)?,
        })
    })
}

/// Files that are wanted at certain addresses.
pub fn wanted() -> impl Iterator<Item = Wanted> {
    lines().map(|l| l.wanted).filter(|w| w.at != 0)
}

impl Lifted {
    pub fn new() -> Lifted {
        // SAFETY: see the module; volatile, as the compiler does not know the linker.
        let [count, list, ..] = unsafe { (&raw const evm_lifted).read_volatile() };
        let entries = match count {
            0 => &[][..],
            // SAFETY: the list that the linker made, aligned as a page is.
            n => unsafe { std::slice::from_raw_parts(list as usize as *const Entry, n as usize) },
        };
        let images = lines().map(|l| Image { lo: l.lo, bytes: l.bytes, state: State::Unknown }).collect();
        Lifted { entries, images, table: vec![0; WORDS].into() }
    }
    /// Address of the table that compiled code looks at.
    pub fn table(&self) -> u64 {
        self.table.as_ptr() as u64
    }
    /// Number in the table of functions of the one at a guest address.
    pub fn find(&mut self, mm: &Mm, pc: u64) -> Option<u32> {
        let place = (pc & 0xffff) as usize;
        let word = self.table[place];
        if word >> 32 == pc >> 16 && word as u32 != 0 {
            return Some(word as u32);
        }
        let image = self.images.iter_mut().find(|i| (i.lo..i.end()).contains(&pc))?;
        if image.state == State::Unknown {
            image.state = image.check(mm);
        }
        if image.state != State::Good {
            return None;
        }
        let index = self.entries.binary_search_by_key(&pc, |e| e.pc).ok().map(|i| self.entries[i].index)?;
        self.table[place] = (pc >> 16) << 32 | u64::from(index);
        Some(index)
    }
    /// Guest memory in a range has changed. True if functions are gone.
    pub fn drop_range(&mut self, start: u64, end: u64) -> bool {
        let mut gone = false;
        for i in self.images.iter_mut().filter(|i| i.lo < end && start < i.end().next_multiple_of(PAGE)) {
            gone |= i.state == State::Good;
            i.state = State::Unknown;
        }
        if gone {
            self.table.fill(0);
        }
        gone
    }
    /// There is a new address space.
    pub fn clear(&mut self) {
        self.images.iter_mut().for_each(|i| i.state = State::Unknown);
        self.table.fill(0);
    }
}
