//! `acl`: which groups of consumers may pass.

use crate::plugin::{Access, Answer, Entity, Phases, Plugin, Step};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeSet;

const CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
const AUTHENTICATED_GROUPS: HeaderName = HeaderName::from_static("x-authenticated-groups");

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    hide_groups_header: bool,
    always_use_authenticated_groups: bool,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Acl {
    groups: BTreeSet<String>,
    /// Whether these groups may pass, and not all others.
    allows: bool,
    tells: bool,
    prefers_authenticated: bool,
}

impl Plugin for Acl {
    const NAME: &'static str = "acl";
    const PRIORITY: i32 = 950;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let deny = fields.deny.filter(|groups| !groups.is_empty());
        let allows = deny.is_none();
        let groups = deny.or(fields.allow).unwrap_or_default();
        Ok(Self {
            groups: groups.into_iter().collect(),
            allows,
            tells: !fields.hide_groups_header,
            prefers_authenticated: fields.always_use_authenticated_groups,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let identity = &request.context.identity;
        let authenticated = !identity.groups.is_empty();
        let (header, mut groups): (_, Vec<Cow<'_, str>>) = match &identity.consumer {
            Some(consumer) if !(authenticated && self.prefers_authenticated) => {
                let groups = request.table.acl_groups(consumer.id).iter();
                let groups = groups.map(|group| Cow::Borrowed(&**group));
                (CONSUMER_GROUPS, groups.collect())
            }
            Some(_) | None if authenticated => {
                let groups = identity.groups.iter();
                let groups = groups.map(|group| Cow::Owned(group.clone()));
                (AUTHENTICATED_GROUPS, groups.collect())
            }
            Some(_) | None => {
                return Step::Answer(if identity.credential.is_some() {
                    forbidden()
                } else {
                    Answer::message(StatusCode::UNAUTHORIZED, "Unauthorized")
                });
            }
        };
        let is_in = groups.iter().any(|group| self.groups.contains(&**group));
        if is_in != self.allows {
            return Step::Answer(forbidden());
        }
        if self.tells {
            groups.sort_unstable();
            groups.dedup();
            let groups = HeaderValue::try_from(groups.join(", "));
            // Nobody else has a say in that.
            request.headers.remove(&AUTHENTICATED_GROUPS);
            request
                .headers
                .extend(groups.ok().map(|groups| (header, groups)));
        }
        Step::Continue
    }
}

fn forbidden() -> Answer {
    Answer::message(StatusCode::FORBIDDEN, "You cannot consume this service")
}
