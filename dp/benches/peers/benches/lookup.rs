//! What finding a request's route costs, in Sluice's table and in Kong's router (the crate atc-router), with the same routes and
//! requests. Hot: eight requests in turn. Cold: 100,000 for routes far apart. Miss: none is wanted.
//!
//! `cargo bench` for all, `cargo bench -- one-host/cold` for some.
#![allow(clippy::unwrap_used, reason = "a program for people, run by hand")]

use atc_router::ast::{Type, Value};
use atc_router::context::Context;
use atc_router::router::Router;
use atc_router::schema::Schema;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode};
use criterion::{criterion_group, criterion_main};
use http::HeaderMap;
use serde_json::json;
use sluice_dp::table::{RequestHead, Table};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;
use std::hint::black_box;
use std::net::SocketAddr;
use uuid::Uuid;

const SIZES: [usize; 3] = [1_000, 30_000, 100_000];
/// Different ones, where they are cold.
const REQUESTS: usize = 100_000;
/// Coprime to the sizes, so that neighbours are far apart.
const STRIDE: usize = 7_919;
/// Changes that the table takes at once.
const BATCH: usize = 10_000;

#[derive(Clone, Copy)]
enum Shape {
    /// One route per host, all with the same path.
    ManyHosts,
    /// All on one host, a path each.
    OneHost,
    /// Ten per host.
    TenPerHost,
}

impl Shape {
    const ALL: [Self; 3] = [Self::ManyHosts, Self::OneHost, Self::TenPerHost];

    fn name(self) -> &'static str {
        match self {
            Self::ManyHosts => "many-hosts",
            Self::OneHost => "one-host",
            Self::TenPerHost => "ten-per-host",
        }
    }

    fn host(self, index: usize) -> String {
        match self {
            Self::ManyHosts => format!("api-{index}.customers.example.com"),
            Self::OneHost => "api.example.com".into(),
            Self::TenPerHost => format!("api-{}.customers.example.com", index / 10),
        }
    }

    fn path(self, index: usize) -> String {
        match self {
            Self::ManyHosts => "/".into(),
            Self::OneHost => format!("/v1/team-{}/service-{index}", index % 97),
            Self::TenPerHost => format!("/v1/service-{}", index % 10),
        }
    }
}

/// What is asked for, in turn.
struct Requests {
    name: &'static str,
    of: Vec<(String, String)>,
    found: bool,
}

impl Requests {
    fn all(shape: Shape, size: usize) -> [Self; 3] {
        let request = |index| (shape.host(index), shape.path(index) + "/x");
        let cold = (0..REQUESTS).map(|number| request(number * STRIDE % size));
        let cold: Vec<_> = cold.collect();
        let miss = |(host, _): &(String, String)| (format!("no-{host}"), "/nothing".into());
        let miss = cold.iter().map(miss).collect();
        let hot = (0..8).map(|at| request(at * (size / 8))).collect();
        let requests = |name, of, found| Self { name, of, found };
        [
            requests("hot", hot, true),
            requests("cold", cold, true),
            requests("miss", miss, false),
        ]
    }
}

/// A router under measurement.
trait Finds {
    const NAME: &'static str;

    fn load(shape: Shape, size: usize) -> Self;

    fn finds(&self, host: &str, path: &str) -> bool;
}

struct Sluice(Table);

impl Finds for Sluice {
    const NAME: &'static str = "sluice";

    fn load(shape: Shape, size: usize) -> Self {
        let mut table = Table::empty();
        for first in (0..size).step_by(BATCH) {
            let indices = first..size.min(first + BATCH);
            let changes: Vec<_> = indices.map(|index| route(shape, index)).collect();
            let (next, rejected) = table.apply(Version(1), &changes);
            assert!(rejected.is_empty(), "{rejected:?}");
            table = next;
        }
        Self(table)
    }

    fn finds(&self, host: &str, path: &str) -> bool {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let found = self.0.find(&RequestHead {
            method: "GET",
            host,
            port: 80,
            path,
            query: None,
            headers: &HeaderMap::new(),
            sni: None,
            tls: false,
            source: anywhere,
            destination: anywhere,
        });
        black_box(found).is_some()
    }
}

fn route(shape: Shape, index: usize) -> Change {
    let fields = json!({
        "name": format!("route-{index}"), "protocols": ["http", "https"], "hosts": [shape.host(index)],
        "paths": [shape.path(index)], "methods": ["GET", "POST"], "https_redirect_status_code": 426, "regex_priority": 0,
        "strip_path": true, "path_handling": "v0", "preserve_host": false, "request_buffering": true,
        "response_buffering": true, "created_at": 1, "updated_at": 1,
    });
    Change {
        key: Key {
            kind: Kind::Route.key_name(),
            workspace: Workspace::DEFAULT,
            id: Id(Uuid::from_u128(index as u128)),
        },
        before: None,
        after: Some(Entry {
            version: Version(1),
            body: Body::encode(fields.as_object().unwrap()),
        }),
    }
}

struct Kong {
    router: Router<'static>,
    schema: &'static Schema,
}

impl Finds for Kong {
    const NAME: &'static str = "atc-router";

    fn load(shape: Shape, size: usize) -> Self {
        let mut schema = Schema::default();
        for field in ["http.method", "http.host", "http.path"] {
            schema.add_field(field, Type::String);
        }
        // Few, and the router borrows it.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let mut router = Router::new(schema);
        for index in 0..size {
            let (host, path) = (shape.host(index), shape.path(index));
            // As Kong puts it for a route of the classic kind.
            let expression = format!(
                r##"(http.method == r#"GET"# || http.method == r#"POST"#) && (http.host == r#"{host}"#) && (http.path ^= r#"{path}"#)"##,
            );
            let id = Uuid::from_u128(index as u128);
            router.add_matcher(path.len(), id, &expression).unwrap();
        }
        Self { router, schema }
    }

    fn finds(&self, host: &str, path: &str) -> bool {
        let mut context = Context::new(self.schema);
        context.add_value("http.method", Value::String("GET".into()));
        context.add_value("http.host", Value::String(host.into()));
        context.add_value("http.path", Value::String(path.into()));
        black_box(self.router.execute(&mut context))
    }
}

fn measure<R: Finds>(group: &mut BenchmarkGroup<'_, WallTime>, requests: &Requests, router: &R) {
    let mut next = requests.of.iter().cycle();
    group.bench_function(BenchmarkId::from_parameter(R::NAME), |bencher| {
        bencher.iter(|| {
            let (host, path) = next.next().unwrap();
            assert_eq!(router.finds(host, path), requests.found);
        });
    });
}

fn lookups(criterion: &mut Criterion) {
    for (shape, size) in Shape::ALL
        .into_iter()
        .flat_map(|shape| SIZES.map(|size| (shape, size)))
    {
        let (sluice, kong) = (Sluice::load(shape, size), Kong::load(shape, size));
        for requests in Requests::all(shape, size) {
            let name = format!("{}/{}/{size}", shape.name(), requests.name);
            let mut group = criterion.benchmark_group(name);
            // A lookup takes the other router up to 100 ms.
            group.sample_size(10).sampling_mode(SamplingMode::Flat);
            measure(&mut group, &requests, &sluice);
            measure(&mut group, &requests, &kong);
            group.finish();
        }
    }
}

criterion_group!(all, lookups);
criterion_main!(all);
