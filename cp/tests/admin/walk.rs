//! The walk of a client that syncs declaratively, as decK does: it reads the world a page at a time, completes what it
//! wants by the schemas, puts each entity by its id, several at once, and then finds no difference.

use super::server::Server;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Requests at once: decK's default.
const PARALLEL: usize = 10;
const PAGE: usize = 1000;

/// What is listed, and the schema of what comes back.
const LISTS: &[(&str, &str)] = &[
    ("/services", "services"),
    ("/routes", "routes"),
    ("/plugins", "plugins"),
    ("/certificates", "certificates"),
    ("/ca_certificates", "ca_certificates"),
    ("/snis", "snis"),
    ("/upstreams", "upstreams"),
    ("/vaults", "vaults"),
    ("/keys", "keys"),
    ("/key-sets", "key_sets"),
    ("/consumer_groups", "consumer_groups"),
    ("/consumers", "consumers"),
    ("/key-auths", "keyauth_credentials"),
    ("/hmac-auths", "hmacauth_credentials"),
    ("/jwts", "jwt_secrets"),
    ("/basic-auths", "basicauth_credentials"),
    ("/oauth2", "oauth2_credentials"),
    ("/acls", "acls"),
];

/// What is only in Kong Enterprise, whose absence is tolerated as 404.
const ABSENT: &[&str] = &[
    "/partials",
    "/mtls-auths",
    "/cloned-plugins",
    "/custom-plugins",
];

/// An entity that is wanted.
struct Wanted {
    /// The collection it is put into.
    path: String,
    /// The schema it is completed by.
    schema: &'static str,
    id: String,
    body: Value,
}

fn id(number: u32) -> String {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 | u128::from(number)).to_string()
}

fn pem(file: &str) -> String {
    let path = format!("{}/../schema/tests/pem/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// In decK's order: each stage is put at once, after the one before. `#3` stands for the id of entity 3, `@x` for the
/// content of file x.
#[rustfmt::skip]
const STAGES: [&[(&str, &str, u32, &str)]; 4] = [
    &[
        ("/certificates", "certificates", 1, r#"{"cert": "@rsa.crt", "key": "@rsa.key", "tags": ["b", "a"]}"#),
        ("/ca_certificates", "ca_certificates", 2, r#"{"cert": "@ca.crt"}"#),
        ("/consumers", "consumers", 3, r#"{"username": "anna", "custom_id": "a-1", "tags": ["b", "a"]}"#),
        ("/consumer_groups", "consumer_groups", 4, r#"{"name": "gold"}"#),
        ("/vaults", "vaults", 5, r#"{"name": "env", "prefix": "my-env", "config": {"prefix": "KONG_"}}"#),
        ("/key-sets", "key_sets", 6, r#"{"name": "keys"}"#),
    ],
    &[
        ("/snis", "snis", 10, r##"{"name": "a.example.com", "certificate": {"id": "#1"}}"##),
        ("/upstreams", "upstreams", 11,
            r#"{"name": "backend", "algorithm": "consistent-hashing", "hash_on": "header", "hash_on_header": "x-user"}"#),
        ("/keys", "keys", 12, r##"{"name": "k", "kid": "1", "set": {"id": "#6"}, "pem": {"public_key": "@rsa.pub"}}"##),
        ("/consumers/#3/key-auth", "keyauth_credentials", 13, r#"{"key": "anna-key"}"#),
        ("/consumers/#3/basic-auth", "basicauth_credentials", 14, r#"{"username": "anna", "password": "p"}"#),
        ("/consumers/#3/jwt", "jwt_secrets", 15, r#"{"key": "iss", "secret": "s"}"#),
        ("/consumers/#3/hmac-auth", "hmacauth_credentials", 16, r#"{"username": "anna", "secret": "s"}"#),
        ("/consumers/#3/acls", "acls", 17, r#"{"group": "admins"}"#),
        ("/consumers/#3/oauth2", "oauth2_credentials", 18,
            r#"{"name": "app", "client_id": "c", "client_secret": "s", "redirect_uris": ["https://b.x/", "https://a.x/"]}"#),
        ("/services", "services", 100,
            r##"{"name": "s", "host": "backend", "protocol": "https", "tls_verify": true, "ca_certificates": ["#2"]}"##),
    ],
    &[
        ("/routes", "routes", 200,
            r##"{"name": "r", "paths": ["/z", "~/a/(?<id>x)$"], "methods": ["POST", "GET"], "headers": {"x-b": ["2", "1"]},
                "service": {"id": "#100"}, "tags": ["b", "a"]}"##),
        ("/upstreams/#11/targets", "targets", 20, r#"{"target": "127.0.0.1:9001", "weight": 7}"#),
    ],
    &[
        ("/plugins", "plugins", 30, r##"{"name": "key-auth", "config": {"key_names": ["z", "a"]}, "route": {"id": "#200"}}"##),
        ("/plugins", "plugins", 31, r##"{"name": "rate-limiting", "config": {"minute": 5}, "consumer": {"id": "#3"}}"##),
        ("/plugins", "plugins", 32,
            r##"{"name": "cors", "config": {"origins": ["b", "a"], "methods": ["PUT", "GET"]}, "service": {"id": "#100"}}"##),
        ("/plugins", "plugins", 33,
            r##"{"name": "request-transformer", "config": {"add": {"headers": ["x:1"]}}, "consumer_group": {"id": "#4"}}"##),
        ("/plugins", "plugins", 34, r#"{"name": "opentelemetry", "config": {"traces_endpoint": "http://127.0.0.1:4318/v1"}}"#),
        ("/plugins", "plugins", 35, r#"{"name": "http-log", "config": {"http_endpoint": "http://127.0.0.1:1/"}, "enabled": false}"#),
    ],
];
/// Services that are alike, and a route for each: more than are put at once.
const ALIKE: u32 = 30;

fn world() -> Vec<Vec<Wanted>> {
    let entity = |(path, schema, number, body): &(&str, &'static str, u32, &str)| Wanted {
        path: path.split('/').map(resolve).collect::<Vec<_>>().join("/"),
        schema,
        id: id(*number),
        body: resolve_all(serde_json::from_str(body).unwrap()),
    };
    let mut stages: Vec<Vec<Wanted>> = STAGES
        .iter()
        .map(|stage| stage.iter().map(entity).collect())
        .collect();
    for number in 1..ALIKE {
        let (service, route) = (format!("s{number}"), format!("r{number}"));
        let body = json!({"name": service, "host": "backend"}).to_string();
        stages[1].push(entity(&("/services", "services", 100 + number, &body)));
        let service = format!("#{}", 100 + number);
        let body =
            json!({"name": route, "paths": [format!("/{route}")], "service": {"id": service}});
        stages[2].push(entity(&(
            "/routes",
            "routes",
            200 + number,
            &body.to_string(),
        )));
    }
    stages
}

fn resolve(text: &str) -> String {
    match text.split_at_checked(1) {
        Some(("#", number)) => id(number.parse().unwrap()),
        Some(("@", file)) => pem(file),
        Some(_) | None => text.to_owned(),
    }
}

fn resolve_all(value: Value) -> Value {
    match value {
        Value::String(text) => resolve(&text).into(),
        Value::Array(items) => items.into_iter().map(resolve_all).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (name, resolve_all(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

impl Server {
    /// All of a collection, by `offset`, which is what decK goes by.
    async fn all(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut offset = None;
        loop {
            let page = match &offset {
                None => format!("{path}?size={PAGE}"),
                Some(offset) => format!("{path}?size={PAGE}&offset={offset}"),
            };
            let (status, body) = self.check("GET", &page, Value::Null).await;
            assert_eq!(status, 200, "{page}: {body}");
            all.extend(body["data"].as_array().unwrap().iter().cloned());
            match body.get("offset") {
                Some(Value::String(next)) => offset = Some(next.clone()),
                _ => return all,
            }
        }
    }

    async fn put(&self, entity: &Wanted) {
        let path = format!("{}/{}", entity.path, entity.id);
        let (status, body) = self.check("PUT", &path, entity.body.clone()).await;
        if status == 404 && entity.schema == "targets" {
            let mut body = entity.body.clone();
            body["id"] = entity.id.clone().into();
            self.create(&entity.path, body).await;
            return;
        }
        assert_eq!(status, 200, "{path}: {body}");
    }

    async fn schema(&self, path: &str) -> Value {
        let (status, body) = self.check("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn put_all(&self, stages: &[Vec<Wanted>]) {
        for stage in stages {
            let puts = stage.iter().map(|entity| self.put(entity));
            futures::stream::iter(puts)
                .buffer_unordered(PARALLEL)
                .for_each(async |()| ())
                .await;
        }
    }

    /// Everything there is, by id.
    async fn read(&self) -> BTreeMap<String, Value> {
        let mut found = Vec::new();
        for (path, _) in LISTS {
            found.extend(self.all(path).await);
        }
        for upstream in self.all("/upstreams").await {
            let path = format!("/upstreams/{}/targets", upstream["id"].as_str().unwrap());
            found.extend(self.all(&path).await);
        }
        found
            .into_iter()
            .map(|entity| (entity["id"].as_str().unwrap().to_owned(), entity))
            .collect()
    }

    /// What is wanted, completed by the schemas the server gives.
    async fn complete(&self, entity: &Wanted) -> Value {
        let schema = self.schema(&format!("/schemas/{}", entity.schema)).await;
        let mut body = entity.body.clone();
        fill(&mut body, &schema);
        let name = body["name"].as_str().map(ToOwned::to_owned);
        let nested = match (entity.schema, name) {
            ("plugins", Some(name)) => Some(format!("/schemas/plugins/{name}")),
            ("vaults", Some(name)) => Some(format!("/schemas/vaults/{name}")),
            _ => None,
        };
        if let Some(path) = nested {
            let schema = self.schema(&path).await;
            fill(&mut body, &schema);
        }
        body["id"] = entity.id.clone().into();
        body
    }
}

/// Puts the defaults of a schema where nothing is given, as a client does that knows nothing else.
fn fill(body: &mut Value, schema: &Value) {
    let Some(body) = body.as_object_mut() else {
        return;
    };
    for field in schema["fields"].as_array().into_iter().flatten() {
        for (name, facts) in field.as_object().unwrap() {
            if facts["type"] == "record" && facts["fields"].is_array() {
                let missing = facts.get("default").cloned();
                let missing = missing.or((facts["required"] == true).then(|| json!({})));
                if let Some(record) = missing {
                    body.entry(name).or_insert(record);
                }
                if let Some(record) = body.get_mut(name) {
                    fill(record, facts);
                }
            } else if let Some(default) = facts.get("default") {
                body.entry(name).or_insert_with(|| default.clone());
            }
        }
    }
}

/// Without what a client cannot know or does not compare: times, nulls, the order of sets.
fn comparable(entity: &Value) -> Value {
    let mut kept = Map::new();
    for (name, value) in entity.as_object().unwrap() {
        let generated = matches!(
            name.as_str(),
            "created_at" | "updated_at" | "password" | "cert_digest"
        );
        if generated || value.is_null() {
            continue;
        }
        kept.insert(name.clone(), without_nulls(value, name));
    }
    kept.into()
}

fn without_nulls(value: &Value, name: &str) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(name, value)| (name.clone(), without_nulls(value, name)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(items) => {
            let mut items: Vec<Value> =
                items.iter().map(|item| without_nulls(item, name)).collect();
            if matches!(
                name,
                "tags" | "protocols" | "ca_certificates" | "methods" | "response_buffering"
            ) {
                items.sort_by_key(ToString::to_string);
            }
            items.into()
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            plain.clone()
        }
    }
}

async fn differences(server: &Server, stages: &[Vec<Wanted>]) -> Vec<String> {
    let found = server.read().await;
    let mut differing = Vec::new();
    let wanted: Vec<&Wanted> = stages.iter().flatten().collect();
    for entity in &wanted {
        let complete = comparable(&server.complete(entity).await);
        let Some(there) = found.get(&entity.id).map(comparable) else {
            differing.push(format!("{} {} is not there", entity.path, entity.id));
            continue;
        };
        let names = complete.as_object().unwrap().keys();
        let names = names.chain(there.as_object().unwrap().keys());
        for name in names {
            // What the path of a nested credential or target says, its body need not.
            let parent =
                matches!(name.as_str(), "consumer" | "upstream") && complete.get(name).is_none();
            let names_of_certificate = entity.schema == "certificates" && name == "snis";
            if complete.get(name) != there.get(name) && !parent && !names_of_certificate {
                differing.push(format!(
                    "{} {name}: wanted {:?}, found {:?}",
                    entity.path,
                    complete.get(name),
                    there.get(name)
                ));
            }
        }
    }
    let known: Vec<&String> = wanted.iter().map(|entity| &entity.id).collect();
    let more = found.keys().filter(|id| !known.contains(id));
    differing.extend(more.map(|id| format!("{id} is there, and not wanted")));
    differing.sort();
    differing.dedup();
    differing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sync_finds_no_difference() {
    let server = Server::start().await;
    let (status, root) = server.check("GET", "/", Value::Null).await;
    assert_eq!(status, 200);
    let version = root["version"].as_str().unwrap();
    assert!(
        version.starts_with("3.") && !version.contains("enterprise"),
        "{version}"
    );
    for path in ABSENT {
        assert_eq!(
            server.check("GET", path, Value::Null).await.0,
            404,
            "{path}"
        );
    }
    let filter_chains = server.check("GET", "/filter-chains", Value::Null).await.0;
    assert!([200, 400, 404].contains(&filter_chains), "{filter_chains}");

    let stages = world();
    server.put_all(&stages).await;
    assert_eq!(differences(&server, &stages).await, Vec::<String>::new());

    // Putting again what is there changes nothing but times.
    server.put_all(&stages).await;
    assert_eq!(differences(&server, &stages).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_in_reverse_order_leaves_nothing() {
    let server = Server::start().await;
    let stages = world();
    server.put_all(&stages).await;
    for stage in stages.iter().rev() {
        let deletes = stage.iter().map(async |entity| {
            let path = format!("{}/{}", entity.path, entity.id);
            let (status, body) = server.check("DELETE", &path, Value::Null).await;
            assert_eq!(status, 204, "{path}: {body}");
        });
        futures::stream::iter(deletes)
            .buffer_unordered(PARALLEL)
            .for_each(async |()| ())
            .await;
    }
    assert_eq!(server.read().await, BTreeMap::new());
}

#[tokio::test]
async fn pages_hold_while_the_collection_changes() {
    let server = Server::start().await;
    for number in 0..25 {
        server
            .create("/consumers", json!({"username": format!("c{number:02}")}))
            .await;
    }
    let (_, first) = server.check("GET", "/consumers?size=10", Value::Null).await;
    let offset = first["offset"].as_str().unwrap().to_owned();
    let gone = first["data"][9]["id"].as_str().unwrap();
    assert_eq!(
        server
            .check("DELETE", &format!("/consumers/{gone}"), Value::Null)
            .await
            .0,
        204
    );
    let mut seen: Vec<String> = Vec::new();
    let ids = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().unwrap().iter();
        data.map(|entity| entity["id"].as_str().unwrap().to_owned())
            .collect()
    };
    seen.extend(ids(&first));
    let mut next = Some(offset);
    while let Some(offset) = next {
        let (status, page) = server
            .check(
                "GET",
                &format!("/consumers?size=10&offset={offset}"),
                Value::Null,
            )
            .await;
        assert_eq!(status, 200, "{page}");
        seen.extend(ids(&page));
        next = page["offset"].as_str().map(ToOwned::to_owned);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}
