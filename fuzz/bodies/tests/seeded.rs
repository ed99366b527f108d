//! Short runs of the fuzz targets from seeds. `FUZZ_ROUNDS=N` multiplies them, `FUZZ_SEED=N` begins elsewhere.

use evm_fuzz_bodies::{artifact, bytes, elf, kept, lift, link, region, text, valid_region};
use evm_ir::random::Rng;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|e| panic!("{name}={v}: {e}")))
}

/// Each round has a seed of its own, which is shown if it fails. At least one in `share` must get past the first check.
fn rounds(n: u64, share: u64, f: impl Fn(&mut Rng) -> bool + std::panic::RefUnwindSafe) {
    let (first, n) = (number("FUZZ_SEED", 1), n * number("FUZZ_ROUNDS", 1));
    let mut past = 0;
    for seed in first..first + n {
        let r = std::panic::catch_unwind(|| f(&mut Rng::new(seed)));
        past += u64::from(*r.as_ref().unwrap_or_else(|_| panic!("failed with FUZZ_SEED={seed}")));
    }
    println!("{past} of {n} got past the first check");
    assert!(past >= n / share, "only {past} of {n} inputs tested anything");
}

#[test]
fn random_code() {
    rounds(1500, 3, |r| {
        let n = 2 + r.below(96) as usize;
        lift(&bytes(r, n))
    });
}

/// Prefixes and escape bytes more often than chance gives.
#[test]
fn shaped_code() {
    const OFTEN: &[u8] = &[
        0x0f, 0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x4c, 0x41, 0x67, 0x2e, 0x64, 0x65, 0xc4, 0xc5, 0x62, 0x38, 0x3a, 0xc7,
        0xae, 0xd9, 0xdb, 0xdd, 0xdf, 0xe8, 0xe9, 0xeb, 0xff, 0x8f, 0xc3, 0x74, 0xe2, 0xcd, 0x05, 0x0b, 0xa4, 0xab,
    ];
    rounds(1500, 3, |r| {
        let n = 2 + r.below(64) as usize;
        let mut b = bytes(r, n);
        for x in b.iter_mut().skip(2) {
            if !r.chance(3) {
                *x = r.pick(OFTEN);
            }
        }
        lift(&b)
    });
}

#[test]
fn damaged_artifacts() {
    rounds(400, 20, |r| {
        let n = 1 + r.below(24) as usize;
        artifact(&bytes(r, n))
    });
}

#[test]
fn linked_code() {
    rounds(24, 6, |r| {
        let n = 8 + r.below(96) as usize;
        link(&bytes(r, n))
    });
}

#[test]
fn nearly_valid_regions() {
    rounds(600, 20, |r| {
        let n = 8 + 4 * r.below(4) as usize;
        region(&bytes(r, n))
    });
}

#[test]
fn damaged_text() {
    rounds(1500, 20, |r| {
        let mut t = if r.chance(8) {
            let n = r.below(200) as usize;
            bytes(r, n)
        } else {
            valid_region(r.next()).to_string().into_bytes()
        };
        for _ in 0..r.below(6) {
            if !t.is_empty() {
                let at = r.below(t.len() as u64) as usize;
                t[at] = r.pick(b" 0129abfix%:,(){}[]=\n-v@.");
            }
        }
        text(&t)
    });
}

/// A program as linkers make them: headers, code, constants, data with zeros after it.
fn program(position_independent: bool) -> Vec<u8> {
    let mut b = vec![0x90u8; 0x4000];
    b[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let base: u64 = if position_independent { 0 } else { 0x40_0000 };
    let mut put = |at: usize, v: u64, n: usize| b[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
    for (at, v, n) in [(16, 2 + u64::from(position_independent), 2), (18, 62, 2), (20, 1, 4), (24, base + 0x1000, 8)] {
        put(at, v, n);
    }
    let headers: [[u64; 6]; 6] = [
        // type, flags, offset, size in the file, size in memory, alignment
        [6, 4, 64, 6 * 56, 6 * 56, 8],
        [1, 4, 0, 0x400, 0x400, 0x1000],
        [1, 5, 0x1000, 0xe00, 0xe00, 0x1000],
        [1, 4, 0x2000, 0x800, 0x800, 0x1000],
        [1, 6, 0x2e10, 0x300, 0x2400, 0x1000],
        [0x6474_e551, 6, 0, 0, 0, 16],
    ];
    for (at, v, n) in [(32, 64, 8), (48, 0, 4), (52, 64, 2), (54, 56, 2), (56, headers.len() as u64, 2)] {
        put(at, v, n);
    }
    for (i, [kind, flags, offset, file, memory, align]) in headers.into_iter().enumerate() {
        let at = 64 + 56 * i;
        // The data segment's last file page must not be the constants' page.
        let shift = if offset == 0x2e10 { 0x1000 } else { 0 };
        let address = base + offset + shift;
        put(at, kind, 4);
        put(at + 4, flags, 4);
        for (k, v) in [offset, address, address, file, memory, align].into_iter().enumerate() {
            put(at + 8 + 8 * k, v, 8);
        }
    }
    b
}

#[test]
fn damaged_programs() {
    assert!(elf(&program(false)) && elf(&program(true)));
    let extremes = [0, 1, u64::MAX, 1 << 31, 1 << 47, i64::MAX as u64, 4096, u64::MAX - 4095];
    rounds(250, 20, |r| {
        let mut b = program(r.chance(2));
        for _ in 0..=r.below(4) {
            let at = r.below(64 + 56 * 6) as usize;
            match r.below(3) {
                0 => b[at] ^= 1 << r.below(8),
                1 => b[at] = r.next() as u8,
                _ => {
                    let at = at & !7;
                    b[at..at + 8].copy_from_slice(&r.pick(&extremes).to_le_bytes());
                }
            }
        }
        if r.chance(8) {
            let n = r.below(b.len() as u64) as usize;
            b.truncate(n);
        }
        elf(&b)
    });
}

#[test]
fn damaged_translations() {
    rounds(1500, 3, |r| {
        let n = 1 + r.below(40) as usize;
        kept(&bytes(r, n))
    });
}
