//! The table of opcodes. Printer, parser, validator, interpreter and documentation
//! all read it; there is no second list.

use crate::types::Type;

/// What operands an opcode takes, what it gives, and what `imm` means.
/// `t` is the instruction's `ty`; for lane shapes operands are `V128`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Sig {
    /// `imm` -> t (integer constant, or the bits of an f32/f64)
    Const,
    /// -> v128; `imm` indexes the region's pool of 128-bit constants
    VConst,
    /// -> t; `imm` is the slot
    Get,
    /// a: t ; `imm` is the slot
    Put,
    /// a: t -> t
    Un,
    /// a: t, b: t -> t
    Bin,
    /// a: t, b: t -> i8 (0 or 1); `imm` is a [`Cond`]
    Cmp,
    /// a: t, b: t -> i8; `imm` is an [`FCond`]
    FCmp,
    /// a: i8 (condition), b: t, c: t -> t
    Select,
    /// a: from -> t ; `imm` is the source `Type` as u8
    Conv,
    /// a: i64 address -> t ; `imm` is a signed 32-bit displacement
    Load,
    /// a: i64 address, b: t ; `imm` displacement
    Store,
    /// a: i64 address, b: t -> t (old); `imm` displacement; sequentially consistent
    Rmw,
    /// a: i64 address, b: t expected, c: t new -> t (old); `imm` displacement
    Cas,
    /// a: i64 address; `imm` is up to 4096 (`Aligned`: a power of two)
    Align,
    /// no operands, no result
    Fence,
    /// a: v128 -> lane type of t; `imm` lane
    Extract,
    /// a: v128, b: lane type of t -> v128; `imm` lane
    Insert,
    /// a: lane type of t -> v128, all lanes
    Splat,
    /// a: v128, b: i32 -> v128 (each lane shifted by b, b < lane bits)
    VShift,
    /// a: v128, b: v128 -> v128 mask per lane; `imm` is a [`FCond`]
    VFCmp,
    /// a: v128, b: v128 -> v128; `imm` indexes the pool: 16 selectors, 0-15 a, 16-31 b
    Shuffle,
    /// a: v128 mask, b: v128, c: v128 -> v128 (bitwise a ? b : c)
    VSelect,
    /// a: v128 -> i32: the top bit of each lane, lane 0 in bit 0
    VMask,
    /// `imm` indexes the region's `calls`
    Call,
    /// start of the guest instruction at address `imm`
    Marker,
    /// `imm` indexes the region's `slot_sets`: load these slots' variables from state
    Fill,
    /// `imm` indexes `slot_sets`: store these slots' variables to state
    Spill,
}

/// Properties that passes and the validator need.
pub mod flags {
    /// Reads guest memory, may fault.
    pub const READ: u8 = 1;
    /// Writes guest memory, may fault.
    pub const WRITE: u8 = 2;
    /// Must not be removed even if its result is unused.
    pub const EFFECT: u8 = 4;
}

macro_rules! ops {
    ($( $name:ident $text:literal $sig:ident $flags:expr, $doc:literal; )*) => {
        /// An opcode.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Op { $( #[doc = $doc] $name ),* }
        impl Op {
            /// Every opcode, in table order.
            pub const ALL: &'static [Op] = &[ $( Op::$name ),* ];
            /// Name in the text form.
            pub const fn name(self) -> &'static str { match self { $( Op::$name => $text ),* } }
            /// Operand shape.
            pub const fn sig(self) -> Sig { match self { $( Op::$name => Sig::$sig ),* } }
            /// See [`flags`].
            pub const fn flags(self) -> u8 { match self { $( Op::$name => $flags ),* } }
            /// One-line meaning.
            pub const fn doc(self) -> &'static str { match self { $( Op::$name => $doc ),* } }
        }
    };
}

use flags::*;
ops! {
    Const "const" Const 0, "integer or floating constant";
    VConst "vconst" VConst 0, "128-bit constant";
    Get "get" Get 0, "read a state slot";
    Put "put" Put EFFECT, "write a state slot";
    // integers, ty I8..I64
    Add "add" Bin 0, "a + b, wrapping";
    Sub "sub" Bin 0, "a - b, wrapping";
    Mul "mul" Bin 0, "low half of a * b";
    UMulHi "umulhi" Bin 0, "high half of the unsigned product";
    SMulHi "smulhi" Bin 0, "high half of the signed product";
    UDiv "udiv" Bin 0, "unsigned quotient; b must not be 0 (the lifter raises first)";
    URem "urem" Bin 0, "unsigned remainder; b must not be 0";
    SDiv "sdiv" Bin 0, "signed quotient; b must not be 0, nor MIN / -1";
    SRem "srem" Bin 0, "signed remainder; b must not be 0, nor MIN % -1";
    And "and" Bin 0, "bitwise and";
    Or "or" Bin 0, "bitwise or";
    Xor "xor" Bin 0, "bitwise exclusive or";
    Shl "shl" Bin 0, "shift left; count taken modulo the width";
    Shr "shr" Bin 0, "logical shift right; count modulo the width";
    Sar "sar" Bin 0, "arithmetic shift right; count modulo the width";
    Rotl "rotl" Bin 0, "rotate left; count modulo the width";
    Rotr "rotr" Bin 0, "rotate right; count modulo the width";
    Neg "neg" Un 0, "two's complement negation";
    Not "not" Un 0, "bitwise complement";
    Clz "clz" Un 0, "leading zeros; the width for 0";
    Ctz "ctz" Un 0, "trailing zeros; the width for 0";
    Popcnt "popcnt" Un 0, "one bits";
    Bswap "bswap" Un 0, "bytes reversed (I16..I64)";
    Icmp "icmp" Cmp 0, "integer comparison";
    Select "select" Select 0, "a ? b : c (any value type)";
    Zext "zext" Conv 0, "zero extension to a wider integer";
    Sext "sext" Conv 0, "sign extension to a wider integer";
    Trunc "trunc" Conv 0, "low bits";
    Bitcast "bitcast" Conv 0, "same bits, other type of the same size (I32/F32, I64/F64)";
    // memory
    Load "load" Load READ, "read guest memory";
    Store "store" Store WRITE|EFFECT, "write guest memory";
    AtomicAdd "atomic_add" Rmw READ|WRITE|EFFECT, "add, gives the old value";
    AtomicAnd "atomic_and" Rmw READ|WRITE|EFFECT, "and, gives the old value";
    AtomicOr "atomic_or" Rmw READ|WRITE|EFFECT, "or, gives the old value";
    AtomicXor "atomic_xor" Rmw READ|WRITE|EFFECT, "xor, gives the old value";
    AtomicXchg "atomic_xchg" Rmw READ|WRITE|EFFECT, "exchange, gives the old value";
    AtomicCas "atomic_cas" Cas READ|WRITE|EFFECT, "compare and swap (I8..I64, V128), gives the old value";
    Aligned "aligned" Align READ|EFFECT, "fault, as the access that follows would, unless a is a multiple of imm";
    Whole "whole" Align READ|WRITE|EFFECT, "fault, as a write of imm bytes at a would, if they lie in two pages of which one may not be written";
    Fence "fence" Fence EFFECT, "full memory fence";
    // scalar floating point, under the guest's MXCSR
    FAdd "fadd" Bin 0, "x86 addss/addsd: NaN rules of the hardware, first operand first";
    FSub "fsub" Bin 0, "a - b";
    FMul "fmul" Bin 0, "a * b";
    FDiv "fdiv" Bin 0, "a / b";
    FSqrt "fsqrt" Un 0, "square root";
    FMinX "fmin_x" Bin 0, "a < b ? a : b (the second operand if equal or unordered)";
    FMaxX "fmax_x" Bin 0, "a > b ? a : b (the second operand if equal or unordered)";
    FCmp "fcmp" FCmp 0, "floating comparison";
    FComi "fcomi" FCmp EFFECT, "floating comparison that raises the flags of COMISx (quiet NaNs are invalid) even if unused";
    FPromote "fpromote" Conv 0, "F32 to F64";
    FDemote "fdemote" Conv 0, "F64 to F32, rounded by MXCSR";
    CvtIF "cvt_if" Conv 0, "signed I32/I64 to F32/F64, rounded by MXCSR";
    CvtFI "cvt_fi" Conv 0, "F32/F64 to signed I32/I64, truncated; out of range gives the minimum integer";
    // vectors
    VAdd "vadd" Bin 0, "lanewise sum (integer or float shape)";
    VSub "vsub" Bin 0, "lanewise difference";
    VMul "vmul" Bin 0, "lanewise product (I16X8, I32X4, F32X4, F64X2)";
    VDiv "vdiv" Bin 0, "lanewise quotient (F32X4, F64X2)";
    VSqrt "vsqrt" Un 0, "lanewise square root (F32X4, F64X2)";
    VFMinX "vfmin_x" Bin 0, "lanewise a < b ? a : b";
    VFMaxX "vfmax_x" Bin 0, "lanewise a > b ? a : b";
    VAddSatS "vaddsat_s" Bin 0, "signed saturating sum (I8X16, I16X8)";
    VAddSatU "vaddsat_u" Bin 0, "unsigned saturating sum";
    VSubSatS "vsubsat_s" Bin 0, "signed saturating difference";
    VSubSatU "vsubsat_u" Bin 0, "unsigned saturating difference";
    VMinS "vmin_s" Bin 0, "signed minimum (I8X16, I16X8, I32X4)";
    VMinU "vmin_u" Bin 0, "unsigned minimum";
    VMaxS "vmax_s" Bin 0, "signed maximum";
    VMaxU "vmax_u" Bin 0, "unsigned maximum";
    VAvgU "vavg_u" Bin 0, "(a + b + 1) >> 1 unsigned (I8X16, I16X8)";
    VAbs "vabs" Un 0, "absolute value, wrapping (I8X16, I16X8, I32X4)";
    VAnd "vand" Bin 0, "bitwise and (ty V128)";
    VOr "vor" Bin 0, "bitwise or (ty V128)";
    VXor "vxor" Bin 0, "bitwise exclusive or (ty V128)";
    VAndNot "vandnot" Bin 0, "not(a) and b, the operand order of PANDN (ty V128)";
    VCmpEq "vcmp_eq" Bin 0, "lane mask of a == b (integer shapes)";
    VCmpGtS "vcmp_gt_s" Bin 0, "lane mask of signed a > b (integer shapes)";
    VFCmp "vfcmp" VFCmp 0, "lane mask of a float comparison (F32X4, F64X2)";
    VShl "vshl" VShift 0, "lanewise left shift by one count less than the lane width";
    VShr "vshr" VShift 0, "lanewise logical right shift by one count";
    VSar "vsar" VShift 0, "lanewise arithmetic right shift by one count (I8X16, I16X8, I32X4)";
    Extract "extract" Extract 0, "one lane";
    Insert "insert" Insert 0, "replace one lane";
    Splat "splat" Splat 0, "one scalar in all lanes";
    Shuffle "shuffle" Shuffle 0, "bytes of a and b by constant selectors (ty I8X16)";
    VPshufb "vpshufb" Bin 0, "bytes of a selected by the low 4 bits of b's bytes, 0 where b's top bit is set";
    VSelect "vselect" VSelect 0, "bitwise select (ty V128)";
    VMask "vmask" VMask 0, "top bits of the lanes (I8X16, I16X8, I32X4, I64X2)";
    VPackS "vpack_s" Bin 0, "narrow with signed saturation, a's lanes low (ty: source shape I16X8 or I32X4)";
    VPackU "vpack_u" Bin 0, "narrow signed lanes with unsigned saturation (ty: source shape)";
    VWidenLowS "vwiden_low_s" Un 0, "sign-extend the low half's lanes (ty: source shape I8X16, I16X8, I32X4)";
    VWidenLowU "vwiden_low_u" Un 0, "zero-extend the low half's lanes (ty: source shape)";
    VCvtIF "vcvt_if" Un 0, "I32X4 lanes to F32X4 (ty F32X4)";
    // structure
    Call "call" Call EFFECT, "call a helper";
    Marker "insn" Marker EFFECT, "start of a guest instruction";
    Fill "fill" Fill EFFECT, "load slot variables from state";
    Spill "spill" Spill EFFECT, "store slot variables to state";
    Keep "keep" Spill EFFECT, "slot variables that are to be stored if the region is left at the next instruction";
}

/// Integer condition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Cond {
    Eq,
    Ne,
    Ult,
    Ule,
    Ugt,
    Uge,
    Slt,
    Sle,
    Sgt,
    Sge,
}

impl Cond {
    /// All, in encoding order.
    pub const ALL: [Cond; 10] =
        [Cond::Eq, Cond::Ne, Cond::Ult, Cond::Ule, Cond::Ugt, Cond::Uge, Cond::Slt, Cond::Sle, Cond::Sgt, Cond::Sge];
    /// Text form.
    pub const fn name(self) -> &'static str {
        match self {
            Cond::Eq => "eq",
            Cond::Ne => "ne",
            Cond::Ult => "ult",
            Cond::Ule => "ule",
            Cond::Ugt => "ugt",
            Cond::Uge => "uge",
            Cond::Slt => "slt",
            Cond::Sle => "sle",
            Cond::Sgt => "sgt",
            Cond::Sge => "sge",
        }
    }
    /// The condition with its operands exchanged.
    pub const fn swap(self) -> Cond {
        match self {
            Cond::Eq | Cond::Ne => self,
            Cond::Ult => Cond::Ugt,
            Cond::Ule => Cond::Uge,
            Cond::Ugt => Cond::Ult,
            Cond::Uge => Cond::Ule,
            Cond::Slt => Cond::Sgt,
            Cond::Sle => Cond::Sge,
            Cond::Sgt => Cond::Slt,
            Cond::Sge => Cond::Sle,
        }
    }
    /// The opposite condition.
    #[allow(clippy::should_implement_trait)]
    pub const fn not(self) -> Cond {
        match self {
            Cond::Eq => Cond::Ne,
            Cond::Ne => Cond::Eq,
            Cond::Ult => Cond::Uge,
            Cond::Ule => Cond::Ugt,
            Cond::Ugt => Cond::Ule,
            Cond::Uge => Cond::Ult,
            Cond::Slt => Cond::Sge,
            Cond::Sle => Cond::Sgt,
            Cond::Sgt => Cond::Sle,
            Cond::Sge => Cond::Slt,
        }
    }
}

/// Floating condition, in the order of CMPPS's immediate 0-7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum FCond {
    /// ordered and equal
    Eq,
    /// ordered and less
    Lt,
    /// ordered and less or equal
    Le,
    /// unordered
    Uno,
    /// unordered or not equal
    Ne,
    /// not (ordered and less)
    Nlt,
    /// not (ordered and less or equal)
    Nle,
    /// ordered
    Ord,
}

impl FCond {
    /// All, in encoding order.
    pub const ALL: [FCond; 8] =
        [FCond::Eq, FCond::Lt, FCond::Le, FCond::Uno, FCond::Ne, FCond::Nlt, FCond::Nle, FCond::Ord];
    /// Text form.
    pub const fn name(self) -> &'static str {
        match self {
            FCond::Eq => "eq",
            FCond::Lt => "lt",
            FCond::Le => "le",
            FCond::Uno => "uno",
            FCond::Ne => "ne",
            FCond::Nlt => "nlt",
            FCond::Nle => "nle",
            FCond::Ord => "ord",
        }
    }
}

impl Op {
    /// Whether it may set exception flags of MXCSR, so that it is not to be removed even if its result is unused.
    /// (Comparisons are not among them: they come from the conditions that use them.)
    pub const fn raises_flags(self, ty: Type) -> bool {
        match self {
            Op::FAdd | Op::FSub | Op::FMul | Op::FDiv | Op::FSqrt | Op::FMinX | Op::FMaxX => true,
            Op::FPromote | Op::FDemote | Op::CvtIF | Op::CvtFI | Op::VCvtIF | Op::VFCmp => true,
            Op::VAdd | Op::VSub | Op::VMul | Op::VDiv | Op::VSqrt | Op::VFMinX | Op::VFMaxX => {
                matches!(ty, Type::F32X4 | Type::F64X2)
            }
            _ => false,
        }
    }
    /// Whether it reads or writes guest memory where its operand says (and not only finds out how an access would fault).
    pub const fn accesses(self) -> bool {
        self.flags() & (flags::READ | flags::WRITE) != 0 && !matches!(self.sig(), Sig::Align)
    }
    /// Result type of an instruction with this opcode and `ty`, or `None` if it has no result
    /// (helper calls: see the region's call list).
    pub const fn result(self, ty: Type) -> Option<Type> {
        let value = if ty.is_shape() { Type::V128 } else { ty };
        match self.sig() {
            Sig::Const | Sig::Get | Sig::Load | Sig::Rmw | Sig::Cas | Sig::Conv | Sig::Select => Some(value),
            Sig::Un | Sig::Bin => Some(value),
            Sig::Cmp | Sig::FCmp => Some(Type::I8),
            Sig::VMask => Some(Type::I32),
            Sig::Extract => Some(ty.lane()),
            Sig::VConst | Sig::Insert | Sig::Splat | Sig::VShift | Sig::VFCmp | Sig::Shuffle | Sig::VSelect => {
                Some(Type::V128)
            }
            Sig::Put | Sig::Store | Sig::Align | Sig::Fence | Sig::Call | Sig::Marker | Sig::Fill | Sig::Spill => None,
        }
    }
}
