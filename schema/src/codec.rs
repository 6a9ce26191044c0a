//! How stored values become bytes: magic, format version, MessagePack maps, nothing after them.
//!
//! Maps, not arrays: an older reader then survives an added field, a newer one a missing field.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a stored value is, and in which format it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Three bytes that say what follows.
    pub magic: [u8; 3],
    /// The format's version. A reader refuses one it does not know.
    pub version: u8,
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Another kind of value, or not ours at all.
    #[error("the bytes do not begin with the expected magic")]
    Magic,
    /// Written by newer software.
    #[error("format version {found} is not known here (known: {known}); update this program")]
    Format {
        /// The version in the bytes.
        found: u8,
        /// The version this build reads.
        known: u8,
    },
    /// Not the expected MessagePack.
    #[error("could not decode the body")]
    Body(#[source] rmp_serde::decode::Error),
    /// More bytes than the value has.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// Encodes `value` in `format`.
pub fn encode<T: Serialize>(format: Format, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&format.magic);
    bytes.push(format.version);
    value
        .serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())
        .expect("stored types encode into memory without error");
    bytes
}

/// Decodes a value in `format` that takes up all of `bytes`.
///
/// # Errors
/// If the bytes are of another kind or format, damaged, or longer than the value.
pub fn decode<T: DeserializeOwned>(format: Format, bytes: &[u8]) -> Result<T, CodecError> {
    let body = match bytes {
        [a, b, c, version, body @ ..] if [*a, *b, *c] == format.magic => {
            if *version != format.version {
                return Err(CodecError::Format {
                    found: *version,
                    known: format.version,
                });
            }
            body
        }
        _ => return Err(CodecError::Magic),
    };
    decode_body(body)
}

/// Decodes what stands behind the magic and the version.
pub(crate) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut reader = body;
    let mut deserializer = rmp_serde::Deserializer::new(&mut reader);
    let value = T::deserialize(&mut deserializer).map_err(CodecError::Body)?;
    if reader.is_empty() {
        Ok(value)
    } else {
        Err(CodecError::Trailing(reader.len()))
    }
}
