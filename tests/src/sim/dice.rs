//! Chance: everything random in a run comes out of its seed, on any machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::time::Duration;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream `name` of a seed. Streams do not disturb each other: one more fault on a disk does not change what the
    /// network does.
    pub(crate) fn new(seed: u64, name: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(name);
        Self(rng)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The product's upper half: as good as even for bounds this small.
        let product = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// An index below `bound`.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True so many times in 10,000.
    pub(crate) fn chance(&mut self, of_10000: u32) -> bool {
        of_10000 > 0 && self.below(10_000) < u64::from(of_10000)
    }

    /// From `low` to `high` milliseconds.
    pub(crate) fn milliseconds(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.index(from.len());
        from.get(at)
    }

    /// Random bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_on_every_machine() {
        let mut dice = Dice::new(7, 1);
        let numbers: Vec<u64> = (0..6).map(|_| dice.below(1000)).collect();
        let mut again = Dice::new(7, 1);
        assert!(numbers.iter().all(|number| *number == again.below(1000)));
        let mut other = Dice::new(7, 2);
        assert!(numbers.iter().any(|number| *number != other.below(1000)));
        assert!((0..1000).all(|_| (3..=5).contains(&dice.between(3, 5))));
    }
}
