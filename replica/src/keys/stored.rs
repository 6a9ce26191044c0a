//! The keyring that lies beside the log, for programs that look once.

use super::{RING_NAME, TrustedKeys};
use crate::log::StoredRoot;

impl TrustedKeys {
    /// These keys as the keyring among `stored` says, if a root that is pinned here has signed it and it is newer than the
    /// one in force.
    #[must_use]
    pub fn with_stored_ring(&self, stored: &[StoredRoot]) -> Self {
        let ring = stored.iter().find(|stored| stored.name == RING_NAME);
        let newer = ring.and_then(|ring| self.with_ring(&ring.root).ok());
        newer.unwrap_or_else(|| self.clone())
    }
}
