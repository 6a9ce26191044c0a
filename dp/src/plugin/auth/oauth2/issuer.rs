//! Tokens that say themselves what they are: a data plane makes them, and every other knows them. Why so:
//! docs/decisions/0043-oauth2-tokens.md.
//!
//! A token is `s1.` and base64 of its content, a dot, and base64 of a HMAC-SHA-256 over it and over the application's secret
//! as it is stored. The key is drawn from the plugin's `provision_key`. Another key or another secret ends its tokens.

use crate::plugin::Lasting;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use uuid::Uuid;

const PREFIX: &str = "s1.";
const KEY_LABEL: &[u8] = b"sluice oauth2 token";
/// Longer ones are not ours.
const TEXT_BYTES_MAX: usize = 4096;

/// What a token says. Times are in seconds since the Unix epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The plugin that gave it.
    #[serde(rename = "p")]
    pub(super) plugin: Uuid,
    /// The application it was given to.
    #[serde(rename = "c")]
    pub(super) credential: Uuid,
    /// The service it is for; `None` if for all.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Uuid>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// `None` is for ever.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub(super) ends: Option<u64>,
    /// So that no two are equal.
    #[serde(rename = "n")]
    pub(super) number: Uuid,
}

/// A plugin's key for its tokens.
#[derive(Clone)]
pub(super) struct Key(hmac::Key);

impl Key {
    pub(super) fn of(provision_key: &str) -> Self {
        let from = hmac::Key::new(hmac::HMAC_SHA256, provision_key.as_bytes());
        let drawn = hmac::sign(&from, KEY_LABEL);
        Self(hmac::Key::new(hmac::HMAC_SHA256, drawn.as_ref()))
    }

    /// The token of a grant.
    pub(super) fn issue(&self, grant: &Grant, secret: &str) -> Option<String> {
        let content = URL_SAFE_NO_PAD.encode(serde_json::to_vec(grant).ok()?);
        let mac = hmac::sign(&self.0, &signed(&content, secret));
        let mac = URL_SAFE_NO_PAD.encode(mac);
        let token = format!("{PREFIX}{content}.{mac}");
        (token.len() <= TEXT_BYTES_MAX).then_some(token)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

/// Who could have said anything until the HMAC is verified.
pub(super) struct Unverified<'t> {
    pub(super) grant: Grant,
    content: &'t str,
    mac: Vec<u8>,
}

impl<'t> Unverified<'t> {
    /// Reads a token; `None` if it is not of this kind.
    pub(super) fn parse(token: &'t str) -> Option<Self> {
        if token.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (content, mac) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let grant = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(content).ok()?).ok()?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        Some(Self {
            grant,
            content,
            mac,
        })
    }

    /// What it says, if it was made with this key for an application with this secret.
    pub(super) fn verify(self, key: &Key, secret: &str) -> Option<Grant> {
        let verified = hmac::verify(&key.0, &signed(self.content, secret), &self.mac);
        verified.is_ok().then_some(self.grant)
    }
}

fn signed(content: &str, secret: &str) -> Vec<u8> {
    // No content has a zero byte.
    [content.as_bytes(), b"\0", secret.as_bytes()].concat()
}

/// The keys of all plugins whose tokens are for every service, by plugin.
#[derive(Default)]
pub(crate) struct Issuers(RwLock<HashMap<Uuid, Key>>);

impl Issuers {
    pub(super) fn put(&self, plugin: Uuid, key: Option<Key>) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match key {
            Some(key) => keys.insert(plugin, key),
            None => keys.remove(&plugin),
        };
    }

    pub(super) fn find(&self, plugin: Uuid) -> Option<Key> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&plugin).cloned()
    }
}

impl Lasting for Issuers {}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_with_its_key_and_its_secret_only() {
        let grant = Grant {
            plugin: Uuid::from_u128(1),
            credential: Uuid::from_u128(2),
            service: None,
            scope: Some("a b".into()),
            user: None,
            ends: Some(10),
            number: Uuid::from_u128(3),
        };
        let key = Key::of("provision");
        let token = key.issue(&grant, "secret").expect("it is short");
        let verify = |token: &str, key: &Key, secret| Unverified::parse(token)?.verify(key, secret);
        assert_eq!(verify(&token, &key, "secret"), Some(grant.clone()));
        assert_eq!(verify(&token, &key, "other"), None);
        assert_eq!(verify(&token, &Key::of("other"), "secret"), None);
        let other = Grant {
            scope: Some("a b c".into()),
            ..grant
        };
        let content =
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).expect("it can be written"));
        let mac = token.rsplit('.').next().expect("it has one");
        assert_eq!(
            verify(&format!("{PREFIX}{content}.{mac}"), &key, "secret"),
            None
        );
        for broken in ["", "s1.", "s1..", "s1.e30.", "abc"] {
            assert!(Unverified::parse(broken).is_none(), "{broken}");
        }
    }
}
