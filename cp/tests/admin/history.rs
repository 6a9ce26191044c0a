//! What has happened: filtered, per entity, per field; and what was there then.

use crate::server::Server;
use serde_json::{Value, json};

/// Sends a change as somebody, who says why. Gives back the version.
pub(crate) async fn change(
    server: &Server,
    (actor, reason): (&str, &str),
    (method, path, body): (&str, &str, Value),
) -> u64 {
    let headers = [("sluice-actor", actor), ("sluice-reason", reason)];
    let headers = if reason.is_empty() {
        &headers[..1]
    } else {
        &headers[..]
    };
    let answer = server.send(method, path, headers, body).await;
    assert!(answer.status < 300, "{method} {path}: {}", answer.text);
    answer.version()
}

pub(crate) async fn get(server: &Server, path: &str) -> Value {
    let (status, answer) = server.check("GET", path, Value::Null).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// A shop with a history: a service that moves twice, a route, a key, and one that is gone.
pub(crate) async fn shop(server: &Server) -> [u64; 7] {
    let service = json!({"name": "shop", "host": "a.example"});
    let one = change(server, ("ann", "begin"), ("POST", "/services", service)).await;
    let route = json!({"name": "cart", "paths": ["/cart"]});
    let two = change(
        server,
        ("bob", ""),
        ("POST", "/services/shop/routes", route),
    )
    .await;
    let three = change(
        server,
        ("bob", "Move the shop"),
        ("PATCH", "/services/shop", json!({"host": "b.example"})),
    )
    .await;
    let four = change(
        server,
        ("ann", ""),
        ("POST", "/consumers", json!({"username": "carl"})),
    )
    .await;
    let five = change(
        server,
        ("ann", ""),
        ("POST", "/consumers/carl/key-auth", json!({"key": "hush"})),
    )
    .await;
    let six = change(
        server,
        ("eve", "move it again"),
        (
            "PATCH",
            "/services/shop",
            json!({"host": "c.example", "retries": 1}),
        ),
    )
    .await;
    let seven = change(
        server,
        ("eve", "clean up"),
        ("DELETE", "/routes/cart", Value::Null),
    )
    .await;
    [one, two, three, four, five, six, seven]
}

fn versions(answer: &Value) -> Vec<u64> {
    let data = answer["data"].as_array().unwrap();
    data.iter()
        .map(|event| event["version"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn events_are_filtered_by_what_they_touched_by_whom_when_and_why() {
    let server = Server::start().await;
    let [one, two, three, four, five, six, seven] = shop(&server).await;
    let rows = [
        ("entity=service/shop", vec![one, three, six]),
        ("entity=services/shop&actor=bob", vec![three]),
        ("entity=route/cart", vec![two, seven]),
        ("kind=route", vec![two, seven]),
        ("kind=keyauth_credential", vec![five]),
        ("kind=key-auths", vec![five]),
        ("actor=ann", vec![one, four, five]),
        ("actor=nobody", vec![]),
        ("reason=MOVE", vec![three, six]),
        ("reason=move&newest=1", vec![six, three]),
        ("workspace=default&actor=eve", vec![six, seven]),
        ("workspace=elsewhere", vec![]),
        (
            "actor=ann&to=4",
            vec![one, four]
                .into_iter()
                .filter(|version| *version <= 4)
                .collect(),
        ),
        ("actor=ann&since=1h", vec![one, four, five]),
        ("actor=ann&until=1h", vec![]),
        (
            "actor=ann&since=2020-01-01T00:00:00Z&until=2099-01-01",
            vec![one, four, five],
        ),
    ];
    for (query, expected) in rows {
        let answer = get(&server, &format!("/log/events?{query}")).await;
        assert_eq!(versions(&answer), expected, "{query}");
        assert_eq!(answer["history"]["complete"], true, "{query}");
        assert_eq!(
            (&answer["history"]["first"], &answer["history"]["last"]),
            (&json!(1), &json!(seven))
        );
    }
    for (query, status) in [
        ("entity=shop", 400),
        ("entity=service/", 400),
        ("entity=service/nowhere", 404),
        ("since=yesterday", 400),
        ("kind=No%20kind", 400),
    ] {
        let path = format!("/log/events?{query}");
        assert_eq!(
            server.check("GET", &path, Value::Null).await.0,
            status,
            "{query}"
        );
    }
}

#[tokio::test]
async fn filtered_events_are_paged_in_both_directions() {
    let server = Server::start().await;
    let all = shop(&server).await;
    let ours = |newest: bool| {
        let mut all = vec![all[0], all[3], all[4]];
        if newest {
            all.reverse();
        }
        all
    };
    for (query, newest) in [("from=1", false), ("newest=1", true)] {
        let mut path = Some(format!("/log/events?actor=ann&size=2&{query}"));
        let mut found = Vec::new();
        while let Some(next) = path {
            let answer = get(&server, &next).await;
            assert!(answer["data"].as_array().unwrap().len() <= 2);
            found.extend(versions(&answer));
            path = answer["next"].as_str().map(str::to_owned);
        }
        assert_eq!(found, ours(newest), "{query}");
    }
    let last = get(&server, "/log/events?actor=ann&size=2").await;
    assert_eq!(versions(&last), &ours(false)[1..]);
    assert_eq!(last["next"], Value::Null);
}

#[tokio::test]
async fn an_event_says_what_each_entity_was_before_and_keeps_secrets() {
    let server = Server::start().await;
    let [_, _, three, _, five, _, seven] = shop(&server).await;
    let event = get(&server, &format!("/log/events/{three}")).await;
    let mutation = &event["mutations"][0];
    assert_eq!(
        mutation["changes"],
        json!([{"path": "host", "before": "a.example", "after": "b.example"}])
    );
    assert_eq!(mutation["before"]["host"], "a.example");
    let event = get(&server, &format!("/log/events/{five}")).await;
    assert!(!event.to_string().contains("hush"), "{event}");
    assert_eq!(event["mutations"][0]["before"], Value::Null);
    assert_eq!(event["mutations"][0]["of"], json!({"consumer": "carl"}));
    let gone = get(&server, &format!("/log/events/{seven}")).await;
    assert_eq!(gone["mutations"][0]["before"]["paths"], json!(["/cart"]));
    let stored = get(
        &server,
        &format!("/log/events?bodies=1&from={five}&to={five}"),
    )
    .await;
    assert_eq!(stored["data"][0]["mutations"][0]["body"]["key"], "hush");
    assert_eq!(stored["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_entity_has_a_history_also_when_it_is_gone() {
    let server = Server::start().await;
    let [one, two, three, _, _, six, seven] = shop(&server).await;
    let history = get(&server, "/log/history/service/shop").await;
    assert_eq!(versions(&history), [six, three, one]);
    assert_eq!(history["entity"]["deleted"], false);
    let newest = &history["data"][0];
    assert_eq!(
        (&newest["op"], &newest["actor"], &newest["reason"]),
        (&json!("updated"), &json!("eve"), &json!("move it again"))
    );
    assert_eq!(newest["changes"][0]["path"], "host");
    assert_eq!(newest["changes"][1]["path"], "retries");
    assert_eq!(history["data"][2]["op"], "created");

    let gone = get(&server, "/log/history/routes/cart").await;
    assert_eq!(versions(&gone), [seven, two]);
    assert_eq!(
        (&gone["data"][0]["op"], &gone["entity"]["deleted"]),
        (&json!("deleted"), &json!(true))
    );
    let id = gone["entity"]["id"].as_str().unwrap();
    let by_id = get(&server, &format!("/log/history/route/{id}")).await;
    assert_eq!(by_id["data"], gone["data"]);
    // Another of the same name comes first, and says that there was one before.
    server
        .create("/routes", json!({"name": "cart", "paths": ["/again"]}))
        .await;
    let again = get(&server, "/log/history/route/cart").await;
    assert_eq!(
        (again["data"].as_array().unwrap().len(), &again["others"]),
        (1, &json!([id]))
    );

    let page = get(&server, "/log/history/service/shop?size=2").await;
    assert_eq!(versions(&page), [six, three]);
    assert_eq!(page["data"][1]["op"], "updated");
    let rest = get(&server, page["next"].as_str().unwrap()).await;
    assert_eq!((versions(&rest), &rest["next"]), (vec![one], &Value::Null));
    for missing in ["/log/history/route/nowhere", "/log/history/service/cart"] {
        assert_eq!(
            server.check("GET", missing, Value::Null).await.0,
            404,
            "{missing}"
        );
    }
}

#[tokio::test]
async fn each_field_is_owed_to_the_event_that_gave_it_its_value() {
    let server = Server::start().await;
    let [one, _, three, _, five, six, _] = shop(&server).await;
    // Writing what is there changes nobody's share.
    change(
        &server,
        ("zoe", ""),
        ("PATCH", "/services/shop", json!({"tags": ["t"]})),
    )
    .await;
    let owed = |blame: &Value, path: &str| {
        let fields = blame["fields"].as_array().unwrap();
        let field = fields.iter().find(|field| field["path"] == path);
        let field = field.unwrap_or_else(|| panic!("no {path} in {blame}"));
        (
            field["value"].clone(),
            field["version"].as_u64().unwrap(),
            field["actor"].as_str().unwrap().to_owned(),
        )
    };
    let blame = get(&server, "/log/history/service/shop/blame").await;
    assert_eq!(
        owed(&blame, "host"),
        (json!("c.example"), six, "eve".to_owned())
    );
    assert_eq!(owed(&blame, "retries"), (json!(1), six, "eve".to_owned()));
    assert_eq!(owed(&blame, "name"), (json!("shop"), one, "ann".to_owned()));
    assert_eq!(owed(&blame, "port"), (json!(80), one, "ann".to_owned()));
    let paths: Vec<&Value> = blame["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| &field["path"])
        .collect();
    assert!(!paths.contains(&&json!("updated_at")));
    let then = get(
        &server,
        &format!("/log/history/service/shop/blame?at={}", six - 1),
    )
    .await;
    assert_eq!(
        owed(&then, "host"),
        (json!("b.example"), three, "bob".to_owned())
    );
    assert_eq!(owed(&then, "retries").1, one);
    let keys = get(&server, "/key-auths").await;
    let id = keys["data"][0]["id"].as_str().unwrap();
    let blame = get(
        &server,
        &format!("/log/history/keyauth_credential/{id}/blame"),
    )
    .await;
    assert_eq!(
        owed(&blame, "key"),
        (json!("(secret)"), five, "ann".to_owned())
    );
    let (status, _) = server
        .check("GET", "/log/history/route/cart/blame", Value::Null)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn entities_lists_and_dumps_are_shown_as_they_were() {
    let server = Server::start().await;
    let [one, two, three, _, five, six, seven] = shop(&server).await;
    for (at, expected) in [
        (one, "a.example"),
        (three, "b.example"),
        (five, "b.example"),
        (six, "c.example"),
        (seven, "c.example"),
    ] {
        let answer = server
            .send("GET", &format!("/services/shop?at={at}"), &[], Value::Null)
            .await;
        assert_eq!(
            (answer.status, &answer.json()["host"]),
            (200, &json!(expected)),
            "{at}"
        );
        assert_eq!(answer.version(), at);
    }
    let routes = get(&server, &format!("/services/shop/routes?at={six}")).await;
    assert_eq!(routes["data"][0]["name"], "cart");
    assert_eq!(get(&server, "/routes").await["data"], json!([]));
    assert_eq!(
        server
            .check("GET", &format!("/routes/cart?at={two}"), Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        server
            .check("GET", &format!("/routes/cart?at={one}"), Value::Null)
            .await
            .0,
        404
    );
    let dump = get(&server, &format!("/dump?at={three}")).await;
    assert_eq!(
        (&dump["services"][0]["host"], dump.get("consumers")),
        (&json!("b.example"), None)
    );
}

#[tokio::test]
async fn the_past_is_named_by_versions_and_times_and_only_read() {
    let server = Server::start().await;
    let [one, _, three, ..] = shop(&server).await;
    let now = get(&server, "/dump").await;
    let latest = get(&server, "/dump?at=latest").await;
    assert_eq!(now, latest);
    assert_eq!(
        get(&server, "/services/shop?at=0s").await["host"],
        "c.example"
    );
    let time = get(&server, &format!("/log/events/{three}")).await["time"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        get(&server, &format!("/services/shop?at={time}")).await["host"],
        "b.example"
    );
    for (method, path, status) in [
        ("GET", "/services/shop?at=999".to_owned(), 404),
        ("GET", "/services/shop?at=0".to_owned(), 410),
        ("GET", "/services/shop?at=1d".to_owned(), 410),
        ("GET", "/services/shop?at=x".to_owned(), 400),
        ("GET", format!("/nodes?at={one}"), 400),
        ("DELETE", format!("/services/shop?at={one}"), 400),
    ] {
        assert_eq!(
            server.check(method, &path, Value::Null).await.0,
            status,
            "{method} {path}"
        );
    }
    let state = server
        .send("GET", &format!("/log/state?at={one}"), &[], Value::Null)
        .await;
    let line: Value = serde_json::from_str(state.text.trim_end()).unwrap();
    assert_eq!(
        (&line["kind"], &line["version"], &line["body"]["host"]),
        (&json!("service"), &json!(one), &json!("a.example"))
    );
}

#[tokio::test]
async fn pages_of_a_list_of_the_past_are_all_of_the_same_version() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server
            .create("/services", json!({"name": name, "host": "x"}))
            .await;
    }
    let first = get(&server, "/services?at=0s&size=2").await;
    let at = server.version();
    server.check("DELETE", "/services/a", Value::Null).await;
    server.check("DELETE", "/services/b", Value::Null).await;
    server.check("DELETE", "/services/c", Value::Null).await;
    let next = first["next"].as_str().unwrap();
    assert!(next.contains(&format!("at={at}")), "{next}");
    assert_eq!(
        get(&server, next).await["data"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn two_versions_are_compared_entity_by_entity() {
    let server = Server::start().await;
    let [one, _, _, _, _, _, seven] = shop(&server).await;
    let diff = get(&server, &format!("/log/diff?from={one}&to={seven}")).await;
    let counts = ["created", "updated", "deleted"].map(|name| diff[name].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 0]);
    let changes = diff["changes"].as_array().unwrap();
    let service = changes
        .iter()
        .find(|change| change["kind"] == "service")
        .unwrap();
    assert_eq!(
        service["changes"][0],
        json!({"path": "host", "before": "a.example", "after": "c.example"})
    );
    assert!(!diff.to_string().contains("hush"));
    let back = get(&server, &format!("/log/diff?from=latest&to={one}")).await;
    let counts = ["created", "updated", "deleted"].map(|name| back[name].as_u64().unwrap());
    assert_eq!(counts, [0, 1, 2]);
    assert_eq!(server.check("GET", "/log/diff", Value::Null).await.0, 400);
}

#[tokio::test]
async fn a_history_is_whole_again_after_a_trim_and_says_how_far_it_reaches() {
    let server = Server::start().await;
    let [one, _, three, _, _, six, seven] = shop(&server).await;
    let (status, cut) = server.check("POST", "/log/snapshots", Value::Null).await;
    assert_eq!(status, 201, "{cut}");
    let last = change(
        &server,
        ("ann", "later"),
        ("PATCH", "/services/shop", json!({"host": "d.example"})),
    )
    .await;
    let (status, trimmed) = server
        .check("POST", "/log/trim", json!({"before": seven}))
        .await;
    assert_eq!(status, 200, "{trimmed}");
    // Heads, which tell of the trim, come every second.
    let began = std::time::Instant::now();
    loop {
        let head = get(&server, "/log/head").await;
        if head["history"]["first"] == seven && head["history"]["complete"] == true {
            break;
        }
        assert!(began.elapsed().as_secs() < 20, "{head}");
        tokio::task::yield_now().await;
    }
    let history = get(&server, "/log/history/service/shop").await;
    assert_eq!(versions(&history), [last]);
    // What was before it is in the snapshot.
    assert_eq!(history["data"][0]["op"], "updated");
    assert_eq!(history["data"][0]["changes"][0]["before"], "c.example");
    assert_eq!(
        get(&server, &format!("/services/shop?at={seven}")).await["host"],
        "c.example"
    );
    for gone in [one, three, six] {
        let path = format!("/services/shop?at={gone}");
        assert_eq!(
            server.check("GET", &path, Value::Null).await.0,
            410,
            "{path}"
        );
    }
    let (status, undone) = server
        .check("POST", "/log/undo", json!({"version": last}))
        .await;
    assert_eq!(status, 200, "{undone}");
    assert_eq!(get(&server, "/services/shop").await["host"], "c.example");
}
