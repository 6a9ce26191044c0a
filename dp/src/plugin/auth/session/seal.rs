//! What a session's cookie holds: known to nobody but the gateway, and made by nobody else.
//!
//! A cookie is base64 of a version, a random salt, and the sealed content. Each is sealed with AES-256-GCM under a key of
//! its own, drawn from secret and salt by HKDF-SHA-256, so that no nonce can ever come twice under a key. The cookie's name
//! and the audience are bound to it: a cookie for one is nothing for another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use std::fmt;

/// Of this form of cookies.
const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
/// What browsers keep of a cookie, with some room for its attributes.
pub(super) const TEXT_BYTES_MAX: usize = 3800;

/// Seals what is in cookies of a name.
pub(super) struct Sealer {
    secret: Vec<u8>,
    bound: Vec<u8>,
}

impl Sealer {
    /// For cookies of a name, for an audience.
    pub(super) fn new(secret: &str, cookie: &str, audience: &str) -> Self {
        Self {
            secret: secret.as_bytes().to_vec(),
            bound: [
                b"sluice session\0",
                cookie.as_bytes(),
                b"\0",
                audience.as_bytes(),
            ]
            .concat(),
        }
    }

    /// The text of a cookie; `None` if it is longer than browsers keep.
    pub(super) fn seal(&self, content: &[u8]) -> Option<String> {
        let salt: [u8; SALT_BYTES] = rand::rng().random();
        let mut sealed = content.to_vec();
        let bound = Aad::from(&self.bound);
        let key = self.key(&salt)?;
        key.seal_in_place_append_tag(nonce(), bound, &mut sealed)
            .ok()?;
        let text = URL_SAFE_NO_PAD.encode([&[VERSION], &salt[..], &sealed].concat());
        (text.len() <= TEXT_BYTES_MAX).then_some(text)
    }

    /// What was sealed; `None` if this is not a cookie of ours.
    pub(super) fn open(&self, text: &str) -> Option<Vec<u8>> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (salt, sealed) = bytes
            .strip_prefix(&[VERSION])?
            .split_at_checked(SALT_BYTES)?;
        let mut sealed = sealed.to_vec();
        let bound = Aad::from(&self.bound);
        let opened = self.key(salt)?.open_in_place(nonce(), bound, &mut sealed);
        opened.ok().map(|content| content.to_vec())
    }

    fn key(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let drawn = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let key = UnboundKey::from(drawn.expand(&[b"cookie"], &AES_256_GCM).ok()?);
        Some(LessSafeKey::new(key))
    }
}

/// One is enough: each key seals one content.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_cookie_is_opened() {
        let sealer = Sealer::new("secret", "session", "default");
        let text = sealer.seal(b"content").expect("it is short");
        assert_eq!(sealer.open(&text).as_deref(), Some(&b"content"[..]));
        assert_ne!(sealer.seal(b"content").as_ref(), Some(&text));
        let others = [
            Sealer::new("other", "session", "default"),
            Sealer::new("secret", "remember", "default"),
            Sealer::new("secret", "session", "other"),
        ];
        assert!(others.iter().all(|other| other.open(&text).is_none()));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("it is text");
            assert!(sealer.open(&changed).is_none(), "{at}");
        }
        assert!(sealer.open("").is_none());
    }

    #[test]
    fn what_browsers_would_drop_is_not_made() {
        let sealer = Sealer::new("secret", "session", "default");
        assert!(sealer.seal(&[0; TEXT_BYTES_MAX]).is_none());
    }
}
