//! Trusted keys: whose signatures a replica believes, at one moment.

use super::public::{PublicKey, PublicLine, Role};
use super::ring::{Keyring, RingError, Standing};
use super::{
    ARCHIVE_DOMAIN, CHARTER_DOMAIN, EVENT_DOMAIN, HEAD_DOMAIN, KeyError, RING_DOMAIN,
    SNAPSHOT_DOMAIN, file_error,
};
use crate::log::Signature;
use bytes::Bytes;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Chain;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many verified signatures are remembered; then it begins anew.
const REMEMBERED_MAX: usize = 1 << 16;

/// The public keys a replica believes. A value: it does not change; clones share what is in it.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys {
    inner: Arc<Inner>,
    memory: Option<Memory>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Inner {
    /// Control planes' keys that an operator has pinned, by id.
    pinned: BTreeMap<String, Named>,
    /// Root keys that an operator has pinned, by id.
    roots: BTreeMap<String, Named>,
    ring: Option<Accepted>,
    /// What follows from them, by id.
    known: BTreeMap<String, KnownKey>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Named {
    key: PublicKey,
    name: String,
}

/// A ring one of the roots has signed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Accepted {
    ring: Keyring,
    sealed: Bytes,
    signed_by: String,
}

/// A control plane's key and how far it is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// Its name, for people.
    pub name: String,
    /// How far it is believed: what the ring says, or active if it is only pinned.
    pub standing: Standing,
    /// Whether an operator has pinned it.
    pub pinned: bool,
    /// Whether the ring names it.
    pub in_ring: bool,
}

impl PartialEq for TrustedKeys {
    /// Whether they believe the same, for the same reasons.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner == other.inner
    }
}

impl Eq for TrustedKeys {}

impl TrustedKeys {
    /// These keys, pinned.
    pub fn of(lines: impl IntoIterator<Item = PublicLine>) -> Self {
        let mut inner = Inner::default();
        for PublicLine { role, key, name } in lines {
            let keys = match role {
                Role::ControlPlane => &mut inner.pinned,
                Role::Root => &mut inner.roots,
            };
            keys.insert(key.id(), Named { key, name });
        }
        Self::from_inner(inner, None)
    }

    /// Pins the keys of a file, or of all `.pub` files of a directory.
    ///
    /// # Errors
    /// If there is no key, or something that should be one is not.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let mut lines = Vec::new();
        for file in public_files(path)? {
            lines.extend(PublicLine::load(&file)?);
        }
        if lines.is_empty() {
            return Err(KeyError::Empty { path: path.into() });
        }
        Ok(Self::of(lines))
    }

    /// These keys and `others`, pinned. The ring is this one's.
    #[must_use]
    pub fn and(self, others: &Self) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        let pairs = [
            (&mut inner.pinned, &others.inner.pinned),
            (&mut inner.roots, &others.inner.roots),
        ];
        for (ours, theirs) in pairs {
            for (id, named) in theirs {
                ours.entry(id.clone()).or_insert_with(|| named.clone());
            }
        }
        Self::from_inner(inner, self.memory)
    }

    /// These keys as a newer ring says. The ring's word also goes for keys that are pinned.
    ///
    /// # Errors
    /// If it is not signed by a pinned root, malformed, or not newer than the one in force.
    pub fn with_ring(&self, sealed: &[u8]) -> Result<Self, RingError> {
        let (ring, signed_by) = Keyring::open(sealed, self)?;
        if let Some(held) = &self.inner.ring {
            if ring.serial == held.ring.serial && held.sealed != sealed {
                return Err(RingError::Twin {
                    serial: ring.serial,
                });
            }
            if ring.serial <= held.ring.serial {
                return Err(RingError::NotNewer {
                    serial: ring.serial,
                    held: held.ring.serial,
                });
            }
        }
        let accepted = Accepted {
            ring,
            sealed: Bytes::copy_from_slice(sealed),
            signed_by,
        };
        let inner = Inner {
            ring: Some(accepted),
            ..Inner::clone(&self.inner)
        };
        Ok(Self::from_inner(inner, self.memory.clone()))
    }

    /// These keys, remembering which signatures they have verified: for many replicas in one process, which then verify
    /// each once. All clones share it, and so do keys made from them by [`Self::with_ring`] and [`Self::and`].
    #[must_use]
    pub fn remembering(self) -> Self {
        Self {
            memory: Some(self.memory.unwrap_or_default()),
            ..self
        }
    }

    fn from_inner(mut inner: Inner, memory: Option<Memory>) -> Self {
        let pinned = inner.pinned.iter().map(|(id, Named { key, name })| {
            let known = KnownKey {
                key: *key,
                name: name.clone(),
                standing: Standing::Active,
                pinned: true,
                in_ring: false,
            };
            (id.clone(), known)
        });
        let mut known: BTreeMap<String, KnownKey> = pinned.collect();
        for entry in inner.ring.iter().flat_map(|held| &held.ring.entries) {
            let id = entry.key.id();
            let pinned = known.contains_key(&id);
            known.insert(
                id,
                KnownKey {
                    key: entry.key,
                    name: entry.name.clone(),
                    standing: entry.standing,
                    pinned,
                    in_ring: true,
                },
            );
        }
        inner.known = known;
        Self {
            inner: Arc::new(inner),
            memory,
        }
    }

    /// Whether `signature` is by an active or retired key over the chain after an event.
    pub fn verifies_event(&self, chain: Chain, signature: &Signature) -> bool {
        self.verifies(EVENT_DOMAIN, &chain.0.0, signature, believes_the_past)
    }

    /// Whether `signature` is by an active key over an encoded head.
    pub fn verifies_head(&self, head: &[u8], signature: &Signature) -> bool {
        self.verifies(HEAD_DOMAIN, head, signature, believes_all)
    }

    /// Whether `signature` is by an active or retired key over an encoded snapshot root.
    pub fn verifies_snapshot(&self, root: &[u8], signature: &Signature) -> bool {
        self.verifies(SNAPSHOT_DOMAIN, root, signature, believes_the_past)
    }

    /// Whether `signature` is by an active or retired key over the hash of an archive's frames.
    pub fn verifies_archive(&self, hash: Hash32, signature: &Signature) -> bool {
        self.verifies(ARCHIVE_DOMAIN, &hash.0, signature, believes_the_past)
    }

    /// Whether `signature` is by a root key over an encoded charter; where no root is pinned, by an active or retired key.
    pub fn verifies_charter(&self, charter: &[u8], signature: &Signature) -> bool {
        match self.has_root() {
            true => self.root_verifies(CHARTER_DOMAIN, charter, signature) == Some(true),
            false => self.verifies(CHARTER_DOMAIN, charter, signature, believes_the_past),
        }
    }

    /// Whether `signature` is by a root key over an encoded ring; `None` if the key it names is no root of ours.
    pub(super) fn verifies_ring(&self, ring: &[u8], signature: &Signature) -> Option<bool> {
        self.root_verifies(RING_DOMAIN, ring, signature)
    }

    fn root_verifies(&self, domain: &[u8], message: &[u8], signature: &Signature) -> Option<bool> {
        let root = self.inner.roots.get(&signature.key)?;
        Some(self.key_verifies(root.key, domain, message, signature))
    }

    fn verifies(
        &self,
        domain: &[u8],
        message: &[u8],
        signature: &Signature,
        believes: fn(Standing) -> bool,
    ) -> bool {
        let known = self.inner.known.get(&signature.key);
        known.is_some_and(|known| {
            believes(known.standing) && self.key_verifies(known.key, domain, message, signature)
        })
    }

    fn key_verifies(
        &self,
        key: PublicKey,
        domain: &[u8],
        message: &[u8],
        signature: &Signature,
    ) -> bool {
        let message = [domain, message].concat();
        match &self.memory {
            None => key.verifies(&message, signature),
            Some(memory) => memory.verifies(key, &message, signature),
        }
    }

    /// Whether the owner of this key may append: it is active. A control plane asks this of its own key before it does.
    pub fn may_sign(&self, key_id: &str) -> bool {
        self.standing(key_id) == Some(Standing::Active)
    }

    /// How far this control plane's key is believed; `None` if it is not known.
    pub fn standing(&self, key_id: &str) -> Option<Standing> {
        self.inner.known.get(key_id).map(|known| known.standing)
    }

    /// Whether a root key is pinned.
    pub fn has_root(&self) -> bool {
        !self.inner.roots.is_empty()
    }

    /// The serial of the ring in force; 0 without one.
    pub fn ring_serial(&self) -> u64 {
        self.ring().map_or(0, |ring| ring.serial)
    }

    /// The ring in force.
    pub fn ring(&self) -> Option<&Keyring> {
        self.inner.ring.as_ref().map(|held| &held.ring)
    }

    /// The ring in force as its root has sealed it.
    pub fn sealed_ring(&self) -> Option<&Bytes> {
        self.inner.ring.as_ref().map(|held| &held.sealed)
    }

    /// The id of the root that signed the ring in force.
    pub fn ring_signer(&self) -> Option<&str> {
        self.inner.ring.as_ref().map(|held| held.signed_by.as_str())
    }

    /// Every control plane's key that is pinned or in the ring, ordered by id.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &KnownKey)> {
        self.inner
            .known
            .iter()
            .map(|(id, known)| (id.as_str(), known))
    }

    /// Id and name of each control plane's key that is pinned or in the ring.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys().map(|(id, known)| (id, known.name.as_str()))
    }

    /// Id and name of each root key.
    pub fn roots(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner
            .roots
            .iter()
            .map(|(id, named)| (id.as_str(), named.name.as_str()))
    }

    /// Whether nobody is believed, and no root could change that.
    pub fn is_empty(&self) -> bool {
        self.inner.known.is_empty() && self.inner.roots.is_empty()
    }
}

fn believes_all(standing: Standing) -> bool {
    match standing {
        Standing::Active => true,
        Standing::Retired | Standing::Revoked => false,
    }
}

fn believes_the_past(standing: Standing) -> bool {
    match standing {
        Standing::Active | Standing::Retired => true,
        Standing::Revoked => false,
    }
}

/// The file itself, or the `.pub` files of the directory, in order.
pub(super) fn public_files(path: &Path) -> Result<Vec<PathBuf>, KeyError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut files: Vec<PathBuf> = entries
        .map_err(file_error(path))?
        .iter()
        .map(fs::DirEntry::path)
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pub"));
    files.sort_unstable();
    Ok(files)
}

/// Signatures that have been verified: hashes of key, message and signature. What is believed of a key is asked each
/// time; only the arithmetic is saved.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeSet<Hash32>>>);

impl Memory {
    fn verifies(&self, key: PublicKey, message: &[u8], signature: &Signature) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.as_bytes());
        hasher.update(&signature.bytes);
        hasher.update(message);
        let name = Hash32(*hasher.finalize().as_bytes());
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().contains(&name) {
            return true;
        }
        let valid = key.verifies(message, signature);
        if valid {
            let mut remembered = lock();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(name);
        }
        valid
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
