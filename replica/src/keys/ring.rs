//! The keyring: which control planes' keys are believed, signed by a root key.
//!
//! A ring says everything anew; it does not build on the one before it. Its serial number alone says which of two is
//! newer, so that nobody who holds an old ring can bring a revoked key back.

use super::public::PublicKey;
use super::signing::SigningKey;
use super::trusted::TrustedKeys;
use crate::log::Signature;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, CodecError, Format};
use sluice_schema::version::Time;
use std::collections::BTreeSet;
use std::fmt;

const RING_FORMAT: Format = Format {
    magic: *b"SlK",
    version: 1,
};
const SEALED_FORMAT: Format = Format {
    magic: *b"SlR",
    version: 1,
};

/// The longest sealed ring, in bytes.
pub const RING_BYTES_MAX: usize = crate::log::ROOT_BYTES_MAX;
/// The most keys in a ring.
pub const ENTRIES_MAX: usize = 1024;
/// The longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest note on a key, in bytes.
pub const NOTE_BYTES_MAX: usize = 128;

/// How far a key is believed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// For everything: its owner may append.
    Active,
    /// For what it has signed, not for what comes: its events and snapshots are believed, its heads are not, and its
    /// owner may not append.
    Retired,
    /// For nothing, also if the key is pinned.
    Revoked,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        })
    }
}

/// One key of a ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The public key.
    pub key: PublicKey,
    /// Its name, for people: one word of 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// How far it is believed.
    pub standing: Standing,
    /// Why, for people: one line of at most [`NOTE_BYTES_MAX`] bytes; may be empty.
    pub note: String,
}

/// Which control planes' keys are believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyring {
    /// Which ring this is, from 1. A replica takes up higher serials only.
    pub serial: u64,
    /// When it was signed, by the clock of whoever did.
    pub made: Time,
    /// The keys, each once.
    pub entries: Vec<Entry>,
}

/// A ring that is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Nobody here could vouch for it.
    #[error("no root key is pinned here: put the root's .pub file into trusted_keys")]
    NoRoot,
    /// More bytes than a ring may have.
    #[error("a keyring of {0} bytes is too large")]
    TooLarge(usize),
    /// Not a keyring.
    #[error("could not decode the keyring")]
    Codec(#[from] CodecError),
    /// A keyring with something in it that makes no sense.
    #[error("the keyring makes no sense: {0}")]
    Malformed(String),
    /// Signed by nobody we know as a root.
    #[error("the keyring is signed by key {0}, which is not a root key pinned here")]
    Stranger(String),
    /// The root named in it has not signed these bytes.
    #[error("the keyring's signature is not that of root key {0}")]
    Signature(String),
    /// An old one. Somebody may want a revoked key back.
    #[error("keyring {serial} is not newer than keyring {held}, which is in force")]
    NotNewer {
        /// Its serial.
        serial: u64,
        /// The serial of the ring in force.
        held: u64,
    },
    /// Two rings share a serial: whoever signs must make the next one from the one in force.
    #[error("another keyring with serial {serial} is in force: sign the next one from that")]
    Twin {
        /// Their serial.
        serial: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct RingBody {
    serial: u64,
    made: Time,
    keys: Vec<EntryBody>,
}

#[derive(Serialize, Deserialize)]
struct EntryBody {
    key: Bytes,
    name: String,
    standing: Standing,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    ring: Bytes,
    key: String,
    signature: Bytes,
}

impl Keyring {
    /// The signed form.
    ///
    /// # Errors
    /// If nobody could read it: see [`RingError::Malformed`] and [`RingError::TooLarge`].
    pub fn seal(&self, root: &SigningKey) -> Result<Bytes, RingError> {
        self.check()?;
        let entries = self.entries.iter().map(|entry| EntryBody {
            key: Bytes::copy_from_slice(entry.key.as_bytes()),
            name: entry.name.clone(),
            standing: entry.standing,
            note: entry.note.clone(),
        });
        let body = RingBody {
            serial: self.serial,
            made: self.made,
            keys: entries.collect(),
        };
        let ring = Bytes::from(codec::encode(RING_FORMAT, &body));
        let Signature { key, bytes } = root.sign_ring(&ring);
        let signature = Bytes::copy_from_slice(&bytes);
        let sealed = Sealed {
            ring,
            key,
            signature,
        };
        let sealed = codec::encode(SEALED_FORMAT, &sealed);
        if sealed.len() > RING_BYTES_MAX {
            return Err(RingError::TooLarge(sealed.len()));
        }
        Ok(sealed.into())
    }

    /// Reads a sealed ring whose signature one of the roots of `trusted` vouches for, and that root's id. Whether it is
    /// newer than another one is for the caller to say.
    ///
    /// # Errors
    /// If it is damaged, malformed, or not signed by one of these roots.
    pub fn open(sealed: &[u8], trusted: &TrustedKeys) -> Result<(Self, String), RingError> {
        let (ring, signature) = unseal(sealed)?;
        if !trusted.has_root() {
            return Err(RingError::NoRoot);
        }
        match trusted.verifies_ring(&ring, &signature) {
            None => Err(RingError::Stranger(signature.key)),
            Some(false) => Err(RingError::Signature(signature.key)),
            Some(true) => Ok((Self::decode(&ring)?, signature.key)),
        }
    }

    /// Reads a sealed ring without asking who signed it, and the id of the key that claims to have. To be shown, not to
    /// be believed.
    ///
    /// # Errors
    /// If it is damaged or malformed.
    pub fn peek(sealed: &[u8]) -> Result<(Self, String), RingError> {
        let (ring, signature) = unseal(sealed)?;
        Ok((Self::decode(&ring)?, signature.key))
    }

    fn decode(ring: &[u8]) -> Result<Self, RingError> {
        let body: RingBody = codec::decode(RING_FORMAT, ring)?;
        let mut entries = Vec::with_capacity(body.keys.len().min(ENTRIES_MAX));
        for EntryBody {
            key,
            name,
            standing,
            note,
        } in body.keys
        {
            let bytes: Option<[u8; 32]> = key.as_ref().try_into().ok();
            let key = bytes.and_then(|bytes| PublicKey::from_bytes(&bytes));
            let key = key.ok_or_else(|| {
                RingError::Malformed(format!("the key of '{}' is none", name.escape_debug()))
            })?;
            entries.push(Entry {
                key,
                name,
                standing,
                note,
            });
        }
        let ring = Self {
            serial: body.serial,
            made: body.made,
            entries,
        };
        ring.check()?;
        Ok(ring)
    }

    fn check(&self) -> Result<(), RingError> {
        let refuse = |reason: String| Err(RingError::Malformed(reason));
        if self.serial == 0 {
            return refuse("its serial is 0".to_owned());
        }
        if self.entries.len() > ENTRIES_MAX {
            return refuse(format!("it has more than {ENTRIES_MAX} keys"));
        }
        let mut ids = BTreeSet::new();
        for Entry {
            key, name, note, ..
        } in &self.entries
        {
            if !ids.insert(key.id()) {
                return refuse(format!("key {} is in it twice", key.id()));
            }
            // Both are shown on terminals.
            let word = (1..=NAME_BYTES_MAX).contains(&name.len())
                && !name.contains(|c: char| c.is_whitespace() || c.is_control());
            if !word {
                return refuse(format!(
                    "the name of key {} is not one word of 1 to {NAME_BYTES_MAX} bytes",
                    key.id()
                ));
            }
            if note.len() > NOTE_BYTES_MAX || note.contains(char::is_control) {
                return refuse(format!(
                    "the note on key {} is not one line of at most {NOTE_BYTES_MAX} bytes",
                    key.id()
                ));
            }
        }
        Ok(())
    }
}

/// What was signed, and the signature.
fn unseal(sealed: &[u8]) -> Result<(Bytes, Signature), RingError> {
    if sealed.len() > RING_BYTES_MAX {
        return Err(RingError::TooLarge(sealed.len()));
    }
    let Sealed {
        ring,
        key,
        signature,
    } = codec::decode(SEALED_FORMAT, sealed)?;
    let bytes = signature
        .as_ref()
        .try_into()
        .map_err(|_| RingError::Malformed("its signature is not 64 bytes".to_owned()))?;
    Ok((ring, Signature { key, bytes }))
}
