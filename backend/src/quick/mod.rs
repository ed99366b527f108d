//! The quick tier: native code from a basic block in one walk, for code that has just turned up.
//!
//! It takes the interpreter's kind of region (one entry; `fill` and `spill` mean nothing; state exact at every access) and
//! emits x86-64 code with the conventions of [`crate::abi`], so that its pieces, Cranelift's regions and the
//! run loop call and jump to each other freely. Compiling costs about as much as preparing a block for
//! the interpreter; the code runs several times faster.
//!
//! Terms. A value's *home* is where it can be had from memory or made anew: a constant, a slot of the
//! state that still holds it, a *cell* of the state's scratch area. A value with a home may lose its register
//! at no cost; one without is written to a cell first.
//!
//! Registers: `rdi` state, `r15` memory base (set by the entry trampoline, kept by everyone), `rax` and
//! `xmm15` scratch, the other caller-saved registers hold values. Nothing is kept on the host stack,
//! so a piece leaves by a jump or by `ret`.
//!
//! Invariants:
//! 1. An integer in a register or a cell is zero-extended to 64 bits.
//! 2. A host address is formed only by `Lower::place`, from `r15` and a guest address that was compared
//!    with the limit, plus a 32-bit displacement: the guards on both sides are larger than that.
//! 3. Slots are written in the order of the region, before any later access: at a fault the state is exact. With
//!    [`Quick::traps`] so it is at a host instruction that raises an unmasked floating-point exception; where that is in a
//!    function that is called, the fault hook notes it, and the piece leaves behind the call.
//!
//! What has no template here and no function of the interpreter's is refused with [`Unsupported`]; the
//! block is then interpreted.
//!
//! Every piece counts its entries in a table at [`Abi::counts`] and calls [`RuntimeFn::Hot`] each time the
//! count has gone up by the threshold.
//!
//! [`Abi::counts`]: crate::abi::Abi::counts
//! [`RuntimeFn::Hot`]: crate::abi::RuntimeFn::Hot

mod exits;
mod fallback;
mod lower;
mod mem;
mod place;
mod simd;

use crate::abi::Abi;
use evm_ir::Region;
use lower::Lower;

/// Something has no template here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the quick compiler has no code for {0}")]
pub struct Unsupported(pub &'static str);

/// Native code of one block, in the compiler's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Position independent: it has no absolute host address and is good in every process that runs this build of the
    /// program. Its first byte is the function.
    pub code: &'a [u8],
    /// (offset of a host instruction that can trap, guest pc), ascending.
    pub pcs: &'a [(u32, u64)],
}

/// The compiler: buffers that are used again.
#[derive(Default)]
pub struct Quick {
    asm: crate::asm::Asm,
    values: Vec<place::Val>,
    pcs: Vec<(u32, u64)>,
    /// Code is for address spaces of at least this many bytes: from 2^32 on, zero-extended 32-bit addresses need no check.
    pub min_limit: u64,
    /// Floating-point exceptions may be unmasked: a trap of the host leaves the state as it is before the instruction. The region is
    /// made by [`OptLevel::Traps`](evm_ir::passes::OptLevel::Traps).
    pub traps: bool,
}

/// What [`RuntimeFn::Origin`](crate::abi::RuntimeFn::Origin) holds.
pub fn origin() -> u64 {
    fallback::origin()
}

/// Whether this host has what the templates use (SSE4.2, POPCNT and the like: x86-64-v2).
pub fn supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

impl Quick {
    /// Compile a region with one entry, validated and not promoted. `links` gives the engine-wide entry index of
    /// a guest pc; `threshold` is the number of entries between two calls of the runtime (a power of two).
    pub fn compile<'a>(
        &'a mut self,
        region: &Region,
        abi: &Abi,
        threshold: u32,
        links: &mut dyn FnMut(u64) -> u32,
    ) -> Result<Code<'a>, Unsupported> {
        self.asm.clear();
        self.pcs.clear();
        let mut l = Lower::new(region, abi, &mut self.asm, &mut self.values, links);
        l.pcs = std::mem::take(&mut self.pcs);
        l.traps = self.traps;
        l.narrow_fits = self.min_limit >> 32 != 0;
        self.pcs = l.run(threshold)?;
        Ok(Code { code: &self.asm.code, pcs: &self.pcs })
    }
}
