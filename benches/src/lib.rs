//! What the benches share: real code to translate.
#![deny(unsafe_code)]

use evm_backend::abi::Abi;
use evm_cpu::CpuState;
use evm_ir::Region;
use evm_lifter::{Mode, Options};
use object::{Object, ObjectSection};

/// Where compiled code finds things in the state.
pub const ABI: Abi = evm_backend::abi_of!(CpuState);

/// Machine code at its address.
pub struct Text {
    /// Address of the first byte.
    pub start: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Text {
    /// The `.text` section of this bench's own program: as ordinary as code gets.
    pub fn own() -> Text {
        let file = std::fs::read("/proc/self/exe").expect("own program");
        let object = object::File::parse(&*file).expect("an ELF file");
        let text = object.section_by_name(".text").expect(".text");
        Text { start: text.address(), bytes: text.data().expect("contents").to_vec() }
    }
    fn fetch(&self, at: u64, buf: &mut [u8]) -> usize {
        let from = (at.wrapping_sub(self.start) as usize).min(self.bytes.len());
        let n = buf.len().min(self.bytes.len() - from);
        buf[..n].copy_from_slice(&self.bytes[from..from + n]);
        n
    }
    /// The basic block or region at an address.
    pub fn lift(&self, at: u64, mode: Mode) -> Region {
        let mut code = |at: u64, buf: &mut [u8]| self.fetch(at, buf);
        evm_lifter::lift(at, &[], &mut code, &Options { mode, ..Options::default() }).expect("code").region
    }
    /// Addresses of the first `n` basic blocks, one behind the other.
    pub fn blocks(&self, n: usize) -> Vec<u64> {
        let mut at = self.start;
        let mut out = Vec::with_capacity(n);
        while out.len() < n {
            out.push(at);
            at = self.lift(at, Mode::Block).source.last().map_or(at + 1, |(a, n)| a + u64::from(*n));
        }
        out
    }
}
