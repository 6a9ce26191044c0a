//! Simple regexes beside the library's.

use super::*;
use proptest::prelude::*;
use regex::bytes::RegexBuilder;

/// What the library says of the same.
fn expected(pattern: &str, text: &str) -> Option<Vec<Option<Range<usize>>>> {
    let anchored = format!("^(?:{pattern})");
    let regex = RegexBuilder::new(&anchored).unicode(false).build();
    let regex = regex.expect("what is simple is valid");
    let groups = regex.captures(text.as_bytes())?;
    Some(
        groups
            .iter()
            .map(|group| group.map(|group| group.range()))
            .collect(),
    )
}

#[track_caller]
fn check(pattern: &str, texts: &[&str]) {
    let simple = Simple::parse(pattern).unwrap_or_else(|| panic!("{pattern} is not simple"));
    for text in texts {
        let outcome = match expected(pattern, text) {
            Some(groups) => Outcome::Found(groups),
            None => Outcome::Nothing,
        };
        assert_eq!(simple.run(text.as_bytes()), outcome, "{pattern} on {text}");
    }
}

#[test]
fn usual_patterns_of_routes_are_simple() {
    check(
        r"/api/resource-1/\d+$",
        &[
            "/api/resource-1/12",
            "/api/resource-1/",
            "/api/resource-1/1x",
        ],
    );
    check(
        r"/users/(?<id>\d+)/orders/(?P<o>[a-z0-9-]+)",
        &["/users/1/orders/a-1/x", "/users//orders/a"],
    );
    check(
        r"^/v\d/(a|bc|b)(/.*)?$",
        &["/v1/a", "/v1/bc/x/y", "/v1/bcd", "/v1/b/"],
    );
    check(
        r"/(?:x|yy)z?.*\.(png|jpe?g)$",
        &["/xz/1.2.png", "/yy.jpg", "/yyz.jpeg", "/x.gif"],
    );
    check(
        r"/[^/]+/[\w.-]{2,4}(?:;v=\d{1,2})??",
        &["/a/bcdef", "/a/b", "/a/bc;v=12", "//bc"],
    );
    check(r"/a+?b*?(c+?)$", &["/aabbcc", "/ac", "/b"]);
    check("", &["", "/x"]);
    check("/a|/ab|", &["/ab", "x"]);
}

#[test]
fn what_is_not_understood_is_left_to_the_library() {
    for pattern in [
        r"/a\b",
        r"(?i)/a",
        r"(?:ab)*",
        r"(a)+",
        r"a**",
        r"a{2",
        "/é",
        r"\p{L}",
        "[[:alpha:]]",
        "[a&&b]",
        "(",
        ")",
        "a)",
        "[b-a]",
        "a{3,2}",
        "a{2000}",
        r"\x41",
        "(?=a)",
        "(?<n>a)(?<n>b)",
        "$*",
        "[a",
        "[]a]",
    ] {
        assert_eq!(Simple::parse(pattern), None, "{pattern}");
    }
}

#[test]
fn a_match_that_would_take_long_is_given_up() {
    let simple = Simple::parse("/.*.*.*.*.*x").unwrap();
    assert_eq!(simple.run(&[b'/'; 200]), Outcome::Hard);
}

#[test]
fn names_belong_to_groups() {
    let simple = Simple::parse("/(a)(?<b>c)(?:d)").unwrap();
    assert_eq!(
        [0, 1, 2, 3].map(|group| simple.name(group)),
        [None, None, Some("b"), None]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn simple_patterns_match_as_the_library_does(
        pattern in r"([ab/]|\\d|\\W|[.^$|]|\((\?:|\?<[xy]>)?|\)\??\??|[*+?]\??|\{[012](,[23]?)?\}|\[\^?(a|b-c|\\d|/)+-?\]){0,12}",
        text in "[abc/1]{0,10}",
    ) {
        if let Some(simple) = Simple::parse(&pattern) {
            let outcome = expected(&pattern, &text).map_or(Outcome::Nothing, Outcome::Found);
            let found = simple.run(text.as_bytes());
            if found != Outcome::Hard {
                prop_assert_eq!(found, outcome);
            }
        }
    }
}

#[test]
fn a_step_takes_little_memory() {
    assert_eq!(size_of::<Step>(), 32);
}
