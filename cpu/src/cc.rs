//! Lazy condition codes: an operation and its operands stand for CF, PF, AF, ZF, SF and OF.
//!
//! `cc_op` = kind | log2(width in bytes) (kinds are multiples of 4). Operands are zero-extended
//! values of the width unless said otherwise. With [`REPLACED`], CF is bit 9 of `cc_op` instead.
//!
//! What the manual leaves undefined has one value here, that of Intel's CPUs, so that copied code agrees: AF is 0 after logic,
//! shifts and multiplies; ZF is 0 and SF and PF follow the low result after multiplies; OF after shifts and rotates is
//! what a count of one would give (but ROL and ROR of a register by another constant leave it); bit tests change CF only and
//! divisions nothing; scans give the parity of the index.

/// CF | PF | AF | ZF | SF | OF.
pub const MASK: u64 = 0x8d5;
#[allow(missing_docs)]
pub const CF: u64 = 1;
#[allow(missing_docs)]
pub const PF: u64 = 4;
#[allow(missing_docs)]
pub const AF: u64 = 0x10;
#[allow(missing_docs)]
pub const ZF: u64 = 0x40;
#[allow(missing_docs)]
pub const SF: u64 = 0x80;
#[allow(missing_docs)]
pub const OF: u64 = 0x800;

/// In `cc_op`: CF is [`NEW_CF`], whatever the operation says. (A bit test keeps the other flags.)
pub const REPLACED: u64 = 0x100;
/// In `cc_op`, with [`REPLACED`].
pub const NEW_CF: u64 = 0x200;

/// `cc_a` holds the flags themselves, in their RFLAGS positions (no width).
pub const EAGER: u64 = 0;
/// a + b.
pub const ADD: u64 = 4;
/// a - b (also CMP, NEG with a = 0, CMPXCHG, SCAS, CMPS).
pub const SUB: u64 = 8;
/// a = result; CF = OF = AF = 0.
pub const LOGIC: u64 = 12;
/// a + b + c (c = carry in, 0 or 1).
pub const ADC: u64 = 16;
/// a - b - c.
pub const SBB: u64 = 20;
/// a = result of adding one; c = CF kept.
pub const INC: u64 = 24;
/// a = result of subtracting one; c = CF kept.
pub const DEC: u64 = 28;
/// a = value before, b = count (1..=width; masked, not 0).
pub const SHL: u64 = 32;
/// a = value before, b = count.
pub const SHR: u64 = 36;
/// a = value before, sign-extended to 64 bits, b = count.
pub const SAR: u64 = 40;
/// Only ZF, from a, and CF, from c (counts and BEXTR).
pub const ZERO: u64 = 44;
/// UCOMISD/COMISD: a, b = bits of the doubles (low bits 0 or ignored: width 3); with width 2, of floats.
pub const FCMP: u64 = 48;
/// a = result, c = CF; OF = 0, AF = 0 (BMI: ANDN, BLSR, BLSI, BLSMSK, BZHI; ZF/SF from the result).
pub const BMI: u64 = 52;
/// Signed product of a and b (zero-extended operands): CF = OF = it does not fit the width.
pub const SMUL: u64 = 56;
/// Unsigned product of a and b.
pub const UMUL: u64 = 60;
/// a = result (ZF, SF, PF); c = CF and OF in their RFLAGS positions; AF = 0.
pub const RES: u64 = 64;
/// BSF: a = source.
pub const BSF: u64 = 72;
/// BSR: a = source.
pub const BSR: u64 = 76;
/// a = PF, AF, ZF and SF in their RFLAGS positions; b = CF and c = OF, 0 or 1 (ADCX, ADOX: chains of carries in turn).
pub const CARRIES: u64 = 68;

/// The flags (only bits of [`MASK`]) that an operation stands for.
pub fn flags(op: u64, a: u64, b: u64, c: u64) -> u64 {
    if op & REPLACED != 0 {
        return flags(op & !(REPLACED | NEW_CF), a, b, c) & !CF | if op & NEW_CF != 0 { CF } else { 0 };
    }
    let bits = 8u32 << (op & 3);
    let mask = u64::MAX >> (64 - bits);
    let sign = 1u64 << (bits - 1);
    let szp = |r: u64| {
        let r = r & mask;
        (if r == 0 { ZF } else { 0 })
            | (if r & sign != 0 { SF } else { 0 })
            | (if (r as u8).count_ones() & 1 == 0 { PF } else { 0 })
    };
    let bit = |cond: bool, f: u64| if cond { f } else { 0 };
    match op & !3 {
        ADD | ADC => {
            let c = if op & !3 == ADC { c & 1 } else { 0 };
            let (a, b) = (a & mask, b & mask);
            let wide = u128::from(a) + u128::from(b) + u128::from(c);
            let r = wide as u64 & mask;
            szp(r) | bit(wide > u128::from(mask), CF) | ((a ^ b ^ r) & AF) | bit((a ^ r) & (b ^ r) & sign != 0, OF)
        }
        SUB | SBB => {
            let c = if op & !3 == SBB { c & 1 } else { 0 };
            let (a, b) = (a & mask, b & mask);
            let r = a.wrapping_sub(b).wrapping_sub(c) & mask;
            szp(r)
                | bit(u128::from(a) < u128::from(b) + u128::from(c), CF)
                | ((a ^ b ^ r) & AF)
                | bit((a ^ b) & (a ^ r) & sign != 0, OF)
        }
        LOGIC => szp(a),
        INC => szp(a) | bit(c & 1 != 0, CF) | bit(a & 15 == 0, AF) | bit(a & mask == sign, OF),
        DEC => szp(a) | bit(c & 1 != 0, CF) | bit(a & 15 == 15, AF) | bit(a & mask == sign - 1, OF),
        SHL => {
            let a = a & mask;
            let n = b as u32;
            let r = if n >= 64 { 0 } else { a << n } & mask;
            let cf = (1..=bits).contains(&n) && (a >> (bits - n)) & 1 != 0;
            szp(r) | bit(cf, CF) | bit((a ^ a << 1) & sign != 0, OF)
        }
        SHR => {
            let a = a & mask;
            let n = b as u32;
            let r = if n >= 64 { 0 } else { a >> n };
            let cf = (a >> n.wrapping_sub(1).min(63)) & 1 != 0;
            szp(r) | bit(cf, CF) | bit(a & sign != 0, OF)
        }
        SAR => {
            let n = (b as u32).min(63);
            let r = (a as i64 >> n) as u64;
            let cf = (a as i64 >> (b as u32).wrapping_sub(1).min(63)) & 1 != 0;
            szp(r) | bit(cf, CF)
        }
        SMUL => {
            let sext = |v: u64| i128::from((v << (64 - bits)) as i64 >> (64 - bits));
            let r = sext(a) * sext(b);
            szp(r as u64) & !ZF | bit(r != sext(r as u64), CF | OF)
        }
        UMUL => {
            let r = u128::from(a & mask) * u128::from(b & mask);
            szp(r as u64) & !ZF | bit(r > u128::from(mask), CF | OF)
        }
        CARRIES => (a & (PF | AF | ZF | SF)) | bit(b & 1 != 0, CF) | bit(c & 1 != 0, OF),
        RES => szp(a) | (c & (CF | OF)),
        ZERO => szp(a) & ZF | bit(c & 1 != 0, CF),
        BSF | BSR => {
            let a = a & mask;
            let index = if op & !3 == BSF { a.trailing_zeros() } else { 63 ^ a.leading_zeros() };
            szp(u64::from(index)) & PF | bit(a == 0, ZF | PF)
        }
        FCMP => {
            let order = float_order(op & 3 == 2, a, b);
            match order {
                None => ZF | PF | CF,
                Some(std::cmp::Ordering::Less) => CF,
                Some(std::cmp::Ordering::Equal) => ZF,
                Some(std::cmp::Ordering::Greater) => 0,
            }
        }
        BMI => (szp(a) & !PF) | bit(c & 1 != 0, CF),
        _ => a & MASK,
    }
}

/// How two floating-point operands compare, as UCOMISx does under the current MXCSR.
#[cfg(target_arch = "x86_64")]
fn float_order(single: bool, a: u64, b: u64) -> Option<std::cmp::Ordering> {
    // Compared in their own width: a conversion would raise flags of its own.
    if single {
        f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32))
    } else {
        f64::from_bits(a).partial_cmp(&f64::from_bits(b))
    }
}
/// How two floating-point operands compare, as UCOMISx does under the current MXCSR.
#[cfg(not(target_arch = "x86_64"))]
fn float_order(single: bool, a: u64, b: u64) -> Option<std::cmp::Ordering> {
    use evm_fpu::sse::{Double, Single, relation};
    let r = if single {
        relation::<Single>(a & 0xffff_ffff, b & 0xffff_ffff, false)
    } else {
        relation::<Double>(a, b, false)
    };
    match r {
        8 => Some(std::cmp::Ordering::Less),
        4 => Some(std::cmp::Ordering::Equal),
        2 => Some(std::cmp::Ordering::Greater),
        _ => None,
    }
}
