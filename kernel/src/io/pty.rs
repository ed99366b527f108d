//! Pseudo terminals: a pair of files with a line discipline between them.
//!
//! What is written to the [`Master`] is typed at the [`Slave`]: it is edited and echoed as the slave's termios says, and its
//! signal characters become signals for the foreground group. What is written to the slave comes out at the master.
//! Flow control (IXON) and parity are not there: the characters pass.

use super::termios::Termios;
use super::tty::Control;
use super::{anon_stat, lock};
use crate::errno::{Errno, Result};
use crate::file::{File, Ready, Stat};
use crate::kernel::Kernel;
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use linux_raw_sys::general as t;
use linux_raw_sys::ioctl as c;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Most bytes that wait to be read at the slave.
const INPUT: usize = 4096;
/// Most bytes that wait to be read at the master.
const OUTPUT: usize = 65536;
/// Most terminals of a job.
const MAX: u32 = 256;

#[derive(Default)]
struct State {
    termios: Termios,
    window: [u8; 8],
    /// Readable by the slave; in canonical mode only `lines` of it.
    input: VecDeque<u8>,
    /// Lengths of the lines in `input`; one of length 0 is an end of file.
    lines: VecDeque<usize>,
    /// The line being typed.
    edit: Vec<u8>,
    /// The next character is taken literally (VLNEXT).
    literal: bool,
    output: VecDeque<u8>,
    locked: bool,
    /// TIOCEXCL: no more opens.
    exclusive: bool,
    /// The master is in packet mode (TIOCPKT in ioctl_tty(2)).
    packet: bool,
    /// What has happened since its last read: TIOCPKT_FLUSHREAD and so on.
    happened: u8,
    slaves: usize,
    slave_was_open: bool,
    master_gone: bool,
}

/// TIOCPKT_FLUSHREAD.
const PKT_FLUSHREAD: u8 = 1;
/// TIOCPKT_FLUSHWRITE.
const PKT_FLUSHWRITE: u8 = 2;
/// TIOCPKT_NOSTOP.
const PKT_NOSTOP: u8 = 16;
/// TIOCPKT_DOSTOP.
const PKT_DOSTOP: u8 = 32;

impl State {
    /// Drop what was typed and not read.
    fn flush_input(&mut self) {
        self.input.clear();
        self.lines.clear();
        self.edit.clear();
        self.happened |= PKT_FLUSHREAD;
    }
    /// What has happened, if the master is to know.
    fn news(&self) -> u8 {
        if self.packet { self.happened } else { 0 }
    }
}

/// A pair.
pub struct Pty {
    /// N of /dev/pts/N.
    pub index: u32,
    control: Arc<Control>,
    kernel: Weak<Kernel>,
    owner: (u32, u32),
    /// Device and inode number of /dev/pts/N.
    node: Mutex<(u64, u64)>,
    state: Mutex<State>,
    master_queue: WaitQueue,
    slave_queue: WaitQueue,
}

/// The pseudo terminals of a job.
#[derive(Default)]
pub struct Ptys {
    pairs: Mutex<BTreeMap<u32, Weak<Pty>>>,
}

impl Ptys {
    /// Open /dev/ptmx: a new pair; ENOSPC.
    pub fn create(&self, kernel: &Arc<Kernel>, owner: (u32, u32)) -> Result<Arc<Master>> {
        let mut pairs = lock(&self.pairs);
        pairs.retain(|_, p| p.strong_count() > 0);
        let index = (0..MAX).find(|n| !pairs.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let pty = Arc::new(Pty {
            index,
            control: Arc::default(),
            kernel: Arc::downgrade(kernel),
            owner,
            node: Mutex::default(),
            state: Mutex::new(State { locked: true, ..State::default() }),
            master_queue: WaitQueue::default(),
            slave_queue: WaitQueue::default(),
        });
        pairs.insert(index, Arc::downgrade(&pty));
        Ok(Arc::new(Master { pty, gone: Mutex::default() }))
    }
    /// Open /dev/pts/N: EIO while it is locked, ENXIO if there is none.
    pub fn open(&self, index: u32) -> Result<Arc<Slave>> {
        let pty = lock(&self.pairs).get(&index).and_then(Weak::upgrade).ok_or(Errno::ENXIO)?;
        pty.open_slave(true)
    }
    /// The terminal that controls a session.
    pub fn of_session(&self, sid: i32) -> Option<Arc<Pty>> {
        lock(&self.pairs).values().filter_map(Weak::upgrade).find(|p| p.control.session() == sid)
    }
    /// Numbers in use.
    pub fn list(&self) -> Vec<u32> {
        let pairs = lock(&self.pairs);
        pairs.iter().filter(|(_, p)| p.strong_count() > 0).map(|(n, _)| *n).collect()
    }
}

impl Pty {
    /// Name of the slave.
    pub fn path(&self) -> String {
        format!("/dev/pts/{}", self.index)
    }
    /// Session and foreground group.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }
    pub(super) fn open_slave(self: &Arc<Self>, check: bool) -> Result<Arc<Slave>> {
        let mut s = lock(&self.state);
        if check && s.locked || s.master_gone {
            return Err(Errno::EIO);
        }
        if s.exclusive {
            return Err(Errno::EBUSY);
        }
        s.slaves += 1;
        s.slave_was_open = true;
        drop(s);
        Ok(Arc::new(Slave(self.clone())))
    }
    fn signal(&self, sig: i32) {
        if let Some(k) = self.kernel.upgrade() {
            self.control.signal(&k, sig);
        }
    }
    /// Type one byte. Gives the signal to send.
    fn typed(s: &mut State, byte: u8) -> Option<i32> {
        let t = s.termios;
        let mut b = byte;
        if !std::mem::take(&mut s.literal) {
            match b {
                b'\r' if t.iflag & t::IGNCR != 0 => return None,
                b'\r' if t.iflag & t::ICRNL != 0 => b = b'\n',
                b'\n' if t.iflag & t::INLCR != 0 => b = b'\r',
                _ => {}
            }
            if t.iflag & t::ISTRIP != 0 {
                b &= 0x7f;
            }
            if t.local(t::ISIG) {
                let sig = [(libc::VINTR, libc::SIGINT), (libc::VQUIT, libc::SIGQUIT), (libc::VSUSP, libc::SIGTSTP)];
                if let Some((_, sig)) = sig.into_iter().find(|(k, _)| t.is(*k, b)) {
                    if !t.local(t::NOFLSH) {
                        s.input.clear();
                        s.lines.clear();
                        s.edit.clear();
                        s.output.clear();
                    }
                    echo(s, b, false);
                    return Some(sig);
                }
            }
            if t.local(t::ICANON) {
                if t.is(libc::VERASE, b) {
                    erase(s, 1);
                    return None;
                }
                if t.is(libc::VKILL, b) {
                    let n = s.edit.len();
                    erase(s, n);
                    return None;
                }
                if t.local(t::IEXTEN) && t.is(libc::VWERASE, b) {
                    let word = s.edit.iter().rev().skip_while(|b| b.is_ascii_whitespace());
                    let keep = word.skip_while(|b| !b.is_ascii_whitespace()).count();
                    let n = s.edit.len() - keep;
                    erase(s, n);
                    return None;
                }
                if t.local(t::IEXTEN) && t.is(libc::VLNEXT, b) {
                    s.literal = true;
                    return None;
                }
                if t.is(libc::VEOF, b) {
                    end_line(s);
                    return None;
                }
                let end = b == b'\n' || t.is(libc::VEOL, b) || t.local(t::IEXTEN) && t.is(libc::VEOL2, b);
                if !end && s.edit.len() >= INPUT - 1 {
                    return None; // a line takes no more
                }
                echo(s, b, end);
                s.edit.push(b);
                if end {
                    end_line(s);
                }
                return None;
            }
        } else if t.local(t::ICANON) {
            echo(s, b, false);
            s.edit.push(b);
            return None;
        }
        echo(s, b, b == b'\n');
        s.input.push_back(b);
        None
    }
    /// Bytes that the slave may read now.
    fn available(s: &State) -> usize {
        if s.termios.local(t::ICANON) { s.lines.front().map_or(0, |n| *n) } else { s.input.len() }
    }
    fn slave_read(&self, buf: &mut [u8], started: Instant) -> Option<Result<usize>> {
        let mut s = lock(&self.state);
        if s.termios.local(t::ICANON) {
            let Some(len) = s.lines.front().copied() else {
                return s.master_gone.then_some(Ok(0));
            };
            let n = len.min(buf.len());
            for (to, from) in buf.iter_mut().zip(s.input.drain(..n)) {
                *to = from;
            }
            match s.lines.front_mut() {
                Some(l) if *l > n => *l -= n,
                _ => drop(s.lines.pop_front()),
            }
            return Some(Ok(n));
        }
        let (min, time) = (usize::from(s.termios.cc[libc::VMIN]), s.termios.cc[libc::VTIME]);
        let limit = Duration::from_millis(100 * u64::from(time));
        let late = (min == 0 || time > 0 && !s.input.is_empty()) && started.elapsed() >= limit;
        if s.input.len() < min.min(buf.len()).max(1) && !late {
            return s.master_gone.then_some(Ok(0));
        }
        let n = s.input.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(s.input.drain(..n)) {
            *to = from;
        }
        Some(Ok(n))
    }
    fn termios_ioctl(&self, mem: Mem, cmd: u32, arg: u64) -> Option<Result<u64>> {
        Some(match cmd {
            c::TCGETS | c::TCGETS2 => {
                let mut b = [0u8; 44];
                b[..36].copy_from_slice(&lock(&self.state).termios.bytes());
                b[36..40].copy_from_slice(&38400u32.to_le_bytes());
                b[40..44].copy_from_slice(&38400u32.to_le_bytes());
                mem.copy_in(arg, if cmd == c::TCGETS { &b[..36] } else { &b }).map(|()| 0).map_err(Errno::from)
            }
            c::TCGETA => mem.copy_in(arg, &lock(&self.state).termios.termio()).map(|()| 0).map_err(Errno::from),
            c::TCSETS | c::TCSETSW | c::TCSETSF | c::TCSETS2 | c::TCSETSW2 | c::TCSETSF2 => {
                // The longer structure ends in two speeds.
                let mut b = [0u8; 44];
                let len = if matches!(cmd, c::TCSETS2 | c::TCSETSW2 | c::TCSETSF2) { 44 } else { 36 };
                if let Err(e) = mem.copy_out(arg, &mut b[..len]) {
                    return Some(Err(e.into()));
                }
                self.set_termios(
                    Termios::from_bytes(b.first_chunk().unwrap_or(&[0; 36])),
                    matches!(cmd, c::TCSETSF | c::TCSETSF2),
                );
                Ok(0)
            }
            c::TCSETA | c::TCSETAW | c::TCSETAF => {
                let mut b = [0u8; 18];
                if let Err(e) = mem.copy_out(arg, &mut b) {
                    return Some(Err(e.into()));
                }
                let changed = lock(&self.state).termios.with_termio(&b);
                self.set_termios(changed, cmd == c::TCSETAF);
                Ok(0)
            }
            // Nobody may lock settings but the host's administrator.
            c::TIOCGLCKTRMIOS => mem.fill(arg, 36, 0).map(|()| 0).map_err(Errno::from),
            c::TIOCEXCL | c::TIOCNXCL => {
                lock(&self.state).exclusive = cmd == c::TIOCEXCL;
                Ok(0)
            }
            c::TIOCGEXCL => mem.write(arg, u32::from(lock(&self.state).exclusive)).map(|()| 0).map_err(Errno::from),
            c::TIOCGSOFTCAR => {
                let local = lock(&self.state).termios.cflag & t::CLOCAL != 0;
                mem.write(arg, u32::from(local)).map(|()| 0).map_err(Errno::from)
            }
            c::TIOCGWINSZ => mem.copy_in(arg, &lock(&self.state).window).map(|()| 0).map_err(Errno::from),
            c::TIOCSWINSZ => {
                let mut b = [0; 8];
                if let Err(e) = mem.copy_out(arg, &mut b) {
                    return Some(Err(e.into()));
                }
                let old = std::mem::replace(&mut lock(&self.state).window, b);
                if old != b {
                    self.signal(libc::SIGWINCH);
                }
                Ok(0)
            }
            c::TCFLSH => {
                let mut s = lock(&self.state);
                if arg == 0 || arg == 2 {
                    s.flush_input();
                }
                if arg == 1 || arg == 2 {
                    s.output.clear();
                    s.happened |= PKT_FLUSHWRITE;
                }
                drop(s);
                self.wake();
                if arg > 2 { Err(Errno::EINVAL) } else { Ok(0) }
            }
            c::TCSBRK | c::TCSBRKP | c::TCXONC => Ok(0),
            c::TIOCGETD => mem.write(arg, 0u32).map(|()| 0).map_err(Errno::from),
            c::TIOCSTI | c::TIOCLINUX | c::TIOCCONS | c::TIOCSETD | c::TIOCVHANGUP | c::TIOCSLCKTRMIOS => {
                Err(Errno::EPERM)
            }
            _ => return None,
        })
    }
    fn set_termios(&self, t: Termios, flush: bool) {
        let mut s = lock(&self.state);
        let was = s.termios.local(t::ICANON);
        match (s.termios.flow_control(), t.flow_control()) {
            (true, false) => s.happened = s.happened & !PKT_DOSTOP | PKT_NOSTOP,
            (false, true) => s.happened = s.happened & !PKT_NOSTOP | PKT_DOSTOP,
            _ => {}
        }
        s.termios = t.of_pty();
        if flush {
            s.flush_input();
        } else if was != t.local(t::ICANON) {
            // What was typed so far is there at once, or is one line.
            let edit = std::mem::take(&mut s.edit);
            s.input.extend(edit);
            s.lines.clear();
            let n = s.input.len();
            if !was && n > 0 {
                s.lines.push_back(n);
            }
        }
        drop(s);
        self.wake();
    }
    fn wake(&self) {
        self.master_queue.wake_all();
        self.slave_queue.wake_all();
    }
}

fn end_line(s: &mut State) {
    let edit = std::mem::take(&mut s.edit);
    s.lines.push_back(edit.len());
    s.input.extend(edit);
}

/// Echo a typed byte; `end`: it ends a line.
fn echo(s: &mut State, b: u8, end: bool) {
    let t = s.termios;
    if !(t.local(t::ECHO) || end && b == b'\n' && t.local(t::ECHONL) && t.local(t::ICANON)) {
        return;
    }
    match b {
        b'\n' | b'\t' => put(s, b),
        0..=0x1f | 0x7f if t.local(t::ECHOCTL) => s.output.extend([b'^', b ^ 0x40]),
        _ => put(s, b),
    }
}

fn erase(s: &mut State, n: usize) {
    for _ in 0..n {
        let Some(b) = s.edit.pop() else { return };
        // A continuation byte of UTF-8 goes with what it continues.
        let mut whole = b;
        while s.termios.iflag & t::IUTF8 != 0 && whole & 0xc0 == 0x80 {
            let Some(p) = s.edit.pop() else { break };
            whole = p;
        }
        if s.termios.local(t::ECHO) && s.termios.local(t::ECHOE) {
            let columns = if b < 0x20 && b != b'\t' && s.termios.local(t::ECHOCTL) { 2 } else { 1 };
            for _ in 0..columns {
                s.output.extend(*b"\x08 \x08");
            }
        }
    }
}

/// One byte of output.
fn put(s: &mut State, b: u8) {
    let o = s.termios.oflag;
    if o & t::OPOST != 0 {
        match b {
            b'\n' if o & t::ONLCR != 0 => return s.output.extend(*b"\r\n"),
            b'\r' if o & t::OCRNL != 0 => return s.output.push_back(b'\n'),
            _ => {}
        }
    }
    s.output.push_back(b);
}

/// The side of the terminal emulator.
pub struct Master {
    pty: Arc<Pty>,
    gone: Mutex<Option<Gone>>,
}

/// What to do when the master is closed (the name /dev/pts/N goes).
pub type Gone = Box<dyn FnOnce() + Send>;

/// The side of the programs.
pub struct Slave(Arc<Pty>);

impl Master {
    /// The pair.
    pub fn pty(&self) -> &Arc<Pty> {
        &self.pty
    }
    /// TIOCGPTPEER: open the other side, locked or not.
    pub fn peer(&self) -> Result<Arc<Slave>> {
        self.pty.open_slave(false)
    }
    /// The slave has a name now, the inode `(dev, ino)`; `gone` takes it away.
    pub fn named(&self, node: (u64, u64), gone: Gone) {
        *lock(&self.pty.node) = node;
        *lock(&self.gone) = Some(gone);
    }
}

impl Slave {
    /// The pair.
    pub fn pty(&self) -> &Arc<Pty> {
        &self.0
    }
}

impl File for Master {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        let attempt = || {
            let mut s = lock(&self.pty.state);
            let mut data = &mut *buf;
            if s.packet && (s.happened != 0 || !s.output.is_empty()) {
                // The packet begins with what has happened, or with 0 (TIOCPKT_DATA) and the data.
                let Some((kind, rest)) = data.split_first_mut() else { return Some(Ok(0)) };
                *kind = std::mem::take(&mut s.happened);
                if *kind != 0 {
                    return Some(Ok(1));
                }
                data = rest;
            } else if s.output.is_empty() {
                return (s.slave_was_open && s.slaves == 0).then_some(Err(Errno::EIO));
            }
            let n = s.output.len().min(data.len());
            for (to, from) in data.iter_mut().zip(s.output.drain(..n)) {
                *to = from;
            }
            Some(Ok(n + usize::from(s.packet)))
        };
        let mut attempt = attempt;
        let n = match attempt() {
            Some(r) => r,
            None if nonblock => Err(Errno::EAGAIN),
            None => self.pty.master_queue.wait(who, None, attempt)?,
        }?;
        self.pty.slave_queue.wake_all();
        Ok(n)
    }
    fn write(&self, who: &dyn Blocking, _pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let room = || {
                let s = lock(&self.pty.state);
                (s.input.len() < INPUT || s.termios.local(t::ICANON) && s.lines.is_empty()).then_some(())
            };
            match room() {
                Some(()) => {}
                None if done > 0 => break,
                None if nonblock => return Err(Errno::EAGAIN),
                None => self.pty.master_queue.wait(who, None, room)?,
            }
            let mut signals = Vec::new();
            {
                let mut s = lock(&self.pty.state);
                let n = (INPUT.saturating_sub(s.input.len())).clamp(1, buf.len() - done);
                for b in &buf[done..done + n] {
                    signals.extend(Pty::typed(&mut s, *b));
                }
                done += n;
            }
            self.pty.wake();
            for sig in signals {
                self.pty.signal(sig);
            }
        }
        Ok(done)
    }
    fn stat(&self) -> Result<Stat> {
        let mut s = anon_stat(libc::S_IFCHR | 0o666, 2);
        s.rdev = libc::makedev(5, 2);
        Ok(s)
    }
    fn poll(&self) -> Ready {
        let s = lock(&self.pty.state);
        let gone = s.slave_was_open && s.slaves == 0;
        let mut r = Ready::empty();
        r.set(Ready::IN, !s.output.is_empty() || s.news() != 0);
        r.set(Ready::PRI, s.news() != 0);
        r.set(Ready::OUT, s.input.len() < INPUT);
        r.set(Ready::HUP, gone);
        r.with_norm()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.pty.master_queue)
    }
    fn ioctl(&self, _who: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            c::TIOCGPTN => mem.write(arg, self.pty.index)?,
            c::TIOCSPTLCK => {
                let on = mem.read::<u32>(arg)? != 0;
                lock(&self.pty.state).locked = on;
            }
            c::TIOCGPTLCK => mem.write(arg, u32::from(lock(&self.pty.state).locked))?,
            c::FIONREAD => mem.write(arg, lock(&self.pty.state).output.len() as u32)?,
            c::TIOCPKT => {
                let on = mem.read::<u32>(arg)? != 0;
                let mut s = lock(&self.pty.state);
                if on && !s.packet {
                    s.happened = 0;
                }
                s.packet = on;
            }
            c::TIOCGPKT => mem.write(arg, u32::from(lock(&self.pty.state).packet))?,
            c::TIOCSIG => {
                if !matches!(arg as i32, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP) {
                    return Err(Errno::EINVAL);
                }
                self.pty.signal(arg as i32);
            }
            _ => {
                return self.pty.termios_ioctl(mem, cmd, arg).unwrap_or(Err(Errno::ENOTTY));
            }
        }
        Ok(0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        lock(&self.pty.state).master_gone = true;
        if let Some(f) = lock(&self.gone).take() {
            f();
        }
        self.pty.wake();
        self.pty.signal(libc::SIGHUP);
        self.pty.signal(libc::SIGCONT);
    }
}

impl File for Slave {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let started = Instant::now();
        let mut attempt = || self.0.slave_read(buf, started);
        let r = match attempt() {
            Some(r) => r,
            None if nonblock => Err(Errno::EAGAIN),
            None => {
                let time = {
                    let t = lock(&self.0.state).termios;
                    if t.local(t::ICANON) { 0 } else { t.cc[libc::VTIME] }
                };
                // VTIME: what is there when the time is over.
                let deadline = (time > 0).then(|| started + Duration::from_millis(100 * u64::from(time)));
                match self.0.slave_queue.wait(who, deadline, &mut attempt) {
                    Ok(r) => r,
                    Err(Errno::ETIMEDOUT) => self.0.slave_queue.wait(who, None, attempt)?,
                    Err(e) => Err(e),
                }
            }
        };
        self.0.master_queue.wake_all();
        r
    }
    fn write(&self, who: &dyn Blocking, _pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let attempt = || {
                let mut s = lock(&self.0.state);
                if s.master_gone {
                    return Some(Err(Errno::EIO));
                }
                let n = OUTPUT.saturating_sub(s.output.len()).min(buf.len() - done);
                for b in &buf[done..done + n] {
                    put(&mut s, *b);
                }
                (n > 0).then_some(Ok(n))
            };
            let r = match attempt() {
                Some(r) => r,
                None if nonblock => Err(Errno::EAGAIN),
                None => self.0.slave_queue.wait(who, None, attempt).and_then(|r| r),
            };
            match r {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            self.0.master_queue.wake_all();
        }
        Ok(done)
    }
    fn stat(&self) -> Result<Stat> {
        let mut s = anon_stat(libc::S_IFCHR | 0o620, u64::from(self.0.index) + 3);
        let (dev, ino) = *lock(&self.0.node);
        if ino != 0 {
            (s.dev, s.ino) = (dev, ino);
        }
        s.rdev = libc::makedev(136, self.0.index);
        (s.uid, s.gid) = self.0.owner;
        Ok(s)
    }
    fn poll(&self) -> Ready {
        let s = lock(&self.0.state);
        let mut r = Ready::empty();
        r.set(Ready::IN, Pty::available(&s) > 0 || !s.lines.is_empty() || s.master_gone);
        r.set(Ready::OUT, s.output.len() < OUTPUT || s.master_gone);
        r.set(Ready::HUP | Ready::ERR, s.master_gone);
        r.with_norm()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.slave_queue)
    }
    fn ioctl(&self, _who: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            c::FIONREAD => mem.write(arg, Pty::available(&lock(&self.0.state)) as u32)?,
            c::TIOCOUTQ => mem.write(arg, lock(&self.0.state).output.len() as u32)?,
            _ => {
                return self.0.termios_ioctl(mem, cmd, arg).unwrap_or(Err(Errno::ENOTTY));
            }
        }
        Ok(0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        lock(&self.0.state).slaves -= 1;
        self.0.master_queue.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::poll::tests::Me;

    fn pair() -> (Arc<Master>, Arc<Slave>) {
        let pty = Arc::new(Pty {
            index: 0,
            control: Arc::default(),
            kernel: Weak::new(),
            owner: (0, 0),
            node: Mutex::default(),
            state: Mutex::default(),
            master_queue: WaitQueue::default(),
            slave_queue: WaitQueue::default(),
        });
        let s = pty.open_slave(true).unwrap();
        (Arc::new(Master { pty, gone: Mutex::default() }), s)
    }
    fn read(f: &dyn File) -> Result<Vec<u8>> {
        let mut b = [0; 99];
        f.read(&Me::default(), 0, &mut b, true).map(|n| b[..n].to_vec())
    }

    #[test]
    fn discipline() {
        let me = Me::default();
        // Typed, read at the slave, seen at the master.
        let table: [(&[u8], Result<&[u8]>, &[u8]); 6] = [
            (b"ab\x7fc\r", Ok(b"ac\n"), b"ab\x08 \x08c\r\n"),
            (b"one two\x17x\n", Ok(b"one x\n"), b"one two\x08 \x08\x08 \x08\x08 \x08x\r\n"),
            (b"abc\x15\n", Ok(b"\n"), b"abc\x08 \x08\x08 \x08\x08 \x08\r\n"),
            (b"\x04", Ok(b""), b""),
            (b"part\x04", Ok(b"part"), b"part"),
            (b"no end", Err(Errno::EAGAIN), b"no end"),
        ];
        for (typed, got, seen) in table {
            let (m, s) = pair();
            m.write(&me, 0, typed, true).unwrap();
            assert_eq!(read(&*s), got.map(<[u8]>::to_vec));
            assert_eq!(read(&*m).unwrap_or_default(), seen, "{typed:?}");
        }
        let (m, s) = pair();
        s.write(&me, 0, b"x\n", true).unwrap();
        assert_eq!(read(&*m), Ok(b"x\r\n".to_vec()));
        let mut raw = Termios::default();
        raw.lflag &= !(t::ICANON | t::ECHO | t::ISIG);
        m.write(&me, 0, b"q", true).unwrap();
        s.0.set_termios(raw, false);
        m.write(&me, 0, b"\x03", true).unwrap();
        assert_eq!(read(&*s), Ok(b"q\x03".to_vec()));
        assert_eq!(read(&*s), Err(Errno::EAGAIN));
        assert_eq!(s.poll(), (Ready::OUT).with_norm());
        drop(m);
        assert_eq!(read(&*s), Ok(vec![]));
        assert_eq!(s.write(&me, 0, b"x", true), Err(Errno::EIO));
    }

    #[test]
    fn hang_up() {
        let (m, s) = pair();
        assert_eq!(read(&*m), Err(Errno::EAGAIN));
        drop(s);
        assert_eq!(read(&*m), Err(Errno::EIO));
        assert_eq!(m.poll(), (Ready::OUT | Ready::HUP).with_norm());
    }
}
