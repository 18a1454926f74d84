//! Numbers that look random and depend on a seed and an input's number only (splitmix64).

/// A stream of numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of input `run`.
    pub(crate) fn new(seed: u64, run: u64) -> Self {
        let mut random = Self(seed ^ run.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = end as u64;
        usize::try_from(self.next().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A number near a boundary, or any.
    pub(crate) fn number(&mut self) -> u64 {
        let edges = [0, 1, 7, 8, 511, 512, 513, 4096, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 63];
        match self.below(4) {
            0 => u64::MAX - self.next() % 3,
            1 => u64::wrapping_sub(*self.pick(&edges), self.next() % 3),
            2 => self.next() % 2048,
            _ => self.next() >> self.below(64),
        }
    }
}
