//! A snapshot's root: what it is a snapshot of, and the signature that vouches for it.

use crate::keys::{SigningKey, TrustedKeys};
use crate::log::{Signature, StoredRoot};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_schema::chunk::{Child, Tree};
use sluice_schema::codec::{self, CodecError, Format};
use sluice_schema::digest::Digest;
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Time};
use uuid::Uuid;

const ROOT_FORMAT: Format = Format {
    magic: *b"SlP",
    version: 1,
};
const CHARTER_FORMAT: Format = Format {
    magic: *b"SlF",
    version: 1,
};
const SEALED_FORMAT: Format = Format {
    magic: *b"SlQ",
    version: 1,
};

/// A snapshot as its author signed it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Root {
    /// What it is a snapshot of.
    pub cursor: Cursor,
    /// The digest of the state there.
    pub digest: Digest,
    /// How many entities that is.
    pub entities: u64,
    /// The encoded bytes of its leaves together.
    pub bytes: u64,
    /// The root of the tree; `None` if there are no entities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Child>,
    /// The tree's levels.
    pub height: u8,
    /// When it was cut.
    pub time: Time,
    /// The control plane that cut it.
    pub announcer: Uuid,
    /// The sealed [`Charter`] of its epoch, if that is not the log's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charter: Option<Bytes>,
    /// Whether the charter is there and valid. Found out on opening; not part of the record.
    #[serde(skip)]
    pub chartered: bool,
}

/// The word of whoever may give it that a new life of the log is legitimate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Charter {
    /// The new life.
    pub epoch: Epoch,
    /// When it was given.
    pub time: Time,
    /// Why.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    body: Bytes,
    key: String,
    signature: Bytes,
}

/// A snapshot's root or a charter that is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Not what it should be.
    #[error("could not decode it")]
    Codec(#[from] CodecError),
    /// Not signed by a key that may.
    #[error("it is not signed by a trusted key (key id {0})")]
    Untrusted(String),
}

impl Root {
    /// The record of a snapshot of `state` at `cursor`, whose tree is `tree`, without a charter.
    pub fn of(state: &State, cursor: Cursor, tree: &Tree, (time, announcer): (Time, Uuid)) -> Self {
        Self {
            cursor,
            digest: state.digest(),
            entities: state.len() as u64,
            bytes: tree.root().map_or(0, |root| root.bytes),
            tree: tree.root().cloned(),
            height: tree.height(),
            time,
            announcer,
            charter: None,
            chartered: false,
        }
    }

    /// The signed record.
    pub fn seal(&self, key: &SigningKey) -> Bytes {
        let body = codec::encode(ROOT_FORMAT, self);
        let signature = key.sign_snapshot(&body);
        seal(body, signature)
    }

    /// Reads a signed record.
    ///
    /// # Errors
    /// If it is damaged or not signed by a trusted key.
    pub fn open(sealed: &[u8], trusted: &TrustedKeys) -> Result<Self, RootError> {
        let (body, signature) = unseal(sealed)?;
        if !trusted.verifies_snapshot(&body, &signature) {
            return Err(RootError::Untrusted(signature.key));
        }
        let mut root: Self = codec::decode(ROOT_FORMAT, &body)?;
        let charter = root.charter.as_deref();
        let charter = charter.and_then(|sealed| Charter::open(sealed, trusted).ok());
        root.chartered = charter.is_some_and(|charter| charter.epoch == root.cursor.epoch);
        Ok(root)
    }

    /// Reads a signed record without asking who signed it, and gives back the id of the key that claims to have. For
    /// copying and showing; never to be taken up.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read(sealed: &[u8]) -> Result<(Self, String), RootError> {
        let (body, signature) = unseal(sealed)?;
        Ok((codec::decode(ROOT_FORMAT, &body)?, signature.key))
    }

    /// The record without a signature.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(ROOT_FORMAT, self)
    }

    /// Reads a record without a signature. Nobody vouches for it.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(body: &[u8]) -> Result<Self, RootError> {
        Ok(codec::decode(ROOT_FORMAT, body)?)
    }

    /// The roots that can be believed, newest last. The others are left out: anybody with a control plane's account on
    /// the broker can put things there.
    pub fn open_all(stored: &[StoredRoot], trusted: &TrustedKeys) -> Vec<Self> {
        let mut roots: Vec<Self> = stored
            .iter()
            .filter_map(|stored| Self::open(&stored.root, trusted).ok())
            .collect();
        roots.sort_by_key(|root| (root.cursor.epoch, root.cursor.version, root.time));
        roots
    }

    /// The name it is stored under: orders by version, and tells apart two that were cut at the same one.
    pub fn name(&self) -> String {
        let epoch = self.cursor.epoch.0.simple().to_string();
        let author = self.announcer.simple().to_string();
        let (epoch, author) = (&epoch[24..], &author[24..]);
        format!("{epoch}-{:020}-{author}", self.cursor.version.0)
    }
}

impl Charter {
    /// The signed record.
    pub fn seal(&self, key: &SigningKey) -> Bytes {
        let body = codec::encode(CHARTER_FORMAT, self);
        let signature = key.sign_charter(&body);
        seal(body, signature)
    }

    /// Reads a signed record.
    ///
    /// # Errors
    /// If it is damaged or not signed by a key that may give charters.
    pub fn open(sealed: &[u8], trusted: &TrustedKeys) -> Result<Self, RootError> {
        let (body, signature) = unseal(sealed)?;
        if !trusted.verifies_charter(&body, &signature) {
            return Err(RootError::Untrusted(signature.key));
        }
        Ok(codec::decode(CHARTER_FORMAT, &body)?)
    }
}

fn seal(body: Vec<u8>, signature: Signature) -> Bytes {
    let Signature { key, bytes } = signature;
    let sealed = Sealed {
        body: body.into(),
        key,
        signature: Bytes::copy_from_slice(&bytes),
    };
    codec::encode(SEALED_FORMAT, &sealed).into()
}

fn unseal(sealed: &[u8]) -> Result<(Bytes, Signature), RootError> {
    let Sealed {
        body,
        key,
        signature,
    } = codec::decode(SEALED_FORMAT, sealed)?;
    match signature.as_ref().try_into() {
        Ok(bytes) => Ok((body, Signature { key, bytes })),
        Err(_) => Err(RootError::Untrusted(key)),
    }
}
