//! The choices of one step.

/// Numbers, taken one after the other. All of them zero is the plainest choice, which is where shrinking leads.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    numbers: [u32; 8],
    taken: usize,
}

impl Dice {
    pub(crate) fn of(numbers: [u32; 8]) -> Self {
        Self { numbers, taken: 0 }
    }

    /// A number below `sides`, 0 if there are none.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        let number = self.numbers[self.taken % self.numbers.len()];
        self.taken += 1;
        (number as usize).checked_rem(sides).unwrap_or_default()
    }

    pub(crate) fn rarely(&mut self, one_in: usize) -> bool {
        self.roll(one_in) + 1 == one_in
    }

    /// One of these. There has to be one.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }

    pub(crate) fn maybe<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let chosen = self.roll(of.len());
        of.get(chosen).cloned()
    }

    /// Mostly `amount`, else its neighbours, nothing, and the ends of the numbers.
    pub(crate) fn around(&mut self, amount: u128) -> u128 {
        match self.roll(20) {
            12 => amount / 2,
            13 => amount.saturating_add(1),
            14 => amount.saturating_sub(1),
            15 => 1,
            16 => 0,
            17 => u64::MAX.into(),
            18 => u128::MAX,
            19 => u128::MAX / 10_000 + 1,
            _ => amount,
        }
    }

    /// As `around`, for numbers of 64 bits.
    pub(crate) fn near(&mut self, number: u64) -> u64 {
        u64::try_from(self.around(number.into())).unwrap_or(u64::MAX)
    }
}
