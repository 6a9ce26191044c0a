//! `bot-detection`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::json;

const GOOGLE: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

#[tokio::test]
async fn bot_detection_turns_programs_away() {
    let config = json!({ "allow": ["^Good", "Googlebot/2"], "deny": ["curl", "Good Bad"] });
    let (_origin, gateway) = gateway_with(&[global(10, "bot-detection", config)]).await;
    let rows = [
        ("HTTPie/3", 200),
        ("curl/8", 403),
        ("a curl", 403),
        ("  Good Bad  ", 200),
        (GOOGLE, 200),
        ("bingbot/2.0", 403),
        ("My-Spider/1.0", 403),
    ];
    for (agent, status) in rows {
        let reply = ask(&gateway, "GET", "/", &[("user-agent", agent)]).await;
        assert_eq!(reply.status, status, "{agent}");
        if status == 403 {
            assert_eq!(reply.message(), "Forbidden");
        }
    }
    assert_eq!(ask(&gateway, "GET", "/", &[]).await.status, 200);
    let two = [("user-agent", "a"), ("user-agent", "b")];
    let reply = ask(&gateway, "GET", "/", &two).await;
    is_refused(&reply, 400, "Only one User-Agent header allowed");
}

#[tokio::test]
async fn bot_detection_is_consistent() {
    is_consistent(
        |n| {
            let config = json!({ "allow": [], "deny": [format!("^agent-{}$", n % 2)] });
            vec![global(10, "bot-detection", config), stamp(n)]
        },
        async |client: &mut Client| client.get_with("/", &[("user-agent", "agent-0")]).await,
        |reply| {
            let shown = stamped(reply);
            assert_eq!(reply.status == 403, shown[0].is_multiple_of(2), "{shown:?}");
            shown
        },
    )
    .await;
}
