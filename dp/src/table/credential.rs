//! Credentials, found by what clients show: a key, a username, a token.
//!
//! They are indexed by a keyed hash of that and of their workspace, so that neither an index nor the time of a lookup tells
//! anything about secrets. What is found by a secret is compared with it afterwards, in constant time, by who asked.

use super::entity::Origin;
use imbl::{HashMap, OrdMap};
use sluice_schema::entity::Workspace;
use sluice_schema::kind;
use sluice_schema::version::Version;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use uuid::Uuid;

/// A credential with its fields.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<T> {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Its workspace.
    pub workspace: Workspace,
    fields: T,
}

impl<T> Deref for Credential<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.fields
    }
}

impl<T> fmt::Debug for Credential<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.id)
    }
}

/// A kind of credentials.
pub(super) trait Shown {
    /// What clients show to be found.
    fn shown(&self) -> &str;
}

impl Shown for kind::KeyauthCredential {
    fn shown(&self) -> &str {
        &self.key
    }
}

impl Shown for kind::BasicauthCredential {
    fn shown(&self) -> &str {
        &self.username
    }
}

impl Shown for kind::JwtSecret {
    fn shown(&self) -> &str {
        &self.key
    }
}

impl Shown for kind::HmacauthCredential {
    fn shown(&self) -> &str {
        &self.username
    }
}

impl Shown for kind::Oauth2Credential {
    fn shown(&self) -> &str {
        &self.client_id
    }
}

impl Shown for kind::Oauth2Token {
    fn shown(&self) -> &str {
        &self.access_token
    }
}

/// Half of a keyed BLAKE3 of workspace and what is shown: enough to find a credential.
type Hash = [u8; 16];

/// The credentials of a kind.
#[derive(Clone)]
pub(super) struct Index<T> {
    /// Makes hashes that are useless elsewhere.
    hash_key: [u8; 32],
    by_id: OrdMap<Uuid, Arc<Credential<T>>>,
    by_hash: HashMap<Hash, Arc<Credential<T>>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            hash_key: rand::random(),
            by_id: OrdMap::default(),
            by_hash: HashMap::default(),
        }
    }
}

impl<T: Shown> Index<T> {
    pub(super) fn insert(&mut self, origin: Origin<'_>, fields: T) {
        self.remove(origin.id);
        let hash = self.hash(origin.workspace, fields.shown());
        let credential = Arc::new(Credential {
            id: origin.id,
            version: origin.version,
            workspace: origin.workspace.clone(),
            fields,
        });
        self.by_hash.insert(hash, Arc::clone(&credential));
        self.by_id.insert(origin.id, credential);
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        let Some(credential) = self.by_id.remove(&id) else {
            return;
        };
        let hash = self.hash(&credential.workspace, credential.shown());
        // What is shown may have moved to another credential in the same change set.
        if self.by_hash.get(&hash).is_some_and(|found| found.id == id) {
            self.by_hash.remove(&hash);
        }
    }

    /// The credential of what is shown. It was found by a hash.
    pub(super) fn find(&self, workspace: &Workspace, shown: &str) -> Option<&Arc<Credential<T>>> {
        self.by_hash.get(&self.hash(workspace, shown))
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<Credential<T>>> {
        self.by_id.get(&id)
    }

    fn hash(&self, workspace: &Workspace, shown: &str) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.hash_key);
        hasher.update(workspace.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(shown.as_bytes());
        let mut hash = Hash::default();
        hasher.finalize_xof().fill(&mut hash);
        hash
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.by_hash.is_empty()
    }
}

/// All credentials.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) keys: Index<kind::KeyauthCredential>,
    pub(super) basic: Index<kind::BasicauthCredential>,
    pub(super) jwt: Index<kind::JwtSecret>,
    pub(super) hmac: Index<kind::HmacauthCredential>,
    pub(super) applications: Index<kind::Oauth2Credential>,
    pub(super) tokens: Index<kind::Oauth2Token>,
}

#[cfg(test)]
impl Credentials {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
            && self.basic.is_empty()
            && self.jwt.is_empty()
            && self.hmac.is_empty()
            && self.applications.is_empty()
            && self.tokens.is_empty()
    }
}
