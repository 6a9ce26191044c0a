//! The proof that a plugin cannot be stale: random edits of its configuration, and of what that refers to, during traffic.
//!
//! Each edit has a number and shows it in what the plugin does. A response must show one number, everywhere the same, of
//! an edit that was active between the request's start and its end. Edits come one entity after the other or as a whole
//! state, as after a snapshot; unrelated entities change along with them.

#![allow(clippy::print_stdout, reason = "a failure is run again by its seed")]

use super::{Client, Entity, Gateway, Origin, Reply, reference, route, service};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sluice_dp::plugin::{Registry, STANDARD};
use sluice_dp::proxy::Options;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const EDITS: u64 = 150;
const CLIENTS: usize = 4;
/// The ids of what changes beside the plugin.
const NOISE: u128 = 0xF000;
/// To run one seed again.
const SEED: &str = "SLUICE_SEED";

/// Where edits and requests meet.
#[derive(Default)]
struct Progress {
    /// The last edit that is about to become active.
    begun: AtomicU64,
    /// The last edit that every new request sees.
    active: AtomicU64,
    done: AtomicBool,
}

/// Runs edits and requests on a gateway with service 1 at an echoing origin and route 2 for everything. `edit` gives the
/// entities that make edit `n` visible, always the same ones; `ask` sends a request by which the plugin shows its number;
/// `shown` gives the numbers in a response, at least one.
pub(crate) async fn is_consistent<E, A, S>(edit: E, ask: A, shown: S)
where
    E: Fn(u64) -> Vec<Entity>,
    A: AsyncFn(&mut Client) -> Reply,
    S: Fn(&Reply) -> Vec<u64>,
{
    is_consistent_with(STANDARD, edit, ask, shown).await;
}

/// The same with other plugins.
pub(crate) async fn is_consistent_with<E, A, S>(registry: Registry, edit: E, ask: A, shown: S)
where
    E: Fn(u64) -> Vec<Entity>,
    A: AsyncFn(&mut Client) -> Reply,
    S: Fn(&Reply) -> Vec<u64>,
{
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let origin = Origin::echo().await;
    let base = vec![
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let options = Options {
        workers: 2,
        ..Options::default()
    };
    let gateway = Gateway::with_plugins(registry, options, &[base.clone(), edit(0)].concat());
    let progress = Progress::default();
    let clients = (0..CLIENTS).map(|_| follow(&gateway, &progress, &ask, &shown));
    let clients = futures::future::join_all(clients);
    let edits = async {
        for number in 1..=EDITS {
            let edit = edit(number);
            progress.begun.store(number, Ordering::SeqCst);
            match dice.random_range(0..4_u8) {
                0 => gateway.reload(&[base.clone(), edit].concat()),
                1 => gateway.apply(&[edit, noise(&mut dice, number)].concat()),
                2 => {
                    gateway.apply(&edit);
                    gateway.remove(&noise(&mut dice, number));
                }
                _ => gateway.apply(&edit),
            }
            progress.active.store(number, Ordering::SeqCst);
            // Between none and some requests see each edit.
            let pause = Duration::from_micros(dice.random_range(0..3000));
            tokio::time::sleep(pause).await;
        }
        progress.done.store(true, Ordering::SeqCst);
    };
    let (seen, ()) = futures::future::join(clients, edits).await;
    assert!(
        seen.into_iter().sum::<u64>() > EDITS / 10,
        "hardly any request was sent"
    );
}

/// Asks until all edits are done. Gives how many requests showed what they should.
async fn follow<A, S>(gateway: &Gateway, progress: &Progress, ask: &A, shown: &S) -> u64
where
    A: AsyncFn(&mut Client) -> Reply,
    S: Fn(&Reply) -> Vec<u64>,
{
    let mut client = gateway.client().await;
    let mut count = 0;
    // One more after the last edit: it must show that one.
    let mut last = false;
    while !last {
        last = progress.done.load(Ordering::SeqCst);
        let oldest = progress.active.load(Ordering::SeqCst);
        let reply = ask(&mut client).await;
        let closes = reply.header("connection") == Some("close");
        let newest = progress.begun.load(Ordering::SeqCst);
        let shown = shown(&reply);
        assert!(!shown.is_empty(), "a response shows no edit: {reply:?}");
        let one = shown.iter().all(|number| *number == shown[0]);
        let possible = oldest..=newest;
        assert!(
            one && possible.contains(&shown[0]),
            "a response shows {shown:?} where {possible:?} were active: {reply:?}"
        );
        if closes || !reply.status.is_success() {
            // What was not read of a refused request ends the connection.
            client = gateway.client().await;
        }
        count += 1;
    }
    count
}

/// Entities that have nothing to do with the plugin.
fn noise(dice: &mut StdRng, number: u64) -> Vec<Entity> {
    let count = dice.random_range(1..4);
    let mut noise = Vec::new();
    for _ in 0..count {
        let id = NOISE + dice.random_range(0..8);
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        noise.push(service(id, nowhere, json!({ "retries": number % 5 })));
        noise.push(route(
            id + 8,
            json!({ "paths": ["/noise"], "service": reference(id) }),
        ));
    }
    noise
}
