//! Kong's hash of OAuth 2.0 secrets: PBKDF2 with HMAC-SHA-512 (RFC 8018), as a PHC string.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha512};

const PREFIX: &str = "$pbkdf2-sha512$";
const ITERATIONS: u32 = 10_000;
/// The most iterations that a stored hash may ask for.
const ITERATIONS_MAX: u32 = 1_000_000;
const HASH_BYTES: usize = 32;
const BLOCK_BYTES: usize = 128;

/// The hash of `secret` with this salt.
pub fn hash(secret: &str, salt: [u8; 16]) -> String {
    let hash = derive(secret, &salt, ITERATIONS);
    format!(
        "{PREFIX}i={ITERATIONS},l={HASH_BYTES}${}${}",
        STANDARD_NO_PAD.encode(salt),
        STANDARD_NO_PAD.encode(hash)
    )
}

/// Whether `stored` is a hash of `secret`.
pub fn is_secret(stored: &str, secret: &str) -> bool {
    let parts: Option<(u32, Vec<u8>, &str)> = stored.strip_prefix(PREFIX).and_then(|rest| {
        let mut parts = rest.split('$');
        let parameters = parts.next()?;
        let iterations = parameters
            .split(',')
            .find_map(|parameter| parameter.strip_prefix("i="))?;
        let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        Some((iterations.parse().ok()?, salt, parts.next()?))
    });
    parts.is_some_and(|(iterations, salt, hash)| {
        iterations <= ITERATIONS_MAX
            && STANDARD_NO_PAD.encode(derive(secret, &salt, iterations)) == hash
    })
}

/// The first 32 bytes of the key. One block of SHA-512 holds more than that.
fn derive(secret: &str, salt: &[u8], iterations: u32) -> [u8; HASH_BYTES] {
    let mac = Mac::new(secret.as_bytes());
    let mut round = mac.of(&[salt, &1_u32.to_be_bytes()].concat());
    let mut sum = round;
    for _ in 1..iterations {
        round = mac.of(&round);
        sum.iter_mut()
            .zip(round)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    let mut first = [0; HASH_BYTES];
    first.copy_from_slice(&sum[..HASH_BYTES]);
    first
}

/// HMAC-SHA-512 (RFC 2104) with a key that has been taken up already.
struct Mac {
    inner: Sha512,
    outer: Sha512,
}

impl Mac {
    fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK_BYTES];
        if key.len() <= BLOCK_BYTES {
            block[..key.len()].copy_from_slice(key);
        } else {
            block[..64].copy_from_slice(&Sha512::digest(key));
        }
        let padded = |pad: u8| Sha512::new_with_prefix(block.map(|byte| byte ^ pad));
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    fn of(&self, message: &[u8]) -> [u8; 64] {
        let inner = self.inner.clone().chain_update(message).finalize();
        self.outer.clone().chain_update(inner).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_secret_has_the_hash_that_others_calculate() {
        // Python: hashlib.pbkdf2_hmac("sha512", b"secret", b"0123456789abcdef", 10000, 32)
        let stored = hash("secret", *b"0123456789abcdef");
        assert_eq!(
            stored,
            "$pbkdf2-sha512$i=10000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$vmRQw0BpocKqrhRKR3m3G/IeOsJdowFFKr1BqQJRowY"
        );
        assert!(is_secret(&stored, "secret"));
        for wrong in ["Secret", "", &"x".repeat(200)] {
            assert!(!is_secret(&stored, wrong), "{wrong}");
        }
        for broken in [
            "",
            "$pbkdf2-sha512$i=x,l=32$a$b",
            "$pbkdf2-sha512$i=9999999,l=32$YQ$YQ",
        ] {
            assert!(!is_secret(broken, "secret"), "{broken}");
        }
    }
}
