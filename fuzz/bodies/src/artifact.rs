//! Lifted programs: the loader of `.evm` files, and the linker of modules.

use evm_runtime::cache::artifact::{self, Artifact, Part};
use std::io::Write;
use std::path::Path;

/// An artifact altered where the input says so (place, value), or the input itself; a part at a place that the input says.
/// What is loaded lies within the file.
pub fn artifact(data: &[u8]) -> bool {
    let [what, rest @ ..] = data else { return false };
    let file = if what % 8 == 0 { rest.to_vec() } else { altered(rest) };
    let path = std::env::temp_dir().join(format!("evm-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    let opened =
        std::fs::File::create(&path).and_then(|mut f| f.write_all(&file)).and_then(|()| std::fs::File::open(&path));
    // A full disk is no finding.
    let _ = std::fs::remove_file(&path);
    let Ok(opened) = opened else { return false };
    let Ok(Some(text)) = artifact::text(&opened) else { return false };
    assert!(text.len() + 16 <= file.len());
    let number =
        |n: usize| rest.get(8 * n..8 * n + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
    // Often near what fits.
    let near = |v: u64| if v & 1 == 0 { v } else { v % (2 * file.len() as u64) & !4095 };
    let part = Part { name: "part".into(), offset: near(number(0)), len: near(number(1)) };
    if let Ok(a) = Artifact::new(opened, Path::new("fuzzed"), vec![part]) {
        assert!(a.parts.iter().all(|p| p.offset + p.len <= file.len() as u64));
    }
    true
}

fn altered(changes: &[u8]) -> Vec<u8> {
    let files = [("a".to_string(), vec![1; 5000]), ("b".to_string(), vec![2; 10])];
    let mut out = vec![];
    // Writing to memory does not fail.
    let _ = artifact::write(&mut out, &files, |parts| format!("{parts:?}"));
    for c in changes.chunks_exact(3).take(8) {
        let at = usize::from(u16::from_le_bytes([c[0], c[1]])) % 64;
        out[at] ^= c[2] & c[0];
    }
    out
}
