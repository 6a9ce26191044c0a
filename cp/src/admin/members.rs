//! Who belongs to which consumer group: `/consumer_groups/{g}/consumers` and `/consumers/{c}/consumer_groups`.
//!
//! The shapes are those of Kong's Enterprise edition, the only one with groups. Of its lists there are two generations;
//! ours have the fields of both.

use super::answer;
use super::endpoint::Verb;
use super::entities::{answer_changed, shown};
use super::error::Problem;
use super::list::{self, Page, aside};
use super::request::Call;
use super::{WORKSPACE, event_view};
use crate::writer::WriteError;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use sluice_schema::decide::{Command, Membership, MembershipChange, Refusal, Selector};
use sluice_schema::entity::{Entry, Id};
use sluice_schema::kind::Kind;
use sluice_schema::rejection::Code;
use sluice_schema::state::{State, reference_id};

const MEMBER: Kind = Kind::ConsumerGroupConsumer;

/// From which end memberships are seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// The consumers of a group.
    Group,
    /// The groups of a consumer.
    Consumer,
}

impl Side {
    /// The kind that a path begins with.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Group => Kind::ConsumerGroup,
            Self::Consumer => Kind::Consumer,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Group => Self::Consumer,
            Self::Consumer => Self::Group,
        }
    }

    /// The membership's field, and what bodies call one.
    fn field(self) -> &'static str {
        match self {
            Self::Group => "consumer_group",
            Self::Consumer => "consumer",
        }
    }

    /// What bodies call several.
    fn plural(self) -> &'static str {
        self.kind().schema().entity
    }

    /// What a POST calls those that join.
    fn argument(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Consumer => "consumer",
        }
    }

    fn missing(self, name: &Selector) -> Problem {
        let noun = match self {
            Self::Group => "Group",
            Self::Consumer => "Consumer",
        };
        Problem::Missing(format!("{noun} '{}' not found", text(name)))
    }

    fn find(self, state: &State, selector: &Selector) -> Result<Id, Problem> {
        let found = selector.find(state, self.kind(), &WORKSPACE, None);
        found.ok_or_else(|| self.missing(selector))
    }

    /// The ids of the other side's entities that belong to `own`, above `after`.
    fn others(self, state: &State, own: Id, after: Option<Id>) -> impl Iterator<Item = (Id, Id)> {
        let parent = (self.kind(), own);
        let links = state.children(parent, &WORKSPACE, MEMBER, self.field(), after);
        links.filter_map(move |link| {
            let fields = state.entity(MEMBER, &WORKSPACE, link)?.body.fields().ok()?;
            let other = reference_id(fields.get(self.other().field())?)?;
            Some((link, other))
        })
    }

    fn show(self, state: &State, id: Id) -> Option<Value> {
        let entry = state.entity(self.kind(), &WORKSPACE, id)?;
        Some(shown(state, self.kind(), id, entry))
    }
}

/// `/consumer_groups/{g}/consumers`, `/consumers/{c}/consumer_groups`.
pub(super) async fn collection(
    call: &Call<'_>,
    side: Side,
    own: &Selector,
    verb: Verb,
    body: Body,
) -> Result<Response, Problem> {
    let id = side.find(&call.state, own)?;
    match verb {
        Verb::Get => show_others(call, side, id).await,
        Verb::Post => {
            let schema = side.other().kind().schema();
            let fields = call.fields(body, schema, || None).await?;
            join(call, side, (own, id), &fields).await
        }
        Verb::Delete => {
            let others: Vec<Id> = side
                .others(&call.state, id, None)
                .map(|(_, other)| other)
                .collect();
            if others.is_empty() {
                let error = match side {
                    Side::Group => format!("Group '{id}' has no consumers"),
                    Side::Consumer => format!("Consumer '{id}' not in group"),
                };
                return Err(Problem::Missing(error));
            }
            leave(call, side, id, others).await
        }
        Verb::Put | Verb::Patch => Err(Problem::NotFound),
    }
}

/// `/consumer_groups/{g}/consumers/{c}`, `/consumers/{c}/consumer_groups/{g}`.
pub(super) async fn item(
    call: &Call<'_>,
    side: Side,
    own: &Selector,
    other: &Selector,
    verb: Verb,
) -> Result<Response, Problem> {
    let id = side.find(&call.state, own)?;
    let other_id = side.other().find(&call.state, other)?;
    if !belongs(&call.state, side, id, other_id) {
        let (group, consumer) = sides(side, id, other_id);
        let error = format!("Consumer '{consumer}' not found in Group '{group}'");
        return Err(Problem::Missing(error));
    }
    match verb {
        Verb::Get => {
            let entity = side.other().show(&call.state, other_id);
            Ok(answer::ok(&json!({ side.other().field(): entity })))
        }
        Verb::Delete => leave(call, side, id, vec![other_id]).await,
        Verb::Post | Verb::Put | Verb::Patch => Err(Problem::NotFound),
    }
}

/// `GET /consumer_groups/{g}`: the group with its members, unless `list_consumers=false`, and its plugins.
pub(super) async fn group(call: &Call<'_>, id: Id, entry: &Entry) -> Result<Response, Problem> {
    let group = shown(&call.state, Kind::ConsumerGroup, id, entry);
    let mut body = json!({ "consumer_group": group });
    let with_members = call.query.get("list_consumers") != Some("false");
    let state = call.state.clone();
    let lists = move || {
        let members = with_members.then(|| {
            let others = Side::Group.others(&state, id, None);
            others
                .filter_map(|(_, consumer)| Side::Consumer.show(&state, consumer))
                .collect::<Vec<Value>>()
        });
        let parent = (Kind::ConsumerGroup, id);
        let plugins = state.children(parent, &WORKSPACE, Kind::Plugin, "consumer_group", None);
        let plugins: Vec<Value> = plugins
            .filter_map(|id| {
                let entry = state.entity(Kind::Plugin, &WORKSPACE, id)?;
                Some(shown(&state, Kind::Plugin, id, entry))
            })
            .collect();
        (members, plugins)
    };
    let (members, plugins) = aside(lists).await?;
    if let Some(members) = members {
        body["consumers"] = members.into();
    }
    body["plugins"] = plugins.into();
    let mut response = answer::ok(&body);
    answer::set_etag(&mut response, entry.version);
    Ok(response)
}

async fn show_others(call: &Call<'_>, side: Side, id: Id) -> Result<Response, Problem> {
    let page = Page::parse(&call.query)?;
    let after = page.after_id()?;
    let state = call.state.clone();
    let collect = move || {
        let mut others = side.others(&state, id, after).peekable();
        let mut data = Vec::new();
        while let Some((link, other)) = others.next() {
            data.extend(side.other().show(&state, other));
            if data.len() == page.size {
                return (data, others.peek().map(|_| link));
            }
        }
        (data, None)
    };
    let (data, last) = aside(collect).await?;
    let mut body = list::body(call, data, last.map(|id| id.to_string()));
    body[side.other().plural()] = body["data"].clone();
    Ok(answer::ok(&body))
}

async fn join(
    call: &Call<'_>,
    side: Side,
    (name, id): (&Selector, Id),
    fields: &Map<String, Value>,
) -> Result<Response, Problem> {
    let argument = side.other().argument();
    let named = match fields.get(argument) {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Vec::new()
        }
    };
    if named.is_empty() {
        return Err(Problem::Bad(format!("must provide {argument}")));
    }
    let mut others = Vec::with_capacity(named.len());
    for one in &named {
        others.push(side.other().find(&call.state, &Selector::parse(one))?);
    }
    let membership = membership(side, id, others.clone(), MembershipChange::Join);
    let (request, writer) = (call.request()?, &call.admin.control_plane.writer);
    if call.query.flag("dry_run")? {
        let preview = writer.preview(membership, request).await;
        let preview = preview.map_err(|error| already_joined(call, side, name, &named, error))?;
        return Ok(event_view::preview(&preview));
    }
    let written = writer.write(membership, request).await;
    let written = written.map_err(|error| already_joined(call, side, name, &named, error))?;
    let joined = others
        .iter()
        .filter_map(|other| side.other().show(&written.state, *other));
    let body = json!({
        side.field(): side.show(&written.state, id),
        side.other().plural(): joined.collect::<Vec<Value>>(),
    });
    Ok(answer_changed(
        answer::json(StatusCode::CREATED, &body),
        &written,
    ))
}

/// A unique violation in Kong's words: one of `named` belongs to it already.
fn already_joined(
    call: &Call<'_>,
    side: Side,
    name: &Selector,
    named: &[&str],
    error: WriteError,
) -> Problem {
    let taken = match &error {
        WriteError::Refused(Refusal::Rejected(rejection)) => {
            rejection.code == Code::UniqueViolation
        }
        WriteError::Refused(Refusal::Mistaken(_))
        | WriteError::Unavailable { .. }
        | WriteError::Unknown { .. } => false,
    };
    // Somebody else may have been quicker, so that it is looked for in what is there now.
    let state = call.admin.control_plane.view.state();
    let Some(id) = side.find(&state, name).ok().filter(|_| taken) else {
        return error.into();
    };
    let joined = |one: &&&str| {
        let other = side.other().find(&state, &Selector::parse(one));
        other.is_ok_and(|other| belongs(&state, side, id, other))
    };
    let one = named.iter().find(joined).or(named.last());
    let one = one.copied().unwrap_or_default();
    Problem::Conflict(match side {
        Side::Group => format!("Consumer '{one}' already in group '{id}'"),
        Side::Consumer => format!("Consumer '{}' already in group '{one}'", text(name)),
    })
}

async fn leave(call: &Call<'_>, side: Side, id: Id, others: Vec<Id>) -> Result<Response, Problem> {
    let membership = membership(side, id, others, MembershipChange::Leave);
    let (request, writer) = (call.request()?, &call.admin.control_plane.writer);
    if call.query.flag("dry_run")? {
        let preview = writer.preview(membership, request).await?;
        return Ok(event_view::preview(&preview));
    }
    let written = writer.write(membership, request).await?;
    Ok(answer_changed(answer::no_content(), &written))
}

fn membership(side: Side, own: Id, others: Vec<Id>, change: MembershipChange) -> Command {
    let (groups, consumers) = match side {
        Side::Group => (vec![own], others),
        Side::Consumer => (others, vec![own]),
    };
    Command::Membership(Box::new(Membership {
        workspace: WORKSPACE,
        groups,
        consumers,
        change,
    }))
}

/// The group's id and the consumer's.
fn sides(side: Side, own: Id, other: Id) -> (Id, Id) {
    match side {
        Side::Group => (own, other),
        Side::Consumer => (other, own),
    }
}

fn belongs(state: &State, side: Side, own: Id, other: Id) -> bool {
    let (group, consumer) = sides(side, own, other);
    let reference = |id: Id| json!({ "id": id.to_string() });
    let fields = Map::from_iter([
        ("consumer_group".to_owned(), reference(group)),
        ("consumer".to_owned(), reference(consumer)),
    ]);
    let mut uniques = MEMBER.schema().unique.iter();
    uniques.any(|unique| state.holder(MEMBER, &WORKSPACE, unique, &fields).is_some())
}

fn text(selector: &Selector) -> String {
    match selector {
        Selector::Id(id) => id.to_string(),
        Selector::Name(name) => name.clone(),
    }
}
