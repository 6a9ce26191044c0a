//! What travels beside the log: the head that control planes announce, and the reports of nodes.

use crate::keys::{SigningKey, TrustedKeys};
use crate::log::Signature;
use crate::planted::{Bug, planted};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, CodecError, Format};
use sluice_schema::digest::Digest;
use sluice_schema::version::{Chain, Cursor, Epoch, Time, Version};
use uuid::Uuid;

const HEAD_FORMAT: Format = Format {
    magic: *b"SlH",
    version: 1,
};
const SIGNED_HEAD_FORMAT: Format = Format {
    magic: *b"SlS",
    version: 1,
};
const REPORT_FORMAT: Format = Format {
    magic: *b"SlN",
    version: 1,
};

/// How data planes take up changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// Each change alone.
    #[default]
    Incremental,
    /// The whole configuration on each change; for comparison and trouble-shooting.
    Full,
}

impl std::str::FromStr for SyncMode {
    type Err = &'static str;

    /// Reads the setting `incremental_sync`: `on` or `off`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self::Incremental),
            "off" => Ok(Self::Full),
            _ => Err("expected on or off"),
        }
    }
}

/// Where the log ends, as a control plane sees it; announced every second.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The log's life.
    pub epoch: Epoch,
    /// The last version this control plane has applied.
    pub version: Version,
    /// The chain there.
    pub chain: Chain,
    /// The first version the log keeps.
    pub first: Version,
    /// When it was announced.
    pub time: Time,
    /// The control plane that announces it.
    pub announcer: Uuid,
    /// How data planes are asked to take up changes.
    #[serde(default)]
    pub sync: SyncMode,
    /// The serial of the keyring in force there; 0 without one.
    #[serde(default)]
    pub ring: u64,
    /// The highest version that somebody waits for at this control plane: nodes say at once when they serve it, and need
    /// not wait for the next second.
    #[serde(default, skip_serializing_if = "nobody")]
    pub asks: Version,
    /// The newest snapshot this control plane knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotReference>,
}

/// Whether nobody waits for anything.
fn nobody(asks: &Version) -> bool {
    *asks == Version::ZERO
}

/// What a head says of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotReference {
    /// What it is a snapshot of.
    pub version: Version,
    /// How many entities it has.
    pub entities: u64,
    /// The encoded bytes of its leaves.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct SignedHead {
    head: Bytes,
    key: String,
    signature: Bytes,
}

/// A head that is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not a head.
    #[error("could not decode a head")]
    Codec(#[from] CodecError),
    /// Not signed by a key we trust.
    #[error("the head is not signed by a trusted key (key id {0})")]
    Untrusted(String),
}

impl Head {
    /// The signed message.
    pub fn seal(&self, key: &SigningKey) -> Bytes {
        let head = codec::encode(HEAD_FORMAT, self);
        let Signature { key, bytes } = key.sign_head(&head);
        codec::encode(
            SIGNED_HEAD_FORMAT,
            &SignedHead {
                head: head.into(),
                key,
                signature: Bytes::copy_from_slice(&bytes),
            },
        )
        .into()
    }

    /// Reads a signed message.
    ///
    /// # Errors
    /// If it is damaged or not signed by a trusted key.
    pub fn open(message: &[u8], trusted: &TrustedKeys) -> Result<Self, HeadError> {
        let SignedHead {
            head,
            key,
            signature,
        } = codec::decode(SIGNED_HEAD_FORMAT, message)?;
        let signature: Option<[u8; 64]> = signature.as_ref().try_into().ok();
        let valid = signature
            .map(|bytes| Signature {
                key: key.clone(),
                bytes,
            })
            .is_some_and(|signature| trusted.verifies_head(&head, &signature));
        if !valid && !planted(Bug::HeadUnverified) {
            return Err(HeadError::Untrusted(key));
        }
        Self::decode(&head)
    }

    /// Reads a head without a signature. Nobody vouches for it.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn decode(head: &[u8]) -> Result<Self, HeadError> {
        Ok(codec::decode(HEAD_FORMAT, head)?)
    }
}

/// What a node says of itself: every second, when something else than its version changes, and at once when it serves what
/// a head [asks](Head::asks) for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The node's id.
    pub node: String,
    /// The machine's name.
    pub hostname: String,
    /// The program's version.
    pub software: String,
    /// What it serves.
    pub cursor: Cursor,
    /// The digest of that.
    pub digest: Digest,
    /// The version its store has synced to disk.
    pub durable: Version,
    /// How many entities it holds.
    pub entities: u64,
    /// Entities it could not put to use.
    pub rejected: Vec<RejectedEntity>,
    /// What it is doing, in words.
    pub phase: String,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The serial of the keyring in force there; 0 without one.
    #[serde(default)]
    pub keyring: u64,
    /// The plugins it runs; empty if it is older than this field.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Targets that are not well there, and upstreams without enough that are; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ailing: Vec<Ailing>,
    /// Whether it stops, and nobody should wait for it any more.
    #[serde(default)]
    pub leaving: bool,
    /// The node's clock.
    pub time: Time,
}

/// A target that is not well on a node, or a whole upstream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ailing {
    /// The upstream's id.
    pub upstream: Uuid,
    /// `host:port`; absent if it is the upstream that cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Absent if the target's name does not resolve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// An entity a node could not put to use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RejectedEntity {
    /// Workspace, kind and id.
    pub entity: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// The message.
    pub fn encode(&self) -> Bytes {
        codec::encode(REPORT_FORMAT, self).into()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If it is not a report.
    pub fn decode(message: &[u8]) -> Result<Self, CodecError> {
        codec::decode(REPORT_FORMAT, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_believed_only_with_a_trusted_signature() {
        let key = SigningKey::from_seed([3; 32]);
        let head = Head {
            epoch: Epoch::default(),
            version: Version(7),
            chain: Chain::ZERO.extend(b"x"),
            first: Version(1),
            time: Time(1),
            announcer: Uuid::nil(),
            sync: SyncMode::Incremental,
            ring: 0,
            asks: Version::ZERO,
            snapshot: None,
        };
        let message = head.seal(&key);
        assert_eq!(Head::open(&message, &key.trusted()).unwrap(), head);
        assert!(Head::open(&message, &SigningKey::from_seed([4; 32]).trusted()).is_err());
        for at in 0..message.len() {
            let mut damaged = message.to_vec();
            damaged[at] ^= 1;
            assert!(Head::open(&damaged, &key.trusted()).is_err(), "byte {at}");
        }
    }
}
