//! `aws-lambda` and `azure-functions`, with servers in place of the clouds.

use crate::common::consistency::is_consistent;
use crate::common::*;
use crate::support::*;
use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A cloud that answers with the payload and what else it was told; a payload with `answer` is answered by that.
async fn cloud() -> Origin {
    Origin::serve(|request| {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let payload: Value = serde_json::from_slice(&body).unwrap_or_default();
            let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let answer = Response::builder().status(payload["status"].as_str().map_or(200, |status| status.parse().unwrap()));
            let answer = answer.header("x-cloud", "yes").header("connection", "keep-alive");
            let answer = match payload["error"].as_str() {
                Some(error) => answer.header("x-amz-function-error", error),
                None => answer,
            };
            if let Some(given) = payload["answer"].as_str() {
                return answer.body(reply(given.to_owned())).unwrap();
            }
            let told = json!({
                "method": head.method.as_str(), "target": head.uri.to_string(), "payload": payload,
                "authorization": header("authorization"), "type": header("x-amz-invocation-type"), "log": header("x-amz-log-type"),
                "date": header("x-amz-date"), "content": header("content-type"), "key": header("x-functions-key"),
                "client": header("x-functions-clientid"), "body": String::from_utf8_lossy(&body),
            });
            answer.body(reply(told.to_string())).unwrap()
        })
    })
    .await
}

fn lambda(cloud: SocketAddr, fields: Value) -> Entity {
    let mut config = json!({
        "host": cloud.ip().to_string(), "port": cloud.port(), "disable_https": true, "aws_region": "eu-west-1",
        "aws_key": "AKID", "aws_secret": "hush", "function_name": "my fn", "qualifier": "$LATEST",
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    global(30, "aws-lambda", config)
}

async fn post(gateway: &Gateway, path: &str, kind: &str, body: &str) -> Reply {
    let request = http::Request::post(path)
        .header("host", "a.test")
        .header("content-type", kind);
    let request = request
        .header("x-mine", "1")
        .body(full(body.to_owned()))
        .unwrap();
    gateway.client().await.send(request).await
}

#[tokio::test]
async fn aws_lambda_signs_its_call_and_relays_the_answer() {
    let cloud = cloud().await;
    let (_origin, gateway) =
        gateway_with(&[lambda(cloud.address, json!({ "log_type": "None" }))]).await;
    let reply = post(
        &gateway,
        "/x?a=1&a=2",
        "application/json",
        "{\"b\":{\"c\":[]}}",
    )
    .await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-cloud")),
        (200, Some("yes"))
    );
    let told = reply.json();
    assert_eq!(
        told["target"],
        "/2015-03-31/functions/my%20fn/invocations?Qualifier=%24LATEST"
    );
    assert_eq!(
        (&told["type"], &told["log"]),
        (&"RequestResponse".into(), &"None".into())
    );
    assert_eq!(
        told["payload"],
        json!({ "a": ["1", "2"], "b": { "c": [] } })
    );
    let signed = told["authorization"].as_str().unwrap();
    assert!(
        signed.starts_with("AWS4-HMAC-SHA256 Credential=AKID/20"),
        "{signed}"
    );
    assert!(
        signed.contains("/eu-west-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-"),
        "{signed}"
    );
    assert!(!signed.contains("hush"));
}

#[tokio::test]
async fn aws_lambda_forwards_what_it_is_told_to() {
    let cloud = cloud().await;
    let all = json!({
        "forward_request_method": true, "forward_request_uri": true, "forward_request_headers": true, "forward_request_body": true,
    });
    let (_origin, gateway) = gateway_with(&[lambda(cloud.address, all)]).await;
    let payload = async |kind: &str, body: &str| {
        post(&gateway, "/x?a=1", kind, body).await.json()["payload"].clone()
    };
    let told = payload("application/x-www-form-urlencoded", "k=v&f").await;
    assert_eq!(
        (&told["request_method"], &told["request_uri"]),
        (&"POST".into(), &"/x?a=1".into())
    );
    assert_eq!(
        (&told["request_uri_args"], &told["request_body_args"]),
        (&json!({ "a": "1" }), &json!({ "k": "v", "f": true }))
    );
    assert_eq!(
        (&told["request_headers"]["x-mine"], &told["request_body"]),
        (&"1".into(), &"k=v&f".into())
    );
    let told = payload("application/octet-stream", "raw").await;
    assert_eq!(
        (&told["request_body_base64"], &told["request_body"]),
        (&true.into(), &"cmF3".into())
    );
    let told = payload("text/plain", "raw").await;
    assert_eq!(
        (&told["request_body_base64"], &told["request_body"]),
        (&Value::Null, &"raw".into())
    );
    // A large body is left out.
    let told = payload("text/plain", &"x".repeat(10_000)).await;
    assert_eq!(told["request_body"], "");
    gateway.apply(&[lambda(
        cloud.address,
        json!({ "awsgateway_compatible": true }),
    )]);
    let told = payload("text/plain", "raw").await;
    assert_eq!(
        (
            &told["httpMethod"],
            &told["path"],
            &told["body"],
            &told["isBase64Encoded"]
        ),
        (&"POST".into(), &"/x".into(), &"cmF3".into(), &true.into())
    );
    assert_eq!(
        told["multiValueQueryStringParameters"],
        json!({ "a": ["1"] })
    );
    assert_eq!(told["requestContext"]["identity"]["sourceIp"], "127.0.0.1");
}

#[tokio::test]
async fn aws_lambda_takes_the_answer_a_function_describes() {
    let cloud = cloud().await;
    let fields = json!({ "is_proxy_integration": true, "unhandled_status": 412 });
    let (_origin, gateway) = gateway_with(&[lambda(cloud.address, fields)]).await;
    let ask = async |answer: Value| {
        let body = json!({ "answer": answer.to_string() }).to_string();
        post(&gateway, "/", "application/json", &body).await
    };
    let described = json!({
        "statusCode": 201, "headers": { "X-One": "1" }, "multiValueHeaders": { "X-Two": ["a", "b"] },
        "body": "aGk=", "isBase64Encoded": true,
    });
    let reply = ask(described).await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.body, reply.header("x-one")),
        (201, &b"hi"[..], Some("1"))
    );
    assert_eq!(reply.headers.get_all("x-two").iter().count(), 2);
    for (answer, error) in [
        (json!({}), "statusCode validation failed"),
        (json!({ "statusCode": 99 }), "statusCode validation failed"),
        (
            json!({ "statusCode": 200, "body": 1 }),
            "body must be a string",
        ),
        (
            json!({ "statusCode": 200, "headers": 1 }),
            "headers must be a table",
        ),
    ] {
        let reply = ask(answer).await;
        let error = format!("could not JSON decode Lambda function response: {error}");
        assert_eq!(
            (reply.status.as_u16(), reply.json()),
            (502, json!({ "message": "Bad Gateway", "error": error }))
        );
    }
    let fields = json!({ "unhandled_status": 412 });
    gateway.apply(&[lambda(cloud.address, fields)]);
    for (error, status) in [("Unhandled", 412), ("Handled", 200)] {
        let body = json!({ "error": error }).to_string();
        assert_eq!(
            post(&gateway, "/", "application/json", &body).await.status,
            status
        );
    }
    gateway.apply(&[lambda(refused().await, json!({}))]);
    let reply = gateway.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (500, "An unexpected error occurred")
    );
}

#[tokio::test]
async fn aws_lambda_says_what_it_cannot_do() {
    let (_origin, gateway) = gateway_with(&[]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    for fields in [
        json!({ "aws_assume_role_arn": "arn" }),
        json!({ "proxy_url": "http://a" }),
        json!({ "function_name": null }),
    ] {
        assert_eq!(gateway.try_apply(&[lambda(address, fields)]).len(), 1);
    }
}

#[tokio::test]
async fn aws_lambda_is_consistent() {
    let cloud = cloud().await;
    is_consistent(
        |n| {
            vec![lambda(
                cloud.address,
                json!({ "function_name": format!("v{n}"), "qualifier": format!("v{n}") }),
            )]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let target = reply.json()["target"].as_str().unwrap().to_owned();
            let function = target.split('/').nth(3).map(str::to_owned);
            let qualifier = target.split("Qualifier=").nth(1).map(str::to_owned);
            numbers(&[function, qualifier], "v")
        },
    )
    .await;
}

/// Names of hosts are made of two fields: here they make an address.
fn azure(cloud: SocketAddr, fields: Value) -> Entity {
    let mut config = json!({
        "appname": "127.0", "hostdomain": format!("0.1:{}", cloud.port()), "https": false, "functionname": "/fn/",
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    global(30, "azure-functions", config)
}

#[tokio::test]
async fn azure_functions_answers_in_place_of_the_upstream() {
    let cloud = cloud().await;
    let fields = json!({ "apikey": "k", "clientid": "c" });
    let (_origin, gateway) = gateway_with(&[azure(cloud.address, fields)]).await;
    let reply = post(&gateway, "/x%20y?a=1", "text/plain", "hello").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-cloud")),
        (200, Some("yes"))
    );
    let told = reply.json();
    assert_eq!(
        (&told["method"], &told["target"]),
        (&"POST".into(), &"/api/fn/x%20y?a=1".into())
    );
    assert_eq!(
        (
            &told["key"],
            &told["client"],
            &told["content"],
            &told["body"]
        ),
        (
            &"k".into(),
            &"c".into(),
            &"text/plain".into(),
            &"hello".into()
        )
    );
    gateway.apply(&[azure(cloud.address, json!({ "routeprefix": "/" }))]);
    assert_eq!(gateway.get("/").await.json()["target"], "/fn/");
    gateway.apply(&[azure(refused().await, json!({}))]);
    let reply = gateway.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (500, "An unexpected error occurred")
    );
}

#[tokio::test]
async fn azure_functions_is_consistent() {
    let cloud = cloud().await;
    is_consistent(
        |n| {
            vec![azure(
                cloud.address,
                json!({ "functionname": format!("v{n}"), "apikey": format!("v{n}") }),
            )]
        },
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let told = reply.json();
            let function = told["target"]
                .as_str()
                .unwrap()
                .split('/')
                .nth(2)
                .map(str::to_owned);
            numbers(&[function, told["key"].as_str().map(str::to_owned)], "v")
        },
    )
    .await;
}
