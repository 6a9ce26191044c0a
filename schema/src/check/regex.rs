//! Regular expressions in configuration: those this software can run, in bounded memory.

use super::text::Verdict;
use ::regex::RegexBuilder;

/// The memory one compiled regular expression may take.
pub(crate) const REGEX_BYTES_MAX: usize = 1 << 20;

/// A regular expression that is searched for in texts.
pub(crate) fn plain(text: &str) -> Verdict {
    if compiles(text) {
        Ok(())
    } else {
        Err(format!("not a valid regex: {text}"))
    }
}

/// A regular expression, or `*` for anything.
pub(crate) fn or_asterisk(text: &str) -> Verdict {
    if text == "*" || compiles(text) {
        Ok(())
    } else {
        Err(format!("'{text}' is not a valid regex"))
    }
}

fn compiles(text: &str) -> bool {
    let compiled = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    compiled.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_compiles_in_bounded_memory() {
        assert_eq!(plain("^curl/.*$"), Ok(()));
        assert_eq!(
            plain("(https?:/.*"),
            Err("not a valid regex: (https?:/.*".to_owned())
        );
        assert!(plain("(a{1000}){1000}").is_err());
        assert_eq!(or_asterisk("*"), Ok(()));
        assert_eq!(or_asterisk("["), Err("'[' is not a valid regex".to_owned()));
    }
}
