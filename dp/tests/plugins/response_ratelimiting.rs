//! `response-ratelimiting`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A gateway at an origin whose answers use what the request's `x-use` says.
pub(crate) async fn gateway(entities: &[Entity]) -> (Origin, Gateway) {
    let origin = Origin::serve(|request| {
        Box::pin(async move {
            let told = request.headers().get("x-ratelimit-remaining-videos");
            let told = told.map(|told| told.to_str().unwrap().to_owned());
            let mut response = Response::builder().header("content-type", "text/plain");
            for used in request.headers().get_all("x-use") {
                response = response.header("x-kong-limit", used);
            }
            let body = full(told.unwrap_or_default()).map_err(|never| match never {});
            response.body(body.boxed_unsync()).unwrap()
        })
    })
    .await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options(), &[&base, entities].concat());
    (origin, gateway)
}

fn limits(config: Value) -> Entity {
    global(10, "response-ratelimiting", config)
}

#[tokio::test]
async fn answers_use_what_they_say_up_to_the_limit() {
    let config =
        json!({ "limits": { "videos": { "minute": 5, "hour": 100 }, "images": { "minute": 1 } } });
    let (_origin, gateway) = gateway(&[limits(config)]).await;
    let mut client = gateway.client().await;
    // What is used; what is told the upstream before; what remains.
    let cases = [
        ("", 200, "5", "5", "100", "1"),
        ("videos=2", 200, "5", "3", "98", "1"),
        (
            "videos = 1 , images=1, other=7, broken",
            200,
            "3",
            "2",
            "97",
            "0",
        ),
        ("images=1", 429, "", "2", "97", "0"),
        // The last unit lets more than itself through, as in Kong.
        ("videos=9", 200, "2", "0", "88", "0"),
        ("videos=1", 429, "", "0", "87", "0"),
        ("", 200, "0", "0", "88", "0"),
    ];
    for (used, status, told, videos, hour, images) in cases {
        let reply = client.get_with("/", &[("x-use", used)]).await;
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        assert_eq!((reply.status.as_u16(), &*body), (status, told), "{used}");
        let remaining = |name: &str| {
            let name = format!("x-ratelimit-remaining-{name}");
            reply.header(&name).map(str::to_owned).unwrap()
        };
        let all = (
            remaining("videos-minute"),
            remaining("videos-hour"),
            remaining("images-minute"),
        );
        assert_eq!(
            (&*all.0, &*all.1, &*all.2),
            (videos, hour, images),
            "{used}"
        );
        assert_eq!(reply.header("x-ratelimit-limit-videos-minute"), Some("5"));
        assert_eq!(reply.header("x-kong-limit"), None);
        assert_eq!(reply.header("content-type").is_some(), status == 200);
    }
}

#[tokio::test]
async fn response_ratelimiting_answers_as_configured() {
    let config = json!({
        "limits": { "videos": { "minute": 1 } }, "hide_client_headers": true, "header_name": "x-kong-limit",
        "block_on_first_violation": true, "limit_by": "ip",
    });
    let (_origin, gateway) = gateway(&[limits(config)]).await;
    let mut client = gateway.client().await;
    let reply = client.get_with("/", &[("x-use", "videos=1")]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-ratelimit-limit-videos-minute"), None);
    let reply = client.get_with("/", &[("x-use", "")]).await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (429, "Too many requests")
    );
}

#[tokio::test]
async fn each_consumer_has_its_own_use_which_survives_changes() {
    let mut entities = key_auth(json!({}));
    entities.push(consumer(20, json!({ "username": "bob" })));
    entities.push(key_credential(21, 20, json!({ "key": "other" })));
    entities.push(global(
        30,
        "response-ratelimiting",
        json!({ "limits": { "videos": { "minute": 5 } } }),
    ));
    let (origin, gateway) = gateway(&entities).await;
    let mut client = gateway.client().await;
    let mut remaining = async |key: &str| {
        let reply = client
            .get_with("/", &[("apikey", key), ("x-use", "videos=1")])
            .await;
        reply
            .header("x-ratelimit-remaining-videos-minute")
            .unwrap()
            .to_owned()
    };
    assert_eq!(remaining("secret").await, "4");
    assert_eq!(remaining("other").await, "4");
    gateway.apply(&[
        service(50, origin.address, json!({})),
        global(
            30,
            "response-ratelimiting",
            json!({ "limits": { "videos": { "minute": 7 } } }),
        ),
    ]);
    assert_eq!(remaining("secret").await, "5");
}

#[tokio::test]
async fn response_ratelimiting_is_consistent() {
    is_consistent(
        |n| {
            let limit = json!({ "hour": 1_000_000 + n, "day": 1_000_000 + n });
            vec![limits(json!({ "limits": { "videos": limit } }))]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let names = [
                "x-ratelimit-limit-videos-hour",
                "x-ratelimit-limit-videos-day",
            ];
            let mut texts = names.map(|name| sent(reply, name)).to_vec();
            texts.push(reply.received("x-ratelimit-remaining-videos"));
            let limits = numbers(&texts, "");
            limits
                .into_iter()
                .map(|limit| limit.wrapping_sub(1_000_000))
                .collect()
        },
    )
    .await;
}
