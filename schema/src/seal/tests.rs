use super::*;
use crate::entity::Id;
use serde_json::json;
use uuid::Uuid;

const KINDS: [Kind; 3] = [Kind::KeyauthCredential, Kind::JwtSecret, Kind::Plugin];

fn ring(names: &[(&str, u8)]) -> Ring {
    let lines = names
        .iter()
        .map(|(name, byte)| Ring::line(name, &[*byte; KEY_BYTES]));
    Ring::parse(&lines.collect::<String>()).unwrap()
}

fn key(kind: Kind, id: u128) -> Key {
    Key {
        kind: kind.key_name(),
        workspace: Workspace::DEFAULT,
        id: Id(Uuid::from_u128(id)),
    }
}

fn body(kind: Kind, secret: &str) -> Map<String, Value> {
    let body = if kind == Kind::KeyauthCredential {
        json!({"key": secret, "tags": ["t"]})
    } else if kind == Kind::JwtSecret {
        json!({"key": "k", "secret": secret})
    } else {
        json!({"name": "rate-limiting", "config": {"minute": 5, "redis": {
            "host": "h", "password": secret, "username": "{vault://env/user}",
        }}})
    };
    body.as_object().unwrap().clone()
}

fn sealed(ring: &Ring, kind: Kind, id: u128, secret: &str) -> Map<String, Value> {
    let mut fields = body(kind, secret);
    assert_eq!(ring.seal(kind, &key(kind, id), &mut fields), Ok(1));
    fields
}

#[test]
fn what_is_sealed_opens_again_and_shows_nothing_before() {
    let ring = ring(&[("k1", 1)]);
    for kind in KINDS {
        let mut fields = sealed(&ring, kind, 1, "geheim");
        let text = Value::Object(fields.clone()).to_string();
        assert!(
            !text.contains("geheim") && text.contains("{sealed://k1/"),
            "{text}"
        );
        assert_eq!(ring.open(kind, &key(kind, 1), &mut fields), Ok(()));
        assert_eq!(fields, body(kind, "geheim"));
    }
}

#[test]
fn equal_secrets_are_equal_in_one_place_only() {
    let ring = ring(&[("k1", 1)]);
    for kind in KINDS {
        let one = sealed(&ring, kind, 1, "geheim");
        assert_eq!(one, sealed(&ring, kind, 1, "geheim"));
        assert_ne!(one, sealed(&ring, kind, 1, "anders"));
        // Unique values are compared between entities.
        let elsewhere = sealed(&ring, kind, 2, "geheim");
        assert_eq!(
            one == elsewhere,
            kind == Kind::KeyauthCredential,
            "{kind:?}"
        );
    }
    let (kind, mut moved) = (Kind::JwtSecret, sealed(&ring, Kind::JwtSecret, 1, "geheim"));
    let error = ring.open(kind, &key(kind, 2), &mut moved).unwrap_err();
    assert!(matches!(error, Unopened::Wrong { .. }), "{error}");
}

#[test]
fn a_key_that_is_missing_or_another_is_told() {
    let kind = Kind::KeyauthCredential;
    let fields = sealed(&ring(&[("k1", 1)]), kind, 1, "geheim");
    let told = |ring: &Ring| {
        let mut fields = fields.clone();
        let error = ring.open(kind, &key(kind, 1), &mut fields).unwrap_err();
        error.to_string()
    };
    assert!(told(&ring(&[("k2", 1)])).contains("key is sealed with the key 'k1', which is not in"));
    assert!(told(&ring(&[("k1", 2)])).contains("key does not open with the key 'k1'"));
    assert!(told(&Ring::default()).contains("which is not in"));
}

#[test]
fn the_first_key_seals_and_all_open() {
    let kind = Kind::KeyauthCredential;
    let mut old = sealed(&ring(&[("k1", 1)]), kind, 1, "geheim");
    let both = ring(&[("k2", 2), ("k1", 1)]);
    assert!(!both.is_current(kind, &mut old));
    both.open(kind, &key(kind, 1), &mut old).unwrap();
    let mut new = sealed(&both, kind, 1, "geheim");
    assert_eq!(new["key"].as_str().and_then(sealed_with), Some("k2"));
    assert!(both.is_current(kind, &mut new));
}

#[test]
fn only_control_planes_seal() {
    for ring in [Ring::default(), ring(&[("k1", 1)])] {
        let kind = Kind::KeyauthCredential;
        let mut fields = body(kind, "{sealed://k1/AAAA}");
        let refused = ring.seal(kind, &key(kind, 1), &mut fields);
        assert_eq!(refused, Err("key".to_owned()));
    }
}

#[test]
fn what_is_no_secrets_file_is_told_with_its_line_and_no_key_is_quoted() {
    let good = Ring::line("k1", &[7; KEY_BYTES]);
    let secret = good.split_whitespace().nth(1).unwrap().to_owned();
    let check = |text: String, expected: &str| {
        let error = Ring::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(&secret), "{error}");
    };
    check(String::new(), "there is no key");
    check(
        format!("# nothing\n{good}{good}"),
        "line 3: the key 'k1' is there twice",
    );
    check(format!("K1 {secret}\n"), "line 1: a name is");
    check("k1\n".into(), "expected a name and a key");
    check("k1 AAAA\n".into(), "expected 64 bytes");
    check(format!("k1 {secret}AAAA\n"), "expected 64 bytes");
    let many: String = (0..=KEYS_MAX)
        .map(|n| Ring::line(&format!("k{n}"), &[1; KEY_BYTES]))
        .collect();
    check(many, "more than 16 keys");
    assert!(!format!("{:?}", Ring::parse(&good).unwrap()).contains(&secret));
}

#[test]
fn every_secret_is_a_text() {
    fn check(field: &Field, path: &str, found: &mut usize) {
        let path = format!("{path}.{}", field.name);
        if field.encrypted {
            *found += 1;
            assert!(matches!(field.kind, Type::String), "{path}");
        }
        match field.kind {
            Type::Record(fields) => fields.iter().for_each(|field| check(field, &path, found)),
            Type::Array(elements) | Type::Set(elements) => check(elements, &path, found),
            Type::Map { values, .. } => check(values, &path, found),
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Foreign(_)
            | Type::Config
            | Type::Json => {}
        }
    }
    let mut found = 0;
    for kind in Kind::ALL {
        let fields = kind.schema().fields.iter();
        fields.for_each(|field| check(field, kind.name(), &mut found));
    }
    for plugin in crate::plugin::PLUGINS {
        check(&plugin.config, plugin.name, &mut found);
    }
    assert!(found > 30, "{found}");
}
