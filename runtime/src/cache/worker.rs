//! The translator: a process beside the run that writes the folder of kept translations.
//!
//! It is forked before the run is confined, waits for what the run tells it at its end, and confines itself to the folder before it
//! looks at that: one message of a lock, a memory file with images and blocks, and the images' files. All of that is the word of a process
//! that guest code may have taken over, so nothing of it is believed: keys are compared with the files, addresses are only places
//! to start at, sizes are bounded, and so are the translator's time and memory. When the run has ended it translates and
//! ends; nobody waits for it.
//!
//! # Safety
//! `fork` is called while the process has one thread. Messages are built in buffers that outlive the calls and are large enough for
//! their control data.
#![allow(unsafe_code)]

use super::folder::Folder;
use super::format::{Content, Key, Known, View};
use super::images::{Image, Images, News, head};
use super::maker::{Maker, Text, wants_regions};
use super::mapped::Mapped;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Most images of one message (the host passes at most 253 descriptors).
const MOST: usize = 240;
/// Largest list of blocks.
const MAX_LIST: u64 = 64 << 20;
/// Largest executable mapping of which translations are kept.
const MAX_TEXT: u64 = 512 << 20;
/// CPU time of the translator in seconds.
const CPU: u64 = 60;
/// Its wall time in seconds.
const WALL: u32 = 600;
/// A file is written anew for at least this many new blocks, or for one twentieth of those that it has.
const WORTH: usize = 32;
/// What an entry that is missing counts: there are few, and they come again in each run.
const MISSED: usize = 8;

/// The run's end of the wire.
pub(crate) struct Worker {
    socket: OwnedFd,
    folder: Arc<Folder>,
}

impl Worker {
    /// Fork the translator. The calling process must have one thread.
    pub(crate) fn start(images: &Images, size: u64) -> io::Result<Worker> {
        let Some(folder) = images.folder().cloned() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut fds = [0; 2];
        // SAFETY: fills two descriptors, which are owned from here on.
        let (ours, theirs) = unsafe {
            let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
            if libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
        };
        // SAFETY: there is one thread, so the child may do what any process may.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(ours);
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    child(&theirs, &folder, images.engine(), size)
                }));
                // SAFETY: ends this process without what the parent's exit would do.
                unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
            }
            _ => Ok(Worker { socket: ours, folder }),
        }
    }
    /// Tell what this run used and what it had to translate.
    pub(crate) fn send(&self, images: &[Arc<Image>]) -> io::Result<()> {
        for some in images.chunks(MOST) {
            let some = some.iter().filter(|i| !i.is_lifted());
            let mut text = vec![];
            let mut fds = vec![];
            for i in some {
                let news = i.news();
                if news.blocks.is_empty()
                    && news.missed.is_empty()
                    && news.heat.is_empty()
                    && news.recipes.is_empty()
                    && !news.used
                {
                    continue;
                }
                news.put(&mut text);
                fds.push(i.as_fd());
            }
            if fds.is_empty() {
                continue;
            }
            // Held by the translator until it is done: see `Folder::wait`.
            let lock = self.folder.announce()?;
            let mut list = File::from(rustix::fs::memfd_create("evm-blocks", rustix::fs::MemfdFlags::CLOEXEC)?);
            list.write_all(&text)?;
            let mut all = vec![lock.as_fd(), list.as_fd()];
            all.extend(fds);
            send(&self.socket, &all)?;
        }
        Ok(())
    }
}

const CONTROL: usize = 4096;

/// Send descriptors, with one byte as the message.
fn send(socket: &OwnedFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut byte = [0u8];
    let mut control = [0u64; CONTROL / 8];
    let len = size_of_val(&raw[..]);
    // SAFETY: `control` is aligned and has room for `len` bytes (MOST descriptors and two) and their header; all buffers
    // outlive the call.
    unsafe {
        let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let mut m: libc::msghdr = std::mem::zeroed();
        (m.msg_iov, m.msg_iovlen) = (&raw mut iov, 1);
        m.msg_control = control.as_mut_ptr().cast();
        m.msg_controllen = libc::CMSG_SPACE(len as u32) as usize;
        let c = libc::CMSG_FIRSTHDR(&raw const m);
        ((*c).cmsg_level, (*c).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (*c).cmsg_len = libc::CMSG_LEN(len as u32) as usize;
        std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(c), len);
        if libc::sendmsg(socket.as_raw_fd(), &raw const m, libc::MSG_NOSIGNAL) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Receive descriptors; `None` at the end.
fn receive(socket: &OwnedFd) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut byte = [0u8];
    let mut control = [0u64; CONTROL / 8];
    let mut out = vec![];
    // SAFETY: as in `send`; the kernel fills in descriptors that are ours.
    unsafe {
        let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let mut m: libc::msghdr = std::mem::zeroed();
        (m.msg_iov, m.msg_iovlen) = (&raw mut iov, 1);
        (m.msg_control, m.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL);
        let n = libc::recvmsg(socket.as_raw_fd(), &raw mut m, libc::MSG_CMSG_CLOEXEC);
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut c = libc::CMSG_FIRSTHDR(&raw const m);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                let len = (*c).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(c).cast::<RawFd>();
                out.extend((0..len / size_of::<RawFd>()).map(|i| OwnedFd::from_raw_fd(data.add(i).read_unaligned())));
            }
            c = libc::CMSG_NXTHDR(&raw const m, c);
        }
        if n == 0 {
            return Ok(None);
        }
    }
    Ok(Some(out))
}

/// Become a process that holds nothing of the run and is in nobody's way.
fn detach(keep: &[RawFd]) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    // SAFETY: plain system calls. Descriptors that are closed belong to objects of the run, which this process never uses again
    // and, as it ends with `_exit`, never drops.
    unsafe {
        libc::setsid();
        for fd in 0..3 {
            libc::dup2(null.as_raw_fd(), fd);
        }
        let mut from = 3;
        for k in keep.into_iter().filter(|k| *k > 2).chain([RawFd::MAX]) {
            if k > from {
                libc::syscall(libc::SYS_close_range, from as libc::c_uint, (k - 1) as libc::c_uint, 0);
            }
            from = k.saturating_add(1);
        }
        std::mem::forget(null);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        for (what, most) in [(libc::RLIMIT_CPU, CPU), (libc::RLIMIT_CORE, 0), (libc::RLIMIT_AS, 8 << 30)] {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            libc::setrlimit(what, &raw const limit);
        }
    }
    std::env::set_current_dir("/")
}

fn child(socket: &OwnedFd, folder: &Folder, engine: u128, size: u64) -> io::Result<()> {
    detach(&[socket.as_raw_fd(), folder.as_fd().as_raw_fd()])?;
    let mut messages = vec![];
    while let Some(fds) = receive(socket)? {
        messages.push(fds);
    }
    // SAFETY: no pointers.
    unsafe { libc::alarm(WALL) };
    if messages.is_empty() {
        return Ok(());
    }
    // Before the first byte of them is looked at.
    crate::host::confine::confine(&[(folder.path().to_owned(), false)])?;
    let mut wrote = false;
    for fds in &messages {
        let [_lock, list, files @ ..] = &fds[..] else { continue };
        let Ok(list) = read_list(list) else { continue };
        let mut news = news(&list, engine);
        news.iter_mut().for_each(|n| with_few(folder, n));
        let used: Vec<String> = news.iter().filter(|n| n.used).map(|n| n.key.name()).collect();
        // A list that cannot be kept costs the order in which files are removed.
        let _ = folder.note_uses(used.iter().map(|n| &**n));
        // Regions take their time, and all that runs meanwhile has the blocks.
        for what in [What::Blocks, What::Regions] {
            for (n, file) in news.iter().zip(files).filter(|(n, _)| is_worth(folder, n, what)) {
                wrote |= make(folder, n, file, what).unwrap_or(false);
            }
        }
    }
    if wrote {
        let _lock = folder.write_lock();
        let _ = folder.shrink(size);
    }
    Ok(())
}

fn read_list(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut f = File::from(fd.try_clone()?);
    if !f.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    f.rewind()?;
    let mut out = vec![];
    f.take(MAX_LIST).read_to_end(&mut out)?;
    Ok(out)
}

impl News {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.key.bytes());
        let mut words = vec![u32::from(self.used), u32::from(self.precise)];
        let recipes = self.recipes.iter().map(|r| r.len() + 1).sum();
        let counts =
            [self.blocks.len(), self.missed.len(), self.heat.len(), self.targets.len(), recipes, self.label.len()];
        words.extend(counts.map(|n| n as u32));
        words.extend(self.blocks.iter().chain(&self.missed));
        words.extend(self.heat.iter().chain(&self.targets).flat_map(|h| [h.0, h.1]));
        words.extend(self.recipes.iter().flat_map(|r| std::iter::once(r.len() as u32).chain(r.iter().copied())));
        words.iter().for_each(|w| to.extend_from_slice(&w.to_le_bytes()));
        to.extend_from_slice(&self.label);
    }
    /// The next of a list, which is nobody's word to believe.
    fn take(list: &mut &[u8]) -> Option<News> {
        let (key, rest) = list.split_at_checked(80)?;
        let (numbers, rest) = rest.split_at_checked(32)?;
        let words = |b: &[u8]| -> Vec<u32> {
            b.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let pairs = |b: &[u8]| -> Vec<(u32, u32)> { words(b).chunks_exact(2).map(|h| (h[0], h[1])).collect() };
        let n = words(numbers);
        let (blocks, rest) = rest.split_at_checked((n[2] as usize).checked_mul(4)?)?;
        let (missed, rest) = rest.split_at_checked((n[3] as usize).checked_mul(4)?)?;
        let (heat, rest) = rest.split_at_checked((n[4] as usize).checked_mul(8)?)?;
        let (targets, rest) = rest.split_at_checked((n[5] as usize).checked_mul(8)?)?;
        let (recipes, rest) = rest.split_at_checked((n[6] as usize).checked_mul(4)?)?;
        let (label, rest) = rest.split_at_checked(n[7] as usize)?;
        *list = rest;
        let mut blocks = words(blocks);
        blocks.sort_unstable();
        blocks.dedup();
        Some(News {
            key: Key::from_bytes(key)?,
            used: n[0] != 0,
            precise: n[1] != 0,
            blocks,
            missed: words(missed),
            heat: pairs(heat),
            targets: pairs(targets),
            recipes: lists(&words(recipes)),
            label: label.to_vec(),
            due: false,
        })
    }
}

/// Lists of words, each behind its length.
fn lists(mut words: &[u32]) -> Vec<Vec<u32>> {
    let mut out = vec![];
    while let Some((n, rest)) = words.split_first() {
        let Some((list, rest)) = rest.split_at_checked(*n as usize) else { break };
        out.push(list.to_vec());
        words = rest;
    }
    out
}

/// What a list says; it ends where it makes no sense. Images of other engines get no blocks.
fn news(mut list: &[u8], engine: u128) -> Vec<News> {
    let mut out: Vec<News> = std::iter::from_fn(|| News::take(&mut list)).collect();
    for n in out.iter_mut().filter(|n| n.key.engine != engine) {
        n.blocks.clear();
        n.missed.clear();
        n.heat.clear();
        n.targets.clear();
        n.recipes.clear();
    }
    out
}

/// The file's bytes at an image's executable mapping, if it is the file that the key says.
pub(crate) fn text(key: &Key, file: &OwnedFd) -> io::Result<Option<Text>> {
    let f = File::from(file.try_clone()?);
    let m = f.metadata()?;
    let len = key.hi - key.lo;
    if !m.is_file() || m.len() != key.size || len > MAX_TEXT || key.offset >= key.size || head(&f) != Some(key.head) {
        return Ok(None);
    }
    let mut bytes = vec![0; len.min(key.size - key.offset) as usize];
    f.read_exact_at(&mut bytes, key.offset)?;
    Ok(Some(Text::new(key, bytes, f)))
}

/// Note new blocks that are too few, for later runs to add to. What runs come to again and again is
/// enough in the end.
fn with_few(folder: &Folder, n: &mut News) {
    let name = n.key.name();
    if n.blocks.is_empty() || !folder.has(&name) || is_worth(folder, n, What::Blocks) {
        return;
    }
    let few = folder.few(&name);
    if few.len() + n.blocks.len() < WORTH {
        // They are come to again.
        let _ = folder.add_few(&name, &n.blocks);
        return;
    }
    folder.forget_few(&name);
    n.blocks.extend(few);
    n.blocks.sort_unstable();
    n.blocks.dedup();
    n.due = true;
}

/// What is made of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Blocks,
    Regions,
}

/// Whether there is something of that to add to an image's file.
fn is_worth(folder: &Folder, n: &News, what: What) -> bool {
    let is_empty = match what {
        What::Blocks => n.blocks.is_empty() && n.missed.is_empty(),
        What::Regions => n.heat.is_empty() && n.recipes.is_empty(),
    };
    if is_empty {
        return false;
    }
    let name = n.key.name();
    let mapped = folder.image(&name).and_then(|fd| Mapped::new(&fd, &n.key));
    let Ok(m) = mapped else { return true };
    match what {
        What::Blocks if n.due => true,
        What::Blocks => {
            let missing = n.blocks.iter().filter(|pc| m.view.entry(**pc).is_none_or(|e| !e.is_translated())).count();
            let missed = n.missed.iter().filter(|pc| m.view.entry(**pc).is_none_or(|e| !e.has_code())).count();
            missing + MISSED * missed >= enough(m.view.translated())
        }
        What::Regions => wants_regions(&m.view, n),
    }
}

/// New blocks that are worth it to write a file with this many anew.
fn enough(there: usize) -> usize {
    WORTH.min(there.div_ceil(20).max(1))
}

/// Add to an image's file what a run says. True if it was written.
fn make(folder: &Folder, n: &News, file: &OwnedFd, what: What) -> io::Result<bool> {
    let Some(text) = text(&n.key, file)? else { return Ok(false) };
    let name = n.key.name();
    let _lock = folder.write_lock().map_err(io::Error::other)?;
    let old = folder.read(&name).ok();
    let view = old.as_deref().and_then(|b| View::new(b, &n.key).ok());
    let mut content = view.and_then(|v| v.content()).unwrap_or_default();
    if content.label.is_empty() {
        content.label.clone_from(&n.label);
    }
    n.targets.iter().for_each(|(jump, to)| content.target(*jump, *to));
    let mut maker = Maker::new(&n.key, &text);
    let made = match what {
        What::Blocks => add_blocks(&mut maker, &mut content, n),
        What::Regions if n.key.copied => maker.copied_regions(&mut content, n),
        What::Regions => maker.regions(&mut content, n),
    };
    let Some(bytes) = (made > 0).then(|| content.write(&n.key)).flatten() else { return Ok(false) };
    folder.write(&name, &bytes).map_err(io::Error::other)?;
    Ok(true)
}

/// Translate blocks that are missing, if they are enough to be worth it; gives how many were made.
fn add_blocks(maker: &mut Maker<'_>, content: &mut Content, n: &News) -> usize {
    let known = |pc: &u32| content.entries.get(pc).map(|e| &e.1);
    let is_block = |pc: &u32| known(pc).is_some_and(Known::is_block);
    let missing: Vec<u32> = n.blocks.iter().copied().filter(|pc| !is_block(pc)).collect();
    let is_inside = |pc: &u32| known(pc) == Some(&Known::InUnit { entered: false });
    let missed: Vec<u32> = n.missed.iter().copied().filter(is_inside).collect();
    let there = content.entries.values().filter(|e| e.1.is_block()).count();
    if !n.due && missing.len() + MISSED * missed.len() < enough(there) {
        return 0;
    }
    maker.blocks(content, &missing, &missed)
}
