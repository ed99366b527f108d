use super::*;
use crate::kernel::Config;
use crate::testing::{start, start_in, tiny_elf};

#[test]
fn shebang() {
    let p = |s: &str| {
        parse_shebang(s.as_bytes()).map(|o| {
            o.map(|(a, b)| {
                (
                    String::from_utf8(a).unwrap(),
                    b.map(|b| String::from_utf8(b).unwrap()),
                )
            })
        })
    };
    let some = |a: &str, b: Option<&str>| Ok(Some((a.to_string(), b.map(str::to_string))));
    assert_eq!(p("\x7fELF"), Ok(None));
    assert_eq!(p("#!/bin/sh\n"), some("/bin/sh", None));
    assert_eq!(
        p("#! /usr/bin/env python3 -u \nx"),
        some("/usr/bin/env", Some("python3 -u"))
    );
    assert_eq!(p("#!/bin/sh"), some("/bin/sh", None));
    assert_eq!(p("#! \n"), Err(Errno::ENOEXEC));
    assert_eq!(p("#!"), Err(Errno::ENOEXEC));
    assert_eq!(p(&format!("#!/{}", "x".repeat(254))), Err(Errno::ENOEXEC));
}

#[test]
fn first_stack() {
    let (_h, k, t) = start(Config {
        seed: Some(1),
        ..Config::default()
    });
    let (m, sp) = (t.mem(), t.cpu.gpr[4]);
    let word = |i: u64| m.read::<u64>(sp + 8 * i).unwrap();
    let text = |at| String::from_utf8(m.read_cstr(at, 100).unwrap().unwrap()).unwrap();
    assert_eq!((sp % 16, word(0), word(3), word(5)), (0, 2, 0, 0));
    assert_eq!(
        [text(word(1)), text(word(2)), text(word(4))],
        ["tiny", "arg", "A=B"]
    );
    let mut auxv = std::collections::BTreeMap::new();
    let mut at = 6;
    while word(at) != 0 {
        auxv.insert(word(at), word(at + 1));
        at += 2;
    }
    assert_eq!(auxv[&libc::AT_ENTRY], 0x40_0078);
    assert_eq!(auxv[&libc::AT_PHDR], 0x40_0040);
    assert_eq!(text(auxv[&libc::AT_EXECFN]), "/bin/tiny");
    assert_eq!(text(auxv[&libc::AT_PLATFORM]), "x86_64");
    assert_eq!(
        t.process.image().unwrap().auxv.len() as u64,
        (at - 6 + 2) * 8
    );
    assert_eq!(m.read::<u8>(0x40_0078), Ok(0x0f));
    assert_eq!(
        m.read::<u8>(0x40_1fff),
        Ok(0),
        "memory beyond the file is zero"
    );
    drop(t);
    assert!(k.processes().is_empty());
}

/// Hostile files: cut off anywhere, and with any one header byte changed to extreme values. Nothing may panic; what
/// starts lies inside the address space.
#[test]
fn hostile_files() {
    let (_h, k, t) = start(Config::default());
    drop(t);
    let good = tiny_elf(&[0x90; 64]);
    for n in 0..good.len() {
        let _ = start_in(&k, &good[..n]);
    }
    for at in 0..120 {
        for v in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut b = good.clone();
            b[at] = v;
            if let Ok(t) = start_in(&k, &b) {
                for m in t.mm().maps() {
                    assert!(m.start < m.end && m.end <= t.mm().size());
                }
            }
        }
    }
    // 64-bit fields that make sums overflow.
    for at in [24, 32, 72, 80, 88, 96, 104, 112] {
        for v in [
            u64::MAX,
            u64::MAX - 4095,
            1 << 63,
            i64::MAX as u64,
            1 << 47,
            (1 << 32) - 4096,
        ] {
            let mut b = good.clone();
            b[at..at + 8].copy_from_slice(&v.to_le_bytes());
            let _ = start_in(&k, &b);
        }
    }
    assert_eq!(start_in(&k, b"").err(), Some(Errno::ENOEXEC));
    assert!(k.processes().is_empty() && k.limits.procs.used() == 0 && k.limits.memory.used() == 0);
}
