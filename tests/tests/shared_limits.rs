//! A rate limit over all data planes, with a real broker: shared, kept through a data plane's restart, and everybody counts
//! alone while the broker is away.

#![cfg(test)]

use anyhow::{Context, Result};
use serde_json::json;
use sluice_tests::cluster::{Cluster, PATIENCE};
use std::io::{Read, Write};
use std::net::TcpStream;

/// In a year: no test lasts until the window ends.
const LIMIT: u64 = 1000;

/// What was used before this request, as its answer says.
fn used(cluster: &Cluster, data: usize) -> Result<u64> {
    let mut stream = TcpStream::connect(cluster.datas[data].proxy())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /limited HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let left = answer
        .lines()
        .find_map(|line| line.strip_prefix("ratelimit-remaining: "));
    let left: u64 = left.with_context(|| answer.clone())?.trim().parse()?;
    Ok(LIMIT - 1 - left)
}

/// Asks until as much was used before as `expected` and the requests meanwhile; gives how many these were.
fn learns(cluster: &Cluster, data: usize, expected: u64) -> u64 {
    let mut asked = 0;
    cluster
        .wait_until("it learns what others have counted", |cluster| {
            let used = used(cluster, data)?;
            asked += 1;
            assert!(
                used < expected + asked,
                "{used} of {expected}: counted twice"
            );
            Ok(used == expected + asked - 1)
        })
        .unwrap();
    asked
}

#[test]
fn data_planes_share_a_limit_and_count_alone_while_the_broker_is_away() {
    let mut cluster = Cluster::start(1, 2).unwrap();
    let file = json!({ "_format_version": "3.0", "services": [{
        "name": "limited", "url": format!("http://{}", cluster.origin),
        "routes": [{ "name": "limited", "paths": ["/limited"] }],
        "plugins": [{ "name": "rate-limiting", "config": { "year": LIMIT, "policy": "cluster" } }],
    }] });
    cluster.apply(0, &file).unwrap();
    cluster.converge().unwrap();
    for before in 0..20 {
        assert_eq!(used(&cluster, 0).unwrap(), before);
    }
    let mut all = 20;
    all += learns(&cluster, 1, all);
    all += learns(&cluster, 0, all);
    all += learns(&cluster, 1, all);

    // What it has counted is known to the other, which tells it.
    cluster.datas[0].kill();
    cluster.datas[0].restart().unwrap();
    all += learns(&cluster, 0, all);
    all += learns(&cluster, 1, all);

    cluster.nats.kill();
    for _ in 0..20 {
        for data in 0..2 {
            // Not what the other lets in meanwhile.
            assert!(used(&cluster, data).unwrap() <= all + 20);
        }
    }
    all += 40;
    cluster.nats.restart().unwrap();
    all += learns(&cluster, 1, all);
    learns(&cluster, 0, all);
}
