use super::*;
use crate::kernel::Config;
use crate::limits::LimitConfig;
use crate::task::Task;
use crate::testing::start;

const PRIV: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
const SHARED: u32 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u32;
const FIXED: u32 = libc::MAP_FIXED as u32;

fn map(t: &Task, addr: u64, len: u64, prot: u8, flags: u32) -> Result<u64> {
    t.mm().map(MapRequest { addr, len, prot, flags, file: None, limit: u64::MAX, who: t })
}
fn remap_call(t: &Task, old: u64, old_len: u64, new_len: u64, flags: u32, to: u64) -> Result<u64> {
    t.mm().remap(RemapRequest { old, old_len, new_len, flags, to, limit: u64::MAX, who: t })
}
fn count(t: &Task) -> usize {
    t.mm().maps().len()
}

#[test]
fn map_and_unmap() {
    let (_h, k, t) = start(Config::default());
    let mm = t.mm().clone();
    let (n, used) = (count(&t), k.limits.memory.used());
    let a = map(&t, 0, 0x5000, R | W, PRIV).unwrap();
    assert_eq!(map(&t, 0, 0x1000, R | W, PRIV), Ok(a - 0x1000), "top-down");
    assert_eq!(count(&t), n + 1, "neighbours join");
    assert_eq!(k.limits.memory.used() - used, 0x6000);
    mm.mem().write(a + 0x2000, 7u64).unwrap();
    mm.protect(a + 0x1000, 0x2000, R).unwrap();
    assert!(mm.mem().write(a + 0x2000, 8u8).is_err());
    assert_eq!(mm.fault_kind(a + 0x2000, Access::Write), FaultKind::Denied);
    assert_eq!(count(&t), n + 3);
    mm.protect(a + 0x1000, 0x2000, R | W).unwrap();
    assert_eq!(count(&t), n + 1);
    assert_eq!(mm.mem().read::<u64>(a + 0x2000), Ok(7));
    mm.unmap(a + 0x1000, 0x1000).unwrap();
    assert_eq!(mm.fault_kind(a + 0x1000, Access::Read), FaultKind::Unmapped);
    assert_eq!(mm.protect(a, 0x3000, R), Err(Errno::ENOMEM));
    assert_eq!(mm.lookup(a).unwrap().prot, R, "the part before the hole was changed");
    assert_eq!(map(&t, a, 0x3000, R, PRIV | libc::MAP_FIXED_NOREPLACE as u32), Err(Errno::EEXIST));
    assert_eq!(map(&t, a, 0x3000, R | W, PRIV | FIXED), Ok(a));
    assert_eq!(mm.mem().read::<u64>(a + 0x2000), Ok(0));
    assert_eq!(map(&t, 0x2000_0000, 0x1000, R, PRIV), Ok(0x2000_0000), "a free hint is honoured");
    assert!(map(&t, 1 << 44, 0x1000, R, PRIV).unwrap() < mm.size(), "a hint beyond is ignored");
    mm.unmap(0x1_0000, mm.size() - 0x1_0000).unwrap();
    assert_eq!((count(&t), mm.total(), k.limits.memory.used()), (0, 0, 0));
}

#[test]
fn errors() {
    let (_h, _k, t) = start(Config::default());
    let size = t.mm().size();
    for (addr, len, flags, want) in [
        (0, 0, PRIV, Errno::EINVAL),
        (0, u64::MAX, PRIV, Errno::ENOMEM),
        (0, size + 1, PRIV, Errno::ENOMEM),
        (0x1001, 1, PRIV | FIXED, Errno::EINVAL),
        (0x1000, 1, PRIV | FIXED, Errno::EPERM),
        (size - 0x1000, 0x2000, PRIV | FIXED, Errno::ENOMEM),
        (u64::MAX - 0xfff, 0x2000, PRIV | FIXED, Errno::ENOMEM),
        (0, 1, libc::MAP_ANONYMOUS as u32, Errno::EINVAL),
    ] {
        assert_eq!(map(&t, addr, len, R, flags), Err(want), "{addr:#x} {len:#x} {flags:#x}");
    }
    let mm = t.mm();
    assert_eq!(mm.unmap(1, 1), Err(Errno::EINVAL));
    assert_eq!(mm.unmap(0, 0), Err(Errno::EINVAL));
    assert_eq!(mm.unmap(0, u64::MAX), Err(Errno::EINVAL));
    assert_eq!(mm.protect(0, u64::MAX, R), Err(Errno::ENOMEM));
    assert_eq!(remap_call(&t, 0x1000, 0x1000, 0x2000, 0, 0), Err(Errno::EFAULT));
    assert_eq!(mm.advise(0x1000, 0x1000, 4, &t), Err(Errno::ENOMEM));
    assert_eq!(mm.advise(0, 0, 99, &t), Err(Errno::EINVAL));
}

#[test]
fn remap() {
    let (_h, k, t) = start(Config::default());
    let mm = t.mm().clone();
    let used = k.limits.memory.used();
    for flags in [PRIV, SHARED] {
        let a = map(&t, 0x1000_0000, 0x2000, R | W, flags | FIXED).unwrap();
        mm.mem().write(a + 8, 99u64).unwrap();
        assert_eq!(remap_call(&t, a, 0x2000, 0x4000, 0, 0), Ok(a), "grows in place");
        mm.mem().write(a + 0x3008, 98u64).unwrap();
        map(&t, a + 0x4000, 0x1000, R, PRIV | FIXED).unwrap();
        assert_eq!(remap_call(&t, a, 0x4000, 0x8000, 0, 0), Err(Errno::ENOMEM));
        let b = remap_call(&t, a, 0x4000, 0x8000, 1, 0).unwrap();
        assert_ne!(a, b);
        assert_eq!(mm.mem().read::<u64>(b + 8), Ok(99));
        assert_eq!(mm.mem().read::<u64>(b + 0x3008), Ok(98));
        assert_eq!(mm.mem().read::<u64>(b + 0x7ff8), Ok(0));
        assert_eq!(mm.fault_kind(a, Access::Read), FaultKind::Unmapped);
        assert_eq!(remap_call(&t, b, 0x8000, 0x1000, 0, 0), Ok(b), "shrinks");
        assert_eq!(remap_call(&t, b, 0x1000, 0x1000, 3, 0x3000_0000), Ok(0x3000_0000));
        assert_eq!(mm.mem().read::<u64>(0x3000_0008), Ok(99));
        mm.unmap(0x3000_0000, 0x1000).unwrap();
        mm.unmap(a + 0x4000, 0x1000).unwrap();
    }
    assert_eq!(k.limits.memory.used(), used);
}

#[test]
fn heap_fork_and_limit() {
    let (_h, k, t) =
        start(Config { limits: LimitConfig { memory: Some(1 << 20), ..LimitConfig::default() }, ..Config::default() });
    let mm = t.mm().clone();
    let start = mm.brk(0, u64::MAX, u64::MAX);
    assert_eq!(mm.brk(start + 0x1234, u64::MAX, u64::MAX), start + 0x1234);
    mm.mem().write(start + 0x1230, 5u32).unwrap();
    assert_eq!(mm.brk(start + (2 << 20), u64::MAX, u64::MAX), start + 0x1234, "beyond the memory limit");
    assert_eq!(map(&t, 0, 2 << 20, R | W, PRIV), Err(Errno::ENOMEM));
    assert!(map(&t, 0, 2 << 20, R | W, PRIV | libc::MAP_NORESERVE as u32).is_ok());
    assert!(map(&t, 0, 2 << 20, 0, PRIV).is_ok());
    let shared = map(&t, 0, 0x1000, R | W, SHARED).unwrap();
    let hidden = map(&t, 0, 0x1000, R | W, PRIV).unwrap();
    mm.mem().write(hidden, 6u8).unwrap();
    mm.protect(hidden, 0x1000, 0).unwrap();
    let child = mm.fork(true).unwrap();
    assert_eq!(child.mem().read::<u32>(start + 0x1230), Ok(5));
    mm.mem().write(shared, 0x42u8).unwrap();
    mm.mem().write(start + 0x1230, 6u32).unwrap();
    assert_eq!(child.mem().read::<u8>(shared), Ok(0x42));
    assert_eq!(child.mem().read::<u32>(start + 0x1230), Ok(5));
    assert!(child.mem().read::<u8>(hidden).is_err());
    child.protect(hidden, 0x1000, R).unwrap();
    assert_eq!(child.mem().read::<u8>(hidden), Ok(6));
    assert_eq!(child.mem().read::<u8>(0x40_0078), Ok(0x0f), "the program's file pages");
    let used = k.limits.memory.used();
    drop(child);
    assert_eq!(k.limits.memory.used(), used, "what a forked process has from its parent counts when resident");
    assert_eq!(mm.brk(start, u64::MAX, u64::MAX), start);
    assert_eq!(mm.brk(0, u64::MAX, u64::MAX), start);
}
