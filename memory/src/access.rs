//! Fault-safe accesses to guest memory.
//!
//! # Safety
//! Each `asm!` block touches host addresses in `[base, base + limit)` only, where the caller of
//! [`Mem::new`] promised that this range is reserved for a guest (mapped or `PROT_NONE`). A fault in
//! it resumes at the landing recorded in `evm_extable`, which leaves by the block's normal end with
//! the error register set. No Rust reference to that memory exists, so races with other guest
//! threads are races between assembly accesses only.
#![allow(unsafe_code)]

use crate::Fault;
use std::arch::asm;

/// A view of one guest address space: base and limit by value. Copyable, cheap.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    base: u64,
    limit: u64,
}

macro_rules! guarded {
    ($text:literal, $($args:tt)*) => {
        asm!(
            concat!("2: ", $text),
            "3:",
            ".pushsection evm_extable,\"aR\",@progbits",
            ".balign 4",
            ".long 2b - .",
            ".long 4f - .",
            ".popsection",
            ".pushsection .text.evm_fixup,\"ax\",@progbits",
            "4: mov {err:e}, 1",
            "jmp 3b",
            ".popsection",
            $($args)*
        )
    };
}

impl Mem {
    /// A view of `[base, base + limit)` on the host.
    ///
    /// # Safety
    /// The range must stay reserved for guest memory (its pages mapped or `PROT_NONE`) while the view is used,
    /// and [`crate::fault::install`] must have been called.
    pub const unsafe fn new(base: u64, limit: u64) -> Mem {
        Mem { base, limit }
    }
    /// Host address of guest address 0.
    pub const fn base(&self) -> u64 {
        self.base
    }
    /// Size of the guest address space.
    pub const fn limit(&self) -> u64 {
        self.limit
    }
    #[inline(always)]
    fn host(&self, addr: u64, len: u64, write: bool) -> Result<u64, Fault> {
        if len <= self.limit && addr <= self.limit - len { Ok(self.base + addr) } else { Err(Fault { addr, write }) }
    }
    /// Read `size` (1, 2, 4, 8) bytes, zero-extended.
    #[inline(always)]
    pub fn load(&self, addr: u64, size: u64) -> Result<u64, Fault> {
        let p = self.host(addr, size, false)?;
        let mut err: u32 = 0;
        let v: u64;
        // SAFETY: p is in the guest range (checked by `host`); see the module's paragraph.
        unsafe {
            match size {
                1 => {
                    guarded!("movzx {v:e}, byte ptr [{p}]", p = in(reg) p, v = out(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
                2 => {
                    guarded!("movzx {v:e}, word ptr [{p}]", p = in(reg) p, v = out(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
                4 => {
                    guarded!("mov {v:e}, dword ptr [{p}]", p = in(reg) p, v = out(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
                _ => {
                    guarded!("mov {v}, qword ptr [{p}]", p = in(reg) p, v = out(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
            }
        }
        if err == 0 { Ok(v) } else { Err(self.first_bad(addr, size, false)) }
    }
    /// Write the low `size` (1, 2, 4, 8) bytes of `v`.
    #[inline(always)]
    pub fn store(&self, addr: u64, size: u64, v: u64) -> Result<(), Fault> {
        let p = self.host(addr, size, true)?;
        let mut err: u32 = 0;
        // SAFETY: as in `load`.
        unsafe {
            match size {
                1 => {
                    guarded!("mov byte ptr [{p}], {v}", p = in(reg) p, v = in(reg_byte) v as u8, err = inout(reg) err, options(nostack, preserves_flags))
                }
                2 => {
                    guarded!("mov word ptr [{p}], {v:x}", p = in(reg) p, v = in(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
                4 => {
                    guarded!("mov dword ptr [{p}], {v:e}", p = in(reg) p, v = in(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
                _ => {
                    guarded!("mov qword ptr [{p}], {v}", p = in(reg) p, v = in(reg) v, err = inout(reg) err, options(nostack, preserves_flags))
                }
            }
        }
        if err == 0 { Ok(()) } else { Err(self.first_bad(addr, size, true)) }
    }
    /// Read 16 bytes.
    #[inline(always)]
    pub fn load128(&self, addr: u64) -> Result<u128, Fault> {
        let p = self.host(addr, 16, false)?;
        let mut err: u32 = 0;
        let x: std::arch::x86_64::__m128i;
        // SAFETY: as in `load`; __m128i and u128 have the same size and no invalid values.
        unsafe {
            guarded!("movdqu {x}, xmmword ptr [{p}]", p = in(reg) p, x = out(xmm_reg) x, err = inout(reg) err, options(nostack, preserves_flags));
            if err == 0 {
                Ok(std::mem::transmute::<std::arch::x86_64::__m128i, u128>(x))
            } else {
                Err(self.first_bad(addr, 16, false))
            }
        }
    }
    /// Write 16 bytes.
    #[inline(always)]
    pub fn store128(&self, addr: u64, v: u128) -> Result<(), Fault> {
        let p = self.host(addr, 16, true)?;
        let mut err: u32 = 0;
        // SAFETY: as in `load128`.
        unsafe {
            let x: std::arch::x86_64::__m128i = std::mem::transmute(v);
            guarded!("movdqu xmmword ptr [{p}], {x}", p = in(reg) p, x = in(xmm_reg) x, err = inout(reg) err, options(nostack, preserves_flags));
        }
        if err == 0 { Ok(()) } else { Err(self.first_bad(addr, 16, true)) }
    }
    /// The fault of an access that failed: at its start, or where it crosses into a page if only that is not there.
    #[cold]
    #[inline(never)]
    fn first_bad(&self, addr: u64, size: u64, write: bool) -> Fault {
        let last = addr + (size - 1);
        let page = last & !(crate::PAGE - 1);
        if page > addr {
            // An atomic or with 0 asks for what a write asks for, and writes what is there.
            let first = if write { self.fetch_or(addr, 1, 0) } else { self.load(addr, 1) };
            if first.is_ok() {
                return Fault { addr: page, write };
            }
        }
        Fault { addr, write }
    }
    /// Compare and swap of `size` (1, 2, 4, 8) bytes; gives the old value, zero-extended.
    #[inline]
    pub fn cas(&self, addr: u64, size: u64, expected: u64, new: u64) -> Result<u64, Fault> {
        let p = self.host(addr, size, true)?;
        let mut err: u32 = 0;
        let mut old = expected;
        // SAFETY: as in `load`.
        unsafe {
            match size {
                1 => {
                    guarded!("lock cmpxchg byte ptr [{p}], {n}", p = in(reg) p, n = in(reg_byte) new as u8, inout("rax") old, err = inout(reg) err, options(nostack))
                }
                2 => {
                    guarded!("lock cmpxchg word ptr [{p}], {n:x}", p = in(reg) p, n = in(reg) new, inout("rax") old, err = inout(reg) err, options(nostack))
                }
                4 => {
                    guarded!("lock cmpxchg dword ptr [{p}], {n:e}", p = in(reg) p, n = in(reg) new, inout("rax") old, err = inout(reg) err, options(nostack))
                }
                _ => {
                    guarded!("lock cmpxchg qword ptr [{p}], {n}", p = in(reg) p, n = in(reg) new, inout("rax") old, err = inout(reg) err, options(nostack))
                }
            }
        }
        let mask = u64::MAX >> (64 - 8 * size);
        if err == 0 {
            Ok(old & mask)
        } else {
            Err(if size == 1 { Fault { addr, write: true } } else { self.first_bad(addr, size, true) })
        }
    }
    /// Compare and swap of 16 bytes at a 16-byte aligned address (an unaligned one is a fault).
    pub fn cas128(&self, addr: u64, expected: u128, new: u128) -> Result<u128, Fault> {
        let p = self.host(addr, 16, true)?;
        if addr & 15 != 0 {
            return Err(Fault { addr, write: true });
        }
        let mut err: u32 = 0;
        let (mut lo, mut hi) = (expected as u64, (expected >> 64) as u64);
        // SAFETY: as in `load`; rbx is saved and restored around its use, also on the fault path, which
        // resumes at label 3. The other operands have registers by name: any that were left to the compiler could
        // be rbx itself.
        unsafe {
            asm!(
                "xchg rbx, r8",
                "2: lock cmpxchg16b xmmword ptr [rdi]",
                "3: xchg rbx, r8",
                ".pushsection evm_extable,\"aR\",@progbits",
                ".balign 4",
                ".long 2b - .",
                ".long 4f - .",
                ".popsection",
                ".pushsection .text.evm_fixup,\"ax\",@progbits",
                "4: mov r9d, 1",
                "jmp 3b",
                ".popsection",
                in("rdi") p, inout("r8") new as u64 => _, in("rcx") (new >> 64) as u64,
                inout("rax") lo, inout("rdx") hi, inout("r9d") err, options(nostack)
            );
        }
        if err == 0 { Ok(u128::from(lo) | u128::from(hi) << 64) } else { Err(Fault { addr, write: true }) }
    }
    /// Copy guest bytes out. On a fault some bytes may have been copied.
    pub fn copy_out(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let p = self.host(addr, buf.len() as u64, false)?;
        // SAFETY: the destination is the whole of `buf`; the source is in the guest range.
        let left = unsafe { copy(buf.as_mut_ptr() as u64, p, buf.len() as u64) };
        if left == 0 { Ok(()) } else { Err(Fault { addr: addr + buf.len() as u64 - left, write: false }) }
    }
    /// Copy bytes into guest memory. On a fault some bytes may have been copied.
    pub fn copy_in(&self, addr: u64, buf: &[u8]) -> Result<(), Fault> {
        let p = self.host(addr, buf.len() as u64, true)?;
        // SAFETY: the source is the whole of `buf`; the destination is in the guest range.
        let left = unsafe { copy(p, buf.as_ptr() as u64, buf.len() as u64) };
        if left == 0 { Ok(()) } else { Err(Fault { addr: addr + buf.len() as u64 - left, write: true }) }
    }
    /// Copy guest bytes to `len` bytes of the host at `to`. On a fault of either side some bytes may have been copied.
    ///
    /// # Safety
    /// Host memory, if there is any, that others have no references to.
    pub unsafe fn copy_out_to(&self, addr: u64, to: u64, len: u64) -> Result<(), Fault> {
        let p = self.host(addr, len, false)?;
        // SAFETY: the source is in the guest range, the destination by the contract nobody's.
        let left = unsafe { copy(to, p, len) };
        if left == 0 { Ok(()) } else { Err(Fault { addr: addr + len - left, write: false }) }
    }
    /// Copy `len` bytes of the host at `from` into guest memory. On a fault of either side some bytes may have been copied.
    ///
    /// # Safety
    /// As of [`Mem::copy_out_to`].
    pub unsafe fn copy_in_from(&self, addr: u64, from: u64, len: u64) -> Result<(), Fault> {
        let p = self.host(addr, len, true)?;
        // SAFETY: as above.
        let left = unsafe { copy(p, from, len) };
        if left == 0 { Ok(()) } else { Err(Fault { addr: addr + len - left, write: true }) }
    }
    /// Fill guest memory with a byte.
    pub fn fill(&self, addr: u64, len: u64, byte: u8) -> Result<(), Fault> {
        let p = self.host(addr, len, true)?;
        let mut err: u32 = 0;
        let left: u64;
        // SAFETY: [p, p+len) is in the guest range.
        unsafe {
            guarded!("rep stosb", inout("rdi") p => _, inout("rcx") len => left, in("al") byte,
                err = inout(reg) err, options(nostack, preserves_flags));
        }
        if err == 0 { Ok(()) } else { Err(Fault { addr: addr + len - left, write: true }) }
    }
}

/// `rep movsb`; gives the number of bytes not copied because of a fault.
///
/// # Safety
/// Each of the two ranges is either in a guest range, or a live Rust buffer that the caller owns, or memory that nobody has references to.
unsafe fn copy(dst: u64, src: u64, len: u64) -> u64 {
    let mut err: u32 = 0;
    let left: u64;
    // SAFETY: by the contract above; a fault in a guest range ends the copy with rcx = what is left.
    unsafe {
        guarded!("rep movsb", inout("rdi") dst => _, inout("rsi") src => _, inout("rcx") len => left,
            err = inout(reg) err, options(nostack, preserves_flags));
    }
    let _ = err;
    left
}
