//! Templates of paths: `/v1/{name=shelves/*}/books/{book.id}:buy`.

use percent_encoding::percent_decode_str;

/// A template.
#[derive(Debug)]
pub(super) struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    /// What follows the path after a colon.
    verb: Option<String>,
}

#[derive(PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    /// `*`: any one that is not empty.
    One,
    /// `**`: one or more.
    Many,
}

/// A field, and the segments that are its value.
#[derive(Debug)]
struct Variable {
    field: String,
    from: usize,
    to: usize,
}

impl Template {
    /// # Errors
    /// If it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("the path '{text}' {what}");
        let rest = text.strip_prefix('/');
        let rest = rest.ok_or_else(|| fault("does not begin with /"))?;
        let last = rest.rfind(['}', '/']).map_or(0, |index| index + 1);
        let (mut left, verb) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        let mut template = Self {
            segments: Vec::new(),
            variables: Vec::new(),
            verb: verb.map(str::to_owned),
        };
        loop {
            left = match left.strip_prefix('{') {
                Some(variable) => {
                    let end = variable.split_once('}');
                    let (variable, after) = end.ok_or_else(|| fault("has a { without }"))?;
                    template.variable(variable).map_err(fault)?;
                    after
                }
                None => {
                    let end = left.find('/').unwrap_or(left.len());
                    template.segment(&left[..end]).map_err(fault)?;
                    &left[end..]
                }
            };
            match left.strip_prefix('/') {
                Some(next) => left = next,
                None if left.is_empty() => break,
                None => return Err(fault("has something after a }")),
            }
        }
        let many = template.segments.iter();
        if many.filter(|segment| **segment == Segment::Many).count() > 1 {
            return Err(fault("has more than one **"));
        }
        Ok(template)
    }

    fn variable(&mut self, text: &str) -> Result<(), &'static str> {
        let (field, pattern) = text.split_once('=').unwrap_or((text, "*"));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if field.is_empty() || !field.chars().all(plain) {
            return Err("has a variable without a name");
        }
        let from = self.segments.len();
        for segment in pattern.split('/') {
            self.segment(segment)?;
        }
        self.variables.push(Variable {
            field: field.to_owned(),
            from,
            to: self.segments.len(),
        });
        Ok(())
    }

    fn segment(&mut self, text: &str) -> Result<(), &'static str> {
        self.segments.push(match text {
            "" => return Err("has an empty segment"),
            "*" => Segment::One,
            "**" => Segment::Many,
            _ if text.contains(['{', '}', '*']) => return Err("has a malformed segment"),
            _ => Segment::Literal(text.to_owned()),
        });
        Ok(())
    }

    /// The fields that a path gives values to; `None` if it is another.
    pub(super) fn matches(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let path = path.strip_prefix('/')?;
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let found: Vec<&str> = path.split('/').collect();
        // Where each segment begins: all but one take one.
        let surplus = found.len().checked_sub(self.segments.len())?;
        let many = self.segments.iter();
        let many = many.clone().position(|segment| *segment == Segment::Many);
        if many.is_none() && surplus > 0 {
            return None;
        }
        let many = many.unwrap_or(self.segments.len());
        let begin = |segment: usize| segment + if segment > many { surplus } else { 0 };
        for (index, segment) in self.segments.iter().enumerate() {
            let part = found[begin(index)];
            let fits = match segment {
                Segment::Literal(text) => part == text || decode(part, true) == *text,
                Segment::One | Segment::Many => !part.is_empty(),
            };
            if !fits {
                return None;
            }
        }
        let values = self.variables.iter().map(|variable| {
            let parts = &found[begin(variable.from)..begin(variable.to)];
            let whole = parts.len() == 1;
            let parts: Vec<_> = parts.iter().map(|part| decode(part, whole)).collect();
            (variable.field.as_str(), parts.join("/"))
        });
        Some(values.collect())
    }
}

/// A segment's text. One of several keeps its encoded slashes, or the segments could not be told apart.
fn decode(text: &str, slashes: bool) -> String {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if slashes {
        return decode(text);
    }
    let parts: Vec<_> = text
        .split("%2F")
        .map(|part| {
            part.split("%2f")
                .map(decode)
                .collect::<Vec<_>>()
                .join("%2f")
        })
        .collect();
    parts.join("%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_give_values_to_the_fields_of_a_template() {
        for (template, path, expected) in [
            ("/v1/messages/{id}", "/v1/messages/7", "id=7"),
            ("/v1/messages/{id}", "/v1/messages/a%20b%2Fc", "id=a b/c"),
            ("/v1/messages/{id}", "/v1/messages/", "no"),
            ("/v1/messages/{id}", "/v1/messages/7/8", "no"),
            ("/v1/messages/{id}", "/v2/messages/7", "no"),
            ("/v1/*/{a.b}/x", "/v1/any/7/x", "a.b=7"),
            (
                "/v1/{name=shelves/*}/{b}",
                "/v1/shelves/3/4",
                "name=shelves/3 b=4",
            ),
            ("/v1/{name=shelves/*}/{b}", "/v1/shelf/3/4", "no"),
            ("/v1/{path=**}", "/v1/a/b%2Fc/d%20e", "path=a/b%2Fc/d e"),
            ("/v1/{path=**}", "/v1", "no"),
            ("/v1/{path=**}/end/{x}", "/v1/a/b/end/c", "path=a/b x=c"),
            ("/v1/{a=x/**}:run", "/v1/x/y/z:run", "a=x/y/z"),
            ("/v1/{a}:run", "/v1/b:walk", "no"),
            ("/v1/{a}", "/v1/b:c", "a=b:c"),
            ("/v1:all", "/v1:all", ""),
            ("/v1", "/v1", ""),
        ] {
            let template = Template::parse(template).unwrap();
            let found = template.matches(path).map_or("no".to_owned(), |fields| {
                let fields = fields
                    .iter()
                    .map(|(field, value)| format!("{field}={value}"));
                fields.collect::<Vec<_>>().join(" ")
            });
            assert_eq!(found, expected, "{template:?} {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "",
            "v1",
            "/",
            "/v1/{a",
            "/v1/{}",
            "/{a}b",
            "/{a=**}/**",
            "/a*",
            "/v1//a",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
