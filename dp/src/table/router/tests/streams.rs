//! Stream routes against a naive matcher.

use super::*;
use sluice_schema::kind::Endpoint;

const BLOCKS: &[&str] = &["10.0.0.1", "10.0.0.0/8", "10.1.0.0/16", "127.0.0.1"];
const PROTOCOLS: &[&[&str]] = &[
    &["tcp"],
    &["tls"],
    &["udp"],
    &["tls_passthrough"],
    &["tcp", "tls"],
];

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let ip = option::of(select(BLOCKS).prop_map(str::to_owned));
    let endpoint = (ip, option::of(80u16..82)).prop_map(|(ip, port)| Endpoint { ip, port });
    let given = endpoint.prop_filter("something", |end| end.ip.is_some() || end.port.is_some());
    prop_oneof![Just(Vec::new()), vec(given, 1..3)]
}

fn stream_route() -> impl Strategy<Value = kind::Route> {
    let fields = (
        select(PROTOCOLS),
        endpoints(),
        endpoints(),
        texts(SNIS, 2),
        option::weighted(
            0.2,
            select(vec![
                "net.dst.port == 80",
                "tls.sni == \"a.b\"",
                "net.src.ip in 10.0.0.0/8 && tls.sni =^ \".b\"",
            ]),
        ),
        0u64..3,
    );
    fields.prop_map(|(protocols, sources, destinations, snis, expression, priority)| {
        let route = serde_json::json!({
            "protocols": protocols, "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
            "path_handling": "v0", "preserve_host": false, "request_buffering": true, "response_buffering": true,
            "expression": expression, "priority": priority,
        });
        let route: kind::Route = serde_json::from_value(route).unwrap();
        match expression {
            Some(_) => route,
            None => kind::Route { sources, destinations, snis, ..route },
        }
    })
}

fn stream() -> impl Strategy<Value = StreamHead<'static>> {
    let address = (
        select(vec![[10, 0, 0, 1], [10, 1, 2, 3], [127, 0, 0, 1]]),
        80u16..83,
    )
        .prop_map(SocketAddr::from);
    let protocol = select(vec![
        StreamProtocol::Tcp,
        StreamProtocol::Tls,
        StreamProtocol::Udp,
    ]);
    let sni = option::of(select(vec!["a.b", "x.b", "A.x.", "z"]));
    (protocol, sni, address.clone(), address).prop_map(|(protocol, sni, source, destination)| {
        StreamHead {
            protocol,
            sni: sni.filter(|_| protocol == StreamProtocol::Tls),
            source,
            destination,
        }
    })
}

fn within(ends: &[Endpoint], address: SocketAddr) -> bool {
    let ip = |rule: &str| match rule {
        "10.0.0.0/8" => address.ip().to_string().starts_with("10."),
        "10.1.0.0/16" => address.ip().to_string().starts_with("10.1."),
        rule => address.ip().to_string() == rule,
    };
    let fits = |end: &Endpoint| {
        end.ip.as_deref().is_none_or(ip) && end.port.is_none_or(|port| port == address.port())
    };
    ends.is_empty() || ends.iter().any(fits)
}

fn naive_accepts(route: &kind::Route, stream: &StreamHead<'_>) -> bool {
    let served: &[&str] = match stream.protocol {
        StreamProtocol::Tcp => &["tcp"],
        StreamProtocol::Tls => &["tcp", "tls", "tls_passthrough"],
        StreamProtocol::Udp => &["udp"],
    };
    let tls = stream.protocol == StreamProtocol::Tls;
    let sni = stream
        .sni
        .map(|sni| sni.trim_end_matches('.').to_lowercase());
    let named = |rule: &String| sni.as_ref().is_some_and(|sni| fits(rule, sni));
    let holds = match route.expression.as_deref() {
        None => {
            within(&route.sources, stream.source)
                && within(&route.destinations, stream.destination)
                && (route.snis.is_empty() || !tls || route.snis.iter().any(named))
        }
        Some("net.dst.port == 80") => stream.destination.port() == 80,
        Some("tls.sni == \"a.b\"") => sni.as_deref() == Some("a.b"),
        Some(_) => {
            stream.source.ip().to_string().starts_with("10.")
                && sni.is_some_and(|sni| sni.ends_with(".b"))
        }
    };
    holds
        && route
            .protocols
            .iter()
            .any(|name| served.contains(&name.as_str()))
}

fn naive_rank(route: &kind::Route) -> (u64, u64) {
    let any = |ends: &[Endpoint], has: fn(&Endpoint) -> bool| u64::from(ends.iter().any(has));
    let weight = |ends: &[Endpoint]| {
        let exact = any(ends, |end| {
            end.ip.as_ref().is_some_and(|ip| !ip.contains('/'))
        });
        let block = any(ends, |end| {
            end.ip.as_ref().is_some_and(|ip| ip.contains('/'))
        });
        exact * 8 + any(ends, |end| end.port.is_some()) * 4 + block
    };
    if route.expression.is_some() {
        return (2, route.priority);
    }
    let first =
        !route.snis.is_empty() || (!route.sources.is_empty() && !route.destinations.is_empty());
    (
        u64::from(first),
        weight(&route.sources) * 16 + weight(&route.destinations),
    )
}

pub(super) fn shape(streams: &Streams) -> Vec<(String, String)> {
    let keys = streams.keys();
    keys.map(|(key, places)| (format!("{key:?}"), format!("{places:?}")))
        .collect()
}

proptest! {
    #[test]
    fn stream_routes_agree_with_a_naive_matcher_after_every_edit(
        edits in vec((any::<Index>(), option::weighted(0.8, stream_route())), 1..20),
        streams in vec(stream(), 8),
        ids in vec(any::<u128>().prop_map(Uuid::from_u128), 8),
    ) {
        let mut router = Router::default();
        let mut compiled: BTreeMap<Uuid, Arc<Route>> = BTreeMap::new();
        let mut routes: BTreeMap<Uuid, kind::Route> = BTreeMap::new();
        for (index, fields) in edits {
            let id = *index.get(&ids);
            routes.remove(&id);
            if let Some(before) = compiled.remove(&id) {
                router.remove(&before);
            }
            if let Some(fields) = fields {
                let route = compile(id, &fields, &router);
                router.insert(&route);
                compiled.insert(id, route);
                routes.insert(id, fields);
            }
            for stream in &streams {
                let found = router.find_stream(stream).map(|found| found.route.id);
                let accepting = routes.iter().filter(|(_, route)| naive_accepts(route, stream));
                let expected = accepting.max_by_key(|(id, route)| (naive_rank(route), **id));
                prop_assert_eq!(found, expected.map(|(id, _)| *id), "{:?} in {:?}", stream, &routes);
            }
        }
        compiled.values().for_each(|route| router.remove(route));
        prop_assert_eq!(super::shape(&router), super::shape(&Router::default()));
    }
}
