//! `/tags`: which entities have which tags.

use super::answer;
use super::error::{self, Problem};
use super::inside::Inside;
use super::list::{Page, aside, body, tags_of};
use super::request::Call;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_schema::entity::Id;
use sluice_schema::kind::Kind;
use uuid::Uuid;

/// The last tag of a page: its entity and its place among the entity's tags.
#[derive(Clone, Copy, Debug)]
struct Mark {
    kind: Kind,
    id: Id,
    index: usize,
}

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let kind = Kind::from_name(parts.next()?)?;
        let id = Id(Uuid::try_parse(parts.next()?).ok()?);
        Some(Self {
            kind,
            id,
            index: parts.next()?.parse().ok()?,
        })
    }

    fn write(self) -> String {
        format!("{} {} {}", self.kind.name(), self.id, self.index)
    }
}

/// A page of all tags, or of the entities that have `tag`.
pub(super) async fn list(call: &Call<'_>, tag: Option<String>) -> Result<Response, Problem> {
    let page = Page::parse(&call.query)?;
    let after = match &page.after {
        Some(text) => Some(Mark::parse(text).ok_or_else(|| error::invalid_offset(text))?),
        None => None,
    };
    let inside = call.inside.clone();
    let (data, last) = aside(move || collect(&inside, tag.as_deref(), after, page.size)).await?;
    Ok(answer::ok(&body(call, data, last.map(Mark::write))))
}

fn collect(
    inside: &Inside,
    tag: Option<&str>,
    after: Option<Mark>,
    size: usize,
) -> (Vec<Value>, Option<Mark>) {
    let mut data = Vec::new();
    let mut last = None;
    for kind in Kind::ALL
        .iter()
        .copied()
        .filter(|kind| after.is_none_or(|mark| mark.kind <= *kind))
    {
        let mark = after.filter(|mark| mark.kind == kind);
        // The entity of the mark may have further tags.
        let before = mark
            .and_then(|mark| mark.id.0.as_u128().checked_sub(1))
            .map(Uuid::from_u128);
        for (id, entry) in inside.list(kind, before.map(Id)) {
            let seen = mark
                .filter(|mark| mark.id == id)
                .map_or(0, |mark| mark.index + 1);
            for (index, name) in tags_of(&entry.body).into_iter().enumerate().skip(seen) {
                if tag.is_some_and(|tag| tag != name) {
                    continue;
                }
                if data.len() == size {
                    return (data, last);
                }
                let entity = kind.schema().entity;
                data.push(
                    json!({ "tag": name, "entity_name": entity, "entity_id": id.to_string() }),
                );
                last = Some(Mark { kind, id, index });
            }
        }
    }
    (data, None)
}
