//! The file that says who may do what, and how tokens are made.
//!
//! ```toml
//! [[token]]
//! name = "ci"                    # the actor of what it changes
//! hash = "5f0c…"                 # of the token: `sluice token new` gives both
//! role = "write"
//! workspaces = ["shop"]          # all, if it is left out
//! expires = "2027-01-01T00:00:00Z"
//!
//! [[certificate]]
//! name = "ops.example.com"       # its common name, or a DNS name it is for
//! role = "operate"
//! ```

use super::Caller;
use super::grant::{Grants, Role};
use crate::time::parse_rfc3339;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sluice_schema::entity::Workspace;
use sluice_schema::version::Time;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What tokens begin with, so that scanners for secrets can find them.
const TOKEN_PREFIX: &str = "slt_";
const HASH_CONTEXT: &str = "sluice 2026-11 hash of a token of the Admin API";
const NAME_BYTES_MAX: usize = 128;

/// Who may call, and what each may do.
#[derive(Debug, Default)]
pub struct File {
    tokens: BTreeMap<Hash, Stanza>,
    certificates: BTreeMap<String, Stanza>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no TOML, or has other fields.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// Something in it has no meaning.
    #[error("'{name}': {reason}")]
    Stanza {
        /// Of whom.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What a caller shows, hashed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Hash([u8; 32]);

/// One caller in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stanza {
    name: Arc<str>,
    grants: Grants,
    expires: Option<Time>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    token: Vec<WrittenToken>,
    #[serde(default)]
    certificate: Vec<WrittenStanza>,
}

#[derive(Deserialize)]
struct WrittenToken {
    hash: String,
    #[serde(flatten)]
    stanza: WrittenStanza,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStanza {
    name: String,
    role: Role,
    workspaces: Option<Vec<String>>,
    expires: Option<String>,
}

impl File {
    /// Reads the file's text.
    ///
    /// # Errors
    /// If something in it cannot be understood. No part of it counts then.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let written: Written = toml::from_str(text)?;
        let mut file = Self::default();
        for WrittenToken { hash, stanza } in written.token {
            let name = stanza.name.clone();
            let wrong = |reason| FileError::Stanza {
                name: name.clone(),
                reason,
            };
            let hash = hash.parse().map_err(wrong)?;
            if file.tokens.insert(hash, stanza.read()?).is_some() {
                return Err(wrong("its hash is there twice"));
            }
        }
        for stanza in written.certificate {
            let name = stanza.name.to_ascii_lowercase();
            if file.certificates.contains_key(&name) {
                let reason = "the certificate is there twice";
                return Err(FileError::Stanza { name, reason });
            }
            file.certificates.insert(name, stanza.read()?);
        }
        Ok(file)
    }

    /// Whose token it is. It is found by its hash, so that the time this takes tells nothing.
    pub fn token(&self, token: &str) -> Option<&Stanza> {
        self.tokens.get(&Hash::of(token))
    }

    /// Who shows certificates with this name.
    pub fn certificate(&self, name: &str) -> Option<&Stanza> {
        self.certificates.get(&name.to_ascii_lowercase())
    }
}

impl WrittenStanza {
    fn read(self) -> Result<Stanza, FileError> {
        let wrong = |reason| FileError::Stanza {
            name: self.name.clone(),
            reason,
        };
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(wrong("a name has 1 to 128 bytes"));
        }
        let grants = match &self.workspaces {
            None => Grants::everywhere(self.role),
            Some(names) => {
                let each = names.iter().map(|name| Workspace::parse(name));
                let workspaces = each.collect::<Option<Vec<_>>>();
                let workspaces = workspaces.ok_or_else(|| wrong("no workspace has such a name"))?;
                Grants::within(workspaces, self.role)
            }
        };
        let expires = self.expires.as_deref().map(parse_rfc3339);
        let expires = match expires {
            None => None,
            Some(Some(time)) => Some(time),
            Some(None) => return Err(wrong("`expires` is no time such as 2027-01-01T00:00:00Z")),
        };
        Ok(Stanza {
            name: self.name.as_str().into(),
            grants,
            expires,
        })
    }
}

impl Stanza {
    /// Whether its time is over.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    pub(super) fn caller(&self) -> Caller {
        Caller {
            name: Some(self.name.clone()),
            grants: self.grants.clone(),
        }
    }
}

/// The token of 256 random bits.
pub fn make_token(random: [u8; 32]) -> String {
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

impl Hash {
    /// That of a token.
    pub fn of(token: &str) -> Self {
        Self(blake3::derive_key(HASH_CONTEXT, token.as_bytes()))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text);
        hash.map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| "its hash is not 64 hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_a_file_are_named() {
        let check = |text: &str, expected: &str| {
            let error = File::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let hash = Hash::of("x");
        let token = |more: &str| format!("[[token]]\nname = \"a\"\nhash = \"{hash}\"\n{more}\n");
        check("[[tokens]]", "unknown field `tokens`");
        check(&token(""), "missing field `role`");
        check(&token("role = \"root\""), "unknown variant `root`");
        check(
            &token("role = \"read\"\nexpires = \"tomorrow\""),
            "'a': `expires` is no time",
        );
        check(
            &token("role = \"read\"\nworkspaces = [\"a b\"]"),
            "'a': no workspace",
        );
        check(
            &token("role = \"read\"").repeat(2),
            "'a': its hash is there twice",
        );
        check(
            "[[token]]\nname = \"a\"\nhash = \"12\"\nrole = \"read\"",
            "'a': its hash is not 64",
        );
        check(
            "[[certificate]]\nname = \"\"\nrole = \"read\"",
            "a name has 1 to 128 bytes",
        );
    }

    #[test]
    fn a_token_is_found_by_its_hash_only() {
        let token = make_token([7; 32]);
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 43);
        let text = format!(
            "[[token]]\nname = \"a\"\nhash = \"{}\"\nrole = \"read\"",
            Hash::of(&token)
        );
        let file = File::parse(&text).unwrap();
        assert!(file.token(&token).is_some());
        assert!(file.token(&Hash::of(&token).to_string()).is_none());
    }
}
