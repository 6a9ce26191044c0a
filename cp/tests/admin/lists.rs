//! Pages, filters, and the list of tags.

use crate::server::Server;
use serde_json::{Value, json};

async fn with_services(count: usize) -> Server {
    let server = Server::start().await;
    for number in 0..count {
        let tags = if number % 2 == 0 {
            json!(["even", "all"])
        } else {
            json!(["odd", "all"])
        };
        let service = json!({"name": format!("s{number}"), "host": "a.example", "tags": tags});
        server.create("/services", service).await;
    }
    server
}

/// Follows `next` from `path` on and gives back the number of entities on each page, and all of them.
async fn pages(server: &Server, path: &str) -> (Vec<usize>, Vec<Value>) {
    let (mut sizes, mut all) = (Vec::new(), Vec::new());
    let mut next = path.to_owned();
    loop {
        let (status, body) = server.check("GET", &next, Value::Null).await;
        assert_eq!(status, 200, "{next}: {body}");
        let data = body["data"].as_array().unwrap().clone();
        sizes.push(data.len());
        all.extend(data);
        match body["next"].as_str() {
            Some(path) => {
                assert!(path.contains(body["offset"].as_str().unwrap()));
                next = path.to_owned();
            }
            None => {
                assert_eq!(body.get("offset"), None);
                return (sizes, all);
            }
        }
    }
}

#[tokio::test]
async fn pages_hold_every_entity_once_in_the_order_of_ids() {
    let server = with_services(7).await;
    for number in 0..5 {
        let route = json!({"paths": [format!("/{number}")]});
        server.create("/services/s0/routes", route).await;
    }
    for (path, sizes) in [
        ("/services?size=3", vec![3, 3, 1]),
        ("/services/?size=7", vec![7]),
        ("/services", vec![7]),
        ("/services/s0/routes?size=2", vec![2, 2, 1]),
        ("/services?tags=even&size=2", vec![2, 2]),
        ("/services?tags=even,all", vec![4]),
        ("/services?tags=even/odd&size=4", vec![4, 3]),
        ("/services?tags=even,odd", vec![0]),
        ("/routes?size=1&tags=none", vec![0]),
        ("/tags/even?size=3", vec![3, 1]),
        ("/tags?size=5", vec![5, 5, 4]),
    ] {
        let (found, all) = pages(&server, path).await;
        assert_eq!(found, sizes, "{path}");
        if !path.starts_with("/tags") {
            let ids: Vec<_> = all
                .iter()
                .map(|entity| entity["id"].as_str().unwrap())
                .collect();
            assert!(ids.is_sorted_by(|a, b| a < b), "{path}");
        }
    }
}

#[tokio::test]
async fn sizes_offsets_and_filters_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    for (query, code) in [
        ("size=0", 9),
        ("size=1001", 9),
        ("size=1.5", 9),
        ("size=x", 9),
        ("offset=!!", 7),
        ("offset=bm90IGFuIGlk", 7),
        ("tags=a,b/c", 11),
        ("tags=", 11),
        ("tags=a,,b", 11),
        ("tags=a,b,c,d,e,f", 11),
    ] {
        let (status, body) = server
            .check("GET", &format!("/services?{query}"), Value::Null)
            .await;
        assert_eq!(
            (status, &body["code"]),
            (400, &json!(code)),
            "{query}: {body}"
        );
    }
    let (_, body) = server.check("GET", "/services?size=x", Value::Null).await;
    assert_eq!(body["message"], "size must be a number");
    let (_, body) = server
        .check("GET", "/services?tags=a,b/c", Value::Null)
        .await;
    assert_eq!(body["options"], json!({"tags": "invalid filter syntax"}));
}

#[tokio::test]
async fn a_consumer_is_found_by_its_custom_id() {
    let server = Server::start().await;
    let ann = server
        .create("/consumers", json!({"username": "ann", "custom_id": "7"}))
        .await;
    server
        .create("/consumers", json!({"username": "bob"}))
        .await;
    let (_, found) = server
        .check("GET", "/consumers?custom_id=7", Value::Null)
        .await;
    assert_eq!(found, json!({"data": [ann], "next": null}));
    let (_, none) = server
        .check("GET", "/consumers?custom_id=8", Value::Null)
        .await;
    assert_eq!(none["data"], json!([]));
}
