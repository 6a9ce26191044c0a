//! Lists of entities: pages by id, filtered by tags.

use super::answer;
use super::endpoint::Place;
use super::error::{self, Problem};
use super::inside::Inside;
use super::request::{Call, Query};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_schema::entity::{Body, Id};
use sluice_schema::kind::Kind;
use uuid::Uuid;

const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: usize = 1000;
const FILTER_TAGS_MAX: usize = 5;

/// Which part of a list is asked for.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) size: usize,
    /// Where the page before ended; what it says is the list's own business.
    pub(super) after: Option<String>,
}

impl Page {
    pub(super) fn parse(query: &Query) -> Result<Self, Problem> {
        let size = match query.get("size") {
            None => SIZE_DEFAULT,
            Some(text) => {
                let size: f64 = text.parse().map_err(|_| error::size_not_a_number())?;
                let fitting = (1..=SIZE_MAX).find(|candidate| *candidate as f64 == size);
                fitting.ok_or_else(|| error::size_out_of_range(SIZE_MAX))?
            }
        };
        let after = match query.get("offset") {
            None => None,
            Some(offset) => {
                let bytes = BASE64.decode(offset).ok();
                let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                Some(text.ok_or_else(|| error::invalid_offset(offset))?)
            }
        };
        Ok(Self { size, after })
    }

    pub(super) fn after_id(&self) -> Result<Option<Id>, Problem> {
        let Some(after) = &self.after else {
            return Ok(None);
        };
        let id = Uuid::try_parse(after).map_err(|_| error::invalid_offset(after))?;
        Ok(Some(Id(id)))
    }
}

/// The body of a list; `last` is where it ends if more is to come.
pub(super) fn body(call: &Call<'_>, data: Vec<Value>, last: Option<String>) -> Value {
    let Some(last) = last else {
        return json!({ "data": data, "next": null });
    };
    let offset = BASE64.encode(last);
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("offset", &offset);
    for name in ["tags", "size"] {
        if let Some(value) = call.query.get(name) {
            query.append_pair(name, value);
        }
    }
    if call.query.get("at").is_some() {
        // A time is another version a moment later.
        query.append_pair("at", &call.inside.state.version().to_string());
    }
    let path = call.head.uri.path().trim_end_matches('/');
    json!({ "data": data, "next": format!("{path}?{}", query.finish()), "offset": offset })
}

/// A filter by tags.
#[derive(Clone, PartialEq, Eq, Debug)]
enum TagFilter {
    None,
    /// `a,b`.
    All(Vec<String>),
    /// `a/b`.
    Any(Vec<String>),
}

/// Only the tags of a body.
#[derive(Deserialize)]
struct Tagged {
    #[serde(default)]
    tags: Vec<String>,
}

impl TagFilter {
    fn parse(query: &Query) -> Result<Self, Problem> {
        let Some(text) = query.get("tags") else {
            return Ok(Self::None);
        };
        let (separator, filter): (char, fn(Vec<String>) -> Self) =
            match (text.contains(','), text.contains('/')) {
                (true, true) => return Err(error::invalid_tags()),
                (false, true) => ('/', Self::Any),
                (_, false) => (',', Self::All),
            };
        let tags: Vec<String> = text.split(separator).map(str::to_owned).collect();
        if tags
            .iter()
            .any(|tag| tag.is_empty() || tag.chars().any(char::is_control))
        {
            return Err(error::invalid_tags());
        }
        if tags.len() > FILTER_TAGS_MAX {
            return Err(error::too_many_tags(FILTER_TAGS_MAX));
        }
        Ok(filter(tags))
    }

    fn accepts(&self, body: &Body) -> bool {
        let (wanted, all) = match self {
            Self::None => return true,
            Self::All(wanted) => (wanted, true),
            Self::Any(wanted) => (wanted, false),
        };
        let tags = tags_of(body);
        match all {
            true => wanted.iter().all(|tag| tags.contains(tag)),
            false => wanted.iter().any(|tag| tags.contains(tag)),
        }
    }
}

/// The tags of an entity.
pub(super) fn tags_of(body: &Body) -> Vec<String> {
    body.view::<Tagged>()
        .map(|tagged| tagged.tags)
        .unwrap_or_default()
}

/// Runs what takes long for its size beside the tasks that answer.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::Internal(error.to_string()))
}

/// A page of the entities at `place`.
pub(super) async fn list(call: &Call<'_>, place: Place) -> Result<Response, Problem> {
    let page = Page::parse(&call.query)?;
    let after = page.after_id()?;
    let filter = TagFilter::parse(&call.query)?;
    let custom_id = call.query.get("custom_id").map(str::to_owned);
    let inside = call.inside.clone();
    let collect = move || match custom_id.filter(|_| place.kind == Kind::Consumer) {
        Some(custom_id) => Ok((by_custom_id(&inside, custom_id), None)),
        None => collect(&inside, &place, after, page.size, &filter),
    };
    let (data, last) = aside(collect).await??;
    Ok(answer::ok(&body(call, data, last.map(|id| id.to_string()))))
}

type Found = (Vec<Value>, Option<Id>);

fn collect(
    inside: &Inside,
    place: &Place,
    after: Option<Id>,
    size: usize,
    filter: &TagFilter,
) -> Result<Found, Problem> {
    let kind = place.kind;
    let ids: Box<dyn Iterator<Item = Id>> = match &place.scope {
        None => Box::new(inside.list(kind, after).map(|(id, _)| id)),
        Some(scope) => {
            let parent = inside.find(scope.parent, &scope.selector);
            let parent = (scope.parent, parent.ok_or(Problem::NotFound)?);
            Box::new(inside.children(parent, kind, scope.field, after))
        }
    };
    let entries = ids.filter_map(|id| Some((id, inside.entity(kind, id)?)));
    let mut accepted = entries
        .filter(|(_, entry)| filter.accepts(&entry.body))
        .peekable();
    let mut data = Vec::new();
    while let Some((id, entry)) = accepted.next() {
        data.push(inside.shown(kind, id, entry));
        if data.len() == size {
            return Ok((data, accepted.peek().map(|_| id)));
        }
    }
    Ok((data, None))
}

/// Kong's way to find a consumer by its other name.
fn by_custom_id(inside: &Inside, custom_id: String) -> Vec<Value> {
    let kind = Kind::Consumer;
    let wanted = Map::from_iter([("custom_id".to_owned(), Value::String(custom_id))]);
    let unique = kind
        .schema()
        .unique
        .iter()
        .find(|unique| unique.fields == ["custom_id"]);
    let id = unique.and_then(|unique| inside.holder(kind, unique, &wanted));
    let entity = id.and_then(|id| inside.show(kind, id));
    entity.into_iter().collect()
}
