//! How credentials are written in requests, and fields in configurations.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sluice_schema::check::text::is_vault_reference;

/// As clients write it: with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of base64, in either alphabet, with padding or without.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let other = |byte| match byte {
        b'+' => b'-',
        b'/' => b'_',
        byte => byte,
    };
    let bytes: Vec<u8> = text.bytes().map(other).collect();
    LENIENT.decode(bytes).ok()
}

/// The first value of a header, if it is text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// What follows the name of a scheme, in whatever case, and space. Not empty.
pub(super) fn after_scheme<'v>(value: &'v str, scheme: &str) -> Option<&'v str> {
    let value = value.trim_start();
    let (name, rest) = value.split_at_checked(scheme.len())?;
    let text = rest.trim_start();
    let is_so = name.eq_ignore_ascii_case(scheme) && text.len() < rest.len();
    Some(text).filter(|text| is_so && !text.is_empty())
}

/// The values of cookies of a name, in their order.
pub(super) fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';'));
    pairs
        .filter_map(move |pair| {
            pair.trim()
                .split_once('=')
                .filter(|(found, _)| *found == name)
        })
        .map(|(_, value)| value)
}

/// A challenge to clients: a scheme, perhaps with a realm.
pub(super) fn challenge(scheme: &str, realm: Option<&str>) -> Result<HeaderValue, String> {
    let text = realm.map_or_else(
        || scheme.to_owned(),
        |realm| format!("{scheme} realm=\"{realm}\""),
    );
    HeaderValue::try_from(text).map_err(|_| "the realm cannot be in a header".to_owned())
}

/// A secret of the configuration. A reference to a vault is none: nothing looks it up here, and anybody can guess it.
pub(super) fn secret(text: String) -> Result<String, String> {
    if is_vault_reference(&text) {
        return Err("its secret is in a vault, which this data plane cannot open".to_owned());
    }
    if text.is_empty() {
        return Err("its secret is empty".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_it_comes() {
        for text in ["-_8", "+/8=", "-_8=", "+/8"] {
            assert_eq!(base64(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        for text in ["a", "a b", "%"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn a_scheme_has_a_name_and_a_value() {
        let check =
            |value, expected| assert_eq!(after_scheme(value, "Bearer"), expected, "{value}");
        check("Bearer a", Some("a"));
        check(" bearer   a b", Some("a b"));
        check("Bearer", None);
        check("Bearer ", None);
        check("Bearera", None);
        check("ä", None);
    }

    #[test]
    fn cookies_are_found_in_every_header_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; ab=2;b=x=y", "a=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        let all = |name| cookies(&headers, name).collect::<Vec<_>>();
        assert_eq!(all("a"), ["1", "3"]);
        assert_eq!(all("b"), ["x=y"]);
        assert!(all("c").is_empty());
    }
}
