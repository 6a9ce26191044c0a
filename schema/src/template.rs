//! Templates in values of plugins: text with what a request has in it, `/users/$(uri_captures.id)`.
//!
//! In `$(…)` stands `headers.NAME`, `query_params.NAME`, `uri_captures.NAME` or `shared.NAME`, or a text or number in quotes or
//! without, or several of these with `or` between them: the first that is there counts. Names that are no words stand in
//! brackets: `$(headers["x-tenant"] or "none")`. Kong takes any Lua here; nothing else is taken by this build.

/// A template, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

/// A part of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// As it is.
    Text(String),
    /// The first of these that is there; nothing if none is.
    Choice(Vec<Operand>),
}

/// What stands in an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A literal.
    Text(String),
    /// A value of the request.
    Value(Source, String),
}

/// Where values come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The request's headers. Names are in lower case here, with `-` for `_`.
    Headers,
    /// The request's query.
    QueryParams,
    /// The groups of the route's regular expression, by name or number.
    UriCaptures,
    /// What plugins tell each other.
    Shared,
}

const SUPPORTED: &str = "only headers, query_params, uri_captures and shared are supported here, with a name, and texts, \
                         with 'or' between them; no other Lua";

impl Template {
    /// Takes a template apart.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let mut reader = Reader(&rest[at + 2..]);
            parts.push(Part::Choice(reader.choice()?));
            rest = reader.0;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Its parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it asks for values from there.
    pub fn uses(&self, source: Source) -> bool {
        let operands = self.parts.iter().flat_map(|part| match part {
            Part::Text(_) => &[][..],
            Part::Choice(operands) => operands,
        });
        operands.into_iter().any(|operand| match operand {
            Operand::Text(_) => false,
            Operand::Value(from, _) => *from == source,
        })
    }

    /// The text with values in it.
    pub fn render<'a>(&'a self, value: impl Fn(Source, &'a str) -> Option<String>) -> String {
        let mut rendered = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => rendered.push_str(text),
                Part::Choice(operands) => {
                    let found = operands.iter().find_map(|operand| match operand {
                        Operand::Text(text) => Some(text.clone()),
                        Operand::Value(source, name) => value(*source, name),
                    });
                    rendered.push_str(&found.unwrap_or_default());
                }
            }
        }
        rendered
    }
}

/// What is left of an expression.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn choice(&mut self) -> Result<Vec<Operand>, String> {
        let mut operands = Vec::new();
        loop {
            operands.push(self.operand()?);
            self.skip_space();
            if let Some(rest) = self.0.strip_prefix(')') {
                self.0 = rest;
                return Ok(operands);
            }
            if self.word() != "or" {
                return Err(SUPPORTED.to_owned());
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.skip_space();
        if let Some(text) = self.quoted()? {
            return Ok(Operand::Text(text));
        }
        let word = self.word();
        let source = match word.as_str() {
            "headers" => Source::Headers,
            "query_params" => Source::QueryParams,
            "uri_captures" => Source::UriCaptures,
            "shared" => Source::Shared,
            number if is_number(number) => return Ok(Operand::Text(word)),
            _ => return Err(SUPPORTED.to_owned()),
        };
        let name = if let Some(rest) = self.0.strip_prefix('.') {
            self.0 = rest;
            let name = self.word();
            let word = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
            if word { name } else { String::new() }
        } else if let Some(rest) = self.0.strip_prefix('[') {
            self.0 = rest;
            self.skip_space();
            let name = match self.quoted()? {
                Some(name) => name,
                None => Some(self.word())
                    .filter(|word| is_number(word))
                    .unwrap_or_default(),
            };
            self.skip_space();
            self.0 = self.0.strip_prefix(']').ok_or(SUPPORTED)?;
            name
        } else {
            String::new()
        };
        if name.is_empty() {
            return Err(SUPPORTED.to_owned());
        }
        Ok(Operand::Value(source, known_as(source, name)))
    }

    fn quoted(&mut self) -> Result<Option<String>, String> {
        let Some(quote) = self.0.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Ok(None);
        };
        let rest = &self.0[1..];
        let end = rest.find(quote).ok_or("a quote is not closed")?;
        let text = &rest[..end];
        if text.contains('\\') {
            return Err("a text in quotes cannot have a backslash here".to_owned());
        }
        self.0 = &rest[end + 1..];
        Ok(Some(text.to_owned()))
    }

    fn word(&mut self) -> String {
        let end = self
            .0
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (word, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        word.to_owned()
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start();
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn known_as(source: Source, name: String) -> String {
    match source {
        Source::Headers => name.to_ascii_lowercase().replace('_', "-"),
        Source::QueryParams | Source::UriCaptures | Source::Shared => name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_values_of_the_request_and_texts_in_their_place() {
        let check = |text: &str, expected: &str| {
            let template = Template::parse(text).unwrap();
            let rendered = template.render(|source, name| match (source, name) {
                (Source::Headers, "x-tenant") => Some("t1".to_owned()),
                (Source::QueryParams, "q") => Some("q1".to_owned()),
                (Source::UriCaptures, "id") => Some("7".to_owned()),
                (Source::UriCaptures, "1") => Some("first".to_owned()),
                (Source::Shared, "a b") => Some("shared".to_owned()),
                _ => None,
            });
            assert_eq!(rendered, expected, "{text}");
        };
        check("", "");
        check("plain $x (y) $", "plain $x (y) $");
        check("/users/$(uri_captures.id)/x", "/users/7/x");
        check("$(uri_captures[1])-$(uri_captures[2])", "first-");
        check("$(headers.X_Tenant)$(headers[\"X-Tenant\"])", "t1t1");
        check("$(query_params.none or query_params['q'])", "q1");
        check("$( headers.none or \"d)\" )!", "d)!");
        check("$(headers.none or 5)", "5");
        check("$(headers.none)", "");
        check("$(shared['a b'])", "shared");
    }

    #[test]
    fn what_is_no_template_of_ours_is_refused() {
        for text in [
            "$(",
            "$()",
            "$(headers)",
            "$(headers.)",
            "$(headers.x",
            "$(headers.x..'y')",
            "$(os.time())",
            "$(headers.x and 'y')",
            "$(headers['x)",
            "$(headers[x])",
            "$(headers.1)",
            "$('a\\'b')",
            "ok $(headers.x) $(string.rep('a', 9))",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
