//! An order-free hash of a whole state that is updated in the size of a change.
//!
//! `LtHash` (Bellare and Micciancio's lattice hash; the 16-bit, 1024-lane parameters of Facebook's folly): each
//! entity is expanded to 1024 numbers of 16 bits with BLAKE3, and the state is their lane-wise sum. Adding,
//! replacing and removing an entity are additions and subtractions, so order and history do not matter.

use crate::entity::{Body, Key};
use crate::hash::Hash32;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const LANES: usize = 1024;

/// The running sum. 2 KiB; its [`Digest`] is what travels.
#[derive(Clone, PartialEq, Eq)]
pub struct Accumulator(Box<[u16; LANES]>);

/// The 32-byte hash of an [`Accumulator`]: equal for equal states, on every node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub Hash32);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Accumulator {
    /// Adds an entity.
    pub fn add(&mut self, key: &Key, body: &Body) {
        expand(key, body, |lane, value| {
            self.0[lane] = self.0[lane].wrapping_add(value)
        });
    }

    /// Takes an entity out that was added before.
    pub fn remove(&mut self, key: &Key, body: &Body) {
        expand(key, body, |lane, value| {
            self.0[lane] = self.0[lane].wrapping_sub(value)
        });
    }

    /// The digest of the state summed up so far.
    pub fn digest(&self) -> Digest {
        Digest(Hash32::of(&self.to_bytes()))
    }

    /// The sum as 2048 bytes, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// The sum from [`Accumulator::to_bytes`]; `None` if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LANES * 2 {
            return None;
        }
        let mut sum = Self::default();
        for (lane, pair) in sum.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(sum)
    }
}

impl Default for Accumulator {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Accumulator({})", self.digest())
    }
}

impl Serialize for Accumulator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Accumulator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let body = Body::deserialize(deserializer)?;
        Self::from_bytes(body.as_bytes())
            .ok_or_else(|| de::Error::invalid_length(body.as_bytes().len(), &"2048 bytes"))
    }
}

/// Feeds the 1024 numbers of one entity to `each`. Every part is preceded by its length, so that no two entities
/// can share a hash input.
fn expand(key: &Key, body: &Body, mut each: impl FnMut(usize, u16)) {
    let mut hasher = blake3::Hasher::new_derive_key("sluice 2026 entity digest v1");
    for part in [
        key.kind.as_str().as_bytes(),
        key.workspace.as_str().as_bytes(),
        key.id.0.as_bytes(),
        body.as_bytes(),
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0_u8; LANES * 2];
    hasher.finalize_xof().fill(&mut bytes);
    for (lane, pair) in bytes.chunks_exact(2).enumerate() {
        each(lane, u16::from_le_bytes([pair[0], pair[1]]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::{Id, KindName, Workspace};
    use uuid::Uuid;

    fn entity(number: u128) -> (Key, Body) {
        let key = Key {
            kind: KindName::known("service"),
            workspace: Workspace::DEFAULT,
            id: Id(Uuid::from_u128(number)),
        };
        (key, Body::from_bytes(&number.to_be_bytes()))
    }

    #[test]
    fn order_and_history_do_not_matter() {
        let entities: Vec<_> = (0..20).map(entity).collect();
        let mut forward = Accumulator::default();
        let mut backward = Accumulator::default();
        entities
            .iter()
            .for_each(|(key, body)| forward.add(key, body));
        backward.add(&entities[3].0, &entities[4].1);
        entities
            .iter()
            .rev()
            .for_each(|(key, body)| backward.add(key, body));
        assert_ne!(forward.digest(), backward.digest());
        backward.remove(&entities[3].0, &entities[4].1);
        assert_eq!(forward.digest(), backward.digest());
        assert_eq!(Accumulator::from_bytes(&forward.to_bytes()), Some(forward));
    }
}
