//! The plugins of a request: those that run, and those that could.

use super::answer::{Entity, Explanation, LeftOut, Plugin, Scope};
use crate::plugin::{Instance, Phases};
use crate::proxy::takes_part;
use crate::table::{Bound, Considered, Disabled, Route, Table};
use sluice_schema::entity::Workspace;
use std::sync::Arc;

/// Those that answer in place of the upstream, always or under a condition of their configuration.
const ANSWERING: [&str; 4] = [
    "request-termination",
    "redirect",
    "aws-lambda",
    "azure-functions",
];

/// Tells of the plugins for a request on a route.
pub(super) fn explain(
    explanation: &mut Explanation,
    table: &Table,
    route: &Route,
    consumer: Option<&str>,
) {
    let found = consumer.map(|name| table.consumer_named(&route.workspace, name));
    let known = found.flatten().map(|consumer| consumer.id);
    let considered = table.considered(route, known);
    explanation
        .notes
        .extend(notes(&considered, (consumer, known.is_some())));
    let workspace = &route.workspace;
    let runs = |instance: &&Arc<Instance>| takes_part(instance);
    let chain = &considered.chain;
    explanation.plugins = chain
        .iter()
        .filter(runs)
        .map(|instance| plugin(workspace, instance))
        .collect();
    let other_protocols = chain.iter().filter(|instance| !takes_part(instance));
    let other_protocols = other_protocols.map(|instance| {
        let reason = "its protocols are none of HTTP; none of the same name runs in its place";
        left_out(workspace, instance, reason.to_owned())
    });
    let others = considered
        .others
        .iter()
        .map(|other| left_out(workspace, other, why_not(other, chain)));
    let disabled = considered
        .disabled
        .iter()
        .map(|disabled| switched_off(workspace, disabled));
    explanation.plugins_left_out = other_protocols.chain(others).chain(disabled).collect();
}

fn notes(considered: &Considered, (asked, known): (Option<&str>, bool)) -> Vec<String> {
    let mut notes = Vec::new();
    match asked {
        None if considered.identifies => {
            notes
                .push("no consumer: what belongs to consumers is left out (--consumer)".to_owned());
        }
        None => {}
        Some(name) if !known => {
            notes.push(format!(
                "there is no consumer {name} in the route's workspace: what belongs to consumers is left out"
            ));
        }
        Some(name) if !considered.identifies => {
            notes.push(format!(
                "no plugin here says who the consumer is, so that {name} is not known: what belongs to consumers is left out"
            ));
        }
        Some(_) => {}
    }
    let runs = considered
        .chain
        .iter()
        .filter(|instance| takes_part(instance) && instance.phases.overlap(Phases::ACCESS));
    for instance in runs {
        if ANSWERING.contains(&instance.name) {
            notes.push(format!(
                "{} answers in place of the upstream, as far as its configuration says",
                instance.name
            ));
        }
    }
    notes
}

/// Why an instance whose scope fits does not run.
fn why_not(other: &Instance, chain: &[Arc<Instance>]) -> String {
    match chain.iter().find(|instance| instance.name == other.name) {
        Some(instance) => {
            let winner = Scope::from(Bound::of(instance)).words();
            format!("hidden by that of {winner}")
        }
        None => "its place in the order is before the consumer is known".to_owned(),
    }
}

fn plugin(workspace: &Workspace, instance: &Instance) -> Plugin {
    let scope = Scope::from(Bound::of(instance));
    Plugin {
        entity: entity(workspace, instance),
        scope,
        of: scope.words(),
        priority: instance.priority,
        phases: instance.phases.names(),
    }
}

fn left_out(workspace: &Workspace, instance: &Instance, reason: String) -> LeftOut {
    let scope = Scope::from(Bound::of(instance));
    LeftOut {
        entity: entity(workspace, instance),
        scope,
        of: scope.words(),
        reason,
    }
}

fn switched_off(workspace: &Workspace, disabled: &Disabled) -> LeftOut {
    let scope = Scope::from(disabled.bound);
    let name = Some(&*disabled.name);
    LeftOut {
        entity: Entity::new("plugin", workspace, disabled.id, name, disabled.version),
        scope,
        of: scope.words(),
        reason: "disabled".to_owned(),
    }
}

fn entity(workspace: &Workspace, instance: &Instance) -> Entity {
    let version = instance.stamp.version;
    Entity::new(
        "plugin",
        workspace,
        instance.id,
        Some(instance.name),
        version,
    )
}
