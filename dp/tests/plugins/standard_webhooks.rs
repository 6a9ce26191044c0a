//! `standard-webhooks`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

fn sign(secret: &str, message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!(
        "v1,{}",
        STANDARD.encode(hmac::sign(&key, message.as_bytes()))
    )
}

#[tokio::test]
async fn only_fresh_signed_messages_pass() {
    let config = json!({ "secret_v1": "secret", "tolerance_second": 60 });
    let (_origin, gateway) = gateway_with(&[global(12, "standard-webhooks", config)]).await;
    let signed = |time: u64| sign("secret", &format!("id.{time}.body"));
    let now = NOW.to_string();
    let check = async |id: Option<&str>,
                       time: Option<&str>,
                       signature: Option<&str>,
                       body: &'static str,
                       status: u16| {
        let all = [
            ("webhook-id", id),
            ("webhook-timestamp", time),
            ("webhook-signature", signature),
        ];
        let headers: Vec<_> = all
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let reply = send(&gateway, "POST", "/", &headers, full(body)).await;
        if status == 200 {
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["body"]),
                (200, &json!(body))
            );
        } else {
            is_refused(&reply, status, "Bad request");
        }
    };
    let good = signed(NOW);
    check(Some("id"), Some(&now), Some(&good), "body", 200).await;
    check(
        Some("id"),
        Some(&now),
        Some(&format!("v1,AAAA v2,x {good}")),
        "body",
        200,
    )
    .await;
    check(Some("id"), Some(&now), Some(&good), "bodY", 400).await;
    check(Some("id"), Some(&now), Some(&good), "", 400).await;
    check(Some("iD"), Some(&now), Some(&good), "body", 400).await;
    check(None, Some(&now), Some(&good), "body", 400).await;
    check(Some("id"), None, Some(&good), "body", 400).await;
    check(Some("id"), Some("soon"), Some(&good), "body", 400).await;
    check(Some("id"), Some(&now), None, "body", 400).await;
    check(Some("id"), Some(&now), Some(&good[3..]), "body", 400).await;
    let other = sign("other", &format!("id.{NOW}.body"));
    check(Some("id"), Some(&now), Some(&other), "body", 400).await;
    for (age, status) in [(60, 200), (61, 400)] {
        let time = NOW - age;
        check(
            Some("id"),
            Some(&time.to_string()),
            Some(&signed(time)),
            "body",
            status,
        )
        .await;
    }
}

#[tokio::test]
async fn standard_webhooks_is_consistent() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let signature = sign("even", &format!("id.{now}.body"));
    is_consistent(
        |n| {
            let secret = if n % 2 == 0 { "even" } else { "odd" };
            vec![
                global(
                    12,
                    "standard-webhooks",
                    json!({ "secret_v1": secret, "tolerance_second": 3600 }),
                ),
                stamp(n),
            ]
        },
        async |client: &mut Client| {
            let request = http::Request::post("/")
                .header("host", "a.test")
                .header("webhook-id", "id")
                .header("webhook-timestamp", now)
                .header("webhook-signature", &signature);
            client.send(request.body(full("body")).unwrap()).await
        },
        stamped_and_passed,
    )
    .await;
}
