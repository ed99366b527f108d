//! The settings of a terminal (termios(3), ioctl_tty(2)) in the layouts of the system calls.

use linux_raw_sys::general as t;

/// `struct termios` without speeds.
#[derive(Clone, Copy)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub cc: [u8; 19],
}

impl Default for Termios {
    fn default() -> Termios {
        let cc = [3, 0x1c, 0x7f, 0x15, 4, 0, 1, 0, 0x11, 0x13, 0x1a, 0, 0x12, 0x0f, 0x17, 0x16, 0, 0, 0];
        Termios { iflag: 0x500, oflag: 5, cflag: 0xbf, lflag: 0x8a3b, line: 0, cc }
    }
}

impl Termios {
    /// As `struct termios`.
    pub fn bytes(&self) -> [u8; 36] {
        let mut b = [0; 36];
        for (i, w) in [self.iflag, self.oflag, self.cflag, self.lflag].into_iter().enumerate() {
            b[i * 4..i * 4 + 4].copy_from_slice(&w.to_le_bytes());
        }
        b[16] = self.line;
        b[17..36].copy_from_slice(&self.cc);
        b
    }
    /// From `struct termios`.
    pub fn from_bytes(b: &[u8; 36]) -> Termios {
        let word = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let mut cc = [0; 19];
        cc.copy_from_slice(&b[17..36]);
        Termios { iflag: word(0), oflag: word(4), cflag: word(8), lflag: word(12), line: b[16], cc }
    }
    /// Whether a local mode is on.
    pub fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }
    /// Whether a byte is that control character.
    pub fn is(&self, which: usize, byte: u8) -> bool {
        self.cc[which] == byte && byte != 0
    }
    /// As `struct termio` of System V: 16-bit modes and eight control characters.
    pub fn termio(&self) -> [u8; 18] {
        let mut b = [0; 18];
        for (i, w) in [self.iflag, self.oflag, self.cflag, self.lflag].into_iter().enumerate() {
            b[i * 2..i * 2 + 2].copy_from_slice(&(w as u16).to_le_bytes());
        }
        b[8] = self.line;
        b[9..17].copy_from_slice(&self.cc[..8]);
        b
    }
    /// Changed by a `struct termio`, which leaves what it has no room for as it is.
    pub fn with_termio(mut self, b: &[u8; 18]) -> Termios {
        let modes = [&mut self.iflag, &mut self.oflag, &mut self.cflag, &mut self.lflag];
        for (i, mode) in modes.into_iter().enumerate() {
            *mode = *mode & 0xffff_0000 | u32::from(u16::from_le_bytes([b[i * 2], b[i * 2 + 1]]));
        }
        self.line = b[8];
        self.cc[..8].copy_from_slice(&b[9..17]);
        self
    }
    /// As a pseudoterminal takes it: it has eight bits, no parity, and a receiver that is on.
    pub fn of_pty(mut self) -> Termios {
        self.cflag = self.cflag & !(t::CSIZE | t::PARENB) | t::CS8 | t::CREAD;
        self
    }
    /// Whether ^S and ^Q stop and start the output.
    pub fn flow_control(&self) -> bool {
        self.iflag & t::IXON != 0 && self.is(libc::VSTOP, 0x13) && self.is(libc::VSTART, 0x11)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termio_changes_what_it_has_room_for() {
        let mut t = Termios { cflag: 0x8000_00bf, ..Termios::default() };
        let b = t.termio();
        assert_eq!(t.with_termio(&b).bytes(), t.bytes());
        t.cc[10] = 7;
        let mut b = t.termio();
        (b[6], b[9]) = (1, 9);
        let u = t.with_termio(&b);
        assert_eq!((u.lflag & 0xff, u.cc[0], u.cc[10], u.cflag), (1, 9, 7, t.cflag));
    }
}
