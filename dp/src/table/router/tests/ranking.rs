//! What routes are said to do when they are asked one by one, against what the router does.

use super::*;
use crate::table::router::ranking::Ranking;
use crate::table::router::verdict::{Criterion, Verdict, judge};
use serde_json::{Value, json};

fn alone(id: Uuid, fields: &kind::Route) -> (Router, Arc<Route>) {
    // A cache of its own for each router would compile each regex each time.
    static REGEXES: LazyLock<Arc<Regexes>> = LazyLock::new(Arc::default);
    let mut router = Router {
        regexes: Arc::clone(&REGEXES),
        ..Router::default()
    };
    let route = compile(id, fields, &router);
    router.insert(&route);
    (router, route)
}

/// A route that asks for one thing less.
fn without(fields: &kind::Route, criterion: Criterion) -> kind::Route {
    let mut fields = fields.clone();
    match criterion {
        Criterion::Method => fields.methods.clear(),
        Criterion::Headers => fields.headers.clear(),
        Criterion::Sni => fields.snis.clear(),
        Criterion::Source => fields.sources.clear(),
        Criterion::Destination => fields.destinations.clear(),
        Criterion::Path => fields.paths.clear(),
        Criterion::Host => fields.hosts.clear(),
        Criterion::Protocol => fields.protocols = vec!["http".to_owned(), "https".to_owned()],
        Criterion::Expression => {}
    }
    fields
}

const CLASSIC: [Criterion; 5] = [
    Criterion::Method,
    Criterion::Headers,
    Criterion::Sni,
    Criterion::Path,
    Criterion::Host,
];

/// Whether what a route is said to miss is what it misses, and all of it.
fn check_verdict(id: Uuid, fields: &kind::Route, request: &Request) -> Result<(), TestCaseError> {
    let (router, route) = alone(id, fields);
    let accepts = |fields: &kind::Route| alone(id, fields).0.find(&request.head()).is_some();
    let found = router.find(&request.head()).is_some();
    let told = judge(&route, &request.head(), &router.regexes);
    let fits = matches!(told, Verdict::Fits(_));
    prop_assert_eq!(fits, found, "{:?} of {:?}: {:?}", told, fields, request);
    match told {
        Verdict::Fits(_) => {}
        Verdict::Near(near) if near.criterion == Criterion::Expression => {}
        Verdict::Near(near) => {
            let fitted = accepts(&without(fields, near.criterion));
            prop_assert!(fitted, "{:?} of {:?}: {:?}", near, fields, request);
        }
        Verdict::Far if fields.expression.is_some() => {}
        Verdict::Far => {
            let near = CLASSIC
                .into_iter()
                .any(|one| accepts(&without(fields, one)));
            prop_assert!(!near, "{:?} is not far from {:?}", fields, request);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn routes_are_told_in_the_order_in_which_they_would_be_found(
        routes in vec((any::<u128>().prop_map(Uuid::from_u128), route()), 1..14),
        requests in vec(request(), 4),
    ) {
        let fields: BTreeMap<Uuid, kind::Route> = routes.into_iter().collect();
        let mut router = Router::default();
        let mut compiled = BTreeMap::new();
        for (id, fields) in &fields {
            let route = compile(*id, fields, &router);
            router.insert(&route);
            compiled.insert(*id, route);
        }
        for request in &requests {
            let ranking = Ranking::of(compiled.values(), &request.head(), usize::MAX);
            let mut left = router.clone();
            let mut found = Vec::new();
            while let Some(one) = left.find(&request.head()) {
                left.remove(&one.route);
                found.push(one.route.id);
            }
            let told: Vec<Uuid> = ranking.losers.iter().map(|loser| loser.route.id).collect();
            let losers = found.get(1..).unwrap_or_default();
            prop_assert_eq!(&told[..], losers, "{:?} in {:?}", request, &fields);
            prop_assert_eq!(ranking.losers_total, losers.len());
            let near = ranking.near.iter().map(|near| near.route.id);
            prop_assert!(near.into_iter().all(|id| !found.contains(&id)));
            for (id, fields) in &fields {
                check_verdict(*id, fields, request)?;
            }
        }
    }
}

fn fields(changes: &Value) -> kind::Route {
    let mut route = json!({
        "protocols": ["http"], "regex_priority": 0, "https_redirect_status_code": 426, "strip_path": true,
        "path_handling": "v0", "preserve_host": false, "request_buffering": true, "response_buffering": true,
    });
    for (name, value) in changes.as_object().unwrap() {
        route[name] = value.clone();
    }
    serde_json::from_value(route).unwrap()
}

fn ranking(routes: &[Value]) -> Ranking {
    let router = Router::default();
    let routes: Vec<_> = (1..)
        .zip(routes)
        .map(|(number, route)| compile(Uuid::from_u128(number), &fields(route), &router))
        .collect();
    let mut headers = HeaderMap::new();
    headers.insert("x", "secret".parse().unwrap());
    let request = Request {
        method: "GET",
        host: "a.b",
        port: 80,
        path: "/api/v1".to_owned(),
        query: None,
        headers,
        sni: None,
        tls: false,
        source: SocketAddr::from(([10, 1, 2, 3], 9)),
    };
    Ranking::of(routes.iter(), &request.head(), usize::MAX)
}

#[test]
fn the_first_rule_that_decides_is_told() {
    let cases = [
        (
            json!({"paths": ["/api/v1"]}),
            json!({"paths": ["/api"]}),
            "its path /api is shorter than /api/v1",
        ),
        (
            json!({"paths": ["~/api/v\\d"]}),
            json!({"paths": ["/api/v1"]}),
            "its path /api/v1 is no regex, and ~/api/v\\d is one",
        ),
        (
            json!({"paths": ["~/api"], "regex_priority": 5}),
            json!({"paths": ["~/api/v1"], "regex_priority": -1}),
            "its regex_priority -1 is lower than 5",
        ),
        (
            json!({"paths": ["/"], "hosts": ["a.b"]}),
            json!({"paths": ["/api/v1"]}),
            "it asks for 1 of methods, hosts, headers, paths, ... (paths), the winner for 2 (hosts, paths)",
        ),
        (
            json!({"paths": ["/"], "hosts": ["a.b"]}),
            json!({"paths": ["/api/v1"], "hosts": ["*.b"]}),
            "its hosts have a wildcard, those of the winner have none",
        ),
        (
            json!({"paths": ["/"], "hosts": ["a.b"]}),
            json!({"paths": ["/api/v1"], "methods": ["GET"]}),
            "it asks for no host, the winner for one without a wildcard",
        ),
        (
            json!({"expression": "http.path ^= \"/\"", "priority": 1}),
            json!({"paths": ["/api/v1"], "hosts": ["a.b"]}),
            "routes with an expression go first",
        ),
        (
            json!({"expression": "http.path ^= \"/\"", "priority": 7}),
            json!({"expression": "http.method == \"GET\"", "priority": 3}),
            "its priority 3 is lower than 7",
        ),
    ];
    for (winner, loser, reason) in cases {
        for routes in [[winner.clone(), loser.clone()], [loser, winner]] {
            let ranking = ranking(&routes);
            assert_eq!(ranking.losers.len(), 1, "{routes:?}");
            assert_eq!(ranking.losers[0].reason, reason);
        }
    }
    let same = json!({"paths": ["/api"]});
    let reason = "all else is equal, and the greater id goes first";
    assert_eq!(ranking(&[same.clone(), same]).losers[0].reason, reason);
}

#[test]
fn what_is_missed_is_told_without_what_came_in_headers() {
    let cases = [
        (
            json!({"methods": ["POST", "BREW"]}),
            "the method GET is not one of POST, BREW",
        ),
        (
            json!({"hosts": ["c.b", "*.d:81"]}),
            "the host a.b with port 80 is not one of c.b, *.d:81",
        ),
        (
            json!({"paths": ["/api/v2", "~/v\\d"]}),
            "the path /api/v1 does not begin with one of /api/v2, ~/v\\d",
        ),
        (
            json!({"headers": {"X": ["1", "~*^2"], "y": ["3"]}}),
            "it asks for the header x: one of 1, ~*(?i)^2 and y: 3",
        ),
        (
            json!({"sources": [{"ip": "10.2.0.0/16"}, {"port": 7}]}),
            "the client's address 10.1.2.3:9 is not one of 10.2.0.0/16, port 7",
        ),
        (
            json!({"expression": "http.path ^= \"/\" && any(http.headers.x) == \"1\" && net.src.port == 9"}),
            "in its expression this does not hold: any(http.headers.x) == \"1\"",
        ),
        (
            json!({"protocols": ["https", "grpcs"], "expression": "http.path ^= \"/\""}),
            "its protocols are none that come in clear",
        ),
    ];
    for (route, reason) in cases {
        let ranking = ranking(std::slice::from_ref(&route));
        assert_eq!(ranking.near.len(), 1, "{route}");
        assert_eq!(ranking.near[0].reason, reason);
        assert!(!reason.contains("secret"));
    }
    let far = json!({"methods": ["POST"], "hosts": ["c.b"]});
    assert_eq!(ranking(&[far]).near_total, 0);
}

#[test]
fn beside_a_winner_only_those_are_told_that_would_go_before_it() {
    let winner = json!({"paths": ["/api"]});
    let near = [
        json!({"paths": ["/api/v1"], "methods": ["POST"]}),
        json!({"paths": ["/api/v2"]}),
    ];
    let far = [
        json!({"paths": ["/"], "methods": ["POST"], "hosts": ["x"]}),
        json!({"paths": ["/basket"]}),
        json!({"paths": ["/b"]}),
    ];
    let all: Vec<Value> = [winner].into_iter().chain(near).chain(far).collect();
    let told = ranking(&all);
    let ids: Vec<Uuid> = told.near.iter().map(|near| near.route.id).collect();
    assert_eq!(ids, [2, 3].map(Uuid::from_u128));
    assert_eq!(told.path.as_deref(), Some("/api"));
}
