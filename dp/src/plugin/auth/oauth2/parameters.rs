//! Parameters of a request: of its query, and of its body where it is a form.

use crate::plugin::Access;
use http::header;
use serde_json::{Map, Value};

/// A body that holds parameters.
pub(super) enum Form {
    None,
    Pairs(Vec<(String, String)>),
    Json(Map<String, Value>),
}

impl Form {
    /// Whether a request has a body that could hold parameters.
    pub(super) fn may_be_in(request: &Access<'_>) -> bool {
        request.has_body() && (is(request, FORM) || is(request, JSON))
    }

    pub(super) fn parse(request: &Access<'_>, body: &[u8]) -> Self {
        if is(request, FORM) {
            return Self::Pairs(form_urlencoded::parse(body).into_owned().collect());
        }
        if is(request, JSON) {
            return serde_json::from_slice(body).map_or(Self::None, Self::Json);
        }
        Self::None
    }

    /// The first value of a name.
    pub(super) fn find(&self, name: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::Pairs(pairs) => {
                let pair = pairs.iter().find(|(found, _)| found == name);
                pair.map(|(_, value)| value.clone())
            }
            Self::Json(fields) => fields.get(name)?.as_str().map(str::to_owned),
        }
    }

    /// The body without a name, if it was there.
    pub(super) fn without(self, name: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::Pairs(pairs) => {
                let count = pairs.len();
                let kept: Vec<_> = pairs
                    .into_iter()
                    .filter(|(found, _)| found != name)
                    .collect();
                let mut form = form_urlencoded::Serializer::new(String::new());
                (kept.len() < count).then(|| form.extend_pairs(kept).finish())
            }
            Self::Json(mut fields) => {
                fields.remove(name)?;
                Some(Value::Object(fields).to_string())
            }
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn is(request: &Access<'_>, wanted: &str) -> bool {
    let kind = request.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case(wanted)
}

/// The first value of a name in the query.
pub(super) fn in_query(request: &Access<'_>, name: &str) -> Option<String> {
    let query = request.query()?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.into_owned())
}

/// Takes a name out of the query that goes upstream.
pub(super) fn hide_in_query(request: &mut Access<'_>, name: &str) {
    let Some(query) = request.query() else {
        return;
    };
    let is_kept = |pair: &&str| {
        let first = form_urlencoded::parse(pair.as_bytes()).next();
        first.is_none_or(|(found, _)| found != name)
    };
    let kept: Vec<_> = query.split('&').filter(is_kept).collect();
    let kept = kept.join("&");
    if kept != query {
        request.set_query(Some(kept).filter(|kept| !kept.is_empty()));
    }
}
