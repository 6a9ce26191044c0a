//! `jwt`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

fn config(config: Value) -> Entity {
    global(12, "jwt", config)
}

fn entities(fields: Value) -> Vec<Entity> {
    let mut credential = json!({ "consumer": reference(10), "key": "alice-key", "secret": "secret", "algorithm": "HS256" });
    let given = fields.as_object().unwrap().clone();
    credential.as_object_mut().unwrap().extend(given);
    vec![
        consumer(10, json!({ "username": "alice", "custom_id": "a-1" })),
        entity("jwt_secret", 11, credential),
    ]
}

/// A token of these parts, by HMAC.
fn sign(header: &Value, claims: &Value, algorithm: hmac::Algorithm, secret: &[u8]) -> String {
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let mac = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn token(claims: Value) -> String {
    sign(
        &json!({ "typ": "JWT", "alg": "HS256" }),
        &claims,
        hmac::HMAC_SHA256,
        b"secret",
    )
}

async fn with_token(gateway: &Gateway, token: &str) -> Reply {
    ask(
        gateway,
        "GET",
        "/",
        &[("authorization", &format!("Bearer {token}"))],
    )
    .await
}

#[tokio::test]
async fn tokens_of_every_algorithm_that_others_signed_are_verified() {
    let cases: Value = serde_json::from_str(include_str!("../data/jwt.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 13);
    let mut all = vec![
        consumer(10, json!({ "username": "alice" })),
        config(json!({})),
    ];
    for (index, case) in (100..).zip(cases) {
        let algorithm = &case["algorithm"];
        let key = format!("key-{}", algorithm.as_str().unwrap());
        let secret = case["secret"].as_str().unwrap_or("unused");
        let fields = json!({
            "consumer": reference(10), "key": key, "algorithm": algorithm, "secret": secret,
            "rsa_public_key": case["public_key"],
        });
        all.push(entity("jwt_secret", index, fields));
    }
    let (_origin, gateway) = gateway_with(&all).await;
    for case in cases {
        let (token, algorithm) = (case["token"].as_str().unwrap(), &case["algorithm"]);
        // The second time the key is known.
        for _ in 0..2 {
            let reply = with_token(&gateway, token).await;
            assert_eq!(
                reply.received("x-consumer-username").as_deref(),
                Some("alice"),
                "{algorithm}"
            );
            let key = format!("key-{}", algorithm.as_str().unwrap());
            assert_eq!(reply.received("x-credential-identifier"), Some(key));
        }
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut changed = URL_SAFE_NO_PAD.decode(signature).unwrap();
        changed[10] ^= 1;
        for wrong in [
            URL_SAFE_NO_PAD.encode(&changed),
            String::new(),
            signature[..4].to_owned(),
        ] {
            let reply = with_token(&gateway, &format!("{message}.{wrong}")).await;
            is_refused(&reply, 401, "Invalid signature");
        }
    }
}

#[tokio::test]
async fn a_token_is_refused_for_what_is_wrong_with_it() {
    let all = [
        entities(json!({})),
        vec![config(json!({ "realm": "here" }))],
    ]
    .concat();
    let (_origin, gateway) = gateway_with(&all).await;
    let alg = |header: Value| {
        sign(
            &header,
            &json!({ "iss": "alice-key" }),
            hmac::HMAC_SHA256,
            b"secret",
        )
    };
    let none = format!(
        "{}.",
        alg(json!({ "alg": "none" })).rsplit_once('.').unwrap().0
    );
    for (token, message) in [
        ("x".to_owned(), "Bad token; invalid JSON"),
        ("e30.e30".to_owned(), "Bad token; invalid JSON"),
        ("%.e30.e30".to_owned(), "Bad token; invalid JSON"),
        ("e30.e30.e30".to_owned(), "Bad token; invalid alg"),
        ("W10.e30.e30".to_owned(), "Bad token; invalid alg"),
        (alg(json!({ "alg": "HS257" })), "Bad token; invalid alg"),
        (none, "Bad token; invalid alg"),
        (
            alg(json!({ "alg": "HS256", "typ": "JOSE" })),
            "Bad token; invalid typ",
        ),
        (
            format!("{}.x", token(json!({ "iss": "alice-key" }))),
            "Bad token; invalid signature",
        ),
        (token(json!([1])), "Bad token; invalid claims"),
        (token(json!({})), "No mandatory 'iss' in claims"),
        (
            token(json!({ "iss": null })),
            "No mandatory 'iss' in claims",
        ),
        (token(json!({ "iss": "" })), "Invalid 'iss' in claims"),
        (token(json!({ "iss": 7 })), "Invalid 'iss' in claims"),
        (
            token(json!({ "iss": "bob-key" })),
            "No credentials found for given 'iss'",
        ),
        (alg(json!({ "alg": "HS512" })), "Invalid algorithm"),
        (
            sign(
                &json!({ "alg": "HS256" }),
                &json!({ "iss": "alice-key" }),
                hmac::HMAC_SHA256,
                b"other",
            ),
            "Invalid signature",
        ),
    ] {
        let reply = with_token(&gateway, &token).await;
        is_refused(&reply, 401, message);
        let challenge = "Bearer realm=\"here\" error=\"invalid_token\"";
        assert_eq!(
            reply.header("www-authenticate"),
            Some(challenge),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_token_is_asked_for_and_may_have_its_key_in_its_header() {
    let all = [
        entities(json!({})),
        vec![config(json!({ "realm": "here" }))],
    ]
    .concat();
    let (_origin, gateway) = gateway_with(&all).await;
    let reply = gateway.get("/").await;
    is_refused(&reply, 401, "Unauthorized");
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer realm=\"here\"")
    );
    // The key may be in the header, and `typ` in any case.
    let header = json!({ "alg": "HS256", "typ": "jwt", "iss": "alice-key" });
    let token = sign(&header, &json!({}), hmac::HMAC_SHA256, b"secret");
    assert_eq!(with_token(&gateway, &token).await.status, 200);
}

/// An attacker who knows the public key must not be able to use it as a secret.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    let cases: Value = serde_json::from_str(include_str!("../data/jwt.json")).unwrap();
    let case = cases
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["algorithm"] == "RS256")
        .unwrap();
    let pem = case["public_key"].as_str().unwrap();
    let fields = json!({ "algorithm": "RS256", "rsa_public_key": pem });
    let all = [entities(fields), vec![config(json!({}))]].concat();
    let (_origin, gateway) = gateway_with(&all).await;
    for alg in ["HS256", "RS256"] {
        let forged = sign(
            &json!({ "alg": alg }),
            &json!({ "iss": "alice-key" }),
            hmac::HMAC_SHA256,
            pem.as_bytes(),
        );
        assert_eq!(with_token(&gateway, &forged).await.status, 401);
    }
    // A key of another kind than the algorithm, or none.
    for (algorithm, key) in [("ES256", json!(pem)), ("ES256", Value::Null)] {
        let fields = json!({ "algorithm": algorithm, "rsa_public_key": key });
        gateway.apply(&entities(fields));
        let forged = sign(
            &json!({ "alg": algorithm }),
            &json!({ "iss": "alice-key" }),
            hmac::HMAC_SHA256,
            b"",
        );
        let message = if key.is_null() {
            "Invalid key/secret"
        } else {
            "Invalid signature"
        };
        is_refused(&with_token(&gateway, &forged).await, 401, message);
    }
}

#[tokio::test]
async fn claims_are_checked_if_asked_for() {
    let all = [entities(json!({})), vec![config(json!({}))]].concat();
    let (_origin, gateway) = gateway_with(&all).await;
    let both = json!({ "claims_to_verify": ["exp", "nbf"] });
    let most = json!({ "claims_to_verify": ["exp"], "maximum_expiration": 60 });
    for (settings, claims, expected) in [
        (json!({}), json!({ "exp": 1 }), json!(null)),
        (
            both.clone(),
            json!({ "exp": NOW + 1, "nbf": NOW }),
            json!(null),
        ),
        (
            both.clone(),
            json!({ "exp": NOW, "nbf": NOW }),
            json!({ "exp": "token expired" }),
        ),
        (
            both.clone(),
            json!({ "exp": NOW + 1, "nbf": NOW + 1 }),
            json!({ "nbf": "token not valid yet" }),
        ),
        (
            both.clone(),
            json!({ "exp": "1" }),
            json!({ "exp": "must be a number", "nbf": "must be a number" }),
        ),
        (most.clone(), json!({ "exp": NOW + 60 }), json!(null)),
        (
            most.clone(),
            json!({ "exp": NOW + 61 }),
            json!({ "exp": "exceeds maximum allowed expiration" }),
        ),
        (most, json!({}), json!({ "exp": "must be a number" })),
    ] {
        gateway.apply(&[config(settings)]);
        let mut claims = claims;
        claims["iss"] = "alice-key".into();
        let reply = with_token(&gateway, &token(claims.clone())).await;
        if expected.is_null() {
            assert_eq!(reply.status, 200, "{claims}");
        } else {
            assert_eq!(
                (reply.status.as_u16(), reply.json()),
                (401, expected),
                "{claims}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_is_found_where_the_configuration_says() {
    let settings = json!({ "uri_param_names": ["jwt", "t"], "cookie_names": ["c"], "header_names": ["authorization", "x-jwt"] });
    let all = [entities(json!({})), vec![config(settings)]].concat();
    let (_origin, gateway) = gateway_with(&all).await;
    let good = token(json!({ "iss": "alice-key" }));
    let bearer = format!("bearer  {good}");
    let cookie = format!("a=b; c={good}");
    let other = token(json!({ "iss": "alice-key", "n": 1 }));
    for (path, headers, status) in [
        (format!("/?t={good}"), vec![], 200),
        (format!("/?jwt=&t={good}"), vec![], 200),
        (
            format!("/?jwt={good}&t={good}"),
            vec![("cookie", &*cookie), ("x-jwt", &*bearer)],
            200,
        ),
        ("/".into(), vec![("cookie", &*cookie)], 200),
        ("/".into(), vec![("x-jwt", &*bearer)], 200),
        ("/".into(), vec![("x-jwt", &*good)], 401),
        ("/".into(), vec![("authorization", "Basic x")], 401),
        (format!("/?x={good}"), vec![], 401),
    ] {
        assert_eq!(
            ask(&gateway, "GET", &path, &headers).await.status,
            status,
            "{path} {headers:?}"
        );
    }
    let path = format!("/?jwt={good}&jwt={other}");
    is_refused(&gateway.get(&path).await, 401, "Multiple tokens provided");
    gateway.apply(&[config(
        json!({ "run_on_preflight": false, "secret_is_base64": true, "key_claim_name": "who" }),
    )]);
    assert_eq!(ask(&gateway, "OPTIONS", "/", &[]).await.status, 200);
    gateway.apply(&entities(json!({ "secret": "_-8=" })));
    let coded = sign(
        &json!({ "alg": "HS256" }),
        &json!({ "who": "alice-key" }),
        hmac::HMAC_SHA256,
        &[0xff, 0xef],
    );
    assert_eq!(with_token(&gateway, &coded).await.status, 200);
    gateway.apply(&entities(json!({ "secret": "!" })));
    is_refused(
        &with_token(&gateway, &coded).await,
        401,
        "Invalid key/secret",
    );
}

#[tokio::test]
async fn jwt_is_consistent() {
    let case: Value = serde_json::from_str(include_str!("../data/jwt.json")).unwrap();
    let cases = case.as_array().unwrap().clone();
    let case = cases
        .into_iter()
        .find(|case| case["algorithm"] == "EdDSA")
        .unwrap();
    let token = format!("Bearer {}", case["token"].as_str().unwrap());
    is_consistent(
        |n| {
            // Every third version of the credential has no usable key: none before or after may be taken for it.
            let key = if n % 3 == 0 { json!("none") } else { case["public_key"].clone() };
            let credential = json!({
                "consumer": reference(10), "key": "key-EdDSA", "secret": "", "algorithm": "EdDSA", "rsa_public_key": key,
            });
            vec![
                consumer(10, json!({ "username": format!("v{n}") })),
                entity("jwt_secret", 11, credential),
                config(json!({ "realm": format!("v{n}") })),
            ]
        },
        async |client: &mut Client| client.get_with("/", &[("authorization", &token)]).await,
        |reply| {
            let challenge = reply.header("www-authenticate");
            let realm = challenge.and_then(|text| text.split('"').nth(1)).map(str::to_owned);
            let shown = match reply.status.as_u16() {
                200 => numbers(&[reply.received("x-consumer-username")], "v"),
                _ => numbers(&[realm], "v"),
            };
            assert_eq!(shown[0].is_multiple_of(3), reply.status == 401, "{reply:?}");
            shown
        },
    )
    .await;
}
