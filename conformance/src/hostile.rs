//! Damaged and malicious ELF files, made from a good one.

use crate::inputs::Random;

/// One file and what `evm` should make of it.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The status that is expected, 126 for what is no program; `None` where the guest may also start and fail.
    pub status: Option<i32>,
}

fn put(bytes: &mut [u8], at: usize, value: u64, size: usize) {
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

fn get(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut b = [0; 8];
    b[..size].copy_from_slice(&bytes[at..at + size]);
    u64::from_le_bytes(b)
}

/// Offsets of the program headers of this type.
fn headers(elf: &[u8], kind: u64) -> Vec<usize> {
    let (start, n) = (get(elf, 32, 8) as usize, get(elf, 56, 2) as usize);
    (0..n).map(|i| start + i * 56).filter(|at| get(elf, *at, 4) == kind).collect()
}

const PT_LOAD: u64 = 1;
const PT_INTERP: u64 = 3;

/// The corpus. `fixed` is a static program at a fixed address, `dynamic` one with an interpreter.
pub fn corpus(fixed: &[u8], dynamic: &[u8], random: usize) -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add =
        |name: &str, bytes: Vec<u8>, status: Option<i32>| all.push(Hostile { name: name.into(), bytes, status });
    add("empty", Vec::new(), None);
    add("text", b"hello\n".to_vec(), None);
    for n in [1, 3, 4, 15, 16, 40, 63, 64, 100, 120, 300] {
        add(&format!("truncated to {n}"), fixed[..n].to_vec(), if n >= 4 { Some(126) } else { None });
    }
    add("half a program", fixed[..fixed.len() / 2].to_vec(), None);
    add("half a dynamic program", dynamic[..dynamic.len() / 2].to_vec(), None);
    let mut with = |name: &str, base: &[u8], status: Option<i32>, f: &dyn Fn(&mut Vec<u8>)| {
        let mut b = base.to_vec();
        f(&mut b);
        add(name, b, status);
    };
    let header = |name: &'static str, at: usize, size: usize, value: u64| (name, at, size, value);
    for (name, at, size, value) in [
        header("class 32", 4, 1, 1),
        header("class 9", 4, 1, 9),
        header("big endian", 5, 1, 2),
        header("type none", 16, 2, 0),
        header("type relocatable", 16, 2, 1),
        header("type core", 16, 2, 4),
        header("machine ARM", 18, 2, 183),
        header("headers at the end of space", 32, 8, u64::MAX - 10),
        header("headers beyond the file", 32, 8, 1 << 40),
        header("header size 0", 54, 2, 0),
        header("header size 57", 54, 2, 57),
        header("no headers", 56, 2, 0),
        header("65535 headers", 56, 2, 65535),
    ] {
        with(name, fixed, Some(126), &|b| put(b, at, value, size));
    }
    // Linux does not look at the version, so neither do we: it starts, and exits with 7.
    with("version 7", fixed, Some(7), &|b| put(b, 6, 7, 1));
    for (name, value) in [
        ("entry 0", 0),
        ("entry not canonical", 1 << 63),
        ("entry in the kernel", u64::MAX - 0xfff),
        ("entry unmapped", 0x1234_5000),
    ] {
        with(name, fixed, None, &|b| put(b, 24, value, 8));
    }
    let loads = headers(fixed, PT_LOAD);
    let (first, last) = (loads[0], loads[loads.len() - 1]);
    for (name, at, value, status) in [
        ("segment offset at the end of space", first + 8, u64::MAX - 0xfff, Some(126)),
        ("segment offset beyond the file", first + 8, 1 << 40, None),
        ("segment address not canonical", first + 16, 1 << 63, Some(126)),
        ("segment address at the end of space", first + 16, u64::MAX - 0xfff, Some(126)),
        ("segment address 0", first + 16, 0, None),
        ("segment file size huge", first + 32, u64::MAX, Some(126)),
        ("segment file size 1 TiB", last + 32, 1 << 40, Some(126)),
        ("segment memory size huge", last + 40, u64::MAX, Some(126)),
        ("segment memory size 1 TiB", last + 40, 1 << 40, Some(126)),
        ("segment memory size 30 GiB", last + 40, 30 << 30, None),
        ("segment memory below file size", first + 40, 1, Some(126)),
        ("segment alignment 3", first + 48, 3, None),
        ("segment alignment huge", first + 48, 1 << 62, None),
        ("segment misaligned", first + 16, get(fixed, first + 16, 8) + 1, Some(126)),
    ] {
        with(name, fixed, status, &|b| put(b, at, value, 8));
    }
    with("segments overlap", fixed, None, &|b| {
        let a = get(b, first + 16, 8);
        for l in &loads[1..] {
            let low = get(b, *l + 16, 8) & 0xfff;
            put(b, *l + 16, (a & !0xfff) | low, 8);
        }
    });
    with("segments in wrong order", fixed, None, &|b| {
        let (x, y) = (b[first..first + 56].to_vec(), b[last..last + 56].to_vec());
        b[first..first + 56].copy_from_slice(&y);
        b[last..last + 56].copy_from_slice(&x);
    });
    with("all segments writable and executable", fixed, None, &|b| loads.iter().for_each(|l| put(b, l + 4, 7, 4)));
    with("no segment executable", fixed, None, &|b| loads.iter().for_each(|l| put(b, l + 4, 4, 4)));
    with("no segment readable", fixed, None, &|b| loads.iter().for_each(|l| put(b, l + 4, 0, 4)));
    with("code is zero", fixed, None, &|b| {
        let at = b.len() / 4;
        b[at..at * 3].fill(0);
    });
    let interp = headers(dynamic, PT_INTERP)[0];
    let path_at = get(dynamic, interp + 8, 8) as usize;
    let path = |b: &mut Vec<u8>, p: &[u8]| {
        b[path_at..path_at + 28].fill(0);
        b[path_at..path_at + p.len()].copy_from_slice(p);
    };
    with("interpreter missing", dynamic, None, &|b| path(b, b"/no/such/ld.so"));
    with("interpreter is itself", dynamic, None, &|b| path(b, b"/work/hostile"));
    with("interpreter is a folder", dynamic, None, &|b| path(b, b"/usr"));
    with("interpreter is a script", dynamic, None, &|b| path(b, b"/work/loop.sh"));
    with("interpreter is a device", dynamic, None, &|b| path(b, b"/dev/zero"));
    with("interpreter without an end", dynamic, None, &|b| b[path_at..path_at + 28].fill(b'a'));
    with("interpreter is empty", dynamic, None, &|b| path(b, b""));
    with("interpreter's path 1 TiB long", dynamic, None, &|b| put(b, interp + 32, 1 << 40, 8));
    with("interpreter's path of no length", dynamic, None, &|b| put(b, interp + 32, 0, 8));
    with("two interpreters", dynamic, None, &|b| {
        let l = headers(b, PT_LOAD)[0];
        let h = b[interp..interp + 56].to_vec();
        b[l..l + 56].copy_from_slice(&h);
    });
    add("script: loop", b"#!/work/hostile\n".to_vec(), None);
    add("script: no interpreter", b"#!\n".to_vec(), None);
    add("script: missing interpreter", b"#!/no/such\n".to_vec(), None);
    let mut long = b"#!/".to_vec();
    long.extend(vec![b'x'; 100_000]);
    add("script: long line", long, None);
    add("script: zeros", vec![b'#', b'!', 0, 0, 0], None);

    let mut r = Random::new(99);
    for i in 0..random {
        let base = if i % 2 == 0 { fixed } else { dynamic };
        let mut b = base.to_vec();
        let area = if i % 3 == 0 { b.len() } else { 64 + 56 * 12 };
        for _ in 0..=r.below(8) {
            let at = r.below(area);
            match r.below(3) {
                0 => b[at] ^= 1 << r.below(8),
                1 => b[at] = r.bits() as u8,
                _ => {
                    let v = [0, u64::MAX, 1 << 31, 1 << 47, 0x7fff_ffff_ffff_ffff, 4096][r.below(6)];
                    let at = at.min(b.len() - 8) & !7;
                    put(&mut b, at, v, 8);
                }
            }
        }
        if r.below(10) == 0 {
            let n = r.below(b.len());
            b.truncate(n);
        }
        add(&format!("random {i}"), b, None);
    }
    all
}
