//! States before and after a case, and random ones.

use super::image::{self, input, output};
use std::collections::BTreeMap;

/// General registers in encoding order.
pub const REGS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// A part of a state. Names are in [`super::text`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Field {
    /// How it ended; what a signal said.
    End,
    /// `si_code`.
    SiCode,
    /// `si_addr`.
    SiAddr,
    /// RIP in the signal's frame.
    Rip,
    /// Trap number in the signal's frame.
    Trapno,
    /// Error code in the signal's frame.
    Err,
    /// A general register.
    Gpr(usize),
    /// RFLAGS.
    Flags,
    /// x87 control word.
    Fcw,
    /// x87 status word.
    Fsw,
    /// x87 tags, abridged.
    Ftw,
    /// Opcode of the last x87 instruction with an unmasked exception.
    Fop,
    /// Address of the last x87 instruction.
    Fip,
    /// Address of the operand of the last with an unmasked exception.
    Fdp,
    /// x87 stack from ST(0).
    St(usize),
    /// MXCSR.
    Mxcsr,
    /// Low half of a vector register.
    Xmm(usize),
    /// Upper half.
    YmmHigh(usize),
    /// Eight bytes at an offset from the window.
    Mem(i64),
}

impl Field {
    /// Whether it is part of a state before, too.
    pub fn is_before(self) -> bool {
        match self {
            Field::End | Field::SiCode | Field::SiAddr | Field::Rip | Field::Trapno | Field::Err => false,
            Field::Fop | Field::Fip | Field::Fdp => false,
            Field::Mem(at) => (0..input::DATA_LEN as i64).contains(&at),
            _ => true,
        }
    }
}

/// Which CPU model, and so which registers exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Features {
    /// x86-64-v2.
    V2,
    /// x86-64-v3.
    V3,
}

impl Features {
    /// The CPU model's name.
    pub fn model(self) -> &'static str {
        match self {
            Features::V2 => "x86-64-v2",
            Features::V3 => "x86-64-v3",
        }
    }
}

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// Next value.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    /// True in `percent` of the calls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
    /// An integer with edge values.
    pub fn int(&mut self) -> u64 {
        const EDGES: [u64; 20] = [
            0,
            0,
            1,
            1,
            2,
            u64::MAX,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            i64::MAX as u64,
            i64::MIN as u64,
            0xffff_ffff_8000_0000,
            0xaaaa_aaaa_5555_5555,
        ];
        match self.below(10) {
            0..=3 => self.pick(&EDGES),
            4 => self.below(70),
            5 => (self.below(256) as u8 as i8) as u64,
            6 => self.next() >> self.below(64),
            7 => 1 << self.below(64),
            _ => self.next(),
        }
    }
    fn f32(&mut self) -> u32 {
        const EDGES: [u32; 22] = [
            0,
            0x8000_0000,
            1,
            0x807f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc1_2345,
            0x7f80_0001,
            0xff81_2345,
            0x3f80_0000,
            0xbf80_0000,
            0x3f00_0000,
            0x3fc0_0000,
            0x4020_0000,
            0x4f00_0000,
            0xcf00_0000,
            0x4eff_ffff,
            0x5f00_0000,
            0x477f_e100,
        ];
        match self.below(8) {
            0..=3 => self.pick(&EDGES),
            4 => (self.below(2000) as f32 / 8.0 - 100.0).to_bits(),
            5 => (self.next() as u32 & 0x807f_ffff) | (110 + self.below(40) as u32) << 23,
            _ => self.next() as u32,
        }
    }
    fn f64(&mut self) -> u64 {
        const EDGES: [u64; 22] = [
            0,
            1 << 63,
            1,
            0x800f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0xfff8_1234_5678_9abc,
            0x7ff0_0000_0000_0001,
            0xfff0_1234_5678_9abc,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x3fe0_0000_0000_0000,
            0x3ff8_0000_0000_0000,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0xc3e0_0000_0000_0000,
            0x41df_ffff_ffc0_0000,
            0x3690_0000_0000_0000,
            0x47ef_ffff_f000_0000,
        ];
        match self.below(8) {
            0..=3 => self.pick(&EDGES),
            4 => (self.below(2000) as f64 / 8.0 - 100.0).to_bits(),
            5 => (self.next() & 0x800f_ffff_ffff_ffff) | (1000 + self.below(48)) << 52,
            _ => self.next(),
        }
    }
    /// 128 bits as a vector register may hold them.
    pub fn vector(&mut self) -> u128 {
        let mut v = 0u128;
        match self.below(8) {
            0..=2 => (0..4).for_each(|_| v = v << 32 | u128::from(self.f32())),
            3..=5 => (0..2).for_each(|_| v = v << 64 | u128::from(self.f64())),
            6 => (0..2).for_each(|_| v = v << 64 | u128::from(self.int())),
            _ => (0..2).for_each(|_| v = v << 64 | u128::from(self.next())),
        }
        v
    }
    /// An 80-bit number.
    pub fn f80(&mut self) -> u128 {
        let se = |s: u64, e: u64, f: u64| u128::from(s << 15 | e) << 64 | u128::from(f);
        let (s, f) = (self.below(2), self.next());
        let one = 1u64 << 63;
        match self.below(16) {
            0 => se(s, 0, 0),
            1 => se(s, 0x3fff, one),
            2 => se(s, 0, f >> 1),
            3 => se(s, 0, f | one),
            4 => se(s, 1 + self.below(0x7ffe), f >> 1),
            5 => se(s, 0x7fff, one),
            6 => se(s, 0x7fff, f >> 1),
            7 => se(s, 0x7fff, one | f >> 2),
            8 => se(s, 0x7fff, one | 1 << 62 | f >> 2),
            9 => se(s, 0x3fff + self.below(64), one | f >> self.below(64)),
            10 => se(s, 0x3fff + self.below(70), one | f << self.below(64)),
            11 => se(s, 1 + self.below(40), one | f),
            12 => se(s, 0x7ffe - self.below(40), one | f),
            13 => se(s, 0x3fff - self.below(70), one | f),
            _ => se(s, 0x3fc0 + self.below(0x80), one | f),
        }
    }
}

/// The state before a case.
#[derive(Clone, PartialEq, Debug)]
pub struct Input {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub flags: u64,
    /// Where its code is (set when the program is made).
    pub code: u64,
    /// Where its bytes of memory are.
    pub window: u64,
    /// These bytes.
    pub data: [u8; input::DATA_LEN],
    /// Low halves of vector registers.
    pub xmm: [u128; 16],
    /// Upper halves.
    pub ymm: [u128; 16],
    /// x87 stack from ST(0).
    pub st: [u128; 8],
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word.
    pub fsw: u16,
    /// Abridged tag word: a bit for each register that is not empty.
    pub ftw: u8,
    /// MXCSR.
    pub mxcsr: u32,
    /// Where it goes on when its first instruction faults, 0: it ends there (set when the program is made).
    pub go_on: u64,
}

impl Input {
    /// All zero, registers empty.
    pub fn plain(window: u64) -> Input {
        let mut gpr = [0; 16];
        gpr[4] = window + 128;
        Input {
            gpr,
            flags: 0x202,
            code: 0,
            window,
            data: [0; input::DATA_LEN],
            xmm: [0; 16],
            ymm: [0; 16],
            st: [0; 8],
            fcw: 0x37f,
            fsw: 0,
            ftw: 0,
            mxcsr: 0x1f80,
            go_on: 0,
        }
    }
    /// Random; `unmask`: in how many of a hundred cases floating exceptions are unmasked.
    pub fn random(rng: &mut Rng, window: u64, unmask: u64) -> Input {
        let mut i = Input::plain(window);
        for (n, r) in i.gpr.iter_mut().enumerate() {
            if n != 4 {
                *r = rng.int();
            }
        }
        i.flags = 0x202 | rng.next() & 0x8d5;
        if rng.chance(15) {
            i.flags |= 0x400;
        }
        for part in i.data.chunks_exact_mut(16) {
            part.copy_from_slice(&rng.vector().to_le_bytes());
        }
        i.xmm = std::array::from_fn(|_| rng.vector());
        i.ymm = std::array::from_fn(|_| if rng.chance(80) { rng.vector() } else { 0 });
        i.st = std::array::from_fn(|_| rng.f80());
        i.fcw = 0x37f;
        if rng.chance(60) {
            i.fcw = i.fcw & !0xf00 | rng.pick(&[0u16, 0x200, 0x300, 0x300]) | (rng.below(4) as u16) << 10;
        }
        i.ftw = match rng.below(4) {
            0 => 0xff,
            1 => 0,
            2 => rng.next() as u8,
            _ => 0xff << rng.below(8),
        };
        i.fsw = rng.next() as u16 & 0x7f00;
        if i.ftw == 0 || rng.chance(70) {
            // As after loads: TOP at the lowest register in use.
            let top = (i.ftw.trailing_zeros() & 7) as u16;
            i.fsw = i.fsw & !0x3800 | top << 11;
        }
        if rng.chance(20) {
            i.fsw |= rng.next() as u16 & 0x7f;
        }
        i.mxcsr = 0x1f80;
        if rng.chance(60) {
            i.mxcsr |= (rng.below(4) as u32) << 13;
        }
        if rng.chance(15) {
            i.mxcsr |= rng.pick(&[0x8000u32, 0x40, 0x8040]);
        }
        if rng.chance(20) {
            i.mxcsr |= rng.next() as u32 & 0x3f;
        }
        if rng.chance(unmask) {
            i.fcw &= !(rng.next() as u16 & 0x3f);
            if rng.chance(90) {
                // A pending exception would be all there is to see.
                i.fsw &= !0x7f | i.fcw & 0x3f;
            }
        }
        if rng.chance(unmask) {
            i.mxcsr &= !(rng.next() as u32 & 0x1f80);
        }
        i.fix();
        i
    }
    /// The window of a case that does not say.
    pub fn default_window() -> u64 {
        image::SCRATCH + 0x800
    }
    /// All of it, and of memory what is looked at afterwards.
    pub fn fields(&self) -> Vec<(Field, u128)> {
        let mut all: Vec<(Field, u128)> = (0..16).map(|n| (Field::Gpr(n), self.gpr[n].into())).collect();
        all.push((Field::Flags, self.flags.into()));
        all.push((Field::Fcw, self.fcw.into()));
        all.push((Field::Fsw, self.fsw.into()));
        all.push((Field::Ftw, self.ftw.into()));
        all.extend([Field::Fop, Field::Fip, Field::Fdp].map(|f| (f, 0)));
        all.extend((0..8).map(|n| (Field::St(n), self.st[n])));
        all.push((Field::Mxcsr, self.mxcsr.into()));
        all.extend((0..16).map(|n| (Field::Xmm(n), self.xmm[n])));
        all.extend((0..16).map(|n| (Field::YmmHigh(n), self.ymm[n])));
        for at in (self.out_window()..self.out_window() + output::DATA_LEN as u64).step_by(8) {
            let offset = at.wrapping_sub(self.window) as i64;
            let word: [u8; 8] = std::array::from_fn(|k| match usize::try_from(offset + k as i64) {
                Ok(n) if n < input::DATA_LEN => self.data[n],
                _ => image::scratch_byte(at + k as u64 - image::SCRATCH),
            });
            all.push((Field::Mem(offset), u64::from_le_bytes(word).into()));
        }
        all
    }
    /// Set a part; false if it cannot be.
    pub fn set(&mut self, field: Field, v: u128) -> bool {
        match field {
            Field::Gpr(n) => self.gpr[n] = v as u64,
            Field::Flags => self.flags = v as u64,
            Field::Fcw => self.fcw = v as u16,
            Field::Fsw => self.fsw = v as u16,
            Field::Ftw => self.ftw = v as u8,
            Field::St(n) => self.st[n] = v,
            Field::Mxcsr => self.mxcsr = v as u32,
            Field::Xmm(n) => self.xmm[n] = v,
            Field::YmmHigh(n) => self.ymm[n] = v,
            Field::Mem(at) if field.is_before() => {
                self.data[at as usize..at as usize + 8].copy_from_slice(&(v as u64).to_le_bytes());
            }
            _ => return false,
        }
        true
    }
    /// Make the summary bits of the x87 status what its flags and masks say.
    pub fn fix(&mut self) {
        if self.fsw & !self.fcw & 0x3f != 0 {
            self.fsw |= 0x8080;
        } else {
            self.fsw &= !0x8080;
        }
    }
    /// Start of the bytes that are looked at afterwards.
    pub fn out_window(&self) -> u64 {
        let last = image::SCRATCH + image::SCRATCH_RW - output::DATA_LEN as u64;
        (self.window - 128).clamp(image::SCRATCH, last)
    }
    /// As the frame reads it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut b = vec![0u8; input::SIZE as usize];
        let mut put = |at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
        for (n, r) in self.gpr.iter().enumerate() {
            put(8 * n, &r.to_le_bytes());
        }
        put(input::FLAGS as usize, &self.flags.to_le_bytes());
        put(input::CODE as usize, &self.code.to_le_bytes());
        put(input::WINDOW as usize, &self.window.to_le_bytes());
        put(input::OUT_WINDOW as usize, &self.out_window().to_le_bytes());
        put(input::GO_ON as usize, &self.go_on.to_le_bytes());
        put(input::DATA as usize, &self.data);
        let f = input::FPU as usize;
        put(f, &self.fcw.to_le_bytes());
        put(f + 2, &self.fsw.to_le_bytes());
        put(f + 4, &[self.ftw]);
        put(f + 24, &self.mxcsr.to_le_bytes());
        for k in 0..8 {
            put(f + 32 + 16 * k, &self.st[k].to_le_bytes()[..10]);
        }
        for k in 0..16 {
            put(f + 160 + 16 * k, &self.xmm[k].to_le_bytes());
            put(f + 576 + 16 * k, &self.ymm[k].to_le_bytes());
        }
        put(f + 512, &[7]);
        b
    }
}

/// A difference: what, natively, under evm.
pub type Difference = (String, String, String);

/// The state after a case.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a>(pub &'a [u8]);

impl Output<'_> {
    /// The 64-bit word at an offset.
    pub fn word(&self, at: i32) -> u64 {
        let at = at as usize;
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap_or_default())
    }
    fn wide(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.0[at..at + 16].try_into().unwrap_or_default())
    }
    /// 0x100 and a signal's number, or how the code ended.
    pub fn kind(&self) -> u64 {
        self.word(output::KIND)
    }
    fn fpu(&self, at: usize, component: u64, f: Features, init: u128) -> u128 {
        let base = output::FPU as usize;
        if f == Features::V3 && self.word(output::FPU + 512) & component == 0 {
            return init;
        }
        self.wide(base + at)
    }
    fn short(&self, at: usize, f: Features, init: u16) -> u16 {
        if f == Features::V3 && self.word(output::FPU + 512) & 1 == 0 {
            return init;
        }
        let at = output::FPU as usize + at;
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }
    /// All of it, in the order of the fields. `i`: the state before.
    pub fn fields(&self, i: &Input, f: Features) -> Vec<(Field, u128)> {
        let mut all = vec![(Field::End, u128::from(self.kind()))];
        if self.kind() >= 0x100 {
            for (field, at) in [
                (Field::SiCode, output::SI_CODE),
                (Field::SiAddr, output::SI_ADDR),
                (Field::Rip, output::RIP),
                (Field::Trapno, output::TRAPNO),
                (Field::Err, output::ERR),
            ] {
                // Whether a page that may not be accessed is present is not known: it depends on what the kernel read in.
                let mask = if field == Field::Err { !1 } else { u64::MAX };
                all.push((field, (self.word(at) & mask).into()));
            }
        }
        all.extend((0..16).map(|n| (Field::Gpr(n), self.word(8 * n as i32).into())));
        all.push((Field::Flags, self.word(output::FLAGS).into()));
        for (field, at, init, mask) in
            [(Field::Fcw, 0, 0x37f, 0xffff), (Field::Fsw, 2, 0, 0xffff), (Field::Ftw, 4, 0, 0xff)]
        {
            all.push((field, (self.short(at, f, init) & mask).into()));
        }
        let pointers = self.fpu(0, 1, f, 0) >> 48;
        all.push((Field::Fop, pointers & 0x7ff));
        all.push((Field::Fip, pointers >> 16 & u128::from(u64::MAX)));
        all.push((Field::Fdp, self.fpu(16, 1, f, 0) & u128::from(u64::MAX)));
        all.extend((0..8).map(|k| (Field::St(k), self.fpu(32 + 16 * k, 1, f, 0) & ((1 << 80) - 1))));
        all.push((Field::Mxcsr, self.wide(output::FPU as usize + 16) >> 64 & 0xffff_ffff));
        for k in 0..16 {
            all.push((Field::Xmm(k), self.fpu(160 + 16 * k, 2, f, 0)));
            if f == Features::V3 {
                all.push((Field::YmmHigh(k), self.fpu(576 + 16 * k, 4, f, 0)));
            }
        }
        for k in (0..output::DATA_LEN).step_by(8) {
            let at = i.out_window().wrapping_sub(i.window).wrapping_add(k as u64);
            all.push((Field::Mem(at as i64), self.word(output::DATA + k as i32).into()));
        }
        all
    }
    /// What is not equal. `flags`: bits of RFLAGS to compare.
    pub fn differences(&self, other: &Output, i: &Input, f: Features, flags: u64) -> Vec<Difference> {
        if self.0 == other.0 {
            return vec![];
        }
        let theirs: BTreeMap<Field, u128> = other.fields(i, f).into_iter().collect();
        let mut d = vec![];
        for (field, a) in self.fields(i, f) {
            // What a signal says is there on one side only when the ends differ, which is said.
            let Some(b) = theirs.get(&field) else {
                continue;
            };
            let mask = if field == Field::Flags { flags.into() } else { u128::MAX };
            if (a ^ b) & mask != 0 {
                d.push((field.name(), format!("{:x}", a & mask), format!("{:x}", b & mask)));
            }
        }
        d
    }
}
