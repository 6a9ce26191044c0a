//! `acl`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use serde_json::{Value, json};

fn acl(config: Value) -> Entity {
    let mut all = json!({ "hide_groups_header": false, "always_use_authenticated_groups": false });
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    global(30, "acl", all)
}

fn member(id: u128, consumer: u128, group: &str) -> Entity {
    entity(
        "acl",
        id,
        json!({ "consumer": reference(consumer), "group": group }),
    )
}

/// Alice with `secret` is in `red` and `blue`, Bob with `other` in `green`, Carol with `third` in none.
fn base() -> Vec<Entity> {
    let mut all = key_auth(json!({}));
    all.extend([
        member(13, 10, "red"),
        member(14, 10, "blue"),
        consumer(20, json!({ "username": "bob" })),
        key_credential(21, 20, json!({ "key": "other" })),
        member(22, 20, "green"),
        consumer(25, json!({ "username": "carol" })),
        key_credential(26, 25, json!({ "key": "third" })),
    ]);
    all
}

#[tokio::test]
async fn acl_lets_groups_in_or_keeps_them_out() {
    let rows = [
        (json!({ "allow": ["red"] }), [Some("blue, red"), None, None]),
        (
            json!({ "allow": ["green", "blue"] }),
            [Some("blue, red"), Some("green"), None],
        ),
        (
            json!({ "deny": ["green"] }),
            [Some("blue, red"), None, Some("")],
        ),
        (json!({ "deny": ["red", "green"] }), [None, None, Some("")]),
    ];
    for (config, expected) in rows {
        let (_origin, gateway) = gateway_with(&[base(), vec![acl(config.clone())]].concat()).await;
        for (key, groups) in ["secret", "other", "third"].into_iter().zip(expected) {
            let headers = [("apikey", key), ("x-authenticated-groups", "forged")];
            let reply = ask(&gateway, "GET", "/", &headers).await;
            let Some(groups) = groups else {
                is_refused(&reply, 403, "You cannot consume this service");
                continue;
            };
            assert_eq!(
                reply.received("x-consumer-groups").as_deref(),
                Some(groups),
                "{config} {key}"
            );
            assert_eq!(reply.received("x-authenticated-groups"), None);
        }
    }
}

#[tokio::test]
async fn acl_asks_who_it_is_first() {
    let (_origin, gateway) = gateway_with(&[acl(json!({ "allow": ["red"] }))]).await;
    is_refused(&gateway.get("/").await, 401, "Unauthorized");
}

#[tokio::test]
async fn acl_can_keep_groups_to_itself() {
    let hidden = acl(json!({ "allow": ["red"], "hide_groups_header": true }));
    let (_origin, gateway) = gateway_with(&[base(), vec![hidden]].concat()).await;
    let reply = ask(&gateway, "GET", "/", &[("apikey", "secret")]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.received("x-consumer-groups")),
        (200, None)
    );
}

#[tokio::test]
async fn acl_is_consistent() {
    is_consistent(
        |n| {
            let group = format!("v{n}");
            let mut all = key_auth(json!({}));
            all.push(member(13, 10, &group));
            // The list names the group of this version only.
            all.push(acl(json!({ "allow": [group] })));
            all
        },
        async |client: &mut Client| client.get_with("/", &[("apikey", "secret")]).await,
        |reply| numbers(&[reply.received("x-consumer-groups")], "v"),
    )
    .await;
}
