//! `redirect`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::json;

#[tokio::test]
async fn redirect_sends_clients_elsewhere() {
    let rows = [
        (
            json!({ "location": "https://b.test/x?y=z" }),
            301,
            "https://b.test/x?y=z",
        ),
        (
            json!({ "location": "https://b.test:8443/x", "keep_incoming_path": true }),
            301,
            "https://b.test:8443/a%20b?c=d",
        ),
        (
            json!({ "location": "/there", "status_code": 307 }),
            307,
            "/there",
        ),
    ];
    let (_origin, gateway) = gateway_with(&[]).await;
    for (mut config, status, location) in rows {
        if config["status_code"].is_null() {
            config["status_code"] = json!(301);
        }
        gateway.apply(&[global(10, "redirect", config)]);
        let reply = gateway.get("/a%20b?c=d").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("location")),
            (status, Some(location))
        );
        assert_eq!(&reply.body[..], b"redirecting");
    }
}

#[tokio::test]
async fn redirect_is_consistent() {
    is_consistent(
        |n| {
            let config = json!({ "location": format!("/v{n}"), "status_code": 300 + n });
            vec![global(10, "redirect", config)]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let location = numbers(&[sent(reply, "location")], "/v")[0];
            vec![location, u64::from(reply.status.as_u16()) - 300]
        },
    )
    .await;
}
