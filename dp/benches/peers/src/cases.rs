//! Random expressions and what they say of some requests.

use crate::Dice;
use atc_router::ast::{Type, Value};
use atc_router::context::Context;
use atc_router::router::Router;
use atc_router::schema::Schema;
use serde_json::{Value as Json, json};
use uuid::Uuid;

const CASES: usize = 400;

/// The fields of a request, as Kong declares them.
fn schema() -> Schema {
    let mut schema = Schema::default();
    for name in [
        "net.protocol",
        "tls.sni",
        "http.method",
        "http.host",
        "http.path",
        "http.path.segments.*",
        "http.headers.*",
        "http.queries.*",
    ] {
        schema.add_field(name, Type::String);
    }
    for name in NUMBERS {
        schema.add_field(name, Type::Int);
    }
    for name in ENDS {
        schema.add_field(name, Type::IpAddr);
    }
    schema
}

const TEXTS: &[&str] = &[
    "net.protocol",
    "tls.sni",
    "http.method",
    "http.host",
    "http.path",
    "http.path.segments.0",
    "http.path.segments.0_1",
    "http.headers.x_a",
    "http.headers.x_b",
    "http.queries.q",
];
const TEXT_TESTS: &[&str] = &["==", "!=", "^=", "=^", "~", "contains"];
const TEXT_VALUES: &[&str] = &[
    r#""a.b""#,
    r#""/a""#,
    r##"r#"/a/b"#"##,
    r#""GET""#,
    r#""https""#,
    r#""a""#,
    r#""b""#,
    r#""one""#,
    r#""One""#,
    r#""""#,
    r#""^/?[ab]""#,
    r##"r#"o\w+$"#"##,
];
const NUMBERS: &[&str] = &["net.src.port", "net.dst.port", "http.path.segments.len"];
const NUMBER_TESTS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
const NUMBER_VALUES: &[&str] = &["80", "0x50", "0120", "2", "-1", "0"];
const ENDS: &[&str] = &["net.src.ip", "net.dst.ip"];
const END_TESTS: &[&str] = &["==", "!=", "in", "not in"];
const END_VALUES: &[&str] = &["10.0.0.1", "fd00::1", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0"];

pub fn make() -> String {
    let schema = schema();
    let requests = requests();
    let mut dice = Dice(0x0051_7e5a_11ce);
    let cases: Vec<String> = (0..CASES)
        .map(|_| {
            let expression = expression(&mut dice, 0);
            let mut router = Router::new(&schema);
            // Wrongly typed ones are cases too.
            let holds = match router.add_matcher(0, Uuid::nil(), &expression) {
                Err(_) => Json::Null,
                Ok(()) => requests
                    .iter()
                    .map(|request| router.execute(&mut context(&schema, request)))
                    .collect(),
            };
            json!({ "expression": expression, "holds": holds }).to_string()
        })
        .collect();
    let requests: Vec<String> = requests.iter().map(Json::to_string).collect();
    format!(
        "{{\"requests\": [\n{}\n],\n\"cases\": [\n{}\n]}}",
        requests.join(",\n"),
        cases.join(",\n")
    )
}

fn expression(dice: &mut Dice, depth: usize) -> String {
    let count = 1 + dice.below(3);
    let mut text = String::new();
    for index in 0..count {
        if index > 0 {
            text += [" && ", " || ", "||"][dice.below(3)];
        }
        text += &match dice.below(if depth < 2 { 6 } else { 4 }) {
            4 => format!("({})", expression(dice, depth + 1)),
            5 => format!("! ({})", expression(dice, depth + 1)),
            _ => predicate(dice),
        };
    }
    text
}

fn predicate(dice: &mut Dice) -> String {
    let mut one = |list: &[&'static str]| list[dice.below(list.len())];
    match one(&["text", "text", "text", "text", "number", "end"]) {
        "number" => {
            let (field, test, value) = (one(NUMBERS), one(NUMBER_TESTS), one(NUMBER_VALUES));
            format!("{field} {test}{value}")
        }
        "end" => {
            let (field, test, value) = (one(ENDS), one(END_TESTS), one(END_VALUES));
            format!("{field} {test} {value}")
        }
        _ => {
            let (field, test, value) = (one(TEXTS), one(TEXT_TESTS), one(TEXT_VALUES));
            let function = one(&["", "", "", "lower(", "any(", "any( lower("]);
            let close = ")".repeat(function.matches('(').count());
            format!("{function}{field}{close} {test} {value}")
        }
    }
}

fn requests() -> Vec<Json> {
    vec![
        json!({"method": "GET", "host": "a.b", "port": 80, "path": "/", "tls": false, "source": "10.0.0.1:80",
            "destination": "10.0.0.2", "headers": [], "query": null, "sni": null}),
        json!({"method": "POST", "host": "c.a.b", "port": 8080, "path": "/a", "tls": true, "source": "192.0.2.1:2",
            "destination": "10.0.0.2", "headers": [["x-a", "one"], ["x-a", "One"], ["x-b", "b"]], "query": "q=a&q=b",
            "sni": "a.b"}),
        json!({"method": "GET", "host": "a.b", "port": 80, "path": "/a/b/c", "tls": true, "source": "[fd00::1]:9",
            "destination": "fd00::2", "headers": [["x-a", "a"], ["x-a", "a"]], "query": "q", "sni": null}),
        json!({"method": "BREW", "host": "b", "port": 80, "path": "/b/a", "tls": false, "source": "10.0.0.1:80",
            "destination": "10.0.0.1", "headers": [["x-b", "One"]], "query": "q=one&r=1", "sni": null}),
        json!({"method": "GET", "host": "x.a.b", "port": 2, "path": "/one/a", "tls": true, "source": "10.9.9.9:80",
            "destination": "192.0.2.1", "headers": [["x-a", ""], ["x-b", "b"], ["x-b", "a"]], "query": "q=One",
            "sni": "b"}),
    ]
}

/// What Kong's gateway gives its router of a request.
fn context<'a>(schema: &'a Schema, request: &Json) -> Context<'a> {
    let mut context = Context::new(schema);
    let text = |name: &str| request[name].as_str().expect("a text");
    let mut add = |field: &str, value: &str| context.add_value(field, Value::String(value.into()));
    let tls = request["tls"] == true;
    add("net.protocol", if tls { "https" } else { "http" });
    add("http.method", text("method"));
    add("http.host", text("host"));
    add("http.path", text("path"));
    if let Some(sni) = request["sni"].as_str() {
        add("tls.sni", sni);
    }
    let segments: Vec<_> = text("path")
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    if let Some(first) = segments.first() {
        add("http.path.segments.0", first);
    }
    if let [first, second, ..] = *segments {
        add("http.path.segments.0_1", &format!("{first}/{second}"));
    }
    for header in request["headers"].as_array().expect("headers") {
        let name = header[0].as_str().expect("a name").replace('-', "_");
        add(
            &format!("http.headers.{name}"),
            header[1].as_str().expect("a value"),
        );
    }
    for pair in request["query"]
        .as_str()
        .into_iter()
        .flat_map(|query| query.split('&'))
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        add(&format!("http.queries.{name}"), value);
    }
    let source: std::net::SocketAddr = text("source").parse().expect("an address");
    let number = |number: usize| Value::Int(number.try_into().expect("small"));
    context.add_value("http.path.segments.len", number(segments.len()));
    context.add_value("net.src.ip", Value::IpAddr(source.ip()));
    context.add_value("net.src.port", number(source.port().into()));
    let destination = text("destination").parse().expect("an address");
    context.add_value("net.dst.ip", Value::IpAddr(destination));
    context.add_value(
        "net.dst.port",
        Value::Int(request["port"].as_i64().expect("a port")),
    );
    context
}
