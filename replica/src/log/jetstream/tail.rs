//! The tail: what the broker sends on by itself, joined with what happens to the connection.

use super::link::Link;
use super::names::Names;
use super::{Interest, LogError, TailItem, read};
use async_nats::Message;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

pub(super) async fn subscribe(
    link: &Link,
    names: &Names,
    interest: Interest,
) -> Result<BoxStream<'static, TailItem>, LogError> {
    // First, so that a connection made meanwhile is not missed.
    let events = link.events();
    let mut tail: SelectAll<BoxStream<'static, TailItem>> = SelectAll::new();
    let records = link.subscribe(names.tail_all.clone()).await?;
    tail.push(
        records
            .filter_map(|message| async { read::record(message).map(TailItem::Record) })
            .boxed(),
    );
    let heads = link.subscribe(names.head.clone()).await?;
    tail.push(
        heads
            .map(|message: Message| TailItem::Head(message.payload))
            .boxed(),
    );
    match interest {
        Interest::Follow => {}
        Interest::FollowAndReports => {
            let reports = link.subscribe(names.node_all.clone()).await?;
            tail.push(
                reports
                    .map(|message: Message| TailItem::Report(message.payload))
                    .boxed(),
            );
        }
    }
    tail.push(connection(events).boxed());
    Ok(stream::iter(link.standing()).chain(tail).boxed())
}

fn connection(events: Receiver<TailItem>) -> impl futures::Stream<Item = TailItem> {
    stream::unfold(events, |mut events| async {
        match events.recv().await {
            Ok(item) => Some((item, events)),
            // What was missed may have been "connected". Whoever hears of a connection looks for what it missed.
            Err(RecvError::Lagged(_)) => Some((TailItem::Connected, events)),
            Err(RecvError::Closed) => None,
        }
    })
}
