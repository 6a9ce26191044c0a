//! `hmac-auth`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// [`NOW`]
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

fn entities(config: Value) -> Vec<Entity> {
    let credential = json!({ "consumer": reference(10), "username": "alice", "secret": "secret" });
    vec![
        consumer(10, json!({ "username": "a" })),
        entity("hmacauth_credential", 11, credential),
        global(12, "hmac-auth", config),
    ]
}

/// What is said of a signature over a message.
fn claim(algorithm: &str, headers: &str, message: &str) -> String {
    claim_as("alice", "secret", algorithm, headers, message)
}

fn claim_as(user: &str, secret: &str, algorithm: &str, headers: &str, message: &str) -> String {
    let hmac = match algorithm {
        "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "hmac-sha384" => hmac::HMAC_SHA384,
        "hmac-sha512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let key = hmac::Key::new(hmac, secret.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, message.as_bytes()));
    format!(
        "hmac username=\"{user}\", algorithm=\"{algorithm}\", headers=\"{headers}\", signature=\"{signature}\""
    )
}

fn dated() -> String {
    claim("hmac-sha256", "date", &format!("date: {DATE}"))
}

#[tokio::test]
async fn every_algorithm_and_every_part_of_a_request_can_be_signed() {
    let (_origin, gateway) = gateway_with(&entities(json!({}))).await;
    let date = format!("date: {DATE}");
    for (headers, message) in [
        ("date", date.clone()),
        ("Date", date.replace("date", "Date")),
        ("date request-line", format!("{date}\nGET /p?a=1 HTTP/1.1")),
        (
            "@request-target date host",
            format!("@request-target: get /p?a=1\n{date}\nhost: a.test"),
        ),
        ("date x-none x-some", format!("{date}\nx-none:\nx-some: 1")),
    ] {
        for algorithm in ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"] {
            for name in ["authorization", "proxy-authorization"] {
                let claim = claim(algorithm, headers, &message);
                let all = [("date", DATE), ("x-some", "1"), (name, &*claim)];
                let reply = ask(&gateway, "GET", "/p?a=1", &all).await;
                assert_eq!(reply.status, 200, "{name} {algorithm} {headers}: {reply:?}");
                assert_eq!(reply.received("x-consumer-username").as_deref(), Some("a"));
                assert_eq!(
                    reply.received("x-credential-identifier").as_deref(),
                    Some("alice")
                );
                assert_eq!(reply.received("proxy-authorization"), None);
                assert_eq!(
                    reply.received("authorization").is_some(),
                    name == "authorization"
                );
            }
        }
    }
}

/// What is sent, the status, and the message.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);

#[tokio::test]
async fn what_is_not_signed_as_it_must_be_is_refused() {
    const UNVERIFIED: &str = "HMAC signature cannot be verified";
    const OTHER: &str = "HMAC signature does not match";
    const NO_DATE: &str = "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication";
    let config = json!({ "realm": "here", "enforce_headers": ["date"], "algorithms": ["hmac-sha256", "hmac-sha512"], "clock_skew": 60 });
    let (_origin, gateway) = gateway_with(&entities(config)).await;
    let date = format!("date: {DATE}");
    let late = "Tue, 14 Nov 2023 22:14:21 GMT";
    let edge = "Tue, 14 Nov 2023 22:14:20 GMT";
    let unknown = claim_as("bob", "secret", "hmac-sha256", "date", &date);
    let wrong = claim_as("alice", "other", "hmac-sha256", "date", &date);
    let good = dated();
    let line = claim(
        "hmac-sha256",
        "date request-line",
        &format!("{date}\nGET /other HTTP/1.1"),
    );
    let weak = claim("hmac-sha1", "date", &date);
    let without = claim("hmac-sha256", "host", "host: a.test");
    let at_edge = claim("hmac-sha256", "date", &format!("date: {edge}"));
    let broken = good.replace("signature=\"", "signature=\"!");
    let cases: &[Case<'_>] = &[
        (&[("date", DATE)], 401, "Unauthorized"),
        (&[("authorization", &good)], 401, NO_DATE),
        (&[("date", late), ("authorization", &good)], 401, NO_DATE),
        (&[("date", "today"), ("authorization", &good)], 401, NO_DATE),
        (
            &[("date", DATE), ("authorization", "Basic x")],
            401,
            UNVERIFIED,
        ),
        (
            &[("date", DATE), ("authorization", "hmac username=\"alice\"")],
            401,
            UNVERIFIED,
        ),
        (
            &[("date", DATE), ("authorization", &unknown)],
            401,
            UNVERIFIED,
        ),
        (&[("date", DATE), ("authorization", &weak)], 401, UNVERIFIED),
        (
            &[("date", DATE), ("authorization", &without)],
            401,
            UNVERIFIED,
        ),
        (&[("date", DATE), ("authorization", &wrong)], 401, OTHER),
        (&[("date", DATE), ("authorization", &line)], 401, OTHER),
        (&[("date", DATE), ("authorization", &broken)], 401, OTHER),
        (&[("date", edge), ("authorization", &good)], 401, OTHER),
        (&[("date", edge), ("authorization", &at_edge)], 200, ""),
        (
            &[("date", DATE), ("x-date", late), ("authorization", &good)],
            200,
            "",
        ),
    ];
    for (headers, status, message) in cases {
        let reply = ask(&gateway, "GET", "/", headers).await;
        if *status == 200 {
            assert_eq!(reply.status, 200, "{headers:?}");
        } else {
            is_refused(&reply, *status, message);
            assert_eq!(
                reply.header("www-authenticate"),
                Some("hmac realm=\"here\"")
            );
        }
    }
}

#[tokio::test]
async fn bodies_have_the_digest_that_is_signed() {
    let config = json!({ "validate_request_body": true, "hide_credentials": true });
    let (_origin, gateway) = gateway_with(&entities(config)).await;
    let digest_of = |body: &str| {
        let hash = digest::digest(&digest::SHA256, body.as_bytes());
        format!("SHA-256={}", STANDARD.encode(hash))
    };
    for (digest, body, is_good) in [
        (Some(digest_of("hello")), "hello", true),
        (Some(digest_of("hello")), "hellO", false),
        (Some(digest_of("")), "", true),
        (Some(digest_of("hello")), "", false),
        (None, "", true),
        (None, "hello", false),
        (Some("hello".to_owned()), "hello", false),
    ] {
        let shown = digest.clone().map_or_else(
            || "digest:".to_owned(),
            |digest| format!("digest: {digest}"),
        );
        let claim = claim(
            "hmac-sha256",
            "date digest",
            &format!("date: {DATE}\n{shown}"),
        );
        let mut headers = vec![("date", DATE), ("authorization", &claim)];
        headers.extend(digest.as_deref().map(|digest| ("digest", digest)));
        let reply = send(&gateway, "POST", "/", &headers, full(body)).await;
        if is_good {
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["body"]),
                (200, &json!(body))
            );
            assert_eq!(reply.received("authorization"), None);
        } else {
            is_refused(&reply, 401, "HMAC signature does not match");
        }
    }
}

#[tokio::test]
async fn hmac_auth_is_consistent() {
    // The harness has the clock of the machine.
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let claims = ["even", "odd"].map(|secret| {
        claim_as(
            "alice",
            secret,
            "hmac-sha256",
            "date",
            &format!("date: {date}"),
        )
    });
    is_consistent(
        |n| {
            let secret = if n % 2 == 0 { "even" } else { "odd" };
            let credential =
                json!({ "consumer": reference(10), "username": "alice", "secret": secret });
            vec![
                consumer(10, json!({ "username": format!("v{n}") })),
                entity("hmacauth_credential", 11, credential),
                global(
                    12,
                    "hmac-auth",
                    json!({ "realm": format!("v{n}"), "clock_skew": 3600 }),
                ),
            ]
        },
        async |client: &mut Client| {
            client
                .get_with("/", &[("date", &date), ("authorization", &claims[0])])
                .await
        },
        named_or_challenged,
    )
    .await;
}
