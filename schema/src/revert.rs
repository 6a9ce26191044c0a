//! Taking back one change of a body while keeping what came after it.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// `now` with what the change from `before` to `after` did taken back. Fields that the change did not touch stay as they
/// are now; `keep` names further fields (of the body itself, not below) that do. Null is no value.
///
/// # Errors
/// With the paths (`config.minute`) of the fields that the change touched and that have been changed again since.
pub fn take_back(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    now: &Map<String, Value>,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Map<String, Value>, Vec<String>> {
    let mut changed_since = Vec::new();
    let taken_back = take_back_map("", [before, after, now], keep, &mut changed_since);
    match changed_since.is_empty() {
        true => Ok(taken_back),
        false => Err(changed_since),
    }
}

fn take_back_map(
    path: &str,
    bodies: [&Map<String, Value>; 3],
    keep: &dyn Fn(&str) -> bool,
    changed_since: &mut Vec<String>,
) -> Map<String, Value> {
    let names: BTreeSet<&String> = bodies.iter().flat_map(|body| body.keys()).collect();
    let mut taken_back = Map::new();
    for name in names {
        let values = bodies.map(|body| body.get(name).filter(|value| !value.is_null()));
        let value = match keep(name) {
            true => values[2].cloned(),
            false => {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                take_back_value(path, values, changed_since)
            }
        };
        if let Some(value) = value {
            taken_back.insert(name.clone(), value);
        }
    }
    taken_back
}

fn take_back_value(
    path: String,
    [before, after, now]: [Option<&Value>; 3],
    changed_since: &mut Vec<String>,
) -> Option<Value> {
    if before == after || now == before {
        return now.cloned();
    }
    if now == after {
        return before.cloned();
    }
    if let [
        Some(Value::Object(before)),
        Some(Value::Object(after)),
        Some(Value::Object(now)),
    ] = [before, after, now]
    {
        let bodies = [before, after, now];
        let record = take_back_map(&path, bodies, &|_| false, changed_since);
        return Some(Value::Object(record));
    }
    changed_since.push(path);
    now.cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check([before, after, now]: [Value; 3], expected: Result<Value, &[&str]>) {
        let map = |value: &Value| value.as_object().unwrap().clone();
        let keep = |name: &str| name == "updated_at";
        let found = take_back(&map(&before), &map(&after), &map(&now), &keep);
        let expected = expected
            .map(|value| map(&value))
            .map_err(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        assert_eq!(found, expected, "{before} {after} {now}");
    }

    #[test]
    fn a_change_is_taken_back_and_what_came_after_it_stays() {
        let before = json!({"host": "a", "port": 80, "updated_at": 1, "tags": ["x"]});
        let after = json!({"host": "b", "path": "/p", "port": 80, "updated_at": 2});
        let rows = [
            (
                after.clone(),
                Ok(json!({"host": "a", "port": 80, "updated_at": 2, "tags": ["x"]})),
            ),
            (
                json!({"host": "b", "path": "/p", "port": 81, "updated_at": 3}),
                Ok(json!({"host": "a", "port": 81, "updated_at": 3, "tags": ["x"]})),
            ),
            (before.clone(), Ok(before.clone())),
            (
                json!({"host": "c", "path": "/q"}),
                Err(&["host", "path"][..]),
            ),
        ];
        for (now, expected) in rows {
            check([before.clone(), after.clone(), now], expected);
        }
    }

    #[test]
    fn records_are_taken_back_field_by_field_and_lists_whole() {
        let config = |value: Value| json!({ "config": value });
        check(
            [
                config(json!({"minute": 1, "policy": "local", "list": [1]})),
                config(json!({"minute": 2, "policy": "local", "list": [2]})),
                config(json!({"minute": 2, "policy": "redis", "list": [2]})),
            ],
            Ok(config(json!({"minute": 1, "policy": "redis", "list": [1]}))),
        );
        check(
            [
                config(json!({"list": [1]})),
                config(json!({"list": [1, 2]})),
                config(json!({"list": [1, 2, 3]})),
            ],
            Err(&["config.list"]),
        );
    }
}
