//! Where guest registers are.

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
        10 | 11 | 13 | 14 => Place::State,
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
