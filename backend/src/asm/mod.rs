//! An assembler for the few instruction forms that the tiers without Cranelift emit by themselves.
//!
//! Intel SDM volume 2, chapter 2 (instruction format). Opcodes are written as their bytes in one number:
//! `0x03`, `0x0faf`, `0x0f3838`; mandatory prefixes are given apart.

mod short;

/// A register by its encoding number, general or XMM as the instruction says.
pub(crate) type Reg = u8;

pub(crate) const RAX: Reg = 0;
pub(crate) const RCX: Reg = 1;
pub(crate) const RDX: Reg = 2;
pub(crate) const RSP: Reg = 4;
pub(crate) const RSI: Reg = 6;
pub(crate) const RDI: Reg = 7;
pub(crate) const R8: Reg = 8;
pub(crate) const R9: Reg = 9;
pub(crate) const R10: Reg = 10;
pub(crate) const R11: Reg = 11;
pub(crate) const R15: Reg = 15;

/// The operand that a ModRM byte describes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rm {
    Reg(Reg),
    /// `[base + disp]`
    Mem(Reg, i32),
    /// `[base + index + disp]`
    Index(Reg, Reg, i32),
    /// `[base + (index << shift) + disp]`
    Scaled(Reg, Reg, u8, i32),
    /// `[(index << shift) + disp]`
    Table(Reg, u8, i32),
    /// A constant of the pool at the end of the code, by number.
    Const(u32),
}

/// Width of an integer instruction in bytes: 1, 2, 4 or 8.
pub(crate) type Width = u32;

/// A condition code as in `Jcc` (SDM appendix B.1.4).
pub(crate) mod cc {
    pub const B: u8 = 2;
    pub const AE: u8 = 3;
    pub const E: u8 = 4;
    pub const NE: u8 = 5;
    pub const BE: u8 = 6;
    pub const A: u8 = 7;
    pub const L: u8 = 12;
    pub const GE: u8 = 13;
    pub const LE: u8 = 14;
    pub const G: u8 = 15;
}

/// The eight operations of opcode group 1, by their number.
pub(crate) mod alu {
    pub const ADD: u8 = 0;
    pub const OR: u8 = 1;
    pub const AND: u8 = 4;
    pub const SUB: u8 = 5;
    pub const XOR: u8 = 6;
    pub const CMP: u8 = 7;
}

/// A place in the code, perhaps not known yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Label(pub u32);

pub(crate) const UNBOUND: u32 = u32::MAX;

/// Code being written.
#[derive(Default)]
pub(crate) struct Asm {
    pub code: Vec<u8>,
    pub(crate) labels: Vec<u32>,
    /// (place of a 32-bit displacement, label), ascending
    pub(crate) fixups: Vec<(u32, Label)>,
    pub(crate) jumps: short::Jumps,
    consts: Vec<u128>,
    /// (place of a 32-bit displacement, bytes of the instruction after it, constant)
    pub(crate) const_fixups: Vec<(u32, u32, u32)>,
}

fn patch(code: &mut [u8], at: u32, v: u32) {
    code[at as usize..at as usize + 4].copy_from_slice(&v.to_le_bytes());
}

impl Asm {
    pub fn clear(&mut self) {
        self.code.clear();
        self.labels.clear();
        self.fixups.clear();
        self.consts.clear();
        self.const_fixups.clear();
    }
    pub fn pos(&self) -> u32 {
        self.code.len() as u32
    }
    /// The prefix of the next instruction's memory operand that adds the base of GS.
    pub fn gs(&mut self) {
        self.byte(0x65);
    }
    pub fn byte(&mut self, b: u8) {
        self.code.push(b);
    }
    fn dword(&mut self, v: u32) {
        self.code.extend_from_slice(&v.to_le_bytes());
    }

    // ---- labels and constants

    pub fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }
    pub fn bind(&mut self, l: Label) {
        self.labels[l.0 as usize] = self.pos();
    }
    /// Where a label is; its place moves when [`Asm::finish`] makes jumps short.
    pub fn at(&self, l: Label) -> u32 {
        self.labels[l.0 as usize]
    }
    pub fn jmp(&mut self, l: Label) {
        self.byte(0xe9);
        self.fixups.push((self.pos(), l));
        self.dword(0);
    }
    pub fn call_label(&mut self, l: Label) {
        self.byte(0xe8);
        self.fixups.push((self.pos(), l));
        self.dword(0);
    }
    pub fn jcc(&mut self, cc: u8, l: Label) {
        self.byte(0x0f);
        self.byte(0x80 | cc);
        self.fixups.push((self.pos(), l));
        self.dword(0);
    }
    /// The pool's number of a 128-bit constant.
    pub fn constant(&mut self, v: u128) -> Rm {
        let n = self.consts.iter().position(|c| *c == v).unwrap_or_else(|| {
            self.consts.push(v);
            self.consts.len() - 1
        });
        Rm::Const(n as u32)
    }
    /// Write the constants and resolve what was left open. `marks` are places in the code, which move along. False if a label
    /// was never bound.
    pub fn finish(&mut self, marks: &mut [(u32, u64)]) -> bool {
        if self.fixups.iter().any(|f| self.labels[f.1.0 as usize] == UNBOUND) {
            return false;
        }
        self.shorten(marks);
        if !self.consts.is_empty() {
            while !self.code.len().is_multiple_of(16) {
                self.byte(0xcc);
            }
            let base = self.pos();
            for c in &self.consts {
                self.code.extend_from_slice(&c.to_le_bytes());
            }
            for (at, after, n) in &self.const_fixups {
                patch(&mut self.code, *at, (base + 16 * n).wrapping_sub(at + 4 + after));
            }
        }
        self.resolve();
        true
    }

    // ---- the general form

    /// Prefix, REX, opcode, ModRM, SIB, displacement. `after`: bytes of immediate that will follow. `byte`: the
    /// register operands are byte registers, so that SPL to DIL need a REX prefix.
    #[allow(clippy::too_many_arguments)]
    fn form(&mut self, prefix: u8, wide: bool, byte: bool, op: u32, reg: u8, rm: Rm, after: u32) {
        if prefix != 0 {
            self.byte(prefix);
        }
        let (x, b) = match rm {
            Rm::Reg(r) | Rm::Mem(r, _) => (0, r >> 3),
            Rm::Index(base, i, _) | Rm::Scaled(base, i, ..) => (i >> 3, base >> 3),
            Rm::Table(i, ..) => (i >> 3, 0),
            Rm::Const(_) => (0, 0),
        };
        let rex = u8::from(wide) << 3 | (reg >> 3) << 2 | x << 1 | b;
        if rex != 0 || byte {
            self.byte(0x40 | rex);
        }
        if op > 0xffff {
            self.byte((op >> 16) as u8);
        }
        if op > 0xff {
            self.byte((op >> 8) as u8);
        }
        self.byte(op as u8);
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(r) => self.byte(0xc0 | reg | (r & 7)),
            Rm::Mem(base, d) => {
                // RSP and R12 as a base need a SIB byte.
                let sib = (base & 7 == RSP).then_some(0x24);
                self.disp(reg | (base & 7), sib, d);
            }
            Rm::Index(base, i, d) => self.disp(reg | 4, Some((i & 7) << 3 | (base & 7)), d),
            Rm::Scaled(base, i, by, d) => self.disp(reg | 4, Some(by << 6 | (i & 7) << 3 | (base & 7)), d),
            Rm::Table(i, by, d) => {
                self.byte(reg | 4);
                self.byte(by << 6 | (i & 7) << 3 | 5);
                self.dword(d as u32);
            }
            Rm::Const(n) => {
                self.byte(reg | 5);
                self.const_fixups.push((self.pos(), after, n));
                self.dword(0);
            }
        }
    }
    fn disp(&mut self, modrm: u8, sib: Option<u8>, d: i32) {
        let short = i8::try_from(d).ok();
        self.byte(modrm | if short.is_some() { 0x40 } else { 0x80 });
        if let Some(s) = sib {
            self.byte(s);
        }
        match short {
            Some(s) => self.byte(s as u8),
            None => self.dword(d as u32),
        }
    }

    /// An instruction whose operand size is given by prefix 66 and REX.W, and byte forms by the opcode's lowest
    /// bit being clear.
    fn sized(&mut self, w: Width, op: u32, reg: u8, rm: Rm, after: u32) {
        let op = if w == 1 { op & !1 } else { op };
        self.form(if w == 2 { 0x66 } else { 0 }, w == 8, w == 1, op, reg, rm, after);
    }
    /// Any instruction of operand size 4 or 8 without immediate.
    pub fn op(&mut self, w: Width, op: u32, reg: u8, rm: Rm) {
        self.form(0, w == 8, false, op, reg, rm, 0);
    }
    /// Any instruction with mandatory prefix and without immediate.
    pub fn sse(&mut self, prefix: u8, w: Width, op: u32, reg: u8, rm: Rm) {
        self.form(prefix, w == 8, false, op, reg, rm, 0);
    }
    /// The same with an 8-bit immediate.
    pub fn sse_imm(&mut self, prefix: u8, w: Width, op: u32, reg: u8, rm: Rm, imm: u8) {
        self.form(prefix, w == 8, false, op, reg, rm, 1);
        self.byte(imm);
    }

    // ---- moves

    /// Zero-extending load or move of `w` bytes to a whole register.
    pub fn load(&mut self, w: Width, r: Reg, rm: Rm) {
        match w {
            1 => self.form(0, false, true, 0x0fb6, r, rm, 0),
            2 => self.form(0, false, false, 0x0fb7, r, rm, 0),
            w => self.form(0, w == 8, false, 0x8b, r, rm, 0),
        }
    }
    /// Sign-extending move of `from` bytes to a register of `to` bytes (4 or 8).
    pub fn load_signed(&mut self, from: Width, to: Width, r: Reg, rm: Rm) {
        match from {
            1 => self.form(0, to == 8, true, 0x0fbe, r, rm, 0),
            2 => self.form(0, to == 8, false, 0x0fbf, r, rm, 0),
            4 if to == 8 => self.form(0, true, false, 0x63, r, rm, 0),
            _ => self.load(from, r, rm),
        }
    }
    /// Store or move of `w` bytes.
    pub fn store(&mut self, w: Width, rm: Rm, r: Reg) {
        self.sized(w, 0x89, r, rm, 0);
    }
    /// Store of a constant; false if it has no such form.
    pub fn store_imm(&mut self, w: Width, rm: Rm, v: u64) -> bool {
        let n = v as i64 as i32;
        if w == 8 && i64::from(n) != v as i64 {
            return false;
        }
        self.sized(w, 0xc7, 0, rm, w.min(4));
        match w {
            1 => self.byte(v as u8),
            2 => self.code.extend_from_slice(&(v as u16).to_le_bytes()),
            _ => self.dword(n as u32),
        }
        true
    }
    pub fn imm(&mut self, r: Reg, v: u64) {
        if v == 0 {
            self.op(4, 0x31, r, Rm::Reg(r));
        } else {
            self.imm_keeping_flags(r, v);
        }
    }
    pub fn imm_keeping_flags(&mut self, r: Reg, v: u64) {
        if let Ok(n) = u32::try_from(v) {
            if r > 7 {
                self.byte(0x41);
            }
            self.byte(0xb8 | (r & 7));
            self.dword(n);
        } else if i64::from(v as i64 as i32) == v as i64 {
            self.form(0, true, false, 0xc7, 0, Rm::Reg(r), 4);
            self.dword(v as u32);
        } else {
            self.byte(0x48 | (r >> 3));
            self.byte(0xb8 | (r & 7));
            self.code.extend_from_slice(&v.to_le_bytes());
        }
    }
    pub fn lea(&mut self, w: Width, r: Reg, rm: Rm) {
        self.form(0, w == 8, false, 0x8d, r, rm, 0);
    }

    // ---- arithmetic

    /// `reg op= rm`, by the operation's number in group 1.
    pub fn alu(&mut self, w: Width, n: u8, reg: Reg, rm: Rm) {
        self.sized(w, u32::from(n) << 3 | 3, reg, rm, 0);
    }
    /// `rm op= reg`.
    pub fn alu_to(&mut self, w: Width, n: u8, rm: Rm, reg: Reg) {
        self.sized(w, u32::from(n) << 3 | 1, reg, rm, 0);
    }
    /// `rm op= imm` with an immediate that fits sign-extended.
    pub fn alu_imm(&mut self, w: Width, n: u8, rm: Rm, v: i32) {
        if w == 1 {
            self.sized(1, 0x80, n, rm, 1);
            self.byte(v as u8);
        } else if let Ok(s) = i8::try_from(v) {
            self.sized(w, 0x83, n, rm, 1);
            self.byte(s as u8);
        } else if w == 2 {
            self.sized(2, 0x81, n, rm, 2);
            self.code.extend_from_slice(&(v as u16).to_le_bytes());
        } else {
            self.sized(w, 0x81, n, rm, 4);
            self.dword(v as u32);
        }
    }
    pub fn test(&mut self, w: Width, a: Reg, b: Reg) {
        self.sized(w, 0x85, b, Rm::Reg(a), 0);
    }
    /// `test` of 32 bits with a constant.
    pub fn test_imm(&mut self, r: Reg, v: i32) {
        self.sized(4, 0xf7, 0, Rm::Reg(r), 4);
        self.dword(v as u32);
    }
    /// Group 2 (shifts and rotates) by its number: 0 ROL, 1 ROR, 4 SHL, 5 SHR, 7 SAR; by a constant.
    pub fn shift_imm(&mut self, w: Width, n: u8, r: Reg, by: u8) {
        self.sized(w, 0xc1, n, Rm::Reg(r), 1);
        self.byte(by);
    }
    /// The same by CL.
    pub fn shift_cl(&mut self, w: Width, n: u8, r: Reg) {
        self.sized(w, 0xd3, n, Rm::Reg(r), 0);
    }
    /// Group 3 by its number: 2 NOT, 3 NEG, 4 MUL, 5 IMUL, 6 DIV, 7 IDIV.
    pub fn group3(&mut self, w: Width, n: u8, rm: Rm) {
        self.sized(w, 0xf7, n, rm, 0);
    }
    /// `lock` before the next instruction.
    pub fn lock(&mut self) {
        self.byte(0xf0);
    }
    /// XADD, CMPXCHG and XCHG by their word opcode.
    pub fn exchange(&mut self, w: Width, op: u32, rm: Rm, r: Reg) {
        self.sized(w, op, r, rm, 0);
    }
    pub fn setcc(&mut self, cc: u8, r: Reg) {
        self.form(0, false, true, 0x0f90 | u32::from(cc), 0, Rm::Reg(r), 0);
    }
    pub fn cmov(&mut self, cc: u8, r: Reg, rm: Rm) {
        self.form(0, true, false, 0x0f40 | u32::from(cc), r, rm, 0);
    }

    /// `to = from >> (by & 63)`, flags untouched (BMI2).
    pub fn shrx(&mut self, to: Reg, from: Reg, by: Reg) {
        let inverted = |high: u8, at: u8| (high ^ 1) << at;
        self.byte(0xc4);
        self.byte(inverted(to >> 3, 7) | 1 << 6 | inverted(from >> 3, 5) | 2);
        self.byte(1 << 7 | (by ^ 15) << 3 | 3);
        self.byte(0xf7);
        self.byte(0xc0 | (to & 7) << 3 | (from & 7));
    }

    /// `from` rotated right (BMI2, 64 bits), flags untouched.
    pub fn rorx(&mut self, to: Reg, from: Reg, by: u8) {
        let inverted = |high: u8, at: u8| (high ^ 1) << at;
        self.byte(0xc4);
        self.byte(inverted(to >> 3, 7) | 1 << 6 | inverted(from >> 3, 5) | 3);
        self.byte(1 << 7 | 15 << 3 | 3);
        self.byte(0xf0);
        self.byte(0xc0 | (to & 7) << 3 | (from & 7));
        self.byte(by);
    }

    /// The bits of `from` that are set in the word at `[base + d]`, together (BMI2, 64 bits), flags untouched.
    pub fn pext(&mut self, to: Reg, from: Reg, mask: Rm) {
        let Rm::Mem(base, d) = mask else { return };
        let inverted = |high: u8, at: u8| (high ^ 1) << at;
        self.byte(0xc4);
        self.byte(inverted(to >> 3, 7) | 1 << 6 | inverted(base >> 3, 5) | 2);
        self.byte(1 << 7 | (from ^ 15) << 3 | 2);
        self.byte(0xf5);
        debug_assert!(base & 7 != RSP);
        self.disp((to & 7) << 3 | (base & 7), None, d);
    }

    // ---- control

    pub fn push(&mut self, r: Reg) {
        debug_assert!(r < 8);
        self.byte(0x50 | r);
    }
    pub fn pop(&mut self, r: Reg) {
        debug_assert!(r < 8);
        self.byte(0x58 | r);
    }
    pub fn call(&mut self, rm: Rm) {
        self.form(0, false, false, 0xff, 2, rm, 0);
    }
    pub fn jmp_rm(&mut self, rm: Rm) {
        self.form(0, false, false, 0xff, 4, rm, 0);
    }
    pub fn ret(&mut self) {
        self.byte(0xc3);
    }
    pub fn int3(&mut self) {
        self.byte(0xcc);
    }
    pub fn mfence(&mut self) {
        self.code.extend_from_slice(&[0x0f, 0xae, 0xf0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, FastFormatter};

    fn text(f: impl FnOnce(&mut Asm)) -> String {
        let mut a = Asm::default();
        f(&mut a);
        assert!(a.finish(&mut []));
        let i = Decoder::with_ip(64, &a.code, 0, DecoderOptions::NONE).decode();
        let mut s = String::new();
        let mut f = FastFormatter::new();
        f.options_mut().set_use_hex_prefix(true);
        f.format(&i, &mut s);
        s
    }

    #[test]
    fn forms() {
        let cases: &[(&dyn Fn(&mut Asm), &str)] = &[
            (&|a| a.load(8, R9, Rm::Mem(RDI, 0x200)), "mov r9,[rdi+0x200]"),
            (&|a| a.load(1, RSI, Rm::Reg(RDI)), "movzx esi,dil"),
            (&|a| a.load(2, R8, Rm::Index(R15, RCX, -8)), "movzx r8d,word ptr [r15+rcx-0x8]"),
            (&|a| a.load_signed(4, 8, RAX, Rm::Reg(R10)), "movsxd rax,r10d"),
            (&|a| a.store(1, Rm::Index(R15, R11, 0), RSI), "mov [r15+r11],sil"),
            (&|a| a.store(2, Rm::Mem(RDI, 4), R8), "mov [rdi+0x4],r8w"),
            (&|a| assert!(a.store_imm(8, Rm::Mem(RDI, 8), u64::MAX)), "mov qword ptr [rdi+0x8],0xFFFFFFFFFFFFFFFF"),
            (&|a| a.imm(R10, 0x1234_5678_9abc), "mov r10,0x123456789ABC"),
            (&|a| a.imm(RCX, 5), "mov ecx,0x5"),
            (&|a| a.alu(4, alu::ADD, RCX, Rm::Reg(R8)), "add ecx,r8d"),
            (&|a| a.alu_imm(8, alu::CMP, Rm::Reg(R9), 300), "cmp r9,0x12C"),
            (&|a| a.alu_imm(1, alu::CMP, Rm::Reg(RSI), 3), "cmp sil,0x3"),
            (&|a| a.alu_imm(2, alu::CMP, Rm::Reg(RDX), 1000), "cmp dx,0x3E8"),
            (&|a| a.alu_to(8, alu::CMP, Rm::Mem(RDI, 128), RSP), "cmp [rdi+0x80],rsp"),
            (&|a| a.shift_imm(8, 7, R11, 3), "sar r11,0x3"),
            (&|a| a.shift_cl(1, 0, RDX), "rol dl,cl"),
            (&|a| a.group3(8, 4, Rm::Reg(R8)), "mul r8"),
            (&|a| a.setcc(cc::A, RSI), "seta sil"),
            (&|a| a.cmov(cc::NE, R8, Rm::Reg(RCX)), "cmovne r8,rcx"),
            (&|a| a.sse(0xf2, 4, 0x0f58, 3, Rm::Reg(12)), "addsd xmm3,xmm12"),
            (&|a| a.sse(0x66, 4, 0x0f3800, 9, Rm::Reg(1)), "pshufb xmm9,xmm1"),
            (&|a| a.sse_imm(0x66, 8, 0x0f3a16, 9, Rm::Reg(RCX), 1), "pextrq rcx,xmm9,0x1"),
            (&|a| a.shrx(R10, RSI, R9), "shrx r10,rsi,r9"),
            (&|a| a.pext(13, R10, Rm::Mem(14, 8)), "pext r13,r10,[r14+0x8]"),
            (&|a| a.rorx(R10, 13, 4), "rorx r10,r13,0x4"),
            (&|a| a.shrx(RAX, 13, RDX), "shrx rax,r13,rdx"),
            (&|a| a.load(8, R10, Rm::Table(13, 3, -8)), "mov r10,[r13*8-0x8]"),
            (&|a| a.lea(8, R10, Rm::Scaled(R11, R9, 2, 4)), "lea r10,[r11+r9*4+0x4]"),
            (&|a| a.load(8, R10, Rm::Mem(12, 8)), "mov r10,[r12+0x8]"),
            (&|a| a.sse(0xf2, 8, 0x0f38f1, RCX, Rm::Reg(R15)), "crc32 rcx,r15"),
            (&|a| a.jmp_rm(Rm::Reg(RAX)), "jmp rax"),
            (&|a| a.call(Rm::Mem(RAX, 64)), "call qword ptr [rax+0x40]"),
        ];
        for (f, want) in cases {
            assert_eq!(text(f), *want);
        }
    }
}
