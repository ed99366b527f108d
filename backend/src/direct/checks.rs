//! What is known of addresses: which need no check.
//!
//! A register is *near* if its value is an address of guest memory plus a displacement of less than [`DRIFT`]. Operands add
//! displacements of less than [`REACH`]. Together that is less than what lies between guest memory and the only page of the guards that
//! can be read, 2 GiB in front of it.
//!
//! An access that does not fault proves as much as a check: so a pointer that moves through memory in a loop stays near.
//!
//! RSP is near at every entry of a block. Where a block ends, it is checked unless the last that was done with it was an access: an
//! access that does not fault proves that its address is near, so that a stack that grows or shrinks by what is pushed and popped
//! is never checked.

use super::SPACE;
use super::regs::number;
use iced_x86::{ConditionCode, Instruction, Mnemonic as M, OpKind, Register as R};

/// Bound of what may have been added to an address since it was checked.
const DRIFT: i64 = 1 << 29;
/// Bound of displacements of operands that go unchecked.
pub(super) const REACH: i64 = 1 << 30;

/// A register as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    /// It is not larger than that.
    max: u64,
    /// It is near, and by how much it may have left guest memory, in both directions.
    near: Option<u32>,
}

const UNKNOWN: Known = Known { max: u64::MAX, near: None };

const RSP: usize = 4;

/// A base plus a scaled index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sum {
    pub base: R,
    pub index: R,
    pub scale: u32,
}

impl Sum {
    /// That of a memory operand with an index.
    pub fn of(i: &Instruction) -> Sum {
        Sum { base: i.memory_base(), index: i.memory_index(), scale: i.memory_index_scale() }
    }
    /// By how much it changes with a register.
    fn factor(&self, n: u8) -> u32 {
        let index = if number(self.index) == n { self.scale } else { 0 };
        index + u32::from(self.base != R::None && number(self.base) == n)
    }
}

/// What a check makes known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fact {
    /// This register is near.
    Near(u8),
    /// This sum is.
    Sum(Sum),
    /// The guest's x87 state is in the host's x87 unit.
    X87,
}

/// What is known at a place of the code.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    known: [Known; 16],
    /// Registers with the same number here have the same value.
    values: [u32; 16],
    /// The same but for what was added to it: a constant.
    roots: [u32; 16],
    /// The next number that no register has.
    next: u32,
    /// Sums that are near, and by how much they may have left guest memory.
    sums: Vec<(Sum, u32)>,
    /// The block at whose beginning each register had the value, and root, of its own number.
    origin: Option<usize>,
    /// What was checked of what has the values there for its roots.
    done: Vec<Fact>,
    /// The guest's x87 state is in the host's x87 unit.
    x87: bool,
}

impl Default for Checks {
    fn default() -> Self {
        let mut known = [UNKNOWN; 16];
        known[RSP].near = Some(0);
        let values = std::array::from_fn(|n| n as u32);
        Checks { known, values, roots: values, next: 16, sums: vec![], origin: None, done: vec![], x87: false }
    }
}

impl Known {
    fn bounded(max: u64) -> Known {
        Known { max, near: (max < SPACE).then_some(0) }
    }
    fn moved(self, by: i64) -> Known {
        let near = self.near.map(|n| i64::from(n) + by.abs()).filter(|n| *n < DRIFT);
        Known { max: u64::MAX, near: near.map(|n| n as u32) }
    }
}

impl Checks {
    /// Nothing is known any more, but what is known at every entry.
    pub fn forget(&mut self) {
        *self = Checks::default();
    }
    /// Block `n` begins: values are told from here.
    pub fn begin(&mut self, n: usize) {
        self.values = std::array::from_fn(|n| n as u32);
        self.roots = self.values;
        self.next = 16;
        self.origin = Some(n);
        self.done.clear();
    }
    /// What is known on this way to block `n`, and on another.
    pub fn meet(&mut self, other: &Checks, n: usize) {
        for (k, o) in self.known.iter_mut().zip(&other.known) {
            k.max = k.max.max(o.max);
            k.near = k.near.zip(o.near).map(|(a, b)| a.max(b));
        }
        self.x87 &= other.x87;
        self.sums.retain_mut(|(s, drift)| match other.drift(s) {
            Some(d) => {
                *drift = (*drift).max(d);
                true
            }
            None => false,
        });
        if self.origin.is_none() || self.origin != other.origin {
            return self.begin(n);
        }
        self.done.retain(|f| other.done.contains(f));
        // Other numbers than those of the beginning may stand for different values on different ways.
        let all = self.values.iter_mut().zip(other.values).chain(self.roots.iter_mut().zip(other.roots));
        for (v, o) in all {
            if *v != o || *v >= 16 {
                *v = self.next;
                self.next += 1;
            }
        }
    }
    /// The same without what has become less certain since `before`.
    pub fn without_growth(&mut self, before: &Checks) {
        for (k, b) in self.known.iter_mut().zip(&before.known).enumerate().filter(|(n, _)| *n != RSP).map(|(_, k)| k) {
            if k.near > b.near {
                k.near = None;
            }
            if k.max > b.max {
                k.max = u64::MAX;
            }
        }
        self.sums.retain(|(s, drift)| before.drift(s).is_none_or(|b| b >= *drift));
    }
    /// Whether as much is known as `other` says.
    pub fn is_as_good(&self, other: &Checks) -> bool {
        let known = self
            .known
            .iter()
            .zip(&other.known)
            .all(|(k, o)| k.max <= o.max && o.near.is_none_or(|most| k.near.is_some_and(|n| n <= most)));
        let x87 = self.x87 || !other.x87;
        known && x87 && other.sums.iter().all(|(s, most)| self.drift(s).is_some_and(|d| d <= *most))
    }
    /// What was checked since the beginning of block `n`, on all ways, of the values that registers had there and what moved from them.
    pub fn done(&self, n: usize) -> &[Fact] {
        if self.is_since(n) { &self.done } else { &[] }
    }
    /// Whether values are told from the beginning of block `n`: on all ways from there was no head of a loop.
    pub fn is_since(&self, n: usize) -> bool {
        self.origin == Some(n)
    }
    /// This is known as well, as far as it is on all of these ways.
    pub fn allow(&mut self, f: &Fact, ways: &[&Checks]) {
        let most = |drift: &dyn Fn(&Checks) -> Option<u32>| ways.iter().map(|w| drift(w)).max().flatten().unwrap_or(0);
        match f {
            Fact::Near(n) => {
                let n = usize::from(*n);
                self.known[n].near = Some(most(&|w| w.known[n].near));
            }
            Fact::Sum(s) => self.sums.push((*s, most(&|w| w.drift(s)))),
            Fact::X87 => self.x87 = true,
        }
    }
    /// Whether that is known.
    pub fn holds(&self, f: &Fact) -> bool {
        match f {
            Fact::Near(n) => self.is_near(*n),
            Fact::Sum(s) => self.drift(s).is_some(),
            Fact::X87 => self.x87,
        }
    }
    /// It was seen that the guest's x87 state is in the host's unit.
    pub fn checked_x87(&mut self) {
        self.done.push(Fact::X87);
        self.x87 = true;
    }
    /// The value of this register was compared with the size of guest memory.
    pub fn checked(&mut self, n: u8) {
        let root = self.roots[usize::from(n)];
        if root < 16 {
            self.done.push(Fact::Near(root as u8));
        }
        self.is_now_near(n, 0);
    }
    /// This register, and those with the same value, are near.
    fn is_now_near(&mut self, n: u8, drift: u32) {
        let value = self.values[usize::from(n)];
        for (k, v) in self.known.iter_mut().zip(self.values) {
            if v == value {
                k.near = Some(k.near.map_or(drift, |d| d.min(drift)));
            }
        }
    }
    /// Memory at or next to the address in RSP was accessed.
    pub fn proved_rsp(&mut self) {
        self.is_now_near(RSP as u8, 0);
    }
    /// The memory operand of this instruction was accessed, and that did not fault.
    pub fn accessed(&mut self, i: &Instruction) {
        let by = (i.memory_displacement64() as i64).unsigned_abs();
        let (base, index) = (i.memory_base(), i.memory_index());
        let wide = |r: R| r == R::None || r.is_gpr64();
        if by >= DRIFT as u64 || i.memory_segment() == R::FS || !wide(base) || !wide(index) {
            return;
        }
        if index != R::None {
            self.is_now_near_sum(Sum::of(i), by as u32);
        } else if base != R::None {
            // Of the stack, that it was accessed close by is as good as that it was checked.
            let close = number(base) == RSP as u8 && by < evm_memory::PAGE;
            self.is_now_near(number(base), if close { 0 } else { by as u32 });
        }
    }
    /// Whether RSP is near without having been moved since that was seen.
    pub fn rsp_is_proved(&self) -> bool {
        self.known[RSP].near == Some(0)
    }
    /// The sum was.
    pub fn checked_sum(&mut self, s: Sum) {
        let same = |r: R| r == R::None || self.roots[usize::from(number(r))] == u32::from(number(r));
        if same(s.base) && same(s.index) {
            self.done.push(Fact::Sum(s));
        }
        self.is_now_near_sum(s, 0);
    }
    fn is_now_near_sum(&mut self, s: Sum, drift: u32) {
        match self.sums.iter_mut().find(|(o, _)| *o == s) {
            Some((_, d)) => *d = drift.min(*d),
            None => self.sums.push((s, drift)),
        }
    }
    /// By how much a sum may have left guest memory, if that was seen.
    fn drift(&self, s: &Sum) -> Option<u32> {
        self.sums.iter().find(|(o, _)| o == s).map(|(_, d)| *d)
    }
    pub fn is_near(&self, n: u8) -> bool {
        self.known[usize::from(n)].near.is_some()
    }
    /// Whether base plus scaled index of the memory operand are near.
    pub fn is_near_sum(&self, i: &Instruction) -> bool {
        self.sum(i).is_some()
    }
    /// By how much base plus scaled index may be outside of guest memory, if they are near.
    fn sum(&self, i: &Instruction) -> Option<u32> {
        let Sum { base, index, scale } = Sum::of(i);
        if let Some(drift) = self.drift(&Sum::of(i)) {
            return Some(drift);
        }
        let most = self.known[usize::from(number(index))].max.saturating_mul(u64::from(scale));
        let b = match base {
            R::None => Known::bounded(0),
            base => self.known[usize::from(number(base))],
        };
        if b.max.saturating_add(most) < SPACE {
            return Some(0);
        }
        let drift = u64::from(b.near?).saturating_add(most);
        (drift < DRIFT as u64).then_some(drift as u32)
    }
    /// A register was changed by that much.
    pub fn moved(&mut self, n: u8, by: i64) {
        let k = self.known[usize::from(n)].moved(by);
        let moved = |(s, drift): &(Sum, u32)| {
            let most = by.unsigned_abs().saturating_mul(s.factor(n).into()).saturating_add(u64::from(*drift));
            (most < DRIFT as u64).then_some((*s, most as u32))
        };
        let sums = self.sums.iter().filter_map(moved).collect();
        let root = self.roots[usize::from(n)];
        self.write(n, k);
        self.sums = sums;
        self.roots[usize::from(n)] = root;
    }
    fn write(&mut self, n: u8, k: Known) {
        self.known[usize::from(n)] = k;
        self.values[usize::from(n)] = self.next;
        self.roots[usize::from(n)] = self.next;
        self.next += 1;
        self.sums.retain(|s| s.0.factor(n) == 0);
    }
    /// Nothing is known of this register.
    pub fn lost(&mut self, n: u8) {
        self.write(n, UNKNOWN);
    }
    /// One register was moved to another.
    pub fn copied(&mut self, from: u8, to: u8) {
        let from = usize::from(from);
        let (k, value, root) = (self.known[from], self.values[from], self.roots[from]);
        self.write(to, k);
        (self.values[usize::from(to)], self.roots[usize::from(to)]) = (value, root);
    }
    /// After an instruction that writes these general registers (a bit each).
    pub fn executed(&mut self, i: &Instruction, written: u16) {
        if written == 0 {
            return;
        }
        let moved = i.mnemonic() == M::Mov && i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register;
        if moved && i.op0_register().is_gpr64() && i.op1_register().is_gpr64() {
            return self.copied(number(i.op1_register()), number(i.op0_register()));
        }
        if let Some((n, by)) = moved_by(i) {
            return self.moved(n, by);
        }
        let (to, value) = match self.result(i) {
            Some((to, k)) => (to, Some(k)),
            None => (0, None),
        };
        for n in (0..16).filter(|n| written >> n & 1 != 0) {
            self.write(n, if n == to { value.unwrap_or(UNKNOWN) } else { UNKNOWN });
        }
    }
    /// What is known of the register that is the first operand.
    fn result(&self, i: &Instruction) -> Option<(u8, Known)> {
        if i.op_count() == 0 || i.op0_kind() != OpKind::Register {
            return None;
        }
        let r = i.op0_register();
        if !r.is_gpr() {
            return None;
        }
        let to = number(r);
        let before = self.known[usize::from(to)];
        let immediate = || {
            (i.op_count() == 2 && i.op1_kind() != OpKind::Register && i.op1_kind() != OpKind::Memory)
                .then(|| i.immediate(1))
        };
        let source = || (i.op_count() == 2 && i.op1_kind() == OpKind::Register).then(|| i.op1_register());
        if r.is_gpr32() {
            if !clears_upper_half(i) {
                return None;
            }
            let max = match i.mnemonic() {
                M::Movzx => u64::MAX >> (64 - 8 * zero_extended(i)),
                M::And => immediate().map_or(u64::MAX, |v| u64::from(v as u32)).min(before.max),
                M::Mov => immediate()
                    .map(|v| u64::from(v as u32))
                    .or_else(|| source().filter(|s| s.is_gpr32()).map(|s| self.known[usize::from(number(s))].max))
                    .unwrap_or(u64::MAX),
                M::Shr => immediate().map_or(u64::MAX, |v| u64::from(u32::MAX >> (v & 31))),
                _ => u64::MAX,
            };
            return Some((to, Known::bounded(max.min(u32::MAX.into()))));
        }
        if !r.is_gpr64() {
            return None;
        }
        let known = match i.mnemonic() {
            M::Mov => match source().filter(|s| s.is_gpr64()) {
                Some(s) => self.known[usize::from(number(s))],
                None => Known::bounded(immediate()?),
            },
            M::Movzx => Known::bounded(u64::MAX >> (64 - 8 * zero_extended(i))),
            M::And => match immediate()? as i64 {
                // Aligned down.
                v @ -4096..0 => Known { max: before.max, ..before.moved(v) },
                v if v >= 0 => Known::bounded(v as u64),
                _ => UNKNOWN,
            },
            M::Shr => Known::bounded(u64::MAX >> (immediate()? & 63)),
            M::Lea => self.address(i)?,
            _ => return None,
        };
        Some((to, known))
    }
    fn address(&self, i: &Instruction) -> Option<Known> {
        if i.is_ip_rel_memory_operand() {
            return Some(Known::bounded(i.ip_rel_memory_address()));
        }
        let (base, index) = (i.memory_base(), i.memory_index());
        if !base.is_gpr64() {
            return None;
        }
        let by = i.memory_displacement64() as i64;
        if index == R::None {
            return Some(self.known[usize::from(number(base))].moved(by));
        }
        Some(Known { max: u64::MAX, near: self.sum(i) }.moved(by))
    }
}

/// The 64-bit register that an instruction adds a constant to, and the constant.
fn moved_by(i: &Instruction) -> Option<(u8, i64)> {
    let r = i.op0_register();
    if i.op_count() == 0 || i.op0_kind() != OpKind::Register || !r.is_gpr64() {
        return None;
    }
    let immediate = || {
        let is = i.op_count() == 2 && i.op1_kind() != OpKind::Register && i.op1_kind() != OpKind::Memory;
        is.then(|| i.immediate(1) as i64)
    };
    let by = match i.mnemonic() {
        M::Add => immediate()?,
        M::Sub => immediate()?.checked_neg()?,
        M::Inc => 1,
        M::Dec => -1,
        M::Lea if i.memory_base() == r && i.memory_index() == R::None => i.memory_displacement64() as i64,
        _ => return None,
    };
    Some((number(r), by))
}

/// Whether an instruction with a 32-bit register as its first operand makes the upper half of it zero whatever happens. (The manual leaves
/// it open for those that may not write: BSF, CMPXCHG and the like.)
fn clears_upper_half(i: &Instruction) -> bool {
    match i.mnemonic() {
        M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Lea | M::Movd | M::Popcnt | M::Lzcnt | M::Tzcnt | M::Bswap => {
            true
        }
        M::Add | M::Sub | M::Adc | M::Sbb | M::And | M::Or | M::Xor | M::Not | M::Neg | M::Inc | M::Dec => true,
        M::Imul => i.op_count() > 1,
        M::Shl | M::Shr | M::Sar => i.op1_kind() == OpKind::Immediate8 && i.immediate8() & 31 != 0,
        M::Cvttsd2si | M::Cvttss2si | M::Cvtsd2si | M::Cvtss2si | M::Movmskps | M::Movmskpd | M::Pmovmskb => true,
        _ => i.code().condition_code() != ConditionCode::None && i.op_count() == 2,
    }
}

/// Bytes of the source of MOVZX.
fn zero_extended(i: &Instruction) -> u32 {
    let small = match i.op1_kind() {
        OpKind::Register => i.op1_register().size() == 1,
        _ => i.memory_size().size() == 1,
    };
    if small { 1 } else { 2 }
}

/// Whether the operand needs no more than that its base is near.
pub(super) fn has_base_alone(i: &Instruction) -> bool {
    i.memory_base().is_gpr64() && i.memory_index() == R::None
}

/// Whether a displacement is one that may be added to a near address.
pub(super) fn reaches(displacement: u64) -> bool {
    (displacement as i64).unsigned_abs() < REACH as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Code as C, Decoder, DecoderOptions, MemoryOperand};

    /// Which of RAX, RCX, RDX, RBX are near after this code, RAX having been checked before.
    fn near(code: &[u8]) -> Vec<u8> {
        let mut c = Checks::default();
        c.checked(0);
        let mut info = iced_x86::InstructionInfoFactory::new();
        for i in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
            let written = super::super::select::written(&mut info, &i);
            c.executed(&i, written);
        }
        (0..4).filter(|n| c.is_near(*n)).collect()
    }

    #[test]
    fn what_stays_near() {
        assert_eq!(near(&[]), [0]);
        // add rax,8; mov rcx,rax
        assert_eq!(near(&[0x48, 0x83, 0xc0, 8, 0x48, 0x89, 0xc1]), [0, 1]);
        // add rax,rcx
        assert_eq!(near(&[0x48, 0x01, 0xc8]), []);
        // mov edx,[rax]; mov rbx,[rax]
        assert_eq!(near(&[0x8b, 0x10, 0x48, 0x8b, 0x18]), [0, 2]);
        // add rax,0x1fffffff; then once more
        assert_eq!(near(&[0x48, 0x05, 0xff, 0xff, 0xff, 0x1f]), [0]);
        assert_eq!(near(&[0x48, 0x05, 0xff, 0xff, 0xff, 0x1f, 0x48, 0xff, 0xc0]), []);
        // lea rdx,[rax-16]; and rdx,-16; lea rbx,[rax+rcx]
        assert_eq!(near(&[0x48, 0x8d, 0x50, 0xf0, 0x48, 0x83, 0xe2, 0xf0, 0x48, 0x8d, 0x1c, 0x08]), [0, 2]);
        // movzx ecx,cl; lea rbx,[rax+rcx*8]
        assert_eq!(near(&[0x0f, 0xb6, 0xc9, 0x48, 0x8d, 0x1c, 0xc8]), [0, 1, 3]);
        // movzx ecx,cl; add al,1: the rest of RAX stays, but it is another address
        assert_eq!(near(&[0x0f, 0xb6, 0xc9, 0x04, 1]), [1]);
    }

    type Registers = [u64; 16];

    /// A random instruction that makes an address of others, and what it does.
    fn arithmetic(next: &mut dyn FnMut(u64) -> u64, r: &Registers) -> (Instruction, Registers) {
        const IMMEDIATES: [i32; 12] =
            [1, 8, -1, -16, -4096, 0xffff, 0x0fff_ffff, 0x1000_0000, 0x1fff_ffff, 0x3fff_ffff, i32::MAX, i32::MIN];
        let mut register = || [0usize, 1, 2, 3, 6, 7][next(6) as usize];
        let (a, b, x) = (register(), register(), register());
        let (v, scale, op) = (IMMEDIATES[next(12) as usize], 1u32 << next(4), next(20));
        let wide = |n: usize| R::RAX + n as u32;
        let narrow = |n: usize| R::EAX + n as u32;
        let byte = |n: usize| if n < 4 { R::AL + n as u32 } else { R::SPL + (n as u32 - 4) };
        let low = |n: usize| r[n] as u32;
        let sum = r[b].wrapping_add(r[x].wrapping_mul(scale.into())).wrapping_add(v as u64);
        let one = |c, to| Instruction::with1(c, to);
        let two = Instruction::with2::<R, R>;
        let with = Instruction::with2::<R, i32>;
        let lea = |index| {
            let m = MemoryOperand::new(wide(b), index, scale, v.into(), 4, false, R::None);
            Instruction::with2(C::Lea_r64_m, wide(a), m)
        };
        let mut to = *r;
        let by = (v & 31) as u32;
        let i = match op {
            0 => {
                to[a] = r[b];
                two(C::Mov_r64_rm64, wide(a), wide(b))
            }
            1 => {
                to[a] = low(b).into();
                two(C::Mov_r32_rm32, narrow(a), narrow(b))
            }
            2 => {
                to[a] = (v as u32).into();
                with(C::Mov_r32_imm32, narrow(a), v)
            }
            3 => {
                to[a] = v as u64;
                with(C::Mov_rm64_imm32, wide(a), v)
            }
            4 => {
                to[a] = r[a].wrapping_add(v as u64);
                with(C::Add_rm64_imm32, wide(a), v)
            }
            5 => {
                to[a] = r[a].wrapping_sub(v as u64);
                with(C::Sub_rm64_imm32, wide(a), v)
            }
            6 => {
                to[a] = r[a].wrapping_add(r[b]);
                two(C::Add_r64_rm64, wide(a), wide(b))
            }
            7 => {
                to[a] = r[a].wrapping_add(1);
                one(C::Inc_rm64, wide(a))
            }
            8 => {
                to[a] = r[a] & v as u64;
                with(C::And_rm64_imm32, wide(a), v)
            }
            9 => {
                to[a] = (low(a) & v as u32).into();
                with(C::And_rm32_imm32, narrow(a), v)
            }
            10 => {
                to[a] = r[a] >> by;
                with(C::Shr_rm64_imm8, wide(a), by as i32)
            }
            11 => {
                to[a] = (low(a) >> by).into();
                with(C::Shr_rm32_imm8, narrow(a), by as i32)
            }
            12 => {
                to[a] = r[b].wrapping_add(v as u64);
                lea(R::None)
            }
            13..=15 => {
                to[a] = sum;
                lea(wide(x))
            }
            16 => {
                to[a] = r[b] & 0xff;
                two(C::Movzx_r32_rm8, narrow(a), byte(b))
            }
            17 => {
                to[a] = (low(a) & low(b)).into();
                two(C::And_r32_rm32, narrow(a), narrow(b))
            }
            // Of zero: nothing is written.
            18 => two(C::Bsf_r32_rm32, narrow(a), narrow(b)),
            _ => {
                to[a] = r[a] & !0xff | u64::from(v as u8);
                with(C::Mov_rm8_imm8, byte(a), (v as i8).into())
            }
        };
        (i.expect("an instruction"), to)
    }

    /// Whatever is done with addresses, what is said to be near is.
    #[test]
    fn nothing_near_is_far() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) % n
        };
        let mut info = iced_x86::InstructionInfoFactory::new();
        let (mut sums, mut met) = (0, 0);
        for _ in 0..20_000 {
            let edges = [0, 1, 0xff, 0x0fff_ffff, 0xffff_ffff, SPACE - 1, SPACE, u64::MAX, 1 << 63];
            let mut r: Registers = std::array::from_fn(|_| edges[next(9) as usize]);
            // As at every entry.
            r[RSP] = SPACE - 1;
            let mut c = Checks::default();
            c.begin(1);
            let mut other: Option<(Checks, Registers)> = None;
            for step in 0..40 {
                if step == 35 {
                    other = Some((c.clone(), r));
                }
                let n = [0u8, 1, 2, 3, 6, 7][next(6) as usize];
                if next(3) == 0 && r[usize::from(n)] < SPACE {
                    c.checked(n);
                }
                let (i, after) = arithmetic(&mut next, &r);
                let operand = i.mnemonic() == M::Lea && i.memory_index() != R::None;
                let near = |v: u64, by: u64| v.wrapping_add(by) < SPACE + 2 * by;
                if operand {
                    let index = r[usize::from(number(i.memory_index()))];
                    let v = r[usize::from(number(i.memory_base()))]
                        .wrapping_add(index.wrapping_mul(i.memory_index_scale().into()));
                    if c.is_near_sum(&i) {
                        sums += 1;
                        assert!(near(v, DRIFT as u64), "{i}: {v:#x}");
                    } else if v < SPACE {
                        c.checked_sum(Sum::of(&i));
                    }
                }
                // As if it was an access.
                if i.mnemonic() == M::Lea && after[usize::from(number(i.op0_register()))] < SPACE && next(2) == 0 {
                    c.accessed(&i);
                }
                let written = super::super::select::written(&mut info, &i);
                c.executed(&i, written);
                r = after;
                for (n, k) in c.known.iter().enumerate() {
                    assert!(r[n] <= k.max, "{i}: {:#x} is more than {:#x}", r[n], k.max);
                    assert!(k.near.is_none_or(|by| near(r[n], by.into())), "{i}: {:#x} is not near", r[n]);
                }
            }
            // Where two ways meet, what is known is so on both.
            if let Some((way, values)) = &other {
                let mut both = c.clone();
                both.meet(way, 3);
                let value = |r: &Registers, n: R| if n == R::None { 0 } else { r[usize::from(number(n))] };
                for r in [&r, values] {
                    for (n, k) in both.known.iter().enumerate() {
                        let is = |by: u32| r[n].wrapping_add(by.into()) < SPACE + 2 * u64::from(by);
                        assert!(r[n] <= k.max && k.near.is_none_or(is));
                        let same = |o: &usize| both.values[n] == both.values[*o];
                        assert!((0..16).filter(same).all(|o| r[o] == r[n]));
                    }
                    for (s, by) in &both.sums {
                        met += 1;
                        let sum = value(r, s.base).wrapping_add(value(r, s.index).wrapping_mul(s.scale.into()));
                        assert!(sum.wrapping_add((*by).into()) < SPACE + 2 * u64::from(*by), "{s:?}: {sum:#x}");
                    }
                }
                assert!(c.is_as_good(&both) && way.is_as_good(&both));
            }
        }
        assert!(sums > 10_000 && met > 1000, "{sums} {met}");
    }
}
