//! CPU models: what CPUID and XGETBV show. A model shows a feature only if the lifter translates it.

/// A named model.
#[derive(Debug)]
pub struct Model {
    /// Name, that of the psABI's level.
    pub name: &'static str,
    /// Leaf 1 EAX: family, model, stepping.
    signature: u32,
    /// Features in order of leaf and register.
    features: &'static [&'static [Feature]],
    /// What the host must have for the engines to run it: name and test.
    needs: &'static [Need],
}

/// An instruction set that an engine uses without alternative.
type Need = (&'static str, fn() -> bool);

// On hosts of other kinds everything is in portable code.
#[cfg(not(target_arch = "x86_64"))]
macro_rules! needs {
    ($($name:tt)*) => {
        &[]
    };
}
#[cfg(target_arch = "x86_64")]
macro_rules! needs {
    ($($name:tt)*) => { &[$( ($name, || std::arch::is_x86_feature_detected!($name)) ),*] };
}

/// The quick tier's templates and helpers. AES, PCLMULQDQ and SHA are done in software where the host has none.
const NEEDS_V2: &[Need] = needs!("ssse3" "sse4.1" "sse4.2" "popcnt" "cmpxchg16b");
/// Helpers run these as they are, for their rounding and flags (the tests look at XCR0 as well). BMI, LZCNT, MOVBE and
/// ADX are not needed: all of these are made of other instructions.
const NEEDS_V3: &[Need] = needs!("ssse3" "sse4.1" "sse4.2" "popcnt" "cmpxchg16b" "avx" "avx2" "fma" "f16c");

/// A feature bit: name as in /proc/cpuinfo, leaf, register (0-3: eax ebx ecx edx), bit.
type Feature = (&'static str, u32, usize, u32);

const BASE: &[Feature] = &[
    ("fpu", 1, 3, 0),
    ("de", 1, 3, 2),
    ("pse", 1, 3, 3),
    ("tsc", 1, 3, 4),
    ("msr", 1, 3, 5),
    ("pae", 1, 3, 6),
    ("cx8", 1, 3, 8),
    ("pge", 1, 3, 13),
    ("cmov", 1, 3, 15),
    ("pat", 1, 3, 16),
    ("clflush", 1, 3, 19),
    ("mmx", 1, 3, 23),
    ("fxsr", 1, 3, 24),
    ("sse", 1, 3, 25),
    ("sse2", 1, 3, 26),
    ("syscall", EXT, 3, 11),
    ("nx", EXT, 3, 20),
    ("rdtscp", EXT, 3, 27),
    ("lm", EXT, 3, 29),
    ("constant_tsc", 0x8000_0007, 3, 8),
];
const V2: &[Feature] = &[
    ("pni", 1, 2, 0),
    ("pclmulqdq", 1, 2, 1),
    ("ssse3", 1, 2, 9),
    ("cx16", 1, 2, 13),
    ("sse4_1", 1, 2, 19),
    ("sse4_2", 1, 2, 20),
    ("popcnt", 1, 2, 23),
    ("aes", 1, 2, 25),
    ("erms", 7, 1, 9),
    ("lahf_lm", EXT, 2, 0),
    ("3dnowprefetch", EXT, 2, 8),
];
const V3: &[Feature] = &[
    ("fma", 1, 2, 12),
    ("movbe", 1, 2, 22),
    ("xsave", 1, 2, 26),
    ("osxsave", 1, 2, 27),
    ("avx", 1, 2, 28),
    ("f16c", 1, 2, 29),
    ("bmi1", 7, 1, 3),
    ("avx2", 7, 1, 5),
    ("bmi2", 7, 1, 8),
    ("abm", EXT, 2, 5),
    ("xsaveopt", 0xd, 0, 0),
    ("xsavec", 0xd, 0, 1),
];
const EXT: u32 = 0x8000_0001;

/// The model that jobs get unless they ask for another. It is no matter of the host: one that cannot run it refuses, as the
/// results of a job must not depend on where it runs.
pub const DEFAULT: &str = "x86-64-v3";

/// The models; `CpuState::model` is an index into this.
pub static MODELS: &[Model] = &[
    Model { name: "x86-64-v2", signature: 0x0001_06a5, features: &[BASE, V2], needs: NEEDS_V2 },
    Model { name: "x86-64-v3", signature: 0x0003_06c3, features: &[BASE, V2, V3], needs: NEEDS_V3 },
];

const BRAND: &[u8; 48] = b"EVM virtual CPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Number of a model by name.
pub fn by_name(name: &str) -> Option<u32> {
    MODELS.iter().position(|m| m.name == name).map(|n| n as u32)
}

fn model(n: u32) -> &'static Model {
    MODELS.get(n as usize).unwrap_or(&MODELS[0])
}

/// Names of the features a model shows, as /proc/cpuinfo lists them.
pub fn features(n: u32) -> Vec<&'static str> {
    // Linux does not list OSXSAVE: the system has set it, the CPU has not.
    model(n).features.iter().flat_map(|f| f.iter().map(|f| f.0)).filter(|f| *f != "osxsave").collect()
}

/// Whether a model has the instructions that x86-64-v3 adds.
pub fn has_v3(n: u32) -> bool {
    model(n).features.iter().flat_map(|f| f.iter()).any(|f| f.0 == "avx2")
}

/// What this host lacks to run a model.
pub fn missing(n: u32) -> Vec<&'static str> {
    model(n).needs.iter().filter(|n| !(n.1)()).map(|n| n.0).collect()
}

/// Whether this host can run a model.
pub fn runs(n: u32) -> bool {
    missing(n).is_empty()
}

/// Extended control register 0, or 0 if the model has no XSAVE.
pub fn xcr0(n: u32) -> u64 {
    let m = model(n);
    if m.features.iter().any(|f| f.iter().any(|f| f.0 == "osxsave")) { 7 } else { 0 }
}

/// Level 1 data, level 1 instruction, level 2, level 3: type, level, ways, sets.
const CACHES: [(u32, u32, u32, u32); 4] = [(1, 1, 8, 64), (2, 1, 8, 64), (3, 2, 16, 1024), (3, 3, 16, 8192)];

/// EAX, EBX, ECX, EDX of CPUID.
pub fn cpuid(n: u32, cpus: u32, leaf: u32, sub: u32) -> [u32; 4] {
    let m = model(n);
    let cpus = cpus.clamp(1, 255);
    // Bits of an APIC number that tell the CPUs of a package apart.
    let shift = cpus.next_power_of_two().trailing_zeros();
    let mut r = match leaf {
        0 => [
            if xcr0(n) != 0 { 0xd } else { 0xb },
            u32::from_le_bytes(*b"Genu"),
            u32::from_le_bytes(*b"ntel"),
            u32::from_le_bytes(*b"ineI"),
        ],
        1 => [
            m.signature,
            8 << 8 | (1 << shift) << 16,
            0,
            // HTT: more than one logical CPU.
            u32::from(cpus > 1) << 28,
        ],
        // Leaf 4 has the caches; 64-byte prefetch.
        2 => [0x00fe_ff01, 0xf0, 0, 0],
        4 => match CACHES.get(sub as usize) {
            Some((kind, level, ways, sets)) => {
                let share = if *level == 3 { (1 << shift) - 1 } else { 0 };
                let cores = ((1u32 << shift) - 1).min(63);
                [kind | level << 5 | 1 << 8 | share << 14 | cores << 26, (ways - 1) << 22 | 63, sets - 1, 0]
            }
            None => [0; 4],
        },
        // The x87 pointers: FDP is of exceptions only, FCS and FDS are zero.
        7 if sub == 0 => [0, 1 << 6 | 1 << 13, 0, 0],
        0xb => match sub {
            0 => [0, 1, 0x100, 0],
            1 => [shift, cpus, 0x201, 0],
            _ => [0, 0, sub & 0xff, 0],
        },
        0xd if xcr0(n) != 0 => match sub {
            0 => [7, 832, 832, 0],
            // XSAVEOPT and XSAVEC are among the features.
            1 => [0, 832, 0, 0],
            2 => [256, 576, 0, 0],
            _ => [0; 4],
        },
        0x8000_0000 => [0x8000_0008, 0, 0, 0],
        0x8000_0002..=0x8000_0004 => {
            let at = (leaf - 0x8000_0002) as usize * 16;
            std::array::from_fn(|k| {
                let b = &BRAND[at + 4 * k..];
                u32::from_le_bytes([b[0], b[1], b[2], b[3]])
            })
        }
        // 1 MiB, 16 ways (code 8), 64-byte lines.
        0x8000_0006 => [0, 0, 1024 << 16 | 8 << 12 | 64, 0],
        // 40 physical, 48 virtual address bits.
        0x8000_0008 => [0x3028, 0, 0, 0],
        _ => [0; 4],
    };
    // Features are in subleaf 0, those of the extended state in 1.
    if !matches!((leaf, sub), (7, 1..) | (0xd, 0 | 2..)) {
        for f in m.features.iter().flat_map(|f| f.iter()) {
            if f.1 == leaf {
                r[f.2] |= 1 << f.3;
            }
        }
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let v2 = by_name("x86-64-v2").expect("model");
        let v3 = by_name("x86-64-v3").expect("model");
        assert_eq!((v2, by_name("8086")), (0, None));
        // Leaf 1 ECX of the psABI's levels: SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT; then AVX, F16C, FMA, MOVBE, OSXSAVE.
        let l2 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
        let l3 = 1 << 28 | 1 << 29 | 1 << 12 | 1 << 22 | 1 << 27;
        assert_eq!(cpuid(v2, 4, 1, 0)[2] & (l2 | l3), l2);
        assert_eq!(cpuid(v3, 4, 1, 0)[2] & (l2 | l3), l2 | l3);
        assert_eq!((xcr0(v2), xcr0(v3)), (0, 7));
        assert_eq!((has_v3(v2), has_v3(v3)), (false, true));
        assert_eq!((cpuid(v3, 1, 0xd, 1)[0], cpuid(v3, 1, 0xd, 0)[0], cpuid(v2, 1, 0xd, 1)), (3, 7, [0; 4]));
        assert!(features(v3).contains(&"xsaveopt") && !features(v3).contains(&"osxsave"));
        let brand: Vec<u8> =
            (0x8000_0002..=0x8000_0004).flat_map(|l| cpuid(v2, 1, l, 0)).flat_map(u32::to_le_bytes).collect();
        assert!(brand.starts_with(b"EVM virtual CPU\0"));
        // Sizes of the caches: ways * sets * 64.
        let l1 = cpuid(v2, 1, 4, 0);
        assert_eq!(((l1[1] >> 22) + 1) * (l1[2] + 1) * 64, 32 << 10);
        assert_eq!(cpuid(v2, 1, 4, 4)[0] & 31, 0);
        for leaf in [0, 1, 2, 4, 7, 0xb, 0xd, 0x14, 0x8000_0000, 0x8000_0008, u32::MAX] {
            for cpus in [0, 1, 3, 256, u32::MAX] {
                cpuid(v3, cpus, leaf, 1);
            }
        }
    }
}
