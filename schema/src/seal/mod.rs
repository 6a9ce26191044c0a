//! Secrets in bodies, sealed: only who has a key of the ring can read what the log, stores and snapshots hold of them.
//!
//! A sealed secret is the text `{sealed://<key>/<base64url>}` in its place: AES-SIV (RFC 5297) over the secret, bound to the place. Equal
//! secrets in one place have equal texts under one key, so that a write that changes nothing is no event. The place of a unique
//! value is the same for all entities of a workspace, so that uniqueness shows without a key. Why so: docs/decisions/0016.

use crate::check::text::is_vault_reference;
use crate::entity::{Body, Key, Workspace};
use crate::field::{Field, Type};
use crate::kind::{Kind, Unique};
use crate::walk::{Next, Path, walk};
use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use zeroize::Zeroizing;

/// Bytes of a key: one half authenticates, the other encrypts.
pub const KEY_BYTES: usize = 64;
/// The most keys of a ring.
pub const KEYS_MAX: usize = 16;
/// The longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 32;
/// What a sealed secret begins with.
const PREFIX: &str = "{sealed://";
/// Says what is sealed, so that a key that were used for something else would give nothing away here.
const DOMAIN: &[u8] = b"sluice secret 1";
const VEIL_CONTEXT: &str = "sluice 2026-11 hashes of requests";

/// The keys of secrets. Not shown by `Debug`.
#[derive(Default)]
pub struct Ring(Vec<SealKey>);

struct SealKey {
    name: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

/// Why a text is no ring.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RingError {
    /// Counted from 1.
    pub line: usize,
    /// Quotes no key.
    pub reason: String,
}

/// A secret that cannot be opened here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unopened {
    /// The key is not in the ring.
    #[error(
        "{path} is sealed with the key '{key}', which is not in the secrets file of this process"
    )]
    KeyMissing {
        /// The field.
        path: String,
        /// The key's name.
        key: String,
    },
    /// The key does not open it.
    #[error(
        "{path} does not open with the key '{key}': the key is another of that name, or the secret was sealed elsewhere"
    )]
    Wrong {
        /// The field.
        path: String,
        /// The key's name.
        key: String,
    },
}

impl Ring {
    /// Reads a secrets file: a line `<name> <64 bytes in base64>` for each key; the first seals, all open. Lines that begin with
    /// `#` and empty ones do not count.
    ///
    /// # Errors
    /// If a line is something else, or there are no keys, or too many.
    pub fn parse(text: &str) -> Result<Self, RingError> {
        let mut keys: Vec<SealKey> = Vec::new();
        for (position, line) in text.lines().enumerate() {
            let line_number = position + 1;
            let wrong = |reason: String| RingError {
                line: line_number,
                reason,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, key) = line
                .split_once(char::is_whitespace)
                .ok_or_else(|| wrong("expected a name and a key".to_owned()))?;
            if !is_name(name) {
                return Err(wrong(format!(
                    "a name is 1 to {NAME_BYTES_MAX} of a-z 0-9 -"
                )));
            }
            if keys.iter().any(|known| known.name == name) {
                return Err(wrong(format!("the key '{name}' is there twice")));
            }
            let bytes = decode_key(key.trim());
            let bytes =
                bytes.ok_or_else(|| wrong(format!("expected {KEY_BYTES} bytes in base64")))?;
            let name = name.to_owned();
            keys.push(SealKey { name, bytes });
            if keys.len() > KEYS_MAX {
                return Err(wrong(format!("more than {KEYS_MAX} keys")));
            }
        }
        match keys.is_empty() {
            true => Err(RingError {
                line: text.lines().count(),
                reason: "there is no key: make one with sluice secrets init".to_owned(),
            }),
            false => Ok(Self(keys)),
        }
    }

    /// A line of a secrets file.
    pub fn line(name: &str, key: &[u8; KEY_BYTES]) -> String {
        format!("{name} {}\n", STANDARD.encode(key))
    }

    /// The names of its keys; the first seals.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.name.as_str())
    }

    /// The name of the key that seals; `None` if nothing is sealed here.
    pub fn sealing(&self) -> Option<&str> {
        self.names().next()
    }

    /// Whether it can open what `name` has sealed.
    pub fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    /// Whether all secrets of a body are sealed with the key that seals.
    pub fn is_current(&self, kind: Kind, fields: &mut Map<String, Value>) -> bool {
        let mut current = true;
        always(each_secret(kind, fields, &mut |_, _, text| {
            current &= sealed_with(text) == self.sealing();
            Ok(())
        }));
        current
    }

    fn key(&self, name: &str) -> Option<&SealKey> {
        self.0.iter().find(|key| key.name == name)
    }

    /// Seals the secrets of a body, but for references to vaults. Without keys they stay as they are. Gives the number of
    /// secrets.
    ///
    /// # Errors
    /// With the field, if a secret looks as if it were sealed already: only control planes seal.
    pub fn seal(
        &self,
        kind: Kind,
        key: &Key,
        fields: &mut Map<String, Value>,
    ) -> Result<usize, String> {
        let mut secrets = 0;
        if !has_secrets(kind) {
            return Ok(secrets);
        }
        let first = self.0.first();
        each_secret(kind, fields, &mut |field, path, text| {
            if sealed_with(text).is_some() {
                return Err(path.to_string());
            }
            secrets += 1;
            if let Some(sealing) = first {
                *text = sealing.seal(&place(key, field), path, text);
            }
            Ok(())
        })?;
        Ok(secrets)
    }

    /// Opens the secrets of a body.
    ///
    /// # Errors
    /// If one cannot be opened. Those before it may be open then.
    pub fn open(
        &self,
        kind: Kind,
        key: &Key,
        fields: &mut Map<String, Value>,
    ) -> Result<(), Unopened> {
        if !has_secrets(kind) {
            return Ok(());
        }
        each_secret(kind, fields, &mut |field, path, text| {
            self.open_one(&place(key, field), path, text)
        })
    }

    /// Opens those secrets of a body that can be.
    pub fn open_known(&self, kind: Kind, key: &Key, fields: &mut Map<String, Value>) {
        if !has_secrets(kind) {
            return;
        }
        always(each_secret(kind, fields, &mut |field, path, text| {
            // What does not open is shown as it is.
            let _ = self.open_one(&place(key, field), path, text);
            Ok(())
        }));
    }

    fn open_one(
        &self,
        place: &Place<'_>,
        path: &Path<'_>,
        text: &mut String,
    ) -> Result<(), Unopened> {
        let Some((name, sealed)) = taken_apart(text) else {
            return Ok(());
        };
        let Some(key) = self.key(name) else {
            return Err(Unopened::KeyMissing {
                path: path.to_string(),
                key: name.to_owned(),
            });
        };
        match key.open(place, path, sealed) {
            Some(opened) => {
                *text = opened;
                Ok(())
            }
            None => Err(Unopened::Wrong {
                path: path.to_string(),
                key: name.to_owned(),
            }),
        }
    }

    /// The forms in which an entity may hold the values that `fields` have in a unique index, sealed with each key. None if
    /// nothing of it is sealed.
    pub(crate) fn forms(
        &self,
        kind: Kind,
        workspace: &Workspace,
        unique: &Unique,
        fields: &Map<String, Value>,
    ) -> Vec<Map<String, Value>> {
        if self.0.is_empty() || !unique.fields.iter().any(|name| is_secret(kind, name)) {
            return Vec::new();
        }
        let named = unique.fields.iter();
        let plain: Map<String, Value> = named
            .filter_map(|name| Some(((*name).to_owned(), fields.get(*name)?.clone())))
            .collect();
        let sealed = |key: &SealKey| key.hide(kind, workspace, plain.clone());
        self.0.iter().map(sealed).collect()
    }

    /// `fields` with what is secret in them sealed, by each key, so that an id that is derived from it gives nothing away. None for kinds
    /// without a name: what derives their ids are certificates and keys, which nobody guesses.
    pub(crate) fn hidden(
        &self,
        kind: Kind,
        workspace: &Workspace,
        fields: &Map<String, Value>,
    ) -> Vec<Map<String, Value>> {
        if kind.schema().endpoint_key.is_none() || !has_secrets(kind) {
            return Vec::new();
        }
        let hide = |key: &SealKey| key.hide(kind, workspace, fields.clone());
        self.0.iter().map(hide).collect()
    }

    /// What entities of a kind that are found by a secret may be called instead of by `name`: that, sealed with each key.
    pub fn sealed_names(&self, kind: Kind, workspace: &Workspace, name: &str) -> Vec<String> {
        let Some(endpoint_key) = kind.schema().endpoint_key else {
            return Vec::new();
        };
        if !is_secret(kind, endpoint_key) {
            return Vec::new();
        }
        let fields = Map::from_iter([(endpoint_key.to_owned(), Value::from(name))]);
        let sealed = |key: &SealKey| {
            let sealed = key.hide(kind, workspace, fields.clone());
            sealed.get(endpoint_key)?.as_str().map(str::to_owned)
        };
        self.0.iter().filter_map(sealed).collect()
    }

    /// A hash of something secret that becomes public, such that nobody without the key can try what it was. As it is, without keys.
    pub fn veil(&self, hash: [u8; 32]) -> [u8; 32] {
        let Some(key) = self.0.first() else {
            return hash;
        };
        let key = Zeroizing::new(blake3::derive_key(VEIL_CONTEXT, key.bytes.as_slice()));
        *blake3::keyed_hash(&key, &hash).as_bytes()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Where a secret is: a sealed one does not open anywhere else.
struct Place<'a> {
    kind: Kind,
    workspace: &'a Workspace,
    /// `None` for unique values.
    id: Option<uuid::Uuid>,
}

fn place<'a>(key: &'a Key, (kind, field): (Kind, &Field)) -> Place<'a> {
    Place {
        kind,
        workspace: &key.workspace,
        id: (!field.unique).then_some(key.id.0),
    }
}

impl SealKey {
    /// `fields` with its secrets sealed as unique values are.
    fn hide(
        &self,
        kind: Kind,
        workspace: &Workspace,
        mut fields: Map<String, Value>,
    ) -> Map<String, Value> {
        let place = Place {
            kind,
            workspace,
            id: None,
        };
        always(each_secret(kind, &mut fields, &mut |_, path, text| {
            *text = self.seal(&place, path, text);
            Ok(())
        }));
        fields
    }

    fn seal(&self, place: &Place<'_>, path: &Path<'_>, secret: &str) -> String {
        let sealed = self.with_headers(place, path, |cipher, headers| {
            cipher.encrypt(headers, secret.as_bytes())
        });
        let sealed = sealed.expect("AES-SIV encrypts texts of any length we take");
        format!("{PREFIX}{}/{}}}", self.name, URL_SAFE_NO_PAD.encode(sealed))
    }

    fn open(&self, place: &Place<'_>, path: &Path<'_>, sealed: &str) -> Option<String> {
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let opened = self.with_headers(place, path, |cipher, headers| {
            cipher.decrypt(headers, &sealed)
        });
        String::from_utf8(opened.ok()?).ok()
    }

    fn with_headers<T>(
        &self,
        place: &Place<'_>,
        path: &Path<'_>,
        work: impl FnOnce(&mut Aes256Siv, [&[u8]; 5]) -> T,
    ) -> T {
        let path = path.to_string();
        let id = place.id.map(uuid::Uuid::into_bytes);
        let id: &[u8] = id.as_ref().map_or(&[], |id| id.as_slice());
        let headers = [
            DOMAIN,
            place.kind.name().as_bytes(),
            place.workspace.as_str().as_bytes(),
            id,
            path.as_bytes(),
        ];
        let key: &[u8; KEY_BYTES] = &self.bytes;
        work(&mut Aes256Siv::new(key.into()), headers)
    }
}

/// How many secrets a state has, by what they are sealed with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecretCounts {
    /// Those that anybody can read.
    pub clear: usize,
    /// Those that need a key, by its name.
    pub by_key: BTreeMap<String, usize>,
}

impl SecretCounts {
    /// Counts the secrets of a body in, or out.
    pub(crate) fn count(&mut self, kind: Kind, fields: &mut Map<String, Value>, step: Step) {
        if !has_secrets(kind) {
            return;
        }
        always(each_secret(kind, fields, &mut |_, _, text| {
            let Some(name) = sealed_with(text) else {
                step.take(&mut self.clear);
                return Ok(());
            };
            if !self.by_key.contains_key(name) {
                self.by_key.insert(name.to_owned(), 0);
            }
            if let Some(count) = self.by_key.get_mut(name) {
                step.take(count);
                if *count == 0 {
                    self.by_key.remove(name);
                }
            }
            Ok(())
        }));
    }

    /// A key that has sealed something and is not in `ring`.
    pub fn missing(&self, ring: &Ring) -> Option<&str> {
        let mut names = self.by_key.keys().map(String::as_str);
        names.find(|name| !ring.has(name))
    }
}

/// Whether something comes or goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Add,
    Remove,
}

impl Step {
    fn take(self, count: &mut usize) {
        *count = match self {
            Self::Add => *count + 1,
            Self::Remove => count.saturating_sub(1),
        };
    }
}

/// The ring of a process, shared by all that seal and open. Cheap to clone.
#[derive(Clone, Default)]
pub struct Seals(Arc<RwLock<Arc<Ring>>>);

impl Seals {
    /// Begins with `ring`.
    pub fn new(ring: Ring) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ring))))
    }

    /// Begins with this one.
    pub(crate) fn of(ring: Arc<Ring>) -> Self {
        Self(Arc::new(RwLock::new(ring)))
    }

    /// The ring now.
    pub fn ring(&self) -> Arc<Ring> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&ring)
    }

    /// Puts another in its place, for all that share it.
    pub fn replace(&self, ring: Ring) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// The fields of a body, with its secrets as far as they can be opened here. `None` if the body cannot be read.
    pub fn shown(&self, key: &Key, body: &Body) -> Option<Map<String, Value>> {
        let mut fields = body.fields().ok()?;
        if let Some(kind) = Kind::from_name(key.kind.as_str()) {
            self.ring().open_known(kind, key, &mut fields);
        }
        Some(fields)
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring().fmt(f)
    }
}

/// The name of the key that a text is sealed with, if it is sealed.
pub fn sealed_with(text: &str) -> Option<&str> {
    taken_apart(text).map(|(name, _)| name)
}

/// Whether a body may hold sealed secrets, by its bytes. Says yes a little too often.
pub fn may_be_sealed(body: &[u8]) -> bool {
    let needle = PREFIX.as_bytes();
    body.windows(needle.len()).any(|window| window == needle)
}

fn taken_apart(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix(PREFIX)?.strip_suffix('}')?;
    inside.split_once('/')
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if bytes.len() != KEY_BYTES {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}

/// Takes the result of what cannot fail.
fn always(result: Result<(), Infallible>) {
    match result {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

fn is_secret(kind: Kind, name: &str) -> bool {
    let field = kind.schema().field(name);
    field.is_some_and(|field| field.encrypted)
}

/// Whether an entity of this kind can have secrets.
pub fn has_secrets(kind: Kind) -> bool {
    fn any(fields: &[Field]) -> bool {
        fields.iter().any(|field| field.encrypted || within(field))
    }
    fn within(field: &Field) -> bool {
        match field.kind {
            Type::Record(fields) => any(fields),
            Type::Array(elements) | Type::Set(elements) => elements.encrypted || within(elements),
            Type::Map { values, .. } => values.encrypted || within(values),
            Type::Config => true,
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Foreign(_)
            | Type::Json => false,
        }
    }
    any(kind.schema().fields)
}

type VisitSecret<'v, E> =
    &'v mut dyn FnMut((Kind, &Field), &Path<'_>, &mut String) -> Result<(), E>;

/// Leads `visit` to each secret of a body that is not kept in a vault.
fn each_secret<E>(
    kind: Kind,
    fields: &mut Map<String, Value>,
    visit: VisitSecret<'_, E>,
) -> Result<(), E> {
    walk(kind, fields, &mut |field, path, value| {
        if !field.encrypted {
            return Ok(Next::Inside);
        }
        if let Value::String(text) = value
            && !(field.referenceable && is_vault_reference(text))
        {
            visit((kind, field), path, text)?;
        }
        Ok(Next::Past)
    })
}

#[cfg(test)]
mod tests;
