//! Create, read, change and delete, for every kind, at the top and below a parent.

use crate::server::Server;
use serde_json::{Value, json};
use uuid::Uuid;

/// One kind's way through its life.
struct Life {
    collection: &'static str,
    create: Value,
    /// The name that may stand for the id in paths.
    name: &'static str,
    patch: Value,
}

fn lives() -> Vec<Life> {
    let life = |collection, create, name, patch| Life {
        collection,
        create,
        name,
        patch,
    };
    vec![
        life(
            "/services",
            json!({"name": "s", "host": "a.example"}),
            "s",
            json!({"retries": 1}),
        ),
        life(
            "/services/base/routes",
            json!({"name": "r", "paths": ["/r"]}),
            "r",
            json!({"strip_path": false}),
        ),
        life(
            "/routes",
            json!({"name": "r", "paths": ["/r"]}),
            "r",
            json!({"hosts": ["a.example"]}),
        ),
        life(
            "/upstreams",
            json!({"name": "u.example"}),
            "u.example",
            json!({"slots": 100}),
        ),
        life(
            "/upstreams/base/targets",
            json!({"target": "10.0.0.1:80"}),
            "10.0.0.1:80",
            json!({"weight": 0}),
        ),
        life(
            "/consumers",
            json!({"username": "ann"}),
            "ann",
            json!({"custom_id": "1"}),
        ),
        life(
            "/consumers/base/key-auth",
            json!({"key": "k"}),
            "k",
            json!({"tags": ["x"]}),
        ),
        life(
            "/plugins",
            json!({"name": "key-auth", "instance_name": "p"}),
            "p",
            json!({"enabled": false}),
        ),
        life(
            "/services/base/plugins",
            json!({"name": "key-auth", "instance_name": "p"}),
            "p",
            json!({"enabled": false}),
        ),
        life(
            "/consumers/base/plugins",
            json!({"name": "rate-limiting", "instance_name": "p", "config": {"minute": 5}}),
            "p",
            json!({"config": {"minute": 6}}),
        ),
    ]
}

async fn with_parents() -> Server {
    let server = Server::start().await;
    server
        .create("/services", json!({"name": "base", "host": "base.example"}))
        .await;
    server.create("/upstreams", json!({"name": "base"})).await;
    server
        .create("/consumers", json!({"username": "base"}))
        .await;
    server
}

#[tokio::test]
async fn every_kind_can_be_created_read_changed_and_deleted() {
    for life in lives() {
        let server = with_parents().await;
        let Life {
            collection,
            create,
            name,
            patch,
        } = life;
        let created = server.create(collection, create.clone()).await;
        for (field, value) in create.as_object().unwrap() {
            if !value.is_object() {
                assert_eq!(&created[field], value, "{collection}");
            }
        }
        let id = created["id"].as_str().unwrap();
        let (by_id, by_name) = (
            format!("{collection}/{id}"),
            format!("{collection}/{name}/"),
        );
        assert_eq!(
            server.check("GET", &by_id, Value::Null).await,
            (200, created.clone())
        );
        assert_eq!(
            server.check("GET", &by_name, Value::Null).await,
            (200, created.clone())
        );
        let (_, list) = server.check("GET", collection, Value::Null).await;
        assert!(
            list["data"].as_array().unwrap().contains(&created),
            "{collection}: {list}"
        );

        let (status, patched) = server.check("PATCH", &by_name, patch.clone()).await;
        assert_eq!(status, 200, "{collection}: {patched}");
        let field = patch.as_object().unwrap().keys().next().unwrap();
        if !patch[field].is_object() {
            assert_eq!(patched[field], patch[field], "{collection}");
        }
        let (status, replaced) = server.check("PUT", &by_id, create.clone()).await;
        assert_eq!(status, 200, "{collection}: {replaced}");
        assert_eq!(replaced["id"], created["id"]);
        // Kong's targets know no PUT of their own: it is a PATCH there.
        if !collection.ends_with("targets") {
            assert_eq!(replaced[field], created[field], "{collection}");
        }

        let head = server.send("HEAD", &by_id, &[], Value::Null).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""));
        let (gone, missing) = ((204, Value::Null), (404, json!({"message": "Not found"})));
        assert_eq!(server.check("DELETE", &by_name, Value::Null).await, gone);
        // Kong minds that it was gone already only where the path leads through a parent.
        let again = match collection.matches('/').count() {
            1 => &gone,
            _ => &missing,
        };
        assert_eq!(&server.check("DELETE", &by_name, Value::Null).await, again);
        assert_eq!(server.check("GET", &by_id, Value::Null).await, missing);
        assert_eq!(server.check("PATCH", &by_id, patch).await, missing);
    }
}

#[tokio::test]
async fn a_put_by_name_or_by_id_creates_what_is_not_there() {
    let server = Server::start().await;
    let (status, by_name) = server
        .check("PUT", "/services/s", json!({"host": "a.example"}))
        .await;
    assert_eq!((status, &by_name["name"]), (200, &json!("s")));
    let id = Uuid::new_v4();
    let path = format!("/default/services/{id}");
    let (status, by_id) = server
        .check("PUT", &path, json!({"host": "a.example"}))
        .await;
    assert_eq!((status, &by_id["id"]), (200, &json!(id.to_string())));
    let (_, again) = server
        .check("PUT", "/services/s", json!({"host": "b.example"}))
        .await;
    assert_eq!(
        (&again["id"], &again["created_at"]),
        (&by_name["id"], &by_name["created_at"])
    );
}

#[tokio::test]
async fn an_explicit_null_clears_and_records_merge() {
    let server = Server::start().await;
    let service = json!({"name": "s", "host": "a.example", "path": "/x", "retries": 9});
    server.create("/services", service).await;
    let change = json!({"path": null, "retries": null});
    let (_, service) = server.check("PATCH", "/services/s", change).await;
    assert_eq!(
        (&service["path"], &service["retries"]),
        (&Value::Null, &json!(5))
    );

    let config = json!({"minute": 5, "hour": 50});
    let plugin = json!({"name": "rate-limiting", "instance_name": "p", "config": config});
    server.create("/plugins", plugin).await;
    let change = json!({"config": {"hour": null, "day": 500}});
    let (_, plugin) = server.check("PATCH", "/plugins/p", change).await;
    let config = &plugin["config"];
    assert_eq!(
        (&config["minute"], &config["hour"], &config["day"]),
        (&json!(5), &Value::Null, &json!(500))
    );
}

#[tokio::test]
async fn a_nested_path_reaches_only_the_parents_own() {
    let server = with_parents().await;
    server
        .create(
            "/services",
            json!({"name": "other", "host": "other.example"}),
        )
        .await;
    server
        .create(
            "/services/other/routes",
            json!({"name": "r", "paths": ["/"]}),
        )
        .await;
    let missing = (404, json!({"message": "Not found"}));
    for (method, path) in [
        ("GET", "/services/base/routes/r"),
        ("PATCH", "/services/base/routes/r"),
        ("GET", "/services/nobody/routes"),
        ("POST", "/services/nobody/routes"),
        ("DELETE", "/services/nobody/routes/r"),
        ("DELETE", "/services/base/routes/r"),
        ("GET", "/targets"),
        ("GET", "/services/base/client_certificate"),
    ] {
        assert_eq!(
            server.check(method, path, Value::Null).await,
            missing,
            "{method} {path}"
        );
    }
    assert_eq!(server.check("GET", "/routes/r", Value::Null).await.0, 200);
}

#[tokio::test]
async fn the_entity_that_a_field_refers_to_can_be_read_and_changed() {
    let server = with_parents().await;
    server
        .create(
            "/services/base/routes",
            json!({"name": "r", "paths": ["/"]}),
        )
        .await;
    server
        .create("/routes", json!({"name": "alone", "paths": ["/"]}))
        .await;
    let (status, service) = server.check("GET", "/routes/r/service", Value::Null).await;
    assert_eq!((status, &service["name"]), (200, &json!("base")));
    let (status, _) = server
        .check("PATCH", "/routes/r/service", json!({"retries": 2}))
        .await;
    assert_eq!(status, 200);
    let (_, service) = server.check("GET", "/services/base", Value::Null).await;
    assert_eq!(service["retries"], 2);
    assert_eq!(
        server
            .check("GET", "/routes/alone/service", Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(
        server
            .check("DELETE", "/routes/r/service", Value::Null)
            .await
            .0,
        405
    );
}

#[tokio::test]
async fn a_deletion_takes_what_hangs_on_it_along_or_is_refused() {
    let server = with_parents().await;
    server
        .create(
            "/services/base/routes",
            json!({"name": "r", "paths": ["/"]}),
        )
        .await;
    let (status, body) = server.check("DELETE", "/services/base", Value::Null).await;
    assert_eq!(status, 400);
    assert_eq!(
        (&body["code"], &body["fields"]),
        (&json!(4), &json!({"@referenced_by": "routes"}))
    );

    server
        .create("/consumers/base/key-auth", json!({"key": "k"}))
        .await;
    server
        .create(
            "/consumers/base/plugins",
            json!({"name": "rate-limiting", "config": {"minute": 1}}),
        )
        .await;
    let before = server.version();
    assert_eq!(
        server
            .check("DELETE", "/consumers/base", Value::Null)
            .await
            .0,
        204
    );
    assert_eq!(server.version(), before + 1, "one event");
    for path in ["/key-auths", "/plugins"] {
        let (_, list) = server.check("GET", path, Value::Null).await;
        assert_eq!(list["data"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn forms_are_typed_by_the_schema() {
    let server = Server::start().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let service = "name=s&host=a.example&retries=3&enabled=false&tags[]=x&tags[]=y";
    let answer = server.send_text("POST", "/services", &form, service).await;
    let created = answer.json();
    assert_eq!(answer.status, 201, "{created}");
    assert_eq!(
        (&created["retries"], &created["enabled"], &created["tags"]),
        (&json!(3), &json!(false), &json!(["x", "y"]))
    );
    let plugin = "name=rate-limiting&instance_name=p&config.minute=5";
    let answer = server
        .send_text("POST", "/services/s/plugins", &form, plugin)
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    // A patch need not name the plugin for its configuration to be understood.
    let answer = server
        .send_text("PATCH", "/plugins/p", &form, "config[minute]=7")
        .await;
    assert_eq!(answer.json()["config"]["minute"], 7);
    let many = vec!["tags[]=x"; 1001].join("&");
    let answer = server.send_text("POST", "/services", &form, &many).await;
    assert_eq!(
        (answer.status, answer.json()),
        (400, json!({"message": "Too many arguments"}))
    );
}

#[tokio::test]
async fn versions_and_etags_tell_what_an_answer_speaks_of() {
    let server = Server::start().await;
    let start = server.version();
    let service = json!({"name": "s", "host": "a.example"});
    let created = server.send("POST", "/services", &[], service).await;
    assert_eq!(created.version(), start + 1);
    let etag = created.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", start + 1));
    server
        .create("/consumers", json!({"username": "ann"}))
        .await;
    let read = server.send("GET", "/services/s", &[], Value::Null).await;
    assert_eq!(
        (read.version(), read.header("etag")),
        (start + 2, Some(etag.as_str()))
    );

    let matched = [("if-match", etag.as_str())];
    let changed = server
        .send("PATCH", "/services/s", &matched, json!({"retries": 1}))
        .await;
    assert_eq!((changed.status, changed.version()), (200, start + 3));
    for (method, path) in [
        ("PATCH", "/services/s"),
        ("DELETE", "/services/s"),
        ("PUT", "/services/new"),
    ] {
        let refused = server
            .send(method, path, &matched, json!({"host": "b.example"}))
            .await;
        assert_eq!(refused.status, 412, "{method} {path}: {}", refused.text);
    }
    let present = [("if-match", "*")];
    let refused = server
        .send(
            "PUT",
            "/services/new",
            &present,
            json!({"host": "b.example"}),
        )
        .await;
    assert_eq!(refused.status, 412);
    let deleted = server
        .send("DELETE", "/services/s", &present, Value::Null)
        .await;
    assert_eq!((deleted.status, deleted.version()), (204, start + 4));
    let odd = server
        .send(
            "DELETE",
            "/services/s",
            &[("if-match", "\"abc\"")],
            Value::Null,
        )
        .await;
    assert_eq!(odd.status, 412);
}

#[tokio::test]
async fn a_repeated_request_is_carried_out_once() {
    let server = Server::start().await;
    let key = [("idempotency-key", "order-7")];
    let service = json!({"name": "s", "host": "a.example"});
    let first = server
        .send("POST", "/services", &key, service.clone())
        .await;
    let second = server.send("POST", "/services", &key, service).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(
        (first.json(), first.version()),
        (second.json(), second.version())
    );
}
