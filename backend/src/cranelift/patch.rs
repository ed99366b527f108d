//! Host instructions that Cranelift does not have.
//!
//! A *stand-in* is an instruction that it has and that is not used otherwise: `x86_pmulhrsw` for those of two operands,
//! the shuffle that becomes PALIGNR for those with an immediate as well. Each has a source location of its own, so its place in
//! the finished code is known, and there prefix, opcode and immediate are exchanged; registers are as Cranelift chose them.
//! In VEX encoding both are as long as what takes their place. Cranelift's mid-end would merge two stand-ins of equal
//! operands, so with it they are not used.
//!
//! In the same way an access of a vector becomes one that faults when its address is not aligned.

use super::Error;
use super::lower::{Lower, V};
use cranelift_codegen::ir::{ConstantData, InstBuilder, SourceLoc, types};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};
use std::collections::HashMap;
use std::ops::Range;

/// Stand-ins by source location.
pub(super) type Patches = HashMap<u32, Patch>;

/// What is to be changed in finished code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patch {
    /// A stand-in becomes something else.
    Insn(Form),
    /// VMOVDQU becomes VMOVDQA, which faults when the address is not a multiple of 16.
    Aligned,
}

/// What takes the place of a stand-in: a VEX.128 instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Opcode map (1: 0F, 2: 0F38, 3: 0F3A), mandatory prefix (0: none, 1: 66, 2: F3, 3: F2), W, opcode.
    pub form: (u8, u8, u8, u8),
    /// The second operand is the only source.
    pub unary: bool,
    /// The immediate.
    pub imm: Option<u8>,
}

/// Forms by the names of helpers: two sources, or (`true`) one.
pub(super) fn form(name: &str) -> Option<((u8, u8, u8, u8), bool)> {
    let two = |map, pp, w, op| Some(((map, pp, w, op), false));
    let one = |map, pp, op| Some(((map, pp, 0, op), true));
    match name {
        "pmulhw" => two(1, 1, 0, 0xe5),
        "pmulhuw" => two(1, 1, 0, 0xe4),
        "pmulhrsw" => two(2, 1, 0, 0x0b),
        "pmaddwd" => two(1, 1, 0, 0xf5),
        "pmaddubsw" => two(2, 1, 0, 0x04),
        "pmuludq" => two(1, 1, 0, 0xf4),
        "pmuldq" => two(2, 1, 0, 0x28),
        "psadbw" => two(1, 1, 0, 0xf6),
        "phaddw" => two(2, 1, 0, 0x01),
        "phaddd" => two(2, 1, 0, 0x02),
        "phaddsw" => two(2, 1, 0, 0x03),
        "phsubw" => two(2, 1, 0, 0x05),
        "phsubd" => two(2, 1, 0, 0x06),
        "phsubsw" => two(2, 1, 0, 0x07),
        "psignb" => two(2, 1, 0, 0x08),
        "psignw" => two(2, 1, 0, 0x09),
        "psignd" => two(2, 1, 0, 0x0a),
        "psllvd" => two(2, 1, 0, 0x47),
        "psrlvd" => two(2, 1, 0, 0x45),
        "psravd" => two(2, 1, 0, 0x46),
        "psllvq" => two(2, 1, 1, 0x47),
        "psrlvq" => two(2, 1, 1, 0x45),
        "permilps" => two(2, 1, 0, 0x0c),
        "permilpd" => two(2, 1, 0, 0x0d),
        "haddps" => two(1, 3, 0, 0x7c),
        "haddpd" => two(1, 1, 0, 0x7c),
        "hsubps" => two(1, 3, 0, 0x7d),
        "hsubpd" => two(1, 1, 0, 0x7d),
        "addsubps" => two(1, 3, 0, 0xd0),
        "addsubpd" => two(1, 1, 0, 0xd0),
        "aesenc" => two(2, 1, 0, 0xdc),
        "aesenclast" => two(2, 1, 0, 0xdd),
        "aesdec" => two(2, 1, 0, 0xde),
        "aesdeclast" => two(2, 1, 0, 0xdf),
        "phminposuw" => one(2, 1, 0x41),
        "cvtps2dq" => one(1, 1, 0x5b),
        "cvttps2dq" => one(1, 2, 0x5b),
        "cvtpd2dq" => one(1, 3, 0xe6),
        "cvttpd2dq" => one(1, 1, 0xe6),
        "cvtpd2ps" => one(1, 1, 0x5a),
        "aesimc" => one(2, 1, 0xdb),
        // With an immediate.
        "roundps" => one(3, 1, 0x08),
        "roundpd" => one(3, 1, 0x09),
        "roundss" => two(3, 1, 0, 0x0a),
        "roundsd" => two(3, 1, 0, 0x0b),
        "mpsadbw" => two(3, 1, 0, 0x42),
        "pclmulqdq" => two(3, 1, 0, 0x44),
        "dpps" => two(3, 1, 0, 0x40),
        "dppd" => two(3, 1, 0, 0x41),
        _ => None,
    }
}

impl Patch {
    /// Change the code made for one source location.
    pub(super) fn apply(self, code: &mut [u8]) -> Result<(), Error> {
        match self {
            Patch::Insn(f) => f.apply(code),
            Patch::Aligned => align(code),
        }
    }
}

/// Where the only instruction is that `is` says.
fn only(code: &[u8], is: impl Fn(&Instruction) -> bool) -> Option<Range<usize>> {
    let mut places = Decoder::new(64, code, DecoderOptions::NONE)
        .into_iter()
        .filter(is)
        .map(|i| i.ip() as usize..i.next_ip() as usize);
    let first = places.next()?;
    places.next().is_none().then_some(first)
}

/// Make VMOVDQU of guest memory VMOVDQA: another mandatory prefix.
fn align(code: &mut [u8]) -> Result<(), Error> {
    // Moves of registers to the stack, if there are any, have another base.
    let at = only(code, |i| {
        let moves = matches!(i.code(), Code::VEX_Vmovdqu_xmm_xmmm128 | Code::VEX_Vmovdqu_xmmm128_xmm);
        moves && i.memory_base() != Register::None && !matches!(i.memory_base(), Register::RSP | Register::RBP)
    });
    let prefix = at.and_then(|at| match code.get_mut(at)? {
        [0xc5, p, ..] | [0xc4, _, p, ..] => Some(p),
        _ => None,
    });
    let p = prefix.ok_or_else(|| Error::Cranelift("no access that could check its alignment".into()))?;
    *p = *p & !3 | 1;
    Ok(())
}

impl Form {
    /// Exchange the stand-in, which is the only one of its kind in this code.
    fn apply(self, code: &mut [u8]) -> Result<(), Error> {
        let want = if self.imm.is_some() {
            Code::VEX_Vpalignr_xmm_xmm_xmmm128_imm8
        } else {
            Code::VEX_Vpmulhrsw_xmm_xmm_xmmm128
        };
        let Some(at) = only(code, |i| i.code() == want) else {
            return Err(Error::Cranelift(format!("no stand-in for {self:?}")));
        };
        let (map, pp, w, op) = self.form;
        let i = &mut code[at];
        if i.first() != Some(&0xc4) {
            return Err(Error::Cranelift(format!("a stand-in for {self:?} in another encoding")));
        }
        i[1] = i[1] & 0xe0 | map;
        // W, vvvv (inverted), L, pp.
        i[2] = w << 7 | if self.unary { 0x78 } else { i[2] & 0x78 } | pp;
        i[3] = op;
        if let (Some(imm), Some(last)) = (self.imm, i.last_mut()) {
            *last = imm;
        }
        Ok(())
    }
}

impl Lower<'_, '_> {
    /// An instruction that stands in for `patch` on `a` and `b`; `None`: not with these settings.
    pub(super) fn stand_in(&mut self, patch: Form, a: V, b: V) -> Option<V> {
        if !self.settings.features.has_avx() || self.opt.optimize {
            return None;
        }
        self.pcs.push(self.pc);
        let n = self.pcs.len() as u32 - 1;
        self.patches.insert(n, Patch::Insn(patch));
        let shape = if patch.imm.is_some() { types::I8X16 } else { types::I16X8 };
        let (a, b) = (self.cast(a, shape), self.cast(b, shape));
        self.b.set_srcloc(SourceLoc::new(n));
        let r = if patch.imm.is_some() {
            // PALIGNR's first source is the shuffle's second.
            let sel: [u8; 16] = std::array::from_fn(|k| k as u8 + 5);
            let sel = self.b.func.dfg.immediates.push(ConstantData::from(&sel[..]));
            self.b.ins().shuffle(b, a, sel)
        } else {
            self.b.ins().x86_pmulhrsw(a, b)
        };
        self.pcs.push(self.pc);
        self.b.set_srcloc(SourceLoc::new(n + 1));
        Some(r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::FastFormatter;

    fn text(i: &Instruction) -> String {
        let mut s = String::new();
        let mut f = FastFormatter::new();
        f.options_mut().set_use_pseudo_ops(false);
        f.format(i, &mut s);
        s
    }

    #[test]
    fn forms() {
        // vpmulhrsw xmm9,xmm2,xmm12 between two moves; vpalignr xmm1,xmm2,xmm3,5.
        let plain = [0xc4, 0x42, 0x69, 0x0b, 0xcc];
        let with_imm = [0xc4, 0xe3, 0x69, 0x0f, 0xcb, 0x05];
        for (name, imm, want) in [
            ("pmuludq", None, "vpmuludq xmm9,xmm2,xmm12"),
            ("psrlvq", None, "vpsrlvq xmm9,xmm2,xmm12"),
            ("haddps", None, "vhaddps xmm9,xmm2,xmm12"),
            ("cvttps2dq", None, "vcvttps2dq xmm9,xmm12"),
            ("aesimc", None, "vaesimc xmm9,xmm12"),
            ("roundpd", Some(11), "vroundpd xmm1,xmm3,0Bh"),
            ("roundss", Some(4), "vroundss xmm1,xmm2,xmm3,4h"),
            ("pclmulqdq", Some(17), "vpclmulqdq xmm1,xmm2,xmm3,11h"),
        ] {
            let (form, unary) = form(name).expect("a form");
            let p = Form { form, unary, imm };
            let stand_in = if imm.is_some() { &with_imm[..] } else { &plain };
            let mut code = [&[0xc5, 0xf8, 0x28, 0xc1], stand_in, &[0x48, 0x89, 0xc8]].concat();
            p.apply(&mut code).expect("applied");
            let i: Vec<Instruction> = Decoder::new(64, &code, DecoderOptions::NONE).into_iter().collect();
            assert_eq!(i.len(), 3);
            assert_eq!(text(&i[1]), want);
            assert!(p.apply(&mut code).is_err() || name == "pmulhrsw");
        }
    }

    #[test]
    fn every_form_is_an_instruction_of_its_name() {
        const NAMES: &[&str] = &[
            "pmulhw",
            "pmulhuw",
            "pmulhrsw",
            "pmaddwd",
            "pmaddubsw",
            "pmuludq",
            "pmuldq",
            "psadbw",
            "phaddw",
            "phaddd",
            "phaddsw",
            "phsubw",
            "phsubd",
            "phsubsw",
            "psignb",
            "psignw",
            "psignd",
            "psllvd",
            "psrlvd",
            "psravd",
            "psllvq",
            "psrlvq",
            "permilps",
            "permilpd",
            "haddps",
            "haddpd",
            "hsubps",
            "hsubpd",
            "addsubps",
            "addsubpd",
            "aesenc",
            "aesenclast",
            "aesdec",
            "aesdeclast",
            "phminposuw",
            "cvtps2dq",
            "cvttps2dq",
            "cvtpd2dq",
            "cvttpd2dq",
            "cvtpd2ps",
            "aesimc",
            "roundps",
            "roundpd",
            "roundss",
            "roundsd",
            "mpsadbw",
            "pclmulqdq",
            "dpps",
            "dppd",
        ];
        for name in NAMES {
            let (form, unary) = form(name).expect("a form");
            let imm = (form.0 == 3).then_some(1);
            let mut code = match imm {
                Some(_) => vec![0xc4, 0xe3, 0x69, 0x0f, 0xcb, 0x05],
                None => vec![0xc4, 0xe2, 0x69, 0x0b, 0xcb],
            };
            Form { form, unary, imm }.apply(&mut code).expect("applied");
            let i = Decoder::new(64, &code, DecoderOptions::NONE).decode();
            assert_eq!(format!("{:?}", i.mnemonic()).to_lowercase(), format!("v{name}"));
            assert_eq!((i.len(), i.op_count()), (code.len(), 3 - u32::from(unary) + u32::from(imm.is_some())));
        }
    }
}
