//! Who belongs to which consumer group: `/consumer_groups/{g}/consumers` and `/consumers/{c}/consumer_groups`.
//!
//! The shapes are those of Kong's Enterprise edition, the only one with groups. Of its lists there are two generations;
//! ours have the fields of both.

use super::answer;
use super::endpoint::Verb;
use super::entities::{answer_changed, preview};
use super::error::Problem;
use super::inside::Inside;
use super::list::{self, Page, aside};
use super::request::Call;
use crate::writer::WriteError;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use sluice_schema::decide::{Command, Membership, MembershipChange, Refusal, Selector};
use sluice_schema::entity::{Entry, Id};
use sluice_schema::kind::Kind;
use sluice_schema::rejection::Code;
use sluice_schema::state::reference_id;

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

    fn find(self, inside: &Inside, selector: &Selector) -> Result<Id, Problem> {
        let found = inside.find(self.kind(), selector);
        found.ok_or_else(|| self.missing(selector))
    }

    /// The ids of the other side's entities that belong to `own`, above `after`.
    fn others(self, inside: &Inside, own: Id, after: Option<Id>) -> impl Iterator<Item = (Id, Id)> {
        let parent = (self.kind(), own);
        let links = inside.children(parent, MEMBER, self.field(), after);
        links.filter_map(move |link| {
            let fields = inside.entity(MEMBER, link)?.body.fields().ok()?;
            let other = reference_id(fields.get(self.other().field())?)?;
            Some((link, other))
        })
    }

    fn show(self, inside: &Inside, id: Id) -> Option<Value> {
        inside.show(self.kind(), id)
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
    let id = side.find(&call.inside, own)?;
    match verb {
        Verb::Get => show_others(call, side, id).await,
        Verb::Post => {
            let schema = side.other().kind().schema();
            let fields = call.fields(body, schema, || None).await?;
            join(call, side, (own, id), &fields).await
        }
        Verb::Delete => {
            let others: Vec<Id> = side
                .others(&call.inside, id, None)
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
    let id = side.find(&call.inside, own)?;
    let other_id = side.other().find(&call.inside, other)?;
    if !belongs(&call.inside, side, id, other_id) {
        let (group, consumer) = sides(side, id, other_id);
        let error = format!("Consumer '{consumer}' not found in Group '{group}'");
        return Err(Problem::Missing(error));
    }
    match verb {
        Verb::Get => {
            let entity = side.other().show(&call.inside, other_id);
            Ok(answer::ok(&json!({ side.other().field(): entity })))
        }
        Verb::Delete => leave(call, side, id, vec![other_id]).await,
        Verb::Post | Verb::Put | Verb::Patch => Err(Problem::NotFound),
    }
}

/// `GET /consumer_groups/{g}`: the group with its members, unless `list_consumers=false`, and its plugins.
pub(super) async fn group(call: &Call<'_>, id: Id, entry: &Entry) -> Result<Response, Problem> {
    let group = call.inside.shown(Kind::ConsumerGroup, id, entry);
    let mut body = json!({ "consumer_group": group });
    let with_members = call.query.get("list_consumers") != Some("false");
    let inside = call.inside.clone();
    let lists = move || {
        let members = with_members.then(|| {
            let others = Side::Group.others(&inside, id, None);
            others
                .filter_map(|(_, consumer)| Side::Consumer.show(&inside, consumer))
                .collect::<Vec<Value>>()
        });
        let parent = (Kind::ConsumerGroup, id);
        let plugins = inside.children(parent, Kind::Plugin, "consumer_group", None);
        let plugins: Vec<Value> = plugins
            .filter_map(|id| inside.show(Kind::Plugin, id))
            .collect();
        (members, plugins)
    };
    let (members, plugins) = aside(lists).await?;
    if let Some(members) = members {
        body["consumers"] = members.into();
    }
    body["plugins"] = plugins.into();
    let mut response = answer::ok(&body);
    answer::set_etag(&mut response, call.inside.tag(Kind::ConsumerGroup, id));
    Ok(response)
}

async fn show_others(call: &Call<'_>, side: Side, id: Id) -> Result<Response, Problem> {
    let page = Page::parse(&call.query)?;
    let after = page.after_id()?;
    let inside = call.inside.clone();
    let collect = move || {
        let mut others = side.others(&inside, id, after).peekable();
        let mut data = Vec::new();
        while let Some((link, other)) = others.next() {
            data.extend(side.other().show(&inside, other));
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
        others.push(side.other().find(&call.inside, &Selector::parse(one))?);
    }
    let membership = membership(call, side, id, others.clone(), MembershipChange::Join);
    let (request, writer) = (call.request()?, &call.admin.control_plane.writer);
    if call.query.flag("dry_run")? {
        let decided = writer.preview(membership, request).await;
        let decided = decided.map_err(|error| already_joined(call, side, name, &named, error))?;
        return Ok(preview(call, &decided));
    }
    let written = writer.write(membership, request).await;
    let written = written.map_err(|error| already_joined(call, side, name, &named, error))?;
    let after = call.inside.of(&written.state);
    let joined = others
        .iter()
        .filter_map(|other| side.other().show(&after, *other));
    let body = json!({
        side.field(): side.show(&after, id),
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
        WriteError::Refused(Refusal::Mistaken(_) | Refusal::Conflicting(_))
        | WriteError::Reused
        | WriteError::Unavailable { .. }
        | WriteError::Unknown { .. } => false,
    };
    // Somebody else may have been quicker, so that it is looked for in what is there now.
    let inside = call.inside.of(&call.admin.control_plane.view.state());
    let Some(id) = side.find(&inside, name).ok().filter(|_| taken) else {
        return error.into();
    };
    let joined = |one: &&&str| {
        let other = side.other().find(&inside, &Selector::parse(one));
        other.is_ok_and(|other| belongs(&inside, side, id, other))
    };
    let one = named.iter().find(joined).or(named.last());
    let one = one.copied().unwrap_or_default();
    Problem::Conflict(match side {
        Side::Group => format!("Consumer '{one}' already in group '{id}'"),
        Side::Consumer => format!("Consumer '{}' already in group '{one}'", text(name)),
    })
}

async fn leave(call: &Call<'_>, side: Side, id: Id, others: Vec<Id>) -> Result<Response, Problem> {
    let membership = membership(call, side, id, others, MembershipChange::Leave);
    let (request, writer) = (call.request()?, &call.admin.control_plane.writer);
    if call.query.flag("dry_run")? {
        return Ok(preview(call, &writer.preview(membership, request).await?));
    }
    let written = writer.write(membership, request).await?;
    Ok(answer_changed(answer::no_content(), &written))
}

fn membership(
    call: &Call<'_>,
    side: Side,
    own: Id,
    others: Vec<Id>,
    change: MembershipChange,
) -> Command {
    let (groups, consumers) = match side {
        Side::Group => (vec![own], others),
        Side::Consumer => (others, vec![own]),
    };
    Command::Membership(Box::new(Membership {
        workspace: call.inside.workspace.clone(),
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

fn belongs(inside: &Inside, side: Side, own: Id, other: Id) -> bool {
    let (group, consumer) = sides(side, own, other);
    let reference = |id: Id| json!({ "id": id.to_string() });
    let fields = Map::from_iter([
        ("consumer_group".to_owned(), reference(group)),
        ("consumer".to_owned(), reference(consumer)),
    ]);
    let mut uniques = MEMBER.schema().unique.iter();
    uniques.any(|unique| inside.holder(MEMBER, unique, &fields).is_some())
}

fn text(selector: &Selector) -> String {
    match selector {
        Selector::Id(id) => id.to_string(),
        Selector::Name(name) => name.clone(),
    }
}
