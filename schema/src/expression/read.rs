//! From text to expression, in one pass.

use super::{
    AddressTest, Block, End, Expression, ExpressionError, NumberField, NumberTest, Predicate,
    Subsystem, TextField, TextTest,
};
use crate::check::regex::REGEX_BYTES_MAX;
use regex::RegexBuilder;
use std::net::IpAddr;

/// How deep parentheses may be nested: what walks an expression recurses this far.
const DEPTH_MAX: usize = 64;

pub(super) fn expression(
    source: &str,
    subsystem: Subsystem,
) -> Result<Expression, ExpressionError> {
    let mut reader = Reader {
        source,
        at: 0,
        depth: 0,
        subsystem,
    };
    let expression = reader.all()?;
    reader.skip();
    if reader.at < source.len() {
        return Err(reader.expected("&&, || or the end"));
    }
    Ok(expression)
}

struct Reader<'a> {
    source: &'a str,
    at: usize,
    depth: usize,
    subsystem: Subsystem,
}

type Read<T> = Result<T, ExpressionError>;

impl<'a> Reader<'a> {
    /// Terms joined by `&&`, which binds less than `||`.
    fn all(&mut self) -> Read<Expression> {
        let mut parts = vec![self.any()?];
        while self.takes("&&") {
            parts.push(self.any()?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Expression::All(parts),
        })
    }

    fn any(&mut self) -> Read<Expression> {
        let mut parts = vec![self.term()?];
        while self.takes("||") {
            parts.push(self.term()?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Expression::Any(parts),
        })
    }

    fn term(&mut self) -> Read<Expression> {
        self.skip();
        let begin = self.at;
        let not = self.takes("!");
        if self.takes("(") {
            self.deeper(begin)?;
            let inner = self.all()?;
            if !self.takes(")") {
                return Err(self.expected("&&, || or )"));
            }
            self.depth -= 1;
            return Ok(match not {
                true => Expression::Not(Box::new(inner)),
                false => inner,
            });
        }
        if not {
            return Err(self.error(begin, "expected term: ! stands before parentheses only"));
        }
        self.predicate().map(Expression::Is)
    }

    fn deeper(&mut self, begin: usize) -> Read<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(begin, format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn predicate(&mut self) -> Read<Predicate> {
        self.skip();
        let begin = self.at;
        let subject = self.subject()?;
        self.skip();
        let operator = self.operator()?;
        self.skip();
        let at = self.at;
        let value = self.value()?;
        if subject.lower && !matches!(subject.field, Field::Text(_)) {
            let reason =
                "lower-case transformation function only supported with String type fields";
            return Err(self.error(begin, reason));
        }
        if operator == Operator::Regex
            && let Value::Text(pattern) = &value
        {
            let compiled = RegexBuilder::new(pattern)
                .size_limit(REGEX_BYTES_MAX)
                .build();
            compiled.map_err(|error| self.error(at, error.to_string()))?;
        }
        join(subject, operator, value).map_err(|reason| self.error(begin, reason))
    }

    /// A field, and functions around it.
    fn subject(&mut self) -> Read<Subject> {
        let begin = self.at;
        let name = self.identifier().ok_or_else(|| self.expected("term"))?;
        if !self.takes("(") {
            let field = self
                .field(name)
                .map_err(|reason| self.error(begin, reason))?;
            return Ok(Subject {
                field,
                lower: false,
                any: false,
            });
        }
        self.deeper(begin)?;
        self.skip();
        let mut subject = self.subject()?;
        match name {
            "lower" => subject.lower = true,
            "any" => subject.any = true,
            _ => {
                let reason = format!("unknown transformation function: {name}");
                return Err(self.error(begin, reason));
            }
        }
        if !self.takes(")") {
            return Err(self.expected(")"));
        }
        self.depth -= 1;
        Ok(subject)
    }

    fn field(&self, name: &str) -> Result<Field, String> {
        let common = match name {
            "net.protocol" => Field::Text(TextField::Protocol),
            "tls.sni" => Field::Text(TextField::Sni),
            "net.src.ip" => Field::Address(End::Source),
            "net.dst.ip" => Field::Address(End::Destination),
            "net.src.port" => Field::Number(NumberField::Port(End::Source)),
            // The former is its deprecated name.
            "net.port" | "net.dst.port" => Field::Number(NumberField::Port(End::Destination)),
            _ => match self.subsystem {
                Subsystem::Http => return http_field(name),
                Subsystem::Stream => return Err(unknown(name)),
            },
        };
        Ok(common)
    }

    fn operator(&mut self) -> Read<Operator> {
        const SIGNS: &[(&str, Operator)] = &[
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("~", Operator::Regex),
            ("^=", Operator::Prefix),
            ("=^", Operator::Suffix),
            (">=", Operator::GreaterOrEqual),
            (">", Operator::Greater),
            ("<=", Operator::LessOrEqual),
            ("<", Operator::Less),
            ("in", Operator::In),
            ("contains", Operator::Contains),
        ];
        for (sign, operator) in SIGNS {
            if self.takes(sign) {
                return Ok(*operator);
            }
        }
        if self.takes("not") && self.takes("in") {
            return Ok(Operator::NotIn);
        }
        Err(self.expected("operator"))
    }

    fn value(&mut self) -> Read<Value> {
        let rest = &self.source[self.at..];
        if rest.starts_with("r#\"") {
            return self.raw().map(Value::Text);
        }
        if rest.starts_with('"') {
            return self.quoted().map(Value::Text);
        }
        let signed = rest.strip_prefix('-').unwrap_or(rest);
        let of_value = |byte: &u8| byte.is_ascii_hexdigit() || b".:/x".contains(byte);
        let bytes = signed.bytes().take_while(of_value).count() + rest.len() - signed.len();
        let token = &rest[..bytes];
        let value = if token.contains(['.', ':']) {
            address(token)
        } else {
            number(token)
        };
        let Some(value) = value else {
            return Err(self.expected("value"));
        };
        let value = value.map_err(|reason| self.error(self.at, reason))?;
        self.at += bytes;
        Ok(value)
    }

    fn raw(&mut self) -> Read<String> {
        const OPEN: &str = "r#\"";
        const CLOSE: &str = "\"#";
        let inner = self.at + OPEN.len();
        let Some(bytes) = self.source[inner..].find(CLOSE) else {
            return Err(self.error(self.at, "this raw string has no end: \"#"));
        };
        self.at = inner + bytes + CLOSE.len();
        Ok(self.source[inner..inner + bytes].to_owned())
    }

    fn quoted(&mut self) -> Read<String> {
        let begin = self.at;
        let mut text = String::new();
        let mut characters = self.source[begin..].char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at = begin + at + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, 't')) => text.push('\t'),
                    Some(_) | None => {
                        let reason = "expected one of \\\" \\\\ \\n \\r \\t; a raw string r#\"…\"# takes a backslash as it is";
                        return Err(self.error(begin + at, reason));
                    }
                },
                _ => text.push(character),
            }
        }
        Err(self.error(begin, "this string has no end"))
    }

    fn identifier(&mut self) -> Option<&'a str> {
        let rest = &self.source[self.at..];
        let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
        rest.bytes()
            .next()
            .filter(|first| first.is_ascii_alphabetic())?;
        let bytes = rest.bytes().take_while(of_name).count();
        self.at += bytes;
        Some(&rest[..bytes])
    }

    /// Whether `token` comes next; then it is behind.
    fn takes(&mut self, token: &str) -> bool {
        let before = self.at;
        self.skip();
        let found = self.source[self.at..].starts_with(token);
        self.at = if found { self.at + token.len() } else { before };
        found
    }

    fn skip(&mut self) {
        let space = |byte: &u8| b" \t\r\n".contains(byte);
        self.at += self.source[self.at..].bytes().take_while(space).count();
    }

    fn expected(&mut self, what: &str) -> ExpressionError {
        self.skip();
        self.error(self.at, format!("expected {what}"))
    }

    fn error(&self, at: usize, reason: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.source, at, reason)
    }
}

struct Subject {
    field: Field,
    lower: bool,
    any: bool,
}

enum Field {
    Text(TextField),
    Number(NumberField),
    Address(End),
}

enum Value {
    Text(String),
    Number(i64),
    Address(IpAddr),
    Block(Block),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Regex,
    Prefix,
    Suffix,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Contains,
}

impl Operator {
    fn of_texts(self) -> Result<TextTest, &'static str> {
        match self {
            Self::Equal => Ok(TextTest::Equal),
            Self::NotEqual => Ok(TextTest::NotEqual),
            Self::Regex => Ok(TextTest::Regex),
            Self::Prefix => Ok(TextTest::Prefix),
            Self::Suffix => Ok(TextTest::Suffix),
            Self::Contains => Ok(TextTest::Contains),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => Err(NUMBERS),
            Self::In | Self::NotIn => Err(BLOCKS),
        }
    }

    fn of_numbers(self) -> Result<NumberTest, &'static str> {
        match self {
            Self::Equal => Ok(NumberTest::Equal),
            Self::NotEqual => Ok(NumberTest::NotEqual),
            Self::Less => Ok(NumberTest::Less),
            Self::LessOrEqual => Ok(NumberTest::LessOrEqual),
            Self::Greater => Ok(NumberTest::Greater),
            Self::GreaterOrEqual => Ok(NumberTest::GreaterOrEqual),
            Self::Regex => Err(REGEXES),
            Self::Prefix | Self::Suffix => Err(ENDS),
            Self::Contains => Err(CONTAINS),
            Self::In | Self::NotIn => Err(BLOCKS),
        }
    }

    fn of_addresses(self, value: IpAddr) -> Result<AddressTest, &'static str> {
        match self {
            Self::Equal => Ok(AddressTest::Equal(value)),
            Self::NotEqual => Ok(AddressTest::NotEqual(value)),
            Self::In | Self::NotIn => Err(BLOCKS),
            Self::Regex => Err(REGEXES),
            Self::Prefix | Self::Suffix => Err(ENDS),
            Self::Contains => Err(CONTAINS),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => Err(NUMBERS),
        }
    }

    fn of_blocks(self, block: Block) -> Result<AddressTest, &'static str> {
        match self {
            Self::In => Ok(AddressTest::In(block)),
            Self::NotIn => Ok(AddressTest::NotIn(block)),
            Self::Equal
            | Self::NotEqual
            | Self::Regex
            | Self::Prefix
            | Self::Suffix
            | Self::Contains
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => Err(MISMATCH),
        }
    }
}

// Kong's words.
const MISMATCH: &str = "Type mismatch between the LHS and RHS values of predicate";
const BLOCKS: &str = "In/NotIn operators only supports IP in CIDR";
const REGEXES: &str = "Regex operators only supports string operands";
const ENDS: &str = "Regex/Prefix/Postfix operators only supports string operands";
const CONTAINS: &str = "Contains operator only supports string operands";
const NUMBERS: &str =
    "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands";

fn join(subject: Subject, operator: Operator, value: Value) -> Result<Predicate, &'static str> {
    let Subject { field, lower, any } = subject;
    match (field, value) {
        (Field::Text(field), Value::Text(value)) => Ok(Predicate::Text {
            field,
            lower,
            any,
            test: operator.of_texts()?,
            value,
        }),
        (Field::Number(field), Value::Number(value)) => Ok(Predicate::Number {
            field,
            test: operator.of_numbers()?,
            value,
        }),
        (Field::Address(end), Value::Address(value)) => Ok(Predicate::Address {
            end,
            test: operator.of_addresses(value)?,
        }),
        (Field::Address(end), Value::Block(block)) => Ok(Predicate::Address {
            end,
            test: operator.of_blocks(block)?,
        }),
        _ => Err(match operator {
            Operator::In | Operator::NotIn => BLOCKS,
            Operator::Regex => REGEXES,
            Operator::Equal
            | Operator::NotEqual
            | Operator::Prefix
            | Operator::Suffix
            | Operator::Contains
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => MISMATCH,
        }),
    }
}

fn http_field(name: &str) -> Result<Field, String> {
    let text = match name {
        "http.method" => TextField::Method,
        "http.host" => TextField::Host,
        "http.path" => TextField::Path,
        "http.path.segments.len" => return Ok(Field::Number(NumberField::SegmentCount)),
        _ => {
            let (family, part) = name.rsplit_once('.').unwrap_or_default();
            match family {
                "http.path.segments" => segments(part)
                    .ok_or("illformed http.path.segments.* field: expected an index, <first>_<last>, or len")?,
                "http.headers" if !part.is_empty() => TextField::Header(part.to_ascii_lowercase()),
                "http.queries" if !part.is_empty() => TextField::Query(part.to_owned()),
                _ => return Err(unknown(name)),
            }
        }
    };
    Ok(Field::Text(text))
}

fn unknown(name: &str) -> String {
    format!("Unknown LHS field: {name}")
}

fn segments(range: &str) -> Option<TextField> {
    let index = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = text == "0" || !text.starts_with('0');
        (plain && canonical).then(|| text.parse::<usize>().ok())?
    };
    let Some((first, last)) = range.split_once('_') else {
        let first = index(range)?;
        return Some(TextField::Segments { first, last: first });
    };
    let (first, last) = (index(first)?, index(last)?);
    (first < last).then_some(TextField::Segments { first, last })
}

/// `None` if `token` is nothing like a number.
fn number(token: &str) -> Option<Result<Value, String>> {
    let (negative, digits) = match token.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, token),
    };
    let octal = digits.strip_prefix('0').filter(|rest| {
        !rest.is_empty() && rest.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
    });
    let (digits, radix) = match (digits.strip_prefix("0x"), octal) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).map_err(|error| error.to_string());
    Some(number.map(|number| Value::Number(if negative { -number } else { number })))
}

/// `None` if `token` is nothing like an address.
fn address(token: &str) -> Option<Result<Value, String>> {
    if token.starts_with('-') || token.contains('x') {
        return None;
    }
    if !token.contains('/') {
        let address = token.parse().map(Value::Address);
        return Some(address.map_err(|_| format!("`{token}` is not an IP address")));
    }
    let block = Block::parse(token).ok_or_else(|| format!("`{token}` is not a CIDR block"));
    Some(block.and_then(|block| {
        if block.is_network() {
            Ok(Value::Block(block))
        } else {
            Err("host part of address was not zero".to_owned())
        }
    }))
}
