//! What authenticating and limiting a request costs, with few consumers and with many.

use super::shapes::{REQUESTS, STRIDE};
use super::{Arguments, Subject, pin_all, table};
use crate::bench::rig::Rig;
use crate::bench::usage;
use anyhow::Result;
use serde_json::{Value, json};
use sluice_replica::node::SyncMode;
use std::net::SocketAddr;

/// More go into several files, for the Admin API takes 64 MiB at a time.
const FILE_CONSUMERS_MAX: usize = 50_000;
/// No request is refused.
const LIMIT: u64 = 1_000_000_000;

/// A table with plugins on its one route.
struct Case {
    name: &'static str,
    plugins: Value,
    consumers: usize,
}

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    println!("\nplugins, one route");
    let key_auth = json!({ "name": "key-auth" });
    let limiting = json!({ "name": "rate-limiting", "config": { "minute": LIMIT, "hour": LIMIT, "policy": "local" } });
    let case = |name, plugins, consumers| Case {
        name,
        plugins,
        consumers,
    };
    let cases = [
        case("no plugin", json!([]), 1),
        case("key-auth, one consumer", json!([key_auth]), 1),
        case("and rate-limiting", json!([key_auth, limiting]), 1),
        case(
            "both, many consumers",
            json!([key_auth, limiting]),
            arguments.consumers,
        ),
    ];
    let mut rigs = Vec::new();
    let mut subjects = Vec::new();
    for case in &cases {
        let rig = Rig::start(SyncMode::Incremental, "2m")?;
        fill(&rig, case, origin)?;
        let process = rig.process()?;
        pin_all(process, super::CORE_OF_PROXY)?;
        subjects.push(Subject {
            name: case.name.to_owned(),
            address: rig.data.proxy(),
            process,
            requests: requests(case.consumers),
            status: 200,
            rounds: Vec::new(),
        });
        rigs.push(rig);
    }
    let memory = || {
        rigs.iter()
            .map(|rig| usage::memory(rig.process()?))
            .collect::<Result<Vec<_>>>()
    };
    let before = memory()?;
    table(&mut subjects, arguments)?;
    for ((case, before), after) in cases.iter().zip(before).zip(memory()?) {
        println!(
            "{}: {} consumers, {} MB before the requests, {} MB after",
            case.name,
            case.consumers,
            before >> 20,
            after >> 20
        );
    }
    Ok(())
}

fn fill(rig: &Rig, case: &Case, origin: SocketAddr) -> Result<()> {
    let bar = crate::apply::spinner(format!("{}: {} consumers", case.name, case.consumers));
    for first in (0..case.consumers).step_by(FILE_CONSUMERS_MAX) {
        let numbers = first..case.consumers.min(first + FILE_CONSUMERS_MAX);
        let consumers = numbers.map(|number| {
            json!({ "username": format!("consumer-{number}"), "keyauth_credentials": [{ "key": format!("key-{number}") }] })
        });
        let mut file =
            json!({ "_format_version": "3.0", "consumers": consumers.collect::<Vec<_>>() });
        if first == 0 {
            file["services"] = json!([{
                "name": "origin", "host": origin.ip().to_string(), "port": origin.port(),
                "routes": [{ "name": "route", "paths": ["/"], "plugins": case.plugins }],
            }]);
        }
        let version = rig.apply(&file.to_string())?;
        rig.wait_for(version)?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn requests(consumers: usize) -> Vec<Vec<u8>> {
    let request = |number: usize| {
        let consumer = number.wrapping_mul(STRIDE) % consumers;
        let text = format!(
            "GET / HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: bench\r\naccept: */*\r\napikey: key-{consumer}\r\n\r\n"
        );
        text.into_bytes()
    };
    (0..REQUESTS).map(request).collect()
}
