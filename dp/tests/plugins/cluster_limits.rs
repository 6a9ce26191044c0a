//! Limits over all data planes, without a broker: what they tell each other, and what happens where they cannot. With a real
//! one: tests/tests/shared_limits.rs.

use crate::common::*;
use crate::support::*;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::BoxStream;
use serde_json::json;
use sluice_dp::plugin::{Heard, Peers};
use sluice_dp::proxy::Options;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What data planes are connected by. It gives everything twice, and what is older after what is newer.
#[derive(Debug, Default)]
struct Hub {
    down: AtomicBool,
    listeners: Mutex<Vec<UnboundedSender<Heard>>>,
    said: Mutex<Vec<Heard>>,
}

/// The way of one data plane.
#[derive(Debug)]
struct Way {
    hub: Arc<Hub>,
    node: &'static str,
    cut: AtomicBool,
}

impl Hub {
    fn send(&self, heard: &Heard) {
        let mut listeners = self.listeners.lock().unwrap();
        listeners.retain(|listener| listener.unbounded_send(heard.clone()).is_ok());
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
        if !down {
            self.send(&Heard::Connected);
        }
    }
}

impl Peers for Way {
    fn tell(&self, message: Bytes) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        let off = self.hub.down.load(Ordering::Relaxed) || self.cut.load(Ordering::Relaxed);
        if !off {
            let heard = Heard::Message {
                from: self.node.into(),
                message,
            };
            self.hub.send(&heard);
            let mut said = self.hub.said.lock().unwrap();
            said.push(heard);
            said.iter().rev().for_each(|heard| self.hub.send(heard));
        }
        Box::pin(std::future::ready(!off))
    }

    fn listen(
        &self,
    ) -> Pin<Box<dyn Future<Output = Option<BoxStream<'static, Heard>>> + Send + '_>> {
        let (sender, heard) = unbounded();
        sender.unbounded_send(Heard::Connected).unwrap();
        self.hub.listeners.lock().unwrap().push(sender);
        Box::pin(std::future::ready(Some(heard.boxed())))
    }
}

struct Node {
    gateway: Gateway,
    _origin: Origin,
    way: Arc<Way>,
}

impl Node {
    async fn start(hub: &Arc<Hub>, node: &'static str) -> Self {
        let way = Arc::new(Way {
            hub: Arc::clone(hub),
            node,
            cut: AtomicBool::new(false),
        });
        let options = Options {
            peers: Some(way.clone()),
            ..options()
        };
        let origin = Origin::echo().await;
        let config = json!({ "minute": 1000, "policy": "cluster" });
        let gateway = Gateway::with(
            options,
            &[
                service(1, origin.address, json!({})),
                route(2, json!({ "paths": ["/"] })),
                global(10, "rate-limiting", config),
            ],
        );
        Self {
            gateway,
            _origin: origin,
            way,
        }
    }

    /// What was used before this request.
    async fn used(&self) -> u64 {
        let reply = self.gateway.get("/").await;
        let left = reply.header("ratelimit-remaining").unwrap();
        999 - left.parse::<u64>().unwrap()
    }

    /// Asks until as much was used before as `expected` and its own requests meanwhile; gives how many these were.
    async fn learns(&self, expected: u64) -> u64 {
        let mut asked = 0;
        until(async || {
            let used = self.used().await;
            asked += 1;
            assert!(used < expected + asked, "{used}: counted twice");
            used == expected + asked - 1
        })
        .await;
        asked
    }
}

#[tokio::test]
async fn data_planes_add_up_what_each_has_let_in() {
    let hub = Arc::new(Hub::default());
    let (one, two) = (
        Node::start(&hub, "one").await,
        Node::start(&hub, "two").await,
    );
    for before in 0..5 {
        assert_eq!(one.used().await, before);
    }
    let more = two.learns(5).await;
    let all = 5 + more + one.learns(5 + more).await;
    // One that comes later is told what was counted before.
    let three = Node::start(&hub, "three").await;
    three.learns(all).await;
}

#[tokio::test]
async fn who_cannot_reach_others_counts_alone_and_tells_them_afterwards() {
    let hub = Arc::new(Hub::default());
    let (one, two) = (
        Node::start(&hub, "one").await,
        Node::start(&hub, "two").await,
    );
    let mut all = one.learns(0).await;
    all += two.learns(all).await;
    hub.set_down(true);
    for _ in 0..10 {
        for node in [&one, &two] {
            // Not what the other lets in meanwhile.
            assert!(node.used().await <= all + 10);
        }
    }
    all += 20;
    hub.set_down(false);
    all += one.learns(all).await;
    two.learns(all).await;
}

#[tokio::test]
async fn what_a_node_has_counted_before_its_restart_is_remembered_by_the_others() {
    let hub = Arc::new(Hub::default());
    let (one, two) = (
        Node::start(&hub, "one").await,
        Node::start(&hub, "two").await,
    );
    for _ in 0..10 {
        one.used().await;
    }
    let mut all = 10 + two.learns(10).await;
    one.way.cut.store(true, Ordering::Relaxed);
    drop(one);
    hub.said.lock().unwrap().clear();
    let one = Node::start(&hub, "one").await;
    all += one.learns(all).await;
    two.learns(all).await;
}
