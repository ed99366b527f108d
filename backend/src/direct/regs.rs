//! Where guest registers are.

use crate::asm::{R10, R15, Reg};
use iced_x86::Register as R;

/// Where a general register of the guest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In the host register of that number.
    Host(u8),
    /// In the state.
    State,
}

/// Host register that holds the guest's RSP.
pub(super) const GUEST_RSP: u8 = 11;

/// Where the guest's register of that number is.
pub(super) fn place(n: u8) -> Place {
    match n {
        4 => Place::Host(GUEST_RSP),
        9 | 10 | 11 | 15 => Place::State,
        n => Place::Host(n),
    }
}

/// Number of a general register, whatever its size.
pub(super) fn number(r: R) -> u8 {
    r.full_register().number() as u8
}

/// The part of the host register `n` that corresponds to the part of a general register that `like` is.
pub(super) fn like(like: R, n: u8) -> R {
    let n = u32::from(n);
    if like.is_gpr64() {
        R::RAX + n
    } else if like.is_gpr32() {
        R::EAX + n
    } else if like.is_gpr16() {
        R::AX + n
    } else if n < 4 {
        R::AL + n
    } else {
        R::SPL + (n - 4)
    }
}

/// AH, CH, DH, BH.
pub(super) fn is_high_byte(r: R) -> bool {
    matches!(r, R::AH | R::CH | R::DH | R::BH)
}

/// Which registers of the state the scratch registers are copies of. The state has their values, too.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Copies {
    r10: Option<u8>,
    r15: Option<u8>,
    /// R10 is the one that was set last.
    r10_last: bool,
}

impl Copies {
    /// The guest register that a scratch register is a copy of.
    pub fn holds(&self, scratch: Reg) -> Option<u8> {
        match scratch {
            R10 => self.r10,
            R15 => self.r15,
            _ => None,
        }
    }
    /// A copy of a guest register.
    pub fn of(&self, guest: u8) -> Option<Reg> {
        [R15, R10].into_iter().find(|r| self.holds(*r) == Some(guest))
    }
    /// The scratch registers, the one first whose copy is the older.
    pub fn oldest(&self) -> [Reg; 2] {
        if self.r15.is_none() || self.r10_last && self.r10.is_some() { [R15, R10] } else { [R10, R15] }
    }
    pub fn set(&mut self, scratch: Reg, guest: u8) {
        match scratch {
            R10 => self.r10 = Some(guest),
            R15 => self.r15 = Some(guest),
            _ => return,
        }
        self.r10_last = scratch == R10;
    }
    /// A host register gets another value.
    pub fn lose(&mut self, host: Reg) {
        match host {
            R10 => self.r10 = None,
            R15 => self.r15 = None,
            _ => {}
        }
    }
    /// What is so on this way and on another.
    pub fn meet(&mut self, other: &Copies) {
        self.r10 = self.r10.filter(|g| other.r10 == Some(*g));
        self.r15 = self.r15.filter(|g| other.r15 == Some(*g));
    }
    /// A guest register has another value.
    pub fn changed(&mut self, guest: u8) {
        self.r10 = self.r10.filter(|g| *g != guest);
        self.r15 = self.r15.filter(|g| *g != guest);
    }
}
