//! What a lookup costs.

use crate::Dice;
use atc_router::ast::{Type, Value};
use atc_router::context::Context;
use atc_router::router::Router;
use atc_router::schema::Schema;
use std::hint::black_box;
use std::time::Instant;
use uuid::Uuid;

const LOOKUPS: usize = 500;

#[derive(Clone, Copy, Debug)]
enum Shape {
    ManyHosts,
    OneHost,
    TenPerHost,
}

impl Shape {
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

    /// As Kong puts it for a route of the classic kind.
    fn expression(self, index: usize) -> String {
        format!(
            r##"(http.method == r#"GET"# || http.method == r#"POST"#) && (http.host == r#"{}"#) && (http.path ^= r#"{}"#)"##,
            self.host(index),
            self.path(index)
        )
    }
}

pub fn run() {
    println!(
        "{:>11} {:>8} | {:>10} {:>10} {:>10} | {:>9} {:>8}",
        "shape", "routes", "hot ns", "cold ns", "miss ns", "B/route", "load s"
    );
    for shape in [Shape::ManyHosts, Shape::OneHost, Shape::TenPerHost] {
        for size in [1_000, 10_000, 100_000] {
            measure(shape, size);
        }
    }
}

fn measure(shape: Shape, size: usize) {
    let mut schema = Schema::default();
    for field in ["http.method", "http.host", "http.path"] {
        schema.add_field(field, Type::String);
    }
    let before = resident();
    let begun = Instant::now();
    let mut router = Router::new(&schema);
    for index in 0..size {
        let priority = shape.path(index).len();
        let id = Uuid::from_u128(index as u128);
        router
            .add_matcher(priority, id, &shape.expression(index))
            .expect("a good expression");
    }
    let loaded = begun.elapsed().as_secs_f64();
    let bytes = resident().saturating_sub(before) / size;
    let mut dice = Dice(7);
    let request = |index: usize| (shape.host(index), shape.path(index) + "/x");
    let hot: Vec<_> = (0..LOOKUPS)
        .map(|at| request((at % 8) * (size / 8)))
        .collect();
    let cold: Vec<_> = (0..LOOKUPS).map(|_| request(dice.below(size))).collect();
    let miss: Vec<_> = cold
        .iter()
        .map(|(host, _)| (format!("no-{host}"), "/nothing".to_owned()))
        .collect();
    let median = |requests: &[(String, String)], expected: bool| {
        let mut taken: Vec<_> = requests
            .iter()
            .map(|(host, path)| {
                let mut context = Context::new(&schema);
                context.add_value("http.method", Value::String("GET".into()));
                context.add_value("http.host", Value::String(host.clone()));
                context.add_value("http.path", Value::String(path.clone()));
                let begun = Instant::now();
                let found = black_box(router.execute(&mut context));
                let taken = begun.elapsed().as_nanos();
                assert_eq!(found, expected);
                taken
            })
            .collect();
        taken.sort_unstable();
        taken[taken.len() / 2]
    };
    println!(
        "{:>11} {size:>8} | {:>10} {:>10} {:>10} | {bytes:>9} {loaded:>8.2}",
        format!("{shape:?}"),
        median(&hot, true),
        median(&cold, true),
        median(&miss, false),
    );
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0) * 1024
}
