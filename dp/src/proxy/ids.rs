//! Request ids: 32 random hex digits, many cut from one allocation.

use bytes::Bytes;
use http::HeaderValue;
use rand::RngCore;
use std::cell::RefCell;

const DIGITS: usize = 32;
const IDS_PER_CHUNK: usize = 64;

/// A worker's source of request ids.
pub(super) struct Ids(RefCell<(Bytes, rand::rngs::ThreadRng)>);

impl Ids {
    pub(super) fn new() -> Self {
        Self(RefCell::new((Bytes::new(), rand::rng())))
    }

    /// A new id.
    pub(super) fn next(&self) -> HeaderValue {
        let (chunk, random) = &mut *self.0.borrow_mut();
        if chunk.is_empty() {
            let mut bytes = [0; DIGITS / 2 * IDS_PER_CHUNK];
            random.fill_bytes(&mut bytes);
            let mut digits = Vec::with_capacity(DIGITS * IDS_PER_CHUNK);
            for byte in bytes {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                digits.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
            *chunk = Bytes::from(digits);
        }
        HeaderValue::from_maybe_shared(chunk.split_to(DIGITS))
            .expect("hex digits are a valid header value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_32_hex_digits_and_differ() {
        let ids = Ids::new();
        let made: Vec<_> = (0..1000).map(|_| ids.next()).collect();
        let hex =
            |id: &HeaderValue| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit);
        assert!(made.iter().all(hex));
        let distinct: BTreeSet<_> = made.iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(distinct.len(), made.len());
    }
}
