//! What compiled code asks of the engine that runs it.
//!
//! Compiled code sees one structure, the guest state, by byte offset: the slots of the IR's layout and
//! the words of [`Abi`]. The table of helpers begins with the runtime's own functions ([`RuntimeFn`]);
//! helper `h` of the IR's table is entry [`FIRST_HELPER`]` + h`.
//!
//! # Compiled functions
//! Cranelift's `tail` convention; with two integer arguments it is the System V one:
//! `fn(rdi = state, rsi = pc) -> rax`, `rbx rbp r12-r15` kept, and `r15` holds `mem_base` from the first
//! call to the last return. `pc` is the guest address of the region's entry to be entered; the result is
//! the guest address to go on at, with all state in its slots, or [`EXIT_PENDING`].

/// Byte offsets in the guest state of the words that engines and compiled code share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abi {
    /// u64: host address of guest address 0.
    pub mem_base: u32,
    /// u64: size of the guest address space.
    pub mem_limit: u32,
    /// u64: not zero: leave at the next poll.
    pub poll: u32,
    /// u64: host stack pointer below which a region must not be entered; `u64::MAX` forces every entry out.
    pub stack_limit: u32,
    /// u64: host address of the table of entry points, by entry index; 0 = not compiled.
    pub entries: u32,
    /// u64: host address of the table from guest pc to entry index: [`IBTC`] words `(pc >> 16) << 32 | index`
    /// (wrapping), at [`ibtc_slot`].
    pub ibtc: u32,
    /// u64: host address of the table of [`RuntimeFn`]s and helpers.
    pub helpers: u32,
    /// u64: not zero: a helper has raised.
    pub pending: u32,
    /// u64: guest address of an access that failed the limit check, written before a trap with [`TRAP_LIMIT`] in precise
    /// code; other code may leave it as it was (elsewhere the host's fault address tells).
    pub fault_addr: u32,
    /// u32: where [`Quick::traps`](crate::quick::Quick::traps) leaves MXCSR before instructions that may trap.
    pub mxcsr: u32,
    /// u64: host address of the table of entry counters (u32), by entry index; quick code adds to them.
    pub counts: u32,
    /// u64: host address of the table of where indirect jumps and calls went: [`TARGETS`] pairs of u64, the target and the
    /// low half of the address of the jump, placed by [`target_salt`]. Code that does not know a jump's targets writes to it.
    pub targets: u32,
    /// 1 KiB, aligned to 16: scratch of quick code, not used across calls that run guest code.
    pub scratch: u32,
    /// u64: the guest pc; stored before a return with [`EXIT_PENDING`].
    pub rip: u32,
}

/// The [`Abi`] of a guest state structure whose fields have the names that these words have in `evm_cpu::CpuState`.
#[macro_export]
macro_rules! abi_of {
    ($state:ty) => {
        $crate::abi::Abi {
            mem_base: ::std::mem::offset_of!($state, mem_base) as u32,
            mem_limit: ::std::mem::offset_of!($state, mem_limit) as u32,
            poll: ::std::mem::offset_of!($state, poll) as u32,
            stack_limit: ::std::mem::offset_of!($state, stack_limit) as u32,
            entries: ::std::mem::offset_of!($state, entries) as u32,
            ibtc: ::std::mem::offset_of!($state, ibtc) as u32,
            helpers: ::std::mem::offset_of!($state, helpers) as u32,
            pending: ::std::mem::offset_of!($state, pending) as u32,
            fault_addr: ::std::mem::offset_of!($state, pending_arg) as u32,
            mxcsr: ::std::mem::offset_of!($state, mxcsr) as u32,
            counts: ::std::mem::offset_of!($state, counts) as u32,
            targets: ::std::mem::offset_of!($state, targets) as u32,
            scratch: ::std::mem::offset_of!($state, scratch) as u32,
            rip: ::std::mem::offset_of!($state, rip) as u32,
        }
    };
}

/// Words in the table from guest pc to entry index.
pub const IBTC: usize = 1 << 16;
/// How far a guest pc is shifted right, to be xored to itself, to make its place in that table. Functions begin at multiples of 16:
/// their low bits alone would use one word of 16. With the tag, the place still tells the pc.
pub const IBTC_FOLD: u8 = 12;

/// Place of a guest pc in the table from guest pc to entry index.
pub fn ibtc_slot(pc: u64) -> usize {
    (pc ^ pc >> IBTC_FOLD) as usize % IBTC
}

/// Pairs in the table of targets.
pub const TARGETS: usize = 1 << 15;

/// What is xored to the low bits of a target, and masked by `TARGETS - 1`, to make its place in the table of targets.
pub fn target_salt(jump: u64) -> u32 {
    (jump as u32).wrapping_mul(0x9e37_79b1) >> 17
}

/// Functions of the runtime at the start of the helper table; all `extern "sysv64"`, the first argument the
/// state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RuntimeFn {
    /// `(state, target, ret) -> next`: run the guest function at `target`, which is not compiled, until the
    /// guest comes to `ret` or the region's caller has to take over. The region goes on at `ret` if that
    /// is the result, else it returns the result.
    Call = 0,
    /// `(state, next, ret) -> next`: a call came back to `next` instead of `ret`. Run on until `ret`, or give the
    /// address that the region is to return.
    Resume = 1,
    /// `(state, code, pc, next) -> pc`: [`evm_ir::Term::Service`]. The result `next` goes on in the region.
    Service = 2,
    /// `(state, code, arg, pc) -> pc`: [`evm_ir::Term::Raise`]; the result is what the region returns.
    Raise = 3,
    /// `(state, pc)`: quick code at `pc` has been entered often.
    Hot = 4,
    /// No function to call but an address, [`quick::origin`](crate::quick::origin): quick code finds functions of this program
    /// by their distance from it, which is the same in every process that runs the same build.
    Origin = 5,
}

/// Index in the helper table of the IR's helper 0.
pub const FIRST_HELPER: u32 = 8;

/// Result of a compiled function when `pending` is set: slot `rip` holds the pc of the instruction that raised.
pub const EXIT_PENDING: u64 = u64::MAX;

/// Value of the word `pending`: interpret at least one instruction at `rip`, and go on. (Exceptions are below.)
pub const STEP: u64 = 1 << 32;

/// Trap code of a guest access to a page that is not there.
pub const TRAP_ACCESS: u8 = 1;
/// Trap code of a guest address outside the address space (an undefined instruction on the host).
pub const TRAP_LIMIT: u8 = 2;
/// Stands for the address of a fault whose cause is an operand that is not aligned ([`evm_ir::Op::Aligned`]).
pub const MISALIGNED: u64 = 0x8000_0000_a119_0bad;
/// Bytes at either end of the guest address space that an engine never maps: an address that wraps around
/// by no more than this faults, as it would where the check does not see it wrap.
pub const UNMAPPED: u32 = 1 << 16;
