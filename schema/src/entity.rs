//! What the log carries about an entity: its key and its canonical bytes. Nothing here asks for a known kind, so
//! that a replica keeps kinds and fields that are newer than itself.

use crate::version::Version;
use serde::de::{self, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The name of a kind as it stands in the log: `service`, `route`, ... May be one this build does not know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct KindName(Cow<'static, str>);

impl KindName {
    /// A kind this build knows.
    pub const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// A kind this build may not know: 1 to 64 of `a-z 0-9 _`. `None` if the name breaks that rule.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(kind) = crate::kind::Kind::from_name(name) {
            return Some(kind.key_name());
        }
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let valid = (1..=64).contains(&name.len()) && name.bytes().all(allowed);
        valid.then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for KindName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&name)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&name), &"a kind's name"))
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workspace's name: a namespace for entities. 1 to 64 of `A-Z a-z 0-9 _ -`, so that it can stand in a subject.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Workspace(Cow<'static, str>);

impl Workspace {
    /// The workspace that always exists.
    pub const DEFAULT: Self = Self(Cow::Borrowed("default"));

    /// Parses a name; `None` if it breaks the rule above.
    pub fn parse(name: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let valid = (1..=64).contains(&name.len()) && name.bytes().all(allowed);
        match name {
            "default" => Some(Self::DEFAULT),
            _ => valid.then(|| Self(Cow::Owned(name.to_owned()))),
        }
    }

    /// The name that no other comes before.
    pub fn first() -> Self {
        Self(Cow::Borrowed("-"))
    }

    /// The name that no other comes after.
    pub(crate) fn last() -> Self {
        Self(Cow::Owned("z".repeat(64)))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Workspace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| {
            de::Error::invalid_value(de::Unexpected::Str(&name), &"a workspace name")
        })
    }
}

impl fmt::Display for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entity's UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub Uuid);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What names an entity everywhere. Ordered by kind, workspace, id: the order of snapshots and lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The entity's kind.
    pub kind: KindName,
    /// Its workspace.
    pub workspace: Workspace,
    /// Its UUID.
    pub id: Id,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.workspace, self.kind, self.id)
    }
}

/// An entity's canonical bytes: a MessagePack map of its fields with sorted keys and without nulls. The id is not
/// in it (it is in the [`Key`]). Two equal entities have equal bytes on every node.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<[u8]>);

impl Body {
    /// The canonical form of `fields`.
    pub fn encode(fields: &Map<String, Value>) -> Self {
        let mut bytes = Vec::with_capacity(512);
        CanonicalMap(fields)
            .serialize(&mut rmp_serde::Serializer::new(&mut bytes))
            .expect("JSON values always encode as MessagePack into memory");
        Self(bytes.into())
    }

    /// The fields back as JSON. Fields without a value are absent.
    ///
    /// # Errors
    /// If the bytes are not a MessagePack map with string keys.
    pub fn fields(&self) -> Result<Map<String, Value>, BodyError> {
        self.view()
    }

    /// A typed view of the body. Unknown fields are ignored by the views.
    ///
    /// # Errors
    /// If the bytes do not have the shape `T` asks for.
    pub fn view<'a, T: Deserialize<'a>>(&'a self) -> Result<T, BodyError> {
        rmp_serde::from_slice(&self.0).map_err(BodyError)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes that were written by [`Body::encode`], here or on another node.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The fields may hold credentials.
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Body;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entity's bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Body, E> {
                Ok(Body(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

/// A body that does not decode.
#[derive(Debug, thiserror::Error)]
#[error("could not decode an entity's body")]
pub struct BodyError(#[source] rmp_serde::decode::Error);

/// An entity as a state holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The event that last wrote the entity.
    pub version: Version,
    /// Its canonical bytes.
    pub body: Body,
}

/// One entity's step from one version to the next, with both sides, so that an observer can take the old form
/// out of its indexes and put the new one in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The entity.
    pub key: Key,
    /// Before; `None` if it is new.
    pub before: Option<Entry>,
    /// After; `None` if it is deleted.
    pub after: Option<Entry>,
}

struct CanonicalMap<'a>(&'a Map<String, Value>);

impl Serialize for CanonicalMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Sorted here and not left to serde_json, whose order depends on a feature any dependency can switch on.
        let mut fields: Vec<_> = self
            .0
            .iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        fields.sort_unstable_by_key(|(name, _)| name.as_str());
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (name, value) in fields {
            map.serialize_entry(name, &Canonical(value))?;
        }
        map.end()
    }
}

struct Canonical<'a>(&'a Value);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => CanonicalMap(map).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Canonical)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.0.serialize(serializer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_entities_have_equal_bytes_whatever_the_order_and_the_nulls() {
        let one = json!({"b": 1, "a": {"y": null, "x": [1, "two", 3.5]}, "c": null});
        let two = json!({"a": {"x": [1, "two", 3.5]}, "b": 1});
        let encode = |value: &Value| Body::encode(value.as_object().unwrap());
        assert_eq!(encode(&one), encode(&two));
        assert_eq!(Value::Object(encode(&one).fields().unwrap()), two);
    }
}
