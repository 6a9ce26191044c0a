//! decK's `${{ env "NAME" }}` in files: expanded here, where the file's author is, never by a server.
//!
//! Go's template language, as far as files use it: `env`, `toBool`, `toInt`, `toFloat`, `indent`, pipes, parentheses,
//! `-` for trimming and comments.

/// A text without templates, and what it was made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// For each line, the line of the original that it comes from; from 1.
    pub(super) lines: Vec<usize>,
}

/// What is wrong with a template, and its line.
pub(super) type Mistake = (usize, String);

const OPEN: &str = "${{";
const CLOSE: &str = "}}";
/// Parentheses in parentheses.
const DEPTH_MAX: usize = 16;
/// The deepest indentation.
const INDENT_MAX: usize = 1000;

/// Expands the templates in `text` with the variables that `lookup` knows. One that is not set is a mistake, but for lines
/// that are only a comment: these stay as they are.
pub(super) fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, Vec<Mistake>> {
    let mut output = Output::default();
    let mut mistakes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        output.copy(&rest[..at]);
        rest = &rest[at + OPEN.len()..];
        let mut parser = Parser { rest, lookup };
        match parser.template() {
            Ok(Template {
                value,
                trim_before,
                trim_after,
            }) => {
                if trim_before {
                    output.trim_end();
                }
                output.insert(&value);
                output.pass(&rest[..rest.len() - parser.rest.len()]);
                rest = parser.rest;
                if trim_after {
                    let trimmed = rest.trim_start();
                    output.pass(&rest[..rest.len() - trimmed.len()]);
                    rest = trimmed;
                }
            }
            Err(reason) => {
                if !output.in_comment() {
                    mistakes.push((output.line, reason));
                }
                output.copy(OPEN);
            }
        }
    }
    output.copy(rest);
    match mistakes.is_empty() {
        true => Ok(output.finish()),
        false => Err(mistakes),
    }
}

struct Output {
    text: String,
    lines: Vec<usize>,
    /// The line of the original.
    line: usize,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            text: String::new(),
            lines: vec![1],
            line: 1,
        }
    }
}

impl Output {
    /// Takes text of the original over.
    fn copy(&mut self, text: &str) {
        self.text.push_str(text);
        for _ in text.matches('\n') {
            self.line += 1;
            self.lines.push(self.line);
        }
    }

    /// Puts text in the place of a template.
    fn insert(&mut self, text: &str) {
        self.text.push_str(text);
        self.lines.extend(text.matches('\n').map(|_| self.line));
    }

    /// Leaves text of the original out.
    fn pass(&mut self, text: &str) {
        self.line += text.matches('\n').count();
    }

    fn trim_end(&mut self) {
        let kept = self.text.trim_end().len();
        let gone = self.text.split_off(kept);
        let lines = self.lines.len() - gone.matches('\n').count();
        self.lines.truncate(lines);
    }

    fn in_comment(&self) -> bool {
        let line = self.text.rsplit('\n').next().unwrap_or_default();
        line.trim_start().starts_with('#')
    }

    fn finish(self) -> Expanded {
        Expanded {
            text: self.text,
            lines: self.lines,
        }
    }
}

struct Template {
    value: String,
    trim_before: bool,
    trim_after: bool,
}

/// Reads what stands between `${{` and `}}`, from its beginning.
struct Parser<'a, 'b> {
    rest: &'a str,
    lookup: &'b dyn Fn(&str) -> Option<String>,
}

impl Parser<'_, '_> {
    fn template(&mut self) -> Result<Template, String> {
        let trim_before = self.rest.starts_with("- ");
        if trim_before {
            self.rest = &self.rest[1..];
        }
        self.skip_space();
        let value = match self.rest.strip_prefix("/*") {
            Some(comment) => {
                let (_, rest) = comment.split_once("*/").ok_or("the comment has no */")?;
                self.rest = rest;
                String::new()
            }
            None => self.expression(0)?,
        };
        self.skip_space();
        let trim_after = self.rest.starts_with('-');
        if trim_after {
            self.rest = &self.rest[1..];
        }
        match self.rest.strip_prefix(CLOSE) {
            Some(rest) => self.rest = rest,
            None => return Err(self.unexpected("expected }}")),
        }
        Ok(Template {
            value,
            trim_before,
            trim_after,
        })
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self, expected: &str) -> String {
        let shown: String = self.rest.chars().take(12).collect();
        let shown = shown.lines().next().unwrap_or_default();
        format!("not a template that is understood: {expected} before '{shown}'")
    }

    /// Calls, each with the result of the one before as its last argument.
    fn expression(&mut self, depth: usize) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err("too many parentheses".to_owned());
        }
        let mut value = self.call(None, depth)?;
        loop {
            self.skip_space();
            match self.rest.strip_prefix('|') {
                Some(rest) => self.rest = rest,
                None => return Ok(value),
            }
            value = self.call(Some(value), depth)?;
        }
    }

    fn call(&mut self, piped: Option<String>, depth: usize) -> Result<String, String> {
        self.skip_space();
        if piped.is_none()
            && let Some(value) = self.operand(depth)?
        {
            return Ok(value);
        }
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err(self.unexpected("expected a function"));
        }
        self.rest = rest;
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(depth)? {
            arguments.push(argument);
        }
        arguments.extend(piped);
        self.apply(name, &arguments)
    }

    /// A text, a number, or an expression in parentheses; `None` if none of them comes next.
    fn operand(&mut self, depth: usize) -> Result<Option<String>, String> {
        self.skip_space();
        let rest = self.rest;
        let (value, end) = match rest.as_bytes().first() {
            Some(b'"') => {
                let end = end_of_text(rest).ok_or("the text has no closing quote")?;
                let value = serde_json::from_str(&rest[..end]);
                let value = value.map_err(|_| self.unexpected("expected a plain text"))?;
                (value, end)
            }
            Some(b'`') => {
                let length = rest[1..].find('`').ok_or("the text has no closing quote")?;
                (rest[1..=length].to_owned(), length + 2)
            }
            Some(b'0'..=b'9') => {
                let end = rest.find(|c: char| !c.is_ascii_digit());
                let end = end.unwrap_or(rest.len());
                (rest[..end].to_owned(), end)
            }
            Some(b'(') => {
                self.rest = &rest[1..];
                let value = self.expression(depth + 1)?;
                self.skip_space();
                let closed = self.rest.strip_prefix(')');
                self.rest = closed.ok_or_else(|| self.unexpected("expected )"))?;
                return Ok(Some(value));
            }
            Some(_) | None => return Ok(None),
        };
        self.rest = &rest[end..];
        Ok(Some(value))
    }

    fn apply(&self, name: &str, arguments: &[String]) -> Result<String, String> {
        let wrong =
            |expected: &str, given: &str| format!("{name}: expected {expected}, not '{given}'");
        match (name, arguments) {
            ("env", [variable]) => (self.lookup)(variable)
                .ok_or_else(|| format!("the environment variable '{variable}' is not set")),
            ("toBool", [text]) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
                // The value may be a secret.
                _ => Err("toBool: expected true or false".to_owned()),
            },
            ("toInt", [text]) => match text.parse::<i64>() {
                Ok(number) => Ok(number.to_string()),
                Err(_) => Err("toInt: expected a whole number".to_owned()),
            },
            ("toFloat", [text]) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number.to_string()),
                Ok(_) | Err(_) => Err("toFloat: expected a number".to_owned()),
            },
            ("indent", [spaces, text]) => match spaces.parse::<usize>() {
                Ok(spaces) if spaces <= INDENT_MAX => {
                    let pad = format!("\n{}", " ".repeat(spaces));
                    Ok(text.replace('\n', &pad))
                }
                Ok(_) | Err(_) => Err(wrong("a small number", spaces)),
            },
            ("env" | "toBool" | "toInt" | "toFloat" | "indent", _) => Err(format!(
                "{name}: not so many arguments: {}",
                arguments.len()
            )),
            _ => Err(format!(
                "there is no function '{name}': expected env, toBool, toInt, toFloat or indent"
            )),
        }
    }
}

/// The length of the quoted text at the beginning.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (position, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'\n' => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(position + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "HOST" => "a.example",
            "N" => "5",
            "YES" => "T",
            "PEM" => "one\ntwo\nthree",
            _ => return None,
        };
        Some(value.to_owned())
    }

    /// The text and the line each of its lines comes from, or the mistakes with their lines.
    type Expected<'a> = Result<(&'a str, &'a [usize]), &'a [(usize, &'a str)]>;

    fn check(text: &str, expected: Expected<'_>) {
        match (expand(text, &lookup), expected) {
            (Ok(found), Ok((text, lines))) => {
                assert_eq!((found.text.as_str(), found.lines.as_slice()), (text, lines));
            }
            (Err(found), Err(expected)) => {
                assert_eq!(found.len(), expected.len(), "{found:?}");
                for ((line, message), (at, part)) in found.iter().zip(expected) {
                    assert!(line == at && message.contains(part), "{line}: {message}");
                }
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn variables_are_put_in_and_changed_as_deck_does() {
        check("plain\ntext", Ok(("plain\ntext", &[1, 2])));
        check(
            "a: ${{ env \"HOST\" }}:${{env `N`}}\nb: ${{ env \"YES\" | toBool }}\nc: ${{ toInt (env \"N\") }}\nd: ${{ env \"N\" | toFloat }}\n",
            Ok(("a: a.example:5\nb: true\nc: 5\nd: 5\n", &[1, 2, 3, 4, 5])),
        );
        check(
            "k: |\n  ${{ env \"PEM\" | indent 2 }}\nz: ${{/* no */}}\ny:\n  ${{- \" 1\" -}}\n  x",
            Ok((
                "k: |\n  one\n  two\n  three\nz: \ny: 1x",
                &[1, 2, 2, 2, 3, 4],
            )),
        );
    }

    #[test]
    fn what_cannot_be_expanded_is_told_with_its_line_but_in_comments() {
        check(
            "a: ${{ env \"NO\" }}\n# ${{ env \"NO\" }}\n  # ${{ nonsense\nb: ${{ env \"N\" | toBool }} ${{ x \"y\" }}\nc: ${{ env \"HOST }}\nd: ${{ env \"HOST\" 1 }}\ne: ${{ env \"HOST\" ? }}",
            Err(&[
                (1, "'NO' is not set"),
                (4, "toBool: expected"),
                (4, "no function 'x'"),
                (5, "no closing quote"),
                (6, "not so many arguments"),
                (7, "expected }} before '? }}'"),
            ]),
        );
        check("# ${{ env \"NO\" }}", Ok(("# ${{ env \"NO\" }}", &[1])));
        check(
            &format!("{}{}", OPEN, "(".repeat(100)),
            Err(&[(1, "parentheses")]),
        );
    }
}
