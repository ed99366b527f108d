//! Leaves where the host is no x86-64: there are none.

pub(super) fn addresses() -> impl Iterator<Item = u64> {
    std::iter::empty()
}
/// Which leaves this host has: nobody asks where no compiled code is kept.
#[allow(dead_code)]
pub fn fingerprint() -> String {
    String::new()
}
/// See [`evm_ir::FindLeaf`].
pub(super) fn find(_: u16, _: &[Option<u64>]) -> Option<u16> {
    None
}
