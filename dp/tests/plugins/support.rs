//! What tests of plugins have in common.

use crate::common::*;
use serde_json::{Value, json};
use sluice_dp::proxy::Options;

/// 2023-11-14 22:13:20 UTC: 40 seconds before the end of the minute.
pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) fn options() -> Options {
    Options {
        clock: || NOW,
        ..Options::default()
    }
}

/// A gateway with service 1 at an echoing origin, route 2 for everything, and these entities.
pub(crate) async fn gateway_with(entities: &[Entity]) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let base = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options(), &[&base, entities].concat());
    (origin, gateway)
}

/// A plugin for everything, with this configuration.
pub(crate) fn global(id: u128, name: &str, config: Value) -> Entity {
    scoped(id, name, config, &[])
}

/// A plugin for what it is bound to.
pub(crate) fn scoped(id: u128, name: &str, config: Value, scope: &[(&str, u128)]) -> Entity {
    let mut fields = json!({ "name": name, "config": config });
    for (part, id) in scope {
        fields[*part] = reference(*id);
    }
    plugin(id, fields)
}

/// Consumer 10 with key 11, and key-auth.
pub(crate) fn key_auth(config: Value) -> Vec<Entity> {
    vec![
        consumer(10, json!({ "username": "alice", "custom_id": "a-1" })),
        key_credential(11, 10, json!({ "key": "secret" })),
        plugin(12, json!({ "name": "key-auth", "config": config })),
    ]
}

/// The numbers that texts show after a prefix; one that was never active for a text that shows none.
pub(crate) fn numbers(texts: &[Option<String>], prefix: &str) -> Vec<u64> {
    let number = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.strip_prefix(prefix).and_then(|text| text.parse().ok())
    };
    texts
        .iter()
        .map(|text| number(text).unwrap_or(u64::MAX))
        .collect()
}

/// A header of the response.
pub(crate) fn sent(reply: &Reply, name: &str) -> Option<String> {
    reply.header(name).map(str::to_owned)
}
