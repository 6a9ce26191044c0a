//! Declarative files: Kong's and decK's YAML or JSON, read into what [`decide`](crate::decide) can apply, and written back.

mod head;
mod ids;
mod legacy;
mod read;
mod select;
mod tree;
mod write;
mod yaml;

pub use read::read;
pub use tree::Position;
pub use write::{FORMAT_VERSION, write, write_selected};
pub use yaml::to_yaml;

use crate::check::Values;
use crate::entity::{Id, Workspace};
use crate::kind::Kind;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

pub(crate) use ids::derive_id;
pub(crate) use select::speaks_of;

/// One thing that is wrong in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where.
    pub at: Position,
    /// The path of the field, as in `services[0].routes[1].paths`.
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl Mistake {
    pub(crate) fn new(at: Position, path: &str, message: impl Into<String>) -> Self {
        Self {
            at,
            path: path.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.at.line, self.at.column)?;
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// An entity that a file asks for.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its UUID, if the file gives one.
    pub id: Option<Id>,
    /// Its fields. References to other entities may still be names.
    pub fields: Map<String, Value>,
    /// The entity it is nested in: the field that refers to it, and its index in [`Document::desired`].
    pub parent: Option<(&'static str, usize)>,
    /// Where it stands.
    pub place: Place,
}

/// Where an entity stands in a file.
#[derive(Clone, Debug)]
pub struct Place {
    /// As in `services[0].routes[1]`.
    pub path: String,
    node: Arc<tree::Node>,
}

impl Place {
    /// A mistake at a field of this entity (`config.minute`), or at the entity itself (`""`).
    pub fn mistake(&self, field: &str, message: impl Into<String>) -> Mistake {
        let steps: Vec<String> = field
            .split(['.', '[', ']'])
            .filter(|step| !step.is_empty())
            .map(str::to_owned)
            .collect();
        let path = match field {
            "" => self.path.clone(),
            field => format!("{}.{field}", self.path),
        };
        Mistake::new(self.node.nearest(&steps).at, &path, message)
    }
}

/// A file's content.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// What it asks for; parents before what is nested in them.
    pub desired: Vec<Desired>,
    /// The tags from `_info.select_tags`: the file speaks only of entities that carry them all.
    pub select_tags: Vec<String>,
    /// The workspace it says it is about, and where it says so.
    pub workspace: Option<(Workspace, Position)>,
    /// The form of one-way values: `_transform: false` says that they are as they are stored.
    pub values: Values,
    /// What is wrong with its shape. Nothing of a file with mistakes is applied.
    pub mistakes: Vec<Mistake>,
    /// What is not wrong, and may not mean what its author thinks.
    pub warnings: Vec<Mistake>,
}
