//! Types, values, slots and blocks.

/// Type of a value, or the lane shape that a vector operation works on.
///
/// Values have one of the seven *value types* (`I8`…`V128`). The lane shapes
/// (`I8X16`…) appear only as the `ty` of a vector instruction; the values such an
/// instruction takes and gives are `V128`. A boolean is an `I8` that is 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Type {
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    V128,
    I8X16,
    I16X8,
    I32X4,
    I64X2,
    F32X4,
    F64X2,
}

impl Type {
    /// Size of a value of this type in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Type::I8 => 1,
            Type::I16 => 2,
            Type::I32 | Type::F32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::V128 | Type::I8X16 | Type::I16X8 | Type::I32X4 | Type::I64X2 | Type::F32X4 | Type::F64X2 => 16,
        }
    }
    /// Size in bits.
    pub const fn bits(self) -> u32 {
        self.bytes() * 8
    }
    /// Whether this is `I8`…`I64`.
    pub const fn is_int(self) -> bool {
        matches!(self, Type::I8 | Type::I16 | Type::I32 | Type::I64)
    }
    /// Whether this is a lane shape rather than a value type.
    pub const fn is_shape(self) -> bool {
        self as u8 > Type::V128 as u8
    }
    /// The type of one lane of a shape; the type itself for a value type.
    pub const fn lane(self) -> Type {
        match self {
            Type::I8X16 => Type::I8,
            Type::I16X8 => Type::I16,
            Type::I32X4 => Type::I32,
            Type::I64X2 => Type::I64,
            Type::F32X4 => Type::F32,
            Type::F64X2 => Type::F64,
            t => t,
        }
    }
    /// The integer type of the given size in bytes (1, 2, 4, 8).
    pub const fn int(bytes: u32) -> Type {
        match bytes {
            1 => Type::I8,
            2 => Type::I16,
            4 => Type::I32,
            _ => Type::I64,
        }
    }
    /// Lower-case name as in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Type::I8 => "i8",
            Type::I16 => "i16",
            Type::I32 => "i32",
            Type::I64 => "i64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::V128 => "v128",
            Type::I8X16 => "i8x16",
            Type::I16X8 => "i16x8",
            Type::I32X4 => "i32x4",
            Type::I64X2 => "i64x2",
            Type::F32X4 => "f32x4",
            Type::F64X2 => "f64x2",
        }
    }
    /// All types, in declaration order.
    pub const ALL: [Type; 13] = [
        Type::I8,
        Type::I16,
        Type::I32,
        Type::I64,
        Type::F32,
        Type::F64,
        Type::V128,
        Type::I8X16,
        Type::I16X8,
        Type::I32X4,
        Type::I64X2,
        Type::F32X4,
        Type::F64X2,
    ];
}

/// An SSA value: defined once, used only inside the block that defines it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// "No operand".
    pub const NONE: Value = Value(u32::MAX);
    /// Whether this is an operand at all.
    pub const fn is_some(self) -> bool {
        self.0 != u32::MAX
    }
}

/// A block of a region, by index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Block(pub u32);

/// A named piece of guest state, by index into a [`Layout`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// Where a slot lives in the guest state and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct SlotInfo {
    /// Name in the text form (`rax`, `xmm3`, `cc_op`).
    pub name: &'static str,
    /// Byte offset in the guest state structure.
    pub offset: u32,
    /// Value type of the slot (a value type, not a shape).
    pub ty: Type,
    /// Whether a region may keep it in a variable between `fill` and `spill`.
    /// Slots that helpers read or write behind the IR's back must not be.
    pub promote: bool,
}

/// Description of the guest state: the only state an IR program can name.
/// At most 128 slots, so that a set of slots is a `u128`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The slots, indexed by [`Slot`].
    pub slots: &'static [SlotInfo],
}

impl Layout {
    /// Description of one slot.
    pub fn get(&self, s: Slot) -> &'static SlotInfo {
        &self.slots[s.0 as usize]
    }
}

/// A set of slots; bit n is slot n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SlotSet(pub u128);

impl SlotSet {
    /// Add a slot.
    pub fn insert(&mut self, s: Slot) {
        self.0 |= 1 << s.0;
    }
    /// Remove a slot.
    pub fn remove(&mut self, s: Slot) {
        self.0 &= !(1 << s.0);
    }
    /// Membership.
    pub fn contains(self, s: Slot) -> bool {
        self.0 >> s.0 & 1 != 0
    }
    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let mut m = self.0;
        std::iter::from_fn(move || {
            if m == 0 {
                return None;
            }
            let n = m.trailing_zeros();
            m &= m - 1;
            Some(Slot(n as u16))
        })
    }
}
