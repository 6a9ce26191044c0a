//! `visits`: tells clients how many requests the plugin has seen, and turns them away after the last one.

use crate::common::consistency::is_consistent_with;
use crate::common::*;
use crate::support::*;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sluice_dp::plugin::{
    Access, Answer, Change, Entity as PluginEntity, Lasting, Phases, Plugin, Registered, Registry,
    Reply as PluginReply, Step,
};
use sluice_dp::proxy::Options;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

// The example of docs/guide/write-a-plugin.md begins here.
const VISITS: HeaderName = HeaderName::from_static("x-visits");
const VISITS_MAX: HeaderName = HeaderName::from_static("x-visits-max");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
struct Fields {
    visits_max: u64,
}

/// The prepared configuration.
struct Visits {
    id: Uuid,
    visits_max: u64,
}

/// What outlives configuration: how many requests each plugin entity has seen.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<Uuid, u64>>);

impl Lasting for Seen {}

/// What the access phase tells the response phase.
struct Number(u64);

impl Plugin for Visits {
    const NAME: &'static str = "visits";
    const PRIORITY: i32 = 905;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = Seen;

    fn compile(fields: Fields, entity: &PluginEntity<'_>) -> Result<Self, String> {
        Ok(Self {
            id: entity.id,
            visits_max: fields.visits_max,
        })
    }

    fn changed(seen: &Seen, change: Change<'_, Self>) {
        let mut seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Created { now, .. } => _ = seen.insert(now.id, 0),
            // Counts stay: only the limit is another.
            Change::Updated { .. } => {}
            Change::Deleted { before, .. } => _ = seen.remove(&before.id),
        }
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let seen = request.state::<Self>();
        let mut seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A request that began before the entity was deleted counts for nothing.
        let Some(count) = seen.get_mut(&self.id) else {
            return Step::Continue;
        };
        *count += 1;
        request.context.shared.insert(Number(*count));
        if *count > self.visits_max {
            let answer = Answer::message(StatusCode::TOO_MANY_REQUESTS, "That was the last one");
            return Step::Answer(answer);
        }
        Step::Continue
    }

    fn response(&self, reply: &mut PluginReply<'_>) {
        if let Some(Number(number)) = reply.context.shared.get() {
            reply.headers.insert(VISITS, HeaderValue::from(*number));
        }
        reply
            .headers
            .insert(VISITS_MAX, HeaderValue::from(self.visits_max));
    }
}
// It ends here.

static PLUGINS: &[Registered] = &[Registered::of::<Visits>()];
const REGISTRY: Registry = Registry::new(PLUGINS);

fn visits(visits_max: u64) -> Entity {
    global(10, "visits", json!({ "visits_max": visits_max }))
}

#[tokio::test]
async fn visits_are_counted_over_changes_of_the_limit() {
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
        visits(2),
    ];
    let gateway = Gateway::with_plugins(REGISTRY, Options::default(), &entities);
    for (limit, number, status) in [(2, "1", 200), (2, "2", 200), (2, "3", 429), (4, "4", 200)] {
        gateway.apply(&[visits(limit)]);
        let reply = gateway.get("/").await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("x-visits")),
            (status, Some(number))
        );
    }
    gateway.remove(&[visits(4)]);
    gateway.apply(&[visits(4)]);
    assert_eq!(gateway.get("/").await.header("x-visits"), Some("1"));
}

#[tokio::test]
async fn visits_is_consistent() {
    is_consistent_with(
        REGISTRY,
        |n| vec![visits(1_000_000 + n)],
        async |client: &mut Client| client.get("/").await,
        |reply| {
            let shown = numbers(&[sent(reply, "x-visits-max")], "");
            shown
                .into_iter()
                .map(|limit| limit.wrapping_sub(1_000_000))
                .collect()
        },
    )
    .await;
}

#[test]
fn the_guide_shows_this_example() {
    let (source, guide) = (
        include_str!("visits.rs"),
        include_str!("../../../docs/guide/write-a-plugin.md"),
    );
    let (_, rest) = source.split_once("begins here.\n").unwrap();
    let (example, _) = rest.split_once("// It ends here.").unwrap();
    // In the gateway there is no other `Entity` and no other `Reply`.
    let example = example
        .replace("PluginEntity", "Entity")
        .replace("PluginReply", "Reply");
    assert!(
        guide.contains(example.trim()),
        "docs/guide/write-a-plugin.md shows another example"
    );
}
