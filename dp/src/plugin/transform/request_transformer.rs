//! `request-transformer`: changes a request's method, path, headers, query and body on its way to the service.
//!
//! Order: remove, rename, replace, add, append. Values may be [`Template`]s, which see the request as it was before this
//! plugin. Deviations: templates are not Lua (`sluice_schema::template`; others are refused where configurations are checked);
//! a body of more than 8 MiB goes on as it is; of a query or form that is not changed the client's form is kept.

use super::edits::{BODY_BYTES_MAX, Edits, split};
use super::multipart;
use super::parameters::Parameters;
use super::response_transformer::{named, rename, renames};
use crate::plugin::{Access, BodyFault, Entity, Flow, Phases, Plugin, Step, Waiting};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_schema::template::{Source, Template};
use std::collections::BTreeMap;

/// The fields of the entity's `config`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Fields {
    http_method: Option<String>,
    remove: Lists,
    rename: Lists,
    replace: Lists,
    add: Lists,
    append: Lists,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Lists {
    body: Vec<String>,
    headers: Vec<String>,
    querystring: Vec<String>,
    /// Only of `replace`.
    uri: Option<String>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct RequestTransformer {
    method: Option<Method>,
    uri: Option<Template>,
    headers: Headers,
    query: Pairs,
    body: Pairs,
}

#[derive(Debug)]
struct Headers {
    remove: Vec<HeaderName>,
    rename: Vec<(HeaderName, HeaderName)>,
    replace: Vec<(HeaderName, Template)>,
    add: Vec<(HeaderName, Template)>,
    append: Vec<(HeaderName, Template)>,
}

#[derive(Debug)]
struct Pairs {
    remove: Vec<String>,
    rename: Vec<(String, Template)>,
    replace: Vec<(String, Template)>,
    add: Vec<(String, Template)>,
    append: Vec<(String, Template)>,
}

/// What plugins tell templates: `$(shared.NAME)`.
#[derive(Debug, Default)]
pub(crate) struct SharedTexts(pub(crate) BTreeMap<String, String>);

impl Plugin for RequestTransformer {
    const NAME: &'static str = "request-transformer";
    const PRIORITY: i32 = 801;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let Fields {
            http_method,
            remove,
            rename,
            replace,
            add,
            append,
        } = fields;
        let method = http_method.map(|method| Method::from_bytes(method.as_bytes()));
        let method = method.transpose();
        let names = remove.headers.iter().map(|name| named(split(name).0));
        Ok(Self {
            method: method.map_err(|_| "http_method is no method".to_owned())?,
            uri: replace.uri.as_deref().map(Template::parse).transpose()?,
            headers: Headers {
                remove: names.collect::<Result<_, _>>()?,
                rename: renames(&rename.headers)?,
                replace: headers(&replace.headers)?,
                add: headers(&add.headers)?,
                append: headers(&append.headers)?,
            },
            query: Pairs {
                remove: remove.querystring,
                rename: pairs(&rename.querystring)?,
                replace: pairs(&replace.querystring)?,
                add: pairs(&add.querystring)?,
                append: pairs(&append.querystring)?,
            },
            body: Pairs {
                remove: remove.body,
                rename: pairs(&rename.body)?,
                replace: pairs(&replace.body)?,
                add: pairs(&add.body)?,
                append: pairs(&append.body)?,
            },
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let reads = !self.body.is_empty() || self.moves_body();
        if reads && Kind::of(request.headers).is_some() {
            return Step::Wait;
        }
        self.transform(request, None);
        Step::Continue
    }

    fn wait<'a>(&'a self, request: &'a mut Access<'_>) -> Waiting<'a> {
        Box::pin(async move {
            match request.body(BODY_BYTES_MAX).await {
                Ok(body) => self.transform(request, Some(&body)),
                Err(BodyFault::TooLarge) => self.transform(request, None),
                Err(fault @ (BodyFault::Broken | BodyFault::Timeout)) => {
                    return Flow::Answer(fault.into());
                }
            }
            Flow::Continue
        })
    }
}

/// The types of bodies that are changed.
enum Kind {
    Json,
    Form,
    Multipart,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let content = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let content = content.to_ascii_lowercase();
        let kinds = [
            ("application/x-www-form-urlencoded", Self::Form),
            ("multipart/form-data", Self::Multipart),
            ("application/json", Self::Json),
        ];
        let found = kinds.into_iter().find(|(name, _)| content.contains(name));
        found.map(|(_, kind)| kind)
    }
}

impl RequestTransformer {
    /// Whether the new method has no body, so that a form goes into the query.
    fn moves_body(&self) -> bool {
        let bodiless = [Method::GET, Method::HEAD, Method::TRACE];
        self.method
            .as_ref()
            .is_some_and(|method| bodiless.contains(method))
    }

    fn transform(&self, request: &mut Access<'_>, body: Option<&Bytes>) {
        let before = Before::of(self, request);
        if let Some(uri) = &self.uri {
            let path = before.render(request, uri);
            let path = if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            };
            request.set_upstream_path(path);
        }
        let kind = Kind::of(request.headers);
        let mut query = Parameters::parse(request.query().unwrap_or_default().as_bytes());
        let mut query_changes = !self.query.is_empty();
        if let Some(method) = &self.method {
            *request.method = method.clone();
            if let (true, Some(Kind::Form), Some(body)) = (self.moves_body(), &kind, body) {
                query.extend(Parameters::parse(body));
                query_changes = true;
            }
        }
        let content_type = request.headers.get(header::CONTENT_TYPE).cloned();
        self.headers.apply(&before, request);
        if let (Some(kind), Some(body), false) = (kind, body, self.body.is_empty()) {
            let render = |template: &Template| before.render(request, template);
            let content_type = content_type
                .as_ref()
                .and_then(|content| content.to_str().ok());
            let edited = self.body.edit(&kind, body, content_type, render);
            if let Some(edited) = edited {
                request.set_body(edited);
            }
        }
        if query_changes {
            query.apply(
                self.query
                    .edits(|template| before.render(request, template)),
            );
            let query = (!query.is_empty()).then(|| query.write());
            request.set_query(query);
        }
    }
}

/// What templates see, as far as this plugin changes it.
struct Before {
    headers: Option<HeaderMap>,
    query: Option<Parameters>,
}

impl Before {
    fn of(plugin: &RequestTransformer, request: &Access<'_>) -> Self {
        let query = || Parameters::parse(request.query().unwrap_or_default().as_bytes());
        Self {
            headers: plugin
                .uses(Source::Headers)
                .then(|| request.headers.clone()),
            query: plugin.uses(Source::QueryParams).then(query),
        }
    }

    fn render(&self, request: &Access<'_>, template: &Template) -> String {
        template.render(|source, name| match source {
            Source::Headers if name == "host" => Some(request.host.to_owned()),
            Source::Headers => {
                let value = self.headers.as_ref()?.get(name)?;
                value.to_str().ok().map(str::to_owned)
            }
            Source::QueryParams => self.query.as_ref()?.get(name).map(str::to_owned),
            Source::UriCaptures => {
                let captures = request.captures?;
                let value = match name.parse() {
                    Ok(number) => captures.numbered(number),
                    Err(_) => captures.named(name),
                };
                value.map(str::to_owned)
            }
            Source::Shared => {
                let shared = request.context.shared.get::<SharedTexts>()?;
                shared.0.get(name).cloned()
            }
        })
    }
}

impl RequestTransformer {
    fn uses(&self, source: Source) -> bool {
        let Self {
            uri,
            headers,
            query,
            body,
            method: _,
        } = self;
        let of_headers = [&headers.replace, &headers.add, &headers.append];
        let of_headers = of_headers
            .into_iter()
            .flatten()
            .map(|(_, template)| template);
        let of_pairs =
            [query, body].map(|pairs| [&pairs.rename, &pairs.replace, &pairs.add, &pairs.append]);
        let of_pairs = of_pairs
            .into_iter()
            .flatten()
            .flatten()
            .map(|(_, template)| template);
        let mut all = uri.iter().chain(of_headers).chain(of_pairs);
        all.any(|template| template.uses(source))
    }
}

impl Headers {
    fn apply(&self, before: &Before, request: &mut Access<'_>) {
        for name in &self.remove {
            request.headers.remove(name);
        }
        for (old, new) in &self.rename {
            rename(request.headers, old, new.clone());
        }
        for (name, template) in &self.replace {
            if *name == header::HOST {
                if let Some(value) = value(before, request, template) {
                    request.set_host(value);
                }
            } else if request.headers.contains_key(name) {
                self.put(before, request, (name, template));
            }
        }
        for (name, template) in &self.add {
            if *name != header::HOST && !request.headers.contains_key(name) {
                self.put(before, request, (name, template));
            }
        }
        for (name, template) in &self.append {
            if let (true, Some(value)) = (*name != header::HOST, value(before, request, template)) {
                request.headers.append(name, value);
            }
        }
    }

    fn put(&self, before: &Before, request: &mut Access<'_>, header: (&HeaderName, &Template)) {
        if let Some(value) = value(before, request, header.1) {
            request.headers.insert(header.0, value);
        }
    }
}

/// A header's value; none if values of the request are in it that no header can have.
fn value(before: &Before, request: &Access<'_>, template: &Template) -> Option<HeaderValue> {
    HeaderValue::from_str(&before.render(request, template)).ok()
}

impl Pairs {
    fn is_empty(&self) -> bool {
        let lists = [&self.rename, &self.replace, &self.add, &self.append];
        self.remove.is_empty() && lists.iter().all(|list| list.is_empty())
    }

    fn edits(&self, render: impl Fn(&Template) -> String) -> Edits<'_, String> {
        let rendered = |list: &'_ [(String, Template)]| -> Vec<String> {
            list.iter().map(|(_, template)| render(template)).collect()
        };
        Edits {
            remove: &self.remove,
            rename: with(&self.rename, rendered(&self.rename)),
            replace: with(&self.replace, rendered(&self.replace)),
            add: with(&self.add, rendered(&self.add)),
            append: with(&self.append, rendered(&self.append)),
        }
    }

    /// The edited body; `None` if it stays as it is.
    fn edit(
        &self,
        kind: &Kind,
        body: &Bytes,
        content_type: Option<&str>,
        render: impl Fn(&Template) -> String,
    ) -> Option<Bytes> {
        let edits = self.edits(render);
        match kind {
            Kind::Form => {
                let mut form = Parameters::parse(body);
                form.apply(edits);
                Some(form.write().into())
            }
            Kind::Multipart => {
                let boundary = multipart::boundary(content_type?)?;
                multipart::edit(body, boundary, edits).map(Bytes::from)
            }
            Kind::Json => {
                let mut object = match serde_json::from_slice(body) {
                    Ok(Value::Object(object)) => object,
                    Ok(_) => return None,
                    Err(_) if body.is_empty() => Map::new(),
                    Err(_) => return None,
                };
                let text = |list: Vec<(_, String)>| {
                    let list = list.into_iter();
                    list.map(|(name, text)| (name, Value::String(text)))
                        .collect()
                };
                let edits = Edits {
                    remove: edits.remove,
                    rename: edits.rename,
                    replace: text(edits.replace),
                    add: text(edits.add),
                    append: text(edits.append),
                };
                edits.apply(&mut object);
                Some(Value::Object(object).to_string().into())
            }
        }
    }
}

/// The names of a list with their values.
fn with(list: &[(String, Template)], values: Vec<String>) -> Vec<(&str, String)> {
    let names = list.iter().map(|(name, _)| name.as_str());
    names.zip(values).collect()
}

fn headers(list: &[String]) -> Result<Vec<(HeaderName, Template)>, String> {
    let list = list.iter().map(|pair| {
        let (name, value) = split(pair);
        Ok((named(name)?, Template::parse(value)?))
    });
    list.collect()
}

fn pairs(list: &[String]) -> Result<Vec<(String, Template)>, String> {
    let list = list.iter().map(|pair| {
        let (name, value) = split(pair);
        Ok((name.to_owned(), Template::parse(value)?))
    });
    list.collect()
}
