//! `request-transformer`

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use http::Request;
use serde_json::{Value, json};

async fn gateway(config: Value) -> (Origin, Gateway) {
    let regex = json!({ "paths": ["~/users/(?<id>[0-9]+)/(.*)"], "strip_path": false });
    gateway_with(&[route(3, regex), global(10, "request-transformer", config)]).await
}

async fn post(gateway: &Gateway, target: &str, content_type: &str, body: &str) -> Reply {
    let request = Request::post(target)
        .header("host", "a.test")
        .header("content-type", content_type)
        .header("x-old", "1")
        .header("x-old", "2");
    let request = request.body(full(body.to_owned())).unwrap();
    gateway.client().await.send(request).await
}

/// Configuration, target that is sent, and what the service receives: method, target, headers.
type Case = (
    Value,
    &'static str,
    &'static str,
    &'static str,
    Vec<(&'static str, Option<&'static str>)>,
);

async fn check(cases: Vec<Case>) {
    for (config, target, method, expected, headers) in cases {
        let (_origin, gateway) = gateway(config.clone()).await;
        let sent = [
            ("x-gone", "1"),
            ("x-from", "from"),
            ("x-replaced", "old"),
            ("x-kept", "kept"),
        ];
        let reply = gateway.client().await.get_with(target, &sent).await;
        let received = reply.json();
        assert_eq!(received["method"], method, "{config}");
        assert_eq!(received["uri"], expected, "{config}");
        for (name, value) in headers {
            assert_eq!(reply.received(name).as_deref(), value, "{config} {name}");
        }
    }
}

#[tokio::test]
async fn heads_are_changed_as_configured() {
    let cases = vec![
        (
            json!({ "http_method": "PUT" }),
            "/a?b=c",
            "PUT",
            "/a?b=c",
            vec![],
        ),
        (
            json!({
                "remove": { "headers": ["X-Gone"] }, "rename": { "headers": ["x-from:X-To", "x-none:x-other"] },
                "replace": { "headers": ["x-replaced:new", "x-none:new"] },
                "add": { "headers": ["x-added:1:2", "x-kept:new"] },
                "append": { "headers": ["x-fresh:1", "x-kept:more"] },
            }),
            "/",
            "GET",
            "/",
            vec![
                ("x-gone", None),
                ("x-from", None),
                ("x-to", Some("from")),
                ("x-other", None),
                ("x-replaced", Some("new")),
                ("x-none", None),
                ("x-added", Some("1:2")),
                ("x-fresh", Some("1")),
            ],
        ),
        (
            json!({
                "remove": { "querystring": ["a"] }, "rename": { "querystring": ["b:c"] },
                "replace": { "querystring": ["d:new", "none:1"] }, "add": { "querystring": ["d:2", "e:x y"] },
                "append": { "querystring": ["e:3", "d:4"] },
            }),
            "/?a=1&b=2&d=0",
            "GET",
            "/?c=2&d=new&d=4&e=x+y&e=3",
            vec![],
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn values_may_be_templates() {
    let cases = vec![
        (
            json!({
                "replace": { "uri": "/v2/$(uri_captures.id)/$(uri_captures[2])", "headers": ["host:$(uri_captures['id']).test"] },
                "add": {
                    "headers": ["x-tpl:$(headers.x_kept)-$(query_params.q or 'none')", "x-none2:$(shared.none)"],
                    "querystring": ["user:$(uri_captures.id)"],
                },
            }),
            "/users/7/a/b?q=5",
            "GET",
            "/v2/7/a/b?q=5&user=7",
            vec![
                ("host", Some("7.test")),
                ("x-tpl", Some("kept-5")),
                ("x-none2", Some("")),
            ],
        ),
        // Templates see the request as it was.
        (
            json!({ "remove": { "headers": ["x-kept"], "querystring": ["q"] }, "add": { "headers": ["x-tpl:$(headers['X-Kept'])$(query_params.q)"] } }),
            "/?q=1",
            "GET",
            "/",
            vec![("x-kept", None), ("x-tpl", Some("kept1"))],
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn bodies_are_changed_as_configured() {
    let config = json!({
        "remove": { "body": ["a"] }, "rename": { "body": ["b:c"] }, "replace": { "body": ["d:new", "none:1"] },
        "add": { "body": ["d:2", "e:$(query_params.q)"] }, "append": { "body": ["e:3", "f:4"] },
    });
    let (_origin, gateway) = gateway(config).await;
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let reply = post(&gateway, "/?q=5", form, "a=1&b=2&d=0").await;
    assert_eq!(reply.json()["body"], "c=2&d=new&e=5&e=3&f=4");
    assert_eq!(reply.received("content-length").as_deref(), Some("21"));
    let changed = |reply: &Reply| -> Value {
        serde_json::from_str(reply.json()["body"].as_str().unwrap()).unwrap()
    };
    let reply = post(
        &gateway,
        "/?q=5",
        "application/json",
        r#"{"a":1,"b":{"x":2},"d":0}"#,
    )
    .await;
    let expected = json!({ "c": { "x": 2 }, "d": "new", "e": ["5", "3"], "f": ["4"] });
    assert_eq!(changed(&reply), expected);
    let reply = post(&gateway, "/?q=5", "application/json", "").await;
    assert_eq!(
        changed(&reply),
        json!({ "d": "2", "e": ["5", "3"], "f": ["4"] })
    );
    let multipart = "multipart/form-data; boundary=xyz";
    let part = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = part("a", "1") + &part("b", "2") + "--xyz--\r\n";
    let reply = post(&gateway, "/?q=5", multipart, &body).await;
    let expected = part("c", "2") + &part("d", "2") + &part("e", "5") + "--xyz--\r\n";
    assert_eq!(reply.json()["body"], expected);
    // What is no body of its type, and other types, stay.
    for (content_type, body) in [
        ("application/json", "[1]"),
        ("application/json", "{"),
        ("text/plain", "a=1"),
        (multipart, "x"),
    ] {
        let reply = post(&gateway, "/?q=5", content_type, body).await;
        assert_eq!(reply.json()["body"], body);
    }
}

#[tokio::test]
async fn a_form_goes_into_the_query_where_the_method_has_no_body() {
    let (_origin, gateway) =
        gateway(json!({ "http_method": "GET", "add": { "querystring": ["c:3"] } })).await;
    let reply = post(
        &gateway,
        "/p?a=1",
        "application/x-www-form-urlencoded",
        "b=2&a=4",
    )
    .await;
    assert_eq!(
        (&reply.json()["method"], &reply.json()["uri"]),
        (&json!("GET"), &json!("/p?a=1&b=2&a=4&c=3"))
    );
}

#[tokio::test]
async fn request_transformer_is_consistent() {
    is_consistent(
        |n| {
            let config = json!({
                "replace": { "uri": format!("/{n}") },
                "add": { "headers": [format!("x-edit:{n}")], "body": [format!("edit:{n}")] },
            });
            vec![global(10, "request-transformer", config)]
        },
        async |client: &mut Client| {
            let request = Request::post("/")
                .header("host", "a.test")
                .header("content-type", "application/x-www-form-urlencoded");
            client.send(request.body(full("edit_=1")).unwrap()).await
        },
        |reply| {
            let uri = reply.json()["uri"]
                .as_str()
                .map(|uri| uri.trim_start_matches('/').to_owned());
            let body = reply.json()["body"]
                .as_str()
                .map(|body| body.trim_start_matches("edit_=1&edit=").to_owned());
            numbers(&[uri, body, reply.received("x-edit")], "")
        },
    )
    .await;
}
