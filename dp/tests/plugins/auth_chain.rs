//! Several authentication plugins on one request: with `anonymous` either is enough, without it each must agree.

use crate::common::*;
use crate::support::*;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use sha1_smol::Sha1;

/// [`NOW`]
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

/// A way to be somebody: the plugin, its header, what shows that one is its consumer, and what does not.
struct Way {
    plugin: &'static str,
    header: &'static str,
    good: String,
    bad: String,
    /// The consumer's name.
    who: &'static str,
    /// The credential's name, as upstreams are told.
    credential: String,
}

fn sign(secret: &str, message: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, message.as_bytes())
}

fn jwt(secret: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!(
        "{}.{}",
        part("{\"alg\":\"HS256\"}"),
        part("{\"iss\":\"j\"}")
    );
    format!(
        "Bearer {message}.{}",
        URL_SAFE_NO_PAD.encode(sign(secret, &message))
    )
}

fn signature(secret: &str) -> String {
    let mac = STANDARD.encode(sign(secret, &format!("date: {DATE}")));
    format!("hmac username=\"h\", algorithm=\"hmac-sha256\", headers=\"date\", signature=\"{mac}\"")
}

/// Each in a header of its own, or one that others do not read.
fn ways() -> [Way; 5] {
    let id = |id: u128| uuid::Uuid::from_u128(id).to_string();
    let text = str::to_owned;
    let basic = |pair| format!("Basic {}", STANDARD.encode(pair));
    [
        Way {
            plugin: "key-auth",
            header: "apikey",
            good: text("k"),
            bad: text("x"),
            who: "ann",
            credential: id(31),
        },
        Way {
            plugin: "jwt",
            header: "x-jwt",
            good: jwt("s"),
            bad: jwt("x"),
            who: "ben",
            credential: text("j"),
        },
        Way {
            plugin: "hmac-auth",
            header: "proxy-authorization",
            good: signature("s"),
            bad: signature("x"),
            who: "cem",
            credential: text("h"),
        },
        Way {
            plugin: "basic-auth",
            header: "authorization",
            good: basic("b:p"),
            bad: basic("b:x"),
            who: "dan",
            credential: text("b"),
        },
        Way {
            plugin: "oauth2",
            header: "x-oauth",
            good: text("Bearer t"),
            bad: text("Bearer x"),
            who: "eve",
            credential: text("o"),
        },
    ]
}

fn plugins(of: &[&Way], anonymous: bool) -> Vec<Entity> {
    let configs = of.iter().zip(50..).map(|(way, id)| {
        let mut config = match way.plugin {
            "jwt" => json!({ "header_names": ["x-jwt"] }),
            "oauth2" => json!({
                "auth_header_name": "x-oauth", "global_credentials": true, "provision_key": "p", "enable_client_credentials": true,
            }),
            "basic-auth" => json!({ "hide_credentials": false, "realm": "service" }),
            _ => json!({}),
        };
        if anonymous {
            config["anonymous"] = "guest".into();
        }
        global(id, way.plugin, config)
    });
    configs.collect()
}

fn base() -> Vec<Entity> {
    let names = ["guest", "ann", "ben", "cem", "dan", "eve"];
    let consumers = (20..).zip(names).map(|(id, name)| {
        consumer(
            id,
            json!({ "username": name, "custom_id": format!("c-{name}") }),
        )
    });
    let password = Sha1::from(format!("p{}", uuid::Uuid::from_u128(24)))
        .digest()
        .to_string();
    let credentials = [
        key_credential(31, 21, json!({ "key": "k" })),
        entity(
            "jwt_secret",
            32,
            json!({ "consumer": reference(22), "key": "j", "secret": "s", "algorithm": "HS256" }),
        ),
        entity(
            "hmacauth_credential",
            33,
            json!({ "consumer": reference(23), "username": "h", "secret": "s" }),
        ),
        entity(
            "basicauth_credential",
            34,
            json!({ "consumer": reference(24), "username": "b", "password": password }),
        ),
        entity(
            "oauth2_credential",
            35,
            json!({
                "consumer": reference(25), "name": "o", "client_id": "o", "client_secret": "s", "hash_secret": false, "client_type": "confidential",
            }),
        ),
        entity(
            "oauth2_token",
            36,
            json!({ "credential": reference(35), "access_token": "t", "expires_in": 0, "created_at": 1 }),
        ),
    ];
    consumers.chain(credentials).collect()
}

/// What upstreams are told of who the client is.
fn told(reply: &Reply) -> [Option<String>; 4] {
    [
        "x-consumer-username",
        "x-consumer-custom-id",
        "x-credential-identifier",
        "x-anonymous-consumer",
    ]
    .map(|name| reply.received(name))
}

/// What a client sends: nothing, what is bad or what is good, for each of two.
const SHOWN: [Option<bool>; 3] = [None, Some(false), Some(true)];

#[tokio::test]
async fn with_anonymous_either_of_two_is_enough_in_every_pair() {
    let ways = ways();
    let (_origin, gateway) = gateway_with(&base()).await;
    let priorities = [1250, 1450, 1030, 1100, 1400];
    for (first, one) in ways.iter().enumerate() {
        for (second, two) in ways
            .iter()
            .enumerate()
            .filter(|(second, _)| *second != first)
        {
            let pair = [one, two];
            gateway.apply(&plugins(&pair, true));
            for shown in SHOWN.iter().flat_map(|one| SHOWN.map(|two| [*one, two])) {
                let sent = pair.iter().zip(shown).filter_map(|(way, shown)| {
                    Some((way.header, if shown? { &*way.good } else { &*way.bad }))
                });
                let forged = [
                    ("x-consumer-username", "forged"),
                    ("x-credential-identifier", "forged"),
                    ("x-anonymous-consumer", "false"),
                ];
                let headers: Vec<_> = sent.chain([("date", DATE)]).chain(forged).collect();
                let reply = ask(&gateway, "GET", "/", &headers).await;
                let good: Vec<_> = [first, second]
                    .into_iter()
                    .zip(shown)
                    .filter(|(_, shown)| *shown == Some(true))
                    .collect();
                // Who comes first by priority is who it is.
                let known = good
                    .into_iter()
                    .map(|(index, _)| index)
                    .max_by_key(|index| priorities[*index]);
                let expected = match known.map(|index| &ways[index]) {
                    Some(way) => [
                        Some(way.who.to_owned()),
                        Some(format!("c-{}", way.who)),
                        Some(way.credential.clone()),
                        None,
                    ],
                    None => [
                        Some("guest".into()),
                        Some("c-guest".into()),
                        None,
                        Some("true".into()),
                    ],
                };
                assert_eq!(
                    (reply.status.as_u16(), told(&reply)),
                    (200, expected),
                    "{} {} {shown:?}",
                    one.plugin,
                    two.plugin
                );
            }
        }
    }
}

#[tokio::test]
async fn without_anonymous_both_must_agree_and_the_last_counts() {
    let ways = ways();
    let (_origin, gateway) = gateway_with(&base()).await;
    let priorities = [1250, 1450, 1030, 1100, 1400];
    for (first, one) in ways.iter().enumerate() {
        for (second, two) in ways.iter().enumerate().skip(first + 1) {
            let pair = [one, two];
            gateway.apply(&plugins(&pair, false));
            for shown in SHOWN.iter().flat_map(|one| SHOWN.map(|two| [*one, two])) {
                let sent = pair.iter().zip(shown).filter_map(|(way, shown)| {
                    Some((way.header, if shown? { &*way.good } else { &*way.bad }))
                });
                let headers: Vec<_> = sent.chain([("date", DATE)]).collect();
                let reply = ask(&gateway, "GET", "/", &headers).await;
                if shown == [Some(true); 2] {
                    let last = [first, second]
                        .into_iter()
                        .min_by_key(|index| priorities[*index])
                        .unwrap();
                    let way = &ways[last];
                    let expected = [
                        Some(way.who.to_owned()),
                        Some(format!("c-{}", way.who)),
                        Some(way.credential.clone()),
                        None,
                    ];
                    assert_eq!(told(&reply), expected, "{} {}", one.plugin, two.plugin);
                } else {
                    assert_eq!(reply.status, 401, "{} {} {shown:?}", one.plugin, two.plugin);
                    assert!(reply.header("www-authenticate").is_some());
                }
            }
        }
    }
}
