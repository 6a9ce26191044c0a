//! Lists of names that stand for entities of their own: a certificate's `snis`.

use super::Inputs;
use super::draft::Draft;
use super::write::reference;
use crate::check::{Base, check_value, complete};
use crate::entity::{Id, Key, Workspace};
use crate::kind::{Kind, Names};
use crate::rejection::Rejection;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What a write says about an entity's names.
#[derive(Debug)]
pub(super) struct Wanted {
    names: &'static Names,
    owner: Kind,
    list: BTreeSet<String>,
}

impl Wanted {
    /// Takes the list out of `body`; `None` if it says nothing of names.
    ///
    /// # Errors
    /// If it is no list of texts, or has one twice.
    pub(super) fn take(
        owner: Kind,
        body: &mut Map<String, Value>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(names) = owner.schema().names else {
            return Ok(None);
        };
        let field = names.field.name;
        let mut given = match body.remove(field) {
            None => return Ok(None),
            Some(Value::Null) => Value::Array(Vec::new()),
            Some(Value::String(one)) => Value::Array(vec![one.into()]),
            Some(given) => given,
        };
        let rejected = |error: Value| Rejection::schema(Map::from_iter([(field.into(), error)]));
        check_value(names.field, &mut given).map_err(rejected)?;
        let mut list = BTreeSet::new();
        for name in given.as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if !list.insert(name.to_owned()) {
                return Err(rejected(format!("{name} is duplicated").into()));
            }
        }
        Ok(Some(Self { names, owner, list }))
    }

    /// Checks that none of the names belongs to another than `own`.
    ///
    /// # Errors
    /// With the first that does.
    pub(super) fn check_free(
        &self,
        draft: &Draft<'_>,
        workspace: &Workspace,
        own: Option<Id>,
    ) -> Result<(), Rejection> {
        for name in &self.list {
            let holder = draft.state().named(self.names, workspace, name);
            if let Some(holder) = holder.filter(|holder| Some(*holder) != own) {
                let owner = self.owner.name();
                let error = format!("{name} already associated with existing {owner} '{holder}'");
                return Err(Rejection::field(self.names.field.name, error));
            }
        }
        Ok(())
    }

    /// Makes the entities of `own` those that are wanted.
    ///
    /// # Errors
    /// If a name is not one.
    pub(super) fn put(
        self,
        draft: &mut Draft<'_>,
        workspace: &Workspace,
        own: Id,
        inputs: &mut Inputs,
    ) -> Result<(), Rejection> {
        let Names {
            child, by, label, ..
        } = *self.names;
        let key = |id| Key {
            kind: child.key_name(),
            workspace: workspace.clone(),
            id,
        };
        let mut known: BTreeMap<String, Id> = draft
            .state()
            .names(self.names, self.owner, workspace, own)
            .collect();
        for name in self.list {
            if known.remove(&name).is_some() {
                continue;
            }
            let mut body = Map::new();
            body.insert(label.to_owned(), name.into());
            body.insert(by.to_owned(), reference(own));
            let Inputs { now, entropy, .. } = inputs;
            let fields = complete(child.schema(), body, Base::New, *now, entropy)?;
            let id = Id(entropy.uuid());
            draft.check_unique(child, workspace, id, &fields)?;
            draft.put(child, &key(id), &fields)?;
        }
        for id in known.into_values() {
            draft.delete(child, &key(id))?;
        }
        Ok(())
    }
}

/// What a PUT says of names: it has the one in its path, and no others than it lists.
pub(super) fn replace(owner: Kind, named: Option<&str>, body: &mut Map<String, Value>) {
    let Some(names) = owner.schema().names else {
        return;
    };
    let list = body.entry(names.field.name).or_insert(Value::Null);
    match list {
        Value::Null => *list = Value::Array(Vec::new()),
        Value::String(one) => *list = Value::Array(vec![std::mem::take(one).into()]),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {}
    }
    if let (Some(named), Value::Array(list)) = (named, list)
        && !list.iter().any(|name| name == named)
    {
        list.push(named.into());
    }
}
