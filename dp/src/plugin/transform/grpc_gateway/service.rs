//! The service that a `.proto` file describes: which method a request calls.

use super::template::Template;
use http::Method;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, MethodDescriptor, Value,
};
use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use std::path::{Path, PathBuf};

/// Where others are looked for that a file imports, besides its own folder.
const INCLUDE: &str = "/usr/include";
/// The name of a file whose text is in the configuration.
const INLINE: &str = "config.proto";
const ANNOTATIONS: &str = include_str!("google/api/annotations.proto");
const HTTP: &str = include_str!("google/api/http.proto");

/// The methods that can be called, in the order of the file.
#[derive(Debug)]
pub(super) struct Service(Vec<Rule>);

/// One way to call a method.
#[derive(Debug)]
pub(super) struct Rule {
    http_method: Method,
    template: Template,
    /// Which field the body is; `*` for all that are not in the path, empty for none.
    pub(super) body: String,
    /// Which field of the answer is the response; empty for all of it.
    pub(super) response_body: String,
    /// `/package.Service/Method`
    pub(super) path: String,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
}

/// Why no method is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unknown {
    Method,
    Path,
}

/// Files that come with the gateway, and the one of a configuration.
struct Given(Option<String>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match (name, &self.0) {
            ("google/api/annotations.proto", _) => File::from_source(name, ANNOTATIONS),
            ("google/api/http.proto", _) => File::from_source(name, HTTP),
            (INLINE, Some(text)) => File::from_source(name, text),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// A way to call a method, and the fields that a path gives.
pub(super) type Found<'a> = (&'a Rule, Vec<(&'a str, String)>);

impl Service {
    /// Reads `proto`: a path, or the text itself, which has line breaks.
    ///
    /// # Errors
    /// If it cannot be read, or says nothing that can be called.
    pub(super) fn load(proto: &str) -> Result<Self, String> {
        let inline = proto.contains('\n');
        let (folder, name) = if inline {
            (None, Path::new(INLINE))
        } else {
            let path = Path::new(proto);
            let name = path.file_name().ok_or("proto names no file")?;
            (path.parent().map(PathBuf::from), Path::new(name))
        };
        let mut resolver = ChainFileResolver::new();
        // Those of the folder first: they may be newer than what comes with the gateway.
        if let Some(folder) = folder {
            resolver.add(IncludeFileResolver::new(folder));
        }
        resolver.add(Given(inline.then(|| proto.to_owned())));
        resolver.add(IncludeFileResolver::new(INCLUDE.into()));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        let opened = compiler.include_imports(true).open_file(name);
        opened.map_err(|error| format!("proto cannot be used: {}", chain(&error)))?;
        Self::of(&compiler.descriptor_pool())
    }

    fn of(pool: &DescriptorPool) -> Result<Self, String> {
        let option = pool.get_extension_by_name("google.api.http");
        let option = option.ok_or("proto has no option google.api.http")?;
        let mut rules = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                add(&mut rules, &method, &option)?;
            }
        }
        if rules.is_empty() {
            return Err("proto has no method with the option google.api.http".to_owned());
        }
        Ok(Self(rules))
    }

    /// The way in which a request calls a method, and the fields that its path gives.
    pub(super) fn find(&self, method: &Method, path: &str) -> Result<Found<'_>, Unknown> {
        let mut unknown = Unknown::Method;
        for rule in self.0.iter().filter(|rule| rule.http_method == *method) {
            unknown = Unknown::Path;
            if let Some(fields) = rule.template.matches(path) {
                return Ok((rule, fields));
            }
        }
        Err(unknown)
    }
}

fn add(
    rules: &mut Vec<Rule>,
    method: &MethodDescriptor,
    option: &ExtensionDescriptor,
) -> Result<(), String> {
    let options = method.options();
    if !options.has_extension(option) {
        return Ok(());
    }
    let value = options.get_extension(option);
    let Some(first) = value.as_message() else {
        return Ok(());
    };
    let more = first.get_field_by_name("additional_bindings");
    let more: Vec<_> = more
        .iter()
        .filter_map(|more| more.as_list())
        .flatten()
        .collect();
    for rule in std::iter::once(first).chain(more.into_iter().filter_map(Value::as_message)) {
        let fault = |what| format!("method '{}': {what}", method.full_name());
        let Some((http_method, template)) = pattern(rule).map_err(fault)? else {
            continue;
        };
        rules.push(Rule {
            http_method,
            template: Template::parse(&template).map_err(fault)?,
            body: text(rule, "body"),
            response_body: text(rule, "response_body"),
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            input: method.input(),
            output: method.output(),
        });
    }
    Ok(())
}

/// The method and path of a rule.
fn pattern(rule: &DynamicMessage) -> Result<Option<(Method, String)>, String> {
    let known = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    for (field, method) in known {
        let path = text(rule, field);
        if !path.is_empty() {
            return Ok(Some((method, path)));
        }
    }
    let custom = rule.get_field_by_name("custom");
    let custom = custom.as_ref().and_then(|custom| custom.as_message());
    let Some(custom) = custom.filter(|custom| !text(custom, "path").is_empty()) else {
        return Ok(None);
    };
    let method = Method::from_bytes(text(custom, "kind").as_bytes());
    let method = method.map_err(|_| "the kind of a custom pattern is no method".to_owned())?;
    Ok(Some((method, text(custom, "path"))))
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    let text = value.as_ref().and_then(|value| value.as_str());
    text.unwrap_or_default().to_owned()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
