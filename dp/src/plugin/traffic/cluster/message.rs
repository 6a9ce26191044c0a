//! What data planes tell each other about what they have counted.

use super::super::counters::{Key, Subject};
use super::super::windows::Counted;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, CodecError, Format};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;

const FORMAT: Format = Format {
    magic: *b"SlU",
    version: 1,
};
/// Longer messages are not looked at.
const BYTES_MAX: usize = 256 * 1024;
/// How many identities are told of in one message: of 140 bytes each at most.
pub(super) const IDENTITIES_MAX: usize = 1000;

/// A message.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Message {
    /// Whose counts: a number that a node draws when it starts.
    pub(super) life: u64,
    /// The node they are of, if it is not the sender: what it counted before it was started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
    /// Whether the sender may have missed something, and wants to be told everything.
    #[serde(default)]
    pub(super) asks: bool,
    /// All that was counted in each window, not only what is new.
    pub(super) counts: Vec<Identity>,
}

/// One identity: plugin, kind of subject, subject, windows (period, start, count).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Identity(Uuid, u8, Bytes, Vec<(u8, u32, u32)>);

/// Kinds of subjects.
const ENTITY: u8 = 0;
const ADDRESS: u8 = 1;
const TEXT: u8 = 2;

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        codec::encode(FORMAT, self).into()
    }

    /// # Errors
    /// If it is none, or too long.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if let Some(excess) = bytes.len().checked_sub(BYTES_MAX + 1) {
            return Err(CodecError::Trailing(excess + 1));
        }
        codec::decode(FORMAT, bytes)
    }
}

impl Identity {
    pub(super) fn new(key: Key, windows: impl Iterator<Item = Counted>) -> Self {
        let (kind, subject) = match key.subject {
            Subject::Entity(id) => (ENTITY, Bytes::copy_from_slice(id.as_bytes())),
            Subject::Address(IpAddr::V4(address)) => {
                (ADDRESS, Bytes::copy_from_slice(&address.octets()))
            }
            Subject::Address(IpAddr::V6(address)) => {
                (ADDRESS, Bytes::copy_from_slice(&address.octets()))
            }
            Subject::Text(hash) => (TEXT, Bytes::copy_from_slice(&hash)),
        };
        let windows = windows.filter_map(|counted| {
            let period = u8::try_from(counted.period).ok()?;
            Some((period, counted.start, counted.count))
        });
        Self(key.plugin, kind, subject, windows.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.3.is_empty()
    }

    /// `None` if it is of a newer kind.
    pub(super) fn key(&self) -> Option<Key> {
        let bytes = self.2.as_ref();
        let subject = match self.1 {
            ENTITY => Subject::Entity(Uuid::from_slice(bytes).ok()?),
            ADDRESS => Subject::Address(match bytes.len() {
                4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
                _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
            }),
            TEXT => Subject::Text(bytes.try_into().ok()?),
            _ => return None,
        };
        Some(Key {
            plugin: self.0,
            subject,
        })
    }

    pub(super) fn windows(&self) -> Vec<Counted> {
        let windows = self.3.iter();
        let window = |(period, start, count): &(u8, u32, u32)| Counted {
            period: usize::from(*period),
            start: *start,
            count: *count,
        };
        windows.map(window).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_read_back_and_a_full_message_fits() {
        let subjects = [
            Subject::Entity(Uuid::from_u128(1)),
            Subject::Address("10.0.0.1".parse().unwrap()),
            Subject::Address("fe80::1".parse().unwrap()),
            Subject::Text([u8::MAX; 16]),
        ];
        let windows = [0, 1, 2, 3, 4, 5].map(|period| Counted {
            period,
            start: u32::MAX,
            count: u32::MAX,
        });
        let keys = subjects.into_iter().cycle().take(IDENTITIES_MAX);
        let keys: Vec<_> = keys
            .map(|subject| Key {
                plugin: Uuid::max(),
                subject,
            })
            .collect();
        let identities = keys
            .iter()
            .map(|key| Identity::new(*key, windows.into_iter()));
        let message = Message {
            life: u64::MAX,
            of: Some("a".repeat(64)),
            asks: true,
            counts: identities.collect(),
        };
        let bytes = message.encode();
        assert!(bytes.len() <= 140 * IDENTITIES_MAX, "{}", bytes.len());
        let read = Message::decode(&bytes).unwrap();
        for (identity, key) in read.counts.iter().zip(keys) {
            assert_eq!(identity.key(), Some(key));
            assert_eq!(identity.windows(), windows);
        }
        assert!(Message::decode(&bytes[..40]).is_err());
        assert!(Message::decode(&vec![0; BYTES_MAX + 1]).is_err());
    }
}
