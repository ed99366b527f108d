//! Files of kept translations.

use evm_runtime::cache::format::{Content, Key, Known, Piece, Region, Unit, View, seal};

fn key() -> Key {
    Key { size: 1 << 20, lo: 0x40_0000, hi: 0x44_0000, bits: 64, threshold: 64, ..Key::default() }
}

/// A file that is good.
fn good() -> Vec<u8> {
    let mut c = Content { slots: 40, ..Content::default() };
    for i in 0..40u32 {
        let pc = i * 777;
        let piece = Piece {
            source: vec![i as u8; 9],
            code: vec![0xc3; 20 + i as usize],
            pcs: vec![(i, pc + 1)],
            copied: i & 1 != 0,
        };
        let known = match i % 5 {
            0 => Known::Named,
            1 => Known::InUnit { entered: i % 2 == 0 },
            _ => Known::Alone(piece),
        };
        c.entries.insert(pc, (i, known));
        if i % 10 == 6 {
            let unit = Unit {
                source: vec![(pc, 9), (pc + 20, 4)],
                bytes: vec![i as u8; 13],
                code: vec![0xc3; 70],
                pcs: vec![(5, pc)],
                starts: vec![(pc, 32)],
            };
            c.units.insert(pc / 4096, unit);
        }
    }
    for i in 1..4u32 {
        c.regions.push(Region {
            entries: vec![(777 * i, i)],
            source: vec![(777 * i, 6)],
            bytes: vec![1; 6],
            blocks: vec![777 * i, 5],
            code: vec![0xc3; 50],
            pcs: vec![(9, 777 * i)],
            insns: 3,
            ..Region::default()
        });
    }
    c.write(&key()).expect("it is small")
}

/// A file with words altered where the input says so (place, value), under a right checksum, or the input itself: whatever is
/// found in it lies within it.
pub fn kept(data: &[u8]) -> bool {
    let mut file = good();
    if data.first().is_some_and(|b| b % 16 == 0) {
        file = data[1..].to_vec();
    } else {
        for d in data.chunks_exact(8) {
            let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            // Often near what is small.
            let value = if d[3] & 1 == 0 { word(&d[4..]) } else { word(&d[4..]) >> 20 };
            let at = word(d) as usize % (file.len() - 4);
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        seal(&mut file);
    }
    let Ok(v) = View::new(&file, &key()) else { return false };
    for p in v.all_pages() {
        let good = v.is_intact(&p);
        for e in p.entries() {
            if let Some((at, len)) = v.code_of(&p, &e) {
                assert!(at >= v.code_at() && at + u64::from(len) <= file.len() as u64);
                assert!(v.pc_at(at).is_none_or(|_| good || len > 0));
            }
            v.source(&e);
            v.entry(e.pc);
            v.unit_source(&p);
        }
    }
    for i in 0..v.region_count() {
        let Some(r) = v.region(i) else { continue };
        if let Some(at) = v.region_code(&r) {
            assert!(at >= v.code_at() && at < file.len() as u64);
        }
        v.region_source(&r);
        v.is_region_intact(&r);
        let _ = (r.entries().count(), r.blocks().count());
    }
    for at in (0..file.len() as u64 + 64).step_by(13) {
        v.pc_at(at);
    }
    v.label();
    if let Some(c) = v.content() {
        // What was read can be written, if it is not too large.
        c.write(&key());
    }
    true
}
