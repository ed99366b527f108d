//! Appends data to a module: named blobs behind its initial memory, which grows by as much.
//!
//! The module exports a global, [`HEADER`], with the address of four words of 32 bits. The last two become the number of blobs
//! and the address of their list, `(name: [u8; 8], address: u32, length: u32)` each. Sections that are not concerned are copied.

use anyhow::{Context, Result, bail, ensure};

/// Export with the address of the words.
const HEADER: &str = "evm_lifted";
const PAGE: usize = 65536;

/// A name and bytes.
pub struct Blob {
    /// What it is.
    pub name: [u8; 8],
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A cursor over a module.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8> {
        let (b, rest) = self.0.split_first().context("it ends early")?;
        self.0 = rest;
        Ok(*b)
    }
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        ensure!(n <= self.0.len(), "it ends early");
        let (a, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(a)
    }
    fn number(&mut self) -> Result<u64> {
        let (mut v, mut shift) = (0, 0);
        loop {
            let b = self.byte()?;
            ensure!(shift < 63, "a number is too long");
            v |= u64::from(b & 0x7f) << shift;
            shift += 7;
            if b & 0x80 == 0 {
                return Ok(v);
            }
        }
    }
    fn signed(&mut self) -> Result<i64> {
        let (mut v, mut shift) = (0i64, 0);
        loop {
            let b = self.byte()?;
            ensure!(shift < 63, "a number is too long");
            v |= i64::from(b & 0x7f) << shift;
            shift += 7;
            if b & 0x80 == 0 {
                return Ok(if b & 0x40 != 0 { v | -1 << shift } else { v });
            }
        }
    }
    fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.number()? as usize;
        self.take(n)
    }
    /// The value of `i32.const`; with the end of the expression.
    fn constant(&mut self) -> Result<u32> {
        ensure!(self.byte()? == 0x41, "an initial value is no number");
        let v = self.signed()? as u32;
        ensure!(self.byte()? == 0x0b, "an initial value is no number");
        Ok(v)
    }
}

fn number(out: &mut Vec<u8>, mut v: u64) {
    loop {
        let b = (v & 0x7f) as u8;
        v >>= 7;
        if v == 0 {
            return out.push(b);
        }
        out.push(b | 0x80);
    }
}
fn signed(out: &mut Vec<u8>, mut v: i64) {
    loop {
        let b = (v & 0x7f) as u8;
        v >>= 7;
        if v == 0 && b & 0x40 == 0 || v == -1 && b & 0x40 != 0 {
            return out.push(b);
        }
        out.push(b | 0x80);
    }
}
fn section(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    number(out, body.len() as u64);
    out.extend_from_slice(body);
}
/// An active segment.
fn segment(out: &mut Vec<u8>, at: u32, bytes: &[u8]) {
    number(out, 0);
    out.push(0x41);
    signed(out, i64::from(at as i32));
    out.push(0x0b);
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What has to be known of a module.
struct Module<'a> {
    sections: Vec<(u8, &'a [u8])>,
    /// Initial and largest size of its memory, in pages.
    memory: (u64, Option<u64>),
    header: u32,
}

fn read(module: &[u8]) -> Result<Module<'_>> {
    let mut r = Reader(module);
    ensure!(r.take(8)? == b"\0asm\x01\0\0\0", "it is no WebAssembly module");
    let mut sections = Vec::new();
    while !r.0.is_empty() {
        let id = r.byte()?;
        sections.push((id, r.bytes()?));
    }
    let body = |id: u8| sections.iter().find(|s| s.0 == id).map(|s| Reader(s.1)).context("a section is missing");
    let mut m = body(5)?;
    ensure!(m.number()? == 1, "it has not one memory");
    let flags = m.byte()?;
    ensure!(flags <= 1, "its memory is shared or has 64 bits");
    let memory = (m.number()?, if flags == 1 { Some(m.number()?) } else { None });
    let mut e = body(7)?;
    let mut global = None;
    for _ in 0..e.number()? {
        let (name, kind, index) = (e.bytes()?, e.byte()?, e.number()?);
        if name == HEADER.as_bytes() && kind == 3 {
            global = Some(index);
        }
    }
    let global = global.with_context(|| format!("it does not export {HEADER}"))?;
    let mut g = body(6)?;
    let mut header = None;
    for i in 0..g.number()? {
        g.take(2)?;
        // Globals of other types have other initial values.
        let mut probe = g;
        match probe.constant() {
            Ok(v) if i == global => header = Some(v),
            Ok(_) => {}
            Err(_) => while probe.byte()? != 0x0b {},
        }
        g = probe;
    }
    Ok(Module { memory, header: header.with_context(|| format!("its global {HEADER} is imported"))?, sections })
}

/// The module with blobs.
pub fn append(module: &[u8], blobs: &[Blob]) -> Result<Vec<u8>> {
    let m = read(module).context("the runtime module")?;
    let base = m.memory.0 as usize * PAGE;
    let mut data = Vec::new();
    let mut at = base + 16 * blobs.len();
    for b in blobs {
        data.extend_from_slice(&b.name);
        data.extend_from_slice(&u32::try_from(at)?.to_le_bytes());
        data.extend_from_slice(&u32::try_from(b.bytes.len())?.to_le_bytes());
        at += b.bytes.len().next_multiple_of(16);
    }
    for b in blobs {
        data.extend_from_slice(&b.bytes);
        data.resize(data.len().next_multiple_of(16), 0);
    }
    let pages = (base + data.len()).div_ceil(PAGE) as u64;
    // The guest's memory has to fit into the 4 GiB as well.
    if pages > 1 << 15 {
        bail!("the files have {} MiB, which is more than a module can hold", data.len() >> 20);
    }
    let mut out = module[..8].to_vec();
    for (id, body) in &m.sections {
        let mut changed = Vec::new();
        let mut r = Reader(body);
        match id {
            5 => {
                number(&mut changed, 1);
                changed.push(m.memory.1.is_some().into());
                number(&mut changed, pages);
                if let Some(max) = m.memory.1 {
                    number(&mut changed, max.max(pages));
                }
            }
            11 => {
                number(&mut changed, r.number()? + 2);
                changed.extend_from_slice(r.0);
                let words = [0, 0, blobs.len() as u32, base as u32].map(u32::to_le_bytes).concat();
                segment(&mut changed, m.header, &words);
                segment(&mut changed, base as u32, &data);
            }
            12 => number(&mut changed, r.number()? + 2),
            _ => changed.extend_from_slice(body),
        }
        section(&mut out, *id, &changed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for v in [0, 1, 63, 64, 127, 128, 65535, 1 << 31, u64::from(u32::MAX)] {
            let mut b = Vec::new();
            number(&mut b, v);
            assert_eq!(Reader(&b).number().unwrap(), v);
        }
        for v in [0, -1, 63, 64, -64, -65, i64::from(i32::MIN), i64::from(i32::MAX)] {
            let mut b = Vec::new();
            signed(&mut b, v);
            assert_eq!(Reader(&b).signed().unwrap(), v);
        }
    }

    #[test]
    fn what_is_no_runtime_is_refused() {
        for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"\x7fELF\x02\x01\x01\0", b"\0asm\x01\0\0\0\x05\xff"] {
            assert!(append(bytes, &[]).is_err());
        }
    }
}
