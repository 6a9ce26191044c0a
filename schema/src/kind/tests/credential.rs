use super::*;

#[test]
fn a_credentials_time_to_live_counts_from_its_creation() {
    for (ttl, expected) in [
        (json!(10), json!({"ttl": 110, "created_at": 1_699_999_900})),
        (json!(0), json!({"ttl": null})),
        (json!(null), json!({"ttl": null})),
        (json!("x"), json!({"ttl": "expected an integer"})),
        (
            json!(-1),
            json!({"ttl": "value should be between 0 and 100000000"}),
        ),
        (
            json!(1e9),
            json!({"ttl": "value should be between 0 and 100000000"}),
        ),
    ] {
        check(
            Kind::KeyauthCredential,
            json!({"consumer": reference(), "ttl": ttl, "created_at": 1_699_999_900}),
            expected,
        );
    }
}

/// `more` with a consumer.
fn owned(more: Value) -> Value {
    let mut input = more;
    input["consumer"] = reference();
    input
}

#[test]
fn every_credential_belongs_to_a_consumer() {
    for (kind, input) in [
        (Kind::KeyauthCredential, json!({})),
        (
            Kind::BasicauthCredential,
            json!({"username": "u", "password": "p"}),
        ),
        (Kind::JwtSecret, json!({})),
        (Kind::HmacauthCredential, json!({"username": "u"})),
        (Kind::Acl, json!({"group": "g"})),
        (Kind::Oauth2Credential, json!({"name": "n"})),
    ] {
        check_message(
            kind,
            input,
            "schema violation (consumer: required field missing)",
        );
    }
}

#[test]
fn a_password_is_stored_as_kong_hashes_it() {
    // Python: hashlib.sha1(b"secret00000000-0000-0000-0000-000000000001").hexdigest()
    let hash = "957006fa54b042fc81ba7ab56d3d6740f1c8c6f9";
    let input = owned(json!({"username": "u", "password": "secret"}));
    check(
        Kind::BasicauthCredential,
        input.clone(),
        json!({"username": "u", "password": hash}),
    );
    assert!(is_password(hash, Uuid::from_u128(1), "secret"));
    assert!(!is_password(hash, Uuid::from_u128(2), "secret"));

    let stored = completed(Kind::BasicauthCredential, &input).unwrap();
    let again = |base: Base<'_>, password: &str| {
        let input = owned(json!({"username": "u", "password": password}));
        let Value::Object(input) = input else {
            panic!("an object")
        };
        let schema = Kind::BasicauthCredential.schema();
        let body = complete(schema, input, base, NOW, &mut Entropy::new([7; 32])).unwrap();
        body["password"].as_str().unwrap().to_owned()
    };
    // What was read may be written back; what a dump says is as it is stored.
    assert_eq!(again(Base::Replace(&stored), hash), hash);
    assert_eq!(again(Base::Merge(&stored), "secret"), hash);
    assert_ne!(again(Base::Merge(&stored), "other"), hash);
    assert_eq!(again(Base::Declare(None, Values::Stored), hash), hash);
    assert_eq!(again(Base::Declare(None, Values::Plain), "secret"), hash);
    for (input, expected) in [
        (
            json!({}),
            json!({"username": "required field missing", "password": "required field missing"}),
        ),
        (
            json!({"username": "u", "password": ""}),
            json!({"password": "length must be at least 1"}),
        ),
        (
            json!({"username": 1, "password": "p"}),
            json!({"username": "expected a string"}),
        ),
    ] {
        check(Kind::BasicauthCredential, owned(input), expected);
    }
}

#[test]
fn a_jwt_credential_has_the_key_its_algorithm_needs() {
    let made = completed(Kind::JwtSecret, &owned(json!({}))).unwrap();
    assert_eq!(made["algorithm"], "HS256");
    for field in ["key", "secret"] {
        assert_eq!(made[field].as_str().unwrap().len(), 32, "{field}");
    }
    let failed = "failed conditional validation given value of field 'algorithm'";
    for algorithm in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
    ] {
        for (key, error) in [
            (Value::Null, "required field missing"),
            ("nonsense".into(), "invalid key"),
            (pem("rsa.crt").into(), "invalid key"),
        ] {
            check(
                Kind::JwtSecret,
                owned(json!({"algorithm": algorithm, "rsa_public_key": key})),
                json!({"@entity": [failed], "rsa_public_key": error}),
            );
        }
        for key in ["rsa.pub", "rsa.pkcs1.pub", "rsa.key", "ed25519.pub"] {
            check(
                Kind::JwtSecret,
                owned(json!({"algorithm": algorithm, "rsa_public_key": pem(key)})),
                json!({"algorithm": algorithm}),
            );
        }
    }
    for algorithm in ["HS384", "HS512", "ES256", "ES384", "ES512"] {
        check(
            Kind::JwtSecret,
            owned(json!({"algorithm": algorithm})),
            json!({"algorithm": algorithm}),
        );
    }
    check(
        Kind::JwtSecret,
        owned(json!({"algorithm": "none"})),
        json!({"algorithm": "expected one of: HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384, ES512, PS256, PS384, PS512, EdDSA"}),
    );
}

#[test]
fn the_other_credentials_have_what_they_need() {
    let made = completed(Kind::HmacauthCredential, &owned(json!({"username": "u"}))).unwrap();
    assert_eq!(made["secret"].as_str().unwrap().len(), 32);
    for (kind, input, expected) in [
        (
            Kind::HmacauthCredential,
            json!({}),
            json!({"username": "required field missing"}),
        ),
        (
            Kind::Acl,
            json!({}),
            json!({"group": "required field missing"}),
        ),
        (
            Kind::Acl,
            json!({"group": "g", "ttl": 5}),
            json!({"ttl": "unknown field"}),
        ),
        (
            Kind::Oauth2Credential,
            json!({}),
            json!({"name": "required field missing"}),
        ),
        (
            Kind::Oauth2Credential,
            json!({"name": "n", "client_id": "i", "client_secret": "s"}),
            json!({"client_secret": "s", "hash_secret": false, "client_type": "confidential"}),
        ),
        (
            Kind::Oauth2Credential,
            json!({"name": "n", "client_type": "private"}),
            json!({"client_type": "expected one of: confidential, public"}),
        ),
        (
            Kind::Oauth2Credential,
            json!({"name": "n", "redirect_uris": ["https://a.example/x", "nonsense", "https://a/#b"]}),
            json!({"redirect_uris": [
                null, "cannot parse 'nonsense'", "fragment not allowed in 'https://a/#b'",
            ]}),
        ),
    ] {
        check(kind, owned(input), expected);
    }
    for (input, expected) in [
        (
            json!({}),
            json!({"credential": "required field missing", "expires_in": "required field missing"}),
        ),
        (
            json!({"credential": reference(), "expires_in": 5, "token_type": "mac"}),
            json!({"token_type": "expected one of: bearer"}),
        ),
        (
            json!({"credential": reference(), "expires_in": 5, "ttl": 7, "created_at": 1_699_999_990}),
            json!({"token_type": "bearer", "expires_in": 5, "ttl": 17}),
        ),
    ] {
        check(Kind::Oauth2Token, input, expected);
    }
}

#[test]
fn an_oauth2_secret_is_hashed_if_that_is_asked_for() {
    let schema = Kind::Oauth2Credential.schema();
    let write = |base: Base<'_>, more: Value| {
        let Value::Object(input) = more else {
            panic!("an object")
        };
        complete(schema, input, base, NOW, &mut Entropy::new([9; 32])).unwrap()
    };
    let input = owned(json!({"name": "n", "client_secret": "s", "hash_secret": true}));
    let stored = write(Base::New, input.clone());
    let hash = stored["client_secret"].as_str().unwrap();
    assert!(crate::pki::pbkdf2::is_secret(hash, "s"), "{hash}");
    // The same secret again, or the hash as it was read, changes nothing.
    for same in [
        input.clone(),
        owned(json!({"name": "n", "client_secret": hash, "hash_secret": true})),
    ] {
        assert_eq!(write(Base::Replace(&stored), same)["client_secret"], hash);
    }
    let dumped =
        json!({"name": "n", "consumer": reference(), "client_secret": hash, "hash_secret": true});
    assert_eq!(
        write(Base::Declare(None, Values::Stored), dumped)["client_secret"],
        hash
    );
    assert_eq!(
        write(Base::Merge(&stored), json!({"name": "m"}))["client_secret"],
        hash
    );
    let other = write(Base::Merge(&stored), json!({"client_secret": "t"}));
    let other = other["client_secret"].as_str().unwrap();
    assert!(crate::pki::pbkdf2::is_secret(other, "t"));
}

#[test]
fn no_view_shows_its_secrets() {
    fn shown<T: for<'a> Deserialize<'a> + std::fmt::Debug>(kind: Kind, input: Value) -> String {
        let body = Body::encode(&completed(kind, &input).unwrap());
        format!("{:?}", body.view::<T>().unwrap())
    }
    for shown in [
        shown::<KeyauthCredential>(Kind::KeyauthCredential, owned(json!({"key": "hidden"}))),
        shown::<BasicauthCredential>(
            Kind::BasicauthCredential,
            owned(json!({"username": "hidden", "password": "hidden"})),
        ),
        shown::<JwtSecret>(
            Kind::JwtSecret,
            owned(json!({"key": "hidden", "secret": "hidden"})),
        ),
        shown::<HmacauthCredential>(
            Kind::HmacauthCredential,
            owned(json!({"username": "hidden", "secret": "hidden"})),
        ),
        shown::<Oauth2Credential>(
            Kind::Oauth2Credential,
            owned(json!({"name": "n", "client_secret": "hidden"})),
        ),
        shown::<Oauth2Token>(
            Kind::Oauth2Token,
            json!({"credential": reference(), "expires_in": 5, "access_token": "hidden"}),
        ),
        shown::<Certificate>(
            Kind::Certificate,
            json!({"cert": pem("p256.crt"), "key": pem("p256.key")}),
        ),
    ] {
        assert!(!shown.contains("hidden"), "{shown}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
