//! The router against a naive matcher that asks each route in turn, and against itself built afresh.

mod expressions;
mod ranking;
mod streams;

use super::*;
use crate::table::entity::Origin;
use crate::table::path::canonical_path;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use sluice_schema::entity::Workspace;
use sluice_schema::kind;
use sluice_schema::version::Version;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use uuid::Uuid;

const HOSTS: &[&str] = &[
    "a.b", "c.a.b", "A.c", "*.b", "*.a.b", "a.*", "c.a.*", "a.b:81", "*.b:81", "a.*:80",
];
const METHODS: &[&str] = &["GET", "POST", "BREW"];
const SNIS: &[&str] = &["a.b", "*.b", "a.*"];

fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/",
        "/a",
        "/ab",
        "/abc",
        "/a/b",
        "/b",
        "~/a",
        "~/(?<x>a|b)c?",
        r"~/a\d",
        "~/a|/b/c",
        "~/ab?",
        "~.*c",
        r"~/a(b)",
        "~(?i)/A",
    ]
    .map(String::from)
    .into();
    paths.push(format!("/{}", "a".repeat(300)));
    paths.push(format!("/{}b", "a".repeat(300)));
    paths.push(format!("~/{}c", "a".repeat(300)));
    paths
}

fn texts(choices: &[&str], most: usize) -> impl Strategy<Value = Vec<String>> + use<> {
    let choices: Vec<String> = choices.iter().map(|text| (*text).to_owned()).collect();
    prop_oneof![Just(Vec::new()), subsequence(choices, 0..=most)]
}

fn route() -> impl Strategy<Value = kind::Route> {
    let headers = prop_oneof![
        Just(BTreeMap::new()),
        select(vec![
            BTreeMap::from([("x".to_owned(), vec!["1".to_owned(), "Two".to_owned()])]),
            BTreeMap::from([("X_y".to_owned(), vec!["~*^t.*o$".to_owned()])]),
            BTreeMap::from([
                ("x".to_owned(), vec!["1".to_owned()]),
                ("x-y".to_owned(), vec!["two".to_owned()])
            ]),
        ]),
    ];
    let paths = prop_oneof![Just(Vec::new()), subsequence(paths(), 0..=4).prop_shuffle()];
    let fields = (
        texts(METHODS, 2),
        texts(HOSTS, 3),
        paths,
        headers,
        texts(SNIS, 1),
        -2i64..3,
    );
    let classic = fields.prop_map(|(methods, hosts, paths, headers, snis, regex_priority)| {
        let route = serde_json::json!({
            "protocols": ["http"], "methods": methods, "hosts": hosts, "paths": paths, "headers": headers,
            "snis": snis, "regex_priority": regex_priority, "https_redirect_status_code": 426, "strip_path": true,
            "path_handling": "v0", "preserve_host": false, "request_buffering": true, "response_buffering": true,
        });
        serde_json::from_value::<kind::Route>(route).unwrap()
    });
    let expression = option::weighted(0.4, (expressions::expression(), 0u64..3));
    let protocols = select(vec![vec!["http", "https"], vec!["https"], vec!["http"]]);
    (classic, expression, protocols).prop_map(|(route, expression, protocols)| {
        let Some((expression, priority)) = expression else {
            return route;
        };
        kind::Route {
            protocols: protocols.into_iter().map(str::to_owned).collect(),
            methods: Vec::new(),
            hosts: Vec::new(),
            paths: Vec::new(),
            headers: BTreeMap::new(),
            snis: Vec::new(),
            expression: Some(expression),
            priority,
            ..route
        }
    })
}

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    host: &'static str,
    port: u16,
    path: String,
    query: Option<&'static str>,
    headers: HeaderMap,
    sni: Option<&'static str>,
    tls: bool,
    source: SocketAddr,
}

fn request() -> impl Strategy<Value = Request> {
    let path = prop_oneof![
        "/[abcA1/]{0,5}",
        Just(format!("/{}bc", "a".repeat(300))),
        Just(format!("/{}", "a".repeat(280)))
    ];
    let path = path.prop_map(|path: String| canonical_path(&path).unwrap().into_owned());
    let query = select(vec![
        None,
        Some("q=1"),
        Some("q=1&q=1+2&r"),
        Some("r=&q=%31"),
    ]);
    let source = select(vec![[127, 0, 0, 1], [10, 1, 2, 3]]);
    let hosts = vec!["a.b", "c.a.b", "a.c", "d.c.a.b", "c.a.x", "b", "", "x.y"];
    let headers = vec![
        ("x", "1"),
        ("x", "TWO"),
        ("x-y", "two"),
        ("x_y", "tWo"),
        ("x-y", "no"),
    ];
    let headers = subsequence(headers, 0..3).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    });
    let sni = option::of(select(vec!["a.b", "x.b", "A.x.", "z"]));
    let fields = (
        select(METHODS),
        select(hosts),
        select(vec![80, 81]),
        path,
        headers,
        sni,
        any::<bool>(),
        query,
        source,
    );
    fields.prop_map(
        |(method, host, port, path, headers, sni, tls, query, source)| Request {
            method,
            host,
            port,
            path,
            query,
            headers,
            sni,
            tls,
            source: SocketAddr::from((source, 9)),
        },
    )
}

impl Request {
    fn head(&self) -> RequestHead<'_> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
        RequestHead {
            method: self.method,
            host: self.host,
            port: self.port,
            path: &self.path,
            query: self.query,
            headers: &self.headers,
            sni: self.sni,
            tls: self.tls,
            source: self.source,
            destination: anywhere,
        }
    }
}

/// Compiled once per pattern: unoptimised, compiling is what the test would spend its time on.
fn regex(pattern: &str) -> regex::Regex {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, regex::Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    known
        .entry(pattern.to_owned())
        .or_insert_with(|| regex::Regex::new(pattern).unwrap())
        .clone()
}

fn fits(rule: &str, name: &str) -> bool {
    match (rule.strip_prefix('*'), rule.strip_suffix('*')) {
        (Some(suffix), _) => name.ends_with(suffix),
        (None, Some(prefix)) => name.starts_with(prefix),
        (None, None) => rule == name,
    }
}

/// Whether everything but the path fits: the rules of reference/kong.md 5.2, read from the entity.
fn naive_accepts(route: &kind::Route, request: &Request) -> bool {
    let host = |rule: &String| {
        let rule = rule.to_lowercase();
        let (rule, port) = rule.split_once(':').unwrap_or((&rule, ""));
        fits(rule, request.host) && (port.is_empty() || port == request.port.to_string())
    };
    let sni = |rule: &String| {
        request
            .sni
            .is_some_and(|sni| fits(rule, sni.trim_end_matches('.').to_lowercase().as_str()))
    };
    let header = |(name, values): (&String, &Vec<String>)| {
        let normal = |name: &str| name.to_lowercase().replace('_', "-");
        request
            .headers
            .iter()
            .filter(|(other, _)| normal(other.as_str()) == normal(name))
            .any(|(_, value)| {
                let value = value.to_str().unwrap().to_lowercase();
                values.iter().any(|wanted| match wanted.strip_prefix("~*") {
                    Some(pattern) => regex(pattern).is_match(&value),
                    None => wanted.to_lowercase() == value,
                })
            })
    };
    (route.methods.is_empty() || route.methods.iter().any(|method| method == request.method))
        && (route.hosts.is_empty() || (!request.host.is_empty() && route.hosts.iter().any(host)))
        && (route.snis.is_empty() || !request.tls || route.snis.iter().any(sni))
        && route.headers.iter().all(header)
}

fn naive_find(routes: &BTreeMap<Uuid, kind::Route>, request: &Request) -> Option<(Uuid, usize)> {
    const NAMESPACE: Uuid = uuid::uuid!("7f145bf9-0dce-4f91-98eb-debbce4b9f6b");
    let mut found = Vec::new();
    for (id, route) in routes
        .iter()
        .filter(|(_, route)| naive_accepts(route, request))
    {
        if route.expression.is_some() {
            // Ahead of all others.
            let rank = (
                (usize::MAX, false, 0),
                false,
                route.priority.cast_signed(),
                0,
            );
            let matched = expressions::naive_matches(route, request);
            found.extend(matched.map(|bytes| (rank, *id, Reverse(0), *id, bytes)));
            continue;
        }
        let class = |path: &String| {
            if path.starts_with('~') {
                None
            } else {
                Some(path.len())
            }
        };
        let mut classes: Vec<_> = Vec::new();
        for path in &route.paths {
            if !classes.contains(&class(path)) {
                classes.push(class(path));
            }
        }
        let kinds = [
            route.methods.len(),
            route.hosts.len(),
            route.headers.len(),
            route.snis.len(),
            route.paths.len(),
        ];
        let kinds = kinds.iter().filter(|count| **count > 0).count();
        let plain = !route.hosts.is_empty() && route.hosts.iter().all(|host| !host.contains('*'));
        let rank = (kinds, plain, route.headers.len());
        if route.paths.is_empty() {
            found.push(((rank, false, 0, 0), *id, Reverse(0), *id, 0));
        }
        for (index, path) in route.paths.iter().enumerate() {
            let number = classes
                .iter()
                .position(|other| *other == class(path))
                .unwrap()
                + 1;
            let split = Uuid::new_v5(&NAMESPACE, format!("{id}#{number}").as_bytes());
            let matcher = if classes.len() > 1 { split } else { *id };
            if let Some(pattern) = path.strip_prefix('~') {
                if let Some(text) = regex(&format!("^(?:{pattern})")).find(&request.path) {
                    let rank = (rank, true, route.regex_priority, 0);
                    found.push((rank, matcher, Reverse(index), *id, text.len()));
                }
            } else if request.path.starts_with(path) {
                found.push((
                    (rank, false, 0, path.len()),
                    matcher,
                    Reverse(index),
                    *id,
                    path.len(),
                ));
            }
        }
    }
    let (_, _, _, id, bytes) = found.into_iter().max()?;
    Some((id, bytes))
}

fn compile(id: Uuid, fields: &kind::Route, router: &Router) -> Arc<Route> {
    let origin = Origin {
        id,
        version: Version(1),
        workspace: &Workspace::DEFAULT,
    };
    let mut route = Route::compile(origin, fields.clone(), router.regexes()).unwrap();
    router.intern(&mut route.criteria);
    Arc::new(route)
}

/// All trees with all they hold, in an order that does not depend on hashing.
fn shape(router: &Router) -> BTreeMap<String, String> {
    let trees = [
        ("exact", format!("{:?}", router.exact)),
        ("suffix", format!("{:?}", router.suffix)),
        ("prefix", format!("{:?}", router.prefix)),
        ("any", format!("{:?}", router.any)),
    ];
    let trees = trees.map(|(kind, trees)| (kind.to_owned(), trees));
    let streams = streams::shape(&router.streams);
    trees.into_iter().chain(streams).collect()
}

fn check(
    edits: Vec<(Index, Option<kind::Route>)>,
    requests: &[Request],
    ids: &[Uuid],
) -> Result<(), TestCaseError> {
    // A cache of its own for each case would compile each regex each time.
    static REGEXES: LazyLock<Arc<Regexes>> = LazyLock::new(Arc::default);
    let empty = || Router {
        regexes: Arc::clone(&REGEXES),
        ..Router::default()
    };
    let mut router = empty();
    let mut compiled: BTreeMap<Uuid, Arc<Route>> = BTreeMap::new();
    let mut routes = BTreeMap::new();
    let mut old = Vec::new();
    for (number, (index, route)) in edits.into_iter().enumerate() {
        let id = *index.get(ids);
        if number % 8 == 3 {
            old.push((router.clone(), shape(&router)));
        }
        if let Some(before) = compiled.remove(&id) {
            router.remove(&before);
        }
        match route {
            None => {
                routes.remove(&id);
            }
            Some(fields) => {
                let route = compile(id, &fields, &router);
                router.insert(&route);
                compiled.insert(id, route);
                routes.insert(id, fields);
            }
        }
        for request in requests {
            let found = router
                .find(&request.head())
                .map(|found| (found.route.id, found.matched_bytes));
            prop_assert_eq!(
                found,
                naive_find(&routes, request),
                "{:?} in {:?}",
                request,
                &routes
            );
        }
    }
    let mut fresh = empty();
    for (id, fields) in &routes {
        let route = compile(*id, fields, &fresh);
        fresh.insert(&route);
    }
    prop_assert_eq!(shape(&router), shape(&fresh));
    for (router, before) in old {
        prop_assert_eq!(shape(&router), before, "an old version changed");
    }
    compiled.values().for_each(|route| router.remove(route));
    prop_assert_eq!(shape(&router), shape(&empty()));
    Ok(())
}

proptest! {
    #[test]
    fn the_router_agrees_with_a_naive_matcher_after_every_edit(
        edits in vec((any::<Index>(), option::weighted(0.8, route())), 1..14),
        requests in vec(request(), 8),
        ids in vec(any::<u128>().prop_map(Uuid::from_u128), 8),
    ) {
        check(edits, &requests, &ids)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Many routes under one host and path, so that lists of places change their form both ways.
    #[test]
    fn long_lists_of_places_agree_too(
        edits in vec((any::<Index>(), option::weighted(0.7, route())), 100..160),
        requests in vec(request(), 2),
        ids in vec(any::<u128>().prop_map(Uuid::from_u128), 80),
    ) {
        let narrow = |mut route: kind::Route| {
            route.hosts.clear();
            if route.expression.is_none() {
                route.paths = vec!["/a".into()];
            }
            route
        };
        let edits = edits.into_iter().map(|(index, route)| (index, route.map(narrow))).collect();
        check(edits, &requests, &ids)?;
    }
}
