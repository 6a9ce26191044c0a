//! The plugins of a build, and their entities compiled.

use super::cache::Stamp;
use super::change::Change;
use super::context::Record;
use super::phase::{Flow, Phases, Plugin, Step, Waiting};
use super::protocols::Protocols;
use super::reply::Reply;
use super::request::{Access, Rewrite};
use super::state::{Lasting, State};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};
use sluice_schema::entity::Workspace;
use sluice_schema::kind;
use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// A list of plugins. [`STANDARD`](super::STANDARD) is that of this build; tests make others.
#[derive(Clone, Copy, Debug)]
pub struct Registry(&'static [Registered]);

type MakeState = fn() -> Box<dyn Lasting>;

/// A plugin in a list.
#[derive(Clone, Copy)]
pub struct Registered {
    name: &'static str,
    compile: fn(&Entity<'_>) -> Result<Instance, CompileError>,
    changed: fn(&State, Option<&Instance>, Option<&Instance>),
    state: fn() -> (TypeId, MakeState),
}

impl Registry {
    /// These plugins. Of two with one name the first counts.
    pub const fn new(plugins: &'static [Registered]) -> Self {
        Self(plugins)
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = &'static Registered> {
        self.0.iter()
    }

    /// A plugin by name.
    pub fn find(self, name: &str) -> Option<&'static Registered> {
        self.iter().find(|registered| registered.name == name)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(|registered| registered.name)
    }

    /// Compiles a plugin entity.
    ///
    /// # Errors
    /// If the plugin is unknown or its configuration cannot be used.
    pub fn compile(self, entity: &Entity<'_>) -> Result<Arc<Instance>, CompileError> {
        let name = &entity.fields.name;
        let registered = self
            .find(name)
            .ok_or_else(|| CompileError::Unsupported { name: name.clone() })?;
        (registered.compile)(entity).map(Arc::new)
    }
}

impl Registered {
    /// The plugin `P`.
    pub const fn of<P: Plugin>() -> Self {
        Self {
            name: P::NAME,
            compile: compile::<P>,
            changed: changed::<P>,
            state: || (TypeId::of::<P::State>(), || Box::new(P::State::default())),
        }
    }

    pub(super) fn state(&self) -> (TypeId, MakeState) {
        (self.state)()
    }

    pub(super) fn changed(&self, state: &State, before: Option<&Instance>, now: Option<&Instance>) {
        (self.changed)(state, before, now);
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An entity that is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Entity<'a> {
    /// Its id.
    pub id: Uuid,
    /// What must not outlive this form of it is kept under.
    pub stamp: Stamp,
    /// Its workspace.
    pub workspace: &'a Workspace,
    /// Its fields.
    pub fields: &'a kind::Plugin,
}

/// A plugin entity compiled for requests. Only enabled entities are compiled.
pub struct Instance {
    /// The entity.
    pub id: Uuid,
    /// Which form of it.
    pub stamp: Stamp,
    /// Which plugin. At most one instance of a name runs per request.
    pub name: &'static str,
    /// Higher runs earlier; equal priorities run by name, descending.
    pub priority: i32,
    /// The phases it has a part in.
    pub phases: Phases,
    /// Scope.
    pub route: Option<Uuid>,
    /// Scope.
    pub service: Option<Uuid>,
    /// Scope.
    pub consumer: Option<Uuid>,
    /// Scope.
    pub consumer_group: Option<Uuid>,
    /// The protocols it runs on.
    pub protocols: Protocols,
    /// Its prepared form.
    pub(crate) run: Box<dyn Run>,
}

impl Instance {
    fn is<P: Plugin>(&self) -> Option<&P> {
        let run: &dyn Any = &*self.run;
        run.downcast_ref()
    }
}

/// The same form of the same entity, even if it was compiled twice.
impl PartialEq for Instance {
    fn eq(&self, other: &Self) -> bool {
        (self.stamp, self.name) == (other.stamp, other.name)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} at {})", self.name, self.id, self.stamp.version)
    }
}

/// [`Plugin`] without its types, so that instances of all plugins can be in one list.
pub(crate) trait Run: Any + Send + Sync {
    fn rewrite(&self, request: &mut Rewrite<'_>) -> Flow;
    fn access(&self, request: &mut Access<'_>) -> Step;
    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a>;
    fn response(&self, reply: &mut Reply<'_>);
    fn log(&self, record: &Record<'_>);
}

impl<P: Plugin> Run for P {
    fn rewrite(&self, request: &mut Rewrite<'_>) -> Flow {
        Plugin::rewrite(self, request)
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        Plugin::access(self, request)
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Plugin::wait(self, request)
    }

    fn response(&self, reply: &mut Reply<'_>) {
        Plugin::response(self, reply);
    }

    fn log(&self, record: &Record<'_>) {
        Plugin::log(self, record);
    }
}

/// Why a plugin entity cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// This build has no such plugin.
    #[error("this data plane does not run plugin `{name}`")]
    Unsupported {
        /// The entity's `name`.
        name: String,
    },
    /// The configuration does not have the shape the plugin needs.
    #[error(
        "the configuration of plugin `{name}` cannot be used: `{field}` is not what this data plane expects"
    )]
    Invalid {
        /// The entity's `name`.
        name: &'static str,
        /// The path of the field that is wrong. What is in it may be a secret.
        field: String,
    },
    /// The plugin cannot do what the configuration says.
    #[error("plugin `{name}` cannot be used: {reason}")]
    Refused {
        /// The entity's `name`.
        name: &'static str,
        /// Why not.
        reason: String,
    },
}

fn compile<P: Plugin>(entity: &Entity<'_>) -> Result<Instance, CompileError> {
    let fields = entity.fields;
    let config = read(&fields.config).map_err(|path| CompileError::Invalid {
        name: P::NAME,
        field: path.to_string(),
    })?;
    let prepared = P::compile(config, entity).map_err(|reason| CompileError::Refused {
        name: P::NAME,
        reason,
    })?;
    let id = |reference: Option<kind::Reference>| reference.map(|reference| reference.id);
    Ok(Instance {
        id: entity.id,
        stamp: entity.stamp,
        name: P::NAME,
        priority: P::PRIORITY,
        phases: P::PHASES,
        route: id(fields.route),
        service: id(fields.service),
        consumer: id(fields.consumer),
        consumer_group: id(fields.consumer_group),
        protocols: Protocols::parse(&fields.protocols),
        run: Box::new(prepared),
    })
}

/// A configuration as its plugin wants it. A `null` that it has no use for counts as a field that is not there, and takes its
/// default.
///
/// # Errors
/// The path of the field that is wrong.
fn read<C: DeserializeOwned>(config: &Map<String, Value>) -> Result<C, Path> {
    let mut config = Value::Object(config.clone());
    loop {
        let path = match serde_path_to_error::deserialize(&config) {
            Ok(read) => return Ok(read),
            Err(error) => error.path().clone(),
        };
        if !drop_null(&mut config, path.iter()) {
            return Err(path);
        }
    }
}

/// Whether there was a field with `null` at the path.
fn drop_null<'p>(within: &mut Value, mut path: impl Iterator<Item = &'p Segment>) -> bool {
    let Some(segment) = path.next() else {
        return false;
    };
    match (within, segment) {
        (Value::Object(fields), Segment::Map { key }) => match fields.get_mut(key) {
            Some(Value::Null) => fields.remove(key).is_some(),
            Some(value) => drop_null(value, path),
            None => false,
        },
        (Value::Array(values), Segment::Seq { index }) => values
            .get_mut(*index)
            .is_some_and(|value| drop_null(value, path)),
        _ => false,
    }
}

fn changed<P: Plugin>(state: &State, before: Option<&Instance>, now: Option<&Instance>) {
    let before = before.and_then(|instance| Some((instance, instance.is::<P>()?)));
    let now = now.and_then(|instance| Some((instance, instance.is::<P>()?)));
    let change = match (before, now) {
        (None, None) => return,
        (None, Some((instance, now))) => Change::Created { instance, now },
        (Some((instance, before)), None) => Change::Deleted { instance, before },
        (Some((_, before)), Some((instance, now))) => Change::Updated {
            instance,
            before,
            now,
        },
    };
    P::changed(state.of(), change);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Config {
        #[serde(default = "seven")]
        number: u8,
        #[serde(default = "some_seven")]
        perhaps: Option<u8>,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        text: String,
    }

    fn seven() -> u8 {
        7
    }

    #[allow(clippy::unnecessary_wraps, reason = "the field may be null")]
    fn some_seven() -> Option<u8> {
        Some(7)
    }

    fn read_from(config: &Value) -> Result<Config, String> {
        read(config.as_object().unwrap()).map_err(|path| path.to_string())
    }

    #[test]
    fn a_null_that_has_no_use_takes_the_default() {
        let config =
            json!({ "number": null, "perhaps": null, "list": [{ "text": "a" }, { "text": null }] });
        let expected = Config {
            number: 7,
            perhaps: None,
            list: vec![
                Inner {
                    text: "a".to_owned(),
                },
                Inner::default(),
            ],
        };
        assert_eq!(read_from(&config), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_named_and_not_quoted() {
        let config = json!({ "list": [{}, { "text": 4_711 }] });
        assert_eq!(read_from(&config), Err("list[1].text".to_owned()));
        assert_eq!(
            read_from(&json!({ "number": "secret" })),
            Err("number".to_owned())
        );
    }
}
