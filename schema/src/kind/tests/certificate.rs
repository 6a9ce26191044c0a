use super::*;

/// A pair by the name of its files.
fn pair(name: &str) -> Value {
    json!({"cert": pem(&format!("{name}.crt")), "key": pem(&format!("{name}.key"))})
}

fn with(mut input: Value, more: Value) -> Value {
    let more = more.as_object().unwrap().clone();
    input.as_object_mut().unwrap().extend(more);
    input
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    for name in ["rsa", "p256", "p384", "p521", "ed25519"] {
        check(Kind::Certificate, pair(name), json!({"cert_alt": null}));
    }
    let entity = |error: &str| json!({"@entity": [error]});
    let alternative = |name: &str| {
        let pair = pair(name);
        json!({"cert_alt": pair["cert"], "key_alt": pair["key"]})
    };
    let same = "certificate and alternative certificate need to have different type (e.g. RSA and \
                ECDSA), the provided certificates were both of the same type";
    for (input, expected) in [
        (
            json!({}),
            json!({"cert": "required field missing", "key": "required field missing"}),
        ),
        (
            json!({"cert": "x", "key": "y"}),
            json!({
                "cert": "invalid certificate: no PEM block of this kind",
                "key": "invalid key: no PEM block of this kind",
            }),
        ),
        (
            with(pair("rsa"), json!({"key": pem("rsa.pub")})),
            json!({"key": "invalid key: no PEM block of this kind"}),
        ),
        (
            with(pair("rsa"), json!({"key": pem("encrypted.key")})),
            json!({"key": "invalid key: the key is encrypted"}),
        ),
        (
            with(pair("rsa"), json!({"key": pem("p256.key")})),
            entity("certificate does not match key"),
        ),
        (
            with(pair("rsa"), json!({"cert_alt": pem("p256.crt")})),
            entity("all or none of these fields must be set: 'cert_alt', 'key_alt'"),
        ),
        (with(pair("rsa"), alternative("p256")), json!({})),
        (with(pair("rsa"), alternative("ed25519")), json!({})),
        (
            with(
                pair("rsa"),
                with(alternative("p256"), json!({"key_alt": pem("p384.key")})),
            ),
            entity("alternative certificate does not match key"),
        ),
        (with(pair("p256"), alternative("p384")), entity(same)),
        // What a vault holds cannot be looked at.
        (
            with(pair("rsa"), json!({"key": "{vault://env/key}"})),
            json!({"key": "{vault://env/key}"}),
        ),
    ] {
        check(Kind::Certificate, input, expected);
    }
    check_message(
        Kind::Certificate,
        with(pair("rsa"), json!({"key": pem("p256.key")})),
        "schema violation (certificate does not match key)",
    );
}

#[test]
fn a_server_name_has_at_most_one_wildcard_at_an_end() {
    for (name, error) in [
        ("a.example", None),
        ("*.a.example", None),
        ("a.example.*", None),
        (
            "a.*.example",
            Some("wildcard must be leftmost or rightmost character"),
        ),
        ("*.a.*", Some("only one wildcard must be specified")),
        ("1.2.3.4", Some("must not be an IP")),
        ("a.example:1", Some("must not have a port")),
        ("a b", Some("invalid value: a b")),
    ] {
        let expected = error.map_or(json!({}), |error| json!({ "name": error }));
        check(
            Kind::Sni,
            json!({"name": name, "certificate": reference()}),
            expected,
        );
    }
    check(
        Kind::Sni,
        json!({}),
        json!({"name": "required field missing", "certificate": "required field missing"}),
    );
}

#[test]
fn an_authority_is_one_that_is_valid_and_its_digest_is_calculated() {
    let digest = crate::pki::Certificate::parse(&pem("ca.crt"))
        .unwrap()
        .digest;
    let entity = |error: &str| json!({"@entity": [error]});
    for (cert, expected) in [
        (pem("ca.crt"), json!({ "cert_digest": digest })),
        (
            pem("rsa.crt"),
            entity(
                "certificate does not appear to be a CA because it is missing the \"CA\" basic constraint",
            ),
        ),
        (
            pem("expired.crt"),
            entity("certificate expired, \"Not After\" time is in the past"),
        ),
        (
            pem("ca.crt") + &pem("ca.crt"),
            entity("please submit only one certificate at a time"),
        ),
        (
            "x".to_owned(),
            json!({"cert": "invalid certificate: no PEM block of this kind"}),
        ),
    ] {
        check(
            Kind::CaCertificate,
            json!({"cert": cert, "cert_digest": "mine"}),
            expected,
        );
    }
    check(
        Kind::CaCertificate,
        json!({}),
        json!({"cert": "required field missing"}),
    );
}

#[test]
fn an_authority_that_has_expired_since_can_still_be_changed() {
    let schema = Kind::CaCertificate.schema();
    let mut entropy = Entropy::new([7; 32]);
    let valid = Time(1_600_000_000_000_000);
    let input = Map::from_iter([("cert".to_owned(), pem("expired.crt").into())]);
    let stored = complete(schema, input, Base::New, valid, &mut entropy).unwrap();
    let input = Map::from_iter([("tags".to_owned(), json!(["old"]))]);
    let tagged = complete(schema, input, Base::Merge(&stored), NOW, &mut entropy).unwrap();
    assert_eq!(tagged["cert_digest"], stored["cert_digest"]);
    assert_eq!(tagged["tags"], json!(["old"]));
}
