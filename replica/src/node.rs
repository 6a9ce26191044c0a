//! What travels beside the log: the head that control planes announce, and the reports of nodes.

use crate::keys::{SigningKey, TrustedKeys};
use crate::log::Signature;
use crate::planted::{Bug, planted};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use sluice_schema::codec::{self, CodecError, Format};
use sluice_schema::digest::Digest;
use sluice_schema::version::{Chain, Cursor, Epoch, Time, Version};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
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

impl FromStr for SyncMode {
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

/// Groups that a node may belong to; further ones in a report are passed over.
pub const GROUPS_MAX: usize = 16;
const GROUP_BYTES_MAX: usize = 64;

/// The name of a group of nodes, which belong to it by their settings: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Group(Arc<str>);

/// What is no group's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected the name of a group: 1 to 64 of A-Z a-z 0-9 _ -")]
pub struct NotAGroup;

impl Group {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Group {
    type Err = NotAGroup;

    fn from_str(text: &str) -> Result<Self, NotAGroup> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let fits = (1..=GROUP_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self(text.into())).ok_or(NotAGroup)
    }
}

impl TryFrom<String> for Group {
    type Error = NotAGroup;

    fn try_from(text: String) -> Result<Self, NotAGroup> {
        text.parse()
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.as_str().to_owned()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    /// The groups it belongs to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[serde(deserialize_with = "known_groups")]
    pub groups: BTreeSet<Group>,
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
        let mut report: Self = codec::decode(REPORT_FORMAT, message)?;
        while report.groups.len() > GROUPS_MAX {
            report.groups.pop_last();
        }
        Ok(report)
    }
}

/// The names that are names here: a report of a newer build still counts.
fn known_groups<'de, D: Deserializer<'de>>(names: D) -> Result<BTreeSet<Group>, D::Error> {
    let names = Vec::<String>::deserialize(names)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(groups: &[String]) -> Report {
        Report {
            node: "n".into(),
            hostname: "h".into(),
            software: "1".into(),
            groups: groups.iter().map(|name| name.parse().unwrap()).collect(),
            cursor: Cursor::default(),
            digest: Digest::default(),
            durable: Version::ZERO,
            entities: 0,
            rejected: Vec::new(),
            phase: "following".into(),
            last_error: None,
            keyring: 0,
            plugins: Vec::new(),
            ailing: Vec::new(),
            leaving: false,
            time: Time(1),
        }
    }

    #[test]
    fn a_report_names_its_groups_and_one_without_is_as_it_always_was() {
        let named = report(&["edge-eu".to_owned(), "canary".to_owned()]);
        assert_eq!(Report::decode(&named.encode()).unwrap(), named);
        let plain = report(&[]);
        let bytes = plain.encode();
        assert!(!bytes.windows(6).any(|part| part == b"groups"));
        assert_eq!(Report::decode(&bytes).unwrap(), plain);
        let many: Vec<String> = (0..40).map(|number| format!("g{number:02}")).collect();
        let read = Report::decode(&report(&many).encode()).unwrap();
        assert_eq!(read.groups.len(), GROUPS_MAX);
        let mut strange = codec::encode(REPORT_FORMAT, &named);
        let place = strange.windows(7).position(|part| part == b"edge-eu");
        strange[place.unwrap() + 4] = b'.';
        let read = Report::decode(&strange).unwrap();
        assert_eq!(read.groups.len(), 1, "what is no name here is passed over");
        for text in ["", "a b", "ü", "a,b", &"x".repeat(65)] {
            assert!(text.parse::<Group>().is_err(), "{text}");
        }
    }

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
