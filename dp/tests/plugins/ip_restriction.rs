//! `ip-restriction`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::json;

#[tokio::test]
async fn ip_restriction_knows_who_may_send_requests() {
    let denied = "IP address not allowed: 127.0.0.1";
    let rows = [
        (json!({ "allow": ["127.0.0.1"] }), Ok(())),
        (json!({ "allow": ["10.0.0.0/8", "127.0.0.0/8"] }), Ok(())),
        (
            json!({ "allow": ["10.0.0.0/8", "::1"] }),
            Err((403, denied)),
        ),
        (json!({ "deny": ["10.0.0.0/8"] }), Ok(())),
        (json!({ "deny": ["127.0.0.0/8"] }), Err((403, denied))),
        (
            json!({ "allow": ["127.0.0.1"], "deny": ["127.0.0.1"] }),
            Err((403, denied)),
        ),
        (
            json!({ "deny": ["0.0.0.0/0"], "status": 418, "message": "no" }),
            Err((418, "no")),
        ),
    ];
    let (_origin, gateway) = gateway_with(&[]).await;
    for (config, expected) in rows {
        gateway.apply(&[global(10, "ip-restriction", config.clone())]);
        let reply = gateway.get("/").await;
        match expected {
            Ok(()) => assert_eq!(reply.status, 200, "{config}"),
            Err((status, message)) => is_refused(&reply, status, message),
        }
    }
    let rejected =
        gateway.try_apply(&[global(11, "ip-restriction", json!({ "deny": ["nowhere"] }))]);
    assert!(
        rejected[0].contains("`nowhere` is not an address"),
        "{rejected:?}"
    );
}

#[tokio::test]
async fn ip_restriction_is_consistent() {
    is_consistent(
        |n| {
            let config =
                json!({ "deny": ["127.0.0.1"], "message": format!("v{n}"), "status": 400 + n });
            vec![global(10, "ip-restriction", config)]
        },
        async |client: &mut Client| client.get("/").await,
        refused_as,
    )
    .await;
}
