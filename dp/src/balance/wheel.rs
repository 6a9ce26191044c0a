//! Weighted round-robin without a wheel in memory: a position walks the slots of all targets with a stride near the
//! golden ratio, so that every full round is exact and every part of it is close to the weights.

/// The weights of a list of targets, prepared for picking.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The end of each target's slots.
    ends: Vec<u64>,
    stride: u64,
}

impl Wheel {
    pub(super) fn new(weights: impl Iterator<Item = u64> + Clone) -> Self {
        let divisor = weights.clone().fold(0, gcd).max(1);
        let sum = |total: &mut u64, weight: u64| {
            *total += weight / divisor;
            Some(*total)
        };
        let ends: Vec<u64> = weights.scan(0, sum).collect();
        let slots = ends.last().copied().unwrap_or_default();
        Self {
            ends,
            stride: stride(slots),
        }
    }

    /// How many picks make a full round; zero if no target has weight.
    pub(super) fn slots(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The index of the target for a position; `None` if no target has weight.
    pub(super) fn pick(&self, position: u64) -> Option<usize> {
        let slots = self.slots();
        // Below 2^32 each: at most 65,535 per target and far fewer than 65,536 targets.
        let slot = (position.checked_rem(slots)? * self.stride) % slots;
        Some(self.ends.partition_point(|end| *end <= slot))
    }

    /// Whether the target ever comes up.
    pub(super) fn has_weight(&self, index: usize) -> bool {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.ends[index] > start
    }
}

/// A step that visits all slots, near `slots` times the golden ratio.
fn stride(slots: u64) -> u64 {
    let golden = slots * 618 / 1000;
    (golden.max(1)..)
        .find(|step| gcd(*step, slots) == 1)
        .unwrap_or(1)
}

fn gcd(one: u64, two: u64) -> u64 {
    if two == 0 { one } else { gcd(two, one % two) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u64], picks: u64) -> Vec<u64> {
        let wheel = Wheel::new(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        (0..picks).for_each(|position| counts[wheel.pick(position).unwrap()] += 1);
        counts
    }

    #[test]
    fn a_round_gives_each_target_exactly_its_weight() {
        let check = |weights: &[u64], picks, expected: &[u64]| {
            assert_eq!(counts(weights, picks), expected, "{weights:?}");
        };
        check(&[100, 100], 2, &[1, 1]);
        check(&[100, 100, 100], 300, &[100, 100, 100]);
        check(&[1], 5, &[5]);
        check(&[3, 1], 4, &[3, 1]);
        check(&[10, 0, 30], 4, &[1, 0, 3]);
        check(&[65_535, 65_534], 131_069, &[65_535, 65_534]);
    }

    #[test]
    fn a_part_of_a_round_is_close_to_the_weights() {
        let counted = counts(&[900, 99, 1], 100);
        assert!((85..=95).contains(&counted[0]), "{counted:?}");
        assert!((5..=15).contains(&counted[1]), "{counted:?}");
    }

    #[test]
    fn without_weight_there_is_no_pick() {
        assert_eq!(Wheel::new([].into_iter()).pick(3), None);
        assert_eq!(Wheel::new([0, 0].into_iter()).pick(3), None);
    }
}
