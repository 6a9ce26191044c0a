//! Signing keys: what control planes and roots sign with.

use super::file::wipe;
use super::public::{PublicKey, PublicLine, Role};
use super::trusted::TrustedKeys;
use super::{
    ARCHIVE_DOMAIN, CHARTER_DOMAIN, EVENT_DOMAIN, HEAD_DOMAIN, KeyError, RING_DOMAIN,
    SNAPSHOT_DOMAIN, file_error,
};
use crate::files::{create_secret, directory_of};
use crate::log::Signature;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signer;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Chain;
use std::fs;
use std::io;
use std::path::Path;

/// What a control plane or a root signs with. The seed is overwritten in memory when it is dropped.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    id: String,
}

impl SigningKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        wipe(seed.to_vec());
        let id = PublicKey::from(key.verifying_key()).id();
        Self { key, id }
    }

    /// Reads the key at `path`; makes one of a control plane if there is none. The flag says whether it was made.
    ///
    /// # Errors
    /// If the file is there but not a key, or cannot be read or written.
    pub fn load_or_create(path: &Path, name: &str) -> Result<(Self, bool), KeyError> {
        match Self::load(path) {
            Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok((Self::create(path, name)?, true))
            }
            loaded => Ok((loaded?, false)),
        }
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read(path).map_err(file_error(path))?;
        let decoded = BASE64.decode(text.trim_ascii());
        wipe(text);
        let no_seed = || KeyError::Seed { path: path.into() };
        let bytes = decoded.map_err(|_| no_seed())?;
        let seed: Option<[u8; 32]> = bytes.as_slice().try_into().ok();
        wipe(bytes);
        seed.map(Self::from_seed).ok_or_else(no_seed)
    }

    /// Makes a new key of a control plane at `path`, and the public key beside it.
    ///
    /// # Errors
    /// If a file is there already or cannot be written.
    pub fn create(path: &Path, name: &str) -> Result<Self, KeyError> {
        Self::create_for(Role::ControlPlane, path, name)
    }

    /// Makes a new root key at `path`, and the public key beside it.
    ///
    /// # Errors
    /// If a file is there already or cannot be written.
    pub fn create_root(path: &Path, name: &str) -> Result<Self, KeyError> {
        Self::create_for(Role::Root, path, name)
    }

    fn create_for(role: Role, path: &Path, name: &str) -> Result<Self, KeyError> {
        let key = Self::from_seed(rand::random());
        fs::create_dir_all(directory_of(path)).map_err(file_error(path))?;
        let mut text = BASE64.encode(key.key.as_bytes());
        text.push('\n');
        let created = create_secret(path, text.as_bytes());
        wipe(text.into_bytes());
        created.map_err(file_error(path))?;
        let (public, line) = (path.with_extension("pub"), key.public(role, name));
        fs::write(&public, format!("{line}\n")).map_err(file_error(public))?;
        Ok(key)
    }

    /// The key's id, as it stands beside each signature.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public half.
    pub fn public_key(&self) -> PublicKey {
        self.key.verifying_key().into()
    }

    /// Its public half with a role and a name: the line of a `.pub` file.
    pub fn public(&self, role: Role, name: &str) -> PublicLine {
        PublicLine {
            role,
            key: self.public_key(),
            name: name.to_owned(),
        }
    }

    /// The line of a control plane's `.pub` file.
    pub fn public_line(&self, name: &str) -> String {
        self.public(Role::ControlPlane, name).to_string()
    }

    /// Signs the chain after an event.
    pub fn sign_event(&self, chain: Chain) -> Signature {
        self.sign(EVENT_DOMAIN, &chain.0.0)
    }

    /// Signs an encoded head.
    pub fn sign_head(&self, head: &[u8]) -> Signature {
        self.sign(HEAD_DOMAIN, head)
    }

    /// Signs an encoded snapshot root.
    pub fn sign_snapshot(&self, root: &[u8]) -> Signature {
        self.sign(SNAPSHOT_DOMAIN, root)
    }

    /// Signs an encoded keyring: root keys.
    pub fn sign_ring(&self, ring: &[u8]) -> Signature {
        self.sign(RING_DOMAIN, ring)
    }

    /// Signs an encoded charter: root keys; a control plane's where no root is pinned.
    pub fn sign_charter(&self, charter: &[u8]) -> Signature {
        self.sign(CHARTER_DOMAIN, charter)
    }

    /// Signs the hash over an archive's frames.
    pub fn sign_archive(&self, hash: Hash32) -> Signature {
        self.sign(ARCHIVE_DOMAIN, &hash.0)
    }

    fn sign(&self, domain: &[u8], message: &[u8]) -> Signature {
        let bytes = self.key.sign(&[domain, message].concat()).to_bytes();
        Signature {
            key: self.id.clone(),
            bytes,
        }
    }

    /// What verifies this key's signatures as a control plane's.
    pub fn trusted(&self) -> TrustedKeys {
        TrustedKeys::of([self.public(Role::ControlPlane, "own")])
    }

    /// What believes this key as a root: nobody else until a keyring is taken up ([`TrustedKeys::with_ring`]).
    pub fn trusted_root(&self) -> TrustedKeys {
        TrustedKeys::of([self.public(Role::Root, "root")])
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}
