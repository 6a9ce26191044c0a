//! Public keys, and the lines of `.pub` files.

use super::KeyError;
use crate::log::Signature;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::VerifyingKey;
use sluice_schema::hash::Hash32;
use std::fmt;
use std::path::Path;

/// What a line without a name is called.
const UNNAMED: &str = "unnamed";

/// The public half of a signing key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of these 32 bytes; `None` if they are no ed25519 key, or one that verifies anything.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Its id, as it stands beside signatures: the first 16 hexadecimal digits of the BLAKE3 hash of the key.
    pub fn id(&self) -> String {
        let mut id = Hash32::of(self.as_bytes()).to_string();
        id.truncate(16);
        id
    }

    /// Whether `signature` is this key's over `message`. Says nothing about whether the key is to be believed.
    pub(super) fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        self.0.verify_strict(message, &bytes).is_ok()
    }
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self(key)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// What a pinned key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It signs events, heads and snapshots.
    ControlPlane,
    /// It signs keyrings and charters, and nothing else.
    Root,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::ControlPlane => "ed25519",
            Self::Root => "ed25519-root",
        }
    }
}

/// One line of a `.pub` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicLine {
    /// What the key is for.
    pub role: Role,
    /// The key.
    pub key: PublicKey,
    /// Its name, for people: one word.
    pub name: String,
}

impl PublicLine {
    /// Reads one line; `None` if it is not a key.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let word = words.next()?;
        let roles = [Role::ControlPlane, Role::Root];
        let role = roles.into_iter().find(|role| role.word() == word)?;
        let bytes: [u8; 32] = BASE64.decode(words.next()?).ok()?.try_into().ok()?;
        Some(Self {
            role,
            key: PublicKey::from_bytes(&bytes)?,
            name: words.next().unwrap_or(UNNAMED).to_owned(),
        })
    }

    /// Reads a `.pub` file's text: one key a line; empty lines and comments (`#`) are skipped.
    ///
    /// # Errors
    /// If a line is not a key. `path` is only named in the error.
    pub fn parse_all(text: &str, path: &Path) -> Result<Vec<Self>, KeyError> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            lines.push(Self::parse(line).ok_or_else(|| KeyError::Public {
                path: path.into(),
                line: number + 1,
            })?);
        }
        Ok(lines)
    }

    /// Reads the keys of a `.pub` file.
    ///
    /// # Errors
    /// If it cannot be read or a line is not a key.
    pub fn load(path: &Path) -> Result<Vec<Self>, KeyError> {
        let text = std::fs::read_to_string(path).map_err(super::file_error(path))?;
        Self::parse_all(&text, path)
    }
}

impl fmt::Display for PublicLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, key) = (self.role.word(), BASE64.encode(self.key.as_bytes()));
        write!(f, "{word} {key} {}", self.name)
    }
}
