//! A log to write to and to listen to, for tests of what the broker does.

use futures::StreamExt;
use futures::stream::BoxStream;
use sluice_replica::log::jetstream::{JetStream, Options};
use sluice_replica::log::{Append, Interest, Signature, Source, TailItem};
use sluice_schema::event::EventId;
use std::time::Duration;
use uuid::Uuid;

/// Whatever should happen and does not, fails the test after this.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a subscription yields.
pub type Tail = BoxStream<'static, TailItem>;

/// Something to append; no replica would take it up.
pub fn event(text: &str) -> Append {
    Append {
        subject: "default.service.x".into(),
        id: EventId(Uuid::now_v7()),
        event: text.as_bytes().to_vec().into(),
        signature: Signature {
            key: "00112233aabbccdd".into(),
            bytes: [1; 64],
        },
    }
}

/// Reads on until the item comes.
///
/// # Panics
/// If it does not, with what came instead.
pub async fn wait_until(tail: &mut Tail, mut wanted: impl FnMut(&TailItem) -> bool) {
    let mut seen = Vec::new();
    let waiting = async {
        loop {
            let item = tail.next().await.expect("the tail does not end");
            if wanted(&item) {
                return;
            }
            seen.push(item);
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(found.is_ok(), "only this came: {seen:?}");
}

/// A log that is connected.
///
/// # Panics
/// If it cannot be.
pub async fn connected(options: Options) -> Source {
    let connecting = JetStream::connect(options).await;
    let source = connecting.expect("the options are right");
    let subscribing = source.log.tail(Interest::Follow).await;
    let mut tail = subscribing.expect("the tail can be subscribed to");
    wait_until(&mut tail, |item| matches!(item, TailItem::Connected)).await;
    source
}
