//! Random cases: an instruction form with random operands, and a state in which its memory operands
//! mostly lie in the case's window.

use super::image::{CODE, Exits, FS_BASE, GS_BASE, SCRATCH, SCRATCH_RO, SCRATCH_RW, input};
use super::state::{Input, Rng};
use super::table;
use iced_x86::{
    Code, Encoder, Instruction, InstructionInfoFactory, Mnemonic as M, OpCodeOperandKind as K, OpKind, Register as R,
};

/// A case: instructions and the state before.
#[derive(Clone, Debug)]
pub struct Case {
    /// Instructions; branches go to the address of the case's own exit, see [`Case::encode`].
    pub insns: Vec<Instruction>,
    /// State.
    pub state: Input,
    /// Values to be the address of the case's exit for branches.
    pub fixes: Vec<Fix>,
    /// When the first instruction faults, go on with the second.
    pub go_on: bool,
}

/// A place that holds the branch exit's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fix {
    /// A general register.
    Reg(usize),
    /// Eight bytes of the window, at an offset.
    Data(usize),
}

impl Case {
    /// Its code at `at`, ends included, and the state that goes with it.
    pub fn encode(&self, at: u64, exits: Exits) -> Option<(Vec<u8>, Input)> {
        let mut taken = at;
        let mut code = vec![];
        let mut second = at;
        // Branches need the address behind the code; their lengths do not depend on it.
        for _ in 0..2 {
            code.clear();
            for i in &self.insns {
                let mut i = *i;
                if i.op_count() > 0 && matches!(i.op_kind(0), OpKind::NearBranch64) {
                    i.set_near_branch64(taken);
                }
                let mut e = Encoder::new(64);
                e.encode(&i, at + code.len() as u64).ok()?;
                code.extend(e.take_buffer());
                if second == at {
                    second += code.len() as u64;
                }
            }
            taken = at + code.len() as u64 + 5;
        }
        for exit in [exits.through, exits.taken] {
            let rel = exit.wrapping_sub(at + code.len() as u64 + 5) as u32;
            code.push(0xe9);
            code.extend(rel.to_le_bytes());
        }
        let mut state = self.state.clone();
        state.code = at;
        state.go_on = if self.go_on { second } else { 0 };
        for f in &self.fixes {
            match *f {
                Fix::Reg(n) => state.gpr[n] = taken,
                Fix::Data(o) => state.data[o..o + 8].copy_from_slice(&taken.to_le_bytes()),
            }
        }
        Some((code, state))
    }
    /// The instructions' text.
    pub fn text(&self) -> String {
        let mut at = CODE;
        let mut all = vec![];
        for i in &self.insns {
            let mut e = Encoder::new(64);
            let n = e.encode(i, at).unwrap_or(1);
            let bytes = e.take_buffer();
            all.push(evm_lifter::disassemble(64, at, &bytes).0);
            at += n as u64;
        }
        all.join("; ")
    }
}

/// Windows: aligned inside a page, over a page's end, up to the read-only page, at the start.
const WINDOWS: [u64; 4] = [SCRATCH + 0x800, SCRATCH + 0xf80, SCRATCH + SCRATCH_RW - 0x100, SCRATCH];

const GPR64: [R; 16] = [
    R::RAX,
    R::RCX,
    R::RDX,
    R::RBX,
    R::RSP,
    R::RBP,
    R::RSI,
    R::RDI,
    R::R8,
    R::R9,
    R::R10,
    R::R11,
    R::R12,
    R::R13,
    R::R14,
    R::R15,
];
const GPR8: [R; 20] = [
    R::AL,
    R::CL,
    R::DL,
    R::BL,
    R::AH,
    R::CH,
    R::DH,
    R::BH,
    R::SPL,
    R::BPL,
    R::SIL,
    R::DIL,
    R::R8L,
    R::R9L,
    R::R10L,
    R::R11L,
    R::R12L,
    R::R13L,
    R::R14L,
    R::R15L,
];

/// Makes cases.
pub struct Generator {
    rng: Rng,
    info: InstructionInfoFactory,
    /// Percentage of cases with unmasked floating exceptions.
    pub unmask: u64,
    /// The case being made.
    state: Input,
    pinned: u32,
    written: u32,
    undefined: u64,
    fixes: Vec<Fix>,
}

impl Generator {
    /// A generator; `unmask`: percentage of cases with unmasked floating exceptions.
    pub fn new(seed: u64, unmask: u64) -> Generator {
        Generator {
            rng: Rng(seed),
            info: InstructionInfoFactory::new(),
            unmask,
            state: Input::plain(WINDOWS[0]),
            pinned: 0,
            written: 0,
            undefined: 0,
            fixes: vec![],
        }
    }

    /// A case of `codes`, in this order. None: the random operands did not fit.
    pub fn case(&mut self, codes: &[Code]) -> Option<Case> {
        let window = self.rng.pick(&WINDOWS);
        self.state = Input::random(&mut self.rng, window, self.unmask);
        (self.pinned, self.written, self.undefined) = (1 << 4, 0, 0);
        self.fixes.clear();
        let mut insns = vec![];
        for c in codes {
            // A few tries: encodings have rules that are not looked at here.
            let made = (0..12).find_map(|_| self.instruction(*c));
            insns.push(made?);
            if self.written >> 31 != 0 {
                break;
            }
        }
        let go_on = insns.len() > 1 && table::state_at_fault_is_defined(&insns[0]) && self.rng.chance(50);
        Some(Case { insns, state: self.state.clone(), fixes: self.fixes.clone(), go_on })
    }

    fn gpr(&mut self, size: usize) -> R {
        let r = self.rng.pick(&GPR64);
        match size {
            1 => self.rng.pick(&GPR8),
            2 => R::AX + r.number() as u32,
            4 => R::EAX + r.number() as u32,
            _ => r,
        }
    }
    fn vec(&mut self, base: R) -> R {
        base + self.rng.below(16) as u32
    }

    fn is_free(&self, n: usize) -> bool {
        self.written >> n & 1 == 0
    }
    /// Make register `n` hold `v` at the start; false if it cannot be.
    fn pin(&mut self, n: usize, v: u64) -> bool {
        if !self.is_free(n) {
            return false;
        }
        if self.pinned >> n & 1 != 0 {
            return self.state.gpr[n] == v;
        }
        self.state.gpr[n] = v;
        self.pinned |= 1 << n;
        true
    }

    /// An address for an operand of `size` bytes.
    fn target(&mut self, size: u64, segment: R) -> u64 {
        let size = size.max(1);
        let w = self.state.window;
        let at = match self.rng.below(40) {
            // Off the window's end: the next page, or the read-only page.
            0..=3 => w + input::DATA_LEN as u64 - self.rng.below(size + 1),
            4 => SCRATCH + SCRATCH_RW + SCRATCH_RO - self.rng.below(size + 1),
            5 => SCRATCH.wrapping_sub(self.rng.below(size + 1)),
            6 => self.rng.int(),
            7..=10 => w + self.rng.below(input::DATA_LEN as u64 - size.min(200)),
            _ => {
                let a = size.next_power_of_two().min(64);
                (w + self.rng.below(input::DATA_LEN as u64 - size.min(200))) / a * a
            }
        };
        let at = if at < w && at >= SCRATCH { w } else { at };
        match segment {
            R::FS => at.wrapping_sub(FS_BASE),
            R::GS => at.wrapping_sub(GS_BASE),
            _ => at,
        }
    }

    /// Choose base, index and displacement so that the memory operand is at an address of the window.
    fn memory(&mut self, i: &mut Instruction, size: u64, vsib: Option<R>) -> Option<()> {
        if self.rng.chance(12) {
            i.set_segment_prefix(self.rng.pick(&[R::FS, R::GS, R::FS, R::GS, R::DS, R::CS, R::ES, R::SS]));
        }
        let segment = i.segment_prefix();
        let want = self.target(size, segment);
        let narrow = self.rng.chance(8);
        let near = want <= i32::MAX as u64 || want >= i32::MIN as i64 as u64;
        if vsib.is_none() && near && !narrow && self.rng.chance(8) {
            i.set_memory_displ_size(4);
            i.set_memory_displacement64(want);
            return Some(());
        }
        if vsib.is_none() && self.rng.chance(8) && want.abs_diff(CODE) < 1 << 30 {
            i.set_memory_base(R::RIP);
            i.set_memory_displ_size(8);
            i.set_memory_displacement64(want);
            return Some(());
        }
        let base = self.rng.below(16) as usize;
        let with_index = vsib.is_some() || self.rng.chance(40);
        let scale = 1u32 << self.rng.below(4);
        let (mut rest, mut index) = (want, None);
        if with_index && vsib.is_none() {
            let n = self.rng.below(16) as usize;
            if n == 4 || n == base || !self.is_free(n) {
                return None;
            }
            let v = if self.pinned >> n & 1 != 0 { self.state.gpr[n] } else { self.rng.int() };
            if !self.pin(n, v) {
                return None;
            }
            rest = rest.wrapping_sub(v.wrapping_mul(u64::from(scale)));
            index = Some(n);
        }
        if !self.is_free(base) {
            return None;
        }
        let disp = if self.pinned >> base & 1 != 0 {
            rest.wrapping_sub(self.state.gpr[base])
        } else {
            match self.rng.below(4) {
                0 => 0,
                1 => (self.rng.next() as i8) as u64,
                _ => (self.rng.next() as i32) as u64,
            }
        };
        // With 32-bit addresses all is modulo 2^32.
        let disp = if narrow { disp as u32 as i32 as u64 } else { disp };
        if disp as i64 != i64::from(disp as i32) {
            return None;
        }
        let mut value = rest.wrapping_sub(disp);
        if narrow {
            if segment != R::None && matches!(segment, R::FS | R::GS) || want >> 32 != 0 {
                return None;
            }
            if self.pinned >> base & 1 != 0 {
                value = self.state.gpr[base];
            } else {
                value = value & 0xffff_ffff | self.rng.next() << 32;
            }
        }
        if !self.pin(base, value) {
            return None;
        }
        let first = if narrow { R::EAX } else { R::RAX };
        i.set_memory_base(first + base as u32);
        match (index, vsib) {
            (Some(n), _) => i.set_memory_index(first + n as u32),
            (None, Some(v)) => {
                i.set_memory_index(v);
                let n = v.number();
                // Indices that mostly stay in the window.
                if self.rng.chance(85) {
                    let small = |r: &mut Rng| if r.chance(95) { r.below(24) as i32 - 2 } else { r.next() as i32 };
                    for half in 0..2 {
                        let mut x = 0u128;
                        let wide = matches!(i.code().op_code().op_kind(1), K::mem_vsib64x | K::mem_vsib64y);
                        for _ in 0..if wide { 2 } else { 4 } {
                            let s = small(&mut self.rng);
                            x = if wide {
                                x << 64 | u128::from(s as i64 as u64)
                            } else {
                                x << 32 | u128::from(s as u32)
                            };
                        }
                        if half == 0 {
                            self.state.xmm[n] = x;
                        } else {
                            self.state.ymm[n] = x;
                        }
                    }
                }
            }
            _ => {}
        }
        if with_index {
            i.set_memory_index_scale(scale);
        }
        let small = i64::from(disp as i8) == disp as i64;
        i.set_memory_displ_size(match disp {
            0 if self.rng.chance(80) && base & 7 != 5 => 0,
            _ if small && self.rng.chance(80) => 1,
            _ if narrow => 4,
            _ => 8,
        });
        i.set_memory_displacement64(if narrow { disp & 0xffff_ffff } else { disp });
        Some(())
    }

    fn instruction(&mut self, code: Code) -> Option<Instruction> {
        let saved = (self.state.clone(), self.pinned, self.fixes.clone());
        let made = self.try_instruction(code);
        if made.is_none() {
            (self.state, self.pinned, self.fixes) = saved;
        }
        made
    }

    fn try_instruction(&mut self, code: Code) -> Option<Instruction> {
        let op = code.op_code();
        let mut i = Instruction::default();
        i.set_code(code);
        i.set_code_size(iced_x86::CodeSize::Code64);
        let mut explicit = None;
        for n in 0..op.op_count() {
            let kind = op.op_kind(n);
            let reg = self.register(kind);
            let memory = |k| matches!(k, K::mem | K::mem_mib | K::mem_offs | K::sibmem);
            let either = format!("{kind:?}").ends_with("_or_mem");
            let vsib = match kind {
                K::mem_vsib32x | K::mem_vsib64x => Some(self.vec(R::XMM0)),
                K::mem_vsib32y | K::mem_vsib64y => Some(self.vec(R::YMM0)),
                _ => None,
            };
            if memory(kind) || vsib.is_some() || either && self.rng.chance(45) {
                i.set_op_kind(n, OpKind::Memory);
                explicit = Some((kind, vsib));
                continue;
            }
            if let Some(r) = reg {
                i.set_op_kind(n, OpKind::Register);
                i.set_op_register(n, r);
                continue;
            }
            let v = self.rng.int();
            match kind {
                K::imm8 if n > 0 && i.op_kind(n - 1) == OpKind::Immediate16 => {
                    i.set_op_kind(n, OpKind::Immediate8_2nd);
                    i.set_immediate8_2nd(v as u8);
                }
                K::imm8 => {
                    i.set_op_kind(n, OpKind::Immediate8);
                    i.set_immediate8(v as u8);
                }
                K::imm8_const_1 => {
                    i.set_op_kind(n, OpKind::Immediate8);
                    i.set_immediate8(1);
                }
                K::imm8sex16 => {
                    i.set_op_kind(n, OpKind::Immediate8to16);
                    i.set_immediate8to16(i16::from(v as i8));
                }
                K::imm8sex32 => {
                    i.set_op_kind(n, OpKind::Immediate8to32);
                    i.set_immediate8to32(i32::from(v as i8));
                }
                K::imm8sex64 => {
                    i.set_op_kind(n, OpKind::Immediate8to64);
                    i.set_immediate8to64(i64::from(v as i8));
                }
                K::imm16 => {
                    i.set_op_kind(n, OpKind::Immediate16);
                    i.set_immediate16(v as u16);
                }
                K::imm32 => {
                    i.set_op_kind(n, OpKind::Immediate32);
                    i.set_immediate32(v as u32);
                }
                K::imm32sex64 => {
                    i.set_op_kind(n, OpKind::Immediate32to64);
                    i.set_immediate32to64(i64::from(v as i32));
                }
                K::imm64 => {
                    i.set_op_kind(n, OpKind::Immediate64);
                    i.set_immediate64(v);
                }
                K::seg_rSI => i.set_op_kind(n, OpKind::MemorySegRSI),
                K::es_rDI => i.set_op_kind(n, OpKind::MemoryESRDI),
                K::seg_rDI => i.set_op_kind(n, OpKind::MemorySegRDI),
                K::seg_rBX_al => {
                    i.set_op_kind(n, OpKind::Memory);
                    i.set_memory_base(R::RBX);
                    i.set_memory_index(R::AL);
                }
                K::br64_1 | K::br64_4 => {
                    i.set_op_kind(n, OpKind::NearBranch64);
                    i.set_near_branch64(CODE);
                }
                _ => return None,
            }
        }
        if op.can_use_rep_prefix() && self.rng.chance(50) {
            i.set_has_rep_prefix(true);
        } else if op.can_use_repne_prefix() && self.rng.chance(30) {
            i.set_has_repne_prefix(true);
        }
        if let Some((kind, vsib)) = explicit {
            if kind == K::mem_offs {
                let want = self.target(i.memory_size().size() as u64, R::None);
                i.set_memory_displ_size(8);
                i.set_memory_displacement64(want);
            } else {
                let size = match i.memory_size().size() as u64 {
                    0 => 64,
                    n => n,
                };
                self.memory(&mut i, size, vsib)?;
            }
            if op.can_use_lock_prefix() && self.rng.chance(40) {
                i.set_has_lock_prefix(true);
            }
        }
        self.implicit(&mut i, explicit.is_some())?;
        // To lock two cache lines takes 0.1 s of CPU time and more where the kernel or a hypervisor sees to it. A bit test with a
        // register works on whole operands away from its address.
        if i.has_lock_prefix() || i.mnemonic() == M::Xchg {
            let n = i.memory_size().size().max(1) as u64;
            let far = matches!(i.mnemonic(), M::Bts | M::Btr | M::Btc) && i.op1_kind() == OpKind::Register;
            if self.address(&i).is_some_and(|a| if far { a % n != 0 } else { a % 64 + n > 64 }) {
                return None;
            }
        }
        // Encodable?
        let mut e = Encoder::new(64);
        e.encode(&i, CODE).ok()?;
        let bytes = e.take_buffer();
        let mut d = iced_x86::Decoder::with_ip(64, &bytes, CODE, 0);
        let back = d.decode();
        if back.code() != code || back.len() != bytes.len() {
            return None;
        }
        if table::read_flags(&i) & self.undefined != 0 {
            return None;
        }
        self.undefined = self.undefined & !table::written_flags(&i) | table::undefined_flags(&i);
        let info = self.info.info(&i);
        for u in info.used_registers() {
            use iced_x86::OpAccess as A;
            let r = u.register();
            if r.is_gpr() && matches!(u.access(), A::Write | A::CondWrite | A::ReadWrite | A::ReadCondWrite) {
                self.written |= 1 << r.full_register().number();
            }
        }
        if !matches!(i.flow_control(), iced_x86::FlowControl::Next) && !i.is_jcc_short_or_near() {
            self.written |= 1 << 31;
        }
        Some(i)
    }

    fn register(&mut self, kind: K) -> Option<R> {
        Some(match kind {
            K::r8_or_mem | K::r8_reg | K::r8_opcode => self.gpr(1),
            K::r16_or_mem | K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => self.gpr(2),
            K::r32_or_mem | K::r32_reg | K::r32_reg_mem | K::r32_rm | K::r32_opcode | K::r32_vvvv => self.gpr(4),
            K::r64_or_mem | K::r64_reg | K::r64_reg_mem | K::r64_rm | K::r64_opcode | K::r64_vvvv => self.gpr(8),
            K::mm_or_mem | K::mm_reg | K::mm_rm => R::MM0 + self.rng.below(8) as u32,
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => self.vec(R::XMM0),
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => self.vec(R::YMM0),
            K::seg_reg => self.rng.pick(&[R::ES, R::CS, R::SS, R::DS, R::FS, R::GS]),
            K::cr_reg => R::CR0,
            K::dr_reg => R::DR0,
            K::es => R::ES,
            K::cs => R::CS,
            K::ss => R::SS,
            K::ds => R::DS,
            K::fs => R::FS,
            K::gs => R::GS,
            K::al => R::AL,
            K::cl => R::CL,
            K::ax => R::AX,
            K::dx => R::DX,
            K::eax => R::EAX,
            K::rax => R::RAX,
            K::st0 => R::ST0,
            K::sti_opcode => R::ST0 + self.rng.below(8) as u32,
            _ => return None,
        })
    }

    /// Where the explicit memory operand is, from the registers at the start.
    fn address(&self, i: &Instruction) -> Option<u64> {
        let n = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
        i.virtual_address(n, 0, |r, _, _| {
            Some(match r {
                R::FS => FS_BASE,
                R::GS => GS_BASE,
                r if r.is_gpr64() => self.state.gpr[r.number()],
                r if r.is_gpr32() => self.state.gpr[r.number()] & 0xffff_ffff,
                _ => 0,
            })
        })
    }

    /// Registers that an instruction uses without naming them: pointers, counts, targets.
    fn implicit(&mut self, i: &mut Instruction, explicit: bool) -> Option<()> {
        let (rep, mnemonic) = (i.has_rep_prefix() || i.has_repne_prefix(), i.mnemonic());
        let mut used: Vec<(R, u64)> = vec![];
        for m in self.info.info(i).used_memory() {
            used.push((m.base().full_register(), m.memory_size().size() as u64));
        }
        let string = i.is_string_instruction();
        for (base, size) in used {
            let plain = !explicit && matches!(base, R::RSI | R::RDI | R::RBX);
            if (string || plain) && base != R::None && base != R::RSP && self.pinned >> base.number() & 1 == 0 {
                let at = self.target(size.max(1), R::None);
                if !self.pin(base.number(), at) {
                    return None;
                }
            } else if string && !self.is_free(base.number()) {
                return None;
            }
        }
        if string && rep {
            let n = if self.rng.chance(85) { self.rng.below(12) } else { self.rng.int() };
            if self.pinned >> 1 & 1 == 0 && !self.pin(1, n) {
                return None;
            }
        }
        if i.is_stack_instruction() && !self.is_free(4) && self.rng.chance(80) {
            return None;
        }
        if matches!(mnemonic, M::Leave) && self.pinned >> 5 & 1 == 0 {
            let at = self.target(8, R::None);
            self.pin(5, at);
        }
        if matches!(mnemonic, M::Enter) {
            i.set_immediate8_2nd(self.rng.below(4) as u8);
        }
        if matches!(mnemonic, M::Div | M::Idiv) && self.pinned >> 2 & 1 == 0 && self.is_free(2) && self.rng.chance(70) {
            self.state.gpr[2] = if self.rng.chance(60) { 0 } else { (self.state.gpr[0] as i64 >> 63) as u64 };
        }
        let flow = i.flow_control();
        use iced_x86::FlowControl as F;
        let offset = |s: &Input, at: u64| {
            let o = at.wrapping_sub(s.window);
            (o <= input::DATA_LEN as u64 - 8).then_some(o as usize)
        };
        if matches!(flow, F::IndirectBranch | F::IndirectCall) && self.rng.chance(85) {
            match i.op_kind(0) {
                OpKind::Register => {
                    let n = i.op_register(0).full_register().number();
                    if self.is_free(n) && self.pinned >> n & 1 == 0 {
                        self.pinned |= 1 << n;
                        self.fixes.push(Fix::Reg(n));
                    }
                }
                _ => {
                    if let Some(o) = self.address(i).and_then(|a| offset(&self.state, a)) {
                        self.fixes.push(Fix::Data(o));
                    }
                }
            }
        }
        if matches!(mnemonic, M::Ret)
            && self.rng.chance(85)
            && let Some(o) = offset(&self.state, self.state.gpr[4])
        {
            self.fixes.push(Fix::Data(o));
        }
        if matches!(mnemonic, M::Popf | M::Popfd | M::Popfq)
            && let Some(o) = offset(&self.state, self.state.gpr[4])
        {
            // No single steps, and no alignment checks.
            self.state.data[o + 1] &= !1;
            self.state.data[o + 2] &= !4;
        }
        Some(())
    }
}
