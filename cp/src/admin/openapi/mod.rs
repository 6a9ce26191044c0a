//! `/openapi.json`: this Admin API as an OpenAPI 3.1 document, made from the table of endpoints and the descriptors.

mod schema;

use super::answer;
use super::endpoint::{self, Described, Gives, Operation, Takes, Verb};
use super::error::Problem;
use super::list::aside;
use super::request::Call;
use axum::response::Response;
use serde_json::{Map, Value, json};
use sluice_schema::kind::{Kind, RouterFlavor};

const JSON: &str = "application/json";
/// The media types an entity may be written in.
const ENTITY_TYPES: [&str; 3] = [
    JSON,
    "application/x-www-form-urlencoded",
    "multipart/form-data",
];

/// `GET /openapi.json`.
pub(super) async fn show(call: &Call<'_>) -> Result<Response, Problem> {
    let info = &call.admin.control_plane.info;
    let (version, flavor) = (info.version, info.router_flavor);
    let document = aside(move || document(version, flavor)).await?;
    Ok(answer::ok(&document))
}

/// The document; `version` is the program's.
fn document(version: &str, flavor: RouterFlavor) -> Value {
    let paths: Map<String, Value> = endpoint::all()
        .iter()
        .map(|described| (described.path.clone(), path(described)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice Admin API",
            "version": version,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Kong's Admin API, and what an event log adds to it. Every path may begin with the name \
                            of a workspace: `/{workspace}/services`.",
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "token": [] }, { "kongAdminToken": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schema::components(flavor),
            "parameters": header_parameters(),
            "responses": problems(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "kongAdminToken": { "type": "apiKey", "in": "header", "name": "Kong-Admin-Token" },
                "certificate": { "type": "mutualTLS" },
            },
            "headers": {
                "Sluice-Version": {
                    "description": "The version of the state the answer speaks of",
                    "schema": { "type": "string" },
                },
                "ETag": {
                    "description": "For If-Match and If-None-Match",
                    "schema": { "type": "string" },
                },
            },
        },
    })
}

fn path(described: &Described) -> Value {
    let mut shown = Map::new();
    let variables: Vec<Value> = described
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": { "type": "string", "minLength": 1 },
            })
        })
        .collect();
    if !variables.is_empty() {
        shown.insert("parameters".to_owned(), variables.into());
    }
    for operation in described.operations {
        for method in operation.verb.methods() {
            let method = method.to_ascii_lowercase();
            let operation = describe(described, operation, &method);
            shown.insert(method, operation);
        }
    }
    let options = json!({
        "operationId": operation_id("options", &described.path),
        "summary": "Which methods there are",
        "responses": { "204": { "description": "In the header Allow" }, "403": problem(403), "404": problem(404) },
    });
    shown.insert("options".to_owned(), options);
    shown.into()
}

fn operation_id(method: &str, path: &str) -> String {
    let path = path.replace(['{', '}'], "");
    format!("{method}{}", path.replace(['/', '-', '.'], "_"))
}

fn describe(described: &Described, operation: &Operation, method: &str) -> Value {
    let mut parameters: Vec<Value> = operation
        .query
        .iter()
        .map(|argument| {
            json!({
                "name": argument.name,
                "in": "query",
                "description": argument.summary,
                "schema": argument_schema(argument.name, argument.kind),
            })
        })
        .collect();
    parameters.extend(
        headers(operation)
            .iter()
            .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })),
    );
    let mut shown = json!({
        "operationId": operation_id(method, &described.path),
        "summary": operation.summary,
        "responses": responses(described, operation, method == "head"),
    });
    if let Some(kind) = described.kind {
        shown["tags"] = json!([kind.schema().entity]);
    }
    if !parameters.is_empty() {
        shown["parameters"] = parameters.into();
    }
    if let Some(body) = request_body(described, operation) {
        shown["requestBody"] = body;
    }
    shown
}

fn argument_schema(name: &str, kind: &str) -> Value {
    match (name, kind) {
        ("size", _) => json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
        (_, "boolean") => json!({ "type": "string", "enum": ["0", "1", "true", "false"] }),
        (_, "integer") => json!({ "type": "integer", "minimum": 0 }),
        _ => json!({ "type": "string" }),
    }
}

/// The headers that an operation reads.
fn headers(operation: &Operation) -> &'static [&'static str] {
    let entity = matches!(operation.takes, Takes::Entity | Takes::Fields);
    match (operation.verb, operation.gives.1) {
        (Verb::Get, Gives::Entity) => &["If-None-Match"],
        (Verb::Get, _) => &[],
        (Verb::Delete, _) => &[
            "If-Match",
            "Idempotency-Key",
            "Sluice-Actor",
            "Sluice-Reason",
            "Sluice-Wait",
            "traceparent",
        ],
        _ if entity => &[
            "If-Match",
            "If-None-Match",
            "Idempotency-Key",
            "Sluice-Actor",
            "Sluice-Reason",
            "Sluice-Wait",
            "traceparent",
        ],
        _ => &[
            "Idempotency-Key",
            "Sluice-Actor",
            "Sluice-Reason",
            "Sluice-Wait",
            "traceparent",
        ],
    }
}

fn header_parameters() -> Value {
    let described = [
        (
            "If-Match",
            "The entity must have one of these ETags; `*`: it must be there",
        ),
        (
            "If-None-Match",
            "The entity must have none of these ETags; `*`: it must not be there",
        ),
        (
            "Idempotency-Key",
            "A repetition with the same key is answered as the first request was",
        ),
        ("Sluice-Actor", "Who asks, for the event"),
        ("Sluice-Reason", "Why, for the event"),
        (
            "Sluice-Wait",
            "Answer when the data planes serve the change: all, N% or N, and perhaps ; group=NAME and ; timeout=SECONDS. 202 if they do not in time",
        ),
        ("traceparent", "The trace it is part of, as W3C says"),
    ];
    let shown = described.map(|(name, description)| {
        let parameter = json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": { "type": "string", "maxLength": 1024 },
        });
        (name.to_owned(), parameter)
    });
    Value::Object(shown.into_iter().collect())
}

fn request_body(described: &Described, operation: &Operation) -> Option<Value> {
    let object = json!({ "type": "object" });
    let content: Map<String, Value> = match operation.takes {
        Takes::Nothing => return None,
        Takes::Raw(media_type) => Map::from_iter([(media_type.to_owned(), json!({}))]),
        Takes::Object => Map::from_iter([(JSON.to_owned(), json!({ "schema": object }))]),
        Takes::Entity | Takes::Fields => {
            let schema = described
                .kind
                .map_or(object, |kind| body_schema(kind, operation));
            let typed = |name: &str| (name.to_owned(), json!({ "schema": schema.clone() }));
            ENTITY_TYPES.map(typed).into_iter().collect()
        }
    };
    Some(json!({ "content": content }))
}

fn body_schema(kind: Kind, operation: &Operation) -> Value {
    let mut schema = json!({ "$ref": schema::reference(kind) });
    let required = match (operation.takes, operation.verb) {
        (Takes::Entity, Verb::Post) => schema::required(kind, None),
        (Takes::Entity, _) => schema::required(kind, kind.schema().endpoint_key),
        (Takes::Nothing | Takes::Fields | Takes::Object | Takes::Raw(_), _) => Vec::new(),
    };
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn responses(described: &Described, operation: &Operation, head: bool) -> Value {
    let (status, gives) = operation.gives;
    let mut shown = Map::new();
    let mut success = json!({ "description": operation.summary });
    success["headers"]["Sluice-Version"] = header("Sluice-Version");
    if gives == Gives::Entity {
        success["headers"]["ETag"] = header("ETag");
    }
    if !head && let Some(content) = content(described, gives) {
        success["content"] = content;
    }
    shown.insert(status.to_string(), success);
    if headers(operation).contains(&"Sluice-Wait") {
        let late = "Stored, but not served by as many data planes as Sluice-Wait asks for in time";
        shown.insert("202".to_owned(), json!({ "description": late }));
    }
    shown.insert("401".to_owned(), problem(401));
    for other in operation.others.iter().filter(|other| **other != status) {
        shown.insert(other.to_string(), problem(*other));
    }
    shown.into()
}

fn content(described: &Described, gives: Gives) -> Option<Value> {
    let entity = described.kind.map_or_else(
        || json!({ "type": "object" }),
        |kind| match (kind, described.path.as_str()) {
            // Shown with its members.
            (Kind::ConsumerGroup, path) if !path.ends_with("consumer_groups") => {
                json!({ "type": "object" })
            }
            _ => json!({ "$ref": schema::reference(kind) }),
        },
    );
    match gives {
        Gives::Nothing => None,
        Gives::Raw(media_type) => Some(json!({ media_type: {} })),
        Gives::Object => Some(json!({ JSON: { "schema": { "type": "object" } } })),
        Gives::Entity => Some(json!({ JSON: { "schema": entity } })),
        Gives::Page => Some(json!({ JSON: { "schema": {
            "type": "object",
            "required": ["data", "next"],
            "properties": {
                "data": { "type": "array", "items": entity },
                "next": { "type": ["string", "null"] },
                "offset": { "type": "string" },
            },
        } } })),
    }
}

fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// The answers with a status that is not the one expected.
const PROBLEMS: [(u16, &str); 12] = [
    (400, "The request is not valid"),
    (
        401,
        "Neither token nor certificate, and callers without may not; or a token that is not known",
    ),
    (
        403,
        "The caller may not, or the request was made for another host, or by a page of another site",
    ),
    (404, "Not found"),
    (408, "The body did not arrive"),
    (
        409,
        "Something else has the same unique value, or it would break something",
    ),
    (
        410,
        "What was there then can no longer be told: it has been trimmed off the log",
    ),
    (412, "If-Match or If-None-Match does not hold"),
    (413, "The body is too large"),
    (415, "The body is of a kind that is not read"),
    (422, "The Idempotency-Key was used for another request"),
    (503, "The log cannot be written or read now"),
];

fn problems() -> Value {
    let content = json!({ JSON: { "schema": { "$ref": "#/components/schemas/error" } } });
    let mut shown = Map::new();
    for (status, description) in PROBLEMS {
        let answer = json!({ "description": description, "content": content });
        shown.insert(status.to_string(), answer);
    }
    let preview = json!({ JSON: { "schema": { "type": "object" } } });
    shown.insert(
        "200".to_owned(),
        json!({ "description": "What it would come to (dry_run)", "content": preview.clone() }),
    );
    shown.insert(
        "202".to_owned(),
        json!({ "description": "Not in time: which data planes are behind, and by how much", "content": preview }),
    );
    shown.insert(
        "304".to_owned(),
        json!({ "description": "The caller has it already" }),
    );
    shown.into()
}

fn problem(status: u16) -> Value {
    json!({ "$ref": format!("#/components/responses/{status}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// All references of a document.
    fn references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let (Some(text), "$ref") = (value.as_str(), name.as_str()) {
                        into.insert(text.to_owned());
                    }
                    references(value, into);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_id() {
        let document = document("0", RouterFlavor::default());
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let mut ids = BTreeSet::new();
        for path in document["paths"].as_object().unwrap().values() {
            for operation in path.as_object().unwrap().values() {
                if let Some(id) = operation.get("operationId") {
                    assert!(ids.insert(id.as_str().unwrap().to_owned()), "{id}");
                }
            }
        }
    }
}
