//! Every constraint of every kind, in a table: input, and what comes of it.

mod certificate;
mod consumer_group;
mod credential;
mod key;
mod route;
mod service;
mod upstream;
mod vault;

use super::*;
use crate::check::{Base, complete};
use crate::entity::Body;
use crate::entropy::Entropy;
use serde_json::json;

const NOW: Time = Time(1_700_000_000_123_456);

fn completed(kind: Kind, input: &Value) -> Result<Map<String, Value>, crate::rejection::Rejection> {
    let input = input.as_object().unwrap().clone();
    complete(
        kind.schema(),
        input,
        Base::New,
        NOW,
        &mut Entropy::new([7; 32]),
    )
}

/// `expected` is the whole of an error's fields, or, for a valid input, a part of the body (empty: any).
fn check(kind: Kind, input: Value, expected: Value) {
    match completed(kind, &input) {
        Err(rejection) => assert_eq!(Value::Object(rejection.fields), expected, "{input}"),
        Ok(body) => {
            for (name, expected) in expected.as_object().unwrap() {
                assert_eq!(
                    body.get(name).unwrap_or(&Value::Null),
                    expected,
                    "{name} of {input}"
                );
            }
        }
    }
}

/// The same, and the message.
fn check_message(kind: Kind, input: Value, message: &str) {
    let rejection = completed(kind, &input).unwrap_err();
    assert_eq!(rejection.message, message, "{input}");
    assert_eq!(rejection.code.number(), 2);
}

/// A key or certificate for tests.
fn pem(name: &str) -> String {
    let path = format!("{}/tests/pem/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn reference() -> Value {
    json!({"id": Uuid::from_u128(1)})
}

#[test]
fn names_lead_to_kinds_and_back() {
    for kind in Kind::ALL.iter().copied() {
        assert_eq!(kind.schema().kind, kind);
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
        assert_eq!(Kind::from_entity(kind.schema().entity), Some(kind));
        for unique in kind.schema().unique {
            assert!(
                unique
                    .fields
                    .iter()
                    .all(|name| kind.schema().field(name).is_some())
            );
        }
    }
    let foreign: Vec<_> = Kind::Plugin
        .schema()
        .foreign()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(foreign, ["route", "service", "consumer", "consumer_group"]);
}

#[test]
fn every_view_decodes_what_is_completed() {
    fn view<T: for<'a> Deserialize<'a>>(kind: Kind, input: Value) -> T {
        Body::encode(&completed(kind, &input).unwrap())
            .view()
            .unwrap()
    }
    let service: Service = view(
        Kind::Service,
        json!({"url": "https://a.b/c", "retries": null}),
    );
    assert_eq!((service.port, service.retries), (443, 5));
    let route: Route = view(
        Kind::Route,
        json!({"paths": ["/a"], "regex_priority": null, "path_handling": null, "service": reference()}),
    );
    assert_eq!(route.service.unwrap().id, Uuid::from_u128(1));
    let route: Route = view(
        Kind::Route,
        json!({"protocols": ["tls"], "destinations": [{"ip": "10.0.0.0/8"}, {"port": 1}]}),
    );
    assert_eq!(route.destinations.len(), 2);
    let upstream: Upstream = view(Kind::Upstream, json!({"name": "u", "slots": null}));
    assert_eq!(upstream.slots, 10_000);
    let target: Target = view(
        Kind::Target,
        json!({"target": "a", "weight": null, "upstream": reference()}),
    );
    assert_eq!((target.target.as_str(), target.weight), ("a:8000", 100));
    let consumer: Consumer = view(Kind::Consumer, json!({"username": "a"}));
    assert_eq!(consumer.username.as_deref(), Some("a"));
    let plugin: Plugin = view(Kind::Plugin, json!({"name": "key-auth"}));
    assert_eq!(plugin.config["key_names"], json!(["apikey"]));
    let credential: KeyauthCredential = view(
        Kind::KeyauthCredential,
        json!({"consumer": reference(), "ttl": 5}),
    );
    assert_eq!(credential.ttl, Some(5));
}
