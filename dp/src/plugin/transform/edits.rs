//! What the two transformers have in common: lists of `name:value`, and JSON objects that are edited by them.

use serde_json::{Map, Value};

/// A body with more bytes is left as it is.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The name, and what follows its colons.
pub(super) fn split(pair: &str) -> (&str, &str) {
    let at = pair.find(':').unwrap_or(pair.len());
    (&pair[..at], pair[at..].trim_start_matches(':'))
}

/// Edits of an object, in the order in which they happen.
pub(super) struct Edits<'a, V> {
    pub(super) remove: &'a [String],
    pub(super) rename: Vec<(&'a str, String)>,
    pub(super) replace: Vec<(&'a str, V)>,
    pub(super) add: Vec<(&'a str, V)>,
    pub(super) append: Vec<(&'a str, V)>,
}

impl Edits<'_, Value> {
    pub(super) fn apply(self, object: &mut Map<String, Value>) {
        for name in self.remove {
            object.remove(name);
        }
        for (old, new) in self.rename {
            if let Some(value) = object.remove(old) {
                object.insert(new, value);
            }
        }
        for (name, value) in self.replace {
            // To Kong null and false are not there.
            if let Some(place) = object.get_mut(name).filter(|value| is_there(value)) {
                *place = value;
            }
        }
        for (name, value) in self.add {
            if !object.get(name).is_some_and(is_there) {
                object.insert(name.to_owned(), value);
            }
        }
        for (name, value) in self.append {
            match object.get_mut(name) {
                Some(Value::Array(values)) => values.push(value),
                Some(text @ Value::String(_)) => {
                    let before = text.take();
                    *text = Value::Array(vec![before, value]);
                }
                Some(other) => *other = Value::Array(vec![value]),
                None => {
                    object.insert(name.to_owned(), Value::Array(vec![value]));
                }
            }
        }
    }
}

fn is_there(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => true,
    }
}
