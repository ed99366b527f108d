//! The text form: one line per instruction. [`crate::parse`] reads it.
//!
//! Sets of slots, constants of the pool and helper calls are written where they are used, so the text does not
//! say in which order the region's tables hold them; everything else is in it.

use crate::{BlockData, Cond, FCond, Inst, Region, Sig, SlotSet, Term, Type, Value};
use std::fmt::{self, Display, Formatter};

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_some() { write!(f, "v{}", self.0) } else { write!(f, "_") }
    }
}

impl Display for Region {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "region insns {}", self.insns)?;
        for (at, len) in &self.source {
            write!(f, " source {at:#x} {len}")?;
        }
        write!(f, "\nentries")?;
        for e in &self.entries {
            write!(f, " block{}", e.0)?;
        }
        writeln!(f)?;
        for (n, b) in self.blocks.iter().enumerate() {
            self.block(n, b, f)?;
        }
        Ok(())
    }
}

/// Name of the `n`th of a list, or the number.
fn name<T: Copy>(all: &[T], n: i64, text: impl Fn(T) -> &'static str) -> String {
    match usize::try_from(n).ok().and_then(|n| all.get(n)) {
        Some(x) => text(*x).into(),
        None => format!("?{n}"),
    }
}

/// A displacement as it follows an address.
struct Disp(i64);
impl Display for Disp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            d if d < 0 => write!(f, "-{:#x}", d.unsigned_abs()),
            d => write!(f, "+{d:#x}"),
        }
    }
}

impl Region {
    fn set(&self, s: SlotSet) -> String {
        let names: Vec<_> =
            s.iter().map(|s| name(self.layout.slots, i64::from(s.0), |s: crate::SlotInfo| s.name)).collect();
        format!("{{{}}}", names.join(" "))
    }
    fn constant(&self, n: i64) -> String {
        match usize::try_from(n).ok().and_then(|n| self.pool.get(n)) {
            Some(c) => format!("{c:#x}"),
            None => format!("?{n}"),
        }
    }

    fn block(&self, n: usize, b: &BlockData, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "block{n} @{:#x}", b.pc)?;
        if b.insn_start {
            write!(f, " start")?;
        }
        if b.loop_header {
            write!(f, " loop")?;
        }
        if b.poll_spill.0 != 0 {
            write!(f, " poll {}", self.set(b.poll_spill))?;
        }
        writeln!(f, ":")?;
        for i in &b.insts {
            write!(f, "    ")?;
            self.inst(i, f)?;
            writeln!(f)?;
        }
        write!(f, "    ")?;
        self.term(&b.term, f)?;
        writeln!(f)
    }

    /// Text of one instruction.
    fn inst(&self, i: &Inst, f: &mut Formatter<'_>) -> fmt::Result {
        if i.dst.is_some() {
            let ty = self.types.get(i.dst.0 as usize).map_or("?", |t| t.name());
            write!(f, "{}:{ty} = ", i.dst)?;
        }
        write!(f, "{}", i.op.name())?;
        let typed = !matches!(
            i.op.sig(),
            Sig::VConst | Sig::Align | Sig::Fence | Sig::Call | Sig::Marker | Sig::Fill | Sig::Spill
        );
        if typed {
            write!(f, ".{}", i.ty.name())?;
        }
        let (a, b, c) = (i.a, i.b, i.c);
        let disp = Disp(i.imm);
        let slot = || name(self.layout.slots, i.imm, |s: crate::SlotInfo| s.name);
        match i.op.sig() {
            Sig::Const => write!(f, " {:#x}", i.imm),
            Sig::VConst => write!(f, " {}", self.constant(i.imm)),
            Sig::Get => write!(f, " {}", slot()),
            Sig::Put => write!(f, " {}, {a}", slot()),
            Sig::Un | Sig::Splat | Sig::VMask => write!(f, " {a}"),
            Sig::Bin | Sig::VShift => write!(f, " {a}, {b}"),
            Sig::Cmp => write!(f, " {} {a}, {b}", name(&Cond::ALL, i.imm, Cond::name)),
            Sig::FCmp | Sig::VFCmp => {
                write!(f, " {} {a}, {b}", name(&FCond::ALL, i.imm, FCond::name))
            }
            Sig::Select | Sig::VSelect => write!(f, " {a}, {b}, {c}"),
            Sig::Conv => write!(f, " {a} from {}", name(&Type::ALL, i.imm, Type::name)),
            Sig::Load => write!(f, " {a}{disp}"),
            Sig::Store | Sig::Rmw => write!(f, " {a}{disp}, {b}"),
            Sig::Cas => write!(f, " {a}{disp}, {b}, {c}"),
            Sig::Align => write!(f, " {a}, {}", i.imm),
            Sig::Fence => Ok(()),
            Sig::Extract => write!(f, " {a}, {}", i.imm),
            Sig::Insert => write!(f, " {a}, {}, {b}", i.imm),
            Sig::Shuffle => write!(f, " {a}, {b}, {}", self.constant(i.imm)),
            Sig::Marker => write!(f, " {:#x}", i.imm),
            Sig::Fill | Sig::Spill => match usize::try_from(i.imm).ok().and_then(|n| self.slot_sets.get(n)) {
                Some(s) => write!(f, " {}", self.set(*s)),
                None => write!(f, " ?{}", i.imm),
            },
            Sig::Call => {
                let Some(call) = usize::try_from(i.imm).ok().and_then(|n| self.calls.get(n)) else {
                    return write!(f, " ?{}", i.imm);
                };
                let args: Vec<_> = call.args.iter().map(Value::to_string).collect();
                let h = name(self.helpers, i64::from(call.helper), |h: crate::HelperSig| h.name);
                write!(f, " {h}({})", args.join(", "))
            }
        }
    }

    fn term(&self, t: &Term, f: &mut Formatter<'_>) -> fmt::Result {
        let cont = |c: &Option<crate::Block>| c.map_or(String::new(), |b| format!(" cont block{}", b.0));
        match t {
            Term::Jump(b) => write!(f, "jump block{}", b.0),
            Term::Br(v, a, b) => write!(f, "br {v}, block{}, block{}", a.0, b.0),
            Term::Switch(v, table, default) => {
                write!(f, "switch {v}")?;
                for b in table {
                    write!(f, ", block{}", b.0)?;
                }
                write!(f, " else block{}", default.0)
            }
            Term::Exit(v) => write!(f, "exit {v}"),
            Term::Return(v) => write!(f, "return {v}"),
            Term::Call { target, ret, cont: c } => {
                write!(f, "enter {target} ret {ret:#x}{}", cont(c))
            }
            Term::Service { code, pc, next, cont: c } => {
                write!(f, "service {code} pc {pc:#x} next {next:#x}{}", cont(c))
            }
            Term::Raise { code, arg, pc } => write!(f, "raise {code} arg {arg:#x} pc {pc:#x}"),
        }
    }
}
