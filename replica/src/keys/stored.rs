//! The keyring that lies beside the log, for programs that look once.

use super::{RING_NAME, TrustedKeys};
use crate::log::StoredRoot;
use bytes::Bytes;

/// The sealed keyring among what lies in the chunk store. Not verified.
pub fn stored_ring(stored: &[StoredRoot]) -> Option<&Bytes> {
    let ring = stored.iter().find(|stored| stored.name == RING_NAME);
    ring.map(|ring| &ring.root)
}

impl TrustedKeys {
    /// These keys as the keyring among `stored` says, if a root that is pinned here has signed it and it is newer than the
    /// one in force.
    #[must_use]
    pub fn with_stored_ring(&self, stored: &[StoredRoot]) -> Self {
        let newer = stored_ring(stored).and_then(|ring| self.with_ring(ring).ok());
        newer.unwrap_or_else(|| self.clone())
    }
}
