//! Expressions: random ones, evaluated a second time as their documentation reads, and what they leave.

use super::*;
use sluice_schema::expression::{
    AddressTest, End, Expression, NumberField, Predicate, Subsystem, TextField, TextTest, parse,
};

const ATOMS: &[&str] = &[
    r#"http.host == "a.b""#,
    r#"http.host == "C.A.B""#,
    r#"http.host =^ ".b""#,
    r#"http.host =^ "b""#,
    r#"http.host ^= "a.""#,
    r#"http.host != "a.b""#,
    r#"http.host ~ "^C\\.a""#,
    r#"http.host contains "a""#,
    r#"lower(http.host) == "a.b""#,
    r#"http.path == "/a""#,
    r#"http.path ^= "/a""#,
    r#"http.path ^= "/ab""#,
    r#"http.path ^= "/""#,
    r#"http.path =^ "c""#,
    r#"http.path ~ "^/(a|b)c?""#,
    r#"http.path ~ "^/ab""#,
    r#"http.path ~ "^/a|c""#,
    r#"http.path ~ "b(c)?""#,
    r#"http.path != "/a""#,
    r#"http.path contains "b""#,
    r#"lower(http.path) ^= "/a""#,
    r#"http.path.segments.0 == "a""#,
    r#"http.path.segments.0 ^= "a""#,
    r#"http.path.segments.1 == "b""#,
    r#"http.path.segments.0_1 == "a/b""#,
    "http.path.segments.len > 1",
    "http.path.segments.len == 0",
    r#"http.method == "GET""#,
    r#"http.method == "BREW""#,
    r#"http.method != "GET""#,
    r#"http.headers.x == "1""#,
    r#"any(http.headers.x) == "1""#,
    r#"http.headers.x != "1""#,
    r#"lower(http.headers.x_y) == "two""#,
    r#"any(lower(http.headers.x)) ~ "^t""#,
    r#"http.queries.q == "1""#,
    r#"any(http.queries.q) == "1 2""#,
    r#"http.queries.r == """#,
    r#"net.protocol == "https""#,
    r#"tls.sni == "a.b""#,
    r#"tls.sni =^ ".B""#,
    "net.dst.port == 81",
    "net.port <= 80",
    "net.src.port >= 9",
    "net.src.ip in 10.0.0.0/8",
    "net.src.ip not in 10.0.0.0/8",
    "net.src.ip == 127.0.0.1",
];

pub(super) fn expression() -> impl Strategy<Value = String> {
    let atom = select(ATOMS).prop_map(str::to_owned);
    atom.prop_recursive(3, 12, 3, |inner| {
        let joined = |sign| vec(inner.clone(), 2..4).prop_map(move |parts| parts.join(sign));
        prop_oneof![
            joined(" && "),
            joined(" || "),
            inner.clone().prop_map(|inner| format!("!({inner})")),
            inner.prop_map(|inner| format!("({inner})")),
        ]
    })
}

/// How many bytes of the path it matched, if it holds.
pub(super) fn naive_matches(route: &kind::Route, request: &Request) -> Option<usize> {
    let served = match request.tls {
        true => ["https", "grpcs"],
        false => ["http", "grpc"],
    };
    let any = |names: &[&str]| {
        route
            .protocols
            .iter()
            .any(|name| names.contains(&name.as_str()))
    };
    if !any(&served) && route.protocols != ["https"] {
        return None;
    }
    let text = route.expression.as_ref()?;
    evaluate(&parse(text, Subsystem::Http).unwrap(), request, 0)
}

/// `matched` is what was matched before.
fn evaluate(expression: &Expression, request: &Request, matched: usize) -> Option<usize> {
    match expression {
        Expression::All(parts) => parts
            .iter()
            .try_fold(matched, |matched, part| evaluate(part, request, matched)),
        Expression::Any(parts) => parts
            .iter()
            .find_map(|part| evaluate(part, request, matched)),
        Expression::Not(inner) => match evaluate(inner, request, matched) {
            Some(_) => None,
            None => Some(matched),
        },
        Expression::Is(Predicate::Number { field, test, value }) => {
            let segments = request.path.split('/').filter(|part| !part.is_empty());
            let number = match field {
                NumberField::SegmentCount => segments.count(),
                NumberField::Port(End::Source) => request.source.port().into(),
                NumberField::Port(End::Destination) => request.port.into(),
            };
            test.passes(number.try_into().unwrap(), *value)
                .then_some(matched)
        }
        Expression::Is(Predicate::Address { test, .. }) => {
            let std::net::IpAddr::V4(ip) = request.source.ip() else {
                panic!("not made here");
            };
            let ten = ip.octets()[0] == 10;
            let passes = match test {
                AddressTest::In(_) => ten,
                AddressTest::NotIn(_) => !ten,
                AddressTest::Equal(other) => other == &ip,
                AddressTest::NotEqual(other) => other != &ip,
            };
            passes.then_some(matched)
        }
        Expression::Is(Predicate::Text {
            field,
            lower,
            any,
            test,
            value,
        }) => {
            let values = values(field, request);
            let wanted = match matches!(field, TextField::Host | TextField::Sni) {
                true => value.to_lowercase(),
                false => value.clone(),
            };
            let passes = |text: &String| {
                let text = match lower {
                    true => text.to_lowercase(),
                    false => text.clone(),
                };
                compare(*test, &text, &wanted, value)
            };
            let holds = match any {
                true => values.iter().any(passes),
                false => !values.is_empty() && values.iter().all(passes),
            };
            let matched = match (*field == TextField::Path).then_some(test) {
                Some(TextTest::Equal | TextTest::Prefix) => value.len(),
                Some(TextTest::Regex) => {
                    let pattern = regex(value);
                    let found = pattern.find(&request.path);
                    let begins = found.filter(|found| found.start() == 0);
                    begins.map_or(matched, |found| found.end())
                }
                Some(TextTest::NotEqual | TextTest::Suffix | TextTest::Contains) | None => matched,
            };
            holds.then_some(matched)
        }
    }
}

fn compare(test: TextTest, text: &str, wanted: &str, pattern: &str) -> bool {
    match test {
        TextTest::Equal => text == wanted,
        TextTest::NotEqual => text != wanted,
        TextTest::Prefix => text.starts_with(wanted),
        TextTest::Suffix => text.ends_with(wanted),
        TextTest::Contains => text.contains(wanted),
        TextTest::Regex if pattern.starts_with("^C") => text.starts_with("c.a"),
        TextTest::Regex => regex(pattern).is_match(text),
    }
}

fn values(field: &TextField, request: &Request) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match field {
        TextField::Protocol => one(if request.tls { "https" } else { "http" }),
        TextField::Sni => {
            let sni = request.sni.filter(|_| request.tls).into_iter();
            sni.map(|sni| sni.trim_end_matches('.').to_lowercase())
                .collect()
        }
        TextField::Method => one(request.method),
        TextField::Host if request.host.is_empty() => Vec::new(),
        TextField::Host => one(request.host),
        TextField::Path => one(&request.path),
        TextField::Segments { first, last } => {
            let segments: Vec<_> = request
                .path
                .split('/')
                .filter(|part| !part.is_empty())
                .collect();
            let range = segments.get(*first..=*last);
            range.into_iter().map(|range| range.join("/")).collect()
        }
        TextField::Header(name) => {
            let headers = request.headers.iter();
            let named = headers.filter(|(other, _)| other.as_str().replace('-', "_") == *name);
            named
                .map(|(_, value)| value.to_str().unwrap().to_owned())
                .collect()
        }
        TextField::Query(name) => {
            let pairs = request.query.unwrap_or_default().split('&');
            let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let named = pairs.filter(|(other, _)| other == name);
            named
                .map(|(_, value)| value.replace('+', " ").replace("%31", "1"))
                .collect()
        }
    }
}

fn route_of(expression: &str, priority: u64) -> kind::Route {
    let route = serde_json::json!({
        "protocols": ["http", "https"], "expression": expression, "priority": priority,
        "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true, "path_handling": "v0",
        "preserve_host": false, "request_buffering": true, "response_buffering": true,
    });
    serde_json::from_value(route).unwrap()
}

fn find_among(expressions: &[(&str, u64)], path: &str) -> Option<Match> {
    let mut router = Router::default();
    for (index, (expression, priority)) in (1..).zip(expressions) {
        let fields = route_of(expression, *priority);
        let route = compile(Uuid::from_u128(index), &fields, &router);
        router.insert(&route);
    }
    let request = Request {
        method: "GET",
        host: "a.b",
        port: 80,
        path: path.to_owned(),
        query: None,
        headers: HeaderMap::new(),
        sni: None,
        tls: false,
        source: SocketAddr::from(([127, 0, 0, 1], 1)),
    };
    router.find(&request.head())
}

#[test]
fn the_higher_priority_goes_first_then_the_larger_id() {
    let find = |expressions: &[(&str, u64)]| {
        find_among(expressions, "/a/b").map(|found| found.route.id.as_u128())
    };
    let (long, short) = (r#"http.path ^= "/a/b""#, r#"http.path ^= "/""#);
    assert_eq!(find(&[(long, 1), (short, 2)]), Some(2));
    assert_eq!(find(&[(long, 2), (short, 1)]), Some(1));
    assert_eq!(find(&[(long, 1), (short, 1)]), Some(2));
}

#[test]
fn groups_of_regexes_that_made_it_hold_are_kept() {
    let expression = r##"!(http.path ~ "^/(x)") && (http.path ~ "^/(?<no>zz)" || http.path ~ r#"^/(?<first>[a-z]+)/(?<id>\d+)"#)
        && http.host ~ "(?<label>[a-z]+)\\.""##;
    let found = find_among(&[(expression, 0)], "/users/17/x").unwrap();
    assert_eq!(found.matched("/users/17/x"), "/users/17");
    let captures = found.captures.unwrap();
    let named = |name| captures.named(name);
    assert_eq!(
        (named("first"), named("id"), named("label"), named("no")),
        (Some("users"), Some("17"), Some("a"), None)
    );
    assert_eq!(
        (captures.numbered(1), captures.numbered(2)),
        (Some("a"), Some("17"))
    );
}

#[test]
fn expressions_are_filed_under_what_they_need() {
    let places = |expression: &str| {
        let criteria = compile(Uuid::nil(), &route_of(expression, 0), &Router::default());
        let hosts = criteria.criteria.hosts.iter();
        let hosts: Vec<_> = hosts
            .map(|rule| match &rule.host {
                Host::Any => "any".to_owned(),
                Host::Exact(name) | Host::Suffix(name) | Host::Prefix(name) => name.to_string(),
            })
            .collect();
        let paths = criteria.criteria.paths.iter();
        let paths: Vec<_> = paths.map(|path| format!("{path:?}")).collect();
        format!("{} {}", hosts.join(","), paths.join(","))
    };
    assert_eq!(
        places(
            r#"http.path ^= "/a" && http.host == "x.y" && http.path ^= "/a/b" && http.method == "GET""#
        ),
        r#"x.y Prefix("/a/b")"#
    );
    assert_eq!(
        places(r#"(http.host == "x.y" || http.host =^ ".z") && http.path ~ "^/v\\d""#),
        r#"x.y,.z Prefix("/v")"#
    );
    assert_eq!(
        places(r#"!(http.host == "x.y") && (http.path == "/a" || net.port == 1)"#),
        r#"any Prefix("")"#
    );
}
