//! Bodies of `multipart/form-data`, whose plain parts are edited; the others stay as they are, byte for byte.

use super::edits::Edits;

/// A part: its head and content as they came.
struct Part {
    name: Option<String>,
    bytes: Vec<u8>,
}

/// The edited body; `None` if it is not one of this boundary. Appending does nothing, as in Kong.
pub(super) fn edit(body: &[u8], boundary: &str, edits: Edits<'_, String>) -> Option<Vec<u8>> {
    let mut parts = parse(body, boundary)?;
    let has = |parts: &[Part], name: &str| parts.iter().any(|part| part.is(name));
    for name in edits.remove {
        parts.retain(|part| !part.is(name));
    }
    for (old, new) in edits.rename {
        for part in &mut parts {
            if part.is(old) {
                *part = Part::plain(&new, part.content());
            }
        }
    }
    for (name, value) in edits.replace {
        for part in &mut parts {
            if part.is(name) {
                *part = Part::plain(name, value.as_bytes());
            }
        }
    }
    for (name, value) in edits.add {
        if !has(&parts, name) {
            parts.push(Part::plain(name, value.as_bytes()));
        }
    }
    let mut edited = Vec::with_capacity(body.len());
    for part in parts {
        edited.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        edited.extend_from_slice(&part.bytes);
        edited.extend_from_slice(b"\r\n");
    }
    edited.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Some(edited)
}

/// The boundary that a type of content names.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.split(';').skip(1).map(str::trim);
    let mut named = parameters.filter_map(|parameter| parameter.split_once('='));
    let (_, value) = named.find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
    Some(value.trim_matches('"')).filter(|boundary| !boundary.is_empty())
}

impl Part {
    fn plain(name: &str, value: &[u8]) -> Self {
        // A name must not end its own quotes or line.
        let quoted = name.replace(['"', '\r', '\n'], "_");
        let head = format!("Content-Disposition: form-data; name=\"{quoted}\"\r\n\r\n");
        Self {
            name: Some(name.to_owned()),
            bytes: [head.as_bytes(), value].concat(),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    fn content(&self) -> &[u8] {
        let end = find(&self.bytes, b"\r\n\r\n").map_or(self.bytes.len(), |at| at + 4);
        &self.bytes[end..]
    }
}

fn parse(body: &[u8], boundary: &str) -> Option<Vec<Part>> {
    let first = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest = &body[find(body, first.as_bytes())? + first.len()..];
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n")?;
        let end = find(rest, between.as_bytes())?;
        let bytes = rest[..end].to_vec();
        let head = find(&bytes, b"\r\n\r\n").map(|end| String::from_utf8_lossy(&bytes[..end]));
        let name = head.and_then(|head| name(&head));
        parts.push(Part { name, bytes });
        rest = &rest[end + between.len()..];
    }
    Some(parts)
}

/// The name that a part's head gives; none for files.
fn name(head: &str) -> Option<String> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut dispositions =
        lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-disposition"));
    let (_, value) = dispositions.next()?;
    let parameters: Vec<_> = value
        .split(';')
        .filter_map(|part| part.trim().split_once('='))
        .collect();
    if parameters
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("filename"))
    {
        return None;
    }
    let mut names = parameters
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("name"));
    names
        .next()
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_parts_are_edited_and_files_stay() {
        let part = |head: &str, value: &str| {
            format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        let file = part("name=\"a\"; filename=\"f\"", "a\r\nfile");
        let body = part("name=\"a\"", "1")
            + &file
            + &part("name=\"b\"", "2")
            + &part("name=\"c\"", "3")
            + "--xyz--\r\n";
        let pair = |name: &'static str, value: &str| (name, value.to_owned());
        let edits = Edits {
            remove: &["a".to_owned()],
            rename: vec![pair("b", "d")],
            replace: vec![pair("c", "4"), pair("none", "5")],
            add: vec![pair("c", "6"), pair("e", "7")],
            append: vec![],
        };
        let edited = edit(body.as_bytes(), "xyz", edits).unwrap_or_default();
        let expected = file
            + &part("name=\"d\"", "2")
            + &part("name=\"c\"", "4")
            + &part("name=\"e\"", "7")
            + "--xyz--\r\n";
        assert_eq!(String::from_utf8_lossy(&edited), expected);
        assert_eq!(
            boundary("multipart/form-data; charset=x; boundary=\"xyz\""),
            Some("xyz")
        );
        assert_eq!(boundary("multipart/form-data"), None);
    }
}
