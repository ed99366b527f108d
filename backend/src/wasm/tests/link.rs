//! Linking with a small runtime.

use super::super::abi::{FUNCTION_LIST, HELPER_LIST, Import, LIFTED, NOWHERE};
use super::super::helper_signature;
use super::super::link::{Blob, LinkError, link};
use super::*;
use crate::cranelift::tests::{finish, r, start};
use evm_ir::{Term, Type};
use wasm_encoder::ValType::{I32, I64};
use wasm_encoder::*;

/// Elements of a runtime's table before its functions.
const FREE: u32 = 3;

/// A module with what a runtime has, but for an export; `run (index, cpu, pc)` runs a function of the table. Services give what they are to go on at.
fn runtime(without: &str) -> Vec<u8> {
    let mut types = TypeSection::new();
    let mut functions = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    let mut add =
        |name: &str, (params, results): (Vec<ValType>, Vec<ValType>), body: &dyn Fn(&mut InstructionSink<'_>)| {
            types.ty().function(params, results);
            let n = functions.len();
            functions.function(n);
            if name == "run" {
                exports.export(name, ExportKind::Func, n);
            }
            let mut f = Function::new([]);
            body(&mut f.instructions());
            f.instructions().end();
            code.function(&f);
        };
    let region = (vec![I32, I64], vec![I64]);
    for i in Import::ALL {
        add(i.name(), i.signature(), &move |s| {
            match i {
                Import::Access => s.i32_const(0),
                Import::Service => s.local_get(3),
                Import::Call | Import::Resume | Import::Raise => s.local_get(1),
            };
        });
    }
    add(NOWHERE, region, &|s| {
        s.local_get(1);
    });
    let h = HELPERS[1];
    add(h.name, helper_signature(&h), &|s| {
        s.local_get(1).i64_const(100).i64_add();
    });
    add("run", (vec![I32, I32, I64], vec![I64]), &|s| {
        s.local_get(1).local_get(2).local_get(0).call_indirect(0, 5);
    });
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("table", ExportKind::Table, 0);
    for (n, name) in [LIFTED, FUNCTION_LIST, HELPER_LIST].into_iter().enumerate().filter(|n| n.1 != without) {
        exports.export(name, ExportKind::Global, n as u32);
    }
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: u64::from(FREE) + 7,
        maximum: Some(u64::from(FREE) + 7),
        shared: false,
    });
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 33, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut globals = GlobalSection::new();
    let ty = GlobalType { val_type: I32, mutable: false, shared: false };
    for at in [64, 96, 128] {
        globals.global(ty, &ConstExpr::i32_const(at));
    }
    let mut elements = ElementSection::new();
    elements.active(None, &ConstExpr::i32_const(FREE as i32), Elements::Functions((0..7).collect::<Vec<u32>>().into()));
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(64), [0u8; 16]);
    let list = |n: std::ops::Range<u32>| n.flat_map(|n| (FREE + n).to_le_bytes()).collect::<Vec<u8>>();
    data.active(0, &ConstExpr::i32_const(96), list(0..6));
    // Of helpers the second is there.
    data.active(0, &ConstExpr::i32_const(132), list(6..7));
    let mut m = wasm_encoder::Module::new();
    m.section(&types).section(&functions).section(&tables).section(&memories).section(&globals);
    m.section(&exports).section(&elements).section(&DataCountSection { count: 3 }).section(&code).section(&data);
    m.finish()
}

/// A region that calls another one of the module, asks for a service and a helper.
fn lifted() -> super::super::Module {
    let mut b = start(0x1000);
    let t = b.iconst(Type::I64, 0x3000);
    let back = b.block(0x1010, true);
    b.term(Term::Call { target: t, ret: 0x1010, cont: Some(back) });
    b.switch_to(back);
    b.marker(0x1010);
    let x = b.get(r(0));
    let x = b.call(1, &[x]);
    b.put(r(0), x);
    let next = b.block(0x1020, true);
    b.term(Term::Service { code: 0, pc: 0x1010, next: 0x1020, cont: Some(next) });
    b.switch_to(next);
    finish(&mut b, 0x9000);
    let caller = b.region;
    let mut b = start(0x3000);
    let x = b.iconst(Type::I64, 7);
    b.put(r(0), x);
    finish(&mut b, 0x1010);
    let settings = Settings::new(ABI);
    let mut m = super::super::Module::new(settings, &HELPERS);
    for (pc, r) in [(0x1000, caller), (0x3000, b.region)] {
        let mut r = stripped(&r);
        prepare(&mut r);
        m.add(pc, compile(&r, &settings, &|_| Link::Direct).unwrap());
    }
    m
}

#[test]
fn linked() {
    let blob = Blob { name: *b"files\0\0\0", bytes: vec![0x5a; 70_000] };
    let mut lifted = lifted();
    lifted.add_entry(0x1010, 0x1000);
    let bytes = link(&runtime(""), &lifted, &[blob]).unwrap();
    validate(&bytes, &Settings::new(ABI)).unwrap();
    let engine = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&engine, &bytes).unwrap();
    assert_eq!(module.imports().len(), 0);
    assert!(module.exports().all(|e| !e.name().starts_with("evm_")));
    let mut store = Store::new(&engine, ());
    let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    let word =
        |store: &Store<()>, at: usize| u32::from_le_bytes(memory.data(store)[at..at + 4].try_into().unwrap()) as usize;
    let [count, list, blobs, blob_list] = [0, 4, 8, 12].map(|n| word(&store, 64 + n));
    assert_eq!((count, blobs), (3, 1));
    let entries: Vec<(usize, usize)> =
        (0..count).map(|n| (word(&store, list + 16 * n), word(&store, list + 16 * n + 8))).collect();
    assert_eq!(entries, [(0x1000, 10), (0x1010, 10), (0x3000, 11)]);
    let (at, len) = (word(&store, blob_list + 8), word(&store, blob_list + 12));
    assert_eq!((len, at % 4096), (70_000, 0));
    assert!(memory.data(&store)[at..at + len].iter().all(|b| *b == 0x5a));
    // Run it.
    let depth = STATE + ABI.depth as usize;
    memory.write(&mut store, depth, &(1u64 << 16).to_le_bytes()).unwrap();
    let run = instance.get_typed_func::<(u32, u32, u64), u64>(&mut store, "run").unwrap();
    assert_eq!(run.call(&mut store, (10, STATE as u32, 0x1000)).unwrap(), 0x9000);
    assert_eq!(word(&store, STATE), 107);
    // Element 0 gives back what it is asked for.
    assert_eq!(run.call(&mut store, (0, STATE as u32, 0x1234)).unwrap(), 0x1234);
}

#[test]
fn missing() {
    let gone = |name: &str| match link(&runtime(name), &lifted(), &[]) {
        Err(LinkError::Missing(n)) => n == name,
        e => panic!("{e:?}"),
    };
    assert!(gone(FUNCTION_LIST) && gone(HELPER_LIST) && gone(LIFTED));
    assert!(matches!(link(b"\0asm", &lifted(), &[]), Err(LinkError::Read(_))));
}
