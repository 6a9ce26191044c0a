//! Keys: who may write to the log, and how everybody else can tell.
//!
//! A control plane signs the chain after each event, which covers the event and all before it ([`SigningKey`]). Replicas
//! hold public keys only ([`TrustedKeys`]): those an operator has pinned by a file, and those a *keyring*
//! ([`Keyring`]) names, which a pinned *root key* has signed. A [`Keychain`] keeps them up to date while a program
//! runs. Why it is so: docs/decisions/0006-trust.md and 0008-keyring.md.
//!
//! A signing key's file holds the 32-byte ed25519 seed in base64 and is readable by its owner only; the public key lies
//! beside it with the ending `.pub`, one line: `ed25519 <base64> <name>`, or `ed25519-root <base64> <name>` for a root.

mod file;
mod keychain;
mod pinned;
mod public;
mod ring;
mod signing;
mod stored;
#[cfg(test)]
mod tests;
mod trusted;

pub use keychain::Keychain;
pub use pinned::Pinned;
pub use public::{PublicKey, PublicLine, Role};
pub use ring::{
    ENTRIES_MAX, Entry, Keyring, NAME_BYTES_MAX, NOTE_BYTES_MAX, RING_BYTES_MAX, RingError,
    Standing,
};
pub use signing::SigningKey;
pub use stored::stored_ring;
pub use trusted::{KnownKey, TrustedKeys};

use std::io;
use std::path::PathBuf;

/// The name under which control planes keep the keyring in force in the chunk store, beside the snapshots' roots.
pub const RING_NAME: &str = "keyring";

const EVENT_DOMAIN: &[u8] = b"sluice event v1\0";
const HEAD_DOMAIN: &[u8] = b"sluice head v1\0";
const SNAPSHOT_DOMAIN: &[u8] = b"sluice snapshot v1\0";
const RING_DOMAIN: &[u8] = b"sluice ring v1\0";
const CHARTER_DOMAIN: &[u8] = b"sluice charter v1\0";
const ARCHIVE_DOMAIN: &[u8] = b"sluice archive v1\0";

/// A problem with a key or its file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("could not use key file '{path}'")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold a key.
    #[error(
        "'{path}' line {line} is not a key: expected `ed25519 <base64> <name>` or `ed25519-root <base64> <name>`"
    )]
    Public {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The file does not hold a seed.
    #[error("'{path}' does not hold a signing key: expected 32 bytes in base64")]
    Seed {
        /// Which file.
        path: PathBuf,
    },
    /// Nobody could be believed.
    #[error(
        "no public key in '{path}': copy the root's or the control planes' .pub files there (`sluice keys show` prints them)"
    )]
    Empty {
        /// Where keys were looked for.
        path: PathBuf,
    },
}

/// A [`KeyError::File`] about `path`.
fn file_error(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.into();
    move |source| KeyError::File { path, source }
}
