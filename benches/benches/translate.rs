//! What translation costs: steps of the quick tier on basic blocks, and Cranelift on regions. A unit is 1,000
//! basic blocks of this program, and 20 regions.

#![allow(missing_docs)] // of what `criterion_group` makes

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evm_backend::cranelift::{CompileOptions, Compiler, CompilerSettings};
use evm_backend::quick::Quick;
use evm_benches::{ABI, Text};
use evm_ir::passes::{OptLevel, optimize};
use evm_lifter::Mode;
use std::hint::black_box;

fn blocks(c: &mut Criterion) {
    let text = Text::own();
    let at = text.blocks(1000);
    let lifted: Vec<_> = at.iter().map(|a| text.lift(*a, Mode::Block)).collect();
    let mut done = lifted.clone();
    done.iter_mut().for_each(|r| optimize(r, OptLevel::Interp));
    let mut g = c.benchmark_group("block");
    g.throughput(Throughput::Elements(at.len() as u64));
    g.bench_function("lift", |b| b.iter(|| at.iter().for_each(|a| drop(black_box(text.lift(*a, Mode::Block))))));
    g.bench_function("optimize", |b| {
        b.iter_batched(
            || lifted.clone(),
            |mut all| all.iter_mut().for_each(|r| optimize(r, OptLevel::Interp)),
            criterion::BatchSize::LargeInput,
        )
    });
    g.bench_function("validate", |b| b.iter(|| done.iter().for_each(|r| evm_ir::validate(r).expect("valid"))));
    g.bench_function("quick", |b| {
        let mut q = Quick::default();
        b.iter(|| {
            for r in &done {
                let _ = black_box(q.compile(r, &ABI, 1024, &mut |pc| (pc & 0xffff) as u32));
            }
        })
    });
    g.bench_function("prepare", |b| {
        b.iter(|| done.iter().for_each(|r| drop(black_box(evm_backend::interp::prepare(r, &ABI)))))
    });
    g.finish();
}

fn regions(c: &mut Criterion) {
    let text = Text::own();
    let at: Vec<_> = text.blocks(2000).into_iter().step_by(100).collect();
    let mut all: Vec<_> = at.iter().map(|a| text.lift(*a, Mode::Region)).collect();
    all.iter_mut().for_each(|r| optimize(r, OptLevel::Full));
    let mut g = c.benchmark_group("region");
    g.sample_size(10).throughput(Throughput::Elements(all.iter().map(|r| u64::from(r.insns)).sum()));
    let settings = CompilerSettings { min_limit: 64 << 30, ..CompilerSettings::default() };
    let mut compiler = Compiler::new(ABI, settings).expect("this host");
    g.bench_function("cranelift", |b| {
        b.iter(|| {
            for r in &all {
                let mut links = |pc: u64| (pc & 0xffff) as u32;
                drop(black_box(compiler.compile(r, CompileOptions::default(), &mut links).expect("compiles")));
            }
        })
    });
    g.finish();
}

criterion_group!(benches, blocks, regions);
criterion_main!(benches);
