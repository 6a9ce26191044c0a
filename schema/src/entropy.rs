//! Randomness as an argument: everything random in a decision comes out of one seed the caller drew, so that the
//! same command on the same state decides the same event.

use std::fmt;
use uuid::Uuid;

/// A deterministic source of random values: BLAKE3's output stream keyed with a 32-byte seed.
pub struct Entropy {
    stream: blake3::OutputReader,
}

impl Entropy {
    /// A source whose output depends on `seed` alone.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            stream: blake3::Hasher::new_keyed(&seed).finalize_xof(),
        }
    }

    /// A random UUID (version 4).
    pub fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.stream.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Random bytes.
    pub fn bytes<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.stream.fill(&mut bytes);
        bytes
    }

    /// `length` random characters of `A-Z a-z 0-9`, each equally likely.
    pub fn alphanumeric(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        // Bytes above the largest multiple of 62 are drawn again, so that no character is favoured.
        const LIMIT: u8 = 248;
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let mut byte = [0];
            self.stream.fill(&mut byte);
            if byte[0] < LIMIT {
                text.push(char::from(ALPHABET[usize::from(byte[0] % 62)]));
            }
        }
        text
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The stream's state would give away generated secrets.
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values_and_another_seed_gives_others() {
        let draw = |seed: u8| {
            let mut entropy = Entropy::new([seed; 32]);
            (entropy.uuid(), entropy.alphanumeric(32), entropy.uuid())
        };
        let (first, text, second) = draw(1);
        assert_eq!(draw(1), (first, text.clone(), second));
        assert_ne!(draw(2).0, first);
        assert_ne!(first, second);
        assert_eq!(first.get_version_num(), 4);
        assert_eq!(text.len(), 32);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
