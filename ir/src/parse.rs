//! Reads the text form that [`crate::print`](Region) writes. `;` begins a comment, empty lines are skipped.
//!
//! The result is well formed as text; whether it is a valid region is the validator's question.

use crate::{
    Block, BlockData, Cond, FCond, HelperCall, HelperSig, Inst, Layout, Op, Region, Sig, SlotSet, Term, Type, Value,
};
use std::collections::HashMap;

/// A line that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

type Res<T> = Result<T, String>;

/// Read a region that speaks of this state and these helpers.
pub fn parse(text: &str, layout: &'static Layout, helpers: &'static [HelperSig]) -> Result<Region, ParseError> {
    let mut p = Parser {
        r: Region {
            blocks: vec![],
            entries: vec![],
            types: vec![],
            pool: vec![],
            calls: vec![],
            slot_sets: vec![],
            source: vec![],
            insns: 0,
            layout,
            helpers,
        },
        slots: layout.slots.iter().enumerate().map(|(n, s)| (s.name, n)).collect(),
        ops: Op::ALL.iter().map(|o| (o.name(), *o)).collect(),
        ended: true,
    };
    let mut last = 0;
    for (n, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or("").trim();
        last = n + 1;
        if !line.is_empty() {
            p.line(line).map_err(|what| ParseError { line: n + 1, what })?;
        }
    }
    if !p.ended {
        return Err(ParseError { line: last, what: "the last block has no terminator".into() });
    }
    Ok(p.r)
}

struct Parser {
    r: Region,
    slots: HashMap<&'static str, usize>,
    ops: HashMap<&'static str, Op>,
    /// Whether the current block has its terminator.
    ended: bool,
}

/// What is left of a line.
struct Cur<'a>(&'a str);

impl<'a> Cur<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_start();
    }
    fn eat(&mut self, s: &str) -> bool {
        self.skip();
        match self.0.strip_prefix(s) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }
    fn need(&mut self, s: &str) -> Res<()> {
        if self.eat(s) { Ok(()) } else { Err(format!("expected `{s}` before `{}`", self.0)) }
    }
    /// Letters, digits, `_` and `.`.
    fn word(&mut self) -> Res<&'a str> {
        self.skip();
        let end = self.0.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(self.0.len());
        let (w, rest) = self.0.split_at(end);
        self.0 = rest;
        if w.is_empty() { Err(format!("expected a word before `{}`", self.0)) } else { Ok(w) }
    }
    /// The word, if it comes next and ends there.
    fn eat_word(&mut self, w: &str) -> bool {
        let before = self.0;
        if self.word() == Ok(w) {
            return true;
        }
        self.0 = before;
        false
    }
    fn number(&mut self) -> Res<u128> {
        let w = self.word()?;
        match w.strip_prefix("0x") {
            Some(h) => u128::from_str_radix(h, 16),
            None => w.parse(),
        }
        .map_err(|_| format!("`{w}` is not a number"))
    }
    fn small<T: TryFrom<u128>>(&mut self) -> Res<T> {
        let n = self.number()?;
        T::try_from(n).map_err(|_| format!("{n:#x} is too large"))
    }
    fn block(&mut self) -> Res<Block> {
        let w = self.word()?;
        w.strip_prefix("block").and_then(|n| n.parse().ok()).map(Block).ok_or_else(|| format!("`{w}` is not a block"))
    }
    fn value(&mut self) -> Res<Value> {
        let w = self.word()?;
        if w == "_" {
            return Ok(Value::NONE);
        }
        let v = w.strip_prefix('v').and_then(|n| n.parse().ok()).filter(|n| *n < MAX_VALUES);
        v.map(Value).ok_or_else(|| format!("`{w}` is not a value"))
    }
    /// A value after a comma.
    fn next(&mut self) -> Res<Value> {
        self.need(",")?;
        self.value()
    }
    fn disp(&mut self) -> Res<i64> {
        if self.eat("+") {
            self.small()
        } else if self.eat("-") {
            let n: u32 = self.small()?;
            Ok(-i64::from(n))
        } else {
            Ok(0)
        }
    }
    fn end(&mut self) -> Res<()> {
        self.skip();
        if self.0.is_empty() { Ok(()) } else { Err(format!("`{}` is too much", self.0)) }
    }
}

/// Bound on value numbers, so that a text cannot ask for more memory than a program of that size would.
const MAX_VALUES: u32 = 1 << 24;

fn by_name<T: Copy>(all: &[T], w: &str, name: impl Fn(T) -> &'static str, what: &str) -> Res<i64> {
    match all.iter().position(|x| name(*x) == w) {
        Some(n) => Ok(n as i64),
        None => Err(format!("`{w}` is not a {what}")),
    }
}
fn ty(w: &str) -> Res<Type> {
    by_name(&Type::ALL, w, Type::name, "type").map(|n| Type::ALL[n as usize])
}

impl Parser {
    fn line(&mut self, line: &str) -> Res<()> {
        let mut c = Cur(line);
        if c.eat_word("region") {
            while !c.0.trim().is_empty() {
                if c.eat_word("insns") {
                    self.r.insns = c.small()?;
                } else if c.eat_word("source") {
                    let at = c.small()?;
                    self.r.source.push((at, c.small()?));
                } else {
                    return c.end();
                }
            }
            return Ok(());
        }
        if c.eat_word("entries") {
            while !c.0.trim().is_empty() {
                self.r.entries.push(c.block()?);
            }
            return Ok(());
        }
        if line.starts_with("block") {
            return self.block(&mut c);
        }
        if self.ended {
            return Err("an instruction outside a block".into());
        }
        let mut dst = Value::NONE;
        let mut result = None;
        if line.split_once('=').is_some_and(|(l, _)| l.contains(':')) {
            dst = c.value()?;
            c.need(":")?;
            result = Some(ty(c.word()?)?);
            c.need("=")?;
        } else if let Some(t) = self.term(&mut c)? {
            c.end()?;
            if let Some(b) = self.r.blocks.last_mut() {
                b.term = t;
            }
            self.ended = true;
            return Ok(());
        }
        let mut i = self.inst(&mut c)?;
        c.end()?;
        i.dst = dst;
        if let (Some(t), true) = (result, dst.is_some()) {
            let n = dst.0 as usize;
            if self.r.types.len() <= n {
                self.r.types.resize(n + 1, Type::I64);
            }
            self.r.types[n] = t;
        }
        if let Some(b) = self.r.blocks.last_mut() {
            b.insts.push(i);
        }
        Ok(())
    }

    fn block(&mut self, c: &mut Cur<'_>) -> Res<()> {
        if !self.ended {
            return Err("the block before has no terminator".into());
        }
        let b = c.block()?;
        if b.0 as usize != self.r.blocks.len() {
            return Err(format!("expected block{}", self.r.blocks.len()));
        }
        c.need("@")?;
        let pc = c.small()?;
        let mut data = BlockData {
            pc,
            insn_start: c.eat_word("start"),
            loop_header: c.eat_word("loop"),
            poll_spill: SlotSet::default(),
            insts: vec![],
            term: Term::Raise { code: u32::MAX, arg: 0, pc },
        };
        if c.eat_word("poll") {
            data.poll_spill = self.set(c)?;
        }
        c.need(":")?;
        c.end()?;
        self.r.blocks.push(data);
        self.ended = false;
        Ok(())
    }

    fn set(&mut self, c: &mut Cur<'_>) -> Res<SlotSet> {
        c.need("{")?;
        let mut s = SlotSet::default();
        while !c.eat("}") {
            let n = self.slot(c)?;
            if n < 128 {
                s.insert(crate::Slot(n as u16));
            }
        }
        Ok(s)
    }
    fn slot(&self, c: &mut Cur<'_>) -> Res<i64> {
        let w = c.word()?;
        self.slots.get(w).map(|n| *n as i64).ok_or_else(|| format!("`{w}` is not a slot"))
    }
    fn constant(&mut self, c: &mut Cur<'_>) -> Res<i64> {
        let v = c.number()?;
        let n = self.r.pool.iter().position(|x| *x == v).unwrap_or_else(|| {
            self.r.pool.push(v);
            self.r.pool.len() - 1
        });
        Ok(n as i64)
    }

    /// A terminator, if the line is one.
    fn term(&mut self, c: &mut Cur<'_>) -> Res<Option<Term>> {
        let start = c.0;
        let cont = |c: &mut Cur<'_>| {
            if c.eat_word("cont") { c.block().map(Some) } else { Ok(None) }
        };
        let word = |c: &mut Cur<'_>, w: &str| {
            if c.eat_word(w) { Ok(()) } else { Err(format!("expected `{w}` before `{}`", c.0)) }
        };
        Ok(Some(match c.word()? {
            "jump" => Term::Jump(c.block()?),
            "br" => {
                let v = c.value()?;
                c.need(",")?;
                let a = c.block()?;
                c.need(",")?;
                Term::Br(v, a, c.block()?)
            }
            "switch" => {
                let v = c.value()?;
                let mut table = vec![];
                while c.eat(",") {
                    table.push(c.block()?);
                }
                word(c, "else")?;
                Term::Switch(v, table, c.block()?)
            }
            "exit" => Term::Exit(c.value()?),
            "return" => Term::Return(c.value()?),
            "enter" => {
                let target = c.value()?;
                word(c, "ret")?;
                Term::Call { target, ret: c.small()?, cont: cont(c)? }
            }
            "service" => {
                let code = c.small()?;
                word(c, "pc")?;
                let pc = c.small()?;
                word(c, "next")?;
                Term::Service { code, pc, next: c.small()?, cont: cont(c)? }
            }
            "raise" => {
                let code = c.small()?;
                word(c, "arg")?;
                let arg = c.small()?;
                word(c, "pc")?;
                Term::Raise { code, arg, pc: c.small()? }
            }
            _ => {
                c.0 = start;
                return Ok(None);
            }
        }))
    }

    fn inst(&mut self, c: &mut Cur<'_>) -> Res<Inst> {
        let w = c.word()?;
        let (name, t) = w.split_once('.').map_or((w, None), |(n, t)| (n, Some(t)));
        let op = *self.ops.get(name).ok_or_else(|| format!("`{name}` is not an instruction"))?;
        let none = Value::NONE;
        // Instructions without a type in the text have the one that the builder gives them.
        let default = if op == Op::VConst { Type::V128 } else { Type::I64 };
        let ty_ = t.map_or(Ok(default), ty)?;
        let mut i = Inst { op, ty: ty_, dst: none, a: none, b: none, c: none, imm: 0 };
        match op.sig() {
            Sig::Const | Sig::Marker => i.imm = c.small::<u64>()? as i64,
            Sig::VConst => i.imm = self.constant(c)?,
            Sig::Get => i.imm = self.slot(c)?,
            Sig::Put => {
                i.imm = self.slot(c)?;
                i.a = c.next()?;
            }
            Sig::Un | Sig::Splat | Sig::VMask => i.a = c.value()?,
            Sig::Bin | Sig::VShift => {
                i.a = c.value()?;
                i.b = c.next()?;
            }
            Sig::Cmp => {
                i.imm = by_name(&Cond::ALL, c.word()?, Cond::name, "condition")?;
                i.a = c.value()?;
                i.b = c.next()?;
            }
            Sig::FCmp | Sig::VFCmp => {
                i.imm = by_name(&FCond::ALL, c.word()?, FCond::name, "condition")?;
                i.a = c.value()?;
                i.b = c.next()?;
            }
            Sig::Select | Sig::VSelect => {
                i.a = c.value()?;
                i.b = c.next()?;
                i.c = c.next()?;
            }
            Sig::Conv => {
                i.a = c.value()?;
                c.need("from")?;
                i.imm = by_name(&Type::ALL, c.word()?, Type::name, "type")?;
            }
            Sig::Load => {
                i.a = c.value()?;
                i.imm = c.disp()?;
            }
            Sig::Store | Sig::Rmw | Sig::Cas => {
                i.a = c.value()?;
                i.imm = c.disp()?;
                i.b = c.next()?;
                if op.sig() == Sig::Cas {
                    i.c = c.next()?;
                }
            }
            Sig::Fence => {}
            Sig::Extract | Sig::Align => {
                i.a = c.value()?;
                c.need(",")?;
                i.imm = c.small()?;
            }
            Sig::Insert => {
                i.a = c.value()?;
                c.need(",")?;
                i.imm = c.small()?;
                i.b = c.next()?;
            }
            Sig::Shuffle => {
                i.a = c.value()?;
                i.b = c.next()?;
                c.need(",")?;
                i.imm = self.constant(c)?;
            }
            Sig::Fill | Sig::Spill => {
                let s = self.set(c)?;
                let sets = &mut self.r.slot_sets;
                let n = sets.iter().position(|x| *x == s).unwrap_or_else(|| {
                    sets.push(s);
                    sets.len() - 1
                });
                i.imm = n as i64;
            }
            Sig::Call => {
                let w = c.word()?;
                let helper = by_name(self.r.helpers, w, |h| h.name, "helper")? as u16;
                c.need("(")?;
                let mut args = vec![];
                while !c.eat(")") {
                    if !args.is_empty() {
                        c.need(",")?;
                    }
                    args.push(c.value()?);
                }
                self.r.calls.push(HelperCall { helper, args });
                i.imm = self.r.calls.len() as i64 - 1;
            }
        }
        Ok(i)
    }
}
