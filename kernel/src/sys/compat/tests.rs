//! The conversions by themselves; whole programs are run by the conformance tests.

use super::layout::{FLOCK64, Layout, RLIMIT, STAT, TIMESPEC, TIMESPEC64};
use crate::errno::Errno;

fn round(l: &Layout, b: &[u8]) -> Vec<u8> {
    let mut out = vec![0; l.narrow as usize];
    l.narrow(&l.widen(b), &mut out).unwrap();
    out
}

#[test]
fn fields_do_not_overlap() {
    for l in [&FLOCK64, &RLIMIT, &STAT, &TIMESPEC, &TIMESPEC64, &super::layout::STAT64, &super::layout::TIMEX] {
        let mut used = vec![false; l.narrow as usize];
        for f in l.fields {
            for u in &mut used[usize::from(f.0)..usize::from(f.0 + f.1)] {
                assert!(!std::mem::replace(u, true));
            }
            assert!(u64::from(f.2 + f.3) <= l.wide);
        }
    }
}

#[test]
fn values() {
    let minus = [0xff; 8];
    assert_eq!(TIMESPEC.widen(&minus), [0xff; 16]);
    assert_eq!(RLIMIT.widen(&minus), [0xff; 16]);
    assert_eq!(round(&RLIMIT, &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    // What is above the nanoseconds is not theirs.
    let mut t = [0u8; 16];
    t[8] = 5;
    t[12..].fill(0xee);
    assert_eq!(TIMESPEC64.widen(&t)[8..], 5u64.to_le_bytes());
    let mut wide = vec![0; 144];
    wide[48..56].copy_from_slice(&(1u64 << 32).to_le_bytes());
    assert_eq!(STAT.narrow(&wide, &mut [0; 64]), Err(Errno::EOVERFLOW));
}

#[test]
fn control_messages() {
    let mut b = Vec::new();
    for data in [&[1u8, 2, 3, 4][..], &[9; 12]] {
        b.extend((12 + data.len() as u32).to_le_bytes());
        b.extend(1u32.to_le_bytes());
        b.extend(1u32.to_le_bytes());
        b.extend(data);
    }
    assert_eq!(super::message::control_round_trip(&b, b.len()), (b.clone(), true));
    assert_eq!(super::message::control_round_trip(&b, 20), (b[..16].to_vec(), false));
    assert_eq!(super::message::control_round_trip(&[200; 16], 99), (vec![], false));
}

#[test]
fn descriptors() {
    // As glibc sets its thread-local storage: 32 bits, limit in pages, useable.
    let d = [12, 0xf7d0_1234, 0xf_ffff, 0x51];
    assert_eq!(super::process::descriptor_round_trip(d), Some(d));
    assert_eq!(super::process::descriptor_round_trip([12, 0, 5, 0]), None);
}
