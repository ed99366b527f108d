//! What code depends on besides the guest's bytes: this build, the host's CPU, the options of the translators.

use crate::thread::ABI;
use std::os::unix::fs::{FileExt, MetadataExt};
use xxhash_rust::xxh3::xxh3_128;

/// A number that differs whenever the code for the same bytes may. `model` is the CPU that guests see.
pub(crate) fn engine(model: u32) -> u128 {
    let text = format!(
        "{} {:?} {:?} {:?} {model}",
        super::format::VERSION,
        build(),
        cpu(),
        evm_backend::cranelift::Compiler::new(ABI, Default::default()).map(|c| c.fingerprint()).ok()
    );
    xxh3_128(text.as_bytes())
}

/// The linker's hash of this program; if it made none, what tells its file from others.
fn build() -> Vec<u8> {
    let own = || -> std::io::Result<Vec<u8>> {
        let f = std::fs::File::open("/proc/self/exe")?;
        let mut head = [0; 4096];
        let n = f.read_at(&mut head, 0)?;
        if let Some(id) = build_id(&head[..n], |at, len| {
            let mut b = vec![0; len];
            f.read_exact_at(&mut b, at).ok().map(|()| b)
        }) {
            return Ok(id);
        }
        let m = f.metadata()?;
        Ok(format!("{} {} {} {} {} {}", m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime_nsec()).into())
    };
    own().unwrap_or_default()
}

/// The GNU build ID in the notes of an ELF file.
fn build_id(head: &[u8], read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let long = |b: &[u8], at: usize| Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?));
    let word = |b: &[u8], at: usize| Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?));
    let half = |b: &[u8], at: usize| Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?));
    let (table, size, count) = (long(head, 32)? as usize, half(head, 54)? as usize, half(head, 56)? as usize);
    for i in 0..count {
        let ph = head.get(table + i * size..)?;
        const PT_NOTE: u32 = 4;
        if word(ph, 0)? != PT_NOTE {
            continue;
        }
        let notes = read(long(ph, 8)?, (long(ph, 32)? as usize).min(1 << 16))?;
        let mut n = &notes[..];
        while n.len() >= 12 {
            let (name, desc) = (word(n, 0)? as usize, word(n, 4)? as usize);
            let at = 12 + name.next_multiple_of(4);
            const NT_GNU_BUILD_ID: u32 = 3;
            if word(n, 8)? == NT_GNU_BUILD_ID && n.get(12..16)? == b"GNU\0" {
                return Some(n.get(at..at + desc)?.to_vec());
            }
            n = n.get(at + desc.next_multiple_of(4)..)?;
        }
    }
    None
}

/// What the CPU says of itself.
fn cpu() -> Vec<u32> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid_count;
        let leaf = |l, s| {
            let r = __cpuid_count(l, s);
            [r.eax, r.ebx, r.ecx, r.edx]
        };
        // EBX of leaf 1 has the number of the CPU that runs this.
        let [a, _, c, d] = leaf(1, 0);
        // OSXSAVE: whether the system keeps the wide registers is in XCR0, which leaf 13 shows.
        [&[a, c, d][..], &leaf(7, 0), &leaf(0xd, 0)[..1]].concat()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        vec![]
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_same_each_time() {
        assert_eq!(super::engine(0), super::engine(0));
        assert_ne!(super::engine(0), super::engine(1));
        assert!(!super::build().is_empty());
    }
}
