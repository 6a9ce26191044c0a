//! Consumer groups and their members.

use crate::server::Server;
use serde_json::{Value, json};

async fn with_group() -> (Server, Value, Value) {
    let server = Server::start().await;
    let group = server
        .create("/consumer_groups", json!({"name": "gold"}))
        .await;
    let ann = server
        .create("/consumers", json!({"username": "ann"}))
        .await;
    server
        .create("/consumers", json!({"username": "bob"}))
        .await;
    (server, group, ann)
}

#[tokio::test]
async fn members_are_added_listed_and_taken_out_from_both_ends() {
    let (server, group, ann) = with_group().await;
    let joined = server
        .create(
            "/consumer_groups/gold/consumers",
            json!({"consumer": "ann"}),
        )
        .await;
    assert_eq!(joined, json!({"consumer_group": group, "consumers": [ann]}));
    let joined = server
        .create("/consumers/bob/consumer_groups", json!({"group": ["gold"]}))
        .await;
    assert_eq!(joined["consumer_groups"], json!([group]));
    assert_eq!(joined["consumer"]["username"], "bob");

    let (_, members) = server
        .check("GET", "/consumer_groups/gold/consumers", Value::Null)
        .await;
    assert_eq!(members["data"].as_array().unwrap().len(), 2);
    assert_eq!(members["consumers"], members["data"]);
    assert_eq!(members["next"], Value::Null);
    let (_, groups) = server
        .check("GET", "/consumers/ann/consumer_groups", Value::Null)
        .await;
    assert_eq!(groups["consumer_groups"], json!([group]));
    assert_eq!(
        server
            .check("GET", "/consumer_groups/gold/consumers/ann", Value::Null)
            .await,
        (200, json!({"consumer": ann}))
    );
    assert_eq!(
        server
            .check("GET", "/consumers/ann/consumer_groups/gold", Value::Null)
            .await,
        (200, json!({"consumer_group": group}))
    );
    let (_, whole) = server
        .check("GET", "/consumer_groups/gold", Value::Null)
        .await;
    assert_eq!(whole["consumer_group"], group);
    assert_eq!(whole["consumers"].as_array().unwrap().len(), 2);
    assert_eq!(whole["plugins"], json!([]));

    let path = "/consumer_groups/gold/consumers/ann";
    assert_eq!(server.check("DELETE", path, Value::Null).await.0, 204);
    assert_eq!(server.check("GET", path, Value::Null).await.0, 404);
    let path = "/consumers/bob/consumer_groups";
    assert_eq!(server.check("DELETE", path, Value::Null).await.0, 204);
    let (_, members) = server
        .check("GET", "/consumer_groups/gold/consumers", Value::Null)
        .await;
    assert_eq!(members["data"], json!([]));
}

#[tokio::test]
async fn several_members_join_in_one_event_page_by_page() {
    let (server, _, _) = with_group().await;
    let before = server.version();
    server
        .create(
            "/consumer_groups/gold/consumers",
            json!({"consumer": ["ann", "bob"]}),
        )
        .await;
    assert_eq!(server.version(), before + 1, "one event");
    let mut seen = Vec::new();
    let mut path = "/consumer_groups/gold/consumers?size=1".to_owned();
    for _ in 0..2 {
        let (_, page) = server.check("GET", &path, Value::Null).await;
        seen.push(page["data"][0]["username"].as_str().unwrap().to_owned());
        path = page["next"].as_str().unwrap_or_default().to_owned();
    }
    seen.sort();
    assert_eq!(
        (seen, path),
        (vec!["ann".to_owned(), "bob".to_owned()], String::new())
    );
}

#[tokio::test]
async fn what_cannot_be_joined_is_told() {
    let (server, group, _) = with_group().await;
    let id = group["id"].as_str().unwrap();
    let path = "/consumer_groups/gold/consumers";
    server.create(path, json!({"consumer": "ann"})).await;
    for (method, path, input, status, message) in [
        (
            "POST",
            path,
            json!({}),
            400,
            "must provide consumer".to_owned(),
        ),
        (
            "POST",
            path,
            json!({"consumer": "nobody"}),
            404,
            "Consumer 'nobody' not found".to_owned(),
        ),
        (
            "POST",
            path,
            json!({"consumer": ["bob", "ann"]}),
            409,
            format!("Consumer 'ann' already in group '{id}'"),
        ),
        (
            "POST",
            "/consumer_groups/none/consumers",
            json!({"consumer": "ann"}),
            404,
            "Group 'none' not found".to_owned(),
        ),
        (
            "POST",
            "/consumers/ann/consumer_groups",
            json!({}),
            400,
            "must provide group".to_owned(),
        ),
        (
            "POST",
            "/consumers/ann/consumer_groups",
            json!({"group": "gold"}),
            409,
            "Consumer 'ann' already in group 'gold'".to_owned(),
        ),
        ("PUT", path, json!({}), 405, "Method not allowed".to_owned()),
        (
            "GET",
            "/consumer_groups/gold/consumer_group_consumers",
            Value::Null,
            404,
            "Not found".to_owned(),
        ),
    ] {
        assert_eq!(
            server.check(method, path, input).await,
            (status, json!({ "message": message })),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_repeated_joining_answers_as_the_first() {
    let (server, _, _) = with_group().await;
    let path = "/consumer_groups/gold/consumers";
    let key = [("idempotency-key", "once")];
    let join = json!({"consumer": "ann"});
    let first = server.send("POST", path, &key, join.clone()).await;
    let again = server.send("POST", path, &key, join).await;
    assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
    assert_eq!(first.json(), again.json());
    let (status, _) = server
        .check(
            "POST",
            "/consumer_groups/gold/consumers?dry_run=1",
            json!({"consumer": "bob"}),
        )
        .await;
    assert_eq!(status, 200);
    let (_, members) = server.check("GET", path, Value::Null).await;
    assert_eq!(members["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_plugin_of_a_group_is_reached_through_it() {
    let (server, group, _) = with_group().await;
    let plugin = json!({"name": "rate-limiting", "config": {"minute": 5}});
    let plugin = server.create("/consumer_groups/gold/plugins", plugin).await;
    assert_eq!(plugin["consumer_group"], json!({"id": group["id"]}));
    let (_, whole) = server
        .check("GET", "/consumer_groups/gold", Value::Null)
        .await;
    assert_eq!(whole["plugins"], json!([plugin]));
    let again = json!({"name": "rate-limiting", "config": {"minute": 6}});
    let (status, _) = server
        .check("POST", "/consumer_groups/gold/plugins", again)
        .await;
    assert_eq!(status, 409);
    let (status, _) = server
        .check("PATCH", "/consumer_groups/gold", json!({"tags": ["x"]}))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        server
            .check("DELETE", "/consumer_groups/gold", Value::Null)
            .await
            .0,
        204
    );
    let (_, plugins) = server.check("GET", "/plugins", Value::Null).await;
    assert_eq!(plugins["data"], json!([]));
}
