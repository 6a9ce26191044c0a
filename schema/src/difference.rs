//! What differs between two bodies of an entity, field by field.

use serde_json::{Map, Value};

/// One field that is not what it was.
#[derive(Clone, PartialEq, Debug)]
pub struct FieldChange {
    /// Where it is: `config.redis.host`, `filters[0].enabled`.
    pub path: String,
    /// Its value before, if it had one.
    pub before: Option<Value>,
    /// Its value after, if it has one.
    pub after: Option<Value>,
}

/// The fields that differ, ordered by path. Null is no value. Records are compared field by field, lists of records of the
/// same length element by element, other lists as wholes.
pub fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare_maps("", before, after, &mut changes);
    changes
}

fn compare_maps(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    changes: &mut Vec<FieldChange>,
) {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut names: Vec<&String> = after.keys().chain(gone).collect();
    names.sort_unstable();
    for name in names {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let present = |value: &&Value| !value.is_null();
        let before = before.get(name).filter(present);
        compare(path, before, after.get(name).filter(present), changes);
    }
}

fn compare(
    path: String,
    before: Option<&Value>,
    after: Option<&Value>,
    changes: &mut Vec<FieldChange>,
) {
    match (before, after) {
        (Some(before), Some(after)) if before == after => {}
        (None, None) => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            compare_maps(&path, before, after, changes);
        }
        (Some(Value::Array(before)), Some(Value::Array(after)))
            if before.len() == after.len() && before.iter().chain(after).all(Value::is_object) =>
        {
            for (position, (before, after)) in before.iter().zip(after).enumerate() {
                let path = format!("{path}[{position}]");
                compare(path, Some(before), Some(after), changes);
            }
        }
        (before, after) => changes.push(FieldChange {
            path,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_told_apart_at_the_deepest_path_that_says_enough() {
        let before = json!({
            "same": 1, "gone": "x", "other": 1, "null": null, "lost": {"a": 1},
            "record": {"a": 1, "b": {"c": [1, 2]}},
            "records": [{"a": 1, "b": 2}, {"a": 3}], "list": ["a", "b"], "grows": [{"a": 1}],
        });
        let after = json!({
            "same": 1, "new": true, "other": "1", "unset": null, "lost": null,
            "record": {"a": 1, "b": {"c": [1, 3]}},
            "records": [{"a": 1, "b": 3}, {"a": 3}], "list": ["b", "a"], "grows": [{"a": 1}, {"a": 2}],
        });
        let changes = difference(before.as_object().unwrap(), after.as_object().unwrap());
        let shown: Vec<String> = changes
            .iter()
            .map(|change| {
                let text = |value: &Option<Value>| value.clone().unwrap_or_default().to_string();
                format!(
                    "{}: {} -> {}",
                    change.path,
                    text(&change.before),
                    text(&change.after)
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"gone: "x" -> null"#,
                r#"grows: [{"a":1}] -> [{"a":1},{"a":2}]"#,
                r#"list: ["a","b"] -> ["b","a"]"#,
                r#"lost: {"a":1} -> null"#,
                "new: null -> true",
                r#"other: 1 -> "1""#,
                "record.b.c: [1,2] -> [1,3]",
                "records[0].b: 2 -> 3",
            ]
        );
    }
}
