//! `redirect`: sends clients elsewhere.

use crate::plugin::{Access, Answer, Content, Entity, Phases, Plugin, Step};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    status_code: u16,
    location: String,
    keep_incoming_path: Option<bool>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Redirect {
    status: StatusCode,
    location: HeaderValue,
    /// Scheme and authority, if the path is the request's.
    base: Option<String>,
}

impl Plugin for Redirect {
    const NAME: &'static str = "redirect";
    const PRIORITY: i32 = 779;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let location = &fields.location;
        let base = || {
            let uri: Uri = location
                .parse()
                .map_err(|_| format!("`{location}` is not a URL"))?;
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let scheme = uri.scheme_str().map(|scheme| format!("{scheme}://"));
            Ok::<_, String>(format!("{}{authority}", scheme.unwrap_or_default()))
        };
        let keep = fields.keep_incoming_path == Some(true);
        Ok(Self {
            status: StatusCode::from_u16(fields.status_code).map_err(|error| error.to_string())?,
            base: keep.then(base).transpose()?,
            location: HeaderValue::from_str(location)
                .map_err(|_| format!("`{location}` cannot be a header's value"))?,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let location = self.base.as_ref().map(|base| {
            let target = request.uri.path_and_query();
            let target = target.map_or("/", |target| target.as_str());
            HeaderValue::try_from(format!("{base}{target}"))
        });
        let location = match location {
            Some(Ok(location)) => location,
            Some(Err(_)) | None => self.location.clone(),
        };
        Step::Answer(Answer {
            status: self.status,
            content: Content::Bytes(Bytes::from_static(b"redirecting")),
            headers: vec![(header::LOCATION, location)],
        })
    }
}
