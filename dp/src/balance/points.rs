//! Consistent hashing: every address has points on a circle of 64 bits, and a request goes to the address of the next
//! point after its hash. A change of one address moves only the requests between its points and those before them.

use std::fmt::Display;
use std::hash::Hasher;

/// Points of an address of average weight, if there is room; Kong's number.
const POINTS_EACH: u64 = 160;

/// Between the values that an address's points are mixed from; `splitmix64`'s.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The circle.
#[derive(Debug, Default)]
pub(super) struct Points(Box<[(u64, u32)]>);

impl Points {
    /// The points of addresses by name and weight, at most about `slots`. The same on every node: nothing but names and
    /// weights counts.
    pub(super) fn new<N: Display>(addresses: &[(N, u64)], slots: u32) -> Self {
        let weighted = addresses.iter().filter(|(_, weight)| *weight > 0);
        let count = weighted.clone().count() as u64;
        let sum: u64 = weighted.map(|(_, weight)| weight).sum();
        let room = (POINTS_EACH * count).min(slots.into()).max(count);
        let mut points = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
        for (index, (name, weight)) in addresses.iter().enumerate() {
            let Ok(index) = u32::try_from(index) else {
                break;
            };
            let share = (room * weight).checked_div(sum).unwrap_or_default();
            let own = if *weight > 0 { share.max(1) } else { 0 };
            let first = hash(name.to_string().as_bytes());
            let point = |number: u64| mix(first.wrapping_add(number.wrapping_mul(STEP)));
            points.extend((0..own).map(|number| (point(number), index)));
        }
        points.sort_unstable();
        Self(points.into())
    }

    /// The indices of addresses in the order in which a hash finds them; one may come again.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.0.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

/// The same for the same bytes, on every node and in every version: FNV-1a, and a mix that spreads what is alike.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    fnv.write(bytes);
    mix(fnv.finish())
}

/// The end of `splitmix64`.
pub(super) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: u32 = 4000;
    const SLOTS: u32 = 10_000;

    fn owners(addresses: &[(String, u64)]) -> Vec<String> {
        let points = Points::new(addresses, SLOTS);
        let keys = (0..KEYS).map(|key| hash(&key.to_be_bytes()));
        let owner = |key| {
            points
                .from(key)
                .next()
                .map(|index| addresses[index].0.clone())
        };
        keys.filter_map(owner).collect()
    }

    #[test]
    fn without_weight_there_is_no_point() {
        assert_eq!(Points::new(&[("a", 0)], SLOTS).from(7).next(), None);
        assert_eq!(Points::new::<&str>(&[], SLOTS).from(7).next(), None);
    }

    #[test]
    fn hashes_are_the_same_in_every_version() {
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash(b"anna"), 0x8ed2_27c0_ee63_f504);
    }

    #[test]
    fn the_same_address_is_found_in_every_version() {
        let names = ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"];
        let addresses = names.map(|name| (name.to_owned(), 100));
        let owners = owners(&addresses);
        let index = |owner: &String| names.iter().position(|name| name == owner).unwrap();
        let found: Vec<usize> = owners.iter().take(16).map(index).collect();
        assert_eq!(found, [0, 0, 2, 2, 1, 0, 0, 1, 0, 1, 2, 0, 0, 0, 2, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn keys_are_shared_by_weight(weights in prop::collection::vec(1_u64..=10, 1..20)) {
            let addresses: Vec<_> = weights.iter().enumerate()
                .map(|(index, weight)| (format!("10.0.0.{index}:80"), *weight)).collect();
            let owners = owners(&addresses);
            let sum: u64 = weights.iter().sum();
            for (name, weight) in &addresses {
                let share = owners.iter().filter(|owner| *owner == name).count();
                let fair = usize::try_from(u64::from(KEYS) * weight / sum).unwrap();
                prop_assert!(share < fair * 2 + 60 && share + 60 > fair / 2, "{name}: {share} of {fair}");
            }
        }

        #[test]
        fn a_target_that_comes_or_goes_moves_about_its_share(
            count in 2_usize..40, gone in 0_usize..40, order in any::<u64>(),
        ) {
            let all: Vec<_> = (0..count).map(|index| (format!("10.0.{index}.1:80"), 100)).collect();
            let gone = gone % count;
            let mut fewer = all.clone();
            fewer.remove(gone);
            // The order in which they are listed does not matter.
            let turn = usize::try_from(order % fewer.len().max(1) as u64).unwrap();
            fewer.rotate_left(turn);
            let (before, after) = (owners(&all), owners(&fewer));
            let moved = before.iter().zip(&after).filter(|(one, two)| one != two).count();
            let own = before.iter().filter(|owner| **owner == all[gone].0).count();
            // Fewer targets leave more points for each where slots are scarce, which moves a few more.
            let slack = if count * 160 > SLOTS as usize { KEYS as usize / count * 2 } else { 0 };
            prop_assert!(moved <= own + slack, "{moved} moved, {own} had to");
        }
    }
}
