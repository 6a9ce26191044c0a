//! What the table costs: lookups, one-entity changes and memory at 1 thousand, 30 thousand and 1 million routes, and consumers
//! with a key each.
//!
//! `cargo run --release -p sluice-dp --example table_bench [shape routes]`, and `... table_bench keys [consumers]` for these alone
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a program for people, run by hand"
)]

use http::HeaderMap;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sluice_dp::table::{RequestHead, Table};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LOOKUPS: usize = 200_000;
const CHANGES: usize = 4_000;
const BATCH: usize = 10_000;

/// How routes are spread over hosts and paths.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One route per host, all with the same path.
    ManyHosts,
    /// All on one host, a path each.
    OneHost,
    /// Ten per host.
    TenPerHost,
    /// All on one host, a regex each.
    OneHostRegex,
    /// Ten per host, each with an expression.
    Expressions,
}

impl Shape {
    fn host(self, index: usize) -> String {
        match self {
            Self::ManyHosts => format!("api-{index}.customers.example.com"),
            Self::OneHost | Self::OneHostRegex => "api.example.com".into(),
            Self::TenPerHost | Self::Expressions => {
                format!("api-{}.customers.example.com", index / 10)
            }
        }
    }

    fn path(self, index: usize) -> String {
        match self {
            Self::ManyHosts => "/".into(),
            Self::OneHost | Self::OneHostRegex => {
                format!("/v1/team-{}/service-{index}", index % 97)
            }
            Self::TenPerHost | Self::Expressions => format!("/v1/service-{}", index % 10),
        }
    }

    fn change(self, index: usize, version: u64) -> Change {
        let path = match self {
            Self::OneHostRegex => format!(r"~{}/(?<item>\d+)$", self.path(index)),
            Self::ManyHosts | Self::OneHost | Self::TenPerHost | Self::Expressions => {
                self.path(index)
            }
        };
        let mut fields = json!({
            "name": format!("route-{index}"), "protocols": ["http", "https"], "hosts": [self.host(index)],
            "paths": [path], "methods": ["GET", "POST"], "https_redirect_status_code": 426, "regex_priority": 0,
            "strip_path": true, "path_handling": "v0", "preserve_host": false, "request_buffering": true,
            "response_buffering": true, "created_at": 1_700_000_000 + index, "updated_at": 1_700_000_000 + version,
            "service": {"id": Uuid::from_u128(7).to_string()}, "tags": ["bench"],
        });
        if matches!(self, Self::Expressions) {
            let fields = fields.as_object_mut().unwrap();
            for name in ["hosts", "paths", "methods"] {
                fields.remove(name);
            }
            let expression = format!(
                r#"http.host == "{}" && http.path ^= "{}" && (http.method == "GET" || http.method == "POST")"#,
                self.host(index),
                self.path(index)
            );
            fields.insert("expression".into(), expression.into());
            fields.insert("priority".into(), (index % 100).into());
        }
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &index.to_le_bytes());
        let key = Key {
            kind: Kind::Route.key_name(),
            workspace: Workspace::DEFAULT,
            id: Id(id),
        };
        let body = Body::encode(fields.as_object().unwrap());
        Change {
            key,
            before: None,
            after: Some(Entry {
                version: Version(version),
                body,
            }),
        }
    }
}

const SHAPES: [Shape; 5] = [
    Shape::ManyHosts,
    Shape::OneHost,
    Shape::TenPerHost,
    Shape::OneHostRegex,
    Shape::Expressions,
];

fn main() {
    if std::env::args().nth(1).is_some_and(|part| part == "keys") {
        let sizes = std::env::args()
            .skip(2)
            .filter_map(|text| text.parse().ok());
        return sizes.for_each(keys);
    }
    let arguments: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    if let [shape, size] = *arguments {
        return run(SHAPES[shape], size);
    }
    println!(
        "{:>13} {:>8} | {:>8} {:>8} {:>8} {:>8} | {:>8} {:>8} | {:>9} {:>9} {:>7}",
        "shape",
        "routes",
        "hot p50",
        "cold p50",
        "cold p99",
        "miss p50",
        "apply us",
        "p99 us",
        "B/route",
        "JSON B",
        "load s"
    );
    for (number, shape) in SHAPES.into_iter().enumerate() {
        for size in [1_000, 30_000, 1_000_000] {
            if matches!(shape, Shape::OneHostRegex) && size > 100_000 {
                continue;
            }
            // A process each, so that memory one run has freed does not hide what the next one takes.
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command
                .args([number.to_string(), size.to_string()])
                .status()
                .unwrap();
        }
    }
    for size in [1_000, 1_000_000] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["keys".to_owned(), size.to_string()]);
        command.status().unwrap();
    }
}

/// Consumers with a key each: what finding the key and its consumer takes.
fn keys(size: usize) {
    let mut random = StdRng::seed_from_u64(7);
    let before = resident();
    let mut table = Table::empty();
    let entity = |kind: Kind, number: u128, fields: serde_json::Value| Change {
        key: Key {
            kind: kind.key_name(),
            workspace: Workspace::DEFAULT,
            id: Id(Uuid::from_u128(number)),
        },
        before: None,
        after: Some(Entry {
            version: Version(1),
            body: Body::encode(fields.as_object().unwrap()),
        }),
    };
    let consumer = |index: usize| {
        let number = 2 * index as u128;
        let fields =
            json!({ "username": format!("consumer-{index}"), "created_at": 1, "updated_at": 1 });
        let key = json!({
            "key": format!("key-{index}"), "consumer": { "id": Uuid::from_u128(number).to_string() }, "created_at": 1,
        });
        [
            entity(Kind::Consumer, number, fields),
            entity(Kind::KeyauthCredential, number + 1, key),
        ]
    };
    for first in (0..size).step_by(BATCH) {
        let changes: Vec<_> = (first..size.min(first + BATCH))
            .flat_map(consumer)
            .collect();
        let (next, rejected) = table.apply(Version(1), &changes);
        assert!(rejected.is_empty(), "{rejected:?}");
        table = next;
    }
    let bytes = resident().saturating_sub(before) / size;
    let shown: Vec<String> = (0..LOOKUPS)
        .map(|_| format!("key-{}", random.random_range(0..size)))
        .collect();
    let mut each: Vec<u64> = shown
        .iter()
        .map(|key| {
            black_box(key.bytes().fold(0u8, u8::wrapping_add));
            let begun = Instant::now();
            let credential = table.key_credential(&Workspace::DEFAULT, key).unwrap();
            let consumer = table.consumer(credential.consumer.id).unwrap();
            black_box(consumer);
            begun.elapsed().as_nanos() as u64
        })
        .collect();
    each.sort_unstable();
    println!(
        "{size} consumers with a key: cold lookup of key and consumer p50 {} ns, p99 {} ns; {bytes} B each",
        each[LOOKUPS / 2],
        each[LOOKUPS * 99 / 100]
    );
}

fn run(shape: Shape, size: usize) {
    let mut random = StdRng::seed_from_u64(7);
    let before = resident();
    let mut loaded = Duration::ZERO;
    let mut table = Table::empty();
    for first in (0..size).step_by(BATCH) {
        let changes: Vec<_> = (first..size.min(first + BATCH))
            .map(|index| shape.change(index, 1))
            .collect();
        let begun = Instant::now();
        let (next, rejected) = table.apply(Version(1), &changes);
        assert!(rejected.is_empty(), "{rejected:?}");
        table = next;
        loaded += begun.elapsed();
    }
    let loaded = loaded.as_secs_f64();
    let bytes = resident().saturating_sub(before) / size;
    let body = shape.change(size / 2, 1).after.unwrap().body;
    let body = serde_json::to_string(&body.fields().unwrap())
        .unwrap()
        .len();

    let suffix = if matches!(shape, Shape::OneHostRegex) {
        "/77"
    } else {
        "/x"
    };
    let request = |index: usize| (shape.host(index), format!("{}{suffix}", shape.path(index)));
    let cold: Vec<_> = (0..LOOKUPS)
        .map(|_| request(random.random_range(0..size)))
        .collect();
    let hot: Vec<_> = (0..LOOKUPS)
        .map(|index| request((index % 8) * (size / 8)))
        .collect();
    let miss: Vec<_> = cold
        .iter()
        .map(|(host, _)| (format!("no-{host}"), "/nothing".into()))
        .collect();
    let (cold, cold_p99) = lookups(&table, &cold, true);
    let (hot, _) = lookups(&table, &hot, true);
    let (miss, _) = lookups(&table, &miss, false);

    let (apply, apply_p99) = changes(&mut table, shape, size, &mut random);
    println!(
        "{:>13} {size:>8} | {hot:>8} {cold:>8} {cold_p99:>8} {miss:>8} | {apply:>8.1} {apply_p99:>8.1} | {bytes:>9} {body:>9} {loaded:>7.1}",
        format!("{shape:?}")
    );
}

/// Median and p99 in nanoseconds, less what the clock itself takes.
fn lookups(table: &Table, requests: &[(String, String)], expected: bool) -> (u64, u64) {
    let headers = HeaderMap::new();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let one = |(host, path): &(String, String)| {
        // The request's own text is in the cache, as it would be after parsing.
        black_box(host.bytes().chain(path.bytes()).fold(0u8, u8::wrapping_add));
        let begun = Instant::now();
        let found = table.find(&RequestHead {
            method: "GET",
            host,
            port: 80,
            path,
            query: None,
            headers: &headers,
            sni: None,
            tls: false,
            source: anywhere,
            destination: anywhere,
        });
        let taken = begun.elapsed();
        assert_eq!(black_box(found).is_some(), expected, "{host}{path}");
        taken
    };
    let clock = percentiles((0..10_000).map(|_| Instant::now().elapsed().as_nanos() as u64)).0;
    // The quietest of some rounds: other processes share the caches.
    let rounds = (0..5).map(|_| {
        percentiles(
            requests
                .iter()
                .map(|request| one(request).as_nanos() as u64),
        )
    });
    let (p50, p99) = rounds.min().unwrap();
    (p50.saturating_sub(clock), p99.saturating_sub(clock))
}

/// Median and p99 in microseconds of changing one route and dropping the table before.
fn changes(table: &mut Table, shape: Shape, size: usize, random: &mut StdRng) -> (f64, f64) {
    let taken = (0..CHANGES).map(|number| {
        let version = 2 + number as u64;
        let change = [shape.change(random.random_range(0..size), version)];
        let begun = Instant::now();
        *table = black_box(table.apply(Version(version), &change)).0;
        begun.elapsed().as_nanos() as u64
    });
    let (p50, p99) = percentiles(taken);
    (p50 as f64 / 1e3, p99 as f64 / 1e3)
}

fn percentiles(samples: impl Iterator<Item = u64>) -> (u64, u64) {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_unstable();
    (
        samples[samples.len() / 2],
        samples[samples.len() * 99 / 100],
    )
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok())
        .unwrap_or_default()
        * 1024
}
