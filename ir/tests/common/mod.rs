//! A guest state and helpers for tests.

use evm_ir::{Effects, HelperSig, Layout, SlotInfo, Type};

const fn slot(name: &'static str, offset: u32, ty: Type, promote: bool) -> SlotInfo {
    SlotInfo { name, offset, ty, promote }
}

/// Two promotable slots of each kind, and one of each that is not.
pub static LAYOUT: Layout = Layout {
    slots: &[
        slot("r0", 0, Type::I64, true),
        slot("r1", 8, Type::I64, true),
        slot("r2", 16, Type::I64, true),
        slot("fuel", 24, Type::I64, true),
        slot("x0", 32, Type::V128, true),
        slot("x1", 48, Type::V128, true),
        slot("p0", 64, Type::I64, false),
        slot("w0", 72, Type::I16, false),
    ],
};
const fn helper(
    name: &'static str,
    ints: u8,
    vecs: u8,
    ret: Option<Type>,
    effects: Effects,
    raises: bool,
) -> HelperSig {
    HelperSig { name, ints, vecs, ret, effects, raises, leaf: None }
}
/// One helper of each kind.
pub static HELPERS: &[HelperSig] = &[
    helper("pure", 2, 0, Some(Type::I64), Effects::Pure, false),
    helper("mix", 1, 1, Some(Type::V128), Effects::Pure, false),
    helper("private", 1, 0, None, Effects::Private, true),
    helper("all", 0, 1, Some(Type::I64), Effects::All, true),
];
