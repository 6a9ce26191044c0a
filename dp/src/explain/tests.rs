//! From a question to all that is told.

use super::*;
use serde_json::{Value, json};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;

const SERVICE: u128 = 1;
const ROUTE: u128 = 2;
const CONSUMER: u128 = 3;
const UPSTREAM: u128 = 4;
const CANARY: &str = "canary-in-a-config";

fn reference(number: u128) -> Value {
    json!({"id": Uuid::from_u128(number).to_string()})
}

fn put(kind: Kind, number: u128, fields: &Value) -> Change {
    Change {
        key: Key {
            kind: kind.key_name(),
            workspace: Workspace::DEFAULT,
            id: Id(Uuid::from_u128(number)),
        },
        before: None,
        after: Some(Entry {
            version: Version(5),
            body: Body::encode(fields.as_object().unwrap()),
        }),
    }
}

fn with(mut fields: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else {
        unreachable!("changes are an object")
    };
    for (name, value) in changes {
        fields[name] = value;
    }
    fields
}

fn service(changes: Value) -> Change {
    let fields = json!({
        "name": "shop", "protocol": "http", "host": "shop.internal", "port": 8080, "path": "/v1", "retries": 5,
        "connect_timeout": 1000, "write_timeout": 2000, "read_timeout": 3000, "enabled": true,
    });
    put(Kind::Service, SERVICE, &with(fields, changes))
}

fn route(changes: Value) -> Change {
    let fields = json!({
        "name": "cart", "protocols": ["http", "https"], "paths": ["/cart"], "service": reference(SERVICE),
        "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true, "path_handling": "v0",
        "preserve_host": false, "request_buffering": true, "response_buffering": true,
    });
    put(Kind::Route, ROUTE, &with(fields, changes))
}

fn plugin(number: u128, name: &str, changes: Value) -> Change {
    let fields =
        json!({"name": name, "protocols": ["http"], "enabled": true, "config": {"minute": 5}});
    put(Kind::Plugin, number, &with(fields, changes))
}

fn table(changes: &[Change]) -> Table {
    Table::empty().apply(Version(9), changes).0
}

fn ask(url: &str) -> Question {
    Question {
        method: "get".to_owned(),
        url: url.to_owned(),
        ..Question::default()
    }
}

fn told(table: &Table, question: &Question) -> Value {
    let explanation = explain(table, &Asked::parse(question).unwrap());
    serde_json::to_value(explanation).unwrap()
}

fn told_of(changes: &[Change], url: &str) -> Value {
    told(&table(changes), &ask(url))
}

fn status(explanation: &Value) -> &Value {
    &explanation["outcome"]["status"]
}

#[test]
fn the_way_of_a_request_is_told_from_route_to_upstream() {
    let changes = [service(json!({})), route(json!({}))];
    let told = told_of(&changes, "http://Shop.example:81/cart//items?x=1");
    assert_eq!(told["version"], 9);
    assert_eq!(told["request"]["path"], "/cart/items");
    assert_eq!(
        (&told["request"]["host"], &told["request"]["port"]),
        (&json!("shop.example"), &json!(81))
    );
    assert_eq!(told["outcome"], json!({"kind": "sent"}));
    assert_eq!(told["route"]["name"], "cart");
    assert_eq!(told["route"]["matched"], "/cart");
    assert_eq!(told["route"]["version"], 5);
    assert_eq!(told["service"]["read_timeout"], 3000);
    assert_eq!(
        told["sent"]["url"],
        "http://shop.internal:8080/v1/items?x=1"
    );
    assert_eq!(told["sent"]["host"], "shop.internal:8080");
    let kept = [
        service(json!({})),
        route(json!({"strip_path": false, "preserve_host": true})),
    ];
    let told = told_of(&kept, "http://Shop.example:81/cart");
    assert_eq!(told["sent"]["url"], "http://shop.internal:8080/v1/cart");
    assert_eq!(told["sent"]["host"], "shop.example:81");
}

#[test]
fn targets_are_told_with_their_upstream() {
    let upstream = json!({"name": "pool", "algorithm": "least-connections", "slots": 100, "host_header": "in"});
    let target = |weight: u16| {
        let fields =
            json!({"target": "10.0.0.1:80", "weight": weight, "upstream": reference(UPSTREAM)});
        put(Kind::Target, 5, &fields)
    };
    let changes = |weight| {
        [
            service(json!({"host": "pool"})),
            route(json!({})),
            put(Kind::Upstream, UPSTREAM, &upstream),
            target(weight),
        ]
    };
    let told = told_of(&changes(7), "http://a/cart");
    assert_eq!(told["upstream"]["algorithm"], "least-connections");
    let target = &told["upstream"]["targets"]["data"][0];
    assert_eq!(
        (&target["name"], &target["weight"]),
        (&json!("10.0.0.1:80"), &json!(7))
    );
    assert_eq!(told["sent"], json!({"url": "http://pool/v1", "host": "in"}));
    assert_eq!(*status(&told_of(&changes(0), "http://a/cart")), 503);
}

#[test]
fn what_the_gateway_answers_by_itself_is_told() {
    let way = |route_changes, service_changes| [service(service_changes), route(route_changes)];
    let only_tls = |code: u16| json!({"protocols": ["https"], "https_redirect_status_code": code});
    let all = way(json!({}), json!({}));
    assert_eq!(*status(&told_of(&all, "http://a/other")), 404);
    assert_eq!(*status(&told_of(&all, "http://a/%zz")), 400);
    let trace = Question {
        method: "TRACE".to_owned(),
        ..ask("http://a/cart")
    };
    assert_eq!(*status(&told(&table(&all), &trace)), 405);
    let upgrade = told_of(&way(only_tls(426), json!({})), "http://a/cart");
    assert_eq!(*status(&upgrade), 426);
    let redirect = told_of(&way(only_tls(301), json!({})), "http://a/cart?x=1");
    assert_eq!(redirect["outcome"]["location"], "https://a/cart?x=1");
    assert_eq!(redirect["route"]["name"], "cart");
    let limited = [
        service(json!({})),
        route(only_tls(426)),
        plugin(10, "rate-limiting", json!({})),
    ];
    let notes = told_of(&limited, "http://a/cart")["notes"].to_string();
    assert!(
        notes.contains("before the plugins' access phase"),
        "{notes}"
    );
    let over_tls = told_of(&way(only_tls(301), json!({})), "https://a/cart");
    assert_eq!(over_tls["outcome"]["kind"], "sent");
    assert_eq!(over_tls["request"]["sni"], "a");
    let off = told_of(&way(json!({}), json!({"enabled": false})), "http://a/cart");
    assert_eq!(*status(&off), 404);
    let nowhere = told_of(&way(json!({"service": null}), json!({})), "http://a/cart");
    assert_eq!(*status(&nowhere), 503);
    let raw = told_of(
        &way(json!({}), json!({"protocol": "tcp", "path": null})),
        "http://a/cart",
    );
    assert_eq!(*status(&raw), 502);
    let grpc = told_of(
        &way(json!({"protocols": ["grpc"]}), json!({})),
        "http://a/cart",
    );
    assert_eq!(*status(&grpc), 415);
}

/// Names, whose they are, and why they do not run.
fn lines(list: &Value, last: &str) -> Vec<[String; 3]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each = list.as_array().unwrap().iter();
    each.map(|one| [text(&one["name"]), text(&one["of"]), text(&one[last])])
        .collect()
}

#[test]
fn plugins_are_told_in_order_with_those_that_are_hidden_or_off() {
    let changes = [
        service(json!({})),
        route(json!({})),
        plugin(10, "rate-limiting", json!({"service": reference(SERVICE)})),
        plugin(11, "rate-limiting", json!({"route": reference(ROUTE)})),
        plugin(12, "bot-detection", json!({"config": {}})),
        plugin(
            13,
            "key-auth",
            json!({"enabled": false, "config": {"key_names": [CANARY]}}),
        ),
        plugin(
            14,
            "request-termination",
            json!({"config": {"message": CANARY}, "route": reference(99)}),
        ),
        plugin(
            15,
            "correlation-id",
            json!({"config": {"header_name": CANARY, "generator": "uuid", "echo_downstream": false}, "protocols": ["tcp"]}),
        ),
    ];
    let told = told_of(&changes, "http://a/cart");
    let row = |name: &str, of: &str, why: &str| [name, of, why].map(str::to_owned);
    assert_eq!(
        lines(&told["plugins"], ""),
        [
            row("bot-detection", "everything", ""),
            row("rate-limiting", "the route", "")
        ]
    );
    let protocols = "its protocols are none of HTTP; none of the same name runs in its place";
    assert_eq!(
        lines(&told["plugins_left_out"], "reason"),
        [
            row("correlation-id", "everything", protocols),
            row(
                "rate-limiting",
                "the service",
                "hidden by that of the route"
            ),
            row("key-auth", "everything", "disabled"),
        ]
    );
    assert!(!told.to_string().contains(CANARY), "{told}");
    assert!(
        told["plugins"][1]["phases"]
            .as_array()
            .unwrap()
            .contains(&json!("access"))
    );
}

#[test]
fn what_belongs_to_a_consumer_takes_part_if_one_is_named_and_can_be_known() {
    let consumer = json!({"username": "anna"});
    let of_consumer = json!({"consumer": reference(CONSUMER)});
    let changes = [
        service(json!({})),
        route(json!({})),
        put(Kind::Consumer, CONSUMER, &consumer),
        plugin(10, "rate-limiting", json!({})),
        plugin(11, "rate-limiting", of_consumer),
    ];
    let anna = |changes: &[Change], name: &str| {
        let question = Question {
            consumer: Some(name.to_owned()),
            ..ask("http://a/cart")
        };
        told(&table(changes), &question)
    };
    let of = |told: &Value| {
        let plugins = told["plugins"].as_array().unwrap();
        plugins.last().unwrap()["of"].as_str().unwrap().to_owned()
    };
    let notes = |told: &Value| told["notes"].to_string();
    let unknown = anna(&changes, "anna");
    assert_eq!(of(&unknown), "everything");
    assert!(notes(&unknown).contains("no plugin here says who the consumer is"));
    let known: Vec<Change> = changes
        .into_iter()
        .chain([plugin(
            12,
            "key-auth",
            json!({"config": {"key_names": ["apikey"]}}),
        )])
        .collect();
    let explained = anna(&known, "anna");
    assert_eq!(of(&explained), "the consumer");
    let hidden = lines(&explained["plugins_left_out"], "reason");
    assert_eq!(hidden[0][2], "hidden by that of the consumer");
    assert!(notes(&anna(&known, "bob")).contains("no consumer bob"));
    let nobody = told(&table(&known), &ask("http://a/cart"));
    assert_eq!(of(&nobody), "everything");
    assert!(notes(&nobody).contains("--consumer"));
}

#[test]
fn what_could_not_be_taken_up_is_told_if_it_may_have_had_a_part() {
    let good = table(&[service(json!({})), route(json!({}))]);
    let (table, rejected) = good.apply(
        Version(10),
        &[
            route(json!({"paths": ["~("]})),
            plugin(10, "unheard-of", json!({})),
            put(Kind::Certificate, 20, &json!({"cert": "x", "key": "x"})),
        ],
    );
    assert_eq!(rejected.len(), 3);
    let told = told(&table, &ask("http://a/cart"));
    assert_eq!(told["rejected"]["total"], 2);
    assert_eq!(told["rejected"]["data"][0]["kind"], "route");
    assert_eq!(told["rejected"]["data"][0]["takes_part"], true);
    assert_eq!(told["rejected"]["data"][1]["takes_part"], false);
}

#[test]
fn lists_are_cut_and_counted() {
    let routes = (0..30_u128).map(|number| {
        let mut change = route(json!({"paths": ["/cart"]}));
        change.key.id = Id(Uuid::from_u128(100 + number));
        change
    });
    let changes: Vec<Change> = routes.collect();
    let told = told_of(&changes, "http://a/cart");
    assert_eq!(told["losers"]["total"], 29);
    assert_eq!(told["losers"]["data"].as_array().unwrap().len(), LISTED_MAX);
    let missed = told_of(&changes, "http://a/car");
    assert_eq!(missed["near_misses"]["total"], 30);
    assert!(missed["route"].is_null());
}

#[test]
fn questions_that_no_client_could_ask_are_refused_without_repeating_secrets() {
    let error = |question: Question| Asked::parse(&question).unwrap_err().to_string();
    assert!(error(ask("/cart")).contains("names no host"));
    assert!(error(ask("ftp://a/")).contains("not a URL of http"));
    assert!(error(ask("http://a b/")).contains("not a URL"));
    let header = Question {
        headers: vec![("x".to_owned(), format!("{CANARY}\n"))],
        ..ask("http://a/")
    };
    let inner = Question {
        headers: vec![("x".to_owned(), format!("{CANARY}\nx"))],
        ..ask("http://a/")
    };
    assert!(Asked::parse(&header).is_ok());
    assert!(!error(inner).contains(CANARY));
    let elsewhere = Question {
        headers: vec![("Host".to_owned(), "b:82".to_owned())],
        ..ask("/cart")
    };
    let asked = Asked::parse(&elsewhere).unwrap();
    let head = asked.head().unwrap();
    assert_eq!((head.host, head.port, head.tls), ("b", 82, false));
}
