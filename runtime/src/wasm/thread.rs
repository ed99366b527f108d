//! A guest thread's part of the engine: its store, its copy of the state, and the way in and out.
//!
//! # Safety
//! As in [`crate::thread`]: a `Thread` belongs to one host thread and is reached by raw pointer; references to it end before compiled
//! code runs. `context` is the innermost host call's view of the store while one is active, and null otherwise.
#![allow(unsafe_code)]

use super::front::Front;
use super::{SETTINGS, WORDS, WasmEngine};
use crate::code::space::CodeSpace;
use crate::host::mxcsr::{mxcsr, set_mxcsr};
use crate::thread::{self, LEAVE, Thread};
use evm_backend::wasm::abi::{ENV, HELPERS, Import, MODULE};
use evm_backend::wasm::helper_signature;
use evm_cpu::{CpuState, helpers};
use std::collections::HashMap;
use std::mem::{MaybeUninit, offset_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::{AsContextMut, Caller, FuncType, Linker, Ref, Store, TypedFunc, ValRaw, ValType};

/// Bytes of stack that regions may take, as they count them. What they count is about half of what they take.
const BUDGET: u64 = super::STACK as u64 / 4;

struct Data {
    thread: *mut Thread,
}

type Region = TypedFunc<(u32, u64), u64>;
type Host = fn(Caller<'_, Data>, &mut [MaybeUninit<ValRaw>]);

/// See the module.
pub(crate) struct WasmThread {
    shared: Arc<WasmEngine>,
    store: Store<Data>,
    linker: Linker<Data>,
    table: wasmtime::Table,
    /// By what stands for the module.
    regions: HashMap<u64, Region>,
    space: Arc<CodeSpace>,
    /// Address of the copy of the state in linear memory, and on the host.
    at: u32,
    copy: *mut CpuState,
    context: *mut Caller<'static, Data>,
    generation: u64,
}

impl Drop for WasmThread {
    fn drop(&mut self) {
        if let Some(f) = &self.space.front {
            f.give_state(self.at);
        }
    }
}

fn text(e: wasmtime::Error) -> String {
    format!("wasmtime: {e:?}")
}

impl WasmThread {
    /// For a thread of this address space.
    fn new(shared: Arc<WasmEngine>, space: Arc<CodeSpace>, thread: *mut Thread) -> Result<WasmThread, String> {
        let front = space.front.as_ref().ok_or("the address space has no linear memory")?;
        let at = front.take_state().ok_or("too many threads")?;
        let copy = front.state(at);
        let mut store = Store::new(&shared.engine, Data { thread });
        let of = &shared.memory;
        let memory = front.with_memory(|| wasmtime::Instance::new(&mut store, of, &[])).map_err(text)?;
        let memory = memory.get_memory(&mut store, "memory").ok_or("a memory without a name")?;
        if memory.data_ptr(&store) as u64 != front.start() {
            return Err("another memory than was asked for".into());
        }
        let nowhere = wasmtime::Func::wrap(&mut store, |_: u32, pc: u64| pc);
        let ty = wasmtime::TableType::new(wasmtime::RefType::FUNCREF, 1 << 10, None);
        let table = wasmtime::Table::new(&mut store, ty, Ref::Func(Some(nowhere))).map_err(text)?;
        let mut linker = Linker::new(&shared.engine);
        linker.define(&store, ENV, "memory", memory).map_err(text)?;
        linker.define(&store, ENV, "table", table).map_err(text)?;
        imports(&mut linker).map_err(text)?;
        Ok(WasmThread {
            shared,
            store,
            linker,
            table,
            regions: HashMap::new(),
            at,
            copy,
            context: std::ptr::null_mut(),
            generation: space.generation.load(Ordering::Acquire),
            space,
        })
    }

    /// The function of a module; puts it into the table of functions where code looks for it.
    fn region(&mut self, id: u64, pc: u64) -> Result<Region, String> {
        if let Some(f) = self.regions.get(&id) {
            return Ok(f.clone());
        }
        let module = self.shared.module(id).ok_or("no such module")?;
        let (linker, table) = (&self.linker, self.table);
        let name = format!("r{pc:x}");
        // SAFETY: see the module's paragraph; the context is that of this thread's store.
        let f = unsafe {
            if self.context.is_null() {
                instantiate(&mut self.store, linker, table, &module, &name, id)
            } else {
                instantiate(&mut *self.context, linker, table, &module, &name, id)
            }
        };
        let f = f.map_err(text)?;
        self.regions.insert(id, f.clone());
        Ok(f)
    }

    /// Bring the copy up to date, before compiled code runs.
    fn copy_in(&mut self, state: *mut CpuState) {
        // SAFETY: both are states of this thread. `poll` is set by others, here after there: whichever way the two
        // meet, it is set at the end.
        unsafe {
            std::ptr::copy_nonoverlapping(state.cast::<u8>(), self.copy.cast::<u8>(), WORDS as usize);
            (*self.copy).mxcsr = mxcsr();
            if AtomicU64::from_ptr(&raw mut (*state).poll).load(Ordering::SeqCst) != 0 {
                AtomicU64::from_ptr(&raw mut (*self.copy).poll).store(1, Ordering::SeqCst);
            }
        }
        set_mxcsr(0x1f80);
    }
    /// Bring the state up to date, after compiled code ran: all but the words that others write.
    fn copy_out(&mut self, state: *mut CpuState) {
        const PARTS: [(usize, usize); 3] = [
            (offset_of!(CpuState, gpr), offset_of!(CpuState, mem_base)),
            (offset_of!(CpuState, pending), offset_of!(CpuState, host_sp)),
            (offset_of!(CpuState, model), offset_of!(CpuState, scratch)),
        ];
        // SAFETY: both are states of this thread.
        unsafe {
            for (from, to) in PARTS {
                let (s, d) = (self.copy.cast::<u8>().add(from), state.cast::<u8>().add(from));
                std::ptr::copy_nonoverlapping(s, d, to - from);
            }
            set_mxcsr((*self.copy).mxcsr);
        }
    }
}

fn instantiate(
    mut store: impl AsContextMut<Data = Data>,
    linker: &Linker<Data>,
    table: wasmtime::Table,
    module: &wasmtime::Module,
    name: &str,
    index: u64,
) -> wasmtime::Result<Region> {
    let instance = linker.instantiate(&mut store, module)?;
    let f = instance.get_typed_func::<(u32, u64), u64>(&mut store, name)?;
    let size = table.size(&store);
    if index >= size {
        // Unused elements are element 0, which gives back what it is asked for.
        let nowhere = table.get(&mut store, 0).ok_or_else(|| wasmtime::format_err!("an empty table"))?;
        table.grow(&mut store, (index + 1).next_power_of_two() - size, nowhere)?;
    }
    table.set(&mut store, index, Ref::Func(Some(*f.func())))?;
    Ok(f)
}

/// Run on at `pc` until compiled code is left; gives the next pc, or [`LEAVE`]. `None`: there is no code.
///
/// # Safety
/// `t` is the calling thread's record and no reference to it is live.
pub(crate) unsafe fn run_region(t: *mut Thread, pc: u64) -> Option<u64> {
    // SAFETY: one step each with a reference that ends before compiled code runs.
    unsafe {
        let (region, w): (Region, *mut WasmThread) = {
            let th = &mut *t;
            let id = th.wasm_code(pc)?;
            let w = match th.wasm.as_deref_mut() {
                Some(w) => w,
                None => {
                    let made = th.wasm_engine().and_then(|e| WasmThread::new(e, th.space(), t));
                    match made {
                        Ok(w) => th.wasm.insert(Box::new(w)),
                        Err(e) => return Some(th.broken(pc, e)),
                    }
                }
            };
            let now = w.space.generation.load(Ordering::Acquire);
            if let Some(front) = &w.space.front {
                if now != w.generation {
                    w.generation = now;
                    front.forget();
                }
                front.remember(pc, id as u32);
            }
            match w.region(id, pc) {
                Ok(f) => (f, &raw mut *w),
                Err(e) => return Some(th.broken(pc, e)),
            }
        };
        let state = (*t).cpu;
        let outermost = (*w).context.is_null();
        if outermost {
            (*state).depth = BUDGET;
        }
        (*state).mirror = (*w).copy as u64;
        (*w).copy_in(state);
        let copy = (*w).copy;
        let [base, perms, ibtc] = Front::addresses();
        (*copy).scratch[0] = u128::from(super::ARENA) << 64 | u128::from(base);
        (*copy).scratch[1] = u128::from(ibtc) << 64 | u128::from(perms);
        let args = ((*w).at, pc);
        let r = if outermost { region.call(&mut (*w).store, args) } else { region.call(&mut *(*w).context, args) };
        (*w).copy_out(state);
        (*state).x87_settle();
        match r {
            Ok(next) => Some(next),
            Err(e) => Some((*t).broken(pc, text(e))),
        }
    }
}

/// Do something in Rust with an exact state in the middle of compiled code.
fn outside(mut c: Caller<'_, Data>, f: impl FnOnce(*mut CpuState) -> u64) -> u64 {
    let t = c.data().thread;
    // SAFETY: the store's thread is the one that runs, and its record lives; references are made for one step each. The
    // caller is alive until this function returns, and the context is put back before.
    unsafe {
        let (w, state): (*mut WasmThread, _) = match (*t).wasm.as_deref_mut() {
            Some(w) => (w, (*t).cpu),
            None => return LEAVE,
        };
        (*w).copy_out(state);
        (*state).x87_settle();
        let inner = (&raw mut c).cast::<Caller<'static, Data>>();
        let before = std::mem::replace(&mut (*w).context, inner);
        let r = f(state);
        (*w).context = before;
        (*w).copy_in(state);
        r
    }
}

/// An argument.
fn arg(a: &[MaybeUninit<ValRaw>], n: usize) -> u64 {
    // SAFETY: wasmtime fills in all arguments; this one is an i64 or i32 in a signature below.
    unsafe { a[n].assume_init_ref().get_u64() }
}

fn import(i: Import) -> Host {
    match i {
        Import::Call => |c, a| {
            let (target, ret) = (arg(a, 1), arg(a, 2));
            // SAFETY: called by compiled code of this thread, with everything spilled.
            a[0].write(ValRaw::u64(outside(c, |s| unsafe { thread::fn_call(s, target, ret) })));
        },
        Import::Resume => |c, a| {
            let (next, ret) = (arg(a, 1), arg(a, 2));
            // SAFETY: as above.
            a[0].write(ValRaw::u64(outside(c, |s| unsafe { thread::fn_resume(s, next, ret) })));
        },
        Import::Service => |c, a| {
            let (code, pc, next) = (arg(a, 1), arg(a, 2), arg(a, 3));
            // SAFETY: as above.
            a[0].write(ValRaw::u64(outside(c, |s| unsafe { thread::fn_service(s, code as u32, pc, next) })));
        },
        Import::Raise => |c, a| {
            let (code, what, pc) = (arg(a, 1), arg(a, 2), arg(a, 3));
            // SAFETY: as above.
            a[0].write(ValRaw::u64(outside(c, |s| unsafe { thread::fn_raise(s, code as u32, what, pc) })));
        },
        Import::Access => |c, a| {
            let (addr, len, write) = (arg(a, 1), arg(a, 2), arg(a, 3) as u32 != 0);
            // SAFETY: as in `outside`.
            let space = unsafe { (*c.data().thread).space() };
            let ok = space.arena.perms().is_some_and(|p| p.allows(addr, len, write));
            a[0].write(ValRaw::u32(u32::from(ok)));
        },
    }
}

fn imports(l: &mut Linker<Data>) -> wasmtime::Result<()> {
    let engine = l.engine().clone();
    let list = |t: &[evm_backend::wasm::ValType]| t.iter().map(|t| val_type(*t)).collect::<Vec<_>>();
    for i in Import::ALL {
        let (params, results) = i.signature();
        let f = import(i);
        let ty = FuncType::new(&engine, list(&params), list(&results));
        // SAFETY: the function has this signature.
        unsafe {
            l.func_new_unchecked(MODULE, i.name(), ty, move |c, a| {
                f(c, a);
                Ok(())
            })?;
        }
    }
    for (h, f) in helpers::SIGS.iter().zip(&helpers::FNS) {
        let (params, results) = helper_signature(h);
        let ty = FuncType::new(&engine, list(&params), list(&results));
        let (ints, vecs) = (usize::from(h.ints), usize::from(h.vecs));
        let wide = h.ret.map(|t| t == evm_ir::Type::V128);
        // SAFETY: the arguments are those of the signature; the helper works on the copy of the state, which nobody borrows.
        unsafe {
            l.func_new_unchecked(HELPERS, h.name, ty, move |c, a| {
                let (mut i, mut v) = ([0; 4], [0; 3]);
                for n in 0..ints {
                    i[n] = arg(a, 1 + n);
                }
                for n in 0..vecs {
                    v[n] = a[1 + ints + n].assume_init_ref().get_v128();
                }
                let Some(w) = (*c.data().thread).wasm.as_deref_mut() else { return Ok(()) };
                let copy = w.copy;
                set_mxcsr((*copy).mxcsr);
                let r = f.call(copy.cast(), &i, &v);
                (*copy).mxcsr = mxcsr();
                set_mxcsr(0x1f80);
                match wide {
                    Some(true) => drop(a[0].write(ValRaw::v128(r))),
                    Some(false) => drop(a[0].write(ValRaw::u64(r as u64))),
                    None => {}
                }
                Ok(())
            })?;
        }
    }
    const { assert!(SETTINGS.atomics) };
    Ok(())
}

fn val_type(t: evm_backend::wasm::ValType) -> ValType {
    use evm_backend::wasm::ValType as T;
    match t {
        T::I32 => ValType::I32,
        T::I64 => ValType::I64,
        T::F32 => ValType::F32,
        T::F64 => ValType::F64,
        _ => ValType::V128,
    }
}
