//! A broker that does not keep what it was given.

use crate::server::Server;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::BoxStream;
use serde_json::json;
use sluice_replica::keys::{Keychain, SigningKey};
use sluice_replica::log::{
    Append, AppendError, Bounds, Durability, Interest, Log, LogError, Page, Record, Source,
    TailItem,
};
use sluice_schema::version::Version;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stores the first event only of the first batch it is given, and dies before it answers: what a broker does that
/// loses power while it stores an atomic batch.
#[derive(Debug)]
struct Torn {
    log: Arc<dyn Log>,
    done: Arc<AtomicBool>,
}

#[async_trait]
impl Log for Torn {
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError> {
        if events.len() < 2 || self.done.swap(true, Ordering::Relaxed) {
            return self.log.append(expected, events).await;
        }
        self.log.append(expected, events[..1].to_vec()).await?;
        let source = LogError::Unavailable("the power is gone".into());
        Err(AppendError::Unknown { expected, source })
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        self.log.read(from).await
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        self.log.get(version).await
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.log.bounds().await
    }

    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        self.log.tail(interest).await
    }

    async fn announce(&self, head: Bytes) -> Result<(), LogError> {
        self.log.announce(head).await
    }

    async fn report(&self, node: &str, report: Bytes) -> Result<(), LogError> {
        self.log.report(node, report).await
    }

    async fn trim(&self, first: Version) -> Result<(), LogError> {
        self.log.trim(first).await
    }

    async fn durability(&self) -> Durability {
        self.log.durability().await
    }
}

/// Writers that write at the same time, so that their events go out together.
const WRITERS: usize = 8;
/// How often they try until some have.
const ROUNDS_MAX: usize = 100;

#[tokio::test]
async fn what_a_torn_batch_has_lost_is_not_acknowledged_before_it_is_stored() {
    let torn = Arc::new(AtomicBool::new(false));
    let done = torn.clone();
    let keychain = Keychain::fixed(SigningKey::from_seed([1; 32]).trusted());
    let server = Server::start_on(keychain, |source| Source {
        log: Arc::new(Torn {
            log: source.log,
            done,
        }),
        ..source
    })
    .await;
    let mut versions = BTreeSet::new();
    let mut written = 0;
    for round in 0..ROUNDS_MAX {
        if torn.load(Ordering::Relaxed) {
            break;
        }
        let create = async |writer: usize| {
            let body = json!({ "username": format!("{round}-{writer}") });
            server.send("POST", "/consumers", &[], body).await
        };
        for answer in join_all((0..WRITERS).map(create)).await {
            assert_eq!(answer.status, 201, "{}", answer.text);
            assert!(
                versions.insert(answer.version()),
                "two share version {}",
                answer.version()
            );
            written += 1;
        }
    }
    assert!(torn.load(Ordering::Relaxed), "there was no batch");
    let path = format!("/consumers?size={}", 1000);
    let (_, page) = server.check("GET", &path, json!(null)).await;
    assert_eq!(page["data"].as_array().unwrap().len(), written);
}
