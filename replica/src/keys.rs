//! Signing keys: who may write to the log, and how everybody else can tell.
//!
//! A control plane signs the chain after each event, which covers the event and all before it. Replicas hold public
//! keys only. A key's file holds the 32-byte ed25519 seed in base64 and is readable by its owner only; the public
//! key lies beside it with the ending `.pub`, one line: `ed25519 <base64> <name>`.

use crate::log::Signature;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer, VerifyingKey};
use sluice_schema::hash::Hash32;
use sluice_schema::version::Chain;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const EVENT_DOMAIN: &[u8] = b"sluice event v1\0";
const HEAD_DOMAIN: &[u8] = b"sluice head v1\0";

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
    #[error("'{path}' line {line} is not a key: expected `ed25519 <base64> <name>`")]
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
        "no public key in '{path}': copy the control plane's .pub file there (`sluice keys show` prints it)"
    )]
    Empty {
        /// Where keys were looked for.
        path: PathBuf,
    },
}

/// What a control plane signs with.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    id: String,
}

impl SigningKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let id = key_id(&key.verifying_key());
        Self { key, id }
    }

    /// Reads the key at `path`; makes one if there is none. The flag says whether it was made.
    ///
    /// # Errors
    /// If the file is there but not a key, or cannot be read or written.
    pub fn load_or_create(path: &Path, name: &str) -> Result<(Self, bool), KeyError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok((Self::parse(&text, path)?, false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok((Self::create(path, name)?, true))
            }
            Err(source) => Err(KeyError::File {
                path: path.into(),
                source,
            }),
        }
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::File {
            path: path.into(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Makes a new key at `path`, and the public key beside it.
    ///
    /// # Errors
    /// If a file is there already or cannot be written.
    pub fn create(path: &Path, name: &str) -> Result<Self, KeyError> {
        let file_error = |source| KeyError::File {
            path: path.into(),
            source,
        };
        let key = Self::from_seed(rand::random());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(file_error)?;
        }
        write_new(
            path,
            &format!("{}\n", BASE64.encode(key.key.to_bytes())),
            0o600,
        )
        .map_err(file_error)?;
        let public = path.with_extension("pub");
        fs::write(&public, format!("{}\n", key.public_line(name))).map_err(|source| {
            KeyError::File {
                path: public,
                source,
            }
        })?;
        Ok(key)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let seed = BASE64
            .decode(text.trim())
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        seed.map(Self::from_seed)
            .ok_or_else(|| KeyError::Seed { path: path.into() })
    }

    /// The key's id, as it stands beside each signature.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The line of a `.pub` file.
    pub fn public_line(&self, name: &str) -> String {
        format!(
            "ed25519 {} {name}",
            BASE64.encode(self.key.verifying_key().as_bytes())
        )
    }

    /// Signs the chain after an event.
    pub fn sign_event(&self, chain: Chain) -> Signature {
        self.sign(EVENT_DOMAIN, &chain.0.0)
    }

    /// Signs an encoded head.
    pub fn sign_head(&self, head: &[u8]) -> Signature {
        self.sign(HEAD_DOMAIN, head)
    }

    fn sign(&self, domain: &[u8], message: &[u8]) -> Signature {
        let bytes = self.key.sign(&[domain, message].concat()).to_bytes();
        Signature {
            key: self.id.clone(),
            bytes,
        }
    }

    /// What verifies this key's signatures.
    pub fn trusted(&self) -> TrustedKeys {
        let key = self.key.verifying_key();
        TrustedKeys {
            keys: BTreeMap::from([(self.id.clone(), ("own".to_owned(), key))]),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// The public keys a replica believes.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys {
    keys: BTreeMap<String, (String, VerifyingKey)>,
}

impl TrustedKeys {
    /// Reads the keys of a file, or of all `.pub` files of a directory.
    ///
    /// # Errors
    /// If there is no key, or something that should be one is not.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file_error = |source| KeyError::File {
            path: path.into(),
            source,
        };
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            files = entries
                .map_err(file_error)?
                .iter()
                .map(fs::DirEntry::path)
                .collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "pub"));
        }
        let mut trusted = Self::default();
        for file in files {
            let text = fs::read_to_string(&file).map_err(|source| KeyError::File {
                path: file.clone(),
                source,
            })?;
            trusted.add_lines(&text, &file)?;
        }
        if trusted.keys.is_empty() {
            return Err(KeyError::Empty { path: path.into() });
        }
        Ok(trusted)
    }

    fn add_lines(&mut self, text: &str, path: &Path) -> Result<(), KeyError> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = parse_public(line);
            let (name, key) = key.ok_or_else(|| KeyError::Public {
                path: path.into(),
                line: number + 1,
            })?;
            self.keys.insert(key_id(&key), (name, key));
        }
        Ok(())
    }

    /// These keys and `others`.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for (id, key) in &others.keys {
            self.keys.entry(id.clone()).or_insert_with(|| key.clone());
        }
        self
    }

    /// Id and name of each key.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys
            .iter()
            .map(|(id, (name, _))| (id.as_str(), name.as_str()))
    }

    /// Whether `signature` is one of ours over the chain after an event.
    pub fn verifies_event(&self, chain: Chain, signature: &Signature) -> bool {
        self.verifies(EVENT_DOMAIN, &chain.0.0, signature)
    }

    /// Whether `signature` is one of ours over an encoded head.
    pub fn verifies_head(&self, head: &[u8], signature: &Signature) -> bool {
        self.verifies(HEAD_DOMAIN, head, signature)
    }

    fn verifies(&self, domain: &[u8], message: &[u8], signature: &Signature) -> bool {
        let Some((_, key)) = self.keys.get(&signature.key) else {
            return false;
        };
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        key.verify_strict(&[domain, message].concat(), &bytes)
            .is_ok()
    }
}

fn parse_public(line: &str) -> Option<(String, VerifyingKey)> {
    let mut words = line.split_whitespace();
    if words.next()? != "ed25519" {
        return None;
    }
    let bytes: [u8; 32] = BASE64.decode(words.next()?).ok()?.try_into().ok()?;
    let name = words.next().unwrap_or("unnamed").to_owned();
    VerifyingKey::from_bytes(&bytes).ok().map(|key| (name, key))
}

/// The first 16 hexadecimal digits of the BLAKE3 hash of a public key.
fn key_id(key: &VerifyingKey) -> String {
    Hash32::of(key.as_bytes()).to_string()[..16].to_owned()
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_its_public_half_verifies_what_it_signs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/cp.key");
        let (key, made) = SigningKey::load_or_create(&path, "cp-1").unwrap();
        let (again, made_again) = SigningKey::load_or_create(&path, "cp-1").unwrap();
        assert!(made && !made_again);
        assert_eq!(key.id(), again.id());
        let trusted = TrustedKeys::load(&directory.path().join("keys")).unwrap();
        assert_eq!(trusted.names().collect::<Vec<_>>(), [(key.id(), "cp-1")]);

        let chain = Chain::ZERO.extend(b"event");
        let mut signature = key.sign_event(chain);
        assert!(trusted.verifies_event(chain, &signature));
        assert!(!trusted.verifies_event(chain.extend(b"x"), &signature));
        assert!(!trusted.verifies_head(&chain.0.0, &signature));
        let other = SigningKey::from_seed([1; 32]).sign_event(chain);
        assert!(!trusted.verifies_event(chain, &other));
        signature.bytes[5] ^= 1;
        assert!(!trusted.verifies_event(chain, &signature));
    }

    #[test]
    fn files_that_are_not_keys_are_refused_with_their_line() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            TrustedKeys::load(directory.path()),
            Err(KeyError::Empty { .. })
        ));
        let path = directory.path().join("bad.pub");
        fs::write(&path, "# a comment\n\ned25519 !!! x\n").unwrap();
        assert!(matches!(
            TrustedKeys::load(directory.path()),
            Err(KeyError::Public { line: 3, .. })
        ));
    }
}
