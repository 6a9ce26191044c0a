//! The event: one committed transaction, exactly one message in the log.

use crate::codec::{self, CodecError, Format};
use crate::digest::Digest;
use crate::entity::{Body, Id, Key, KindName, Workspace};
use crate::hash::Hash32;
use crate::trace::TraceContext;
use crate::version::{Chain, Cursor, Epoch, Time, Version};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The format of an encoded [`Event`].
pub const FORMAT: Format = Format {
    magic: *b"SlE",
    version: 1,
};
/// The format of the mutations of a large transaction, kept in the chunk store.
pub const MUTATIONS_FORMAT: Format = Format {
    magic: *b"SlM",
    version: 1,
};
/// Mutations that encode to more than this are kept in the chunk store; the event carries their hash.
pub const INLINE_BYTES_MAX: usize = 512 * 1024;
/// The size of the pieces in which a large transaction is stored.
pub const CHUNK_BYTES_MAX: usize = 512 * 1024;

/// An event's own name (UUID v7), the same over every resend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One committed transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The log's life.
    pub epoch: Epoch,
    /// The version this event was decided on; its own is the next.
    #[serde(rename = "prev")]
    pub previous: Version,
    /// The chain at that version.
    #[serde(rename = "chain")]
    pub previous_chain: Chain,
    /// The event's name.
    pub id: EventId,
    /// When the control plane decided it.
    pub time: Time,
    /// Who asked for it.
    pub actor: Actor,
    /// Why, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The span of the control plane's that appended it, if its trace is recorded: what data planes do with the event
    /// are that one's children.
    #[serde(
        rename = "traceparent",
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::trace"
    )]
    pub trace: Option<TraceContext>,
    /// What changed.
    #[serde(rename = "muts")]
    pub mutations: Mutations,
    /// The digest of the state after this event.
    pub digest: Digest,
}

/// Who caused an event.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Actor {
    /// The name given or authenticated.
    pub name: String,
    /// The way it came: `admin-api`, `apply`, ...
    pub via: String,
    /// The peer's address, if it came over a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// The mutations of an event, or where they are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutations {
    /// In the event itself.
    Inline(Vec<Mutation>),
    /// In the chunk store, because they are large.
    Stored(StoredMutations),
}

/// A reference to the mutations of a large transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredMutations {
    /// The hash of the joined pieces.
    pub hash: Hash32,
    /// Their length together.
    pub bytes: u64,
    /// How many mutations there are.
    pub count: u64,
    /// The pieces, in order.
    pub chunks: Vec<Hash32>,
}

impl Mutations {
    /// How many there are.
    pub fn count(&self) -> u64 {
        match self {
            Self::Inline(mutations) => mutations.len() as u64,
            Self::Stored(stored) => stored.count,
        }
    }

    /// The kind of entity they are about, if it is one, and known here.
    pub fn kind(&self) -> Option<&KindName> {
        let Self::Inline(mutations) = self else {
            return None;
        };
        let kind = mutations.first()?.kind();
        let same = mutations.iter().all(|mutation| mutation.kind() == kind);
        same.then_some(kind)
    }
}

/// An unconditional fact about one entity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    /// The entity now has this body.
    Put(Put),
    /// The entity is gone.
    Delete(Key),
}

/// See [`Mutation::Put`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Put {
    /// The kind.
    pub kind: KindName,
    /// The workspace.
    pub workspace: Workspace,
    /// The UUID.
    pub id: Id,
    /// The canonical bytes.
    pub body: Body,
}

impl Mutation {
    /// A put of `body` at `key`.
    pub fn put(key: Key, body: Body) -> Self {
        Self::Put(Put {
            kind: key.kind,
            workspace: key.workspace,
            id: key.id,
            body,
        })
    }

    /// The kind of the entity it is about.
    pub fn kind(&self) -> &KindName {
        match self {
            Self::Put(put) => &put.kind,
            Self::Delete(key) => &key.kind,
        }
    }

    /// The entity it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Put(put) => Key {
                kind: put.kind.clone(),
                workspace: put.workspace.clone(),
                id: put.id,
            },
            Self::Delete(key) => key.clone(),
        }
    }

    /// The body it leaves behind.
    pub fn body(&self) -> Option<&Body> {
        match self {
            Self::Put(put) => Some(&put.body),
            Self::Delete(_) => None,
        }
    }
}

/// An event as it goes out: its message, and the pieces that must be stored before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The message.
    pub bytes: Vec<u8>,
    /// Pieces for the chunk store; empty for all but large transactions.
    pub chunks: Vec<(Hash32, Vec<u8>)>,
}

impl Event {
    /// The first event of a log: no mutations, names the epoch.
    pub fn genesis(epoch: Epoch, id: EventId, time: Time, actor: Actor) -> Self {
        Self {
            epoch,
            previous: Version::ZERO,
            previous_chain: Chain::ZERO,
            id,
            time,
            actor,
            reason: None,
            request_id: None,
            trace: None,
            mutations: Mutations::Inline(Vec::new()),
            digest: crate::digest::Accumulator::default().digest(),
        }
    }

    /// The first event of a later life of the log, after whatever the log held up to `previous`: no mutations, names the
    /// epoch and the digest of the state that the life begins with. That state is in a snapshot.
    pub fn founding(
        epoch: Epoch,
        previous: Version,
        digest: Digest,
        id: EventId,
        time: Time,
        actor: Actor,
    ) -> Self {
        Self {
            previous,
            digest,
            ..Self::genesis(epoch, id, time, actor)
        }
    }

    /// Whether it begins a life of the log: it follows nothing.
    pub fn begins(&self) -> bool {
        self.previous_chain == Chain::ZERO
    }

    /// Whether it begins a life of the log with a state that only a snapshot has.
    pub fn is_founding(&self) -> bool {
        let alone = Mutations::Inline(Vec::new());
        let empty = crate::digest::Accumulator::default().digest();
        self.begins() && self.mutations == alone && self.digest != empty
    }

    /// Whether it was decided on what a replica at `cursor` has applied.
    pub fn follows(&self, cursor: &Cursor) -> bool {
        let fresh = cursor.version == Version::ZERO;
        self.previous == cursor.version
            && self.previous_chain == cursor.chain
            && (fresh || self.epoch == cursor.epoch)
    }

    /// The version it has if it is in the log.
    pub fn version(&self) -> Version {
        self.previous.next()
    }

    /// The message, and the chunks it refers to.
    pub fn encode(&self) -> Encoded {
        let bytes = codec::encode(FORMAT, self);
        let Mutations::Inline(mutations) = &self.mutations else {
            return Encoded {
                bytes,
                chunks: Vec::new(),
            };
        };
        if bytes.len() <= INLINE_BYTES_MAX {
            return Encoded {
                bytes,
                chunks: Vec::new(),
            };
        }
        let stored = codec::encode(MUTATIONS_FORMAT, mutations);
        let chunks: Vec<_> = stored
            .chunks(CHUNK_BYTES_MAX)
            .map(|piece| (Hash32::of(piece), piece.to_vec()))
            .collect();
        let reference = StoredMutations {
            hash: Hash32::of(&stored),
            bytes: stored.len() as u64,
            count: mutations.len() as u64,
            chunks: chunks.iter().map(|(hash, _)| *hash).collect(),
        };
        let event = Self {
            mutations: Mutations::Stored(reference),
            ..self.clone()
        };
        Encoded {
            bytes: codec::encode(FORMAT, &event),
            chunks,
        }
    }

    /// Reads a message. Large transactions come back as [`Mutations::Stored`].
    ///
    /// # Errors
    /// If the bytes are not an event this build can read.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(FORMAT, bytes)
    }

    /// The cursor of a replica that has applied this event, whose message is `bytes`.
    pub fn cursor(&self, bytes: &[u8]) -> Cursor {
        Cursor {
            epoch: self.epoch,
            version: self.version(),
            chain: self.previous_chain.extend(bytes),
        }
    }
}

impl StoredMutations {
    /// The mutations out of the joined pieces, after checking them against the hash.
    ///
    /// # Errors
    /// If the bytes are not the ones the event was signed with, or do not decode.
    pub fn open(&self, joined: &[u8]) -> Result<Vec<Mutation>, StoredError> {
        if Hash32::of(joined) != self.hash {
            return Err(StoredError::Hash);
        }
        codec::decode(MUTATIONS_FORMAT, joined).map_err(StoredError::Codec)
    }

    /// Where in the joined pieces each of the mutations begins; they are all of them, in order. With that, one can be read
    /// later without the others. `None` if it cannot be told: they were not encoded as we do it.
    pub fn places(&self, mutations: &[Mutation]) -> Option<Vec<u32>> {
        let head = codec::encode(MUTATIONS_FORMAT, &()).len() as u64 - 1;
        let length = |mutation| codec::encode(MUTATIONS_FORMAT, mutation).len() as u64 - head;
        let lengths: Vec<u64> = mutations.iter().map(length).collect();
        let mut place = self.bytes.checked_sub(lengths.iter().sum())?;
        let mut places = Vec::with_capacity(lengths.len());
        for length in lengths {
            places.push(u32::try_from(place).ok()?);
            place += length;
        }
        Some(places)
    }

    /// The numbers of the pieces that have the bytes from `begin` up to `end`, and where the first of them begins.
    pub fn pieces(&self, begin: u64, end: u64) -> (std::ops::Range<usize>, u64) {
        let size = CHUNK_BYTES_MAX as u64;
        let first = begin / size;
        let after = end.div_ceil(size);
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        (number(first)..number(after), first * size)
    }
}

impl Mutation {
    /// Reads a mutation alone, out of the joined pieces of a large transaction.
    ///
    /// # Errors
    /// If the bytes are not exactly one.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode_body(bytes)
    }
}

/// Stored mutations that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Not the bytes the event names.
    #[error("the stored mutations do not match the hash in the event")]
    Hash,
    /// Not mutations.
    #[error("could not decode stored mutations")]
    Codec(#[source] CodecError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(bodies: &[Vec<u8>]) -> Event {
        let put = |(number, body): (usize, &Vec<u8>)| {
            let key = Key {
                kind: KindName::known("service"),
                workspace: Workspace::DEFAULT,
                id: Id(Uuid::from_u128(number as u128)),
            };
            Mutation::put(key, Body::from_bytes(body))
        };
        Event {
            reason: Some("a test".into()),
            mutations: Mutations::Inline(bodies.iter().enumerate().map(put).collect()),
            ..Event::genesis(
                Epoch(Uuid::from_u128(7)),
                EventId(Uuid::from_u128(9)),
                Time(1_700_000_000_000_000),
                Actor::default(),
            )
        }
    }

    proptest! {
        #[test]
        fn an_event_survives_its_own_encoding(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let event = event(&bodies);
            let encoded = event.encode();
            prop_assert!(encoded.chunks.is_empty());
            prop_assert_eq!(Event::decode(&encoded.bytes).unwrap(), event);
        }

        #[test]
        fn damage_never_panics_and_trailing_bytes_are_refused(at in 0_usize..300, bit in 0_u8..8, extra in 1_usize..9) {
            let mut bytes = event(&[vec![1; 40]]).encode().bytes;
            let mut longer = bytes.clone();
            longer.extend(vec![0xc0; extra]);
            prop_assert!(Event::decode(&longer).is_err());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = Event::decode(&bytes);
        }
    }

    #[test]
    fn a_traceparent_that_cannot_be_read_leaves_the_event_readable() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let traced = Event {
            trace: TraceContext::parse(text),
            ..event(&[vec![1; 40]])
        };
        let bytes = traced.encode().bytes;
        assert_eq!(Event::decode(&bytes).unwrap(), traced);
        let at = bytes
            .windows(text.len())
            .position(|part| part == text.as_bytes());
        let mut strange = bytes.clone();
        strange[at.unwrap()] = b'x';
        let plain = Event {
            trace: None,
            ..traced
        };
        assert_eq!(Event::decode(&strange).unwrap(), plain);
        assert_eq!(plain.encode(), event(&[vec![1; 40]]).encode());
    }

    #[test]
    fn a_large_transaction_is_one_small_message_and_checked_pieces() {
        let event = event(&vec![vec![7_u8; 1000]; 2000]);
        let encoded = event.encode();
        assert!(encoded.bytes.len() < 1024, "{}", encoded.bytes.len());
        assert_eq!(encoded.chunks.len(), 5);
        assert!(
            encoded
                .chunks
                .iter()
                .all(|(hash, piece)| *hash == Hash32::of(piece))
        );
        let Mutations::Stored(stored) = Event::decode(&encoded.bytes).unwrap().mutations else {
            panic!("expected stored mutations");
        };
        let mut joined: Vec<u8> = encoded
            .chunks
            .iter()
            .flat_map(|(_, piece)| piece.clone())
            .collect();
        assert_eq!(
            Mutations::Inline(stored.open(&joined).unwrap()),
            event.mutations
        );
        let Mutations::Inline(mutations) = &event.mutations else {
            panic!("expected inline mutations");
        };
        let places = stored.places(mutations).unwrap();
        let ends = places[1..]
            .iter()
            .copied()
            .chain([u32::try_from(joined.len()).unwrap()]);
        for ((begin, end), mutation) in places.iter().zip(ends).zip(mutations) {
            let own = &joined[*begin as usize..end as usize];
            assert_eq!(Mutation::decode(own).unwrap(), *mutation);
            let (pieces, first) = stored.pieces(u64::from(*begin), u64::from(end));
            assert!(first <= u64::from(*begin) && pieces.end <= encoded.chunks.len());
            let length: usize = encoded.chunks[pieces]
                .iter()
                .map(|(_, piece)| piece.len())
                .sum();
            assert!(first + length as u64 >= u64::from(end));
        }
        joined[100_000] ^= 1;
        assert!(matches!(stored.open(&joined), Err(StoredError::Hash)));
    }
}
