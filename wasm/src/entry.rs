//! What lifted functions call, and how they are called: the runtime's side of `evm_backend::wasm::abi`, whose terms are used here.
//!
//! The linker finds the functions here, and helpers, by lists of their numbers in the table, which are exported data. (Exported functions of a
//! command are wrapped by wasm-ld in ones that start the C library anew at each call.)
//!
//! # Safety
//! Lifted functions are as the linker made them. They are called with the state of the one thread, of which no reference is live, and call these
//! functions with it and everything in its slots.
#![allow(unsafe_code)]

use crate::thread::{self, Until};
use evm_cpu::{CpuState, helpers};
use evm_fpu::sse;

/// All helpers, in the IR's order.
#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
pub static evm_helpers: [unsafe extern "C" fn(); helpers::FNS.len()] = {
    let mut all = [helpers::FNS[0].erased(); helpers::FNS.len()];
    let mut n = 0;
    while n < all.len() {
        all[n] = helpers::FNS[n].erased();
        n += 1;
    }
    all
};

/// The functions here, in the order of `Import` and `NOWHERE` behind them.
#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
pub static evm_functions: [unsafe extern "C" fn(); 6] = {
    // SAFETY: function pointers are alike in size; lifted code calls each by its type.
    unsafe {
        [
            std::mem::transmute::<unsafe extern "C" fn(*mut CpuState, u64, u64) -> u64, unsafe extern "C" fn()>(call),
            std::mem::transmute::<unsafe extern "C" fn(*mut CpuState, u64, u64) -> u64, unsafe extern "C" fn()>(resume),
            std::mem::transmute::<unsafe extern "C" fn(*mut CpuState, u64, u64, u64) -> u64, unsafe extern "C" fn()>(
                service,
            ),
            std::mem::transmute::<unsafe extern "C" fn(*mut CpuState, u64, u64, u64) -> u64, unsafe extern "C" fn()>(
                raise,
            ),
            std::mem::transmute::<unsafe extern "C" fn(*mut CpuState, u64, u64, i32) -> i32, unsafe extern "C" fn()>(
                access,
            ),
            std::mem::transmute::<unsafe extern "C" fn(*mut CpuState, u64) -> u64, unsafe extern "C" fn()>(nowhere),
        ]
    }
};

/// MXCSR as the state has it becomes the virtual one: compiled code notes flags in the state alone.
fn leave(cpu: *mut CpuState) {
    // SAFETY: see the module.
    unsafe {
        let v = sse::mxcsr() | (*cpu).mxcsr & 0x3f;
        sse::set_mxcsr(v);
        (*cpu).mxcsr = v;
    }
}
/// The other way.
fn back(cpu: *mut CpuState) {
    // SAFETY: see the module.
    unsafe { (*cpu).mxcsr = sse::mxcsr() };
}

/// Run the function with this number; gives the next pc, or [`thread::LEAVE`].
///
/// # Safety
/// See the module.
pub unsafe fn enter(index: u32, cpu: *mut CpuState, pc: u64) -> u64 {
    back(cpu);
    // SAFETY: a number of the linker's list, whose functions have this type.
    let next = unsafe {
        let f = std::mem::transmute::<usize, unsafe extern "C" fn(*mut CpuState, u64) -> u64>(index as usize);
        f(cpu, pc)
    };
    leave(cpu);
    next
}

fn outside(cpu: *mut CpuState, f: impl FnOnce() -> u64) -> u64 {
    leave(cpu);
    let next = f();
    back(cpu);
    next
}

/// See `NOWHERE`.
unsafe extern "C" fn nowhere(_: *mut CpuState, pc: u64) -> u64 {
    pc
}
/// See `Import::Call`.
unsafe extern "C" fn call(cpu: *mut CpuState, target: u64, ret: u64) -> u64 {
    // SAFETY: see the module.
    outside(cpu, || unsafe {
        let rsp = (*cpu).gpr[4];
        thread::nested(cpu, target, Until { ret, rsp })
    })
}
/// See `Import::Resume`.
unsafe extern "C" fn resume(cpu: *mut CpuState, next: u64, ret: u64) -> u64 {
    // SAFETY: see the module.
    outside(cpu, || unsafe { thread::nested(cpu, next, Until { ret, rsp: u64::MAX }) })
}
/// See `Import::Service`.
unsafe extern "C" fn service(cpu: *mut CpuState, code: u64, pc: u64, next: u64) -> u64 {
    // SAFETY: see the module.
    outside(cpu, || unsafe { (*thread::owner(cpu)).service(code as u32, pc, next) })
}
/// See `Import::Raise`.
unsafe extern "C" fn raise(cpu: *mut CpuState, code: u64, arg: u64, pc: u64) -> u64 {
    // SAFETY: see the module.
    outside(cpu, || unsafe { (*thread::owner(cpu)).raise_at(pc, code as u32, arg) })
}
/// See `Import::Access`.
unsafe extern "C" fn access(cpu: *mut CpuState, addr: u64, len: u64, write: i32) -> i32 {
    let want = if write != 0 { evm_memory::WRITE } else { evm_memory::READ };
    // SAFETY: see the module.
    i32::from(unsafe { (*cpu).mem() }.allows(addr, len, want))
}
