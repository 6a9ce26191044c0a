use super::*;

const EC_JWK: &str = r#"{"kty":"EC","crv":"P-256","kid":"1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

fn key(more: Value) -> Value {
    let mut input = json!({"kid": "1"});
    let more = more.as_object().unwrap().clone();
    input.as_object_mut().unwrap().extend(more);
    input
}

#[test]
fn a_key_is_a_jwk_or_a_pair_and_a_jwk_is_read() {
    let entity = |error: &str| json!({"@entity": [error]});
    for (input, expected) in [
        (
            key(json!({"jwk": EC_JWK, "name": "a", "set": reference()})),
            json!({"kid": "1"}),
        ),
        (key(json!({"jwk": "{vault://env/jwk}"})), json!({})),
        (
            key(json!({})),
            entity("at least one of these fields must be non-empty: 'jwk', 'pem'"),
        ),
        (
            key(json!({"jwk": EC_JWK, "pem": {"public_key": pem("p256.pub")}})),
            entity("only one or none of these fields must be set: 'jwk', 'pem'"),
        ),
        (
            json!({"jwk": EC_JWK}),
            json!({"kid": "required field missing"}),
        ),
        (
            key(json!({"jwk": "{"})),
            entity("could not json decode jwk string"),
        ),
        (
            key(json!({"jwk": EC_JWK, "kid": "2"})),
            entity("kid in jwk.kid must be equal to keys.kid"),
        ),
        (
            key(json!({"jwk": "{\"kid\":\"1\"}"})),
            entity("could not load JWK, likely not a valid key"),
        ),
        (
            key(json!({"jwk": EC_JWK.replace("MKBC", "MKBD")})),
            entity("could not load JWK, likely not a valid key"),
        ),
        (
            key(json!({"jwk": EC_JWK.replace("{\"kty", "{\"colour\":1,\"kty")})),
            entity("schema violation (colour: unknown field)"),
        ),
        (
            key(json!({"jwk": r#"{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}"#})),
            json!({}),
        ),
        (
            key(
                json!({"jwk": r#"{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#}),
            ),
            json!({}),
        ),
    ] {
        check(Kind::Key, input, expected);
    }
    check(Kind::KeySet, json!({}), json!({"name": null}));
    check(Kind::KeySet, json!({"name": "a b"}), json!({"name": "a b"}));
}

#[test]
fn both_halves_of_a_pair_are_keys_and_belong_together() {
    for (input, expected) in [
        (
            key(json!({"pem": {"private_key": pem("rsa.key"), "public_key": pem("rsa.pub")}})),
            json!({}),
        ),
        (
            key(json!({"pem": {"public_key": pem("p256.pub")}})),
            json!({}),
        ),
        (
            key(json!({"pem": {}})),
            json!({"pem": {"@entity": ["at least one of these fields must be non-empty: 'private_key', 'public_key'"]}}),
        ),
        (
            key(json!({"pem": {"public_key": "x"}})),
            json!({"pem": "could not load public key"}),
        ),
        (
            key(json!({"pem": {"private_key": "x"}})),
            json!({"pem": "could not load private key"}),
        ),
        (
            key(json!({"pem": {"private_key": pem("p256.key"), "public_key": pem("rsa.pub")}})),
            json!({"pem": "public key does not match private key"}),
        ),
        (
            key(json!({"pem": {"private_key": "{vault://env/key}"}})),
            json!({}),
        ),
    ] {
        check(Kind::Key, input, expected);
    }
}
