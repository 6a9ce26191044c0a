//! The tail: what the broker sends on by itself, joined with what happens to the connection.

use super::link::Link;
use super::names::Names;
use super::{CountsItem, Interest, LogError, TailItem, read};
use async_nats::Message;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use std::future::ready;
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

/// What data planes tell of what they have counted.
pub(super) async fn counts(
    link: &Link,
    names: &Names,
) -> Result<BoxStream<'static, CountsItem>, LogError> {
    let events = link.events();
    let prefix = names.count_prefix();
    let counts = link.subscribe(names.count_all.clone()).await?;
    let counts = counts.filter_map(move |message: Message| {
        let node = message.subject.strip_prefix(&*prefix).map(str::to_owned);
        let counts = message.payload;
        ready(node.map(|node| CountsItem::Counts { node, counts }))
    });
    let events = connection(events).filter_map(|item| ready(connected(&item)));
    let standing = link.standing().as_ref().and_then(connected);
    let heard = stream::select(counts, events);
    Ok(stream::iter(standing).chain(heard).boxed())
}

fn connected(item: &TailItem) -> Option<CountsItem> {
    match item {
        TailItem::Connected => Some(CountsItem::Connected),
        TailItem::Disconnected
        | TailItem::Warning(_)
        | TailItem::Record(_)
        | TailItem::Head(_)
        | TailItem::Report(_) => None,
    }
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
