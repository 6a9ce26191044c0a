//! What was before is brought back, or it is said what is in the way.

use crate::history::{change, get, shop};
use crate::server::Server;
use serde_json::{Value, json};

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    server.check("POST", path, body).await
}

async fn digest(server: &Server) -> Value {
    get(server, "/log/head").await["digest"].clone()
}

#[tokio::test]
async fn a_rollback_is_one_event_after_which_everything_is_as_it_was() {
    let server = Server::start().await;
    let [_, _, three, _, _, _, seven] = shop(&server).await;
    let then = get(&server, &format!("/log/events/{three}")).await["digest"].clone();
    let (status, planned) = post(&server, "/log/rollback?dry_run=1", json!({"to": three})).await;
    assert_eq!(status, 200, "{planned}");
    assert_eq!(server.version(), seven);
    let counts = |answer: &Value| {
        ["created", "updated", "deleted"].map(|name| answer[name].as_u64().unwrap())
    };
    assert_eq!(counts(&planned), [1, 1, 2]);
    assert_eq!(planned["event"]["mutations"].as_array().unwrap().len(), 4);
    let (status, done) = post(&server, "/log/rollback", json!({"to": three})).await;
    assert_eq!((status, counts(&done)), (200, [1, 1, 2]), "{done}");
    assert_eq!(
        (&done["version"], &done["until"]),
        (&json!(seven + 1), &json!(seven))
    );
    assert_eq!(digest(&server).await, then);
    let event = get(&server, &format!("/log/events/{}", seven + 1)).await;
    assert_eq!(event["reason"], format!("roll back to version {three}"));
    // Again, it is so already; and the rollback itself can be taken back.
    let (_, again) = post(&server, "/log/rollback", json!({"to": three})).await;
    assert_eq!((counts(&again), server.version()), ([0, 0, 0], seven + 1));
    let before = get(&server, &format!("/log/events/{seven}")).await["digest"].clone();
    let (status, undone) = post(&server, "/log/undo", json!({"version": seven + 1})).await;
    assert_eq!(status, 200, "{undone}");
    assert_eq!(digest(&server).await, before);
}

#[tokio::test]
async fn a_rollback_may_be_about_some_entities_only() {
    let server = Server::start().await;
    let [one, two, three, _, _, six, _] = shop(&server).await;
    let (status, _) = post(
        &server,
        "/log/rollback",
        json!({"to": three, "only": ["service/shop"]}),
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(get(&server, "/services/shop").await["host"], "b.example");
    assert_eq!(
        get(&server, "/consumers").await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(get(&server, "/routes").await["data"], json!([]));
    // By a name that nobody has now, and by kind.
    let (status, done) = post(
        &server,
        "/log/rollback",
        json!({"to": six, "only": ["routes/cart"]}),
    )
    .await;
    assert_eq!((status, &done["created"]), (200, &json!(1)));
    assert_eq!(
        get(&server, "/routes/cart").await["paths"],
        json!(["/cart"])
    );
    let body =
        json!({"to": one, "only": ["keyauth_credential", "consumers"], "workspace": "default"});
    let (status, done) = post(&server, "/log/rollback", body).await;
    assert_eq!((status, &done["deleted"]), (200, &json!(2)));
    let elsewhere = json!({"to": two, "workspace": "elsewhere"});
    let (_, done) = post(&server, "/log/rollback", elsewhere).await;
    assert_eq!(done["updated"], 0);
    for (body, status) in [
        (json!({}), 400),
        (json!({"to": 0}), 400),
        (json!({"to": "x"}), 400),
        (json!({"to": 9999}), 404),
        (json!({"to": one, "only": ["service/nowhere"]}), 404),
        (json!({"to": one, "only": ["no kind"]}), 400),
        (json!({"to": one, "more": 1}), 400),
    ] {
        let (found, answer) = post(&server, "/log/rollback", body.clone()).await;
        assert_eq!(found, status, "{body}: {answer}");
    }
}

#[tokio::test]
async fn undoing_one_event_keeps_what_came_after_it() {
    let server = Server::start().await;
    let [_, _, three, ..] = shop(&server).await;
    let six = change(
        &server,
        ("ann", ""),
        (
            "PATCH",
            "/services/shop",
            json!({"retries": 3, "path": "/x"}),
        ),
    )
    .await;
    // Other fields of the same entity have been changed since.
    change(
        &server,
        ("bob", ""),
        ("PATCH", "/services/shop", json!({"tags": ["kept"]})),
    )
    .await;
    let headers = [("sluice-actor", "zoe"), ("sluice-reason", "path was wrong")];
    let answer = server
        .send("POST", "/log/undo", &headers, json!({"version": six}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let service = get(&server, "/services/shop").await;
    assert_eq!(
        (&service["retries"], &service["path"], &service["tags"]),
        (&json!(1), &Value::Null, &json!(["kept"]))
    );
    let event = get(&server, &format!("/log/events/{}", answer.version())).await;
    assert_eq!(
        (&event["reason"], &event["actor"]["name"]),
        (&json!("path was wrong"), &json!("zoe"))
    );
    let (_, again) = post(&server, "/log/undo", json!({"version": six})).await;
    assert_eq!(
        (&again["updated"], again["version"].as_u64()),
        (&json!(0), Some(answer.version()))
    );

    let (status, conflict) = post(&server, "/log/undo", json!({"version": three})).await;
    assert_eq!(status, 409, "{conflict}");
    let told = &conflict["conflicts"][0];
    assert_eq!(
        (&told["name"], &told["fields"]),
        (&json!("shop"), &json!(["host"]))
    );
    assert_eq!(told["by"]["actor"], "zoe");
    for (body, status) in [
        (json!({"version": 1}), 400),
        (json!({"version": 999}), 404),
        (json!({"version": 0}), 410),
    ] {
        let (found, answer) = post(&server, "/log/undo", body.clone()).await;
        assert_eq!(found, status, "{body}: {answer}");
    }
}

#[tokio::test]
async fn what_does_not_fit_what_has_come_since_is_told_entity_by_entity() {
    let server = Server::start().await;
    let service = json!({"name": "s", "host": "x"});
    let made = change(&server, ("ann", ""), ("POST", "/services", service)).await;
    let route = json!({"name": "late", "paths": ["/late"]});
    let late = change(
        &server,
        ("bob", "needed"),
        ("POST", "/services/s/routes", route),
    )
    .await;
    let (status, conflict) = post(&server, "/log/undo", json!({"version": made})).await;
    assert_eq!(status, 409, "{conflict}");
    let told = &conflict["conflicts"][0];
    assert_eq!(told["message"], "route late refers to it and would stay");
    assert_eq!(
        (&told["by"]["version"], &told["by"]["reason"]),
        (&json!(late), &json!("needed"))
    );

    let gone = change(
        &server,
        ("bob", ""),
        ("DELETE", "/routes/late", Value::Null),
    )
    .await;
    change(&server, ("bob", ""), ("DELETE", "/services/s", Value::Null)).await;
    let (status, conflict) = post(&server, "/log/undo?dry_run=1", json!({"version": gone})).await;
    assert_eq!(status, 409, "{conflict}");
    assert_eq!(
        conflict["conflicts"][0]["error"]["name"],
        "foreign key violation"
    );
    // Everything together fits.
    let (status, _) = post(&server, "/log/rollback", json!({"to": late})).await;
    assert_eq!(status, 200);
    assert_eq!(
        get(&server, "/services/s/routes/late").await["paths"],
        json!(["/late"])
    );
    // What was deleted and made anew by another is not overwritten by undoing the deletion.
    let gone = change(
        &server,
        ("bob", ""),
        ("DELETE", "/routes/late", Value::Null),
    )
    .await;
    server
        .create("/routes", json!({"name": "late", "paths": ["/other"]}))
        .await;
    let (status, conflict) = post(&server, "/log/undo", json!({"version": gone})).await;
    assert_eq!(status, 409, "{conflict}");
    assert_eq!(
        conflict["conflicts"][0]["error"]["name"],
        "unique constraint violation"
    );
}

#[tokio::test]
async fn where_a_reason_is_demanded_no_change_is_made_without_one() {
    let server = Server::start_demanding_reasons().await;
    let service = json!({"name": "s", "host": "x"});
    let begin = server.version();
    for (method, path, body) in [
        ("POST", "/services", service.clone()),
        ("PUT", "/services/s", service.clone()),
        ("POST", "/apply", json!({"_format_version": "3.0"})),
        ("POST", "/log/rollback", json!({"to": 1})),
    ] {
        let (status, answer) = server.check(method, path, body).await;
        assert_eq!(
            (status, &answer["name"]),
            (400, &json!("schema violation")),
            "{path}"
        );
        let told = answer["fields"]["reason"].as_str().unwrap();
        assert!(told.contains("Sluice-Reason"), "{told}");
    }
    assert_eq!(server.version(), begin);
    let (status, _) = server
        .check("POST", "/services?dry_run=1", service.clone())
        .await;
    assert_eq!(status, 200);
    change(&server, ("ann", "because"), ("POST", "/services", service)).await;
    assert_eq!(get(&server, "/services/s").await["host"], "x");
}
