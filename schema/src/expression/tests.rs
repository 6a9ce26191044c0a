use super::*;
use proptest::prelude::*;

/// Fully parenthesised.
fn shown(expression: &Expression) -> String {
    let join = |parts: &[Expression], sign| {
        let parts: Vec<_> = parts.iter().map(shown).collect();
        format!("({})", parts.join(sign))
    };
    match expression {
        Expression::All(parts) => join(parts, " && "),
        Expression::Any(parts) => join(parts, " || "),
        Expression::Not(inner) => format!("!{}", shown(inner)),
        Expression::Is(Predicate::Number { value, .. }) => value.to_string(),
        Expression::Is(predicate) => format!("{predicate:?}"),
    }
}

fn structure(text: &str, expected: &str) {
    let text = text.replace('p', "net.dst.port ==");
    assert_eq!(shown(&parse(&text, Subsystem::Http).unwrap()), expected);
}

fn wrong(text: &str, line: usize, column: usize, reason: &str) {
    let error = parse(text, Subsystem::Http).unwrap_err();
    assert_eq!(
        (error.line, error.column, error.reason.as_str()),
        (line, column, reason),
        "{text}"
    );
}

fn text(source: &str) -> (TextField, bool, bool, TextTest, String) {
    let parsed = parse(source, Subsystem::Http).unwrap();
    let Expression::Is(Predicate::Text {
        field,
        lower,
        any,
        test,
        value,
    }) = parsed
    else {
        panic!("{parsed:?}");
    };
    (field, lower, any, test, value)
}

#[test]
fn or_binds_tighter_than_and() {
    structure("p 1 && p 2 || p 3", "(1 && (2 || 3))");
    structure("p 1 || p 2 && p 3 || p 4", "((1 || 2) && (3 || 4))");
    structure("p 1 || ((p 2) && (p 3)) || p 4", "(1 || (2 && 3) || 4)");
    structure("!(p 1) && p 2 && ! (p 3)", "(!1 && 2 && !3)");
    structure("((p 1))", "1");
}

#[test]
fn numbers_are_decimal_octal_or_hexadecimal() {
    structure("p 010&&p 09 && p -0x1F&&p -3", "(8 && 9 && -31 && -3)");
}

#[test]
fn texts_are_quoted_or_raw() {
    let (_, _, _, _, value) = text(r##"http.path ~ r#"^/(\d+)"$"#"##);
    assert_eq!(value, r#"^/(\d+)"$"#);
    let (_, _, _, test, value) = text(r#"http.path contains"\"\\\n\r\té""#);
    assert_eq!(
        (test, value.as_str()),
        (TextTest::Contains, "\"\\\n\r\t\u{e9}")
    );
}

#[test]
fn functions_nest() {
    let (field, lower, any, test, _) = text(r#"any( lower(http.headers.X_Foo)) =^ "a""#);
    assert_eq!(
        (field, lower, any, test),
        (
            TextField::Header("x_foo".into()),
            true,
            true,
            TextTest::Suffix
        )
    );
    let (_, lower, any, test, _) = text(r#"lower(lower(http.queries.a_B)) != "a""#);
    assert_eq!((lower, any, test), (true, false, TextTest::NotEqual));
}

#[test]
fn segments_are_one_or_a_range() {
    let field = |name: &str| text(&format!("http.path.segments.{name} == \"a\"")).0;
    assert_eq!(field("0"), TextField::Segments { first: 0, last: 0 });
    assert_eq!(field("2_10"), TextField::Segments { first: 2, last: 10 });
    for bad in ["01", "1_1", "2_1", "a", "_1", "1_", "0_01", "1_2_3"] {
        let text = format!("http.path.segments.{bad} == \"a\"");
        let error = parse(&text, Subsystem::Http).unwrap_err();
        assert!(error.reason.starts_with("illformed"), "{text}: {error}");
    }
}

#[test]
fn addresses_are_compared_with_addresses_and_blocks() {
    for good in [
        "net.src.ip == 10.0.0.1",
        "net.dst.ip != fd00::1",
        "net.src.ip in 10.0.0.0/8",
        "net.src.ip not \n in ::/0",
        "net.src.ip in 0.0.0.0/0",
    ] {
        assert!(parse(good, Subsystem::Stream).is_ok(), "{good}");
    }
    let block = Block::parse("10.1.0.0/16").unwrap();
    assert!(block.holds([10, 1, 2, 3].into()) && !block.holds([10, 2, 2, 3].into()));
    assert!(!block.holds("::1".parse().unwrap()));
}

#[test]
fn errors_say_where_and_what() {
    wrong("", 1, 1, "expected term");
    wrong("net.dst.port >=", 1, 16, "expected value");
    wrong("net.dst.port = 1", 1, 14, "expected operator");
    wrong("net.dst.port == 1 #", 1, 19, "expected &&, || or the end");
    wrong("(net.dst.port == 1", 1, 19, "expected &&, || or )");
    wrong("http.path == 'x'", 1, 14, "expected value");
    wrong(
        "net.dst.port == 99999999999999999999",
        1,
        17,
        "number too large to fit in target type",
    );
    wrong(
        "net.src.ip == 1.2.3.400",
        1,
        15,
        "`1.2.3.400` is not an IP address",
    );
    wrong(
        "net.src.ip in 10.0.0.0/33",
        1,
        15,
        "`10.0.0.0/33` is not a CIDR block",
    );
    wrong(
        "net.src.ip in 10.1.1.1/8",
        1,
        15,
        "host part of address was not zero",
    );
    wrong("a == 1", 1, 1, "Unknown LHS field: a");
    wrong(
        "foo(http.path) == \"\"",
        1,
        1,
        "unknown transformation function: foo",
    );
    wrong(
        "http.path == \"\\d\"",
        1,
        15,
        "expected one of \\\" \\\\ \\n \\r \\t; a raw string r#\"…\"# takes a backslash as it is",
    );
    wrong("http.path == \"a", 1, 14, "this string has no end");
    wrong(
        "! http.path == \"a\"",
        1,
        1,
        "expected term: ! stands before parentheses only",
    );
    let error = parse(
        "http.host == \"\u{e9}\" &&\n http.path ~ \"(\"",
        Subsystem::Http,
    )
    .unwrap_err();
    assert_eq!((error.line, error.column), (2, 14));
    assert!(
        error
            .to_string()
            .starts_with(" --> 2:14\n  |\n2 |  http.path ~ \"(\"\n  |              ^---\n  |\n  = regex parse error"),
        "{error}"
    );
}

#[test]
fn types_must_agree() {
    for (bad, reason) in [
        ("http.path == 1", "Type mismatch"),
        ("net.dst.port == \"1\"", "Type mismatch"),
        ("net.src.ip == 10.0.0.0/8", "Type mismatch"),
        ("net.src.ip in 10.0.0.1", "In/NotIn"),
        ("http.path in \"a\"", "In/NotIn"),
        ("net.dst.port ~ \"a\"", "Regex operators"),
        ("net.dst.port ^= 1", "Regex/Prefix"),
        ("http.path > \"a\"", "Greater/"),
        ("net.dst.port contains 1", "Contains"),
        ("lower(net.dst.port) == 1", "lower-case"),
    ] {
        let error = parse(bad, Subsystem::Http).unwrap_err();
        assert!(error.reason.starts_with(reason), "{bad}: {error}");
    }
}

#[test]
fn streams_have_no_requests() {
    assert!(parse("http.path == \"/\"", Subsystem::Http).is_ok());
    assert!(parse("http.path == \"/\"", Subsystem::Stream).is_err());
    assert_eq!(Subsystem::of(["tls"]), Subsystem::Stream);
    assert_eq!(Subsystem::of(["https", "http"]), Subsystem::Http);
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}net.port==1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(64), Subsystem::Http).is_ok());
    assert!(parse(&nested(65), Subsystem::Http).is_err());
    assert!(parse(&"any(".repeat(10_000), Subsystem::Http).is_err());
}

proptest! {
    #[test]
    fn any_text_is_handled(text in r#"(http\.path|net\.src\.ip|any|lower|[()!&|=~^<>"\\#r0-9a-z./: \n\u{e9}-]){0,24}"#) {
        if let Err(error) = parse(&text, Subsystem::Http) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
