use super::*;

fn key() -> Key {
    Key {
        engine: 1,
        head: 2,
        size: 0x9000,
        lo: 0x40_0000,
        hi: 0x40_4000,
        offset: 0x1000,
        min_limit: 1 << 36,
        bits: 64,
        v3: true,
        threshold: 64,
        copied: false,
    }
}
fn content() -> Content {
    let mut c = Content { label: b"/bin/x".to_vec(), ..Content::default() };
    for (i, pc) in [0x10u32, 0x30, 0xff8, 0x1004, 0x3ff0].into_iter().enumerate() {
        let n = i as u8 + 1;
        let piece =
            Piece { source: vec![n; 12], code: vec![0x90 + n; 40], pcs: vec![(4, pc), (30, pc + 5)], copied: n == 3 };
        let slot = c.slot(pc, 100).unwrap();
        c.entries.insert(pc, (slot, if pc == 0x30 { Known::Named } else { Known::Alone(piece) }));
    }
    for (pc, entered) in [(0x40u32, true), (0x48, false), (0x50, true)] {
        let slot = if entered { c.slot(pc, 100).unwrap() } else { NO_SLOT };
        c.entries.insert(pc, (slot, Known::InUnit { entered }));
    }
    let unit = Unit {
        source: vec![(0x40, 12), (0x50, 3)],
        bytes: (1..16).collect(),
        code: vec![0x99; 70],
        pcs: vec![(3, 0x41), (60, 0x52)],
        starts: vec![(0x40, 0), (0x50, 33)],
    };
    c.units.insert(0, unit);
    c.regions.push(Region {
        entries: vec![(0x10, 0), (0x1004, 3)],
        source: vec![(0x10, 5), (0x1004, 3)],
        bytes: vec![7; 8],
        blocks: vec![0x10, 0x20, 0x1004],
        code: vec![0xcc; 100],
        pcs: vec![(50, 0x12), (60, 0x1006)],
        insns: 9,
        precise: true,
        times: 2,
        wide: true,
    });
    c.target(0x20, 0x1004);
    c.target(0x20, 0x10);
    c
}

#[test]
fn what_is_written_is_read() {
    let (key, c) = (key(), content());
    let bytes = c.write(&key).unwrap();
    let v = View::new(&bytes, &key).unwrap();
    assert!(v.is_whole());
    assert_eq!(View::key_of(&bytes), Some(key));
    assert_eq!(v.label(), b"/bin/x");
    let back = v.content().unwrap();
    assert_eq!((&back.entries, &back.regions, &back.label), (&c.entries, &c.regions, &c.label));
    assert_eq!((&back.units, back.slots), (&c.units, c.slots));
    assert_eq!(v.targets().collect::<Vec<_>>(), [(0x20, 0x10), (0x20, 0x1004)]);
    assert_eq!(back.targets, c.targets);
    let blocks: Vec<_> = v.region(0).unwrap().blocks().collect();
    assert_eq!(blocks, [(0x10, Some(0)), (0x20, None), (0x1004, Some(3))]);
    assert_eq!(back.write(&key).unwrap(), bytes);
    for (pc, (slot, known)) in &c.entries {
        let e = v.entry(*pc).unwrap();
        assert_eq!((e.slot, e.is_translated()), (*slot, known.is_block()));
        let Known::Alone(p) = known else { continue };
        let (at, len) = v.code_of(&v.page(pc / 4096).unwrap(), &e).unwrap();
        assert_eq!(bytes[at as usize..(at + u64::from(len)) as usize], p.code);
        assert_eq!(v.source(&e).unwrap(), p.source);
        for (off, guest) in &p.pcs {
            assert_eq!(v.pc_at(at + u64::from(*off)), Some(*guest));
            assert_eq!(v.pc_at(at + u64::from(*off) + 1), None);
        }
    }
    let page = v.page(0).unwrap();
    let places = [0x40, 0x48, 0x50].map(|pc| v.code_of(&page, &v.entry(pc).unwrap()));
    let (first, _) = places[0].unwrap();
    assert_eq!(places, [Some((first, 70)), None, Some((first + 33, 37))]);
    assert_eq!((v.pc_at(first + 3), v.pc_at(first + 60)), (Some(0x41), Some(0x52)));
    let bytes: Vec<u8> = (1..16).collect();
    assert_eq!(v.unit_source(&page).unwrap(), [(0x40, &bytes[..12]), (0x50, &bytes[12..])]);
    assert_eq!(v.unit_source(&v.page(1).unwrap()), None);
    let at = v.region_code(&v.region(0).unwrap()).unwrap();
    assert_eq!(v.pc_at(at + 60), Some(0x1006));
    assert_eq!(v.entry(0x31), None);
    assert_eq!(v.entry(0x2000), None);
}

#[test]
fn other_keys_and_lengths_are_refused() {
    let key = key();
    let bytes = content().write(&key).unwrap();
    for other in [Key { engine: 9, ..key }, Key { lo: 0x40_1000, ..key }, Key { threshold: 65, ..key }] {
        assert_eq!(View::new(&bytes, &other).err(), Some(Refused::Key));
        assert_ne!(other.name(), key.name());
    }
    for n in 0..bytes.len() {
        assert!(View::new(&bytes[..n], &key).is_err(), "{n}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(View::new(&longer, &key).err(), Some(Refused::Truncated));
}

/// Each altered byte is noticed, but for padding: by the header, or by what it belongs to.
#[test]
fn altered_bytes_are_noticed() {
    let key = key();
    let good = content().write(&key).unwrap();
    let tables = long(&good, PARTS + 8 * PCS).unwrap() as usize;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let seen = match View::new(&bytes, &key) {
            Err(_) => true,
            Ok(v) => !v.is_whole() || v.content().is_none_or(|c| c.write(&key).unwrap() != bytes),
        };
        let reserved = (12..16).contains(&at);
        assert!(seen || reserved || at > tables, "{at:#x}");
        assert!(at >= tables || reserved || View::new(&bytes, &key).is_err(), "{at:#x}");
    }
}

/// Tables that say what cannot be, under a checksum that is right: nothing is found, nothing panics.
#[test]
fn tables_that_lie() {
    let key = key();
    let good = content().write(&key).unwrap();
    let tables = long(&good, PARTS + 8 * PCS).unwrap() as usize;
    for at in (PARTS..tables).step_by(4) {
        for lie in [0u32, 1, 0x7fff_ffff, u32::MAX, u32::MAX - 15] {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
            seal(&mut bytes);
            if let Ok(v) = View::new(&bytes, &key) {
                exercise(&v, &key);
            }
        }
    }
}

fn exercise(v: &View<'_>, key: &Key) {
    for p in v.all_pages() {
        v.is_intact(&p);
        for e in p.entries() {
            if let Some((at, len)) = v.code_of(&p, &e) {
                assert!(at >= v.code_at() && at + u64::from(len) <= v.size() as u64);
            }
            v.source(&e);
            v.entry(e.pc);
        }
        v.unit_source(&p);
    }
    for at in (0..v.size() as u64 + 100).step_by(7) {
        v.pc_at(at);
    }
    if let Some(c) = v.content() {
        c.write(key);
    }
}

#[test]
fn marks_of_copied_code_are_kept() {
    use evm_backend::direct::{BOUNDARY, DESTINATION, HOT, SOURCE};
    let lo = 0x2000_0000;
    for mark in [0, BOUNDARY, HOT, DESTINATION, DESTINATION | SOURCE] {
        for pc in [lo, lo + 0x1234, lo + MOST_COPIED - 1] {
            assert_eq!(marked(pc | mark, lo).and_then(|w| unmarked(w, lo)), Some(pc | mark));
        }
    }
    assert_eq!((marked(lo - 1, lo), marked(lo + MOST_COPIED, lo), unmarked(0x1234, lo)), (None, None, None));
}
