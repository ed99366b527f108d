//! Short forms of jumps. Most blocks are small, so a byte reaches nearly all that a jump within one goes to.

use super::Asm;

/// What is known of the jumps, one behind the other as in [`Asm::fixups`].
#[derive(Default)]
pub(crate) struct Jumps {
    /// It needs a displacement of 32 bits.
    long: Vec<bool>,
    /// Bytes that those before it save; one more for all.
    saved: Vec<u32>,
}

const CALL: u8 = 0xe8;

impl Asm {
    /// Bytes that a jump with its displacement at `at` saves by being short: JMP is one byte and four, Jcc two and four.
    fn saving(&self, at: u32) -> u32 {
        if self.is_jmp(at) { 3 } else { 4 }
    }
    fn is_jmp(&self, at: u32) -> bool {
        self.code[at as usize - 1] == 0xe9
    }
    /// Where a place in the long code is in the short one.
    fn moved(&self, place: u32) -> u32 {
        place - self.jumps.saved[self.fixups.partition_point(|f| f.0 < place)]
    }

    /// Make jumps short where they can be. All labels are bound, and nothing of the constants is there yet.
    pub(crate) fn shorten(&mut self, marks: &mut [(u32, u64)]) {
        self.jumps.long.clear();
        // Calls have no short form.
        self.jumps.long.extend(self.fixups.iter().map(|f| self.code[f.0 as usize - 1] == CALL));
        while self.lengthen() {}
        for k in 0..self.labels.len() {
            self.labels[k] = if self.labels[k] == super::UNBOUND { self.labels[k] } else { self.moved(self.labels[k]) };
        }
        for k in 0..self.const_fixups.len() {
            self.const_fixups[k].0 = self.moved(self.const_fixups[k].0);
        }
        for m in marks {
            m.0 = self.moved(m.0);
        }
        self.rewrite();
    }
    /// Find short jumps that do not reach. One that has become longer may be why another does not.
    fn lengthen(&mut self) -> bool {
        let mut saved = std::mem::take(&mut self.jumps.saved);
        saved.clear();
        let mut sum = 0;
        for (n, f) in self.fixups.iter().enumerate() {
            saved.push(sum);
            sum += if self.jumps.long[n] { 0 } else { self.saving(f.0) };
        }
        saved.push(sum);
        self.jumps.saved = saved;
        let mut more = false;
        for n in 0..self.fixups.len() {
            let (at, l) = self.fixups[n];
            let (to, end) = (self.moved(self.labels[l.0 as usize]), self.moved(at + 4));
            if !self.jumps.long[n] && i8::try_from(i64::from(to) - i64::from(end)).is_err() {
                self.jumps.long[n] = true;
                more = true;
            }
        }
        more
    }
    /// Move the code together; displacements are still to be filled in.
    fn rewrite(&mut self) {
        let (mut from, mut to) = (0, 0);
        for n in 0..self.fixups.len() {
            let at = self.fixups[n].0 as usize;
            let jmp = self.is_jmp(at as u32);
            let start = if jmp || self.code[at - 1] == CALL { at - 1 } else { at - 2 };
            self.code.copy_within(from..start, to);
            to += start - from;
            if self.jumps.long[n] {
                self.code.copy_within(start..at, to);
                to += at - start;
                self.fixups[n].0 = to as u32;
                to += 4;
            } else {
                self.code[to] = if jmp { 0xeb } else { self.code[at - 1] & 15 | 0x70 };
                self.fixups[n].0 = to as u32 + 1;
                to += 2;
            }
            from = at + 4;
        }
        self.code.copy_within(from.., to);
        self.code.truncate(self.code.len() - (from - to));
    }
    /// Fill in the displacements.
    pub(crate) fn resolve(&mut self) {
        for (n, (at, l)) in self.fixups.iter().enumerate() {
            let (at, to) = (*at as usize, self.labels[l.0 as usize]);
            if self.jumps.long[n] {
                self.code[at..at + 4].copy_from_slice(&to.wrapping_sub(at as u32 + 4).to_le_bytes());
            } else {
                self.code[at] = to.wrapping_sub(at as u32 + 1) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Asm, cc};

    /// A jump over `n` bytes, forwards and backwards.
    fn over(n: usize) -> (Vec<u8>, u32) {
        let mut a = Asm::default();
        let (begin, end) = (a.label(), a.label());
        a.bind(begin);
        a.jcc(cc::E, end);
        for _ in 0..n {
            a.ret();
        }
        let mark = a.pos();
        a.jmp(begin);
        a.bind(end);
        let mut marks = [(mark, 0)];
        assert!(a.finish(&mut marks));
        (a.code.clone(), marks[0].0)
    }

    #[test]
    fn jumps_are_as_short_as_they_can_be() {
        let (code, mark) = over(10);
        assert_eq!((code.len(), mark, &code[..2], &code[12..]), (14, 12, &[0x74, 12][..], &[0xeb, 0xf2][..]));
        // The jump back reaches 128 bytes, the one forwards 127: with 125 bytes between them both are long.
        let (code, _) = over(123);
        assert_eq!((code.len(), &code[..2], &code[125..]), (127, &[0x74, 125][..], &[0xeb, 0x81][..]));
        let (code, mark) = over(130);
        assert_eq!((code.len(), mark, &code[..6]), (141, 136, &[0x0f, 0x84, 135, 0, 0, 0][..]));
        assert_eq!(code[136..], [0xe9, 0x73, 0xff, 0xff, 0xff]);
    }
}
