//! Operations without a template: the interpreter's function for them, called with operands in memory.
//!
//! # Safety
//! The entries below are called from emitted code only, with a function of the type that their first
//! parameter names and pointers to slots or cells of the running thread's state, which hold what the
//! types say (every bit pattern is valid).
#![allow(unsafe_code)]

use super::lower::Lower;
use crate::abi::RuntimeFn;
use crate::asm::{R8, R9, RAX, RCX, RDI, RDX, RSI, Rm};
use crate::interp::{scalar, vector};
use evm_ir::Inst;

/// Everything comes as pointers: (function, a, b, result, lane).
type Entry = unsafe extern "sysv64" fn(usize, *const u8, *const u8, *mut u8, u32);

macro_rules! entry {
    ($name:ident, $f:ty, $a:ty $(, $b:ty)? => $d:ty $(, |$lane:ident|)?) => {
        #[allow(unused_variables)]
        unsafe extern "sysv64" fn $name(f: usize, a: *const u8, b: *const u8, d: *mut u8, n: u32) {
            // SAFETY: see the module's paragraph.
            unsafe {
                let f = std::mem::transmute::<usize, $f>(f);
                $( let $lane = n; )?
                let r: $d = f(a.cast::<$a>().read_unaligned() $(, b.cast::<$b>().read_unaligned())? $(, $lane)?);
                d.cast::<$d>().write_unaligned(r);
            }
        }
    };
}
entry!(s1, scalar::Fn1, u64 => u64);
entry!(s2, scalar::Fn2, u64, u64 => u64);
entry!(v1, vector::Fn1, u128 => u128);
entry!(v2, vector::Fn2, u128, u128 => u128);
entry!(ins, vector::FnIns, u128, u64 => u128, |lane|);
entry!(ext, vector::FnExt, u128 => u64, |lane|);
entry!(splat, vector::FnSplat, u64 => u128);

/// What addresses of functions are told from.
pub(super) fn origin() -> u64 {
    s1 as *const () as u64
}

impl Lower<'_> {
    /// Distance of a function from [`origin`].
    fn distance(&mut self, f: usize) -> i32 {
        let d = i32::try_from((f as u64).wrapping_sub(origin()) as i64);
        // A program has less than 2 GiB of code.
        self.failed |= d.is_err();
        d.unwrap_or(0)
    }
    fn host(&mut self, i: &Inst, e: Entry, f: usize, lane: u32) {
        let a = self.in_memory(i.a);
        let b = if i.b.is_some() { self.in_memory(i.b) } else { a };
        self.empty_registers();
        self.unlock();
        let d = self.dst_in_memory(i.dst);
        for (r, o) in [(RSI, a), (RDX, b), (RCX, d)] {
            self.a.lea(8, r, Rm::Mem(RDI, o as i32));
        }
        self.a.imm(R8, u64::from(lane));
        let (e, f) = (self.distance(e as *const () as usize), self.distance(f));
        self.a.load(8, R9, Rm::Mem(RDI, self.abi.helpers as i32));
        self.a.load(8, R9, Rm::Mem(R9, RuntimeFn::Origin as u32 as i32 * 8));
        self.a.lea(8, RAX, Rm::Mem(R9, e));
        self.a.push(RDI);
        self.a.lea(8, RDI, Rm::Mem(R9, f));
        self.a.call(Rm::Reg(RAX));
        self.a.pop(RDI);
        self.pending(self.traps);
    }
    pub(super) fn host_s1(&mut self, i: &Inst, f: scalar::Fn1) {
        self.host(i, s1, f as usize, 0);
    }
    pub(super) fn host_s2(&mut self, i: &Inst, f: scalar::Fn2) {
        self.host(i, s2, f as usize, 0);
    }
    pub(super) fn host_v1(&mut self, i: &Inst, f: vector::Fn1) {
        self.host(i, v1, f as usize, 0);
    }
    pub(super) fn host_v2(&mut self, i: &Inst, f: vector::Fn2) {
        self.host(i, v2, f as usize, 0);
    }
    pub(super) fn host_insert(&mut self, i: &Inst, f: vector::FnIns, lane: u32) {
        self.host(i, ins, f as usize, lane);
    }
    pub(super) fn host_extract(&mut self, i: &Inst, f: vector::FnExt, lane: u32) {
        self.host(i, ext, f as usize, lane);
    }
    pub(super) fn host_splat(&mut self, i: &Inst, f: vector::FnSplat) {
        self.host(i, splat, f as usize, 0);
    }
}
