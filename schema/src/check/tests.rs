use super::*;
use crate::entity::Id;
use crate::kind::Kind;
use serde_json::json;
use uuid::Uuid;

const NOW: Time = Time(1_700_000_000_123_456);

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Completes `input` and compares the fields named in `expected`: bodies, or the error object's fields.
fn check(kind: Kind, input: Value, base: Base<'_>, expected: Value) {
    let mut entropy = Entropy::new([7; 32]);
    let result = complete(
        kind.schema(),
        object(input.clone()),
        base,
        NOW,
        &mut entropy,
    );
    let found = match result {
        Ok(body) => body,
        Err(rejection) => rejection.fields,
    };
    for (name, expected) in object(expected) {
        let found = found.get(&name).unwrap_or(&Value::Null);
        assert_eq!(*found, expected, "{name} of {input}: {:?}", found);
    }
}

fn completed(kind: Kind, input: Value) -> Map<String, Value> {
    complete(
        kind.schema(),
        object(input),
        Base::New,
        NOW,
        &mut Entropy::new([7; 32]),
    )
    .unwrap()
}

#[test]
fn absent_fields_get_defaults_and_nulls_are_not_stored() {
    let body = completed(
        Kind::Service,
        json!({"host": "a", "path": null, "retries": null}),
    );
    let expected = json!({
        "host": "a", "port": 80, "protocol": "http", "retries": 5, "enabled": true,
        "connect_timeout": 60000, "write_timeout": 60000, "read_timeout": 60000,
        "created_at": 1_700_000_000, "updated_at": 1_700_000_000,
    });
    assert_eq!(Value::Object(body), expected);
}

#[test]
fn every_type_error_is_reported_at_once() {
    check(
        Kind::Service,
        json!({"host": 1, "port": 1.5, "enabled": "yes", "tags": "x", "retries": 40000, "nope": 1}),
        Base::New,
        json!({
            "host": "expected a string",
            "port": "expected an integer",
            "enabled": "expected a boolean",
            "tags": "expected a set",
            "retries": "value should be between 0 and 32767",
            "nope": "unknown field",
        }),
    );
    check(
        Kind::Service,
        json!({"host": "", "path": "a", "ca_certificates": {"a": 1}, "protocol": "ftp"}),
        Base::New,
        json!({
            "host": "length must be at least 1",
            "path": "should start with: /",
            "ca_certificates": "expected an array",
            "protocol": "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp",
        }),
    );
}

#[test]
fn errors_of_elements_stand_at_their_index() {
    let rejection = complete(
        Kind::Service.schema(),
        object(json!({"host": "a", "tags": ["fine", 1, "a,b"]})),
        Base::New,
        NOW,
        &mut Entropy::new([7; 32]),
    )
    .unwrap_err();
    let tag =
        "invalid tag 'a,b': expected printable ascii (except `,` and `/`) or valid utf-8 sequences";
    assert_eq!(
        rejection.fields["tags"],
        json!([null, "expected a string", tag])
    );
    assert_eq!(
        rejection.message,
        format!("2 schema violations (tags.2: expected a string; tags.3: {tag})")
    );
}

#[test]
fn values_are_brought_to_their_normal_form() {
    check(
        Kind::Service,
        json!({"host": "a", "port": 90.0, "tags": ["x", "y", "x"]}),
        Base::New,
        json!({"port": 90, "tags": ["x", "y"]}),
    );
    let id = "ABCDEF00-0000-0000-0000-000000000001";
    check(
        Kind::Route,
        json!({"paths": ["/a"], "service": {"id": id, "name": "dropped"}, "methods": {}}),
        Base::New,
        json!({"service": {"id": id.to_lowercase()}, "methods": []}),
    );
}

#[test]
fn references_need_an_id() {
    for (service, error) in [
        (json!("a"), json!({"id": "missing primary key"})),
        (json!({"id": "a"}), json!({"id": "expected a valid UUID"})),
        (json!({"id": null}), json!({"id": "required field missing"})),
    ] {
        check(
            Kind::Route,
            json!({"paths": ["/a"], "service": service}),
            Base::New,
            json!({"service": error}),
        );
    }
}

#[test]
fn sizes_are_bounded() {
    check(
        Kind::Service,
        json!({"host": "a", "tags": vec!["x"; 10_001]}),
        Base::New,
        json!({"tags": "length must be at most 10000"}),
    );
    check(
        Kind::Consumer,
        json!({"username": "x".repeat(70_000)}),
        Base::New,
        json!({"username": "length must be at most 65536"}),
    );
}

#[test]
fn a_patch_merges_records_replaces_lists_and_clears_with_null() {
    let mut before = completed(
        Kind::Upstream,
        json!({"name": "u", "tags": ["a"], "hash_on_cookie_path": null,
               "healthchecks": {"active": {"timeout": 9, "https_sni": "a.b"}}}),
    );
    before["created_at"] = 5.into();
    before.insert("from_the_future".into(), json!({"x": 1}));
    before["healthchecks"]["later"] = true.into();
    check(
        Kind::Upstream,
        json!({"tags": ["b"], "healthchecks": {"active": {"https_sni": null, "concurrency": 3}}}),
        Base::Merge(&before),
        json!({"name": "u", "tags": ["b"], "created_at": 5, "updated_at": 1_700_000_000,
               "from_the_future": {"x": 1}, "hash_on_cookie_path": null}),
    );
    let body = complete(
        Kind::Upstream.schema(),
        object(json!({"healthchecks": {"active": {"https_sni": null, "concurrency": 3}}})),
        Base::Merge(&before),
        NOW,
        &mut Entropy::new([7; 32]),
    )
    .unwrap();
    let active = &body["healthchecks"]["active"];
    assert_eq!(active["timeout"], 9);
    assert_eq!(active["concurrency"], 3);
    assert_eq!(active.get("https_sni"), None);
    assert_eq!(body["healthchecks"]["later"], true);
    check(
        Kind::Consumer,
        json!({"username": null}),
        Base::Merge(&completed(Kind::Consumer, json!({"username": "a"}))),
        json!({"@entity": ["when updating, at least one of these fields must be non-empty: \
                            'custom_id', 'username'"]}),
    );
}

#[test]
fn a_replacement_goes_back_to_defaults_but_keeps_what_the_control_plane_filled() {
    let owner = json!({"id": Uuid::from_u128(1)});
    let mut before = completed(
        Kind::KeyauthCredential,
        json!({"consumer": owner, "tags": ["a"]}),
    );
    before["created_at"] = 5.into();
    let key = before["key"].clone();
    assert_eq!(key.as_str().unwrap().len(), 32);
    let base = Base::Replace(&before);
    let kept = json!({"created_at": 5, "key": key, "tags": null});
    check(
        Kind::KeyauthCredential,
        json!({"consumer": owner}),
        base,
        kept,
    );
    let given = json!({"created_at": 9, "key": "k"});
    check(
        Kind::KeyauthCredential,
        json!({"consumer": owner, "created_at": 9, "key": "k"}),
        base,
        given,
    );
}

#[test]
fn the_api_form_has_every_field_and_nulls() {
    let id = Id(Uuid::from_u128(3));
    let mut body = completed(
        Kind::Route,
        json!({"sources": [{"port": 1}], "protocols": ["tcp"]}),
    );
    body.insert("from_the_future".into(), 1.into());
    let shown = fill_nulls(Kind::Route.schema(), id, &body);
    let mut expected = json!({
        "id": id.0, "name": null, "protocols": ["tcp"], "methods": null, "hosts": null,
        "paths": null, "headers": null, "https_redirect_status_code": 426, "regex_priority": 0,
        "strip_path": true, "path_handling": "v0", "preserve_host": false,
        "request_buffering": true, "response_buffering": true, "snis": null,
        "sources": [{"ip": null, "port": 1}], "destinations": null, "tags": null,
        "service": null, "from_the_future": 1,
    });
    expected["created_at"] = 1_700_000_000.into();
    expected["updated_at"] = 1_700_000_000.into();
    assert_eq!(Value::Object(shown), expected);

    let body = completed(
        Kind::Plugin,
        json!({"name": "rate-limiting", "config": {"minute": 5}}),
    );
    let shown = fill_nulls(Kind::Plugin.schema(), id, &body);
    assert_eq!(shown["config"]["second"], Value::Null);
    assert_eq!(shown["config"]["redis"]["host"], Value::Null);
    assert_eq!(shown["config"]["redis"]["port"], 6379);
}

#[test]
fn what_the_api_shows_can_be_put_back_and_changes_nothing() {
    let owner = json!({"id": Uuid::from_u128(1)});
    for (kind, input) in [
        (Kind::Service, json!({"host": "a"})),
        (
            Kind::Route,
            json!({"paths": ["~/a/(?<b>\\d+)"], "headers": {"x": ["y"]}}),
        ),
        (Kind::Upstream, json!({"name": "u"})),
        (Kind::Target, json!({"target": "a", "upstream": owner})),
        (Kind::Consumer, json!({"custom_id": "c"})),
        (Kind::Plugin, json!({"name": "key-auth"})),
        (
            Kind::Plugin,
            json!({"name": "rate-limiting", "config": {"redis_host": "r", "hour": 1}}),
        ),
        (Kind::KeyauthCredential, json!({"consumer": owner})),
    ] {
        let body = completed(kind, input);
        let mut shown = fill_nulls(kind.schema(), Id(Uuid::from_u128(2)), &body);
        shown.remove("id");
        for base in [Base::New, Base::Replace(&body), Base::Merge(&body)] {
            check(
                kind,
                Value::Object(shown.clone()),
                base,
                Value::Object(body.clone()),
            );
        }
        check(
            kind,
            json!({}),
            Base::Merge(&body),
            Value::Object(body.clone()),
        );
    }
}

#[test]
fn forms_become_what_the_schema_says() {
    let form = |kind: Kind, text: &str| {
        let pairs: Vec<_> = text
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect();
        Value::Object(form_value(kind.schema(), &pairs, None))
    };
    for (kind, text, expected) in [
        (
            Kind::Service,
            "name=7&port=80&enabled=false&path=&retries=x&url=a",
            json!({"name": "7", "port": 80, "enabled": false, "path": null, "retries": "x", "url": "a"}),
        ),
        (
            Kind::Route,
            "paths[]=/a&paths[]=/b&hosts[2]=b&hosts[1]=a&hosts[10]=c&service.id=1&strip_path=true",
            json!({"paths": ["/a", "/b"], "hosts": ["a", "b", "c"], "service": {"id": "1"}, "strip_path": true}),
        ),
        (
            Kind::Route,
            "headers.x-a[]=1&headers[x-b][1]=2&methods=GET&tags=&sources[1].port=5&service[id]=",
            json!({"headers": {"x-a": ["1"], "x-b": ["2"]}, "methods": ["GET"], "tags": null,
                   "sources": [{"port": 5}], "service": {"id": null}}),
        ),
        (
            Kind::Plugin,
            "name=rate-limiting&config.minute=5&config[redis][port]=1&config.redis_ssl=true",
            json!({"name": "rate-limiting", "config": {"minute": 5, "redis": {"port": 1}, "redis_ssl": true}}),
        ),
        (
            Kind::Consumer,
            "é[=1&.=3",
            json!({"é": {"[": "1"}, ".": "3"}),
        ),
    ] {
        assert_eq!(form(kind, text), expected, "{text}");
    }
}

#[test]
fn shapes_of_any_input_never_panic() {
    let values = [
        json!(null),
        json!([]),
        json!({}),
        json!([null]),
        json!({"id": 1}),
        json!(""),
    ];
    for kind in Kind::ALL {
        let fields = kind.schema().fields.iter().chain(kind.schema().shorthands);
        for field in fields {
            for value in &values {
                let mut input = json!({"name": "rate-limiting"});
                input[field.name] = value.clone();
                let before = object(json!({"name": "key-auth", "config": {}}));
                for base in [Base::New, Base::Replace(&before), Base::Merge(&before)] {
                    let input = object(input.clone());
                    let _ = complete(kind.schema(), input, base, NOW, &mut Entropy::new([7; 32]));
                }
            }
        }
    }
}
