//! Secrets that are not in bodies: what entities refer to in vaults, and what is sealed.
//!
//! The one kind of vault is `env`: variables of the process, as they were at its start. An entity that refers to a vault, or that
//! cannot be opened, is kept as it was written, too, and compiled again when a vault changes, or the keys of secrets.

use imbl::{HashMap, OrdMap};
use serde::Deserialize;
use sluice_schema::entity::{Body, Entry, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::seal::{Ring, Seals, has_secrets, may_be_sealed};
use sluice_schema::vault::{self, ENV, Reference};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Variables of the process. Not shown by `Debug`: any of them may be a secret.
#[derive(Clone, Default)]
pub struct Variables(Arc<BTreeMap<String, String>>);

impl Variables {
    /// Those of this process that are text.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(Arc::new(std::env::vars_os().filter_map(text).collect()))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Variables {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(Arc::new(owned.into()))
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.0.len())
    }
}

/// The fields of a vault that count here.
#[derive(Clone, Deserialize)]
pub(super) struct Fields {
    prefix: String,
    #[serde(default)]
    config: Config,
}

#[derive(Clone, Default, Deserialize)]
struct Config {
    #[serde(default)]
    prefix: Option<String>,
}

#[derive(Clone)]
struct Vault {
    workspace: Workspace,
    fields: Fields,
}

/// The vaults of a table.
#[derive(Clone, Default)]
pub(super) struct Vaults {
    variables: Variables,
    vaults: HashMap<Uuid, Arc<Vault>>,
    seals: Seals,
    /// What the table was compiled with.
    ring: Arc<Ring>,
    /// Entities with references and those that did not open, as they were written.
    referring: OrdMap<Key, (Kind, Entry)>,
}

impl Vaults {
    pub(super) fn new(variables: Variables, seals: Seals) -> Self {
        Self {
            variables,
            ring: seals.ring(),
            seals,
            ..Self::default()
        }
    }

    /// The same without entities.
    pub(super) fn cleared(&self) -> Self {
        Self::new(self.variables.clone(), self.seals.clone())
    }

    /// Takes up the keys of secrets as they are now. Whether they are others.
    pub(super) fn take_ring(&mut self) -> bool {
        let ring = self.seals.ring();
        let differs = !Arc::ptr_eq(&ring, &self.ring);
        self.ring = ring;
        differs
    }

    pub(super) fn insert(&mut self, id: Uuid, workspace: &Workspace, fields: Fields) {
        let workspace = workspace.clone();
        self.vaults
            .insert(id, Arc::new(Vault { workspace, fields }));
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        self.vaults.remove(&id);
    }

    /// The entities that are to be compiled again if a vault has changed, or the keys of secrets.
    pub(super) fn referring(&self) -> Vec<(Key, Kind, Entry)> {
        let each = self.referring.iter();
        each.map(|(key, (kind, entry))| (key.clone(), *kind, entry.clone()))
            .collect()
    }

    /// Forgets an entity that is not there any more.
    pub(super) fn forget(&mut self, key: &Key) {
        if !self.referring.is_empty() {
            self.referring.remove(key);
        }
    }

    /// An entity with the secrets that it refers to.
    ///
    /// # Errors
    /// If one is missing, or does not open. The entity is kept nevertheless, and compiled again when a vault changes, or the keys.
    pub(super) fn open<'e>(
        &mut self,
        kind: Kind,
        key: &Key,
        entry: &'e Entry,
    ) -> Result<Cow<'e, Entry>, String> {
        let body = entry.body.as_bytes();
        let refers = matches!(kind, Kind::Plugin | Kind::Certificate) && vault::may_refer(body);
        let is_sealed = has_secrets(kind) && may_be_sealed(body);
        if !refers {
            self.forget(key);
        }
        if !refers && !is_sealed {
            return Ok(Cow::Borrowed(entry));
        }
        let mut fields = entry.body.fields().map_err(|error| error.to_string())?;
        let opened = self.ring.open(kind, key, &mut fields);
        if refers || opened.is_err() {
            self.referring.insert(key.clone(), (kind, entry.clone()));
        }
        opened.map_err(|error| error.to_string())?;
        if refers {
            vault::resolve(kind, &mut fields, &mut |reference| {
                self.find(&key.workspace, reference)
            })?;
        }
        Ok(Cow::Owned(Entry {
            version: entry.version,
            body: Body::encode(&fields),
        }))
    }

    fn find(&self, workspace: &Workspace, reference: &Reference) -> Result<String, String> {
        let prefix = if reference.vault == ENV {
            None
        } else {
            let is_it = |vault: &&Arc<Vault>| {
                vault.fields.prefix == reference.vault && vault.workspace == *workspace
            };
            let vault = self.vaults.values().find(is_it);
            let vault = vault.ok_or("there is no vault with this prefix")?;
            vault.fields.config.prefix.as_deref()
        };
        let variable = reference.variable(prefix);
        let value = self.variables.0.get(&variable);
        let missing = || format!("this data plane has no variable {variable}");
        value.cloned().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use serde_json::{Value, json};
    use sluice_schema::entity::{Change, Id};
    use sluice_schema::seal::KEY_BYTES;
    use sluice_schema::version::Version;

    const PLUGIN: u128 = 1;
    const VAULT: u128 = 2;

    fn change(version: u64, kind: Kind, id: u128, fields: &Value) -> Change {
        let entry = fields.as_object().map(|fields| Entry {
            version: Version(version),
            body: Body::encode(fields),
        });
        Change {
            key: Key {
                kind: kind.key_name(),
                workspace: Workspace::DEFAULT,
                id: Id(Uuid::from_u128(id)),
            },
            before: None,
            after: entry,
        }
    }

    fn session(secret: &str) -> Value {
        json!({
            "name": "session", "enabled": true, "protocols": ["http"], "config": {
                "secret": secret, "storage": "cookie", "cookie_name": "s",
            },
        })
    }

    /// Why the plugin was rejected, and whether it is in the table.
    fn apply(table: &mut Table, version: u64, kind: Kind, id: u128, fields: &Value) -> Vec<String> {
        let (next, rejected) = table.apply(Version(version), &[change(version, kind, id, fields)]);
        *table = next;
        rejected
            .into_iter()
            .map(|rejected| rejected.reason)
            .collect()
    }

    fn table() -> Table {
        Table::with_secrets(
            [("SECRET", "a"), ("SHOP_SECRET", "b")].into(),
            Seals::default(),
        )
    }

    #[test]
    fn an_entity_that_refers_to_a_variable_is_compiled_with_it() {
        let mut table = table();
        let fields = session("{vault://env/secret}");
        assert!(apply(&mut table, 1, Kind::Plugin, PLUGIN, &fields).is_empty());
        let fields = session("{vault://env/missing}");
        let reasons = apply(&mut table, 2, Kind::Plugin, PLUGIN, &fields);
        let expected =
            "config.secret: {vault://env/missing}: this data plane has no variable MISSING";
        assert_eq!(reasons, [expected]);
        assert_eq!(table.rejected().count(), 1);
        assert!(apply(&mut table, 3, Kind::Plugin, PLUGIN, &Value::Null).is_empty());
        assert_eq!(table.rejected().count(), 0);
    }

    #[test]
    fn a_vault_that_comes_later_mends_what_waits_for_it() {
        let mut table = table();
        let fields = session("{vault://shop-env/secret}");
        let reasons = apply(&mut table, 1, Kind::Plugin, PLUGIN, &fields);
        assert!(
            reasons[0].contains("no vault with this prefix"),
            "{reasons:?}"
        );
        let vault =
            |prefix| json!({ "prefix": "shop-env", "name": "env", "config": { "prefix": prefix } });
        assert!(apply(&mut table, 2, Kind::Vault, VAULT, &vault("shop_")).is_empty());
        assert_eq!(table.rejected().count(), 0);
        let reasons = apply(&mut table, 3, Kind::Vault, VAULT, &vault("other_"));
        assert!(
            reasons[0].contains("no variable OTHER_SECRET"),
            "{reasons:?}"
        );
        // What is not there any more waits for nothing.
        apply(&mut table, 4, Kind::Plugin, PLUGIN, &Value::Null);
        assert!(apply(&mut table, 5, Kind::Vault, VAULT, &Value::Null).is_empty());
        assert_eq!(table.rejected().count(), 0);
    }

    #[test]
    fn what_does_not_open_is_mended_when_its_key_comes() {
        let ring = |name: &str| Ring::parse(&Ring::line(name, &[7; KEY_BYTES])).unwrap();
        let seals = Seals::new(ring("other"));
        let mut table = Table::with_secrets(Variables::default(), seals.clone());
        let mut fields = session("geheim").as_object().unwrap().clone();
        let key = change(1, Kind::Plugin, PLUGIN, &Value::Null).key;
        ring("k1").seal(Kind::Plugin, &key, &mut fields).unwrap();
        let reasons = apply(&mut table, 1, Kind::Plugin, PLUGIN, &fields.into());
        assert!(
            reasons[0].contains("config.secret is sealed with the key 'k1'"),
            "{reasons:?}"
        );
        seals.replace(ring("k1"));
        let (table, rejected) = table.apply(table.version(), &[]);
        assert!(rejected.is_empty());
        assert_eq!(table.rejected().count(), 0);
    }

    #[test]
    fn a_table_that_is_cleared_keeps_its_variables() {
        let mut table = table().cleared();
        let fields = session("{vault://env/secret}");
        assert!(apply(&mut table, 1, Kind::Plugin, PLUGIN, &fields).is_empty());
        assert!(!format!("{:?}", Variables::from([("A", "geheim")])).contains("geheim"));
    }
}
