//! Regions, blocks, instructions, terminators, helpers and the builder.

use crate::op::{Cond, FCond, Op, Sig};
use crate::types::{Block, Layout, Slot, SlotSet, Type, Value};
use std::cell::RefCell;

/// One instruction. Which fields mean what is given by the opcode's [`crate::Sig`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Inst {
    /// Opcode.
    pub op: Op,
    /// Type or lane shape.
    pub ty: Type,
    /// Result, or `Value::NONE`.
    pub dst: Value,
    /// First operand.
    pub a: Value,
    /// Second operand.
    pub b: Value,
    /// Third operand.
    pub c: Value,
    /// Immediate.
    pub imm: i64,
}

impl Inst {
    /// Whether it may raise a floating-point exception: arithmetic does, and a helper may.
    pub fn may_trap(&self) -> bool {
        self.op == Op::Call || self.op.raises_flags(self.ty) || self.op.sig() == Sig::FCmp
    }
}

/// What a helper may touch besides its arguments. A helper gets the guest state as its first argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effects {
    /// Neither state nor memory: may be removed when unused, and merged.
    Pure,
    /// Reads or writes only slots that are never promoted (x87, MXCSR), not memory.
    Private,
    /// May read and write every slot and guest memory: everything is spilled before, refilled after.
    All,
}

/// Signature of a helper: a function of the arch side that an IR program may call by index.
/// Parameters are at most 4 of type `I64` followed by at most 3 of `V128`.
#[derive(Clone, Copy, Debug)]
pub struct HelperSig {
    /// Name in the text form.
    pub name: &'static str,
    /// Number of `I64` parameters (0-4).
    pub ints: u8,
    /// Number of `V128` parameters (0-3).
    pub vecs: u8,
    /// Result: `None`, `Some(I64)` or `Some(V128)`.
    pub ret: Option<Type>,
    /// What it touches.
    pub effects: Effects,
    /// May raise a guest exception or fault: after the call the engine looks at the state's
    /// `pending` word, and leaves the region if it is not zero.
    pub raises: bool,
    /// Finds a leaf for this helper; see [`FindLeaf`].
    pub leaf: Option<FindLeaf>,
}

/// A *leaf*: a function in the helper table that does what the helper does. It takes the helper's
/// arguments where the helper has them, and leaves every register but that of its result as it was, so that a call of it costs compiled code nothing but the call. Found by the helper's index and those of its
/// `I64` arguments that are constants; the result is an index in the helper table.
pub type FindLeaf = fn(u16, &[Option<u64>]) -> Option<u16>;

/// A helper call: index in the arch side's helper table and its arguments.
#[derive(Clone, PartialEq, Debug)]
pub struct HelperCall {
    /// Index in the helper table.
    pub helper: u16,
    /// `I64` arguments, then `V128` ones.
    pub args: Vec<Value>,
}

/// How a region is left, or what it asks of the runtime.
#[derive(Clone, PartialEq, Debug)]
pub enum Term {
    /// Go to a block.
    Jump(Block),
    /// `cond` (i8) is not zero: first block, else second.
    Br(Value, Block, Block),
    /// `table[index]` (index i64), else the default.
    Switch(Value, Vec<Block>, Block),
    /// Leave for guest address `pc` (i64): a jump out of the region.
    Exit(Value),
    /// Leave for guest address `pc`: a return. An engine gives `pc` to its caller.
    Return(Value),
    /// Call the guest function at `target` (i64). The return address is already stored in guest
    /// memory. If it comes back to `ret`, go on at `cont` when there is one, else leave for `ret`.
    Call {
        /// Address of the callee.
        target: Value,
        /// Where it is expected to return to.
        ret: u64,
        /// Where to go on.
        cont: Option<Block>,
    },
    /// Ask the runtime for a service (system call, …): state's pc is `pc` for the service; when it
    /// leaves the pc at `next`, go on at `cont` when there is one.
    Service {
        /// Which service; the arch side's number.
        code: u32,
        /// Address of the instruction that asks.
        pc: u64,
        /// Address of the instruction after it.
        next: u64,
        /// Where to go on.
        cont: Option<Block>,
    },
    /// Raise exception `code` with `arg` at `pc`; never continues.
    Raise {
        /// Exception, the arch side's number.
        code: u32,
        /// Detail.
        arg: u64,
        /// Address of the instruction.
        pc: u64,
    },
}

/// A basic block.
#[derive(Clone, Debug)]
pub struct BlockData {
    /// Guest address of its first instruction (also for blocks inside one instruction).
    pub pc: u64,
    /// Whether it starts a guest instruction whose address is `pc` (may be made an entry).
    pub insn_start: bool,
    /// Whether a back edge leads here (engines poll for pending work here).
    pub loop_header: bool,
    /// Slots whose variables must be stored before the region is left at this block's poll.
    pub poll_spill: SlotSet,
    /// Instructions.
    pub insts: Vec<Inst>,
    /// Terminator.
    pub term: Term,
}

/// A unit of translation. `entries[0]` is where it was asked for.
#[derive(Clone, Debug)]
pub struct Region {
    /// Blocks, indexed by [`Block`].
    pub blocks: Vec<BlockData>,
    /// Blocks at which it may be entered, with all state in its slots.
    pub entries: Vec<Block>,
    /// Types of values, indexed by [`Value`].
    pub types: Vec<Type>,
    /// 128-bit constants.
    pub pool: Vec<u128>,
    /// Helper calls.
    pub calls: Vec<HelperCall>,
    /// Slot sets of `fill` and `spill`.
    pub slot_sets: Vec<SlotSet>,
    /// Guest bytes it was made from: (address, length), sorted, disjoint.
    pub source: Vec<(u64, u32)>,
    /// Number of guest instructions.
    pub insns: u32,
    /// The guest state it speaks of.
    pub layout: &'static Layout,
    /// The helpers it may call.
    pub helpers: &'static [HelperSig],
}

/// Memory of regions that are gone: most regions are basic blocks, made and forgotten by the thousand.
#[derive(Default)]
struct Spare {
    blocks: Vec<BlockData>,
    insts: Vec<Vec<Inst>>,
    types: Vec<Type>,
}

/// Most lists of instructions that are kept, and most elements of a list that is.
const SPARE: (usize, usize) = (16, 4096);

thread_local! {
    static MEMORY: RefCell<Spare> = RefCell::default();
}

impl Region {
    /// Leave its memory to the next region that this thread makes.
    pub fn recycle(mut self) {
        MEMORY.with_borrow_mut(|m| {
            for mut b in self.blocks.drain(..) {
                if m.insts.len() < SPARE.0 && b.insts.capacity() <= SPARE.1 {
                    b.insts.clear();
                    m.insts.push(b.insts);
                }
            }
            if self.types.capacity() <= SPARE.1 {
                self.types.clear();
                m.types = self.types;
            }
            if self.blocks.capacity() <= SPARE.1 {
                m.blocks = self.blocks;
            }
        });
    }
}

/// Makes a region. Values are typed; a wrong operand type is a bug of the caller and is found by the
/// validator, not here.
pub struct Builder {
    /// The region so far.
    pub region: Region,
    cur: usize,
}

impl Builder {
    /// An empty region.
    pub fn new(layout: &'static Layout, helpers: &'static [HelperSig]) -> Self {
        let (blocks, types) = MEMORY.with_borrow_mut(|m| (std::mem::take(&mut m.blocks), std::mem::take(&mut m.types)));
        Builder {
            region: Region {
                blocks,
                entries: vec![],
                types,
                pool: vec![],
                calls: vec![],
                slot_sets: vec![],
                source: vec![],
                insns: 0,
                layout,
                helpers,
            },
            cur: 0,
        }
    }
    /// A new block; its terminator is to be set later.
    pub fn block(&mut self, pc: u64, insn_start: bool) -> Block {
        self.region.blocks.push(BlockData {
            pc,
            insn_start,
            loop_header: false,
            poll_spill: SlotSet::default(),
            insts: MEMORY.with_borrow_mut(|m| m.insts.pop()).unwrap_or_default(),
            term: Term::Raise { code: u32::MAX, arg: 0, pc },
        });
        Block(self.region.blocks.len() as u32 - 1)
    }
    /// Append to this block from now on.
    pub fn switch_to(&mut self, b: Block) {
        self.cur = b.0 as usize;
    }
    /// The block being filled.
    pub fn current(&self) -> Block {
        Block(self.cur as u32)
    }
    /// End the current block.
    pub fn term(&mut self, t: Term) {
        self.region.blocks[self.cur].term = t;
    }
    /// Append an instruction; gives its result.
    pub fn push(&mut self, op: Op, ty: Type, a: Value, b: Value, c: Value, imm: i64) -> Value {
        let ret = if op == Op::Call {
            self.region.helpers[self.region.calls[imm as usize].helper as usize].ret
        } else {
            op.result(ty)
        };
        let dst = match ret {
            Some(t) => {
                self.region.types.push(t);
                Value(self.region.types.len() as u32 - 1)
            }
            None => Value::NONE,
        };
        self.region.blocks[self.cur].insts.push(Inst { op, ty, dst, a, b, c, imm });
        dst
    }
    /// Type of a value.
    pub fn ty(&self, v: Value) -> Type {
        self.region.types[v.0 as usize]
    }
    /// Integer constant, or float bits.
    pub fn iconst(&mut self, ty: Type, imm: i64) -> Value {
        self.push(Op::Const, ty, Value::NONE, Value::NONE, Value::NONE, imm)
    }
    /// 128-bit constant.
    pub fn vconst(&mut self, v: u128) -> Value {
        let i = self.pool(v);
        self.push(Op::VConst, Type::V128, Value::NONE, Value::NONE, Value::NONE, i)
    }
    /// Index of a 128-bit constant in the pool.
    pub fn pool(&mut self, v: u128) -> i64 {
        let p = &mut self.region.pool;
        let i = p.iter().position(|x| *x == v).unwrap_or_else(|| {
            p.push(v);
            p.len() - 1
        });
        i as i64
    }
    /// Read a slot.
    pub fn get(&mut self, s: Slot) -> Value {
        let ty = self.region.layout.get(s).ty;
        self.push(Op::Get, ty, Value::NONE, Value::NONE, Value::NONE, i64::from(s.0))
    }
    /// Write a slot.
    pub fn put(&mut self, s: Slot, v: Value) {
        let ty = self.region.layout.get(s).ty;
        self.push(Op::Put, ty, v, Value::NONE, Value::NONE, i64::from(s.0));
    }
    /// One-operand instruction.
    pub fn un(&mut self, op: Op, ty: Type, a: Value) -> Value {
        self.push(op, ty, a, Value::NONE, Value::NONE, 0)
    }
    /// Two-operand instruction (also `VShift`).
    pub fn bin(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        self.push(op, ty, a, b, Value::NONE, 0)
    }
    /// Integer comparison of operands of type `ty`.
    pub fn icmp(&mut self, cond: Cond, ty: Type, a: Value, b: Value) -> Value {
        self.push(Op::Icmp, ty, a, b, Value::NONE, cond as i64)
    }
    /// Scalar floating comparison.
    pub fn fcmp(&mut self, cond: FCond, ty: Type, a: Value, b: Value) -> Value {
        self.push(Op::FCmp, ty, a, b, Value::NONE, cond as i64)
    }
    /// Conversion of `a` to `to`; the source type is that of `a`.
    pub fn conv(&mut self, op: Op, to: Type, a: Value) -> Value {
        let from = self.ty(a);
        self.push(op, to, a, Value::NONE, Value::NONE, from as i64)
    }
    /// `cond ? a : b`.
    pub fn select(&mut self, ty: Type, cond: Value, a: Value, b: Value) -> Value {
        self.push(Op::Select, ty, cond, a, b, 0)
    }
    /// Guest load.
    pub fn load(&mut self, ty: Type, addr: Value, disp: i32) -> Value {
        self.push(Op::Load, ty, addr, Value::NONE, Value::NONE, i64::from(disp))
    }
    /// Guest store.
    pub fn store(&mut self, ty: Type, addr: Value, disp: i32, v: Value) {
        self.push(Op::Store, ty, addr, v, Value::NONE, i64::from(disp));
    }
    /// Fault unless an address is a multiple of `n`.
    pub fn aligned(&mut self, addr: Value, n: i64) {
        self.push(Op::Aligned, Type::I64, addr, Value::NONE, Value::NONE, n);
    }
    /// Fault as a write of `n` bytes would, before one of several stores that make it up has been done.
    pub fn whole(&mut self, addr: Value, n: i64) {
        self.push(Op::Whole, Type::I64, addr, Value::NONE, Value::NONE, n);
    }
    /// Extract lane.
    pub fn extract(&mut self, shape: Type, v: Value, lane: u8) -> Value {
        self.push(Op::Extract, shape, v, Value::NONE, Value::NONE, i64::from(lane))
    }
    /// Insert lane.
    pub fn insert(&mut self, shape: Type, v: Value, lane: u8, x: Value) -> Value {
        self.push(Op::Insert, shape, v, x, Value::NONE, i64::from(lane))
    }
    /// Byte shuffle by constant selectors.
    pub fn shuffle(&mut self, a: Value, b: Value, sel: [u8; 16]) -> Value {
        let i = self.pool(u128::from_le_bytes(sel));
        self.push(Op::Shuffle, Type::I8X16, a, b, Value::NONE, i)
    }
    /// Helper call; gives its result or `Value::NONE`.
    pub fn call(&mut self, helper: u16, args: &[Value]) -> Value {
        self.region.calls.push(HelperCall { helper, args: args.to_vec() });
        let i = self.region.calls.len() as i64 - 1;
        self.push(Op::Call, Type::I64, Value::NONE, Value::NONE, Value::NONE, i)
    }
    /// Start of a guest instruction.
    pub fn marker(&mut self, pc: u64) {
        self.push(Op::Marker, Type::I64, Value::NONE, Value::NONE, Value::NONE, pc as i64);
        self.region.insns += 1;
    }
}
