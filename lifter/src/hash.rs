//! Hash maps keyed by guest addresses: a multiplication is hash enough, and these maps are on the path
//! of all translation. A guest that picks its addresses to collide slows down only itself.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Map by address.
pub(crate) type Map<V> = HashMap<u64, V, BuildHasherDefault<AddressHasher>>;
/// Set of addresses.
pub(crate) type Set = HashSet<u64, BuildHasherDefault<AddressHasher>>;

/// Hasher for guest addresses: multiplies by an odd constant, and mixes the high bits down.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        let x = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ x >> 32;
    }
}
