//! Credentials of consumers.

use super::Reference;
use serde::Deserialize;

/// A key-auth credential.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct KeyauthCredential {
    /// Whose it is.
    pub consumer: Reference,
    /// The secret the client sends.
    pub key: String,
    /// Seconds of life from `created_at`.
    pub ttl: Option<u64>,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
}

impl std::fmt::Debug for KeyauthCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyauthCredential(of {})", self.consumer.id)
    }
}
