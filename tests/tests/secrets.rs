//! Secrets are in clear text in nothing that a cluster writes, logs or tells.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_replica::log::jetstream::{Options, Role};
use sluice_replica::snapshot::{Root, load_state};
use sluice_schema::field::{Field, Type};
use sluice_schema::kind::Kind;
use sluice_schema::plugin::PLUGINS;
use sluice_tests::cluster::Cluster;
use sluice_tests::tail::connected;
use sluice_tools::admin::Connection;
use sluice_tools::processes;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What every planted secret has in it.
const CANARY: &str = "zq7canary";

/// Fills fields with secrets and remembers where.
#[derive(Default)]
struct Planter {
    planted: BTreeSet<String>,
}

impl Planter {
    fn secret(&mut self, path: &str) -> String {
        let number = self.planted.len();
        self.planted.insert(path.to_owned());
        format!("{CANARY}{number}")
    }

    /// `config` with a secret in every field that takes one.
    fn fill(&mut self, field: &Field, path: &str, config: &mut Value) {
        if field.encrypted {
            let secret = self.secret(path);
            *config = match path {
                "http-log.config.http_endpoint" => format!("http://127.0.0.1:9/{secret}").into(),
                "acme.config.account_email" => format!("{secret}@example.com").into(),
                // Sluice refuses it: it does not assume roles.
                "aws-lambda.config.aws_assume_role_arn" => Value::Null,
                _ => secret.into(),
            };
            return;
        }
        if let Type::Record(fields) = field.kind {
            if !has_secret(field) {
                return;
            }
            if !config.is_object() {
                *config = json!({});
            }
            for field in fields.iter().filter(|field| has_secret(field)) {
                let path = format!("{path}.{}", field.name);
                let mut value = config[field.name].take();
                self.fill(field, &path, &mut value);
                config[field.name] = value;
            }
        }
    }

    fn plugin(&mut self, name: &str, config: Value) -> Value {
        let schema = PLUGINS.iter().find(|plugin| plugin.name == name);
        let mut config = config;
        let path = format!("{name}.config");
        self.fill(&schema.unwrap().config, &path, &mut config);
        json!({ "name": name, "config": config })
    }
}

fn has_secret(field: &Field) -> bool {
    let within = match field.kind {
        Type::Record(fields) => fields.iter().any(has_secret),
        Type::Array(elements) | Type::Set(elements) => has_secret(elements),
        Type::Map { values, .. } => has_secret(values),
        Type::String
        | Type::Integer
        | Type::Number
        | Type::Boolean
        | Type::Foreign(_)
        | Type::Config
        | Type::Json => false,
    };
    field.encrypted || within
}

/// The paths of all fields that take secrets.
fn all_secrets() -> BTreeSet<String> {
    fn walk(field: &Field, path: &str, found: &mut BTreeSet<String>) {
        if field.encrypted {
            found.insert(path.to_owned());
        }
        match field.kind {
            Type::Record(fields) => {
                for field in fields {
                    walk(field, &format!("{path}.{}", field.name), found);
                }
            }
            Type::Array(elements) | Type::Set(elements) => walk(elements, path, found),
            Type::Map { values, .. } => walk(values, path, found),
            Type::String
            | Type::Integer
            | Type::Number
            | Type::Boolean
            | Type::Foreign(_)
            | Type::Config
            | Type::Json => {}
        }
    }
    let mut found = BTreeSet::new();
    for kind in Kind::ALL {
        let schema = kind.schema();
        for field in schema.fields {
            walk(
                field,
                &format!("{}.{}", schema.entity, field.name),
                &mut found,
            );
        }
    }
    for plugin in PLUGINS {
        walk(
            &plugin.config,
            &format!("{}.config", plugin.name),
            &mut found,
        );
    }
    found
}

/// Configurations that need more than their secrets.
fn config_of(plugin: &str) -> Value {
    let llm = || {
        json!({
            "route_type": "llm/v1/chat", "model": { "provider": "openai", "name": "m" },
            "auth": { "header_name": "authorization", "param_name": "key", "param_location": "query" },
        })
    };
    match plugin {
        "acme" => json!({ "storage": "redis", "storage_config": { "redis": { "host": "h" } } }),
        "rate-limiting" => json!({ "minute": 5 }),
        "response-ratelimiting" => json!({ "limits": { "video": { "minute": 5 } } }),
        "proxy-cache" => json!({ "strategy": "memory" }),
        "aws-lambda" => json!({ "function_name": "f", "aws_region": "eu-west-1" }),
        "azure-functions" => json!({ "appname": "a", "functionname": "f" }),
        "oauth2" => json!({ "enable_client_credentials": true, "scopes": ["email"] }),
        "ai-proxy" => llm(),
        "ai-request-transformer" | "ai-response-transformer" => {
            json!({ "prompt": "p", "llm": llm() })
        }
        _ => json!({}),
    }
}

/// Where in PEM a text stands that no other key has.
fn heart(pem: &str) -> String {
    pem.lines().nth(1).unwrap()[..40].to_owned()
}

/// Makes an entity, and gives its id.
fn post(cluster: &Cluster, path: &str, body: &Value) -> String {
    let answer = cluster.post(0, path, body).unwrap();
    assert_eq!(answer.status, 201, "{path} {body}: {}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

/// Puts a secret into every field that takes one. Gives what must not be found.
fn plant(cluster: &Cluster) -> Vec<String> {
    let mut planter = Planter::default();
    let mut needles = vec![CANARY.to_owned()];
    plant_credentials(cluster, &mut planter);
    needles.extend(plant_keys(cluster, &mut planter));
    let plugins: BTreeSet<String> = all_secrets()
        .iter()
        .filter_map(|path| path.split_once(".config.").map(|(name, _)| name.to_owned()))
        .collect();
    for name in plugins {
        let body = planter.plugin(&name, config_of(&name));
        post(cluster, "/plugins", &body);
    }
    assert_eq!(planter.planted, all_secrets());
    needles
}

fn plant_credentials(cluster: &Cluster, planter: &mut Planter) {
    post(cluster, "/consumers", &json!({ "username": "ann" }));
    let mut plant = |entity: &str, path: &str, field: &str, mut body: Value| {
        body[field] = planter.secret(&format!("{entity}.{field}")).into();
        post(cluster, path, &body)
    };
    let path = |own: &str| format!("/consumers/ann/{own}");
    let user = || json!({ "username": "a" });
    plant("keyauth_credentials", &path("key-auth"), "key", json!({}));
    plant(
        "basicauth_credentials",
        &path("basic-auth"),
        "password",
        user(),
    );
    plant("hmacauth_credentials", &path("hmac-auth"), "secret", user());
    plant("jwt_secrets", &path("jwt"), "secret", json!({ "key": "k" }));
    let application = json!({ "name": "app" });
    let application = plant(
        "oauth2_credentials",
        &path("oauth2"),
        "client_secret",
        application,
    );
    for field in ["access_token", "refresh_token"] {
        let token = json!({ "credential": { "id": application }, "expires_in": 60 });
        plant("oauth2_tokens", "/oauth2_tokens", field, token);
    }
}

/// Keys have forms that leave no room for a canary. Gives what of them must not be found.
fn plant_keys(cluster: &Cluster, planter: &mut Planter) -> [String; 4] {
    let pair = || {
        let names = vec!["a.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let ((cert, key), rsa) = (pair(), rsa());
    let certificate = json!({ "cert": cert, "key": key, "cert_alt": rsa.0, "key_alt": rsa.1 });
    post(cluster, "/certificates", &certificate);
    let private = rcgen::KeyPair::generate().unwrap();
    let pem = private.serialize_pem();
    let pair = json!({ "private_key": pem, "public_key": private.public_key_pem() });
    post(cluster, "/keys", &json!({ "kid": "p", "pem": pair }));
    // The example of RFC 7517, appendix A.2.
    let secret = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE";
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "j", "d": secret,
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    post(
        cluster,
        "/keys",
        &json!({ "kid": "j", "jwk": jwk.to_string() }),
    );
    for path in [
        "certificates.key",
        "certificates.key_alt",
        "keys.pem.private_key",
        "keys.jwk",
    ] {
        planter.secret(path);
    }
    [heart(&key), heart(&rsa.1), heart(&pem), secret.to_owned()]
}

/// An RSA certificate and its key.
fn rsa() -> (String, String) {
    let pki = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/tests/pem");
    let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
    (read("rsa.crt"), read("rsa.key"))
}

/// The files below a directory that hold one of these texts.
fn found_in(directory: &Path, needles: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match fs::read(&path) {
                Ok(bytes) if holds(&bytes, needles) => {
                    found.insert(path.display().to_string());
                }
                Ok(_) => {}
                Err(_) => directories.push(path),
            }
        }
    }
    found
}

fn holds(bytes: &[u8], needles: &[String]) -> bool {
    let mut texts = needles.iter().map(String::as_bytes);
    texts.any(|text| bytes.windows(text.len()).any(|window| window == text))
}

/// Everything that is written by the end of a life with changes, snapshots and restarts.
fn live(cluster: &mut Cluster) -> Vec<String> {
    let needles = plant(cluster);
    let cut = cluster.post(0, "/log/snapshots", &json!({})).unwrap();
    assert_eq!(cut.status, 201, "{}", cut.body);
    // An old secret is one as well, and so is one that has come back.
    let before = cluster.converge().unwrap();
    let secret = json!({ "key": "k", "secret": format!("{CANARY}-later") });
    let consumer = json!({ "username": "ann", "jwt_secrets": [secret] });
    let file = json!({ "_format_version": "3.0", "consumers": [consumer] });
    cluster.apply(0, &file).unwrap();
    let back = cluster
        .post(0, "/log/rollback", &json!({ "to": before }))
        .unwrap();
    assert_eq!(back.status, 200, "{}", back.body);
    cluster.converge().unwrap();
    cluster.datas[0].restart().unwrap();
    cluster.controls[0].restart().unwrap();
    cluster.converge().unwrap();
    let archive = cluster.directory.path().join("archive");
    let mut export = processes::command("sluice").unwrap();
    export
        .args(["log", "export", "--nats-url", &cluster.nats.url()])
        .arg(&archive);
    let exported = export.output().unwrap();
    assert!(
        exported.status.success(),
        "{}",
        String::from_utf8_lossy(&exported.stderr)
    );
    needles
}

/// The bodies of the newest snapshot: its chunks are compressed, so that nothing would be found in their bytes.
fn snapshot_bodies(cluster: &Cluster) -> Vec<u8> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = Options {
            servers: vec![cluster.nats.url()],
            cluster: "main".into(),
            ..Options::new(Role::DataPlane, "secrets-test")
        };
        let source = connected(options).await;
        let stored = source.chunks.roots().await.unwrap();
        let roots = stored
            .iter()
            .filter_map(|stored| Root::read(&stored.root).ok());
        let (newest, _) = roots.max_by_key(|(root, _)| root.cursor.version).unwrap();
        let state = load_state(source.chunks.clone(), &newest).await.unwrap();
        let bodies = state
            .iter()
            .flat_map(|(_, entry)| entry.body.as_bytes().to_vec());
        bodies.collect()
    })
}

/// All that a caller who may only read can get.
fn told_to_readers(cluster: &Cluster) -> String {
    let reader = Connection::to(cluster.controls[1].url());
    let collections = Kind::ALL.iter().filter_map(|kind| kind.schema().path);
    let mut paths: Vec<String> = collections
        .map(|path| format!("/{path}?size=1000"))
        .collect();
    for path in [
        "/log/events",
        "/log/diff?from=1",
        "/nodes",
        "/status",
        "/log/secrets",
        "/log/history/consumer/ann",
    ] {
        paths.push(path.to_owned());
    }
    let version = cluster.converge().unwrap();
    paths.extend((1..=version).map(|version| format!("/log/events/{version}")));
    let mut told = String::new();
    for path in paths {
        match reader.get(&path) {
            Ok(answer) => told += &answer.to_string(),
            Err(error) => told += &format!("{error:#}"),
        }
    }
    for metrics in [cluster.controls[0].url(), cluster.datas[0].status_url()] {
        told += &Connection::to(metrics).get_text("/metrics").unwrap();
    }
    told + &cluster.data_status(0).unwrap().to_string() + &cluster.said() + &cluster.nats.said()
}

#[test]
fn no_secret_is_in_what_is_written_logged_or_told() {
    let mut cluster = Cluster::start(1, 1).unwrap();
    cluster.add_reader().unwrap();
    let needles = live(&mut cluster);
    assert_eq!(
        found_in(cluster.nats.directory(), &needles),
        BTreeSet::new()
    );
    assert_eq!(
        found_in(cluster.directory.path(), &needles),
        BTreeSet::new()
    );
    assert!(!holds(&snapshot_bodies(&cluster), &needles));
    let told = told_to_readers(&cluster);
    assert!(!holds(told.as_bytes(), &needles), "{told}");
    assert!(told.contains("(secret)"), "{told}");
    // Who may change things sees them.
    let shown = cluster.admin(0).get("/key-auths").unwrap().to_string();
    assert!(shown.contains(CANARY), "{shown}");
}

#[test]
fn without_keys_the_same_search_finds_them_everywhere() {
    let mut cluster = Cluster::start_clear(1, 1).unwrap();
    let needles = live(&mut cluster);
    let found = found_in(cluster.directory.path(), &needles);
    for place in ["/cp-0/", "/dp-0/"] {
        assert!(
            found.iter().any(|path| path.contains(place)),
            "{place}: {found:?}"
        );
    }
    assert!(!found_in(cluster.nats.directory(), &needles).is_empty());
    assert!(holds(&snapshot_bodies(&cluster), &needles));
}
